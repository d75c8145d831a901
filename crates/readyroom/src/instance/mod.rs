//! One warm instance as an actor: a stable place in a pool that survives restarts of its process.
//!
//! [`messages`] are what goes in and out, [`state`] is the pure machine (every transition is tested without a process
//! or a clock), [`review`] looks at what a job did at the instance's `desk`, its worktree, and `actor` runs it over a
//! [`crate::driver::runtime::Link`]. The page is `docs/design/instances.md`.

mod actor;
mod command;
mod desk;
mod files;
pub mod messages;
pub mod review;
pub mod state;
mod turn;

pub use actor::{InstanceHandle, Places, SETUP_LIMIT, Settings, spawn};
