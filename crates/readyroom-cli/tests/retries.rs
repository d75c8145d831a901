//! What becomes of jobs whose attempts fail: tried again, waited for, or left for a resume.

mod support;

use std::collections::HashMap;

use serde_json::Value;
use support::{Finished, Place};

/// A place whose echo says what it changes, and whose words are failures of a model's.
fn place() -> Place {
    let place = Place::new();
    let path = place.tool("echo", &["--interrupt"]);
    let text = std::fs::read_to_string(&path).unwrap();
    let rules = r#"
[[errors]]
pattern = 'E: auth'
kind = "auth"

[[errors]]
pattern = 'E: slow down, retry after (\d+)s'
kind = "rate_limited"

[[errors]]
pattern = 'E: used up'
kind = "usage_window"

[[errors]]
pattern = 'E: '
kind = "model_error"
"#;
    let text = text
        .replace("[repl]\n", "[repl]\nran = '(?m)^fine$'\nerror = '(?m)^E: .*'\nchanged = '^Applied edit to (.+)$'\n");
    std::fs::write(path, text + rules).unwrap();
    place
}

fn readyroom(place: &Place, words: &[&str]) -> Finished {
    place.finish(place.command(words))
}

fn run(place: &Place, words: &[&str]) -> Finished {
    let all: Vec<&str> = [&["run", "-t", "echo"], words].concat();
    readyroom(place, &all)
}

/// The states of the last batch's jobs and how often each was tried, in order.
fn jobs(place: &Place) -> Vec<(String, u64)> {
    let shown = readyroom(place, &["batch", "show", "--json"]).expect(0).out;
    let job = |line: &str| {
        let job: Value = serde_json::from_str(line).unwrap();
        (job["state"].as_str().unwrap().to_owned(), job["attempts"].as_u64().unwrap())
    };
    shown.lines().map(job).collect()
}

#[test]
fn a_crash_and_a_model_error_are_tried_again() {
    let place = place();
    let done = run(&place, &["-j", "1", "@crash-until 2 {}", "a"]).expect(0);
    assert_eq!(done.err.matches("again in").count(), 2, "{}", done.err);
    assert_eq!(jobs(&place), [("succeeded".into(), 3)]);
    let done = run(&place, &["-j", "1", "@until 1 {} E: overloaded", "b"]).expect(0);
    assert!(done.err.contains("b failed: model_error"), "{}", done.err);
    place.nothing_left();
}

/// Who crashed is not asked again by the job that it crashed with, as long as there is another.
#[test]
fn a_crash_is_tried_again_on_another_instance() {
    let place = place();
    let script = "@sh echo $PPID >> {}; test $(wc -l < {}) -gt 1 || kill -9 $PPID; echo fine";
    let done = run(&place, &["-v", "-j", "2", script, "a", "b", "c"]).expect(0);
    // `echo 1: started, life 2, pid 4711`
    let started = done.err.lines().filter_map(|line| line.split_once(": started, life "));
    let of: HashMap<&str, &str> = started.filter_map(|(name, rest)| Some((rest.split_once("pid ")?.1, name))).collect();
    for job in ["a", "b", "c"] {
        let pids = place.read(job);
        let instances: Vec<_> = pids.lines().map(|pid| of[pid]).collect();
        assert!(instances.len() == 2 && instances[0] != instances[1], "{job} on {instances:?}: {}", done.err);
    }
    place.nothing_left();
}

#[test]
fn retries_have_an_end() {
    let place = place();
    run(&place, &["-j", "1", "--retries", "1", "@until 2 {} E: overloaded", "a"]).expect(1);
    assert_eq!(jobs(&place), [("failed".into(), 2)]);
    run(&place, &["-j", "1", "--retries", "0", "@until 1 {} E: overloaded", "b"]).expect(1);
    assert_eq!(jobs(&place), [("failed".into(), 1)]);
}

/// A bug that others had (openclaw/acpx#196): a prompt was sent again although its first run had changed files.
#[test]
fn what_has_changed_something_is_tried_again_only_when_asked() {
    let place = place();
    // A tool that does not say what it changes may have changed anything.
    let path = place.tool("blind", &["--interrupt"]);
    let text = std::fs::read_to_string(place.sandbox.home().join(path.with_file_name("echo.toml"))).unwrap();
    let silent = text.replace("id = \"echo\"", "id = \"blind\"").replace("changed = ", "# ");
    std::fs::write(path, silent).unwrap();
    let run = |place: &Place, words: &[&str]| readyroom(place, &[&["run", "-t", "blind"], words].concat());
    let prompt = "@until 1 {} E: overloaded";
    run(&place, &["-j", "1", prompt, "a"]).expect(1);
    assert_eq!(jobs(&place), [("failed".into(), 1)]);
    run(&place, &["-j", "1", "--retry-edits", prompt, "b"]).expect(0);
    assert_eq!(jobs(&place), [("succeeded".into(), 2)]);
    run(&place, &["-j", "1", "--permissions", "read", prompt, "c"]).expect(0);
}

