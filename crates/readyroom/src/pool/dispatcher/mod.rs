//! The pool's decisions, as a pure machine: which turn goes to which instance, and when instances are started,
//! restarted, recycled and given up. No I/O, no clock of its own.

mod instances;
mod turns;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::response::{InstanceState, Response};
use super::router::{Load, Router, Routing};
use super::supervision::{Supervisor, Verdict};
use crate::budget::Budget;
use crate::check::Checks;
use crate::driver::Activity;
use crate::driver::{ContextCommand, ContextReply};
use crate::error::{Failure, FailureKind};
use crate::event::{Event, TurnId};
use crate::instance::messages::{Done, Notice, Order, Work};
use crate::job::{Mode, Outcome, Timings};

/// A turn whose processes end this many times before its prompt has failed: what it has them do may be the reason, and
/// must not cost one instance after the other.
const LOSSES: u32 = 2;

/// How a pool is run.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The tool's name, for responses.
    pub tool: String,
    /// How many instances.
    pub count: usize,
    /// How turns are routed.
    pub routing: Routing,
    /// How many instances may be starting at a time.
    pub starts_at_once: usize,
    /// Start an instance only when a turn waits for it (a process for each job).
    pub on_demand: bool,
    /// How long a held turn waits for its prompt before its instance is freed.
    pub hold: Duration,
    /// Whether the tool tells nothing of what a turn does besides its text.
    pub blind: bool,
}

/// A turn as it comes from a caller.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Its id, chosen by the caller's side.
    pub turn: TurnId,
    /// Context commands so far.
    pub commands: Vec<ContextCommand>,
    /// How many answers to them have been told: more than none at first where the turn stands for one that was closed.
    pub told: usize,
    /// Prompts; none yet for a turn that is open.
    pub prompts: Vec<String>,
    /// What the prompts ask for.
    pub mode: Mode,
    /// The longest time that it may run.
    pub timeout: Option<Duration>,
    /// What it has to prove.
    pub checks: Arc<Checks>,
    /// What it may cost.
    pub budget: Budget,
    /// The sticky key.
    pub key: Option<String>,
    /// The instance that it must go to.
    pub address: Option<usize>,
    /// An instance that it does not go to while another lives; a sticky route or an address
    /// goes before.
    pub avoid: Option<usize>,
}

/// What is added to an open turn.
#[derive(Debug, Clone)]
pub struct Addition {
    /// Which turn.
    pub turn: TurnId,
    /// More context commands.
    pub commands: Vec<ContextCommand>,
    /// The prompts that close it; none: it stays open.
    pub prompts: Vec<String>,
    /// What the prompts ask for.
    pub mode: Mode,
    /// The longest time that they may run.
    pub timeout: Option<Duration>,
}

/// Something to do.
#[derive(Debug)]
pub enum Action {
    /// Tell an instance.
    Order(usize, Order),
    /// The turn is planned for this instance.
    Planned(TurnId, usize),
    /// A turn has ended.
    Finish(Box<Response>),
    /// A context command of an open turn was answered.
    Acknowledge(Box<Response>),
    /// An open turn was closed without a prompt.
    Closed(TurnId),
    /// Tell whoever listens.
    Emit(Event),
    /// An instance that was restarted by hand is ready, or is not going to be.
    Restarted(usize, Result<(), Failure>),
    /// All instances are down after a shutdown.
    Down,
}

#[derive(Debug)]
struct Queued {
    submission: Submission,
    submitted: Instant,
    place: Place,
    /// How many processes ended with it before its prompt was sent.
    lost: u32,
    /// Whether a tool of the model's was begun or allowed.
    acted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Waits; the instance is planned, and final where the router says so.
    Waiting { planned: usize, fixed: bool },
    /// On an instance.
    On { instance: usize, stage: Stage },
}

