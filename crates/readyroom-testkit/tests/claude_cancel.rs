//! Cancel and timeout on Claude Code, in each state that a turn can be in. Each cell ends within the ladder's time,
//! leaves nothing of it in the next turn's context and nothing of it running.

mod claude_support;

use std::time::{Duration, Instant};

use claude_support::{Stage, activity, answer, bash, write};
use readyroom::cluster::Cluster;
use readyroom::driver::Activity;
use readyroom::{Job, Outcome, Permissions};
use readyroom_testkit::{Model, Step, assert_nothing_left};

/// How long a cancelled turn may take to end: the definition's limit, and one rung of the ladder.
const LADDER: Duration = Duration::from_secs(8);

/// One cell, twice: cancelled by the caller, and by its own time limit. `reached` waits until the turn is in the state.
async fn cell<F>(
    model: impl Fn(&Model),
    stage: &Stage,
    cluster: &Cluster,
    reached: impl Fn(readyroom::cluster::Events, readyroom::event::TurnId) -> F,
) where
    F: Future<Output = ()>,
{
    for limit in [None, Some(Duration::from_secs(8))] {
        model(&stage.model);
        stage.model.on("takin", "as if nothing had been");
        let events = cluster.events();
        let mut job = Job::new("Do it, serow");
        job.timeout = limit;
        let ticket = cluster.submit(job).unwrap();
        reached(events, ticket.id()).await;
        let since = Instant::now();
        if limit.is_none() {
            ticket.cancel();
        }
        let response = ticket.await;
        match limit {
            None => assert_eq!(response.outcome, Outcome::Cancelled),
            Some(limit) => assert!(matches!(response.outcome, Outcome::TimedOut { after, .. } if after == limit)),
        }
        assert!(since.elapsed() < LADDER + limit.unwrap_or_default(), "{:?}", since.elapsed());
        assert_eq!(answer(cluster, "And now, takin").await, "as if nothing had been");
        let next = stage.model.requests_of("takin").pop().unwrap();
        assert!(!next.holds("serow"), "the cancelled prompt is in the next context");
        assert!(stage.running("sleep").is_empty(), "{:?}", stage.running("sleep"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_claude_streaming() {
    let stage = Stage::new();
    let cluster = stage.one(Permissions::Full).await;
    let script =
        |model: &Model| model.on("serow", Step::Slow { text: "on and on ".repeat(400), chunk: 10, delay_ms: 50 });
    cell(script, &stage, &cluster, |mut events, turn| async move {
        activity(&mut events, turn, |seen| matches!(seen, Activity::Text(_))).await;
    })
    .await;
    assert_eq!(cluster.status().await.instances[0].generation, 1, "no process was lost over it");
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_claude_model_silent() {
    let stage = Stage::new();
    let cluster = stage.one(Permissions::Full).await;
    let model = &stage.model;
    cell(
        |model| model.on("serow", Step::Hang),
        &stage,
        &cluster,
        |_, _| async move {
            model.requested("serow").await;
        },
    )
    .await;
    assert_eq!(cluster.status().await.instances[0].generation, 1);
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_claude_retrying() {
    let stage = Stage::new();
    let cluster = stage.one(Permissions::Full).await;
    cell(
        |model| model.on("serow", Step::retry_after(9)),
        &stage,
        &cluster,
        |mut events, turn| async move {
            activity(&mut events, turn, |seen| matches!(seen, Activity::Retrying { .. })).await;
        },
    )
    .await;
    assert_eq!(cluster.status().await.instances[0].generation, 1);
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_claude_shell_command() {
    let stage = Stage::new();
    let cluster = stage.one(Permissions::Full).await;
    // One that stays in the foreground, and one that has left it: the second is what the tool itself overlooks.
    let script = |model: &Model| model.on("serow", bash("(setsid sleep 3601 &) ; sleep 3602; touch never"));
    let place = &stage;
    cell(script, &stage, &cluster, |_, _| async move { place.until_running("sleep 3602", true).await }).await;
    assert_eq!(stage.sandbox.read("never"), None);
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}

/// The driver answers a question at once, so this state can't last; what can be seen is a cancel on the question's heels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_claude_permission_asked() {
    let stage = Stage::new();
    let cluster = stage.one(Permissions::Read).await;
    let path = stage.path("never.txt");
    let script = |model: &Model| {
        model.on("serow", [write(&path, "x"), Step::Hang]);
    };
    cell(script, &stage, &cluster, |mut events, turn| async move {
        activity(&mut events, turn, |seen| matches!(seen, Activity::Denied(_))).await;
    })
    .await;
    assert_eq!(stage.sandbox.read("never.txt"), None);
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}
