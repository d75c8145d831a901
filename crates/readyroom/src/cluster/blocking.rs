//! The cluster for threads: every call blocks its thread, and a thread is a caller with a turn of its own.
//!
//! ```no_run
//! use std::time::Duration;
//! use readyroom::ClusterOptions;
//! use readyroom::cluster::blocking;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     readyroom::init();
//!     let cluster = blocking::launch_cluster("aider", ClusterOptions::default())?;
//!     cluster.send("/add my_file.py")?;
//!     cluster.send("/ask 'Add type hints'")?;
//!     if let Some(response) = cluster.read_any(Duration::from_secs(30)) {
//!         println!("{}", response.text()?);
//!     }
//!     cluster.shutdown();
//!     Ok(())
//! }
//! ```
//!
//! The calls must not be made from within an async runtime; use [`super::Cluster`] there.

use std::cell::RefCell;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::{
    CallerId, ClusterOptions, Events, Health, LaunchError, Metrics, Response, ShutdownReport, Status, SubmitError,
};
use crate::error::Failure;
use crate::event::TurnId;
use crate::job::Job;
use crate::tool::Definition;

/// The one runtime of all blocking clusters.
fn runtime() -> std::io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let fresh =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("readyroom").enable_all().build()?;
    Ok(RUNTIME.get_or_init(|| fresh))
}

static NEXT_CALLER: AtomicU64 = AtomicU64::new(1);

/// A new caller, for those who tell callers apart by something else than threads.
pub fn new_caller() -> CallerId {
    CallerId(NEXT_CALLER.fetch_add(1, Ordering::Relaxed))
}

/// This thread as a caller. When the thread ends, the turns that it left open are closed.
struct ThreadCaller {
    id: CallerId,
    clusters: RefCell<Vec<Weak<super::Inner>>>,
}

impl Drop for ThreadCaller {
    fn drop(&mut self) {
        for inner in self.clusters.get_mut().drain(..).filter_map(|inner| inner.upgrade()) {
            super::Cluster { inner }.forget_caller(self.id);
        }
    }
}

thread_local! {
    static CALLER: ThreadCaller = ThreadCaller { id: new_caller(), clusters: RefCell::new(Vec::new()) };
}

/// A cluster whose calls block. Clones share the pool.
#[derive(Debug, Clone)]
pub struct Cluster {
    cluster: super::Cluster,
    runtime: &'static Runtime,
}

/// Launches a cluster of the tool that the registry knows under this name.
///
/// # Errors
/// As [`super::launch_cluster`].
pub fn launch_cluster(tool: &str, options: ClusterOptions) -> Result<Cluster, LaunchError> {
    block_on_new(super::launch_cluster(tool, options))
}

fn block_on_new(launch: impl Future<Output = Result<super::Cluster, LaunchError>>) -> Result<Cluster, LaunchError> {
    let runtime = runtime().map_err(|error| {
        Failure::new(crate::error::FailureKind::NotReady, format!("the runtime can't be started: {error}"))
    })?;
    let cluster = runtime.block_on(launch)?;
    Ok(Cluster { cluster, runtime })
}

impl Cluster {
    /// Launches instances of a tool whose program was found.
    ///
    /// # Errors
    /// As [`super::Cluster::launch`].
    pub fn launch(definition: Arc<Definition>, program: &Path, options: ClusterOptions) -> Result<Self, LaunchError> {
        block_on_new(super::Cluster::launch(definition, program, options))
    }

    /// The asynchronous handle on the same pool.
    pub fn as_async(&self) -> &super::Cluster {
        &self.cluster
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn caller(&self) -> CallerId {
        CALLER.with(|caller| caller.id)
    }

    /// Remembers that this thread may have a turn open here.
    fn remember(&self) {
        CALLER.with(|caller| {
            let mut clusters = caller.clusters.borrow_mut();
            clusters.retain(|known| known.strong_count() > 0);
            if !clusters.iter().any(|known| known.as_ptr() == Arc::as_ptr(&self.cluster.inner)) {
                clusters.push(Arc::downgrade(&self.cluster.inner));
            }
        });
    }

    /// Sends a text: a context command opens this thread's turn or joins it, anything else is the prompt that closes
    /// it. Returns the instance's index. Never waits for answers.
    ///
    /// ```
    /// # readyroom::example::run(|cluster| {
    /// cluster.send("print('hello')")?;
    /// let timeout = std::time::Duration::from_secs(30);
    /// let response = cluster.read_any(timeout).ok_or("no answer in time")?;
    /// assert_eq!(response.text()?, "hello\n");
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`super::Cluster::send_as`].
    pub fn send(&self, text: &str) -> Result<usize, SubmitError> {
        self.remember();
        self.block_on(self.cluster.send_as(self.caller(), text, None, None))
    }

