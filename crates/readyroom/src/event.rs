//! Events: facts of the past that the engine tells, for whoever renders them (bars, JSON lines, Python).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::driver::{Activity, Proof};
use crate::error::Failure;
use crate::job::{Outcome, Usage};

/// Names a turn or a job within its cluster, in order of submission, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TurnId(pub u64);

impl std::fmt::Display for TurnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Something that happened in a cluster. `instance` is the stable index, `generation` counts its lives from 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// An instance's process was started, or the instance joined a process of others.
    InstanceStarted {
        /// Which.
        instance: usize,
        /// Which life.
        generation: u32,
        /// The tool's own process.
        pid: u32,
    },
    /// A life of an instance is ready for its first turn, in a context that is proven new.
    InstanceReady {
        /// Which.
        instance: usize,
        /// Which life.
        generation: u32,
        /// Since the start was ordered: a worktree that is made for it and a zygote that comes first are in it.
        took: Duration,
        /// The tool's version, where its protocol tells.
        version: Option<String>,
    },
    /// An instance's life ended.
    InstanceEnded {
        /// Which.
        instance: usize,
        /// Which life.
        generation: u32,
        /// Why, for a person: `recycled: 40 turns`, `crashed: signal 9`.
        why: String,
        /// The failure, where it was one.
        failure: Option<Failure>,
    },
    /// An instance used up its restarts and stays down until it is restarted by hand.
    InstanceQuarantined {
        /// Which.
        instance: usize,
        /// The last failure.
        failure: Failure,
    },
    /// An instance's context was proven new.
    ContextProven {
        /// Which.
        instance: usize,
        /// How.
        proof: Proof,
        /// How long that took.
        took: Duration,
    },
    /// A turn began on an instance.
    TurnStarted {
        /// Which turn.
        turn: TurnId,
        /// Where.
        instance: usize,
        /// Which life.
        generation: u32,
    },
    /// Something happened within a turn.
    TurnProgressed {
        /// Which turn.
        turn: TurnId,
        /// Where.
        instance: usize,
        /// What.
        activity: Activity,
    },
    /// A turn ended, on an instance or before it came to one.
    TurnEnded {
        /// Which turn.
        turn: TurnId,
        /// Where, if it ran; else the instance that it was addressed to, if any.
        instance: Option<usize>,
        /// How.
        outcome: Outcome,
        /// What it used.
        usage: Usage,
        /// How long it ran.
        took: Duration,
    },
    /// Processes that a turn had left running were ended.
    StraysEnded {
        /// Where.
        instance: usize,
        /// Their command lines, cut.
        commands: Vec<String>,
    },
    /// The tool said something unknown, malformed or late. It changed nothing.
    AnomalySeen {
        /// Where.
        instance: usize,
        /// What is odd about it.
        what: String,
    },
    /// Events were missed by whoever is told this: they were not taken while 8,192 others came. Any may be among them,
    /// also the end of a turn.
    EventsMissed {
        /// How many.
        count: u64,
    },
}
