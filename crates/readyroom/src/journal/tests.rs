//! The journal on real files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc;

use serde_json::json;

use super::*;
use crate::budget::Spent;
use crate::workspace::{Change, Edit, EditKind};

fn batch(directory: &Path, jobs: usize) -> NewBatch {
    let job = |place: usize| NewJob { id: format!("job {place}"), spec: json!({ "prompt": place }) };
    NewBatch {
        id: None,
        directory: directory.to_owned(),
        title: "a batch".into(),
        spec: json!({ "tool": "echo" }),
        jobs: (0..jobs).map(job).collect(),
    }
}

fn begun(batch: &str, place: usize) -> Entry {
    Entry::Begun { batch: batch.to_owned(), place, safe: false }
}

#[test]
fn only_the_beginning_of_what_may_run_twice_does_not_wait_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let mut store = Store::open(&path).unwrap();
    assert!(store.waits_for_disk());
    let id = store.create(&batch(dir.path(), 3)).unwrap();
    let safe = Entry::Begun { batch: id.clone(), place: 0, safe: true };
    store.enter(std::slice::from_ref(&safe)).unwrap();
    assert!(!store.waits_for_disk());
    assert_eq!(Store::open(&path).unwrap().jobs(&id).unwrap()[0].state, JobState::Running);
    store.enter(&[safe.clone(), begun(&id, 1)]).unwrap();
    assert!(store.waits_for_disk());
    store.enter(&[safe, Entry::Told { batch: id.clone(), place: 1 }]).unwrap();
    assert!(!store.waits_for_disk());
    store.enter(&[Entry::Lost { batch: id, place: 2 }]).unwrap();
    assert!(store.waits_for_disk());
}

#[test]
fn a_batch_comes_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/journal.sqlite");
    let mut store = Store::open(&path).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let id = store.create(&batch(dir.path(), 3)).unwrap();
    let other = store.create(&batch(Path::new("/elsewhere"), 1)).unwrap();
    assert_ne!(id, other, "also within one second");
    let ended = Entry::Ended {
        batch: id.clone(),
        place: 1,
        state: JobState::Failed,
        outcome: json!({ "why": "x" }),
        spent: Spent { tokens: 5, usd: 0.5 },
        change: None,
    };
    store.enter(&[begun(&id, 1), ended, begun(&id, 2)]).unwrap();
    drop(store);

    let store = Store::open(&path).unwrap();
    let found = store.last_in(dir.path()).unwrap();
    assert_eq!((&found.id, found.states.total(), &found.spec), (&id, 3, &json!({ "tool": "echo" })));
    let count = |state| found.states.of(state);
    assert_eq!((count(JobState::Queued), count(JobState::Failed), count(JobState::Running)), (1, 1, 1));
    let jobs = store.jobs(&id).unwrap();
    assert_eq!(
        (jobs[1].state, jobs[1].attempts, &jobs[1].outcome),
        (JobState::Failed, 1, &Some(json!({ "why": "x" })))
    );
    assert_eq!((jobs[2].place, &jobs[2].id, &jobs[2].spec), (2, &"job 2".to_owned(), &json!({ "prompt": 2 })));
    assert_eq!(store.batches().unwrap().len(), 2);
    let missing = store.batch("nothing").unwrap_err().to_string();
    assert!(missing.starts_with("no batch nothing in "), "{missing}");
    assert!(store.last_in(Path::new("/nowhere")).is_err());
}

#[test]
fn a_removed_batch_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("j")).unwrap();
    let id = store.create(&batch(dir.path(), 1)).unwrap();
    store.remove(&id).unwrap();
    assert!(store.batch(&id).is_err() && store.jobs(&id).unwrap().is_empty());
}

#[test]
fn what_is_no_journal_of_ours_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    std::fs::write(&path, "something else, and long enough not to be taken for an empty file").unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    assert!(error.contains("can't be used: file is not a database"), "{error}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("something else"), "and left alone");

    let path = dir.path().join("newer");
    drop(Store::open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 99, .. }), "{error}");
    assert!(matches!(Store::open(dir.path()), Err(JournalError::File { .. })));
}

