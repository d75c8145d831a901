//! What becomes of the tools when their owner, their guardian, or both are killed.
#![cfg(target_os = "linux")]

mod process_support;

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use process_support::*;
use readyroom::Exit;
use readyroom::process;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal};

const ALL: &str = "child,group,session,deaf,stopped,lost,deaf-leader";
const COUNT: usize = 7;

/// Each owner sweeps what dead ones left, so the tests of this file run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An owner in a process of its own, with a tool of every bad habit.
struct Owner {
    child: Child,
    report: Report,
    tool: Report,
    seen: Vec<Seen>,
    guardian: Seen,
}

impl Owner {
    fn start() -> Self {
        let (report, tool) = (Report::new(), Report::new());
        let child = Command::new(fixture())
            .arg("owner")
            .args([report.path(), tool.path()])
            .arg(ALL)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        report.wait(1);
        let seen = tool.wait(COUNT);
        let leader = seen.iter().find(|seen| seen.name == "leader").unwrap();
        let guardian = leader.parent();
        let (_, parent, started) = stat(guardian).unwrap();
        assert_eq!(parent, child.id(), "the guardian is the owner's child");
        let guardian = Seen { name: "guardian".to_owned(), pid: guardian, started };
        // Only the one that lost its parents is the guardian's own, besides the leader.
        let lost = seen.iter().find(|seen| seen.name == "lost").unwrap();
        eventually("the orphan comes to the guardian", || lost.parent() == guardian.pid);
        Self { child, report, tool, seen, guardian }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A failed test's owner takes all else with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = &self.tool;
    }
}

/// A bug that others had (pingdotgg/t3code#5241): the owner was killed, and its agents lived on.
#[test]
fn a_killed_owner_leaves_nothing() {
    let _alone = alone();
    let mut owner = Owner::start();
    owner.kill();
    // Before it is reaped: a zombie is dead too.
    assert_all_dead(&owner.seen);
    assert_all_dead(std::slice::from_ref(&owner.guardian));
}

#[test]
fn a_stopped_owner_keeps_its_tools_until_it_is_killed() {
    let _alone = alone();
    let mut owner = Owner::start();
    signal(owner.child.id(), Signal::STOP);
    assert!(owner.seen.iter().all(Seen::lives));
    owner.kill();
    assert_all_dead(&owner.seen);
}

#[test]
fn an_owner_whose_socket_is_held_elsewhere_is_dead_all_the_same() {
    let _alone = alone();
    let mut owner = Owner::start();
    // What a fork of the owner without exec does to its descriptors: another process has them too.
    let pid = Pid::from_raw(owner.child.id() as i32).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let mut held = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", owner.child.id())).unwrap() {
        let entry = entry.unwrap();
        if std::fs::read_link(entry.path()).unwrap().to_string_lossy().starts_with("socket:") {
            let number = entry.file_name().to_str().unwrap().parse().unwrap();
            held.push(rustix::process::pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).unwrap());
        }
    }
    assert!(!held.is_empty());
    owner.kill();
    assert_all_dead(&owner.seen);
    assert_all_dead(std::slice::from_ref(&owner.guardian));
}

#[test]
fn polite_signals_do_not_reach_the_guardian() {
    let _alone = alone();
    let owner = Owner::start();
    for polite in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1] {
        signal(owner.guardian.pid, polite);
    }
    assert!(owner.guardian.lives() && owner.seen.iter().all(Seen::lives));
}

#[test]
fn a_killed_guardian_leaves_nothing_and_the_owner_knows() {
    let _alone = alone();
    let owner = Owner::start();
    signal(owner.guardian.pid, Signal::KILL);
    assert_all_dead(&owner.seen);
    let reports = owner.report.wait(2);
    assert_eq!(reports[1].name, format!("ended:{:?}", Some(Exit::Unknown)));
    assert!(reports[0].lives(), "the owner itself goes on");
}

#[test]
fn the_next_run_sweeps_what_both_left() {
    let _alone = alone();
    // Another program with readyroom on this machine may sweep first; then it has to be seen again.
    let owner = (0..10).map(|_| both_killed()).find(|owner| owner.seen.iter().filter(|seen| seen.lives()).count() > 1);
    let owner = owner.expect("without the next run, all but the leader stay");

    let other = Owner::start();
    assert!(owner.seen.iter().all(|seen| !seen.lives()), "swept before the first tool of the next run");
    assert!(other.seen.iter().all(Seen::lives));
    process::sweep_orphans();
    assert!(other.seen.iter().all(Seen::lives), "what has an owner is left alone");
}

fn both_killed() -> Owner {
    let mut owner = Owner::start();
    // A stopped guardian can do nothing; one after the other is then as good as at once.
    signal(owner.guardian.pid, Signal::STOP);
    owner.kill();
    signal(owner.guardian.pid, Signal::KILL);
    owner.child.wait().unwrap();
    let leader = owner.seen.iter().find(|seen| seen.name == "leader").unwrap();
    assert_all_dead(std::slice::from_ref(leader));
    owner
}

#[test]
fn a_sweep_lets_a_guardian_that_is_at_work_finish_but_not_a_stuck_one() {
    let _alone = alone();
    let mut owner = Owner::start();
    signal(owner.guardian.pid, Signal::STOP);
    owner.kill();
    owner.child.wait().unwrap();
    process::sweep_orphans();
    assert_all_dead(&owner.seen);
    assert!(!owner.guardian.lives());
}
