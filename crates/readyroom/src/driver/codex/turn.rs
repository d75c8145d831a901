//! What is known of the turn that runs in a thread, and what its end means.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::wire::{self, Tokens};
use crate::driver::{Activity, TurnEnd, TurnStatus};
use crate::error::{Failure, FailureKind};
use crate::job::{Answer, Denials, Permissions, Usage};

/// How far a cancellation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// Nobody asked for one.
    No,
    /// Asked for, and not to be sent before the turn's id is known or the turn has begun.
    Wanted,
    /// Sent.
    Sent,
}

/// A turn between `turn/start` and `turn/completed`.
#[derive(Debug)]
pub struct Running {
    /// Codex's id of it, once known.
    pub id: Option<String>,
    /// Whether `turn/started` has come.
    pub started: bool,
    /// Whether it is to be cancelled.
    pub cancel: Cancel,
    /// What is granted in it.
    pub level: Permissions,
    /// The thread's tokens before it.
    before: Tokens,
    /// Tokens of threads that it spawned.
    spawned: Tokens,
    /// Whether the model reported any use in this turn.
    told_usage: bool,
    /// The messages that are complete, in order.
    messages: Vec<String>,
    /// What has come of a message that is not complete.
    partial: String,
    /// How often the model used a tool.
    tools: usize,
    /// The paths of edits that are not complete, by item.
    edits: BTreeMap<String, Vec<PathBuf>>,
    changed: Vec<PathBuf>,
    denied: Vec<String>,
    /// What the last announced retry said.
    retry: String,
}

impl Running {
    /// A turn that begins in a thread with these totals.
    pub fn new(level: Permissions, before: Tokens) -> Self {
        Self {
            id: None,
            started: false,
            cancel: Cancel::No,
            level,
            before,
            spawned: Tokens::default(),
            told_usage: false,
            messages: Vec::new(),
            partial: String::new(),
            tools: 0,
            edits: BTreeMap::new(),
            changed: Vec::new(),
            denied: Vec::new(),
            retry: String::new(),
        }
    }

    /// An item began.
    pub fn item_started(&mut self, item: &Value) -> Option<Activity> {
        // A retry of a broken stream begins the message again; what came of it before is void.
        self.partial.clear();
        if item["type"] == "fileChange" {
            self.edits.insert(item["id"].as_str().unwrap_or_default().to_owned(), wire::changed_paths(item));
        }
        let name = wire::tool_name(item)?;
        self.tools += 1;
        Some(Activity::ToolStarted(name))
    }

    /// An item is complete.
    pub fn item_completed(&mut self, item: &Value) -> Option<Activity> {
        match item["type"].as_str() {
            Some("agentMessage") => {
                self.partial.clear();
                self.messages.push(item["text"].as_str().unwrap_or_default().to_owned());
            }
            Some("fileChange") => {
                self.edits.remove(item["id"].as_str().unwrap_or_default());
                if item["status"] == "completed" {
                    for path in wire::changed_paths(item) {
                        if !self.changed.contains(&path) {
                            self.changed.push(path);
                        }
                    }
                }
            }
            _ => {}
        }
        wire::tool_name(item).map(Activity::ToolEnded)
    }

    /// More of a message.
    pub fn delta(&mut self, params: &Value) -> Option<Activity> {
        let text = params["delta"].as_str()?;
        self.partial.push_str(text);
        Some(Activity::Text(text.to_owned()))
    }

    /// Codex tries the model again.
    pub fn retrying(&mut self, error: &Value) -> Activity {
        let message = error["message"].as_str().unwrap_or_default();
        let why = error["additionalDetails"].as_str().unwrap_or(message);
        self.retry = format!("{message}: {why}");
        Activity::Retrying { attempt: wire::attempt(message), why: why.to_owned() }
    }

    /// The paths of the edit that an approval asks about.
    pub fn edit(&self, item: &str) -> Vec<PathBuf> {
        self.edits.get(item).cloned().unwrap_or_default()
    }

