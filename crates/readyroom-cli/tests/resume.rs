//! Batches that are stopped or killed and resumed: each job has one outcome, and no prompt runs twice that may not.

mod support;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use support::{Finished, Place};

/// A place whose echo takes a moment for each turn and writes down what it was asked.
fn place() -> Place {
    let place = Place::new();
    let log = log(&place);
    place.tool("echo", &["--interrupt", "--delay", "5", "--log", log.to_str().unwrap()]);
    place
}

fn log(place: &Place) -> std::path::PathBuf {
    place.sandbox.home().join("asked")
}

/// How often each prompt reached the tool.
fn asked(place: &Place) -> HashMap<String, usize> {
    let mut asked = HashMap::new();
    for line in fs::read_to_string(log(place)).unwrap_or_default().lines() {
        let prompt = line.split_once(' ').unwrap().1;
        if prompt.starts_with("do ") {
            *asked.entry(prompt.to_owned()).or_default() += 1;
        }
    }
    asked
}

fn readyroom(place: &Place, words: &[&str]) -> Finished {
    place.finish(place.command(words))
}

/// The states of the last batch's jobs, by id.
fn states(place: &Place) -> HashMap<String, String> {
    states_in(&readyroom(place, &["batch", "show", "--json"]).expect(0).out)
}

fn states_in(shown: &str) -> HashMap<String, String> {
    let job = |line: &str| {
        let job = value(line);
        (job["id"].as_str().unwrap().to_owned(), job["state"].as_str().unwrap().to_owned())
    };
    shown.lines().map(job).collect()
}

