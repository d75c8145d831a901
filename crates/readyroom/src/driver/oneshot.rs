//! The `oneshot` driver: any command that gets one prompt and prints one answer.
//!
//! Each turn has a process of its own, so a turn's end is the process's: exit status 0 with the output at its end is
//! success, everything else is a failure. The command line is known only with the turn, which may stand in it, and a
//! command that needs no input would be over before its turn came. So a shell is launched, and becomes the command when
//! the turn comes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Activity, Driver, Effect, Proof, Request, Slot, Turn, TurnEnd, TurnStatus, no_context_commands};
use crate::error::{Exit, Failure, FailureKind};
use crate::job::Answer;
use crate::tool::{Contract, Definition, DriverKind, OneshotSettings, PromptTo};

/// The longest argument that Linux takes, with the NUL behind it.
const ARGUMENT_BYTES: usize = 128 << 10;
/// The most of stderr that is kept as evidence.
const STDERR_BYTES: usize = 8 << 10;
/// What the shell does until its command is known. `read` takes no byte more than its line, so that the command finds
/// the rest of stdin; `n` stands for the newlines in its words.
const BECOME: &str = "n='\n'; IFS= read -r line && eval \"$line\"";
/// The only conversation.
const SLOT: Slot = Slot(0);

/// The program and arguments to launch for `contract`: its own, or the shell that becomes them.
pub fn command(contract: &Contract) -> (PathBuf, Vec<OsString>) {
    match contract.definition.driver {
        DriverKind::Oneshot => (PathBuf::from("/bin/sh"), vec!["-c".into(), BECOME.into()]),
        _ => (contract.program.clone(), contract.args.clone()),
    }
}

/// `args` with the turn's prompt and files, as far as the definition puts them there.
fn with_turn(settings: &OneshotSettings, mut args: Vec<OsString>, turn: &Turn) -> Vec<OsString> {
    let files = turn.files.iter().flat_map(|file| {
        settings.file_args.iter().map(move |arg| {
            let mut word = OsString::new();
            for (nth, part) in arg.split("{}").enumerate() {
                if nth > 0 {
                    word.push(file);
                }
                word.push(part);
            }
            word
        })
    });
    let files: Vec<OsString> = files.collect();
    if settings.prompt == PromptTo::Stdin {
        args.extend(files);
        return args;
    }
    let prompt = text(settings, turn);
    let place = |word: &OsString| word.to_str().is_some_and(|word| word.contains("{prompt}"));
    match args.iter().position(place) {
        Some(at) => {
            args[at] = args[at].to_string_lossy().replace("{prompt}", &prompt).into();
            args.splice(at..at, files);
        }
        None => {
            args.extend(files);
            args.push("--".into());
            args.push(prompt.into());
        }
    }
    args
}

/// The line that makes a shell become `program`, whatever stands in `args`. Its stdin is what follows the line.
fn exec_line(program: &Path, args: &[OsString]) -> Vec<u8> {
    let mut line = b"exec".to_vec();
    for word in std::iter::once(program.as_os_str()).chain(args.iter().map(OsString::as_os_str)) {
        line.extend_from_slice(b" '");
        for byte in word.as_bytes() {
            match byte {
                b'\'' => line.extend_from_slice(br"'\''"),
                b'\n' => line.extend_from_slice(b"'\"$n\"'"),
                byte => line.push(*byte),
            }
        }
        line.push(b'\'');
    }
    line.push(b'\n');
    line
}

/// The prompt, behind the names of the files where the command has no arguments for them.
fn text(settings: &OneshotSettings, turn: &Turn) -> String {
    if turn.files.is_empty() || !settings.file_args.is_empty() {
        return turn.prompt.clone();
    }
    let names: Vec<String> = turn.files.iter().map(|file| format!("- {}\n", file.display())).collect();
    format!("Files to work on:\n{}\n{}", names.concat(), turn.prompt)
}

/// The driver's state.
pub struct Oneshot {
    program: PathBuf,
    args: Vec<OsString>,
    definition: Arc<Definition>,
    settings: OneshotSettings,
    phase: Phase,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// What the process is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No prompt yet.
    Waiting,
    /// It works on its prompt.
    Running,
    /// It works, and was asked to stop.
    Cancelled,
    /// Its turn is over.
    Over,
}

