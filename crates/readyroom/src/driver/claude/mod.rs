//! The `claude` driver: Claude Code's stream-json protocol, one conversation a process.
//!
//! - Ready: the answer to an `initialize` request; the tool says nothing until it is spoken to.
//! - A prompt is a user line of two blocks, the prompt and the files to work on. The tool looks for its own commands
//!   and mentions in the last block only, so the first one reaches the model byte for byte, whatever it begins with;
//!   an empty last block is dropped by the tool.
//! - A turn ends with its `result` line, and `turn` judges it.
//! - Fresh is `/clear` as a line of its own, proven by a session id that was never seen before.
//! - A schema of the contract is told with `initialize`; the model then answers by a tool of its own, and the `result`
//!   is that call's input.
//! - Permissions are asked for over the same pipe, and answered by the policy, once each.
//!
//! The tool can start a turn by itself (a background command that ended). Nothing says so at its begin, and `/clear`
//! does not prevent it: the notice goes into the new session. The definition switches off what leads there; should it
//! happen all the same, the process is given up, since neither an end nor a context could be told apart.
//!
//! What was seen, on which version, is in `docs/design/drivers-claude.md`.

mod permission;
#[cfg(test)]
mod tests;
mod turn;
mod wire;

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use self::turn::{Retry, Running, Stop};
use self::wire::{Finish, Message};
use super::line::Lines;
use super::policy::{self, Ask, Decision};
use super::{Activity, Driver, Effect, Proof, Request, Slot, Turn, no_context_commands};
use crate::check::Schema;
use crate::error::{Failure, FailureKind};
use crate::job::Permissions;
use crate::tool::{Contract, Definition};

/// An announced wait that is longer is not worth an instance: the turn ends as rate limited, and the caller's policy
/// decides when to try again.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// The ids of the requests that are sent at the launch.
const INITIALIZE: &str = "initialize";
const VERSION: &str = "version";
const PING: &str = "ping";
const INTERRUPT: &str = "interrupt";

#[derive(Debug)]
enum State {
    /// Launched; `initialize` was sent, and with it the question for the version.
    Starting { initialized: bool },
    /// Nothing runs.
    Idle,
    /// `/clear` was sent. The session that it announced, once it has.
    Clearing { announced: Option<String> },
    /// A prompt runs.
    Turn(Box<Running>),
    /// Given up.
    Broken,
}

/// The driver's state.
pub struct Claude {
    definition: Arc<Definition>,
    directory: PathBuf,
    level: Permissions,
    /// What the tool is told to hold all answers to.
    schema: Option<Value>,
    lines: Lines,
    state: State,
    /// User lines sent so far; their number is their id.
    sent: u64,
    /// Every session that the process has named.
    sessions: HashSet<String>,
    /// The session that goes on.
    current: Option<String>,
    /// Background commands and sub-agents that have not ended.
    tasks: BTreeSet<String>,
    /// The process's total cost at the last `result`.
    cost: f64,
}

impl Claude {
    /// A driver for a process launched by `contract`.
    pub fn new(contract: &Contract) -> Self {
        // JSON escapes can make six bytes of one.
        let longest = usize::try_from(contract.definition.limits.output_bytes).unwrap_or(usize::MAX).saturating_mul(6);
        Self {
            definition: Arc::clone(&contract.definition),
            directory: contract.cwd.clone(),
            level: contract.permissions,
            schema: contract.schema.as_ref().and_then(Schema::as_tool_input),
            lines: Lines::new(longest),
            state: State::Starting { initialized: false },
            sent: 0,
            sessions: HashSet::new(),
            current: None,
            tasks: BTreeSet::new(),
            cost: 0.0,
        }
    }

    fn next_id(&mut self) -> String {
        self.sent += 1;
        format!("00000000-0000-4000-8000-{:012x}", self.sent)
    }

    fn give_up(&mut self, failure: Failure, out: &mut Vec<Effect>) {
        self.state = State::Broken;
        out.push(Effect::Broken(failure));
    }

    fn open(&mut self, slot: Slot, cwd: &PathBuf, out: &mut Vec<Effect>) {
        let refuse = |why: String| Effect::NotFresh { slot, failure: Failure::new(FailureKind::Protocol, why) };
        if slot != Slot(0) {
            out.push(refuse("Claude Code holds one conversation a process".into()));
        } else if *cwd != self.directory {
            out.push(refuse(format!("the process works in {}, not in {}", self.directory.display(), cwd.display())));
        } else if self.sent == 0 {
            out.push(Effect::Fresh { slot, proof: Proof::NewProcess });
        } else {
            self.clear(out);
        }
    }

