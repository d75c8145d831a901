//! Which program is executed as the guardian, and what happens in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::FileType;
use rustix::process::{Resource, Rlimit};

use super::{guardian, mark};
use crate::process::{SpawnError, find_program};

/// As many descriptors as we ask for: four for each instance, with room.
const OPEN_FILES: u64 = 1 << 16;

static NAMED: Mutex<Option<PathBuf>> = Mutex::new(None);
/// Set by `init`: the limit on open files as it was.
static INITIALISED: OnceLock<Option<u64>> = OnceLock::new();

/// In a process that was started as a guardian, is one and does not return.
#[expect(clippy::exit, reason = "a guardian must never come back into the program's own main")]
pub(in crate::process) fn init() {
    if std::env::var_os(mark::GUARDIAN_VARIABLE).is_some() && stdin_is_socket() {
        std::process::exit(i32::from(guardian::run().is_err()));
    }
    // Elsewhere than in the main thread it was not the first call in main, and the program can't be executed again just
    // to come here.
    if rustix::thread::gettid() == rustix::process::getpid() {
        INITIALISED.get_or_init(raise_open_files);
    }
}

pub(in crate::process) fn use_program(path: PathBuf) {
    *NAMED.lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
}

/// The soft limit on open files that tools get, where ours was raised.
pub(super) fn open_files() -> Option<u64> {
    INITIALISED.get().copied().flatten()
}

/// The program to execute: the one that was named, else our own, else the command on the `PATH`.
pub(super) fn choose() -> Result<PathBuf, SpawnError> {
    if let Some(program) = NAMED.lock().unwrap_or_else(PoisonError::into_inner).clone() {
        return Ok(program);
    }
    if INITIALISED.get().is_some() {
        // Not a path: it also works when the file was replaced or removed meanwhile.
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    let path = std::env::var_os("PATH");
    find_program(Path::new("readyroom"), path.as_deref().or(Some(OsStr::new("")))).map_err(|_| {
        SpawnError::Guardian(
            "there is no program to be it: call readyroom::init() first in main, or name a program that does with \
             readyroom::process::use_program, or have the command readyroom on the PATH"
                .to_owned(),
        )
    })
}

fn stdin_is_socket() -> bool {
    rustix::fs::fstat(std::io::stdin()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
}

/// Raises the soft limit on open files; returns what it was, if it was changed.
fn raise_open_files() -> Option<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let current = limit.current?;
    let wanted = limit.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if wanted <= current {
        return None;
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised).is_ok().then_some(current)
}
