//! Brings what jobs changed to the caller's files, one after the other, on a thread of its own: git blocks.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use readyroom::workspace::{Change, Repository, WorkspaceError, Worktrees};

use crate::workspace::{Brought, bring};

/// A change that is to be applied.
#[derive(Debug)]
pub struct Wanted {
    /// The pool whose repository it is for, by place.
    pub pool: usize,
    /// The change.
    pub change: Change,
    /// The branch for one that does not apply.
    pub branch: String,
    /// The message of a commit, where one is to be made.
    pub commit: Option<String>,
}

type Told = Box<dyn FnOnce(Result<Brought, WorkspaceError>, Vec<PathBuf>) + Send>;

/// The thread. Dropping it lets it finish what it was given, and waits for that.
pub struct Applier {
    wanted: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

enum Request {
    Bring(Wanted, Told),
    /// Files of a pool's repository that something else has changed.
    Look(usize, Box<dyn FnOnce(Vec<PathBuf>) + Send>),
}

impl Applier {
    /// Starts it for the pools that have worktrees.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(pools: &[Option<Worktrees>]) -> std::io::Result<Self> {
        let (wanted, inbox) = mpsc::channel();
        let repositories =
            pools.iter().map(|pool| pool.as_ref().map(|worktrees| worktrees.repository().clone())).collect();
        let mut trees = Trees { repositories, seen: HashMap::new() };
        trees.look();
        let thread = thread::Builder::new().name("apply".into()).spawn(move || {
            for request in inbox {
                match request {
                    Request::Bring(wanted, told) => {
                        let strange = trees.strange(wanted.pool);
                        let brought = trees.bring(&wanted);
                        trees.look_at(wanted.pool);
                        told(brought, strange);
                    }
                    Request::Look(pool, told) => {
                        let strange = trees.strange(pool);
                        trees.look_at(pool);
                        told(strange);
                    }
                }
            }
        })?;
        Ok(Self { wanted: Some(wanted), thread: Some(thread) })
    }

    /// Has a change applied. `told` is called on the thread, with what became of it and with the caller's files that something else
    /// has changed since the last one.
    pub fn apply(
        &self,
        wanted: Wanted,
        told: impl FnOnce(Result<Brought, WorkspaceError>, Vec<PathBuf>) + Send + 'static,
    ) {
        if let Some(sender) = &self.wanted {
            // The thread lives as long as this does.
            let _ = sender.send(Request::Bring(wanted, Box::new(told)));
        }
    }

    /// The caller's files in a pool's repository that something else has changed since the last change was applied.
    pub async fn strange(&self, pool: usize) -> Vec<PathBuf> {
        let (told, strange) = tokio::sync::oneshot::channel();
        if let Some(sender) = &self.wanted {
            let _ = sender.send(Request::Look(pool, Box::new(|files| drop(told.send(files)))));
        }
        strange.await.unwrap_or_default()
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.wanted = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The caller's trees, as they were after the last change.
struct Trees {
    repositories: Vec<Option<Repository>>,
    seen: HashMap<PathBuf, String>,
}

impl Trees {
    fn look(&mut self) {
        (0..self.repositories.len()).for_each(|pool| self.look_at(pool));
    }

    fn look_at(&mut self, pool: usize) {
        let Some(repository) = self.repositories[pool].clone() else { return };
        if let Ok(tree) = repository.tree() {
            self.seen.insert(repository.root().to_owned(), tree);
        }
    }

    /// Files that have changed since the last look.
    fn strange(&self, pool: usize) -> Vec<PathBuf> {
        let Some(repository) = &self.repositories[pool] else { return Vec::new() };
        let Some(seen) = self.seen.get(repository.root()) else { return Vec::new() };
        let files = repository.tree().and_then(|now| repository.difference(seen, &now));
        files.unwrap_or_default()
    }

    fn bring(&self, wanted: &Wanted) -> Result<Brought, WorkspaceError> {
        let Some(repository) = &self.repositories[wanted.pool] else { return Ok(Brought::Whole(None)) };
        bring(repository, &wanted.change, &wanted.branch, wanted.commit.as_deref())
    }
}
