//! The `repl` driver: tools that read a line, evaluate, print, and have no protocol.
//!
//! A turn ends by a `fence`: a line behind the prompt, in the same write, that makes the tool print a marker with a
//! fresh nonce. Everything else that tools differ in is data from their definitions. The page is
//! `docs/design/drivers-repl.md`.

mod context;
pub mod fence;
mod frame;
mod reading;
mod screen;
mod settings;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use self::fence::{Finder, Nonce};
use self::screen::Head;
use self::settings::Settings;
use self::turn::{Running, Stop};
use super::{ContextCommand, ContextReply, Driver, Effect, Proof, Request, Slot, Turn, TurnEnd, TurnStatus};
use crate::error::{Exit, Failure, FailureKind};
use crate::job::{Answer, Mode, Permissions};
use crate::tool::{Contract, Definition};

/// The most that is kept of what comes while nothing runs.
const IDLE_BYTES: usize = 64 << 10;

/// The driver's state.
pub struct Repl {
    definition: Arc<Definition>,
    directory: PathBuf,
    permissions: Permissions,
    settings: Result<Settings, Failure>,
    phase: Phase,
    /// The fences that were sent and have not come back, in order.
    fences: VecDeque<Finder>,
    /// What was printed since the last fence.
    output: Vec<u8>,
    /// What the tool still prints for its last fence, and which is nobody's.
    owed: Vec<u8>,
    /// The mode in which the tool started.
    home: String,
    /// Whether the process's first conversation was given out.
    opened: bool,
}

/// What the conversation is at.
enum Phase {
    /// Not launched, or over.
    Closed,
    /// The first fence is on its way.
    Starting,
    /// Nothing runs.
    Idle,
    /// The reset command is on its way.
    Resetting,
    /// A context command is on its way; `replies` are those before it, `left` those behind it.
    Context { command: ContextCommand, left: VecDeque<ContextCommand>, replies: Vec<ContextReply> },
    /// The command that switches the mode is on its way; the turn follows.
    Switching { turn: Turn, mode: String, cancelled: bool },
    /// A prompt runs.
    Running(Box<Running>),
    /// A cancelled turn goes on in a tool that can't be interrupted; all that is left is to end the process.
    Abandoned,
    /// The turn has ended; the command that switches the mode back is on its way.
    Returning { end: Box<TurnEnd> },
}

impl Repl {
    /// A driver for a process launched by `contract`.
    pub fn new(contract: &Contract) -> Self {
        Self {
            definition: Arc::clone(&contract.definition),
            directory: contract.cwd.clone(),
            permissions: contract.permissions,
            settings: Settings::of(&contract.definition),
            phase: Phase::Closed,
            fences: VecDeque::new(),
            output: Vec::new(),
            owed: Vec::new(),
            home: String::new(),
            opened: false,
        }
    }

    /// Writes `input` and a new fence in one piece.
    fn write(&mut self, input: &str, out: &mut Vec<Effect>) {
        let Ok(settings) = &self.settings else { return };
        let plain = &settings.plain;
        let nonce = Nonce::fresh();
        let text = format!("{input}{}{}\n", plain.before_fence, nonce.fill(&plain.fence));
        self.fences.push_back(Finder::new(&plain.marker, &nonce));
        out.push(Effect::Write(text.into_bytes()));
    }

    /// Forgets what was printed while nothing ran. A tool with prompts may have printed a part of its next one: that
    /// is kept, since the head of the next answer begins with it.
    fn settle(&mut self, out: &mut Vec<Effect>) {
        let prompts = self.settings.as_ref().is_ok_and(|settings| settings.prompt_start.is_some());
        if !prompts && !self.output.is_empty() {
            out.push(late(&self.output));
            self.output.clear();
        }
    }

    fn broken(&mut self, failure: Failure, out: &mut Vec<Effect>) {
        self.phase = Phase::Closed;
        out.push(Effect::Broken(failure));
    }

    fn begin(&mut self, turn: Turn, out: &mut Vec<Effect>) {
        match self.mode_for(&turn) {
            Some(mode) => {
                self.write_switch(&mode, out);
                self.phase = Phase::Switching { turn, mode, cancelled: false };
            }
            None => self.run(turn, false, out),
        }
    }