/// A bug that others had (anthropics/claude-code#75894): two owners that started in the same moment both went to
/// work.
#[test]
fn a_batch_has_one_owner_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let lease = Lease::take(&path, "b").unwrap();
    let error = Lease::take(&path, "b").unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    assert!(Lease::take(&path, "other").is_ok());
    drop(lease);
    assert!(Lease::take(&path, "b").is_ok());
}

#[test]
fn the_writer_tells_when_it_is_durable_or_can_not_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let mut store = Store::open(&path).unwrap();
    let id = store.create(&batch(dir.path(), 100)).unwrap();
    let writer = Writer::start(store, Lease::take(&path, &id).unwrap()).unwrap();
    let (sender, told) = mpsc::channel();
    for place in 0..100 {
        let (sender, path, id) = (sender.clone(), path.clone(), id.clone());
        writer.enter(begun(&id, place), move |result| {
            // Another connection sees it.
            let seen = Store::open(&path).unwrap().jobs(&id).unwrap()[place].state;
            sender.send((result.is_ok(), seen)).unwrap();
        });
    }
    for _ in 0..100 {
        assert_eq!(told.recv().unwrap(), (true, JobState::Running));
    }
    rusqlite::Connection::open(&path).unwrap().execute_batch("ALTER TABLE jobs RENAME TO gone").unwrap();
    writer.enter(Entry::Lost { batch: id, place: 0 }, move |result| {
        sender.send((result.is_ok(), JobState::Lost)).unwrap()
    });
    assert_eq!(told.recv().unwrap(), (false, JobState::Lost));
}

#[test]
fn a_success_without_a_change_takes_back_what_an_earlier_attempt_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("j")).unwrap();
    let id = store.create(&batch(dir.path(), 2)).unwrap();
    let change = Change {
        base: "b".into(),
        commit: "c".into(),
        tree: "t".into(),
        edits: Vec::new(),
        patch: Vec::new(),
        left_alone: Vec::new(),
    };
    let ended = |place, state, change| Entry::Ended {
        batch: id.clone(),
        place,
        state,
        outcome: json!({}),
        spent: Spent::default(),
        change,
    };
    let recorded = |state| Some(Box::new(Recorded { change: change.clone(), state, branch: None }));
    let first = ended(0, JobState::Failed, recorded(ChangeState::Conflict));
    store.enter(&[first, ended(1, JobState::Succeeded, recorded(ChangeState::Applied))]).unwrap();
    store.enter(&[ended(0, JobState::Failed, None)]).unwrap();
    assert_eq!(store.unapplied(&id).unwrap(), 1);
    store.enter(&[ended(0, JobState::Succeeded, None), ended(1, JobState::Succeeded, None)]).unwrap();
    assert_eq!(store.unapplied(&id).unwrap(), 0);
    assert_eq!(store.changes(&id).unwrap().len(), 1, "what was applied is known");
}

#[test]
fn an_end_that_was_not_told_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("j")).unwrap();
    let id = store.create(&batch(dir.path(), 4)).unwrap();
    let ended = |place, state| Entry::Ended {
        batch: id.clone(),
        place,
        state,
        outcome: json!({ "place": place }),
        spent: Spent::default(),
        change: None,
    };
    let ends = [JobState::Succeeded, JobState::Failed, JobState::Cancelled];
    let ends: Vec<_> = ends.into_iter().enumerate().map(|(place, state)| ended(place, state)).collect();
    store.enter(&ends).unwrap();
    let untold = |store: &Store| store.untold(&id).unwrap().iter().map(|job| job.place).collect::<Vec<_>>();
    assert_eq!(untold(&store), [0, 1], "what was cancelled is run again, or lost");
    store.enter(&[Entry::Told { batch: id.clone(), place: 0 }]).unwrap();
    assert_eq!(untold(&store), [1]);
    store.enter(&[begun(&id, 0), ended(0, JobState::Failed)]).unwrap();
    assert_eq!(untold(&store), [0, 1], "a new end is one that is to be told");
}