/// A bug that others had (anthropics/claude-code#68968): a burst of 429 failed the parallel jobs instead of slowing
/// them.
#[test]
fn a_rate_limit_costs_no_retries_and_slows_all() {
    let place = place();
    let words = ["-j", "4", "--retries", "0", "@until 3 limit E: slow down, retry after 1s ({})"];
    let inputs = ["a", "b", "c", "d", "e", "f"];
    let done = run(&place, &[&words[..], &inputs[..]].concat()).expect(0);
    assert_eq!(done.err.matches("all wait and go on slower").count(), 3, "{}", done.err);
    let tried: u64 = jobs(&place).iter().map(|(_, tried)| tried).sum();
    assert_eq!(tried, 9);
}

/// A bug that others had (anthropics/claude-code#88947): a login that expired failed all parallel instances, one
/// after the other.
#[test]
fn a_login_that_expires_stops_and_is_resumed_when_it_is_mended() {
    let place = place();
    let words = ["-j", "1", "@sleep 1\n@until 1 {//}/expired-{/} E: auth ({})"];
    std::fs::write(place.sandbox.dir().join("expired-a"), "x").unwrap();
    let done = run(&place, &[&words[..], &["a", "b", "c"][..]].concat()).expect(4);
    assert!(done.err.contains("stopping: failed: auth"), "{}", done.err);
    assert_eq!(jobs(&place)[0], ("succeeded".into(), 1));
    assert!(jobs(&place).iter().skip(1).all(|(state, _)| state == "queued"), "{:?}", jobs(&place));
    std::fs::write(place.sandbox.dir().join("expired-c"), "x").unwrap();
    readyroom(&place, &["resume"]).expect(0);
    assert!(jobs(&place).iter().all(|(state, _)| state == "succeeded"), "{:?}", jobs(&place));
    place.nothing_left();
}

/// A bug that others had (career-ops-hq/career-ops#875): a usage limit in mid-batch used up the jobs' retries.
#[test]
fn a_usage_window_stops_or_is_waited_for() {
    let place = place();
    let words = ["-j", "2", "--permissions", "read", "@until 1 {//}/window E: used up ({})", "a", "b", "c"];
    let done = run(&place, &[&["--on-limit", "stop"], &words[..]].concat()).expect(4);
    assert!(done.err.contains("usage_window"), "{}", done.err);
    assert!(jobs(&place).iter().all(|(state, _)| state != "failed"), "{:?}", jobs(&place));
    readyroom(&place, &["resume"]).expect(0);

    // Waiting, it can be stopped, and the resume looks again.
    std::fs::remove_file(place.sandbox.dir().join("window")).unwrap();
    let mut running = place.start(&words);
    running.wait_for("all wait and go on");
    running.signal(rustix::process::Signal::INT);
    running.finish().expect(130);
    assert!(jobs(&place).iter().any(|(state, _)| state == "queued"), "{:?}", jobs(&place));
    readyroom(&place, &["resume"]).expect(0);
    assert!(jobs(&place).iter().all(|(state, _)| state == "succeeded"), "{:?}", jobs(&place));
    place.nothing_left();
}

/// Those that meet one limit at the same time wait for the first look at it, and not one for the next of the other.
#[test]
fn a_limit_that_several_meet_at_once_is_one() {
    let place = place();
    let together = "@sh touch b-{}; until test $(ls b-* | wc -l) = 4; do sleep 0.02; done";
    let prompt = format!("{together}\n@until 4 limit E: used up ({{}})");
    let mut running = place.start(&["-j", "4", "--permissions", "read", &prompt, "1", "2", "3", "4"]);
    let waits: Vec<String> = (0..4).map(|_| running.wait_for("all wait and go on in ")).collect();
    running.signal(rustix::process::Signal::INT);
    running.finish().expect(130);
    for line in waits {
        let (_, wait) = line.split_once("go on in ").unwrap();
        assert!(wait.starts_with("1m") || !wait.contains('m'), "{line}");
    }
}

