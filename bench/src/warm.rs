//! A turn on a warm instance, through the whole command, against the tool's own one-shot command.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use readyroom_testkit::{Model, Sandbox, Step, fake};

use crate::page::{Page, Row};
use crate::stats::{median, ratio};

/// Each tool with the least that warmth has to be worth.
const GOALS: [(&str, f64); 5] =
    [("aider", 60.0), ("gemini", 15.0), ("claude", 12.0), ("opencode", 10.0), ("codex", 2.0)];

/// How often the warm side is measured.
const ROUNDS: usize = 3;

/// Measures.
pub fn run(page: &mut Page, tools: &[String], jobs: usize, one_shots: usize) -> anyhow::Result<()> {
    for (tool, goal) in GOALS {
        if tools.is_empty() || tools.iter().any(|wanted| wanted == tool) {
            measure(page, tool, goal, jobs, one_shots).with_context(|| tool.to_owned())?;
        }
    }
    Ok(())
}

fn measure(page: &mut Page, tool: &str, goal: f64, jobs: usize, one_shots: usize) -> anyhow::Result<()> {
    let model = Model::start();
    model.otherwise(Step::say("ok"));
    let sandbox = Sandbox::new(tool, &model);
    let version = version(&sandbox)?;
    // The first start of a tool in a HOME sets it up: neither side pays for that.
    batch(&sandbox, 1)?;
    one_shot(&sandbox)?;
    let (mut colds, mut ones, mut manys) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..one_shots.max(ROUNDS) {
        if round < one_shots {
            colds.push(one_shot(&sandbox)?);
        }
        if round < ROUNDS {
            ones.push(batch(&sandbox, 1)?);
            manys.push(batch(&sandbox, 1 + jobs)?);
        }
    }
    // Round by round, so that what else the machine does weighs on both sides.
    let mut warms: Vec<_> = ones.iter().zip(&manys).map(|(one, many)| many.saturating_sub(*one)).collect();
    for warm in &mut warms {
        *warm /= u32::try_from(jobs)?;
    }
    let warm = median(&warms);
    anyhow::ensure!(!warm.is_zero(), "the machine is too busy: {} jobs took no longer than one", 1 + jobs);
    let found = ratio(median(&colds), warm);
    page.table(format!("A job on a warm {tool} ({version}) against its one-shot command; a model without latency"));
    page.row(Row::times("one-shot command", &colds));
    page.row(Row::times("readyroom run, 1 job", &ones));
    page.row(Row::times(format!("readyroom run, {} jobs", 1 + jobs), &manys));
    let row = Row::times("readyroom, one more job", &warms).ratio(found);
    page.row(row.goal(format!("at least {goal}x"), found >= goal));
    Ok(())
}

fn version(sandbox: &Sandbox) -> anyhow::Result<String> {
    let (_, program) = sandbox.definition();
    let mut command = Command::new(program);
    let output = sandbox.apply(command.arg("--version")).stderr(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `readyroom run -j 1` over so many jobs.
fn batch(sandbox: &Sandbox, jobs: usize) -> anyhow::Result<Duration> {
    let mut command = Command::new(fake::program("readyroom"));
    command.args(["run", "--quiet", "--instances", "1", "--tool", sandbox.tool(), "--no-files", "Say {}."]);
    command.args((0..jobs).map(|job| format!("word{job}")));
    timed(sandbox, &mut command)
}

/// The tool's own way to answer one prompt and exit.
fn one_shot(sandbox: &Sandbox) -> anyhow::Result<Duration> {
    let (definition, program) = sandbox.definition();
    let prompt = "Say word.";
    let mut command = Command::new(program);
    match sandbox.tool() {
        // What the definition sets for unattended use, it needs here as well.
        "aider" => command.args(definition.argv.iter().skip(1)).args(["--message", prompt]),
        "claude" => command.args(["-p", prompt]),
        "codex" => command.args(["exec", "--skip-git-repo-check", prompt]),
        "gemini" => command.args(["-p", prompt]),
        "opencode" => command.args(["run", prompt]),
        other => anyhow::bail!("no one-shot command is known for {other}"),
    };
    timed(sandbox, &mut command)
}

fn timed(sandbox: &Sandbox, command: &mut Command) -> anyhow::Result<Duration> {
    let (_, program) = sandbox.definition();
    let own = program.parent().map(std::path::Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)))?;
    let command =
        sandbox.apply(command).env("PATH", path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = Instant::now();
    let output = command.output()?;
    let took = started.elapsed();
    anyhow::ensure!(
        output.status.success(),
        "{:?} ended with {}: {}",
        command.get_program(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took)
}
