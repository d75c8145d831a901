//! The run as a state machine: what has happened goes in, what to do next comes out. It starts nothing and waits for
//! nothing; `shell` carries its actions out.
//!
//! Jobs are handed out a few at a time, so that nothing piles up: neither jobs that an early stop would have to take
//! back, nor answers that nobody reads. Pools that do not fit into the total wait for others to close.

use std::collections::{HashSet, VecDeque};

use readyroom::Routing;
use readyroom::batch::PoolEffect;

use crate::exit::{ExitStatus, Signal};

/// Answers that may wait to be written before nothing more is handed out.
const UNWRITTEN_LIMIT: usize = 64;

/// Jobs that a pool may hold when its router needs to see far ahead; stays below what a cluster takes.
const FAR_AHEAD: usize = 8_192;

/// What has happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The run begins.
    Begin,
    /// A pool takes jobs.
    Opened(usize),
    /// A pool could not be opened, or none of its instances ever became ready.
    NotOpened(usize),
    /// An instance of some pool is ready.
    Ready,
    /// A job runs on an instance.
    Started(usize),
    /// A job has ended.
    Ended(usize, Verdict),
    /// An attempt at a job has failed, and there will be another.
    Again(usize, PoolEffect),
    /// The wait before a job's next attempt is over.
    Due(usize),
    /// What a job that succeeded has changed does not apply.
    Conflict(usize),
    /// A job's end could not be written down, and is not told: it is not done.
    Unkept(usize),
    /// A job's outcome and answer have been written.
    Written(usize),
    /// So many ends are held back until those of earlier jobs are there.
    Held(usize),
    /// An output can't be written any more.
    OutputBroken,
    /// A pool has shut down.
    Closed(usize),
    /// A signal came.
    Signal(Signal),
    /// The time is over in which jobs may start.
    Deadline,
    /// The budget is spent.
    Budget,
}

/// How a job ended, as far as the run cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It succeeded.
    Succeeded,
    /// It did not.
    Failed,
    /// It did not, and no other could do better: nothing more is handed out.
    Blocked,
    /// The run itself cancelled it.
    Cancelled,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Open a pool: [`Input::Opened`] or [`Input::NotOpened`] follows.
    Open(usize),
    /// Hand a job to its pool: [`Input::Ended`] follows.
    Submit(usize),
    /// Report a job as failed because its pool did not open: [`Input::Written`] follows.
    Fail(usize),
    /// Cancel a job that was handed out; its end still comes.
    Cancel(usize),
    /// Give up opening a pool: [`Input::Closed`] follows.
    Abandon(usize),
    /// Shut a pool down: [`Input::Closed`] follows.
    Close(usize),
    /// End every process now.
    Kill,
    /// The run is over.
    Finish,
}

/// Why a run stops before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Too many jobs failed.
    MaxFailures,
    /// An output can't be written.
    Output,
    /// The time is over in which jobs may start.
    Deadline,
    /// The budget is spent.
    Budget,
    /// A person has to mend something first, or a usage window does not open soon enough.
    Blocked,
    /// A signal.
    Signal(Signal),
}

