//! A run as a batch in the journal: what is kept of it, what is written while it runs, and the run that a resume makes of
//! what is left.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use readyroom::batch::RetryPolicy;
use readyroom::journal::{
    Batch, ChangeState, Entry, Job, JobState, JournalError, Lease, NewBatch, NewJob, Next, Recorded, Store, Wishes,
    Writer, next,
};
use readyroom::workspace::{Applied, Repository, Worktrees};
use readyroom::{Budget, Context, FailureKind, Outcome, Permissions, Routing, Spent};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::args::{ApplyArg, RunArgs};
use crate::plan::{Plan, Planned, PoolKind};
use crate::report::{Ended, JobChange, text};
use crate::say;
use crate::settings::Settings;
use crate::workspace::Workspaces;

/// What helps where the journal can't be used.
const ADVICE: &str = "--no-journal runs without it";

/// What all jobs of a batch have in common, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Instances over all pools.
    pub instances: usize,
    /// How jobs are routed.
    pub routing: Routing,
    /// Whether each job starts in a context that is proven new.
    pub context: Context,
    /// Whether each job has a process of its own.
    pub one_shot: bool,
    /// Whether each pool has an empty HOME of its own.
    pub isolated_home: bool,
    /// Arguments added to the tool's command line.
    pub tool_args: Vec<OsString>,
    /// Definition files that were named; absolute.
    pub tool_files: Vec<PathBuf>,
    /// Whether answers come in the jobs' order.
    pub keep_order: bool,
    /// How often a job is tried again.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// Whether jobs that may have changed something are tried again, too.
    #[serde(default)]
    pub retry_edits: bool,
    /// Where definitions are looked up from; absolute.
    pub directory: PathBuf,
    /// What the jobs of each pool have in common; a job names its own by place.
    pub kinds: Vec<PoolKind>,
    /// What the batch may cost.
    #[serde(default)]
    pub budget: Budget,
    /// What a job may cost.
    #[serde(default)]
    pub job_budget: Budget,
    /// Their worktrees; none before they are made.
    #[serde(default)]
    pub workspaces: Option<Workspaces>,
}

/// For batches that were begun when there were none.
fn default_retries() -> u32 {
    RetryPolicy::default().retries
}

impl Recipe {
    /// The recipe of a run.
    ///
    /// # Errors
    /// The current directory is gone.
    pub fn of(args: &RunArgs, plan: &Plan, settings: &Settings) -> anyhow::Result<Self> {
        let absolute = |path: &Path| std::path::absolute(path).context("the current directory can't be found");
        Ok(Self {
            instances: settings.total,
            routing: settings.routing,
            context: settings.context,
            one_shot: settings.one_shot,
            isolated_home: settings.isolated_home,
            tool_args: settings.tool_args.clone(),
            tool_files: args.tool_files.iter().map(|file| absolute(file)).collect::<Result<_, _>>()?,
            keep_order: settings.keep_order,
            retries: settings.retry.retries,
            retry_edits: settings.retry.repeat_effects,
            directory: absolute(args.directory.as_deref().unwrap_or(Path::new(".")))?,
            kinds: plan.kinds(),
            budget: settings.budget,
            job_budget: settings.job_budget,
            workspaces: None,
        })
    }
}

/// The journal of a run that is under way.
#[derive(Debug)]
pub struct Journal {
    writer: Arc<Writer>,
    path: PathBuf,
    batch: String,
    /// Each job's place in the batch.
    places: Vec<usize>,
    /// What was spent before.
    before: Before,
}

/// What a batch had cost before a run of it.
#[derive(Debug, Clone, Default)]
pub struct Before {
    /// All of it.
    pub total: Spent,
    /// The jobs of the run, by place in its plan.
    pub jobs: Vec<Spent>,
}

