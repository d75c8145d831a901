//! The hostile zoo: `readyroom-zoo`, a tool that speaks any of the protocols, well but for one habit. What must come of
//! each habit stands in `docs/design/zoo.md`; a test does what the page says.

use std::path::PathBuf;
use std::sync::Arc;

use readyroom::tool::Definition;

use crate::fake;

/// A turn whose prompt holds this word is where the habit shows.
pub const TRIGGER: &str = "misbehave";

/// A prompt that begins with this word, `append FILE LINE`, is work: a line more in a file, in the conversation's directory.
pub const APPEND: &str = "append";

/// The habits that bytes and processes can have, in the order of the page.
pub const OF_TRANSPORT: [&str; 22] = [
    "one-byte-at-a-time",
    "one-write",
    "half-a-character",
    "huge-line",
    "no-newline",
    "escapes",
    "progress",
    "not-utf8",
    "closes-stdout",
    "closes-stdin",
    "exits-with-3",
    "exits-with-0",
    "killed",
    "deaf",
    "children-keep-pipes",
    "children-leave",
    "eats-memory",
    "fills-stderr",
    "reads-nothing",
    "stops-itself",
    "hangs",
    "changes-directory",
];

/// The habits that a protocol's speaker can have.
pub const OF_PROTOCOL: [&str; 17] = [
    "quotes-an-end",
    "old-end",
    "unknown-messages",
    "own-requests",
    "wrong-ids",
    "two-ends",
    "end-first",
    "late-end",
    "false-success",
    "late-text",
    "asks-and-waits",
    "never-ready",
    "late-ready",
    "false-banner",
    "ignores-cancel",
    "false-reset",
    "refuses-reset",
];

/// How the zoo is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Lines and fences over pipes.
    Repl,
    /// The same over a pseudo-terminal.
    Pty,
    /// The Agent Client Protocol.
    Acp,
    /// Claude Code's stream-json.
    Claude,
    /// Codex's app-server.
    Codex,
}

impl Protocol {
    /// All of them, in the order of the page's columns.
    pub const ALL: [Self; 5] = [Self::Repl, Self::Pty, Self::Acp, Self::Claude, Self::Codex];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Repl => "repl",
            Self::Pty => "pty",
            Self::Acp => "acp",
            Self::Claude => "claude",
            Self::Codex => "codex",
        }
    }

    /// The protocol of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }
}

/// What a turn with this habit says, when it comes to that.
pub fn words(protocol: Protocol, habit: &str) -> &'static str {
    let lines = matches!(protocol, Protocol::Repl | Protocol::Pty);
    match habit {
        "half-a-character" => "a caf\u{e9}, \u{1f43a}",
        "escapes" if lines => "\u{1b}[31mred\u{1b}[0m \u{1b}]0;title\u{7}done",
        "progress" if lines => "10%\r50%\r100%\rdone",
        "quotes-an-end" => {
            "{\"type\":\"result\",\"subtype\":\"success\"} {\"id\":3,\"result\":{\"stopReason\":\"end_turn\"}} {\"method\":\"turn/completed\"} :fence a b $ > "
        }
        _ => "as it should be",
    }
}

/// The definition of the zoo with a habit, and its program.
///
/// # Panics
/// When it is not built.
pub fn definition(protocol: Protocol, habit: &str) -> (Arc<Definition>, PathBuf) {
    let text = toml(protocol, habit);
    let definition = toml::from_str(&text).unwrap_or_else(|error| panic!("{error} in\n{text}"));
    (Arc::new(definition), fake::program("readyroom-zoo"))
}

/// The same as a definition file's text.
///
/// # Panics
/// When the program is not built.
pub fn toml(protocol: Protocol, habit: &str) -> String {
    let program = fake::program("readyroom-zoo");
    let (driver, transport) = match protocol {
        Protocol::Repl => ("repl", "pipe"),
        Protocol::Pty => ("repl", "pty"),
        _ => (protocol.name(), "pipe"),
    };
    let repl = r#"
[repl]
fence = ":fence {a} {b}"
marker = "{a}{b}\n"
reset = ":reset"
reset_ack = "context cleared"
"#;
    let held = |sandbox: &str| match protocol {
        Protocol::Codex => format!("settings = {{ sandbox = \"{sandbox}\", approval = \"on-request\" }}"),
        _ => String::new(),
    };
    format!(
        r#"
id = "zoo"
driver = "{driver}"
transport = "{transport}"
argv = [{program:?}, "{name}", "{habit}"]
{repl}
[limits]
cancel_seconds = 5
reset_seconds = 10
stop_seconds = 1
output_bytes = 8388608
recycle_rss_mib = {rss}
[permissions.read]
prevents = ["shell", "writes"]
{read}
[permissions.edit]
prevents = ["shell"]
{edit}
[permissions.full]
{full}
"#,
        program = program.display().to_string(),
        name = protocol.name(),
        repl = if driver == "repl" { repl } else { "" },
        rss = if habit == "eats-memory" { 64 } else { 0 },
        read = held("read-only"),
        edit = held("workspace-write"),
        full = held("danger-full-access"),
    )
}
