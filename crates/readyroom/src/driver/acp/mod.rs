//! The `acp` driver: Gemini CLI, opencode, and any agent that speaks the Agent Client Protocol, version 1.
//!
//! One process holds many sessions, one for each slot. A turn is one `session/prompt`; it ends by the answer with that
//! request's id and by nothing else. A fresh context is a new session with an id that was never heard before. The
//! driver remembers what it cancelled, since agents answer a cancelled prompt with any stop reason, and an agent's
//! success counts only where the agent shows that it did ask its model. What the agents do is in
//! `docs/design/drivers-acp.md`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use regex::Regex;
use serde_json::{Value, json};

use self::prompt::Framing;
use self::turn::{Rules, Running, Told};
use super::jsonrpc::{self, Message, Pending, RpcError};
use super::line::Lines;
use super::{Driver, Effect, Proof, Request, Slot, Turn, TurnEnd, TurnStatus, no_context_commands, policy};
use crate::error::{Failure, FailureKind};
use crate::job::{Answer, Permissions};
use crate::tool::{Contract, Definition};

mod ask;
mod prompt;
#[cfg(test)]
mod tests;
mod turn;

/// The protocol's version that this driver speaks.
const VERSION: u64 = 1;

/// The most bytes of an odd message that are kept.
const KEPT: usize = 4096;

/// What an unanswered request of ours was for.
#[derive(Debug)]
enum Call {
    Initialize,
    /// A new session for a slot, and which of the slot's requests for one it is.
    New(Slot, u64),
    /// A setting of a session that is not handed out yet.
    Set(Slot, String),
    /// The prompt that runs in a session.
    Prompt(Slot, String),
    Close,
    Ping,
}

/// A slot with its conversation.
#[derive(Debug)]
struct Place {
    cwd: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    /// `session/new` is out. The session before, where there was one, is closed when the new one is there.
    Opening { serial: u64, old: Option<String> },
    /// The session is there; settings are made before it is handed out.
    Setting { session: String, old: Option<String>, left: Vec<(&'static str, Value)> },
    /// Ready for prompts.
    Open(Session),
    /// There is no usable session.
    Lost,
}

#[derive(Debug)]
struct Session {
    id: String,
    turn: Option<Box<Running>>,
    /// Ids of the last turn's messages and tool calls: what comes with one of them is late.
    past: HashSet<String>,
}

#[derive(Debug, PartialEq)]
enum Life {
    Starting,
    Ready,
    Broken,
}

/// The driver's state.
#[derive(Debug)]
pub struct Acp {
    definition: Arc<Definition>,
    framing: Framing,
    rules: Rules,
    permissions: Permissions,
    mode: Option<String>,
    model: Option<String>,
    life: Life,
    lines: Lines,
    rpc: Pending<Call>,
    places: BTreeMap<Slot, Place>,
    /// The slot of every session that is in use.
    sessions: HashMap<String, Slot>,
    /// Every session id that the agent ever named.
    seen: HashSet<String>,
    /// Texts that an agent puts into the answer when a mode is set, by session.
    echoes: HashMap<String, String>,
    /// Whether the agent can close a session.
    closes: bool,
    /// Counts requests for a session.
    opened: u64,
}

impl Acp {
    /// A driver for a process launched by `contract`.
    pub fn new(contract: &Contract) -> Self {
        let limits = &contract.definition.limits;
        let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            definition: contract.definition.clone(),
            framing: Framing::new(contract),
            rules: Rules {
                denied: contract.setting("denied").and_then(|pattern| Regex::new(&pattern).ok()),
                trusted: contract.setting("unasked").as_deref() == Some("trust"),
                output_bytes: bytes(limits.output_bytes),
            },
            permissions: contract.permissions,
            mode: contract.setting("mode"),
            model: contract.model.clone().filter(|_| contract.definition.model.in_protocol),
            life: Life::Starting,
            lines: Lines::new(bytes(limits.output_bytes)),
            rpc: Pending::new(),
            places: BTreeMap::new(),
            sessions: HashMap::new(),
            seen: HashSet::new(),
            echoes: HashMap::new(),
            closes: false,
            opened: 0,
        }
    }

    fn ask(&mut self, method: &str, params: Value, what: Call, out: &mut Vec<Effect>) {
        out.push(Effect::Write(self.rpc.request(method, params, what).1));
    }

    fn broken(&mut self, failure: Failure, out: &mut Vec<Effect>) {
        self.life = Life::Broken;
        out.push(Effect::Broken(failure));
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<Effect>) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        match jsonrpc::decode(line) {
            Message::Response { id, result } => match self.rpc.answered(&id) {
                Some(call) => self.answered(call, result, line, out),
                None => anomaly("an answer to nothing that was asked", line, out),
            },
            Message::Notification { method, params } => match method.as_str() {
                "session/update" => self.update(&params, line, out),
                _ => anomaly("a notification of an unknown kind", line, out),
            },
            Message::Request { id, method, params } => match method.as_str() {
                "session/request_permission" => self.permission(&id, &params, line, out),
                _ => {
                    out.push(Effect::Write(self.rpc.unknown(&id, &method)));
                    // Agents ask for the client's file system even where it is said to have none; they go on.
                    if !method.starts_with("fs/") && !method.starts_with("terminal/") {
                        anomaly("a request of an unknown kind", line, out);
                    }
                }
            },
            Message::Malformed { why } => anomaly(why, line, out),
        }
    }

