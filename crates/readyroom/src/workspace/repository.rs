//! The caller's repository, and its state as a commit.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::WorkspaceError;
use super::git::{self, Git};
use super::index::has_marks;

/// The oldest git whose `merge-tree` writes trees.
const GIT: (u32, u32) = (2, 38);

/// How the name of an index of our own begins; the owner's process id follows.
const SCRATCH: &str = "readyroom-index-";

/// How much untracked data a snapshot takes along.
const UNTRACKED: u64 = 1 << 30;

/// What half-done work leaves in the git directory.
const UNDER_WAY: [(&str, &str); 5] = [
    ("MERGE_HEAD", "merge"),
    ("rebase-merge", "rebase"),
    ("rebase-apply", "rebase"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
];

/// A git repository with a work tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    pub(super) root: PathBuf,
    /// Where its objects and refs are, also when it is a linked worktree itself.
    pub(super) common: PathBuf,
    /// Where its own state is: the index, and what is under way.
    pub(super) own: PathBuf,
}

/// The caller's files at a moment, as a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The commit: HEAD itself where nothing differs from it.
    pub commit: String,
    /// Its tree.
    pub tree: String,
}

impl Repository {
    /// The repository that `directory` is in.
    ///
    /// # Errors
    /// There is no git or too old a one, the directory is in no work tree, the repository has no commit, or a merge or the
    /// like is under way.
    pub fn open(directory: &Path) -> Result<Self, WorkspaceError> {
        let version = Git::new(directory, ["version"]).line()?;
        if !new_enough(&version) {
            return Err(WorkspaceError::GitTooOld { found: version });
        }
        let inside = Git::new(directory, ["rev-parse", "--is-inside-work-tree"]).output()?;
        if !inside.status.success() || inside.stdout.trim_ascii() != b"true" {
            return Err(WorkspaceError::NotARepository { directory: directory.to_owned() });
        }
        let root = Git::new(directory, ["rev-parse", "--show-toplevel"]).path()?;
        let common = Git::new(&root, ["rev-parse", "--path-format=absolute", "--git-common-dir"]).path()?;
        let own = git_dir(&root)?;
        let repository = Self { root, common, own };
        if !repository.git(["rev-parse", "--quiet", "--verify", "HEAD^{commit}"]).output()?.status.success() {
            return Err(WorkspaceError::NoCommit { root: repository.root });
        }
        for (file, what) in UNDER_WAY {
            if repository.own.join(file).exists() {
                return Err(WorkspaceError::InProgress { root: repository.root, what });
            }
        }
        Ok(repository)
    }

    /// Its top directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path that is there, as seen from the top.
    ///
    /// # Errors
    /// It is not in the repository, or not there.
    pub fn within(&self, path: &Path) -> Result<PathBuf, WorkspaceError> {
        let canonical =
            |path: &Path| fs::canonicalize(path).map_err(|error| WorkspaceError::Io { path: path.to_owned(), error });
        let (whole, root) = (canonical(path)?, canonical(&self.root)?);
        match whole.strip_prefix(root) {
            Ok(within) => Ok(within.to_owned()),
            Err(_) => Err(WorkspaceError::Outside { path: path.to_owned(), root: self.root.clone() }),
        }
    }

    /// The caller's state: HEAD with uncommitted and untracked, not ignored, changes, as a commit below no branch.
    ///
    /// Below `refs/readyroom/` and the name `keep` a ref keeps it from being collected, beside those of earlier snapshots.
    ///
    /// # Errors
    /// The untracked files are too large, or git failed.
    pub fn snapshot(&self, keep: &str) -> Result<Snapshot, WorkspaceError> {
        self.check_untracked()?;
        let snapshot = self.state()?;
        let short = snapshot.commit.get(..12).unwrap_or(&snapshot.commit);
        self.git(["update-ref", &format!("refs/readyroom/{keep}/{short}"), &snapshot.commit]).bytes()?;
        Ok(snapshot)
    }

