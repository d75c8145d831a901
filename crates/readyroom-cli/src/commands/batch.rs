//! `readyroom batch`: what the journal knows of batches.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::bail;
use readyroom::FailureKind;
use readyroom::journal::{Batch, ChangeState, Entry, Job, JobState, JournalError, Lease, Recorded, Store};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use super::tools::{Screen, Table};
use crate::args::{BatchArgs, BatchCommand};
use crate::batch::{self, Recipe, clear, find, open_known, put_away};
use crate::exit::ExitStatus;
use crate::output;
use crate::report::text;
use crate::say;

/// How long whoever runs a batch has to stop.
const STOPPING: Duration = Duration::from_secs(60);

/// Runs `batch`.
///
/// # Errors
/// No such batch or job, a batch that is being run, a journal or stdout that can't be used.
pub fn run(args: &BatchArgs) -> anyhow::Result<ExitStatus> {
    let mut store = open_known(args.journal.as_deref())?;
    let mut out = Vec::new();
    match &args.command {
        BatchCommand::List => list(&store, &store.batches()?, args.json, &mut out)?,
        BatchCommand::Show { batch, job: None } => {
            let batch = find(&store, batch.as_deref())?;
            show(&store, &batch, &store.jobs(&batch.id)?, args.json, &mut out)?;
        }
        BatchCommand::Show { batch, job: Some(id) } => {
            let batch = find(&store, batch.as_deref())?;
            let Some(job) = store.jobs(&batch.id)?.into_iter().find(|job| job.id == *id) else {
                bail!("batch {} has no job {id:?}; `readyroom batch show {}` lists them", batch.id, batch.id);
            };
            serde_json::to_writer_pretty(&mut out, &whole(&job))?;
            out.push(b'\n');
        }
        BatchCommand::Results { batch, failed, kind } => {
            let batch = find(&store, batch.as_deref())?;
            if let Some(unknown) = kind.as_ref().filter(|kind| !kinds().any(|known| known == kind.as_str())) {
                bail!("no kind of failure is {unknown:?}; there are {}", kinds().collect::<Vec<_>>().join(", "));
            }
            let wanted = |job: &Job| {
                let of_kind = |kind: &str| failure(job).is_some_and(|failure| failure["kind"] == kind);
                (!failed || job.state != JobState::Succeeded) && kind.as_deref().is_none_or(of_kind)
            };
            results(store.jobs(&batch.id)?.iter().filter(|job| wanted(job)), args.json, &mut out)?;
        }
        BatchCommand::Apply { batch, jobs } => return apply(&mut store, batch, jobs, args.json),
        BatchCommand::Cancel { batch } => {
            let dropped = cancel(&mut store, batch)?;
            match args.json {
                true => writeln!(out, "{}", json!({ "id": batch, "dropped": dropped }))?,
                false => say::stderr(&format!("{} will not run", text::count(dropped, "job"))),
            }
        }
        BatchCommand::Rm { batch, force } => {
            let batch = store.batch(batch)?;
            if !force && store.unapplied(&batch.id)? > 0 {
                bail!(
                    "batch {0} holds changes that are not in your files; `readyroom batch apply {0}` brings them there, and \
                     --force removes it all the same",
                    batch.id
                );
            }
            remove(&mut store, &batch)?;
            if args.json {
                writeln!(out, "{}", json!({ "id": batch.id }))?;
            }
        }
        BatchCommand::Prune { older_than, force } => {
            let before = jiff::Timestamp::now() - jiff::SignedDuration::try_from(*older_than)?;
            let open = [JobState::Queued, JobState::Running, JobState::Cancelled];
            let done = |batch: &Batch| open.iter().all(|state| batch.states.of(*state) == 0);
            for batch in store.batches()?.iter().filter(|batch| batch.created < before) {
                if !done(batch) {
                    // What a killed owner left on the disk is not needed for a resume.
                    if let Ok(_lease) = Lease::take(store.path(), &batch.id) {
                        put_away(batch).iter().for_each(|problem| say::stderr(problem));
                    }
                    continue;
                }
                if !force && store.unapplied(&batch.id)? > 0 {
                    say::stderr(&format!("{} is kept: it holds changes that are not in your files", batch.id));
                    continue;
                }
                remove(&mut store, batch)?;
                match args.json {
                    true => writeln!(out, "{}", json!({ "id": batch.id }))?,
                    false => writeln!(out, "{}", batch.id)?,
                }
            }
        }
    }
    say::stdout(&out)?;
    Ok(ExitStatus::Success)
}

