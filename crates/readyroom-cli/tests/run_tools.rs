//! `readyroom run` with the five real tools and the local model: what a person types, and what then stands on the
//! screen, in the files, and nowhere else.

mod support;

use std::collections::BTreeSet;

use readyroom_testkit::{Model, Sandbox, Step};
use serde_json::Value;
use support::{Finished, Place};

const FRUITS: [&str; 4] = ["mulberry", "tamarind", "rambutan", "persimmon"];

/// The command in surroundings that hold nothing but what the sandbox and the tool need.
fn run(place: &Place, words: &[&str]) -> Finished {
    readyroom(place, &[&["run", "-t", place.sandbox.tool()], words].concat())
}

fn readyroom(place: &Place, words: &[&str]) -> Finished {
    place.finish(place.alone(words))
}

fn files_are_worked_on(tool: &str) {
    let model = Model::start();
    let place = Place { sandbox: Sandbox::new(tool, &model) };
    for fruit in FRUITS {
        place.file(&format!("{fruit}.txt"), format!("about the {fruit}\n"));
        model.on(fruit, Step::say(format!("answer to {fruit}")));
    }
    let inputs: Vec<String> = FRUITS.iter().map(|fruit| format!("{fruit}.txt")).collect();
    let mut words = vec!["-j", "2", "-k", "--json", "out.jsonl", "Describe {}"];
    words.extend(inputs.iter().map(String::as_str));
    let finished = run(&place, &words).expect(0);
    let expected: String = FRUITS.iter().map(|fruit| format!("==> {fruit}.txt <==\nanswer to {fruit}\n")).collect();
    assert_eq!(finished.out, expected, "{finished:#?}");
    let lines: Vec<Value> = place.read("out.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    let instances: BTreeSet<u64> = lines.iter().map(|line| line["instance"].as_u64().unwrap()).collect();
    assert!(instances.is_subset(&BTreeSet::from([0, 1])));
    assert!(lines.iter().all(|line| !line["proof"].is_null()), "{lines:#?}");
    finished.says("succeeded     4").says("tokens ");
}

#[test]
fn aider() {
    files_are_worked_on("aider");
}

#[test]
fn claude() {
    files_are_worked_on("claude");
}

#[test]
fn codex() {
    files_are_worked_on("codex");
}

#[test]
fn gemini() {
    files_are_worked_on("gemini");
}

#[test]
fn opencode() {
    files_are_worked_on("opencode");
}

#[test]
fn three_warm_aiders_edit_six_files() {
    let model = Model::start();
    let place = Place { sandbox: Sandbox::new("aider", &model) };
    let mut inputs = Vec::new();
    for number in 1..=6 {
        let name = format!("src/m{number}.py");
        place.file(&name, format!("def f{number}(x):\n    return x\n"));
        let edit = format!(
            "{name}\n```python\n<<<<<<< SEARCH\ndef f{number}(x):\n=======\ndef f{number}(x: int) -> int:\n>>>>>>> REPLACE\n```\n"
        );
        model.on(&format!("hints to {name}"), Step::say(edit));
        inputs.push(name);
    }
    let mut words = vec!["-j", "3", "-v", "Add type hints to {}"];
    words.extend(inputs.iter().map(String::as_str));
    let finished = run(&place, &words).expect(0);
    for (number, name) in (1..).zip(&inputs) {
        assert_eq!(place.read(name), format!("def f{number}(x: int) -> int:\n    return x\n"), "{finished:#?}");
    }
    assert_eq!(finished.err.matches("started, life").count(), 3, "{finished:#?}");
    finished.says("succeeded     6");
}

/// A login that expires in mid-batch: what is left waits, and is done once the login is mended.
#[test]
fn an_expired_login_stops_the_batch_and_costs_no_job() {
    let model = Model::start();
    let place = Place { sandbox: Sandbox::new("claude", &model) };
    for fruit in FRUITS {
        model.on(fruit, if fruit == "mulberry" { Step::say("well") } else { Step::status(401) });
    }
    let words = ["-j", "1", "About {}"];
    let finished = run(&place, &[&words[..], &FRUITS[..]].concat()).expect(4);
    finished.says("stopping: failed: auth").says("readyroom resume");
    for fruit in FRUITS {
        model.on(fruit, Step::say(format!("answer to {fruit}")));
    }
    let resumed = readyroom(&place, &["resume", "--json", "-"]).expect(0);
    assert_eq!(resumed.out.lines().count(), 3, "{resumed:#?}");
}

/// Rate limits and a usage window, as real providers word them, spend no retries: the first is waited for, the second
/// parks the batch, which goes on by itself, or stops and is resumed.
#[test]
fn limits_spend_no_retries() {
    let model = Model::start();
    let place = Place { sandbox: Sandbox::new("claude", &model) };
    // One more than the tool tries by itself.
    model.on("kumquat", [Step::retry_after(1), Step::retry_after(1), Step::say("in the end")]);
    let finished = run(&place, &["-j", "2", "--retries", "0", "About {}", "kumquat", "quince"]).expect(0);
    finished.says("all wait and go on slower").says("succeeded     2");

    let place = Place { sandbox: Sandbox::new("codex", &model) };
    let window = |seconds: i64| {
        let resets_at = jiff::Timestamp::now().as_second() + seconds;
        let error = serde_json::json!({
            "error": { "type": "usage_limit_reached", "message": "m", "plan_type": "plus", "resets_at": resets_at }
        });
        Step::Status { code: 429, headers: Default::default(), body: error.to_string() }
    };
    model.on("feijoa", [window(2), Step::say("after the window")]);
    let finished = run(&place, &["--retries", "0", "About feijoa"]).expect(0);
    assert_eq!(finished.out, "after the window\n");
    finished.says("all wait and go on in");

    model.on("salak", [window(3600), Step::say("after the window")]);
    let words = ["-j", "1", "--retries", "0", "--max-wait", "30m", "About {}", "salak", "jujube"];
    run(&place, &words).expect(4).says("usage_window");
    let resumed = readyroom(&place, &["resume"]).expect(0);
    assert!(resumed.out.contains("after the window"), "{resumed:#?}");

    let place = Place { sandbox: Sandbox::new("gemini", &model) };
    let daily = serde_json::json!({ "error": {
        "code": 429, "message": "Resource exhausted", "status": "RESOURCE_EXHAUSTED",
        "details": [{
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{ "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier" }],
        }],
    }});
    let daily = Step::Status { code: 429, headers: Default::default(), body: daily.to_string() };
    model.on("cherimoya", [daily, Step::say("tomorrow")]);
    let words = ["-j", "1", "--permissions", "read", "--retries", "0", "--on-limit", "stop", "About {}", "cherimoya"];
    run(&place, &words).expect(4).says("usage_window");
    assert_eq!(readyroom(&place, &["resume"]).expect(0).out, "tomorrow\n");
}
