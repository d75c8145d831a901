//! The `codex` driver: Codex's app-server protocol.
//!
//! One process holds many threads (conversations), truly side by side; each slot owns one. A new conversation is a new
//! thread, and the proof is an id that this process has never named before. Codex steers a second prompt into a turn
//! that runs, so a thread never has more than one, also where Codex began one by itself. The end of a turn is
//! `turn/completed`; what a turn leaves running (commands, threads that it spawned) is ended before the slot's next
//! conversation, and before the end is told where the turn did not succeed. The page is `docs/design/drivers-codex.md`.

mod approval;
mod conversation;
mod events;
mod failure;
mod turn;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use self::conversation::{Conversation, Owner, State};
use super::jsonrpc::{self, Message, Pending, RpcError};
use super::line::Lines;
use super::{Driver, Effect, Request, Slot, Turn, TurnEnd, TurnStatus, no_context_commands};
use crate::error::{Failure, FailureKind};
use crate::job::{Answer, Permissions};
use crate::tool::{Contract, Definition};

/// The most bytes of a message that an anomaly keeps.
const RAW_BYTES: usize = 2048;

/// The driver's state.
pub struct Codex {
    definition: Arc<Definition>,
    permissions: Permissions,
    model: Option<String>,
    lines: Lines,
    rpc: Pending<Asked>,
    slots: BTreeMap<Slot, Conversation>,
    /// Every thread that the process has named.
    threads: HashMap<String, Owner>,
}

/// What a request of ours was for.
#[derive(Debug)]
enum Asked {
    Initialize,
    Config(Slot),
    ThreadStart {
        slot: Slot,
        configured: bool,
    },
    TurnStart(Slot),
    Interrupt(Slot),
    /// One of the requests that end what a conversation left running.
    Leftover(Slot),
    /// An answer changes nothing.
    Nothing,
    Ping,
}

impl Codex {
    /// A driver for a process launched by `contract`.
    pub fn new(contract: &Contract) -> Self {
        let limit = usize::try_from(contract.definition.limits.output_bytes).unwrap_or(usize::MAX);
        Self {
            definition: contract.definition.clone(),
            permissions: contract.permissions,
            model: contract.model.clone(),
            lines: Lines::new(limit),
            rpc: Pending::without_version(),
            slots: BTreeMap::new(),
            threads: HashMap::new(),
        }
    }

    fn ask(&mut self, method: &str, params: Value, what: Asked, out: &mut Vec<Effect>) {
        let (_, bytes) = self.rpc.request(method, params, what);
        out.push(Effect::Write(bytes));
    }

    fn response(&mut self, asked: Asked, result: Result<Value, RpcError>, out: &mut Vec<Effect>) {
        match asked {
            Asked::Initialize => match result {
                Ok(answer) => {
                    out.push(Effect::Write(self.rpc.notification("initialized", json!({}))));
                    out.push(Effect::Ready { version: wire::version(&answer) });
                }
                Err(error) => {
                    let failure = failure::of_refusal(&self.definition, &error);
                    out.push(Effect::Broken(Failure { kind: FailureKind::NotReady, ..failure }));
                }
            },
            Asked::Config(slot) => {
                let config = match result {
                    Ok(answer) => wire::retries(&answer, &self.retry_settings()),
                    Err(error) => {
                        out.push(anomaly("Codex did not tell its configuration", error.text().as_bytes()));
                        Map::new()
                    }
                };
                if let Some(conversation) = self.slots.get_mut(&slot) {
                    conversation.config = Some(config);
                }
                self.start_thread(slot, out);
            }
            Asked::ThreadStart { slot, configured } => match result {
                Ok(answer) => self.thread_started(slot, &answer, out),
                // Retries are worth setting, but no reason to have no thread.
                Err(error) if configured && error.message.contains("model_providers") => {
                    out.push(anomaly("the tool's own retries can't be set", error.text().as_bytes()));
                    if let Some(conversation) = self.slots.get_mut(&slot) {
                        conversation.config = Some(Map::new());
                    }
                    self.start_thread(slot, out);
                }
                Err(error) => {
                    self.set(slot, State::Missing);
                    not_fresh(slot, failure::of_refusal(&self.definition, &error), out);
                }
            },
            Asked::TurnStart(slot) => self.turn_answered(slot, result, out),
            Asked::Interrupt(slot) => {
                if let Err(error) = result {
                    self.interrupt_refused(slot, &error, out);
                }
            }
            Asked::Leftover(slot) => self.left(slot, out),
            Asked::Nothing => {}
            Asked::Ping => out.push(Effect::Pong),
        }
    }