/// Takes a batch out with all that is kept of it, unless somebody runs it.
fn remove(store: &mut Store, batch: &Batch) -> anyhow::Result<()> {
    let _lease = Lease::take(store.path(), &batch.id)?;
    for problem in clear(batch) {
        say::stderr(&problem);
    }
    Ok(store.remove(&batch.id)?)
}

fn apply(store: &mut Store, batch: &str, jobs: &[String], as_json: bool) -> anyhow::Result<ExitStatus> {
    let batch = store.batch(batch)?;
    let _lease = Lease::take(store.path(), &batch.id)?;
    let recipe: Recipe = serde_json::from_value(batch.spec)?;
    let known: Vec<String> = store.jobs(&batch.id)?.into_iter().map(|job| job.id).collect();
    if let Some(unknown) = jobs.iter().find(|job| !known.contains(job)) {
        bail!("batch {0} has no job {unknown:?}; `readyroom batch show {0}` lists them", batch.id);
    }
    let wanted = |id: &str, recorded: &Recorded| match recorded.state {
        ChangeState::Applied => false,
        ChangeState::Kept => jobs.iter().any(|job| job == id),
        ChangeState::Pending | ChangeState::Conflict => jobs.is_empty() || jobs.iter().any(|job| job == id),
    };
    let conflicts = batch::apply(store, &batch.id, &recipe, wanted, |id, state, branch, line| match as_json {
        true => say::stdout(format!("{}\n", json!({ "job": id, "state": state, "branch": branch })).as_bytes()),
        false => {
            say::stderr(line);
            Ok(())
        }
    })?;
    let changes = store.changes(&batch.id)?;
    let kept = changes.iter().filter(|(_, recorded)| recorded.state == ChangeState::Kept).count();
    if jobs.is_empty() && kept > 0 {
        say::stderr(&format!("{} did not succeed; name one to apply what it changed", text::count(kept, "job")));
    }
    Ok(if conflicts == 0 { ExitStatus::Success } else { ExitStatus::SomeFailed })
}

/// Has whoever runs the batch stop, and drops what was not run. How many jobs that were.
fn cancel(store: &mut Store, batch: &str) -> anyhow::Result<usize> {
    let batch = store.batch(batch)?;
    if let Some(pid) = Lease::holder(store.path(), &batch.id).and_then(|holder| Pid::from_raw(holder.pid.cast_signed()))
    {
        rustix::process::kill_process(pid, Signal::TERM)?;
    }
    let until = Instant::now() + STOPPING;
    let _lease = loop {
        match Lease::take(store.path(), &batch.id) {
            Err(JournalError::Held { .. }) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            taken => break taken?,
        }
    };
    let jobs = store.jobs(&batch.id)?;
    let open = |job: &&Job| !matches!(job.state, JobState::Succeeded | JobState::Failed | JobState::Dropped);
    let drop = |job: &Job| Entry::Dropped { batch: batch.id.clone(), place: job.place };
    let entries: Vec<Entry> = jobs.iter().filter(open).map(drop).collect();
    store.enter(&entries)?;
    Ok(entries.len())
}

