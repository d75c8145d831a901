//! The instance's state machine: events in, actions out, no I/O, no clock of its own.

mod ending;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::files;
use super::messages::{Done, Notice, Order, Work};
use super::review::{Finding, Review, Reviewed};
use super::turn::{Active, Cause, Ended, Moved, Process};
use crate::budget::Spent;
use crate::driver::runtime::{Report, Strays};
use crate::driver::{Activity, ContextReply, Proof, Request, Slot, Turn, TurnEnd, TurnStatus};
use crate::error::{Failure, FailureKind};
use crate::event::TurnId;
use crate::job::{Context, Outcome, Permissions};
use crate::tool::Limits;

/// A process that uses less than this part of one processor only waits.
const IDLE_SHARE: u32 = 50;

/// What the machine needs to know of its pool.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whether each turn starts in a new context.
    pub context: Context,
    /// The most that a turn may do.
    pub permissions: Permissions,
    /// Where the tool works.
    pub cwd: PathBuf,
    /// Whether the tool carries out context commands itself.
    pub native_context: bool,
    /// Whether the model can run commands here, which a turn may leave running.
    pub commands: bool,
    /// Whether the tool takes more than one prompt in a session; else its process ends with the turn.
    pub converses: bool,
    /// Whether the directory is in a worktree of the instance's own, where each job starts from the same files.
    pub worktree: bool,
    /// The tool's limits.
    pub limits: Limits,
    /// Cancel a turn in which nothing has moved for so long; none: never.
    pub stall: Option<Duration>,
    /// End the process after this many turns; none: never.
    pub recycle_after: Option<u64>,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The pool said something.
    Order(Order),
    /// The process was started, with this pid and in this slot of it.
    Launched(u32, Slot),
    /// The process could not be started.
    LaunchFailed(Failure),
    /// The link said something.
    Report(Report),
    /// The deadline that was set has passed.
    Deadline,
    /// What a turn had left running has been ended; the command lines.
    Settled(Vec<String>),
    /// The CPU time that the process tree has used, while a turn runs.
    Cpu(Duration),
    /// What a turn has done was looked at.
    Reviewed(Box<Reviewed>),
    /// The worktree is as jobs are to find it, or can't be brought back.
    Tidied(Result<(), Failure>),
}

/// Something to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Start a process; answer with [`Event::Launched`] or [`Event::LaunchFailed`].
    Launch,
    /// Ask the driver.
    Request(Request),
    /// End what the turn that began at this moment has left running; answer with [`Event::Settled`].
    Settle(Instant, Strays),
    /// Look at what a turn has done; answer with [`Event::Reviewed`].
    Review(Box<Review>),
    /// That takes too long, or is not wanted any more.
    StopReview,
    /// Take away what was written to the worktree since it was brought back; answer with [`Event::Tidied`].
    Tidy,
    /// End the process in order.
    StopProcess,
    /// End the process at once.
    KillProcess,
    /// Tell the pool.
    Tell(Notice),
}

#[derive(Debug)]
enum State {
    Down,
    Launching,
    Opening { since: Instant },
    Resetting { since: Instant },
    Tidying { since: Instant, proof: Proof },
    Idle,
    Preparing(Box<Active>),
    Holding(Box<Active>),
    Running(Box<Active>),
    Cancelling(Box<Active>, Cause),
    Settling(Box<Ended>),
    Reviewing(Box<Ended>),
    Stopping { why: String, failure: Option<Failure> },
}

/// The conversation that the next turn would find.
#[derive(Debug, Clone, PartialEq)]
enum Conversation {
    New(Proof),
    Continued,
}

/// An instance, as a machine.
#[derive(Debug)]
pub struct Machine {
    rules: Rules,
    state: State,
    conversation: Conversation,
    /// In `keep`: what was kept is lost, and the next response has to say so.
    lost: bool,
    /// The process is to be ended when the turn that is being cancelled is over; why.
    stop_after_turn: Option<String>,
    /// Whether the worktree holds no job's work: none has begun since it was brought back.
    cleared: bool,
    /// Whether the tool answers pings.
    pings: bool,
    slot: Slot,
    lives: u32,
    turns: u64,
    last_reset: Duration,
    deadline: Option<Instant>,
}

