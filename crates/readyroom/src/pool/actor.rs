//! Runs a pool's dispatcher over real instances.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::dispatcher::{Action, Addition, Dispatcher, Facts, Rules, Submission};
use super::gate::{Gate, Gates, Word};
use super::mailbox::{CallerId, Mailbox};
use super::response::{InstanceState, InstanceStatus, Response, Status};
use crate::driver::ContextReply;
use crate::driver::runtime::SharedProcess;
use crate::error::Failure;
use crate::event::{Event, TurnId};
use crate::instance::messages::{Notice, Order};
use crate::instance::{self, InstanceHandle, Places, Settings};
use crate::job::Context;
use crate::tool::{Contract, DriverKind, Limits};

/// How often ages and memory are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Idle tools are asked whether they still answer at every so many looks.
const PING_EVERY: u32 = 12;

/// How many events may wait for a slow listener before it loses the oldest.
const EVENTS: usize = 8192;

/// How a pool is made.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// What each instance is.
    pub contract: Arc<Contract>,
    /// How the pool is run.
    pub rules: Rules,
    /// Whether each turn starts in a new context.
    pub context: Context,
    /// A process for each turn.
    pub one_shot: bool,
    /// Where records go.
    pub record: Option<PathBuf>,
    /// How long nothing may move in a turn.
    pub stall: Option<Duration>,
    /// Where the instances get worktrees; none: all work in the contract's directory.
    pub places: Option<Arc<Places>>,
}

/// Where a turn's response goes.
#[derive(Debug)]
pub enum Sink {
    /// To the one who waits for this turn.
    Ticket(oneshot::Sender<Response>),
    /// To the caller's mail.
    Mailbox(CallerId),
}

/// What a pool is asked.
#[derive(Debug)]
pub enum Input {
    /// Run a turn. `planned` hears the instance that it is planned for.
    Submit {
        /// The turn.
        submission: Submission,
        /// Where its response goes.
        sink: Sink,
        /// Hears the planned instance; dropped where there is none.
        planned: Option<oneshot::Sender<usize>>,
        /// What it waits for on its instance.
        gate: Option<Gate>,
    },
    /// Add to an open turn; the reply says whether it was still open.
    Add(Addition, oneshot::Sender<bool>),
    /// Close an open turn.
    Release(TurnId),
    /// Cancel a turn.
    Cancel(TurnId),
    /// Cancel all turns.
    CancelAll,
    /// Restart an instance.
    Restart {
        /// Which.
        instance: usize,
        /// Without waiting for its turn's end.
        force: bool,
        /// Hears when it is ready again, or why it is not.
        reply: oneshot::Sender<Result<(), Failure>>,
    },
    /// Reply when no turn is queued or runs. Open turns without a prompt are closed.
    Drain(oneshot::Sender<()>),
    /// End everything in order; the reply has the number of turns that were dropped.
    Shutdown(oneshot::Sender<usize>),
    /// End everything at once.
    Kill,
    /// Tell the status.
    Status(oneshot::Sender<Status>),
}

/// Whether a pool's instances are ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// Instances that were ready at least once.
    pub ready: usize,
    /// Instances that were, or are quarantined: there is nothing to wait for.
    pub settled: usize,
    /// The last failure of each instance that has one.
    pub evidence: Vec<(usize, Failure)>,
    /// All instances are quarantined.
    pub hopeless: bool,
}

/// The cluster's end of a pool. When the last clone is dropped, everything is ended at once.
#[derive(Debug, Clone)]
pub struct PoolHandle {
    inputs: mpsc::UnboundedSender<Input>,
    /// Whether the instances are ready.
    pub readiness: watch::Receiver<Readiness>,
    /// The events, for subscription. They end when the pool is down.
    pub events: broadcast::WeakSender<Event>,
    /// The mail of callers without tickets.
    pub mailbox: Arc<Mailbox>,
    /// Turns that are queued, run, or wait to be read.
    pub pending: Arc<AtomicUsize>,
}

impl PoolHandle {
    /// Asks the pool. The queue is bounded by the cluster's limit on pending turns.
    pub fn input(&self, input: Input) {
        let _ = self.inputs.send(input);
    }

    /// The same, without keeping the pool alive.
    pub fn downgrade(&self) -> WeakPool {
        WeakPool { inputs: self.inputs.downgrade() }
    }
}

/// A ticket's end of a pool, which does not keep it alive.
#[derive(Debug, Clone)]
pub struct WeakPool {
    inputs: mpsc::WeakUnboundedSender<Input>,
}

