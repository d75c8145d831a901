//! Runs git so that nothing of the caller's surroundings changes what it does: no hooks, no pager, no prompts, no
//! environment of an outer git.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::WorkspaceError;

/// Variables by which a git that is under way (a hook, an alias) points its children at its own repository.
pub(crate) const OUTER_GIT: [&str; 10] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_CEILING_DIRECTORIES",
    "GIT_LITERAL_PATHSPECS",
];

/// Settings that hold whatever the user's say: no hook runs, nothing is tidied in the background, and a diff has one form.
const SETTINGS: [&str; 10] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "diff.noprefix=false",
    "diff.mnemonicPrefix=false",
    "apply.whitespace=nowarn",
    "advice.addEmbeddedRepo=false",
    "commit.gpgSign=false",
];

/// One command of git.
#[derive(Debug)]
pub(super) struct Git<'a> {
    directory: &'a Path,
    command: Command,
    input: Option<&'a [u8]>,
    lock: Option<&'a File>,
}

impl<'a> Git<'a> {
    /// A command that runs in `directory`, with its arguments.
    pub(super) fn new<A: AsRef<OsStr>>(directory: &'a Path, args: impl IntoIterator<Item = A>) -> Self {
        let mut command = Command::new("git");
        for variable in OUTER_GIT {
            command.env_remove(variable);
        }
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(args).current_dir(directory);
        command.envs([("LC_ALL", "C"), ("GIT_TERMINAL_PROMPT", "0"), ("GIT_OPTIONAL_LOCKS", "0")]);
        for who in ["GIT_AUTHOR", "GIT_COMMITTER"] {
            command.env(format!("{who}_NAME"), "readyroom").env(format!("{who}_EMAIL"), "readyroom@localhost");
        }
        Self { directory, command, input: None, lock: None }
    }

    /// With this index instead of the work tree's own.
    pub(super) fn index(mut self, index: &Path) -> Self {
        self.command.env("GIT_INDEX_FILE", index);
        self
    }

    /// In the caller's own name, as their settings have it.
    pub(super) fn in_callers_name(mut self) -> Self {
        for who in ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"] {
            match std::env::var_os(who) {
                Some(own) => self.command.env(who, own),
                None => self.command.env_remove(who),
            };
        }
        self
    }

    /// With more arguments.
    pub(super) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// With this on its standard input.
    pub(super) fn input(mut self, input: &'a [u8]) -> Self {
        self.input = Some(input);
        self
    }

    /// Keeps a lock that is on this file for as long as git runs, also when this process is gone before. What git prints is lost.
    pub(super) fn holding(mut self, lock: &'a File) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Runs it, whatever its exit status.
    pub(super) fn output(mut self) -> Result<Output, WorkspaceError> {
        let piped = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(piped).stderr(Stdio::piped());
        let stdout = self.lock.map_or_else(|| Ok(Stdio::piped()), |lock| lock.try_clone().map(Stdio::from));
        stdout
            .and_then(|stdout| {
                self.command.stdout(stdout);
                self.run()
            })
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound if self.directory.is_dir() => WorkspaceError::GitMissing,
                _ => WorkspaceError::Io { path: self.directory.to_owned(), error },
            })
    }

    fn run(&mut self) -> io::Result<Output> {
        let mut child = self.command.spawn()?;
        let Some(input) = self.input else { return child.wait_with_output() };
        let stdin = child.stdin.take();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // A git that has seen enough closes its end; its exit status says whether that was well.
                let _ = stdin.map(|mut stdin| stdin.write_all(input));
            });
            child.wait_with_output()
        })
    }

    /// Runs it to success; its output.
    pub(super) fn bytes(self) -> Result<Vec<u8>, WorkspaceError> {
        let shown = self.shown();
        let directory = self.directory.to_owned();
        let output = self.output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let message = if said.is_empty() { output.status.to_string() } else { said };
        Err(WorkspaceError::Git { command: shown, directory, message })
    }

    /// Runs it to success; its output as one line of text.
    pub(super) fn line(self) -> Result<String, WorkspaceError> {
        Ok(String::from_utf8_lossy(&self.bytes()?).trim_end_matches('\n').to_owned())
    }

    /// Runs it to success; its output as a path.
    pub(super) fn path(self) -> Result<PathBuf, WorkspaceError> {
        let bytes = self.bytes()?;
        Ok(path(bytes.strip_suffix(b"\n").unwrap_or(&bytes)))
    }

    fn shown(&self) -> String {
        let args = self.command.get_args().skip(2 * SETTINGS.len());
        args.map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

/// A path as git gives it with `-z`.
pub(super) fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}
