//! Runs a plan: an asynchronous shell around the state machine in [`state`]. What happens (in pools, at the printer, by
//! signals) comes in through one channel, one after the other; the machine's actions are carried out at once.

mod apply;
mod attempts;
mod order;
pub mod pools;
mod signals;
mod state;
mod workrooms;

pub use workrooms::{FileId, Workrooms};

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::Context as _;
use readyroom::batch::{Again, Attempt, Next, PoolEffect};
use readyroom::cluster::Response;
use readyroom::driver::Activity;
use readyroom::event::TurnId;
use readyroom::journal::{ChangeState, JournalError};
use readyroom::workspace::{WorkspaceError, Worktrees};
use readyroom::{Event, Exit, Failure, FailureKind, Origin, Outcome, Permissions, Spent};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::batch::{Before, Journal, branch_name, left};
use crate::exit::{ExitStatus, Signal};
use crate::output::{self, Outputs};
use crate::plan::{Plan, Template};
use crate::report::log::{self, Logged};
use crate::report::printer::{Message, Printer, Reply};
use crate::report::{Ended, JobChange, Reporter, Verbosity, text};
use crate::settings::Settings;

use crate::workspace::Brought;
use apply::{Applier, Wanted};
use order::InOrder;
use pools::{Located, PoolNews, Pools};
use state::{Action, Input, Run, Stop, Verdict};

/// How long processes that were told to die, and words that nobody reads, are waited for after the second Ctrl-C.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// How often a run without bars says how far it has come.
const PROGRESS: Duration = Duration::from_secs(5 * 60);

/// A supervisor that stops a service signals all of its processes at once; the tools may be gone before we hear of it.
const SIGNALS_APART: Duration = Duration::from_millis(200);

/// What happens.
enum News {
    Pool(PoolNews),
    Printer(Reply),
    /// Whoever reads our stdout has closed it.
    ReaderGone(output::Broken),
    Signal(Signal),
    /// The wait before a job's next attempt is over.
    Due(usize),
    /// The time is over in which jobs may start.
    Deadline,
    /// A tool's process had ended in a job a moment ago.
    Crashed(usize, Box<Response>),
    /// Some time has passed in which nobody may have been told anything.
    Progress,
    /// It could not be written down that a job is going to be sent.
    NotBegun(Arc<JournalError>),
    /// A job's end is written down, or can't be.
    Kept(Box<Ended>, Result<(), Arc<JournalError>>),
    /// It is written down that a job is one for the resume, or can't be.
    Requeued(Box<Ended>, Result<(), Arc<JournalError>>),
    /// What became of a job's change is written down, or can't be.
    Applied(Box<Ended>, Result<(), Arc<JournalError>>),
    /// What a job changed was to be brought to the caller's files; these were changed by something else meanwhile.
    Brought(Box<Ended>, Result<Brought, WorkspaceError>, Vec<PathBuf>),
}

