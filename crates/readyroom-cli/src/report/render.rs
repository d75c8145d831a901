//! Lines as text: the bar for the whole, a line for each instance, the line of an outcome. Nothing here writes, so all
//! of it is tested at any width.

use std::time::Instant;

use readyroom::driver::{Activity, Proof};
use readyroom::{Event, Outcome};

use super::view::{Row, RowState, View};
use super::{Ended, text};

/// How lines may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether colours are used.
    pub colour: bool,
    /// Whether characters beyond ASCII are used.
    pub unicode: bool,
}

/// Colours, by their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// Well.
    Good,
    /// Not well.
    Bad,
    /// Of less weight.
    Dim,
}

impl Look {
    /// The mark where text was cut.
    pub fn cut(self) -> &'static str {
        if self.unicode { "…" } else { "~" }
    }

    /// The text in a colour, where there are colours.
    pub fn paint(self, text: &str, paint: Paint) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Good => 32,
            Paint::Bad => 31,
            Paint::Dim => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The bar for the whole and a line for each instance, each at most `width` columns, at most `height` lines.
pub fn screen(view: &View, now: Instant, width: usize, height: usize, look: Look) -> Vec<String> {
    let mut lines = vec![bar(view, now, width, look)];
    let room = height.saturating_sub(1);
    let rows: Vec<&Row> = view.rows.iter().filter(|row| row.state != RowState::Closed).collect();
    if rows.len() <= room {
        lines.extend(rows.iter().map(|row| instance(view, row, now, width, look)));
    } else if room > 0 {
        // Those that work come first; the rest is counted.
        let (working, others): (Vec<&&Row>, Vec<&&Row>) =
            rows.iter().partition(|row| matches!(row.state, RowState::Working { .. }));
        let shown = working.into_iter().chain(others).take(room - 1);
        lines.extend(shown.map(|row| instance(view, row, now, width, look)));
        let rest = format!("and {} more", text::count(rows.len() + 1 - room, "instance"));
        lines.push(look.paint(&text::fit(&rest, width, look.cut()), Paint::Dim));
    }
    lines
}

fn bar(view: &View, now: Instant, width: usize, look: Look) -> String {
    let total = view.plan.jobs.len();
    let counts = format!("{}/{total}", view.done);
    let mut tail = String::new();
    if view.failed > 0 {
        tail.push_str(&format!("  failed {}", view.failed));
    }
    tail.push_str(&format!("  {}", text::time(now.duration_since(view.began))));
    match (&view.stopping, view.time_left(now)) {
        (Some(_), _) => tail.push_str("  stopping"),
        (None, Some(left)) if view.done < total => tail.push_str(&format!("  left {}", text::time(left))),
        _ => {}
    }
    let room = width.saturating_sub(text::width(&counts) + text::width(&tail) + 1).min(40);
    if room < 4 {
        return text::fit(&format!("{counts}{tail}"), width, look.cut());
    }
    let filled = room * view.done / total.max(1);
    let (full, empty) = if look.unicode { ("█", "░") } else { ("#", ".") };
    let bar = format!("{}{}", look.paint(&full.repeat(filled), Paint::Good), empty.repeat(room - filled));
    format!("{counts} {bar}{tail}")
}

fn instance(view: &View, row: &Row, now: Instant, width: usize, look: Look) -> String {
    let (state, what, since) = match &row.state {
        RowState::Waiting => ("waiting", String::new(), None),
        RowState::Starting(since) => ("starting", String::new(), Some(*since)),
        RowState::Ready => ("ready", String::new(), None),
        RowState::Working { job, since } => ("working", text::one_line(&view.plan.label(*job)), Some(*since)),
        RowState::Down(why) => ("down", text::one_line(why), None),
        RowState::Quarantined(why) => ("out", text::one_line(why), None),
        RowState::Closed => ("closed", String::new(), None),
    };
    let narrow = width < 60;
    let longest = view.rows.iter().map(|row| text::width(&row.name)).max().unwrap_or(0);
    let name = text::column(&row.name, longest.min(if narrow { 10 } else { 16 }), look.cut());
    let since = since.map_or(String::new(), |since| text::time(now.duration_since(since)));
    let turns = if narrow { format!("{}t", row.turns) } else { text::count(row.turns as usize, "turn") };
    let tail = if narrow { format!(" {since:>6} {turns:>4}") } else { format!("  {since:>6}  {turns:>9}") };
    let head = format!("{name} {state:<8} ");
    let room = width.saturating_sub(text::width(&head) + text::width(&tail));
    if room < 4 {
        return text::fit(&format!("{head}{what}"), width, look.cut());
    }
    format!("{head}{}{}", text::column(&what, room.min(48), look.cut()), look.paint(&tail, Paint::Dim))
}

