//! The table of processes, from `/proc`, and signals that reach only the process that was seen there.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::time::ClockId;

/// The flag of a process that was forked and has executed no program since (`PF_FORKNOEXEC` in the kernel).
const NOT_EXECUTED: u64 = 0x40;
/// A process that has executed nothing for this long is a worker that was forked for its own sake.
const EXECUTES_WITHIN: Duration = Duration::from_secs(1);

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub pid: u32,
    pub parent: u32,
    pub group: u32,
    pub session: u32,
    pub state: u8,
    /// In clock ticks since boot.
    pub started: u64,
    threads: u32,
    cpu_ticks: u64,
    rss_pages: u64,
    executed: bool,
}

impl Stat {
    pub(super) fn read(pid: u32) -> Option<Self> {
        Self::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The program's name stands in parentheses and may itself hold parentheses, spaces and newlines, so the numbers are
    /// counted from the last closing one.
    fn parse(pid: u32, stat: &[u8]) -> Option<Self> {
        let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
        let fields: Vec<&str> = std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        // Negative where a process waits for none; that is no reason to lose the rest.
        let ticks = |index: usize| number(index).unwrap_or(0);
        Some(Self {
            pid,
            state: *fields.first()?.as_bytes().first()?,
            parent: number(1)? as u32,
            group: number(2)? as u32,
            session: number(3)? as u32,
            cpu_ticks: ticks(11) + ticks(12) + ticks(13) + ticks(14),
            threads: number(17)? as u32,
            started: number(19)?,
            rss_pages: number(21).unwrap_or(0),
            executed: ticks(6) & NOT_EXECUTED == 0,
        })
    }

    /// Whether it is more than a zombie. A process whose first thread has ended looks like one while others run on.
    pub(super) fn runs(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x') || self.threads > 1
    }

    /// Whether its group can be signalled as a whole: it is known here (0 is a group or session begun outside of our PID
    /// namespace, 1 the namespace's first process), and of another session.
    fn has_a_group_apart_from(&self, own: &Self) -> bool {
        self.session != own.session && self.session != 0 && self.group > 1
    }

    pub(super) fn rss_bytes(&self) -> u64 {
        self.rss_pages * rustix::param::page_size() as u64
    }

    /// Whether it is about to execute a program at a time `now` since boot: until then all its memory is its parent's.
    pub(super) fn is_about_to_execute(&self, now: Duration) -> bool {
        !self.executed && now.saturating_sub(of_ticks(self.started)) < EXECUTES_WITHIN
    }

    pub(super) fn cpu(&self) -> Duration {
        of_ticks(self.cpu_ticks)
    }
}

fn of_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second().max(1))
}

/// How long ago the machine was started, by the clock of [`Stat::started`].
pub(super) fn since_boot() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// All processes, as they were seen one after the other.
#[derive(Debug, Default)]
pub(super) struct Table {
    processes: HashMap<u32, Stat>,
    children: HashMap<u32, Vec<u32>>,
}

impl Table {
    pub(super) fn read() -> Self {
        let mut table = Self::default();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(stat) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Stat::read) else {
                continue;
            };
            table.children.entry(stat.parent).or_default().push(stat.pid);
            table.processes.insert(stat.pid, stat);
        }
        table
    }

    pub(super) fn get(&self, pid: u32) -> Option<&Stat> {
        self.processes.get(&pid)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stat> {
        self.processes.values()
    }

    pub(super) fn children(&self, pid: u32) -> &[u32] {
        self.children.get(&pid).map_or(&[], Vec::as_slice)
    }

    /// Everything below `pid`, parents before their children, without `pid` itself.
    pub(super) fn below(&self, pid: u32) -> Vec<Stat> {
        let mut found: Vec<Stat> = Vec::new();
        let mut next = 0;
        let mut parent = pid;
        loop {
            // A table of moments that never were together can hold a circle.
            found
                .extend(self.children(parent).iter().filter(|&&child| child != pid).map(|child| self.processes[child]));
            if next >= self.processes.len() || next >= found.len() {
                return found;
            }
            parent = found[next].pid;
            next += 1;
        }
    }

    /// `pid` and its ancestors.
    pub(super) fn lineage(&self, pid: u32) -> Vec<u32> {
        let mut line = vec![pid];
        let mut pid = pid;
        while let Some(stat) = self.get(pid)
            && stat.parent != 0
            && line.len() <= self.processes.len()
        {
            pid = stat.parent;
            line.push(pid);
        }
        line
    }
}

/// The environment that a process was executed with.
pub(super) fn environment(pid: u32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/environ")).ok()
}

/// Whose process it is.
pub(super) fn user(pid: u32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|metadata| metadata.uid())
}

