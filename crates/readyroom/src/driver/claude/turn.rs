//! A turn that runs: what is gathered of it, and the verdict at its end.
//!
//! The `result` line says `success` of turns that failed, of prompts that never reached the model and of streams that
//! broke off. The verdict therefore reads several of its fields, and what came before it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::permission;
use super::wire::Finish;
use crate::driver::{TurnEnd, TurnStatus};
use crate::error::{Failure, FailureKind};
use crate::job::{Answer, Denials, Permissions, Usage};
use crate::tool::Definition;

/// Whether we have asked the tool to stop.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stop {
    /// No.
    No,
    /// At the caller's request.
    Cancelled,
    /// For a reason of our own.
    GaveUp(Failure),
}

/// An announced retry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Retry {
    pub delay: Duration,
    pub status: Option<u64>,
    pub error: String,
}

impl Retry {
    /// Whether the provider asked to slow down.
    pub fn is_rate_limit(&self) -> bool {
        self.status == Some(429) || self.error == "rate_limit"
    }
}

/// A turn that runs.
#[derive(Debug)]
pub(super) struct Running {
    /// The id of our user line.
    pub id: String,
    /// What is granted.
    pub level: Permissions,
    /// Whether the tool has taken our user line.
    pub taken: bool,
    pub stop: Stop,
    pub retry: Option<Retry>,
    /// The usage window is used up, until then where that is known.
    pub window: Option<Option<jiff::Timestamp>>,
    /// Bytes of text that have come as deltas.
    pub streamed: usize,
    transcript: String,
    /// The text after the last tool call.
    segment: String,
    /// What the tool calls its own failure.
    error: Option<String>,
    calls: HashMap<String, (String, Option<PathBuf>)>,
    done: usize,
    changed: Vec<PathBuf>,
    denied: Vec<(String, String)>,
}

impl Running {
    pub fn new(id: String, level: Permissions) -> Self {
        Self {
            id,
            level,
            taken: false,
            stop: Stop::No,
            retry: None,
            window: None,
            streamed: 0,
            transcript: String::new(),
            segment: String::new(),
            error: None,
            calls: HashMap::new(),
            done: 0,
            changed: Vec::new(),
            denied: Vec::new(),
        }
    }

    /// The model's text so far, in bytes.
    pub fn size(&self) -> usize {
        self.streamed.max(self.transcript.len())
    }

    pub fn said(&mut self, text: &str, error: Option<String>) {
        if error.is_some() {
            self.error = error;
            return;
        }
        if !self.transcript.is_empty() && !self.transcript.ends_with('\n') && self.segment.is_empty() {
            self.transcript.push('\n');
        }
        self.transcript.push_str(text);
        self.segment.push_str(text);
    }

    pub fn tool_started(&mut self, id: String, name: &str, input: &Value, nested: bool) {
        if !nested {
            self.segment.clear();
        }
        self.calls.insert(id, (name.to_owned(), permission::edited(name, input)));
    }

    /// An answer that replaces what was said before it.
    pub fn restate(&mut self, answer: &str) {
        self.segment.clear();
        self.said(answer, None);
    }

    /// The ended tool's name.
    pub fn tool_ended(&mut self, id: &str, failed: bool) -> Option<String> {
        let (name, edited) = self.calls.remove(id)?;
        if !failed {
            self.done += 1;
            self.changed.extend(edited.filter(|path| !self.changed.contains(path)));
        }
        Some(name)
    }

    pub fn denied(&mut self, call: String, what: String) {
        self.denied.push((call, what));
    }

    /// The end, at our own judgement: the tool's `result` is not about this turn.
    pub fn fail(self, failure: Failure) -> TurnEnd {
        let answer = self.answer(Usage::default(), None);
        TurnEnd { status: TurnStatus::Failed(failure), answer }
    }

    /// The end. `cost` is what this turn added to the process's total.
    pub fn finish(mut self, finish: &Finish, cost: Option<f64>, definition: &Definition) -> TurnEnd {
        for (call, what) in &finish.denials {
            if !self.denied.iter().any(|(known, _)| known == call) {
                self.denied.push((call.clone(), what.clone()));
            }
        }
        let status = match std::mem::replace(&mut self.stop, Stop::No) {
            Stop::Cancelled => TurnStatus::Cancelled,
            Stop::GaveUp(failure) => TurnStatus::Failed(failure),
            Stop::No => match self.objection(finish, definition) {
                Some(failure) => TurnStatus::Failed(failure),
                None => TurnStatus::Succeeded,
            },
        };
        let usage = Usage { input_tokens: finish.input_tokens, output_tokens: finish.output_tokens, cost_usd: cost };
        // The tool's own answer is its last block; a final message of several blocks ends with it.
        let last = (status == TurnStatus::Succeeded && !self.segment.ends_with(&finish.text)).then_some(&finish.text);
        let answer = self.answer(usage, last);
        TurnEnd { status, answer }
    }

