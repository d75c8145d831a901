//! The dispatcher without instances: who gets what, and what becomes of failures.

use super::*;
use crate::driver::Proof;
use crate::job::Answer;

fn dispatcher(count: usize, routing: Routing) -> Dispatcher {
    Dispatcher::new(Rules {
        blind: false,
        tool: "echo".into(),
        count,
        routing,
        starts_at_once: 2,
        on_demand: false,
        hold: Duration::from_secs(60),
    })
}

fn submission(turn: u64) -> Submission {
    Submission {
        turn: TurnId(turn),
        commands: Vec::new(),
        told: 0,
        prompts: vec!["prompt".into()],
        mode: Mode::Default,
        timeout: None,
        checks: Arc::default(),
        budget: Budget::default(),
        key: None,
        address: None,
        avoid: None,
    }
}

fn orders(actions: &[Action]) -> Vec<(usize, Order)> {
    let order = |action: &Action| match action {
        Action::Order(at, order) => Some((*at, order.clone())),
        _ => None,
    };
    actions.iter().filter_map(order).collect()
}

/// Which instance was told to run which turn.
fn runs(actions: &[Action]) -> Vec<(usize, u64)> {
    let run = |(at, order)| match order {
        Order::Run(work) => Some((at, work.turn.0)),
        _ => None,
    };
    orders(actions).into_iter().filter_map(run).collect()
}

fn finished(actions: &[Action]) -> Vec<Response> {
    let finish = |action: &Action| match action {
        Action::Finish(response) => Some((**response).clone()),
        _ => None,
    };
    actions.iter().filter_map(finish).collect()
}

fn done(turn: u64, outcome: Outcome) -> Notice {
    Notice::Done(Box::new(Done {
        turn: TurnId(turn),
        outcome,
        answers: vec![Answer::default()],
        replies: Vec::new(),
        timings: Timings::default(),
        proof: Some(Proof::NewProcess),
        context_lost: false,
        change: None,
        value: None,
    }))
}

fn crash() -> Failure {
    Failure::new(FailureKind::Crashed { exit: None }, "it crashed")
}

fn ready(dispatcher: &mut Dispatcher, now: Instant) {
    dispatcher.start(now);
    for at in 0..dispatcher.instances.len() {
        dispatcher.notice(at, Notice::Available, now);
    }
}

#[test]
fn no_more_instances_start_at_once_than_may() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(4, Routing::RoundRobin);
    let start = |at| (at, Order::Start);
    assert_eq!(orders(&dispatcher.start(now)), [start(0), start(1)]);
    assert_eq!(orders(&dispatcher.notice(1, Notice::Available, now)), [start(2)]);
    assert_eq!(orders(&dispatcher.notice(0, Notice::Available, now)), [start(3)]);
}

#[test]
fn a_start_takes_the_time_since_it_was_ordered() {
    let now = Instant::now();
    let after = |seconds| now + Duration::from_secs(seconds);
    let mut dispatcher = dispatcher(1, Routing::RoundRobin);
    dispatcher.start(now);
    // What comes before the process: a worktree, or a zygote that imports.
    dispatcher.notice(0, Notice::Started { pid: 7 }, after(2));
    let actions = dispatcher.notice(0, Notice::Available, after(3));
    let took = |action: &Action| match action {
        Action::Emit(Event::InstanceReady { took, .. }) => Some(*took),
        _ => None,
    };
    assert_eq!(actions.iter().find_map(took), Some(Duration::from_secs(3)));
}

#[test]
fn a_turn_moves_to_the_instance_that_falls_idle_first() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(2, Routing::LeastBusy);
    ready(&mut dispatcher, now);
    assert_eq!(runs(&dispatcher.submit(submission(1), now)), [(0, 1)]);
    assert_eq!(runs(&dispatcher.submit(submission(2), now)), [(1, 2)]);
    assert_eq!(runs(&dispatcher.submit(submission(3), now)), []);
    dispatcher.notice(1, done(2, Outcome::Succeeded), now);
    assert_eq!(runs(&dispatcher.notice(1, Notice::Available, now)), [(1, 3)]);
}

