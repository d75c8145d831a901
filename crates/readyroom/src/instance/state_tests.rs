//! The instance's machine without a process: each transition that a promise hangs on.

use super::super::review::Repairs;
use super::*;
use crate::driver::ContextCommand;
use crate::job::Answer;

fn rules(context: Context) -> Rules {
    Rules {
        context,
        permissions: Permissions::Edit,
        cwd: "/".into(),
        native_context: false,
        commands: false,
        converses: true,
        worktree: false,
        stall: None,
        limits: Limits::default(),
        recycle_after: None,
    }
}

fn work(turn: u64, prompts: &[&str]) -> Work {
    Work {
        told: 0,
        turn: TurnId(turn),
        commands: Vec::new(),
        prompts: prompts.iter().map(|prompt| (*prompt).to_owned()).collect(),
        mode: crate::job::Mode::Default,
        timeout: Some(Duration::from_secs(10)),
        checks: std::sync::Arc::default(),
        budget: crate::Budget::default(),
    }
}

/// A machine with the clock that drives it.
struct Bench {
    machine: Machine,
    now: Instant,
}

impl Bench {
    fn idle(context: Context) -> Self {
        Self::with(rules(context))
    }

    fn with(rules: Rules) -> Self {
        let mut bench = Self { machine: Machine::new(rules), now: Instant::now() };
        assert_eq!(bench.order(Order::Start), [Action::Launch]);
        bench.event(Event::Launched(7, Slot(0)));
        bench.report(Report::Ready { version: None, pings: true });
        let out = bench.report(Report::Fresh(Proof::NewSession("a".into())));
        assert!(out.contains(&Action::Tell(Notice::Available)));
        bench
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        self.machine.handle(event, self.now)
    }

    fn order(&mut self, order: Order) -> Vec<Action> {
        self.event(Event::Order(order))
    }

    fn run(&mut self, work: Work) -> Vec<Action> {
        self.order(Order::Run(Box::new(work)))
    }

    fn add(&mut self, work: Work) -> Vec<Action> {
        self.order(Order::Add(Box::new(work)))
    }

    fn report(&mut self, report: Report) -> Vec<Action> {
        self.event(Event::Report(report))
    }

    fn ended(&mut self, status: TurnStatus, text: &str) -> Vec<Action> {
        let answer = Answer { text: text.into(), ..Answer::default() };
        self.report(Report::Ended(Box::new(TurnEnd { status, answer })))
    }

    /// Lets the deadline pass that is set.
    fn late(&mut self) -> Vec<Action> {
        self.now = self.machine.deadline().expect("a deadline is set");
        self.event(Event::Deadline)
    }
}