    fn answer(self, usage: Usage, last: Option<&String>) -> Answer {
        Answer {
            text: last.cloned().unwrap_or(self.segment).into(),
            transcript: self.transcript.into(),
            usage,
            denials: Denials::Known(self.denied.into_iter().map(|(_, what)| what).collect()),
            changed_files: self.changed,
        }
    }

    /// Why the turn did not succeed, whatever its `subtype` says.
    fn objection(&self, finish: &Finish, definition: &Definition) -> Option<Failure> {
        if finish.is_error || finish.subtype != "success" {
            return Some(self.classify(finish, definition));
        }
        if finish.turns == Some(0) {
            let message = format!("the prompt never reached the model; the tool said {:?}", cut(&finish.text));
            return Some(Failure::new(FailureKind::NotRun, message));
        }
        if !self.taken {
            return Some(Failure::new(FailureKind::NotRun, "the tool ended a turn, but never took the prompt"));
        }
        if finish.stop_reason.is_none() {
            let message = "the model's answer broke off: its stream ended without a finish marker";
            return Some(Failure::new(FailureKind::ModelError, message));
        }
        if finish.text.is_empty() && self.segment.is_empty() && self.done == 0 {
            return Some(Failure::new(FailureKind::ModelError, "the model answered nothing"));
        }
        None
    }

    fn classify(&self, finish: &Finish, definition: &Definition) -> Failure {
        let errors = finish.errors.join("; ");
        let said = if finish.text.is_empty() { &errors } else { &finish.text };
        let word = self.error.as_deref().unwrap_or_default();
        let status = finish.status.map_or(String::new(), |status| format!("API Error: {status}"));
        let kind = definition
            .classify(&format!("{said}\n{errors}\n{word}\n{status}"))
            .unwrap_or_else(|| by_fields(finish, word));
        let kind = match kind {
            _ if self.window.is_some() => FailureKind::UsageWindow { resets_at: self.window.flatten() },
            FailureKind::UsageWindow { resets_at: None } => FailureKind::UsageWindow { resets_at: announced(said) },
            FailureKind::RateLimited { retry_after: None } => FailureKind::RateLimited {
                retry_after: self.retry.as_ref().filter(|retry| retry.is_rate_limit()).map(|retry| retry.delay),
            },
            kind => kind,
        };
        let message = match &kind {
            FailureKind::Crashed { .. } => "the turn was aborted, and not by readyroom",
            _ if said.is_empty() => &finish.subtype,
            _ => said,
        };
        let evidence: Vec<&str> =
            [finish.subtype.as_str(), word, &status, &errors].into_iter().filter(|part| !part.is_empty()).collect();
        Failure::new(kind, cut(message)).with_stderr(cut(&evidence.join(", ")))
    }
}

/// What a failed `result` means where no rule of the definition knows its text.
fn by_fields(finish: &Finish, word: &str) -> FailureKind {
    match (finish.status, word) {
        (Some(401 | 403), _) | (_, "authentication_failed") => FailureKind::Auth,
        (Some(402), _) | (_, "billing_error") => FailureKind::UsageWindow { resets_at: None },
        (Some(404), _) | (_, "model_not_found") => FailureKind::UnknownModel,
        (Some(413), _) => FailureKind::BadInput,
        (Some(429), _) | (_, "rate_limit") => FailureKind::RateLimited { retry_after: None },
        _ if finish.subtype == "error_max_structured_output_retries" => FailureKind::Schema,
        _ if finish.subtype.starts_with("error_max_") => FailureKind::Budget,
        // Aborted, and not by us: somebody sent the process a signal, and it goes down.
        _ if finish.reason.starts_with("aborted") => FailureKind::Crashed { exit: None },
        _ => FailureKind::ModelError,
    }
}

/// `...|1735689600`: when the window opens again, as some versions write it.
fn announced(text: &str) -> Option<jiff::Timestamp> {
    let digits: String = text.split_once('|')?.1.chars().take_while(char::is_ascii_digit).collect();
    if digits.len() < 10 {
        return None;
    }
    jiff::Timestamp::from_second(digits.parse().ok()?).ok()
}

/// At most a few KB of the tool's words.
pub(super) fn cut(text: &str) -> String {
    const MOST: usize = 2000;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