    /// The mode to switch to for `turn`; `None` where the tool is in it, or has none.
    fn mode_for(&self, turn: &Turn) -> Option<String> {
        let modes = &self.settings.as_ref().ok()?.plain.modes;
        if modes.switch.is_empty() {
            return None;
        }
        let mode = if self.permissions.min(turn.permissions) == Permissions::Read { Mode::Ask } else { turn.mode };
        let special = [&modes.ask, &modes.architect].contains(&&self.home);
        let name = match mode {
            Mode::Default => return None,
            Mode::Ask => &modes.ask,
            // The mode that a person has set up edits, unless it is one of those that don't.
            Mode::Code if special => &modes.code,
            Mode::Code => return None,
            Mode::Architect => &modes.architect,
        };
        (!name.is_empty() && *name != self.home).then(|| name.clone())
    }

    fn write_switch(&mut self, mode: &str, out: &mut Vec<Effect>) {
        let Ok(settings) = &self.settings else { return };
        let modes = &settings.plain.modes;
        let name = if mode.is_empty() { &modes.unnamed } else { mode };
        let line = format!("{}\n", modes.switch.replace("{mode}", name));
        self.write(&line, out);
    }

    fn run(&mut self, turn: Turn, switched: bool, out: &mut Vec<Effect>) {
        let Ok(settings) = &self.settings else { return };
        let input = frame::frame(&settings.plain, &turn.prompt);
        let running = Running::new(turn.prompt, frame::lines(&input), switched);
        self.phase = Phase::Running(Box::new(running));
        self.write(&input, out);
    }

    /// Carries out the next context command that can be written; tells the replies after the last.
    fn context(&mut self, mut left: VecDeque<ContextCommand>, mut replies: Vec<ContextReply>, out: &mut Vec<Effect>) {
        let Ok(settings) = &self.settings else { return };
        while let Some(command) = left.pop_front() {
            match context::line(settings, &self.directory, &command) {
                Ok(line) => {
                    self.write(&line, out);
                    self.phase = Phase::Context { command, left, replies };
                    return;
                }
                Err(failure) => replies.push(ContextReply { command, result: Err(failure) }),
            }
        }
        self.phase = Phase::Idle;
        out.push(Effect::ContextDone { slot: SLOT, replies });
    }

    fn cancel(&mut self, out: &mut Vec<Effect>) {
        let Ok(settings) = &self.settings else { return };
        match &mut self.phase {
            Phase::Switching { cancelled, .. } => *cancelled = true,
            Phase::Running(running) if running.stop == Stop::No => {
                if !settings.plain.interrupt {
                    let answer = running.partial(settings, &self.output);
                    let end = TurnEnd { status: TurnStatus::Cancelled, answer };
                    out.push(Effect::Ended { slot: SLOT, end: Box::new(end) });
                    self.phase = Phase::Abandoned;
                    return;
                }
                running.stop = Stop::Wanted;
                self.stop_if_read(out);
            }
            _ => {}
        }
    }

    /// Interrupts a cancelled turn once the tool has read the whole prompt. Before that it would take the rest of the
    /// lines for prompts and commands of their own.
    fn stop_if_read(&mut self, out: &mut Vec<Effect>) {
        let Ok(settings) = &self.settings else { return };
        let Phase::Running(running) = &mut self.phase else { return };
        if running.stop == Stop::Wanted && running.head.end(settings, &self.output).is_some() {
            running.stop = Stop::Cancelled;
            self.interrupt(out);
        }
    }

    /// Interrupts, and sends another fence: where the turn has just ended, the signal may take its own fence away.
    fn interrupt(&mut self, out: &mut Vec<Effect>) {
        out.push(Effect::Interrupt);
        self.write("", out);
    }

