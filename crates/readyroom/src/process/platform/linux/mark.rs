//! Marks: how a process is known to be ours, and whose, when its ancestors are gone.
//!
//! Each process that the guardian starts, and so everything that comes from it, carries two marks. One is in its environment,
//! where people see it and where it names the owner in full; a process that clears its environment loses it. The other is
//! the soft limit on realtime CPU time, set to a value so high that it limits nothing: limits are inherited through fork
//! and exec, and nobody resets this one by accident.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

use super::procfs::{self, Stat};

/// Names the owner: pid, start time, pid namespace.
pub(super) const OWNER_VARIABLE: &str = "READYROOM_OWNER";
/// Names the tree among its owner's.
pub(super) const TREE_VARIABLE: &str = "READYROOM_TREE";
/// Is set in the environment of guardians, and only there.
pub(super) const GUARDIAN_VARIABLE: &str = "READYROOM_GUARDIAN";

/// A tree of processes among those of its owner. Fits into a mark, so it is counted modulo 2^18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct TreeId(u32);

impl TreeId {
    const BITS: u32 = 18;

    pub(super) fn new(count: u32) -> Self {
        Self(count & ((1 << Self::BITS) - 1))
    }
}

/// A program that owns trees of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwnerId {
    pub pid: u32,
    /// In clock ticks since boot.
    pub started: u64,
    /// The inode of its pid namespace: a pid means nothing in another one.
    pub namespace: u64,
}

impl OwnerId {
    /// This process.
    pub(super) fn current() -> Option<Self> {
        let pid = std::process::id();
        Some(Self { pid, started: Stat::read(pid)?.started, namespace: namespace_of(pid)? })
    }

    /// Whether it still runs.
    pub(super) fn is_alive(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.started == self.started && stat.runs())
    }

    /// The marks of its tree `tree`, for the environment.
    pub(super) fn environment(&self, tree: TreeId) -> [(OsString, OsString); 2] {
        [(OWNER_VARIABLE.into(), self.to_string().into()), (TREE_VARIABLE.into(), tree.0.to_string().into())]
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.pid, self.started, self.namespace)
    }
}

impl FromStr for OwnerId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(':');
        let (Some(pid), Some(started), Some(namespace), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(());
        };
        Ok(Self {
            pid: pid.parse().map_err(drop)?,
            started: started.parse().map_err(drop)?,
            namespace: namespace.parse().map_err(drop)?,
        })
    }
}

/// The mark in the limits, as a number: a tag, the owner's pid (22 bits, the most that Linux uses), the low bits of its
/// start time (20 bits), and the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LimitMark {
    owner_pid: u32,
    owner_started: u32,
    pub tree: TreeId,
}

impl LimitMark {
    const PID_BITS: u32 = 22;
    const STARTED_BITS: u32 = 20;
    const TAG: u64 = 1 << 61;

    pub(super) fn new(owner: &OwnerId, tree: TreeId) -> Self {
        Self {
            owner_pid: owner.pid & ((1 << Self::PID_BITS) - 1),
            owner_started: (owner.started & ((1 << Self::STARTED_BITS) - 1)) as u32,
            tree,
        }
    }

    fn encode(self) -> u64 {
        let owner = u64::from(self.owner_pid) << Self::STARTED_BITS | u64::from(self.owner_started);
        Self::TAG | owner << TreeId::BITS | u64::from(self.tree.0)
    }

    fn decode(value: u64) -> Option<Self> {
        // The bit below the tag is always clear.
        if value >> 60 != Self::TAG >> 60 {
            return None;
        }
        let owner = (value & (Self::TAG - 1)) >> TreeId::BITS;
        Some(Self {
            owner_pid: (owner >> Self::STARTED_BITS) as u32,
            owner_started: (owner & ((1 << Self::STARTED_BITS) - 1)) as u32,
            tree: TreeId::new(value as u32),
        })
    }

