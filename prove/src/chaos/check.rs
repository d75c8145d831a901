//! What must hold after a round, whatever was done in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use rusqlite::Connection;
use serde_json::Value;

use super::plan::Plan;
use super::round::{BEFORE, Round, line_of};

/// Looks at everything; how many jobs came to which end.
pub fn all(plan: &Plan, round: &Round) -> anyhow::Result<String> {
    let jobs = round.jobs()?;
    let ends = outcomes(plan, round, &jobs)?;
    files(plan, round, &jobs)?;
    disk(round)?;
    journal(round.sandbox.home())?;
    let most = 8 * plan.instances + 16;
    ensure!(round.more_descriptors <= most, "an owner opened {} descriptors more", round.more_descriptors);
    Ok(ends)
}

/// Each job has one outcome, and where nothing but owners was harmed, work has succeeded.
fn outcomes(plan: &Plan, round: &Round, jobs: &[Value]) -> anyhow::Result<String> {
    ensure!(jobs.len() == plan.jobs.len(), "{} jobs in the journal, of {}", jobs.len(), plan.jobs.len());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (planned, job) in plan.jobs.iter().zip(jobs) {
        ensure!(job["id"] == planned.id.as_str(), "{} stands where {} should", job["id"], planned.id);
        let state = job["state"].as_str().context("a job's state")?;
        let outcome = &job["outcome"];
        ensure!(outcome["id"] == job["id"], "the outcome of {} is {outcome}", planned.id);
        let named = outcome["outcome"].as_str().context("an outcome's name")?;
        let same = if state == "failed" { ["failed", "timed_out"].contains(&named) } else { named == state };
        ensure!(same, "{} is {state}, and its outcome {outcome}", planned.id);
        if planned.file.is_some() && state != "succeeded" && !plan.may_fail_jobs() {
            bail!("{} did not succeed, though only owners were killed: {outcome}", planned.id);
        }
        let kind = outcome["failure"]["kind"].as_str().unwrap_or(state);
        *counts.entry(kind.to_owned()).or_default() += 1;
    }
    let results = round.readyroom(&["batch", "results", "--json"]).output()?;
    let lines = String::from_utf8_lossy(&results.stdout).lines().count();
    ensure!(lines == jobs.len(), "{lines} results of {} jobs", jobs.len());
    Ok(counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", "))
}

/// Work that succeeded stands in its file once; all other files are as they were.
fn files(plan: &Plan, round: &Round, jobs: &[Value]) -> anyhow::Result<()> {
    let mut changed = Vec::new();
    for (planned, job) in plan.jobs.iter().zip(jobs) {
        let Some(file) = &planned.file else { continue };
        let succeeded = job["state"] == "succeeded";
        if succeeded {
            ensure!(job["outcome"]["change"]["state"] == "applied", "{}: {}", planned.id, job["outcome"]);
            changed.push(format!(" M {file}"));
        }
        let expected = if succeeded { format!("{BEFORE}{}\n", line_of(file)) } else { BEFORE.to_owned() };
        let found = round.sandbox.read(file);
        ensure!(found.as_ref() == Some(&expected), "{file} holds {found:?}, and {} is {}", planned.id, job["state"]);
    }
    changed.sort();
    let status = round.sandbox.git(&["status", "--porcelain", "--untracked-files=all"]);
    let mut found: Vec<&str> = status.lines().filter(|line| !ours(line)).collect();
    found.sort_unstable();
    ensure!(found == changed, "git sees {found:?}, and not {changed:?}");
    Ok(())
}

/// What tools leave by themselves in the directory in which they run (aider's cache of tags).
fn ours(line: &str) -> bool {
    line.starts_with("?? .aider")
}

/// No worktree, no index, no lock, no temporary file is left.
fn disk(round: &Round) -> anyhow::Result<()> {
    let sandbox = &round.sandbox;
    let worktrees = sandbox.git(&["worktree", "list"]);
    ensure!(worktrees.lines().count() == 1, "worktrees are left:\n{worktrees}");
    let state = sandbox.home().join(".local/state/readyroom");
    ensure!(names(&state.join("worktrees")).is_empty(), "left: {:?}", names(&state.join("worktrees")));
    let strays: Vec<String> = names(&sandbox.dir().join(".git"))
        .into_iter()
        .filter(|name| name.starts_with("readyroom-index") || name.ends_with(".lock") && name != "readyroom.lock")
        .collect();
    ensure!(strays.is_empty(), "in .git: {strays:?}");
    let temporary = names(&sandbox.home().join("tmp"));
    let own: Vec<&String> = temporary.iter().filter(|name| name.contains("readyroom")).collect();
    ensure!(own.is_empty(), "in the temporary directory: {own:?}");
    Ok(())
}

/// The journal's file is sound.
fn journal(home: &Path) -> anyhow::Result<()> {
    let state = home.join(".local/state/readyroom");
    let journal = Connection::open(state.join("journal.sqlite"))?;
    let sound: String = journal.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(sound == "ok", "the journal: {sound}");
    let strange: i64 = journal.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))?;
    ensure!(strange == 0, "{strange} rows of the journal belong to nothing");
    Ok(())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
