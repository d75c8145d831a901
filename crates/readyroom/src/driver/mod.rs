//! Drivers hold a conversation with a tool in its own protocol.
//!
//! A driver is a pure state machine: bytes and requests go in, [`Effect`]s come out. It spawns nothing, waits for
//! nothing and knows no clock, so each one is tested without a process. [`runtime`] is the thin layer that runs a
//! driver over a real process; it alone does I/O and holds the deadlines. The page is `docs/design/drivers.md`.
//!
//! Two rules hold for every driver. A turn ends by its protocol's explicit end and by nothing else. And an end marker
//! alone is not success: each driver also checks that the prompt did run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::check::Schema;
use crate::error::{Exit, Failure, FailureKind};
use crate::job::{Answer, Mode, Permissions};
use crate::tool::{Contract, Secrets};

pub mod acp;
pub mod claude;
pub mod codex;
pub mod jsonrpc;
pub mod line;
pub mod oneshot;
pub mod policy;
pub mod repl;
pub mod runtime;

/// One of the conversations in a process, as the pool numbers them. Tools that hold only one have only slot 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Slot(pub u32);

/// What the runtime asks of a driver. At most one of `Open`, `Reset`, `Context` and `Begin` is outstanding for a slot
/// at any time, and `Begin` only in a slot whose conversation is open.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Make a conversation for the slot. Answered by [`Effect::Fresh`] or [`Effect::NotFresh`].
    Open {
        /// The slot.
        slot: Slot,
        /// Where the conversation works. Tools with one fixed directory were launched in it.
        cwd: PathBuf,
    },
    /// Replace the slot's conversation by a new one. Answered by [`Effect::Fresh`] with the proof or
    /// [`Effect::NotFresh`]; the slot is then unusable until its process is recycled.
    Reset {
        /// The slot.
        slot: Slot,
    },
    /// Carry out context commands outside a prompt. Answered by [`Effect::ContextDone`]. Only sent to drivers whose
    /// definition lists context commands of its own.
    Context {
        /// The slot.
        slot: Slot,
        /// The commands, in order.
        commands: Vec<ContextCommand>,
    },
    /// Run a prompt. Answered by [`Effect::Ended`].
    Begin {
        /// The slot.
        slot: Slot,
        /// The prompt and what goes with it.
        turn: Turn,
    },
    /// Cancel the prompt that runs, by the tool's own means. Its [`Effect::Ended`] still comes. Nothing happens where
    /// none runs.
    Cancel {
        /// The slot.
        slot: Slot,
    },
    /// The slot's conversation is no longer needed; free it where the tool can.
    Close {
        /// The slot.
        slot: Slot,
    },
    /// Ask whether the tool still answers; [`Effect::Pong`] where the protocol has a means, else nothing.
    Ping,
    /// End the process in its own orderly way, as far as the protocol goes (the runtime's ladder follows).
    Stop,
}

/// A context command: it changes what the tool looks at, and asks nothing of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextCommand {
    /// A file to work on.
    Add(PathBuf),
    /// A file to take out again.
    Drop(PathBuf),
    /// A file to read and never to change.
    ReadOnly(PathBuf),
}

/// The tool's answer to a context command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextReply {
    /// The command.
    pub command: ContextCommand,
    /// The tool's literal answer, or why the command could not be carried out.
    pub result: Result<String, Failure>,
}

/// A prompt with what goes with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// The text, exactly as the model must get it.
    pub prompt: String,
    /// What it asks for.
    pub mode: Mode,
    /// Absolute paths of files to work on, to be named to the tool in its own way with this prompt. Empty for drivers
    /// with context commands of their own: there they went ahead as [`Request::Context`].
    pub files: Vec<PathBuf>,
    /// What is granted when the tool asks. Never more than the contract's level.
    pub permissions: Permissions,
    /// What the answer's JSON value has to fit, for tools that can hold a model to it.
    pub schema: Option<Schema>,
}

/// How a slot's conversation is known to be new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The process was started for it.
    NewProcess,
    /// The tool named a session that it had never named before.
    NewSession(String),
    /// The tool answered the reset command with its literal acknowledgement.
    Acknowledged(String),
}

/// Something that happened in a turn before its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Some text of the answer. After a retry of the tool's own it may repeat; the answer at the end is the truth.
    Text(String),
    /// The tool began something: an edit, a command. The name is the tool's.
    ToolStarted(String),
    /// What had begun has ended.
    ToolEnded(String),
    /// The tool says that it tries its model again.
    Retrying {
        /// The attempt's number, as the tool counts.
        attempt: u32,
        /// The tool's own words.
        why: String,
    },
    /// The tool asked for a permission, and got it.
    Granted(String),
    /// The tool asked for a permission, and did not get it.
    Denied(String),
}