#[test]
fn nothing_new_starts_after_the_deadline() {
    let place = place();
    let done = run(&place, &["-j", "1", "--deadline", "1", "@sleep 700\n@until 0 {} x", "a", "b", "c", "d"]).expect(4);
    assert!(done.err.contains("--deadline is reached"), "{}", done.err);
    let states = jobs(&place);
    assert!(states.iter().all(|(state, _)| state == "succeeded" || state == "queued"), "{states:?}");
    assert_eq!(states.last().unwrap().0, "queued");
    readyroom(&place, &["resume"]).expect(0);
    readyroom(&place, &["run", "-t", "echo", "--deadline", "25:00", "x"]).expect(2).says("25:00");
}

/// Many jobs that fail alike are an outage: no job is lost to it.
#[test]
fn an_outage_costs_no_jobs() {
    let place = place();
    let inputs = ["a", "b", "c", "d", "e", "f", "g"];
    let words = ["-j", "7", "--on-limit", "stop", "@until 20 down E: no answer ({})"];
    let done = run(&place, &[&words[..], &inputs[..]].concat()).expect(4);
    assert!(done.err.contains("stopping: failed: model_error"), "{}", done.err);
    assert!(jobs(&place).iter().all(|(state, _)| state == "queued"), "{:?}", jobs(&place));
    std::fs::write(place.sandbox.dir().join("down"), [b'x'; 20]).unwrap();
    readyroom(&place, &["resume"]).expect(0);
    assert!(jobs(&place).iter().all(|(state, _)| state == "succeeded"), "{:?}", jobs(&place));
}

/// 2,000 jobs while every fiftieth end costs an instance its life, 5% are asked to wait, 5% fail on the server's side and 2% of
/// the streams are dropped, each at the first try: all succeed, and no wait costs a retry.
#[test]
fn two_thousand_jobs_in_bad_weather_all_succeed() {
    const JOBS: usize = 2000;
    let place = place();
    let weather = |job: usize| match job % 100 {
        // A provider says so to all who ask at that time.
        3..=7 => Some("slow down, retry after 1s"),
        9 | 27 | 47 | 67 | 87 => Some("500"),
        11 | 61 => Some("the stream was dropped"),
        _ => None,
    };
    std::fs::create_dir(place.sandbox.dir().join("met")).unwrap();
    let prompt = |job: usize| match weather(job) {
        Some(words) => format!("@until 1 met/{job} E: {words}"),
        None => format!("@sleep 2\n@until 0 met/{job} never"),
    };
    let lines: String = (0..JOBS)
        .map(|job| serde_json::json!({ "id": format!("{job}"), "prompt": prompt(job) }).to_string() + "\n")
        .collect();
    let from = place.file("jobs.jsonl", lines);
    let words = ["-v", "-j", "8", "--permissions", "read", "--retries", "3", "--from", from.to_str().unwrap()];
    let mut running = place.start(&words);
    let (mut pids, mut ended, mut killed) = (std::collections::BTreeMap::new(), 0, 0);
    while let Some(line) = running.next_line() {
        if let Some((name, rest)) = line.split_once(": started, life ") {
            pids.insert(name.to_owned(), rest.split_once("pid ").unwrap().1.parse::<i32>().unwrap());
        }
        if line.starts_with("ok ") {
            ended += 1;
            if ended % 50 == 0
                && let Some((_, pid)) = pids.pop_first()
            {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                // One that has ended since is a zombie at most: its owner has not let go of it before it said so.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                killed += 1;
            }
        }
    }
    let finished = running.finish().expect(0);
    assert!(killed >= 30, "{killed} instances were killed");
    assert!(finished.err.contains("all wait and go on slower"), "{}", finished.err);
    let shown = readyroom(&place, &["batch", "show", "--json"]).expect(0).out;
    for line in shown.lines() {
        let job: Value = serde_json::from_str(line).unwrap();
        let attempts = job["attempts"].as_u64().unwrap();
        assert_eq!(job["state"], "succeeded", "{job:#}");
        let number = job["id"].as_str().unwrap().parse::<usize>().unwrap();
        assert!(attempts > u64::from(weather(number).is_some()), "{job:#}");
    }
    // What the provider asks to wait for is no job's own failure.
    let own: u64 = (0..JOBS).filter(|job| weather(*job).is_some_and(|words| !words.starts_with("slow"))).count() as u64;
    let retried = finished.err.matches(": again in ").count() as u64;
    assert!((own..=own + killed).contains(&retried), "{retried} retries for {own} failures and {killed} kills");
    place.nothing_left();
}