    /// The caller's state, kept by nothing.
    pub(super) fn state(&self) -> Result<Snapshot, WorkspaceError> {
        let tree = tree_of(&self.root, &self.index(), &[], Marks::Heeded)?;
        let head = self.git(["rev-parse", "HEAD^{commit}", "HEAD^{tree}"]).line()?;
        let (commit, head_tree) = head.split_once('\n').unwrap_or((&head, ""));
        if tree == head_tree {
            return Ok(Snapshot { commit: commit.to_owned(), tree });
        }
        Ok(Snapshot { commit: commit_tree(&self.root, &tree, commit, "the caller's state")?, tree })
    }

    /// Lets go of all that is kept below `refs/readyroom/` and this name.
    ///
    /// # Errors
    /// git failed.
    pub fn forget(&self, name: &str) -> Result<(), WorkspaceError> {
        let below = format!("refs/readyroom/{name}/");
        let refs = self.git(["for-each-ref", "--format=delete %(refname)", &below]).bytes()?;
        self.git(["update-ref", "--stdin"]).input(&refs).bytes().map(drop)
    }

    /// Removes what commands of ours left in the git directory whose owner was killed.
    ///
    /// # Errors
    /// The git directory can't be read.
    pub fn tidy(&self) -> Result<(), WorkspaceError> {
        let entries = fs::read_dir(&self.own).map_err(|error| WorkspaceError::Io { path: self.own.clone(), error })?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let owner =
                name.to_str().and_then(|name| name.strip_prefix(SCRATCH)?.split(['-', '.']).next()?.parse().ok());
            let gone = owner
                .and_then(rustix::process::Pid::from_raw)
                .is_some_and(|owner| rustix::process::test_kill_process(owner) == Err(rustix::io::Errno::SRCH));
            if gone {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// The names of all files in a snapshot, from the top.
    ///
    /// # Errors
    /// git failed.
    pub fn files(&self, of: &Snapshot) -> Result<HashSet<PathBuf>, WorkspaceError> {
        let listed = self.git(["ls-tree", "-r", "-z", "--name-only", &of.tree]).bytes()?;
        Ok(listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(git::path).collect())
    }

    /// Whether a snapshot holds a directory, a path from the top.
    ///
    /// # Errors
    /// git failed.
    pub fn has_directory(&self, of: &Snapshot, directory: &Path) -> Result<bool, WorkspaceError> {
        let mut object = std::ffi::OsString::from(format!("{}:", of.tree));
        object.push(directory);
        Ok(self.git(["cat-file", "-e"]).args([object]).output()?.status.success())
    }

    /// The caller's files now, as a tree.
    ///
    /// # Errors
    /// git failed.
    pub fn tree(&self) -> Result<String, WorkspaceError> {
        tree_of(&self.root, &self.index(), &[], Marks::Heeded)
    }

    /// The files that differ between two trees, from the top.
    ///
    /// # Errors
    /// git failed.
    pub fn difference(&self, from: &str, to: &str) -> Result<Vec<PathBuf>, WorkspaceError> {
        let listed = self.git(["diff-tree", "-r", "-z", "--name-only", from, to]).bytes()?;
        Ok(listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(git::path).collect())
    }

    fn check_untracked(&self) -> Result<(), WorkspaceError> {
        let listed = self.git(["ls-files", "-z", "--others", "--exclude-standard"]).bytes()?;
        let sizes = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let bytes = sizes
            .filter_map(|name| fs::symlink_metadata(self.root.join(git::path(name))).ok())
            .map(|metadata| metadata.len())
            .sum();
        if bytes > UNTRACKED {
            return Err(WorkspaceError::UntrackedTooLarge { root: self.root.clone(), bytes, most: UNTRACKED });
        }
        Ok(())
    }

    pub(super) fn git<'a>(&'a self, args: impl IntoIterator<Item = &'a str>) -> Git<'a> {
        Git::new(&self.root, args)
    }

    /// Its index.
    pub(super) fn index(&self) -> PathBuf {
        self.own.join("index")
    }
}

/// The git directory of a work tree itself: of a linked one its own, and not that of all.
pub(super) fn git_dir(root: &Path) -> Result<PathBuf, WorkspaceError> {
    Git::new(root, ["rev-parse", "--absolute-git-dir"]).path()
}

/// How often files are taken up that change meanwhile, and what passes before the second time; more before each further one.
const ADD_TRIES: u32 = 6;
const ADD_PAUSE: Duration = Duration::from_millis(20);

/// What becomes of files that the index marks as not to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// They are as the index has them: the caller wants it so.
    Heeded,
    /// They are looked at, where they are there: a job marked them. Ids of objects are so many bytes long.
    Seen { id: usize },
}

/// The tree of all files in the work tree at `root`, whose index is `own`, that are tracked or not ignored, and not below one
/// of the paths `without`, by an index that is thrown away.
pub(super) fn tree_of(root: &Path, own: &Path, without: &[PathBuf], marks: Marks) -> Result<String, WorkspaceError> {
    let scratch = Scratch::beside(own);
    // A copy, for what it knows of files that have not changed. Without one all files are read.
    match copy_index(own, &scratch.0) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(WorkspaceError::Io { path: own.to_owned(), error: source });
        }
        _ => {}
    }
    let mut add = vec!["add", "--all", "--", "."];
    if let Marks::Seen { id } = marks
        && fs::read(&scratch.0).is_ok_and(|index| has_marks(&index, id))
    {
        unmark(root, &scratch)?;
        add.splice(0..0, ["-c", "core.sparseCheckout=false"]);
    }
    let without = without.iter().map(|path| {
        let mut pathspec = std::ffi::OsString::from(":(exclude,literal,top)");
        pathspec.push(path);
        pathspec
    });
    let without: Vec<std::ffi::OsString> = without.collect();
    let mut tries = 1;
    // A file that goes while git looks at it, such as an editor's, fails the whole.
    while let Err(error) = Git::new(root, add.iter().copied()).args(&without).index(&scratch.0).bytes() {
        if tries == ADD_TRIES {
            return Err(error);
        }
        std::thread::sleep(ADD_PAUSE * tries);
        tries += 1;
    }
    Git::new(root, ["write-tree"]).index(&scratch.0).line()
}

