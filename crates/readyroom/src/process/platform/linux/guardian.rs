//! The guardian: starts tools for its owner and, when the owner is gone, ends everything that came from them.
//!
//! One thread, no runtime, no threads: the kernel's parent-death signal follows the *thread* that forked. It is a child
//! subreaper, so whatever loses its parent below it becomes its child and can't get away.
#![expect(unsafe_code, reason = "signal dispositions, a signal descriptor and pre-exec hooks have no safe interface")]

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus};

use super::confine;
use super::mark::{LimitMark, OwnerId, TreeId};
use super::procfs::{self, Stat, Table};
use super::view::Viewer;
use super::wire::{self, Filled, Inbox, Order, Outbox, Report, Spawn};
use super::zygote::{Forked, Waiting, Zygotes};
use crate::error::Exit;

/// How often doomed trees are looked at until nothing of them is left.
const DOOMED_ROUND: Duration = Duration::from_millis(5);
/// How often the owner is looked at where the kernel has no descriptors of processes.
const OWNER_ROUND: Duration = Duration::from_millis(200);
/// When to give up on processes that can't be killed.
const LAST_LIMIT: Duration = Duration::from_secs(10);

/// Signals that a terminal or a careless `kill` might send to all of the owner's processes.
const IGNORED: [i32; 8] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGPIPE,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
];

struct Guardian {
    socket: OwnedFd,
    inbox: Inbox,
    outbox: Outbox,
    child_signals: OwnedFd,
    owner: OwnerId,
    /// `None` where the kernel has none.
    owner_pidfd: Option<OwnedFd>,
    open_files: Option<u64>,
    trees: HashMap<TreeId, GuardedTree>,
    zygotes: Zygotes,
    /// Children that were reaped before a zygote named them.
    early: HashMap<u32, Exit>,
    viewer: Viewer,
}

