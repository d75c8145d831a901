//! Each tool's own one-shot command in its sandbox: what it is told comes to the model, and the model's answer back.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use readyroom_testkit::sandbox::Process;
use readyroom_testkit::{Model, Sandbox, assert_nothing_left, processes_of, tools};

/// Runs the tool by hand and gives what it printed.
fn by_hand(sandbox: &Sandbox, args: &[&str]) -> String {
    let mut command = Command::new(tools::program(sandbox.tool()));
    let output = sandbox.apply(command.args(args).stdin(Stdio::null())).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn answers_from_the_model(tool: &str, args: &[&str]) {
    let model = Model::start();
    model.on("kingfisher", "an answer about halcyon days");
    // A title request, say, must not be given the answer.
    let sandbox = Sandbox::new(tool, &model);
    let text = by_hand(&sandbox, args);
    assert!(text.contains("an answer about halcyon days"), "{text}");
    assert_eq!(model.requests_of("kingfisher").len(), 1, "{:?}", model.requests());
    assert_eq!(sandbox.git(&["status", "--porcelain"]), "", "the tool wrote into the repository");
    assert_nothing_left(&sandbox);
}

#[test]
fn aider_talks_to_the_model() {
    let args = ["--message", "say kingfisher", "--yes-always", "--no-check-update", "--no-gitignore", "--no-pretty"];
    let files = ["--input-history-file", "/dev/null", "--chat-history-file", "/dev/null", "--map-tokens", "0"];
    answers_from_the_model("aider", &[&args[..], &files[..], &["--no-analytics"]].concat());
}

#[test]
fn claude_talks_to_the_model() {
    answers_from_the_model("claude", &["-p", "say kingfisher"]);
}

#[test]
fn codex_talks_to_the_model() {
    answers_from_the_model("codex", &["exec", "say kingfisher"]);
}

#[test]
fn gemini_talks_to_the_model() {
    answers_from_the_model("gemini", &["-p", "say kingfisher"]);
}

#[test]
fn opencode_talks_to_the_model() {
    answers_from_the_model("opencode", &["run", "say kingfisher"]);
}

#[test]
fn the_definition_keeps_the_callers_keys_out() {
    let model = Model::start();
    let sandbox = Sandbox::new("claude", &model);
    let (definition, program) = sandbox.definition();
    assert_eq!(definition.id, "claude");
    assert!(program.exists());
    for (name, _) in std::env::vars().filter(|(name, _)| name.contains("API_KEY")) {
        assert!(definition.unset_env.contains(&name), "{name} would reach the tool");
    }
}

#[test]
fn what_is_left_running_is_found() {
    let sandbox = Sandbox::bare("sleep");
    let mut command = Command::new("sleep");
    let mut child = sandbox.apply(command.arg("600")).spawn().unwrap();
    // It is told as started a moment before its environment and its words can be read.
    let is_it = |process: &Process| process.pid == child.id() && process.command == "sleep 600";
    let until = Instant::now() + Duration::from_secs(10);
    let mut found = processes_of(&sandbox);
    while !found.iter().any(is_it) && Instant::now() < until {
        found = processes_of(&sandbox);
    }
    let there = found.iter().any(is_it);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(there, "{found:?}");
    assert_nothing_left(&sandbox);
}
