//! What a caller asks for, and what becomes of it: permissions, jobs, answers, usage, outcomes.
//!
//! Everything here is plain data that survives serialisation, since a job may be journalled, printed as JSON or
//! handed to Python.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::budget::Budget;
use crate::check::Checks;
use crate::error::{Failure, FailureKind};

/// What a tool may do during a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    /// No write, no shell command.
    Read,
    /// Writes below the directory; shell commands only in a sandbox that holds them to that.
    #[default]
    Edit,
    /// Everything.
    Full,
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Edit => "edit",
            Self::Full => "full",
        })
    }
}

/// A word that is none of those allowed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("unknown {what} {given:?}: expected {expected}")]
pub struct UnknownWord {
    /// What the word stands for.
    pub what: &'static str,
    /// The word.
    pub given: String,
    /// The words that are known.
    pub expected: &'static str,
}

impl FromStr for Permissions {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "read" => Ok(Self::Read),
            "edit" => Ok(Self::Edit),
            "full" => Ok(Self::Full),
            _ => {
                Err(UnknownWord { what: "permission level", given: word.into(), expected: "`read`, `edit` or `full`" })
            }
        }
    }
}

/// Whether a turn starts in a clean context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// Each turn and each job starts in a context that is proven to be new.
    #[default]
    Fresh,
    /// The conversation goes on from turn to turn. It is reset only after a turn that did not succeed.
    Keep,
}

impl FromStr for Context {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "fresh" => Ok(Self::Fresh),
            "keep" => Ok(Self::Keep),
            _ => Err(UnknownWord { what: "context", given: word.into(), expected: "`fresh` or `keep`" }),
        }
    }
}

/// What a turn's prompt asks of the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// As the tool is set up.
    #[default]
    Default,
    /// A question: edits are denied where the tool can deny them.
    Ask,
    /// Work: edits are wanted.
    Code,
    /// Plan with one model, edit with another, in tools that know this; elsewhere as `Code`.
    Architect,
}

/// Bytes that a tool printed as its answer; nearly always UTF-8.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text(Vec<u8>);

impl Text {
    /// The bytes as they came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a string; invalid UTF-8 is replaced by U+FFFD.
    pub fn to_string_lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string_lossy())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string_lossy(), f)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum TextForm {
    Utf8(String),
    Base64 { base64: String },
}

impl Serialize for Text {
    /// A string where the bytes are UTF-8, else `{"base64": "..."}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => TextForm::Base64 { base64: base64::engine::general_purpose::STANDARD.encode(&self.0) }
                .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        match TextForm::deserialize(deserializer)? {
            TextForm::Utf8(text) => Ok(text.into()),
            TextForm::Base64 { base64 } => {
                base64::engine::general_purpose::STANDARD.decode(base64).map(Self).map_err(serde::de::Error::custom)
            }
        }
    }
}

/// What a turn used, where the tool tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens sent to the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Tokens received from the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
}

impl Usage {
    /// Adds what another turn used. A number that only one of them knows is kept.
    pub fn add(&mut self, other: &Self) {
        fn sum<T: std::ops::Add<Output = T>>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            }
        }
        self.input_tokens = sum(self.input_tokens, other.input_tokens);
        self.output_tokens = sum(self.output_tokens, other.output_tokens);
        self.cost_usd = sum(self.cost_usd, other.cost_usd);
    }
}

/// What the tool wanted to do and was not allowed to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denials {
    /// The protocol does not tell.
    #[default]
    Unknown,
    /// These, in order; an empty list says that nothing was denied.
    Known(Vec<String>),
}

/// What the tool said in a turn.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The last segment of text, after the last tool call.
    pub text: Text,
    /// All text of the turn. For tools that tell no segments apart, the same as `text`.
    pub transcript: Text,
    /// What the turn used.
    #[serde(default)]
    pub usage: Usage,
    /// What was denied.
    #[serde(default)]
    pub denials: Denials,
    /// Files that the tool says it changed, as it names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed_files: Vec<PathBuf>,
}

/// What a caller submits: one or more prompts in one context, with files and limits.
///
/// ```
/// use readyroom::Job;
/// let job = Job::new("Add type hints to src/a.py").with_file("src/a.py");
/// assert_eq!(job.prompts.len(), 1);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The prompts, in order, as turns in one context. The first failure ends the job; the last answer is its answer.
    pub prompts: Vec<String>,
    /// Files to work on, given to the tool in its own way before the first prompt. Relative to the directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
    /// What the prompts ask for.
    #[serde(default)]
    pub mode: Mode,
    /// The key of sticky routing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The longest time that the job may run once it has started on an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// What it has to prove before it counts as done.
    #[serde(default, skip_serializing_if = "Checks::is_empty")]
    pub checks: Checks,
    /// What it may cost: once that is spent it gets no further prompt.
    #[serde(default, skip_serializing_if = "Budget::is_unlimited")]
    pub budget: Budget,
}

impl Job {
    /// A job of one prompt.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompts: vec![prompt.into()], ..Self::default() }
    }

    /// Adds a file to work on.
    #[must_use]
    pub fn with_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.push(file.into());
        self
    }

    /// Sets the sticky key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the time limit.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets what it may cost.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Sets what it has to prove.
    #[must_use]
    pub fn with_checks(mut self, checks: Checks) -> Self {
        self.checks = checks;
        self
    }

    /// Sets what the prompts ask for.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }
}

impl<T: Into<String>> From<T> for Job {
    fn from(prompt: T) -> Self {
        Self::new(prompt)
    }
}

/// How a turn or a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The tool answered, and its protocol's end marker and our own check agree that the prompt was run.
    Succeeded,
    /// It failed.
    Failed(Failure),
    /// Somebody cancelled it.
    Cancelled,
    /// Its time limit passed.
    TimedOut {
        /// The limit.
        after: Duration,
        /// What the tool had announced until then (its own retries, say). May be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        evidence: String,
    },
    /// Nobody can know: its owner died while it ran.
    Lost,
}

impl Outcome {
    /// Whether it succeeded.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Succeeded)
    }

    /// A short name for tables: `succeeded`, `cancelled`, `timed_out`, `lost`, or the failure's kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed(failure) => failure.kind.name(),
            Self::Cancelled => "cancelled",
            Self::TimedOut { .. } => "timed_out",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.write_str("succeeded"),
            Self::Failed(failure) => write!(f, "failed: {failure}"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::TimedOut { after, evidence } if evidence.is_empty() => {
                write!(f, "timed out after {:.1} s", after.as_secs_f64())
            }
            Self::TimedOut { after, evidence } => {
                write!(f, "timed out after {:.1} s ({evidence})", after.as_secs_f64())
            }
            Self::Lost => f.write_str("lost"),
        }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<FailureKind> for Outcome {
    fn from(kind: FailureKind) -> Self {
        let message = kind.name().replace('_', " ");
        Self::Failed(Failure::new(kind, message))
    }
}

/// Where a turn's time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Waiting for an instance, from the submission.
    pub queued: Duration,
    /// From the prompt's sending to the turn's end.
    pub turn: Duration,
    /// Proving the context fresh, before the prompt. Zero where that was done while the instance was idle.
    pub reset: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keeps_bytes_that_are_not_utf8() {
        let text = Text::from(vec![0xff, b'a', 0]);
        let json = serde_json::to_string(&text).unwrap();
        assert_eq!(json, r#"{"base64":"/2EA"}"#);
        assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), text);
    }
}
