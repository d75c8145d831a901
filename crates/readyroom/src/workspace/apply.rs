//! Brings a job's change to the caller's tree, whole or not at all, whatever has happened there meanwhile.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::PathBuf;

use rustix::fs::FlockOperation;

use super::WorkspaceError;
use super::change::{Change, patch};
use super::git::{self, Git};
use super::repository::{Repository, Scratch, commit_tree};

/// How often a change is merged anew because files changed between the look at them and the write.
const TRIES: u32 = 5;

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The caller's files have it now, or had it already.
    Whole,
    /// It and the caller's files say different things of these; nothing was written.
    Conflict(Vec<PathBuf>),
}

impl Repository {
    /// Applies a change to the caller's files: three-way, against what they are now. One at a time for each repository,
    /// also over several programs. Applied again, it changes nothing, so that one that was interrupted can be repeated.
    ///
    /// # Errors
    /// git failed; nothing was written then.
    pub fn apply(&self, change: &Change) -> Result<Applied, WorkspaceError> {
        let alone = self.alone()?;
        let theirs = self.commit_of(change)?;
        let mut refused = None;
        for _ in 0..TRIES {
            let now = self.tree()?;
            let merged = match self.merged(&now, &change.base, &theirs)? {
                Merge::Clean(tree) => tree,
                Merge::Conflict(files) => return Ok(Applied::Conflict(files)),
            };
            if merged == now {
                return Ok(Applied::Whole);
            }
            let patch = patch(&self.root, &now, &merged)?;
            let guards = Guards::of(self.difference(&now, &merged)?.iter().map(|file| self.root.join(file)));
            // It writes nothing unless all of it fits what is there.
            match self.git(["apply", "--binary", "-"]).input(&patch).holding(&alone).bytes() {
                Ok(_) => {
                    guards.restore();
                    return Ok(Applied::Whole);
                }
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(WorkspaceError::Git { command, directory, message }) if is_systems(&message) => {
                Err(WorkspaceError::Git { command, directory, message })
            }
            // What git ignores is in no snapshot: a file of the change may stand where an ignored one is.
            Some(WorkspaceError::Git { .. }) | None => {
                Ok(Applied::Conflict(change.edits.iter().map(|edit| edit.path.clone()).collect()))
            }
            Some(error) => Err(error),
        }
    }

    /// Keeps a change that was not applied as a branch, so that it can be merged by hand. The branch's name: where the one that
    /// was asked for holds something else, a number is added.
    ///
    /// # Errors
    /// The name is none, or git failed.
    pub fn keep_as_branch(&self, name: &str, change: &Change) -> Result<String, WorkspaceError> {
        let commit = self.commit_of(change)?;
        let mut branch = name.to_owned();
        let mut more = 1;
        loop {
            let tree =
                self.git(["rev-parse", "--quiet", "--verify", &format!("refs/heads/{branch}^{{tree}}")]).output()?;
            if !tree.status.success() {
                self.git(["branch", "--no-track", &branch, &commit]).bytes()?;
                return Ok(branch);
            }
            if tree.stdout.trim_ascii() == change.tree.as_bytes() {
                return Ok(branch);
            }
            more += 1;
            branch = format!("{name}-{more}");
        }
    }

    /// Makes a commit of a change that was applied, in the caller's name, on what HEAD is now. It holds the change and nothing
    /// else, whatever edits are not committed; where it rests on such, there is none: `false`. HEAD's branch moves, and
    /// the index has the changed files as they are in the commit.
    ///
    /// # Errors
    /// The caller has no name, somebody else moved HEAD, or git failed.
    pub fn commit(&self, change: &Change, message: &str) -> Result<bool, WorkspaceError> {
        let _alone = self.alone()?;
        let theirs = self.commit_of(change)?;
        let head = self.git(["rev-parse", "HEAD^{commit}"]).line()?;
        let now = self.git(["rev-parse", &format!("{head}^{{tree}}")]).line()?;
        let Merge::Clean(tree) = self.merged(&now, &change.base, &theirs)? else { return Ok(false) };
        if tree == now {
            return Ok(true);
        }
        let commit = self.git(["commit-tree", &tree, "-p", &head, "-m", message]).in_callers_name().line()?;
        let files = self.difference(&head, &commit)?;
        self.git(["update-ref", "-m", "readyroom: a job", "HEAD", &commit, &head]).bytes()?;
        let reset = ["--literal-pathspecs", "reset", "--quiet", "--"];
        self.git(reset).args(&files).bytes().map(|_| true)
    }

    /// Makes sure that [`Self::commit`] has a name to commit in.
    ///
    /// # Errors
    /// The caller has none.
    pub fn check_identity(&self) -> Result<(), WorkspaceError> {
        for identity in ["GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"] {
            self.git(["var", identity]).in_callers_name().bytes()?;
        }
        Ok(())
    }

    /// Merges a tree and the commit of a change, both made from `base`.
    fn merged(&self, ours: &str, base: &str, theirs: &str) -> Result<Merge, WorkspaceError> {
        // git finds the base by the commits' parents; that it can be told one is newer than what Debian 12 has.
        let ours = commit_tree(&self.root, ours, base, "the caller's state")?;
        let merge = ["merge-tree", "--write-tree", "--name-only", "-z", "--no-messages"];
        let output = Git::new(&self.root, merge).args([&ours, theirs]).output()?;
        let mut words = output.stdout.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        let tree = words.next().map(|tree| String::from_utf8_lossy(tree).trim().to_owned()).unwrap_or_default();
        match output.status.code() {
            Some(0) => Ok(Merge::Clean(tree)),
            Some(1) => Ok(Merge::Conflict(words.map(git::path).collect())),
            _ => Err(WorkspaceError::Git {
                command: "merge-tree".into(),
                directory: self.root.clone(),
                message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
        }
    }

    /// The change's commit. Nothing refers to it, so that it may have been collected: then one like it, made of the patch.
    fn commit_of(&self, change: &Change) -> Result<String, WorkspaceError> {
        let named = format!("{}^{{commit}}", change.commit);
        if self.git(["cat-file", "-e", &named]).output()?.status.success() {
            return Ok(change.commit.clone());
        }
        let index = Scratch::beside(&self.index());
        self.git(["read-tree", &change.base]).index(&index.0).bytes()?;
        self.git(["apply", "--cached", "--binary", "-"]).index(&index.0).input(&change.patch).bytes()?;
        let tree = self.git(["write-tree"]).index(&index.0).line()?;
        if tree != change.tree {
            return Err(WorkspaceError::Git {
                command: "apply --cached".into(),
                directory: self.root.clone(),
                message: format!("the recorded patch gives the tree {tree} and not {}", change.tree),
            });
        }
        commit_tree(&self.root, &tree, &change.base, "a job's change")
    }

    /// Holds the repository's lock until it is dropped; waits for who has it.
    fn alone(&self) -> Result<File, WorkspaceError> {
        let path = self.common.join("readyroom.lock");
        let lock = || {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        lock().map_err(|error| WorkspaceError::Io { path: path.clone(), error })
    }
}

/// Whether it is the system that refused, and not the files' contents.
fn is_systems(message: &str) -> bool {
    let words = ["Permission denied", "Read-only file system", "No space left on device", "Disk quota exceeded"];
    words.iter().any(|word| message.contains(word))
}

/// Whose files are and who may read them: git makes the files anew that it changes.
struct Guards(Vec<(PathBuf, fs::Metadata)>);

impl Guards {
    fn of(files: impl Iterator<Item = PathBuf>) -> Self {
        let is_file = |(_, data): &(PathBuf, fs::Metadata)| data.is_file();
        Self(
            files
                .filter_map(|file| fs::symlink_metadata(&file).ok().map(|data| (file, data)))
                .filter(is_file)
                .collect(),
        )
    }

    /// Gives them back what they had, but for what the change says of their execution. As far as that can be done: the
    /// change is there in any case.
    fn restore(self) {
        for (file, before) in self.0 {
            let Ok(now) = fs::symlink_metadata(&file) else { continue };
            if !now.is_file() {
                continue;
            }
            if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
                let _ = chown(&file, Some(before.uid()), Some(before.gid()));
            }
            let mode = mode(before.mode(), now.mode() & 0o100 != 0);
            if mode != now.mode() & 0o7777 {
                let _ = fs::set_permissions(&file, fs::Permissions::from_mode(mode));
            }
        }
    }
}

/// The permissions of a file that had `before`, and is to be a program or not.
fn mode(before: u32, program: bool) -> u32 {
    let before = before & 0o7777;
    match (before & 0o100 != 0, program) {
        (false, true) => before | (before & 0o444) >> 2,
        (true, false) => before & !0o111,
        _ => before,
    }
}

enum Merge {
    Clean(String),
    Conflict(Vec<PathBuf>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_who_may_do_what_with_it() {
        for (before, program, after) in [
            (0o100_600, false, 0o600),
            (0o100_444, false, 0o444),
            (0o100_640, true, 0o750),
            (0o100_755, false, 0o644),
            (0o100_700, true, 0o700),
        ] {
            assert_eq!(mode(before, program), after, "{before:o}");
        }
    }

    #[test]
    fn what_the_system_refuses_is_no_conflict() {
        assert!(is_systems("error: unable to unlink old 'a.txt': Permission denied"));
        assert!(!is_systems("error: patch failed: a.txt:1\nerror: a.txt: patch does not apply"));
    }
}
