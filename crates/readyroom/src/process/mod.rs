//! Owns trees of OS processes: starts them, moves their bytes, measures them, and ends every last one of them.
//!
//! A tool is started by a *guardian*, one small process for all tools of this program, which outlives a killed owner
//! just long enough to end what it started. The page is `docs/design/process.md`.
//!
//! What differs between operating systems is behind one trait in `platform`; all else here is the same everywhere.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

mod clock;
mod handle;
mod platform;
mod signals;
mod stream;
mod tail;

pub use clock::started_scale;
pub use handle::{Handle, ProcessInfo, TreeUsage};
pub use signals::is_ignored;
pub use stream::{Output, Stdin};
pub use tail::Tail;

/// Must be the first call in `main` of a program that uses readyroom.
///
/// The guardian of the program's tools is the program itself, executed once more; in that process this call does not
/// return. In all others it only notes that this works, and raises the soft limit on open files to the hard one
/// (the tools get the original back). Programs that can't call it (a scripting language's interpreter) name a program
/// that does with [`use_program`], or have the command `readyroom` on their `PATH`.
pub fn init() {
    platform::init();
}

/// Names the program that is executed as the guardian; its `main` begins with [`init`].
///
/// For programs whose own `main` can't, such as test harnesses and interpreters. Counts from the next guardian on.
pub fn use_program(path: impl Into<PathBuf>) {
    platform::use_program(path.into());
}

/// For a process that was forked from one with tools and executes no other program (Python's `os.fork`): lets go of them,
/// so that they are the parent's alone and end with it. Nothing can be started here afterwards.
pub fn leave_to_parent() {
    platform::leave_to_parent();
}

/// Ends processes that were left behind by owners that are dead, found by the mark that each of our processes carries.
///
/// That happens by itself before a program's first tool is started, so there is seldom a reason to call it. Blocks for
/// up to 3 s where a dead owner's guardian is still at work. Returns how many processes were ended.
pub fn sweep_orphans() -> usize {
    platform::sweep_orphans()
}

/// How a process's standard streams are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Io {
    /// Three pipes.
    #[default]
    Pipe,
    /// Two pipes: stderr goes where stdout goes, in the order of the writes.
    Merged,
    /// One terminal for all three, in raw mode, the controlling terminal of the process's session.
    Pty,
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program: a path, or a name to look for in the `PATH` of [`env`](Self::env).
    pub program: PathBuf,
    /// Its arguments, without the program's own name.
    pub args: Vec<OsString>,
    /// Its whole environment; nothing is inherited. Two variables that mark the process as ours are added.
    pub env: BTreeMap<OsString, OsString>,
    /// The directory that it is started in.
    pub cwd: PathBuf,
    /// Its standard streams.
    pub io: Io,
    /// Where it and everything below it may write; a place that does not exist is made as a directory where that can be
    /// done. `None`: wherever the user may. Devices such as `/dev/null` can always be written to.
    pub writable: Option<Vec<PathBuf>>,
    /// A warmed interpreter of which it is to be a fork, where the platform has such and it is not confined; else, and
    /// where that one is of no use, it is started by itself.
    pub zygote: Option<Zygote>,
}

/// A Python interpreter that has imported what a program needs, and of which each start of that program is a fork. One is
/// kept for each interpreter, program, list of imports and environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zygote {
    /// The interpreter that runs the program.
    pub interpreter: PathBuf,
    /// The modules that it imports first.
    pub imports: Vec<String>,
    /// Python that it executes then: what else a first use of them would do.
    pub warm: String,
}

impl Command {
    /// A command with this process's environment and directory, no arguments, and pipes.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: std::env::vars_os().collect(),
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            io: Io::Pipe,
            writable: None,
            zygote: None,
        }
    }

    /// The same with one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// There is no such program.
    #[error("no program {}", program.display())]
    NotFound {
        /// As it was given.
        program: PathBuf,
    },
    /// The program is there, but can't be executed.
    #[error("{} can't be executed: {why}", program.display())]
    NotExecutable {
        /// Where it was found.
        program: PathBuf,
        /// The reason.
        why: String,
    },
    /// The directory to start it in is missing, or is none.
    #[error("{} is not a directory that a process can start in: {why}", directory.display())]
    BadDirectory {
        /// As it was given.
        directory: PathBuf,
        /// The reason.
        why: String,
    },
    /// The system has no means to hold the process to the places where it may write.
    #[error("the process can't be kept from writing elsewhere: {0}")]
    Unconfined(String),
    /// The guardian could not be started, or died.
    #[error("the guardian process failed: {0}")]
    Guardian(String),
    /// The operating system refused something: no more processes, descriptors or memory, or arguments that are too
    /// long.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        error: io::Error,
    },
}

