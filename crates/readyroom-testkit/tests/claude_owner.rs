//! The owner of a Claude Code is killed while the model's shell command runs: nothing of it survives.

mod claude_support;

use std::time::{Duration, Instant};

use claude_support::{Stage, bash};
use readyroom::Permissions;
use readyroom_testkit::{Owner, assert_nothing_left};

/// A foreground command in a group of its own, and one that has left the session.
fn stage(word: &str) -> Stage {
    let stage = Stage::new();
    stage.model.on(word, bash("(setsid sleep 3604 &) ; sleep 3605; true"));
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_survives_the_owner_by_two_seconds() {
    let stage = stage("bharal");
    let mut owner = Owner::start(&stage.sandbox, Permissions::Full, "Do it, bharal");
    stage.until_running("sleep 3605", true).await;
    assert!(!stage.running("sleep 3604").is_empty());
    owner.kill();
    assert_nothing_left(&stage.sandbox);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_guardian_the_owner_ends_all() {
    let stage = stage("saiga");
    let mut owner = Owner::start(&stage.sandbox, Permissions::Full, "Do it, saiga");
    stage.until_running("sleep 3605", true).await;
    let guardian = owner.guardian(&stage.sandbox).expect("a guardian");
    assert!(std::process::Command::new("kill").args(["-KILL", &guardian.pid.to_string()]).status().unwrap().success());
    let killed = Instant::now();
    stage.until_running("sleep 360", false).await;
    stage.until_running("stream-json", false).await;
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    let outcome = tokio::task::block_in_place(|| owner.outcome());
    assert!(outcome.contains("crashed"), "{outcome}");
    assert_nothing_left(&stage.sandbox);
}
