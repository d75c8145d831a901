//! One prompt, from its sending to its answer: what is collected from the updates, and what the end means.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::Value;

use super::ask;
use crate::driver::jsonrpc::RpcError;
use crate::driver::policy::{self, Decision};
use crate::driver::{Activity, TurnEnd, TurnStatus};
use crate::error::{Failure, FailureKind};
use crate::job::{Answer, Denials, Permissions, Usage};
use crate::tool::Definition;

/// What is known of a tool call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolCall {
    /// What it does, in ACP's words; empty until told.
    pub kind: String,
    /// The agent's name for it.
    pub title: String,
    /// The paths that it names.
    pub paths: Vec<PathBuf>,
    /// Whether its end was told.
    pub ended: bool,
}

/// Why a turn that goes on will not count as a success.
#[derive(Debug, Clone, PartialEq)]
enum Spoiled {
    No,
    /// We asked the agent to cancel it.
    Cancelled,
    /// We ended it because of this.
    Failed(Failure),
}

/// What the agent's definition says about judging its turns.
#[derive(Debug)]
pub struct Rules {
    /// Text of a tool call's result that says that the call was denied.
    pub denied: Option<Regex>,
    /// Whether what the agent does without asking is known to be within the level.
    pub trusted: bool,
    /// The most bytes of text in a turn.
    pub output_bytes: usize,
}

/// A prompt that was sent and not answered yet.
#[derive(Debug)]
pub struct Running {
    level: Permissions,
    cwd: PathBuf,
    spoiled: Spoiled,
    transcript: String,
    /// Where in the transcript the last segment begins.
    segment: usize,
    calls: BTreeMap<String, ToolCall>,
    granted: HashSet<String>,
    denied: HashSet<String>,
    messages: HashSet<String>,
    /// The message whose text came last.
    message: Option<String>,
    denials: Vec<String>,
    /// Whether nothing came after the last denial.
    denied_last: bool,
    changed: Vec<PathBuf>,
    usage: Usage,
}

/// Something to tell after an update.
#[derive(Debug, PartialEq)]
pub enum Told {
    /// Something happened.
    Activity(Activity),
    /// The turn has to be stopped: it will end as failed.
    Stop,
}

impl Running {
    /// A turn under `level` in `cwd`.
    pub fn new(level: Permissions, cwd: &Path) -> Self {
        Self {
            level,
            cwd: cwd.to_owned(),
            spoiled: Spoiled::No,
            transcript: String::new(),
            segment: 0,
            calls: BTreeMap::new(),
            granted: HashSet::new(),
            denied: HashSet::new(),
            messages: HashSet::new(),
            message: None,
            denials: Vec::new(),
            denied_last: false,
            changed: Vec::new(),
            usage: Usage::default(),
        }
    }

    /// Remembers that we cancelled it. A failure that we ended it for stays the reason.
    pub fn cancel(&mut self) {
        if self.spoiled == Spoiled::No {
            self.spoiled = Spoiled::Cancelled;
        }
    }

    /// Whether the agent was asked to end it.
    pub fn is_ending(&self) -> bool {
        self.spoiled != Spoiled::No
    }

    /// A piece of the answer. `message` is the agent's own id of the message that it belongs to.
    pub fn text(&mut self, text: &str, message: Option<&str>, rules: &Rules, told: &mut Vec<Told>) {
        if text.is_empty() {
            return;
        }
        if let Some(message) = message
            && self.message.as_deref() != Some(message)
        {
            // Another message without a tool call before it: the agent asked its model again, and starts over.
            self.segment = self.transcript.len();
            self.message = Some(message.to_owned());
            self.messages.insert(message.to_owned());
        }
        if self.transcript.len() + text.len() > rules.output_bytes {
            let limit = rules.output_bytes;
            self.stop(FailureKind::OutputLimit, format!("the answer is longer than {limit} bytes"), told);
            return;
        }
        self.transcript.push_str(text);
        self.denied_last = false;
        told.push(Told::Activity(Activity::Text(text.to_owned())));
    }