#[test]
fn under_round_robin_a_turn_stays_where_it_was_planned() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(2, Routing::RoundRobin);
    ready(&mut dispatcher, now);
    for turn in 1..=3 {
        dispatcher.submit(submission(turn), now);
    }
    dispatcher.notice(1, done(2, Outcome::Succeeded), now);
    assert_eq!(runs(&dispatcher.notice(1, Notice::Available, now)), []);
    dispatcher.notice(0, done(1, Outcome::Succeeded), now);
    assert_eq!(runs(&dispatcher.notice(0, Notice::Available, now)), [(0, 3)]);
}

#[test]
fn a_quarantined_instance_hands_its_turns_to_the_others() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(2, Routing::RoundRobin);
    ready(&mut dispatcher, now);
    for turn in 1..=4 {
        dispatcher.submit(submission(turn), now);
    }
    let missing = Failure::new(FailureKind::ToolMissing, "gone");
    dispatcher.notice(0, done(1, crash().into()), now);
    dispatcher.notice(0, Notice::Ended { why: String::new(), failure: Some(missing) }, now);
    dispatcher.notice(1, done(2, Outcome::Succeeded), now);
    assert_eq!(runs(&dispatcher.notice(1, Notice::Available, now)), [(1, 4)]);
    dispatcher.notice(1, done(4, Outcome::Succeeded), now);
    assert_eq!(runs(&dispatcher.notice(1, Notice::Available, now)), [(1, 3)]);
}

#[test]
fn when_all_are_quarantined_what_waits_fails_with_the_reason() {
    let now = Instant::now();
    for routing in [Routing::RoundRobin, Routing::LeastBusy, Routing::Sticky] {
        let mut dispatcher = dispatcher(1, routing);
        dispatcher.start(now);
        dispatcher.submit(submission(1), now);
        let failure = Failure::new(FailureKind::ToolMissing, "gone");
        let out = dispatcher.notice(0, Notice::Ended { why: String::new(), failure: Some(failure) }, now);
        let responses = finished(&out);
        assert_eq!(responses.len(), 1);
        assert!(responses[0].error().unwrap().message.contains("gone"));
        assert!(dispatcher.hopeless().is_some());
        let late = finished(&dispatcher.submit(submission(2), now));
        assert_eq!(late.len(), 1, "what comes later fails at once");
    }
}

#[test]
fn a_crash_is_restarted_and_a_restart_by_hand_lifts_a_quarantine() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(1, Routing::RoundRobin);
    ready(&mut dispatcher, now);
    let crashed = || Notice::Ended { why: String::new(), failure: Some(crash()) };
    assert_eq!(orders(&dispatcher.notice(0, crashed(), now)), [(0, Order::Start)]);
    let mut clock = now;
    while dispatcher.hopeless().is_none() {
        dispatcher.notice(0, crashed(), clock);
        clock = dispatcher.next_tick().unwrap_or(clock);
        dispatcher.tick(clock);
    }
    assert_eq!(orders(&dispatcher.restart(0, false, clock)), [(0, Order::Start)]);
    let out = dispatcher.notice(0, Notice::Available, clock);
    assert!(out.iter().any(|action| matches!(action, Action::Restarted(0, Ok(())))));
}

#[test]
fn a_restart_by_hand_waits_for_the_turn_unless_it_is_forced() {
    let now = Instant::now();
    let stops = |actions: &[Action]| orders(actions).iter().any(|(_, order)| matches!(order, Order::Stop { .. }));
    let mut dispatcher = dispatcher(1, Routing::RoundRobin);
    ready(&mut dispatcher, now);
    dispatcher.submit(submission(1), now);
    assert!(!stops(&dispatcher.restart(0, false, now)));
    dispatcher.notice(0, done(1, Outcome::Succeeded), now);
    assert!(stops(&dispatcher.notice(0, Notice::Available, now)));
    let out = dispatcher.notice(0, Notice::Ended { why: String::new(), failure: None }, now);
    assert_eq!(orders(&out), [(0, Order::Start)]);
}

