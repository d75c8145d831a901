//! What differs between operating systems: who starts a tree of processes, and how its members are found and ended.
//!
//! Linux has the guardian and `/proc`. Elsewhere a simpler host starts the process directly and reaches no further than its
//! process group; it is compiled on Linux too (for tests), so that it keeps compiling.

use std::future::Future;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::watch;

use super::stream::ChildEnds;
use super::{Command, SpawnError};
use crate::error::Exit;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(not(target_os = "linux"), test))]
mod portable;

#[cfg(target_os = "linux")]
pub(super) use linux::{LinuxTree as HostTree, init, leave_to_parent, sweep_orphans, use_program};
#[cfg(not(target_os = "linux"))]
pub(super) use portable::{PortableTree as HostTree, init, leave_to_parent, sweep_orphans, use_program};

/// A living process of a tree, as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub pid: u32,
    /// Its parent now; a process whose parent has ended gets another.
    pub parent: u32,
    /// When it started, in a unit of the host's own. With the pid it names a process for good.
    pub started: u64,
    /// Resident memory; none while it is all that of a parent in the same tree.
    pub rss_bytes: u64,
    /// CPU time of the process and of those of its children that it has waited for.
    pub cpu: Duration,
}

/// A tree of processes that grows from one that we started. Dropping it ends the tree, without waiting for that.
pub(super) trait Tree: Send + Sync + Sized + 'static {
    /// Starts the leader, in a session and group of its own.
    fn launch(command: &Command, ends: ChildEnds) -> impl Future<Output = Result<Self, SpawnError>> + Send;

    /// The leader's process id.
    fn pid(&self) -> u32;

    /// Becomes `Some` once the leader has ended and was reaped, and says how it ended.
    fn exit(&self) -> watch::Receiver<Option<Exit>>;

    /// Signals the leader. A leader that was reaped is never signalled.
    fn signal_leader(&self, signal: Signal);

    /// Starts to end the whole tree, from any thread, and returns at once.
    fn kill(&self);

    /// The living processes of the tree, the leader among them, as seen no earlier than `since`.
    fn members(&self, since: Instant) -> Vec<Member>;

    /// Signals one member, if it is still the process that was seen.
    fn signal(&self, member: &Member, signal: Signal);

    /// Kills the groups that the members are in, which must all be this tree's own. This reaches what was forked since
    /// the members were seen.
    fn kill_groups(&self, members: &[Member]);

    /// Returns when none of the members runs any more, at the latest at `until`.
    fn gone(&self, members: &[Member], until: Instant) -> impl Future<Output = ()> + Send;

    /// A member's command line, for a person. Empty where it can't be told.
    fn command_line(member: &Member) -> String;
}
