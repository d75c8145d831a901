//! What git's index says of files that it does not look at: a job may have marked some so.

/// Whether an index marks any file as unchanged whatever it holds, or as not there (`assume-unchanged`, `skip-worktree`). Of one
/// that can't be read, yes. `id` is the length of its objects' ids in bytes.
pub fn has_marks(index: &[u8], id: usize) -> bool {
    marks(index, id).unwrap_or(true)
}

/// The format is git's `index-format`: a header, entries with the file's facts, its id, flags and name, then extensions.
fn marks(index: &[u8], id: usize) -> Option<bool> {
    const FACTS: usize = 40;
    let number = |at: usize| Some(u32::from_be_bytes(index.get(at..at + 4)?.try_into().ok()?));
    let short = |at: usize| Some(u16::from_be_bytes(index.get(at..at + 2)?.try_into().ok()?));
    if index.get(..4)? != b"DIRC" {
        return None;
    }
    let (version, count) = (number(4)?, number(8)?);
    let mut at = 12;
    for _ in 0..count {
        let flags = short(at + FACTS + id)?;
        let mut name = at + FACTS + id + 2;
        let mut skipped = false;
        if version >= 3 && flags & 0x4000 != 0 {
            skipped = short(name)? & 0x4000 != 0;
            name += 2;
        }
        if flags & 0x8000 != 0 || skipped {
            return Some(true);
        }
        if version >= 4 {
            // How much of the name before is not repeated, seven bits in each byte.
            name += index.get(name..)?.iter().position(|byte| byte & 0x80 == 0)? + 1;
        }
        let end = name + index.get(name..)?.iter().position(|byte| *byte == 0)?;
        // Before version 4 names are filled up with one to eight zeros.
        at = if version >= 4 { end + 1 } else { at + ((end - at) / 8 + 1) * 8 };
    }
    // Entries of a split index are elsewhere.
    Some(index.get(at..)?.starts_with(b"link"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn git(directory: &Path, words: &[&str]) {
        let done = Command::new("git").current_dir(directory).args(words).env("HOME", directory).output().unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    #[test]
    fn marks_are_found_in_every_version() {
        for (format, id) in [("sha1", 20), ("sha256", 32)] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path();
            git(root, &["init", "--quiet", &format!("--object-format={format}")]);
            for name in ["a", "ab", "abcdefg", "with a longer name", "\u{e9}t\u{e9}"] {
                std::fs::write(root.join(name), name).unwrap();
            }
            git(root, &["add", "--all"]);
            let marked = || has_marks(&std::fs::read(root.join(".git/index")).unwrap(), id);
            for version in ["2", "3", "4"] {
                git(root, &["update-index", "--index-version", version]);
                assert!(!marked(), "{version}");
                for mark in ["skip-worktree", "assume-unchanged"] {
                    git(root, &["update-index", &format!("--{mark}"), "with a longer name"]);
                    assert!(marked(), "{version} {mark}");
                    git(root, &["update-index", &format!("--no-{mark}"), "with a longer name"]);
                    assert!(!marked(), "{version} {mark}");
                }
            }
            git(root, &["update-index", "--index-version", "2"]);
            let whole = std::fs::read(root.join(".git/index")).unwrap();
            // At each length: what can't be read to the end counts as marked, and is no reason to stop.
            let marked: Vec<bool> = (0..whole.len()).map(|length| has_marks(&whole[..length], id)).collect();
            assert!(marked[..100].iter().all(|marked| *marked), "what can't be read");
        }
    }
}
