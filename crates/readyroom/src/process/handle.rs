//! The handle on a tree of processes: waiting, measuring, and the ladder that ends it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::platform::{HostTree, Member, Tree};
use super::stream::ChildEnds;
use super::{Command, SpawnError};
use crate::error::Exit;

/// How old a view of the processes may be for [`Handle::usage`] and [`Handle::descendants`], so that many instances
/// that ask at once share one look.
const USAGE_AGE: Duration = Duration::from_millis(100);
/// How often the ladder looks for processes that were forked since its last look, while it waits for known ones.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long to wait for killed processes before they are looked for again.
const KILL_ROUND: Duration = Duration::from_millis(50);
/// When to give up on processes that survive SIGKILL: stuck in the kernel, or of another user.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// How long a stray gets to end by itself.
const STRAY_GRACE: Duration = Duration::from_millis(300);

/// A tree of processes: the leader that [`spawn`](super::spawn) started, and everything that came from it, also what
/// left its group and session or lost its parent.
///
/// Clones share the tree. When the last one is dropped, the tree is killed.
#[derive(Clone)]
pub struct Handle {
    tree: Arc<HostTree>,
}

/// What a tree of processes uses, all its living members together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeUsage {
    /// Resident memory in bytes. Pages that members share count once for each, but a member that was forked a moment ago
    /// and has not yet executed its program counts as nothing.
    pub rss_bytes: u64,
    /// CPU time so far, of members and of what they have waited for.
    pub cpu: Duration,
    /// How many living processes there are.
    pub processes: usize,
}

/// Names one process for good: a pid may be used again, a pid with its start time is not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProcessInfo {
    /// The process id.
    pub pid: u32,
    /// When it started, in the system's own unit.
    pub started: u64,
    /// Whether its parent in the tree has ended: something that was left running on purpose.
    pub orphan: bool,
    /// Its command line, cut to a few hundred bytes. Empty where it can't be read.
    pub command: String,
}

impl Handle {
    pub(super) async fn launch(command: &Command, ends: ChildEnds) -> Result<Self, SpawnError> {
        Ok(Self { tree: Arc::new(HostTree::launch(command, ends).await?) })
    }

    /// The leader's process id.
    pub fn pid(&self) -> u32 {
        self.tree.pid()
    }

    /// How the leader ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.tree.exit().borrow()
    }

    /// Waits for the leader's end. Any number may wait, and dropping the future loses nothing. Other processes of the
    /// tree may still run.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.tree.exit();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => (*exit).unwrap_or(Exit::Unknown),
            Err(_) => Exit::Unknown,
        }
    }

    /// Sends SIGINT to the leader alone. Nothing happens when it has ended.
    pub fn interrupt(&self) {
        self.tree.signal_leader(Signal::INT);
    }

    /// Ends the tree: SIGTERM to every member, and what is left after `grace` is killed. Returns as soon as the leader is
    /// reaped and no member runs, at once where that is so already.
    ///
    /// The one exception to that are processes that no signal ends (stuck in the kernel, or of another user): 5 s after
    /// `grace` they are given up.
    pub async fn end_tree(&self, grace: Duration) -> Exit {
        self.end(|_| true, grace, Scope::Tree).await;
        tokio::time::timeout(KILL_LIMIT, self.wait()).await.unwrap_or(Exit::Unknown)
    }

    /// Kills the whole tree without waiting for the effect. Works from any thread, also outside a runtime.
    pub fn kill_tree(&self) {
        self.tree.kill();
    }

    /// What the tree uses, as seen within the last tenth of a second.
    pub fn usage(&self) -> TreeUsage {
        let mut usage = TreeUsage::default();
        for member in self.tree.members(recently(USAGE_AGE)) {
            usage.rss_bytes += member.rss_bytes;
            usage.cpu += member.cpu;
            usage.processes += 1;
        }
        usage
    }

    /// The living processes of the tree without its leader.
    pub fn descendants(&self) -> Vec<ProcessInfo> {
        let members = self.tree.members(Instant::now());
        let known: HashSet<u32> = members.iter().map(|member| member.pid).collect();
        let others = members.iter().filter(|member| member.pid != self.pid());
        others.map(|member| ProcessInfo { orphan: !known.contains(&member.parent), ..info(member) }).collect()
    }

    /// Ends every living process of the tree that is neither the leader nor in `keep`, politely first. Returns what it
    /// ended, once that is gone.
    pub async fn end_strays(&self, keep: &[ProcessInfo]) -> Vec<ProcessInfo> {
        let keep: HashSet<(u32, u64)> = keep.iter().map(|info| (info.pid, info.started)).collect();
        let leader = self.pid();
        let stray = |member: &Member| member.pid != leader && !keep.contains(&(member.pid, member.started));
        self.end(stray, STRAY_GRACE, Scope::Some).await
    }

    /// The ladder for those members that are `chosen`. Ends when two looks in a row find none: one look at a changing
    /// table of processes can miss a child that was forked while its parent died.
    async fn end(&self, chosen: impl Fn(&Member) -> bool, grace: Duration, scope: Scope) -> Vec<ProcessInfo> {
        let kill_at = Instant::now() + grace;
        let mut asked: HashSet<(u32, u64)> = HashSet::new();
        let mut ended = Vec::new();
        let mut looked_in_vain = false;
        let mut since = recently(Duration::from_millis(20));
        loop {
            let mut members = self.tree.members(since);
            members.retain(&chosen);
            if members.is_empty() {
                if looked_in_vain {
                    return ended;
                }
                looked_in_vain = true;
            } else {
                looked_in_vain = false;
                let now = Instant::now();
                if now > kill_at + KILL_LIMIT {
                    return ended;
                }
                let kill = now >= kill_at;
                for member in &members {
                    let new = asked.insert((member.pid, member.started));
                    if new {
                        ended.push(info(member));
                    }
                    if kill {
                        self.tree.signal(member, Signal::KILL);
                    } else if new {
                        self.tree.signal(member, Signal::TERM);
                        // A stopped process acts on nothing but SIGKILL until it is continued.
                        self.tree.signal(member, Signal::CONT);
                    }
                }
                if kill && scope == Scope::Tree {
                    self.tree.kill_groups(&members);
                }
                let until = if kill { now + KILL_ROUND } else { kill_at.min(now + LOOK_AGAIN) };
                self.tree.gone(&members, until).await;
            }
            since = Instant::now();
            // Lets others that end their trees at the same time share the next look.
            tokio::task::yield_now().await;
        }
    }
}

/// How far a ladder reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Tree,
    Some,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("pid", &self.pid()).field("exit", &self.exit()).finish()
    }
}

fn info(member: &Member) -> ProcessInfo {
    ProcessInfo { pid: member.pid, started: member.started, orphan: false, command: HostTree::command_line(member) }
}

fn recently(age: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(age).unwrap_or(now)
}
