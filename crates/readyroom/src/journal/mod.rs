//! The record of batches, and the truth for a resume: which jobs there are, which may have run, and how they ended.
//!
//! [`Store`] is one SQLite file, [`Writer`] a thread that writes to it and says so only when it is durable, [`Lease`] keeps
//! a batch to one owner at a time, and [`next`] decides what a resume does with a job. What jobs and outcomes look
//! like is the caller's: they are kept as JSON. The page is `docs/design/journal.md`.

use std::path::PathBuf;

mod change;
mod lease;
mod restart;
mod store;
mod writer;

pub use change::{ChangeState, Recorded};
pub use lease::{Holder, Lease};
pub use restart::{JobState, Next, Wishes, next};
pub use store::{Batch, BatchState, Job, NewBatch, NewJob, Store};
pub use writer::{Entry, Writer};

/// The journal can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// There is no place for it.
    #[error("no place for the journal: neither XDG_STATE_HOME nor HOME is set; name a file with --journal")]
    NoPlace,
    /// A newer program wrote it.
    #[error(
        "the journal {} has version {found}, and this program knows up to {known}; use the newer readyroom, or name \
         another file with --journal",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// Somebody else runs the batch.
    #[error("batch {batch} is being run by {holder}; wait for its end, or stop it")]
    Held {
        /// Which.
        batch: String,
        /// Who has it, as far as it told.
        holder: String,
    },
    /// No such batch.
    #[error("no batch {name} in {}; `readyroom batch list` shows them", path.display())]
    NoBatch {
        /// What was asked for.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// A batch of that name is there already.
    #[error("there is a batch {name} already in {}", path.display())]
    Taken {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// The file can't be made, opened or locked.
    #[error("the journal {} can't be used: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// SQLite refuses: full, read-only, damaged, no journal at all.
    #[error("the journal {} can't be used: {message}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        message: String,
    },
}

#[cfg(test)]
mod tests;