    fn answered(&mut self, call: Call, result: Result<Value, RpcError>, line: &[u8], out: &mut Vec<Effect>) {
        match call {
            Call::Initialize => self.initialized(result, out),
            Call::New(slot, serial) => self.opened(slot, serial, result, out),
            Call::Set(slot, session) => match result {
                _ if self.sessions.get(&session) != Some(&slot) => {}
                Ok(_) => self.go_on(slot, out),
                Err(error) => self.lose(slot, turn::failure(&error, &self.definition), out),
            },
            Call::Prompt(slot, session) => self.ended(slot, &session, result, out),
            Call::Close => {
                if result.is_err() {
                    anomaly("a session could not be closed", line, out);
                }
            }
            // Any answer will do: the method is one that no agent has.
            Call::Ping => out.push(Effect::Pong),
        }
    }

    fn initialized(&mut self, result: Result<Value, RpcError>, out: &mut Vec<Effect>) {
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                let failure = turn::failure(&error, &self.definition);
                return self.broken(failure, out);
            }
        };
        let version = &answer["protocolVersion"];
        if *version != json!(VERSION) {
            let message = format!("the agent speaks version {version} of its protocol, and not {VERSION}");
            return self.broken(Failure::new(FailureKind::Protocol, message), out);
        }
        self.closes = !answer["agentCapabilities"]["sessionCapabilities"]["close"].is_null();
        self.life = Life::Ready;
        let version = answer["agentInfo"]["version"].as_str().map(str::to_owned);
        out.push(Effect::Ready { version });
    }

    fn open(&mut self, slot: Slot, cwd: PathBuf, old: Option<String>, out: &mut Vec<Effect>) {
        let Some(path) = cwd.to_str().map(str::to_owned) else {
            let message = format!("{} can't be named to this tool: it is not UTF-8", cwd.display());
            return self.lose(slot, Failure::new(FailureKind::BadInput, message), out);
        };
        self.opened += 1;
        let serial = self.opened;
        self.places.insert(slot, Place { cwd, state: State::Opening { serial, old } });
        self.ask("session/new", json!({"cwd": path, "mcpServers": []}), Call::New(slot, serial), out);
    }

    fn opened(&mut self, slot: Slot, serial: u64, result: Result<Value, RpcError>, out: &mut Vec<Effect>) {
        let old = match self.places.get_mut(&slot).map(|place| &mut place.state) {
            Some(State::Opening { serial: wanted, old }) if *wanted == serial => old.take(),
            // The slot was closed while its session was on the way.
            _ => {
                if let Some(session) = result.ok().and_then(|answer| answer["sessionId"].as_str().map(str::to_owned)) {
                    self.seen.insert(session.clone());
                    self.close_session(session, out);
                }
                return;
            }
        };
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => return self.lose(slot, turn::failure(&error, &self.definition), out),
        };
        let Some(session) = answer["sessionId"].as_str().filter(|id| !id.is_empty()).map(str::to_owned) else {
            let failure = Failure::new(FailureKind::Protocol, "the agent opened a session without an id");
            return self.lose(slot, failure, out);
        };
        if !self.seen.insert(session.clone()) {
            let message = format!("the agent named session {session} as new, and had named it before");
            return self.lose(slot, Failure::new(FailureKind::Protocol, message), out);
        }
        let mut left = Vec::new();
        if let Some(mode) = &self.mode {
            if let Some(failure) = unknown_mode(mode, &answer) {
                return self.lose(slot, failure, out);
            }
            left.push(("session/set_mode", json!({"sessionId": session, "modeId": mode})));
            self.echoes.insert(session.clone(), format!("[MODE_UPDATE] {mode}"));
        }
        if let Some(model) = &self.model {
            left.push(("session/set_model", json!({"sessionId": session, "modelId": model})));
        }
        self.sessions.insert(session.clone(), slot);
        if let Some(place) = self.places.get_mut(&slot) {
            place.state = State::Setting { session, old, left };
        }
        self.go_on(slot, out);
    }

    /// Makes the next setting of a new session, or hands the session out.
    fn go_on(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        let Some(place) = self.places.get_mut(&slot) else { return };
        match std::mem::replace(&mut place.state, State::Lost) {
            State::Setting { session, old, mut left } => {
                if let Some((method, params)) = left.pop() {
                    let what = Call::Set(slot, session.clone());
                    place.state = State::Setting { session, old, left };
                    return self.ask(method, params, what, out);
                }
                place.state = State::Open(Session { id: session.clone(), turn: None, past: HashSet::new() });
                out.push(Effect::Fresh { slot, proof: Proof::NewSession(session) });
                if let Some(old) = old {
                    self.close_session(old, out);
                }
            }
            other => place.state = other,
        }
    }

    /// The slot has no usable session.
    fn lose(&mut self, slot: Slot, failure: Failure, out: &mut Vec<Effect>) {
        if let Some(place) = self.places.get_mut(&slot) {
            place.state = State::Lost;
        }
        self.sessions.retain(|_, owner| *owner != slot);
        out.push(Effect::NotFresh { slot, failure });
    }

    fn close_session(&mut self, session: String, out: &mut Vec<Effect>) {
        self.sessions.remove(&session);
        self.echoes.remove(&session);
        if self.closes {
            self.ask("session/close", json!({"sessionId": session}), Call::Close, out);
        }
    }

    fn reset(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        let Some(place) = self.places.get_mut(&slot) else {
            let failure = Failure::new(FailureKind::NotRun, "there is no conversation to reset");
            return out.push(Effect::NotFresh { slot, failure });
        };
        let old = match std::mem::replace(&mut place.state, State::Lost) {
            State::Open(session) => Some(session.id),
            _ => None,
        };
        let cwd = place.cwd.clone();
        self.open(slot, cwd, old, out);
    }

    fn begin(&mut self, slot: Slot, turn: &Turn, out: &mut Vec<Effect>) {
        let blocks = self.framing.blocks(turn);
        let Some(Place { cwd, state: State::Open(session) }) = self.places.get_mut(&slot) else {
            let failure = Failure::new(FailureKind::NotRun, "there is no open conversation for the prompt");
            let end = Box::new(TurnEnd { status: TurnStatus::Failed(failure), answer: Answer::default() });
            return out.push(Effect::Ended { slot, end });
        };
        let level = policy::level(turn).min(self.permissions);
        session.turn = Some(Box::new(Running::new(level, cwd)));
        let what = Call::Prompt(slot, session.id.clone());
        let params = json!({"sessionId": session.id, "prompt": blocks});
        self.ask("session/prompt", params, what, out);
    }

    fn cancel(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        if let Some(session) = self.session(slot)
            && let Some(turn) = &mut session.turn
        {
            turn.cancel();
            let params = json!({"sessionId": session.id});
            out.push(Effect::Write(self.rpc.notification("session/cancel", params)));
        }
    }

    fn close(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        self.cancel(slot, out);
        match self.places.remove(&slot).map(|place| place.state) {
            Some(State::Open(Session { id, .. }) | State::Setting { session: id, .. }) => self.close_session(id, out),
            Some(State::Opening { old: Some(old), .. }) => self.close_session(old, out),
            _ => {}
        }
    }

    fn session(&mut self, slot: Slot) -> Option<&mut Session> {
        match &mut self.places.get_mut(&slot)?.state {
            State::Open(session) => Some(session),
            _ => None,
        }
    }

    fn ended(&mut self, slot: Slot, id: &str, result: Result<Value, RpcError>, out: &mut Vec<Effect>) {
        let definition = self.definition.clone();
        if let Some(session) = self.session(slot).filter(|session| session.id == id)
            && let Some(turn) = session.turn.take()
        {
            session.past = turn.ids();
            out.push(Effect::Ended { slot, end: Box::new(turn.end(result, &definition)) });
        }
    }

    fn update(&mut self, params: &Value, line: &[u8], out: &mut Vec<Effect>) {
        let update = &params["update"];
        let id = params["sessionId"].as_str().unwrap_or_default();
        let kind = update["sessionUpdate"].as_str().unwrap_or_default();
        // These tell about the session, not about a turn, and may come at any time.
        let housekeeping = [
            "available_commands_update",
            "current_mode_update",
            "config_option_update",
            "session_info_update",
            "usage_update",
        ];
        if housekeeping.contains(&kind) {
            return;
        }
        let text = update["content"]["text"].as_str().unwrap_or_default();
        if kind == "agent_message_chunk" && self.echoes.get(id).is_some_and(|echo| echo == text) {
            self.echoes.remove(id);
            return;
        }
        let Some(&slot) = self.sessions.get(id) else {
            return anomaly("news of a session that is not in use", line, out);
        };
        let mut told = Vec::new();
        {
            let State::Open(session) = (match self.places.get_mut(&slot) {
                Some(place) => &mut place.state,
                None => return,
            }) else {
                return anomaly("news of a session before its first prompt", line, out);
            };
            let Some(turn) = &mut session.turn else {
                return anomaly("news of a turn that has ended", line, out);
            };
            let late = |id: &Value| id.as_str().is_some_and(|id| session.past.contains(id));
            if late(&update["messageId"]) || late(&update["toolCallId"]) {
                return anomaly("news of a turn that has ended", line, out);
            }
            match kind {
                "agent_message_chunk" => {
                    turn.usage(&update["_meta"]["usage"]);
                    turn.text(text, update["messageId"].as_str(), &self.rules, &mut told);
                }
                "tool_call" | "tool_call_update" => turn.tool_call(update, &self.rules, &mut told),
                "agent_thought_chunk" | "user_message_chunk" | "plan" => {}
                _ => anomaly("an update of an unknown kind", line, out),
            }
        }
        self.tell(slot, told, out);
    }

    fn permission(&mut self, id: &Value, params: &Value, line: &[u8], out: &mut Vec<Effect>) {
        let slot = params["sessionId"].as_str().and_then(|session| self.sessions.get(session).copied());
        let turn = slot.and_then(|slot| Some((slot, self.session(slot)?.turn.as_mut()?)));
        let Some((slot, turn)) = turn else {
            out.push(Effect::Write(self.rpc.answer(id, ask::cancelled())));
            return anomaly("a permission was asked for outside of any turn", line, out);
        };
        let mut told = Vec::new();
        let answer = turn.permission(params, &mut told);
        out.push(Effect::Write(self.rpc.answer(id, answer)));
        self.tell(slot, told, out);
    }

    fn tell(&mut self, slot: Slot, told: Vec<Told>, out: &mut Vec<Effect>) {
        for told in told {
            match told {
                Told::Activity(activity) => out.push(Effect::Activity { slot, activity }),
                Told::Stop => self.cancel(slot, out),
            }
        }
    }
}

