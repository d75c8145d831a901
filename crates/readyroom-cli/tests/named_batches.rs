//! Batches with a name: what a further run takes, refuses and says.

mod support;

use std::fs;

use rustix::process::Signal;
use support::Place;
use support::worktrees::{jobs, place};

fn place_of_three() -> Place {
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
    let place = place_of_three();
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
    let place = place_of_three();
    place.tool("other", &["--interrupt"]);
    stopped(&place, &["-v", "-j", "1", "--batch", "b", "-o", "one-{}", "@sh echo new > {}; sleep 1; : {}", "f1", "f2"]);
    let words = ["run", "-t", "other", "--batch", "b", "-o", "two-{}", "@sh echo new > {}; sleep 1; : {}", "f1", "f2"];
    let again = place.finish(place.command(&words)).expect(0);
    again.says("jobs f1, f2 are in the batch already, and stand there as first given");
    assert!(place.sandbox.dir().join("one-f1").exists() && !place.sandbox.dir().join("two-f1").exists());
}

#[test]
fn what_has_failed_keeps_the_status() {
    let place = place_of_three();
    let words = ["--batch", "b", "--require-change", "@sh test {} = f1 || echo new > {}", "f1", "f2"];
    place.run(&words).expect(1);
    let told = "1 job failed before; `readyroom resume b --failed` runs what failed";
    place.run(&words).expect(1).says(told).says("nothing is left to run");
    place.finish(place.command(&["resume", "b"])).expect(1).says(told);
}

#[test]
fn a_batch_of_another_directory_is_refused() {
    let place = place_of_three();
    place.run(&["--batch", "b", "@edit {} new", "f1"]).expect(0);
    place.sandbox.write("elsewhere/g1", "old\n");
    let mut elsewhere = place.command(&["run", "-t", "echo", "--batch", "b", "@edit {} new", "g1"]);
    elsewhere.current_dir(place.sandbox.dir().join("elsewhere"));
    place.finish(elsewhere).expect(2).says("the batch b works in").says("another name with --batch");
}

#[test]
fn a_named_batch_runs_only_what_is_new_or_changed() {
    let place = place();
    let log = place.sandbox.home().join("asked");
    place.tool("echo", &["--log", log.to_str().unwrap()]);
    let run = |words: &[&str]| {
        let _ = fs::remove_file(&log);
        let all: Vec<&str> = ["-q", "--batch", "nightly"].iter().chain(words).copied().collect();
        place.run(&all).expect(0);
        let asked = fs::read_to_string(&log).unwrap_or_default();
        let mut asked: Vec<String> =
            asked.lines().filter_map(|line| Some(line.split_once("@edit ")?.1.split(' ').next()?.to_owned())).collect();
        asked.sort();
        asked.join(" ")
    };
    assert_eq!(run(&["@edit {} new", "f1", "f2"]), "f1 f2");
    assert_eq!(run(&["@edit {} new", "f1", "f2", "f3"]), "f3");
    assert_eq!(run(&["@edit {} new", "f1", "f2", "f3"]), "");
    place.file("f2", "mine\n");
    assert_eq!(run(&["@edit {} new", "f1", "f2", "f3"]), "");
    assert_eq!(run(&["--rerun-changed", "@edit {} newer", "f1", "f2", "f3"]), "f2");
    assert_eq!(place.read("f2"), "newer\n");
    assert_eq!(jobs(&place).len(), 3);
    place.run(&["--batch", "../x", "{}", "f1"]).expect(2).says("a batch's name is");
    place.sandbox.write("sub/f1", "another\n");
    let words = ["run", "-t", "echo", "--batch", "nightly", "@edit {} new", "f1"];
    let mut elsewhere = place.command(&words);
    elsewhere.current_dir(place.sandbox.dir().join("sub"));
    place.finish(elsewhere).expect(2).says("works in").says("another name with --batch");
    // The numbers of a further run begin at 1 again, and its answers must not replace those of the first.
    let words = ["-q", "--batch", "answers", "-o", "{#}.txt", "see {}"];
    place.run(&[&words[..], &["f1", "f2"]].concat()).expect(0);
    place.run(&[&words[..], &["f3"]].concat()).expect(2).says("1.txt for the job f3, and for f1");
    assert_eq!(place.read("1.txt"), "see f1\n");
    place.run(&[&words[..], &["f1", "f2"]].concat()).expect(0);
    place.run(&["--rerun-changed", "{}", "f1"]).expect(2);
}

#[test]
fn a_batch_that_is_repeated_otherwise_says_what_stands_as_it_was() {
    let place = place();
    let go = place.sandbox.home().join("go");
    let first = format!("@sh test -e {} || exec sleep 600; echo new > {{}}", go.display());
    for (batch, again, told) in [("b", "@sh echo newer > {}", true), ("c", &first, false)] {
        let (words, files) = (["-v", "-j", "1", "--batch", batch, "--timeout", "90s"], ["f1", "f2", "f3"]);
        let mut started = place.start(&[&words[..], &[&first], &files].concat());
        started.wait_for("begins f1");
        started.signal(Signal::INT);
        started.finish().expect(130);
        std::fs::write(&go, "").unwrap();
        let repeated = place.run(&[&words[..], &[again], &files].concat()).expect(0);
        let stands = "jobs f1, f2, f3 are in the batch already, and stand there as first given";
        assert_eq!(repeated.err.contains(stands), told, "{repeated:?}");
        assert_eq!(files.map(|file| place.read(file)), ["new\n"; 3]);
        std::fs::remove_file(&go).unwrap();
        place.sandbox.git(&["checkout", "--quiet", "."]);
    }
}

#[test]
fn json_lines_of_a_batch_that_is_repeated_go_behind_those_that_are_there() {
    let place = place();
    let words = ["--batch", "nightly", "--json", "lines", "see {}"];
    let run = |inputs: &[&str]| drop(place.run(&[&words[..], inputs].concat()).expect(0));
    place.file("lines", "of another run\n");
    run(&["f1"]);
    assert_eq!(place.read("lines").lines().count(), 1);
    run(&["f1"]);
    run(&["f1", "f2"]);
    assert_eq!(place.read("lines").lines().count(), 2);
}

#[test]
fn batches_of_one_name_in_journals_of_their_own_do_not_share_worktrees() {
    let place = place();
    for (journal, file) in [("a", "f1"), ("b", "f2")] {
        let journal = place.sandbox.home().join(journal);
        let words = ["--batch", "nightly", "--journal", journal.to_str().unwrap(), "@sh pwd > {}", file];
        place.run(&words).expect(0);
    }
    assert_ne!(place.read("f1"), place.read("f2"));
}
