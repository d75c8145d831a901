//! The commands, one module each: they take parsed arguments, and a writer where they print.

pub mod batch;
pub mod completions;
pub mod dry_run;
pub mod man;
pub mod run;
pub mod tools;
