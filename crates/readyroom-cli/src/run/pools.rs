//! The pools of a run as clusters: opened, watched and shut down at the state machine's word. What happens is sent to
//! the run; nothing here waits.

use std::path::PathBuf;
use std::sync::Arc;

use readyroom::cluster::{Cluster, ClusterOptions, LaunchError, Response, Wait};
use readyroom::event::TurnId;
use readyroom::tool::{ContractOptions, Definition};
use readyroom::workspace::Worktrees;
use readyroom::{Event, Failure, FailureKind, Job};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedSender;

use crate::plan::Plan;
use crate::settings::Settings;

/// A pool's tool, found.
#[derive(Debug, Clone)]
pub struct Located {
    /// The definition in force.
    pub definition: Arc<Definition>,
    /// The program.
    pub program: PathBuf,
}

/// What happens in pools.
#[derive(Debug)]
pub enum PoolNews {
    /// The cluster is there; no instance needs to be ready yet.
    Launched(usize, Cluster),
    /// An instance is ready.
    Opened(usize),
    /// No instance became ready; nothing of the pool is left running.
    NotOpened(usize, Failure),
    /// Something happened.
    Event(usize, Event),
    /// A job ended.
    Response(usize, Box<Response>),
    /// The pool is shut down.
    Closed(usize),
}

/// What all jobs of a pool are launched with.
pub fn contract_options(plan: &Plan, pool: usize, settings: &Settings, home: Option<PathBuf>) -> ContractOptions {
    let schema = plan.schema(pool).cloned();
    let pool = &plan.pools[pool];
    ContractOptions {
        cwd: pool.kind.directory.clone(),
        permissions: pool.kind.permissions,
        model: pool.kind.model.clone(),
        args: settings.tool_args.clone(),
        home,
        schema,
        ..ContractOptions::default()
    }
}

/// How far a pool is.
#[derive(Debug)]
enum Slot {
    /// Not opened yet.
    Waiting,
    /// Its cluster is being made. `unwanted`: it is to be shut down as soon as it is there.
    Launching { home: Option<TempDir>, unwanted: bool },
    /// Its cluster is there. The HOME exists as long as its processes do.
    Open { cluster: Cluster, _home: Option<TempDir> },
    /// Nothing of it is left.
    Over,
}

impl Slot {
    fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Open { cluster, .. } => Some(cluster),
            _ => None,
        }
    }
}

/// All pools of the run.
pub struct Pools<N> {
    slots: Vec<Slot>,
    news: UnboundedSender<N>,
    wrap: fn(PoolNews) -> N,
}

