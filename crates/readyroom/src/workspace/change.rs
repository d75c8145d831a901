//! What a job changed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use super::WorkspaceError;
use super::git::{self, Git};

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EditKind {
    /// It is new.
    Added,
    /// Its content, its mode or both are others.
    Modified,
    /// It is gone.
    Deleted,
    /// It has another name, and perhaps another content.
    Renamed,
    /// It is a link now and was a file, or the other way round.
    Retyped,
}

/// One file of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// What became of it.
    pub kind: EditKind,
    /// The file, from the repository's top directory. A name that is not UTF-8 is kept as far as it is.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// What it was called before it was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "lossy_if_any")]
    pub from: Option<PathBuf>,
}

/// What a job changed against its base: as a commit on that base, and as a patch that needs nothing but the base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The commit that the job started from.
    pub base: String,
    /// The commit that holds what it left.
    pub commit: String,
    /// That commit's tree.
    pub tree: String,
    /// Each file.
    pub edits: Vec<Edit>,
    /// All of it in git's form, binary files included.
    pub patch: Vec<u8>,
    /// What the job changed besides, and is no part of it: submodules, and files that LFS keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "all_lossy")]
    pub left_alone: Vec<PathBuf>,
}

impl Change {
    /// What lies between two commits, whose objects are in the repository of `root`.
    pub(super) fn between(root: &Path, base: &str, commit: &str, tree: &str) -> Result<Self, WorkspaceError> {
        let listed = Git::new(root, ["diff-tree", "-r", "-z", "-M", "--name-status", base, commit]).bytes()?;
        let patch = patch(root, base, commit, true)?;
        Ok(Self {
            base: base.to_owned(),
            commit: commit.to_owned(),
            tree: tree.to_owned(),
            edits: edits(&listed),
            patch,
            left_alone: Vec::new(),
        })
    }
}

/// The patch from one tree or commit to another.
pub(super) fn patch(root: &Path, from: &str, to: &str, renames: bool) -> Result<Vec<u8>, WorkspaceError> {
    let renames = if renames { "-M" } else { "--no-renames" };
    Git::new(root, ["diff-tree", "-r", "-p", "--binary", "--full-index", "--no-ext-diff", "--no-textconv", renames])
        .args([from, to])
        .bytes()
}

/// Reads `--name-status -z`: a letter, then a name, or two where it was renamed.
fn edits(listed: &[u8]) -> Vec<Edit> {
    let mut words = listed.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let mut edits = Vec::new();
    while let (Some(letter), Some(first)) = (words.next(), words.next()) {
        let first = git::path(first);
        let (kind, path, from) = match letter[0] {
            b'R' => (EditKind::Renamed, words.next().map(git::path).unwrap_or_default(), Some(first)),
            b'A' => (EditKind::Added, first, None),
            b'D' => (EditKind::Deleted, first, None),
            b'T' => (EditKind::Retyped, first, None),
            _ => (EditKind::Modified, first, None),
        };
        edits.push(Edit { kind, path, from });
    }
    edits
}

fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

fn all_lossy<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

#[expect(clippy::ref_option, reason = "serde gives it so")]
fn lossy_if_any<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}