/// How a job's state is told: what runs, and whose owner is gone, runs no more.
fn told(store: &Store, batch: &Batch) -> impl Fn(JobState) -> &'static str + use<> {
    let runs = batch.states.of(JobState::Running) == 0 || Lease::holder(store.path(), &batch.id).is_some();
    move |state| if state == JobState::Running && !runs { "interrupted" } else { state.name() }
}

fn list(store: &Store, batches: &[Batch], as_json: bool, out: &mut Vec<u8>) -> anyhow::Result<()> {
    if as_json {
        for batch in batches {
            let states = JobState::ALL.map(|state| (state.name().to_owned(), Value::from(batch.states.of(state))));
            let line = json!({
                "id": batch.id, "created": batch.created, "directory": batch.directory.to_string_lossy(),
                "title": batch.title, "jobs": Value::Object(states.into_iter().collect()),
            });
            writeln!(out, "{line}")?;
        }
        return Ok(());
    }
    let mut table = Table::new(&["BATCH", "JOBS", "STATES", "DIRECTORY", "WHAT"]);
    for batch in batches {
        let told = told(store, batch);
        let states: Vec<String> = JobState::ALL
            .iter()
            .filter(|state| batch.states.of(**state) > 0)
            .map(|state| format!("{} {}", batch.states.of(*state), told(*state)))
            .collect();
        let directory = batch.directory.display().to_string();
        table.row([&batch.id, &batch.states.total().to_string(), &states.join(", "), &directory, &batch.title]);
    }
    Ok(table.write(out, Screen::of_stdout())?)
}

fn show(store: &Store, batch: &Batch, jobs: &[Job], as_json: bool, out: &mut Vec<u8>) -> anyhow::Result<()> {
    if as_json {
        for job in jobs {
            writeln!(out, "{}", whole(job))?;
        }
        return Ok(());
    }
    let mut table = Table::new(&["JOB", "STATE", "ATTEMPTS", "WHY"]);
    let told = told(store, batch);
    for job in jobs {
        table.row([&job.id, told(job.state), &job.attempts.to_string(), &why(job)]);
    }
    writeln!(out, "batch {} in {}", batch.id, batch.directory.display())?;
    Ok(table.write(out, Screen::of_stdout())?)
}

fn results<'a>(jobs: impl Iterator<Item = &'a Job>, as_json: bool, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let terminal = std::io::stdout().is_terminal();
    for job in jobs {
        match &job.outcome {
            Some(outcome) if as_json => writeln!(out, "{outcome}")?,
            // What has not ended has no outcome; `show` tells how it stands.
            None if as_json => {}
            Some(outcome) if job.state == JobState::Succeeded => {
                let answer = output::answer_of(outcome).unwrap_or_default();
                out.extend(output::render(Some(&job.id), &answer, terminal));
            }
            _ => {
                let why = why(job);
                let told =
                    if why.is_empty() { job.state.name().to_owned() } else { format!("{}: {why}", job.state.name()) };
                out.extend(output::render(Some(&job.id), &told.into(), terminal));
            }
        }
    }
    Ok(())
}

/// The kinds of failures, as outcomes name them.
fn kinds() -> impl Iterator<Item = &'static str> {
    FailureKind::NAMES.into_iter().chain(["timed_out"])
}

fn whole(job: &Job) -> Value {
    json!({
        "id": job.id, "number": job.place + 1, "state": job.state, "attempts": job.attempts,
        "spec": job.spec, "outcome": job.outcome,
    })
}

fn failure(job: &Job) -> Option<&Value> {
    job.outcome.as_ref().map(|outcome| &outcome["failure"]).filter(|failure| !failure.is_null())
}

fn why(job: &Job) -> String {
    let text = |failure: &Value, name: &str| failure[name].as_str().unwrap_or_default().to_owned();
    match (job.state, failure(job)) {
        (JobState::Lost, _) => "its owner died while it may have run".into(),
        (JobState::Failed, Some(failure)) => format!("{}: {}", text(failure, "kind"), text(failure, "message")),
        _ => String::new(),
    }
}