    /// A permission was asked for and not given.
    pub fn denied(&mut self, what: String) {
        self.denied.push(what);
    }

    /// The model reported what it used.
    pub fn usage_told(&mut self) {
        self.told_usage = true;
    }

    /// A spawned thread used tokens.
    pub fn spawned_used(&mut self, tokens: Tokens) {
        self.spawned = self.spawned.plus(tokens);
    }

    /// The end that `turn/completed` tells; `failure` reads its error. `total` is the thread's total by now.
    pub fn end(self, turn: &Value, total: Tokens, failure: impl FnOnce(&Value) -> Failure) -> TurnEnd {
        let status = match turn["status"].as_str() {
            _ if self.cancel != Cancel::No => TurnStatus::Cancelled,
            Some("completed") => match self.doubt(turn) {
                None => TurnStatus::Succeeded,
                Some(doubt) => TurnStatus::Failed(doubt),
            },
            Some("failed") => TurnStatus::Failed(self.with_retry(failure(&turn["error"]))),
            Some("interrupted") => TurnStatus::Failed(
                self.with_retry(Failure::new(FailureKind::Protocol, "Codex interrupted the turn by itself")),
            ),
            other => TurnStatus::Failed(Failure::new(
                FailureKind::Protocol,
                format!("a turn was completed with the status {}", other.unwrap_or("(none)")),
            )),
        };
        let succeeded = matches!(status, TurnStatus::Succeeded);
        TurnEnd { status, answer: self.answer(turn, total, succeeded) }
    }

    /// The end of a turn that Codex will not end itself.
    pub fn give_up(self, failure: Failure, total: Tokens) -> TurnEnd {
        let status = if self.cancel == Cancel::No { TurnStatus::Failed(failure) } else { TurnStatus::Cancelled };
        TurnEnd { status, answer: self.answer(&Value::Null, total, false) }
    }

    /// Did it really run? Codex calls a turn completed when its model call ended well, and also when a hook of the
    /// user's kept the prompt back. A message, a use of a tool or reported tokens show that the model was asked.
    fn doubt(&self, turn: &Value) -> Option<Failure> {
        if !self.messages.is_empty() || last_message(turn).is_some() || self.tools > 0 {
            None
        } else if self.told_usage {
            Some(Failure::new(FailureKind::ModelError, "the model's answer was empty"))
        } else {
            Some(Failure::new(FailureKind::NotRun, "Codex completed the turn without asking its model"))
        }
    }

    fn with_retry(&self, failure: Failure) -> Failure {
        if self.retry.is_empty() {
            return failure;
        }
        let evidence = format!("{}\n{}", failure.evidence, self.retry);
        failure.with_stderr(evidence.trim().to_owned())
    }

    fn answer(self, turn: &Value, total: Tokens, succeeded: bool) -> Answer {
        let mut messages = self.messages;
        let told = last_message(turn);
        if let Some(told) = told
            && messages.last().is_none_or(|last| last != told)
        {
            messages.push(told.to_owned());
        }
        // What an unfinished turn had said is worth keeping, but is no part of an answer.
        if !succeeded && !self.partial.is_empty() {
            messages.push(self.partial);
        }
        let used = total.since(self.before).plus(self.spawned);
        let usage = if self.told_usage {
            Usage { input_tokens: Some(used.input), output_tokens: Some(used.output), cost_usd: None }
        } else {
            Usage::default()
        };
        Answer {
            text: messages.last().cloned().unwrap_or_default().into(),
            transcript: messages.join("\n\n").into(),
            usage,
            // Without a list that is complete: a command that its sandbox stops is no denial that Codex tells of.
            denials: if self.denied.is_empty() { Denials::Unknown } else { Denials::Known(self.denied) },
            changed_files: self.changed,
        }
    }
}

/// The message that Codex itself gives as the turn's last.
fn last_message(turn: &Value) -> Option<&str> {
    let items = turn["items"].as_array()?;
    items.iter().rev().find(|item| item["type"] == "agentMessage")?["text"].as_str()
}
