//! The reporter for terminals: a bar for the whole and a line for each instance, redrawn in place; everything else
//! scrolls by above them.
//!
//! The drawing is done here, with the few control sequences that every terminal knows, and not by a library for
//! progress bars: those pad each line to the terminal's width, and a padded line is torn in two when the terminal gets
//! narrower. No mode of the terminal is changed, so there is nothing to restore, however the command ends.

use std::io::Write;
use std::time::{Duration, Instant};

use readyroom::{Event, Outcome};

use super::render::{self, Evidence, Look, Paint};
use super::view::View;
use super::{Ended, Reporter, Verbosity, text};

/// The time between two drawings that nothing but the clock asks for.
const PERIOD: Duration = Duration::from_millis(200);

/// A terminal that can be drawn on.
pub trait Screen: Write + Send {
    /// Columns and lines now.
    fn size(&self) -> (usize, usize);
}

/// The terminal behind stderr.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::stderr().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

impl Screen for Stderr {
    fn size(&self) -> (usize, usize) {
        match rustix::termios::tcgetwinsize(std::io::stderr()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        }
    }
}

/// Draws bars.
pub struct Bars<S> {
    screen: S,
    verbosity: Verbosity,
    look: Look,
    /// Whether the terminal folds lines that have become too wide for it.
    folds: bool,
    /// Columns of the lines that stand on the screen.
    drawn: Vec<usize>,
    /// The terminal's width at that drawing.
    drawn_at: usize,
    last: Option<Instant>,
    evidence: Evidence,
}

impl<S: Screen> Bars<S> {
    /// Draws on `screen`. `folds`: whether the terminal folds long lines anew when it gets narrower.
    pub fn new(screen: S, verbosity: Verbosity, look: Look, folds: bool) -> Self {
        Self {
            screen,
            verbosity,
            look,
            folds,
            drawn: Vec::new(),
            drawn_at: 0,
            last: None,
            evidence: Evidence::default(),
        }
    }

    /// What moves the cursor, which waits at the beginning of the last line, to the beginning of the first.
    fn home(&self, width: usize) -> String {
        let above = self.drawn.split_last().map_or(&[][..], |(_, above)| above);
        let rows: usize =
            above.iter().map(|&columns| if self.folds { columns.div_ceil(width.max(1)).max(1) } else { 1 }).sum();
        if rows == 0 { "\r".into() } else { format!("\r\x1b[{rows}A") }
    }

    fn erase(&mut self) {
        if !self.drawn.is_empty() {
            let (width, _) = self.screen.size();
            let sequence = format!("{}\x1b[J", self.home(width));
            self.drawn.clear();
            self.put(&sequence);
        }
    }

    fn put(&mut self, bytes: &str) {
        // A terminal that is gone is no reason to stop: SIGHUP comes for that.
        let _ = self.screen.write_all(bytes.as_bytes()).and_then(|()| self.screen.flush());
    }

    fn draw(&mut self, view: &View, now: Instant) {
        let (width, height) = self.screen.size();
        // The last column stays free: a character there leaves some cursors in the next line.
        let lines =
            render::screen(view, now, width.saturating_sub(1).max(1), height.saturating_sub(1).max(1), self.look);
        let mut sequence = self.home(width);
        if width != self.drawn_at {
            // Lines that were folded stay joined in the terminal's memory until they are cleared as a whole.
            sequence.push_str("\x1b[J");
        }
        for (place, line) in lines.iter().enumerate() {
            if place > 0 {
                sequence.push('\n');
            }
            sequence.push_str(line);
            sequence.push_str("\x1b[K");
        }
        // The cursor waits at a line's beginning: what a terminal echoes there (^C) can't push it to another row.
        sequence.push_str("\x1b[J\r");
        self.drawn = lines.iter().map(|line| text::width(&strip(line))).collect();
        self.drawn_at = width;
        self.last = Some(now);
        self.put(&sequence);
    }

    fn line(&mut self, line: &str) {
        self.erase();
        self.put(&format!("{line}\n"));
    }
}

/// The text without colours.
fn strip(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some(start) = rest.find("\x1b[") {
        plain.push_str(&rest[..start]);
        rest = rest[start..].find('m').map_or("", |end| &rest[start + end + 1..]);
    }
    plain.push_str(rest);
    plain
}

