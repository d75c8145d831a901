//! The extension module `readyroom._core`: the engine for Python, as plain as it can be. What it feels like to use is
//! written in Python, in `python/readyroom/`.
//!
//! Every wait lets go of the interpreter and looks for signals, so that Ctrl-C ends it.

mod cluster;
mod failure;
mod options;
mod response;
mod runtime;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "a name of Python's")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
    #[pymodule_export]
    use super::cluster::{Cluster, Events, Ticket, launch};
    #[pymodule_export]
    use super::options::{load_registry, new_caller};
    #[pymodule_export]
    use super::response::{RawResponse, read_response};
    #[pymodule_export]
    use super::runtime::{Stop, forked, hand_over, use_program};
}
