//! `readyroom run` under a real terminal (tmux): bars at 80 and at 40 columns, a resize, Ctrl-C once and twice, and the
//! terminal as it was before.

mod support;

use std::cell::Cell;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::Place;

/// Nothing in these tests takes as long as this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A tmux server of our own with one shell in it.
struct Terminal<'a> {
    place: &'a Place,
    socket: String,
    /// Commands that were run in it.
    runs: Cell<usize>,
}

impl<'a> Terminal<'a> {
    fn open(place: &'a Place, columns: usize, rows: usize) -> Self {
        let socket = place.sandbox.home().join("tmux").display().to_string();
        let terminal = Self { place, socket, runs: Cell::new(0) };
        terminal.tmux(&["new-session", "-d", "-x", &columns.to_string(), "-y", &rows.to_string(), "env PS1='$ ' sh"]);
        terminal.tmux(&["set-option", "-g", "status", "off"]);
        // The status line took a row.
        terminal.resize(columns, rows);
        terminal.wait("the shell's prompt", |screen| screen.trim_end().ends_with('$'));
        terminal
    }

    fn tmux(&self, words: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.args(["-u", "-f", "/dev/null", "-S", &self.socket]).args(words);
        self.place.surround(&mut command);
        let output = command
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .env_remove("NO_COLOR")
            .stderr(Stdio::piped())
            .output()
            .expect("tmux is installed");
        assert!(output.status.success(), "tmux {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn resize(&self, columns: usize, rows: usize) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// All lines, also those that have scrolled away.
    fn history(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-S", "-"])
    }

    fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.tmux(&["send-keys", "Enter"]);
    }

    fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Looks at the screen until `holds` does.
    #[track_caller]
    fn wait(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "the screen never showed {what}:\n{screen}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Runs the command, and tells its exit status and the terminal's modes before and after it.
    fn run(&self, words: &str) {
        self.runs.set(self.runs.get() + 1);
        let run = self.runs.get();
        let program = env!("CARGO_BIN_EXE_readyroom");
        let ended = format!("code=$?; stty -a > after; echo run {run} ended $code");
        self.line(&format!("stty -a > before; '{program}' run -t echo {words}; {ended}"));
    }

    #[track_caller]
    fn ended(&self, code: i32) -> String {
        let ended = format!("\nrun {} ended {code}\n", self.runs.get());
        self.wait(&ended, |screen| screen.contains(&ended));
        // All but the size, which is on the first line and is the test's own doing.
        let modes = |file: &str| self.place.read(file).lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(modes("before"), modes("after"), "the terminal is not as it was");
        self.history()
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        command.args(["-S", &self.socket, "kill-server"]).stderr(Stdio::null());
        let _ = command.status();
    }
}

/// The last lines of the screen that are not empty.
fn foot(screen: &str, lines: usize) -> Vec<&str> {
    let all: Vec<&str> = screen.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].to_vec()
}

fn is_bar(line: &str, counts: &str) -> bool {
    line.starts_with(&format!("{counts} ")) && line.contains('░')
}

#[test]
fn bars_fit_80_columns_and_answers_scroll_above() {
    let place = Place::new();
    let terminal = Terminal::open(&place, 80, 24);
    terminal.run("-j 2 '@sleep {}' 10 20 600000 600001");
    let screen = terminal.wait("two answers above the bars", |screen| {
        let foot = foot(screen, 3);
        foot.len() == 3 && is_bar(foot[0], "2/4") && foot[1].contains("60000") && foot[2].contains("60000")
    });
    let foot = foot(&screen, 3);
    assert!(foot[0].contains("left "), "{screen}");
    assert!(foot[1].starts_with("echo 0 working  60000"), "{screen}");
    assert!(foot[2].starts_with("echo 1 working  60000"), "{screen}");
    assert!(foot[1..].iter().all(|line| line.ends_with("1 turn") || line.ends_with(" turns")), "{screen}");
    assert!(foot.iter().all(|line| line.chars().count() < 80), "{screen}");
    for answer in ["==> 10 <==\nslept 10\n", "==> 20 <==\nslept 20\n"] {
        assert!(screen.contains(answer), "{screen}");
    }
    // Each thing stands there once: nothing is torn or left over from an earlier drawing.
    assert_eq!(screen.matches("left ").count(), 1, "{screen}");
    terminal.key("C-c");
    let history = terminal.ended(130);
    assert!(history.contains("stopping on SIGINT"), "{history}");
    assert!(history.contains("not done: 600000") && history.contains("not done: 600001"), "{history}");
    assert!(history.contains("cancelled     2"), "{history}");
    assert!(!history.contains('░'), "the bars are gone at the end:\n{history}");
}

#[test]
fn bars_fit_40_columns() {
    let place = Place::new();
    let terminal = Terminal::open(&place, 40, 24);
    terminal.run("-j 2 '@sleep {}' 10 600000 600001");
    let screen = terminal.wait("bars", |screen| {
        let foot = foot(screen, 3);
        foot.len() == 3 && foot[0].starts_with("1/3 ") && foot[1].contains("working") && foot[2].contains("working")
    });
    let foot = foot(&screen, 3);
    assert!(foot.iter().all(|line| line.chars().count() < 40), "{screen}");
    assert!(foot[0].contains("left "), "{screen}");
    assert!(foot[1].ends_with('t') && foot[2].ends_with('t'), "{screen}");
    terminal.key("C-c");
    terminal.ended(130);
}

#[test]
fn a_resize_leaves_nothing_behind() {
    let place = Place::new();
    let terminal = Terminal::open(&place, 80, 24);
    // On a screen that is full, as it nearly always is. (tmux scrolls a folded line off an empty one, out of reach.)
    terminal.line("seq 40");
    terminal.run("-j 2 '@sleep {}' 10 600000 600001");
    let drawn = |screen: &str| {
        let foot = foot(screen, 3);
        foot.len() == 3 && foot[0].starts_with("1/3 ") && foot[1].contains("working") && foot[2].contains("working")
    };
    terminal.wait("bars", drawn);
    for (columns, longest) in [(40, 30..40), (100, 80..100), (60, 40..60)] {
        terminal.resize(columns, 24);
        let screen = terminal.wait("bars at the new width", |screen| {
            drawn(screen)
                && foot(screen, 3)
                    .iter()
                    .map(|line| line.chars().count())
                    .max()
                    .is_some_and(|max| longest.contains(&max))
                && screen.matches("working").count() == 2
                && screen.matches("left ").count() == 1
        });
        let history = terminal.history();
        assert!(history.contains("slept 10"), "{columns}: answers stay:\n{history}\n{screen}");
        assert_eq!(history.matches("left ").count(), 1, "{columns}: nothing is left over:\n{history}");
    }
    terminal.key("C-c");
    terminal.ended(130);
}

/// The check above sees torn lines: told that this terminal does not fold lines, the command leaves some.
#[test]
fn what_a_resize_leaves_behind_would_be_seen() {
    let place = Place::new();
    let terminal = Terminal::open(&place, 80, 24);
    terminal.line("export XTERM_VERSION=planted");
    terminal.line("seq 40");
    terminal.run("-j 2 '@sleep {}' 10 600000 600001");
    terminal.wait("bars", |screen| screen.matches("working").count() == 2 && screen.contains("1/3 "));
    terminal.resize(40, 24);
    terminal.wait("torn lines", |screen| screen.matches("left ").count() > 1);
    terminal.key("C-c");
    terminal.ended(130);
}

#[test]
fn ctrl_c_twice_ends_it_at_once_and_restores_the_terminal() {
    let place = Place::new();
    // TERM does not end this tool, and it would get a minute for that.
    let toml = readyroom_testkit::fake::echo_toml("echo", &["--deaf"]);
    place.definition("echo", &format!("{toml}\n[limits]\nstop_seconds = 60\n"));
    let terminal = Terminal::open(&place, 80, 24);
    terminal.run("-j 2 '@hang {}' 1 2 3");
    terminal.wait("a job that runs", |screen| screen.contains("working"));
    terminal.key("C-c");
    terminal.wait("that it stops", |screen| screen.contains("stopping on SIGINT"));
    let before = Instant::now();
    terminal.key("C-c");
    let history = terminal.ended(130);
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    assert!(history.contains("not done: 3"), "{history}");
    drop(terminal);
    place.nothing_left();
}

#[test]
fn the_end_is_a_table() {
    let place = Place::new();
    let terminal = Terminal::open(&place, 80, 24);
    terminal.run("-j 1 '{}' one '@exit 3' three");
    let history = terminal.ended(1);
    for text in [
        "==> one <==\none\n",
        "failed 2/3 @exit 3: crashed:",
        "==> three <==\nthree\n",
        "3 jobs in ",
        "succeeded     2",
        "crashed       1",
        "in the model ",
        "instance  turns  restarts\necho 0        3         1",
    ] {
        assert!(history.contains(text), "{text:?}:\n{history}");
    }
}

#[test]
fn dumb_terminals_get_plain_lines_and_no_color_is_respected() {
    let place = Place::new();
    let terminal = Terminal::open(&place, 80, 24);
    terminal.line("export TERM=dumb");
    terminal.run("'{}' one two");
    let history = terminal.ended(0);
    assert!(history.contains("ok 1/2 "), "{history}");
    // With colours the escape sequences stand in the captured cells' attributes.
    let coloured = |variables: &str| {
        terminal.line(&format!("clear; {variables}"));
        terminal.run("'{}' one '@exit 1'");
        terminal.ended(1);
        terminal.tmux(&["capture-pane", "-p", "-e"]).contains("31mfailed")
    };
    assert!(!coloured("export TERM=dumb"));
    assert!(!coloured("export TERM=xterm-256color NO_COLOR=1"));
    assert!(coloured("unset NO_COLOR"));
}
