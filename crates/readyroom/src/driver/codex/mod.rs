//! The `codex` driver: Codex's app-server protocol.
//!
//! One process holds many threads (conversations), truly side by side; each slot owns one. A new conversation is a new
//! thread, and the proof is an id that this process has never named before. Codex steers a second prompt into a turn
//! that runs, so a thread never has more than one, also where Codex began one by itself. The end of a turn is
//! `turn/completed`; what a turn leaves running (commands, threads that it spawned) is ended before the slot's next
//! conversation, and before the end is told where the turn did not succeed. The page is `docs/design/drivers-codex.md`.

mod approval;
mod failure;
mod turn;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use self::turn::{Cancel, Running};
use self::wire::{Hold, Tokens};
use super::jsonrpc::{self, Message, Pending, RpcError};
use super::line::Lines;
use super::{Driver, Effect, Proof, Request, Slot, Turn, TurnEnd, TurnStatus};
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

/// Whose thread it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// The slot's conversation.
    Slot(Slot),
    /// Spawned by a turn in the slot's conversation.
    Spawned(Slot),
    /// An earlier conversation's.
    Retired,
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

/// A slot's conversation.
struct Conversation {
    cwd: PathBuf,
    /// What `thread/start` is to set over the user's configuration; read once for a directory.
    config: Option<Map<String, Value>>,
    state: State,
}

enum State {
    /// There is none.
    Missing,
    /// What the earlier one left running is being ended; so many answers are still to come.
    Leaving { answers: usize },
    /// The user's configuration is being read.
    Reading,
    /// A thread is being made.
    Starting,
    /// No turn of ours runs.
    Idle(Thread),
    /// A turn of ours runs.
    Running(Thread, Box<Running>),
    /// The turn is over, and what it left running is being ended; so many answers are still to come.
    Settling { thread: Thread, end: Box<TurnEnd>, answers: usize },
}

struct Thread {
    id: String,
    total: Tokens,
    /// A turn that Codex began by itself, and a prompt that has to wait for its end.
    own_turn: Option<String>,
    waiting: Option<Box<Turn>>,
    /// Threads that turns of this one spawned: their running turn, and their tokens so far.
    spawned: BTreeMap<String, (Option<String>, Tokens)>,
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

    /// Begins a new conversation in the slot, whatever it holds.
    fn renew(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        let Some(conversation) = self.slots.get_mut(&slot) else {
            return not_fresh(slot, protocol("the slot was never opened"), out);
        };
        match std::mem::replace(&mut conversation.state, State::Missing) {
            State::Idle(thread) => {
                let answers = self.leave(slot, &thread, out);
                self.retire(&thread);
                self.set(slot, State::Leaving { answers });
            }
            State::Missing => self.configure(slot, out),
            busy => {
                self.set(slot, busy);
                not_fresh(slot, protocol("a new conversation was asked for while the last one is at work"), out);
            }
        }
    }

    /// Ends what a thread's turns left running. Gives the number of answers to wait for.
    fn leave(&mut self, slot: Slot, thread: &Thread, out: &mut Vec<Effect>) -> usize {
        let mut requests = Vec::new();
        let own = thread.own_turn.iter().map(|turn| (&thread.id, turn));
        let spawned = thread.spawned.iter().filter_map(|(id, (turn, _))| Some((id, turn.as_ref()?)));
        for (id, turn) in own.chain(spawned) {
            requests.push(("turn/interrupt", json!({"threadId": id, "turnId": turn})));
        }
        for id in thread.spawned.keys().chain([&thread.id]) {
            requests.push(("thread/backgroundTerminals/clean", json!({"threadId": id})));
        }
        let count = requests.len();
        for (method, params) in requests {
            self.ask(method, params, Asked::Leftover(slot), out);
        }
        count
    }

    fn retire(&mut self, thread: &Thread) {
        for id in thread.spawned.keys().chain([&thread.id]) {
            self.threads.insert(id.clone(), Owner::Retired);
        }
    }

    /// The next step towards a new thread: what its configuration has to say.
    fn configure(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        let Some(conversation) = self.slots.get(&slot) else { return };
        if conversation.config.is_some() {
            return self.start_thread(slot, out);
        }
        let params = json!({"cwd": conversation.cwd.to_string_lossy()});
        self.set(slot, State::Reading);
        self.ask("config/read", params, Asked::Config(slot), out);
    }

    fn start_thread(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        let Some(conversation) = self.slots.get_mut(&slot) else { return };
        conversation.state = State::Starting;
        let config = conversation.config.clone().unwrap_or_default();
        let hold = Hold::of(&self.definition, self.permissions);
        let params = wire::thread_start(&conversation.cwd, &hold, self.model.as_deref(), &config);
        self.ask("thread/start", params, Asked::ThreadStart { slot, configured: !config.is_empty() }, out);
    }

