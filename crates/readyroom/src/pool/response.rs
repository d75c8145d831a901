//! What callers get back: responses, and the status of a pool.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::driver::{ContextReply, Proof};
use crate::error::Failure;
use crate::event::TurnId;
use crate::job::{Answer, Outcome, Text, Timings, Usage};
use crate::workspace::Change;

/// A turn's or a job's end, for its caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Which turn.
    pub turn: TurnId,
    /// The tool's name.
    pub tool: String,
    /// The instance that ran it. Where it never came to one: the one that it was addressed to, if any.
    pub instance: Option<usize>,
    /// Which life of the instance.
    pub generation: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// The answer: of the last prompt that ran, or the tool's acknowledgement of a context command.
    pub answer: Answer,
    /// The answers to all its prompts, in order.
    pub turns: Vec<Answer>,
    /// The answers to its context commands that were not read before.
    pub preamble: Vec<ContextReply>,
    /// What all its prompts used.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
    /// How its context was known to be new; none where it went on from earlier turns.
    pub proof: Option<Proof>,
    /// In `keep`: the conversation was lost before this turn.
    pub context_lost: bool,
    /// What it changed in its instance's worktree, which has been brought back since.
    pub change: Option<Change>,
    /// The value in its answer that fits its schema.
    pub value: Option<Value>,
    /// Whether it may have changed something: a tool of the model's was begun or allowed, a file is said to be changed, or
    /// the tool's protocol does not tell of such things.
    pub may_have_acted: bool,
}

impl Response {
    /// One without an answer, of a turn that came to no instance.
    pub(crate) fn unrun(turn: TurnId, tool: String, outcome: Outcome) -> Self {
        Self {
            turn,
            tool,
            instance: None,
            generation: 0,
            outcome,
            answer: Answer::default(),
            turns: Vec::new(),
            preamble: Vec::new(),
            usage: Usage::default(),
            timings: Timings::default(),
            proof: None,
            context_lost: false,
            change: None,
            value: None,
            may_have_acted: false,
        }
    }

    /// Whether it succeeded.
    pub fn ok(&self) -> bool {
        self.outcome.is_success()
    }

    /// The answer's text.
    ///
    /// # Errors
    /// The outcome of a turn that did not succeed, so that a failure can't be taken for an empty answer.
    pub fn text(&self) -> Result<&Text, TurnError> {
        if self.ok() { Ok(&self.answer.text) } else { Err(TurnError { outcome: self.outcome.clone() }) }
    }

    /// The failure, where it is one.
    pub fn error(&self) -> Option<&Failure> {
        match &self.outcome {
            Outcome::Failed(failure) => Some(failure),
            _ => None,
        }
    }
}

/// A turn did not succeed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the turn {outcome}")]
pub struct TurnError {
    /// How it ended.
    pub outcome: Outcome,
}

/// How an instance is doing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InstanceState {
    /// Waits to be started.
    Down,
    /// Was started and is not ready yet.
    Starting,
    /// Ready for a turn.
    Idle,
    /// Runs or holds a turn.
    Busy {
        /// Which.
        turn: TurnId,
    },
    /// Its context is being proven new.
    Resetting,
    /// Its process is being ended.
    Stopping,
    /// It failed too often and stays down until it is restarted by hand.
    Quarantined {
        /// The last failure.
        failure: Failure,
    },
}

impl InstanceState {
    /// Everything but quarantine is alive.
    pub fn is_alive(&self) -> bool {
        !matches!(self, Self::Quarantined { .. })
    }
}

/// One instance's status.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstanceStatus {
    /// Its index.
    pub index: usize,
    /// Which life, from 1; 0 before the first.
    pub generation: u32,
    /// How it is doing.
    #[serde(flatten)]
    pub state: InstanceState,
    /// The tool's own process.
    pub pid: Option<u32>,
    /// The tool's version, where its protocol tells.
    pub version: Option<String>,
    /// Turns that ended on it, over all lives.
    pub turns: u64,
    /// Times that it was started again after a failure.
    pub restarts: u64,
    /// Turns that wait for it alone.
    pub queued: usize,
    /// Resident memory of its process tree, where it has one.
    pub rss_bytes: Option<u64>,
    /// CPU time of its process tree, where it has one.
    pub cpu: Option<Duration>,
    /// Since its process was started.
    pub age: Option<Duration>,
    /// The last failure of its process.
    pub last_failure: Option<Failure>,
}

/// A pool's status. `alive + dead` is always the number of instances.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The tool's name.
    pub tool: String,
    /// Each instance.
    pub instances: Vec<InstanceStatus>,
    /// Instances that are not quarantined.
    pub alive: usize,
    /// Instances that are.
    pub dead: usize,
    /// Turns that wait for an instance.
    pub queued: usize,
    /// Turns that run.
    pub running: usize,
    /// Turns that ended, successfully.
    pub succeeded: u64,
    /// Turns that ended otherwise.
    pub unsuccessful: u64,
}
