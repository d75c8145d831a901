//! Finds what a sandbox's tools have left running.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{MARKER, Sandbox};

/// A process, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

/// The processes that carry the sandbox's marker in their environment, or work below its directories. A process that
/// has ended and waits to be reaped is none.
pub fn processes_of(sandbox: &Sandbox) -> Vec<Process> {
    let marker = format!("{MARKER}={}", sandbox.marker);
    let root = sandbox.home.parent().expect("HOME is below the sandbox");
    let entries = std::fs::read_dir("/proc").expect("/proc can be read");
    let mut found: Vec<Process> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| *pid != std::process::id())
        .filter(|pid| belongs(*pid, &marker, root))
        .map(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            Process { pid, command: String::from_utf8_lossy(&command).replace('\0', " ").trim_end().to_owned() }
        })
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

fn belongs(pid: u32, marker: &str, root: &Path) -> bool {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let marked = environ.split(|&byte| byte == 0).any(|variable| variable == marker.as_bytes());
    marked || std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(root))
}

/// The guardian of a process of the sandbox's: its child that runs the same program.
pub fn guardian_of(sandbox: &Sandbox, owner: u32) -> Option<Process> {
    let program = std::fs::read_link(format!("/proc/{owner}/exe")).ok()?;
    let same = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    processes_of(sandbox).into_iter().find(|found| parent_of(found.pid) == Some(owner) && same(found.pid))
}

/// Whether a tool's process is a fork of a zygote, which was started before there was a tree to mark.
pub fn is_fork(pid: u32) -> bool {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    !environ.is_empty() && !environ.split(|&byte| byte == 0).any(|variable| variable.starts_with(b"READYROOM_TREE="))
}

/// The zygotes of a sandbox.
pub fn zygotes_of(sandbox: &Sandbox) -> Vec<Process> {
    processes_of(sandbox).into_iter().filter(|found| found.command.starts_with("readyroom-zygote ")).collect()
}

/// The parent of a process; none where it has ended.
pub fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Asserts that nothing of the sandbox is running, at the latest 2 seconds from now.
///
/// # Panics
/// When something still is, with its command lines.
pub fn assert_nothing_left(sandbox: &Sandbox) {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let left = processes_of(sandbox);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "still running 2 s after the end: {left:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
