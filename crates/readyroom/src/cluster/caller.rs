//! Implicit turns: what a caller sends joins the turn that it has open, and what it reads is its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::words::{self, Sent};
use super::{Cluster, SubmitError};
use crate::budget::Budget;
use crate::driver::ContextCommand;
use crate::error::{Failure, FailureKind};
use crate::event::TurnId;
use crate::job::Mode;
use crate::pool::dispatcher::{Addition, Submission};
use crate::pool::router::Routing;
use crate::pool::{CallerId, Input, Response, Sink, Taken, Wanted};

/// The turn that a caller has open.
#[derive(Debug, Clone)]
struct Open {
    turn: TurnId,
    /// Its context commands, for a turn in its place should it be closed before its prompt comes.
    commands: Vec<ContextCommand>,
    instance: usize,
    address: Option<usize>,
    /// Context commands whose acknowledgement has not been read.
    unread: usize,
    /// An acknowledgement was read: a further context command opens a new turn.
    read: bool,
}

#[derive(Debug, Default)]
pub(super) struct Callers {
    open: Mutex<HashMap<CallerId, Open>>,
}

impl Callers {
    fn get(&self, caller: CallerId) -> Option<Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&caller).cloned()
    }

    fn set(&self, caller: CallerId, open: Option<Open>) {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open {
            Some(open) => all.insert(caller, open),
            None => all.remove(&caller),
        };
    }
}

impl Cluster {
    /// Sends a text for a caller. A context command opens the caller's turn or joins the one that is open; anything
    /// else is the prompt, which closes the turn and lets it run. Returns the index of the instance: a plan under
    /// `least_busy`, final otherwise.
    ///
    /// One caller must not send from two places at once. Most use [`super::blocking`], where a thread is a caller.
    ///
    /// # Errors
    /// `QueueFull`, and `Refused` with `BadInput` for an empty prompt or a command without its argument, or when no
    /// instance is left.
    pub async fn send_as(
        &self,
        caller: CallerId,
        text: &str,
        address: Option<usize>,
        key: Option<String>,
    ) -> Result<usize, SubmitError> {
        let sent = words::read(text, &self.inner.contract.definition.commands)?;
        self.check_address(address)?;
        let is_final = self.inner.options.routing != Routing::LeastBusy;
        let fits =
            |open: &Open| address.is_none() || open.address == address || (is_final && Some(open.instance) == address);
        let mut open = self.inner.callers.get(caller);
        if let Some(elsewhere) = open.take_if(|open| !fits(open)) {
            // A caller has one turn open. Left alone, this one would keep its instance until its time is over.
            self.inner.callers.set(caller, None);
            self.inner.pool.input(Input::Release(elsewhere.turn));
        }
        let index = match (sent, open) {
            (Sent::Context(command), Some(open)) if !open.read => {
                self.join(caller, open, vec![command], Vec::new(), Mode::Default, key).await?
            }
            (Sent::Context(command), earlier) => {
                if let Some(earlier) = earlier {
                    self.inner.pool.input(Input::Release(earlier.turn));
                }
                self.reserve()?;
                self.open_turn(caller, vec![command], 0, Vec::new(), Mode::Default, address, key).await?
            }
            (Sent::Prompt { mode, text }, Some(open)) => {
                self.join(caller, open, Vec::new(), vec![text], mode, key).await?
            }
            (Sent::Prompt { mode, text }, None) => {
                self.reserve()?;
                self.open_turn(caller, Vec::new(), 0, vec![text], mode, address, key).await?
            }
        };
        self.inner.sent.fetch_add(1, Ordering::Relaxed);
        Ok(index)
    }

