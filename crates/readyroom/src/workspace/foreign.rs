//! What a job may not change by a diff: submodules, whose content is another repository's, and files that LFS keeps elsewhere.

use std::path::{Path, PathBuf};

use super::WorkspaceError;
use super::change::Difference;
use super::git::{self, Git};
use super::repository::Scratch;

/// The mode of a submodule in a tree.
const SUBMODULE: &str = "160000";

/// What stands for the mode of what is not there.
const NONE: &str = "000000";

/// An entry of the base that is another one, or none, in a tree.
struct Entry {
    path: PathBuf,
    /// Its mode and object in the base, as git writes them; zeros where there is none.
    before: (String, String),
    submodule: bool,
}

/// `tree` with what is foreign as it is in the base, and the paths that were brought back; `None` where nothing is.
pub(super) fn left_alone(
    root: &Path,
    tree: &str,
    differences: &[Difference],
) -> Result<Option<(String, Vec<PathBuf>)>, WorkspaceError> {
    let mut foreign: Vec<Entry> = differences.iter().flat_map(entries).collect();
    let kept = kept_by_lfs(root, &foreign)?;
    foreign.retain(|found| found.submodule || kept.contains(&found.path));
    if foreign.is_empty() {
        return Ok(None);
    }
    let index =
        Scratch::beside(&Git::new(root, ["rev-parse", "--path-format=absolute", "--git-path", "index"]).path()?);
    Git::new(root, ["read-tree", tree]).index(&index.0).bytes()?;
    let mut lines = Vec::new();
    for Entry { path, before: (mode, object), .. } in &foreign {
        // A mode of zero takes the entry out.
        lines.extend_from_slice(format!("{mode} {object}\t").as_bytes());
        lines.extend_from_slice(path.as_os_str().as_encoded_bytes());
        lines.push(0);
    }
    Git::new(root, ["update-index", "-z", "--index-info"]).index(&index.0).input(&lines).bytes()?;
    let tree = Git::new(root, ["write-tree"]).index(&index.0).line()?;
    Ok(Some((tree, foreign.into_iter().map(|found| found.path).collect())))
}

/// The entries that a difference is about: two where a file was renamed.
fn entries(difference: &Difference) -> Vec<Entry> {
    let Difference { edit, before: (mode, object), mode: after } = difference;
    let submodule = mode == SUBMODULE || after == SUBMODULE;
    let was = |path: &PathBuf| {
        let mode = if mode == NONE { "0" } else { mode };
        Entry { path: path.clone(), before: (mode.to_owned(), object.clone()), submodule }
    };
    match &edit.from {
        None => vec![was(&edit.path)],
        Some(from) => {
            let nothing = ("0".to_owned(), "0".repeat(object.len()));
            vec![was(from), Entry { path: edit.path.clone(), before: nothing, submodule }]
        }
    }
}

/// Those that the attribute `filter=lfs` names.
fn kept_by_lfs(root: &Path, files: &[Entry]) -> Result<Vec<PathBuf>, WorkspaceError> {
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
