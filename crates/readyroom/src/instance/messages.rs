//! What a pool tells an instance, and what it hears back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::budget::Budget;
use crate::check::Checks;
use crate::driver::{Activity, ContextCommand, ContextReply, Proof};
use crate::error::Failure;
use crate::event::TurnId;
use crate::job::{Answer, Mode, Outcome, Timings};
use crate::workspace::Change;

/// A turn's work for an instance, or what is added to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// Which turn.
    pub turn: TurnId,
    /// Context commands, in order, before the prompts.
    pub commands: Vec<ContextCommand>,
    /// Prompts, in order, in one context. None yet: the instance holds the turn until they come.
    pub prompts: Vec<String>,
    /// What the prompts ask for.
    pub mode: Mode,
    /// The longest time that the prompts may take together.
    pub timeout: Option<Duration>,
    /// What it has to prove.
    pub checks: Arc<Checks>,
    /// What it may cost.
    pub budget: Budget,
    /// How many of the commands' answers the pool was told by an earlier process, that ended before the prompt.
    pub told: usize,
}

/// What a pool tells an instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Start a process (or join one).
    Start,
    /// Do this work. Only given to an instance that said it is available; one that is not by then hands it back whole.
    Run(Box<Work>),
    /// This comes to a turn that was given without its prompt. Where that is not here any more, its end or its return is
    /// on the way to the pool, which knows what to do with the whole.
    Add(Box<Work>),
    /// Let a held turn go: no prompt will come.
    Release(TurnId),
    /// Cancel a turn that runs or is held.
    Cancel(TurnId),
    /// End the process in order and come back down; for recycling and restarts. Work that runs is cancelled.
    Stop {
        /// Why, for a person.
        why: String,
    },
    /// Ask an idle tool whether it still answers. One that does not, within its time for a reset, is ended and started
    /// again. Nothing happens in a turn, or where the protocol has no means.
    Ping,
    /// End the process at once.
    Kill,
}

/// A turn that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// Which.
    pub turn: TurnId,
    /// How.
    pub outcome: Outcome,
    /// The answers, one for each prompt that ran.
    pub answers: Vec<Answer>,
    /// The answers to its context commands that nobody has read yet.
    pub replies: Vec<ContextReply>,
    /// Where the time went (`queued` is the pool's to fill).
    pub timings: Timings,
    /// How its context was known to be new; none where it went on from earlier turns.
    pub proof: Option<Proof>,
    /// The conversation that `keep` had kept was lost before this turn.
    pub context_lost: bool,
    /// What it changed in the instance's worktree.
    pub change: Option<Change>,
    /// The value in its answer that fits its schema.
    pub value: Option<Value>,
}

/// What an instance tells its pool.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// Its process runs.
    Started {
        /// The tool's own process.
        pid: u32,
    },
    /// The tool is ready.
    Ready {
        /// The tool's version, where its protocol tells.
        version: Option<String>,
    },
    /// It can take a turn now.
    Available,
    /// Its context was proven new.
    Proven {
        /// How.
        proof: Proof,
        /// How long that took.
        took: Duration,
    },
    /// A held turn's context commands have been answered.
    Held {
        /// Which turn.
        turn: TurnId,
        /// The answers that are new.
        replies: Vec<ContextReply>,
    },
    /// The turn came when the instance could not take it; nothing of it was sent.
    NotTaken(TurnId),
    /// The process ended with the turn's first prompt still unsent: all of the turn can be done again elsewhere.
    NotBegun {
        /// Which turn.
        turn: TurnId,
        /// How the process ended.
        failure: Failure,
    },
    /// A turn's first prompt goes to the tool.
    TurnStarted(TurnId),
    /// Something happened within a turn.
    Progress(TurnId, Activity),
    /// A turn has ended.
    Done(Box<Done>),
    /// What a turn had left running was ended.
    StraysEnded(Vec<String>),
    /// The tool said something odd.
    Anomaly(String),
    /// Its process is gone; it waits for [`Order::Start`].
    Ended {
        /// Why, for a person.
        why: String,
        /// The failure; none where the end was wanted.
        failure: Option<Failure>,
    },
}
