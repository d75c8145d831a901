//! What the model's failures become on Claude Code, and that the next job is right after each of them.

mod claude_support;

use std::time::Duration;

use claude_support::{Stage, answer};
use readyroom::cluster::LaunchError;
use readyroom::{Failure, FailureKind, Job, Outcome, Permissions};
use readyroom_testkit::{Step, assert_nothing_left};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failure_of_the_model_has_its_kind_and_the_next_job_is_right() {
    let stage = Stage::new();
    let cluster = stage.one(Permissions::Edit).await;
    let limited = FailureKind::RateLimited { retry_after: Some(Duration::from_secs(2)) };
    let longer = FailureKind::RateLimited { retry_after: Some(Duration::from_secs(45)) };
    // Above a minute the tool neither waits nor tells.
    let hour = FailureKind::RateLimited { retry_after: None };
    let table = [
        ("401", Step::status(401), FailureKind::Auth),
        ("403", Step::status(403), FailureKind::Auth),
        ("404", Step::status(404), FailureKind::UnknownModel),
        ("400", Step::status(400), FailureKind::BadInput),
        ("429", Step::retry_after(2), limited),
        ("45 s", Step::retry_after(45), longer),
        ("an hour", Step::retry_after(3600), hour),
        ("500", Step::status(500), FailureKind::ModelError),
        ("break", Step::Break { after_text: "half of an ans".into() }, FailureKind::ModelError),
        ("no finish", Step::NoFinish { text: "all of an answer".into() }, FailureKind::ModelError),
    ];
    for (number, (name, step, kind)) in table.into_iter().enumerate() {
        let word = format!("kudu{number}x");
        stage.model.on(&word, step);
        let response = cluster.submit(format!("Do it, {word}")).unwrap().await;
        match response.outcome {
            Outcome::Failed(failure) => assert_eq!(failure.kind, kind, "{name}: {failure:?}"),
            other => panic!("{name}: {other:?}"),
        }
        next_is_right(&stage, &cluster, &format!("{number}a"), &word).await;
    }
    let status = cluster.status().await;
    assert_eq!(status.instances[0].generation, 1, "none of these needs a new process: {status:?}");
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}

async fn next_is_right(stage: &Stage, cluster: &readyroom::cluster::Cluster, name: &str, before: &str) {
    let word = format!("nyala{name}y");
    stage.model.on(&word, format!("right {name}"));
    assert_eq!(answer(cluster, format!("And now, {word}")).await, format!("right {name}"));
    assert!(!stage.model.wait_request(&word).holds(before), "what failed is still in the context");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_and_retries_past_the_deadline_time_out_with_what_was_announced() {
    let stage = Stage::new();
    let cluster = stage.one(Permissions::Edit).await;
    // What is to be announced needs time for that, and is over before the tool asks again.
    let cases = [
        (Step::Hang, 1500, ""),
        (Step::HangAfter { text: "so far".into() }, 1500, ""),
        (Step::retry_after(9), 8000, "429 rate_limit"),
    ];
    for (number, (step, limit, announced)) in cases.into_iter().enumerate() {
        let limit = Duration::from_millis(limit);
        let word = format!("oryx{number}x");
        stage.model.on(&word, step);
        let response = cluster.submit(Job::new(format!("Do it, {word}")).with_timeout(limit)).unwrap().await;
        match &response.outcome {
            Outcome::TimedOut { after, evidence } => {
                assert_eq!(*after, limit);
                assert!(evidence.contains(announced), "{evidence:?}");
            }
            other => panic!("{number}: {other:?}"),
        }
        next_is_right(&stage, &cluster, &format!("{number}b"), &word).await;
    }
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_ends_at_each_start_is_quarantined_with_its_own_words() {
    let stage = Stage::new();
    let mut options = stage.options(Permissions::Edit);
    options.contract.args.push("--no-such-option".into());
    let (definition, program) = stage.sandbox.definition();
    let error = readyroom::cluster::Cluster::launch(definition, &program, options).await.expect_err("no readiness");
    let LaunchError::NotReady { evidence, .. } = error else { panic!("{error}") };
    let (0, Failure { evidence, .. }) = &evidence[0] else { panic!("{evidence:?}") };
    assert!(evidence.contains("unknown option '--no-such-option'"), "{evidence}");
    assert_nothing_left(&stage.sandbox);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_fails_its_own_turn_only() {
    let stage = Stage::new();
    stage.model.on("gaur", Step::HangAfter { text: "half".into() });
    stage.model.on("bongo", Step::Slow { text: "slow but sure".into(), chunk: 2, delay_ms: 200 });
    stage.model.on("saola", "second life");
    let cluster = stage.launch(stage.options(Permissions::Edit).count(2)).await;
    let killed = cluster.turn().on(0).prompt("Do it, gaur").unwrap();
    let other = cluster.turn().on(1).prompt("Do it, bongo").unwrap();
    stage.model.requested("gaur").await;
    stage.model.requested("bongo").await;
    let pid = cluster.status().await.instances[0].pid.unwrap();
    kill(pid, "KILL");
    let response = killed.await;
    let Outcome::Failed(failure) = &response.outcome else { panic!("{response:?}") };
    assert_eq!(failure.kind, FailureKind::Crashed { exit: Some(readyroom::Exit::Signal(9)) }, "{failure:?}");
    assert_eq!(response.generation, 1);
    let response = other.await;
    assert_eq!(response.outcome, Outcome::Succeeded, "the other process does not notice");
    assert_eq!(response.answer.text, "slow but sure");
    let response = cluster.turn().on(0).prompt("Do it, saola").unwrap().await;
    assert_eq!(response.answer.text, "second life");
    assert_eq!(response.generation, 2);
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}

fn kill(pid: u32, signal: &str) {
    let done = std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap();
    assert!(done.success());
}