    /// A tool call, or news of one.
    pub fn tool_call(&mut self, update: &Value, rules: &Rules, told: &mut Vec<Told>) {
        let Some(id) = update["toolCallId"].as_str() else { return };
        self.segment = self.transcript.len();
        let new = !self.calls.contains_key(id);
        let call = self.calls.entry(id.to_owned()).or_default();
        if let Some(title) = ask::title(update) {
            call.title = title;
        }
        if let Some(kind) = update["kind"].as_str() {
            call.kind = kind.to_owned();
        }
        for path in ask::paths(update) {
            if !call.paths.contains(&path) {
                call.paths.push(path);
            }
        }
        if new {
            self.denied_last = false;
            told.push(Told::Activity(Activity::ToolStarted(call.title.clone())));
        }
        let status = update["status"].as_str().unwrap_or_default();
        if call.ended || !matches!(status, "completed" | "failed") {
            return;
        }
        call.ended = true;
        let call = call.clone();
        told.push(Told::Activity(Activity::ToolEnded(call.title.clone())));
        let result = result_text(update);
        if let Some(found) = rules.denied.as_ref().and_then(|denied| denied.find(&result)) {
            // A call that we denied ourselves fails, too; it is in the list already.
            if !self.denied.contains(id) {
                let what = found.as_str().to_owned();
                self.denials.push(what.clone());
                self.denied_last = true;
                told.push(Told::Activity(Activity::Denied(what)));
            }
        } else if status == "completed" {
            self.done(id, &call, rules, told);
        }
    }

    /// A tool call was carried out: were its changes within the level?
    fn done(&mut self, id: &str, call: &ToolCall, rules: &Rules, told: &mut Vec<Told>) {
        let writes = matches!(call.kind.as_str(), "edit" | "delete" | "move");
        if writes {
            self.changed
                .extend(call.paths.iter().filter(|path| !self.changed.contains(path)).cloned().collect::<Vec<_>>());
        }
        if rules.trusted || self.granted.contains(id) {
            return;
        }
        let ask = match call.kind.as_str() {
            "execute" => policy::Ask::Command(call.title.clone()),
            _ if writes && !call.paths.is_empty() => policy::Ask::Write(call.paths.clone()),
            _ => return,
        };
        if let Decision::Deny(why) = policy::decide(self.level, &self.cwd, &ask) {
            let what = format!("the tool did {:?} without asking, as its own configuration lets it; {why}", call.title);
            self.stop(FailureKind::PermissionDenied, what, told);
        }
    }

    fn stop(&mut self, kind: FailureKind, why: String, told: &mut Vec<Told>) {
        if self.spoiled == Spoiled::No {
            self.spoiled = Spoiled::Failed(Failure::new(kind, why));
            told.push(Told::Stop);
        }
    }

    /// Decides a permission request; the answer is the whole `result` of the response.
    pub fn permission(&mut self, params: &Value, told: &mut Vec<Told>) -> Value {
        // What is asked for belongs to a tool call, and so ends a segment: not every agent announces the call itself.
        self.segment = self.transcript.len();
        if self.is_ending() {
            return ask::cancelled();
        }
        let call = &params["toolCall"];
        let id = call["toolCallId"].as_str().unwrap_or_default();
        let asked = ask::ask(call, self.calls.get(id));
        let title = ask::title(call).unwrap_or_else(|| id.to_owned());
        let decision = policy::decide(self.level, &self.cwd, &asked);
        let why = match (decision, ask::grant(&params["options"])) {
            (Decision::Grant, Some(answer)) => {
                self.granted.insert(id.to_owned());
                told.push(Told::Activity(Activity::Granted(title)));
                return answer;
            }
            (Decision::Grant, None) => "the tool offers no grant for once".to_owned(),
            (Decision::Deny(why), _) => why,
        };
        self.denied.insert(id.to_owned());
        self.denials.push(format!("{title}: {why}"));
        self.denied_last = true;
        told.push(Told::Activity(Activity::Denied(format!("{title}: {why}"))));
        ask::reject(&params["options"])
    }

    /// What the agent said about usage outside the prompt's answer.
    pub fn usage(&mut self, value: &Value) {
        if let Some(usage) = read_usage(value) {
            self.usage = usage;
        }
    }

    /// The agent's own ids of the turn's messages and tool calls.
    pub fn ids(&self) -> HashSet<String> {
        self.calls.keys().chain(&self.messages).cloned().collect()
    }

