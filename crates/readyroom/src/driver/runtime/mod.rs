//! Runs a driver over a real process: the only place in this floor that does I/O.
//!
//! A [`Link`] is one process with its driver. Instances attach to it, one slot each; what the driver finds out about a
//! slot reaches the instance that holds it, in order. A link ends by itself when its process ends or its protocol
//! breaks, and always leaves nothing of the process's tree behind before it says [`Report::Gone`].

mod allowance;
mod pump;
mod record;
mod shared;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

pub use record::Recorder;
pub use shared::{Left, Seat, SharedProcess};

use super::{Activity, ContextReply, Effect, Proof, Request, Slot, TurnEnd, TurnStatus};
use crate::error::{Exit, Failure, FailureKind};
use crate::job::Denials;
use crate::process::{self, Handle, ProcessInfo, SpawnError, TreeUsage};
use crate::tool::{Contract, Secrets, Transport};

/// How many reports may wait for an instance before the link stops reading its tool.
const REPORTS: usize = 1024;

/// What a link tells the instance in a slot.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// The process is ready for conversations.
    Ready {
        /// The tool's version, where its protocol tells.
        version: Option<String>,
        /// Whether it answers pings.
        pings: bool,
    },
    /// The tool answered a ping.
    Pong,
    /// The slot's conversation is known to be new.
    Fresh(Proof),
    /// The slot has no conversation that is known to be new.
    NotFresh(Failure),
    /// Context commands were carried out.
    ContextDone(Vec<ContextReply>),
    /// The tool took the prompt.
    Accepted,
    /// Something happened in the turn.
    Activity(Activity),
    /// The turn ended.
    Ended(Box<TurnEnd>),
    /// The tool said something odd; it is in the record.
    Anomaly(String),
    /// The process is gone with its whole tree, and so is everything that was open in the slot.
    Gone(Failure),
}

impl Report {
    /// Takes secrets out of everything but the tool's own answers.
    fn hide(&mut self, secrets: &Secrets) {
        match self {
            Self::NotFresh(failure) | Self::Gone(failure) => secrets.hide_in(failure),
            Self::Ended(end) => {
                if let TurnStatus::Failed(failure) = &mut end.status {
                    secrets.hide_in(failure);
                }
                if let Denials::Known(denied) = &mut end.answer.denials {
                    denied.iter_mut().for_each(|what| secrets.hide(what));
                }
            }
            Self::Activity(activity) => activity.hide(secrets),
            Self::Anomaly(what) => secrets.hide(what),
            Self::Ready { version, .. } => version.iter_mut().for_each(|version| secrets.hide(version)),
            Self::Fresh(Proof::NewSession(named) | Proof::Acknowledged(named)) => secrets.hide(named),
            Self::ContextDone(replies) => {
                replies.iter_mut().filter_map(|reply| reply.result.as_mut().err()).for_each(|why| secrets.hide_in(why));
            }
            Self::Fresh(Proof::NewProcess) | Self::Pong | Self::Accepted => {}
        }
    }
}

/// Which of the processes that were started in a turn it has left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strays {
    /// All: the turn did not come to its end.
    All,
    /// Those whose parent has ended. After a good end, a child of the tool may be a helper that it means to keep.
    Orphans,
}

/// One process under a driver. Clones speak to the same process; it ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Link {
    /// Without a bound, since a pump that waits for an instance to take its reports must never keep that instance
    /// waiting to ask. Each instance has a handful of requests outstanding at most.
    requests: mpsc::UnboundedSender<Request>,
    seats: Arc<Seats>,
    handle: Handle,
    stop: Arc<watch::Sender<Stop>>,
}

/// How far a link is asked to go in ending its process. Ordered: a stronger wish wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    No,
    Orderly,
    Now,
}

/// Who sits in which slot. A seat that is taken late gets the readiness and the end that it missed.
#[derive(Debug, Default)]
struct Seats {
    state: Mutex<SeatState>,
    /// What no report may hold, but for what the tool itself answers.
    secrets: Secrets,
}

#[derive(Debug, Default)]
struct SeatState {
    taken: HashMap<Slot, mpsc::Sender<Report>>,
    ready: Option<Report>,
    gone: Option<Failure>,
    next: u32,
}

impl Seats {
    fn lock(&self) -> std::sync::MutexGuard<'_, SeatState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, slot: Slot, mut report: Report) {
        report.hide(&self.secrets);
        let seat = self.lock().taken.get(&slot).cloned();
        if let Some(seat) = seat {
            // An instance that has left its seat needs no report.
            let _ = seat.send(report).await;
        }
    }

    /// Whoever sits here will hear nothing more, and whoever comes hears of this failure.
    fn abandon(&self, mut failure: Failure) {
        self.secrets.hide_in(&mut failure);
        let mut state = self.lock();
        state.gone = Some(failure);
        state.taken.clear();
    }

    async fn tell_all(&self, mut report: Report) {
        report.hide(&self.secrets);
        let seats: Vec<_> = {
            let mut state = self.lock();
            match &report {
                Report::Ready { .. } => state.ready = Some(report.clone()),
                Report::Gone(failure) => state.gone = Some(failure.clone()),
                _ => {}
            }
            state.taken.values().cloned().collect()
        };
        for seat in seats {
            let _ = seat.send(report.clone()).await;
        }
    }
}

