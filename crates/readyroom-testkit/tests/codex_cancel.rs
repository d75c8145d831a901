//! Cancelling and timing out, in every state that a turn of Codex can be in.
//!
//! | Codex is | Cell |
//! |---|---|
//! | streaming | `cancel_codex_streaming` |
//! | waiting for a model that is silent | `cancel_codex_model_silent` |
//! | retrying | `cancel_codex_retrying` |
//! | running a shell command | `cancel_codex_shell_command` |
//! | asking for a permission | impossible: the driver answers in the same step in which it reads the question, so no order can come between; `cancel_codex_permission_asked` shows that nothing waits |

mod codex_support;

use std::time::{Duration, Instant};

use codex_support::{Place, patch, pids, shell, thread, unsandboxed, until_activity};
use readyroom::driver::Activity;
use readyroom::{Denials, Job, Outcome};
use readyroom_testkit::{Script, Step};

/// The longest that a cancelled turn may take to end: `cancel_seconds` of the definition.
const LADDER: Duration = Duration::from_secs(5);

/// How a turn is ended early.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Cancel,
    Timeout,
}

/// Ends a turn early when `wanted` has been seen and, where there is one, the command runs; asserts that it ends soon,
/// that nothing of it runs on, and that the next turn of the same process knows nothing of it.
async fn cell(script: impl Into<Script>, wanted: fn(&Activity) -> bool, command: Option<&str>, how: How) {
    let place = Place::new();
    place.model.on("gneiss-first", script);
    place.model.on("gneiss-next", "all is well");
    let cluster = place.launch(place.options(1)).await;
    let before = pids(&cluster.status().await);
    let mut events = cluster.events();
    let limit = Duration::from_secs(10);
    let job = Job::new("Work on gneiss-first");
    let job = if how == How::Timeout { job.with_timeout(limit) } else { job };
    let ticket = cluster.submit(job).unwrap();
    let began = Instant::now();
    place.model.requested("gneiss-first").await;
    until_activity(&mut events, wanted).await;
    if let Some(command) = command {
        place.until_runs(command).await;
    }
    assert!(how == How::Cancel || began.elapsed() < limit, "the state was reached in time");
    let asked = Instant::now();
    if how == How::Cancel {
        ticket.cancel();
    }
    let response = ticket.await;
    match (how, &response.outcome) {
        (How::Cancel, Outcome::Cancelled) => assert!(asked.elapsed() < LADDER, "{:?}", asked.elapsed()),
        (How::Timeout, Outcome::TimedOut { after, .. }) => {
            assert_eq!(*after, limit);
            assert!(began.elapsed() < limit + LADDER, "{:?}", began.elapsed());
        }
        (_, outcome) => panic!("{how:?}: {outcome:?}"),
    }
    if let Some(command) = command {
        assert!(!place.runs(command), "the command ran on after the turn's end");
    }
    let next = cluster.submit("Work on gneiss-next").unwrap().await;
    assert_eq!(next.text().unwrap(), "all is well");
    assert_ne!(thread(&next.proof), thread(&response.proof));
    assert!(place.model.requests_of("gneiss-next").iter().all(|request| !request.holds("gneiss-first")));
    assert_eq!(pids(&cluster.status().await), before, "the process was kept");
    place.end(cluster).await;
}

fn text(activity: &Activity) -> bool {
    matches!(activity, Activity::Text(_))
}

#[tokio::test]
async fn cancel_codex_streaming() {
    let slow = || Step::Slow { text: "One word after the other. ".repeat(400), chunk: 10, delay_ms: 50 };
    tokio::join!(cell(slow(), text, None, How::Cancel), cell(slow(), text, None, How::Timeout));
}

#[tokio::test]
async fn cancel_codex_model_silent() {
    let silent = || Step::HangAfter { text: "And then nothing".into() };
    tokio::join!(cell(silent(), text, None, How::Cancel), cell(silent(), text, None, How::Timeout));
}

#[tokio::test]
async fn cancel_codex_retrying() {
    let retrying: fn(&Activity) -> bool = |activity| matches!(activity, Activity::Retrying { .. });
    let wait = || Step::retry_after(60);
    tokio::join!(cell(wait(), retrying, None, How::Cancel), cell(wait(), retrying, None, How::Timeout));
}

#[tokio::test]
async fn cancel_codex_shell_command() {
    let started: fn(&Activity) -> bool = |activity| matches!(activity, Activity::ToolStarted(_));
    let command = || Script::new([shell("sleep 4321"), Step::say("done")]);
    tokio::join!(
        cell(command(), started, Some("sleep 4321"), How::Cancel),
        cell(command(), started, Some("sleep 4321"), How::Timeout),
    );
}

#[tokio::test]
async fn cancel_codex_permission_asked() {
    let place = Place::new();
    let outside = place.sandbox.outside().join("out.txt");
    let leave = unsandboxed(&format!("touch {}", outside.display()));
    let edit = patch(&outside.display().to_string(), "x");
    place.model.on("gneiss-ask", [edit, leave, Step::say("I may not.")]);
    let cluster = place.launch(place.options(1)).await;
    let response = cluster.submit("Work on gneiss-ask").unwrap().await;
    assert_eq!(response.text().unwrap(), "I may not.");
    let Denials::Known(denied) = &response.answer.denials else { panic!("{:?}", response.answer.denials) };
    assert_eq!(denied.len(), 2, "{denied:?}");
    assert!(!outside.exists());
    place.end(cluster).await;
}