#[test]
fn journals_of_every_earlier_version_are_taken_up() {
    let versions = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/journal/versions");
    let dir = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(versions).unwrap() {
        let file = entry.unwrap().path();
        let copy = dir.path().join(file.file_name().unwrap());
        std::fs::copy(&file, &copy).unwrap();
        let mut store = Store::open(&copy).unwrap();
        let batch = store.last_in(Path::new("/srv/project")).unwrap();
        let states: Vec<_> = store.jobs(&batch.id).unwrap().iter().map(|job| job.state).collect();
        assert_eq!(states, [JobState::Succeeded, JobState::Failed, JobState::Queued, JobState::Queued], "{file:?}");
        let spent = Spent { tokens: 7, usd: 0.25 };
        store.enter(&[Entry::Requeued { batch: batch.id.clone(), place: 2, spent }]).unwrap();
        assert_eq!(store.jobs(&batch.id).unwrap()[2].spent, spent);
        assert_eq!(store.changes(&batch.id).unwrap(), []);
        assert_eq!(store.untold(&batch.id).unwrap(), [], "what was not known of then");
        seen.push(file.file_stem().unwrap().to_str().unwrap().parse::<i64>().unwrap());
    }
    seen.sort_unstable();
    let newest = Store::open(&dir.path().join("new")).unwrap().version().unwrap();
    assert_eq!(seen, (1..newest).collect::<Vec<_>>(), "a file of each earlier version is kept");
}

#[test]
fn changes_come_back_in_the_order_in_which_their_jobs_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("j")).unwrap();
    let id = store.create(&batch(dir.path(), 3)).unwrap();
    let change = |name: &str| Change {
        base: "b".into(),
        commit: "c".into(),
        tree: "t".into(),
        edits: vec![Edit { kind: EditKind::Added, path: name.into(), from: None }],
        patch: vec![0, 255, b'\n'],
        left_alone: Vec::new(),
    };
    let ended = |place, name: &str, state| Entry::Ended {
        batch: id.clone(),
        place,
        state: JobState::Succeeded,
        outcome: json!({}),
        spent: Spent { tokens: 1, usd: 0.5 },
        change: Some(Box::new(Recorded { change: change(name), state, branch: None })),
    };
    let pending = ChangeState::Pending;
    store.enter(&[ended(2, "two", pending), ended(0, "zero", pending), ended(1, "one", ChangeState::Kept)]).unwrap();
    let stands = Some((JobState::Failed, json!({ "with": "its change" })));
    let applied =
        Entry::Changed { batch: id.clone(), place: 2, state: ChangeState::Applied, branch: None, job: stands };
    store.enter(&[applied, ended(0, "again", pending)]).unwrap();
    let found = store.changes(&id).unwrap();
    let seen: Vec<_> = found.iter().map(|(place, recorded)| (*place, recorded.state)).collect();
    assert_eq!(seen, [(2, ChangeState::Applied), (1, ChangeState::Kept), (0, pending)], "a job's last end counts");
    assert_eq!(found[2].1.change, change("again"));
    assert_eq!(store.unapplied(&id).unwrap(), 2);
    let jobs = store.jobs(&id).unwrap();
    assert_eq!(jobs[0].spent, Spent { tokens: 2, usd: 1.0 });
    assert_eq!((jobs[2].state, jobs[2].outcome.as_ref()), (JobState::Failed, Some(&json!({ "with": "its change" }))));
    assert_eq!(jobs[2].spent, Spent { tokens: 1, usd: 0.5 }, "it was spent once");
}

#[test]
fn a_named_batch_is_there_once_and_grows() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("j")).unwrap();
    let named = NewBatch { id: Some("nightly".into()), ..batch(dir.path(), 2) };
    assert_eq!(store.create(&named).unwrap(), "nightly");
    assert!(matches!(store.create(&named), Err(JournalError::Taken { .. })));
    store
        .extend(
            "nightly",
            &json!({ "new": true }),
            &[(0, json!("again"))],
            &[NewJob { id: "third".into(), spec: json!(3) }],
        )
        .unwrap();
    let jobs = store.jobs("nightly").unwrap();
    assert_eq!((jobs.len(), jobs[2].place, jobs[2].id.as_str()), (3, 2, "third"));
    assert_eq!((jobs[0].state, &jobs[0].spec), (JobState::Queued, &json!("again")));
    assert_eq!(store.batch("nightly").unwrap().spec, json!({ "new": true }));
}
