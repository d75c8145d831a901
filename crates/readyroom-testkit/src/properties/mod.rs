//! What must hold whatever comes in: one function for each reader of foreign bytes, which panics where it does not hold.
//!
//! The fuzz targets below `fuzz/` call them with what a fuzzer finds, and `tests/properties.rs` calls the same ones with
//! random bytes and with the corpora that the fuzzer left.

mod diff;
mod driver;
mod fence;
mod files;

pub use diff::diff;
pub use driver::{Talker, conversation};
pub use fence::{fence, lines};
pub use files::{definition, registry};

/// The names of the fuzz targets, which are the names of their corpora too; `jobs` is the command's own.
pub const TARGETS: [&str; 11] =
    ["lines", "fence", "repl", "claude", "codex", "acp", "oneshot", "definition", "registry", "diff", "jobs"];
