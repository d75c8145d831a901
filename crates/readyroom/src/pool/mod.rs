//! N instances of one spawn contract: who gets which turn, and what becomes of an instance that fails.
//!
//! [`dispatcher`] is the pure part: inputs in, actions out. `actor` runs it over real instances. The page is
//! `docs/design/pool.md`.

mod actor;
pub mod dispatcher;
mod gate;
mod mailbox;
mod response;
pub mod router;
pub mod supervision;

pub use actor::{Input, PoolHandle, PoolSettings, Readiness, Sink, WeakPool, start};
pub use gate::Gate;
pub use mailbox::{CallerId, Mailbox, Taken, Wanted};
pub use response::{InstanceState, InstanceStatus, Response, Status, TurnError};

#[cfg(test)]
mod simulation_tests;
