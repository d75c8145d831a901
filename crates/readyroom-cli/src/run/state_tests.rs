use proptest::prelude::*;

use super::Action::*;
use super::*;

fn one_pool(instances: usize, jobs: usize) -> Run {
    Run::new(vec![(instances, (0..jobs).collect())], instances, Routing::LeastBusy, None)
}

/// A run of one pool that has opened.
fn opened(instances: usize, jobs: usize) -> (Run, Vec<Action>) {
    let mut run = one_pool(instances, jobs);
    assert_eq!(run.handle(Input::Begin), [Open(0)]);
    let actions = run.handle(Input::Opened(0));
    (run, actions)
}

#[test]
fn jobs_go_out_a_few_at_a_time_until_all_are_done() {
    let (mut run, actions) = opened(1, 4);
    assert_eq!(actions, [Submit(0), Submit(1)]);
    assert_eq!(run.handle(Input::Started(0)), []);
    assert_eq!(run.handle(Input::Ended(0, Verdict::Succeeded)), [Submit(2)]);
    assert_eq!(run.handle(Input::Ended(1, Verdict::Succeeded)), [Submit(3)]);
    assert_eq!(run.handle(Input::Ended(2, Verdict::Succeeded)), []);
    assert_eq!(run.handle(Input::Ended(3, Verdict::Succeeded)), [Close(0)]);
    assert_eq!(run.handle(Input::Closed(0)), []);
    for job in 0..3 {
        assert_eq!(run.handle(Input::Written(job)), []);
    }
    assert_eq!(run.handle(Input::Written(3)), [Finish]);
    assert_eq!(run.exit_status(), ExitStatus::Success);
    assert!(run.not_done().is_empty());
}

#[test]
fn no_jobs_are_a_success_at_once() {
    let mut run = Run::new(vec![], 3, Routing::LeastBusy, None);
    assert_eq!(run.handle(Input::Begin), [Finish]);
    assert_eq!(run.exit_status(), ExitStatus::Success);
}

#[test]
fn unread_answers_hold_jobs_back() {
    let (mut run, actions) = opened(1, 1000);
    let mut handed = actions.len();
    for job in 0.. {
        if job == handed {
            break;
        }
        handed += run.handle(Input::Ended(job, Verdict::Succeeded)).len();
    }
    assert!(handed <= UNWRITTEN_LIMIT + 2, "{handed}");
    assert!((0..3).any(|job| !run.handle(Input::Written(job)).is_empty()));
}

#[test]
fn pools_beyond_the_total_wait_for_others() {
    let mut run = Run::new(vec![(1, vec![0]), (1, vec![1]), (1, vec![2])], 2, Routing::LeastBusy, None);
    assert_eq!(run.handle(Input::Begin), [Open(0), Open(1)]);
    assert_eq!(run.handle(Input::Opened(1)), [Submit(1)]);
    assert_eq!(run.handle(Input::Ended(1, Verdict::Succeeded)), [Close(1)]);
    assert_eq!(run.handle(Input::Closed(1)), [Open(2)]);
}

#[test]
fn a_pool_that_never_opens_fails_its_jobs_and_the_others_go_on() {
    let mut run = Run::new(vec![(1, vec![0, 2]), (1, vec![1])], 2, Routing::LeastBusy, None);
    run.handle(Input::Begin);
    assert_eq!(run.handle(Input::NotOpened(0)), [Fail(0), Fail(2)]);
    run.handle(Input::Opened(1));
    run.handle(Input::Started(1));
    run.handle(Input::Ended(1, Verdict::Succeeded));
    run.handle(Input::Closed(1));
    for job in [0, 1] {
        assert_eq!(run.handle(Input::Written(job)), []);
    }
    assert_eq!(run.handle(Input::Written(2)), [Finish]);
    assert_eq!(run.exit_status(), ExitStatus::SomeFailed);
}

