//! `readyroom run` with the five real tools and the local model: what a person types, and what then stands on the
//! screen, in the files, and nowhere else.

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use readyroom_testkit::{Model, Sandbox, Step, tools};
use serde_json::Value;
use support::{Finished, Place};

const FRUITS: [&str; 4] = ["mulberry", "tamarind", "rambutan", "persimmon"];

/// The command in surroundings that hold nothing but what the sandbox and the tool need.
fn run(place: &Place, words: &[&str]) -> Finished {
    let program = tools::program(place.sandbox.tool());
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_readyroom"));
    command.args(["run", "-t", place.sandbox.tool()]).args(words).env_clear();
    place.surround(&mut command);
    command.env("PATH", format!("{}:{path}", program.parent().unwrap().display()));
    place.finish(command)
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
    finished.says("3 instances share ").says("succeeded     6");
}