/// The line of an outcome: `ok 3/24 src/a.py (aider 1, 2.1s)`.
pub fn outcome(view: &View, ended: &Ended, look: Look) -> String {
    let (word, paint) = match &ended.outcome {
        Outcome::Succeeded => ("ok", Paint::Good),
        Outcome::Cancelled => ("cancelled", Paint::Dim),
        Outcome::TimedOut { .. } => ("timed out", Paint::Bad),
        Outcome::Lost => ("lost", Paint::Bad),
        _ => ("failed", Paint::Bad),
    };
    let mut line = format!(
        "{} {}/{} {}",
        look.paint(word, paint),
        view.done,
        view.plan.jobs.len(),
        text::one_line(&view.plan.label(ended.job))
    );
    match &ended.outcome {
        Outcome::Failed(failure) => line.push_str(&format!(": {}", text::one_line(&failure.to_string()))),
        Outcome::TimedOut { evidence, .. } if !evidence.is_empty() => {
            line.push_str(&format!(": {}", text::one_line(evidence)));
        }
        _ => {}
    }
    let pool = view.plan.jobs[ended.job].pool;
    let place = ended.instance.and_then(|instance| view.row(pool, instance)).map(|row| row.name.clone());
    if let Some(name) = place {
        line.push_str(&look.paint(&format!(" ({name}, {})", text::time(ended.timings.turn)), Paint::Dim));
    }
    line
}

/// The lines of evidence below failed outcomes: the tool's last words. The same words are told once.
#[derive(Debug, Default)]
pub struct Evidence {
    told: String,
}

impl Evidence {
    /// The lines for this outcome: a few of them unless `all`.
    pub fn lines(&mut self, ended: &Ended, all: bool) -> Vec<String> {
        let Outcome::Failed(failure) = &ended.outcome else { return Vec::new() };
        if failure.evidence == self.told {
            return Vec::new();
        }
        self.told.clone_from(&failure.evidence);
        let lines: Vec<&str> = failure.evidence.lines().filter(|line| !line.trim().is_empty()).collect();
        let first = if all { 0 } else { lines.len().saturating_sub(3) };
        lines[first..].iter().map(|line| format!("  | {}", text::fit(&text::one_line(line), 300, "..."))).collect()
    }
}

/// What happened to an instance, for `-v`; none for events that outcomes tell already.
pub fn event(view: &View, pool: usize, event: &Event) -> Option<String> {
    let name = |instance: &usize| view.row(pool, *instance).map_or_else(String::new, |row| row.name.clone());
    Some(match event {
        Event::InstanceStarted { instance, generation, pid } => {
            format!("{}: started, life {generation}, pid {pid}", name(instance))
        }
        Event::InstanceReady { instance, took, version, .. } => {
            let version = version.as_ref().map_or_else(String::new, |version| format!(", version {version}"));
            format!("{}: ready after {}{version}", name(instance), text::time(*took))
        }
        Event::InstanceEnded { instance, why, .. } => format!("{}: ended: {}", name(instance), text::one_line(why)),
        Event::ContextProven { instance, proof, .. } => {
            let how = match proof {
                Proof::NewProcess => "a new process".into(),
                Proof::NewSession(id) => format!("a new session, {}", text::one_line(id)),
                Proof::Acknowledged(words) => format!("acknowledged: {}", text::one_line(words)),
            };
            format!("{}: fresh context: {how}", name(instance))
        }
        Event::TurnStarted { turn, instance, .. } => match view.job(pool, *turn) {
            Some(job) => format!("{}: begins {}", name(instance), text::one_line(&view.plan.label(job))),
            None => return None,
        },
        Event::TurnProgressed { instance, activity: Activity::Retrying { attempt, why }, .. } => {
            format!("{}: the tool tries again (attempt {attempt}): {}", name(instance), text::one_line(why))
        }
        Event::TurnProgressed { instance, activity: Activity::Denied(what), .. } => {
            format!("{}: not allowed: {}", name(instance), text::one_line(what))
        }
        Event::StraysEnded { instance, commands } => {
            format!("{}: ended what was left running: {}", name(instance), text::one_line(&commands.join("; ")))
        }
        Event::AnomalySeen { instance, what } => format!("{}: odd message: {}", name(instance), text::one_line(what)),
        Event::EventsMissed { count } => format!("{count} events came too fast to be told"),
        _ => return None,
    })
}

