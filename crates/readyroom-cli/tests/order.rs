//! Changes in the jobs' order, and stops in the midst of them.

mod support;

use std::fs;

use support::Place;

fn place() -> Place {
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
    let place = place();
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
    let place = place();
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