    /// Takes what was printed up to a fence.
    fn fenced(&mut self, output: Vec<u8>, out: &mut Vec<Effect>) {
        let Ok(settings) = &self.settings else { return };
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Starting => {
                let group = |found: regex::bytes::Captures<'_>| {
                    found.get(1).map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned())
                };
                let version = settings.version.as_ref().and_then(|version| version.captures(&output)).and_then(group);
                self.home = screen::behind(settings, &output).map_or_else(String::new, |behind| behind.mode);
                self.phase = Phase::Idle;
                out.push(Effect::Ready { version });
            }
            Phase::Resetting => self.reset_done(&output, out),
            Phase::Context { command, left, mut replies } => {
                let end = screen::behind(settings, &output).map_or(output.len(), |behind| behind.end);
                let begin = Head::new(1).end(settings, &output).unwrap_or(0).min(end);
                let result = context::reply(settings, &output[begin..end]);
                replies.push(ContextReply { command, result });
                self.context(left, replies, out);
            }
            Phase::Switching { turn, mode, cancelled } => {
                let now = screen::behind(settings, &output).map(|behind| behind.mode);
                if cancelled {
                    let end = TurnEnd { status: TurnStatus::Cancelled, answer: Answer::default() };
                    self.end(end, true, out);
                } else if now.as_ref() == Some(&mode) {
                    self.run(turn, true, out);
                } else {
                    let failure = Failure::new(
                        FailureKind::NotRun,
                        format!("the tool did not switch to its mode `{mode}`, so the prompt was not sent"),
                    );
                    let failure = failure.with_stderr(reading::evidence(&output));
                    self.end(TurnEnd { status: TurnStatus::Failed(failure), answer: Answer::default() }, true, out);
                }
            }
            Phase::Running(running) => self.turn_fenced(*running, output, out),
            Phase::Returning { end } => {
                let home = screen::behind(settings, &output).is_some_and(|behind| behind.mode == self.home);
                out.push(Effect::Ended { slot: SLOT, end });
                if home {
                    self.phase = Phase::Idle;
                } else {
                    let failure = Failure::new(FailureKind::Protocol, "the tool did not return to its own mode");
                    self.broken(failure.with_stderr(reading::evidence(&output)), out);
                }
            }
            phase @ (Phase::Idle | Phase::Abandoned | Phase::Closed) => self.phase = phase,
        }
    }

    fn reset_done(&mut self, output: &[u8], out: &mut Vec<Effect>) {
        let Ok(settings) = &self.settings else { return };
        let ack = &settings.plain.reset_ack;
        let acknowledged = output.split(|byte| *byte == b'\n').any(|line| line == ack.as_bytes());
        let home = settings.prompt_line.is_none()
            || screen::behind(settings, output).is_some_and(|behind| behind.mode == self.home);
        self.phase = Phase::Idle;
        if acknowledged && home {
            out.push(Effect::Fresh { slot: SLOT, proof: Proof::Acknowledged(ack.clone()) });
            return;
        }
        let why =
            if acknowledged { "the tool is not in its own mode" } else { "the tool did not acknowledge its reset" };
        let failure = Failure::new(FailureKind::Protocol, why).with_stderr(reading::evidence(output));
        out.push(Effect::NotFresh { slot: SLOT, failure });
    }

    fn turn_fenced(&mut self, mut running: Running, output: Vec<u8>, out: &mut Vec<Effect>) {
        if !self.fences.is_empty() {
            running.ended.get_or_insert(output);
            self.phase = Phase::Running(Box::new(running));
            return;
        }
        let output = running.ended.take().unwrap_or(output);
        let end = self.verdict(&mut running, &output);
        self.end(end, running.switched, out);
    }

    fn verdict(&self, running: &mut Running, output: &[u8]) -> TurnEnd {
        let Ok(settings) = &self.settings else {
            return TurnEnd { status: TurnStatus::Cancelled, answer: Answer::default() };
        };
        let begin = running.head.end(settings, output);
        let read = reading::Output {
            bytes: output,
            begin,
            again: running.again,
            head: &running.head,
            prompt: &running.prompt,
        };
        let (verdict, answer) = reading::read(&self.definition, settings, &read);
        let status = match (&running.stop, verdict) {
            (Stop::Wanted | Stop::Cancelled, _) => TurnStatus::Cancelled,
            (Stop::GaveUp(failure), _) => TurnStatus::Failed(failure.clone()),
            (Stop::No, Ok(())) => TurnStatus::Succeeded,
            (Stop::No, Err(failure)) => TurnStatus::Failed(failure),
        };
        TurnEnd { status, answer }
    }

    /// Ends the turn, in the tool's own mode.
    fn end(&mut self, end: TurnEnd, switched: bool, out: &mut Vec<Effect>) {
        if switched {
            let home = self.home.clone();
            self.write_switch(&home, out);
            self.phase = Phase::Returning { end: Box::new(end) };
        } else {
            self.phase = Phase::Idle;
            out.push(Effect::Ended { slot: SLOT, end: Box::new(end) });
        }
    }

    /// Looks at what came in since the last time, while a fence is out.
    fn look(&mut self, out: &mut Vec<Effect>) {
        let limit = usize::try_from(self.definition.limits.output_bytes).unwrap_or(usize::MAX);
        if self.output.len() > limit {
            self.over_limit(limit, out);
            return;
        }
        let Ok(settings) = &self.settings else { return };
        match &mut self.phase {
            Phase::Starting => {
                let hopeless = settings.hopeless.as_ref().and_then(|hopeless| hopeless.find(&self.output));
                if let Some(found) = hopeless {
                    let text = reading::evidence(&self.output[found.start()..]);
                    let kind = self.definition.classify(&text).unwrap_or(FailureKind::NotReady);
                    let line = text.lines().next().unwrap_or_default().to_owned();
                    self.broken(Failure::new(kind, line).with_stderr(text), out);
                }
            }
            Phase::Running(running) if running.ended.is_none() => {
                let pending = self.fences.iter().map(Finder::pending).max().unwrap_or(0);
                let Some(begin) = running.head.end(settings, &self.output) else { return };
                // A tool without prompts does not tell what it has read.
                if !std::mem::replace(&mut running.accepted, true) && settings.prompt_start.is_some() {
                    out.push(Effect::Accepted { slot: SLOT });
                }
                running.tell(begin, &self.output[..self.output.len() - pending], out);
                self.retries(out);
                self.stop_if_read(out);
            }
            Phase::Idle if self.output.len() > IDLE_BYTES => {
                out.push(late(&self.output));
                self.output.clear();
            }
            _ => {}
        }
    }

    /// Tells announced retries; one too many ends the turn.
    fn retries(&mut self, out: &mut Vec<Effect>) {
        let Ok(settings) = &self.settings else { return };
        let Phase::Running(running) = &mut self.phase else { return };
        if let Some(failure) = running.retries(&self.definition, settings, &self.output, out) {
            running.stop = Stop::GaveUp(failure);
            self.interrupt(out);
        }
    }

    fn over_limit(&mut self, limit: usize, out: &mut Vec<Effect>) {
        let failure = Failure::new(FailureKind::OutputLimit, format!("the tool printed more than {limit} bytes"));
        let Ok(settings) = &self.settings else { return };
        if let Phase::Running(running) = &mut self.phase {
            let answer = running.partial(settings, &self.output);
            let end = TurnEnd { status: TurnStatus::Failed(failure.clone()), answer };
            out.push(Effect::Ended { slot: SLOT, end: Box::new(end) });
        }
        self.output = Vec::new();
        self.broken(failure, out);
    }
}