impl Activity {
    /// Takes secrets out of everything but the answer's own text.
    pub(crate) fn hide(&mut self, secrets: &Secrets) {
        match self {
            Self::Text(_) => {}
            Self::ToolStarted(what) | Self::ToolEnded(what) | Self::Granted(what) | Self::Denied(what) => {
                secrets.hide(what)
            }
            Self::Retrying { why, .. } => secrets.hide(why),
        }
    }
}

/// How a turn ended, as far as the driver can tell.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnEnd {
    /// What came of it.
    pub status: TurnStatus,
    /// What the tool said, also in a turn that did not succeed.
    pub answer: Answer,
}

/// What came of a turn.
#[derive(Debug, Clone, PartialEq)]
pub enum TurnStatus {
    /// The end marker came and the check that the prompt ran holds.
    Succeeded,
    /// It failed.
    Failed(Failure),
    /// It was cancelled at our request, whatever the tool calls it.
    Cancelled,
}

/// What a driver wants done, or has found out.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write these bytes to the tool, whole and in order.
    Write(Vec<u8>),
    /// Close the tool's stdin once everything is written.
    CloseStdin,
    /// Send SIGINT to the tool's own process.
    Interrupt,
    /// The tool is ready for conversations.
    Ready {
        /// The tool's version, where its protocol tells.
        version: Option<String>,
    },
    /// The slot has a conversation that is known to be new.
    Fresh {
        /// The slot.
        slot: Slot,
        /// How that is known.
        proof: Proof,
    },
    /// The slot has no conversation that is known to be new.
    NotFresh {
        /// The slot.
        slot: Slot,
        /// Why.
        failure: Failure,
    },
    /// The context commands have been carried out.
    ContextDone {
        /// The slot.
        slot: Slot,
        /// One for each command, in order.
        replies: Vec<ContextReply>,
    },
    /// The tool has taken the prompt. Drivers whose protocol does not tell never say it.
    Accepted {
        /// The slot.
        slot: Slot,
    },
    /// Something happened in the turn that runs.
    Activity {
        /// The slot.
        slot: Slot,
        /// What.
        activity: Activity,
    },
    /// The turn has ended. Exactly one for each `Begin`, unless the process ends first.
    Ended {
        /// The slot.
        slot: Slot,
        /// How.
        end: Box<TurnEnd>,
    },
    /// The tool answered a ping.
    Pong,
    /// A message that is unknown, malformed or late. It is kept in the record and changes nothing.
    Anomaly {
        /// What is odd about it.
        what: &'static str,
        /// The message, cut to a few KB.
        raw: String,
    },
    /// The conversation with this process cannot go on: the runtime ends it.
    Broken(Failure),
}

/// A conversation with one process, as a pure state machine. Effects are appended to `out` in order.
pub trait Driver: Send {
    /// The process was launched. Writes whatever makes it say that it is ready.
    fn launched(&mut self, out: &mut Vec<Effect>);

    /// Bytes from the tool's stdout (and stderr, where the definition merges them), split anywhere.
    fn stdout(&mut self, bytes: &[u8], out: &mut Vec<Effect>);

    /// Bytes from the tool's stderr. The runtime keeps a tail of it as evidence; most drivers need no more.
    fn stderr(&mut self, bytes: &[u8], out: &mut Vec<Effect>) {
        let _ = (bytes, out);
    }

    /// The tool's output has ended and the process has exited. Turns that are still open afterwards are failed as
    /// crashed by the runtime, so most drivers do nothing here.
    fn exited(&mut self, exit: Exit, out: &mut Vec<Effect>) {
        let _ = (exit, out);
    }

    /// A request of the runtime.
    fn request(&mut self, request: Request, out: &mut Vec<Effect>);

    /// Whether the protocol has a means to answer [`Request::Ping`].
    fn answers_pings(&self) -> bool {
        false
    }

    /// Why this prompt can't be given to the tool as it is, before anything is sent; `None` where it can.
    fn refuses(&self, turn: &Turn) -> Option<Failure> {
        let _ = turn;
        None
    }
}

/// The answer of a driver whose protocol has no context commands: files go with the prompt.
fn no_context_commands(slot: Slot, commands: Vec<ContextCommand>) -> Effect {
    let reply = |command| {
        let failure = Failure::new(FailureKind::BadInput, "this tool has no context commands");
        ContextReply { command, result: Err(failure) }
    };
    Effect::ContextDone { slot, replies: commands.into_iter().map(reply).collect() }
}

/// Makes the driver that a contract's definition names.
pub fn create(contract: &Contract) -> Box<dyn Driver> {
    use crate::tool::DriverKind;
    match contract.definition.driver {
        DriverKind::Repl => Box::new(repl::Repl::new(contract)),
        DriverKind::Claude => Box::new(claude::Claude::new(contract)),
        DriverKind::Codex => Box::new(codex::Codex::new(contract)),
        DriverKind::Acp => Box::new(acp::Acp::new(contract)),
        DriverKind::Oneshot => Box::new(oneshot::Oneshot::new(contract)),
    }
}
