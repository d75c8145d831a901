//! Changes in the jobs' order, and stops in the midst of them.

mod support;

use std::fs;

use rustix::process::Signal;
use support::Place;
use support::worktrees::{place, readyroom};

fn empty_place() -> Place {
    let place = Place::in_repository();
    place.tool("echo", &["--interrupt"]);
    place
}

/// What was committed, the oldest first, without what was there before.
fn commits(place: &Place) -> Vec<String> {
    let log = place.sandbox.git(&["log", "--format=%s", "--reverse"]);
    log.lines().filter(|line| line.starts_with("job ")).map(str::to_owned).collect()
}

/// The second pool opens when the first is done, whose ends are all held back until jobs of the second have ended.
#[test]
fn ends_that_are_held_back_hold_nothing_up() {
    let place = empty_place();
    place.tool("other", &["--interrupt"]);
    let job = |n: usize| {
        let tool = if n.is_multiple_of(2) { "echo" } else { "other" };
        format!("{{\"id\":\"{n}\",\"tool\":\"{tool}\",\"prompt\":\"@edit made-{n} new\"}}\n")
    };
    place.file("jobs", (1..=150).map(job).collect::<String>());
    place.sandbox.commit();
    let words = ["-j", "1", "--in-order", "--commit=job {}", "--from", "jobs"];
    place.run(&words).expect(0);
    assert_eq!(commits(&place), (1..=150).map(|n| format!("job {n}")).collect::<Vec<_>>());
}

/// Of two instances the first works at job 1, with job 3 behind it, when the limit of failures is reached.
#[test]
fn a_job_that_a_stop_takes_back_is_waited_for_by_those_behind_it() {
    let place = empty_place();
    let go = place.sandbox.home().join("go");
    let go_on = go.display();
    let first = format!("test {{#}} != 1 || until test -e {go_on}; do sleep 0.05; done");
    let sixth = format!("test {{#}} != 6 || test -e {go_on} || exit 0");
    let prompt = format!("@sh {first}; {sixth}; echo new > made-{{}}");
    let words = ["-j", "2", "--routing", "round_robin", "--in-order", "--commit=job {}", "--require-change"];
    let more = ["--max-failures", "1", &prompt, "1", "2", "3", "4", "5", "6"];
    let mut started = place.start(&[&words[..], &more[..]].concat());
    started.wait_for("stopping: --max-failures");
    fs::write(&go, "").unwrap();
    started.finish().expect(4).says("not done: 3").says("not done: 5");
    assert_eq!(commits(&place), ["job 1", "job 2"]);
    place.finish(place.command(&["resume", "--failed"])).expect(0);
    assert_eq!(commits(&place), (1..=6).map(|n| format!("job {n}")).collect::<Vec<_>>());
}

#[test]
fn a_resume_keeps_the_order_in_which_changes_were_to_come() {
    let place = place();
    place.sandbox.git(&["config", "user.name", "Me"]);
    place.sandbox.git(&["config", "user.email", "me@localhost"]);
    let waits = "@sh test {#} = 2 && test ! -e ../go && sleep 60; echo new > {}";
    let words = ["-v", "-j", "2", "--in-order", "--commit={#}", waits, "f1", "f2", "f3", "f4"];
    let mut started = place.start(&words);
    started.wait_for("ok 1/");
    // The third and the fourth have ended, and wait for the second.
    let journal = place.sandbox.home().join(".local/state/readyroom/journal.sqlite");
    let store = readyroom::journal::Store::open(&journal).unwrap();
    while store.batches().unwrap()[0].states.of(readyroom::journal::JobState::Succeeded) < 3 {
        assert!(started.is_running());
        std::thread::yield_now();
    }
    started.signal(Signal::KILL);
    started.finish();
    place.nothing_left();
    assert_eq!((place.read("f1"), place.read("f3")), ("new\n".into(), "3\n".into()));
    let trees = place.sandbox.home().join(".local/state/readyroom/worktrees");
    fs::write(trees.join("go"), "").unwrap();
    let resumed = readyroom(&place, &["resume"]).expect(0);
    let log = place.sandbox.git(&["log", "--format=%s", "-4"]);
    assert_eq!(log, "4\n3\n2\n1\n", "{resumed:#?}");
}

#[test]
fn a_stop_that_lets_jobs_end_still_brings_their_changes_in_order() {
    let place = place();
    // The third fails while the first still works and the second waits for it.
    let prompt = "@sh test {#} = 3 || { test {#} = 1 && sleep 1; echo new > {}; }";
    let words = ["-j", "3", "--in-order", "--require-change", "--max-failures", "1", prompt, "f1", "f2", "f3"];
    place.run(&words).expect(1);
    assert_eq!((place.read("f1"), place.read("f2")), ("new\n".into(), "new\n".into()));

    // The first waits to be tried again when the third fails, so that the second waits for a job that does not come.
    let first = "{ until test -e ../third; do sleep 0.05; done; touch ../crashed; kill -KILL $PPID; }";
    let third = "{ touch ../third; until test -e ../crashed; do sleep 0.05; done; exit 0; }";
    let prompt =
        format!("@sh test -e ../go || {{ test {{#}} = 1 && {first}; test {{#}} = 3 && {third}; }}; echo newer > {{}}");
    let words = ["-j", "3", "--in-order", "--require-change", "--max-failures", "1", &prompt, "f4", "f5", "f6"];
    assert_ne!(place.run(&words).code(), 0);
    assert_eq!(place.read("f4"), "4\n");
    let trees = place.sandbox.home().join(".local/state/readyroom/worktrees");
    fs::create_dir_all(&trees).unwrap();
    fs::write(trees.join("go"), "").unwrap();
    readyroom(&place, &["resume", "--failed"]).expect(0);
    assert_eq!(["f4", "f5", "f6"].map(|file| place.read(file)), ["newer\n"; 3]);
}