impl Oneshot {
    /// A driver for a process launched by `contract`.
    pub fn new(contract: &Contract) -> Self {
        Self {
            program: contract.program.clone(),
            args: contract.args.clone(),
            definition: Arc::clone(&contract.definition),
            settings: contract.definition.oneshot.clone().unwrap_or_default(),
            phase: Phase::Waiting,
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    fn end(&mut self, status: TurnStatus, out: &mut Vec<Effect>) {
        self.phase = Phase::Over;
        let text = std::mem::take(&mut self.stdout);
        let answer = Answer { text: text.clone().into(), transcript: text.into(), ..Answer::default() };
        out.push(Effect::Ended { slot: SLOT, end: Box::new(TurnEnd { status, answer }) });
    }

    fn crashed(&self, exit: Exit) -> Failure {
        let stderr = String::from_utf8_lossy(&self.stderr).trim().to_owned();
        let stdout = &self.stdout[self.stdout.len().saturating_sub(STDERR_BYTES)..];
        let said = if stderr.is_empty() { String::from_utf8_lossy(stdout).trim().to_owned() } else { stderr };
        let kind = self.definition.classify(&said).unwrap_or(FailureKind::Crashed { exit: Some(exit) });
        Failure::new(kind, format!("the command ended with {exit}")).with_stderr(said)
    }
}

impl Driver for Oneshot {
    fn launched(&mut self, out: &mut Vec<Effect>) {
        out.push(Effect::Ready { version: None });
    }

    fn stdout(&mut self, bytes: &[u8], out: &mut Vec<Effect>) {
        if self.phase == Phase::Over {
            return;
        }
        self.stdout.extend_from_slice(bytes);
        let limit = self.definition.limits.output_bytes;
        if u64::try_from(self.stdout.len()).unwrap_or(u64::MAX) > limit {
            let failure =
                Failure::new(FailureKind::OutputLimit, format!("the command printed more than {limit} bytes"));
            if self.phase != Phase::Waiting {
                self.end(TurnStatus::Failed(failure.clone()), out);
            }
            self.phase = Phase::Over;
            out.push(Effect::Broken(failure));
        } else if self.phase != Phase::Waiting {
            let activity = Activity::Text(String::from_utf8_lossy(bytes).into_owned());
            out.push(Effect::Activity { slot: SLOT, activity });
        }
    }

    fn stderr(&mut self, bytes: &[u8], _out: &mut Vec<Effect>) {
        self.stderr.extend_from_slice(bytes);
        if self.stderr.len() > 2 * STDERR_BYTES {
            let over = self.stderr.len() - STDERR_BYTES;
            self.stderr.drain(..over);
        }
    }

    fn exited(&mut self, exit: Exit, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::Waiting | Phase::Over => {}
            Phase::Cancelled => self.end(TurnStatus::Cancelled, out),
            Phase::Running if exit.is_zero() => self.end(TurnStatus::Succeeded, out),
            Phase::Running => {
                let failure = self.crashed(exit);
                self.end(TurnStatus::Failed(failure), out);
            }
        }
    }

    fn request(&mut self, request: Request, out: &mut Vec<Effect>) {
        match request {
            Request::Open { .. } if self.phase == Phase::Waiting => {
                out.push(Effect::Fresh { slot: SLOT, proof: Proof::NewProcess });
            }
            Request::Open { .. } | Request::Reset { .. } => {
                let why = "the command takes one prompt; fresh means a new process";
                out.push(Effect::NotFresh { slot: SLOT, failure: Failure::new(FailureKind::NotReady, why) });
            }
            Request::Begin { turn, .. } if self.phase == Phase::Waiting => {
                self.phase = Phase::Running;
                let args = with_turn(&self.settings, self.args.clone(), &turn);
                out.push(Effect::Write(exec_line(&self.program, &args)));
                if self.settings.prompt == PromptTo::Stdin {
                    out.push(Effect::Write(text(&self.settings, &turn).into_bytes()));
                }
                out.push(Effect::CloseStdin);
            }
            Request::Begin { .. } => {
                let failure = Failure::new(FailureKind::NotRun, "the command has had its prompt already");
                self.end(TurnStatus::Failed(failure), out);
            }
            Request::Context { commands, .. } => out.push(no_context_commands(SLOT, commands)),
            Request::Cancel { .. } if self.phase == Phase::Running => {
                self.phase = Phase::Cancelled;
                out.push(Effect::Interrupt);
            }
            Request::Stop if self.phase == Phase::Waiting => out.push(Effect::CloseStdin),
            Request::Cancel { .. } | Request::Stop | Request::Close { .. } | Request::Ping => {}
        }
    }

    fn refuses(&self, turn: &Turn) -> Option<Failure> {
        if self.settings.prompt == PromptTo::Stdin {
            return None;
        }
        let text = text(&self.settings, turn);
        let why = if text.contains('\0') {
            "it holds a NUL, which no argument can".to_owned()
        } else if text.len() >= ARGUMENT_BYTES {
            format!("it has {} bytes, and an argument can have {}", text.len(), ARGUMENT_BYTES - 1)
        } else {
            return None;
        };
        Some(Failure::new(FailureKind::BadInput, format!("the prompt can't be given to {}: {why}", self.definition.id)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::job::{Mode, Permissions};
    use crate::tool::ContractOptions;

    fn contract(text: &str) -> Contract {
        let text = format!("id = \"t\"\ndriver = \"oneshot\"\n{text}");
        let definition: Definition = toml::from_str(&text).unwrap();
        let options = ContractOptions { permissions: Permissions::Full, ..ContractOptions::default() };
        Contract::resolve(Arc::new(definition), Path::new("/bin/true"), &options).unwrap()
    }

    fn turn(prompt: &str, files: &[&str]) -> Turn {
        let files = files.iter().map(PathBuf::from).collect();
        Turn { prompt: prompt.into(), mode: Mode::Default, files, permissions: Permissions::Edit, schema: None }
    }

    fn run(text: &str, say: &str, exit: Exit) -> (TurnStatus, Answer) {
        let mut oneshot = Oneshot::new(&contract(text));
        let mut out = Vec::new();
        oneshot.launched(&mut out);
        oneshot.request(Request::Begin { slot: SLOT, turn: turn("p", &[]) }, &mut out);
        oneshot.stdout(say.as_bytes(), &mut out);
        oneshot.stderr(b"why", &mut out);
        oneshot.exited(exit, &mut out);
        match out.pop() {
            Some(Effect::Ended { end, .. }) => (end.status, end.answer),
            other => panic!("{other:?}"),
        }
    }

    const STDIN: &str = "argv = [\"t\"]\n[oneshot]\n";

    #[test]
    fn only_status_zero_is_success() {
        assert_eq!(run(STDIN, "a\n", Exit::Status(0)).0, TurnStatus::Succeeded);
        assert_eq!(run(STDIN, "a\n", Exit::Status(0)).1.text, "a\n");
        for exit in [Exit::Status(3), Exit::Signal(9), Exit::Unknown] {
            let (status, answer) = run(STDIN, "a\n", exit);
            let TurnStatus::Failed(failure) = status else { panic!("{status:?}") };
            assert_eq!(failure.kind, FailureKind::Crashed { exit: Some(exit) });
            assert_eq!((failure.evidence.as_str(), answer.text.to_string_lossy().as_ref()), ("why", "a\n"));
        }
        let ruled = format!("{STDIN}[[errors]]\npattern = \"why\"\nkind = \"auth\"\n");
        assert!(matches!(run(&ruled, "", Exit::Status(1)).0, TurnStatus::Failed(f) if f.kind == FailureKind::Auth));
    }

    #[test]
    fn the_prompt_goes_to_stdin_behind_the_files_names() {
        let mut oneshot = Oneshot::new(&contract(STDIN));
        let mut out = Vec::new();
        oneshot.request(Request::Begin { slot: SLOT, turn: turn("p", &["/a b"]) }, &mut out);
        let line = Effect::Write(b"exec '/bin/true'\n".to_vec());
        assert_eq!(out, [line, Effect::Write(b"Files to work on:\n- /a b\n\np".to_vec()), Effect::CloseStdin]);
        oneshot.request(Request::Cancel { slot: SLOT }, &mut out);
        oneshot.exited(Exit::Status(0), &mut out);
        assert!(matches!(out.last(), Some(Effect::Ended { end, .. }) if end.status == TurnStatus::Cancelled));
    }

    #[test]
    fn the_prompt_goes_where_the_command_line_says() {
        let words = |text: &str, turn: &Turn| {
            let contract = contract(text);
            assert_eq!(command(&contract).0, Path::new("/bin/sh"));
            with_turn(contract.definition.oneshot.as_ref().unwrap(), contract.args.clone(), turn)
        };
        let placed = "argv = [\"t\", \"-p\", \"={prompt}\", \"-x\"]\n[oneshot]\nprompt = \"arg\"\n";
        assert_eq!(words(placed, &turn("-a {}", &[])), ["-p", "=-a {}", "-x"]);
        let files = "argv = [\"t\"]\n[oneshot]\nprompt = \"arg\"\nfile_args = [\"-f\", \"{}\"]\n";
        assert_eq!(words(files, &turn("p", &["/a", "/b"])), ["-f", "/a", "-f", "/b", "--", "p"]);
        let oneshot = Oneshot::new(&contract(placed));
        assert!(oneshot.refuses(&turn("a\0", &[])).is_some() && oneshot.refuses(&turn("a", &[])).is_none());
        assert!(oneshot.refuses(&turn(&"a".repeat(200_000), &[])).unwrap().message.contains("131071"));
    }

    #[test]
    fn a_shell_takes_every_word_as_it_is_and_leaves_stdin_to_the_command() {
        use std::io::Write as _;
        use std::process::Stdio;
        let prompt = "it's $(rm -r x) `y` \\ \"z\"\n\n!\u{1b}[1m\u{e9}\u{3041}\u{10ffff} \t \n";
        let script = "printf '%s|' \"$@\"; cat";
        let args = ["-c", script, "sh", prompt, "", " "].map(OsString::from);
        for shell in ["/bin/sh", "/bin/bash"] {
            let mut child = std::process::Command::new(shell)
                .args(["-c", BECOME])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(&exec_line(Path::new("/bin/sh"), &args)).unwrap();
            stdin.write_all(b"rest\n").unwrap();
            drop(stdin);
            let output = child.wait_with_output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{prompt}|| |rest\n"), "{shell}");
        }
    }
}
