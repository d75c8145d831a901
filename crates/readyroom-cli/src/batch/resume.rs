//! Batches that go on: what is left of one that was stopped or killed, and what a named one does not have yet.

use std::collections::{BTreeMap, HashMap};

use super::*;

/// What a resume runs.
#[derive(Debug)]
pub struct Resumed {
    /// How it was started.
    pub recipe: Recipe,
    /// What is left.
    pub plan: Plan,
    /// Where it goes on being written down.
    pub journal: Journal,
    /// Ids of jobs that may have run and are not run again.
    pub lost: Vec<String>,
    /// How many jobs have failed and are not run again.
    pub failed: usize,
    /// Results that were never told.
    pub untold: Vec<Untold>,
    /// Changes that were to be applied and do not apply.
    pub conflicts: usize,
    /// Changes wait for jobs that are left: those of the run have to wait behind them.
    pub deferred: bool,
    /// There was no such batch before.
    pub is_new: bool,
}

/// Takes a batch up again.
///
/// # Errors
/// There is none of that name, somebody else runs it, the journal can't be used.
pub fn resume(
    path: Option<&Path>,
    batch: Option<&str>,
    wishes: Wishes,
    instances: Option<usize>,
) -> anyhow::Result<Resumed> {
    let store = open_known(path)?;
    let id = find(&store, batch)?.id;
    let lease = Lease::take(store.path(), &id)?;
    // Whoever had it until now may have given it more jobs.
    let batch = store.batch(&id)?;
    let recipe: Recipe = serde_json::from_value(batch.spec).with_context(|| format!("batch {}", batch.id))?;
    let instances = instances.unwrap_or(recipe.instances);
    go_on(store, lease, &batch.id, recipe, wishes, instances)
}

/// Runs a batch of this name: a new one, or the jobs of `plan` that it does not have yet, and those of it that were never run. With
/// `changed` also those whose files are not as their last end left them. `workspaces` makes what jobs start from.
///
/// # Errors
/// Somebody else runs it, the journal can't be used; what `workspaces` says.
pub fn repeat(
    path: Option<&Path>,
    name: &str,
    mut recipe: Recipe,
    plan: &Plan,
    changed: bool,
    workspaces: impl FnOnce(&str, &[PoolKind]) -> anyhow::Result<Option<Workspaces>>,
) -> anyhow::Result<Resumed> {
    let mut store = open(path)?;
    match store.batch(name) {
        Ok(_) => {}
        Err(JournalError::NoBatch { .. }) => {
            let kinds = recipe.kinds.clone();
            let journal = Journal::create(path, Some(name), &mut recipe, plan, |batch| workspaces(batch, &kinds))?;
            return Ok(Resumed {
                recipe,
                plan: plan.clone(),
                journal,
                lost: Vec::new(),
                failed: 0,
                untold: Vec::new(),
                conflicts: 0,
                deferred: false,
                is_new: true,
            });
        }
        Err(error) => return Err(error.into()),
    }
    let lease = Lease::take(store.path(), name)?;
    let batch = store.batch(name)?;
    let old: Recipe = serde_json::from_value(batch.spec).with_context(|| format!("batch {name}"))?;
    // Its jobs name their kinds by place.
    let added = std::mem::replace(&mut recipe.kinds, old.kinds);
    check_directories(name, &recipe.kinds, &added)?;
    let mark = old.workspaces.map(|workspaces| workspaces.mark);
    let (mut known, mut kept_jobs) = (HashMap::new(), BTreeMap::new());
    for job in store.jobs(name)? {
        kept_jobs.insert(job.place, planned_job(&job, name)?);
        known.insert(job.id.clone(), job);
    }
    let (mut again, mut new, mut as_before) = (Vec::new(), Vec::new(), Vec::new());
    for planned in &plan.jobs {
        let kind = &added[planned.pool];
        let mut planned = kept(planned)?;
        planned.pool = recipe.kinds.iter().position(|old| old == kind).unwrap_or_else(|| {
            recipe.kinds.push(kind.clone());
            recipe.kinds.len() - 1
        });
        let key = planned.key();
        match known.get(&key) {
            Some(job) => {
                let first = &kept_jobs[&job.place];
                let known_kind = recipe.kinds.get(first.pool).with_context(|| format!("job {key} has no pool"))?;
                check_directory(name, &key, known_kind, kind)?;
                let ended = matches!(job.state, JobState::Succeeded | JobState::Failed);
                if changed && ended && job.outcome.as_ref().is_some_and(|outcome| !as_left(outcome, kind)) {
                    planned.number = job.place + 1;
                    again.push((job.place, new_job(&planned)?.spec));
                    kept_jobs.insert(job.place, planned);
                } else if first.job != planned.job || first.pool != planned.pool || first.output != planned.output {
                    as_before.push(key);
                }
            }
            None => {
                planned.number = known.len() + new.len() + 1;
                new.push(new_job(&planned)?);
                kept_jobs.insert(planned.number - 1, planned);
            }
        }
    }
    check_outputs(name, kept_jobs.values())?;
    if !as_before.is_empty() {
        let (jobs, are) = if as_before.len() == 1 { ("job", "is") } else { ("jobs", "are") };
        let names = text::few(&as_before);
        say::stderr(&format!(
            "{jobs} {names} {are} in the batch already, and stand there as first given, not as given now"
        ));
    }
    recipe.workspaces = workspaces(name, &recipe.kinds)?;
    if let (Some(workspaces), Some(mark)) = (&mut recipe.workspaces, mark) {
        // What an earlier run left is found by it.
        workspaces.mark = mark;
    }
    store.extend(name, &serde_json::to_value(&recipe)?, &again, &new)?;
    let instances = recipe.instances;
    go_on(store, lease, name, recipe, Wishes::default(), instances)
}