impl WeakPool {
    /// Asks the pool, if it is still there.
    pub fn input(&self, input: Input) {
        if let Some(inputs) = self.inputs.upgrade() {
            let _ = inputs.send(input);
        }
    }
}

/// Starts a pool. Must be called within a tokio runtime.
pub fn start(settings: PoolSettings) -> PoolHandle {
    let (inputs, inbox) = mpsc::unbounded_channel();
    let (notices_in, notices) = mpsc::unbounded_channel();
    let (words_in, words) = mpsc::unbounded_channel();
    let (ready_in, readiness) = watch::channel(Readiness::default());
    let (events, _) = broadcast::channel(EVENTS);
    let mailbox = Arc::new(Mailbox::default());
    let pending = Arc::new(AtomicUsize::new(0));
    let limits = settings.contract.definition.limits.clone();
    let recycles = settings.context == Context::Fresh;
    let shares = !settings.one_shot && SharedProcess::fits(&settings.contract);
    let shared = shares.then(|| Arc::new(SharedProcess::default()));
    let instances = (0..settings.rules.count)
        .map(|index| {
            let instance = Settings { shared: shared.clone(), ..instance_settings(&settings, index, &limits) };
            instance::spawn(instance, notices_in.clone())
        })
        .collect();
    let actor = Actor {
        dispatcher: Dispatcher::new(settings.rules.clone()),
        instances,
        gates: Gates::new(words_in),
        limits: recycles.then_some(limits),
        sinks: HashMap::new(),
        riding: HashMap::new(),
        planned: HashMap::new(),
        drains: Vec::new(),
        restarts: HashMap::new(),
        shutdowns: Vec::new(),
        dropped: 0,
        ready: vec![false; settings.rules.count],
        ready_in,
        events: Some(events.clone()),
        mailbox: Arc::clone(&mailbox),
        pending: Arc::clone(&pending),
    };
    tokio::spawn(actor.run(inbox, notices, words));
    PoolHandle { inputs, readiness, events: events.downgrade(), mailbox, pending }
}

fn instance_settings(settings: &PoolSettings, index: usize, limits: &Limits) -> Settings {
    let contract = &settings.contract;
    // A fresh context is a new session, so that a limit on sessions is one on turns.
    let most = [limits.recycle_turns, limits.recycle_sessions].into_iter().filter(|most| *most > 0).min();
    let recycle_after = match (settings.one_shot, settings.context) {
        (true, _) => Some(1),
        (_, Context::Keep) => None,
        (_, Context::Fresh) => most.map(|most| spread(most, index)),
    };
    Settings {
        index,
        contract: Arc::clone(contract),
        places: settings.places.clone(),
        rules: instance::state::Rules {
            context: settings.context,
            permissions: contract.permissions,
            cwd: settings.places.as_ref().map_or_else(|| contract.cwd.clone(), |places| places.directory(index)),
            native_context: contract.definition.commands.native(),
            commands: contract.runs_commands(),
            converses: contract.definition.driver != DriverKind::Oneshot,
            worktree: settings.places.is_some(),
            stall: settings.stall,
            limits: limits.clone(),
            recycle_after,
        },
        record: settings.record.clone(),
        shared: None,
    }
}

/// Takes up to a fifth off a limit, differently for each instance, so that they are not recycled together.
fn spread(limit: u64, index: usize) -> u64 {
    let fraction = (index as f64 * 0.618_033_988_749_894_9).fract() / 5.0;
    ((limit as f64 * (1.0 - fraction)) as u64).max(1)
}

struct Actor {
    dispatcher: Dispatcher,
    instances: Vec<InstanceHandle>,
    gates: Gates,
    limits: Option<Limits>,
    sinks: HashMap<TurnId, Sink>,
    /// Answers to context commands of open turns that got their prompt before they were read.
    riding: HashMap<TurnId, Vec<ContextReply>>,
    planned: HashMap<TurnId, oneshot::Sender<usize>>,
    drains: Vec<oneshot::Sender<()>>,
    restarts: HashMap<usize, Vec<oneshot::Sender<Result<(), Failure>>>>,
    shutdowns: Vec<oneshot::Sender<usize>>,
    dropped: usize,
    ready: Vec<bool>,
    ready_in: watch::Sender<Readiness>,
    /// None when the pool is down.
    events: Option<broadcast::Sender<Event>>,
    mailbox: Arc<Mailbox>,
    pending: Arc<AtomicUsize>,
}