impl<N: Send + 'static> Pools<N> {
    /// No pool is open yet. News go to `news`.
    pub fn new(count: usize, news: UnboundedSender<N>, wrap: fn(PoolNews) -> N) -> Self {
        Self { slots: (0..count).map(|_| Slot::Waiting).collect(), news, wrap }
    }

    fn teller(&self) -> impl Fn(PoolNews) + Send + Clone + 'static {
        let (news, wrap) = (self.news.clone(), self.wrap);
        move |what| {
            // The run is over when nobody listens.
            let _ = news.send(wrap(what));
        }
    }

    /// Opens a pool.
    pub fn open(
        &mut self,
        at: usize,
        plan: &Plan,
        located: &Located,
        settings: &Settings,
        worktrees: Option<Worktrees>,
        record: Option<PathBuf>,
    ) {
        let tell = self.teller();
        let home = match settings.isolated_home.then(|| tempfile::Builder::new().prefix("readyroom-home-").tempdir()) {
            Some(Ok(home)) => Some(home),
            Some(Err(error)) => {
                let why = format!("no temporary HOME can be made: {error}");
                tell(PoolNews::NotOpened(at, Failure::new(FailureKind::NotReady, why)));
                return;
            }
            None => None,
        };
        let options = ClusterOptions {
            count: plan.pools[at].instances,
            routing: settings.routing,
            context: settings.context,
            contract: contract_options(plan, at, settings, home.as_ref().map(|home| home.path().to_owned())),
            // Each job brings its own limit.
            timeout: None,
            wait: Wait::None,
            record,
            one_shot: settings.one_shot,
            stall: settings.stall,
            worktrees,
            ..ClusterOptions::default()
        };
        self.slots[at] = Slot::Launching { home, unwanted: false };
        let located = located.clone();
        tokio::spawn(async move {
            let cluster = match Cluster::launch(located.definition, &located.program, options).await {
                Ok(cluster) => cluster,
                Err(error) => return tell(PoolNews::NotOpened(at, failure(error))),
            };
            let mut events = cluster.events();
            let forward = tell.clone();
            tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    forward(PoolNews::Event(at, event));
                }
            });
            tell(PoolNews::Launched(at, cluster.clone()));
            match cluster.wait_ready(Wait::First).await {
                Ok(()) => tell(PoolNews::Opened(at)),
                Err(error) => {
                    cluster.shutdown().await;
                    tell(PoolNews::NotOpened(at, failure(error)));
                }
            }
        });
    }

    /// Keeps a cluster that was launched, or shuts it down where it is not wanted any more.
    pub fn launched(&mut self, at: usize, cluster: Cluster) {
        let (home, unwanted) = match std::mem::replace(&mut self.slots[at], Slot::Over) {
            Slot::Launching { home, unwanted } => (home, unwanted),
            _ => (None, true),
        };
        self.slots[at] = Slot::Open { cluster, _home: home };
        if unwanted {
            self.close(at);
        }
    }

    /// Hands a job to its pool, where it waits for its `gate`.
    ///
    /// # Errors
    /// Why the pool does not take it.
    pub fn submit(
        &self,
        at: usize,
        place: usize,
        job: Job,
        avoid: Option<usize>,
        gate: impl Future<Output = bool> + Send + 'static,
    ) -> Result<TurnId, Failure> {
        let Some(cluster) = self.slots[at].cluster() else {
            return Err(Failure::new(FailureKind::NotReady, "the pool is not open"));
        };
        let ticket = cluster
            .submit_after(job, avoid, gate)
            .map_err(|error| Failure::new(FailureKind::BadInput, error.to_string()))?;
        let (turn, tell) = (ticket.id(), self.teller());
        tokio::spawn(async move { tell(PoolNews::Response(place, Box::new(ticket.await))) });
        Ok(turn)
    }

    /// Cancels a turn.
    pub fn cancel(&self, at: usize, turn: TurnId) {
        if let Some(cluster) = self.slots[at].cluster() {
            cluster.cancel(turn);
        }
    }

    /// Shuts a pool down in order.
    pub fn close(&mut self, at: usize) {
        match &mut self.slots[at] {
            Slot::Launching { unwanted, .. } => *unwanted = true,
            Slot::Open { cluster, .. } => {
                let cluster = cluster.clone();
                let tell = self.teller();
                tokio::spawn(async move {
                    cluster.shutdown().await;
                    tell(PoolNews::Closed(at));
                });
            }
            Slot::Waiting | Slot::Over => self.teller()(PoolNews::Closed(at)),
        }
    }

    /// Lets go of what a pool held.
    pub fn closed(&mut self, at: usize) {
        self.slots[at] = Slot::Over;
    }

    /// Ends all processes now.
    pub fn kill(&self) {
        for cluster in self.slots.iter().filter_map(Slot::cluster) {
            cluster.kill();
        }
    }

    /// Waits until nothing runs any more.
    pub async fn ended(&self) {
        for cluster in self.slots.iter().filter_map(Slot::cluster) {
            cluster.shutdown().await;
        }
    }
}

/// The failure of every job of a pool that could not be opened.
fn failure(error: LaunchError) -> Failure {
    match error {
        LaunchError::Refused(failure) => failure,
        LaunchError::NotReady { ref tool, ref evidence, .. } => {
            let message = match evidence.first() {
                Some((_, first)) => format!("no instance of {tool} became ready: {}", first.message),
                None => error.to_string(),
            };
            let words: Vec<&str> = evidence
                .iter()
                .map(|(_, failure)| failure.evidence.as_str())
                .filter(|words| !words.is_empty())
                .collect();
            Failure::new(FailureKind::NotReady, message).with_stderr(words.first().copied().unwrap_or_default())
        }
        other => Failure::new(FailureKind::NotReady, other.to_string()),
    }
}