/// A job that the batch has is known by its name; the same name in another directory would be taken for it.
fn check_directory(batch: &str, job: &str, first: &PoolKind, now: &PoolKind) -> anyhow::Result<()> {
    if first.directory != now.directory {
        bail!(
            "the batch {batch} has a job {job}, in {}; give the run in {} another name with --batch",
            first.directory.display(),
            now.directory.display()
        );
    }
    Ok(())
}

/// What is left of a batch is run with what is new, and so not by a run of something else that happens to have its name.
fn check_directories(batch: &str, first: &[PoolKind], now: &[PoolKind]) -> anyhow::Result<()> {
    let is_known = |kind: &PoolKind| first.iter().any(|first| first.directory == kind.directory);
    match first.first() {
        Some(elsewhere) if !now.is_empty() && !now.iter().any(is_known) => bail!(
            "the batch {batch} works in {}; give the run in {} another name with --batch",
            elsewhere.directory.display(),
            now[0].directory.display()
        ),
        _ => Ok(()),
    }
}

/// No answer may replace that of another job of the batch, which an earlier run wrote.
fn check_outputs<'a>(batch: &str, jobs: impl Iterator<Item = &'a Planned>) -> anyhow::Result<()> {
    let mut seen = HashMap::new();
    for job in jobs {
        // A device or a pipe takes any number of answers.
        let Some(output) = job.output.as_ref().filter(|path| path.is_file() || !path.exists()) else { continue };
        if let Some(other) = seen.insert(output, job) {
            bail!(
                "--output makes {} for the job {}, and for {}, which is also in the batch {batch}; make names differ by the \
                 inputs, with {{}} for instance",
                output.display(),
                job.key(),
                other.key()
            );
        }
    }
    Ok(())
}

/// Whether the files of a job are as its outcome says that it left them.
fn as_left(outcome: &Value, kind: &PoolKind) -> bool {
    let files: Vec<PathBuf> =
        outcome["left"].as_object().into_iter().flat_map(|left| left.keys().map(PathBuf::from)).collect();
    outcome["left"].is_null() || left(&files, &kind.directory) == outcome["left"]
}

/// Goes on with a batch that is ours.
fn go_on(
    mut store: Store,
    lease: Lease,
    batch: &str,
    recipe: Recipe,
    wishes: Wishes,
    instances: usize,
) -> anyhow::Result<Resumed> {
    let (mut jobs, mut places, mut lost, mut entries) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut failed = 0;
    let mut before = Before::default();
    for job in store.jobs(batch)? {
        before.total += job.spent;
        let planned = planned_job(&job, batch)?;
        let kind = recipe.kinds.get(planned.pool).with_context(|| format!("job {} has no pool", job.id))?;
        match next(job.state, kind.is_safe(), wishes) {
            Next::Run => {
                places.push(job.place);
                before.jobs.push(job.spent);
                jobs.push(planned);
            }
            Next::Lose => {
                entries.push(Entry::Lost { batch: batch.to_owned(), place: job.place });
                lost.push(job.id);
            }
            Next::Leave if job.state == JobState::Lost => lost.push(job.id),
            Next::Leave => failed += usize::from(job.state == JobState::Failed),
        }
    }
    store.enter(&entries)?;
    let conflicts = changes::take_up(&mut store, batch, &recipe)?;
    let deferred = recipe.workspaces.as_ref().is_some_and(|w| w.in_order && w.apply == ApplyArg::Auto)
        && store.changes(batch)?.iter().any(|(_, recorded)| recorded.state == ChangeState::Pending);
    let mut untold = Untold::of(&store, batch, &places)?;
    untold.retain(|untold| !(deferred && untold.waits()));
    let plan = Plan::assemble(jobs, &recipe.kinds, instances);
    let path = store.path().to_owned();
    let writer = Arc::new(Writer::start(store, lease)?);
    Ok(Resumed {
        recipe,
        plan,
        journal: Journal { writer, path, batch: batch.to_owned(), places, before, wishes },
        lost,
        failed,
        untold,
        conflicts,
        deferred,
        is_new: false,
    })
}
