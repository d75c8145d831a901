//! Runs an instance's machine over a link: waits for orders, reports and deadlines, and carries out the actions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::command::{self, CommandEnd};
use super::desk::Desk;
use super::messages::{Notice, Order};
use super::review::{Finding, Review, Reviewed, on_disk};
use super::state::{Action, Event, Machine, Rules};
use crate::driver::runtime::{Left, Link, Recorder, Report, Seat, SharedProcess};
use crate::error::{Failure, FailureKind};
use crate::process::TreeUsage;
use crate::tool::{Contract, ContractOptions, Definition};
use crate::workspace::{OUTER_GIT, Worktrees};

/// How long the command may run that sets a worktree up.
pub const SETUP_LIMIT: Duration = Duration::from_secs(15 * 60);

/// How an instance is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its index.
    pub index: usize,
    /// What is launched; in a worktree of its own where there are `places`.
    pub contract: Arc<Contract>,
    /// Where it gets a worktree; none: it works in the contract's directory.
    pub places: Option<Arc<Places>>,
    /// The machine's rules.
    pub rules: Rules,
    /// Where its record goes, if it is recorded. A process that instances share has the record of the one that started
    /// it.
    pub record: Option<PathBuf>,
    /// The process that the pool's instances share; none: each has its own.
    pub shared: Option<Arc<SharedProcess>>,
}

/// Where the instances of a pool get worktrees.
#[derive(Debug)]
pub struct Places {
    /// The worktrees.
    pub worktrees: Worktrees,
    /// Where in its worktree an instance works, from the top.
    pub within: PathBuf,
    /// What an instance's contract is made of, but for the directory.
    pub options: ContractOptions,
}

impl Places {
    /// Where an instance works.
    pub fn directory(&self, index: usize) -> PathBuf {
        // Without a `/` at its end.
        self.worktrees.root(index).join(&self.within).components().collect()
    }
}

/// The pool's end of an instance. Dropping it ends the instance and its process at once.
#[derive(Debug)]
pub struct InstanceHandle {
    orders: mpsc::UnboundedSender<Order>,
    link: Arc<std::sync::Mutex<Option<Link>>>,
    generation: Arc<AtomicU32>,
}

impl InstanceHandle {
    /// Gives an order. Orders are carried out one after the other; what comes of them are notices.
    pub fn order(&self, order: Order) {
        // The actor lives until this handle is dropped; the queue is bounded by the pool, which gives an instance one
        // turn at a time.
        let _ = self.orders.send(order);
    }

    /// Memory and CPU of the instance's process tree; none while it has no process.
    pub fn usage(&self) -> Option<TreeUsage> {
        let link = self.link.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        link.as_ref().map(Link::usage)
    }

    /// Which life this is, from 1; 0 before the first.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }
}

/// Makes an instance, down at first. Its notices go to `notices`, marked with its index.
pub fn spawn(settings: Settings, notices: mpsc::UnboundedSender<(usize, Notice)>) -> InstanceHandle {
    let (orders, inbox) = mpsc::unbounded_channel();
    let link = Arc::new(std::sync::Mutex::new(None));
    let generation = Arc::new(AtomicU32::new(0));
    let actor = Actor {
        machine: Machine::new(settings.rules.clone()),
        settings,
        notices,
        shared_link: Arc::clone(&link),
        generation: Arc::clone(&generation),
        seat: None,
        desk: None,
        launch: None,
        review: None,
    };
    tokio::spawn(actor.run(inbox));
    InstanceHandle { orders, link, generation }
}

struct Actor {
    machine: Machine,
    settings: Settings,
    notices: mpsc::UnboundedSender<(usize, Notice)>,
    shared_link: Arc<std::sync::Mutex<Option<Link>>>,
    generation: Arc<AtomicU32>,
    seat: Option<Seat>,
    desk: Option<Arc<Desk>>,
    launch: Option<Launching>,
    review: Option<Reviewing>,
}

/// A launch that is under way. It comes to its end in any case, so that no process is left half started.
struct Launching {
    stop: watch::Sender<bool>,
    /// Whether the process is to be ended at once when it is there.
    kill: bool,
    task: JoinHandle<Launched>,
}

/// What a launch came to.
struct Launched {
    /// The worktree, as far as it is made; it outlasts a process that could not be started.
    desk: Option<Arc<Desk>>,
    seat: Result<Seat, Failure>,
}

/// A review that is under way. Dropping it ends it.
struct Reviewing {
    stop: watch::Sender<bool>,
    task: JoinHandle<Reviewed>,
}

