//! What an instance knows of the turn that it has.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::messages::{Done, Work};
use super::review::{Repairs, Review};
use crate::driver::{ContextCommand, ContextReply, Proof};
use crate::error::{Failure, FailureKind};
use crate::job::{Answer, Outcome, Timings};

/// Why a turn is being cancelled.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cause {
    Asked,
    Late(Duration),
    Stalled(Duration),
}

/// When something last moved in a turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    pub at: Instant,
    /// The CPU time that had been used by then.
    pub cpu: Duration,
}

/// A turn on an instance.
#[derive(Debug)]
pub(super) struct Active {
    pub work: Work,
    /// One for each command that was carried out.
    pub replies: Vec<ContextReply>,
    /// How many of them the pool has been told.
    pub told: usize,
    pub files: Vec<PathBuf>,
    pub answers: Vec<Answer>,
    pub proof: Option<Proof>,
    pub began: Instant,
    pub announced: String,
    pub moved: Moved,
    /// How often it was asked to mend what it had done.
    pub repairs: Repairs,
}

impl Active {
    pub fn new(work: Work, proof: Option<Proof>, now: Instant) -> Self {
        Self {
            told: work.told,
            work,
            replies: Vec::new(),
            files: Vec::new(),
            answers: Vec::new(),
            proof,
            began: now,
            announced: String::new(),
            moved: Moved { at: now, cpu: Duration::ZERO },
            repairs: Repairs::default(),
        }
    }

    /// When its time is over; none: it has no limit, or one beyond the clock's.
    pub fn deadline(&self) -> Option<Instant> {
        self.work.timeout.and_then(|timeout| self.began.checked_add(timeout))
    }

    /// How it ends when it is cancelled.
    pub fn stopped(&self, cause: &Cause) -> Outcome {
        match cause {
            Cause::Asked => Outcome::Cancelled,
            Cause::Stalled(after) => {
                let message = format!("no event and no work of its processes for {} s", after.as_secs_f64());
                Failure::new(FailureKind::Stalled, message).with_stderr(self.announced.clone()).into()
            }
            Cause::Late(after) => Outcome::TimedOut { after: *after, evidence: self.announced.clone() },
        }
    }
}

/// Whether the process can be used after a turn.
#[derive(Debug, PartialEq)]
pub(super) enum Process {
    Usable,
    Gone(Failure),
    /// It works in a directory that can't be brought back to what jobs start from.
    Spoiled(Failure),
}

/// A turn that has ended and what is left to do about it.
#[derive(Debug)]
pub(super) struct Ended {
    pub active: Active,
    pub outcome: Outcome,
    pub took: Duration,
    pub process: Process,
}

impl Ended {
    /// What is to be looked at. `converses`: whether the tool takes another prompt in its session.
    pub fn review(&self, converses: bool) -> Review {
        let added = |command: &ContextCommand| match command {
            ContextCommand::Add(file) => Some(file.clone()),
            _ => None,
        };
        let checks = &self.active.work.checks;
        Review {
            checks: self.outcome.is_success().then(|| std::sync::Arc::clone(checks)),
            files: self.active.work.commands.iter().filter_map(added).collect(),
            answer: self.active.answers.last().map(|answer| answer.text.clone()).unwrap_or_default(),
            repairs: self.active.repairs,
            mendable: converses && self.process == Process::Usable,
        }
    }

    /// What the pool is told. `reset`: how long proving its context took.
    pub fn done(self, reset: Duration, context_lost: bool) -> (Done, Process) {
        let Self { active, outcome, took, process } = self;
        let done = Done {
            turn: active.work.turn,
            outcome,
            answers: active.answers,
            replies: active.replies.into_iter().skip(active.told).collect(),
            timings: Timings {
                queued: Duration::ZERO,
                turn: took,
                reset: if active.proof.is_some() { reset } else { Duration::ZERO },
            },
            proof: active.proof,
            context_lost,
            change: None,
            value: None,
        };
        (done, process)
    }
}