/// Runs `plan` to its end. `located` holds the tool of each pool. Where there is a `journal`, nothing of a
/// job is sent and no end is told before that is written there.
///
/// # Errors
/// The system refuses a thread, a runtime or a signal handler.
pub fn run(
    plan: Arc<Plan>,
    settings: Settings,
    located: Vec<Located>,
    outputs: Outputs,
    journal: Option<Journal>,
    rooms: Workrooms,
) -> anyhow::Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let status = runtime.block_on(async {
        let (sender, news) = mpsc::unbounded_channel();
        signals::listen(&sender, News::Signal)?;
        let (replies, kept) = (sender.clone(), sender.clone());
        if outputs.use_stdout() {
            let readers = sender.clone();
            output::watch_stdout(move |gone| drop(readers.send(News::ReaderGone(gone))))?;
        }
        let printer = Printer {
            plan: Arc::clone(&plan),
            one_shot: settings.one_shot,
            reporter: reporter(&settings, journal.as_ref())?,
            outputs,
            verbosity: settings.verbosity,
            look: settings.terminal.look,
            shared_terminal: settings.shared_terminal(),
        };
        let printer = printer.start(move |reply| {
            let _ = replies.send(News::Printer(reply));
        })?;
        if let Some(deadline) = settings.deadline {
            let over = sender.clone();
            tokio::spawn(async move {
                tokio::time::sleep(deadline).await;
                let _ = over.send(News::Deadline);
            });
        }
        // Bars tell it all the time.
        if !settings.terminal.bars && settings.verbosity > Verbosity::Quiet {
            let ticks = sender.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(PROGRESS).await;
                    if ticks.send(News::Progress).is_err() {
                        break;
                    }
                }
            });
        }
        let pools = Pools::new(plan.pools.len(), sender, News::Pool);
        let state = Run::new(
            plan.pools.iter().map(|pool| (pool.instances, pool.jobs.clone())).collect(),
            settings.total,
            settings.routing,
            settings.failure_limit,
        );
        let mut spent = journal.as_ref().map_or_else(Before::default, |journal| journal.before().clone());
        spent.jobs.resize(plan.jobs.len(), Spent::default());
        let applier = rooms.pools.iter().any(Option::is_some).then(|| Applier::start(&rooms.pools)).transpose()?;
        let order = rooms.in_order.then(InOrder::default);
        let shell = Shell {
            rooms,
            applier,
            order,
            plan,
            settings,
            located,
            printer,
            pools,
            state,
            journal,
            kept,
            turns: HashMap::new(),
            jobs: HashMap::new(),
            stopped: Arc::default(),
            failures: HashMap::new(),
            retried: HashMap::new(),
            avoid: HashMap::new(),
            held_up: HashMap::new(),
            streaks: HashMap::new(),
            spent,
        };
        Ok(shell.run(news).await)
    });
    runtime.shutdown_background();
    status
}

/// The reporter, with a log beside the journal.
fn reporter(settings: &Settings, journal: Option<&Journal>) -> anyhow::Result<Box<dyn Reporter>> {
    let shown = settings.reporter();
    let Some(journal) = journal else { return Ok(shown) };
    let path = log::path_beside(journal.path());
    let logged = Logged::open(shown, &path, journal.batch())
        .with_context(|| format!("the log {} can't be written; name another journal with --journal", path.display()))?;
    Ok(Box::new(logged))
}

struct Shell {
    plan: Arc<Plan>,
    settings: Settings,
    located: Vec<Located>,
    printer: Sender<Message>,
    pools: Pools<News>,
    state: Run,
    journal: Option<Journal>,
    rooms: Workrooms,
    applier: Option<Applier>,
    order: Option<InOrder>,
    /// Where the journal's word comes in.
    kept: UnboundedSender<News>,
    /// The turn of each job that was handed out and has not ended.
    turns: HashMap<usize, TurnId>,
    /// The same the other way round, by pool and turn.
    jobs: HashMap<(usize, TurnId), usize>,
    /// Whether the run stops.
    stopped: Arc<AtomicBool>,
    /// Why pools did not open.
    failures: HashMap<usize, Failure>,
    /// How often each job was tried again for a failure of its own.
    retried: HashMap<usize, u32>,
    /// The instance that was the cause of a job's last failure.
    avoid: HashMap<usize, usize>,
    /// How often in a row each pool was held up by its provider.
    held_up: HashMap<usize, u32>,
    /// The jobs of each pool that failed in a row, in one way.
    streaks: HashMap<usize, (&'static str, HashSet<usize>)>,
    /// What the batch has cost, and each job.
    spent: Before,
}

/// Whether the run goes on.
enum Flow {
    On,
    Over,
}

impl Shell {
    async fn run(mut self, mut news: UnboundedReceiver<News>) -> ExitStatus {
        self.tell_of_sharing();
        self.tell_of_budgets();
        let begin = if self.settings.budget.is_spent(&self.spent.total) { Input::Budget } else { Input::Begin };
        let mut flow = self.handle(begin);
        while matches!(flow, Flow::On) {
            let Some(what) = news.recv().await else { break };
            flow = self.take(what);
            if self.waits_in_vain() {
                self.give_up_order();
            }
        }
        self.finish(news).await;
        self.state.exit_status()
    }

