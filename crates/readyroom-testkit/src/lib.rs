//! Test programs and harness for readyroom: a local model that real tools can be pointed at, sandboxes in which they
//! run, and fake tools that do what a test needs on command. The page is `docs/design/testing.md`.

pub mod fake;
pub mod model;
pub mod owner;
pub mod plot;
pub mod properties;
pub mod sandbox;
pub mod tools;
pub mod zoo;

pub use fake::use_guardian;
pub use model::{Model, Request, Script, Step};
pub use owner::Owner;
pub use sandbox::{Sandbox, assert_nothing_left, is_fork, processes_of, zygotes_of};
