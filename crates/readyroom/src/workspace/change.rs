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

/// What differs between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comparison {
    pub differences: Vec<Difference>,
    /// All of it in git's form, binary files included.
    pub patch: Vec<u8>,
}

/// A file that differs between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub edit: Edit,
    /// Its mode and object before, as git writes them; zeros where it is new.
    pub before: (String, String),
    /// Its mode now; zeros where it is gone.
    pub mode: String,
}

impl Comparison {
    /// Of two trees whose objects are in the repository of `root`.
    pub fn of(root: &Path, from: &str, to: &str) -> Result<Self, WorkspaceError> {
        let output = diff(root, &["-z", "--raw", "-M"], from, to)?;
        let mut rest = output.as_slice();
        let mut next = || {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let word = &rest[..end];
            rest = &rest[end + 1..];
            Some(word)
        };
        let mut differences = Vec::new();
        // `:MODE MODE OBJECT OBJECT STATUS`, then a name, or two where it was renamed. An empty word is the end.
        while let Some(facts) = next().filter(|facts| !facts.is_empty()) {
            let facts = String::from_utf8_lossy(facts).into_owned();
            let facts: Vec<&str> = facts.trim_start_matches(':').split(' ').collect();
            let ([old, new, object, _, status], Some(path)) = (&facts[..], next().map(git::path)) else {
                return Err(WorkspaceError::Git {
                    command: format!("diff-tree {from} {to}"),
                    directory: root.to_owned(),
                    message: format!("its list of changes holds `{}`", facts.join(" ")),
                });
            };
            let (kind, path, from) = match status.as_bytes().first() {
                Some(b'R') => (EditKind::Renamed, next().map(git::path).unwrap_or_default(), Some(path)),
                Some(b'A') => (EditKind::Added, path, None),
                Some(b'D') => (EditKind::Deleted, path, None),
                Some(b'T') => (EditKind::Retyped, path, None),
                _ => (EditKind::Modified, path, None),
            };
            differences.push(Difference {
                edit: Edit { kind, path, from },
                before: ((*old).to_owned(), (*object).to_owned()),
                mode: (*new).to_owned(),
            });
        }
        Ok(Self { differences, patch: rest.to_vec() })
    }
}

/// The patch from one tree to another, without renames.
pub(super) fn patch(root: &Path, from: &str, to: &str) -> Result<Vec<u8>, WorkspaceError> {
    diff(root, &["--no-renames"], from, to)
}

fn diff(root: &Path, how: &[&str], from: &str, to: &str) -> Result<Vec<u8>, WorkspaceError> {
    Git::new(root, ["diff-tree", "-r", "-p", "--binary", "--full-index", "--no-ext-diff", "--no-textconv"])
        .args(how)
        .args([from, to])
        .bytes()
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