impl Drop for Reviewing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Actor {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Order>) {
        loop {
            let deadline = self.machine.deadline();
            let event = tokio::select! {
                order = inbox.recv() => match order {
                    Some(order) => Event::Order(order),
                    // The pool has let go: dropping the seat ends the process.
                    None => break,
                },
                launched = launched(&mut self.launch) => self.take_launched(launched),
                report = next_report(&mut self.seat) => Event::Report(report),
                found = reviewed(&mut self.review) => Event::Reviewed(Box::new(found)),
                () = until(deadline) => Event::Deadline,
                () = look_again(self.machine.watches()) => match &self.seat {
                    // In a shared process no work can be shown to be this turn's.
                    Some(_) if self.settings.shared.is_some() => Event::Cpu(Duration::ZERO),
                    Some(seat) => Event::Cpu(seat.link.usage().cpu),
                    None => continue,
                },
            };
            self.take(event).await;
        }
        self.stop_launch(true);
        if self.launch.is_some() {
            drop(launched(&mut self.launch).await);
        }
        self.seat = None;
        self.publish(None);
    }

    /// Handles an event, and the events that its own actions give rise to.
    async fn take(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            if matches!(event, Event::Report(Report::Gone(_))) {
                self.seat = None;
                self.publish(None);
            }
            for action in self.machine.handle(event, Instant::now()) {
                if let Some(event) = self.act(action).await {
                    next = Some(event);
                }
            }
        }
    }

    async fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Launch => self.start_launch(),
            Action::Request(request) => {
                if let Some(seat) = &self.seat {
                    seat.link.request(request);
                }
            }
            Action::Settle(began, strays) => {
                // In a shared process no commands are possible, and what was started is not known to be this turn's.
                let strays = match &self.seat {
                    Some(seat) if self.settings.shared.is_none() => seat.link.end_strays(began, strays).await,
                    _ => Vec::new(),
                };
                return Some(Event::Settled(strays.into_iter().map(|stray| stray.command).collect()));
            }
            Action::Review(review) => self.start_review(*review),
            Action::Tidy => {
                let tidied = match self.desk.clone() {
                    Some(desk) => on_disk(move || desk.tidy()).await,
                    None => Ok(()),
                };
                return Some(Event::Tidied(tidied));
            }
            Action::StopReview => {
                if let Some(review) = &self.review {
                    review.stop.send_replace(true);
                }
            }
            Action::StopProcess => {
                self.stop_launch(false);
                if let Some(seat) = &self.seat {
                    if let Some(shared) = &self.settings.shared {
                        shared.retire(&seat.link);
                    }
                    if seat.link.leave(seat.slot) == Left::Others {
                        let left =
                            Failure::new(FailureKind::Crashed { exit: None }, "it left the process that it shared");
                        return Some(Event::Report(Report::Gone(left)));
                    }
                }
            }
            Action::KillProcess => {
                self.stop_launch(true);
                if let Some(seat) = &self.seat {
                    seat.link.kill();
                }
            }
            Action::Tell(notice) => {
                let _ = self.notices.send((self.settings.index, notice));
            }
        }
        None
    }

    fn start_launch(&mut self) {
        let generation = self.machine.generation();
        self.generation.store(generation, Ordering::Relaxed);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(launch(self.settings.clone(), self.desk.clone(), generation, stopped));
        self.launch = Some(Launching { stop, kill: false, task });
    }

    /// Has a launch that is under way go no further than it must.
    fn stop_launch(&mut self, kill: bool) {
        if let Some(launch) = &mut self.launch {
            launch.kill |= kill;
            launch.stop.send_replace(true);
        }
    }

    fn take_launched(&mut self, (launched, kill): (Launched, bool)) -> Event {
        self.desk = launched.desk;
        match launched.seat {
            Ok(seat) => {
                let (pid, slot) = (seat.link.pid(), seat.slot);
                if kill {
                    seat.link.kill();
                }
                self.publish(Some(seat.link.clone()));
                self.seat = Some(seat);
                Event::Launched(pid, slot)
            }
            Err(failure) => Event::LaunchFailed(failure),
        }
    }

    fn start_review(&mut self, review: Review) {
        let (stop, stopped) = watch::channel(false);
        let look = review.carry_out(self.desk.clone(), self.settings.rules.cwd.clone(), stopped);
        let secrets = self.settings.contract.secrets();
        let look = async move {
            let mut found = look.await;
            if let Finding::Bad(failure) | Finding::Broken(failure) = &mut found.finding {
                secrets.hide_in(failure);
            }
            found
        };
        self.review = Some(Reviewing { stop, task: tokio::spawn(look) });
    }

    fn publish(&self, link: Option<Link>) {
        *self.shared_link.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = link;
    }
}