#[test]
fn a_held_turn_is_let_go_after_its_time() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(1, Routing::RoundRobin);
    ready(&mut dispatcher, now);
    dispatcher.submit(Submission { prompts: Vec::new(), ..submission(1) }, now);
    dispatcher.notice(0, Notice::Held { turn: TurnId(1), replies: Vec::new() }, now);
    let due = dispatcher.next_tick().unwrap();
    assert_eq!(due, now + Duration::from_secs(60));
    assert_eq!(orders(&dispatcher.tick(due)), [(0, Order::Release(TurnId(1)))]);
    let out = dispatcher.notice(0, done(1, Outcome::Succeeded), due);
    assert!(finished(&out).is_empty() && out.iter().any(|action| matches!(action, Action::Closed(_))));
}

#[test]
fn a_turn_that_was_not_taken_is_the_first_to_be_handed_out_again() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(1, Routing::LeastBusy);
    ready(&mut dispatcher, now);
    dispatcher.submit(submission(1), now);
    dispatcher.submit(submission(2), now);
    dispatcher.notice(0, Notice::NotTaken(TurnId(1)), now);
    dispatcher.notice(0, Notice::Ended { why: String::new(), failure: Some(crash()) }, now);
    assert_eq!(runs(&dispatcher.notice(0, Notice::Available, now)), [(0, 1)]);
}

#[test]
fn a_shutdown_counts_what_it_drops_and_is_down_when_all_are() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(2, Routing::RoundRobin);
    ready(&mut dispatcher, now);
    for turn in 1..=3 {
        dispatcher.submit(submission(turn), now);
    }
    let (dropped, out) = dispatcher.close(now);
    assert_eq!(dropped, 3);
    assert_eq!(finished(&out).len(), 1, "only the one that waits ends at once");
    let ended = || Notice::Ended { why: String::new(), failure: None };
    dispatcher.notice(0, ended(), now);
    assert!(dispatcher.notice(1, ended(), now).iter().any(|action| matches!(action, Action::Down)));
}

#[test]
fn on_demand_nothing_starts_before_there_is_work() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(2, Routing::LeastBusy);
    dispatcher.rules.on_demand = true;
    assert!(orders(&dispatcher.start(now)).is_empty());
    assert_eq!(orders(&dispatcher.submit(submission(1), now)), [(0, Order::Start)]);
    assert_eq!(orders(&dispatcher.submit(submission(2), now)), [(1, Order::Start)]);
}

fn open_turn(turn: u64) -> Submission {
    Submission { prompts: Vec::new(), ..submission(turn) }
}

fn prompt_for(turn: u64) -> Addition {
    Addition {
        turn: TurnId(turn),
        commands: Vec::new(),
        prompts: vec!["prompt".into()],
        mode: Mode::Default,
        timeout: None,
    }
}

fn quarantined(dispatcher: &mut Dispatcher, at: usize, now: Instant) -> Vec<Action> {
    let missing = Failure::new(FailureKind::ToolMissing, "gone");
    dispatcher.notice(at, Notice::Ended { why: String::new(), failure: Some(missing) }, now)
}

#[test]
fn a_turn_that_was_not_taken_by_an_instance_that_is_given_up_goes_to_another() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(2, Routing::RoundRobin);
    ready(&mut dispatcher, now);
    dispatcher.submit(submission(1), now);
    quarantined(&mut dispatcher, 0, now);
    assert_eq!(runs(&dispatcher.notice(0, Notice::NotTaken(TurnId(1)), now)), [(1, 1)]);
}

#[test]
fn a_turn_that_was_not_taken_starts_an_instance_on_demand() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(1, Routing::LeastBusy);
    dispatcher.rules.on_demand = true;
    dispatcher.submit(submission(1), now);
    dispatcher.notice(0, Notice::Available, now);
    dispatcher.notice(0, Notice::Ended { why: String::new(), failure: None }, now);
    assert_eq!(orders(&dispatcher.notice(0, Notice::NotTaken(TurnId(1)), now)), [(0, Order::Start)]);
}

