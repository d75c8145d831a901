//! Budgets and stalls: what a batch and a job may cost, over attempts and resumes, and turns in which nothing moves.

mod support;

use serde_json::Value;
use support::{Finished, Place};

/// A place whose echo tells what a turn cost as aider does.
fn place() -> Place {
    let place = Place::new();
    let toml = readyroom_testkit::fake::echo_toml("echo", &["--interrupt"]);
    let ran = r"ran = 'Tokens: (?P<input>\d+) sent, (?P<output>\d+) received\.(?: Cost: \$(?P<cost>[\d.]+))?'";
    place.definition("echo", &toml.replace("[repl]\n", &format!("[repl]\n{ran}\n")));
    place
}

const TURN: &str = "Tokens: 60 sent, 40 received. Cost: $0.25 {}";

#[test]
fn a_batch_stops_when_its_budget_is_spent_and_goes_on_with_a_larger_one() {
    let place = place();
    let jobs: Vec<String> = (0..40).map(|job| job.to_string()).collect();
    let mut words = vec!["-j", "1", "--budget-tokens", "250", TURN];
    words.extend(jobs.iter().map(String::as_str));
    // What has begun by the time the third turn's cost is known may end.
    let done = |finished: &Finished| finished.err.matches("ok ").count();
    let stopped = place.run(&words).expect(4);
    stopped.says("the budget is spent, by 300 tokens and $0.7500").says("readyroom resume");
    assert!((3..6).contains(&done(&stopped)), "{}", stopped.err);
    let resume = |more: &[&str]| place.finish(place.command(&[&["resume"], more].concat()));
    assert_eq!(done(&resume(&[]).expect(4)), 0);
    let more = resume(&["--budget-usd", "5", "--budget-tokens", "100000"]).expect(4);
    assert!((20..24).contains(&(done(&stopped) + done(&more))), "{}", more.err);
    let rest = resume(&["--budget-usd", "99", "--budget-tokens", "100000"]).expect(0);
    assert_eq!(done(&stopped) + done(&more) + done(&rest), jobs.len());
    place.run(&["--budget-usd", "0", TURN, "a"]).expect(2).says("is no amount");
}

#[test]
fn a_job_gets_no_further_prompt_when_its_budget_is_spent() {
    let place = place();
    let turn = TURN.replace(" {}", "");
    let job = serde_json::json!({ "prompts": [turn, turn, turn] });
    let words = ["--json", "-", "--job-budget-usd", "0.4", "--from", "-"];
    let line = place.run_with(&job.to_string(), &words).expect(1).out;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((line["failure"]["kind"].as_str(), line["turns"].as_array().unwrap().len()), (Some("budget"), 2));
    assert_eq!(line["usage"]["input_tokens"], 120);
    // Also not by another attempt.
    let words = [
        "--retries",
        "3",
        "--retry-edits",
        "--job-budget-tokens",
        "100",
        "@sh echo 'Tokens: 90 sent, 20 received.'; kill $PPID",
    ];
    let crashed = place.run(&[&words[..], &["{}", "a"]].concat());
    assert!(!crashed.err.contains("again in"), "{}", crashed.err);
}

#[test]
fn a_tool_that_tells_no_cost_is_named_before_the_start() {
    let place = Place::new();
    let finished = place.run(&["--budget-usd", "5", "--job-budget-tokens", "10", "{}", "a"]).expect(0);
    finished.says("echo does not tell its costs").says("echo does not tell its tokens");
}

/// A bug that others had (snomiao/agent-yes#89): a silent agent was waited for through the night.
#[test]
fn a_turn_in_which_nothing_moves_is_given_up_and_a_busy_one_is_not() {
    let place = Place::new();
    let busy = "@sh end=$(( $(date +%s) + 7 )); while [ $(date +%s) -lt $end ]; do :; done";
    let words = ["-j", "2", "--stall", "3s", "--retries", "0", "--json", "-", "{}", "@hang", busy, "fine"];
    let finished = place.run(&words).expect(1);
    let outcome = |input: &str| {
        let lines = finished.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let line = lines.into_iter().find(|line| line["input"] == input).unwrap();
        line["failure"]["kind"].as_str().unwrap_or("none").to_owned()
    };
    assert_eq!((outcome("@hang"), outcome(busy), outcome("fine")), ("stalled".into(), "none".into(), "none".into()));
}

/// What a tool prints of its own keys stands nowhere that we write, but for its answers.
#[test]
fn no_secret_is_told_or_kept() {
    const SECRET: &str = "sk-planted-0123456789";
    let place = Place::new();
    let prompts = ["@sh echo key $MY_API_KEY > /proc/$PPID/fd/2; kill -9 $PPID", "@sleep 1"];
    let verify = "echo again $MY_API_KEY; false";
    let words = [
        "run",
        "-v",
        "-t",
        "echo",
        "--retries",
        "0",
        "-j",
        "1",
        "--json",
        "-",
        "--verify",
        verify,
        "--verify-rounds",
        "0",
    ];
    let mut command = place.command(&[&words[..], &["{}"], &prompts[..]].concat());
    command.env("MY_API_KEY", SECRET);
    let finished = place.finish(command).expect(1);
    assert!(finished.out.contains("crashed") && finished.out.contains("[secret]"), "{finished:#?}");
    let state = place.sandbox.home().join(".local/state/readyroom");
    let mut seen = vec![finished.out.into_bytes(), finished.err.into_bytes()];
    for entry in std::fs::read_dir(&state).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        seen.push(std::fs::read(entry.path()).unwrap());
    }
    for bytes in seen {
        assert!(
            !bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }
    let log = std::fs::read_to_string(state.join("journal.log")).unwrap();
    assert!(log.contains("Z ") && log.contains("crashed") && log.contains("verify_failed"), "{log}");
}