/// Takes the marks off the files that are there. What a sparse checkout left out stays as it is.
fn unmark(root: &Path, index: &Scratch) -> Result<(), WorkspaceError> {
    let listed = Git::new(root, ["ls-files", "-v", "-z"]).index(&index.0).bytes()?;
    let mut marked = Vec::new();
    for entry in listed.split(|byte| *byte == 0) {
        let Some((&tag, name)) = entry.split_first() else { continue };
        let name = name.strip_prefix(b" ").unwrap_or(name);
        if (tag == b'S' || tag.is_ascii_lowercase()) && root.join(git::path(name)).symlink_metadata().is_ok() {
            marked.extend_from_slice(name);
            marked.push(0);
        }
    }
    for mark in ["--no-skip-worktree", "--no-assume-unchanged"] {
        Git::new(root, ["update-index", mark, "-z", "--stdin"]).index(&index.0).input(&marked).bytes()?;
    }
    Ok(())
}

/// Copies an index with its time: git tells by seconds whether a file has changed, and reads those that were written in the second of
/// the index or later. By a later time, what was changed in that second would be taken for unchanged.
fn copy_index(from: &Path, to: &Path) -> io::Result<()> {
    let written = fs::metadata(from)?.modified()?;
    fs::copy(from, to)?;
    fs::File::options().write(true).open(to)?.set_modified(written)
}

/// A commit of a tree on a parent, on no branch.
pub(super) fn commit_tree(root: &Path, tree: &str, parent: &str, message: &str) -> Result<String, WorkspaceError> {
    Git::new(root, ["commit-tree", tree, "-p", parent, "-m", message]).line()
}

/// An index of our own, removed with its lock when it is done with.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn beside(index: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{SCRATCH}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(index.with_file_name(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(self.0.with_added_extension("lock"));
    }
}

fn new_enough(version: &str) -> bool {
    let numbers = version.split_whitespace().nth(2).unwrap_or_default();
    let mut numbers = numbers.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= GIT
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_compared_by_number() {
        assert!(super::new_enough("git version 2.38.0"));
        assert!(super::new_enough("git version 2.47.3 (Apple Git-155)"));
        assert!(super::new_enough("git version 3.0"));
        assert!(!super::new_enough("git version 2.9.5"));
        assert!(!super::new_enough("git"));
    }
}