#[test]
fn a_turn_that_was_not_taken_ends_when_it_was_cancelled_or_the_pool_is_shut_down() {
    let now = Instant::now();
    let shut = |dispatcher: &mut Dispatcher| drop(dispatcher.close(now));
    let cancel = |dispatcher: &mut Dispatcher| drop(dispatcher.cancel(TurnId(1), now));
    for end in [&shut as &dyn Fn(&mut Dispatcher), &cancel] {
        let mut dispatcher = dispatcher(1, Routing::RoundRobin);
        ready(&mut dispatcher, now);
        dispatcher.submit(submission(1), now);
        end(&mut dispatcher);
        let out = dispatcher.notice(0, Notice::NotTaken(TurnId(1)), now);
        assert_eq!(finished(&out)[0].outcome, Outcome::Cancelled);
    }
}

#[test]
fn a_prompt_can_not_join_a_turn_that_is_being_closed() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(1, Routing::RoundRobin);
    ready(&mut dispatcher, now);
    dispatcher.submit(open_turn(1), now);
    dispatcher.notice(0, Notice::Held { turn: TurnId(1), replies: Vec::new() }, now);
    dispatcher.tick(now + Duration::from_secs(60));
    let (open, out) = dispatcher.add(prompt_for(1), now);
    assert!(!open && out.is_empty());
    let out = dispatcher.notice(0, done(1, Outcome::Succeeded), now);
    assert!(finished(&out).is_empty(), "a prompt that never ran has not succeeded");
}

#[test]
fn a_turn_that_is_closed_while_its_commands_are_answered_is_let_go_when_they_are() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(1, Routing::RoundRobin);
    ready(&mut dispatcher, now);
    dispatcher.submit(open_turn(1), now);
    dispatcher.release_open();
    let out = dispatcher.notice(0, Notice::Held { turn: TurnId(1), replies: Vec::new() }, now);
    assert_eq!(orders(&out), [(0, Order::Release(TurnId(1)))]);
}

#[test]
fn a_held_turn_is_let_go_also_where_thousands_wait_behind_it() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(1, Routing::LeastBusy);
    ready(&mut dispatcher, now);
    dispatcher.submit(open_turn(1), now);
    dispatcher.notice(0, Notice::Held { turn: TurnId(1), replies: Vec::new() }, now);
    for turn in 2..=5000 {
        dispatcher.submit(submission(turn), now);
    }
    assert_eq!(dispatcher.next_tick(), Some(now + Duration::from_secs(60)));
}

#[test]
fn a_restart_by_hand_is_answered_also_in_a_shutdown() {
    let now = Instant::now();
    let refused = |out: &[Action]| out.iter().any(|action| matches!(action, Action::Restarted(0, Err(_))));
    let mut dispatcher = dispatcher(1, Routing::RoundRobin);
    ready(&mut dispatcher, now);
    dispatcher.submit(submission(1), now);
    dispatcher.restart(0, false, now);
    assert!(refused(&dispatcher.close(now).1));
    dispatcher.notice(0, Notice::Ended { why: String::new(), failure: None }, now);
    assert!(refused(&dispatcher.restart(0, false, now)));
    assert_eq!(dispatcher.next_tick(), None);
}

#[test]
fn on_demand_a_quarantine_starts_another_for_what_waits() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(2, Routing::LeastBusy);
    dispatcher.rules.on_demand = true;
    dispatcher.submit(submission(1), now);
    assert_eq!(orders(&quarantined(&mut dispatcher, 0, now)), [(1, Order::Start)]);
    assert_eq!(finished(&quarantined(&mut dispatcher, 1, now)).len(), 1);
}