impl<S: Screen> Reporter for Bars<S> {
    fn event(&mut self, view: &View, pool: usize, event: &Event) {
        let line = match self.verbosity {
            Verbosity::Verbose => render::event(view, pool, event).or_else(|| render::trouble(view, pool, event)),
            Verbosity::Normal | Verbosity::Quiet => render::trouble(view, pool, event),
        };
        if let Some(line) = line {
            self.line(&self.look.paint(&line, Paint::Dim));
        }
    }

    fn ended(&mut self, view: &View, ended: &Ended, answer_shown: bool) {
        if !(answer_shown && ended.outcome.is_success()) {
            let line = render::outcome(view, ended, self.look);
            self.line(&line);
        }
        if matches!(ended.outcome, Outcome::Failed(_)) {
            for line in self.evidence.lines(ended, self.verbosity == Verbosity::Verbose) {
                self.line(&self.look.paint(&line, Paint::Dim));
            }
        }
        self.draw(view, Instant::now());
    }

    fn notice(&mut self, text: &str) {
        self.line(text);
    }

    fn tick(&mut self, view: &View) {
        let now = Instant::now();
        if self.drawn.is_empty() || self.last.is_none_or(|last| now.duration_since(last) >= PERIOD) {
            self.draw(view, now);
        }
    }

    fn around(&mut self, write: &mut dyn FnMut()) {
        self.erase();
        write();
    }

    fn end(&mut self) {
        self.erase();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::view::tests::{ended, plan};
    use super::*;

    /// A screen that keeps what is written and whose size can be changed.
    #[derive(Clone)]
    struct Kept(Arc<Mutex<State>>);

    struct State {
        written: Vec<u8>,
        columns: usize,
    }

    impl Kept {
        fn new(width: usize) -> Self {
            Self(Arc::new(Mutex::new(State { written: Vec::new(), columns: width })))
        }

        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap().written)).unwrap()
        }

        fn resize(&self, width: usize) {
            self.0.lock().unwrap().columns = width;
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Screen for Kept {
        fn size(&self) -> (usize, usize) {
            (self.0.lock().unwrap().columns, 24)
        }
    }

    fn bars(screen: &Kept, folds: bool) -> Bars<Kept> {
        Bars::new(screen.clone(), Verbosity::Normal, Look { colour: true, unicode: true }, folds)
    }

    #[test]
    fn lines_are_redrawn_in_place_and_answers_scroll_above() {
        let screen = Kept::new(80);
        let mut bars = bars(&screen, true);
        let mut view = View::new(plan("x", 2, &["a", "b"]), false, Instant::now());
        bars.draw(&view, Instant::now());
        let first = screen.take();
        assert!(first.starts_with("\r\x1b[J0/2 ") && first.ends_with("\x1b[J\r"), "{first:?}");
        assert_eq!(first.matches('\n').count(), 2);
        bars.draw(&view, Instant::now());
        assert!(screen.take().starts_with("\r\x1b[2A0/2 "));
        let end = ended(0, readyroom::Outcome::Succeeded, Duration::from_secs(1));
        view.ended(&end);
        bars.around(&mut || screen.clone().write_all(b"answer\n").unwrap());
        bars.ended(&view, &end, true);
        let shown = screen.take();
        assert!(shown.starts_with("\r\x1b[2A\x1b[Janswer\n\r1/2 "), "{shown:?}");
        bars.end();
        assert_eq!(screen.take(), "\r\x1b[2A\x1b[J");
        bars.end();
        assert_eq!(screen.take(), "");
    }

    #[test]
    fn a_narrower_terminal_that_folds_lines_is_cleaned_as_a_whole() {
        let now = Instant::now();
        let view = View::new(plan("x", 1, &["a"]), false, now);
        for (folds, up) in [(true, 2), (false, 1)] {
            let screen = Kept::new(80);
            let mut bars = bars(&screen, folds);
            bars.draw(&view, now);
            screen.take();
            let columns: Vec<usize> = bars.drawn.clone();
            assert!(columns.iter().all(|&columns| (40..80).contains(&columns)), "{columns:?}");
            screen.resize(40);
            bars.draw(&view, now);
            assert!(screen.take().starts_with(&format!("\r\x1b[{up}A")));
            assert!(bars.drawn.iter().all(|&columns| columns < 40));
        }
    }
}
