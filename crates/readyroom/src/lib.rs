//! readyroom keeps command-line tools running and warm, gives each job to one of them, knows exactly when each has
//! finished, and proves that every job began in a clean context.
//!
//! The floors, from the ground up; each imports only what is below it:
//!
//! - [`process`]: own a tree of OS processes
//! - [`workspace`]: where jobs work: git worktrees, and what comes back from them
//! - [`tool`]: what a tool is, and where it is on this machine
//! - [`driver`]: hold a conversation in one protocol
//! - [`instance`]: one warm place with supervision of its own
//! - [`pool`]: N instances, a router, and what becomes of those that fail
//! - [`cluster`]: the handle that callers hold
//! - [`batch`]: many jobs, and what becomes of those that fail
//! - [`journal`]: the record of batches, the truth for a resume
//!
//! [`error`], [`job`], [`check`], [`budget`] and [`event`] are the words that all floors share.

pub mod batch;
pub mod budget;
pub mod check;
pub mod cluster;
pub mod driver;
pub mod error;
pub mod event;
#[doc(hidden)]
pub mod example;
pub mod instance;
pub mod job;
pub mod journal;

pub mod pool;
pub mod process;
pub mod tool;
pub mod workspace;

pub use budget::{Budget, Spent};
pub use check::{Checks, Schema, Verify};
pub use cluster::{
    Cluster, ClusterOptions, LaunchError, Response, SubmitError, Ticket, TurnError, Wait, launch_cluster,
};
pub use error::{Exit, Failure, FailureKind, Origin};
pub use event::Event;
pub use job::{Answer, Context, Denials, Job, Mode, Outcome, Permissions, Text, Timings, Usage};
pub use pool::router::Routing;
pub use process::init;
