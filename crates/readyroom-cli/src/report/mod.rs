//! Tells a person how a run goes. A [`Reporter`] renders what happens on stderr: as bars on a terminal, as plain lines
//! elsewhere. One thread, the [`printer`], owns it together with the outputs, so that nothing else ever writes.

pub mod bars;
pub mod log;
pub mod plain;
pub mod printer;
pub mod render;
mod table;
pub mod text;
pub mod view;

use readyroom::driver::Proof;
use readyroom::journal::ChangeState;
use readyroom::workspace::Change;
use readyroom::{Answer, Event, Outcome, Timings, Usage};

use view::View;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Only what went wrong.
    Quiet,
    /// Progress, outcomes and the table at the end.
    Normal,
    /// Also what happens to instances.
    Verbose,
}

/// The end of a job, with all that is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The job, by place.
    pub job: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// The answers of its turns, in order; may be fewer than its prompts.
    pub turns: Vec<Answer>,
    /// What it used.
    pub usage: Usage,
    /// Where its time went.
    pub timings: Timings,
    /// Where it ran, if it ran.
    pub instance: Option<usize>,
    /// Which life of the instance.
    pub generation: u32,
    /// How its context was known to be new.
    pub proof: Option<Proof>,
    /// Whether a conversation that should have gone on was lost before it.
    pub context_lost: bool,
    /// What it changed in its worktree.
    pub change: Option<JobChange>,
    /// The value in its answer that fits its schema.
    pub value: Option<serde_json::Value>,
}

/// What a job changed in its worktree, and what became of that.
#[derive(Debug, Clone, PartialEq)]
pub struct JobChange {
    /// The change.
    pub change: Change,
    /// What became of it.
    pub state: ChangeState,
    /// The branch that it is kept as.
    pub branch: Option<String>,
}

impl Ended {
    /// The end of a job that never ran.
    pub fn unstarted(job: usize, outcome: Outcome) -> Self {
        Self {
            job,
            outcome,
            turns: Vec::new(),
            usage: Usage::default(),
            timings: Timings::default(),
            instance: None,
            generation: 0,
            proof: None,
            context_lost: false,
            change: None,
            value: None,
        }
    }

    /// The job's answer: the last turn's.
    pub fn answer(&self) -> Option<&Answer> {
        self.turns.last()
    }
}

/// Renders a run on stderr.
pub trait Reporter: Send {
    /// Something happened in a pool; the view holds it already.
    fn event(&mut self, view: &View, pool: usize, event: &Event);

    /// A job ended; the view holds it already. `answer_shown`: its answer stands on the same terminal.
    fn ended(&mut self, view: &View, ended: &Ended, answer_shown: bool);

    /// Something that a person should know.
    fn notice(&mut self, text: &str);

    /// Called several times a second.
    fn tick(&mut self, view: &View);

    /// Runs `write`, which writes to a place that may be the same terminal.
    fn around(&mut self, write: &mut dyn FnMut());

    /// Takes away what is not meant to stay, before the last words.
    fn end(&mut self);
}
