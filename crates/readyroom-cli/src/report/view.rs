//! What a run looks like at a moment: every event folds into it, and the bars and the table at the end read it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use readyroom::event::TurnId;
use readyroom::{Event, Usage};

use super::Ended;
use crate::plan::Plan;

/// A moment of a run.
#[derive(Debug)]
pub struct View {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Whether each job has a process of its own.
    pub one_shot: bool,
    /// When the run began.
    pub began: Instant,
    /// When the first job started.
    pub first_start: Option<Instant>,
    /// Outcomes by name, in the order in which they first came.
    pub outcomes: Vec<(&'static str, usize)>,
    /// What all jobs used.
    pub usage: Usage,
    /// The instances of all pools, in order.
    pub rows: Vec<Row>,
    /// Jobs that have ended.
    pub done: usize,
    /// Jobs that have ended and did not succeed.
    pub failed: usize,
    /// Time in turns, from the prompt's sending to the turn's end.
    pub in_turns: Duration,
    /// Time of proving contexts fresh.
    pub in_resets: Duration,
    /// Time until instances were ready.
    pub in_starts: Duration,
    /// Why nothing more is handed out.
    pub stopping: Option<String>,
    running: HashMap<(usize, TurnId), usize>,
    places: BTreeMap<(usize, usize), usize>,
}

/// An instance.
#[derive(Debug, Clone)]
pub struct Row {
    /// The pool, by place.
    pub pool: usize,
    /// Its name: the tool and the stable index.
    pub name: String,
    /// What it does.
    pub state: RowState,
    /// Turns that ended on it.
    pub turns: u64,
    /// How often it was started again.
    pub restarts: u64,
    started: Option<Instant>,
}

/// What an instance does.
#[derive(Debug, Clone, PartialEq)]
pub enum RowState {
    /// Its pool has not been opened yet.
    Waiting,
    /// Its process was started.
    Starting(Instant),
    /// It waits for a turn.
    Ready,
    /// A job runs on it.
    Working {
        /// The job, by place.
        job: usize,
        /// When it began there.
        since: Instant,
    },
    /// Its life ended; another one may follow.
    Down(String),
    /// It stays down.
    Quarantined(String),
    /// Its pool is shut down.
    Closed,
}

impl View {
    /// The moment before anything has happened.
    pub fn new(plan: Arc<Plan>, one_shot: bool, now: Instant) -> Self {
        let mut rows = Vec::new();
        let mut places = BTreeMap::new();
        for (pool, planned) in plan.pools.iter().enumerate() {
            // Pools of the same tool are told apart by a letter.
            let same = |other: &&crate::plan::Pool| other.kind.tool == planned.kind.tool;
            let letter = if plan.pools.iter().filter(same).count() > 1 {
                suffix(plan.pools[..pool].iter().filter(same).count())
            } else {
                String::new()
            };
            for index in 0..planned.instances {
                places.insert((pool, index), rows.len());
                rows.push(Row {
                    pool,
                    name: format!("{}{letter} {index}", planned.kind.tool),
                    state: RowState::Waiting,
                    turns: 0,
                    restarts: 0,
                    started: None,
                });
            }
        }
        Self {
            plan,
            one_shot,
            began: now,
            first_start: None,
            outcomes: Vec::new(),
            usage: Usage::default(),
            rows,
            done: 0,
            failed: 0,
            in_turns: Duration::ZERO,
            in_resets: Duration::ZERO,
            in_starts: Duration::ZERO,
            stopping: None,
            running: HashMap::new(),
            places,
        }
    }

    /// The instance's row.
    pub fn row(&self, pool: usize, instance: usize) -> Option<&Row> {
        self.places.get(&(pool, instance)).map(|&place| &self.rows[place])
    }

    /// A job was handed to a pool under this turn's number.
    pub fn submitted(&mut self, job: usize, pool: usize, turn: TurnId) {
        self.running.insert((pool, turn), job);
    }

