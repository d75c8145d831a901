//! Many processes: nothing leaks, and what many do at once is shared.
#![cfg(target_os = "linux")]

mod process_support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use process_support::*;
use readyroom::Exit;
use readyroom::process::{self, Command, Process};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

/// Descriptors and threads are counted for the whole test program.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn run_true() {
    let mut process = process::spawn(&Command::new("true")).await.unwrap();
    let mut output = Vec::new();
    process.stdout.read_to_end(&mut output).await.unwrap();
    assert_eq!(process.handle.wait().await, Exit::Status(0));
}

/// The pid of a guardian of ours.
fn guardian() -> Option<u32> {
    let us = std::process::id();
    let named = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"readyroom-guardian"))
    };
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(state, parent, _)| parent == us && state != 'Z')).find(named)
}

/// A bug that others had (openclaw/openclaw#80762): a caller's time was over, and the agent and its descriptors
/// stayed.
#[test]
fn two_hundred_spawns_leave_no_descriptor_here_or_in_the_guardian() {
    let _alone = alone();
    fixture();
    let runtime = runtime();
    runtime.block_on(async {
        // Keeps the guardian, and lets everything be opened that is opened once.
        let held = process::spawn(&Command::new("cat")).await.unwrap();
        run_true().await;
        let (_, pid, _) = stat(held.handle.pid()).unwrap();
        let guardians = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let before = (open_descriptors(), guardians());
        for _ in 0..200 {
            run_true().await;
        }
        // The guardian may look at processes while it is looked at.
        eventually("no more descriptors than before", || open_descriptors() <= before.0 && guardians() <= before.1);
        held.handle.end_tree(Duration::ZERO).await;
    });
    drop(runtime);
    eventually("the guardian ends with its last process", || guardian().is_none());
}

#[test]
fn a_new_guardian_is_started_when_it_is_needed_again() {
    let _alone = alone();
    fixture();
    let runtime = runtime();
    for _ in 0..3 {
        runtime.block_on(run_true());
    }
    let process = runtime.block_on(process::spawn(&Command::new("cat"))).unwrap();
    // One that served before may still be about to end.
    let (_, pid, _) = stat(process.handle.pid()).unwrap();
    signal(pid, rustix::process::Signal::KILL);
    assert_eq!(runtime.block_on(process.handle.wait()), Exit::Unknown);
    runtime.block_on(run_true());
}

#[test]
fn five_hundred_processes_start_and_end() {
    let _alone = alone();
    fixture();
    runtime().block_on(async {
        let mut all = JoinSet::new();
        for number in 0..500 {
            all.spawn(async move {
                let code = number % 256;
                let command = Command::new("sh").arg("-c").arg(format!("exit {code}"));
                let process = process::spawn(&command).await.unwrap();
                assert_eq!(process.handle.wait().await, Exit::Status(code));
            });
        }
        while let Some(result) = all.join_next().await {
            result.unwrap();
        }
    });
    eventually("the guardian ends with its last process", || guardian().is_none());
}

#[test]
fn two_hundred_trees_that_run_at_once_end_at_once() {
    let _alone = alone();
    fixture();
    runtime().block_on(async {
        let mut trees: Vec<Process> = Vec::new();
        for _ in 0..200 {
            let command = Command::new("sh").arg("-c").arg("sleep 600 & setsid sleep 600 & wait");
            trees.push(process::spawn(&command).await.unwrap());
        }
        // `setsid` forks only from a group leader, which it is not here: a shell and two more.
        eventually("all processes", || trees.iter().all(|tree| tree.handle.usage().processes == 3));
        let began = Instant::now();
        let mut all = JoinSet::new();
        for tree in trees {
            all.spawn(async move {
                tree.handle.end_tree(PATIENCE).await;
                assert!(tree.handle.descendants().is_empty());
            });
        }
        while let Some(result) = all.join_next().await {
            result.unwrap();
        }
        // None of them is waited for until its grace is over.
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    });
}

#[test]
fn a_start_that_is_given_up_leaves_nothing() {
    let _alone = alone();
    let program = fixture();
    runtime().block_on(async {
        let held = process::spawn(&Command::new("cat")).await.unwrap();
        let (_, pid, _) = stat(held.handle.pid()).unwrap();
        let report = Report::new();
        for delay in 0..50 {
            let command = Command::new(&program).arg("leaf").arg(report.path()).arg("given-up");
            let start = process::spawn(&command);
            // At whatever moment that is: before, in and after the start.
            let _ = tokio::time::timeout(Duration::from_micros(delay * 50), start).await;
        }
        eventually("only the one that is held", || {
            let ours = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
                stat(entry.unwrap().file_name().to_str()?.parse().ok()?).filter(|(_, parent, _)| *parent == pid)
            });
            ours.count() == 1
        });
        held.handle.end_tree(Duration::ZERO).await;
    });
}
