//! A repository for jobs in worktrees, and what is asked of it.

use std::collections::HashMap;
use std::fs;

use serde_json::Value;

use super::{Finished, Place};

/// A repository with files `f1` to `f9`, something ignored, and edits that are not committed.
pub fn place() -> Place {
    let place = Place::in_repository();
    for file in 1..=9 {
        place.file(&format!("f{file}"), format!("{file}\n"));
    }
    place.file(".gitignore", "ignored/\n");
    place.file("sub/s", "s\n");
    place.sandbox.commit();
    place.file("ignored/x", "x\n");
    place.file("f9", "not committed\n");
    place
}

pub fn readyroom(place: &Place, words: &[&str]) -> Finished {
    place.finish(place.command(words))
}

pub fn status(place: &Place) -> String {
    place.sandbox.git(&["status", "--porcelain"])
}

/// That nothing of worktrees is left, in the repository and beside the journal.
#[track_caller]
pub fn no_worktree_left(place: &Place) {
    let listed = place.sandbox.git(&["worktree", "list", "--porcelain"]);
    assert_eq!(listed.matches("worktree ").count(), 1, "{listed}");
    let kept = place.sandbox.home().join(".local/state/readyroom/worktrees");
    let left: Vec<_> = fs::read_dir(kept).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

pub fn jobs(place: &Place) -> HashMap<String, Value> {
    let shown = readyroom(place, &["batch", "show", "--json"]).expect(0).out;
    let job = |line: &str| {
        let job: Value = serde_json::from_str(line).unwrap();
        (job["id"].as_str().unwrap().to_owned(), job)
    };
    shown.lines().map(job).collect()
}