struct GuardedTree {
    leader: Leader,
    state: TreeState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leader {
    /// A zygote was asked for it.
    Coming,
    Runs(u32),
    /// It was reaped; its pid still names the session that it opened.
    Ended(u32),
}

#[derive(PartialEq, Eq)]
enum TreeState {
    /// The owner still holds it.
    Held,
    /// Everything of it is to be ended.
    Doomed,
}

/// Why the loop ended.
enum Over {
    /// The owner closed its end, or died.
    OwnerGone,
}

/// Is the guardian until the owner is gone and nothing is left of what it started. The socket is the stdin.
pub(super) fn run() -> io::Result<()> {
    let mut guardian = Guardian::prepare()?;
    let Over::OwnerGone = guardian.serve();
    guardian.end_everything();
    Ok(())
}

/// Has a command start in a session of its own, out of reach of a terminal's Ctrl-C from its first moment on.
pub(super) fn in_own_session(command: &mut std::process::Command) {
    // SAFETY: the hook makes one system call and touches no memory.
    unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
}

impl Guardian {
    fn prepare() -> io::Result<Self> {
        close_inherited();
        let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let _ = std::env::set_current_dir("/");
        let _ = fs::write("/proc/self/comm", "readyroom-guard");
        let child_signals = set_signals()?;

        let mut inbox = Inbox::default();
        let (version, owner, open_files) = loop {
            if let Some((Order::Hello { version, owner, open_files }, _)) = inbox.next()? {
                break (version, owner, open_files);
            }
            if inbox.fill(&socket)? == Filled::End {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let mut outbox = Outbox::default();
        outbox.push(&Report::Ready { version: wire::VERSION }, Vec::new())?;
        outbox.flush(&socket)?;
        if version != wire::VERSION {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let owner_pidfd = match procfs::pidfd(owner.pid, owner.started) {
            Ok(Some(pidfd)) => Some(pidfd),
            Ok(None) => return Err(io::ErrorKind::NotFound.into()),
            Err(_) => None,
        };
        let flags = rustix::fs::fcntl_getfl(&socket)?;
        rustix::fs::fcntl_setfl(&socket, flags | OFlags::NONBLOCK)?;
        Ok(Self {
            socket,
            inbox,
            outbox,
            child_signals,
            owner,
            owner_pidfd,
            open_files,
            trees: HashMap::new(),
            zygotes: Zygotes::default(),
            early: HashMap::new(),
            viewer: Viewer::default(),
        })
    }

    fn serve(&mut self) -> Over {
        loop {
            // Also before the first wait: frames may have come with the greeting.
            loop {
                match self.inbox.next::<Order>() {
                    Ok(Some((order, descriptors))) => self.obey(order, descriptors),
                    Ok(None) => break,
                    Err(_) => return Over::OwnerGone,
                }
            }
            self.hear_zygotes();
            self.reap();
            self.end_doomed();
            self.zygotes.rest(|tree| self.trees.contains_key(&tree));
            if self.outbox.flush(&self.socket).is_err() {
                return Over::OwnerGone;
            }
            if self.wait().is_some() {
                return Over::OwnerGone;
            }
        }
    }

    /// Waits for something to do, and receives. `Some` when the owner is gone.
    fn wait(&mut self) -> Option<Over> {
        let doomed = self.trees.values().any(|tree| tree.state == TreeState::Doomed);
        let timeout = match (doomed, &self.owner_pidfd) {
            (true, _) => Some(DOOMED_ROUND),
            (false, None) => Some(OWNER_ROUND),
            (false, Some(_)) => self.zygotes.patience(),
        };
        let mut interest = PollFlags::IN;
        if !self.outbox.is_empty() {
            interest |= PollFlags::OUT;
        }
        let mut polled = vec![PollFd::new(&self.socket, interest), PollFd::new(&self.child_signals, PollFlags::IN)];
        polled.extend(self.owner_pidfd.as_ref().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
        // Behind the others: that one is ready is seen when all are asked for what they say.
        polled.extend(self.zygotes.sockets().map(|(socket, interest)| PollFd::from_borrowed_fd(socket, interest)));
        // An interrupted wait is a wait that ended early.
        let _ = rustix::event::poll(&mut polled, timeout.and_then(|timeout| Timespec::try_from(timeout).ok()).as_ref());
        let readable = |index: usize| polled.get(index).is_some_and(|fd| !fd.revents().is_empty());
        let (socket, signals) = (readable(0), readable(1));
        let owner = self.owner_pidfd.is_some() && readable(2);
        if signals {
            // The count of signals says nothing; `reap` takes all that there are.
            let _ = rustix::io::read(&self.child_signals, &mut [0; 1024]);
        }
        if owner || (self.owner_pidfd.is_none() && !self.owner.is_alive()) {
            return Some(Over::OwnerGone);
        }
        if socket {
            match self.inbox.fill(&self.socket) {
                Ok(Filled::Some | Filled::Nothing) => {}
                Ok(Filled::End) | Err(_) => return Some(Over::OwnerGone),
            }
        }
        None
    }

    fn obey(&mut self, order: Order, descriptors: Vec<OwnedFd>) {
        match order {
            Order::Hello { .. } => {}
            Order::Spawn(spawn) => match take_descriptors(descriptors, spawn.confined) {
                Ok((stdio, rules)) if spawn.zygote.is_some() => self.fork(Waiting::new(spawn, stdio, rules)),
                Ok((stdio, rules)) => self.start(&spawn, stdio, rules),
                Err(error) => self.refuse(spawn.tree, &error),
            },
            Order::Kill { tree } => {
                if let Some(tree) = self.trees.get_mut(&tree) {
                    tree.state = TreeState::Doomed;
                }
            }
        }
    }

    fn report(&mut self, report: &Report, descriptor: Option<OwnedFd>) {
        // Reports are small and of our own making: they can always be written down.
        let _ = self.outbox.push(report, descriptor.into_iter().collect());
    }

    fn refuse(&mut self, tree: TreeId, error: &io::Error) {
        self.trees.remove(&tree);
        self.report(&Report::Refused { tree, errno: error.raw_os_error().unwrap_or(0) }, None);
    }

    /// Starts a process by itself, and reports.
    fn start(&mut self, spawn: &Spawn, stdio: [OwnedFd; 3], rules: Option<OwnedFd>) {
        match self.spawn(spawn, stdio, rules) {
            Ok(pid) => self.started(spawn.tree, pid),
            Err(error) => self.refuse(spawn.tree, &error),
        }
    }

    /// Takes a new child for a tree's leader.
    fn started(&mut self, tree: TreeId, pid: u32) {
        // It is our child and not reaped, so both speak of it and of no other.
        let started = Stat::read(pid).map_or(0, |stat| stat.started);
        let pidfd = procfs::pidfd(pid, started).ok().flatten();
        let state = self.trees.remove(&tree).map_or(TreeState::Held, |tree| tree.state);
        self.trees.insert(tree, GuardedTree { leader: Leader::Runs(pid), state });
        self.report(&Report::Spawned { tree, pid, started }, pidfd);
    }

    fn spawn(&self, spawn: &Spawn, [stdin, stdout, stderr]: [OwnedFd; 3], rules: Option<OwnedFd>) -> io::Result<u32> {
        let mark = LimitMark::new(&self.owner, spawn.tree);
        let (open_files, terminal) = (self.open_files, spawn.terminal);
        let guardian = rustix::process::getpid();
        let pair =
            |(name, value): &(wire::Bytes, wire::Bytes)| (OsString::from(name.clone()), OsString::from(value.clone()));
        let mut command = std::process::Command::new(OsString::from(spawn.program.clone()));
        command
            .args(spawn.args.iter().cloned().map(OsString::from))
            .env_clear()
            .envs(spawn.env.iter().map(pair))
            .envs(self.owner.environment(spawn.tree))
            .current_dir(OsString::from(spawn.cwd.clone()))
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr));
        // SAFETY: the hook makes system calls only, on values that it owns; this process has one thread anyway, so
        // nothing can be locked in the child.
        unsafe { command.pre_exec(move || in_child(guardian, Some(mark), open_files, terminal, rules.as_ref())) };
        Ok(command.spawn()?.id())
    }

    /// Asks the zygote of its kind for a process; the answer comes later. Without a zygote that is of use it is started
    /// by itself.
    fn fork(&mut self, waiting: Waiting) {
        self.trees.insert(waiting.spawn.tree, GuardedTree { leader: Leader::Coming, state: TreeState::Held });
        let mark = LimitMark::new(&self.owner, waiting.spawn.tree);
        let limits = std::iter::once(mark.limit()).chain(self.open_files.map(|limit| (libc::RLIMIT_NOFILE, limit)));
        let owner = self.owner;
        let asked = self.zygotes.ask(waiting, &owner, limits.collect(), |command| {
            let guardian = rustix::process::getpid();
            // SAFETY: as in `spawn`.
            unsafe { command.pre_exec(move || in_child(guardian, None, None, false, None)) };
        });
        if let Err((waiting, why)) = asked {
            self.unforked(vec![waiting], why);
        }
    }

    /// Takes what zygotes say.
    fn hear_zygotes(&mut self) {
        for forked in self.zygotes.hear() {
            match forked {
                Forked::Process(tree, pid) => {
                    self.started(tree, pid);
                    if let Some(exit) = self.early.remove(&pid) {
                        self.ended(pid, exit);
                    }
                }
                Forked::Nothing(waiting, why) => self.unforked(waiting, Some(why)),
            }
        }
        if !self.zygotes.are_asked() {
            self.early.clear();
        }
    }

    fn unforked(&mut self, waiting: Vec<Waiting>, why: Option<String>) {
        if let Some(why) = why {
            self.report(&Report::Unforked { why }, None);
        }
        for Waiting { spawn, stdio, rules, .. } in waiting {
            self.start(&spawn, stdio, rules);
        }
    }

    /// Reaps every child that has ended: leaders, and orphans that came to us.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            self.ended(pid.as_raw_nonzero().get() as u32, exit_of(status));
        }
    }