    fn clear(&mut self, out: &mut Vec<Effect>) {
        let failure = if !matches!(self.state, State::Idle) {
            Some(Failure::new(FailureKind::Protocol, "a reset was asked for while something else runs"))
        } else if self.tasks.is_empty() {
            None
        } else {
            // Its end would be told to the new session.
            Some(Failure::new(FailureKind::NotReady, "the turn left a background command running"))
        };
        if let Some(failure) = failure {
            out.push(Effect::NotFresh { slot: Slot(0), failure });
            return;
        }
        let id = self.next_id();
        out.push(Effect::Write(wire::user_line(&id, json!("/clear"))));
        self.state = State::Clearing { announced: None };
    }

    fn begin(&mut self, turn: &Turn, out: &mut Vec<Effect>) {
        let id = self.next_id();
        out.push(Effect::Write(wire::user_line(&id, content(turn))));
        let level = policy::level(turn).min(self.level);
        self.state = State::Turn(Box::new(Running::new(id, level)));
    }

    fn message(&mut self, message: Message, line: &[u8], out: &mut Vec<Effect>) {
        let odd = |what: &'static str| Effect::Anomaly {
            what,
            raw: turn::cut(&String::from_utf8_lossy(&line[..line.len().min(8000)])),
        };
        // What holds in every state.
        match &message {
            Message::Quiet => return,
            Message::Odd(what) => return out.push(odd(what)),
            Message::TaskStarted { id } => {
                self.tasks.insert(id.clone());
                return;
            }
            Message::TaskEnded { id } => {
                self.tasks.remove(id);
                return;
            }
            Message::Control { request, subtype } => {
                out.push(odd("a control request that is not known"));
                return out.push(Effect::Write(wire::refuse_line(request, subtype)));
            }
            Message::Reply { id, .. } if id == PING => return out.push(Effect::Pong),
            _ => {}
        }
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Starting { initialized } => self.starting(initialized, message, odd, out),
            State::Idle => self.idle(message, odd, out),
            State::Clearing { announced } => self.clearing(announced, message, odd, out),
            State::Turn(running) => self.running(running, message, odd, out),
            State::Broken => {}
        }
    }

    fn starting(
        &mut self,
        initialized: bool,
        message: Message,
        odd: impl Fn(&'static str) -> Effect,
        out: &mut Vec<Effect>,
    ) {
        self.state = State::Starting { initialized };
        match message {
            Message::Reply { id, result } if id == INITIALIZE => match result {
                Ok(_) => self.state = State::Starting { initialized: true },
                Err(error) => {
                    let message = format!("Claude Code does not initialise: {}", turn::cut(&error));
                    self.give_up(Failure::new(FailureKind::NotReady, message), out);
                }
            },
            // Versions that do not know the question answer with an error, and are as ready.
            Message::Reply { id, result } if id == VERSION && initialized => {
                let version = result.ok().and_then(|answer| answer["version"].as_str().map(str::to_owned));
                self.state = State::Idle;
                out.push(Effect::Ready { version });
            }
            Message::Ask { request, .. } => deny_late(&request, odd, out),
            _ => out.push(odd("a message before the tool was ready")),
        }
    }

    fn idle(&mut self, message: Message, odd: impl Fn(&'static str) -> Effect, out: &mut Vec<Effect>) {
        self.state = State::Idle;
        match message {
            Message::Init { .. } => {
                out.push(odd("a turn that nobody asked for"));
                let message = "Claude Code began a turn by itself; its context can't be told clean any more";
                self.give_up(Failure::new(FailureKind::Protocol, message), out);
            }
            Message::Ask { request, .. } => deny_late(&request, odd, out),
            // The answer to an interrupt may come after the turn's end.
            Message::Reply { .. } => {}
            _ => out.push(odd("a message outside any turn")),
        }
    }

    fn clearing(
        &mut self,
        announced: Option<String>,
        message: Message,
        odd: impl Fn(&'static str) -> Effect,
        out: &mut Vec<Effect>,
    ) {
        match message {
            Message::Init { session } => self.state = State::Clearing { announced: Some(session) },
            Message::Result(finish) => {
                self.spent(&finish);
                // A turn of the tool's own that ends first belongs to the session that is being left.
                if finish.foreign() || finish.turns != Some(0) {
                    self.state = State::Clearing { announced };
                    return out.push(odd("the end of another turn, ahead of the reset"));
                }
                self.state = State::Idle;
                out.push(self.cleared(announced, &finish));
            }
            Message::Ask { request, .. } => {
                self.state = State::Clearing { announced };
                deny_late(&request, odd, out);
            }
            Message::Reply { .. } => self.state = State::Clearing { announced },
            _ => {
                self.state = State::Clearing { announced };
                out.push(odd("a message outside any turn"));
            }
        }
    }

    /// The proof: the reset's own end names the session that its beginning named, and nobody has seen it before.
    fn cleared(&mut self, announced: Option<String>, finish: &Finish) -> Effect {
        let slot = Slot(0);
        let session = &finish.session;
        if finish.is_error || session.is_empty() || announced.as_ref() != Some(session) {
            let message = format!("the reset was not acknowledged: {:?}", turn::cut(&finish.text));
            return Effect::NotFresh { slot, failure: Failure::new(FailureKind::Protocol, message) };
        }
        if !self.sessions.insert(session.clone()) {
            let message = format!("the reset went on with session {session}, which was used before");
            return Effect::NotFresh { slot, failure: Failure::new(FailureKind::Protocol, message) };
        }
        self.current = Some(session.clone());
        Effect::Fresh { slot, proof: Proof::NewSession(session.clone()) }
    }

    fn running(
        &mut self,
        mut running: Box<Running>,
        message: Message,
        odd: impl Fn(&'static str) -> Effect,
        out: &mut Vec<Effect>,
    ) {
        let slot = Slot(0);
        let activity = |activity| Effect::Activity { slot, activity };
        match message {
            Message::Init { session } => {
                if self.current.as_ref().is_some_and(|current| *current != session) {
                    out.push(odd("another session within a conversation"));
                }
                self.sessions.insert(session.clone());
                self.current = Some(session);
            }
            Message::Taken { id } if id == running.id => {
                running.taken = true;
                out.push(Effect::Accepted { slot });
            }
            Message::Taken { .. } => out.push(odd("the tool took a line that is not this turn's")),
            Message::Delta(text) => {
                running.streamed += text.len();
                out.push(activity(Activity::Text(text)));
            }
            Message::Said { text, error } => running.said(&text, error),
            Message::Structured(answer) => running.restate(&answer),
            Message::ToolStarted { id, name, input, nested } => {
                running.tool_started(id, &name, &input, nested);
                out.push(activity(Activity::ToolStarted(name)));
            }
            Message::ToolEnded { id, failed } => {
                if let Some(name) = running.tool_ended(&id, failed) {
                    out.push(activity(Activity::ToolEnded(name)));
                }
            }
            Message::Retry { attempt, delay, status, error } => {
                let status_words = status.map_or(String::new(), |status| format!("{status} "));
                let why = format!("{status_words}{error}, again in {:.1} s", delay.as_secs_f64());
                out.push(activity(Activity::Retrying { attempt, why: why.clone() }));
                let retry = Retry { delay, status, error };
                if delay > LONGEST_RETRY && running.stop == Stop::No {
                    let kind = if retry.is_rate_limit() {
                        FailureKind::RateLimited { retry_after: Some(delay) }
                    } else {
                        FailureKind::ModelError
                    };
                    interrupt(&mut running, Stop::GaveUp(Failure::new(kind, why)), out);
                }
                running.retry = Some(retry);
            }
            Message::Window { resets_at } => running.window = Some(resets_at),
            Message::Ask { request, tool, call, input } => self.asked(&mut running, &request, &tool, call, input, out),
            Message::Result(finish) if self.is_of_another(&finish) => {
                self.spent(&finish);
                out.push(odd("the end of a turn of another conversation"));
            }
            Message::Result(finish) => return self.ended(running, &finish, odd, out),
            // With replayed user lines the tool repeats our own answers, too.
            Message::Reply { id, result: Err(_) } if id == INTERRUPT => out.push(odd("the interrupt was refused")),
            Message::Reply { .. } => {}
            _ => out.push(odd("a message that does not belong to a turn")),
        }
        let most = self.definition.limits.output_bytes;
        if running.size() as u64 > most && running.stop == Stop::No {
            let failure = Failure::new(FailureKind::OutputLimit, format!("the answer is longer than {most} bytes"));
            interrupt(&mut running, Stop::GaveUp(failure), out);
        }
        self.state = State::Turn(running);
    }

    fn asked(
        &self,
        running: &mut Running,
        request: &str,
        tool: &str,
        call: String,
        input: Value,
        out: &mut Vec<Effect>,
    ) {
        let what = permission::describe(tool, &input);
        let decision = match permission::ask(tool, &input) {
            _ if running.stop != Stop::No => Decision::Deny("the turn was cancelled".into()),
            // A question to a person; nobody is there to answer it.
            Ask::Other(name) if name == "AskUserQuestion" || name == "ExitPlanMode" => {
                Decision::Deny("nobody can answer: decide by yourself, and say what you assumed".into())
            }
            ask => policy::decide(running.level, &self.directory, &ask),
        };
        let (write, activity) = match decision {
            Decision::Grant => (wire::allow_line(request, input), Activity::Granted(what)),
            Decision::Deny(reason) => {
                running.denied(call, what.clone());
                (wire::deny_line(request, &reason), Activity::Denied(what))
            }
        };
        out.push(Effect::Write(write));
        out.push(Effect::Activity { slot: Slot(0), activity });
    }

    fn ended(
        &mut self,
        running: Box<Running>,
        finish: &Finish,
        odd: impl Fn(&'static str) -> Effect,
        out: &mut Vec<Effect>,
    ) {
        let cost = self.spent(finish);
        if finish.foreign() {
            // The prompt was merged into that turn, or waits behind it in a context that is no longer the caller's.
            out.push(odd("the end of a turn that nobody asked for"));
            let failure = Failure::new(FailureKind::Protocol, "Claude Code ran a turn of its own in this conversation");
            let end = running.fail(failure.clone());
            out.push(Effect::Ended { slot: Slot(0), end: Box::new(end) });
            return self.give_up(failure, out);
        }
        let end = running.finish(finish, cost, &self.definition);
        self.state = State::Idle;
        out.push(Effect::Ended { slot: Slot(0), end: Box::new(end) });
    }

    /// Whether an end names a conversation that was left, or that nobody began.
    fn is_of_another(&self, finish: &Finish) -> bool {
        !finish.session.is_empty() && self.current.as_ref().is_some_and(|current| *current != finish.session)
    }

    /// What the process has spent since the last `result`. Its totals start again at zero in some versions.
    fn spent(&mut self, finish: &Finish) -> Option<f64> {
        let total = finish.cost?;
        let since = if total < self.cost { total } else { total - self.cost };
        self.cost = total;
        Some(since)
    }
}

/// Denies what nobody's turn asks for.
fn deny_late(request: &str, odd: impl Fn(&'static str) -> Effect, out: &mut Vec<Effect>) {
    out.push(odd("a permission asked for outside any turn"));
    out.push(Effect::Write(wire::deny_line(request, "no turn runs")));
}

fn interrupt(running: &mut Running, stop: Stop, out: &mut Vec<Effect>) {
    let interrupted = running.stop != Stop::No;
    running.stop = stop;
    if !interrupted {
        out.push(Effect::Write(wire::control_line(INTERRUPT, "interrupt")));
    }
}

/// The prompt as it was given, then the files, or an empty block that keeps the prompt from being the last one.
fn content(turn: &Turn) -> Value {
    let mut files = String::new();
    for file in &turn.files {
        if files.is_empty() {
            files.push_str("Files to work on:\n");
        }
        let path = file.to_string_lossy();
        if path.contains(['"', '\n', '\r']) {
            // No mention can hold these; the model gets the path as a quoted string.
            files.push_str(&format!("{path:?}\n"));
        } else {
            files.push_str(&format!("@\"{path}\"\n"));
        }
    }
    json!([{"type": "text", "text": turn.prompt}, {"type": "text", "text": files}])
}

impl Driver for Claude {
    fn launched(&mut self, out: &mut Vec<Effect>) {
        out.push(Effect::Write(wire::initialize_line(INITIALIZE, self.schema.as_ref())));
        out.push(Effect::Write(wire::control_line(VERSION, "get_binary_version")));
    }

    fn stdout(&mut self, bytes: &[u8], out: &mut Vec<Effect>) {
        self.lines.push(bytes);
        loop {
            match self.lines.next_line() {
                _ if matches!(self.state, State::Broken) => return,
                Ok(Some(line)) if line.is_empty() => {}
                Ok(Some(line)) => {
                    for message in wire::decode(&line) {
                        self.message(message, &line, out);
                    }
                }
                Ok(None) => return,
                Err(error) => return self.give_up(Failure::new(FailureKind::OutputLimit, error.to_string()), out),
            }
        }
    }

    fn answers_pings(&self) -> bool {
        true
    }

    fn request(&mut self, request: Request, out: &mut Vec<Effect>) {
        match request {
            Request::Open { slot, cwd } => self.open(slot, &cwd, out),
            Request::Reset { .. } => self.clear(out),
            Request::Begin { turn, .. } => self.begin(&turn, out),
            Request::Cancel { .. } => {
                if let State::Turn(running) = &mut self.state {
                    interrupt(running, Stop::Cancelled, out);
                }
            }
            Request::Context { slot, commands } => out.push(no_context_commands(slot, commands)),
            Request::Ping => out.push(Effect::Write(wire::control_line(PING, "get_binary_version"))),
            Request::Stop => out.push(Effect::CloseStdin),
            Request::Close { .. } => {}
        }
    }

    fn refuses(&self, turn: &Turn) -> Option<Failure> {
        let most = self.definition.limits.prompt_bytes;
        let message = if turn.prompt.trim().is_empty() {
            // The tool would drop it, or ask the model about "(no content)".
            "the prompt is empty".to_owned()
        } else if turn.prompt.len() as u64 > most {
            format!("the prompt has {} bytes, more than the {most} that are allowed", turn.prompt.len())
        } else {
            return None;
        };
        Some(Failure::new(FailureKind::BadInput, message))
    }
}