/// Gives an instance a process, and first a worktree that is as jobs are to find it, where it has one. Ends early, without a
/// process, when `stop` is true before one is started.
async fn launch(
    settings: Settings,
    mut desk: Option<Arc<Desk>>,
    generation: u32,
    stop: watch::Receiver<bool>,
) -> Launched {
    let seat = async {
        let contract = contract(&settings, &mut desk, stop.clone()).await?;
        if *stop.borrow() {
            return Err(Failure::new(FailureKind::NotReady, "it was stopped before its process was started"));
        }
        let recorder = || recorder(settings.record.as_deref(), settings.index, generation);
        match &settings.shared {
            Some(shared) => shared.join(contract, recorder).await,
            None => Link::launch(contract, recorder()?).await.map(|link| link.seat()),
        }
    };
    let seat = seat.await;
    Launched { desk, seat }
}

/// What is to be launched.
async fn contract(
    settings: &Settings,
    desk: &mut Option<Arc<Desk>>,
    stop: watch::Receiver<bool>,
) -> Result<Arc<Contract>, Failure> {
    let Some(places) = &settings.places else { return Ok(Arc::clone(&settings.contract)) };
    let cwd = settings.rules.cwd.clone();
    if let Some(there) = desk.clone() {
        let (index, shared) = (settings.index, Arc::clone(places));
        let is_back = on_disk(move || match there.reset() {
            Ok(()) => Ok(true),
            // A job has damaged it.
            Err(_) => shared.worktrees.give_up(index).map(|()| false),
        });
        if !is_back.await? {
            *desk = None;
        }
    }
    if desk.is_none() {
        let (index, shared) = (settings.index, Arc::clone(places));
        let mut worktree = on_disk(move || shared.worktrees.prepare(index)).await?;
        if let Some(setup) = places.worktrees.setup() {
            let (end, said) = command::run(setup, &cwd, &OUTER_GIT, SETUP_LIMIT, stop).await;
            if !matches!(&end, CommandEnd::Exited(exit) if exit.is_zero()) {
                let what = format!("the setup of its worktree, `{}`, {end}", command::shown(setup));
                // What it left half done is nobody's work, and must not keep the worktree from being removed.
                let _ = on_disk(move || worktree.reset(&[])).await;
                return Err(Failure::new(FailureKind::NotReady, what).with_stderr(said));
            }
            let shared = Arc::clone(places);
            worktree = on_disk(move || {
                worktree.begin_here(shared.worktrees.keep())?;
                Ok(worktree)
            })
            .await?;
        }
        *desk = Some(Arc::new(on_disk(move || Desk::new(worktree)).await?));
    }
    // Its repository is the worktree, also where a git that is under way (a hook, an alias) points its children elsewhere.
    let mut definition = Definition::clone(&settings.contract.definition);
    definition.unset_env.extend(OUTER_GIT.map(str::to_owned));
    let options = ContractOptions { cwd, ..places.options.clone() };
    Contract::resolve(Arc::new(definition), &settings.contract.program, &options).map(Arc::new)
}

fn recorder(directory: Option<&Path>, index: usize, generation: u32) -> Result<Option<Recorder>, Failure> {
    let Some(directory) = directory else { return Ok(None) };
    Recorder::create(directory, index, generation).map(Some).map_err(|error| {
        Failure::new(FailureKind::BadInput, format!("the record can't be written in {}: {error}", directory.display()))
    })
}

async fn next_report(seat: &mut Option<Seat>) -> Report {
    match seat {
        Some(seat) => match seat.reports.recv().await {
            Some(report) => report,
            None => Report::Gone(Failure::new(FailureKind::Crashed { exit: None }, "the link to the process broke")),
        },
        None => std::future::pending().await,
    }
}

/// The end of a launch that is under way, and whether its process is to be ended at once.
async fn launched(launch: &mut Option<Launching>) -> (Launched, bool) {
    let Some(under_way) = launch else { return std::future::pending().await };
    let launched = (&mut under_way.task).await;
    let kill = under_way.kill;
    *launch = None;
    let launched = launched.unwrap_or_else(|panic| {
        let failure = Failure::new(FailureKind::NotReady, format!("it can't be started: {panic}"));
        Launched { desk: None, seat: Err(failure) }
    });
    (launched, kill)
}

/// The end of a review that is under way.
async fn reviewed(review: &mut Option<Reviewing>) -> Reviewed {
    let Some(under_way) = review else { return std::future::pending().await };
    let found = (&mut under_way.task).await;
    *review = None;
    found.unwrap_or_else(|panic| {
        let failure = Failure::new(FailureKind::NotReady, format!("what the job did can't be looked at: {panic}"));
        Reviewed { change: None, value: None, finding: Finding::Broken(failure) }
    })
}

/// A part of the time in which nothing may move; never, where nothing is watched.
async fn look_again(stall: Option<Duration>) {
    match stall {
        Some(stall) => tokio::time::sleep((stall / 10).clamp(Duration::from_millis(50), Duration::from_secs(10))).await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
