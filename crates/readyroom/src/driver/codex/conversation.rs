//! A slot's conversations, one after the other: how one is made, runs its turns, and is left.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::turn::{Cancel, Running};
use super::wire::{self, Hold, Tokens};
use super::{Asked, Codex, anomaly, approval, ended, failure, not_fresh, protocol};
use crate::driver::jsonrpc::RpcError;
use crate::driver::{Effect, Proof, Slot, Turn, TurnEnd, TurnStatus};
use crate::error::{Failure, FailureKind};
use crate::job::Answer;

/// Whose thread it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The slot's conversation.
    Slot(Slot),
    /// Spawned by a turn in the slot's conversation.
    Spawned(Slot),
    /// An earlier conversation's.
    Retired,
}

/// A slot's conversation.
pub(super) struct Conversation {
    pub(super) cwd: PathBuf,
    /// What `thread/start` is to set over the user's configuration; read once for a directory.
    pub(super) config: Option<Map<String, Value>>,
    pub(super) state: State,
}

pub(super) enum State {
    /// There is none.
    Missing,
    /// What the earlier one left running is being ended.
    Leaving(Leftovers),
    /// The user's configuration is being read.
    Reading,
    /// A thread is being made.
    Starting,
    /// No turn of ours runs.
    Idle(Thread),
    /// A turn of ours runs.
    Running(Thread, Box<Running>),
    /// The turn is over, and what it left running is being ended.
    Settling { thread: Thread, end: Box<TurnEnd>, leftovers: Leftovers },
}

pub(super) struct Thread {
    pub(super) id: String,
    pub(super) total: Tokens,
    /// A turn that Codex began by itself, and a prompt that has to wait for its end.
    pub(super) own_turn: Option<String>,
    pub(super) waiting: Option<Box<Turn>>,
    /// Threads that turns of this one spawned: their running turn, and their tokens so far.
    pub(super) spawned: BTreeMap<String, (Option<String>, Tokens)>,
}

/// Ends what a conversation left running: first the turns, then the commands, so that no turn begins another one.
#[derive(Debug)]
pub(super) struct Leftovers {
    /// Answers that are still to come in this step.
    answers: usize,
    /// Threads whose commands are still to be ended.
    threads: Vec<String>,
}

impl Codex {
    /// Begins a new conversation in the slot, whatever it holds.
    pub(super) fn renew(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        let Some(conversation) = self.slots.get_mut(&slot) else {
            return not_fresh(slot, protocol("the slot was never opened"), out);
        };
        match std::mem::replace(&mut conversation.state, State::Missing) {
            // Threads are never freed, so their number is bounded by a new process.
            State::Idle(thread) if self.is_full() => {
                let count = self.threads.len();
                self.retire(&thread);
                not_fresh(slot, protocol(&format!("{count} conversations, of which Codex frees none")), out);
            }
            State::Idle(thread) => {
                let leftovers = self.leave(slot, &thread, out);
                self.retire(&thread);
                self.set(slot, State::Leaving(leftovers));
            }
            State::Missing => self.configure(slot, out),
            busy => {
                self.set(slot, busy);
                not_fresh(slot, protocol("a new conversation was asked for while the last one is at work"), out);
            }
        }
    }

    fn is_full(&self) -> bool {
        let most = self.definition.limits.recycle_sessions;
        most > 0 && self.threads.len() as u64 >= most
    }

    /// Begins to end what a thread's turns left running.
    fn leave(&mut self, slot: Slot, thread: &Thread, out: &mut Vec<Effect>) -> Leftovers {
        let own = thread.own_turn.iter().map(|turn| (&thread.id, turn));
        let spawned = thread.spawned.iter().filter_map(|(id, (turn, _))| Some((id, turn.as_ref()?)));
        let turns: Vec<_> = own.chain(spawned).map(|(id, turn)| json!({"threadId": id, "turnId": turn})).collect();
        let threads: Vec<_> = thread.spawned.keys().chain([&thread.id]).cloned().collect();
        if turns.is_empty() {
            return self.end_commands(slot, threads, out);
        }
        let answers = turns.len();
        for params in turns {
            self.ask("turn/interrupt", params, Asked::Leftover(slot), out);
        }
        Leftovers { answers, threads }
    }

    fn end_commands(&mut self, slot: Slot, threads: Vec<String>, out: &mut Vec<Effect>) -> Leftovers {
        for id in &threads {
            self.ask("thread/backgroundTerminals/clean", json!({"threadId": id}), Asked::Leftover(slot), out);
        }
        Leftovers { answers: threads.len(), threads: Vec::new() }
    }

