//! The public handle on a pool: launch, submit, send, read, watch, restart, drain, shut down.
//!
//! [`Cluster`] is asynchronous; [`blocking`] is the same for threads, with the implicit turns of `send` and
//! `read_any`. The page is `docs/design/cluster.md`.

pub mod blocking;
mod caller;
mod events;
mod options;
mod ticket;
mod words;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

pub use crate::pool::{CallerId, InstanceState, InstanceStatus, Response, Status, TurnError};
pub use events::Events;
pub use options::{ClusterOptions, LaunchError, Wait};
pub use ticket::{Ticket, TurnBuilder};

use crate::driver::ContextCommand;
use crate::error::{Failure, FailureKind};
use crate::event::TurnId;
use crate::instance::{Places, SETUP_LIMIT};
use crate::job::Job;
use crate::pool::dispatcher::{Rules, Submission};
use crate::pool::{Gate, Input, PoolHandle, PoolSettings, Sink};
use crate::tool::{Contract, Definition, DriverKind, Registry};

/// How long a turn that is open waits for its prompt.
const HOLD: Duration = Duration::from_secs(60);

/// A cluster has as many turns queued or unread as it may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too many turns are queued or unread.
    #[error("{limit} turns are queued or unread already; read some, or raise max_pending")]
    QueueFull {
        /// The limit.
        limit: usize,
    },
    /// The request can't be carried out as it stands.
    #[error("{0}")]
    Refused(Failure),
}

impl From<Failure> for SubmitError {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

/// How the instances are doing, in a few numbers. `alive + dead == total`, always: what starts counts as alive.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    /// Instances that are not quarantined.
    pub alive: usize,
    /// All instances.
    pub total: usize,
    /// Quarantined instances.
    pub dead: usize,
    /// Each instance.
    pub instances: Vec<InstanceStatus>,
}

/// What calls a cluster had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Metrics {
    /// Calls of `send`, and jobs submitted.
    pub total_sent: u64,
    /// Responses handed out.
    pub total_received: u64,
}

/// What a shutdown left undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Turns that were queued or running and have been cancelled.
    pub dropped: usize,
}

/// A pool of warm instances of one tool.
///
/// Clones share the pool. When the last clone is dropped, all its processes are ended at once; [`Cluster::shutdown`]
/// ends them in order.
///
/// ```no_run
/// use readyroom::{ClusterOptions, Job, launch_cluster};
///
/// #[tokio::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     readyroom::init();
///     let cluster = launch_cluster("aider", ClusterOptions::default()).await?;
///     let response = cluster.submit(Job::new("Add type hints").with_file("src/a.py"))?.await;
///     println!("{}", response.text()?);
///     cluster.shutdown().await;
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: PoolHandle,
    contract: Arc<Contract>,
    options: ClusterOptions,
    next_turn: AtomicU64,
    sent: AtomicU64,
    tickets_done: Arc<AtomicU64>,
    callers: caller::Callers,
}

/// Launches a cluster of the tool that the registry knows under this name around the options' directory.
///
/// # Errors
/// As [`Cluster::launch`]; `Refused` with `BadInput` for a name that is not known and `ToolMissing` for a tool that is
/// not installed, with the way to install it.
pub async fn launch_cluster(tool: &str, options: ClusterOptions) -> Result<Cluster, LaunchError> {
    let directory = if options.contract.cwd.as_os_str().is_empty() { Path::new(".") } else { &options.contract.cwd };
    let registry = Registry::around(directory).map_err(Failure::from)?;
    let entry = registry.require(tool)?;
    let found = crate::tool::find(&entry.definition)?;
    Cluster::launch(found.apply(&entry.definition), &found.program, options).await
}

