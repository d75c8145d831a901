//! One warm instance as an actor: a stable place in a pool that survives restarts of its process.
//!
//! [`messages`] are what goes in and out, [`state`] is the pure machine (every transition is tested without a process
//! or a clock), `actor` runs it over a [`crate::driver::runtime::Link`]. The page is `docs/design/instances.md`.

mod actor;
mod files;
pub mod messages;
pub mod state;

pub use actor::{InstanceHandle, Settings, spawn};
