//! Runs an instance's machine over a link: waits for orders, reports and deadlines, and carries out the actions.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use super::messages::{Notice, Order};
use super::state::{Action, Event, Machine, Rules};
use crate::driver::runtime::{Link, Recorder, Report};
use crate::error::{Failure, FailureKind};
use crate::process::TreeUsage;
use crate::tool::Contract;

/// How an instance is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its index.
    pub index: usize,
    /// What is launched.
    pub contract: Arc<Contract>,
    /// The machine's rules.
    pub rules: Rules,
    /// Where its record goes, if it is recorded.
    pub record: Option<PathBuf>,
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
    };
    tokio::spawn(actor.run(inbox));
    InstanceHandle { orders, link, generation }
}

/// A slot in a process, and what it reports.
struct Seat {
    link: Link,
    reports: mpsc::Receiver<Report>,
}

struct Actor {
    machine: Machine,
    settings: Settings,
    notices: mpsc::UnboundedSender<(usize, Notice)>,
    shared_link: Arc<std::sync::Mutex<Option<Link>>>,
    generation: Arc<AtomicU32>,
    seat: Option<Seat>,
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
                report = next_report(&mut self.seat) => Event::Report(report),
                () = until(deadline) => Event::Deadline,
            };
            self.take(event).await;
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
            Action::Launch => return Some(self.launch().await),
            Action::Request(request) => {
                if let Some(seat) = &self.seat {
                    seat.link.request(request).await;
                }
            }
            Action::Settle(began) => {
                let strays = match &self.seat {
                    Some(seat) => seat.link.end_strays(began).await,
                    None => Vec::new(),
                };
                return Some(Event::Settled(strays.into_iter().map(|stray| stray.command).collect()));
            }
            Action::StopProcess => {
                if let Some(seat) = &self.seat {
                    seat.link.stop();
                }
            }
            Action::KillProcess => {
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

    async fn launch(&mut self) -> Event {
        let generation = self.machine.generation();
        self.generation.store(generation, Ordering::Relaxed);
        let recorder = match &self.settings.record {
            Some(directory) => match Recorder::create(directory, self.settings.index, generation) {
                Ok(recorder) => Some(recorder),
                Err(error) => {
                    return Event::LaunchFailed(Failure::new(
                        FailureKind::BadInput,
                        format!("the record can't be written in {}: {error}", directory.display()),
                    ));
                }
            },
            None => None,
        };
        match Link::launch(Arc::clone(&self.settings.contract), recorder).await {
            Ok(link) => {
                let (slot, reports) = link.attach();
                let pid = link.pid();
                self.publish(Some(link.clone()));
                self.seat = Some(Seat { link, reports });
                Event::Launched(pid, slot)
            }
            Err(failure) => Event::LaunchFailed(failure),
        }
    }

    fn publish(&self, link: Option<Link>) {
        *self.shared_link.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = link;
    }
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

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
