//! The log beside the journal: what is told of runs, each line with its time and its batch. It holds no prompts and no answers.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use readyroom::Event;

use super::plain::Plain;
use super::render::Look;
use super::view::View;
use super::{Ended, Reporter, Verbosity};

/// A log that is longer is put aside, under another name, when a run begins; one such is kept.
const LONGEST: u64 = 8 << 20;

/// Where the log of a journal is.
pub fn path_beside(journal: &Path) -> PathBuf {
    journal.with_extension("log")
}

/// A reporter, and the log of the same.
pub struct Logged {
    shown: Box<dyn Reporter>,
    log: Plain<Lines>,
}

impl Logged {
    /// Opens the log at `path` for a batch, for its user's eyes only.
    ///
    /// # Errors
    /// It can't be written.
    pub fn open(shown: Box<dyn Reporter>, path: &Path, batch: &str) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|there| there.len() > LONGEST) {
            fs::rename(path, path.with_added_extension("old"))?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let lines = Lines { file, batch: batch.to_owned(), line: Vec::new() };
        Ok(Self { shown, log: Plain::new(lines, Verbosity::Verbose, Look { colour: false, unicode: true }) })
    }
}

impl Reporter for Logged {
    fn event(&mut self, view: &View, pool: usize, event: &Event) {
        self.log.event(view, pool, event);
        self.shown.event(view, pool, event);
    }

    fn ended(&mut self, view: &View, ended: &Ended, answer_shown: bool) {
        self.log.ended(view, ended, answer_shown);
        self.shown.ended(view, ended, answer_shown);
    }

    fn notice(&mut self, text: &str) {
        self.log.notice(text);
        self.shown.notice(text);
    }

    fn tick(&mut self, view: &View) {
        self.shown.tick(view);
    }

    fn around(&mut self, write: &mut dyn FnMut()) {
        self.shown.around(write);
    }

    fn end(&mut self) {
        self.shown.end();
    }
}

/// Puts time and batch before each line, and writes it at once, so that several runs can share the file.
struct Lines {
    file: File,
    batch: String,
    line: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let text = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        let lines: String = text.lines().map(|line| format!("{now} {} {line}\n", self.batch)).collect();
        self.file.write_all(lines.as_bytes())
    }
}