impl Journal {
    /// Writes a run down as a new batch. `workspaces` makes what its jobs start from, when the batch has its id.
    ///
    /// # Errors
    /// The journal can't be used; what `workspaces` says.
    pub fn create(
        path: Option<&Path>,
        id: Option<&str>,
        recipe: &mut Recipe,
        plan: &Plan,
        workspaces: impl FnOnce(&str) -> anyhow::Result<Option<Workspaces>>,
    ) -> anyhow::Result<Self> {
        let mut store = open(path).context(ADVICE)?;
        let batch = NewBatch {
            id: id.map(str::to_owned),
            directory: here()?,
            title: title(plan),
            spec: serde_json::to_value(&*recipe)?,
            jobs: plan.jobs.iter().map(new_job).collect::<Result<_, _>>()?,
        };
        let id = store.create(&batch).context(ADVICE)?;
        let lease = Lease::take(store.path(), &id)?;
        match workspaces(&id) {
            Ok(workspaces) => recipe.workspaces = workspaces,
            Err(error) => {
                store.remove(&id)?;
                return Err(error);
            }
        }
        if recipe.workspaces.is_some() {
            store.extend(&id, &serde_json::to_value(&*recipe)?, &[], &[])?;
        }
        let path = store.path().to_owned();
        let writer = Arc::new(Writer::start(store, lease)?);
        Ok(Self { writer, path, batch: id, places: (0..plan.jobs.len()).collect(), before: Before::default() })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was spent before.
    pub fn before(&self) -> &Before {
        &self.before
    }

    /// The batch's id.
    pub fn batch(&self) -> &str {
        &self.batch
    }

    /// A job's gate: writes down that it is going to be sent, and opens when that is durable. What can't be written goes to
    /// `failed`, and the gate stays closed.
    pub fn gate<F: FnOnce(Arc<JournalError>) + Send + 'static>(
        &self,
        job: usize,
        failed: F,
    ) -> impl Future<Output = bool> + Send + use<F> {
        let entry = Entry::Begun { batch: self.batch.clone(), place: self.places[job] };
        let writer = Arc::clone(&self.writer);
        async move {
            let (told, durable) = tokio::sync::oneshot::channel();
            writer.enter(entry, move |result| drop(told.send(result)));
            match durable.await {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    failed(error);
                    false
                }
                Err(_) => false,
            }
        }
    }

    /// Has it written that a job waits again.
    pub fn requeue(&self, job: usize, spent: Spent, told: impl FnOnce(Result<(), Arc<JournalError>>) + Send + 'static) {
        self.writer.enter(Entry::Requeued { batch: self.batch.clone(), place: self.places[job], spent }, told);
    }

    /// Has a job's outcome written, and what it changed with it.
    pub fn end(
        &self,
        ended: &Ended,
        outcome: Value,
        told: impl FnOnce(Result<(), Arc<JournalError>>) + Send + 'static,
    ) {
        let recorded = |change: &JobChange| {
            Box::new(Recorded { change: change.change.clone(), state: change.state, branch: change.branch.clone() })
        };
        let entry = Entry::Ended {
            batch: self.batch.clone(),
            place: self.places[ended.job],
            state: state_of(&ended.outcome),
            outcome,
            spent: Spent::from(&ended.usage),
            change: ended.change.as_ref().map(recorded),
        };
        self.writer.enter(entry, told);
    }

    /// Has written what became of a job's change, and the outcome as it is with that.
    pub fn changed(
        &self,
        ended: &Ended,
        change: &JobChange,
        outcome: Value,
        told: impl FnOnce(Result<(), Arc<JournalError>>) + Send + 'static,
    ) {
        let (batch, place) = (self.batch.clone(), self.places[ended.job]);
        let (state, branch) = (change.state, change.branch.clone());
        self.writer.enter(Entry::Changed { batch: batch.clone(), place, state, branch }, |_| {});
        let state = state_of(&ended.outcome);
        self.writer.enter(Entry::Ended { batch, place, state, outcome, spent: Spent::default(), change: None }, told);
    }
}