fn done(actions: &[Action]) -> Done {
    let found = actions.iter().find_map(|action| match action {
        Action::Tell(Notice::Done(done)) => Some((**done).clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no turn ended in {actions:?}"))
}

fn ended(actions: &[Action]) -> Option<Option<Failure>> {
    actions.iter().find_map(|action| match action {
        Action::Tell(Notice::Ended { failure, .. }) => Some(failure.clone()),
        _ => None,
    })
}

fn asks_reset(actions: &[Action]) -> bool {
    actions.contains(&Action::Request(Request::Reset { slot: Slot(0) }))
}

fn crash() -> Report {
    Report::Gone(Failure::new(FailureKind::Crashed { exit: None }, "it crashed"))
}

#[test]
fn in_fresh_every_turn_is_followed_by_a_reset_and_nothing_is_available_before_its_proof() {
    let mut bench = Bench::idle(Context::Fresh);
    bench.run(work(1, &["a"]));
    let out = bench.ended(TurnStatus::Succeeded, "answer");
    assert!(done(&out).outcome.is_success());
    assert_eq!(done(&out).proof, Some(Proof::NewSession("a".into())));
    assert!(asks_reset(&out));
    assert!(!out.contains(&Action::Tell(Notice::Available)));
    let out = bench.report(Report::Fresh(Proof::NewSession("b".into())));
    assert!(out.contains(&Action::Tell(Notice::Available)));
}

#[test]
fn where_commands_can_run_also_a_good_turn_is_settled_before_it_is_told() {
    let mut bench = Bench::with(Rules { commands: true, ..rules(Context::Fresh) });
    bench.run(work(1, &["a"]));
    let out = bench.ended(TurnStatus::Succeeded, "answer");
    assert!(matches!(out[..], [Action::Settle(_, Strays::Orphans)]), "{out:?}");
    let out = bench.event(Event::Settled(vec!["sleep 600".into()]));
    assert!(matches!(out[0], Action::Tell(Notice::StraysEnded(_))));
    assert!(done(&out).outcome.is_success() && asks_reset(&out));
}

#[test]
fn a_reset_without_proof_ends_the_process_and_is_no_failure() {
    let mut bench = Bench::idle(Context::Fresh);
    bench.run(work(1, &["a"]));
    bench.ended(TurnStatus::Succeeded, "answer");
    let out = bench.report(Report::NotFresh(Failure::new(FailureKind::Protocol, "no proof")));
    assert_eq!(out, [Action::StopProcess]);
    assert_eq!(ended(&bench.report(crash())), Some(None));
}

#[test]
fn a_reset_that_is_never_answered_ends_the_process() {
    let mut bench = Bench::idle(Context::Fresh);
    bench.run(work(1, &["a"]));
    bench.ended(TurnStatus::Succeeded, "answer");
    assert_eq!(bench.late(), [Action::StopProcess]);
}

#[test]
fn keep_resets_only_after_a_turn_that_did_not_succeed_and_says_what_was_lost() {
    let mut bench = Bench::idle(Context::Keep);
    bench.run(work(1, &["a"]));
    let out = bench.ended(TurnStatus::Succeeded, "answer");
    assert!(!asks_reset(&out) && out.contains(&Action::Tell(Notice::Available)));
    bench.run(work(2, &["b"]));
    let out = bench.ended(TurnStatus::Failed(Failure::new(FailureKind::ModelError, "no")), "");
    assert!(matches!(out[..], [Action::Settle(..)]), "{out:?}");
    assert!(asks_reset(&bench.event(Event::Settled(Vec::new()))));
    bench.report(Report::Fresh(Proof::NewSession("b".into())));
    bench.run(work(3, &["c"]));
    assert!(done(&bench.ended(TurnStatus::Succeeded, "answer")).context_lost);
    bench.run(work(4, &["d"]));
    assert!(!done(&bench.ended(TurnStatus::Succeeded, "answer")).context_lost);
}

#[test]
fn prompts_run_in_order_until_the_first_failure() {
    let mut bench = Bench::idle(Context::Fresh);
    bench.run(work(1, &["a", "b", "c"]));
    bench.ended(TurnStatus::Succeeded, "first");
    let out = bench.ended(TurnStatus::Failed(Failure::new(FailureKind::ModelError, "no")), "second");
    assert!(matches!(out[..], [Action::Settle(..)]), "the third prompt is not sent: {out:?}");
    let done = done(&bench.event(Event::Settled(Vec::new())));
    assert_eq!(done.answers.len(), 2);
    assert!(matches!(done.outcome, Outcome::Failed(_)));
}

#[test]
fn whatever_ends_a_cancelled_turn_it_was_cancelled() {
    for end in [
        Report::Ended(Box::new(TurnEnd { status: TurnStatus::Succeeded, answer: Answer::default() })),
        Report::Ended(Box::new(TurnEnd { status: TurnStatus::Cancelled, answer: Answer::default() })),
        Report::Ended(Box::new(TurnEnd {
            status: TurnStatus::Failed(Failure::new(FailureKind::ModelError, "aborted")),
            answer: Answer::default(),
        })),
    ] {
        let mut bench = Bench::idle(Context::Fresh);
        bench.run(work(1, &["a"]));
        assert_eq!(bench.order(Order::Cancel(TurnId(1))), [Action::Request(Request::Cancel { slot: Slot(0) })]);
        bench.report(end);
        assert_eq!(done(&bench.event(Event::Settled(Vec::new()))).outcome, Outcome::Cancelled);
    }
}

#[test]
fn a_cancel_that_is_ignored_ends_in_a_kill() {
    let mut bench = Bench::idle(Context::Fresh);
    bench.run(work(1, &["a"]));
    bench.order(Order::Cancel(TurnId(1)));
    assert_eq!(bench.late(), [Action::KillProcess]);
    let out = bench.report(crash());
    assert_eq!(done(&out).outcome, Outcome::Cancelled);
    assert!(ended(&out).is_some());
}

#[test]
fn a_late_turn_is_cancelled_and_timed_out_with_what_the_tool_had_announced() {
    let mut bench = Bench::idle(Context::Fresh);
    bench.run(work(1, &["a"]));
    bench.report(Report::Activity(Activity::Retrying { attempt: 1, why: "429".into() }));
    assert_eq!(bench.late(), [Action::Request(Request::Cancel { slot: Slot(0) })]);
    bench.ended(TurnStatus::Cancelled, "");
    let outcome = done(&bench.event(Event::Settled(Vec::new()))).outcome;
    assert_eq!(outcome, Outcome::TimedOut { after: Duration::from_secs(10), evidence: "429".into() });
}

/// A bug that others had (openclaw/openclaw#79355): the child was gone before its last event, and the turn stayed
/// open for ever.
#[test]
fn an_end_of_the_process_is_never_a_success() {
    let mut bench = Bench::idle(Context::Fresh);
    bench.run(work(1, &["a"]));
    let out = bench.report(crash());
    assert!(matches!(done(&out).outcome, Outcome::Failed(Failure { kind: FailureKind::Crashed { .. }, .. })));
    assert!(matches!(ended(&out), Some(Some(_))));
}

#[test]
fn a_process_that_dies_before_it_is_ready_is_not_ready() {
    let mut machine = Machine::new(rules(Context::Fresh));
    let now = Instant::now();
    machine.handle(Event::Order(Order::Start), now);
    machine.handle(Event::Launched(7, Slot(0)), now);
    let out = machine.handle(Event::Report(crash()), now);
    assert_eq!(ended(&out).flatten().map(|failure| failure.kind), Some(FailureKind::NotReady));
}

#[test]
fn the_time_to_be_ready_begins_with_the_process_and_not_with_its_worktree() {
    let mut machine = Machine::new(rules(Context::Fresh));
    let now = Instant::now();
    machine.handle(Event::Order(Order::Start), now);
    assert_eq!(machine.deadline(), None);
    let later = now + Duration::from_secs(3600);
    machine.handle(Event::Launched(7, Slot(0)), later);
    assert_eq!(machine.deadline(), Some(later + Duration::from_secs(rules(Context::Fresh).limits.ready_seconds)));
}

#[test]
fn a_launch_that_was_stopped_is_no_failure() {
    let mut machine = Machine::new(rules(Context::Fresh));
    let now = Instant::now();
    machine.handle(Event::Order(Order::Start), now);
    let out = machine.handle(Event::Order(Order::Stop { why: "shutdown".into() }), now);
    assert_eq!(out, [Action::StopProcess]);
    let out = machine.handle(Event::LaunchFailed(Failure::new(FailureKind::NotReady, "it was stopped")), now);
    assert_eq!(ended(&out), Some(None));
}

#[test]
fn an_order_to_stop_lets_the_cancelled_turn_end_first() {
    let mut bench = Bench::idle(Context::Fresh);
    bench.run(work(1, &["a"]));
    let out = bench.order(Order::Stop { why: "shutdown".into() });
    assert_eq!(out, [Action::Request(Request::Cancel { slot: Slot(0) })]);
    bench.ended(TurnStatus::Cancelled, "");
    let out = bench.event(Event::Settled(Vec::new()));
    assert_eq!(done(&out).outcome, Outcome::Cancelled);
    assert_eq!(out.last(), Some(&Action::StopProcess));
    assert_eq!(ended(&bench.report(crash())), Some(None));
}

#[test]
fn an_instance_is_recycled_after_its_turns_and_never_in_one() {
    let mut bench = Bench::with(Rules { recycle_after: Some(2), ..rules(Context::Fresh) });
    bench.run(work(1, &["a"]));
    assert!(asks_reset(&bench.ended(TurnStatus::Succeeded, "")));
    bench.report(Report::Fresh(Proof::NewSession("b".into())));
    bench.run(work(2, &["b"]));
    let out = bench.ended(TurnStatus::Succeeded, "");
    assert!(done(&out).outcome.is_success());
    assert_eq!(out.last(), Some(&Action::StopProcess));
}

#[test]
fn work_for_an_instance_that_is_down_is_handed_back() {
    let mut machine = Machine::new(rules(Context::Fresh));
    let out = machine.handle(Event::Order(Order::Run(Box::new(work(9, &["a"])))), Instant::now());
    assert_eq!(out, [Action::Tell(Notice::NotTaken(TurnId(9)))]);
}

#[test]
fn an_idle_tool_that_does_not_answer_a_ping_is_replaced_and_a_busy_one_is_not_asked() {
    let mut bench = Bench::idle(Context::Fresh);
    assert_eq!(bench.order(Order::Ping), [Action::Request(Request::Ping)]);
    bench.report(Report::Pong);
    assert_eq!(bench.machine.deadline(), None);
    bench.order(Order::Ping);
    assert_eq!(bench.late(), [Action::StopProcess]);
    assert!(matches!(ended(&bench.report(crash())), Some(Some(Failure { kind: FailureKind::Stalled, .. }))));

    let mut bench = Bench::idle(Context::Fresh);
    bench.run(work(1, &["a"]));
    assert_eq!(bench.order(Order::Ping), []);
}

#[test]
fn a_missing_file_fails_its_prompt_before_anything_is_sent() {
    let mut bench = Bench::idle(Context::Fresh);
    let work = Work { commands: vec![ContextCommand::Add("no/such/file".into())], ..work(1, &["a"]) };
    let out = bench.run(work);
    assert!(!out.iter().any(|action| matches!(action, Action::Request(_))), "{out:?}");
    let done = done(&bench.event(Event::Settled(Vec::new())));
    assert!(matches!(done.outcome, Outcome::Failed(Failure { kind: FailureKind::BadInput, .. })));
}

#[test]
fn a_held_turn_waits_for_its_prompt_and_goes_on_in_the_same_place() {
    let mut bench = Bench::idle(Context::Fresh);
    let open = Work { commands: vec![ContextCommand::Add("etc".into())], ..work(1, &[]) };
    let out = bench.run(open);
    assert!(matches!(&out[..], [Action::Tell(Notice::Held { replies, .. })] if replies.len() == 1), "{out:?}");
    let out = bench.add(work(1, &["a"]));
    let Some(Action::Request(Request::Begin { turn, .. })) = out.last() else { panic!("{out:?}") };
    assert_eq!(turn.files, [PathBuf::from("/etc")]);
}

#[test]
fn a_context_command_that_joins_a_held_turn_is_carried_out_once() {
    let mut bench = Bench::with(Rules { native_context: true, ..rules(Context::Fresh) });
    let add = |file: &str| ContextCommand::Add(file.into());
    let given = |commands: Vec<ContextCommand>| Action::Request(Request::Context { slot: Slot(0), commands });
    let replied = |file: &str| ContextReply { command: add(file), result: Ok(format!("Added {file}")) };
    let held = |replies| [Action::Tell(Notice::Held { turn: TurnId(1), replies })];
    assert_eq!(bench.run(Work { commands: vec![add("a")], ..work(1, &[]) }), [given(vec![add("a")])]);
    assert_eq!(bench.report(Report::ContextDone(vec![replied("a")])), held(vec![replied("a")]));
    assert_eq!(bench.add(Work { commands: vec![add("b")], ..work(1, &[]) }), [given(vec![add("b")])]);
    assert_eq!(bench.report(Report::ContextDone(vec![replied("b")])), held(vec![replied("b")]));
    bench.add(work(1, &["prompt"]));
    assert_eq!(done(&bench.ended(TurnStatus::Succeeded, "")).replies, []);
}

#[test]
fn a_context_command_that_failed_fails_the_prompt_however_late_that_comes() {
    let mut bench = Bench::idle(Context::Fresh);
    bench.run(Work { commands: vec![ContextCommand::Add("no/such/file".into())], ..work(1, &[]) });
    let out = bench.add(work(1, &["a"]));
    assert!(!out.iter().any(|action| matches!(action, Action::Request(_))), "{out:?}");
    let done = done(&bench.event(Event::Settled(Vec::new())));
    assert!(matches!(done.outcome, Outcome::Failed(Failure { kind: FailureKind::BadInput, .. })));
}

#[test]
fn a_time_limit_beyond_the_clock_is_none() {
    let mut bench = Bench::idle(Context::Fresh);
    bench.run(Work { timeout: Some(Duration::MAX), ..work(1, &["a"]) });
    assert_eq!(bench.machine.deadline(), None);
    assert!(done(&bench.ended(TurnStatus::Succeeded, "answer")).outcome.is_success());
}

#[test]
fn a_prompt_that_joins_a_turn_that_is_being_cancelled_is_answered_by_its_end_alone() {
    let mut bench = Bench::with(Rules { native_context: true, ..rules(Context::Fresh) });
    bench.run(Work { commands: vec![ContextCommand::Add("a".into())], ..work(1, &[]) });
    bench.order(Order::Cancel(TurnId(1)));
    assert_eq!(bench.add(work(1, &["a"])), []);
    bench.report(Report::ContextDone(Vec::new()));
    assert_eq!(done(&bench.event(Event::Settled(Vec::new()))).outcome, Outcome::Cancelled);
}

#[test]
fn an_addition_to_a_turn_that_is_not_here_is_not_run_by_itself() {
    let mut bench = Bench::idle(Context::Keep);
    assert_eq!(bench.add(work(1, &["a"])), []);
    assert!(!bench.run(work(2, &["b"])).is_empty(), "the instance is still idle");
}

#[test]
fn a_turn_whose_process_ends_before_its_prompt_is_handed_back() {
    let mut bench = Bench::with(Rules { native_context: true, ..rules(Context::Fresh) });
    let crash = || Failure::new(FailureKind::Crashed { exit: None }, "it crashed");
    let not_begun = Action::Tell(Notice::NotBegun { turn: TurnId(1), failure: crash() });
    let add = |file: &str| ContextCommand::Add(file.into());
    let replied = |file: &str| ContextReply { command: add(file), result: Ok(format!("Added {file}")) };
    bench.run(Work { commands: vec![add("a")], ..work(1, &["prompt"]) });
    assert!(bench.report(Report::Gone(crash())).contains(&not_begun), "while its commands were being answered");

    let mut bench = Bench::with(Rules { native_context: true, ..rules(Context::Fresh) });
    bench.run(Work { commands: vec![add("a"), add("b")], told: 1, ..work(1, &[]) });
    let out = bench.report(Report::ContextDone(vec![replied("a"), replied("b")]));
    assert_eq!(
        out,
        [Action::Tell(Notice::Held { turn: TurnId(1), replies: vec![replied("b")] })],
        "one was told before"
    );
    assert!(bench.report(Report::Gone(crash())).contains(&not_begun), "while it was held");
}

fn reviewed(finding: Finding) -> Event {
    Event::Reviewed(Box::new(Reviewed { change: None, value: Some(1.into()), finding }))
}

fn review(actions: &[Action]) -> Review {
    let found = actions.iter().find_map(|action| match action {
        Action::Review(review) => Some((**review).clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("nothing is looked at in {actions:?}"))
}

fn in_worktree() -> Bench {
    Bench::with(Rules { worktree: true, ..rules(Context::Fresh) })
}

#[test]
fn in_a_worktree_nothing_is_told_or_reset_before_the_job_was_looked_at() {
    let mut bench = in_worktree();
    bench.run(work(1, &["a"]));
    let out = bench.ended(TurnStatus::Succeeded, "answer");
    assert_eq!(review(&out).answer.as_bytes(), b"answer");
    assert!(review(&out).checks.is_some() && !asks_reset(&out), "{out:?}");
    let out = bench.event(reviewed(Finding::Good));
    assert!(done(&out).outcome.is_success() && asks_reset(&out));
    assert_eq!(done(&out).value, Some(1.into()));
}

#[test]
fn what_a_tool_writes_at_its_reset_is_taken_away_before_the_next_job() {
    let reset = || {
        let mut bench = in_worktree();
        bench.run(work(1, &["a"]));
        bench.ended(TurnStatus::Succeeded, "answer");
        bench.event(reviewed(Finding::Good));
        assert_eq!(bench.report(Report::Fresh(Proof::NewSession("b".into()))), [Action::Tidy]);
        bench
    };
    let out = reset().event(Event::Tidied(Ok(())));
    assert!(out.contains(&Action::Tell(Notice::Available)), "{out:?}");
    let mut bench = reset();
    let full = Failure::new(FailureKind::NotReady, "disk full");
    assert_eq!(bench.event(Event::Tidied(Err(full.clone()))), [Action::StopProcess]);
    assert_eq!(ended(&bench.report(crash())), Some(Some(full)));
    // Also where no job follows.
    let mut bench = reset();
    let out = bench.report(crash());
    assert!(out.contains(&Action::Tidy) && matches!(ended(&out), Some(Some(_))), "{out:?}");
    assert_eq!(bench.event(Event::Tidied(Ok(()))), []);
}

#[test]
fn what_is_to_be_mended_is_asked_of_the_same_session_and_only_the_last_look_counts() {
    let mut bench = in_worktree();
    bench.run(work(1, &["a"]));
    bench.ended(TurnStatus::Succeeded, "first");
    let out = bench.event(reviewed(Finding::Again { prompt: "mend".into(), repairs: Repairs::default() }));
    let [Action::Request(Request::Begin { turn, .. })] = &out[..] else { panic!("{out:?}") };
    assert_eq!(turn.prompt, "mend");
    let out = bench.ended(TurnStatus::Succeeded, "second");
    assert_eq!(review(&out).answer.as_bytes(), b"second");
    let bad = Failure::new(FailureKind::VerifyFailed, "no");
    let out = bench.event(reviewed(Finding::Bad(bad.clone())));
    assert_eq!(done(&out).outcome, bad.into());
    assert_eq!(done(&out).answers.len(), 2);
}

#[test]
fn a_look_that_is_cancelled_or_late_is_stopped_and_its_job_ends_so() {
    let mut bench = in_worktree();
    bench.run(work(1, &["a"]));
    bench.ended(TurnStatus::Succeeded, "answer");
    assert_eq!(bench.order(Order::Cancel(TurnId(1))), [Action::StopReview]);
    let out = bench.event(reviewed(Finding::Again { prompt: "mend".into(), repairs: Repairs::default() }));
    assert_eq!(review(&out).checks, None, "the worktree is brought back by another look");
    let out = bench.event(reviewed(Finding::Good));
    assert_eq!(done(&out).outcome, Outcome::Cancelled);

    let mut bench = in_worktree();
    bench.run(work(1, &["a"]));
    bench.ended(TurnStatus::Succeeded, "answer");
    assert_eq!(bench.late(), [Action::StopReview]);
    let out = bench.event(reviewed(Finding::Good));
    assert!(matches!(done(&out).outcome, Outcome::TimedOut { .. }), "{out:?}");
}

#[test]
fn a_process_that_ends_while_its_job_is_looked_at_takes_nothing_from_a_good_end() {
    let mut bench = in_worktree();
    bench.run(work(1, &["a"]));
    bench.ended(TurnStatus::Succeeded, "answer");
    assert_eq!(bench.report(crash()), []);
    let out = bench.event(reviewed(Finding::Good));
    assert!(done(&out).outcome.is_success());
    assert!(matches!(ended(&out), Some(Some(_))));
    let mut bench = in_worktree();
    bench.run(work(1, &["a"]));
    bench.ended(TurnStatus::Succeeded, "answer");
    bench.report(crash());
    let out = bench.event(reviewed(Finding::Again { prompt: "mend".into(), repairs: Repairs::default() }));
    assert_eq!(done(&out).outcome.name(), "crashed", "nobody is left to mend it");
}

#[test]
fn a_worktree_that_cannot_be_brought_back_costs_the_instance_its_process() {
    let mut bench = in_worktree();
    bench.run(work(1, &["a"]));
    bench.ended(TurnStatus::Succeeded, "answer");
    let broken = Failure::new(FailureKind::NotReady, "disk full");
    let out = bench.event(reviewed(Finding::Broken(broken.clone())));
    assert_eq!(done(&out).outcome, broken.into());
    assert!(out.contains(&Action::StopProcess) && !asks_reset(&out));
    assert!(!bench.report(crash()).contains(&Action::Tidy), "what it holds may be the job's");
}

#[test]
fn also_a_crash_is_looked_at_in_a_worktree_for_what_it_left() {
    let mut bench = in_worktree();
    bench.run(work(1, &["a"]));
    let out = bench.report(crash());
    assert_eq!(review(&out).checks, None);
    let out = bench.event(reviewed(Finding::Good));
    assert_eq!(done(&out).outcome.name(), "crashed");
    assert!(ended(&out).is_some());
}