    fn thread_started(&mut self, slot: Slot, answer: &Value, out: &mut Vec<Effect>) {
        let Some(id) = answer["thread"]["id"].as_str().map(str::to_owned) else {
            self.set(slot, State::Missing);
            return not_fresh(slot, protocol("thread/start named no thread"), out);
        };
        if self.threads.contains_key(&id) {
            self.set(slot, State::Missing);
            return not_fresh(slot, protocol("thread/start named a thread of an earlier conversation"), out);
        }
        if let Some(objection) = Hold::of(&self.definition, self.permissions).objection(answer) {
            self.threads.insert(id, Owner::Retired);
            self.set(slot, State::Missing);
            return not_fresh(slot, Failure::new(FailureKind::PermissionDenied, objection), out);
        }
        self.threads.insert(id.clone(), Owner::Slot(slot));
        let proof = Proof::NewSession(id.clone());
        let thread = Thread { id, total: Tokens::default(), own_turn: None, waiting: None, spawned: BTreeMap::new() };
        self.set(slot, State::Idle(thread));
        out.push(Effect::Fresh { slot, proof });
    }

    fn begin(&mut self, slot: Slot, turn: Turn, out: &mut Vec<Effect>) {
        let failure = match self.take(slot) {
            State::Idle(mut thread) if thread.own_turn.is_some() => {
                thread.waiting = Some(Box::new(turn));
                return self.set(slot, State::Idle(thread));
            }
            State::Idle(thread) => {
                let level = approval::level(&turn, self.permissions);
                let params = wire::turn_start(&thread.id, &turn, &Hold::of(&self.definition, level));
                let running = Running::new(level, thread.total);
                self.set(slot, State::Running(thread, Box::new(running)));
                return self.ask("turn/start", params, Asked::TurnStart(slot), out);
            }
            other => {
                self.set(slot, other);
                protocol("a prompt came for a slot whose conversation is not open")
            }
        };
        ended(slot, TurnStatus::Failed(failure), Answer::default(), out);
    }

    fn cancel(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        let Some(conversation) = self.slots.get_mut(&slot) else { return };
        match &mut conversation.state {
            State::Running(thread, running) if running.cancel == Cancel::No => {
                running.cancel = Cancel::Wanted;
                if let Some(turn) = &running.id {
                    running.cancel = Cancel::Sent;
                    let params = json!({"threadId": thread.id, "turnId": turn});
                    self.ask("turn/interrupt", params, Asked::Interrupt(slot), out);
                }
            }
            State::Idle(thread) => {
                if thread.waiting.take().is_some() {
                    ended(slot, TurnStatus::Cancelled, Answer::default(), out);
                }
            }
            _ => {}
        }
    }

    fn close(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        let Some(conversation) = self.slots.remove(&slot) else { return };
        let thread = match conversation.state {
            State::Idle(thread) | State::Running(thread, _) | State::Settling { thread, .. } => thread,
            _ => return,
        };
        self.retire(&thread);
        for id in thread.spawned.keys().chain([&thread.id]) {
            for method in ["thread/backgroundTerminals/clean", "thread/unsubscribe"] {
                self.ask(method, json!({"threadId": id}), Asked::Nothing, out);
            }
        }
    }

    /// The turn that runs in the slot is over.
    fn finish(&mut self, slot: Slot, thread: Thread, end: TurnEnd, out: &mut Vec<Effect>) {
        let at_work = thread.spawned.values().any(|(turn, _)| turn.is_some());
        if matches!(end.status, TurnStatus::Succeeded) && !at_work {
            self.set(slot, State::Idle(thread));
            return out.push(Effect::Ended { slot, end: Box::new(end) });
        }
        let answers = self.leave(slot, &thread, out);
        self.set(slot, State::Settling { thread, end: Box::new(end), answers });
    }

