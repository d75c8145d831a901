//! What the command's tests share: a sandbox, fake tools as definition files, and the command itself, started for real.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod worktrees;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use readyroom_testkit::{Sandbox, assert_nothing_left, fake};

/// Nothing in these tests takes as long as this.
const PATIENCE: Duration = Duration::from_secs(180);

/// A directory with tools, in which the command is run.
pub struct Place {
    pub sandbox: Sandbox,
}

/// What a command has printed and how it ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Finished {
    /// The exit status, where it was none by a signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by a signal: {self:#?}"))
    }

    /// Asserts the exit status and shows everything where it differs.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self:#?}");
        self
    }

    /// Asserts that stderr holds `text`.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.err.contains(text), "stderr lacks {text:?}: {self:#?}");
        self
    }
}

impl Place {
    /// An empty one with the tool `echo`, in no repository: jobs work in the directory itself.
    pub fn new() -> Self {
        let place = Self::in_repository();
        fs::remove_dir_all(place.sandbox.dir().join(".git")).unwrap();
        place
    }

    /// The same in a git repository with one commit.
    pub fn in_repository() -> Self {
        let place = Self { sandbox: Sandbox::bare("echo") };
        place.tool("echo", &["--interrupt"]);
        place
    }

    /// A definition file for the fake echo under another name, launched with these habits.
    pub fn tool(&self, id: &str, habits: &[&str]) -> PathBuf {
        self.definition(id, &fake::echo_toml(id, habits))
    }

    /// The fake echo behind `/bin/sh -c SCRIPT`; in the script `$ECHO` is its program.
    pub fn scripted(&self, id: &str, script: &str) -> PathBuf {
        let program = fake::program("readyroom-echo");
        let script = format!("ECHO='{}'; {script}", program.display());
        let toml = fake::echo_toml(id, &[]);
        let argv = toml.lines().find(|line| line.starts_with("argv")).unwrap();
        self.definition(id, &toml.replace(argv, &format!("argv = [\"/bin/sh\", \"-c\", {script:?}]")))
    }

    /// A one-shot command that runs a shell script; the prompt is on its stdin.
    pub fn oneshot(&self, id: &str, script: &str) -> PathBuf {
        self.definition(
            id,
            &format!(
                "id = {id:?}\ndriver = \"oneshot\"\nargv = [\"/bin/sh\", \"-c\", {script:?}]\n[oneshot]\n\
                 [permissions.read]\n[permissions.edit]\n[permissions.full]\n"
            ),
        )
    }

    /// A user's definition file.
    pub fn definition(&self, id: &str, toml: &str) -> PathBuf {
        let directory = self.sandbox.home().join(".config/readyroom/tools");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("{id}.toml"));
        fs::write(&path, toml).unwrap();
        path
    }

    /// Writes a file into the directory.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.sandbox.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Reads a file of the directory.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.sandbox.dir().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The command with these words, in the sandbox's surroundings.
    pub fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_readyroom"));
        command.args(words);
        self.surround(&mut command);
        command
    }

    /// The command for the sandbox's real tool, in surroundings that hold nothing but what both need.
    pub fn alone(&self, words: &[&str]) -> Command {
        let program = readyroom_testkit::tools::program(self.sandbox.tool());
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_readyroom"));
        command.args(words).env_clear();
        self.surround(&mut command);
        command.env("PATH", format!("{}:{path}", program.parent().unwrap().display()));
        command
    }

    /// Puts any command into the sandbox's surroundings.
    pub fn surround(&self, command: &mut Command) {
        command
            .current_dir(self.sandbox.dir())
            .env("HOME", self.sandbox.home())
            .envs(self.sandbox.env())
            .env_remove("READYROOM_TOOL")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_STATE_HOME")
            .stdin(Stdio::null());
    }

    /// `readyroom run -t echo` with these words, to its end.
    pub fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Finished {
        self.run_with("", words)
    }

    /// The same with this on stdin.
    pub fn run_with<S: AsRef<OsStr>>(&self, stdin: &str, words: &[S]) -> Finished {
        let mut all: Vec<&OsStr> = vec!["run".as_ref(), "-t".as_ref(), "echo".as_ref()];
        all.extend(words.iter().map(AsRef::as_ref));
        let mut command = self.command(&all);
        if !stdin.is_empty() {
            let file = self.sandbox.home().join("stdin");
            fs::write(&file, stdin).unwrap();
            command.stdin(fs::File::open(file).unwrap());
        }
        self.finish(command)
    }

    /// Runs any command to its end. Nothing of it may be left.
    pub fn finish(&self, mut command: Command) -> Finished {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let finished = Started::new(child).finish();
        assert_nothing_left(&self.sandbox);
        finished
    }

    /// Starts `readyroom run -t echo` with these words and looks on.
    pub fn start(&self, words: &[&str]) -> Started {
        let all: Vec<&str> = ["run", "-t", "echo"].iter().chain(words).copied().collect();
        let mut command = self.command(&all);
        Started::new(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Asserts that nothing of the sandbox runs any more.
    #[track_caller]
    pub fn nothing_left(&self) {
        assert_nothing_left(&self.sandbox);
    }
}

/// A command that runs.
pub struct Started {
    child: Child,
    out: Option<thread::JoinHandle<String>>,
    lines: Receiver<String>,
    err: String,
}

impl Started {
    pub fn new(mut child: Child) -> Self {
        let out = child.stdout.take().map(|mut out| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                out.read_to_end(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes).into_owned()
            })
        });
        let (sender, lines) = mpsc::channel();
        let err = child.stderr.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, out, lines, err: String::new() }
    }

    /// Waits for a line of stderr that holds `text`, and returns it.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.err.push_str(&line);
                    self.err.push('\n');
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => {
                    let _ = self.child.kill();
                    panic!("stderr never said {text:?}:\n{}", self.err);
                }
            }
        }
    }

    /// Reads stderr until so many lines that begin with `start` have come, or it ends.
    pub fn wait_for_lines(&mut self, start: &str, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = 0;
        while seen < count {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    seen += usize::from(line.starts_with(start));
                    self.err.push_str(&line);
                    self.err.push('\n');
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let _ = self.child.kill();
                    panic!("stderr never had {count} lines of {start:?}:\n{}", self.err);
                }
            }
        }
    }

    /// The next line of stderr; none at its end.
    pub fn next_line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.err.push_str(&line);
                self.err.push('\n');
                Some(line)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let _ = self.child.kill();
                panic!("nothing more came:\n{}", self.err);
            }
        }
    }

    /// Reads stderr for so long.
    pub fn look_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.err.push_str(&line);
            self.err.push('\n');
        }
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal to the command alone.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        let deadline = Instant::now() + PATIENCE;
        // Stderr ends when the command and all who share it have ended.
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.err.push_str(&line);
                    self.err.push('\n');
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let _ = self.child.kill();
                    panic!("it never ended:\n{}", self.err);
                }
            }
        }
        let status = self.child.wait().unwrap();
        let out = self.out.take().map(|out| out.join().unwrap()).unwrap_or_default();
        Finished { status, out, err: std::mem::take(&mut self.err) }
    }
}

/// A test that fails leaves nothing running.
impl Drop for Started {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            let _ = self.child.wait();
        }
    }
}
