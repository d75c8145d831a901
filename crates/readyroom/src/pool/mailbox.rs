//! Finished turns that wait to be read, each exactly once, by the caller that sent them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::response::Response;
use crate::event::TurnId;

/// Names a caller: a thread, an asyncio task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallerId(pub u64);

/// Where finished turns wait.
#[derive(Debug, Default)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Finished turns, in the order in which they finished.
    finished: VecDeque<(CallerId, Response)>,
    /// Acknowledgements of open turns, in order.
    acknowledged: VecDeque<(CallerId, Response)>,
    /// How many responses each caller is still owed by each of its turns, the finished ones included.
    owed: HashMap<CallerId, HashMap<TurnId, usize>>,
    handed_out: u64,
    closed: bool,
}

/// Which response to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The caller's own if it is owed any, else anybody's.
    Any(CallerId),
    /// One that this instance ran.
    From(CallerId, usize),
}

/// What [`Mailbox::try_take`] found.
#[derive(Debug)]
pub enum Taken {
    /// A finished turn.
    Finished(Box<Response>),
    /// An acknowledgement; the turn is still open.
    Acknowledged(Box<Response>),
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller's turn owes it this many responses from now on.
    pub fn owe(&self, caller: CallerId, turn: TurnId, responses: usize) {
        self.lock().owed.entry(caller).or_default().insert(turn, responses);
    }

    /// The turn owes the caller nothing more, except what waits to be read already.
    pub fn forget(&self, caller: CallerId, turn: TurnId) {
        let mut inner = self.lock();
        let waiting = inner.acknowledged.iter().chain(&inner.finished).filter(|(_, found)| found.turn == turn).count();
        inner.set_owed(caller, turn, waiting);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Whether the caller is owed a response.
    pub fn owes(&self, caller: CallerId) -> bool {
        self.lock().owed.contains_key(&caller)
    }

    /// A turn finished. Acknowledgements of it that nobody has read ride in its response.
    pub fn finish(&self, caller: CallerId, mut response: Response) {
        let mut inner = self.lock();
        let unread = inner.take_acknowledgements(response.turn).into_iter().flat_map(|unread| unread.preamble);
        response.preamble.splice(0..0, unread);
        inner.finished.push_back((caller, response));
        drop(inner);
        self.changed.notify_waiters();
    }

    /// A context command of an open turn was answered.
    pub fn acknowledge(&self, caller: CallerId, response: Response) {
        self.lock().acknowledged.push_back((caller, response));
        self.changed.notify_waiters();
    }

    /// Takes back the acknowledgements of a turn that nobody has read: they ride in its answer.
    pub fn take_acknowledgements(&self, turn: TurnId) -> Vec<Response> {
        self.lock().take_acknowledgements(turn)
    }

    /// Whether the turn's response waits to be read.
    pub fn holds(&self, turn: TurnId) -> bool {
        self.lock().finished.iter().any(|(_, response)| response.turn == turn)
    }

    /// Drops a finished turn whose sender has been told otherwise. `false`: it was not there.
    pub fn discard(&self, caller: CallerId, turn: TurnId) -> bool {
        let mut inner = self.lock();
        let before = inner.finished.len();
        inner.finished.retain(|(_, response)| response.turn != turn);
        inner.set_owed(caller, turn, 0);
        inner.finished.len() < before
    }

    /// No response will come any more: those who wait are told.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }

    /// Whether the mailbox was closed and holds nothing.
    pub fn is_exhausted(&self) -> bool {
        let inner = self.lock();
        inner.closed && inner.finished.is_empty() && inner.acknowledged.is_empty()
    }

    /// How many responses were handed out.
    pub fn handed_out(&self) -> u64 {
        self.lock().handed_out
    }

    /// Takes a response if one is there.
    pub fn try_take(&self, wanted: Wanted) -> Option<Taken> {
        let mut inner = self.lock();
        let own = |caller: &CallerId| match wanted {
            Wanted::Any(me) | Wanted::From(me, _) => *caller == me,
        };
        let fits = |response: &Response| match wanted {
            Wanted::Any(_) => true,
            Wanted::From(_, instance) => response.instance == Some(instance),
        };
        let me = match wanted {
            Wanted::Any(me) | Wanted::From(me, _) => me,
        };
        let only_own = inner.owed.contains_key(&me);
        let at = inner.finished.iter().position(|(caller, response)| (!only_own || own(caller)) && fits(response));
        if let Some((caller, response)) = at.and_then(|at| inner.finished.remove(at)) {
            inner.set_owed(caller, response.turn, 0);
            inner.handed_out += 1;
            return Some(Taken::Finished(Box::new(response)));
        }
        let at = inner.acknowledged.iter().position(|(caller, response)| own(caller) && fits(response));
        let (caller, response) = at.and_then(|at| inner.acknowledged.remove(at))?;
        let owed = inner.owed.get(&caller).and_then(|turns| turns.get(&response.turn)).copied().unwrap_or_default();
        inner.set_owed(caller, response.turn, owed.saturating_sub(1));
        inner.handed_out += 1;
        Some(Taken::Acknowledged(Box::new(response)))
    }

    /// Takes a response, waiting for one. None when no response will ever come.
    pub async fn take(&self, wanted: Wanted) -> Option<Taken> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(taken) = self.try_take(wanted) {
                return Some(taken);
            }
            if self.is_exhausted() {
                return None;
            }
            changed.await;
        }
    }
}

impl Inner {
    fn take_acknowledgements(&mut self, turn: TurnId) -> Vec<Response> {
        if self.acknowledged.is_empty() {
            return Vec::new();
        }
        let (taken, kept) = std::mem::take(&mut self.acknowledged)
            .into_iter()
            .partition::<VecDeque<_>, _>(|(_, response)| response.turn == turn);
        self.acknowledged = kept;
        taken.into_iter().map(|(_, response)| response).collect()
    }

    fn set_owed(&mut self, caller: CallerId, turn: TurnId, responses: usize) {
        let Some(turns) = self.owed.get_mut(&caller) else { return };
        if responses == 0 {
            turns.remove(&turn);
        } else if let Some(owed) = turns.get_mut(&turn) {
            *owed = responses;
        }
        if turns.is_empty() {
            self.owed.remove(&caller);
        }
    }
}
