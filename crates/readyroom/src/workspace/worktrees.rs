//! The worktrees of a pool: where they are, what they start from, and what is brought into them besides.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::git::{self, Git};
use super::{Repository, Snapshot, WorkspaceError, Worktree};

/// The file, at the repository's top, that names ignored files to bring in, in the form of a `.gitignore`.
const INCLUDE: &str = ".worktreeinclude";

/// How something that git ignores comes into a worktree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bring {
    /// As a copy, which shares its blocks where the file system can.
    Copy,
    /// As a link to the caller's own: what a job writes there, it writes there.
    Link,
}

/// Worktrees for the instances of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Worktrees {
    repository: Repository,
    base: Snapshot,
    place: PathBuf,
    name: String,
    brought: Vec<(PathBuf, Bring)>,
    setup: Option<Vec<String>>,
    keep: String,
}

impl Worktrees {
    /// Worktrees of `repository` that start from `base`: one for each instance, `NAME.INDEX` in the directory `place`, which may
    /// hold those of others, of other names. The place is made, for its user's eyes only.
    ///
    /// All lie side by side, since tools look for their instructions in each directory above the one that they work in, for each
    /// job anew.
    ///
    /// # Errors
    /// The place can't be made.
    pub fn new(
        repository: Repository,
        base: Snapshot,
        place: &Path,
        name: impl Into<String>,
    ) -> Result<Self, WorkspaceError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(place);
        let place = made
            .and_then(|()| place.canonicalize())
            .map_err(|error| WorkspaceError::Io { path: place.into(), error })?;
        let name = name.into();
        let keep = format!("{name}/base");
        Ok(Self { repository, base, place, name, brought: Vec::new(), setup: None, keep })
    }

    /// Has something brought in that git ignores: a path from the repository's top. What `.worktreeinclude` there names,
    /// in the form of a `.gitignore`, is brought in as copies anyhow.
    #[must_use]
    pub fn bring(mut self, path: impl Into<PathBuf>, how: Bring) -> Self {
        self.brought.push((path.into(), how));
        self
    }

    /// Has a command run once in each, before its first job: a program and its arguments.
    #[must_use]
    pub fn with_setup(mut self, argv: Vec<String>) -> Self {
        self.setup = Some(argv);
        self
    }

    /// Names, below `refs/readyroom/`, where the commits are kept that setups make; `NAME/base` where nothing is said.
    #[must_use]
    pub fn keep_below(mut self, keep: impl Into<String>) -> Self {
        self.keep = keep.into();
        self
    }

    /// Where the commits are kept that setups make.
    pub fn keep(&self) -> &str {
        &self.keep
    }

    /// The caller's repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The command that is run once in each.
    pub fn setup(&self) -> Option<&[String]> {
        self.setup.as_deref()
    }

    /// The top of an instance's worktree.
    pub fn root(&self, index: usize) -> PathBuf {
        self.place.join(format!("{}.{index}", self.name))
    }

    /// Whether this is the root of one of these.
    fn is_own(&self, root: &Path) -> bool {
        let name = root.strip_prefix(&self.place).ok().and_then(Path::to_str);
        let index = name.and_then(|name| name.strip_prefix(&self.name)?.strip_prefix('.'));
        index.is_some_and(|index| index.parse::<usize>().is_ok())
    }

    /// The worktree of an instance as its first job finds it, but for what the setup does. One that is there already is taken
    /// over, and whatever it holds is gone.
    ///
    /// # Errors
    /// The place can't be written to, or git failed.
    pub fn prepare(&self, index: usize) -> Result<Worktree, WorkspaceError> {
        let root = self.root(index);
        let known = Worktree::left(&self.repository, &self.base, |there| there == root)?;
        let mut worktree = match known.into_iter().next() {
            Some(there) => {
                there.reset(&[])?;
                there.forget_own_base()?;
                there
            }
            None => {
                // One that git does not know was being made or removed when its owner died.
                match fs::remove_dir_all(&root) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(WorkspaceError::Io { path: root, error: source });
                    }
                    _ => Worktree::create(&self.repository, &root, &self.base)?,
                }
            }
        };
        for (path, bring) in self.all_brought()? {
            let (from, to) = (self.repository.root.join(&path), root.join(&path));
            if to.symlink_metadata().is_ok() || from.symlink_metadata().is_err() {
                continue;
            }
            let made = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| match bring {
                Bring::Copy => copy(&from, &to),
                Bring::Link => symlink(&from, &to),
            });
            made.map_err(|error| WorkspaceError::Io { path: to, error })?;
        }
        worktree.brought = self.unignored(&root)?;
        Ok(worktree)
    }

    /// What is brought in and not ignored there: a link is no directory, so that what ignores a directory may not ignore it.
    fn unignored(&self, root: &Path) -> Result<Vec<PathBuf>, WorkspaceError> {
        let mut found = Vec::new();
        for (path, _) in self.all_brought()? {
            if !Git::new(root, ["check-ignore", "--quiet", "--"]).args([&path]).output()?.status.success() {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// Those that are there.
    fn left(&self) -> Result<Vec<Worktree>, WorkspaceError> {
        let left = Worktree::left(&self.repository, &self.base, |root| self.is_own(root))?;
        left.into_iter()
            .map(|worktree| {
                let mut worktree = worktree.with_own_base();
                worktree.brought = self.unignored(worktree.root())?;
                Ok(worktree)
            })
            .collect()
    }

    fn all_brought(&self) -> Result<Vec<(PathBuf, Bring)>, WorkspaceError> {
        let mut all = self.brought.clone();
        if self.repository.root.join(INCLUDE).is_file() {
            let from = format!("--exclude-from={INCLUDE}");
            let listed =
                self.repository.git(["ls-files", "-z", "--others", "--ignored", "--directory", &from]).bytes()?;
            let names = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
            all.extend(names.map(|name| (git::path(name.strip_suffix(b"/").unwrap_or(name)), Bring::Copy)));
        }
        Ok(all)
    }

    /// Removes those that an owner left who was killed; one that git can't read any more is put aside. What one held besides its
    /// base is kept as a commit, below `refs/readyroom/` and this name; how many were kept.
    ///
    /// # Errors
    /// git failed.
    pub fn salvage(&self, name: &str) -> Result<usize, WorkspaceError> {
        let mut kept = 0;
        for worktree in self.left()? {
            let change = match worktree.change() {
                Ok(change) => change,
                // It was being made or removed when its owner died, and git can't read it: it is put aside.
                Err(WorkspaceError::Git { .. }) => {
                    put_aside(worktree.root())?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match change {
                Some(change) => {
                    let short = change.commit.get(..12).unwrap_or(&change.commit);
                    let name = format!("refs/readyroom/{name}/{short}");
                    self.repository.git(["update-ref", &name, &change.commit]).bytes()?;
                    kept += 1;
                    worktree.remove(&[&change.tree])?;
                }
                None => drop(worktree.remove(&[])?),
            }
        }
        Ok(kept)
    }

    /// Makes place for a new worktree of an instance: what is there is put aside, since git can't bring it back.
    ///
    /// # Errors
    /// The place can't be written to.
    pub fn give_up(&self, index: usize) -> Result<(), WorkspaceError> {
        put_aside(&self.root(index))
    }

    /// Removes those that hold nothing but their base or a tree that was recorded. The others, which stay, are returned.
    ///
    /// # Errors
    /// git failed.
    pub fn remove(&self, recorded: &[&str]) -> Result<Vec<PathBuf>, WorkspaceError> {
        let mut stayed = Vec::new();
        for worktree in self.left()? {
            let root = worktree.root().to_owned();
            if !worktree.remove(recorded)? {
                stayed.push(root);
            }
        }
        Ok(stayed)
    }
}

impl Worktree {
    /// What is to stay when it is brought back: what was brought in, and what is there now that git ignores; paths from its top.
    ///
    /// # Errors
    /// git failed.
    pub fn fixtures(&self) -> Result<Vec<PathBuf>, WorkspaceError> {
        let listed =
            Git::new(self.root(), ["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"])
                .bytes()?;
        let names = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let mut found: Vec<PathBuf> = names.map(|name| git::path(name.strip_suffix(b"/").unwrap_or(name))).collect();
        found.extend(self.brought.iter().filter(|path| !found.contains(path)).cloned().collect::<Vec<_>>());
        Ok(found)
    }
}

/// Gives a worktree that git can't read another name, beside it.
fn put_aside(root: &Path) -> Result<(), WorkspaceError> {
    let aside = (1..).map(|number| root.with_added_extension(format!("broken-{}-{number}", std::process::id())));
    let Some(aside) = aside.into_iter().find(|path| path.symlink_metadata().is_err()) else { return Ok(()) };
    match fs::rename(root, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(WorkspaceError::Io { path: aside, error }),
        _ => Ok(()),
    }
}

/// Copies a file, a link or a directory with all below it. Sockets and the like are left out.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if kind.is_file() {
        return fs::copy(from, to).map(drop);
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    }
    Ok(())
}