    /// As `send`, routed by a sticky key.
    ///
    /// ```
    /// # readyroom::example::run(|cluster| {
    /// let first = cluster.send_keyed("session 7", "x = 1")?;
    /// println!("instance {first}");
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Cluster::send`].
    pub fn send_keyed(&self, key: &str, text: &str) -> Result<usize, SubmitError> {
        self.remember();
        self.block_on(self.cluster.send_as(self.caller(), text, None, Some(key.to_owned())))
    }

    /// As `send`, to one instance.
    ///
    /// ```
    /// # readyroom::example::run(|cluster| {
    /// assert_eq!(cluster.send_to(1, "print('here')")?, 1);
    /// let timeout = std::time::Duration::from_secs(30);
    /// assert_eq!(cluster.read(1, timeout).ok_or("no answer in time")?.instance, Some(1));
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Cluster::send`]; `Refused` for an index that does not exist.
    pub fn send_to(&self, instance: usize, text: &str) -> Result<usize, SubmitError> {
        self.remember();
        self.block_on(self.cluster.send_as(self.caller(), text, Some(instance), None))
    }

    /// The next finished turn, as soon as there is one: this thread's own while it is owed any, else anybody's. None
    /// when the time is over.
    ///
    /// ```
    /// # readyroom::example::run(|cluster| {
    /// for n in 0..4 {
    ///     cluster.send(&format!("print({n})"))?;
    /// }
    /// let timeout = std::time::Duration::from_secs(30);
    /// for _ in 0..4 {
    ///     println!("{}", cluster.read_any(timeout).ok_or("no answer in time")?.text()?);
    /// }
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_any(&self, timeout: Duration) -> Option<Response> {
        self.block_on(self.cluster.read_as(self.caller(), None, timeout))
    }

    /// The next finished turn that this instance ran.
    ///
    /// ```
    /// # readyroom::example::run(|cluster| {
    /// let at = cluster.send("print(1)")?;
    /// let timeout = std::time::Duration::from_secs(30);
    /// assert!(cluster.read(at, timeout).is_some_and(|response| response.ok()));
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(&self, instance: usize, timeout: Duration) -> Option<Response> {
        self.block_on(self.cluster.read_as(self.caller(), Some(instance), timeout))
    }

    /// Submits a job; its response goes to the ticket only.
    ///
    /// ```
    /// # readyroom::example::run(|cluster| {
    /// assert_eq!(cluster.submit("print(6 * 7)")?.wait().text()?, "42\n");
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`super::Cluster::submit`].
    pub fn submit(&self, job: impl Into<Job>) -> Result<Ticket, SubmitError> {
        Ok(Ticket { ticket: self.cluster.submit(job)?, runtime: self.runtime })
    }

    /// The events from now on.
    pub fn events(&self) -> BlockingEvents {
        BlockingEvents { events: self.cluster.events(), runtime: self.runtime }
    }

    /// Cancels a turn.
    pub fn cancel(&self, turn: TurnId) {
        self.cluster.cancel(turn);
    }

    /// How the instances are doing.
    ///
    /// ```
    /// # readyroom::example::run(|cluster| {
    /// let health = cluster.check_health();
    /// assert_eq!(health.alive + health.dead, health.total);
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn check_health(&self) -> Health {
        self.block_on(self.cluster.check_health())
    }

    /// The status of the pool and each instance.
    ///
    /// ```
    /// # readyroom::example::run(|cluster| {
    /// assert_eq!(cluster.get_status().tool, "python3");
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_status(&self) -> Status {
        self.block_on(self.cluster.status())
    }

    /// How many calls the cluster had.
    pub fn metrics(&self) -> Metrics {
        self.cluster.metrics()
    }

    /// Restarts an instance; see [`super::Cluster::restart_instance`].
    ///
    /// # Errors
    /// As there.
    pub fn restart_instance(&self, index: usize, force: bool) -> Result<(), Failure> {
        self.block_on(self.cluster.restart_instance(index, force))
    }

    /// Waits until no turn is queued or runs.
    pub fn drain(&self) {
        self.block_on(self.cluster.drain());
    }

    /// Cancels what is unfinished and ends all processes in order.
    ///
    /// ```
    /// # readyroom::example::run(|cluster| {
    /// let report = cluster.shutdown();
    /// println!("{} turns were dropped", report.dropped);
    /// # Ok(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown(&self) -> ShutdownReport {
        self.block_on(self.cluster.shutdown())
    }
}

/// A submitted job.
#[derive(Debug)]
pub struct Ticket {
    ticket: super::Ticket,
    runtime: &'static Runtime,
}

impl Ticket {
    /// The turn's id.
    pub fn id(&self) -> TurnId {
        self.ticket.id()
    }

    /// Cancels the job.
    pub fn cancel(&self) {
        self.ticket.cancel();
    }

    /// Waits for the response.
    pub fn wait(self) -> Response {
        self.runtime.block_on(self.ticket)
    }

    /// Waits for the response so long at most; gives the ticket back where it has not come.
    ///
    /// # Errors
    /// The ticket, when the time is over.
    pub fn wait_for(mut self, timeout: Duration) -> Result<Response, Self> {
        let waited = self.runtime.block_on(async { tokio::time::timeout(timeout, &mut self.ticket).await });
        waited.map_err(|_| self)
    }
}

/// The events of a cluster, for a thread.
#[derive(Debug)]
pub struct BlockingEvents {
    events: Events,
    runtime: &'static Runtime,
}

impl Iterator for BlockingEvents {
    type Item = crate::event::Event;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.events.recv())
    }
}
