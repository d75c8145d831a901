//! Writes to the journal from a thread of its own: all that has come by the time one write is done goes into the next, so
//! that many jobs share the disk's one wait. Who asked is told when it is durable, never before.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use serde_json::Value;

use super::{ChangeState, JobState, JournalError, Lease, Recorded, Store};
use crate::budget::Spent;

/// Entries in one write at most, so that the first of them does not wait for ever.
const TOGETHER: usize = 512;

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// It is going to be sent to a tool.
    Begun {
        /// The batch.
        batch: String,
        /// The job's place.
        place: usize,
        /// Whether it may run a second time: then the entry outlasts its owner, but perhaps not a power cut.
        safe: bool,
    },
    /// An attempt has ended, and nothing of it counts: the job waits as if it had never been sent.
    Requeued {
        /// The batch.
        batch: String,
        /// The job's place.
        place: usize,
        /// What the attempt has cost.
        spent: Spent,
    },
    /// It ended.
    Ended {
        /// The batch.
        batch: String,
        /// The job's place.
        place: usize,
        /// How.
        state: JobState,
        /// All of it, in the caller's form.
        outcome: Value,
        /// What its last attempt has cost.
        spent: Spent,
        /// What it changed in its worktree; none: what is recorded of it stays, unless it succeeded without.
        change: Option<Box<Recorded>>,
    },
    /// What it changed has been brought to the caller's files, or can't be.
    Changed {
        /// The batch.
        batch: String,
        /// The job's place.
        place: usize,
        /// What became of it.
        state: ChangeState,
        /// The branch that it is kept as.
        branch: Option<String>,
        /// How the job stands with that, and its outcome, where it has one.
        job: Option<(JobState, Value)>,
    },
    /// Its end has been told: its answer is where it was to go.
    Told {
        /// The batch.
        batch: String,
        /// The job's place.
        place: usize,
    },
    /// It is not to run any more.
    Dropped {
        /// The batch.
        batch: String,
        /// The job's place.
        place: usize,
    },
    /// Nobody can say how far it came.
    Lost {
        /// The batch.
        batch: String,
        /// The job's place.
        place: usize,
    },
}

type Told = Box<dyn FnOnce(Result<(), Arc<JournalError>>) + Send>;

/// The thread. Dropping it writes what was asked for and waits for that.
#[derive(Debug)]
pub struct Writer {
    entries: Option<Sender<(Entry, ToldBox)>>,
    thread: Option<JoinHandle<()>>,
    _lease: Lease,
}

struct ToldBox(Told);

impl std::fmt::Debug for ToldBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

impl Writer {
    /// Starts it over a store, for the batch that the lease is of.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(store: Store, lease: Lease) -> std::io::Result<Self> {
        let (entries, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || write(store, &inbox))?;
        Ok(Self { entries: Some(entries), thread: Some(thread), _lease: lease })
    }

    /// Has an entry written. `told` is called on the writer's thread, when it is as durable as [`Store::enter`] makes it, or
    /// can't be written.
    pub fn enter(&self, entry: Entry, told: impl FnOnce(Result<(), Arc<JournalError>>) + Send + 'static) {
        if let Some(entries) = &self.entries {
            // The thread lives as long as this does.
            let _ = entries.send((entry, ToldBox(Box::new(told))));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.entries = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(mut store: Store, inbox: &Receiver<(Entry, ToldBox)>) {
    while let Ok(first) = inbox.recv() {
        let mut asked = vec![first];
        asked.extend(inbox.try_iter().take(TOGETHER - 1));
        let result = store.enter(asked.iter().map(|(entry, _)| entry)).map_err(Arc::new);
        for (_, told) in asked {
            (told.0)(result.clone());
        }
    }
}