    /// An answer has come. `None` when nothing is left running.
    fn go_on(&mut self, slot: Slot, leftovers: Leftovers, out: &mut Vec<Effect>) -> Option<Leftovers> {
        let Leftovers { answers, threads } = leftovers;
        match answers {
            0 | 1 if threads.is_empty() => None,
            0 | 1 => Some(self.end_commands(slot, threads, out)),
            _ => Some(Leftovers { answers: answers - 1, threads }),
        }
    }

    pub(super) fn retire(&mut self, thread: &Thread) {
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
        let Some(cwd) = conversation.cwd.to_str() else {
            let message = format!("directory {} has a name that is not UTF-8", conversation.cwd.display());
            return not_fresh(slot, Failure::new(FailureKind::BadInput, message), out);
        };
        let params = json!({"cwd": cwd});
        self.set(slot, State::Reading);
        self.ask("config/read", params, Asked::Config(slot), out);
    }

    pub(super) fn start_thread(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        let Some(conversation) = self.slots.get_mut(&slot) else { return };
        conversation.state = State::Starting;
        let config = conversation.config.clone().unwrap_or_default();
        let hold = Hold::of(&self.definition, self.permissions);
        let params = wire::thread_start(&conversation.cwd, &hold, self.model.as_deref(), &config);
        self.ask("thread/start", params, Asked::ThreadStart { slot, configured: !config.is_empty() }, out);
    }

    pub(super) fn thread_started(&mut self, slot: Slot, answer: &Value, out: &mut Vec<Effect>) {
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

    pub(super) fn begin(&mut self, slot: Slot, turn: Turn, out: &mut Vec<Effect>) {
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

    pub(super) fn cancel(&mut self, slot: Slot, out: &mut Vec<Effect>) {
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
            State::Idle(Thread { waiting: waiting @ Some(_), .. }) => {
                *waiting = None;
                ended(slot, TurnStatus::Cancelled, Answer::default(), out);
            }
            _ => {}
        }
    }

    pub(super) fn close(&mut self, slot: Slot, out: &mut Vec<Effect>) {
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
    pub(super) fn finish(&mut self, slot: Slot, thread: Thread, end: TurnEnd, out: &mut Vec<Effect>) {
        let at_work = thread.spawned.values().any(|(turn, _)| turn.is_some());
        if matches!(end.status, TurnStatus::Succeeded) && !at_work {
            self.set(slot, State::Idle(thread));
            return out.push(Effect::Ended { slot, end: Box::new(end) });
        }
        let leftovers = self.leave(slot, &thread, out);
        self.set(slot, State::Settling { thread, end: Box::new(end), leftovers });
    }

    /// One of the answers that a leaving or settling slot waits for has come. An older Codex does not know how to end
    /// what is left, and a refusal counts as well: the runtime looks at the process tree in any case.
    pub(super) fn left(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        match self.take(slot) {
            State::Leaving(leftovers) => match self.go_on(slot, leftovers, out) {
                Some(leftovers) => self.set(slot, State::Leaving(leftovers)),
                None => self.configure(slot, out),
            },
            State::Settling { mut thread, end, leftovers } => match self.go_on(slot, leftovers, out) {
                Some(leftovers) => self.set(slot, State::Settling { thread, end, leftovers }),
                None => {
                    for (turn, _) in thread.spawned.values_mut() {
                        *turn = None;
                    }
                    self.set(slot, State::Idle(thread));
                    out.push(Effect::Ended { slot, end });
                }
            },
            other => self.set(slot, other),
        }
    }

    pub(super) fn turn_answered(&mut self, slot: Slot, result: Result<Value, RpcError>, out: &mut Vec<Effect>) {
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
    pub(super) fn turn_named(&mut self, slot: Slot, id: &str, out: &mut Vec<Effect>) {
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

    pub(super) fn interrupt_refused(&mut self, slot: Slot, error: &RpcError, out: &mut Vec<Effect>) {
        if let Some(Conversation { state: State::Running(_, running), .. }) = self.slots.get_mut(&slot)
            && !running.started
        {
            // It came before the turn; it is sent again when the turn has started.
            running.cancel = Cancel::Wanted;
        }
        out.push(anomaly("an interrupt was refused", error.text().as_bytes()));
    }

    /// The slot's state, leaving none behind.
    pub(super) fn take(&mut self, slot: Slot) -> State {
        match self.slots.get_mut(&slot) {
            Some(conversation) => std::mem::replace(&mut conversation.state, State::Missing),
            None => State::Missing,
        }
    }

    pub(super) fn set(&mut self, slot: Slot, state: State) {
        if let Some(conversation) = self.slots.get_mut(&slot) {
            conversation.state = state;
        }
    }
}