fn value(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

fn count(states: &HashMap<String, String>, state: &str) -> usize {
    states.values().filter(|each| *each == state).count()
}

/// The owner is killed at ten moments, each time followed by a resume. What may have run is lost and not run again until
/// that is asked for; all else runs exactly once.
fn killed_and_resumed(seed: u64, permissions: &str) -> (Place, HashMap<String, String>) {
    const JOBS: usize = 80;
    let place = place();
    let inputs: Vec<String> = (0..JOBS).map(|job| format!("job-{job}")).collect();
    let mut words = vec!["-j", "4", "--permissions", permissions, "-o", "out/{}", "--json", "lines", "do {}"];
    words.extend(inputs.iter().map(String::as_str));
    let mut random = seed;
    let mut started = Some(place.start(&words));
    let mut killed = 0;
    for _ in 0..10 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut running = started.take().unwrap();
        running.wait_for_lines("ok ", 1 + (random >> 33) as usize % 5);
        // On a busy machine it may be far ahead of who reads what it says, and once be done.
        running.signal(Signal::KILL);
        killed += usize::from(running.finish().status.signal().is_some());
        place.nothing_left();
        let mut command = place.command(&["resume", "--json", "lines"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        started = Some(support::Started::new(command.spawn().unwrap()));
    }
    started.unwrap().finish();
    place.nothing_left();
    // What was written down and not told when its run was killed, a resume has told.
    let lines = place.read("lines");
    let told: HashSet<String> = lines.lines().map(|line| value(line)["input"].as_str().unwrap().to_owned()).collect();
    for (id, _) in states(&place).iter().filter(|(_, state)| *state == "succeeded") {
        assert_eq!(place.read(&format!("out/{id}")), format!("do {id}\n"));
        assert!(told.contains(id), "{id} is not in {lines}");
    }
    assert!(killed >= 3, "it was done before it could be killed: {killed}");
    let states = states(&place);
    assert_eq!(states.len(), JOBS);
    (place, states)
}

/// A bug that others had (griffinwork40/agent-afk#1411): a restart in mid-job lost the job.
#[test]
fn a_killed_run_is_resumed_and_nothing_that_edits_runs_twice() {
    for seed in [1, 2, 3] {
        let (place, states) = killed_and_resumed(seed, "edit");
        let lost = count(&states, "lost");
        assert_eq!(count(&states, "succeeded") + lost, states.len(), "{states:?}");
        // What ran, and what had just ended and was not yet on the disk.
        assert!(lost > 0 && lost <= 10 * 8, "{lost}");
        let once = asked(&place);
        assert!(once.values().all(|times| *times == 1), "{once:?}");
        for (id, state) in &states {
            assert!(state == "lost" || once.contains_key(&format!("do {id}")), "{id} succeeded and never ran");
        }

        let finished = readyroom(&place, &["resume"]).expect(1);
        finished.says("nothing is left to run").says("`readyroom resume --lost` runs it again");
        readyroom(&place, &["resume", "--lost"]).expect(0);
        assert_eq!(count(&self::states(&place), "succeeded"), states.len());
        for (prompt, times) in asked(&place) {
            let was_lost = states[prompt.strip_prefix("do ").unwrap()] == "lost";
            assert!(times == 1 || (was_lost && times == 2), "{prompt}: {times}");
        }
        readyroom(&place, &["resume"]).expect(0).says("nothing is left to run");
    }
}

#[test]
fn a_killed_run_that_only_reads_is_done_without_a_question() {
    let (place, states) = killed_and_resumed(4, "read");
    assert_eq!(count(&states, "succeeded"), states.len());
    let outcomes = readyroom(&place, &["batch", "results", "--json"]).expect(0).out;
    let numbers: Vec<u64> = outcomes.lines().map(|line| value(line)["job"].as_u64().unwrap()).collect();
    assert_eq!(
        numbers,
        (1..=states.len() as u64).collect::<Vec<_>>(),
        "one outcome each, under the batch's own numbers"
    );
}

/// The run is killed while it can't bring an answer to its file: nobody reads the pipe that stands there.
#[test]
fn what_ended_and_was_not_told_is_told_by_the_resume() {
    let place = place();
    let pipe = place.file("out/a", "");
    fs::remove_file(&pipe).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let started = place.start(&["-j", "1", "--permissions", "edit", "-o", "out/{}", "{}", "a", "@exit 3", "c"]);
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let shown = place.command(&["batch", "show", "--json"]).output().unwrap();
        let states = states_in(&String::from_utf8_lossy(&shown.stdout));
        if count(&states, "succeeded") + count(&states, "failed") == 3 {
            break;
        }
        assert!(Instant::now() < until, "{shown:?}");
    }
    started.signal(Signal::KILL);
    assert!(started.finish().status.signal().is_some());
    place.nothing_left();
    fs::remove_file(&pipe).unwrap();
    fs::remove_dir(pipe.parent().unwrap()).unwrap();

    let resumed = readyroom(&place, &["resume", "--json", "lines"]).expect(1);
    resumed.says("a had succeeded; its run was ended before it could tell").says("@exit 3 had failed: ");
    resumed.says("nothing is left to run");
    assert_eq!((place.read("out/a"), place.read("out/c")), ("a\n".into(), "c\n".into()));
    let ended = |line: &str| value(line)["outcome"].as_str().unwrap().to_owned();
    assert_eq!(place.read("lines").lines().map(ended).collect::<Vec<_>>(), ["succeeded", "failed", "succeeded"]);
    let again = readyroom(&place, &["resume", "--json", "lines"]).expect(1);
    assert!(!again.err.contains(" had ") && place.read("lines").lines().count() == 3, "{again:?}");
    assert!(asked(&place).is_empty());
}

#[test]
fn an_answer_that_had_no_room_comes_to_its_file_with_the_resume() {
    let place = place();
    let full = place.file("out/a", "");
    fs::remove_file(&full).unwrap();
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    let stopped = place.run(&["-j", "1", "--permissions", "read", "-o", "out/{}", "{}", "a", "b"]).expect(4);
    stopped.says("free some space and run again");
    fs::remove_file(&full).unwrap();
    readyroom(&place, &["resume"]).expect(0).says("a had succeeded");
    assert_eq!((place.read("out/a"), place.read("out/b")), ("a\n".into(), "b\n".into()));
}

#[test]
fn what_a_signal_stops_stays_queued() {
    let place = place();
    let mut started = place.start(&[
        "-v",
        "-j",
        "1",
        "--permissions",
        "edit",
        "-o",
        "out/{/}",
        "{}",
        "do 1",
        "@hang",
        "do 2",
        "do 3",
    ]);
    started.wait_for("begins @hang");
    started.signal(Signal::INT);
    let finished = started.finish().expect(130);
    let id = finished.err.split("`readyroom resume ").nth(1).unwrap().split('`').next().unwrap().to_owned();
    let seen = states(&place);
    assert_eq!(
        (seen["do 2"].as_str(), seen["do 3"].as_str(), seen["@hang"].as_str()),
        ("queued", "queued", "cancelled")
    );
    // From elsewhere, by its id; the answers' files are where they were to be.
    let mut command = place.command(&["resume", &id]);
    command.current_dir(place.sandbox.home());
    place.finish(command).expect(1).says("@hang may have run");
    assert_eq!(place.read("out/do 3"), "do 3\n");
    assert_eq!(states(&place)["@hang"], "lost");
}

#[test]
fn what_failed_is_run_again_when_that_is_asked_for() {
    let place = place();
    place.run(&["-j", "1", "--permissions", "edit", "{}", "do 1", "@exit 3"]).expect(1);
    readyroom(&place, &["resume"]).expect(1).says("1 job failed before").says("nothing is left to run");
    let failed = readyroom(&place, &["batch", "results", "--kind", "crashed"]).expect(0).out;
    readyroom(&place, &["batch", "results", "--kind", "bogus"]).expect(2).says("there are tool_missing, ");
    assert!(failed.starts_with("==> @exit 3 <==\nfailed: crashed"), "{failed}");
    readyroom(&place, &["resume", "--failed"]).expect(1).says("@exit 3");
    let shown = readyroom(&place, &["batch", "show"]).expect(0).out;
    assert!(shown.contains("@exit 3  failed     2"), "{shown}");
}

#[test]
fn a_batch_has_one_owner() {
    let place = place();
    let mut started = place.start(&["-v", "--permissions", "edit", "{}", "@hang"]);
    started.wait_for("begins @hang");
    let mut command = place.command(&["resume"]);
    let second = command.output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2));
    assert!(said.contains("is being run by process "), "{said}");
    let rm = place.command(&["batch", "prune", "--older-than", "0s"]).output().unwrap();
    assert!(rm.status.success() && rm.stdout.is_empty(), "what is under way is not done: {rm:?}");
    started.signal(Signal::TERM);
    started.finish().expect(143);
    place.nothing_left();
}