    async fn join(
        &self,
        caller: CallerId,
        mut open: Open,
        commands: Vec<ContextCommand>,
        prompts: Vec<String>,
        mode: Mode,
        key: Option<String>,
    ) -> Result<usize, SubmitError> {
        let closes = !prompts.is_empty();
        let before = open.clone();
        open.unread += commands.len();
        open.commands.extend(commands.iter().cloned());
        self.inner.pool.mailbox.owe(caller, open.turn, if closes { 1 } else { open.unread });
        self.inner.callers.set(caller, (!closes).then(|| open.clone()));
        let addition =
            Addition { turn: open.turn, commands, prompts: prompts.clone(), mode, timeout: self.inner.options.timeout };
        let (reply, still_open) = oneshot::channel();
        self.inner.pool.input(Input::Add(addition, reply));
        if still_open.await.unwrap_or(false) {
            return Ok(open.instance);
        }
        // It failed before its prompt, and nobody has read that: what joins it has failed with it, rather than run without
        // the turn's files.
        if self.inner.pool.mailbox.holds(open.turn) {
            self.inner.pool.mailbox.forget(caller, open.turn);
            return Ok(open.instance);
        }
        if let Err(full) = self.reserve() {
            // Who tries again finds the turn's commands.
            self.inner.pool.mailbox.owe(caller, before.turn, before.unread);
            self.inner.callers.set(caller, Some(before));
            return Err(full);
        }
        // The turn was closed while it waited for its prompt: another is opened with all its commands, so that no prompt
        // runs without them. What was answered and not read is answered again.
        drop(self.inner.pool.mailbox.take_acknowledgements(open.turn));
        self.inner.pool.mailbox.forget(caller, open.turn);
        self.inner.callers.set(caller, None);
        let told = open.commands.len() - open.unread;
        self.open_turn(caller, open.commands, told, prompts, mode, open.address, key).await
    }

    /// Opens a turn for which a place is reserved. `told`: how many of the commands the caller was answered already.
    #[expect(clippy::too_many_arguments, reason = "what a turn is made of")]
    async fn open_turn(
        &self,
        caller: CallerId,
        commands: Vec<ContextCommand>,
        told: usize,
        prompts: Vec<String>,
        mode: Mode,
        address: Option<usize>,
        key: Option<String>,
    ) -> Result<usize, SubmitError> {
        let turn = self.next_turn();
        let timeout = self.inner.options.timeout;
        let unread = commands.len() - told;
        let closes = !prompts.is_empty();
        self.inner.pool.mailbox.owe(caller, turn, if closes { 1 } else { unread });
        let submission = Submission {
            turn,
            commands: commands.clone(),
            told,
            prompts,
            mode,
            timeout,
            checks: Arc::default(),
            budget: Budget::default(),
            key,
            address,
            avoid: None,
        };
        let (planned, instance) = oneshot::channel();
        self.inner.pool.input(Input::Submit {
            submission,
            sink: Sink::Mailbox(caller),
            planned: Some(planned),
            gate: None,
        });
        let Ok(instance) = instance.await else {
            if self.inner.pool.mailbox.discard(caller, turn) {
                self.inner.pool.pending.fetch_sub(1, Ordering::Relaxed);
            }
            return Err(Failure::new(FailureKind::NotReady, "no instance is left").into());
        };
        let open = Open { turn, commands, instance, address, unread, read: false };
        self.inner.callers.set(caller, (!closes).then_some(open));
        Ok(instance)
    }

    /// The next response for a caller, as soon as it is there: its own while it is owed any, else anybody's. None when
    /// the time is over, or no response will come any more.
    pub async fn read_as(&self, caller: CallerId, from: Option<usize>, timeout: Duration) -> Option<Response> {
        let wanted = match from {
            Some(instance) => Wanted::From(caller, instance),
            None => Wanted::Any(caller),
        };
        let mailbox = &self.inner.pool.mailbox;
        let taken = match mailbox.try_take(wanted) {
            Some(taken) => taken,
            None => tokio::time::timeout(timeout, mailbox.take(wanted)).await.ok().flatten()?,
        };
        match taken {
            Taken::Finished(response) => {
                self.inner.pool.pending.fetch_sub(1, Ordering::Relaxed);
                if self.inner.callers.get(caller).is_some_and(|open| open.turn == response.turn) {
                    self.inner.callers.set(caller, None);
                }
                Some(*response)
            }
            Taken::Acknowledged(response) => {
                if let Some(open) = self.inner.callers.get(caller).filter(|open| open.turn == response.turn) {
                    let unread = open.unread.saturating_sub(1);
                    self.inner.callers.set(caller, Some(Open { unread, read: true, ..open }));
                }
                Some(*response)
            }
        }
    }

    /// A caller is gone: the turn that it has open is closed.
    pub fn forget_caller(&self, caller: CallerId) {
        if let Some(open) = self.inner.callers.get(caller) {
            self.inner.callers.set(caller, None);
            self.inner.pool.input(Input::Release(open.turn));
        }
    }
}