    fn ended(&mut self, pid: u32, exit: Exit) {
        let found = self.trees.iter_mut().find(|(_, tree)| tree.leader == Leader::Runs(pid));
        if let Some((&id, tree)) = found {
            tree.leader = Leader::Ended(pid);
            self.report(&Report::Exited { tree: id, exit }, None);
        } else if self.zygotes.are_asked() {
            self.early.insert(pid, exit);
        }
    }

    fn end_doomed(&mut self) {
        if self.trees.values().all(|tree| tree.state == TreeState::Held) {
            return;
        }
        let mut leaders = HashMap::new();
        for (id, tree) in &self.trees {
            match tree.leader {
                Leader::Coming => {}
                Leader::Runs(pid) => _ = leaders.insert(pid, *id),
                // The pid may be another leader's by now.
                Leader::Ended(pid) => _ = leaders.entry(pid).or_insert(*id),
            }
        }
        let view = self.viewer.look(&self.owner, std::process::id(), &leaders);
        self.trees.retain(|id, tree| {
            if tree.state == TreeState::Held {
                return true;
            }
            let members = view.members(*id);
            kill(members);
            !members.is_empty() || matches!(tree.leader, Leader::Runs(_) | Leader::Coming)
        });
    }

    /// Kills everything below us until we have no child left. Whatever is below us has one of our children among its
    /// ancestors, so that is the proof that nothing lives.
    fn end_everything(&mut self) {
        let give_up = Instant::now() + LAST_LIMIT;
        loop {
            loop {
                match rustix::process::wait(WaitOptions::NOHANG) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(Errno::INTR) => {}
                    Err(_no_child) => return,
                }
            }
            let below = Table::read().below(std::process::id());
            kill(&below);
            if Instant::now() > give_up {
                return;
            }
            // A child's end wakes us; the time is for what was forked behind our back.
            let mut polled = [PollFd::new(&self.child_signals, PollFlags::IN)];
            let _ = rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 2_000_000 }));
            let _ = rustix::io::read(&self.child_signals, &mut [0; 1024]);
        }
    }
}

