//! The dispatcher with real instance machines over simulated processes, in any order of events that can occur: every
//! turn ends exactly once, no success is told of a prompt that never ran, and none runs without its turn's files.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::dispatcher::{Action, Addition, Dispatcher, Rules, Submission};
use super::router::Routing;
use crate::driver::runtime::Report;
use crate::driver::{ContextCommand, ContextReply, Proof, Request, Slot, TurnEnd, TurnStatus};
use crate::error::{Failure, FailureKind};
use crate::event::TurnId;
use crate::instance::messages::{Notice, Order};
use crate::instance::review::{Finding, Reviewed};
use crate::instance::state::{self, Machine};
use crate::job::{Answer, Context, Mode, Permissions};
use crate::tool::Limits;

/// What the processes do, drawn anew for each thing that they are asked.
type Luck = VecDeque<u8>;

struct Life {
    machine: Machine,
    orders: VecDeque<Order>,
    reports: VecDeque<Report>,
    alive: bool,
    /// What was added to the conversation that is open.
    added: Vec<ContextCommand>,
    /// A prompt that runs and has no end yet.
    hangs: bool,
}

struct World {
    dispatcher: Dispatcher,
    lives: Vec<Life>,
    notices: VecDeque<(usize, Notice)>,
    now: Instant,
    luck: Luck,
    submitted: u64,
    open: HashSet<TurnId>,
    /// Those that began with a file, by their prompts.
    with_file: HashSet<String>,
    /// Answers to commands that were told, by turn.
    told: HashMap<TurnId, usize>,
    /// Context commands, by turn.
    asked: HashMap<TurnId, usize>,
    ends: HashMap<TurnId, usize>,
    began: HashSet<String>,
    restarts: usize,
    down: bool,
}

fn crash() -> Failure {
    Failure::new(FailureKind::Crashed { exit: None }, "it crashed")
}

impl World {
    fn new(count: usize, routing: Routing, context: Context, on_demand: bool, luck: Luck) -> Self {
        let now = Instant::now();
        let rules = state::Rules {
            context,
            permissions: Permissions::Edit,
            cwd: "/".into(),
            native_context: true,
            commands: true,
            converses: true,
            stall: None,
            worktree: context == Context::Fresh,
            limits: Limits::default(),
            recycle_after: on_demand.then_some(1),
        };
        let life = || Life {
            machine: Machine::new(rules.clone()),
            orders: VecDeque::new(),
            reports: VecDeque::new(),
            alive: false,
            added: Vec::new(),
            hangs: false,
        };
        let hold = Duration::from_secs(60);
        let rules = Rules { tool: "echo".into(), count, routing, starts_at_once: 2, on_demand, hold, blind: false };
        let mut world = Self {
            dispatcher: Dispatcher::new(rules),
            lives: (0..count).map(|_| life()).collect(),
            notices: VecDeque::new(),
            now,
            luck,
            submitted: 0,
            open: HashSet::new(),
            with_file: HashSet::new(),
            told: HashMap::new(),
            asked: HashMap::new(),
            ends: HashMap::new(),
            began: HashSet::new(),
            restarts: 0,
            down: false,
        };
        let actions = world.dispatcher.start(now);
        world.pool(actions);
        world
    }

    /// Whether something goes wrong this time: once in eight.
    fn unlucky(&mut self) -> bool {
        self.luck.pop_front().is_some_and(|luck| luck.is_multiple_of(8))
    }