impl Stop {
    /// Whether what runs may end by itself.
    pub fn lets_end(self) -> bool {
        matches!(self, Self::MaxFailures | Self::Blocked | Self::Deadline | Self::Budget)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Stopping(Stop),
    Killed(Signal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobState {
    Waiting,
    Queued,
    Running,
    /// Waits for its next attempt.
    Delayed,
    Done(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PoolState {
    Waiting,
    Opening,
    Open,
    Closing,
    Over,
}

#[derive(Debug)]
struct PoolRun {
    state: PoolState,
    instances: usize,
    jobs: Vec<usize>,
    /// How many of `jobs` were taken from the front.
    taken: usize,
    /// Jobs that were handed out and have not ended.
    open: usize,
    /// Jobs that wait for their next attempt.
    delayed: usize,
    /// Those whose wait is over, first come first.
    due: VecDeque<usize>,
    /// Jobs that hold the pool up until they are due.
    holding: HashSet<usize>,
    /// How many jobs may be handed out at a time, after the provider asked to slow down.
    limit: Option<usize>,
    /// Successes since the limit was set or raised.
    well: usize,
}

impl PoolRun {
    fn next(&self) -> Option<usize> {
        self.jobs.get(self.taken).copied()
    }

    /// Takes the next job that may be handed out.
    fn take(&mut self) -> Option<usize> {
        if let Some(job) = self.due.pop_front() {
            self.delayed -= 1;
            return Some(job);
        }
        let job = self.next()?;
        self.taken += 1;
        Some(job)
    }

    /// Whether nothing is left to be handed out, now or later.
    fn is_empty(&self) -> bool {
        self.delayed == 0 && self.next().is_none()
    }

    /// The provider asked to slow down: half as many at a time, or one alone. Those that say it at once say it once.
    fn slow(&mut self, job: usize, effect: PoolEffect) {
        if self.holding.is_empty() {
            let now = self.limit.unwrap_or(self.instances);
            self.limit = Some(if effect == PoolEffect::Parked { 1 } else { (now / 2).max(1) });
        }
        self.holding.insert(job);
        self.well = 0;
    }

    /// A success: after as many as run at a time, one more may.
    fn went_well(&mut self) {
        // What began before the limit says nothing of it.
        let Some(limit) = self.limit.filter(|_| self.holding.is_empty()) else { return };
        self.well += 1;
        if self.well >= limit {
            self.well = 0;
            self.limit = Some(limit + 1).filter(|limit| *limit < self.instances);
        }
    }
}

/// The run.
#[derive(Debug)]
pub struct Run {
    phase: Phase,
    finished: bool,
    jobs: Vec<JobState>,
    pool_of: Vec<usize>,
    pools: Vec<PoolRun>,
    free_instances: usize,
    far_ahead: bool,
    failure_limit: Option<u64>,
    failures: u64,
    unwritten: usize,
    /// Those of them that are held back, and are no backlog.
    held: usize,
    ever_ready: bool,
    output_broken: bool,
}

impl Run {
    /// A run of pools, each with its instances and its jobs (by place); `total` instances may live at once.
    pub fn new(pools: Vec<(usize, Vec<usize>)>, total: usize, routing: Routing, failure_limit: Option<u64>) -> Self {
        let count = pools.iter().map(|(_, jobs)| jobs.len()).sum();
        let mut pool_of = vec![0; count];
        for (pool, (_, jobs)) in pools.iter().enumerate() {
            for &job in jobs {
                pool_of[job] = pool;
            }
        }
        Self {
            phase: Phase::Running,
            finished: false,
            jobs: vec![JobState::Waiting; count],
            pool_of,
            pools: pools
                .into_iter()
                .map(|(instances, jobs)| PoolRun {
                    state: PoolState::Waiting,
                    instances,
                    jobs,
                    taken: 0,
                    open: 0,
                    delayed: 0,
                    due: VecDeque::new(),
                    holding: HashSet::new(),
                    limit: None,
                    well: 0,
                })
                .collect(),
            free_instances: total,
            far_ahead: routing != Routing::LeastBusy,
            failure_limit,
            failures: 0,
            unwritten: 0,
            held: 0,
            ever_ready: false,
            output_broken: false,
        }
    }

    /// Takes in what has happened and says what to do.
    pub fn handle(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Begin => {}
            Input::Opened(pool) => self.opened(pool, &mut actions),
            Input::NotOpened(pool) => self.not_opened(pool, &mut actions),
            Input::Ready => self.ever_ready = true,
            Input::Started(job) => {
                self.ever_ready = true;
                if self.jobs[job] == JobState::Queued {
                    self.jobs[job] = JobState::Running;
                }
            }
            Input::Ended(job, verdict) => self.ended(job, verdict, &mut actions),
            Input::Again(job, effect) => self.again(job, effect),
            Input::Due(job) => {
                let run = &mut self.pools[self.pool_of[job]];
                run.holding.remove(&job);
                run.due.push_back(job);
            }
            Input::Conflict(job) => {
                self.jobs[job] = JobState::Done(Verdict::Failed);
                self.failures += 1;
                self.check_failures(&mut actions);
            }
            Input::Unkept(job) => {
                self.jobs[job] = JobState::Waiting;
                self.unwritten = self.unwritten.saturating_sub(1);
            }
            Input::Written(_) => self.unwritten = self.unwritten.saturating_sub(1),
            Input::Held(held) => self.held = held,
            Input::OutputBroken => {
                self.output_broken = true;
                if !self.stopping_by_signal() {
                    self.stop(Stop::Output, &mut actions);
                }
            }
            Input::Closed(pool) => {
                if self.pools[pool].state != PoolState::Over {
                    self.pools[pool].state = PoolState::Over;
                    self.free_instances += self.pools[pool].instances;
                }
            }
            Input::Signal(signal) => self.signal(signal, &mut actions),
            Input::Deadline => {
                if self.phase == Phase::Running {
                    self.stop(Stop::Deadline, &mut actions);
                }
            }
            Input::Budget => {
                if self.phase == Phase::Running {
                    self.stop(Stop::Budget, &mut actions);
                }
            }
        }
        self.advance(&mut actions);
        actions
    }

    /// Why the run stops early, if it does.
    pub fn stop_reason(&self) -> Option<Stop> {
        match self.phase {
            Phase::Running => None,
            Phase::Stopping(stop) => Some(stop),
            Phase::Killed(signal) => Some(Stop::Signal(signal)),
        }
    }

    /// Whether everything was ended at once.
    pub fn is_killed(&self) -> bool {
        matches!(self.phase, Phase::Killed(_))
    }

    /// How far it has come, in a line.
    pub fn progress(&self) -> String {
        let count = |wanted: fn(&JobState) -> bool| self.jobs.iter().filter(|state| wanted(state)).count();
        let well = count(|state| *state == JobState::Done(Verdict::Succeeded));
        let failed = count(|state| matches!(state, JobState::Done(Verdict::Failed | Verdict::Blocked)));
        let running = count(|state| *state == JobState::Running);
        let delayed = count(|state| *state == JobState::Delayed);
        let mut line = format!("{} of {} jobs done", well + failed, self.jobs.len());
        for (number, what) in [(failed, "failed"), (running, "running"), (delayed, "waiting for another attempt")] {
            if number > 0 {
                line += &format!(", {number} {what}");
            }
        }
        line
    }

    /// The jobs that were not run to an end of their own, by place.
    pub fn not_done(&self) -> Vec<usize> {
        (0..self.jobs.len())
            .filter(|&job| !matches!(self.jobs[job], JobState::Done(Verdict::Succeeded | Verdict::Failed)))
            .collect()
    }

    /// The jobs for which no end was ever reported, by place.
    pub fn unreported(&self) -> Vec<usize> {
        (0..self.jobs.len()).filter(|&job| !matches!(self.jobs[job], JobState::Done(_))).collect()
    }

    /// How many ends are known and not yet told.
    pub fn unwritten(&self) -> usize {
        self.unwritten
    }

    /// Whether jobs of a pool wait, and hold it up until they are due.
    pub fn is_held_up(&self, pool: usize) -> bool {
        !self.pools[pool].holding.is_empty()
    }

    /// The exit status, once the run is over.
    pub fn exit_status(&self) -> ExitStatus {
        match self.phase {
            Phase::Killed(signal) | Phase::Stopping(Stop::Signal(signal)) => ExitStatus::Signal(signal),
            _ if !self.ever_ready && self.failures > 0 => ExitStatus::NotReady,
            Phase::Stopping(Stop::Output | Stop::Blocked) => ExitStatus::StoppedEarly,
            Phase::Stopping(Stop::MaxFailures | Stop::Deadline | Stop::Budget) if !self.not_done().is_empty() => {
                ExitStatus::StoppedEarly
            }
            _ if self.jobs.iter().all(|job| *job == JobState::Done(Verdict::Succeeded)) => ExitStatus::Success,
            _ => ExitStatus::SomeFailed,
        }
    }

    fn opened(&mut self, pool: usize, actions: &mut Vec<Action>) {
        if self.pools[pool].state != PoolState::Opening {
            return;
        }
        match self.phase {
            Phase::Running => self.pools[pool].state = PoolState::Open,
            Phase::Stopping(_) | Phase::Killed(_) => {
                self.pools[pool].state = PoolState::Closing;
                actions.push(Action::Close(pool));
            }
        }
    }

    fn not_opened(&mut self, pool: usize, actions: &mut Vec<Action>) {
        let run = &mut self.pools[pool];
        if run.state == PoolState::Over {
            return;
        }
        run.state = PoolState::Over;
        self.free_instances += run.instances;
        if self.phase != Phase::Running {
            return;
        }
        while let Some(job) = self.pools[pool].next() {
            self.pools[pool].taken += 1;
            self.jobs[job] = JobState::Done(Verdict::Failed);
            self.failures += 1;
            self.unwritten += 1;
            actions.push(Action::Fail(job));
        }
        self.check_failures(actions);
    }

    fn ended(&mut self, job: usize, verdict: Verdict, actions: &mut Vec<Action>) {
        if matches!(self.jobs[job], JobState::Done(_)) {
            return;
        }
        self.jobs[job] = JobState::Done(verdict);
        let run = &mut self.pools[self.pool_of[job]];
        run.open -= 1;
        if verdict == Verdict::Succeeded {
            run.went_well();
        }
        self.unwritten += 1;
        if matches!(verdict, Verdict::Failed | Verdict::Blocked) {
            self.failures += 1;
            self.check_failures(actions);
        }
        if verdict == Verdict::Blocked && self.phase == Phase::Running {
            self.stop(Stop::Blocked, actions);
        }
    }

    fn again(&mut self, job: usize, effect: PoolEffect) {
        if matches!(self.jobs[job], JobState::Done(_) | JobState::Delayed) {
            return;
        }
        self.jobs[job] = JobState::Delayed;
        let run = &mut self.pools[self.pool_of[job]];
        run.open -= 1;
        run.delayed += 1;
        if effect != PoolEffect::None {
            run.slow(job, effect);
        }
    }

    fn check_failures(&mut self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Running && self.failure_limit.is_some_and(|limit| self.failures >= limit) {
            self.stop(Stop::MaxFailures, actions);
        }
    }

    /// Hands out nothing more. What was handed out and has not begun never does (the shell sees to that); what runs is
    /// cancelled, except where the reason is that others failed.
    fn stop(&mut self, stop: Stop, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Killed(_)) {
            return;
        }
        self.phase = Phase::Stopping(stop);
        if !stop.lets_end() {
            let open = |state: &JobState| matches!(state, JobState::Queued | JobState::Running);
            let cancelled = self.jobs.iter().enumerate().filter(|(_, state)| open(state));
            actions.extend(cancelled.map(|(job, _)| Action::Cancel(job)));
            for (pool, run) in self.pools.iter_mut().enumerate() {
                if run.state == PoolState::Opening {
                    run.state = PoolState::Closing;
                    actions.push(Action::Abandon(pool));
                }
            }
        }
    }

    fn stopping_by_signal(&self) -> bool {
        matches!(self.phase, Phase::Stopping(Stop::Signal(_)) | Phase::Killed(_))
    }

    /// A terminal that closes may send SIGHUP twice, and supervisors repeat SIGTERM; only a second Ctrl-C means "now".
    fn signal(&mut self, signal: Signal, actions: &mut Vec<Action>) {
        if !self.stopping_by_signal() {
            self.stop(Stop::Signal(signal), actions);
        } else if signal == Signal::Interrupt && !matches!(self.phase, Phase::Killed(_)) {
            self.phase = Phase::Killed(signal);
            self.finished = true;
            actions.extend([Action::Kill, Action::Finish]);
        }
    }

    /// Does whatever has become possible.
    fn advance(&mut self, actions: &mut Vec<Action>) {
        if self.finished {
            return;
        }
        if self.phase == Phase::Running {
            self.open_pools(actions);
            self.hand_out(actions);
        }
        let stopping = self.phase != Phase::Running;
        for (pool, run) in self.pools.iter_mut().enumerate() {
            if run.state == PoolState::Open && run.open == 0 && (stopping || run.is_empty()) {
                run.state = PoolState::Closing;
                actions.push(Action::Close(pool));
            }
        }
        let over =
            self.pools.iter().all(|run| run.state == PoolState::Over || (stopping && run.state == PoolState::Waiting));
        if over && (self.unwritten == 0 || self.output_broken) {
            self.finished = true;
            actions.push(Action::Finish);
        }
    }

    fn open_pools(&mut self, actions: &mut Vec<Action>) {
        for (pool, run) in self.pools.iter_mut().enumerate() {
            if run.state != PoolState::Waiting {
                continue;
            }
            if run.instances > self.free_instances {
                break;
            }
            self.free_instances -= run.instances;
            run.state = PoolState::Opening;
            actions.push(Action::Open(pool));
        }
    }

    fn hand_out(&mut self, actions: &mut Vec<Action>) {
        let backlog = self.unwritten.saturating_sub(self.held);
        for run in self.pools.iter_mut().filter(|run| run.state == PoolState::Open) {
            let window = match run.limit {
                Some(limit) => limit,
                None if self.far_ahead => FAR_AHEAD,
                // A failure must be known before the next job is handed out.
                None if self.failure_limit.is_some() => run.instances,
                None => 2 * run.instances,
            };
            while run.holding.is_empty() && run.open < window && backlog < UNWRITTEN_LIMIT.max(2 * window) {
                let Some(job) = run.take() else { break };
                run.open += 1;
                self.jobs[job] = JobState::Queued;
                actions.push(Action::Submit(job));
            }
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
