//! Runs a command of the caller's in an instance's directory, its process tree owned like any other.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use crate::error::Exit;
use crate::process::{self, Io, Tail};

/// How much of its output is kept.
const TAIL: usize = 8 << 10;

/// How long its processes have to end when they are told to.
const GRACE: Duration = Duration::from_secs(2);

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CommandEnd {
    Exited(Exit),
    Late(Duration),
    Stopped,
    NotStarted(String),
}

impl fmt::Display for CommandEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(exit) => write!(f, "ended with {exit}"),
            Self::Late(after) => write!(f, "was not done after {} s", after.as_secs()),
            Self::Stopped => f.write_str("was stopped"),
            Self::NotStarted(why) => write!(f, "could not be started: {why}"),
        }
    }
}

/// A command as whoever gave it knows it: of a shell's, the script.
pub(super) fn shown(argv: &[String]) -> String {
    match argv {
        [shell, flag, script, ..] if shell == "sh" && flag == "-c" => script.clone(),
        _ => argv.join(" "),
    }
}

/// Runs it with this program's environment but for the variables `without`, and no input, to its end, its time's end, or
/// until `stop` is true. Nothing of it runs any more when this returns. The text is the last of what it said on both outputs.
pub(super) async fn run(
    argv: &[String],
    directory: &Path,
    without: &[&str],
    timeout: Duration,
    mut stop: watch::Receiver<bool>,
) -> (CommandEnd, String) {
    let Some((program, args)) = argv.split_first() else {
        return (CommandEnd::NotStarted("it is empty".into()), String::new());
    };
    let mut command = process::Command::new(program);
    command.args = args.iter().map(Into::into).collect();
    command.cwd = directory.to_owned();
    command.env.insert("PWD".into(), directory.into());
    for name in without.iter().chain(&["OLDPWD"]) {
        command.env.remove(std::ffi::OsStr::new(name));
    }
    command.io = Io::Merged;
    let mut process = match process::spawn(&command).await {
        Ok(process) => process,
        Err(error) => return (CommandEnd::NotStarted(error.to_string()), String::new()),
    };
    drop(process.stdin);
    let mut tail = Tail::new(TAIL);
    let mut buffer = vec![0; 4096];
    let end = tokio::time::sleep(timeout);
    tokio::pin!(end);
    let mut open = true;
    let ended = loop {
        tokio::select! {
            read = process.stdout.read(&mut buffer), if open => match read {
                Ok(read) if read > 0 => tail.push(&buffer[..read]),
                _ => open = false,
            },
            // What it left in the pipe is read before its end counts; what it left running may hold the pipe for ever.
            exit = process.handle.wait() => {
                while open {
                    match tokio::time::timeout(Duration::from_millis(100), process.stdout.read(&mut buffer)).await {
                        Ok(Ok(read)) if read > 0 => tail.push(&buffer[..read]),
                        _ => open = false,
                    }
                }
                break CommandEnd::Exited(exit);
            }
            () = &mut end => break CommandEnd::Late(timeout),
            () = stopped(&mut stop) => break CommandEnd::Stopped,
        }
    };
    process.handle.end_tree(GRACE).await;
    (ended, tail.text())
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}
