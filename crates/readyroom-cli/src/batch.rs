//! A run as a batch in the journal: what is kept of it, what is written while it runs, and the run that a resume makes of
//! what is left.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use readyroom::batch::RetryPolicy;
use readyroom::journal::{
    Batch, Entry, JobState, JournalError, Lease, NewBatch, NewJob, Next, Store, Wishes, Writer, next,
};
use readyroom::{Context, Permissions, Routing};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::RunArgs;
use crate::plan::{Plan, Planned, PoolKind};
use crate::settings::Settings;

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
            kinds: plan.pools.iter().map(|pool| pool.kind.clone()).collect(),
        })
    }
}

/// The journal of a run that is under way.
#[derive(Debug)]
pub struct Journal {
    writer: Arc<Writer>,
    batch: String,
    /// Each job's place in the batch.
    places: Vec<usize>,
}

impl Journal {
    /// Writes a run down as a new batch.
    ///
    /// # Errors
    /// The journal can't be used.
    pub fn create(path: Option<&Path>, recipe: &Recipe, plan: &Plan) -> anyhow::Result<Self> {
        let mut store = open(path)?;
        let job = |planned: &Planned| -> anyhow::Result<NewJob> {
            let mut spec = planned.clone();
            // A resume may be typed elsewhere.
            spec.output = spec.output.map(std::path::absolute).transpose()?;
            Ok(NewJob { id: planned.key(), spec: serde_json::to_value(spec)? })
        };
        let batch = NewBatch {
            directory: here()?,
            title: title(plan),
            spec: serde_json::to_value(recipe)?,
            jobs: plan.jobs.iter().map(job).collect::<Result<_, _>>()?,
        };
        let id = store.create(&batch)?;
        let lease = Lease::take(store.path(), &id)?;
        let writer = Arc::new(Writer::start(store, lease)?);
        Ok(Self { writer, batch: id, places: (0..plan.jobs.len()).collect() })
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
    pub fn requeue(&self, job: usize, told: impl FnOnce(Result<(), Arc<JournalError>>) + Send + 'static) {
        self.writer.enter(Entry::Requeued { batch: self.batch.clone(), place: self.places[job] }, told);
    }

    /// Has a job's outcome written.
    pub fn end(
        &self,
        job: usize,
        state: JobState,
        outcome: Value,
        told: impl FnOnce(Result<(), Arc<JournalError>>) + Send + 'static,
    ) {
        self.writer.enter(Entry::Ended { batch: self.batch.clone(), place: self.places[job], state, outcome }, told);
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
    let mut store = open(path)?;
    let batch = find(&store, batch)?;
    let lease = Lease::take(store.path(), &batch.id)?;
    let recipe: Recipe = serde_json::from_value(batch.spec).with_context(|| format!("batch {}", batch.id))?;
    let (mut jobs, mut places, mut lost, mut entries) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for job in store.jobs(&batch.id)? {
        let planned: Planned =
            serde_json::from_value(job.spec).with_context(|| format!("job {} of batch {}", job.id, batch.id))?;
        let kind = recipe.kinds.get(planned.pool).with_context(|| format!("job {} has no pool", job.id))?;
        // What can change nothing does no harm when it is done twice.
        let safe = kind.permissions == Permissions::Read;
        match next(job.state, safe, wishes) {
            Next::Run => {
                places.push(job.place);
                jobs.push(planned);
            }
            Next::Lose => {
                entries.push(Entry::Lost { batch: batch.id.clone(), place: job.place });
                lost.push(job.id);
            }
            Next::Leave if job.state == JobState::Lost => lost.push(job.id),
            Next::Leave => {}
        }
    }
    store.enter(&entries)?;
    let plan = Plan::assemble(jobs, &recipe.kinds, instances.unwrap_or(recipe.instances));
    let writer = Arc::new(Writer::start(store, lease)?);
    Ok(Resumed { recipe, plan, journal: Journal { writer, batch: batch.id, places }, lost })
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