#[test]
fn batches_are_listed_shown_and_removed() {
    let place = place();
    place.run(&["--permissions", "edit", "do {}", "b", "./a"]).expect(0);
    place.run(&["--no-journal", "--permissions", "edit", "do {}", "c"]).expect(0);
    let list = readyroom(&place, &["batch", "list", "--json"]).expect(0).out;
    let batch: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((batch["jobs"]["succeeded"].as_u64(), batch["title"].as_str()), (Some(2), Some("echo: do b")));
    let id = batch["id"].as_str().unwrap();
    assert!(readyroom(&place, &["batch", "list"]).expect(0).out.contains("2 succeeded"));
    assert_eq!(readyroom(&place, &["batch", "results"]).expect(0).out, "==> b <==\ndo b\n==> a <==\ndo ./a\n");
    let job: Value = serde_json::from_str(&readyroom(&place, &["batch", "show", id, "a"]).expect(0).out).unwrap();
    assert_eq!((job["outcome"]["answer"].as_str(), job["attempts"].as_u64()), (Some("do ./a\n"), Some(1)));
    readyroom(&place, &["batch", "show", id, "nothing"]).expect(2).says("has no job \"nothing\"");
    for command in ["batch list", "batch results", "resume"] {
        let words: Vec<&str> = command.split(' ').chain(["--journal", "mistyped"]).collect();
        readyroom(&place, &words).expect(2).says("there is no journal mistyped");
    }
    assert!(!place.sandbox.dir().join("mistyped").exists());
    let file = place.sandbox.home().join(".local/state/readyroom/journal.sqlite");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(readyroom(&place, &["batch", "prune", "--older-than", "1d"]).expect(0).out, "");
    readyroom(&place, &["batch", "rm", id]).expect(0);
    readyroom(&place, &["batch", "show"]).expect(2).says("`readyroom batch list` shows them");
    readyroom(&place, &["resume", id]).expect(2).says(&format!("no batch {id} in "));
}

