//! The reporter for everything that is no terminal: one plain line for each outcome, nothing that moves.

use std::io::Write;

use readyroom::{Event, Outcome};

use super::render::{self, Evidence, Look};
use super::view::View;
use super::{Ended, Reporter, Verbosity};

/// Writes plain lines.
pub struct Plain<W> {
    out: W,
    verbosity: Verbosity,
    look: Look,
    evidence: Evidence,
}

impl<W: Write + Send> Plain<W> {
    /// Writes to `out`.
    pub fn new(out: W, verbosity: Verbosity, look: Look) -> Self {
        Self { out, verbosity, look, evidence: Evidence::default() }
    }

    /// Nobody can be told that stderr is gone, and the run's results do not depend on it.
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}

impl<W: Write + Send> Reporter for Plain<W> {
    fn event(&mut self, view: &View, pool: usize, event: &Event) {
        let line = match self.verbosity {
            Verbosity::Verbose => render::event(view, pool, event).or_else(|| render::trouble(view, pool, event)),
            Verbosity::Normal | Verbosity::Quiet => render::trouble(view, pool, event),
        };
        if let Some(line) = line {
            self.line(&line);
        }
    }

    fn ended(&mut self, view: &View, ended: &Ended, _answer_shown: bool) {
        if self.verbosity == Verbosity::Quiet && ended.outcome.is_success() {
            return;
        }
        self.line(&render::outcome(view, ended, self.look));
        if matches!(ended.outcome, Outcome::Failed(_)) {
            for line in self.evidence.lines(ended, self.verbosity == Verbosity::Verbose) {
                self.line(&line);
            }
        }
    }

    fn notice(&mut self, text: &str) {
        self.line(text);
    }

    fn tick(&mut self, _view: &View) {}

    fn around(&mut self, write: &mut dyn FnMut()) {
        write();
    }

    fn end(&mut self) {}
}