#[test]
fn no_instance_ever_ready_has_a_status_of_its_own() {
    let mut run = one_pool(1, 1);
    run.handle(Input::Begin);
    assert_eq!(run.handle(Input::NotOpened(0)), [Fail(0)]);
    assert_eq!(run.handle(Input::Written(0)), [Finish]);
    assert_eq!(run.exit_status(), ExitStatus::NotReady);
    // The same where the pool opened and its jobs failed before any instance was ready.
    let (mut run, _) = opened(1, 1);
    run.handle(Input::Ended(0, Verdict::Failed));
    run.handle(Input::Closed(0));
    assert_eq!(run.handle(Input::Written(0)), [Finish]);
    assert_eq!(run.exit_status(), ExitStatus::NotReady);
}

#[test]
fn too_many_failures_hand_out_nothing_more_and_let_the_rest_end() {
    let mut run = Run::new(vec![(2, (0..9).collect())], 2, Routing::LeastBusy, Some(1));
    run.handle(Input::Begin);
    assert_eq!(
        run.handle(Input::Opened(0)),
        [Submit(0), Submit(1)],
        "one ahead could begin before the failure is known"
    );
    run.handle(Input::Started(0));
    run.handle(Input::Started(1));
    assert_eq!(run.handle(Input::Ended(0, Verdict::Failed)), []);
    assert_eq!(run.handle(Input::Ended(1, Verdict::Succeeded)), [Close(0)]);
    run.handle(Input::Closed(0));
    run.handle(Input::Written(0));
    assert_eq!(run.handle(Input::Written(1)), [Finish]);
    assert_eq!(run.exit_status(), ExitStatus::StoppedEarly);
    assert_eq!(run.not_done(), [2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(run.unreported(), [2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn ends_that_wait_for_an_earlier_job_are_no_backlog() {
    let mut run = Run::new(vec![(1, (0..200).collect())], 1, Routing::LeastBusy, None);
    run.handle(Input::Begin);
    run.handle(Input::Opened(0));
    run.handle(Input::Again(0, PoolEffect::None));
    for job in 1..150 {
        run.handle(Input::Held(job - 1));
        assert!(!run.handle(Input::Ended(job, Verdict::Succeeded)).is_empty(), "{job}");
    }
    run.handle(Input::Due(0));
    assert_eq!(run.handle(Input::Ended(150, Verdict::Succeeded)), [Submit(0)]);
}

#[test]
fn a_limit_that_is_reached_by_the_last_job_stops_nothing() {
    let mut run = Run::new(vec![(1, vec![0])], 1, Routing::LeastBusy, Some(1));
    run.handle(Input::Begin);
    run.handle(Input::Opened(0));
    run.handle(Input::Started(0));
    assert_eq!(run.handle(Input::Ended(0, Verdict::Failed)), [Close(0)]);
    assert_eq!(run.exit_status(), ExitStatus::SomeFailed);
}

#[test]
fn the_first_signal_cancels_and_the_second_ctrl_c_kills() {
    let (mut run, _) = opened(1, 3);
    run.handle(Input::Started(0));
    assert_eq!(run.handle(Input::Signal(Signal::Interrupt)), [Cancel(0), Cancel(1)]);
    assert_eq!(run.handle(Input::Signal(Signal::Terminate)), []);
    assert_eq!(run.handle(Input::Signal(Signal::Interrupt)), [Kill, Finish]);
    assert_eq!(run.handle(Input::Signal(Signal::Interrupt)), []);
    assert_eq!(run.handle(Input::Ended(0, Verdict::Cancelled)), []);
    assert_eq!(run.exit_status(), ExitStatus::Signal(Signal::Interrupt));
    assert_eq!(run.exit_status().code(), 130);
    assert_eq!(run.not_done(), [0, 1, 2]);
}

#[test]
fn a_hangup_shuts_down_in_order_however_often_it_comes() {
    let (mut run, _) = opened(1, 2);
    run.handle(Input::Started(0));
    assert_eq!(run.handle(Input::Signal(Signal::Hangup)), [Cancel(0), Cancel(1)]);
    assert_eq!(run.handle(Input::Signal(Signal::Hangup)), []);
    run.handle(Input::Ended(0, Verdict::Cancelled));
    assert_eq!(run.handle(Input::Ended(1, Verdict::Cancelled)), [Close(0)]);
    run.handle(Input::Closed(0));
    run.handle(Input::Written(0));
    assert_eq!(run.handle(Input::Written(1)), [Finish]);
    assert_eq!(run.exit_status().code(), 129);
}

#[test]
fn a_signal_while_pools_open_gives_them_up() {
    let mut run = one_pool(2, 5);
    run.handle(Input::Begin);
    assert_eq!(run.handle(Input::Signal(Signal::Terminate)), [Abandon(0)]);
    assert_eq!(run.handle(Input::Opened(0)), []);
    assert_eq!(run.handle(Input::Closed(0)), [Finish]);
    assert_eq!(run.exit_status().code(), 143);
}

#[test]
fn a_broken_output_stops_the_run_and_does_not_wait_for_it() {
    let (mut run, _) = opened(1, 3);
    run.handle(Input::Started(0));
    run.handle(Input::Ended(0, Verdict::Succeeded));
    run.handle(Input::Started(1));
    assert_eq!(run.handle(Input::OutputBroken), [Cancel(1), Cancel(2)]);
    run.handle(Input::Ended(1, Verdict::Cancelled));
    assert_eq!(run.handle(Input::Ended(2, Verdict::Cancelled)), [Close(0)]);
    assert_eq!(run.handle(Input::Closed(0)), [Finish]);
    assert_eq!(run.exit_status(), ExitStatus::StoppedEarly);
}

#[test]
fn routers_that_look_ahead_get_all_jobs() {
    let mut run = Run::new(vec![(2, (0..50).collect())], 2, Routing::RoundRobin, None);
    run.handle(Input::Begin);
    assert_eq!(run.handle(Input::Opened(0)).len(), 50);
}

/// What a simulated world answers to actions, in an order that the test chooses.
fn answers(action: Action, verdict: Verdict, opens: bool) -> Vec<Input> {
    match action {
        Open(pool) if opens => vec![Input::Opened(pool)],
        Open(pool) => vec![Input::NotOpened(pool)],
        Submit(job) => vec![Input::Started(job), Input::Ended(job, verdict), Input::Written(job)],
        Fail(job) => vec![Input::Written(job)],
        Abandon(pool) | Close(pool) => vec![Input::Closed(pool)],
        Cancel(_) | Kill | Finish => vec![],
    }
}

proptest! {
    /// Whatever the order of events, each job is handed out at most once, no more instances live than the total
    /// allows, and the run ends.
    #[test]
    fn every_run_ends(
        pools in prop::collection::vec((1usize..4, 1usize..12), 1..5),
        choices in prop::collection::vec((0usize..1000, 0u8..40), 0..600),
        limit in prop::option::of(1u64..6),
    ) {
        let mut next = 0;
        let plan: Vec<(usize, Vec<usize>)> = pools
            .iter()
            .map(|&(instances, jobs)| {
                let first = next;
                next += jobs;
                (instances, (first..next).collect())
            })
            .collect();
        let total = plan.iter().map(|(instances, _)| *instances).max().unwrap();
        let mut run = Run::new(plan.clone(), total, Routing::LeastBusy, limit);
        let mut choices = choices.into_iter().chain(std::iter::repeat((0, 39)));
        // Events of one cause keep their order; different causes are interleaved.
        let mut queues = vec![vec![Input::Begin]];
        let mut submitted = vec![0; next];
        let mut alive = std::collections::BTreeSet::new();
        let mut finished = 0;
        for _ in 0..10_000 {
            queues.retain(|queue| !queue.is_empty());
            let (choice, dice) = choices.next().unwrap();
            let input = match dice {
                0 => Input::Signal(Signal::Terminate),
                1 if finished == 0 => Input::OutputBroken,
                _ if queues.is_empty() => break,
                _ => {
                    let at = choice % queues.len();
                    queues[at].remove(0)
                }
            };
            if let Input::Closed(pool) | Input::NotOpened(pool) = input {
                alive.remove(&pool);
            }
            for action in run.handle(input) {
                match action {
                    Submit(job) => submitted[job] += 1,
                    Open(pool) => prop_assert!(alive.insert(pool)),
                    Finish => finished += 1,
                    _ => {}
                }
                prop_assert!(alive.iter().map(|&pool| plan[pool].0).sum::<usize>() <= total);
                let verdict = if dice % 5 == 0 { Verdict::Failed } else { Verdict::Succeeded };
                queues.push(answers(action, verdict, dice % 7 != 6));
            }
        }
        prop_assert_eq!(finished, 1);
        prop_assert!(submitted.iter().all(|&times| times <= 1));
    }
}

#[test]
fn a_job_is_tried_again_and_holds_the_run_open() {
    let (mut run, _) = opened(1, 1);
    run.handle(Input::Started(0));
    assert_eq!(run.progress(), "0 of 1 jobs done, 1 running");
    assert_eq!(run.handle(Input::Again(0, PoolEffect::None)), []);
    assert_eq!(run.progress(), "0 of 1 jobs done, 1 waiting for another attempt");
    assert_eq!(run.handle(Input::Due(0)), [Submit(0)]);
    assert_eq!(run.handle(Input::Ended(0, Verdict::Succeeded)), [Close(0)]);
    run.handle(Input::Closed(0));
    assert_eq!(run.handle(Input::Written(0)), [Finish]);
    assert_eq!(run.exit_status(), ExitStatus::Success);
}

#[test]
fn a_provider_that_asks_for_less_gets_half_and_then_step_by_step_more() {
    let mut run = Run::new(vec![(4, (0..20).collect())], 4, Routing::LeastBusy, None);
    run.handle(Input::Begin);
    assert_eq!(run.handle(Input::Opened(0)).len(), 8);
    (0..4).for_each(|job| drop(run.handle(Input::Started(job))));
    // Two say it at once: it counts once, and nothing is handed out until both are due.
    assert_eq!(run.handle(Input::Again(0, PoolEffect::Slowed)), []);
    assert_eq!(run.handle(Input::Again(1, PoolEffect::Slowed)), []);
    assert_eq!(run.handle(Input::Due(0)), []);
    for job in 2..7 {
        assert_eq!(run.handle(Input::Ended(job, Verdict::Succeeded)), []);
    }
    assert_eq!(run.handle(Input::Due(1)), [Submit(0)], "two may be open, and one is");
    run.handle(Input::Ended(7, Verdict::Succeeded));
    run.handle(Input::Ended(0, Verdict::Succeeded));
    let handed: usize =
        (0..6).map(|at| run.handle(Input::Ended([1, 8, 9, 10, 11, 12][at], Verdict::Succeeded)).len()).sum();
    assert!(handed >= 6, "the limit is gone after enough successes: {handed}");
}

#[test]
fn a_usage_window_parks_the_pool_and_one_job_looks_whether_it_is_over() {
    let mut run = Run::new(vec![(2, (0..6).collect())], 2, Routing::LeastBusy, None);
    run.handle(Input::Begin);
    assert_eq!(run.handle(Input::Opened(0)).len(), 4);
    (0..4).for_each(|job| drop(run.handle(Input::Started(job))));
    for job in 0..4 {
        assert_eq!(run.handle(Input::Again(job, PoolEffect::Parked)), []);
    }
    (0..3).for_each(|job| assert_eq!(run.handle(Input::Due(job)), []));
    assert_eq!(run.handle(Input::Due(3)), [Submit(0)]);
    // Still used up: parked again.
    assert_eq!(run.handle(Input::Again(0, PoolEffect::Parked)), []);
    assert_eq!(run.handle(Input::Due(0)), [Submit(1)]);
    assert_eq!(run.handle(Input::Ended(1, Verdict::Succeeded)).len(), 4, "it is over");
}

#[test]
fn what_no_job_can_mend_stops_the_run_and_the_rest_waits() {
    let mut run = Run::new(vec![(1, (0..3).collect())], 1, Routing::LeastBusy, None);
    run.handle(Input::Begin);
    run.handle(Input::Opened(0));
    run.handle(Input::Started(0));
    assert_eq!(run.handle(Input::Ended(0, Verdict::Blocked)), []);
    run.handle(Input::Written(0));
    assert_eq!(run.handle(Input::Ended(1, Verdict::Cancelled)), [Close(0)]);
    run.handle(Input::Closed(0));
    assert_eq!(run.handle(Input::Written(1)), [Finish]);
    assert_eq!(run.exit_status(), ExitStatus::StoppedEarly);
    assert_eq!(run.not_done(), [0, 1, 2], "the journal has all of them queued");
}
