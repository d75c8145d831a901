//! What the zoo does in the turn that triggers its habit.

use std::process::{Command, Stdio};
use std::time::Duration;

use readyroom_testkit::zoo::{Protocol, words};
use rustix::process::{Signal, getpid, kill_process};

use super::speech::Heard;
use super::{Zoo, read, tell, write};

/// A line, or half a word, that nobody ends.
const HUGE: usize = 1 << 30;

/// Does nothing any more.
pub fn wait() -> ! {
    loop {
        std::thread::park();
    }
}

impl Zoo {
    /// The turn that triggers the habit. What is not named here is a turn as it should be.
    pub(super) fn misbehave(&mut self) -> anyhow::Result<()> {
        let text = words(self.speech.protocol(), &self.habit);
        let lines = matches!(self.speech.protocol(), Protocol::Repl | Protocol::Pty);
        match self.habit.as_str() {
            "one-byte-at-a-time" | "one-write" | "half-a-character" | "no-newline" => return self.in_pieces(text),
            "huge-line" => {
                tell(&self.speech.begin())?;
                let piece = vec![b'x'; 1 << 20];
                for _ in 0..HUGE / piece.len() {
                    write(&piece)?;
                }
            }
            "escapes" if !lines => tell(&["\u{1b}]0;title\u{7}\u{1b}[2J"])?,
            "progress" if !lines => write(b"10%\r50%\r100%\r\n")?,
            "not-utf8" => {
                tell(&self.speech.begin())?;
                write(b"\xff\xfe\x00\xc3\n")?;
                tell(&[self.speech.say(text)])?;
                return self.finish(text);
            }
            "closes-stdout" => {
                self.half()?;
                rustix::stdio::dup2_stdout(null()?)?;
                wait();
            }
            "closes-stdin" => {
                tell(&self.speech.begin())?;
                tell(&[self.speech.say(text)])?;
                rustix::stdio::dup2_stdin(null()?)?;
                self.finish(text)?;
                wait();
            }
            "exits-with-3" => self.half().map(|()| std::process::exit(3))?,
            "exits-with-0" => self.half().map(|()| std::process::exit(0))?,
            "killed" => {
                self.half()?;
                kill_process(getpid(), Signal::KILL)?;
            }
            "children-keep-pipes" => {
                self.half()?;
                Command::new("sleep").arg("1000").spawn()?;
                std::process::exit(3);
            }
            "children-leave" => {
                let mut child = Command::new("setsid");
                child.args(["/bin/sh", "-c", r#"trap "" TERM INT HUP; while :; do sleep 1; done"#]);
                child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            }
            "eats-memory" => {
                let eaten = vec![1_u8; 128 << 20];
                self.behave(text)?;
                // For the rest of its life.
                std::mem::forget(eaten);
                return Ok(());
            }
            "fills-stderr" => {
                let piece = "e".repeat(1 << 16);
                (0..128).for_each(|_| eprintln!("{piece}"));
            }
            "stops-itself" => {
                self.half()?;
                kill_process(getpid(), Signal::STOP)?;
            }
            "hangs" => {
                self.half()?;
                wait();
            }
            "changes-directory" => std::env::set_current_dir("/")?,
            _ => return self.speak_badly(text),
        }
        self.behave(text)
    }

    /// The habits of a speaker.
    fn speak_badly(&mut self, text: &str) -> anyhow::Result<()> {
        match self.habit.as_str() {
            "old-end" => {
                let old: Vec<String> = self.last_end.iter().cloned().collect();
                tell(&self.speech.begin())?;
                tell(&old)?;
                tell(&[self.speech.say(text)])?;
                return self.finish(text);
            }
            "unknown-messages" => {
                tell(&self.speech.begin())?;
                tell(&self.speech.unknown())?;
                tell(&[self.speech.say(text)])?;
                return self.finish(text);
            }
            "own-requests" => {
                tell(&self.speech.begin())?;
                tell(&[self.speech.own_request()])?;
                // It is answered, and the turn goes on.
                read()?;
                tell(&[self.speech.say(text)])?;
                return self.finish(text);
            }
            "wrong-ids" => {
                tell(&self.speech.begin())?;
                tell(&[self.speech.say(text)])?;
                let end = self.speech.foreign_end(text);
                tell(&[end])?;
                return self.until_cancelled();
            }
            "two-ends" => {
                self.behave(text)?;
                let end: Vec<String> = self.last_end.iter().cloned().collect();
                return tell(&end);
            }
            "end-first" => {
                // In one piece: the beginning comes to one who has just heard the end, and never behind the next reset.
                let mut lines = vec![self.speech.end("")];
                lines.extend(self.speech.begin());
                lines.push(self.speech.say(text));
                return write(format!("{}\n", lines.join("\n")).as_bytes());
            }
            "late-end" => {
                self.half()?;
                self.until_cancelled()?;
                self.owed = Some(self.speech.end(text));
                return Ok(());
            }
            "false-success" => {
                tell(&self.speech.begin())?;
                return tell(&[self.speech.false_success()]);
            }
            "late-text" => {
                self.behave(text)?;
                return tell(&[self.speech.say("too late")]);
            }
            "asks-and-waits" => {
                tell(&self.speech.begin())?;
                tell(&[self.speech.question()])?;
                read()?;
                tell(&[self.speech.say(text)])?;
                return self.finish(text);
            }
            "ignores-cancel" => {
                self.half()?;
                while read()?.is_some() {}
                wait();
            }
            _ => {}
        }
        self.behave(text)
    }

    /// The first half of a turn.
    fn half(&self) -> anyhow::Result<()> {
        tell(&self.speech.begin())?;
        tell(&[self.speech.say("as far as ")])
    }

    fn until_cancelled(&mut self) -> anyhow::Result<()> {
        while let Some(line) = read()? {
            if let Some(Heard::Cancel) = self.speech.hear(&line, || None) {
                return tell(&self.speech.cancelled());
            }
        }
        Ok(())
    }

    /// A good turn in pieces of another size than its lines have.
    fn in_pieces(&mut self, text: &str) -> anyhow::Result<()> {
        let mut lines = self.speech.begin();
        lines.extend([self.speech.say(text), self.speech.end(text)]);
        let mut whole = lines.join("\n");
        if self.habit != "no-newline" {
            whole.push('\n');
        }
        self.last_end = lines.pop();
        let bytes = whole.as_bytes();
        match self.habit.as_str() {
            "one-byte-at-a-time" => bytes.chunks(1).try_for_each(write),
            "half-a-character" => {
                // In the midst of each character that has several bytes.
                let mut rest = bytes;
                while let Some(at) = rest.iter().position(|byte| *byte >= 0xc0) {
                    write(&rest[..=at])?;
                    std::thread::sleep(Duration::from_millis(20));
                    rest = &rest[at + 1..];
                }
                write(rest)
            }
            _ => write(bytes),
        }
    }
}

fn null() -> std::io::Result<std::fs::File> {
    std::fs::File::options().read(true).write(true).open("/dev/null")
}