/// The only conversation.
const SLOT: Slot = Slot(0);

fn late(output: &[u8]) -> Effect {
    let raw = String::from_utf8_lossy(&output[output.len().saturating_sub(2 << 10)..]).into_owned();
    Effect::Anomaly { what: "output while nothing runs", raw }
}

impl Driver for Repl {
    fn launched(&mut self, out: &mut Vec<Effect>) {
        match &self.settings {
            Ok(settings) => {
                let mut start = settings.plain.start.clone();
                if !start.is_empty() && !start.ends_with('\n') {
                    start.push('\n');
                }
                self.phase = Phase::Starting;
                self.write(&start, out);
            }
            Err(failure) => out.push(Effect::Broken(failure.clone())),
        }
    }

    fn stdout(&mut self, mut bytes: &[u8], out: &mut Vec<Effect>) {
        while let (Some(owed), Some(byte)) = (self.owed.first(), bytes.first()) {
            if owed != byte {
                self.owed.clear();
                break;
            }
            self.owed.remove(0);
            bytes = &bytes[1..];
        }
        while !bytes.is_empty() {
            if matches!(self.phase, Phase::Closed | Phase::Abandoned) {
                return;
            }
            // Usually one fence is out; a second one after an interrupt, which may have swallowed the first.
            let found = self.fences.iter_mut().enumerate().find_map(|(nth, finder)| Some((nth, finder.feed(bytes)?)));
            let Some((nth, found)) = found else {
                self.output.extend_from_slice(bytes);
                self.look(out);
                return;
            };
            self.output.extend_from_slice(&bytes[..found.end]);
            bytes = &bytes[found.end..];
            self.fences.drain(..=nth);
            self.owed =
                self.settings.as_ref().map_or_else(|_| Vec::new(), |s| s.plain.after_fence.clone().into_bytes());
            let mut output = std::mem::take(&mut self.output);
            output.truncate(output.len() - found.length);
            self.fenced(output, out);
            // What follows the marker may begin with the owed bytes.
            if !bytes.is_empty() {
                self.stdout(bytes, out);
                return;
            }
        }
    }

