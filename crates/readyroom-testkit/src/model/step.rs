//! What the model does with a request.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// One answer of the model.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Answers with this text.
    Say(String),
    /// Calls a tool.
    Call {
        /// Its name, as the tool under test offers it.
        name: String,
        /// Its arguments.
        arguments: Value,
    },
    /// Calls several tools in one answer.
    Calls(Vec<ToolCall>),
    /// Answers with text, then calls a tool, in one answer.
    SayAndCall {
        /// The text.
        text: String,
        /// The tool's name.
        name: String,
        /// Its arguments.
        arguments: Value,
    },
    /// Answers with an HTTP status.
    Status {
        /// The status.
        code: u16,
        /// More headers (`retry-after`).
        headers: BTreeMap<String, String>,
        /// The body; where it is empty, what a provider of the asked API would say.
        body: String,
    },
    /// Waits so many milliseconds, then does the step.
    Delay(u64, Box<Step>),
    /// Streams the text in pieces of about `chunk` characters with a wait after each.
    Slow {
        /// The text.
        text: String,
        /// Characters a piece.
        chunk: usize,
        /// Milliseconds between pieces.
        delay_ms: u64,
    },
    /// Breaks the connection off in mid-stream, after this text.
    Break {
        /// The text before the break.
        after_text: String,
    },
    /// Ends the stream in order, but without the API's finish marker.
    NoFinish {
        /// The text before the end.
        text: String,
    },
    /// Does the step whose number is that of the answers that the conversation holds already, else the last: a conversation
    /// that is begun anew has all of them again.
    ByAnswers(Vec<Step>),
    /// Never answers.
    Hang,
    /// Streams the text and never goes on.
    HangAfter {
        /// The text before the silence.
        text: String,
    },
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// Its arguments.
    pub arguments: Value,
}

impl Step {
    /// Answers with `text`.
    pub fn say(text: impl Into<String>) -> Self {
        Self::Say(text.into())
    }

    /// Calls a tool.
    pub fn call(name: impl Into<String>, arguments: Value) -> Self {
        Self::Call { name: name.into(), arguments }
    }

    /// Answers with a status and the body that is usual for it.
    pub fn status(code: u16) -> Self {
        Self::Status { code, headers: BTreeMap::new(), body: String::new() }
    }

    /// Answers 429 and asks to wait so many seconds.
    pub fn retry_after(seconds: u32) -> Self {
        let headers = BTreeMap::from([("retry-after".to_owned(), seconds.to_string())]);
        Self::Status { code: 429, headers, body: String::new() }
    }

    /// The same step after so many milliseconds.
    #[must_use]
    pub fn after(self, milliseconds: u64) -> Self {
        Self::Delay(milliseconds, Box::new(self))
    }
}

/// Steps for the successive requests of one conversation; the last step repeats.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Script(Vec<Step>);

impl Script {
    /// These steps.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(steps: impl Into<Vec<Step>>) -> Self {
        let steps = steps.into();
        assert!(!steps.is_empty(), "a script needs a step");
        Self(steps)
    }
}

impl From<Step> for Script {
    fn from(step: Step) -> Self {
        Self::new([step])
    }
}

impl From<Vec<Step>> for Script {
    fn from(steps: Vec<Step>) -> Self {
        Self::new(steps)
    }
}

impl<const N: usize> From<[Step; N]> for Script {
    fn from(steps: [Step; N]) -> Self {
        Self::new(steps)
    }
}

impl From<&str> for Script {
    fn from(text: &str) -> Self {
        Step::say(text).into()
    }
}

impl From<String> for Script {
    fn from(text: String) -> Self {
        Step::Say(text).into()
    }
}