impl Cluster {
    /// Launches instances of a tool whose program was found. Returns when as many are ready as `options.wait` asks.
    ///
    /// # Errors
    /// `Refused` where the options can't be; `NotReady` with each instance's evidence where none became ready within
    /// `ready_timeout`, or all failed before. Nothing is left running then.
    pub async fn launch(
        definition: Arc<Definition>,
        program: &Path,
        mut options: ClusterOptions,
    ) -> Result<Self, LaunchError> {
        options.check()?;
        // A command has a process for each turn, whatever was asked for.
        options.one_shot |= definition.driver == DriverKind::Oneshot;
        let contract = Arc::new(Contract::resolve(definition, program, &options.contract)?);
        let places = match &options.worktrees {
            Some(worktrees) => Some(Arc::new(Places {
                within: worktrees
                    .repository()
                    .within(&contract.cwd)
                    .map_err(|error| Failure::new(FailureKind::BadInput, error.to_string()))?,
                worktrees: worktrees.clone(),
                options: options.contract.clone(),
            })),
            None => None,
        };
        let pool = crate::pool::start(PoolSettings {
            contract: Arc::clone(&contract),
            rules: Rules {
                tool: contract.definition.id.clone(),
                count: options.count,
                routing: options.routing,
                starts_at_once: options.starts_at_once(),
                on_demand: options.one_shot,
                hold: HOLD,
                blind: contract.definition.is_blind(),
            },
            context: options.context,
            one_shot: options.one_shot,
            record: options.record.clone(),
            stall: options.stall,
            places,
        });
        let cluster = Self {
            inner: Arc::new(Inner {
                pool,
                contract,
                options,
                next_turn: AtomicU64::new(1),
                sent: AtomicU64::new(0),
                tickets_done: Arc::new(AtomicU64::new(0)),
                callers: caller::Callers::default(),
            }),
        };
        match cluster.wait_ready(cluster.inner.options.wait).await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.shutdown().await;
                Err(error)
            }
        }
    }

    /// Waits until as many instances are ready as `wait` asks, for those who launched with [`Wait::None`] to see the
    /// events of the start. An on-demand pool (`one_shot`) starts nothing by itself, so there is nothing to wait for.
    ///
    /// # Errors
    /// `NotReady` as from [`Cluster::launch`]; the instances are left as they are.
    pub async fn wait_ready(&self, wait: Wait) -> Result<(), LaunchError> {
        let options = &self.inner.options;
        let all = match wait {
            _ if options.one_shot => return Ok(()),
            Wait::None => return Ok(()),
            Wait::First => false,
            Wait::All => true,
        };
        let mut readiness = self.inner.pool.readiness.clone();
        let enough =
            readiness.wait_for(|now| if all { now.settled >= options.count } else { now.ready >= 1 || now.hopeless });
        let sets_up = options.worktrees.as_ref().is_some_and(|worktrees| worktrees.setup().is_some());
        let after = options.ready_timeout + if sets_up { SETUP_LIMIT } else { Duration::ZERO };
        let reached = match tokio::time::timeout(after, enough).await {
            Ok(Ok(now)) => now.ready >= 1,
            Ok(Err(_)) => false,
            Err(_) => self.inner.pool.readiness.borrow().ready >= 1,
        };
        if reached {
            return Ok(());
        }
        let evidence = self.inner.pool.readiness.borrow().evidence.clone();
        Err(LaunchError::NotReady { tool: self.tool().to_owned(), after, evidence })
    }

    /// Whether both are handles on one pool.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The tool's name.
    pub fn tool(&self) -> &str {
        &self.inner.contract.definition.id
    }

    /// What the instances have in common.
    pub fn contract(&self) -> &Contract {
        &self.inner.contract
    }

    /// Submits a job. Its response goes to the ticket and to nobody else.
    ///
    /// ```
    /// # readyroom::example::run_async(async |cluster| {
    /// let ticket = cluster.submit("print(6 * 7)")?;
    /// println!("turn {} is on its way", ticket.id());
    /// assert_eq!(ticket.await.text()?, "42\n");
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `QueueFull` above `max_pending`; `Refused` for a job without a prompt.
    pub fn submit(&self, job: impl Into<Job>) -> Result<Ticket, SubmitError> {
        self.submit_job(job.into(), None, None)
    }

    /// Submits a job that waits on its instance for a word before anything of it is sent: to write down that it is
    /// going to run, for instance. `word` is polled when the instance is there; where it says `false` the job does not run,
    /// and its response says that it was cancelled. It does not go to the instance `avoid` (where it crashed, say) while
    /// another lives, except by a sticky route.
    ///
    /// ```
    /// # readyroom::example::run_async(async |cluster| {
    /// let refused = cluster.submit_after("print('never')", None, async { false })?;
    /// assert_eq!(refused.await.outcome, readyroom::Outcome::Cancelled);
    /// assert!(cluster.submit_after("print('runs')", None, async { true })?.await.ok());
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Cluster::submit`].
    pub fn submit_after(
        &self,
        job: impl Into<Job>,
        avoid: Option<usize>,
        word: impl Future<Output = bool> + Send + 'static,
    ) -> Result<Ticket, SubmitError> {
        self.submit_job(job.into(), avoid, Some(Gate::new(word)))
    }

    /// A turn that is put together step by step; in async code there are no implicit ones.
    ///
    /// ```
    /// # readyroom::example::run_async(async |cluster| {
    /// let ticket = cluster.turn().on(1).prompt("print('on the second instance')")?;
    /// assert_eq!(ticket.await.instance, Some(1));
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn turn(&self) -> TurnBuilder {
        TurnBuilder::new(self.clone())
    }

    fn submit_job(&self, mut job: Job, avoid: Option<usize>, gate: Option<Gate>) -> Result<Ticket, SubmitError> {
        let files = std::mem::take(&mut job.files);
        let commands = files.into_iter().map(ContextCommand::Add).collect();
        self.submit_turn(commands, job, None, avoid, gate)
    }

    /// Submits a turn of these commands and a job's prompts.
    fn submit_turn(
        &self,
        commands: Vec<ContextCommand>,
        mut job: Job,
        address: Option<usize>,
        avoid: Option<usize>,
        gate: Option<Gate>,
    ) -> Result<Ticket, SubmitError> {
        match (job.prompts.last_mut(), &job.checks.schema) {
            (None, _) => return Err(Failure::new(FailureKind::BadInput, "the job has no prompt").into()),
            (Some(last), Some(schema)) => last.push_str(&schema.request()),
            (Some(_), None) => {}
        }
        self.check_address(address)?;
        self.reserve()?;
        let turn = self.next_turn();
        let (reply, response) = oneshot::channel();
        let Job { prompts, mode, key, timeout, checks, budget, .. } = job;
        let timeout = timeout.or(self.inner.options.timeout);
        let checks = Arc::new(checks);
        let submission =
            Submission { turn, commands, told: 0, prompts, mode, timeout, checks, budget, key, address, avoid };
        self.inner.sent.fetch_add(1, Ordering::Relaxed);
        self.inner.pool.input(Input::Submit { submission, sink: Sink::Ticket(reply), planned: None, gate });
        Ok(Ticket::new(turn, response, self.inner.pool.downgrade(), Arc::clone(&self.inner.tickets_done)))
    }

    fn next_turn(&self) -> TurnId {
        TurnId(self.inner.next_turn.fetch_add(1, Ordering::Relaxed))
    }

    /// Counts a turn as pending, if one more may be.
    fn reserve(&self) -> Result<(), SubmitError> {
        let limit = self.inner.options.max_pending;
        let pending: &AtomicUsize = &self.inner.pool.pending;
        pending
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < limit).then_some(now + 1))
            .map(drop)
            .map_err(|_| SubmitError::QueueFull { limit })
    }

    fn check_address(&self, address: Option<usize>) -> Result<(), SubmitError> {
        match address {
            Some(at) if at >= self.inner.options.count => Err(Failure::new(
                FailureKind::BadInput,
                format!("there is no instance {at}; the last is {}", self.inner.options.count - 1),
            )
            .into()),
            _ => Ok(()),
        }
    }

    /// The events from now on. A listener that falls behind by thousands loses the oldest.
    ///
    /// ```
    /// # readyroom::example::run_async(async |cluster| {
    /// let mut events = cluster.events();
    /// let ticket = cluster.submit("print(1)")?;
    /// while let Some(event) = events.recv().await {
    ///     if matches!(event, readyroom::Event::TurnEnded { turn, .. } if turn == ticket.id()) {
    ///         break;
    ///     }
    /// }
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn events(&self) -> Events {
        Events { receiver: self.inner.pool.events.upgrade().map(|events| events.subscribe()) }
    }

    /// Cancels a turn, queued or running. Its response says so. Nothing happens when it has ended.
    ///
    /// ```
    /// # readyroom::example::run_async(async |cluster| {
    /// let ticket = cluster.submit("import time; time.sleep(600)")?;
    /// cluster.cancel(ticket.id());
    /// assert_eq!(ticket.await.outcome, readyroom::Outcome::Cancelled);
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self, turn: TurnId) {
        self.inner.pool.input(Input::Cancel(turn));
    }

    /// Cancels all turns, queued or running.
    pub fn cancel_all(&self) {
        self.inner.pool.input(Input::CancelAll);
    }

    /// The status of the pool and each instance.
    ///
    /// ```
    /// # readyroom::example::run_async(async |cluster| {
    /// let status = cluster.status().await;
    /// assert_eq!(status.alive + status.dead, status.instances.len());
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub async fn status(&self) -> Status {
        let (reply, status) = oneshot::channel();
        self.inner.pool.input(Input::Status(reply));
        status.await.unwrap_or_else(|_| Status {
            tool: self.tool().to_owned(),
            instances: Vec::new(),
            alive: 0,
            dead: 0,
            queued: 0,
            running: 0,
            succeeded: 0,
            unsuccessful: 0,
        })
    }

    /// How the instances are doing.
    ///
    /// ```
    /// # readyroom::example::run_async(async |cluster| {
    /// let health = cluster.check_health().await;
    /// println!("{}/{} alive", health.alive, health.total);
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub async fn check_health(&self) -> Health {
        let status = self.status().await;
        Health { alive: status.alive, total: status.instances.len(), dead: status.dead, instances: status.instances }
    }

    /// Turns that are queued, run, or wait to be read.
    pub fn pending(&self) -> usize {
        self.inner.pool.pending.load(Ordering::Relaxed)
    }

    /// How many calls the cluster had.
    ///
    /// ```
    /// # readyroom::example::run_async(async |cluster| {
    /// cluster.submit("print(1)")?.await;
    /// assert_eq!((cluster.metrics().total_sent, cluster.metrics().total_received), (1, 1));
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn metrics(&self) -> Metrics {
        Metrics {
            total_sent: self.inner.sent.load(Ordering::Relaxed),
            total_received: self.inner.pool.mailbox.handed_out() + self.inner.tickets_done.load(Ordering::Relaxed),
        }
    }

    /// Ends an instance's process and starts it again, when a turn that runs is over, or at once with `force` (the turn
    /// is then cancelled). Lifts a quarantine. Returns when the instance is ready.
    ///
    /// ```
    /// # readyroom::example::run_async(async |cluster| {
    /// cluster.restart_instance(0, false).await?;
    /// assert!(cluster.status().await.instances[0].generation >= 2);
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `BadInput` for an index that does not exist; else why the instance did not become ready.
    pub async fn restart_instance(&self, index: usize, force: bool) -> Result<(), Failure> {
        if let Err(SubmitError::Refused(failure)) = self.check_address(Some(index)) {
            return Err(failure);
        }
        let (reply, ready) = oneshot::channel();
        self.inner.pool.input(Input::Restart { instance: index, force, reply });
        ready.await.unwrap_or_else(|_| Err(Failure::new(FailureKind::NotReady, "the cluster is shut down")))
    }

    /// Waits until no turn is queued or runs. Open turns without a prompt are closed.
    ///
    /// ```
    /// # readyroom::example::run_async(async |cluster| {
    /// let ticket = cluster.submit("print(1)")?;
    /// cluster.drain().await;
    /// assert!(ticket.await.ok());
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub async fn drain(&self) {
        let (reply, drained) = oneshot::channel();
        self.inner.pool.input(Input::Drain(reply));
        let _ = drained.await;
    }

    /// Takes nothing new, cancels what is unfinished, and ends all processes in order. May be called again.
    ///
    /// ```
    /// # readyroom::example::run_async(async |cluster| {
    /// assert_eq!(cluster.shutdown().await.dropped, 0);
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub async fn shutdown(&self) -> ShutdownReport {
        let (reply, down) = oneshot::channel();
        self.inner.pool.input(Input::Shutdown(reply));
        ShutdownReport { dropped: down.await.unwrap_or(0) }
    }

    /// Ends all processes at once. Turns that run end as cancelled.
    pub fn kill(&self) {
        self.inner.pool.input(Input::Kill);
    }
}
