//! Where jobs work: git worktrees of the caller's repository, what a job changed in one, and the caller's tree that takes
//! the changes.
//!
//! [`Repository::snapshot`] takes the caller's state as a commit, [`Worktree`] is a directory that starts from it,
//! [`Worktree::change`] is what a job did there, and [`Repository::apply`] brings that to the caller's tree, whole or not
//! at all. The caller's index, stash, HEAD and hooks are never touched: all that is written are objects, refs below
//! `refs/readyroom/`, and, by `apply`, files. Everything here blocks on git. The page is `docs/design/workspaces.md`.

use std::io;
use std::path::PathBuf;

mod apply;
mod change;
mod foreign;
mod git;
mod index;
mod print;
mod repository;
mod worktree;
mod worktrees;

pub use apply::Applied;
pub use change::{Change, Edit, EditKind};
pub(crate) use git::OUTER_GIT;
pub use print::Print;
pub use repository::{Repository, Snapshot};
pub use worktree::Worktree;
pub use worktrees::{Bring, Worktrees};

/// A repository or a worktree can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// There is no git.
    #[error("git was not found on PATH; install git 2.38 or newer")]
    GitMissing,
    /// The git that is there lacks what this needs.
    #[error("git 2.38 or newer is needed, but `{found}` is what is installed")]
    GitTooOld {
        /// What it says of itself.
        found: String,
    },
    /// The directory is in no work tree.
    #[error("{} is not in a git work tree; run `git init` there, or work in the directory itself", directory.display())]
    NotARepository {
        /// Which.
        directory: PathBuf,
    },
    /// A path is not in the repository.
    #[error("{} is not in the repository {}", path.display(), root.display())]
    Outside {
        /// The path.
        path: PathBuf,
        /// The repository's top directory.
        root: PathBuf,
    },
    /// There is nothing to start from.
    #[error("the repository {} has no commit yet; commit something first", root.display())]
    NoCommit {
        /// Its top directory.
        root: PathBuf,
    },
    /// A merge or the like is under way, whose half-done state would be what jobs start from.
    #[error("the repository {} is in the middle of a {what}; finish or abort it first", root.display())]
    InProgress {
        /// Its top directory.
        root: PathBuf,
        /// What is under way.
        what: &'static str,
    },
    /// Taking the untracked files along would copy too much.
    #[error(
        "the untracked files in {} are {bytes} bytes, more than the {most} that are taken along; add what is not \
         source to .gitignore",
        root.display()
    )]
    UntrackedTooLarge {
        /// The repository's top directory.
        root: PathBuf,
        /// How much there is.
        bytes: u64,
        /// How much is taken at most.
        most: u64,
    },
    /// A command of git failed.
    #[error("`git {command}` failed in {}: {message}", directory.display())]
    Git {
        /// The command and its arguments.
        command: String,
        /// Where it ran.
        directory: PathBuf,
        /// What it said.
        message: String,
    },
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

#[cfg(test)]
mod tests;