/// What a person should know even without `-v`: an instance that stays down. (What one failure meant, its job tells.)
pub fn trouble(view: &View, pool: usize, event: &Event) -> Option<String> {
    let name = |instance: &usize| view.row(pool, *instance).map_or_else(String::new, |row| row.name.clone());
    match event {
        Event::InstanceQuarantined { instance, failure } => {
            Some(format!("{} stays down: {}", name(instance), text::one_line(&failure.to_string())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use readyroom::event::TurnId;
    use readyroom::{Failure, FailureKind};

    use super::super::view::tests::{ended, plan, turn_started};
    use super::*;

    const PLAIN: Look = Look { colour: false, unicode: true };

    fn view(instances: usize) -> (View, Instant) {
        let now = Instant::now();
        let inputs: Vec<String> = (0..24).map(|n| format!("src/a/long/path/to/module_{n}.py")).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let mut view = View::new(plan("aider", instances, &inputs), false, now);
        view.opening(0, now);
        view.submitted(3, 0, TurnId(1));
        view.event(0, &turn_started(1, 0), now);
        for job in 0..12 {
            view.ended(&ended(job, Outcome::Succeeded, Duration::from_secs(1)));
        }
        (view, now + Duration::from_secs(12))
    }

    #[test]
    fn the_screen_fits_80_columns() {
        let (view, now) = view(2);
        let lines = screen(&view, now, 80, 24, PLAIN);
        assert_eq!(
            lines,
            [
                "12/24 ████████████████████░░░░░░░░░░░░░░░░░░░░  12.0s  left 12.0s",
                "aider 0 working  src/a/long/path/to/module_3.py                 12.0s   12 turns",
                "aider 1 starting                                                12.0s    0 turns",
            ]
        );
    }

    #[test]
    fn the_screen_fits_40_columns() {
        let (view, now) = view(2);
        let lines = screen(&view, now, 40, 24, Look { colour: false, unicode: false });
        assert_eq!(
            lines,
            [
                "12/24 #######........  12.0s  left 12.0s",
                "aider 0 working  src/a/long~  12.0s  12t",
                "aider 1 starting              12.0s   0t",
            ]
        );
    }

    #[test]
    fn many_instances_are_cut_to_the_height() {
        let (view, now) = view(24);
        let lines = screen(&view, now, 80, 5, PLAIN);
        assert_eq!(lines.len(), 5);
        assert!(lines[1].starts_with("aider 0  working"), "{}", lines[1]);
        assert_eq!(lines[4], "and 21 instances more");
    }

    #[test]
    fn no_line_is_ever_wider_than_the_terminal() {
        let (view, now) = view(3);
        for width in 1..120 {
            for line in screen(&view, now, width, 24, PLAIN) {
                assert!(text::width(&line) <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn outcomes_are_one_line_each() {
        let (mut view, _) = view(2);
        let good = ended(1, Outcome::Succeeded, Duration::from_millis(2100));
        assert_eq!(outcome(&view, &good, PLAIN), "ok 12/24 src/a/long/path/to/module_1.py (aider 0, 2.1s)");
        let failure = Failure::new(FailureKind::ModelError, "it broke\noff").with_stderr("1\n2\n\n3\n4\n");
        let bad = Ended::unstarted(2, failure.into());
        view.ended(&bad);
        assert_eq!(
            outcome(&view, &bad, PLAIN),
            "failed 13/24 src/a/long/path/to/module_2.py: model_error: it broke\\noff"
        );
        let mut evidence = Evidence::default();
        assert_eq!(evidence.lines(&bad, false), ["  | 2", "  | 3", "  | 4"]);
        assert!(evidence.lines(&bad, false).is_empty());
        assert_eq!(Evidence::default().lines(&bad, true).len(), 4);
        let coloured = outcome(&view, &good, Look { colour: true, unicode: true });
        assert!(coloured.starts_with("\x1b[32mok\x1b[0m "), "{coloured:?}");
    }
}
