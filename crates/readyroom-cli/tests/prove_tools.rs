//! What jobs have to prove, what they may cost, and batches that are killed, on real tools with the local model.

mod support;

use std::process::Stdio;

use readyroom_testkit::{Model, Sandbox, Script, Step};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Finished, Place, Started};

fn place(tool: &str) -> (Model, Place) {
    let model = Model::start();
    let place = Place { sandbox: Sandbox::new(tool, &model) };
    (model, place)
}

fn run(place: &Place, words: &[&str]) -> Finished {
    place.finish(place.alone(&[&["run", "-t", place.sandbox.tool()], words].concat()))
}

fn lines(finished: &Finished) -> Vec<Value> {
    finished.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An answer by which aider changes one line of a file.
fn edit(file: &str, from: &str, to: &str) -> Step {
    Step::say(format!("{file}\n```python\n<<<<<<< SEARCH\n{from}\n=======\n{to}\n>>>>>>> REPLACE\n```\n"))
}

/// The test fails after the first answer; its words go back, and the second answer mends it, in the same chat.
#[test]
fn aider_mends_what_a_verify_command_finds() {
    let (model, place) = place("aider");
    place.file("sum.py", "def add(a, b):\n    return 0\n");
    place.file("ignored/expected", "5\n");
    place.file(".gitignore", "ignored/\n");
    let first = edit("sum.py", "    return 0", "    return a - b");
    let second = edit("sum.py", "    return a - b", "    return a + b");
    model.on("quokka", Script::new([first, second]));
    let verify = "test \"$(python3 -c 'import sum; print(sum.add(2, 3))')\" = \"$(cat ignored/expected)\" || { echo wombat-says-no; exit 1; }";
    let words = ["--json", "-", "--link", "ignored", "--verify", verify, "Mend {} for the quokka", "sum.py"];
    let finished = run(&place, &words).expect(0);
    assert_eq!(place.read("sum.py"), "def add(a, b):\n    return a + b\n");
    assert_eq!(lines(&finished)[0]["turns"].as_array().unwrap().len(), 2, "{finished:#?}");
    let asked = model.requests_of("quokka");
    let last = asked.last().unwrap();
    assert!(last.holds("wombat-says-no") && last.holds("return a - b"), "the session goes on: {last:#?}");
    assert!(!place.sandbox.git(&["status", "--porcelain"]).contains("pycache"), "what the check made is no change");
}

#[test]
fn claude_answers_by_a_schema_after_one_more_chance() {
    let (model, place) = place("claude");
    let file = place.file("schema.json", r#"{"type": "object", "required": ["colour"]}"#);
    model.on("numbat", Script::new([Step::say("It is blue."), Step::say("```json\n{\"colour\": \"blue\"}\n```")]));
    let words = ["--schema", file.to_str().unwrap(), "--permissions", "read", "--json", "-", "Which colour, numbat?"];
    let line = lines(&run(&place, &words).expect(0)).remove(0);
    assert_eq!(line["value"], json!({ "colour": "blue" }));
    let asked = model.requests_of("numbat");
    assert!(asked[0].holds("fits this JSON Schema") && asked.last().unwrap().holds("It is blue."), "{asked:#?}");
}

/// Claude Code's own structured output: the model answers by a call, and the tool itself refuses what does not fit.
#[test]
fn claude_holds_the_model_to_a_schema() {
    let (model, place) = place("claude");
    let schema = r#"{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "properties": {"colour": {"type": "string"}}, "required": ["colour"]}"#;
    let file = place.file("schema.json", schema);
    let answer = |value| Step::call("StructuredOutput", json!({ "colour": value }));
    model.on("numbat", Script::new([answer(json!(5)), answer(json!("blue"))]));
    model.on("quoll", answer(json!("grey")));
    let words = ["-j", "1", "--schema", file.to_str().unwrap(), "--permissions", "read", "--json", "-", "-k"];
    let inputs = ["Which colour, {}?", "numbat", "quoll"];
    let finished = lines(&run(&place, &[&words[..], &inputs[..]].concat()).expect(0));
    assert_eq!(finished[0]["value"], json!({ "colour": "blue" }));
    assert_eq!(finished[1]["value"], json!({ "colour": "grey" }), "also behind a reset");
    assert_eq!(finished[1]["answer"], r#"{"colour":"grey"}"#);
    assert_eq!(model.requests_of("numbat").len(), 2, "one refusal by the tool, and no turn of ours");
    let asked = model.requests_of("quoll");
    assert!(asked[0].body["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "StructuredOutput"));
}

#[test]
fn codex_may_change_its_own_files_only_and_has_to_change_something() {
    let (model, place) = place("codex");
    place.file("src/own.txt", "old\n");
    place.sandbox.commit();
    let patch = |file: &str| {
        let patch = format!("*** Begin Patch\n*** Add File: {file}\n+new\n*** End Patch\n");
        Step::call("exec_command", json!({ "cmd": format!("apply_patch <<'EOF'\n{patch}EOF\n") }))
    };
    model.on("bilby", Script::new([patch("src/other.txt"), Step::say("Done.")]));
    model.on("dunnart", Step::say("Nothing to do."));
    let words = ["-j", "1", "--json", "-", "--only-files", "--require-change"];
    let strange = run(&place, &[&words[..], &["Mend {} for the bilby", "src/own.txt"]].concat()).expect(1);
    assert_eq!(lines(&strange)[0]["failure"]["kind"], "out_of_scope", "{strange:#?}");
    assert_eq!(place.sandbox.read("src/other.txt"), None);
    let idle = run(&place, &[&words[..], &["Mend {} for the dunnart", "src/own.txt"]].concat()).expect(1);
    assert_eq!(lines(&idle)[0]["failure"]["kind"], "unchanged", "{idle:#?}");
}

/// Sessions in one process, each in a worktree of its own.
fn edits_from_a_shared_process(tool: &str, write: &str, file: &str) {
    const JOBS: usize = 6;
    let (model, place) = place(tool);
    let inputs: Vec<String> = (0..JOBS).map(|job| format!("kea{job}word")).collect();
    for (job, input) in inputs.iter().enumerate() {
        let arguments = json!({ file: format!("made/{job}.txt"), "content": format!("by {job}\n") });
        model.on(input, Script::new([Step::call(write, arguments), Step::say("Made.")]));
    }
    let words = ["-v", "-j", "3", "--require-change", "Make a file for {}"];
    let finished =
        run(&place, &[&words[..], &inputs.iter().map(String::as_str).collect::<Vec<_>>()].concat()).expect(0);
    for job in 0..JOBS {
        assert_eq!(place.read(&format!("made/{job}.txt")).trim_end(), format!("by {job}"), "{finished:#?}");
    }
    let pids: std::collections::BTreeSet<&str> = finished
        .err
        .lines()
        .filter_map(|line| Some(line.split_once("started, life")?.1.split_once("pid ")?.1))
        .collect();
    assert_eq!(pids.len(), 1, "one process: {finished:#?}");
}

#[test]
fn opencode_edits_in_worktrees_from_one_process() {
    edits_from_a_shared_process("opencode", "write", "filePath");
}

#[test]
fn gemini_edits_in_worktrees_from_one_process() {
    edits_from_a_shared_process("gemini", "write_file", "file_path");
}

/// Codex holds the model to a schema where the schema is one that providers take.
#[test]
fn codex_gives_a_strict_schema_to_the_model() {
    let (model, place) = place("codex");
    let schema = r#"{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}"#;
    let file = place.file("schema.json", schema);
    model.on("potoroo", Step::say("{\"n\": 7}"));
    let words = ["--schema", file.to_str().unwrap(), "--permissions", "read", "--json", "-", "How many, potoroo?"];
    assert_eq!(lines(&run(&place, &words).expect(0))[0]["value"], json!({ "n": 7 }));
    let asked = model.requests_of("potoroo");
    assert_eq!(asked[0].body["text"]["format"]["schema"], serde_json::from_str::<Value>(schema).unwrap(), "{asked:#?}");
}

/// The model's own numbers count, over resumes; and a deadline lets what runs end.
#[test]
fn gemini_and_opencode_stop_at_a_budget_and_at_a_deadline() {
    let (model, gemini) = place("gemini");
    model.otherwise(Step::say("well"));
    let inputs = ["a", "b", "c", "d", "e", "f"];
    let words = ["-j", "1", "--permissions", "read", "--budget-tokens", "1", "About {}"];
    let stopped = run(&gemini, &[&words[..], &inputs].concat()).expect(4);
    stopped.says("the budget is spent").says("readyroom resume");
    gemini.finish(gemini.alone(&["resume"])).expect(4).says("the budget is spent");
    gemini.finish(gemini.alone(&["resume", "--budget-tokens", "100000000"])).expect(0);

    let (model, opencode) = place("opencode");
    model.otherwise(Step::say("well").after(500));
    let words = ["-j", "1", "--permissions", "read", "--deadline", "4s", "About {}"];
    let inputs: Vec<String> = (0..100).map(|input| input.to_string()).collect();
    let words: Vec<&str> = words.into_iter().chain(inputs.iter().map(String::as_str)).collect();
    run(&opencode, &words).expect(4).says("--deadline is reached");
}

/// 218 files on five aiders, the owner killed in the middle: every file is right, once.
#[test]
fn two_hundred_and_eighteen_files_on_five_aiders_and_a_kill() {
    const FILES: usize = 218;
    let (model, place) = place("aider");
    let mut inputs = Vec::new();
    for file in 0..FILES {
        let name = format!("src/m{file:03}.py");
        place.file(&name, format!("def f{file}(x):\n    return x\n"));
        let answer = edit(&name, &format!("def f{file}(x):"), &format!("def f{file}(x: int) -> int:"));
        model.on(&format!("hints to {name}"), answer.after(1000));
        inputs.push(name);
    }
    place.sandbox.commit();
    let mut words = vec!["run", "-t", "aider", "-j", "5", "Add type hints to {}"];
    words.extend(inputs.iter().map(String::as_str));
    let mut started = place.alone(&words);
    let mut running = Started::new(started.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    running.wait_for("ok 100/");
    running.signal(Signal::KILL);
    running.finish();
    place.nothing_left();
    place.finish(place.alone(&["resume"])).expect(0);
    for (file, name) in inputs.iter().enumerate() {
        assert_eq!(place.read(name), format!("def f{file}(x: int) -> int:\n    return x\n"));
    }
    let status = place.sandbox.git(&["status", "--porcelain"]);
    assert_eq!(status.lines().filter(|line| line.starts_with(" M src/")).count(), FILES, "{status}");
    let twice = inputs.iter().filter(|name| model.requests_of(&format!("hints to {name}")).len() > 1).count();
    assert!(twice <= 10, "only what was under way was asked again: {twice}");
}