impl Actor {
    async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Input>,
        mut notices: mpsc::UnboundedReceiver<(usize, Notice)>,
        mut words: mpsc::UnboundedReceiver<Word>,
    ) {
        let actions = self.dispatcher.start(Instant::now());
        self.carry_out(actions);
        let mut look = tokio::time::interval(LOOK);
        let mut looks: u32 = 0;
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = self.dispatcher.next_tick();
            tokio::select! {
                input = inbox.recv() => match input {
                    Some(input) => self.take(input),
                    None => break,
                },
                Some((at, notice)) = notices.recv() => self.notice(at, notice),
                Some(word) = words.recv() => self.word(word),
                () = until(due) => {
                    let actions = self.dispatcher.tick(Instant::now());
                    self.carry_out(actions);
                }
                _ = look.tick() => {
                    self.look();
                    looks = looks.wrapping_add(1);
                    if looks.is_multiple_of(PING_EVERY) {
                        self.ping();
                    }
                }
            }
            if self.dispatcher.is_idle() {
                for drain in self.drains.drain(..) {
                    let _ = drain.send(());
                }
            }
        }
        self.mailbox.close();
    }

    fn take(&mut self, input: Input) {
        let now = Instant::now();
        let actions = match input {
            Input::Submit { submission, sink, planned, gate } => {
                if let Some(gate) = gate {
                    self.gates.add(submission.turn, gate);
                }
                self.sinks.insert(submission.turn, sink);
                if let Some(planned) = planned {
                    self.planned.insert(submission.turn, planned);
                }
                self.dispatcher.submit(submission, now)
            }
            Input::Add(addition, reply) => {
                let (turn, closes) = (addition.turn, !addition.prompts.is_empty());
                let (open, actions) = self.dispatcher.add(addition, now);
                if open && closes {
                    // From now on what its context commands were answered rides in the prompt's answer.
                    let unread = self.mailbox.take_acknowledgements(turn);
                    let unread = unread.into_iter().flat_map(|response| response.preamble).collect();
                    self.riding.insert(turn, unread);
                }
                let _ = reply.send(open);
                actions
            }
            Input::Release(turn) => {
                let mut actions = Vec::new();
                self.dispatcher.release(turn, &mut actions);
                actions
            }
            Input::Cancel(turn) => self.dispatcher.cancel(turn, now),
            Input::CancelAll => self.dispatcher.cancel_all(now).1,
            Input::Restart { instance, force, reply } => {
                self.restarts.entry(instance).or_default().push(reply);
                self.dispatcher.restart(instance, force, now)
            }
            Input::Drain(reply) => {
                self.drains.push(reply);
                self.dispatcher.release_open()
            }
            Input::Shutdown(reply) => {
                self.shutdowns.push(reply);
                let (dropped, actions) = self.dispatcher.close(now);
                self.dropped += dropped;
                actions
            }
            Input::Kill => {
                let (dropped, actions) = self.dispatcher.close(now);
                self.dropped += dropped;
                // After the orders to cancel, so that what runs ends as cancelled and not as crashed.
                self.carry_out(actions);
                for instance in &self.instances {
                    instance.order(Order::Kill);
                }
                return;
            }
            Input::Status(reply) => {
                let _ = reply.send(self.status());
                return;
            }
        };
        self.carry_out(actions);
    }

    fn notice(&mut self, at: usize, notice: Notice) {
        if matches!(notice, Notice::Available) && !self.ready[at] {
            self.ready[at] = true;
            self.tell_readiness();
        }
        let failed = matches!(&notice, Notice::Ended { failure: Some(_), .. });
        let actions = self.dispatcher.notice(at, notice, Instant::now());
        self.carry_out(actions);
        if failed {
            self.tell_readiness();
        }
    }

    fn tell_readiness(&self) {
        let facts = self.dispatcher.facts();
        let settled =
            |(facts, ready): &(&Facts, &bool)| **ready || matches!(facts.state, InstanceState::Quarantined { .. });
        self.ready_in.send_replace(Readiness {
            settled: facts.iter().zip(&self.ready).filter(settled).count(),
            ready: self.ready.iter().filter(|ready| **ready).count(),
            evidence: self.dispatcher.evidence(),
            hopeless: self.dispatcher.hopeless().is_some(),
        });
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Order(at, order) => {
                    if let Some(order) = self.gates.pass(at, order) {
                        self.instances[at].order(order);
                    }
                }
                Action::Planned(turn, at) => {
                    if let Some(planned) = self.planned.remove(&turn) {
                        let _ = planned.send(at);
                    }
                }
                Action::Finish(response) => self.finish(*response),
                Action::Acknowledge(response) => {
                    match (self.riding.get_mut(&response.turn), self.sinks.get(&response.turn)) {
                        (Some(riding), _) => riding.extend(response.preamble),
                        (None, Some(Sink::Mailbox(caller))) => self.mailbox.acknowledge(*caller, *response),
                        _ => {}
                    }
                }
                Action::Closed(turn) => {
                    if let Some(Sink::Mailbox(caller)) = self.sinks.remove(&turn) {
                        self.mailbox.forget(caller, turn);
                    }
                    self.planned.remove(&turn);
                    self.pending.fetch_sub(1, Ordering::Relaxed);
                }
                Action::Emit(event) => {
                    if let Some(events) = self.events.as_ref().filter(|events| events.receiver_count() > 0) {
                        let _ = events.send(event);
                    }
                }
                Action::Restarted(at, result) => {
                    for reply in self.restarts.remove(&at).unwrap_or_default() {
                        let _ = reply.send(result.clone());
                    }
                }
                Action::Down => {
                    self.events = None;
                    for reply in self.shutdowns.drain(..) {
                        let _ = reply.send(self.dropped);
                    }
                    self.mailbox.close();
                }
            }
        }
    }

    /// A gate has spoken. A turn that is not to run has ended, cancelled, with nothing of it sent.
    fn word(&mut self, (at, turn, runs): Word) {
        for order in self.gates.open(at, runs) {
            self.instances[at].order(order);
        }
        if !runs {
            let actions = self.dispatcher.stopped_at_gate(at, turn, Instant::now());
            self.carry_out(actions);
        }
    }

    fn finish(&mut self, mut response: Response) {
        self.gates.forget(response.turn);
        // Dropped when the response is where its caller looks for it.
        let _planned = self.planned.remove(&response.turn);
        match self.sinks.remove(&response.turn) {
            Some(Sink::Ticket(ticket)) => {
                self.pending.fetch_sub(1, Ordering::Relaxed);
                // A ticket that was dropped wants no answer.
                let _ = ticket.send(response);
            }
            Some(Sink::Mailbox(caller)) => {
                let mut riding = self.riding.remove(&response.turn).unwrap_or_default();
                riding.append(&mut response.preamble);
                response.preamble = riding;
                self.mailbox.finish(caller, response);
            }
            None => {}
        }
    }

    fn ping(&self) {
        for instance in &self.instances {
            instance.order(Order::Ping);
        }
    }

    /// Looks at ages and memory, and recycles what has grown too old or too large.
    fn look(&mut self) {
        let Some(limits) = &self.limits else { return };
        if limits.recycle_rss_mib == 0 && limits.recycle_seconds == 0 {
            return;
        }
        let now = Instant::now();
        let mut due = Vec::new();
        for (at, facts) in self.dispatcher.facts().iter().enumerate() {
            let age = facts.started.map_or(Duration::ZERO, |started| now - started).as_secs();
            if limits.recycle_seconds > 0 && age > spread(limits.recycle_seconds, at) {
                due.push((at, format!("{age} s old")));
            } else if limits.recycle_rss_mib > 0 {
                let rss = self.instances[at].usage().map_or(0, |usage| usage.rss_bytes) >> 20;
                if rss > spread(limits.recycle_rss_mib, at) {
                    due.push((at, format!("{rss} MiB resident")));
                }
            }
        }
        for (at, why) in due {
            let actions = self.dispatcher.recycle(at, &why);
            self.carry_out(actions);
        }
    }

    fn status(&self) -> Status {
        let now = Instant::now();
        let instance = |(index, facts): (usize, Facts)| {
            let usage = facts.pid.and_then(|_| self.instances[index].usage());
            InstanceStatus {
                index,
                generation: facts.generation,
                state: facts.state,
                pid: facts.pid,
                version: facts.version,
                turns: facts.turns,
                restarts: facts.restarts,
                queued: facts.queued,
                rss_bytes: usage.as_ref().map(|usage| usage.rss_bytes),
                cpu: usage.as_ref().map(|usage| usage.cpu),
                age: facts.started.map(|started| now - started),
                last_failure: facts.last_failure,
            }
        };
        let instances: Vec<_> = self.dispatcher.facts().into_iter().enumerate().map(instance).collect();
        let dead = instances.iter().filter(|status| matches!(status.state, InstanceState::Quarantined { .. })).count();
        let (queued, running, succeeded, unsuccessful) = self.dispatcher.counts();
        Status {
            tool: self.dispatcher.tool().to_owned(),
            alive: instances.len() - dead,
            dead,
            instances,
            queued,
            running,
            succeeded,
            unsuccessful,
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
