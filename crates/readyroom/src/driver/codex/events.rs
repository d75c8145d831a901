//! What Codex tells without being asked, and which conversation and turn it belongs to.

use serde_json::{Value, json};

use super::conversation::{Conversation, Owner, State, Thread};
use super::turn::Running;
use super::wire::{self, Tokens};
use super::{Asked, Codex, anomaly, failure, protocol};
use crate::driver::{Effect, Slot};

impl Codex {
    pub(super) fn notification(&mut self, method: &str, params: &Value, raw: &[u8], out: &mut Vec<Effect>) {
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
}