/// How a job that ended stands in the journal.
pub fn state_of(outcome: &Outcome) -> JobState {
    match outcome {
        Outcome::Succeeded => JobState::Succeeded,
        Outcome::Cancelled => JobState::Cancelled,
        _ => JobState::Failed,
    }
}

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
    /// Changes that were to be applied and do not apply.
    pub conflicts: usize,
    /// Changes wait for jobs that are left: those of the run have to wait behind them.
    pub deferred: bool,
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
    let store = open(path)?;
    let batch = find(&store, batch)?;
    let lease = Lease::take(store.path(), &batch.id)?;
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
    let batch = match store.batch(name) {
        Ok(batch) => batch,
        Err(JournalError::NoBatch { .. }) => {
            let kinds = recipe.kinds.clone();
            let journal = Journal::create(path, Some(name), &mut recipe, plan, |batch| workspaces(batch, &kinds))?;
            return Ok(Resumed {
                recipe,
                plan: plan.clone(),
                journal,
                lost: Vec::new(),
                conflicts: 0,
                deferred: false,
            });
        }
        Err(error) => return Err(error.into()),
    };
    let lease = Lease::take(store.path(), name)?;
    let old: Recipe = serde_json::from_value(batch.spec).with_context(|| format!("batch {name}"))?;
    // Its jobs name their kinds by place.
    let added = std::mem::replace(&mut recipe.kinds, old.kinds);
    let known = store.jobs(name)?;
    let (mut again, mut new) = (Vec::new(), Vec::new());
    for planned in &plan.jobs {
        let kind = &added[planned.pool];
        let mut planned = planned.clone();
        planned.pool = recipe.kinds.iter().position(|old| old == kind).unwrap_or_else(|| {
            recipe.kinds.push(kind.clone());
            recipe.kinds.len() - 1
        });
        let key = planned.key();
        match known.iter().find(|job| job.id == key) {
            Some(job) => {
                let ended = matches!(job.state, JobState::Succeeded | JobState::Failed);
                if changed && ended && job.outcome.as_ref().is_some_and(|outcome| !as_left(outcome, kind)) {
                    planned.number = job.place + 1;
                    again.push((job.place, new_job(&planned)?.spec));
                }
            }
            None => {
                planned.number = known.len() + new.len() + 1;
                new.push(new_job(&planned)?);
            }
        }
    }
    store.extend(name, &serde_json::to_value(&recipe)?, &again, &new)?;
    recipe.workspaces = workspaces(name, &recipe.kinds)?;
    store.extend(name, &serde_json::to_value(&recipe)?, &[], &[])?;
    let instances = recipe.instances;
    go_on(store, lease, name, recipe, Wishes::default(), instances)
}

/// A job as it is kept.
fn new_job(planned: &Planned) -> anyhow::Result<NewJob> {
    let mut spec = planned.clone();
    // A resume may be typed elsewhere.
    spec.output = spec.output.map(std::path::absolute).transpose()?;
    Ok(NewJob { id: planned.key(), spec: serde_json::to_value(spec)? })
}

