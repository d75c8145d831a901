//! Unix without a guardian: processes are started directly, and what left their process group is not found.
//!
//! When the owner is killed, tools notice by the end of their stdin, if they look at it. That is less than Linux gives,
//! and `docs/design/process.md` says so.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::sync::watch;

use super::{Member, Tree};
use crate::error::Exit;
use crate::process::stream::ChildEnds;
use crate::process::{Command, SpawnError};

/// How often a process is looked for that is not our child.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

#[cfg(not(target_os = "linux"))]
pub(in crate::process) fn init() {}

#[cfg(not(target_os = "linux"))]
pub(in crate::process) fn leave_to_parent() {}

#[cfg(not(target_os = "linux"))]
pub(in crate::process) fn use_program(_path: PathBuf) {}

#[cfg(not(target_os = "linux"))]
pub(in crate::process) fn sweep_orphans() -> usize {
    0
}

/// A process group that we started.
pub(in crate::process) struct PortableTree {
    pid: u32,
    exit: watch::Receiver<Option<Exit>>,
    /// `None` once it was reaped. Signals are sent under the lock, so never to a pid that may be another's.
    child: Arc<Mutex<Option<Child>>>,
}

impl PortableTree {
    fn leader(&self) -> Option<Pid> {
        Pid::from_raw(self.pid as i32)
    }

    fn signal_group(&self, signal: Signal) {
        let _reaping = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = self.leader() {
            // The group's id is not used again while it has a member, so an empty group is an error and no other's.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }

    fn group_lives(&self) -> bool {
        self.leader().is_some_and(|group| rustix::process::test_kill_process_group(group).is_ok())
    }
}

impl Tree for PortableTree {
    async fn launch(command: &Command, ends: ChildEnds) -> Result<Self, SpawnError> {
        if command.writable.is_some() {
            return Err(SpawnError::Unconfined("this operating system has no means for it here".to_owned()));
        }
        let ([stdin, stdout, stderr], _terminal) = ends.into_stdio();
        let child = std::process::Command::new(&command.program)
            .args(&command.args)
            .env_clear()
            .envs(&command.env)
            .current_dir(&command.cwd)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .map_err(|error| explain(&command.program, error))?;
        let pid = child.id();
        let child = Arc::new(Mutex::new(Some(child)));
        let (sender, exit) = watch::channel(None);
        let tree = Self { pid, exit, child: Arc::clone(&child) };
        thread::Builder::new()
            .name("readyroom-reap".to_owned())
            .spawn(move || _ = sender.send(Some(reap(pid, &child))))
            .map_err(|error| SpawnError::Io { what: "making a thread", error })?;
        Ok(tree)
    }

    fn pid(&self) -> u32 {
        self.pid
    }

    fn exit(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.clone()
    }

    fn signal_leader(&self, signal: Signal) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(_), Some(pid)) = (&*child, self.leader()) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    fn kill(&self) {
        self.signal_group(Signal::KILL);
    }

    /// The leader stands for its group.
    fn members(&self, _since: Instant) -> Vec<Member> {
        let member =
            Member { pid: self.pid, parent: std::process::id(), started: 0, rss_bytes: 0, cpu: Duration::ZERO };
        if self.group_lives() { vec![member] } else { Vec::new() }
    }

    fn signal(&self, _member: &Member, signal: Signal) {
        self.signal_group(signal);
    }

    fn kill_groups(&self, _members: &[Member]) {
        self.signal_group(Signal::KILL);
    }

    async fn gone(&self, _members: &[Member], until: Instant) {
        while self.group_lives() && Instant::now() < until {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn command_line(_member: &Member) -> String {
        String::new()
    }
}

impl Drop for PortableTree {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for the child without reaping it, then reaps it under the lock.
fn reap(pid: u32, child: &Mutex<Option<Child>>) -> Exit {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), options) {}
    }
    let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
    match child.take().map(|mut child| child.wait()) {
        Some(Ok(status)) => match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Status(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        },
        _ => Exit::Unknown,
    }
}

fn explain(program: &std::path::Path, error: io::Error) -> SpawnError {
    let program: PathBuf = program.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => SpawnError::NotFound { program },
        io::ErrorKind::PermissionDenied => SpawnError::NotExecutable { program, why: error.to_string() },
        _ => SpawnError::Io { what: "starting the process", error },
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::process::{Io, stream};

    #[tokio::test]
    async fn a_group_is_started_and_ended() {
        let command =
            Command { args: vec!["-c".into(), "cat; sleep 600 & sleep 600".into()], ..Command::new("/bin/sh") };
        let (mut stdin, mut stdout, _stderr, ends) = stream::open(Io::Pipe).unwrap();
        let tree = PortableTree::launch(&command, ends).await.unwrap();
        stdin.write_all(b"hello").await.unwrap();
        drop(stdin);
        let mut answer = [0; 5];
        stdout.read_exact(&mut answer).await.unwrap();
        assert_eq!((&answer, tree.members(Instant::now()).len()), (b"hello", 1));

        let mut exit = tree.exit();
        tree.kill();
        assert_eq!(*exit.wait_for(Option::is_some).await.unwrap(), Some(Exit::Signal(9)));
        // Both ends of the pipe are closed only when the whole group is gone.
        assert_eq!(stdout.read(&mut answer).await.unwrap(), 0);
        tree.gone(&tree.members(Instant::now()), Instant::now() + Duration::from_secs(5)).await;
        assert!(tree.members(Instant::now()).is_empty());
        tree.signal_leader(Signal::TERM);
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let (_stdin, _stdout, _stderr, ends) = stream::open(Io::Merged).unwrap();
        let launched = PortableTree::launch(&Command::new("/no/such/program"), ends).await;
        assert!(matches!(launched.err(), Some(SpawnError::NotFound { .. })));
    }
}
