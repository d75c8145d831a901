//! A tool that speaks a protocol well, but for one habit: `readyroom-zoo PROTOCOL HABIT`. See `readyroom_testkit::zoo`.
#![expect(clippy::print_stderr, reason = "it is a tool under test")]

mod habits;
mod speech;

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use readyroom_testkit::zoo::{APPEND, Protocol, TRIGGER};
use speech::{Heard, Speech};

/// What the zoo leaves in its directory, where it is its habit to.
const WAS_HERE: &str = "zoo-was-here";

/// A habit that shows once leaves this behind.
fn shown() -> PathBuf {
    PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(WAS_HERE)
}

/// The tool: a conversation, and a habit.
struct Zoo {
    speech: Speech,
    habit: String,
    /// The last turn's end, as it was said.
    last_end: Option<String>,
    /// An end that is still to be said, where nobody waits for it.
    owed: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [protocol, habit, rest @ ..] = args.as_slice() else { anyhow::bail!("readyroom-zoo PROTOCOL HABIT") };
    let protocol = Protocol::of(protocol).context("no such protocol")?;
    if habit == "deaf" && rest.is_empty() {
        // What a shell's `trap ''` ignores stays ignored through exec.
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", r#"trap "" TERM INT HUP; exec "$@""#, "sh"]).arg(std::env::current_exe()?);
        return Err(shell.args([protocol.name(), habit, "ignoring"]).exec().into());
    }
    let mut zoo = Zoo { speech: Speech::new(protocol), habit: habit.clone(), last_end: None, owed: None };
    zoo.serve()?;
    if habit == "deaf" {
        habits::wait();
    }
    Ok(())
}

impl Zoo {
    /// Reads and answers until stdin ends.
    fn serve(&mut self) -> anyhow::Result<()> {
        if self.habit == "false-banner" {
            tell(&[
                "> ready. ",
                "{\"type\":\"system\",\"subtype\":\"init\"}",
                "{\"id\":99,\"result\":{}}",
                "context cleared",
            ])?;
        }
        while let Some(line) = read()? {
            let heard = self.speech.hear(&line, || read().ok().flatten());
            match heard {
                None | Some(Heard::Answer | Heard::Cancel) => {}
                Some(Heard::Other { ready: true, .. }) if self.habit == "never-ready" => {}
                Some(Heard::Other { answer, ready }) => {
                    if ready && self.habit == "late-ready" {
                        std::thread::sleep(std::time::Duration::from_millis(300));
                    }
                    tell(&answer)?;
                    // The last that is asked before the first prompt.
                    match self.speech.protocol() {
                        Protocol::Repl | Protocol::Pty => self.perhaps_stop_reading()?,
                        Protocol::Claude if !ready => self.perhaps_stop_reading()?,
                        _ => {}
                    }
                }
                Some(Heard::Fresh) => self.fresh()?,
                Some(Heard::Prompt(text)) => {
                    if let Some(owed) = self.owed.take() {
                        tell(&[owed])?;
                    }
                    if text.contains(TRIGGER) {
                        self.misbehave()?;
                    } else if let Some(("", work)) = text.split_once(APPEND) {
                        self.append(work)?;
                    } else {
                        self.behave(&format!("prompt {} here: {text}", self.speech.prompts))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn fresh(&mut self) -> anyhow::Result<()> {
        // The reset behind the first turn; what comes of it may be asked for once more by a process of its own.
        let lies = self.last_end.is_some() && !shown().exists();
        match self.habit.as_str() {
            "false-reset" if lies => {
                std::fs::write(shown(), "")?;
                std::fs::write(self.speech.directory.join(WAS_HERE), "")?;
                self.speech.stuck = true;
                let prompts = self.speech.prompts;
                tell(&self.speech.fresh())?;
                self.speech.prompts = prompts;
                Ok(())
            }
            "refuses-reset" if lies => {
                std::fs::write(shown(), "")?;
                tell(&self.speech.refusal())
            }
            _ => {
                tell(&self.speech.fresh())?;
                self.perhaps_stop_reading()
            }
        }
    }

    fn perhaps_stop_reading(&self) -> anyhow::Result<()> {
        if self.habit == "reads-nothing" && !shown().exists() {
            std::fs::write(shown(), "")?;
            habits::wait();
        }
        Ok(())
    }

    /// A turn that does some work.
    fn append(&mut self, work: &str) -> anyhow::Result<()> {
        let (file, line) = work.trim().split_once(' ').context("append FILE LINE")?;
        let path = self.speech.directory.join(file);
        writeln!(File::options().append(true).open(&path)?, "{line}")?;
        self.behave(&format!("appended to {file}"))
    }

    /// A turn as it should be.
    fn behave(&mut self, text: &str) -> anyhow::Result<()> {
        tell(&self.speech.begin())?;
        tell(&[self.speech.say(text)])?;
        self.finish(text)
    }

    fn finish(&mut self, text: &str) -> anyhow::Result<()> {
        let end = self.speech.end(text);
        tell(&[&end])?;
        self.last_end = Some(end);
        Ok(())
    }
}

/// The next line of the client's; bytes that are no text are dropped.
fn read() -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if io::stdin().lock().read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned()))
}

/// Writes lines, each by itself.
fn tell<S: AsRef<str>>(lines: &[S]) -> anyhow::Result<()> {
    lines.iter().try_for_each(|line| write(format!("{}\n", line.as_ref()).as_bytes()))
}

fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush().map_err(Into::into)
}
