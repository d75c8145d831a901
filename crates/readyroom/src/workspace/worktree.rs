//! A worktree of an instance: made from a base, brought back to it before each job, and removed when nothing in it could
//! be lost.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::change::{Change, Comparison};
use super::foreign::left_alone;
use super::git::{self, Git};
use super::index::has_marks;
use super::print::Print;
use super::repository::{Marks, Repository, commit_tree, git_dir, tree_of};
use super::{Snapshot, WorkspaceError};

/// A linked worktree with a detached HEAD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worktree {
    /// What was brought in and git does not ignore: no part of a change.
    pub(super) brought: Vec<PathBuf>,
    root: PathBuf,
    index: PathBuf,
    repository: Repository,
    base: Snapshot,
}

/// The file in its own git directory that names its base, where that is not what it was made from.
const BASE: &str = "readyroom-base";

/// What a command that a job left half done (a rebase, a sequence of picks) goes on with, in the git directory.
const UNDER_WAY: [&str; 3] = ["rebase-merge", "rebase-apply", "sequencer"];

impl Worktree {
    /// Makes one at `root`, which must not be there yet; its parents are made.
    ///
    /// # Errors
    /// The place is taken or can't be written to, or git failed.
    pub fn create(repository: &Repository, root: &Path, base: &Snapshot) -> Result<Self, WorkspaceError> {
        if let Some(parent) = root.parent() {
            fs::create_dir_all(parent).map_err(|error| WorkspaceError::Io { path: parent.to_owned(), error })?;
        }
        // Locked, so that a `git worktree prune` of the caller's does not take it for one that is forgotten.
        // By force, since one whose making was cut short may be known there and be nowhere.
        let add = ["worktree", "add", "--quiet", "--force", "--force", "--detach", "--lock", "--reason", "readyroom"];
        Git::new(&repository.root, add).args([root.as_os_str(), base.commit.as_ref()]).bytes()?;
        let index = git_dir(root)?.join("index");
        Ok(Self::known(repository, root.to_owned(), index, base))
    }

    fn known(repository: &Repository, root: PathBuf, index: PathBuf, base: &Snapshot) -> Self {
        Self { brought: Vec::new(), root, index, repository: repository.clone(), base: base.clone() }
    }

    /// Takes what it holds now as its base: what a setup made is no job's change, and jobs find it. The commit of that is kept below
    /// `refs/readyroom/` and the name `keep`.
    ///
    /// # Errors
    /// git failed.
    pub fn begin_here(&mut self, keep: &str) -> Result<(), WorkspaceError> {
        let tree = self.tree()?;
        if tree == self.base.tree {
            return Ok(());
        }
        let commit = commit_tree(&self.root, &tree, &self.base.commit, "what the setup made")?;
        let short = commit.get(..12).unwrap_or(&commit);
        self.repository.git(["update-ref", &format!("refs/readyroom/{keep}/{short}"), &commit]).bytes()?;
        Git::new(&self.root, ["reset", "--quiet", &commit]).bytes()?;
        let marker = self.index.with_file_name(BASE);
        fs::write(&marker, format!("{commit} {tree}"))
            .map_err(|error| WorkspaceError::Io { path: marker.clone(), error })?;
        self.base = Snapshot { commit, tree };
        Ok(())
    }

    /// The tree of all that is in it and could be part of a change.
    fn tree(&self) -> Result<String, WorkspaceError> {
        tree_of(&self.root, &self.index, &self.brought, Marks::Seen { id: self.id_bytes() })
    }

    /// How long ids of objects are: a commit's name has two letters for each byte.
    fn id_bytes(&self) -> usize {
        self.base.commit.len() / 2
    }

    /// Takes away what a job has said of files that are not to be looked at, or not to be there. Where the caller's own checkout
    /// is sparse, so is this one.
    fn unmark(&self) -> Result<(), WorkspaceError> {
        let sparse = self.repository.own.join("info/sparse-checkout").exists();
        if sparse || !fs::read(&self.index).is_ok_and(|index| has_marks(&index, self.id_bytes())) {
            return Ok(());
        }
        self.remove_from_git_dir(|name| ["index", "config.worktree", "info"].contains(&name))
    }

    /// Its base is what it was made from again.
    pub(super) fn forget_own_base(&self) -> Result<(), WorkspaceError> {
        self.remove_from_git_dir(|name| name == BASE)
    }

    /// The same with the base that it took itself, if it did.
    pub(super) fn with_own_base(mut self) -> Self {
        if let Ok(text) = fs::read_to_string(self.index.with_file_name(BASE))
            && let Some((commit, tree)) = text.split_once(' ')
        {
            self.base = Snapshot { commit: commit.to_owned(), tree: tree.to_owned() };
        }
        self
    }

    /// Its top directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a path of the caller's is in it; `None` for one outside of the repository. The path's directory must be there.
    pub fn map(&self, path: &Path) -> Option<PathBuf> {
        let name = path.file_name();
        let whole = match (fs::canonicalize(path), path.parent()) {
            (Ok(whole), _) if !path.is_symlink() => whole,
            // A link is the link itself, and what is not there yet has no other name.
            (_, Some(parent)) => {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                fs::canonicalize(parent).ok()?.join(name?)
            }
            (_, None) => return None,
        };
        let within = whole.strip_prefix(fs::canonicalize(&self.repository.root).ok()?).ok()?;
        Some(self.root.join(within))
    }