/// A process that was started, with the owner's ends of its streams.
#[derive(Debug)]
pub struct Process {
    /// Its stdin; dropping it closes it.
    pub stdin: Stdin,
    /// Its stdout, and its stderr too unless that is separate.
    pub stdout: Output,
    /// Its stderr, with [`Io::Pipe`].
    pub stderr: Option<Output>,
    /// Holds the tree of processes that grows from it.
    pub handle: Handle,
}

/// Starts a process as the leader of its own session and process group.
///
/// ```
/// use std::time::Duration;
///
/// use readyroom::process::{self, Command};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     readyroom::init();
///     tokio::runtime::Runtime::new()?.block_on(async {
///         let mut cat = process::spawn(&Command::new("cat")).await?;
///         cat.stdin.write_all(b"hello").await?;
///         let mut answer = [0; 5];
///         cat.stdout.read_exact(&mut answer).await?;
///         assert_eq!(&answer, b"hello");
///
///         drop(cat.stdin);
///         assert!(cat.handle.wait().await.is_zero());
///         cat.handle.end_tree(Duration::from_secs(1)).await;
///         Ok(())
///     })
/// }
/// ```
///
/// Dropping the future before it is done ends what it may have started. Must be called in a Tokio runtime.
///
/// # Errors
///
/// See [`SpawnError`]. The program and the directory are looked at first, so that the error can name what is wrong.
pub async fn spawn(command: &Command) -> Result<Process, SpawnError> {
    let cwd = check_directory(&command.cwd)?;
    let program = find_program(&command.program, command.env.get(OsStr::new("PATH")).map(OsString::as_os_str))?;
    let command = Command { program, cwd, ..command.clone() };
    let (stdin, stdout, stderr, ends) =
        stream::open(command.io).map_err(|error| SpawnError::Io { what: "making its streams", error })?;
    let handle = Handle::launch(&command, ends).await?;
    Ok(Process { stdin, stdout, stderr, handle })
}

fn check_directory(directory: &Path) -> Result<PathBuf, SpawnError> {
    let bad = |why: String| SpawnError::BadDirectory { directory: directory.to_owned(), why };
    match directory.metadata() {
        Ok(metadata) if metadata.is_dir() => std::path::absolute(directory).map_err(|error| bad(error.to_string())),
        Ok(_) => Err(bad("it is not a directory".to_owned())),
        Err(error) => Err(bad(error.to_string())),
    }
}

/// Finds a program by path, or by name in `path`, as an absolute path of something that looks executable.
pub fn find_program(program: &Path, path: Option<&OsStr>) -> Result<PathBuf, SpawnError> {
    let missing = || SpawnError::NotFound { program: program.to_owned() };
    if program.components().count() != 1 || program.is_absolute() || program.as_os_str() == ".." {
        return match executable(program) {
            Found::Yes(path) => Ok(path),
            Found::No(error) => Err(error),
            Found::Missing => Err(missing()),
        };
    }
    let mut refused = None;
    for directory in std::env::split_paths(path.unwrap_or_default()) {
        match executable(&directory.join(program)) {
            Found::Yes(path) => return Ok(path),
            Found::No(error) => refused = refused.or(Some(error)),
            Found::Missing => {}
        }
    }
    Err(refused.unwrap_or_else(missing))
}

enum Found {
    Yes(PathBuf),
    No(SpawnError),
    Missing,
}

fn executable(program: &Path) -> Found {
    let refuse = |why: &str| Found::No(SpawnError::NotExecutable { program: program.to_owned(), why: why.to_owned() });
    match program.metadata() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refuse(&error.to_string()),
        Err(_) => Found::Missing,
        Ok(metadata) if metadata.is_dir() => refuse("it is a directory"),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => refuse("it has no permission to be executed"),
        Ok(_) => std::path::absolute(program).map_or(Found::Missing, Found::Yes),
    }
}