    fn exited(&mut self, exit: Exit, out: &mut Vec<Effect>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let tail = &self.output[self.output.len().saturating_sub(4 << 10)..];
        let evidence = String::from_utf8_lossy(tail).trim().to_owned();
        match phase {
            Phase::Starting => {
                let kind = self.definition.classify(&evidence).unwrap_or(FailureKind::NotReady);
                let failure = Failure::new(kind, format!("the tool ended before it was ready: {exit}"));
                out.push(Effect::Broken(failure.with_stderr(evidence)));
            }
            Phase::Running(running) => {
                let status = match running.stop {
                    Stop::Wanted | Stop::Cancelled => TurnStatus::Cancelled,
                    Stop::GaveUp(failure) => TurnStatus::Failed(failure),
                    Stop::No => {
                        let kind = FailureKind::Crashed { exit: Some(exit) };
                        let failure = Failure::new(kind, format!("the tool ended in the turn: {exit}"));
                        TurnStatus::Failed(failure.with_stderr(evidence))
                    }
                };
                let answer = Answer { transcript: self.output.clone().into(), ..Answer::default() };
                out.push(Effect::Ended { slot: SLOT, end: Box::new(TurnEnd { status, answer }) });
            }
            Phase::Returning { end } => out.push(Effect::Ended { slot: SLOT, end }),
            _ => {}
        }
    }

    fn request(&mut self, request: Request, out: &mut Vec<Effect>) {
        let Ok(settings) = &self.settings else { return };
        let resets = !settings.plain.reset.is_empty();
        match request {
            Request::Open { .. } if !self.opened => {
                self.opened = true;
                out.push(Effect::Fresh { slot: SLOT, proof: Proof::NewProcess });
            }
            Request::Open { .. } | Request::Reset { .. } if matches!(self.phase, Phase::Abandoned) => {
                let why = "a cancelled turn goes on in the tool, which can't be interrupted";
                out.push(Effect::NotFresh { slot: SLOT, failure: Failure::new(FailureKind::Stalled, why) });
            }
            Request::Open { .. } | Request::Reset { .. } if resets => {
                let line = format!("{}\n", settings.plain.reset);
                self.phase = Phase::Resetting;
                self.write(&line, out);
            }
            Request::Open { .. } | Request::Reset { .. } => {
                let why = "the tool has no reset that could be proven; fresh means a new process";
                out.push(Effect::NotFresh { slot: SLOT, failure: Failure::new(FailureKind::NotReady, why) });
            }
            Request::Context { commands, .. } => {
                self.settle(out);
                self.context(commands.into(), Vec::new(), out);
            }
            Request::Begin { turn, .. } => {
                self.settle(out);
                self.begin(turn, out);
            }
            Request::Cancel { .. } => self.cancel(out),
            Request::Stop => {
                // What an interrupt does to such a tool is to end it.
                if matches!(self.phase, Phase::Abandoned) {
                    out.push(Effect::Interrupt);
                }
                out.push(Effect::CloseStdin);
            }
            // Nothing is answered without a fence, and a fence would wait behind the turn that runs.
            Request::Close { .. } | Request::Ping => {}
        }
    }

    fn refuses(&self, turn: &Turn) -> Option<Failure> {
        let settings = self.settings.as_ref().ok()?;
        let plain = &settings.plain;
        let bad = |why: String| Some(Failure::new(FailureKind::BadInput, why));
        let run = frame::longest_run(&turn.prompt);
        if plain.longest_run > 0 && run > plain.longest_run {
            return bad(format!(
                "the prompt holds {run} letters, spaces or signs in a row; {} hangs on more than {}: break them up",
                self.definition.id, plain.longest_run
            ));
        }
        let (_, why) = settings.refuse.iter().find(|(pattern, _)| pattern.is_match(turn.prompt.as_bytes()))?;
        bad(format!("the prompt can't be given to {}: {why}", self.definition.id))
    }
}