    /// Brings it back to its base: whatever a job left, ignored files included, is gone, but for `keep`, paths from its top.
    ///
    /// # Errors
    /// git failed.
    pub fn reset(&self, keep: &[&Path]) -> Result<(), WorkspaceError> {
        self.unmark()?;
        // Detached first, since a branch that a job has checked out must not be moved; by force also out of a merge.
        let detach = || Git::new(&self.root, ["checkout", "--quiet", "--force", "--detach", &self.base.commit]).bytes();
        if detach().is_err() {
            // What a git left that was killed. Nothing of a job runs any more.
            self.remove_from_git_dir(|name| name.ends_with(".lock"))?;
            detach()?;
        }
        self.remove_from_git_dir(|name| UNDER_WAY.contains(&name) || name.starts_with("BISECT_"))?;
        let mut clean = Git::new(&self.root, ["clean", "--quiet", "-ffdx"]);
        for path in keep {
            clean = clean.args(["-e".as_ref(), pattern(path).as_os_str()]);
        }
        clean.bytes().map(drop)
    }

    /// Removes what lies in its own git directory and is called so.
    fn remove_from_git_dir(&self, named: impl Fn(&str) -> bool) -> Result<(), WorkspaceError> {
        let Some(directory) = self.index.parent() else { return Ok(()) };
        let failed = |error| WorkspaceError::Io { path: directory.to_owned(), error };
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_str().is_some_and(&named) {
                let path = entry.path();
                let is_directory = entry.file_type().map_err(failed)?.is_dir();
                if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Brings its files back to what a change holds, or to its base: what came afterwards is gone, but for ignored files. What
    /// the job committed stays.
    ///
    /// # Errors
    /// git failed.
    pub fn restore(&self, change: Option<&Change>) -> Result<(), WorkspaceError> {
        let tree = change.map_or(&self.base.tree, |change| &change.tree);
        if self.tree()? == *tree {
            return Ok(());
        }
        Git::new(&self.root, ["read-tree", "--reset", "-u", tree]).bytes()?;
        let brought = self.brought.iter().flat_map(|path| ["-e".into(), pattern(path)]);
        Git::new(&self.root, ["clean", "--quiet", "-ffd"]).args(brought).bytes()?;
        // The index says again what is committed, as the job left it.
        Git::new(&self.root, ["read-tree", "HEAD"]).bytes().map(drop)
    }

    /// What differs from its base, committed or not; `None` when nothing does. Ignored files are no part of it, nor are submodules
    /// and files that LFS keeps, which are named in it.
    ///
    /// # Errors
    /// git failed.
    pub fn change(&self) -> Result<Option<Change>, WorkspaceError> {
        let tree = self.tree()?;
        if tree == self.base.tree {
            return Ok(None);
        }
        let mut compared = Comparison::of(&self.root, &self.base.tree, &tree)?;
        let (tree, left_alone) = match left_alone(&self.root, &tree, &compared.differences)? {
            None => (tree, Vec::new()),
            Some((tree, _)) if tree == self.base.tree => return Ok(None),
            Some((tree, paths)) => {
                compared = Comparison::of(&self.root, &self.base.tree, &tree)?;
                (tree, paths)
            }
        };
        Ok(Some(Change {
            base: self.base.commit.clone(),
            commit: commit_tree(&self.root, &tree, &self.base.commit, "a job's change")?,
            tree,
            edits: compared.differences.into_iter().map(|difference| difference.edit).collect(),
            patch: compared.patch,
            left_alone,
        }))
    }

    /// What the file system says of all in it and of its git directory, but for `keep`, paths from its top; `None` where it can't be
    /// read.
    pub fn print(&self, keep: &[PathBuf]) -> Option<Print> {
        let keep: Vec<PathBuf> = keep.iter().map(|path| self.root.join(path)).collect();
        Print::of(&[&self.root, self.index.parent()?], &keep).ok()
    }

    /// Removes it, if all that it holds is in its base or in a tree that was recorded. `false`: it holds something else, and
    /// stays.
    ///
    /// # Errors
    /// git failed.
    pub fn remove(self, recorded: &[&str]) -> Result<bool, WorkspaceError> {
        let tree = self.tree()?;
        if tree != self.base.tree && !recorded.contains(&tree.as_str()) {
            return Ok(false);
        }
        // Twice, since it is locked.
        Git::new(&self.repository.root, ["worktree", "remove", "--force", "--force"]).args([&self.root]).bytes()?;
        Ok(true)
    }

    /// The worktrees that are there, of those whose root is wanted, each with `base` taken as its base.
    ///
    /// # Errors
    /// git failed.
    pub fn left(
        repository: &Repository,
        base: &Snapshot,
        wanted: impl Fn(&Path) -> bool,
    ) -> Result<Vec<Self>, WorkspaceError> {
        let listed = repository.git(["worktree", "list", "--porcelain", "-z"]).bytes()?;
        let roots = listed.split(|byte| *byte == 0).filter_map(|line| line.strip_prefix(b"worktree ")).map(git::path);
        let left = roots.filter(|root| wanted(root) && root.is_dir());
        Ok(left
            .map(|root| {
                // One that git can't read has none; whoever looks at it is told.
                let index = git_dir(&root).unwrap_or_else(|_| root.clone()).join("index");
                Self::known(repository, root, index, base)
            })
            .collect())
    }
}

/// A path from the top as a pattern that stands for nothing else.
fn pattern(path: &Path) -> OsString {
    let mut pattern = b"/".to_vec();
    for byte in path.as_os_str().as_bytes() {
        if b"\\*?[] \t!#".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    OsString::from_vec(pattern)
}