#[test]
fn on_demand_nothing_is_restarted_that_nobody_waits_for() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(1, Routing::LeastBusy);
    dispatcher.rules.on_demand = true;
    dispatcher.submit(submission(1), now);
    dispatcher.notice(0, Notice::Available, now);
    dispatcher.notice(0, done(1, crash().into()), now);
    assert_eq!(orders(&dispatcher.notice(0, Notice::Ended { why: String::new(), failure: Some(crash()) }, now)), []);
}

#[test]
fn under_least_busy_the_planned_instance_runs_the_turn_when_it_is_idle() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(2, Routing::LeastBusy);
    ready(&mut dispatcher, now);
    dispatcher.submit(submission(1), now);
    dispatcher.notice(0, done(1, Outcome::Succeeded), now);
    dispatcher.notice(0, Notice::Available, now);
    assert_eq!(runs(&dispatcher.submit(submission(2), now)), [(1, 2)]);
}

#[test]
fn turns_for_one_instance_do_not_starve_those_that_wait_for_any() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(1, Routing::LeastBusy);
    ready(&mut dispatcher, now);
    dispatcher.submit(submission(1), now);
    dispatcher.submit(submission(2), now);
    dispatcher.submit(Submission { address: Some(0), ..submission(3) }, now);
    dispatcher.notice(0, done(1, Outcome::Succeeded), now);
    assert_eq!(runs(&dispatcher.notice(0, Notice::Available, now)), [(0, 2)]);
}

#[test]
fn a_turn_whose_process_ends_before_its_prompt_is_done_again_with_its_files_and_once_only() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(2, Routing::RoundRobin);
    ready(&mut dispatcher, now);
    let add = ContextCommand::Add("a".into());
    dispatcher.submit(Submission { commands: vec![add.clone()], ..open_turn(1) }, now);
    let reply = ContextReply { command: add.clone(), result: Ok("Added".into()) };
    dispatcher.notice(0, Notice::Held { turn: TurnId(1), replies: vec![reply] }, now);
    let lost = |dispatcher: &mut Dispatcher| {
        let out = dispatcher.notice(0, Notice::NotBegun { turn: TurnId(1), failure: crash() }, now);
        dispatcher.notice(0, Notice::Ended { why: String::new(), failure: Some(crash()) }, now);
        out
    };
    assert!(finished(&lost(&mut dispatcher)).is_empty());
    assert!(dispatcher.add(prompt_for(1), now).0, "its prompt joins it still");
    let out = dispatcher.notice(0, Notice::Available, now);
    let [(0, Order::Run(work))] = &orders(&out)[..] else { panic!("{out:?}") };
    assert_eq!((&work.commands, work.told, work.prompts.len()), (&vec![add], 1, 1));
    let failed = finished(&lost(&mut dispatcher));
    assert!(
        matches!(&failed[0].outcome, Outcome::Failed(Failure { kind: FailureKind::Crashed { .. }, .. })),
        "{failed:?}"
    );
}

#[test]
fn a_turn_goes_to_the_instance_that_it_avoids_only_when_no_other_lives() {
    let now = Instant::now();
    for routing in [Routing::LeastBusy, Routing::RoundRobin] {
        let mut dispatcher = dispatcher(2, routing);
        ready(&mut dispatcher, now);
        let avoiding = |turn, at| Submission { avoid: Some(at), ..submission(turn) };
        assert_eq!(runs(&dispatcher.submit(avoiding(1, 0), now)), [(1, 1)], "{routing}");
        assert_eq!(runs(&dispatcher.submit(avoiding(2, 0), now)), [], "0 is idle");
        // A younger one that may go there is not held up by it.
        assert_eq!(runs(&dispatcher.submit(avoiding(3, 1), now)), [(0, 3)], "{routing}");
        dispatcher.notice(0, done(3, Outcome::Succeeded), now);
        assert_eq!(runs(&dispatcher.notice(0, Notice::Available, now)), [], "{routing}");
        let mut out = dispatcher.notice(1, done(1, Outcome::Succeeded), now);
        dispatcher.quarantine(1, crash(), now, &mut out);
        assert_eq!(runs(&out), [(0, 2)], "{routing}");
    }
}
