//! What a caller chooses about a cluster, and why a launch fails.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Failure, FailureKind};
use crate::job::{Context, Permissions};
use crate::pool::router::Routing;
use crate::tool::ContractOptions;
use crate::workspace::Worktrees;

/// The most instances that a cluster may have.
pub const MOST_INSTANCES: usize = 1024;

/// How many instances a launch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// The first that is ready.
    #[default]
    First,
    /// All of them (those that are ready when `ready_timeout` is over must do).
    All,
    /// None.
    None,
}

/// What a caller chooses about a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterOptions {
    /// How many instances; 3. At most 1024.
    pub count: usize,
    /// How turns are routed; round robin.
    pub routing: Routing,
    /// Whether each turn starts in a context that is proven new; it does.
    pub context: Context,
    /// What the instances have in common: directory, permissions, model, environment.
    pub contract: ContractOptions,
    /// The longest time that a turn may run, where the job does not say; 10 minutes. None: no limit.
    pub timeout: Option<Duration>,
    /// A turn is given up when neither its protocol nor its processes have moved for so long; none: never, which is the default. Of
    /// a process that instances share only the protocol counts.
    pub stall: Option<Duration>,
    /// How many instances the launch waits for; the first.
    pub wait: Wait,
    /// How long it waits; 60 s, and as much longer as the setup of a worktree may take.
    pub ready_timeout: Duration,
    /// The most turns that may be queued or unread; 10,000.
    pub max_pending: usize,
    /// A directory for records of every byte to and from each instance. It must exist.
    pub record: Option<PathBuf>,
    /// A process for each turn: same drivers, same outcomes, nothing warm.
    pub one_shot: bool,
    /// A worktree for each instance, where it works instead of in `contract.cwd`, which has to be in the repository. Each job
    /// starts from the same files, and its response holds what it changed. Needs `fresh`. They stay after a shutdown, until
    /// [`Worktrees::remove`]. None: all work in `contract.cwd`.
    pub worktrees: Option<Worktrees>,
    /// How many instances may be starting at a time; as many as the machine has cores, at least 2.
    pub starts_at_once: Option<usize>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            count: 3,
            routing: Routing::RoundRobin,
            context: Context::Fresh,
            contract: ContractOptions::default(),
            timeout: Some(Duration::from_secs(600)),
            stall: None,
            wait: Wait::First,
            ready_timeout: Duration::from_secs(60),
            max_pending: 10_000,
            record: None,
            one_shot: false,
            worktrees: None,
            starts_at_once: None,
        }
    }
}

impl ClusterOptions {
    /// Sets the number of instances.
    #[must_use]
    pub fn count(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    /// Sets the routing.
    #[must_use]
    pub fn routing(mut self, routing: Routing) -> Self {
        self.routing = routing;
        self
    }

    /// Sets whether turns start in a new context.
    #[must_use]
    pub fn context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// Sets what the tool may do.
    #[must_use]
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.contract.permissions = permissions;
        self
    }

    /// Sets where the tool works.
    #[must_use]
    pub fn cwd(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.contract.cwd = cwd.into();
        self
    }

    /// Sets the longest time of a turn.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets how many instances the launch waits for.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    pub(super) fn starts_at_once(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        self.starts_at_once.unwrap_or(cores.max(2)).max(1)
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.count == 0 || self.count > MOST_INSTANCES {
            return Err(Failure::new(
                FailureKind::BadInput,
                format!("{} instances: choose 1 to {MOST_INSTANCES}", self.count),
            ));
        }
        if self.worktrees.is_some() && self.context == Context::Keep {
            let why = "a context that is kept would speak of files that are brought back before each job; \
                       choose `fresh`, or work in the directory itself";
            return Err(Failure::new(FailureKind::BadInput, why));
        }
        match &self.record {
            Some(directory) if !directory.is_dir() => Err(Failure::new(
                FailureKind::BadInput,
                format!("the directory for records, {}, does not exist", directory.display()),
            )),
            _ => Ok(()),
        }
    }
}

/// Why a cluster could not be launched. Nothing is left running.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The options, or the tool as it is installed, do not allow it.
    #[error("{0}")]
    Refused(Failure),
    /// No instance became ready.
    #[error("no instance of {tool} became ready{}", tell(.evidence, *.after))]
    NotReady {
        /// The tool's name.
        tool: String,
        /// How long the launch waited at most.
        after: Duration,
        /// Each instance's last failure.
        evidence: Vec<(usize, Failure)>,
    },
}

impl From<Failure> for LaunchError {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

fn tell(evidence: &[(usize, Failure)], after: Duration) -> String {
    if evidence.is_empty() {
        return format!(" within {} s", after.as_secs());
    }
    let mut told = String::new();
    for (at, failure) in evidence {
        told.push_str(&format!("\n  instance {at}: {failure}"));
        for line in failure.evidence.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev() {
            told.push_str(&format!("\n    | {line}"));
        }
    }
    told
}