    /// The prompt was answered.
    pub fn end(mut self, answer: Result<Value, RpcError>, definition: &Definition) -> TurnEnd {
        if let Ok(result) = &answer {
            let told = read_usage(&result["usage"]).or_else(|| read_usage(&result["_meta"]["quota"]["token_count"]));
            self.usage = told.unwrap_or(std::mem::take(&mut self.usage));
        }
        let status = match (&self.spoiled, &answer) {
            (Spoiled::Cancelled, _) => TurnStatus::Cancelled,
            (Spoiled::Failed(failure), _) => TurnStatus::Failed(failure.clone()),
            (Spoiled::No, Err(error)) => TurnStatus::Failed(failure(error, definition)),
            (Spoiled::No, Ok(result)) => match self.verdict(result) {
                None => TurnStatus::Succeeded,
                Some(failure) => TurnStatus::Failed(failure),
            },
        };
        // A cancelled turn's end may carry the usage of the turn before it.
        let usage = if status == TurnStatus::Cancelled { Usage::default() } else { self.usage };
        TurnEnd {
            status,
            answer: Answer {
                text: self.transcript[self.segment..].into(),
                transcript: self.transcript.clone().into(),
                usage,
                denials: Denials::Known(self.denials),
                changed_files: self.changed,
            },
        }
    }

    /// Why an answered prompt is no success; `None` where it is one.
    fn verdict(&self, result: &Value) -> Option<Failure> {
        let fail = |kind, message: &str| Some(Failure::new(kind, message).with_stderr(cut(&result.to_string())));
        match result["stopReason"].as_str() {
            Some("end_turn") => {}
            Some("cancelled") => {
                return fail(FailureKind::Protocol, "the tool cancelled the turn, and nobody had asked it to");
            }
            Some("max_tokens") => return fail(FailureKind::ModelError, "the answer was cut off at a token limit"),
            Some("max_turn_requests") => {
                return fail(FailureKind::ModelError, "the tool gave up: too many requests to the model in one turn");
            }
            Some("refusal") => return fail(FailureKind::ModelError, "the model refused to answer"),
            _ => return fail(FailureKind::Protocol, "the turn ended for a reason that the protocol does not know"),
        }
        let said = !self.transcript.is_empty();
        let did = !self.calls.is_empty() || !self.denials.is_empty();
        let quota = &result["_meta"]["quota"];
        let spent = self.usage.input_tokens.unwrap_or(0) + self.usage.output_tokens.unwrap_or(0) > 0;
        if !quota.is_null() && !spent && quota["model_usage"].as_array().is_none_or(Vec::is_empty) {
            return match said || did {
                true => {
                    fail(FailureKind::ModelError, "the model's answer broke off: the tool counts no finished request")
                }
                false => fail(FailureKind::NotRun, "the tool ended the turn without a finished request to the model"),
            };
        }
        if !said && !did && !spent {
            return fail(FailureKind::NotRun, "the tool ended the turn without asking the model");
        }
        if !said && !did {
            return fail(FailureKind::ModelError, "the model's answer is empty");
        }
        if self.denied_last {
            let what = self.denials.last().map_or("", String::as_str);
            return fail(FailureKind::PermissionDenied, &format!("the tool stopped when it was denied {what}"));
        }
        None
    }
}

/// The failure that an error answer means: by the definition's rules, else by its code.
pub fn failure(error: &RpcError, definition: &Definition) -> Failure {
    let text = format!("\"code\":{} {}", error.code, error.text());
    let kind = definition.classify(&text).unwrap_or(match error.code {
        // The protocol's own code for "authentication required", and HTTP's where an agent passes it on.
        -32000 | 401 | 403 => FailureKind::Auth,
        404 => FailureKind::UnknownModel,
        429 => FailureKind::RateLimited { retry_after: None },
        -32602..=-32600 | -32700 => FailureKind::Protocol,
        _ => FailureKind::ModelError,
    });
    let evidence = match &error.data {
        Value::Null => String::new(),
        data => cut(&data.to_string()),
    };
    Failure::new(kind, cut(error.message.trim())).with_stderr(evidence)
}

fn cut(text: &str) -> String {
    const MOST: usize = 2000;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// Token counts under the names that agents use; `None` where there are none.
fn read_usage(value: &Value) -> Option<Usage> {
    let find = |names: [&str; 3]| names.iter().find_map(|name| value[*name].as_u64());
    let usage = Usage {
        input_tokens: find(["inputTokens", "input_tokens", "promptTokens"]),
        output_tokens: find(["outputTokens", "output_tokens", "completionTokens"]),
        cost_usd: None,
    };
    (usage != Usage::default()).then_some(usage)
}

/// All text in a tool call's result.
fn result_text(update: &Value) -> String {
    let mut text = String::new();
    for part in update["content"].as_array().into_iter().flatten() {
        text.push_str(part["content"]["text"].as_str().unwrap_or_default());
        text.push('\n');
    }
    text
}