/// Each file of a job as its end left it: its content's hash, or nothing where it is gone.
pub fn left(files: &[PathBuf], directory: &Path) -> Value {
    let one = |file: &PathBuf| {
        let hash = std::fs::read(directory.join(file)).ok().map(|content| hex(&Sha256::digest(content)));
        (file.to_string_lossy().into_owned(), hash.map_or(Value::Null, Value::String))
    };
    Value::Object(files.iter().map(one).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
    let mut before = Before::default();
    for job in store.jobs(batch)? {
        before.total += job.spent;
        let planned: Planned =
            serde_json::from_value(job.spec).with_context(|| format!("job {} of batch {batch}", job.id))?;
        let kind = recipe.kinds.get(planned.pool).with_context(|| format!("job {} has no pool", job.id))?;
        // What can change nothing, or nothing but a worktree that is brought back, does no harm when it is done twice.
        let safe = match kind.permissions {
            Permissions::Read => true,
            Permissions::Edit => kind.worktree,
            Permissions::Full => false,
        };
        match next(job.state, safe, wishes) {
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
            Next::Leave => {}
        }
    }
    store.enter(&entries)?;
    let conflicts = take_up(&mut store, batch, &recipe)?;
    let deferred = recipe.workspaces.as_ref().is_some_and(|w| w.in_order && w.apply == ApplyArg::Auto)
        && store.changes(batch)?.iter().any(|(_, recorded)| recorded.state == ChangeState::Pending);
    let plan = Plan::assemble(jobs, &recipe.kinds, instances);
    let path = store.path().to_owned();
    let writer = Arc::new(Writer::start(store, lease)?);
    Ok(Resumed {
        recipe,
        plan,
        journal: Journal { writer, path, batch: batch.to_owned(), places, before },
        lost,
        conflicts,
        deferred,
    })
}

/// Brings in order what an owner who was killed left of a batch's worktrees, and applies what was to be applied. How many changes
/// do not apply.
fn take_up(store: &mut Store, batch: &str, recipe: &Recipe) -> anyhow::Result<usize> {
    let Some(workspaces) = &recipe.workspaces else { return Ok(0) };
    // What still writes there is ended first.
    readyroom::process::sweep_orphans();
    for (at, kind) in recipe.kinds.iter().enumerate() {
        if let Some(worktrees) = workspaces.of(batch, at, kind)? {
            worktrees.repository().tidy()?;
            worktrees.salvage(&format!("{batch}/left"))?;
        }
    }
    match workspaces.apply {
        ApplyArg::Auto => apply_pending(store, batch, recipe),
        ApplyArg::Never => Ok(0),
    }
}

/// Applies what is pending: all of it, or, where changes come in the jobs' order, that of jobs before which all have ended. How many
/// changes do not apply.
fn apply_pending(store: &mut Store, batch: &str, recipe: &Recipe) -> anyhow::Result<usize> {
    let in_order = recipe.workspaces.as_ref().is_some_and(|workspaces| workspaces.in_order);
    let ended = |job: &Job| matches!(job.state, JobState::Succeeded | JobState::Failed | JobState::Dropped);
    let jobs = store.jobs(batch)?;
    let due: HashSet<&str> = jobs.iter().take_while(|job| !in_order || ended(job)).map(|job| job.id.as_str()).collect();
    let wanted = |id: &str, recorded: &Recorded| recorded.state == ChangeState::Pending && due.contains(id);
    apply(store, batch, recipe, wanted, |_, _, _, line| {
        say::stderr(line);
        Ok(())
    })
}

/// Applies, after a resumed run, the changes that had to wait for their turn. How many do not apply.
///
/// # Errors
/// As [`resume`].
pub fn apply_rest(path: &Path, batch: &str, recipe: &Recipe) -> anyhow::Result<usize> {
    let mut store = open(Some(path))?;
    let _lease = Lease::take(store.path(), batch)?;
    apply_pending(&mut store, batch, recipe)
}

/// Applies recorded changes that are `wanted`, by the ids of their jobs, in the order in which the jobs ended, or in
/// that of the jobs where that was asked for. Of each one `tell`
/// hears what became of it, and that as a line. How many do not apply.
///
/// # Errors
/// The journal or a repository can't be used; what was applied before is written down.
pub fn apply(
    store: &mut Store,
    batch: &str,
    recipe: &Recipe,
    wanted: impl Fn(&str, &Recorded) -> bool,
    tell: impl Fn(&str, ChangeState, Option<&str>, &str) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let jobs = store.jobs(batch)?;
    let message = recipe.workspaces.as_ref().map(Workspaces::message).transpose()?.flatten();
    let mut conflicts = 0;
    let mut changes = store.changes(batch)?;
    if recipe.workspaces.as_ref().is_some_and(|workspaces| workspaces.in_order) {
        changes.sort_by_key(|(place, _)| *place);
    }
    for (place, recorded) in changes {
        let Some(job) = jobs.iter().find(|job| job.place == place).filter(|job| wanted(&job.id, &recorded)) else {
            continue;
        };
        let planned: Planned = serde_json::from_value(job.spec.clone()).with_context(|| format!("job {}", job.id))?;
        let kind = recipe.kinds.get(planned.pool).with_context(|| format!("job {} has no pool", job.id))?;
        let repository = Repository::open(&kind.directory)?;
        let (state, branch) = match repository.apply(&recorded.change)? {
            Applied::Whole => {
                let mut line = format!("applied {}", job.id);
                let input = planned.input.as_deref().or(planned.id.as_deref()).unwrap_or_default();
                let message = message.as_ref().map(|message| message.fill(input, planned.number));
                if let Some(message) = message
                    && !repository.commit(&recorded.change, &message)?
                {
                    line.push_str("; no commit of it: it rests on edits that are not committed");
                }
                tell(&job.id, ChangeState::Applied, None, &line)?;
                (ChangeState::Applied, None)
            }
            Applied::Conflict(files) => {
                let branch = repository.keep_as_branch(&branch_name(batch, planned.number), &recorded.change)?;
                let line = format!("{} does not apply to {}; it is the branch {branch}", job.id, text::list(&files));
                tell(&job.id, ChangeState::Conflict, Some(&branch), &line)?;
                conflicts += 1;
                (ChangeState::Conflict, Some(branch))
            }
        };
        let mut entries = vec![Entry::Changed { batch: batch.to_owned(), place, state, branch: branch.clone() }];
        if let Some(mut outcome) = job.outcome.clone() {
            outcome["change"]["state"] = serde_json::to_value(state)?;
            outcome["change"]["branch"] = serde_json::to_value(&branch)?;
            let entry = |state, outcome| Entry::Ended {
                batch: batch.to_owned(),
                place,
                state,
                outcome,
                spent: Spent::default(),
                change: None,
            };
            if state == ChangeState::Conflict && job.state == JobState::Succeeded {
                outcome["outcome"] = "failed".into();
                let kind = FailureKind::Conflict;
                outcome["failure"] = serde_json::json!({
                    "kind": kind.name(), "message": "its change does not apply", "evidence": "",
                    "retryable": kind.retryable(), "origin": kind.origin(),
                });
                entries.push(entry(JobState::Failed, outcome));
            } else if state == ChangeState::Applied && outcome["failure"]["kind"] == FailureKind::Conflict.name() {
                outcome["outcome"] = "succeeded".into();
                outcome["failure"] = Value::Null;
                entries.push(entry(JobState::Succeeded, outcome));
            } else {
                entries.push(entry(job.state, outcome));
            }
        }
        store.enter(&entries)?;
    }
    Ok(conflicts)
}

/// Removes what is kept of a batch outside of the journal: worktrees that its owner left, and its refs. What could not be removed,
/// in sentences.
pub fn clear(batch: &Batch) -> Vec<String> {
    let mut problems = put_away(batch);
    problems.extend(each_worktrees(batch, |worktrees| Ok(worktrees.repository().forget(&batch.id)?)));
    crate::workspace::leave(&batch.id);
    problems
}

/// Removes worktrees that a batch's owner left, and keeps what they held as commits. What could not be removed, in sentences.
pub fn put_away(batch: &Batch) -> Vec<String> {
    let left = format!("{}/left", batch.id);
    let problems = each_worktrees(batch, |worktrees| Ok(worktrees.salvage(&left).map(drop)?));
    crate::workspace::leave(&batch.id);
    problems
}

/// What went wrong in doing something with the worktrees of each kind of job.
fn each_worktrees(batch: &Batch, what: impl Fn(&Worktrees) -> anyhow::Result<()>) -> Vec<String> {
    let Ok(recipe) = serde_json::from_value::<Recipe>(batch.spec.clone()) else { return Vec::new() };
    let Some(workspaces) = &recipe.workspaces else { return Vec::new() };
    let kinds = recipe.kinds.iter().enumerate();
    let done = kinds.map(|(at, kind)| workspaces.of(&batch.id, at, kind)?.as_ref().map_or(Ok(()), &what));
    done.filter_map(|done| done.err()).map(|error| format!("{error:#}")).collect()
}

/// The branch for a change that does not apply.
pub fn branch_name(batch: &str, number: usize) -> String {
    format!("readyroom/{batch}/{number}")
}

/// The journal at `path`, or the user's own.
///
/// # Errors
/// It can't be used.
pub fn open(path: Option<&Path>) -> Result<Store, JournalError> {
    match path {
        Some(path) => Store::open(path),
        None => Store::open(&Store::default_path()?),
    }
}

/// The batch that is meant: by its id, or the last one of the current directory.
///
/// # Errors
/// There is none.
pub fn find(store: &Store, batch: Option<&str>) -> anyhow::Result<Batch> {
    Ok(match batch {
        Some(id) => store.batch(id)?,
        None => store.last_in(&here()?)?,
    })
}

fn here() -> anyhow::Result<PathBuf> {
    std::env::current_dir().context("the current directory can't be found")
}

/// The first prompt's first line, shortened.
fn title(plan: &Plan) -> String {
    let tools: Vec<&str> = plan.pools.iter().map(|pool| pool.kind.tool.as_str()).collect();
    let first = plan.jobs.first().and_then(|planned| planned.job.prompts.first());
    let line: String = first.and_then(|prompt| prompt.lines().next()).unwrap_or_default().chars().take(60).collect();
    format!("{}: {line}", tools.join(", "))
}
