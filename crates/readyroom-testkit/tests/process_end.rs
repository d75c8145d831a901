//! Ending trees of processes, however they behave, and measuring them.
#![cfg(target_os = "linux")]

mod process_support;

use std::time::{Duration, Instant};

use process_support::*;
use readyroom::Exit;
use readyroom::process::{self, Command};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;

const ALL: &str = "child,group,session,deaf,stopped,lost";
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_polite_tree_ends_at_once_whatever_the_grace() {
    let report = Report::new();
    let (process, seen) = start(&report, "child,group,session").await;
    let began = Instant::now();
    assert_eq!(process.handle.end_tree(LONG).await, Exit::Signal(15));
    assert!(began.elapsed() < LONG / 2);
    assert!(seen.iter().all(|seen| !seen.lives()), "when it returns, nothing runs");
    assert_eq!(process.handle.exit(), Some(Exit::Signal(15)));
    // Once more is no more work.
    assert_eq!(process.handle.end_tree(LONG).await, Exit::Signal(15));
}

#[tokio::test]
async fn a_tree_of_every_bad_habit_is_gone_after_the_grace() {
    let report = Report::new();
    let (process, seen) = start(&report, &format!("{ALL},deaf-leader")).await;
    let grace = Duration::from_millis(300);
    let began = Instant::now();
    assert_eq!(process.handle.end_tree(grace).await, Exit::Signal(9));
    assert!(began.elapsed() >= grace);
    assert!(seen.iter().all(|seen| !seen.lives()), "when it returns, nothing runs");
    assert_eq!(process.handle.usage(), process::TreeUsage::default());
}

#[tokio::test]
async fn what_outlives_its_leader_still_belongs_to_the_tree() {
    let report = Report::new();
    let (process, seen) = start(&report, ALL).await;
    signal(seen[0].pid, Signal::KILL);
    assert_eq!(process.handle.wait().await, Exit::Signal(9));
    let left = process.handle.descendants();
    assert_eq!(left.len(), seen.len() - 1, "{left:?}");
    assert_eq!(process.handle.end_tree(Duration::ZERO).await, Exit::Signal(9));
    assert!(seen.iter().all(|seen| !seen.lives()));
}

#[tokio::test]
async fn trees_are_told_apart() {
    let (first, second) = (Report::new(), Report::new());
    let (one, one_seen) = start(&first, ALL).await;
    let (two, two_seen) = start(&second, ALL).await;
    for (process, seen) in [(&one, &one_seen), (&two, &two_seen)] {
        let mut pids: Vec<u32> = process.handle.descendants().iter().map(|info| info.pid).collect();
        let mut expected: Vec<u32> = seen[1..].iter().map(|seen| seen.pid).collect();
        pids.sort_unstable();
        expected.sort_unstable();
        assert_eq!(pids, expected);
        assert_eq!(process.handle.usage().processes, seen.len());
    }
    one.handle.end_tree(Duration::ZERO).await;
    assert!(one_seen.iter().all(|seen| !seen.lives()));
    assert!(two_seen.iter().all(|seen| seen.lives()));
    drop(two);
    assert_all_dead(&two_seen);
}

#[tokio::test]
async fn strays_are_ended_and_the_kept_ones_are_not() {
    let report = Report::new();
    let (process, before) = start(&report, "child").await;
    let keep = process.handle.descendants();
    assert_eq!(keep.len(), 1);
    assert!(keep[0].command.contains("leaf") && keep[0].pid == before[1].pid, "{keep:?}");
    assert_eq!(process.handle.end_strays(&keep).await, []);

    // A tree where all but the first child came later.
    let report = Report::new();
    let (process, seen) = start(&report, ALL).await;
    let child = seen.iter().find(|seen| seen.name == "child").unwrap();
    let mut keep = process.handle.descendants();
    keep.retain(|info| info.pid == child.pid);
    let mut ended: Vec<u32> = process.handle.end_strays(&keep).await.iter().map(|info| info.pid).collect();
    let mut expected: Vec<u32> = seen[1..].iter().map(|seen| seen.pid).filter(|pid| *pid != child.pid).collect();
    ended.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ended, expected);
    for seen in &seen {
        assert_eq!(seen.lives(), seen.name == "leader" || seen.name == "child", "{seen:?}");
    }
    assert_eq!(process.handle.exit(), None);
    process.handle.end_tree(Duration::ZERO).await;
}