#[test]
fn what_ran_when_its_owner_was_killed_is_not_shown_as_running() {
    let place = place();
    let mut started = place.start(&["-v", "-j", "1", "@hang"]);
    started.wait_for("begins");
    let shown = || String::from_utf8(place.command(&["batch", "show"]).output().unwrap().stdout).unwrap();
    let listed = || String::from_utf8(place.command(&["batch", "list"]).output().unwrap().stdout).unwrap();
    assert!(shown().contains("running") && listed().contains("1 running"), "{}", shown());
    started.signal(Signal::KILL);
    started.finish();
    assert!(shown().contains("interrupted") && listed().contains("1 interrupted"), "{}", shown());
    place.nothing_left();
}

#[test]
fn results_are_as_they_were_told() {
    let place = place();
    place.run(&["-j", "1", "--retries", "0", "{}", "@bytes ff0a0a", "a\n==> b <==", "@exit 3"]).expect(1);
    let mut command = place.command(&["batch", "results"]);
    let told = command.output().unwrap().stdout;
    assert!(told.starts_with(b"==> @bytes ff0a0a <==\n\xff\n\n==> a\\n==> b <== <==\n"), "{told:?}");
    assert!(
        told.ends_with(b"==> @exit 3 <==\nfailed: crashed: the tool ended in the turn: exit status 3\n"),
        "{told:?}"
    );
}