impl Machine {
    /// An instance that is down.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            state: State::Down,
            conversation: Conversation::Continued,
            lost: false,
            stop_after_turn: None,
            cleared: false,
            pings: false,
            slot: Slot(0),
            lives: 0,
            turns: 0,
            last_reset: Duration::ZERO,
            deadline: None,
        }
    }

    /// When [`Event::Deadline`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long nothing may move in the turn that runs, where one does.
    pub fn watches(&self) -> Option<Duration> {
        self.rules.stall.filter(|_| matches!(self.state, State::Running(_)))
    }

    /// Which life this is, from 1.
    pub fn generation(&self) -> u32 {
        self.lives
    }

    /// Takes an event at the moment `now`.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Order(order) => self.order(order, now, &mut out),
            Event::Launched(pid, slot) => self.launched(pid, slot, now, &mut out),
            Event::LaunchFailed(failure) => match std::mem::replace(&mut self.state, State::Down) {
                State::Stopping { why, failure } => self.down(why, failure, &mut out),
                _ => self.down("it could not be started".into(), Some(failure), &mut out),
            },
            Event::Report(report) => self.report(report, now, &mut out),
            Event::Deadline => self.late(now, &mut out),
            Event::Settled(strays) => self.settled(strays, now, &mut out),
            Event::Cpu(used) => self.moved(used, now, &mut out),
            Event::Reviewed(found) => self.reviewed(*found, now, &mut out),
            Event::Tidied(result) => self.tidied(result, now, &mut out),
        }
        out
    }

    fn enter(&mut self, state: State, deadline: Option<Instant>) {
        self.state = state;
        self.deadline = deadline;
    }

    fn order(&mut self, order: Order, now: Instant, out: &mut Vec<Action>) {
        match order {
            Order::Start => {
                if matches!(self.state, State::Down) {
                    self.lives += 1;
                    self.turns = 0;
                    self.lost = self.lives > 1 && self.rules.context == Context::Keep;
                    self.enter(State::Launching, None);
                    out.push(Action::Launch);
                }
            }
            Order::Run(work) => self.run(*work, now, out),
            Order::Add(work) => self.add(*work, now, out),
            Order::Release(turn) => {
                if matches!(&self.state, State::Holding(active) if active.work.turn == turn) {
                    let State::Holding(active) = std::mem::replace(&mut self.state, State::Idle) else { return };
                    self.finish(*active, Outcome::Succeeded, now, out);
                }
            }
            Order::Cancel(turn) => self.cancel(Some(turn), &Cause::Asked, now, out),
            Order::Stop { why } => {
                self.cancel(None, &Cause::Asked, now, out);
                match &self.state {
                    State::Down => {}
                    State::Stopping { .. } => out.push(Action::StopProcess),
                    State::Cancelling(..) | State::Settling(_) | State::Reviewing(_) => {
                        self.stop_after_turn = Some(why)
                    }
                    _ => self.stop(why, None, out),
                }
            }
            Order::Ping => {
                if self.pings && matches!(self.state, State::Idle) && self.deadline.is_none() {
                    self.deadline = seconds_after(now, self.rules.limits.reset_seconds);
                    out.push(Action::Request(Request::Ping));
                }
            }
            Order::Kill => {
                if !matches!(self.state, State::Down) {
                    out.push(Action::KillProcess);
                }
            }
        }
    }

    fn launched(&mut self, pid: u32, slot: Slot, now: Instant, out: &mut Vec<Action>) {
        self.slot = slot;
        self.cleared = true;
        out.push(Action::Tell(Notice::Started { pid }));
        match &self.state {
            State::Launching => self.deadline = seconds_after(now, self.rules.limits.ready_seconds),
            State::Stopping { .. } => out.push(Action::StopProcess),
            _ => {}
        }
    }

    fn run(&mut self, work: Work, now: Instant, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Idle => {
                let proof = match std::mem::replace(&mut self.conversation, Conversation::Continued) {
                    Conversation::New(proof) => Some(proof),
                    Conversation::Continued => None,
                };
                self.prepare(Active::new(work, proof, now), 0, now, out);
            }
            state => {
                // The instance went down while the work was on its way; the pool hands it out again.
                self.state = state;
                out.push(Action::Tell(Notice::NotTaken(work.turn)));
            }
        }
    }

    fn add(&mut self, mut work: Work, now: Instant, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Holding(mut active) if active.work.turn == work.turn => {
                let known = active.work.commands.len();
                active.work.commands.append(&mut work.commands);
                active.work.prompts = work.prompts;
                active.work.mode = work.mode;
                active.work.timeout = work.timeout;
                self.prepare(*active, known, now, out);
            }
            // What is added while the earlier commands are being answered waits for them.
            State::Preparing(mut active) if active.work.turn == work.turn => {
                active.work.commands.append(&mut work.commands);
                active.work.prompts = work.prompts;
                active.work.mode = work.mode;
                active.work.timeout = work.timeout;
                self.state = State::Preparing(active);
            }
            state => self.state = state,
        }
    }

    /// Carries out the context commands from number `from` on, then the prompts.
    fn prepare(&mut self, mut active: Active, from: usize, now: Instant, out: &mut Vec<Action>) {
        let commands = active.work.commands[from..].to_vec();
        if commands.is_empty() {
            self.prompt_or_hold(active, now, out);
        } else if self.rules.native_context {
            out.push(Action::Request(Request::Context { slot: self.slot, commands }));
            self.enter(State::Preparing(Box::new(active)), seconds_after(now, self.rules.limits.reset_seconds));
        } else {
            for command in commands {
                let result = files::carry_out(&command, &mut active.files, &self.rules.cwd);
                active.replies.push(ContextReply { command, result });
            }
            self.prompt_or_hold(active, now, out);
        }
    }

    fn prompt_or_hold(&mut self, active: Active, now: Instant, out: &mut Vec<Action>) {
        if let Some(failure) = active.replies.iter().find_map(|reply| reply.result.as_ref().err())
            && !active.work.prompts.is_empty()
        {
            let failure = failure.clone();
            return self.finish(active, failure.into(), now, out);
        }
        if active.work.prompts.is_empty() {
            let mut active = active;
            let replies = active.replies[active.told..].to_vec();
            active.told = active.replies.len();
            out.push(Action::Tell(Notice::Held { turn: active.work.turn, replies }));
            self.enter(State::Holding(Box::new(active)), None);
        } else {
            let mut active = active;
            active.began = now;
            out.push(Action::Tell(Notice::TurnStarted(active.work.turn)));
            self.begin(active, now, out);
        }
    }

    /// Looks whether anything moves: the turn is given up when neither its protocol nor its processes have for too long.
    fn moved(&mut self, used: Duration, now: Instant, out: &mut Vec<Action>) {
        let (State::Running(active), Some(stall)) = (&mut self.state, self.rules.stall) else { return };
        let since = now - active.moved.at;
        let worked = used.saturating_sub(active.moved.cpu);
        if worked * IDLE_SHARE > since {
            active.moved = Moved { at: now, cpu: used };
        } else if since >= stall {
            let turn = active.work.turn;
            self.cancel(Some(turn), &Cause::Stalled(stall), now, out);
        }
    }

    /// Gives the next prompt to the tool.
    fn begin(&mut self, active: Active, now: Instant, out: &mut Vec<Action>) {
        let prompt = active.work.prompts[active.answers.len()].clone();
        if prompt.trim().is_empty() {
            let failure = Failure::new(FailureKind::BadInput, "the prompt is empty");
            return self.finish(active, failure.into(), now, out);
        }
        let mut spent = Spent::default();
        active.answers.iter().for_each(|answer| spent += Spent::from(&answer.usage));
        if !active.answers.is_empty() && active.work.budget.is_spent(&spent) {
            let message = format!("its budget is spent: {} tokens, ${:.4}", spent.tokens, spent.usd);
            return self.finish(active, Failure::new(FailureKind::Budget, message).into(), now, out);
        }
        let files = if active.answers.is_empty() { active.files.clone() } else { Vec::new() };
        let last = active.answers.len() + 1 == active.work.prompts.len();
        let schema = active.work.checks.schema.clone().filter(|_| last);
        let turn = Turn { prompt, mode: active.work.mode, files, permissions: self.rules.permissions, schema };
        self.cleared = false;
        out.push(Action::Request(Request::Begin { slot: self.slot, turn }));
        let deadline = active.deadline();
        let active = Active { moved: Moved { at: now, cpu: active.moved.cpu }, ..active };
        self.enter(State::Running(Box::new(active)), deadline);
    }

    fn cancel(&mut self, turn: Option<TurnId>, cause: &Cause, now: Instant, out: &mut Vec<Action>) {
        let names = |active: &Active| turn.is_none_or(|turn| active.work.turn == turn);
        match std::mem::replace(&mut self.state, State::Down) {
            State::Running(active) if names(&active) => {
                out.push(Action::Request(Request::Cancel { slot: self.slot }));
                let deadline = seconds_after(now, self.rules.limits.cancel_seconds);
                self.enter(State::Cancelling(active, cause.clone()), deadline);
            }
            State::Holding(active) if names(&active) => {
                let outcome = active.stopped(cause);
                self.finish(*active, outcome, now, out);
            }
            // The context commands are short; their end shows the cancellation.
            State::Preparing(active) if names(&active) => {
                self.state = State::Cancelling(active, cause.clone());
            }
            State::Reviewing(mut ended) if names(&ended.active) => {
                if ended.outcome.is_success() {
                    ended.outcome = ended.active.stopped(cause);
                }
                out.push(Action::StopReview);
                self.enter(State::Reviewing(ended), None);
            }
            state => self.state = state,
        }
    }

    fn report(&mut self, report: Report, now: Instant, out: &mut Vec<Action>) {
        match report {
            Report::Ready { version, pings } => {
                if matches!(self.state, State::Launching) {
                    self.pings = pings;
                    out.push(Action::Tell(Notice::Ready { version }));
                    out.push(Action::Request(Request::Open { slot: self.slot, cwd: self.rules.cwd.clone() }));
                    self.enter(State::Opening { since: now }, seconds_after(now, self.rules.limits.ready_seconds));
                }
            }
            Report::Fresh(proof) => self.fresh(proof, now, out),
            Report::NotFresh(failure) => match self.state {
                State::Opening { .. } => self.stop("no conversation could be opened".into(), Some(failure), out),
                // No proof is no failure: the process is replaced by a new one.
                State::Resetting { .. } => self.stop(format!("recycled: {}", failure.message), None, out),
                _ => {}
            },
            Report::ContextDone(replies) => self.context_done(replies, now, out),
            Report::Pong => {
                if matches!(self.state, State::Idle) {
                    self.deadline = None;
                }
            }
            Report::Accepted => {}
            Report::Activity(activity) => {
                if let State::Running(active) | State::Cancelling(active, _) = &mut self.state {
                    active.moved.at = now;
                    if let Activity::Retrying { why, .. } = &activity {
                        active.announced.clone_from(why);
                    }
                    out.push(Action::Tell(Notice::Progress(active.work.turn, activity)));
                }
            }
            Report::Ended(end) => self.turn_ended(*end, now, out),
            Report::Anomaly(what) => out.push(Action::Tell(Notice::Anomaly(what))),
            Report::Gone(failure) => self.gone(failure, now, out),
        }
    }

    fn context_done(&mut self, replies: Vec<ContextReply>, now: Instant, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Preparing(mut active) => {
                active.replies.extend(replies);
                self.deadline = None;
                let known = active.replies.len();
                self.prepare_rest(*active, known, now, out);
            }
            State::Cancelling(active, cause) => {
                let outcome = active.stopped(&cause);
                self.finish(*active, outcome, now, out);
            }
            state => self.state = state,
        }
    }

    /// Goes on with commands that were added while earlier ones were being answered.
    fn prepare_rest(&mut self, active: Active, answered: usize, now: Instant, out: &mut Vec<Action>) {
        let from = answered.min(active.work.commands.len());
        self.prepare(active, from, now, out);
    }

    fn turn_ended(&mut self, end: TurnEnd, now: Instant, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Running(mut active) => {
                active.answers.push(end.answer);
                match end.status {
                    TurnStatus::Succeeded if active.answers.len() < active.work.prompts.len() => {
                        self.begin(*active, now, out);
                    }
                    TurnStatus::Succeeded => self.finish(*active, Outcome::Succeeded, now, out),
                    TurnStatus::Failed(failure) => self.finish(*active, failure.into(), now, out),
                    TurnStatus::Cancelled => self.finish(*active, Outcome::Cancelled, now, out),
                }
            }
            // Whatever the tool calls it: once we have asked it to stop, the turn was stopped.
            State::Cancelling(mut active, cause) => {
                active.answers.push(end.answer);
                let outcome = active.stopped(&cause);
                self.finish(*active, outcome, now, out);
            }
            state => self.state = state,
        }
    }

    fn late(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.deadline = None;
        let limits = &self.rules.limits;
        let late = |what: &str, seconds: u64| Failure::new(FailureKind::NotReady, format!("{what} within {seconds} s"));
        match &self.state {
            State::Launching | State::Opening { .. } => {
                let failure = late("the tool was not ready", limits.ready_seconds);
                self.enter(State::Stopping { why: failure.message.clone(), failure: Some(failure) }, None);
                out.push(Action::StopProcess);
            }
            State::Resetting { .. } => {
                let failure = late("the tool did not acknowledge its reset", limits.reset_seconds);
                self.stop(format!("recycled: {}", failure.message), None, out);
            }
            State::Preparing(active) => {
                let turn = active.work.turn;
                let after = Duration::from_secs(limits.reset_seconds);
                self.cancel(Some(turn), &Cause::Late(after), now, out);
                out.push(Action::KillProcess);
            }
            State::Running(active) => {
                let turn = active.work.turn;
                let after = active.work.timeout.unwrap_or_default();
                self.cancel(Some(turn), &Cause::Late(after), now, out);
            }
            State::Cancelling(..) => out.push(Action::KillProcess),
            State::Reviewing(ended) => {
                let turn = ended.active.work.turn;
                let after = ended.active.work.timeout.unwrap_or_default();
                self.cancel(Some(turn), &Cause::Late(after), now, out);
            }
            State::Idle => {
                let message = format!("the idle tool did not answer a ping within {} s", limits.reset_seconds);
                let failure = Failure::new(FailureKind::Stalled, message.clone());
                self.stop(message, Some(failure), out);
            }
            _ => {}
        }
    }

    fn stop(&mut self, why: String, failure: Option<Failure>, out: &mut Vec<Action>) {
        self.enter(State::Stopping { why, failure }, None);
        out.push(Action::StopProcess);
    }

    fn gone(&mut self, failure: Failure, now: Instant, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Preparing(active) | State::Holding(active) => {
                out.push(Action::Tell(Notice::NotBegun { turn: active.work.turn, failure: failure.clone() }));
                self.down("its process ended before a turn's prompt".into(), Some(failure), out);
            }
            State::Running(active) => {
                self.finish_gone(*active, failure.clone().into(), failure, now, out);
            }
            State::Cancelling(active, cause) => {
                let outcome = active.stopped(&cause);
                self.finish_gone(*active, outcome, failure, now, out);
            }
            State::Settling(mut ended) => {
                ended.process = Process::Gone(failure);
                self.review(*ended, now, out);
            }
            State::Reviewing(mut ended) => {
                ended.process = Process::Gone(failure);
                self.state = State::Reviewing(ended);
            }
            State::Stopping { why, failure } => self.down(why, failure, out),
            State::Down => {}
            State::Launching | State::Opening { .. } => {
                let kind = match &failure.kind {
                    FailureKind::Crashed { .. } => FailureKind::NotReady,
                    other => other.clone(),
                };
                let message = match failure.kind {
                    FailureKind::Crashed { .. } => format!("{} before it was ready", failure.message),
                    _ => failure.message,
                };
                self.down(message.clone(), Some(Failure { kind, message, evidence: failure.evidence }), out);
            }
            State::Resetting { .. } | State::Tidying { .. } | State::Idle => {
                self.down(failure.message.clone(), Some(failure), out);
            }
        }
    }

    fn down(&mut self, why: String, failure: Option<Failure>, out: &mut Vec<Action>) {
        self.enter(State::Down, None);
        if self.rules.worktree && self.cleared {
            out.push(Action::Tidy);
        }
        out.push(Action::Tell(Notice::Ended { why, failure }));
    }
}

/// None where the clock does not reach so far: a limit that large is none.
fn seconds_after(now: Instant, seconds: u64) -> Option<Instant> {
    now.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
