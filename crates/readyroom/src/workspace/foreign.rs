//! What a job may not change by a diff: submodules, whose content is another repository's, and files that LFS keeps elsewhere.

use std::path::{Path, PathBuf};

use super::WorkspaceError;
use super::git::{self, Git};
use super::repository::Scratch;

/// The mode of a submodule in a tree.
const SUBMODULE: &str = "160000";

/// A file that differs between two trees.
struct Difference {
    path: PathBuf,
    /// Its mode and object before, as git writes them; zeros where it is new.
    before: (String, String),
    submodule: bool,
}

/// `tree` with what is foreign as it is in `base`, and the paths that were brought back.
pub(super) fn left_alone(root: &Path, base: &str, tree: &str) -> Result<(String, Vec<PathBuf>), WorkspaceError> {
    let listed =
        Git::new(root, ["diff-tree", "-r", "-z", "--raw", "--no-renames", "--full-index", base, tree]).bytes()?;
    let mut foreign = differences(&listed);
    let kept = kept_by_lfs(root, &foreign)?;
    foreign.retain(|found| found.submodule || kept.contains(&found.path));
    if foreign.is_empty() {
        return Ok((tree.to_owned(), Vec::new()));
    }
    let index =
        Scratch::beside(&Git::new(root, ["rev-parse", "--path-format=absolute", "--git-path", "index"]).path()?);
    Git::new(root, ["read-tree", tree]).index(&index.0).bytes()?;
    let mut entries = Vec::new();
    for Difference { path, before: (mode, object), .. } in &foreign {
        // A mode of zero takes the entry out.
        entries.extend_from_slice(format!("{mode} {object}\t").as_bytes());
        entries.extend_from_slice(path.as_os_str().as_encoded_bytes());
        entries.push(0);
    }
    Git::new(root, ["update-index", "-z", "--index-info"]).index(&index.0).input(&entries).bytes()?;
    let tree = Git::new(root, ["write-tree"]).index(&index.0).line()?;
    Ok((tree, foreign.into_iter().map(|found| found.path).collect()))
}

/// Reads `--raw -z`: `:MODE MODE OBJECT OBJECT STATUS`, then the path.
fn differences(listed: &[u8]) -> Vec<Difference> {
    let mut words = listed.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let mut found = Vec::new();
    while let (Some(facts), Some(path)) = (words.next(), words.next()) {
        let facts = String::from_utf8_lossy(facts);
        let mut facts = facts.trim_start_matches(':').split(' ');
        if let (Some(old), Some(new), Some(object)) = (facts.next(), facts.next(), facts.next()) {
            let mode = if old == "000000" { "0" } else { old };
            found.push(Difference {
                path: git::path(path),
                before: (mode.to_owned(), object.to_owned()),
                submodule: old == SUBMODULE || new == SUBMODULE,
            });
        }
    }
    found
}

/// Those that the attribute `filter=lfs` names.
fn kept_by_lfs(root: &Path, files: &[Difference]) -> Result<Vec<PathBuf>, WorkspaceError> {
    let mut names = Vec::new();
    for file in files {
        names.extend_from_slice(file.path.as_os_str().as_encoded_bytes());
        names.push(0);
    }
    let listed = Git::new(root, ["check-attr", "-z", "--stdin", "filter"]).input(&names).bytes()?;
    let mut words = listed.split(|byte| *byte == 0);
    let mut found = Vec::new();
    while let (Some(path), Some(_), Some(value)) = (words.next(), words.next(), words.next()) {
        if value == b"lfs" {
            found.push(git::path(path));
        }
    }
    Ok(found)
}
