//! A process over bare pipes, spoken with in lines that block: the least that anybody can do to use it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The process.
pub struct Pipes {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    line: String,
}

impl Pipes {
    /// Starts it; what it says on stderr is let go.
    pub fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            anyhow::bail!("{:?} has no pipes", command.get_program());
        };
        Ok(Self { child, stdin, stdout: BufReader::new(stdout), line: String::new() })
    }

    /// Writes `text` and reads to the first line that is the `end`.
    pub fn turn(&mut self, text: &str, end: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        self.stdin.write_all(text.as_bytes())?;
        loop {
            self.line.clear();
            anyhow::ensure!(self.stdout.read_line(&mut self.line)? > 0, "the process ended");
            if end(&self.line) {
                return Ok(());
            }
        }
    }

    /// Lets it end, and waits for that.
    pub fn end(mut self) -> anyhow::Result<()> {
        drop(self.stdin);
        self.child.wait()?;
        Ok(())
    }
}
