//! What the tests of the process floor share: the fixture, its reports, and looking at processes from outside.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use readyroom::process::{self, Command, Process};

/// How long things may take that must happen, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The fixture's program; from now on also the guardian.
pub fn fixture() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_readyroom-proc-fixture"));
    process::use_program(&program);
    program
}

/// A process that said that it is there, named for good by pid and start time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub name: String,
    pub pid: u32,
    pub started: u64,
}

impl Seen {
    /// Whether it still runs. A zombie does not.
    pub fn lives(&self) -> bool {
        stat(self.pid).is_some_and(|(state, _, started)| started == self.started && !matches!(state, 'Z' | 'X'))
    }

    pub fn parent(&self) -> u32 {
        stat(self.pid).expect("it runs").1
    }
}

/// State, parent and start time of a process.
pub fn stat(pid: u32) -> Option<(char, u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    Some((fields[0].chars().next()?, fields[1].parse().ok()?, fields[19].parse().ok()?))
}

/// A file that the fixture's processes report to.
pub struct Report {
    directory: tempfile::TempDir,
}

impl Report {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("report")
    }

    pub fn seen(&self) -> Vec<Seen> {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        let parse = |line: &str| {
            let mut fields = line.split(' ');
            let mut next = || fields.next().unwrap();
            Seen { name: next().to_owned(), pid: next().parse().unwrap(), started: next().parse().unwrap() }
        };
        text.lines().map(parse).collect()
    }

    /// Waits until so many have reported.
    pub fn wait(&self, count: usize) -> Vec<Seen> {
        eventually(&format!("{count} reports"), || self.seen().len() >= count);
        self.seen()
    }

    /// The command of the fixture's tool with these kinds of children.
    pub fn tool(&self, kinds: &str) -> Command {
        Command::new(fixture()).arg("tool").arg(self.path()).arg(kinds)
    }
}

impl Drop for Report {
    /// A failed test must not leave its processes behind either.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for seen in self.seen().iter().filter(|seen| seen.lives()) {
                signal(seen.pid, rustix::process::Signal::KILL);
            }
        }
    }
}

pub fn signal(pid: u32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// Starts the fixture's tool and waits until all of its processes are there, the leader's first.
pub async fn start(report: &Report, kinds: &str) -> (Process, Vec<Seen>) {
    let process = process::spawn(&report.tool(kinds)).await.expect("the fixture starts");
    let children = kinds.split(',').filter(|kind| !matches!(*kind, "" | "deaf-leader")).count();
    let mut seen = report.wait(children + 1);
    if let Some(lost) = seen.iter().find(|seen| seen.name == "lost") {
        let (_, guardian, _) = stat(process.handle.pid()).unwrap();
        eventually("the lost one's parent is gone", || lost.parent() == guardian);
    }
    seen.sort_by_key(|seen| seen.name != "leader");
    (process, seen)
}

/// Waits for a condition that no event tells of; panics when it does not come.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(within(PATIENCE, condition), "{what}: not within {PATIENCE:?}");
}

/// Whether a condition holds at some time within a span.
pub fn within(span: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + span;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asserts that none of these runs any more within the two seconds that are promised.
pub fn assert_all_dead(seen: &[Seen]) {
    let dead = within(Duration::from_secs(2), || seen.iter().all(|seen| !seen.lives()));
    let left: Vec<&Seen> = seen.iter().filter(|seen| seen.lives()).collect();
    assert!(dead, "still running: {left:?}");
}

/// How many descriptors this process has open.
pub fn open_descriptors() -> usize {
    fs::read_dir(Path::new("/proc/self/fd")).unwrap().count()
}