    /// One of the answers that a leaving or settling slot waits for has come.
    fn left(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        match self.take(slot) {
            State::Leaving { answers } if answers > 1 => self.set(slot, State::Leaving { answers: answers - 1 }),
            State::Leaving { .. } => self.configure(slot, out),
            State::Settling { thread, end, answers } if answers > 1 => {
                self.set(slot, State::Settling { thread, end, answers: answers - 1 });
            }
            State::Settling { mut thread, end, .. } => {
                for (turn, _) in thread.spawned.values_mut() {
                    *turn = None;
                }
                self.set(slot, State::Idle(thread));
                out.push(Effect::Ended { slot, end });
            }
            other => self.set(slot, other),
        }
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
            // An older Codex does not know how to end what is left; the process tree is looked at in any case.
            Asked::Leftover(slot) => self.left(slot, out),
            Asked::Nothing => {}
            Asked::Ping => out.push(Effect::Pong),
        }
    }

    fn turn_answered(&mut self, slot: Slot, result: Result<Value, RpcError>, out: &mut Vec<Effect>) {
        match (self.take(slot), result) {
            (State::Running(thread, running), Ok(answer)) => {
                let named = answer["turn"]["id"].as_str().map(str::to_owned);
                self.set(slot, State::Running(thread, running));
                match named {
                    Some(id) => self.turn_named(slot, &id, out),
                    None => out.push(anomaly("turn/start named no turn", answer.to_string().as_bytes())),
                }
            }
            (State::Running(thread, running), Err(error)) => {
                let failure = failure::of_refusal(&self.definition, &error);
                let end = running.give_up(failure, thread.total);
                self.set(slot, State::Idle(thread));
                out.push(Effect::Ended { slot, end: Box::new(end) });
            }
            // The turn was over before its request was answered.
            (other, _) => self.set(slot, other),
        }
    }

    /// The turn that runs in the slot has got its id, by the answer or by `turn/started`, whichever is first.
    fn turn_named(&mut self, slot: Slot, id: &str, out: &mut Vec<Effect>) {
        let Some(Conversation { state: State::Running(thread, running), .. }) = self.slots.get_mut(&slot) else {
            return;
        };
        if running.id.is_none() {
            running.id = Some(id.to_owned());
            out.push(Effect::Accepted { slot });
        }
        if running.cancel == Cancel::Wanted {
            running.cancel = Cancel::Sent;
            let params = json!({"threadId": thread.id, "turnId": running.id});
            self.ask("turn/interrupt", params, Asked::Interrupt(slot), out);
        }
    }

    fn interrupt_refused(&mut self, slot: Slot, error: &RpcError, out: &mut Vec<Effect>) {
        if let Some(Conversation { state: State::Running(_, running), .. }) = self.slots.get_mut(&slot)
            && !running.started
        {
            // It came before the turn; it is sent again when the turn has started.
            running.cancel = Cancel::Wanted;
        }
        out.push(anomaly("an interrupt was refused", error.text().as_bytes()));
    }

    fn notification(&mut self, method: &str, params: &Value, raw: &[u8], out: &mut Vec<Effect>) {
        let handled = matches!(
            method,
            "turn/started"
                | "turn/completed"
                | "item/started"
                | "item/completed"
                | "item/agentMessage/delta"
                | "thread/tokenUsage/updated"
                | "thread/closed"
                | "error"
        );
        if !handled {
            if !wire::is_of_no_matter(method) {
                out.push(anomaly("an unknown notification", raw));
            }
            return;
        }
        let thread = params["threadId"].as_str().unwrap_or_default();
        match self.threads.get(thread).copied() {
            Some(Owner::Slot(slot)) => self.in_conversation(slot, method, params, raw, out),
            Some(Owner::Spawned(slot)) => self.in_spawned(slot, thread, method, params),
            Some(Owner::Retired) => out.push(anomaly("a message of an earlier conversation", raw)),
            None => match self.spawner(&params["turn"]["rootTurnId"]) {
                Some(slot) if method == "turn/started" => {
                    self.adopt(slot, thread);
                    self.in_spawned(slot, thread, method, params);
                }
                _ => out.push(anomaly("a message of a conversation that is not ours", raw)),
            },
        }
    }

    fn in_conversation(&mut self, slot: Slot, method: &str, params: &Value, raw: &[u8], out: &mut Vec<Effect>) {
        let turn = params["turnId"].as_str().or_else(|| params["turn"]["id"].as_str()).unwrap_or_default();
        match (self.take(slot), method) {
            (State::Running(thread, running), "thread/closed") => {
                let end = running.give_up(protocol("Codex closed the conversation"), thread.total);
                self.retire(&thread);
                out.push(Effect::Ended { slot, end: Box::new(end) });
            }
            (State::Idle(thread) | State::Settling { thread, .. }, "thread/closed") => {
                self.retire(&thread);
                out.push(anomaly("Codex closed a conversation", raw));
            }
            (State::Running(thread, mut running), "turn/started")
                if running.id.as_deref().is_none_or(|id| id == turn) =>
            {
                running.started = true;
                self.set(slot, State::Running(thread, running));
                self.turn_named(slot, turn, out);
            }
            (State::Running(thread, running), _) if running.id.as_deref() == Some(turn) => {
                self.in_turn(slot, thread, running, method, params, raw, out);
            }
            (State::Idle(mut thread), "turn/started") => {
                out.push(anomaly("Codex began a turn by itself", raw));
                let interrupt = json!({"threadId": thread.id, "turnId": turn});
                thread.own_turn = Some(turn.to_owned());
                self.set(slot, State::Idle(thread));
                self.ask("turn/interrupt", interrupt, Asked::Nothing, out);
            }
            (State::Idle(mut thread), "turn/completed") if thread.own_turn.as_deref() == Some(turn) => {
                thread.own_turn = None;
                let waiting = thread.waiting.take();
                self.set(slot, State::Idle(thread));
                if let Some(turn) = waiting {
                    self.begin(slot, *turn, out);
                }
            }
            (State::Idle(mut thread), "thread/tokenUsage/updated") => {
                thread.total = Tokens::total(params).unwrap_or(thread.total);
                self.set(slot, State::Idle(thread));
            }
            (other, _) => {
                self.set(slot, other);
                out.push(anomaly("a message of a turn that does not run", raw));
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one message and of the state that it meets")]
    fn in_turn(
        &mut self,
        slot: Slot,
        mut thread: Thread,
        mut running: Box<Running>,
        method: &str,
        params: &Value,
        raw: &[u8],
        out: &mut Vec<Effect>,
    ) {
        let item = &params["item"];
        let activity = match method {
            "item/started" => running.item_started(item),
            "item/completed" => {
                for spawned in item["receiverThreadIds"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    self.threads.entry(spawned.to_owned()).or_insert(Owner::Spawned(slot));
                    thread.spawned.entry(spawned.to_owned()).or_default();
                }
                running.item_completed(item)
            }
            "item/agentMessage/delta" => running.delta(params),
            "error" if params["willRetry"] == true => Some(running.retrying(&params["error"])),
            // The turn's end says it again.
            "error" => None,
            "thread/tokenUsage/updated" => {
                thread.total = Tokens::total(params).unwrap_or(thread.total);
                running.usage_told();
                None
            }
            "turn/completed" if params["turn"]["status"] == "inProgress" => {
                out.push(anomaly("a turn was completed and is in progress", raw));
                None
            }
            "turn/completed" => {
                let now = jiff::ZonedDateTime::now();
                let end =
                    running.end(&params["turn"], thread.total, |error| failure::of_turn(&self.definition, error, &now));
                return self.finish(slot, thread, end, out);
            }
            _ => None,
        };
        self.set(slot, State::Running(thread, running));
        out.extend(activity.map(|activity| Effect::Activity { slot, activity }));
    }

    /// Which slot's turn has this id: a spawned thread's turns name it as their root.
    fn spawner(&self, root: &Value) -> Option<Slot> {
        let root = root.as_str()?;
        self.slots.iter().find_map(|(slot, conversation)| match &conversation.state {
            State::Running(_, running) if running.id.as_deref() == Some(root) => Some(*slot),
            _ => None,
        })
    }

    fn adopt(&mut self, slot: Slot, spawned: &str) {
        self.threads.insert(spawned.to_owned(), Owner::Spawned(slot));
        if let Some(Conversation { state: State::Running(thread, _), .. }) = self.slots.get_mut(&slot) {
            thread.spawned.entry(spawned.to_owned()).or_default();
        }
    }

    /// A message of a thread that a turn of the slot spawned. Only what it costs and whether it is at work matters.
    fn in_spawned(&mut self, slot: Slot, id: &str, method: &str, params: &Value) {
        let Some(conversation) = self.slots.get_mut(&slot) else { return };
        let (thread, running) = match &mut conversation.state {
            State::Running(thread, running) => (thread, Some(running)),
            State::Idle(thread) | State::Settling { thread, .. } => (thread, None),
            _ => return,
        };
        let Some((turn, tokens)) = thread.spawned.get_mut(id) else { return };
        match method {
            "turn/started" => *turn = params["turn"]["id"].as_str().map(str::to_owned),
            "turn/completed" | "thread/closed" => *turn = None,
            "thread/tokenUsage/updated" => {
                let total = Tokens::total(params).unwrap_or(*tokens);
                if let Some(running) = running {
                    running.spawned_used(total.since(*tokens));
                }
                *tokens = total;
            }
            _ => {}
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

    /// The slot's state, leaving none behind.
    fn take(&mut self, slot: Slot) -> State {
        match self.slots.get_mut(&slot) {
            Some(conversation) => std::mem::replace(&mut conversation.state, State::Missing),
            None => State::Missing,
        }
    }

    fn set(&mut self, slot: Slot, state: State) {
        if let Some(conversation) = self.slots.get_mut(&slot) {
            conversation.state = state;
        }
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
            // The definition lists no context commands: files go with the prompt.
            Request::Context { slot, .. } => out.push(Effect::ContextDone { slot, replies: Vec::new() }),
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
