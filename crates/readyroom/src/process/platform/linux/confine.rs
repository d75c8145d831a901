//! Confinement: a process and all below it may write only in certain places. The kernel's Landlock holds them to that.
//!
//! The owner makes the rules as a descriptor, which travels to the guardian with the order to start; the new child
//! enters them before it executes its program. Nothing can leave them again, and reading stays as free as it was.

#![expect(unsafe_code, reason = "Landlock's system calls have no wrappers")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The rights that are handled: writing, truncating, and making and removing entries of all kinds.
const WRITE: u64 = (1 << 1) | REMOVE_AND_MAKE | REFER | TRUNCATE;
const REMOVE_AND_MAKE: u64 = 0x1ff0;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
/// Those of them that a rule about a file may have.
const WRITE_FILE: u64 = (1 << 1) | TRUNCATE;
/// The devices that may be written. The rest of `/dev` holds disks, and in `/dev/shm` other programs' memory.
const DEVICES: [&str; 8] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts"];
/// The first version of Landlock that holds truncation too.
const VERSION: i64 = 3;

/// `struct landlock_ruleset_attr`, as far as the first version has it.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// Whether this kernel can confine a process, and why not.
pub(super) fn available() -> Result<(), String> {
    // SAFETY: with this flag the call takes no attributes and only tells a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, 1_u32) };
    match version {
        VERSION.. => Ok(()),
        0.. => Err(format!("the kernel's Landlock is of version {version}, and {VERSION} is needed (Linux 6.2)")),
        _ => Err(format!("the kernel has no Landlock ({})", io::Error::last_os_error())),
    }
}

/// Rules that allow writes below `writable` and to harmless devices, and nowhere else. A place that does not exist is made, as a
/// directory of the user alone; where that fails, it is left out.
pub(super) fn rules(writable: &[PathBuf]) -> io::Result<OwnedFd> {
    let attr = RulesetAttr { handled_access_fs: WRITE };
    // SAFETY: the attributes live for the call and have the size that is given; the result is checked before it is owned.
    let rules = unsafe {
        let made = libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size_of::<RulesetAttr>(), 0_u32);
        owned(made)?
    };
    for device in DEVICES {
        allow(rules.as_fd(), Path::new(device), WRITE_FILE)?;
    }
    for place in writable {
        // A place that is there already, or can't be made, is no reason to stop: opening it tells.
        let _ = fs::DirBuilder::new().mode(0o700).create(place);
        allow(rules.as_fd(), place, WRITE)?;
    }
    Ok(rules)
}

fn allow(rules: BorrowedFd<'_>, place: &Path, rights: u64) -> io::Result<()> {
    let file: File = match OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(place) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let rights = if file.metadata()?.is_dir() { rights } else { rights & WRITE_FILE };
    let attr = PathBeneathAttr { allowed_access: rights, parent_fd: file.as_raw_fd() };
    // SAFETY: the attributes live for the call, and the descriptor in them is open.
    let done = unsafe { libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), 1_u32, &raw const attr, 0_u32) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Enters the rules for good. Makes system calls only, so it may run between fork and exec.
pub(super) fn enter(rules: BorrowedFd<'_>) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the descriptor is open, and the call takes nothing else.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0_u32) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// # Safety
/// A `result` that is not negative must be a new descriptor that nothing else owns.
unsafe fn owned(result: i64) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller says so.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
