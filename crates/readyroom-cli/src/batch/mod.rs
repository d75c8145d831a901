//! A run as a batch in the journal: what is kept of it, what is written while it runs, the run that a resume makes of
//! what is left, and the changes that are applied from it.

mod changes;
mod resume;
mod untold;

pub use changes::{apply, apply_rest, branch_name, clear, put_away};
pub use resume::{Resumed, repeat, resume};
pub use untold::{Telling, Untold, tell_rest};

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use readyroom::batch::RetryPolicy;
use readyroom::journal::{
    Batch, ChangeState, Entry, Job, JobState, JournalError, Lease, NewBatch, NewJob, Next, Recorded, Store, Wishes,
    Writer, next,
};
use readyroom::workspace::{Repository, Worktrees};
use readyroom::{Budget, Context, FailureKind, Outcome, Routing, Spent};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::args::values::Limit;
use crate::args::{ApplyArg, RunArgs};
use crate::plan::{Plan, Planned, PoolKind};
use crate::report::log::path_beside;
use crate::report::{Ended, JobChange, text};
use crate::say;
use crate::settings::{STALL, Settings};
use crate::workspace::{Brought, Workspaces, bring};

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
    /// How long a usage window is waited for.
    #[serde(default = "default_window")]
    pub longest_window: Duration,
    /// How long nothing may move in a turn.
    #[serde(default = "default_stall")]
    pub stall: Limit,
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

/// The same.
fn default_window() -> Duration {
    RetryPolicy::default().longest_window
}

/// The same.
fn default_stall() -> Limit {
    STALL
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
            longest_window: settings.retry.longest_window,
            stall: settings.stall.map_or(Limit::None, Limit::After),
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
    /// What a resume that goes on with the run has to ask for.
    wishes: Wishes,
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
        let (id, lease) = match id {
            Some(id) => (id.to_owned(), Lease::take(store.path(), id)?),
            None => unused(&store).context(ADVICE)?,
        };
        // All of it stands in the journal, or nothing.
        recipe.workspaces = workspaces(&id)?;
        let batch = NewBatch {
            id: Some(id),
            directory: here()?,
            title: title(plan),
            spec: serde_json::to_value(&*recipe)?,
            jobs: plan.jobs.iter().map(|planned| new_job(&kept(planned)?)).collect::<Result<_, _>>()?,
        };
        let id = store.create(&batch).context(ADVICE)?;
        let path = store.path().to_owned();
        let writer = Arc::new(Writer::start(store, lease)?);
        Ok(Self {
            writer,
            path,
            batch: id,
            places: (0..plan.jobs.len()).collect(),
            before: Before::default(),
            wishes: Wishes::default(),
        })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All files and directories that belong to it.
    pub fn files(&self) -> Vec<PathBuf> {
        let beside = ["", "-wal", "-shm", ".locks"].map(|end| {
            let mut name = self.path.clone().into_os_string();
            name.push(end);
            PathBuf::from(name)
        });
        let log = path_beside(&self.path);
        let old = log.with_added_extension("old");
        beside.into_iter().chain([log, old]).collect()
    }

    /// What was spent before.
    pub fn before(&self) -> &Before {
        &self.before
    }

    /// The batch's id.
    pub fn batch(&self) -> &str {
        &self.batch
    }

    /// The command that goes on with the run.
    pub fn resume(&self) -> String {
        let wish = |wanted, word| if wanted { word } else { "" };
        let Wishes { failed, lost } = self.wishes;
        format!("readyroom resume {}{}{}", self.batch, wish(failed, " --failed"), wish(lost, " --lost"))
    }

    /// A job's gate: writes down that it is going to be sent, and opens when that stands. What can't be written goes to
    /// `failed`, and the gate stays closed. `safe`: it may run a second time.
    pub fn gate<F: FnOnce(Arc<JournalError>) + Send + 'static>(
        &self,
        job: usize,
        safe: bool,
        failed: F,
    ) -> impl Future<Output = bool> + Send + use<F> {
        let entry = Entry::Begun { batch: self.batch.clone(), place: self.places[job], safe };
        let writer = Arc::clone(&self.writer);
        async move {
            let (told, written) = tokio::sync::oneshot::channel();
            writer.enter(entry, move |result| drop(told.send(result)));
            match written.await {
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

    /// Has it written that a job's result is where it was to go. What can't be written is told once more by a resume.
    pub fn told(&self, job: usize) {
        self.told_at(self.places[job]);
    }

    /// The same for a job of the batch, by its place there.
    pub fn told_at(&self, place: usize) {
        self.writer.enter(Entry::Told { batch: self.batch.clone(), place }, drop);
    }

    /// Has written what became of a job's change, and the outcome as it is with that.
    pub fn changed(
        &self,
        ended: &Ended,
        change: &JobChange,
        outcome: Value,
        told: impl FnOnce(Result<(), Arc<JournalError>>) + Send + 'static,
    ) {
        let entry = Entry::Changed {
            batch: self.batch.clone(),
            place: self.places[ended.job],
            state: change.state,
            branch: change.branch.clone(),
            job: Some((state_of(&ended.outcome), outcome)),
        };
        self.writer.enter(entry, told);
    }
}

/// An id that no batch has and nobody else is about to take.
fn unused(store: &Store) -> Result<(String, Lease), JournalError> {
    let mut more = 0;
    loop {
        let id = store.unused_id(more)?;
        match Lease::take(store.path(), &id) {
            Err(JournalError::Held { .. }) => more += 1,
            taken => return Ok((id, taken?)),
        }
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

/// A job as it is kept: a resume may be typed elsewhere.
fn kept(planned: &Planned) -> anyhow::Result<Planned> {
    let mut kept = planned.clone();
    kept.output = kept.output.map(std::path::absolute).transpose()?;
    Ok(kept)
}

/// A job for the journal.
fn new_job(kept: &Planned) -> anyhow::Result<NewJob> {
    Ok(NewJob { id: kept.key(), spec: serde_json::to_value(kept)? })
}

/// What a job of the journal is.
fn planned_job(job: &Job, batch: &str) -> anyhow::Result<Planned> {
    serde_json::from_value(job.spec.clone()).with_context(|| format!("job {} of batch {batch}", job.id))
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

/// The journal at `path`, which has to be there, or the user's own: for those who look at batches.
///
/// # Errors
/// It is not there, or can't be used.
pub fn open_known(path: Option<&Path>) -> anyhow::Result<Store> {
    if let Some(path) = path.filter(|path| !path.exists()) {
        bail!("there is no journal {}; --journal names the one that the batch was started with", path.display());
    }
    Ok(open(path)?)
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
