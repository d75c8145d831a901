//! A batch in bad weather against the formula: what the jobs need without it, and the time for which the provider asked all to wait.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use readyroom_testkit::fake;

use crate::page::{Page, Row};

/// The least part of the throughput that the formula leaves.
const GOAL: f64 = 0.8;
const INSTANCES: &str = "8";

/// What the words of the fake's answers mean.
const WORDS: &str = r#"
[[errors]]
pattern = 'E: slow down, retry after (\d+)s'
kind = "rate_limited"

[[errors]]
pattern = 'E: '
kind = "model_error"
"#;

/// Measures.
pub fn run(page: &mut Page, jobs: usize) -> anyhow::Result<()> {
    let (fair, _) = batch(jobs, |_| None)?;
    let (took, waited) = batch(jobs, |job| match job % 100 {
        3..=7 => Some("slow down, retry after 1s"),
        9 | 27 | 47 | 67 | 87 => Some("500"),
        11 | 61 => Some("the stream was dropped"),
        _ => None,
    })?;
    let formula = fair + waited;
    let share = formula.as_secs_f64() / took.as_secs_f64();
    page.table(format!(
        "{jobs} jobs on {INSTANCES} instances, 5% told to wait, 5% failed, 2% dropped, each at its first try"
    ));
    page.row(Row::times("without all that", &[fair]));
    page.row(Row::times("all were told to wait", &[waited]));
    let row = Row::times("readyroom", &[took]).ratio(share);
    page.row(row.goal(format!("at least {GOAL}x of what the two above leave"), share >= GOAL));
    Ok(())
}

/// The time of a batch, and for how long nothing was to start.
fn batch(jobs: usize, weather: impl Fn(usize) -> Option<&'static str>) -> anyhow::Result<(Duration, Duration)> {
    let dir = tempfile::tempdir()?;
    let echo = dir.path().join("echo.toml");
    let rules = "[repl]\nran = '(?m)^(fine|slept .*)$'\nerror = '(?m)^E: .*'\nchanged = '^Applied edit to (.+)$'\n";
    fs::write(&echo, fake::echo_toml("echo", &[]).replace("[repl]\n", rules) + WORDS)?;
    fs::create_dir(dir.path().join("met"))?;
    let mut lines = String::new();
    for job in 0..jobs {
        let prompt = match weather(job) {
            Some(words) => format!("@until 1 met/{job} E: {words}"),
            None => "@sleep 20".to_owned(),
        };
        writeln!(lines, "{}", serde_json::json!({ "id": job.to_string(), "prompt": prompt }))?;
    }
    let from = dir.path().join("jobs.jsonl");
    fs::write(&from, lines)?;
    let began = Instant::now();
    let waited = waits(&mut command(dir.path(), &echo, &from))?;
    Ok((began.elapsed(), waited))
}

fn command(dir: &Path, echo: &Path, from: &Path) -> Command {
    let mut command = Command::new(fake::program("readyroom"));
    command.args(["run", "-t", "echo", "-j", INSTANCES, "--permissions", "read", "--tools"]).arg(echo);
    command.arg("--from").arg(from).current_dir(dir).env("HOME", dir).stdin(Stdio::null()).stdout(Stdio::null());
    for variable in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "READYROOM_TOOL"] {
        command.env_remove(variable);
    }
    command
}

/// Runs it to its end; the length of all waits that it tells, where several at once count once.
fn waits(command: &mut Command) -> anyhow::Result<Duration> {
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stderr.take().context("its stderr")?).lines();
    let (mut total, mut until) = (Duration::ZERO, Instant::now());
    for line in lines {
        if let Some((_, time)) = line?.split_once("all wait and go on slower in ") {
            let seconds: f64 =
                time.trim_end_matches('s').parse().with_context(|| format!("a time of seconds in {time:?}"))?;
            let now = Instant::now();
            let end = now + Duration::from_secs_f64(seconds);
            total += end.saturating_duration_since(until.max(now));
            until = until.max(end);
        }
    }
    anyhow::ensure!(child.wait()?.success(), "a job did not succeed");
    Ok(total)
}
