//! Failures of the engine as exceptions of Python: `readyroom.errors` makes them.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use readyroom::cluster::SubmitError;
use readyroom::{Failure, FailureKind, LaunchError};

/// The parts of a failure: kind, message, evidence, whether it may be retried, who caused it, and what is told besides.
pub type Parts = (&'static str, String, String, bool, String, Option<f64>, Option<String>);

/// A failure in parts.
pub fn parts(failure: &Failure) -> Parts {
    let (seconds, more) = match &failure.kind {
        FailureKind::RateLimited { retry_after } => (retry_after.map(|wait| wait.as_secs_f64()), None),
        FailureKind::UsageWindow { resets_at } => (None, resets_at.map(|at| at.to_string())),
        FailureKind::Crashed { exit } => (None, exit.map(|exit| exit.to_string())),
        _ => (None, None),
    };
    let origin = format!("{:?}", failure.kind.origin()).to_lowercase();
    (
        failure.kind.name(),
        failure.message.clone(),
        failure.evidence.clone(),
        failure.kind.retryable(),
        origin,
        seconds,
        more,
    )
}

/// An exception made by a function of `readyroom.errors`.
fn made(py: Python<'_>, function: &str, arguments: impl for<'py> pyo3::call::PyCallArgs<'py>) -> PyErr {
    let exception = py.import("readyroom.errors").and_then(|errors| errors.getattr(function)?.call1(arguments));
    exception.map_or_else(|error| error, |exception| PyErr::from_value(exception))
}

/// A failure as the exception of its kind.
pub fn exception(py: Python<'_>, failure: &Failure) -> PyErr {
    made(py, "_of", (parts(failure),))
}

/// That a wait was stopped, as an exception.
pub fn cancelled(py: Python<'_>) -> PyErr {
    made(py, "_stopped", ())
}

/// Why a launch failed, as an exception.
pub fn launch_exception(py: Python<'_>, error: &LaunchError) -> PyErr {
    match error {
        LaunchError::Refused(failure) => exception(py, failure),
        LaunchError::NotReady { evidence, .. } => {
            let instances: Vec<(usize, Parts)> = evidence.iter().map(|(at, failure)| (*at, parts(failure))).collect();
            made(py, "_not_ready", (error.to_string(), instances))
        }
        other => PyValueError::new_err(other.to_string()),
    }
}

/// Why a turn was not taken, as an exception.
pub fn submit_exception(py: Python<'_>, error: &SubmitError) -> PyErr {
    match error {
        SubmitError::QueueFull { .. } => made(py, "_queue_full", (error.to_string(),)),
        SubmitError::Refused(failure) => exception(py, failure),
    }
}