/// A command line for a person: arguments joined by spaces, at most 300 bytes of it.
pub(super) fn command_line(pid: u32) -> String {
    let mut line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.truncate(300);
    while line.last() == Some(&0) {
        line.pop();
    }
    line.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    String::from_utf8_lossy(&line).into_owned()
}

/// A descriptor of exactly the process that was seen, `None` when that is gone.
pub(super) fn pidfd(pid: u32, started: u64) -> Result<Option<OwnedFd>, Errno> {
    let Some(raw) = Pid::from_raw(pid as i32) else {
        return Ok(None);
    };
    match rustix::process::pidfd_open(raw, PidfdFlags::empty()) {
        // Looked at after the descriptor was opened: if it is the same process now, the descriptor is that process's.
        Ok(pidfd) => Ok(Stat::read(pid).is_some_and(|stat| stat.started == started).then_some(pidfd)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Signals exactly the process that was seen. A process that is gone, or that we may not signal, is left alone.
pub(super) fn signal(pid: u32, started: u64, signal: Signal) {
    match pidfd(pid, started) {
        Ok(Some(pidfd)) => {
            let _ = rustix::process::pidfd_send_signal(pidfd, signal);
        }
        Ok(None) => {}
        // No descriptor to be had (none left, or a kernel without them): the look and the signal are two steps then.
        Err(_) => {
            if let (Some(raw), Some(true)) =
                (Pid::from_raw(pid as i32), Stat::read(pid).map(|stat| stat.started == started))
            {
                let _ = rustix::process::kill_process(raw, signal);
            }
        }
    }
}

/// Kills the group that a process is in, if it is still the one that was seen and is in a session other than our own.
/// The kernel does that in one step, so no fork in the group escapes.
pub(super) fn kill_group(pid: u32, started: u64) {
    // Read as the other one is: `getsid` gives 0, which rustix takes for impossible, where our session was begun outside
    // of our PID namespace, as in a container that was entered.
    if let (Some(now), Some(own)) = (Stat::read(pid), Stat::read(std::process::id()))
        && now.started == started
        && now.has_a_group_apart_from(&own)
        && let Some(group) = Pid::from_raw(now.group as i32)
    {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_is_skipped() {
        let text =
            b"42 (a) b (c)\n) S 7 42 40 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 3 0 99 1000 5 18446744073709551615";
        let stat = Stat::parse(42, text).unwrap();
        assert_eq!((stat.parent, stat.group, stat.session, stat.started), (7, 42, 40, 99));
        assert_eq!((stat.state, stat.threads, stat.cpu_ticks, stat.rss_pages), (b'S', 3, 100, 5));
        assert_eq!(Stat::parse(42, b"42 (x) S 7"), None);
    }

    #[test]
    fn what_was_forked_a_moment_ago_and_has_executed_nothing_is_about_to() {
        let stat = |flags: u64| {
            Stat::parse(9, format!("9 (x) S 1 9 9 0 -1 {flags} 1 2 3 4 0 0 0 0 20 0 1 0 500 0 0").as_bytes()).unwrap()
        };
        let started = of_ticks(500);
        let forked = stat(0x0040_0040);
        assert!(
            forked.is_about_to_execute(started) && forked.is_about_to_execute(started + Duration::from_millis(900))
        );
        assert!(!forked.is_about_to_execute(started + Duration::from_secs(2)), "a worker of its own");
        assert!(!stat(0x0040_0000).is_about_to_execute(started), "it has executed its program");
    }

    #[test]
    fn a_group_of_our_session_or_from_outside_of_the_namespace_is_left_alone() {
        let stat = |group, session| {
            Stat::parse(9, format!("9 (x) S 1 {group} {session} 0 -1 0 1 2 3 4 0 0 0 0 20 0 1 0 5 0 0").as_bytes())
                .unwrap()
        };
        for own in [stat(7, 7), stat(0, 0)] {
            assert!(stat(9, 9).has_a_group_apart_from(&own));
            assert!(!stat(7, own.session).has_a_group_apart_from(&own));
            assert!(!stat(0, 0).has_a_group_apart_from(&own));
            assert!(!stat(1, 1).has_a_group_apart_from(&own));
        }
    }

    #[test]
    fn the_table_holds_us_and_our_parent() {
        let table = Table::read();
        let us = table.get(std::process::id()).unwrap();
        assert!(us.runs() && us.rss_bytes() > 0);
        assert!(table.children(us.parent).contains(&us.pid));
        assert!(table.below(us.parent).iter().any(|stat| stat.pid == us.pid));
        assert!(table.lineage(us.pid).contains(&us.parent));
    }
}