    fn pool(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Order(at, order) => self.lives[at].orders.push_back(order),
                Action::Finish(response) => {
                    let prompt = format!("prompt {}", response.turn);
                    assert!(!response.ok() || self.began.contains(&prompt), "{prompt} succeeded and never ran");
                    *self.told.entry(response.turn).or_default() += response.preamble.len();
                    self.end(response.turn);
                }
                Action::Closed(turn) => {
                    assert!(self.open.contains(&turn), "{turn} was closed with its prompt");
                    self.end(turn);
                }
                Action::Restarted(..) => self.restarts = 0,
                Action::Down => self.down = true,
                Action::Acknowledge(response) => *self.told.entry(response.turn).or_default() += 1,
                Action::Planned(..) | Action::Emit(_) => {}
            }
        }
    }

    fn end(&mut self, turn: TurnId) {
        self.open.remove(&turn);
        *self.ends.entry(turn).or_default() += 1;
    }

    fn instance(&mut self, at: usize, event: state::Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.lives[at].machine.handle(event, self.now) {
                self.act(at, action, &mut events);
            }
        }
    }

    fn act(&mut self, at: usize, action: state::Action, events: &mut VecDeque<state::Event>) {
        let unlucky = self.unlucky();
        let life = &mut self.lives[at];
        let ended = |status| Report::Ended(Box::new(TurnEnd { status, answer: Answer::default() }));
        match action {
            state::Action::Launch if unlucky => events.push_back(state::Event::LaunchFailed(crash())),
            state::Action::Launch => {
                (life.alive, life.hangs) = (true, false);
                life.reports = VecDeque::from([Report::Ready { version: None, pings: true }]);
                events.push_back(state::Event::Launched(1, Slot(0)));
            }
            state::Action::Settle(..) => events.push_back(state::Event::Settled(Vec::new())),
            state::Action::Review(_) => {
                let finding = Finding::Good;
                events.push_back(state::Event::Reviewed(Box::new(Reviewed { change: None, value: None, finding })));
            }
            state::Action::StopReview => {}
            state::Action::Tidy => events.push_back(state::Event::Tidied(Ok(()))),
            state::Action::StopProcess | state::Action::KillProcess => self.gone(at),
            state::Action::Tell(notice) => self.notices.push_back((at, notice)),
            state::Action::Request(_) if !life.alive => {}
            state::Action::Request(request) => match request {
                Request::Open { .. } | Request::Reset { .. } if unlucky => {
                    life.reports.push_back(Report::NotFresh(crash()))
                }
                Request::Open { .. } | Request::Reset { .. } => {
                    life.added.clear();
                    life.reports.push_back(Report::Fresh(Proof::NewSession("s".into())));
                }
                Request::Context { commands, .. } => {
                    life.added.extend_from_slice(&commands);
                    let reply = |command| ContextReply { command, result: Ok(String::new()) };
                    life.reports.push_back(Report::ContextDone(commands.into_iter().map(reply).collect()));
                }
                Request::Begin { turn, .. } => {
                    assert!(self.began.insert(turn.prompt.clone()), "{} ran twice", turn.prompt);
                    let has_file = life.added.contains(&ContextCommand::Add("a".into()));
                    assert!(has_file || !self.with_file.contains(&turn.prompt), "{} ran without its file", turn.prompt);
                    match unlucky {
                        true => life.hangs = true,
                        false => life.reports.push_back(ended(TurnStatus::Succeeded)),
                    }
                }
                Request::Cancel { .. } if life.hangs && !unlucky => {
                    life.hangs = false;
                    life.reports.push_back(ended(TurnStatus::Cancelled));
                }
                Request::Ping if !unlucky => life.reports.push_back(Report::Pong),
                _ => {}
            },
        }
    }

    /// The process of an instance ends; what it said before is still heard.
    fn gone(&mut self, at: usize) {
        let life = &mut self.lives[at];
        if std::mem::take(&mut life.alive) {
            life.reports.push_back(Report::Gone(crash()));
        }
    }

    fn submit(&mut self, open: bool, address: Option<usize>) {
        self.submitted += 1;
        let turn = TurnId(self.submitted);
        let submission = Submission {
            turn,
            commands: if open { vec![ContextCommand::Add("a".into())] } else { Vec::new() },
            told: 0,
            prompts: if open { Vec::new() } else { vec![format!("prompt {turn}")] },
            mode: Mode::Default,
            timeout: Some(Duration::from_secs(10)),
            checks: std::sync::Arc::default(),
            budget: crate::Budget::default(),
            key: Some(format!("key {}", self.submitted % 3)),
            address,
            avoid: self.submitted.is_multiple_of(4).then_some((self.submitted / 4 % 4) as usize),
        };
        if open {
            self.open.insert(turn);
            self.with_file.insert(format!("prompt {turn}"));
            self.asked.insert(turn, 1);
        }
        let actions = self.dispatcher.submit(submission, self.now);
        self.pool(actions);
    }

    fn add(&mut self, turn: TurnId, prompt: bool) {
        let addition = Addition {
            turn,
            commands: if prompt { Vec::new() } else { vec![ContextCommand::Add("b".into())] },
            prompts: if prompt { vec![format!("prompt {turn}")] } else { Vec::new() },
            mode: Mode::Default,
            timeout: Some(Duration::from_secs(10)),
        };
        let commands = addition.commands.len();
        let (added, actions) = self.dispatcher.add(addition, self.now);
        if added {
            *self.asked.entry(turn).or_default() += commands;
        }
        if added && prompt {
            self.open.remove(&turn);
        }
        self.pool(actions);
    }

    fn step(&mut self, what: u8, which: u8) {
        let at = usize::from(which) % self.lives.len();
        let turn = TurnId(u64::from(which) % (self.submitted + 1));
        match what % 16 {
            0 => self.submit(false, None),
            1 => self.submit(false, Some(at)),
            2 => self.submit(true, None),
            3 | 4 if self.open.contains(&turn) => self.add(turn, what % 16 == 3),
            5 => {
                let mut actions = Vec::new();
                self.dispatcher.release(turn, &mut actions);
                self.pool(actions);
            }
            6 => {
                let actions = self.dispatcher.cancel(turn, self.now);
                self.pool(actions);
            }
            7 => self.gone(at),
            8 if which.is_multiple_of(4) => {
                self.restarts += 1;
                let actions = self.dispatcher.restart(at, which.is_multiple_of(8), self.now);
                self.pool(actions);
            }
            8 => {
                let actions = self.dispatcher.recycle(at, "old");
                self.pool(actions);
            }
            9 => self.lives[at].orders.push_back(Order::Ping),
            10 => drop(self.wait()),
            11 | 12 => drop(self.deliver_to(at)),
            _ => drop(self.notice()),
        }
    }

    fn notice(&mut self) -> bool {
        let Some((at, notice)) = self.notices.pop_front() else { return false };
        let actions = self.dispatcher.notice(at, notice, self.now);
        self.pool(actions);
        true
    }

    /// One order or report, whichever luck has first.
    fn deliver_to(&mut self, at: usize) -> bool {
        let order_first = self.luck.pop_front().is_none_or(|luck| luck.is_multiple_of(2));
        let life = &mut self.lives[at];
        let event = if order_first || life.reports.is_empty() {
            life.orders.pop_front().map(state::Event::Order)
        } else {
            None
        };
        let Some(event) = event.or_else(|| life.reports.pop_front().map(state::Event::Report)) else { return false };
        self.instance(at, event);
        true
    }

    /// Lets the time pass until the next thing is due.
    fn wait(&mut self) -> bool {
        let tick = self.dispatcher.next_tick();
        let deadlines = self.lives.iter().filter_map(|life| life.machine.deadline());
        let Some(due) = deadlines.chain(tick).min() else { return false };
        self.now = self.now.max(due);
        for at in 0..self.lives.len() {
            if self.lives[at].machine.deadline().is_some_and(|deadline| deadline <= self.now) {
                self.instance(at, state::Event::Deadline);
            }
        }
        let actions = self.dispatcher.tick(self.now);
        self.pool(actions);
        true
    }

    /// Lets everything happen that is going to.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut moved = self.notice();
            for at in 0..self.lives.len() {
                moved |= self.deliver_to(at);
            }
            if !moved && !self.wait() {
                return;
            }
        }
        panic!("it never comes to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_turn_ends_once(
        steps in prop::collection::vec(any::<(u8, u8)>(), 0..150),
        luck in prop::collection::vec(any::<u8>(), 0..300),
        count in 1usize..4,
        routing in prop::sample::select(vec![Routing::RoundRobin, Routing::LeastBusy, Routing::Sticky]),
        keep in any::<bool>(),
        on_demand in any::<bool>(),
        close in any::<bool>(),
    ) {
        let context = if keep { Context::Keep } else { Context::Fresh };
        let mut world = World::new(count, routing, context, on_demand, luck.into());
        for (what, which) in steps {
            world.step(what, which);
        }
        if close {
            let (_, actions) = world.dispatcher.close(world.now);
            world.pool(actions);
        }
        world.settle();
        prop_assert!(!close || world.down);
        prop_assert_eq!(world.restarts, 0, "a restart was never answered");
        prop_assert!(world.dispatcher.is_idle());
        for (turn, told) in &world.told {
            prop_assert!(told <= world.asked.get(turn).unwrap_or(&0), "{turn}: an answer was told twice");
        }
        for turn in 1..=world.submitted {
            prop_assert_eq!(world.ends.get(&TurnId(turn)).copied(), Some(1), "turn {}", turn);
        }
    }
}
