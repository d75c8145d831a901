//! One owner of a batch at a time. The operating system holds the lock, so that it ends with its holder, however that
//! ends, and neither a clock nor a process id that is used again can keep or break it.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::JournalError;

/// A batch that is ours until this is dropped.
#[derive(Debug)]
pub struct Lease {
    file: File,
}

impl Drop for Lease {
    /// Closing the file would not do: a child that another thread has forked holds it until it executes its program.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Who has a batch, where somebody has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: u32,
}

impl Lease {
    /// Who has the batch of the journal at `journal`; none: nobody, or it did not tell.
    pub fn holder(journal: &Path, batch: &str) -> Option<Holder> {
        let path = journal.with_added_extension("locks").join(batch);
        let mut file = File::open(&path).ok()?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => {}
            Ok(()) => {
                let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
                return None;
            }
            Err(_) => return None,
        }
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        let pid = text.strip_prefix("process ")?.split(' ').next()?.parse().ok()?;
        Some(Holder { pid })
    }

    /// Takes the batch of the journal at `journal`.
    ///
    /// # Errors
    /// [`JournalError::Held`] with who has it; the lock can't be made.
    pub fn take(journal: &Path, batch: &str) -> Result<Self, JournalError> {
        let path = journal.with_added_extension("locks").join(batch);
        let failed = |error| JournalError::File { path: path.clone(), error };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
                return Err(JournalError::Held { batch: batch.to_owned(), holder: holder.to_owned() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let holder = format!("process {} since {}", std::process::id(), jiff::Timestamp::now().strftime("%F %T UTC"));
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(holder.as_bytes()))
            .map_err(failed)?;
        Ok(Self { file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_it_is_dropped_whoever_else_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("j");
        let lease = Lease::take(&journal, "b").unwrap();
        let inherited = lease.file.try_clone().unwrap();
        drop(lease);
        assert!(Lease::take(&journal, "b").is_ok());
        drop(inherited);
    }
}