/// How a turn on an instance stands, as far as the pool knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It was given to the instance.
    Given,
    /// Its context commands are answered and its prompt has not come, since this moment.
    Held(Instant),
    /// It is being closed without a prompt; none can join any more.
    Released,
    /// It is being cancelled.
    Cancelled,
}

#[derive(Debug)]
struct Instance {
    state: InstanceState,
    generation: u32,
    /// A start is due at this moment (it may still have to wait for its place among those that are starting).
    start_at: Option<Instant>,
    /// When its life was ordered to begin.
    ordered: Option<Instant>,
    /// When its process was started.
    started: Option<Instant>,
    pid: Option<u32>,
    version: Option<String>,
    queue: VecDeque<TurnId>,
    planned: usize,
    turns: u64,
    restarts: u64,
    supervisor: Supervisor,
    last_failure: Option<Failure>,
    /// Asked for by hand: end the process when the turn that runs is over, and start it again.
    restart: bool,
    /// Somebody waits for that.
    restart_awaited: bool,
    /// It grew too old or too large: end its process before its next turn; why.
    recycle: Option<String>,
}

/// What the dispatcher knows of an instance, for a status.
#[derive(Debug, Clone)]
pub struct Facts {
    /// How it is doing.
    pub state: InstanceState,
    /// Which life.
    pub generation: u32,
    /// The tool's process.
    pub pid: Option<u32>,
    /// The tool's version.
    pub version: Option<String>,
    /// Turns that ended on it.
    pub turns: u64,
    /// Restarts after failures.
    pub restarts: u64,
    /// Turns that wait for it alone.
    pub queued: usize,
    /// When its process was started.
    pub started: Option<Instant>,
    /// The last failure of its process.
    pub last_failure: Option<Failure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closing,
    Down,
}

/// A pool, as a machine.
#[derive(Debug)]
pub struct Dispatcher {
    rules: Rules,
    router: Router,
    instances: Vec<Instance>,
    turns: HashMap<TurnId, Queued>,
    /// Turns that any instance may take, oldest first.
    common: VecDeque<TurnId>,
    phase: Phase,
    succeeded: u64,
    unsuccessful: u64,
    random: u64,
}

impl Dispatcher {
    /// A pool of `rules.count` instances, all down; [`Dispatcher::start`] starts them.
    pub fn new(rules: Rules) -> Self {
        let instance = || Instance {
            state: InstanceState::Down,
            generation: 0,
            start_at: None,
            ordered: None,
            started: None,
            pid: None,
            version: None,
            queue: VecDeque::new(),
            planned: 0,
            turns: 0,
            restarts: 0,
            supervisor: Supervisor::default(),
            last_failure: None,
            restart: false,
            restart_awaited: false,
            recycle: None,
        };
        Self {
            router: Router::new(rules.routing),
            instances: (0..rules.count).map(|_| instance()).collect(),
            turns: HashMap::new(),
            common: VecDeque::new(),
            phase: Phase::Open,
            succeeded: 0,
            unsuccessful: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            rules,
        }
    }

    /// When [`Dispatcher::tick`] has something to do.
    pub fn next_tick(&self) -> Option<Instant> {
        let starting = self.starting() < self.rules.starts_at_once;
        let starts = self.instances.iter().filter_map(|instance| instance.start_at.filter(|_| starting));
        let holds = self.held_turns().map(|(_, since)| since + self.rules.hold);
        starts.chain(holds).min()
    }

    /// The turns that wait for their prompts on instances, with the moments since which they do. Looks at the instances
    /// and not at all turns, since it is called for every event.
    fn held_turns(&self) -> impl Iterator<Item = (TurnId, Instant)> {
        self.instances.iter().filter_map(|instance| {
            let InstanceState::Busy { turn } = instance.state else { return None };
            match self.turns.get(&turn)?.place {
                Place::On { stage: Stage::Held(since), .. } => Some((turn, since)),
                _ => None,
            }
        })
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        self.start_due(now, &mut out);
        let hold = self.rules.hold;
        let late = self.held_turns().filter_map(|(turn, since)| (since + hold <= now).then_some(turn));
        let late: Vec<_> = late.collect();
        for turn in late {
            self.release(turn, &mut out);
        }
        out
    }