#[tokio::test]
async fn a_group_that_forks_without_pause_does_not_get_away() {
    fixture();
    // Each process lives for a moment only: by the time it is seen it is gone.
    let script = r#"f() { (f) & exit; }; trap "" TERM; echo; f"#;
    let mut process = process::spawn(&Command::new("sh").arg("-c").arg(script)).await.unwrap();
    process.stdout.read_u8().await.unwrap();
    process.handle.end_tree(Duration::from_millis(50)).await;
    let mut rest = Vec::new();
    // All of them hold the pipe, so its end is the end of the last one.
    tokio::time::timeout(PATIENCE, process.stdout.read_to_end(&mut rest)).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_interrupt_reaches_the_leader_alone() {
    let report = Report::new();
    let (process, seen) = start(&report, "child").await;
    process.handle.interrupt();
    assert_eq!(process.handle.wait().await, Exit::Signal(2));
    assert!(seen[1].lives());
    // There is nobody left to be interrupted; whoever has the pid next must not notice.
    process.handle.interrupt();
    process.handle.end_tree(Duration::ZERO).await;
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_tree() {
    let report = Report::new();
    let (process, seen) = start(&report, ALL).await;
    let handle = process.handle.clone();
    drop(process);
    assert!(handle.exit().is_none() && seen.iter().all(|seen| seen.lives()));
    drop(handle);
    assert_all_dead(&seen);
}

#[test]
fn a_tree_ends_with_its_runtime_and_outside_of_one() {
    let report = Report::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (process, seen) = runtime.block_on(start(&report, ALL));
    let handle = process.handle.clone();
    runtime.spawn(async move {
        let _held = process;
        std::future::pending::<()>().await;
    });
    drop(runtime);
    assert!(seen[0].lives(), "another handle is held");
    handle.kill_tree();
    assert_all_dead(&seen);
    eventually("the exit", || handle.exit() == Some(Exit::Signal(9)));
}

#[tokio::test]
async fn many_wait_and_one_gives_up() {
    let report = Report::new();
    let (process, _) = start(&report, "").await;
    let waits: Vec<_> = (0..10)
        .map(|_| {
            tokio::spawn({
                let handle = process.handle.clone();
                async move { handle.wait().await }
            })
        })
        .collect();
    assert!(tokio::time::timeout(Duration::from_millis(1), process.handle.wait()).await.is_err());
    waits[0].abort();
    process.handle.kill_tree();
    for wait in waits.into_iter().skip(1) {
        assert_eq!(wait.await.unwrap(), Exit::Signal(9));
    }
    assert_eq!(process.handle.wait().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_child_that_was_just_forked_does_not_double_its_parents_memory() {
    fixture();
    // A shell of 64 MB whose children are forks that execute nothing and end at once.
    let script = "big=$(head -c 64000000 /dev/zero | tr '\\0' x); echo done; \
        while :; do (i=0; while [ $i -lt 4000 ]; do i=$((i+1)); done); done";
    let mut process = process::spawn(&Command::new("sh").arg("-c").arg(script)).await.unwrap();
    let mut output = [0; 5];
    process.stdout.read_exact(&mut output).await.unwrap();
    let mut seen = Vec::new();
    let many = within(4 * PATIENCE, || {
        let usage = process.handle.usage();
        seen.extend((usage.processes > 1).then_some(usage.rss_bytes));
        seen.len() == 200
    });
    assert!(many, "{} looks that find a child", seen.len());
    let doubled = seen.iter().filter(|bytes| **bytes > 100_000_000).count();
    // A child that the machine let wait for a second counts, as a worker.
    assert!(doubled < seen.len() / 4, "{seen:?}");
    process.handle.end_tree(Duration::ZERO).await;
}

#[tokio::test]
async fn memory_and_time_of_the_whole_tree_are_counted() {
    fixture();
    let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done; sleep 600";
    let parent = format!("sh -c '{script}' & sh -c '{script}' & wait");
    let mut process = process::spawn(&Command::new("sh").arg("-c").arg(parent)).await.unwrap();
    let mut output = [0; 10];
    process.stdout.read_exact(&mut output).await.unwrap();
    // Three shells, and what the inner two run now.
    eventually("five processes", || process.handle.usage().processes == 5);
    let usage = process.handle.usage();
    assert!(usage.rss_bytes > 3 * 500_000 && usage.rss_bytes < 1 << 30, "{usage:?}");
    assert!(usage.cpu >= Duration::from_millis(20), "{usage:?}");
    process.handle.end_tree(Duration::ZERO).await;
    assert_eq!(process.handle.usage().processes, 0);
}