/// The standard streams and the rules of confinement. Where one did not arrive, since no more descriptors could be opened,
/// nothing is started: least of all something unconfined.
fn take_descriptors(mut descriptors: Vec<OwnedFd>, confined: bool) -> io::Result<([OwnedFd; 3], Option<OwnedFd>)> {
    let rules = (descriptors.len() == 4).then(|| descriptors.pop()).flatten();
    match <[OwnedFd; 3]>::try_from(descriptors) {
        Ok(stdio) if rules.is_some() == confined => Ok((stdio, rules)),
        _ => Err(Errno::MFILE.into()),
    }
}

fn kill(processes: &[Stat]) {
    for process in processes {
        procfs::kill_group(process.pid, process.started);
        procfs::signal(process.pid, process.started, Signal::KILL);
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// Runs in a new child, between fork and exec.
fn in_child(
    guardian: Pid,
    mark: Option<LimitMark>,
    open_files: Option<u64>,
    terminal: bool,
    rules: Option<&OwnedFd>,
) -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(guardian) {
        // It died before the line above.
        return Err(Errno::SRCH.into());
    }
    if terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    }
    if let Some(mark) = mark {
        mark.set();
    }
    if let Some(open_files) = open_files {
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(open_files), maximum });
    }
    default_signals();
    rules.map_or(Ok(()), |rules| confine::enter(rules.as_fd()))
}

/// Closes what a careless owner let through to us: it would stay open for as long as we live.
fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|&descriptor| descriptor > 2) {
        // SAFETY: this runs first of all in this process's main, so no object owns a descriptor above 2; the one of the
        // directory above is closed already, and closing it again fails harmlessly.
        unsafe { libc::close(descriptor) };
    }
}

/// All dispositions as at a process's birth, nothing blocked. Makes system calls only.
fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: the default disposition has no handler. Numbers that can't be set (SIGKILL, SIGSTOP, those of the C
        // library) are refused, which changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Ignores what is not meant for us, and makes a descriptor that becomes readable when a child has ended.
fn set_signals() -> io::Result<OwnedFd> {
    default_signals();
    for signal in IGNORED {
        // SAFETY: to ignore a signal needs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: the set is initialised by sigemptyset before it is read, and signalfd's result is checked before it is
    // owned.
    unsafe {
        let mut children = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut children);
        libc::sigaddset(&mut children, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &children, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let descriptor = libc::signalfd(-1, &children, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_descriptor_starts_nothing() {
        let some = |count: usize| (0..count).map(|_| OwnedFd::from(fs::File::open("/dev/null").unwrap())).collect();
        assert!(take_descriptors(some(3), false).is_ok_and(|(_, rules)| rules.is_none()));
        assert!(take_descriptors(some(4), true).is_ok_and(|(_, rules)| rules.is_some()));
        for (count, confined) in [(0, false), (2, false), (4, false), (3, true), (0, true)] {
            assert!(take_descriptors(some(count), confined).is_err(), "{count} {confined}");
        }
    }
}