    /// The job of a turn that was handed out and has not ended.
    pub fn job(&self, pool: usize, turn: TurnId) -> Option<usize> {
        self.running.get(&(pool, turn)).copied()
    }

    /// The pool is being opened.
    pub fn opening(&mut self, pool: usize, now: Instant) {
        for row in self.rows.iter_mut().filter(|row| row.pool == pool && row.state == RowState::Waiting) {
            row.state = RowState::Starting(now);
        }
    }

    /// The pool is shut down.
    pub fn closed(&mut self, pool: usize) {
        for row in self.rows.iter_mut().filter(|row| row.pool == pool) {
            row.state = RowState::Closed;
        }
    }

    /// Folds an event of a pool.
    pub fn event(&mut self, pool: usize, event: &Event, now: Instant) {
        let at = |instance: &usize| self.places.get(&(pool, *instance)).copied();
        match event {
            Event::InstanceStarted { instance, generation, .. } => {
                if let Some(place) = at(instance) {
                    let row = &mut self.rows[place];
                    row.restarts = row.restarts.max(u64::from(generation.saturating_sub(1)));
                    row.started = Some(now);
                    if !matches!(row.state, RowState::Working { .. }) {
                        row.state = RowState::Starting(now);
                    }
                }
            }
            Event::InstanceReady { instance, took, .. } => {
                if let Some(place) = at(instance) {
                    let row = &mut self.rows[place];
                    if row.started.take().is_some() {
                        self.in_starts += *took;
                    }
                    if !matches!(row.state, RowState::Working { .. }) {
                        row.state = RowState::Ready;
                    }
                }
            }
            Event::InstanceEnded { instance, why, .. } => {
                if let Some(place) = at(instance)
                    && self.rows[place].state != RowState::Closed
                {
                    self.rows[place].state = RowState::Down(why.clone());
                }
            }
            Event::InstanceQuarantined { instance, failure } => {
                if let Some(place) = at(instance) {
                    self.rows[place].state = RowState::Quarantined(failure.to_string());
                }
            }
            Event::ContextProven { took, .. } => self.in_resets += *took,
            Event::TurnStarted { turn, instance, .. } => {
                self.first_start.get_or_insert(now);
                if let (Some(place), Some(job)) = (at(instance), self.job(pool, *turn)) {
                    self.rows[place].state = RowState::Working { job, since: now };
                }
            }
            Event::TurnEnded { turn, instance: Some(instance), .. } => {
                let job = self.running.remove(&(pool, *turn));
                if let Some(place) = self.places.get(&(pool, *instance)) {
                    let row = &mut self.rows[*place];
                    if matches!(row.state, RowState::Working { job: running, .. } if Some(running) == job) {
                        row.state = RowState::Ready;
                    }
                }
            }
            Event::TurnEnded { turn, instance: None, .. } => {
                self.running.remove(&(pool, *turn));
            }
            _ => {}
        }
    }

    /// Counts the end of a job.
    pub fn ended(&mut self, ended: &Ended) {
        let name = ended.outcome.name();
        match self.outcomes.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => self.outcomes.push((name, 1)),
        }
        self.done += 1;
        self.failed += usize::from(!ended.outcome.is_success());
        self.usage.add(&ended.usage);
        self.in_turns += ended.timings.turn;
        // Counted here and not by events, which may be late when the run is over.
        let pool = self.plan.jobs[ended.job].pool;
        if let Some(&place) = ended.instance.and_then(|instance| self.places.get(&(pool, instance))) {
            self.rows[place].turns += ended.turns.len().max(1) as u64;
        }
    }

    /// How long the rest may take, by the pace so far: known once a job has ended.
    pub fn time_left(&self, now: Instant) -> Option<Duration> {
        let left = self.plan.jobs.len().checked_sub(self.done)?;
        let worked = now.checked_duration_since(self.first_start?)?;
        let pace = worked.checked_div(u32::try_from(self.done).ok()?)?;
        Some(pace * u32::try_from(left).ok()?)
    }
}