    fn question(&mut self, id: &Value, method: &str, params: &Value, raw: &[u8], out: &mut Vec<Effect>) {
        let slot = match self.threads.get(params["threadId"].as_str().unwrap_or_default()) {
            Some(Owner::Slot(slot) | Owner::Spawned(slot)) => Some(*slot),
            _ => None,
        };
        let turn = slot.and_then(|slot| self.slots.get_mut(&slot)).and_then(|conversation| {
            let Conversation { cwd, state: State::Running(_, running), .. } = conversation else { return None };
            Some((&mut **running, cwd.as_path()))
        });
        match approval::answer(method, params, turn) {
            Some(reply) => {
                out.push(Effect::Write(self.rpc.answer(id, reply.result)));
                match (slot, reply.activity) {
                    (Some(slot), Some(activity)) => out.push(Effect::Activity { slot, activity }),
                    _ => out.push(anomaly("a question outside any turn was answered with no", raw)),
                }
            }
            None => {
                out.push(Effect::Write(self.rpc.unknown(id, method)));
                out.push(anomaly("an unknown request", raw));
            }
        }
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<Effect>) {
        match jsonrpc::decode(line) {
            Message::Request { id, method, params } => self.question(&id, &method, &params, line, out),
            Message::Notification { method, params } => self.notification(&method, &params, line, out),
            Message::Response { id, result } => match self.rpc.answered(&id) {
                Some(asked) => self.response(asked, result, out),
                None => out.push(anomaly("an answer to no request", line)),
            },
            Message::Malformed { why } => out.push(anomaly(why, line)),
        }
    }

    fn retry_settings(&self) -> Vec<(&'static str, u64)> {
        ["request_max_retries", "stream_max_retries"]
            .into_iter()
            .filter_map(|name| Some((name, self.definition.settings.get(name)?.parse().ok()?)))
            .collect()
    }
}

impl Driver for Codex {
    fn launched(&mut self, out: &mut Vec<Effect>) {
        self.ask("initialize", wire::initialize(), Asked::Initialize, out);
    }

    fn stdout(&mut self, bytes: &[u8], out: &mut Vec<Effect>) {
        self.lines.push(bytes);
        loop {
            match self.lines.next_line() {
                Ok(Some(line)) if line.is_empty() => {}
                Ok(Some(line)) => self.line(&line, out),
                Ok(None) => return,
                Err(error) => {
                    return out.push(Effect::Broken(Failure::new(FailureKind::OutputLimit, error.to_string())));
                }
            }
        }
    }

    fn answers_pings(&self) -> bool {
        true
    }

    fn request(&mut self, request: Request, out: &mut Vec<Effect>) {
        match request {
            Request::Open { slot, cwd } => {
                match self.slots.get_mut(&slot) {
                    Some(conversation) if conversation.cwd == cwd => {}
                    Some(conversation) => {
                        conversation.cwd = cwd;
                        conversation.config = None;
                    }
                    None => {
                        self.slots.insert(slot, Conversation { cwd, config: None, state: State::Missing });
                    }
                }
                self.renew(slot, out);
            }
            Request::Reset { slot } => self.renew(slot, out),
            Request::Begin { slot, turn } => self.begin(slot, turn, out),
            Request::Context { slot, commands } => out.push(no_context_commands(slot, commands)),
            Request::Cancel { slot } => self.cancel(slot, out),
            Request::Close { slot } => self.close(slot, out),
            Request::Ping => self.ask("thread/loaded/list", json!({"limit": 1}), Asked::Ping, out),
            Request::Stop => out.push(Effect::CloseStdin),
        }
    }

    fn refuses(&self, turn: &Turn) -> Option<Failure> {
        let bad = |message: String| Some(Failure::new(FailureKind::BadInput, message));
        if turn.prompt.is_empty() {
            return bad("the prompt is empty: say what Codex should do".into());
        }
        if let Some(file) = turn.files.iter().find(|file| file.to_str().is_none()) {
            return bad(format!("{} has a name that is not UTF-8, which Codex can't be given", file.display()));
        }
        let chars = wire::input_chars(turn);
        if chars > wire::INPUT_CHARS {
            return bad(format!("the prompt has {chars} characters, Codex takes {} at most", wire::INPUT_CHARS));
        }
        None
    }
}

fn protocol(message: &str) -> Failure {
    Failure::new(FailureKind::Protocol, message)
}

fn not_fresh(slot: Slot, failure: Failure, out: &mut Vec<Effect>) {
    out.push(Effect::NotFresh { slot, failure });
}

fn ended(slot: Slot, status: TurnStatus, answer: Answer, out: &mut Vec<Effect>) {
    out.push(Effect::Ended { slot, end: Box::new(TurnEnd { status, answer }) });
}

fn anomaly(what: &'static str, raw: &[u8]) -> Effect {
    let raw = &raw[..raw.len().min(RAW_BYTES)];
    Effect::Anomaly { what, raw: String::from_utf8_lossy(raw).into_owned() }
}
