//! Batches with a name: what a further run takes, refuses and says.

mod support;

use std::fs;

use rustix::process::Signal;
use support::Place;

fn place() -> Place {
    let place = Place::in_repository();
    place.tool("echo", &["--interrupt"]);
    for name in ["f1", "f2", "f3"] {
        place.file(name, "old\n");
    }
    place.sandbox.commit();
    place
}

/// Runs until the first job begins, and stops there.
fn stopped(place: &Place, words: &[&str]) {
    let mut started = place.start(words);
    started.wait_for("begins f1");
    started.signal(Signal::INT);
    started.finish().expect(130);
}

#[test]
fn jobs_of_worktrees_stay_in_them_when_new_ones_are_not() {
    let place = place();
    let go = place.sandbox.home().join("go");
    let prompt = format!("@sh test -e {} || exec sleep 600; pwd > {{}}", go.display());
    stopped(&place, &["-v", "-j", "1", "--batch", "b", &prompt, "f1", "f2"]);
    fs::write(&go, "").unwrap();
    place.run(&["-j", "1", "--batch", "b", "--workspace", "shared", &prompt, "f3"]).expect(0);
    assert!(["f1", "f2"].iter().all(|file| place.read(file).contains("/worktrees/")), "{}", place.read("f1"));
    assert_eq!(place.read("f3"), format!("{}\n", place.sandbox.dir().display()));
}

#[test]
fn a_tool_or_an_output_that_is_another_now_is_told() {
    let place = place();
    place.tool("other", &["--interrupt"]);
    stopped(&place, &["-v", "-j", "1", "--batch", "b", "-o", "one-{}", "@sh echo new > {}; sleep 1; : {}", "f1", "f2"]);
    let words = ["run", "-t", "other", "--batch", "b", "-o", "two-{}", "@sh echo new > {}; sleep 1; : {}", "f1", "f2"];
    let again = place.finish(place.command(&words)).expect(0);
    again.says("jobs f1, f2 are in the batch already, and stand there as first given");
    assert!(place.sandbox.dir().join("one-f1").exists() && !place.sandbox.dir().join("two-f1").exists());
}

#[test]
fn what_has_failed_keeps_the_status() {
    let place = place();
    let words = ["--batch", "b", "--require-change", "@sh test {} = f1 || echo new > {}", "f1", "f2"];
    place.run(&words).expect(1);
    let told = "1 job failed before; `readyroom resume b --failed` runs what failed";
    place.run(&words).expect(1).says(told).says("nothing is left to run");
    place.finish(place.command(&["resume", "b"])).expect(1).says(told);
}

#[test]
fn a_batch_of_another_directory_is_refused() {
    let place = place();
    place.run(&["--batch", "b", "@edit {} new", "f1"]).expect(0);
    place.sandbox.write("elsewhere/g1", "old\n");
    let mut elsewhere = place.command(&["run", "-t", "echo", "--batch", "b", "@edit {} new", "g1"]);
    elsewhere.current_dir(place.sandbox.dir().join("elsewhere"));
    place.finish(elsewhere).expect(2).says("the batch b works in").says("another name with --batch");
}