    fn take(&mut self, news: News) -> Flow {
        let input = match news {
            News::Signal(signal) => Some(Input::Signal(signal)),
            News::Due(job) => Some(Input::Due(job)),
            News::Deadline => Some(Input::Deadline),
            News::Progress => {
                self.say(Message::Notice(self.state.progress()));
                None
            }
            News::NotBegun(error) => {
                self.journal_broken(&error);
                Some(Input::OutputBroken)
            }
            News::Kept(ended, Ok(())) => {
                self.settle(ended);
                self.order.as_ref().map(|order| Input::Held(order.held()))
            }
            News::Requeued(ended, Ok(())) => {
                self.say(Message::Ended(ended));
                None
            }
            News::Kept(ended, Err(error)) | News::Requeued(ended, Err(error)) => {
                // What is not written down has not ended for anybody: the resume decides about it.
                let (name, outcome) = (self.plan.label(ended.job), &ended.outcome);
                self.say(Message::Notice(format!(
                    "{name} {outcome}, which can't be written down and counts for nothing"
                )));
                self.journal_broken(&error);
                match self.handle(Input::OutputBroken) {
                    Flow::Over => return Flow::Over,
                    Flow::On => Some(Input::Unkept(ended.job)),
                }
            }
            News::Applied(ended, result) => {
                self.say(Message::Ended(ended));
                result.err().map(|error| {
                    self.journal_broken(&error);
                    Input::OutputBroken
                })
            }
            News::Brought(ended, result, strange) => self.brought(ended, result, &strange),
            News::Printer(Reply::Written(job)) => Some(Input::Written(job)),
            News::Printer(Reply::Told(jobs)) => {
                self.told(&jobs);
                None
            }
            // With all jobs at their ends there is nothing to stop, and what can't be written the printer will find out.
            News::ReaderGone(_) if self.state.unreported().is_empty() => None,
            News::ReaderGone(broken) | News::Printer(Reply::Broken(broken)) => {
                // Both may find it out.
                if self.state.stop_reason() != Some(Stop::Output) {
                    let advice = if broken.reader_gone() { "; the rest is not run" } else { "" };
                    self.say(Message::Stopping(format!("stopping: {broken}{advice}")));
                }
                Some(Input::OutputBroken)
            }
            News::Printer(Reply::Finished) => None,
            News::Pool(PoolNews::Launched(pool, cluster)) => {
                self.pools.launched(pool, cluster);
                None
            }
            News::Pool(PoolNews::Opened(pool)) => {
                // A process for each job is started only when there is a job, so nothing is known of it yet.
                if !self.settings.one_shot {
                    let _ = self.handle(Input::Ready);
                }
                Some(Input::Opened(pool))
            }
            News::Pool(PoolNews::NotOpened(pool, failure)) => {
                self.failures.insert(pool, failure);
                self.pools.closed(pool);
                Some(Input::NotOpened(pool))
            }
            News::Pool(PoolNews::Event(pool, event)) => self.event(pool, event),
            News::Pool(PoolNews::Response(job, response)) if self.may_be_a_stop(&response) => {
                let later = self.kept.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(SIGNALS_APART).await;
                    let _ = later.send(News::Crashed(job, response));
                });
                None
            }
            News::Pool(PoolNews::Response(job, response)) | News::Crashed(job, response) => {
                let input = self.response(job, *response);
                let spent = self.settings.budget.is_spent(&self.spent.total);
                if spent && self.state.stop_reason().is_none() && matches!(self.handle(Input::Budget), Flow::Over) {
                    return Flow::Over;
                }
                Some(input)
            }
            News::Pool(PoolNews::Closed(pool)) => {
                self.pools.closed(pool);
                self.say(Message::Closed(pool));
                Some(Input::Closed(pool))
            }
        };
        input.map_or(Flow::On, |input| self.handle(input))
    }

    fn handle(&mut self, input: Input) -> Flow {
        let stopped_before = self.state.stop_reason();
        let mut flow = Flow::On;
        let mut inputs = vec![input];
        inputs.extend(self.order.as_ref().map(|order| Input::Held(order.held())));
        while let Some(input) = inputs.pop() {
            for action in self.state.handle(input) {
                match action {
                    Action::Finish => flow = Flow::Over,
                    action => inputs.extend(self.act(action)),
                }
            }
        }
        let stopped = self.state.stop_reason();
        if stopped != stopped_before
            && let Some(stop) = stopped
        {
            self.stopped.store(true, Ordering::Relaxed);
            self.tell_stop(stop);
            if !stop.lets_end() {
                self.give_up_order();
            }
        }
        flow
    }

    /// Carries an action out; may lead to another input at once.
    fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Open(pool) => {
                self.say(Message::Opening(pool));
                let record = match self.record_directory(pool) {
                    Ok(record) => record,
                    Err(failure) => {
                        self.failures.insert(pool, failure);
                        return Some(Input::NotOpened(pool));
                    }
                };
                let worktrees = self.rooms.pools.get(pool).cloned().flatten();
                let found = &self.located[pool];
                self.pools.open(pool, &self.plan, found, &self.settings, worktrees, record);
            }
            Action::Submit(job) => return self.submit(job),
            Action::Fail(job) => {
                let failure = self.failures.get(&self.plan.jobs[job].pool).cloned();
                let failure =
                    failure.unwrap_or_else(|| Failure::new(FailureKind::NotReady, "no instance became ready"));
                self.settle(Box::new(Ended::unstarted(job, failure.into())));
            }
            Action::Cancel(job) => {
                if let Some(&turn) = self.turns.get(&job) {
                    self.pools.cancel(self.plan.jobs[job].pool, turn);
                }
            }
            Action::Abandon(pool) | Action::Close(pool) => self.pools.close(pool),
            Action::Kill => self.pools.kill(),
            Action::Finish => {}
        }
        None
    }

    /// Hands a job out.
    fn submit(&mut self, job: usize) -> Option<Input> {
        let planned = &self.plan.jobs[job];
        let kept = self.kept.clone();
        let budget = self.settings.job_budget.after(&self.spent.jobs[job]);
        let safe = self.plan.pools[planned.pool].kind.is_safe();
        let unwritten = move |error| drop(kept.send(News::NotBegun(error)));
        let begun = self.journal.as_ref().map(|journal| journal.gate(job, safe, unwritten));
        let stopped = Arc::clone(&self.stopped);
        // What has not begun when the run stops never does.
        let gate = async move {
            if stopped.load(Ordering::Relaxed) {
                return false;
            }
            match begun {
                Some(begun) => begun.await,
                None => true,
            }
        };
        let avoid = self.avoid.get(&job).copied();
        match self.pools.submit(planned.pool, job, planned.job.clone().with_budget(budget), avoid, gate) {
            Ok(turn) => {
                self.turns.insert(job, turn);
                self.jobs.insert((planned.pool, turn), job);
                self.say(Message::Submitted { job, pool: planned.pool, turn });
                None
            }
            Err(failure) => {
                self.end(Ended::unstarted(job, failure.into()));
                Some(Input::Ended(job, Verdict::Failed))
            }
        }
    }

    /// Has the end of a job written down, and then told.
    fn end(&mut self, ended: Ended) {
        let Some(journal) = &self.journal else { return self.settle(Box::new(ended)) };
        // What no instance ever had is still queued.
        if ended.outcome == Outcome::Cancelled && ended.instance.is_none() {
            return self.settle(Box::new(ended));
        }
        let kept = self.kept.clone();
        let record = self.record(&ended);
        journal.end(&ended.clone(), record, move |result| drop(kept.send(News::Kept(Box::new(ended), result))));
    }

    fn record(&self, ended: &Ended) -> serde_json::Value {
        let file = self.plan.jobs[ended.job].output.as_deref().filter(|_| ended.outcome.is_success());
        let mut record = output::record(&self.plan, ended, file).unwrap_or_default();
        let planned = &self.plan.jobs[ended.job];
        record["left"] = left(&planned.job.files, &self.plan.pools[planned.pool].kind.directory);
        record
    }

    /// What a resume need not tell.
    fn told(&self, jobs: &[usize]) {
        if let Some(journal) = &self.journal {
            jobs.iter().for_each(|job| journal.told(*job));
        }
    }

    fn journal_broken(&self, error: &JournalError) {
        self.say(Message::Stopping(format!("stopping: {error}")));
    }

    fn event(&mut self, pool: usize, event: Event) -> Option<Input> {
        let input = match &event {
            Event::InstanceReady { .. } => Some(Input::Ready),
            Event::TurnStarted { turn, .. } => self.jobs.get(&(pool, *turn)).copied().map(Input::Started),
            // Text comes in thousands of pieces and whole at the end.
            Event::TurnProgressed { activity: Activity::Text(_), .. } => return None,
            _ => None,
        };
        self.say(Message::Event(pool, event));
        input
    }

    /// The directory for a pool's records: one of its own where there are several pools.
    fn record_directory(&self, pool: usize) -> Result<Option<PathBuf>, Failure> {
        let Some(record) = &self.settings.record else { return Ok(None) };
        if self.plan.pools.len() == 1 {
            return Ok(Some(record.clone()));
        }
        let directory = record.join(format!("{}-{}", pool + 1, self.plan.pools[pool].kind.tool));
        std::fs::create_dir(&directory).map_err(|error| {
            Failure::new(FailureKind::BadInput, format!("{} can't be made: {error}", directory.display()))
        })?;
        Ok(Some(directory))
    }

    fn tell_of_sharing(&self) {
        if self.settings.verbosity == Verbosity::Quiet {
            return;
        }
        for line in self.plan.shared_directories(self.settings.total) {
            self.say(Message::Notice(line));
        }
    }

    /// A budget that no tool's words could hold is told before anything is sent.
    fn tell_of_budgets(&self) {
        let (batch, job) = (self.settings.budget, self.settings.job_budget);
        let mut told = HashSet::new();
        for located in &self.located {
            let (tokens, usd) = located.definition.reports();
            for (asked, reports, what) in [
                (batch.tokens.or(job.tokens).is_some(), tokens, "tokens"),
                (batch.usd.or(job.usd).is_some(), usd, "costs"),
            ] {
                let id = &located.definition.id;
                if asked && !reports && told.insert((id, what)) {
                    let line = format!("{id} does not tell its {what}: no budget of those holds it");
                    self.say(Message::Notice(line));
                }
            }
        }
    }

    fn tell_stop(&self, stop: Stop) {
        let line = match stop {
            Stop::MaxFailures => "stopping: --max-failures is reached; what runs may end".to_owned(),
            Stop::Deadline => "stopping: --deadline is reached; what runs may end".to_owned(),
            Stop::Budget => {
                let Spent { tokens, usd } = self.spent.total;
                format!(
                    "stopping: the budget is spent, by {tokens} tokens and ${usd:.4}; what runs may end, and a resume needs a \
                     larger one"
                )
            }
            // The printer's own words have been said.
            Stop::Output | Stop::Blocked => return,
            Stop::Signal(signal) => {
                format!("stopping on {}; what runs is cancelled (Ctrl-C again ends it at once)", signal.name())
            }
        };
        self.say(Message::Stopping(line));
    }

    fn say(&self, message: Message) {
        // A printer that is gone has said so: `Reply::Broken`.
        let _ = self.printer.send(message);
    }

    /// Has the last words printed. A printer that is held up is waited for until the next Ctrl-C.
    async fn finish(&mut self, mut news: UnboundedReceiver<News>) {
        let killed = self.state.is_killed();
        if killed {
            let _ = tokio::time::timeout(LAST_WAIT, self.pools.ended()).await;
        } else {
            self.leave_workrooms().await;
        }
        if let Some(journal) = &self.journal
            && !self.state.not_done().is_empty()
        {
            self.say(Message::Notice(format!("`{}` goes on with it", journal.resume())));
        }
        let last = Message::Finish { not_done: self.state.not_done(), unreported: self.state.unreported() };
        if self.printer.send(last).is_err() {
            return;
        }
        let finished = async {
            while let Some(what) = news.recv().await {
                match what {
                    News::Printer(Reply::Told(jobs)) => self.told(&jobs),
                    News::Printer(Reply::Finished) | News::Signal(Signal::Interrupt) => break,
                    _ => {}
                }
            }
        };
        if killed {
            let _ = tokio::time::timeout(LAST_WAIT, finished).await;
        } else {
            finished.await;
        }
    }
}