    /// The limit that it is, and its value, for a process that puts it on itself.
    pub(super) fn limit(self) -> (u32, u64) {
        (libc::RLIMIT_RTTIME, self.encode())
    }

    /// Puts the mark on the calling process. Makes system calls only, so it may run between fork and exec. Where an own
    /// hard limit forbids the value, the mark in the environment has to do.
    pub(super) fn set(self) {
        let old = rustix::process::getrlimit(Resource::Rttime);
        let _ =
            rustix::process::setrlimit(Resource::Rttime, Rlimit { current: Some(self.encode()), maximum: old.maximum });
    }

    /// Reads it from a process.
    pub(super) fn read(pid: u32) -> Option<Self> {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max realtime timeout"))?;
        Self::decode(line.split_whitespace().next()?.parse().ok()?)
    }

    pub(super) fn is_of(&self, owner: &OwnerId) -> bool {
        *self == Self::new(owner, self.tree)
    }

    /// Whether the owner still runs, as far as this mark can tell: a process that fits counts.
    fn owner_is_alive(&self) -> bool {
        Stat::read(self.owner_pid).is_some_and(|stat| {
            stat.runs() && stat.started & ((1 << Self::STARTED_BITS) - 1) == u64::from(self.owner_started)
        })
    }
}

/// The tree of `owner` that a process belongs to by its marks, whoever its ancestors are.
pub(super) fn tree_of(pid: u32, owner: &OwnerId) -> Option<TreeId> {
    if let Some(mark) = LimitMark::read(pid)
        && mark.is_of(owner)
    {
        return Some(mark.tree);
    }
    let environment = procfs::environment(pid)?;
    if variable::<OwnerId>(&environment, OWNER_VARIABLE)? != *owner {
        return None;
    }
    variable(&environment, TREE_VARIABLE).map(TreeId::new)
}

/// Whether a process carries a mark of an owner that is dead.
pub(super) fn is_orphan(pid: u32, own_namespace: u64) -> bool {
    let in_own_namespace = || namespace_of(pid) == Some(own_namespace);
    if let Some(owner) =
        procfs::environment(pid).and_then(|environment| variable::<OwnerId>(&environment, OWNER_VARIABLE))
    {
        return owner.namespace == own_namespace && !owner.is_alive();
    }
    LimitMark::read(pid).is_some_and(|mark| in_own_namespace() && !mark.owner_is_alive())
}

/// Whether a process is a guardian of whatever owner.
pub(super) fn is_guardian(pid: u32) -> bool {
    procfs::environment(pid).is_some_and(|environment| variable::<u32>(&environment, GUARDIAN_VARIABLE).is_some())
}

pub(super) fn namespace_of(pid: u32) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/pid")).ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

fn variable<T: FromStr>(environment: &[u8], name: &str) -> Option<T> {
    environment
        .split(|&byte| byte == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .and_then(|value| OsStr::from_bytes(value).to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_mark_survives_its_number() {
        let owner = OwnerId { pid: 4_194_303, started: 123_456_789, namespace: 1 };
        for tree in [0, 1, (1 << 18) - 1] {
            let mark = LimitMark::new(&owner, TreeId::new(tree));
            assert_eq!(LimitMark::decode(mark.encode()), Some(mark));
            assert!(mark.is_of(&owner));
            assert!(!mark.is_of(&OwnerId { started: 123_456_788, ..owner }));
        }
        assert_eq!(LimitMark::decode(u64::MAX), None);
        assert_eq!(LimitMark::decode(1_000_000), None);
    }

    #[test]
    fn an_owner_survives_its_text() {
        let owner = OwnerId::current().unwrap();
        assert_eq!(owner.to_string().parse(), Ok(owner));
        assert!(owner.is_alive());
        assert!(!OwnerId { started: owner.started + 1, ..owner }.is_alive());
        assert_eq!("1:2".parse::<OwnerId>(), Err(()));
    }
}
