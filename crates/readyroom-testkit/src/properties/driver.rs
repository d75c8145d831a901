//! The drivers: a script of what a tool says, and of what the runtime asks for in between.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use readyroom::driver::{ContextCommand, Driver, Effect, Request, Slot, Turn, TurnStatus, create};
use readyroom::tool::{Contract, ContractOptions, Definition, Registry};
use readyroom::{Exit, Mode, Permissions};

/// Who talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talker {
    /// A REPL, as the first byte says: aider, or one that takes lines.
    Repl,
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// An ACP agent.
    Acp,
    /// A command that runs once.
    Oneshot,
}

const LINES: &str = r#"
id = "lines"
driver = "repl"
argv = ["/bin/true"]
[repl]
fence = ":fence {a} {b}"
marker = "{a}{b}\n"
reset = ":reset"
reset_ack = "context cleared"
interrupt = true
[permissions.read]
[permissions.edit]
[permissions.full]
"#;

const ONCE: &str = r#"
id = "once"
driver = "oneshot"
argv = ["/bin/true"]
[oneshot]
[permissions.read]
[permissions.edit]
[permissions.full]
"#;

impl Talker {
    fn contract(self, choice: u8) -> &'static Contract {
        static ALL: LazyLock<[Contract; 6]> =
            LazyLock::new(|| ["aider", "claude", "codex", "gemini", LINES, ONCE].map(contract));
        let at = match self {
            Self::Repl if choice.is_multiple_of(2) => 0,
            Self::Claude => 1,
            Self::Codex => 2,
            Self::Acp => 3,
            Self::Repl => 4,
            Self::Oneshot => 5,
        };
        &ALL[at]
    }

    /// Whether all that comes of a stream is the same however it is cut. A REPL's text is told as it comes.
    fn says_messages(self) -> bool {
        !matches!(self, Self::Repl | Self::Oneshot)
    }
}

fn contract(tool: &str) -> Contract {
    let definition: Arc<Definition> = if tool.contains('\n') {
        Arc::new(toml::from_str(tool).expect("a definition of ours"))
    } else {
        let registry = Registry::builtin().expect("the built-in definitions load");
        Arc::clone(&registry.require(tool).expect("a built-in tool").definition)
    };
    let options = ContractOptions { cwd: "/".into(), permissions: LEVEL, ..ContractOptions::default() };
    let mut contract = Contract::resolve(definition, Path::new("/bin/true"), &options).expect("it holds any level");
    // What was captured from the real tools names this directory.
    contract.cwd = "/srv/work".into();
    contract
}

/// What the tools may do, here.
const LEVEL: Permissions = Permissions::Edit;

/// Plays a script to a driver. Its first byte chooses; the rest are lines. One that begins with `!` is what the runtime
/// asks for, where it may: `!open`, `!begin TEXT`, `!context FILE`, `!cancel`, `!reset`, `!close`, `!ping`, `!stop`,
/// `!exit`. Any other is what the tool says; in it `{marker}` stands for the marker that the oldest open fence asks for.
///
/// Whatever is said: nothing panics; each prompt has one end and there is no end without a prompt; each conversation
/// that is asked for is told once, as fresh or not; and where the protocol has messages, all effects are the same
/// however the stream was cut. How many turns have succeeded is told, so that a test can see that some do.
pub fn conversation(talker: Talker, data: &[u8]) -> usize {
    let Some((choice, script)) = data.split_first() else { return 0 };
    let whole = play(talker, *choice, script, usize::MAX);
    if talker.says_messages() {
        let cut = play(talker, *choice, script, 1 + usize::from(choice / 2) % 16);
        assert_eq!(whole, cut, "the effects differ by how the stream was cut");
    }
    let succeeded =
        |effect: &&Effect| matches!(effect, Effect::Ended { end, .. } if end.status == TurnStatus::Succeeded);
    whole.iter().filter(succeeded).count()
}

/// What the driver is about, as the runtime knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Starting,
    /// Ready, with no conversation.
    Empty,
    Opening,
    Open,
    Resetting,
    InContext,
    Running,
    /// No more is asked of it.
    Over,
}

struct Stage {
    driver: Box<dyn Driver>,
    contract: &'static Contract,
    place: Place,
    /// Markers that were asked for and have not been printed, oldest first.
    markers: Vec<String>,
    all: Vec<Effect>,
}

const SLOT: Slot = Slot(0);

fn play(talker: Talker, choice: u8, script: &[u8], cut: usize) -> Vec<Effect> {
    let contract = talker.contract(choice);
    let mut stage =
        Stage { driver: create(contract), contract, place: Place::Starting, markers: Vec::new(), all: Vec::new() };
    stage.does(|driver, out| driver.launched(out));
    for line in script.split_inclusive(|byte| *byte == b'\n') {
        if stage.place == Place::Over {
            break;
        }
        match line.strip_prefix(b"!") {
            Some(order) => stage.order(String::from_utf8_lossy(order).trim_end_matches('\n')),
            None => stage.say(line, cut),
        }
    }
    if stage.place != Place::Over {
        stage.does(|driver, out| driver.exited(Exit::Status(0), out));
    }
    stage.all
}

