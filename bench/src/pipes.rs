//! Processes over bare pipes, spoken with in lines that block, a thread each: the least that anybody can do to use them.

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

    /// Writes `text`, and gives the first line that is the `end`.
    pub fn turn(&mut self, text: &str, end: impl Fn(&str) -> bool) -> anyhow::Result<&str> {
        self.stdin.write_all(text.as_bytes())?;
        loop {
            self.line.clear();
            anyhow::ensure!(self.stdout.read_line(&mut self.line)? > 0, "the process ended");
            if end(&self.line) {
                return Ok(&self.line);
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

/// What `lane` gives for each of `them`, a thread each.
pub fn side_by_side<T: Send, R: Send>(
    them: &mut [T],
    lane: impl Fn(&mut T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    std::thread::scope(|scope| {
        let lanes: Vec<_> = them.iter_mut().map(|one| scope.spawn(|| lane(one))).collect();
        lanes.into_iter().map(|lane| lane.join().map_err(|_| anyhow::anyhow!("a lane panicked"))?).collect()
    })
}