/// `a`, `b`, ... `z`, `aa`, ...
fn suffix(mut place: usize) -> String {
    let mut letters = Vec::new();
    loop {
        letters.push(b'a' + u8::try_from(place % 26).unwrap_or(0));
        place /= 26;
        if place == 0 {
            break;
        }
        place -= 1;
    }
    format!("/{}", letters.iter().rev().map(|&letter| char::from(letter)).collect::<String>())
}

#[cfg(test)]
pub mod tests {
    use std::path::PathBuf;

    use readyroom::{Job, Outcome, Permissions};

    use super::*;
    use crate::plan::{Planned, Pool, PoolKind};

    /// A plan of one pool with these inputs.
    pub fn plan(tool: &str, instances: usize, inputs: &[&str]) -> Arc<Plan> {
        let kind = PoolKind {
            tool: tool.into(),
            model: None,
            permissions: Permissions::Edit,
            directory: PathBuf::from("/work"),
            worktree: false,
        };
        let jobs = inputs.iter().enumerate().map(|(place, input)| Planned {
            number: place + 1,
            id: None,
            input: Some((*input).to_owned()),
            pool: 0,
            output: None,
            job: Job::new(format!("see {input}")),
        });
        Arc::new(Plan {
            jobs: jobs.collect(),
            pools: vec![Pool { kind, instances, jobs: (0..inputs.len()).collect() }],
            batch: None,
        })
    }

    /// The end of a job that ran for `took`.
    pub fn ended(job: usize, outcome: Outcome, took: Duration) -> Ended {
        let mut ended = Ended::unstarted(job, outcome);
        ended.timings.turn = took;
        ended.instance = Some(0);
        ended
    }

    /// Events of a turn that starts.
    pub fn turn_started(turn: u64, instance: usize) -> Event {
        Event::TurnStarted { turn: TurnId(turn), instance, generation: 1 }
    }

    #[test]
    fn events_fold_into_rows() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut view = View::new(plan("aider", 2, &["a", "b", "c", "d"]), false, now);
        view.opening(0, now);
        view.event(0, &Event::InstanceStarted { instance: 0, generation: 1, pid: 7 }, at(0));
        let ready = Event::InstanceReady { instance: 0, generation: 1, took: Duration::from_secs(2), version: None };
        view.event(0, &ready, at(2));
        assert_eq!(view.rows[0].state, RowState::Ready);
        assert_eq!(view.rows[1].state, RowState::Starting(now));
        view.submitted(2, 0, TurnId(1));
        view.event(0, &turn_started(1, 0), at(2));
        assert_eq!(view.rows[0].state, RowState::Working { job: 2, since: at(2) });
        let end = Event::TurnEnded {
            turn: TurnId(1),
            instance: Some(0),
            outcome: Outcome::Succeeded,
            usage: Usage::default(),
            took: Duration::from_secs(4),
        };
        view.event(0, &end, at(6));
        view.ended(&ended(2, Outcome::Succeeded, Duration::from_secs(4)));
        assert_eq!((view.rows[0].turns, view.done, view.failed), (1, 1, 0));
        assert_eq!(view.rows[0].state, RowState::Ready);
        assert_eq!(view.in_starts, Duration::from_secs(2));
        assert_eq!(view.time_left(at(6)), Some(Duration::from_secs(12)));
        view.event(0, &Event::InstanceStarted { instance: 0, generation: 2, pid: 8 }, at(7));
        assert_eq!(view.rows[0].restarts, 1);
    }

    #[test]
    fn pools_of_one_tool_are_told_apart() {
        assert_eq!(suffix(0), "/a");
        assert_eq!(suffix(25), "/z");
        assert_eq!(suffix(26), "/aa");
        let mut two = Arc::into_inner(plan("codex", 1, &["a"])).unwrap();
        let other = Arc::into_inner(plan("codex", 1, &["a"])).unwrap();
        two.pools.extend(other.pools);
        let view = View::new(Arc::new(two), false, Instant::now());
        assert_eq!(view.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["codex/a 0", "codex/b 0"]);
    }
}