impl Stage {
    fn order(&mut self, order: &str) {
        let (word, rest) = order.split_once(' ').unwrap_or((order, ""));
        let request = match (word, self.place) {
            ("open", Place::Empty) => Request::Open { slot: SLOT, cwd: self.contract.cwd.clone() },
            ("reset", Place::Open) => Request::Reset { slot: SLOT },
            ("close", Place::Open) => Request::Close { slot: SLOT },
            ("context", Place::Open) if self.contract.definition.repl.is_some() => {
                Request::Context { slot: SLOT, commands: vec![ContextCommand::Drop(rest.into())] }
            }
            ("begin", Place::Open) => {
                let turn = Turn {
                    prompt: rest.to_owned(),
                    mode: Mode::Default,
                    files: Vec::new(),
                    permissions: LEVEL,
                    schema: None,
                };
                if self.driver.refuses(&turn).is_some() {
                    return;
                }
                Request::Begin { slot: SLOT, turn }
            }
            ("cancel", place) if place != Place::Starting => Request::Cancel { slot: SLOT },
            ("ping", place) if place != Place::Starting && self.driver.answers_pings() => Request::Ping,
            ("stop", _) => Request::Stop,
            ("exit", _) => {
                self.does(|driver, out| driver.exited(Exit::Status(1), out));
                self.place = Place::Over;
                return;
            }
            _ => return,
        };
        self.place = match &request {
            Request::Open { .. } => Place::Opening,
            Request::Reset { .. } => Place::Resetting,
            Request::Close { .. } => Place::Empty,
            Request::Context { .. } => Place::InContext,
            Request::Begin { .. } => Place::Running,
            _ => self.place,
        };
        self.does(|driver, out| driver.request(request, out));
    }

    fn say(&mut self, line: &[u8], cut: usize) {
        const NAME: &[u8] = b"{marker}";
        let mut said = Vec::new();
        let mut rest = line;
        while let Some(at) = rest.windows(NAME.len()).position(|part| part == NAME)
            && !self.markers.is_empty()
        {
            said.extend_from_slice(&rest[..at]);
            said.extend_from_slice(self.markers.remove(0).as_bytes());
            rest = &rest[at + NAME.len()..];
        }
        said.extend_from_slice(rest);
        for piece in said.chunks(cut) {
            self.does(|driver, out| driver.stdout(piece, out));
            if self.place == Place::Over {
                break;
            }
        }
    }

    /// Lets the driver do something, and checks each effect against what may come now.
    fn does(&mut self, what: impl FnOnce(&mut dyn Driver, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        what(&mut *self.driver, &mut effects);
        for effect in effects {
            if self.place != Place::Over {
                self.check(&effect);
            }
            self.all.push(effect);
        }
    }

    fn check(&mut self, effect: &Effect) {
        let place = self.place;
        self.place = match effect {
            Effect::Ready { .. } => {
                assert_eq!(place, Place::Starting, "ready once");
                Place::Empty
            }
            Effect::Fresh { .. } => {
                assert!(matches!(place, Place::Opening | Place::Resetting), "{place:?}: fresh, and nobody asked");
                Place::Open
            }
            Effect::NotFresh { .. } => {
                assert!(matches!(place, Place::Opening | Place::Resetting), "{place:?}: not fresh, and nobody asked");
                Place::Over
            }
            Effect::ContextDone { replies, .. } => {
                assert_eq!((place, replies.len()), (Place::InContext, 1));
                Place::Open
            }
            Effect::Ended { end, .. } => {
                assert_eq!(place, Place::Running, "an end without a prompt: {end:?}");
                if let TurnStatus::Failed(failure) = &end.status {
                    assert!(!failure.message.is_empty());
                }
                Place::Open
            }
            Effect::Accepted { .. } => {
                assert_eq!(place, Place::Running);
                place
            }
            Effect::Anomaly { raw, .. } => {
                assert!(raw.len() <= 16 << 10, "an anomaly of {} bytes", raw.len());
                place
            }
            Effect::Broken(failure) => {
                assert!(!failure.message.is_empty());
                Place::Over
            }
            Effect::Write(bytes) => {
                self.fences(bytes);
                place
            }
            Effect::Activity { .. } | Effect::CloseStdin | Effect::Interrupt | Effect::Pong => place,
        };
    }

    /// Notes the markers that the fences in `bytes` ask for.
    fn fences(&mut self, bytes: &[u8]) {
        let Some(repl) = &self.contract.definition.repl else { return };
        let Some((before, rest)) = repl.fence.split_once("{a}") else { return };
        let Some((between, _)) = rest.split_once("{b}") else { return };
        let text = String::from_utf8_lossy(bytes);
        for at in text.match_indices(before).map(|(at, _)| at + before.len()) {
            let halves = text.get(at..at + 8).and_then(|first| {
                let behind = text[at + 8..].strip_prefix(between)?;
                Some((first, behind.get(..8)?))
            });
            let hex = |half: &str| half.bytes().all(|byte| byte.is_ascii_hexdigit());
            if let Some((first, second)) = halves.filter(|(first, second)| hex(first) && hex(second)) {
                let marker = repl.marker.replace("{a}", first).replace("{b}", second);
                self.markers.push(marker.replace("{status}", "0"));
            }
        }
    }
}