/// What was said of limits holds for the resume, too, unless that says otherwise.
#[test]
fn a_resume_keeps_the_limits_of_its_batch() {
    let place = place();
    let words = ["-v", "-j", "1", "--permissions", "read", "--stall", "1s", "--retries", "0", "{}", "@hang", "b"];
    let mut started = place.start(&words);
    started.wait_for("begins @hang");
    started.signal(Signal::INT);
    started.finish().expect(130);
    readyroom(&place, &["resume"]).expect(1).says("stalled");
    let mut command = place.command(&["resume", "--failed", "-v", "--stall", "none"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut again = support::Started::new(command.spawn().unwrap());
    again.wait_for("begins @hang");
    again.signal(Signal::INT);
    again.finish().expect(130).says("resume ").says(" --failed` goes on with it");
}

#[test]
fn a_journal_that_can_not_be_used_stops_everything_before_a_prompt() {
    let place = place();
    let not_one = place.file("not-one", "this is some other file, of some length, that must not be harmed");
    for (journal, why) in [(not_one.to_str().unwrap(), "file is not a database"), ("/proc/none/j", "can't be used")] {
        let finished = place.run(&["--journal", journal, "--permissions", "edit", "do {}", "1"]).expect(2);
        finished.says(why).says("--no-journal runs without it");
    }
    let same = place.run(&["--permissions", "edit", "do {}", "1", "./1"]).expect(2);
    same.says("job 1 and job 2 are both named \"1\"");
    assert_eq!(asked(&place), HashMap::new());
    assert!(place.read("not-one").starts_with("this is some other file"));
}

#[test]
fn a_journal_on_a_file_system_without_locks_or_writes_stops_everything_before_a_prompt() {
    let place = place();
    let program = env!("CARGO_BIN_EXE_readyroom");
    // A journal that works, so that nothing but the locks or the writes are missing.
    place.run(&["--permissions", "edit", "first {}", "1"]).expect(0);
    let refused = |mut command: std::process::Command, words: &[&str], why: &str| {
        command.arg(program).args(words);
        place.surround(&mut command);
        let finished = place.finish(command).expect(2);
        finished.says("the journal ").says("journal.sqlite").says(why);
        assert_eq!(asked(&place), HashMap::new(), "{finished:#?}");
    };
    let run = ["run", "-t", "echo", "--permissions", "edit", "do {}", "1"];
    let without_locks = || {
        let mut command = std::process::Command::new(readyroom_testkit::fake::program("readyroom-proc-fixture"));
        command.arg("no-locks");
        command
    };
    refused(without_locks(), &run, "--no-journal runs without it");
    refused(without_locks(), &["resume"], "lock");
    // In a mount namespace of its own, where the place of the journal is read-only.
    let state = place.sandbox.home().join(".local/state");
    let read_only = || {
        let mut command = std::process::Command::new("unshare");
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
        command.args(["--mount", "--map-root-user", "/bin/sh", "-c", script]).arg(&state);
        command
    };
    refused(read_only(), &run, "--no-journal runs without it");
    refused(read_only(), &["resume"], "can't be used");
}

/// The disk is full, or the file as large as it may be, in the midst of it: the batch stops, and goes on when there is room.
#[test]
fn a_journal_that_is_full_stops_the_batch_and_loses_nothing() {
    let place = place();
    let program = env!("CARGO_BIN_EXE_readyroom");
    let inputs: Vec<String> = (0..300).map(|job| format!("job-{job}")).collect();
    let mut command = std::process::Command::new("/bin/sh");
    // SQLite's log grows with each write, and must stay below a limit that is far from that of one write.
    let script = "trap '' XFSZ; ulimit -f 300; exec \"$@\"";
    command.args(["-c", script, "sh", program, "run", "-t", "echo", "-j", "4", "--permissions", "edit", "do {}"]);
    command.args(&inputs);
    place.surround(&mut command);
    let finished = place.finish(command).expect(4);
    finished.says("journal.sqlite can't be used").says("`readyroom resume ");
    readyroom(&place, &["resume", "--lost"]).expect(0);
    assert_eq!(count(&states(&place), "succeeded"), 300);
    assert!(asked(&place).values().all(|times| *times <= 2));
}

/// systemd signals all processes of a unit at once, as `docs/readyroom.service` has it: that is one Ctrl-C.
#[test]
fn a_supervisor_that_signals_every_process_at_once_stops_the_run_in_order() {
    let unit = include_str!("../../../docs/readyroom.service");
    assert!(unit.contains("KillMode=control-group") && unit.contains("KillSignal=SIGTERM"));
    let place = place();
    let mut started = place.start(&["-v", "-j", "2", "--permissions", "read", "{}", "@hang", "@sleep 60000", "later"]);
    // Both, in whichever order.
    started.wait_for("begins @");
    started.wait_for("begins @");
    // The tools first, which is the hardest order.
    let mut processes = readyroom_testkit::processes_of(&place.sandbox);
    processes.sort_by_key(|process| std::cmp::Reverse(process.pid));
    assert!(processes.len() >= 4, "the command, its guardian and two tools: {processes:?}");
    for process in processes {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(process.pid.cast_signed()).unwrap(),
            Signal::TERM,
        );
    }
    started.finish().expect(143);
    place.nothing_left();
    let states = states(&place);
    assert_eq!(states["later"], "queued");
    assert_eq!((count(&states, "cancelled"), count(&states, "failed")), (2, 0), "{states:?}");
}