    /// Takes an instance's notice.
    pub fn notice(&mut self, at: usize, notice: Notice, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        let generation = self.instances[at].generation;
        match notice {
            Notice::Started { pid } => {
                let instance = &mut self.instances[at];
                instance.pid = Some(pid);
                instance.started = Some(now);
                out.push(Action::Emit(Event::InstanceStarted { instance: at, generation, pid }));
            }
            Notice::Ready { version } => self.instances[at].version = version,
            Notice::Available => self.available(at, now, &mut out),
            Notice::Proven { proof, took } => {
                out.push(Action::Emit(Event::ContextProven { instance: at, proof, took }));
            }
            Notice::Held { turn, replies } => self.held(at, turn, replies, now, &mut out),
            Notice::NotTaken(turn) => self.not_taken(at, turn, now, &mut out),
            Notice::NotBegun { turn, failure } => self.not_begun(at, turn, failure, now, &mut out),
            Notice::TurnStarted(turn) => {
                out.push(Action::Emit(Event::TurnStarted { turn, instance: at, generation }));
            }
            Notice::Progress(turn, activity) => {
                if matches!(activity, Activity::ToolStarted(_) | Activity::Granted(_))
                    && let Some(turn) = self.turns.get_mut(&turn)
                {
                    turn.acted = true;
                }
                out.push(Action::Emit(Event::TurnProgressed { turn, instance: at, activity }));
            }
            Notice::Done(done) => self.done(at, *done, now, &mut out),
            Notice::StraysEnded(commands) => {
                out.push(Action::Emit(Event::StraysEnded { instance: at, commands }));
            }
            Notice::Anomaly(what) => out.push(Action::Emit(Event::AnomalySeen { instance: at, what })),
            Notice::Ended { why, failure } => self.ended(at, why, failure, now, &mut out),
        }
        out
    }

    /// What is known of each instance.
    pub fn facts(&self) -> Vec<Facts> {
        let facts = |instance: &Instance| Facts {
            state: instance.state.clone(),
            generation: instance.generation,
            pid: instance.pid,
            version: instance.version.clone(),
            turns: instance.turns,
            restarts: instance.restarts,
            queued: instance.queue.len(),
            started: instance.started,
            last_failure: instance.last_failure.clone(),
        };
        self.instances.iter().map(facts).collect()
    }

    /// Turns that wait, turns on instances, turns that succeeded, and those that ended otherwise.
    pub fn counts(&self) -> (usize, usize, u64, u64) {
        let running = self.turns.values().filter(|turn| matches!(turn.place, Place::On { .. })).count();
        (self.turns.len() - running, running, self.succeeded, self.unsuccessful)
    }

    /// The tool's name.
    pub fn tool(&self) -> &str {
        &self.rules.tool
    }

    /// Whether no turn is queued or runs.
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// The failure of each instance, when all are quarantined.
    pub fn hopeless(&self) -> Option<Vec<(usize, Failure)>> {
        self.instances
            .iter()
            .enumerate()
            .map(|(at, instance)| match &instance.state {
                InstanceState::Quarantined { failure } => Some((at, failure.clone())),
                _ => None,
            })
            .collect()
    }

    /// The last failure of each instance that has one.
    pub fn evidence(&self) -> Vec<(usize, Failure)> {
        let failure = |(at, instance): (usize, &Instance)| Some((at, instance.last_failure.clone()?));
        self.instances.iter().enumerate().filter_map(failure).collect()
    }
}

fn shut_down() -> Failure {
    Failure::new(FailureKind::NotReady, "the pool is shut down")
}

#[cfg(test)]
mod tests;