impl Driver for Acp {
    fn launched(&mut self, out: &mut Vec<Effect>) {
        // The agent's own tools see to files and commands: each agent reads the client's answers in a way of its own.
        let params = json!({
            "protocolVersion": VERSION,
            "clientCapabilities": {"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false},
            "clientInfo": {"name": "readyroom", "version": env!("CARGO_PKG_VERSION")}
        });
        self.ask("initialize", params, Call::Initialize, out);
    }

    fn stdout(&mut self, bytes: &[u8], out: &mut Vec<Effect>) {
        if self.life == Life::Broken {
            return;
        }
        self.lines.push(bytes);
        while self.life != Life::Broken {
            match self.lines.next_line() {
                Ok(Some(line)) => self.line(&line, out),
                Ok(None) => return,
                Err(error) => self.broken(Failure::new(FailureKind::OutputLimit, error.to_string()), out),
            }
        }
    }

    fn answers_pings(&self) -> bool {
        true
    }

    fn request(&mut self, request: Request, out: &mut Vec<Effect>) {
        match request {
            Request::Open { slot, cwd } => self.open(slot, cwd, None, out),
            Request::Reset { slot } => self.reset(slot, out),
            Request::Context { slot, commands } => out.push(no_context_commands(slot, commands)),
            Request::Begin { slot, turn } => self.begin(slot, &turn, out),
            Request::Cancel { slot } => self.cancel(slot, out),
            Request::Close { slot } => self.close(slot, out),
            Request::Ping => {
                if self.life == Life::Ready && !self.rpc.iter().any(|(_, call)| matches!(call, Call::Ping)) {
                    self.ask("_readyroom/ping", json!({}), Call::Ping, out);
                }
            }
            Request::Stop => {
                let slots: Vec<Slot> = self.places.keys().copied().collect();
                slots.into_iter().for_each(|slot| self.cancel(slot, out));
                out.push(Effect::CloseStdin);
            }
        }
    }

    fn refuses(&self, turn: &Turn) -> Option<Failure> {
        self.framing.refuses(turn)
    }
}

/// Why the mode can't be set: the agent names its modes, and not this one.
fn unknown_mode(mode: &str, answer: &Value) -> Option<Failure> {
    let ids = |list: &Value, key: &str| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|item| item[key].as_str().map(str::to_owned)).collect()
    };
    let mut known = ids(&answer["modes"]["availableModes"], "id");
    for option in answer["configOptions"].as_array().into_iter().flatten() {
        if option["id"] == "mode" {
            known.extend(ids(&option["options"], "value"));
        }
    }
    if known.is_empty() || known.iter().any(|id| id == mode) {
        return None;
    }
    let message = format!("the agent has no mode `{mode}`; it has {}", known.join(", "));
    Some(Failure::new(FailureKind::BadInput, message))
}

fn anomaly(what: &'static str, line: &[u8], out: &mut Vec<Effect>) {
    let raw = String::from_utf8_lossy(&line[..line.len().min(KEPT)]).into_owned();
    out.push(Effect::Anomaly { what, raw });
}
