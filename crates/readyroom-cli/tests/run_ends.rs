//! The ends of a run that nobody plans: signals, closed pipes, full disks. Nothing may be left running.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Place, Started};

#[test]
fn a_signal_cancels_what_runs_and_lists_what_was_not_done() {
    for (signal, name, code) in
        [(Signal::INT, "SIGINT", 130), (Signal::TERM, "SIGTERM", 143), (Signal::HUP, "SIGHUP", 129)]
    {
        let place = Place::new();
        let mut started =
            place.start(&["-v", "-j", "1", "--json", "out.jsonl", "{}", "first", "@hang", "third", "fourth"]);
        started.wait_for("begins @hang");
        started.signal(signal);
        let finished = started.finish().expect(code);
        place.nothing_left();
        finished.says(&format!("stopping on {name}"));
        for job in ["@hang", "third", "fourth"] {
            finished.says(&format!("not done: {job}"));
        }
        assert!(!finished.err.contains("not done: first"), "{finished:#?}");
        assert_eq!(finished.out, "==> first <==\nfirst\n");
        assert_eq!(place.read("out.jsonl").lines().count(), 4);
        assert_eq!(place.read("out.jsonl").matches("\"outcome\":\"cancelled\"").count(), 3);
    }
}

#[test]
fn a_second_ctrl_c_ends_everything_at_once() {
    let place = Place::new();
    // Neither its own means nor TERM ends this one, and it would get a minute for that.
    let toml = readyroom_testkit::fake::echo_toml("echo", &["--deaf"]);
    place.definition("echo", &format!("{toml}\n[limits]\nstop_seconds = 60\n"));
    let mut started = place.start(&["-v", "-j", "2", "@hang {}", "1", "2", "3"]);
    started.wait_for("begins");
    started.signal(Signal::INT);
    started.wait_for("stopping on SIGINT");
    let before = Instant::now();
    started.signal(Signal::INT);
    let finished = started.finish().expect(130);
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    place.nothing_left();
    finished.says("not done: 1").says("not done: 2").says("not done: 3");
}

#[test]
fn a_signal_while_instances_start_ends_them() {
    let place = Place::new();
    place.tool("echo", &["--hang-start"]);
    let mut started = place.start(&["-v", "x"]);
    started.wait_for("started, life 1");
    started.signal(Signal::TERM);
    started.finish().expect(143).says("not done: job 1");
    place.nothing_left();
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    for (name, signal) in [("HUP", Signal::HUP), ("INT", Signal::INT)] {
        let place = Place::new();
        let mut command = std::process::Command::new("/bin/sh");
        let script = format!("trap '' {name}; exec \"$0\" run -t echo -v '@sleep 1000'");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_readyroom")]);
        place.surround(&mut command);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut started = Started::new(child);
        started.wait_for("begins");
        started.signal(signal);
        assert_eq!(started.finish().expect(0).out, "slept 1000\n");
        place.nothing_left();
    }
}

#[test]
fn a_reader_that_goes_away_stops_the_run() {
    let place = Place::new();
    let inputs: Vec<String> = (0..60).map(|number| format!("{number}")).collect();
    // The second answers when the reader has gone, those behind it when that was noticed.
    let wait = |file: &str| format!("until test -e {file}; do sleep 0.02; done");
    let prompt =
        format!("@sh case {{}} in 0) ;; 1) {};; *) {};; esac; echo answer {{}}", wait("gone"), wait("noticed"));
    let mut words = vec!["run", "-t", "echo", "-j", "1", prompt.as_str()];
    words.extend(inputs.iter().map(String::as_str));
    let mut child = place.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    assert_eq!(first, "==> 0 <==\n");
    drop(out);
    place.file("gone", "");
    let mut started = Started::new(child);
    started.wait_for("stopping: stdout was closed by its reader");
    place.file("noticed", "");
    let finished = started.finish().expect(4);
    place.nothing_left();
    finished.says("stopping: stdout was closed by its reader; the rest is not run").says("not done: 59");
    assert!(!finished.err.contains("panicked"), "{finished:#?}");
}

#[test]
fn a_reader_that_reads_nothing_does_not_hold_up_ctrl_c() {
    let place = Place::new();
    let words = ["run", "-t", "echo", "-v", "@print 3000000"];
    let mut child = place.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let unread = child.stdout.take().unwrap();
    let mut started = Started::new(child);
    started.wait_for("begins");
    // The pipe is full and the printer is held up: the command waits for the reader, or for us.
    let deadline = Instant::now() + Duration::from_secs(30);
    while started.is_running() {
        assert!(Instant::now() < deadline, "Ctrl-C does nothing");
        started.signal(Signal::INT);
        std::thread::sleep(Duration::from_millis(50));
    }
    started.finish().expect(130);
    place.nothing_left();
    drop(unread);
}

#[test]
fn head_ends_quietly() {
    let place = Place::new();
    let mut command = std::process::Command::new("bash");
    let script = "\"$0\" run --help | head -n 1; \"$0\" man | head -n 1; \"$0\" completions bash | head -n 1";
    command.args(["-c", script, env!("CARGO_BIN_EXE_readyroom")]);
    place.surround(&mut command);
    let finished = place.finish(command).expect(0);
    assert_eq!(finished.err, "");
    assert_eq!(finished.out.lines().count(), 3, "{finished:#?}");
}

#[test]
fn a_full_disk_is_an_error_that_names_the_place() {
    let place = Place::new();
    let finished = place.run(&["-j", "1", "--json", "/dev/full", "{}", "a", "b", "c"]).expect(4);
    finished.says("--json /dev/full can't be written: No space left on device").says("free some space and run again");
    // The answer is not lost with the outcome.
    assert!(finished.out.starts_with("==> a <==\na\n"), "{finished:#?}");

    let finished = place.run(&["-o", "/dev/full", "hello"]).expect(4);
    finished.says("the answer's file /dev/full can't be written: No space left on device");
    assert_eq!(finished.out, "hello\n");

    let mut command = place.command(&["run", "-t", "echo", "hello"]);
    command.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap()).stderr(Stdio::piped());
    let finished = Started::new(command.spawn().unwrap()).finish().expect(4);
    finished.says("stdout can't be written: No space left on device");
    place.nothing_left();
}

#[test]
fn stderr_that_is_closed_changes_nothing() {
    let place = Place::new();
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" run -t echo hello 2>&-", env!("CARGO_BIN_EXE_readyroom")]);
    place.surround(&mut command);
    assert_eq!(place.finish(command).expect(0).out, "hello\n");
}

#[test]
fn killing_the_command_leaves_nothing() {
    let place = Place::new();
    place.tool("echo", &["--deaf", "--stray"]);
    let mut started = place.start(&["-v", "-j", "2", "@hang {}", "1", "2"]);
    started.wait_for("begins");
    started.signal(Signal::KILL);
    place.nothing_left();
    drop(started.finish());
}
