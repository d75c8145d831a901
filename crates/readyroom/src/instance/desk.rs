//! An instance's own worktree: what its job changed there, and the way back to what jobs start from.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::workspace::{Change, Print, WorkspaceError, Worktree};

/// A worktree, and what stays in it.
#[derive(Debug)]
pub struct Desk {
    worktree: Worktree,
    /// What stays when it is brought back: what was brought in, and what the setup made that git ignores. All else that it
    /// made is in its base.
    kept: Vec<PathBuf>,
    /// How it looks as jobs find it; none where that is not known.
    clean: Mutex<Option<Print>>,
}

/// What a look at it finds behind a job.
#[derive(Debug)]
pub enum Look {
    /// Nothing has been written: it is as jobs are to find it.
    Untouched,
    /// Something has, and this came of it; none where only ignored files differ, or nothing does any more.
    Touched(Option<Box<Change>>),
}

impl Desk {
    /// A worktree as its first job is to find it.
    pub fn new(worktree: Worktree) -> Result<Self, WorkspaceError> {
        let kept = worktree.fixtures()?;
        let clean = Mutex::new(worktree.print(&kept));
        Ok(Self { worktree, kept, clean })
    }

    /// Its top directory.
    pub fn root(&self) -> &Path {
        self.worktree.root()
    }

    /// What the job has done to it.
    pub fn look(&self) -> Result<Look, WorkspaceError> {
        if self.is_clean() {
            return Ok(Look::Untouched);
        }
        self.worktree.change().map(|change| Look::Touched(change.map(Box::new)))
    }

    /// Back to what jobs start from.
    pub fn reset(&self) -> Result<(), WorkspaceError> {
        if self.is_clean() {
            return Ok(());
        }
        self.worktree.reset(&self.kept.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        *self.clean.lock().unwrap_or_else(PoisonError::into_inner) = self.worktree.print(&self.kept);
        Ok(())
    }

    /// Back to what jobs start from, where anything has been written since it was: by the tool itself, at its reset, which is no
    /// job's work.
    pub fn tidy(&self) -> Result<(), WorkspaceError> {
        let now = self.worktree.print(&self.kept);
        {
            let mut clean = self.clean.lock().unwrap_or_else(PoisonError::into_inner);
            match (clean.as_ref(), &now) {
                (None, _) => return Ok(()),
                // By now it may tell what is written from here on.
                (Some(before), Some(after)) if after.seems(before) => {
                    *clean = now;
                    return Ok(());
                }
                _ => {}
            }
        }
        self.reset()
    }

    /// Back to what the job's change holds: what came after it is gone.
    pub fn restore(&self, change: Option<&Change>) -> Result<(), WorkspaceError> {
        self.worktree.restore(change)
    }

    /// Whether nothing has certainly happened in it.
    fn is_clean(&self) -> bool {
        let clean = self.clean.lock().unwrap_or_else(PoisonError::into_inner);
        clean.as_ref().is_some_and(|clean| self.worktree.print(&self.kept).is_some_and(|now| now.is_still(clean)))
    }
}