impl Link {
    /// Starts the contract's process and its driver.
    ///
    /// # Errors
    /// The failure of the spawn: `ToolMissing`, `BadInput` (the directory), or `NotReady`.
    pub async fn launch(contract: Arc<Contract>, recorder: Option<Recorder>) -> Result<Self, Failure> {
        for (path, text) in contract.home().map(|home| contract.definition.files_in(home)).unwrap_or_default() {
            write_if_missing(&path, text).map_err(|error| {
                Failure::new(FailureKind::NotReady, format!("can't write {}: {error}", path.display()))
            })?;
        }
        let (program, args) = super::oneshot::command(&contract);
        let command = process::Command {
            program,
            args,
            env: contract.env.clone(),
            cwd: contract.cwd.clone(),
            io: match contract.definition.transport {
                Transport::Pipe => process::Io::Pipe,
                Transport::Merged => process::Io::Merged,
                Transport::Pty => process::Io::Pty,
            },
            writable: contract.writable.clone(),
            zygote: contract.zygote(),
        };
        let process = process::spawn(&command).await.map_err(|error| spawn_failure(&contract, &error))?;
        let (requests, inbox) = mpsc::unbounded_channel();
        let seats = Arc::new(Seats { secrets: contract.secrets(), ..Seats::default() });
        let (stop, stopped) = watch::channel(Stop::No);
        let handle = process.handle.clone();
        let pump = pump::Pump::new(&contract, process, Arc::clone(&seats), recorder);
        tokio::spawn(pump.run(inbox, stopped));
        Ok(Self { requests, seats, handle, stop: Arc::new(stop) })
    }

    /// Takes the next free slot.
    pub fn seat(&self) -> Seat {
        let (sender, reports) = mpsc::channel(REPORTS);
        let mut state = self.seats.lock();
        let slot = Slot(state.next);
        state.next += 1;
        if let Some(ready) = &state.ready {
            let _ = sender.try_send(ready.clone());
        }
        if let Some(failure) = &state.gone {
            let _ = sender.try_send(Report::Gone(failure.clone()));
        }
        state.taken.insert(slot, sender);
        drop(state);
        Seat { link: self.clone(), slot, reports }
    }

    /// Takes the next free slot of a process that others use; none where the process is gone or about to go.
    fn join(&self) -> Option<Seat> {
        let ending = *self.stop.borrow() > Stop::No || self.seats.lock().gone.is_some();
        (!ending).then(|| self.seat())
    }

    /// Leaves a slot. Its conversation is closed where the tool can, and the process is ended in order when nobody else
    /// is in it.
    pub fn leave(&self, slot: Slot) -> Left {
        let left = {
            let mut state = self.seats.lock();
            if state.taken.len() > 1 {
                state.taken.remove(&slot);
                Left::Others
            } else {
                Left::Alone
            }
        };
        match left {
            Left::Others => self.request(Request::Close { slot }),
            Left::Alone => self.raise(Stop::Orderly),
        }
        left
    }

    /// Passes a request to the driver. A link whose process is gone takes nothing: [`Report::Gone`] has said so.
    pub fn request(&self, request: Request) {
        let _ = self.requests.send(request);
    }

    /// Ends the process and its tree at once. [`Report::Gone`] follows.
    pub fn kill(&self) {
        self.raise(Stop::Now);
    }

    fn raise(&self, wish: Stop) {
        self.stop.send_if_modified(|now| {
            let stronger = wish > *now;
            if stronger {
                *now = wish;
            }
            stronger
        });
    }

    /// The tool's own process.
    pub fn pid(&self) -> u32 {
        self.handle.pid()
    }

    /// Memory and CPU of the whole tree.
    pub fn usage(&self) -> TreeUsage {
        self.handle.usage()
    }

    /// Ends what was started below the process at or after `since` and still runs. Returns what it ended.
    pub async fn end_strays(&self, since: Instant, strays: Strays) -> Vec<ProcessInfo> {
        let Some(since) = process::started_scale(since) else { return Vec::new() };
        let kept = |found: &ProcessInfo| found.started < since || (strays == Strays::Orphans && !found.orphan);
        let (keep, strays): (Vec<_>, Vec<_>) = self.handle.descendants().into_iter().partition(kept);
        if strays.is_empty() {
            return Vec::new();
        }
        let mut ended = self.handle.end_strays(&keep).await;
        ended.iter_mut().for_each(|stray| self.seats.secrets.hide(&mut stray.command));
        ended
    }
}

fn write_if_missing(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, text)
}

fn spawn_failure(contract: &Contract, error: &SpawnError) -> Failure {
    let kind = match error {
        SpawnError::NotFound { .. } | SpawnError::NotExecutable { .. } => FailureKind::ToolMissing,
        SpawnError::BadDirectory { .. } | SpawnError::Unconfined(_) => FailureKind::BadInput,
        _ => FailureKind::NotReady,
    };
    let mend = match error {
        SpawnError::Unconfined(_) => "; permissions `full` need no such means",
        _ => "",
    };
    Failure::new(kind, format!("can't start {}: {error}{mend}", contract.definition.id))
}

/// The failure for what is still open when a process is gone.
fn gone_failure(exit: Exit, tail: String) -> Failure {
    Failure::new(FailureKind::Crashed { exit: Some(exit) }, format!("the tool's process ended with {exit}"))
        .with_stderr(tail)
}

/// How long to wait for a process to exit after it has closed its output.
const EXIT_AFTER_EOF: Duration = Duration::from_secs(1);

fn slot_of(effect: &Effect) -> Option<Slot> {
    match effect {
        Effect::Fresh { slot, .. }
        | Effect::NotFresh { slot, .. }
        | Effect::ContextDone { slot, .. }
        | Effect::Accepted { slot }
        | Effect::Activity { slot, .. }
        | Effect::Ended { slot, .. } => Some(*slot),
        _ => None,
    }
}
