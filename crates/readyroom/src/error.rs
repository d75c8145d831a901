//! Failures: what went wrong, who caused it, whether trying again can help, and the evidence.
//!
//! Every failure of a turn, a job or an instance has a [`FailureKind`]. There is no catch-all kind: a new way to
//! fail gets a name of its own, so that callers can decide by kind and never by parsing a message.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What went wrong. The table of kinds, with what each means for a retry, is in `docs/design/outcomes.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The tool's program was not found, or is not executable.
    ToolMissing,
    /// The tool was started but never became ready.
    NotReady,
    /// The model's provider refused the credentials.
    Auth,
    /// The model's provider does not know the model.
    UnknownModel,
    /// The provider asks to slow down.
    RateLimited {
        /// How long the provider asks to wait, where it says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<Duration>,
    },
    /// A usage window or quota is used up.
    UsageWindow {
        /// When it opens again, where the tool says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resets_at: Option<jiff::Timestamp>,
    },
    /// The model or its provider failed: a server error, a dropped stream, an empty answer, a context that is too long.
    ModelError,
    /// The turn needed something that the permission level does not hold.
    PermissionDenied,
    /// Nothing moved for too long.
    Stalled,
    /// The tool's process ended, or its output closed, before the turn's end.
    Crashed {
        /// How the process ended, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<Exit>,
    },
    /// The tool said something that its protocol does not allow.
    Protocol,
    /// The tool's output passed the limit that was set for it.
    OutputLimit,
    /// The caller's input can't be given to this tool.
    BadInput,
    /// The tool reported an end, but the prompt was never run.
    NotRun,
    /// The job's verify command failed.
    VerifyFailed,
    /// The answer does not fit the job's schema.
    Schema,
    /// The job had to change something and changed nothing.
    Unchanged,
    /// The job changed something that it must not.
    OutOfScope,
    /// The job's changes do not apply to the caller's tree.
    Conflict,
    /// A budget is used up.
    Budget,
}

/// Who caused a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// The one who asked: the prompt, the inputs, the settings.
    Caller,
    /// The tool's own program.
    Tool,
    /// The model or its provider.
    Model,
    /// The machine: a missing program, a full disk.
    Host,
    /// The job itself: what it did or left undone.
    Job,
}

impl FailureKind {
    /// The names of all kinds.
    pub const NAMES: [&str; 20] = [
        "tool_missing",
        "not_ready",
        "auth",
        "unknown_model",
        "rate_limited",
        "usage_window",
        "model_error",
        "permission_denied",
        "stalled",
        "crashed",
        "protocol",
        "output_limit",
        "bad_input",
        "not_run",
        "verify_failed",
        "schema",
        "unchanged",
        "out_of_scope",
        "conflict",
        "budget",
    ];

    /// The kind's name, as it stands in tables and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ToolMissing => "tool_missing",
            Self::NotReady => "not_ready",
            Self::Auth => "auth",
            Self::UnknownModel => "unknown_model",
            Self::RateLimited { .. } => "rate_limited",
            Self::UsageWindow { .. } => "usage_window",
            Self::ModelError => "model_error",
            Self::PermissionDenied => "permission_denied",
            Self::Stalled => "stalled",
            Self::Crashed { .. } => "crashed",
            Self::Protocol => "protocol",
            Self::OutputLimit => "output_limit",
            Self::BadInput => "bad_input",
            Self::NotRun => "not_run",
            Self::VerifyFailed => "verify_failed",
            Self::Schema => "schema",
            Self::Unchanged => "unchanged",
            Self::OutOfScope => "out_of_scope",
            Self::Conflict => "conflict",
            Self::Budget => "budget",
        }
    }

    /// Whether the same job may succeed when it is tried again, all else equal.
    pub fn retryable(&self) -> bool {
        match self {
            Self::NotReady
            | Self::RateLimited { .. }
            | Self::UsageWindow { .. }
            | Self::ModelError
            | Self::Stalled
            | Self::Crashed { .. }
            | Self::Protocol
            | Self::NotRun
            | Self::VerifyFailed
            | Self::Schema
            | Self::Unchanged => true,
            Self::ToolMissing
            | Self::Auth
            | Self::UnknownModel
            | Self::PermissionDenied
            | Self::OutputLimit
            | Self::BadInput
            | Self::OutOfScope
            | Self::Conflict
            | Self::Budget => false,
        }
    }

    /// Who caused it.
    pub fn origin(&self) -> Origin {
        match self {
            Self::ToolMissing => Origin::Host,
            Self::NotReady | Self::Stalled | Self::Crashed { .. } | Self::Protocol | Self::NotRun => Origin::Tool,
            Self::Auth | Self::UnknownModel | Self::BadInput | Self::PermissionDenied | Self::Budget => Origin::Caller,
            Self::RateLimited { .. } | Self::UsageWindow { .. } | Self::ModelError => Origin::Model,
            Self::OutputLimit
            | Self::VerifyFailed
            | Self::Schema
            | Self::Unchanged
            | Self::OutOfScope
            | Self::Conflict => Origin::Job,
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It exited by itself with this status.
    Status(i32),
    /// A signal ended it.
    Signal(i32),
    /// It ended, and nobody can tell how (its keeper died first).
    Unknown,
}

impl Exit {
    /// Whether the process exited by itself with status 0. That proves nothing about its last turn.
    pub fn is_zero(self) -> bool {
        self == Self::Status(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("an unknown end"),
        }
    }
}

/// A failure with its evidence.
///
/// ```
/// use readyroom::{Failure, FailureKind};
///
/// let failure = Failure::new(FailureKind::ModelError, "the stream broke off").with_stderr("connection reset");
/// assert!(failure.kind.retryable());
/// assert_eq!(failure.to_string(), "model_error: the stream broke off");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong.
    #[serde(flatten)]
    pub kind: FailureKind,
    /// One sentence for a person.
    pub message: String,
    /// The last lines of the tool's stderr at the time, or the protocol's own error text. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
}

impl Failure {
    /// A failure of `kind`; `message` is one sentence for a person. A tool may have said nothing: then that is said.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.trim().is_empty() {
            message = "the tool gave no reason".to_owned();
        }
        Self { kind, message, evidence: String::new() }
    }

    /// The same failure with `evidence`: stderr's last lines, or the tool's own words.
    #[must_use]
    pub fn with_stderr(mut self, evidence: impl Into<String>) -> Self {
        self.evidence = evidence.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_that_of_a_kind() {
        for name in FailureKind::NAMES {
            let kind: FailureKind = serde_json::from_value(serde_json::json!({ "kind": name })).unwrap();
            assert_eq!(kind.name(), name);
        }
    }

    #[test]
    fn a_failure_survives_json() {
        let failure =
            Failure::new(FailureKind::RateLimited { retry_after: Some(Duration::from_secs(3)) }, "rate limit reached");
        let text = serde_json::to_string(&failure).unwrap();
        assert_eq!(serde_json::from_str::<Failure>(&text).unwrap(), failure);
    }
}
