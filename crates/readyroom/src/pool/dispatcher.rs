//! The pool's decisions, as a pure machine: which turn goes to which instance, and when instances are started,
//! restarted, recycled and given up. No I/O, no clock of its own.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::response::{InstanceState, Response};
use super::router::{Load, Router, Routing};
use super::supervision::{Supervisor, Verdict};
use crate::driver::{ContextCommand, ContextReply};
use crate::error::{Failure, FailureKind};
use crate::event::{Event, TurnId};
use crate::instance::messages::{Done, Notice, Order, Work};
use crate::job::{Mode, Outcome, Timings, Usage};

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
}

/// A turn as it comes from a caller.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Its id, chosen by the caller's side.
    pub turn: TurnId,
    /// Context commands so far.
    pub commands: Vec<ContextCommand>,
    /// Prompts; none yet for a turn that is open.
    pub prompts: Vec<String>,
    /// What the prompts ask for.
    pub mode: Mode,
    /// The longest time that it may run.
    pub timeout: Option<Duration>,
    /// The sticky key.
    pub key: Option<String>,
    /// The instance that it must go to.
    pub address: Option<usize>,
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

    /// Starts what is to be started now.
    pub fn start(&mut self, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        if !self.rules.on_demand {
            for instance in &mut self.instances {
                instance.start_at = Some(now);
            }
            self.start_due(now, &mut out);
        }
        out
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

    /// Takes a turn from a caller.
    pub fn submit(&mut self, submission: Submission, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        let id = submission.turn;
        let address = submission.address;
        let key = submission.key.clone();
        self.turns.insert(
            id,
            Queued { submission, submitted: now, place: Place::Waiting { planned: usize::MAX, fixed: true } },
        );
        if self.phase != Phase::Open {
            self.finish_unrun(id, Outcome::Cancelled, now, &mut out);
        } else {
            self.route(id, address, key.as_deref(), now, &mut out);
        }
        out
    }

    /// Adds to an open turn. A turn that is no longer known, or is being closed, is not touched: `false`.
    pub fn add(&mut self, addition: Addition, now: Instant) -> (bool, Vec<Action>) {
        let mut out = Vec::new();
        let Some(turn) = self.turns.get_mut(&addition.turn) else { return (false, out) };
        match turn.place {
            _ if !turn.submission.prompts.is_empty() => return (false, out),
            Place::On { stage: Stage::Released, .. } => return (false, out),
            // Its end is on the way, and answers the addition.
            Place::On { stage: Stage::Cancelled, .. } => return (true, out),
            _ => {}
        }
        turn.submission.commands.extend(addition.commands.iter().cloned());
        turn.submission.prompts.clone_from(&addition.prompts);
        turn.submission.mode = addition.mode;
        turn.submission.timeout = addition.timeout;
        if let Place::On { instance, stage } = &mut turn.place {
            *stage = Stage::Given;
            if !addition.prompts.is_empty() {
                // Waiting for the prompt is the caller's time, not the queue's.
                turn.submitted = now;
            }
            let work = Work {
                turn: addition.turn,
                commands: addition.commands,
                prompts: addition.prompts,
                mode: addition.mode,
                timeout: addition.timeout,
            };
            out.push(Action::Order(*instance, Order::Add(Box::new(work))));
        }
        (true, out)
    }

    /// Closes an open turn without a prompt.
    pub fn release(&mut self, turn: TurnId, out: &mut Vec<Action>) {
        let Some(found) = self.turns.get_mut(&turn).filter(|found| found.submission.prompts.is_empty()) else { return };
        match &mut found.place {
            Place::On { stage: Stage::Cancelled, .. } => {}
            Place::On { instance, stage } => {
                *stage = Stage::Released;
                out.push(Action::Order(*instance, Order::Release(turn)));
            }
            Place::Waiting { .. } => {
                self.forget(turn);
                out.push(Action::Closed(turn));
            }
        }
    }

    /// Cancels a turn, wherever it is.
    pub fn cancel(&mut self, turn: TurnId, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        match self.turns.get_mut(&turn).map(|turn| &mut turn.place) {
            Some(Place::On { instance, stage }) => {
                if *stage != Stage::Released {
                    *stage = Stage::Cancelled;
                }
                out.push(Action::Order(*instance, Order::Cancel(turn)));
            }
            Some(Place::Waiting { .. }) => self.finish_unrun(turn, Outcome::Cancelled, now, &mut out),
            None => {}
        }
        out
    }

    /// Cancels all turns. Returns how many there were.
    pub fn cancel_all(&mut self, now: Instant) -> (usize, Vec<Action>) {
        let mut all: Vec<_> = self.turns.keys().copied().collect();
        all.sort_unstable();
        let out = all.iter().flat_map(|turn| self.cancel(*turn, now)).collect();
        (all.len(), out)
    }

    /// Nothing new is taken; what runs is cancelled; all instances are ended in order. [`Action::Down`] follows.
    pub fn close(&mut self, now: Instant) -> (usize, Vec<Action>) {
        let (dropped, mut out) = self.cancel_all(now);
        self.phase = Phase::Closing;
        for at in 0..self.instances.len() {
            self.instances[at].start_at = None;
            if std::mem::take(&mut self.instances[at].restart_awaited) {
                out.push(Action::Restarted(at, Err(shut_down())));
            }
            self.stop(at, "the pool is shut down", &mut out);
        }
        self.check_down(&mut out);
        (dropped, out)
    }

    /// Restarts an instance by hand: at once, or when its turn is over. [`Action::Restarted`] follows.
    pub fn restart(&mut self, at: usize, force: bool, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        if self.phase != Phase::Open {
            out.push(Action::Restarted(at, Err(shut_down())));
            return out;
        }
        let instance = &mut self.instances[at];
        instance.supervisor.forgive();
        instance.restart = true;
        instance.restart_awaited = true;
        match &instance.state {
            InstanceState::Quarantined { .. } | InstanceState::Down => {
                instance.restart = false;
                instance.state = InstanceState::Down;
                instance.start_at = Some(now);
                self.start_due(now, &mut out);
            }
            InstanceState::Busy { .. } if !force => {}
            InstanceState::Starting | InstanceState::Stopping => {}
            _ => self.stop(at, "restarted by hand", &mut out),
        }
        out
    }

    /// An instance grew too old or too large: its process is ended and started again, never in a turn.
    pub fn recycle(&mut self, at: usize, why: &str) -> Vec<Action> {
        let mut out = Vec::new();
        match self.instances[at].state {
            InstanceState::Idle => self.stop(at, &format!("recycled: {why}"), &mut out),
            InstanceState::Busy { .. } | InstanceState::Resetting => self.instances[at].recycle = Some(why.to_owned()),
            _ => {}
        }
        out
    }

    /// Closes all turns that are open and have no prompt.
    pub fn release_open(&mut self) -> Vec<Action> {
        let mut out = Vec::new();
        let open = |(id, turn): (&TurnId, &Queued)| turn.submission.prompts.is_empty().then_some(*id);
        let open: Vec<_> = self.turns.iter().filter_map(open).collect();
        for turn in open {
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
            Notice::Ready { version } => {
                let instance = &mut self.instances[at];
                instance.version.clone_from(&version);
                let took = instance.started.map_or(Duration::ZERO, |started| now - started);
                out.push(Action::Emit(Event::InstanceReady { instance: at, generation, took, version }));
            }
            Notice::Available => self.available(at, now, &mut out),
            Notice::Proven { proof, took } => {
                out.push(Action::Emit(Event::ContextProven { instance: at, proof, took }));
            }
            Notice::Held { turn, replies } => self.held(at, turn, replies, now, &mut out),
            Notice::NotTaken(turn) => self.not_taken(at, turn, now, &mut out),
            Notice::TurnStarted(turn) => {
                out.push(Action::Emit(Event::TurnStarted { turn, instance: at, generation }));
            }
            Notice::Progress(turn, activity) => {
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

    fn starting(&self) -> usize {
        self.instances.iter().filter(|instance| instance.state == InstanceState::Starting).count()
    }

    fn start_due(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.phase != Phase::Open {
            return;
        }
        let mut free = self.rules.starts_at_once.saturating_sub(self.starting());
        for (at, instance) in self.instances.iter_mut().enumerate() {
            if free == 0 {
                break;
            }
            if instance.start_at.is_some_and(|due| due <= now) && instance.state == InstanceState::Down {
                instance.start_at = None;
                instance.state = InstanceState::Starting;
                instance.generation += 1;
                instance.pid = None;
                free -= 1;
                out.push(Action::Order(at, Order::Start));
            }
        }
    }

    fn stop(&mut self, at: usize, why: &str, out: &mut Vec<Action>) {
        let instance = &mut self.instances[at];
        if matches!(instance.state, InstanceState::Down | InstanceState::Quarantined { .. }) {
            return;
        }
        instance.state = InstanceState::Stopping;
        out.push(Action::Order(at, Order::Stop { why: why.to_owned() }));
    }

    /// Finds a place for a turn that has none.
    fn route(&mut self, id: TurnId, address: Option<usize>, key: Option<&str>, now: Instant, out: &mut Vec<Action>) {
        let loads: Vec<_> = self
            .instances
            .iter()
            .map(|instance| Load {
                alive: instance.state.is_alive(),
                turns: instance.queue.len()
                    + instance.planned
                    + usize::from(matches!(instance.state, InstanceState::Busy { .. })),
            })
            .collect();
        let chosen = match address {
            Some(at) => loads.get(at).filter(|load| load.alive).map(|_| at),
            None => self.router.choose(&loads, key),
        };
        let Some(at) = chosen else {
            let failure = self.no_instance(address);
            return self.finish_unrun(id, failure.into(), now, out);
        };
        let fixed = address.is_some() || self.router.is_final();
        if let Some(turn) = self.turns.get_mut(&id) {
            turn.place = Place::Waiting { planned: at, fixed };
        }
        out.push(Action::Planned(id, at));
        if fixed {
            self.instances[at].queue.push_back(id);
            self.fill(at, now, out);
        } else {
            self.instances[at].planned += 1;
            self.common.push_back(id);
            self.fill_any(at, now, out);
        }
    }

    /// Gives the next turn to this instance if it is idle, else to any that is.
    fn fill_any(&mut self, at: usize, now: Instant, out: &mut Vec<Action>) {
        let is_idle = |&at: &usize| self.instances[at].state == InstanceState::Idle;
        let idle = Some(at).filter(is_idle).or_else(|| (0..self.instances.len()).find(is_idle));
        self.fill(idle.unwrap_or(at), now, out);
    }

    fn no_instance(&self, address: Option<usize>) -> Failure {
        let last = match address {
            Some(at) => self.instances.get(at).and_then(|instance| instance.last_failure.clone()),
            None => self.instances.iter().find_map(|instance| instance.last_failure.clone()),
        };
        match last {
            Some(failure) => Failure { message: format!("no instance is left: {}", failure.message), ..failure },
            None => Failure::new(FailureKind::NotReady, "no instance is left"),
        }
    }

    /// In an on-demand pool: starts the instance that a turn waits for.
    fn wake(&mut self, at: usize, now: Instant, out: &mut Vec<Action>) {
        let instance = &mut self.instances[at];
        if self.rules.on_demand && instance.state == InstanceState::Down && instance.start_at.is_none() {
            instance.start_at = Some(now);
            self.start_due(now, out);
        }
    }

    /// Gives an idle instance its next turn.
    fn fill(&mut self, at: usize, now: Instant, out: &mut Vec<Action>) {
        if self.instances[at].state != InstanceState::Idle {
            return self.wake(at, now, out);
        }
        // The older one, so that neither queue can starve the other.
        let own = &mut self.instances[at].queue;
        let common_first = self.common.front().is_some_and(|common| own.front().is_none_or(|own| common < own));
        let next = if common_first { self.common.pop_front() } else { own.pop_front() };
        let Some(id) = next else { return };
        let Some(turn) = self.turns.get_mut(&id) else { return };
        if let Place::Waiting { planned, fixed: false } = turn.place {
            self.instances[planned].planned -= 1;
        }
        turn.place = Place::On { instance: at, stage: Stage::Given };
        let submission = &turn.submission;
        let work = Work {
            turn: id,
            commands: submission.commands.clone(),
            prompts: submission.prompts.clone(),
            mode: submission.mode,
            timeout: submission.timeout,
        };
        self.instances[at].state = InstanceState::Busy { turn: id };
        out.push(Action::Order(at, Order::Run(Box::new(work))));
    }

    fn available(&mut self, at: usize, now: Instant, out: &mut Vec<Action>) {
        let instance = &mut self.instances[at];
        let was_starting = instance.state == InstanceState::Starting;
        if instance.state == InstanceState::Stopping {
            return;
        }
        instance.state = InstanceState::Idle;
        if instance.restart && !was_starting {
            instance.restart = false;
            return self.stop(at, "restarted by hand", out);
        }
        instance.restart = false;
        if std::mem::take(&mut instance.restart_awaited) {
            out.push(Action::Restarted(at, Ok(())));
        }
        if let Some(why) = instance.recycle.take() {
            return self.stop(at, &format!("recycled: {why}"), out);
        }
        if was_starting {
            self.start_due(now, out);
        }
        self.fill(at, now, out);
    }

    fn held(&mut self, at: usize, id: TurnId, replies: Vec<ContextReply>, now: Instant, out: &mut Vec<Action>) {
        let Some(turn) = self.turns.get_mut(&id) else { return };
        if let Place::On { stage, .. } = &mut turn.place {
            match stage {
                // The order came while the commands were being answered, when there was nothing to let go yet.
                Stage::Released => out.push(Action::Order(at, Order::Release(id))),
                Stage::Given if turn.submission.prompts.is_empty() => *stage = Stage::Held(now),
                _ => {}
            }
        }
        for reply in replies {
            let mut response = self.response(id, Some(at), Outcome::Succeeded);
            match &reply.result {
                Ok(text) => response.answer.text = text.clone().into(),
                Err(failure) => response.outcome = failure.clone().into(),
            }
            response.preamble = vec![reply];
            out.push(Action::Acknowledge(Box::new(response)));
        }
    }

    /// The instance went down with the turn on its way to it. It may be up again by now, or given up.
    fn not_taken(&mut self, at: usize, id: TurnId, now: Instant, out: &mut Vec<Action>) {
        let Some(turn) = self.turns.get_mut(&id) else { return };
        let Place::On { stage, .. } = turn.place else { return };
        if stage == Stage::Released {
            self.forget(id);
            return out.push(Action::Closed(id));
        }
        if stage == Stage::Cancelled || self.phase != Phase::Open {
            return self.finish_unrun(id, Outcome::Cancelled, now, out);
        }
        let address = turn.submission.address;
        if !self.instances[at].state.is_alive() {
            let key = turn.submission.key.clone();
            return self.route(id, address, key.as_deref(), now, out);
        }
        let fixed = address.is_some() || self.router.is_final();
        turn.place = Place::Waiting { planned: at, fixed };
        if fixed {
            self.instances[at].queue.push_front(id);
            self.fill(at, now, out);
        } else {
            self.instances[at].planned += 1;
            self.common.push_front(id);
            self.fill_any(at, now, out);
        }
    }

    fn done(&mut self, at: usize, done: Done, now: Instant, out: &mut Vec<Action>) {
        let instance = &mut self.instances[at];
        instance.turns += 1;
        if done.outcome.is_success() {
            instance.supervisor.succeeded();
        }
        if matches!(instance.state, InstanceState::Busy { .. }) {
            instance.state = InstanceState::Resetting;
        }
        let Some(turn) = self.turns.get(&done.turn) else { return };
        let released = turn.submission.prompts.is_empty();
        let waited = (now - turn.submitted).saturating_sub(done.timings.turn);
        let mut response = self.response(done.turn, Some(at), done.outcome);
        for answer in &done.answers {
            response.usage.add(&answer.usage);
        }
        response.answer = done.answers.last().cloned().unwrap_or_default();
        response.turns = done.answers;
        response.preamble = done.replies;
        response.proof = done.proof;
        response.context_lost = done.context_lost;
        response.timings = Timings { queued: waited, ..done.timings };
        self.turns.remove(&done.turn);
        if released && response.outcome.is_success() {
            out.push(Action::Closed(done.turn));
        } else {
            self.finish(response, out);
        }
    }

    fn ended(&mut self, at: usize, why: String, failure: Option<Failure>, now: Instant, out: &mut Vec<Action>) {
        let jitter = self.jitter();
        let instance = &mut self.instances[at];
        let generation = instance.generation;
        instance.pid = None;
        instance.started = None;
        instance.recycle = None;
        let wanted = instance.state == InstanceState::Stopping || failure.is_none();
        instance.state = InstanceState::Down;
        out.push(Action::Emit(Event::InstanceEnded { instance: at, generation, why, failure: failure.clone() }));
        if self.phase != Phase::Open {
            self.start_due(now, out);
            return self.check_down(out);
        }
        let instance = &mut self.instances[at];
        let waited_for = !instance.queue.is_empty() || !self.common.is_empty() || instance.restart_awaited;
        let needed = !self.rules.on_demand || waited_for;
        instance.last_failure.clone_from(&failure);
        match failure {
            Some(failure) if !wanted => match instance.supervisor.failed(&failure, jitter) {
                Verdict::Restart(pause) => {
                    if needed {
                        instance.restarts += 1;
                        instance.start_at = Some(now + pause);
                    }
                }
                Verdict::Quarantine => self.quarantine(at, failure, now, out),
            },
            _ => {
                instance.restart = false;
                if needed {
                    instance.start_at = Some(now);
                }
            }
        }
        self.start_due(now, out);
    }

    fn quarantine(&mut self, at: usize, failure: Failure, now: Instant, out: &mut Vec<Action>) {
        let instance = &mut self.instances[at];
        instance.state = InstanceState::Quarantined { failure: failure.clone() };
        instance.start_at = None;
        if std::mem::take(&mut instance.restart_awaited) {
            out.push(Action::Restarted(at, Err(failure.clone())));
        }
        out.push(Action::Emit(Event::InstanceQuarantined { instance: at, failure }));
        // What waited for this instance alone goes to the others; what waits for any waits on while one lives.
        let orphans: Vec<_> = self.instances[at].queue.drain(..).collect();
        for id in orphans {
            let Some(turn) = self.turns.get(&id) else { continue };
            let (address, key) = (turn.submission.address, turn.submission.key.clone());
            self.route(id, address, key.as_deref(), now, out);
        }
        // In an on-demand pool nobody else may have been started for what waits for any.
        if !self.common.is_empty() {
            (0..self.instances.len()).for_each(|other| self.wake(other, now, out));
        }
        if self.hopeless().is_some() {
            let rest: Vec<_> = self.common.iter().copied().collect();
            for id in rest {
                let failure = self.no_instance(None);
                self.finish_unrun(id, failure.into(), now, out);
            }
        }
    }

    fn response(&self, turn: TurnId, instance: Option<usize>, outcome: Outcome) -> Response {
        Response {
            turn,
            tool: self.rules.tool.clone(),
            instance,
            generation: instance.map_or(0, |at| self.instances[at].generation),
            outcome,
            answer: Default::default(),
            turns: Vec::new(),
            preamble: Vec::new(),
            usage: Usage::default(),
            timings: Timings::default(),
            proof: None,
            context_lost: false,
        }
    }

    /// Ends a turn that never came to an instance.
    fn finish_unrun(&mut self, id: TurnId, outcome: Outcome, now: Instant, out: &mut Vec<Action>) {
        let Some(turn) = self.forget(id) else { return };
        let mut response = self.response(id, turn.submission.address, outcome);
        response.timings.queued = now - turn.submitted;
        self.finish(response, out);
    }

    fn forget(&mut self, id: TurnId) -> Option<Queued> {
        let turn = self.turns.remove(&id)?;
        if let Place::Waiting { planned, fixed } = turn.place
            && planned < self.instances.len()
        {
            if fixed {
                self.instances[planned].queue.retain(|queued| *queued != id);
            } else {
                self.instances[planned].planned -= 1;
                self.common.retain(|queued| *queued != id);
            }
        }
        Some(turn)
    }

    fn finish(&mut self, response: Response, out: &mut Vec<Action>) {
        if response.outcome.is_success() {
            self.succeeded += 1;
        } else {
            self.unsuccessful += 1;
        }
        out.push(Action::Emit(Event::TurnEnded {
            turn: response.turn,
            instance: response.instance,
            outcome: response.outcome.clone(),
            usage: response.usage.clone(),
            took: response.timings.turn,
        }));
        out.push(Action::Finish(Box::new(response)));
    }

    fn check_down(&mut self, out: &mut Vec<Action>) {
        let down =
            |instance: &Instance| matches!(instance.state, InstanceState::Down | InstanceState::Quarantined { .. });
        if self.phase == Phase::Closing && self.instances.iter().all(down) {
            self.phase = Phase::Down;
            out.push(Action::Down);
        }
    }

    /// A number in 0..1 that spreads restarts; it needs no more randomness than to differ.
    fn jitter(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        f64::from(u32::try_from(self.random >> 32).unwrap_or_default()) / f64::from(u32::MAX)
    }
}

fn shut_down() -> Failure {
    Failure::new(FailureKind::NotReady, "the pool is shut down")
}

#[cfg(test)]
#[path = "dispatcher_tests.rs"]
mod tests;
