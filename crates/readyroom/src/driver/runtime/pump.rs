//! The loop between a process's pipes and its driver.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};

use super::allowance::Allowance;
use super::record::Direction;
use super::{EXIT_AFTER_EOF, Recorder, Report, Seats, Stop, gone_failure, slot_of};
use crate::driver::{self, Driver, Effect, Request, TurnEnd, TurnStatus};
use crate::error::{Failure, FailureKind};
use crate::job::Answer;
use crate::process::{Handle, Output, Process, Stdin, Tail};
use crate::tool::{Contract, Limits};

const READ: usize = 64 << 10;
const STDERR_TAIL: usize = 16 << 10;

pub(super) struct Pump {
    driver: Box<dyn Driver>,
    handle: Handle,
    stdin: Option<Stdin>,
    stdout: Output,
    stderr: Option<Output>,
    outgoing: VecDeque<Vec<u8>>,
    written: usize,
    close_when_written: bool,
    seats: Arc<Seats>,
    allowance: Allowance,
    tail: Tail,
    recorder: Option<Recorder>,
    limits: Limits,
    broken: Option<Failure>,
    interrupted: Option<Instant>,
    /// When the next interrupt may be sent. Nothing is written before it, so that the order is kept.
    interrupt_due: Option<Instant>,
}

/// Why the loop was left.
enum Left {
    Exited,
    OutputClosed,
    Broken,
    Stop(Stop),
}

enum Step {
    Out(std::io::Result<usize>),
    Err(std::io::Result<usize>),
    Wrote(std::io::Result<usize>),
    Ask(Option<Request>),
    Stop(Stop),
    Exit,
    Interrupt,
}

impl Pump {
    pub(super) fn new(contract: &Contract, process: Process, seats: Arc<Seats>, recorder: Option<Recorder>) -> Self {
        Self {
            driver: driver::create(contract),
            stdin: Some(process.stdin),
            stdout: process.stdout,
            stderr: process.stderr,
            handle: process.handle,
            outgoing: VecDeque::new(),
            written: 0,
            close_when_written: false,
            seats,
            allowance: Allowance::new(contract.definition.limits.output_bytes),
            tail: Tail::new(STDERR_TAIL),
            recorder,
            limits: contract.definition.limits.clone(),
            broken: None,
            interrupted: None,
            interrupt_due: None,
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Request>, mut stop: watch::Receiver<Stop>) {
        let mut effects = Vec::new();
        self.driver.launched(&mut effects);
        self.carry_out(&mut effects).await;
        let left = self.converse(&mut inbox, &mut stop).await;
        let failure = self.finish(left, &mut inbox, &mut stop).await;
        inbox.close();
        self.seats.tell_all(Report::Gone(failure)).await;
    }

    /// Reads, writes and asks until the process, its protocol or its owner ends it.
    async fn converse(
        &mut self,
        inbox: &mut mpsc::UnboundedReceiver<Request>,
        stop: &mut watch::Receiver<Stop>,
    ) -> Left {
        let mut out = vec![0; READ];
        let mut err = vec![0; 8 << 10];
        let mut effects = Vec::new();
        let exit = self.handle.clone();
        let mut exit = pin!(exit.wait());
        let mut stderr = self.stderr.take();
        let left = loop {
            let step = tokio::select! {
                read = self.stdout.read(&mut out) => Step::Out(read),
                wrote = write_some(&mut self.stdin, self.outgoing.front(), self.written),
                    if self.interrupt_due.is_none() => Step::Wrote(wrote),
                () = due(self.interrupt_due) => Step::Interrupt,
                asked = inbox.recv() => Step::Ask(asked),
                read = read_some(&mut stderr, &mut err) => Step::Err(read),
                _ = &mut exit => Step::Exit,
                wish = wished(stop, Stop::No) => Step::Stop(wish),
            };
            match step {
                Step::Out(Ok(0) | Err(_)) => break Left::OutputClosed,
                Step::Out(Ok(read)) => self.take_output(&out[..read], &mut effects),
                Step::Err(Ok(0) | Err(_)) => stderr = None,
                Step::Err(Ok(read)) => self.take_stderr(&err[..read], &mut effects),
                Step::Wrote(Ok(wrote)) => self.advance(wrote),
                Step::Wrote(Err(_)) => {
                    // Nobody reads any more; the exit or the end of the output says why.
                    self.stdin = None;
                    self.outgoing.clear();
                }
                Step::Ask(Some(request)) => self.ask(request, &mut effects),
                Step::Ask(None) => break Left::Stop(Stop::Now),
                Step::Exit => break Left::Exited,
                Step::Interrupt => self.interrupt(),
                Step::Stop(wish) => break Left::Stop(wish),
            }
            self.carry_out(&mut effects).await;
            if self.broken.is_some() {
                break Left::Broken;
            }
        };
        self.stderr = stderr;
        left
    }

    fn ask(&mut self, request: Request, effects: &mut Vec<Effect>) {
        if let Request::Begin { slot, turn } = &request {
            let refusal = self.driver.refuses(turn).or_else(|| self.refuses_length(turn.prompt.len()));
            if let Some(failure) = refusal {
                effects.push(Effect::Ended {
                    slot: *slot,
                    end: Box::new(TurnEnd { status: TurnStatus::Failed(failure), answer: Answer::default() }),
                });
                return;
            }
            self.allowance.begin(*slot);
        }
        self.driver.request(request, effects);
    }

    fn refuses_length(&self, length: usize) -> Option<Failure> {
        (length as u64 > self.limits.prompt_bytes).then(|| {
            Failure::new(
                FailureKind::BadInput,
                format!("the prompt has {length} bytes; the tool's limit is {}", self.limits.prompt_bytes),
            )
        })
    }

    fn take_output(&mut self, bytes: &[u8], effects: &mut Vec<Effect>) {
        self.record(Direction::Out, bytes);
        if !self.allowance.print(bytes.len()) {
            self.broken = Some(Failure::new(
                FailureKind::OutputLimit,
                format!("the tool printed more than {} bytes in a turn", self.limits.output_bytes),
            ));
            return;
        }
        self.driver.stdout(bytes, effects);
    }

    fn take_stderr(&mut self, bytes: &[u8], effects: &mut Vec<Effect>) {
        self.record(Direction::Err, bytes);
        self.tail.push(bytes);
        self.driver.stderr(bytes, effects);
    }

    fn interrupt(&mut self) {
        self.interrupted = Some(Instant::now());
        self.interrupt_due = None;
        self.handle.interrupt();
    }

    fn advance(&mut self, wrote: usize) {
        self.written += wrote;
        if self.outgoing.front().is_some_and(|front| self.written >= front.len()) {
            self.outgoing.pop_front();
            self.written = 0;
        }
        if self.outgoing.is_empty() && self.close_when_written {
            self.stdin = None;
        }
    }

    fn record(&mut self, direction: Direction, bytes: &[u8]) {
        if let Some(recorder) = &mut self.recorder {
            recorder.write(direction, bytes);
        }
    }

    async fn carry_out(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            let slot = slot_of(&effect);
            let report = match effect {
                Effect::Write(bytes) => {
                    if let Some(recorder) = &mut self.recorder {
                        recorder.write(Direction::In, &bytes);
                    }
                    if self.stdin.is_some() && !bytes.is_empty() {
                        self.outgoing.push_back(bytes);
                    }
                    continue;
                }
                Effect::CloseStdin => {
                    self.close_when_written = true;
                    if self.outgoing.is_empty() {
                        self.stdin = None;
                    }
                    continue;
                }
                Effect::Interrupt => {
                    let gap = std::time::Duration::from_secs(self.limits.interrupt_gap_seconds);
                    match self.interrupted {
                        Some(last) if last.elapsed() < gap => self.interrupt_due = Some(last + gap),
                        _ => self.interrupt(),
                    }
                    continue;
                }
                Effect::Ready { version } => {
                    let pings = self.driver.answers_pings();
                    self.seats.tell_all(Report::Ready { version, pings }).await;
                    self.allowance.start_afresh();
                    continue;
                }
                Effect::Anomaly { what, raw } => {
                    tracing::debug!(what, raw, "anomaly");
                    if let Some(recorder) = &mut self.recorder {
                        recorder.write(Direction::Note, format!("{what}: {raw}").as_bytes());
                    }
                    self.seats.tell_all(Report::Anomaly(what.to_owned())).await;
                    continue;
                }
                Effect::Broken(failure) => {
                    self.broken.get_or_insert(failure);
                    continue;
                }
                Effect::Pong => {
                    self.seats.tell_all(Report::Pong).await;
                    continue;
                }
                Effect::Fresh { proof, .. } => Report::Fresh(proof),
                Effect::NotFresh { failure, .. } => Report::NotFresh(failure),
                Effect::ContextDone { replies, .. } => Report::ContextDone(replies),
                Effect::Accepted { .. } => Report::Accepted,
                Effect::Activity { activity, .. } => Report::Activity(activity),
                Effect::Ended { slot, end } => {
                    self.allowance.end(slot);
                    Report::Ended(end)
                }
            };
            if let Some(slot) = slot {
                self.seats.tell(slot, report).await;
            }
        }
    }

    /// Brings the process to its end, whatever state it is in, and says what the end was.
    async fn finish(
        &mut self,
        left: Left,
        inbox: &mut mpsc::UnboundedReceiver<Request>,
        stop: &mut watch::Receiver<Stop>,
    ) -> Failure {
        let grace = std::time::Duration::from_secs(self.limits.stop_seconds);
        let mut effects = Vec::new();
        match left {
            Left::Exited | Left::Broken => {}
            Left::OutputClosed => {
                let _ = tokio::time::timeout(EXIT_AFTER_EOF, self.handle.wait()).await;
            }
            Left::Stop(Stop::Orderly) => {
                self.driver.request(Request::Stop, &mut effects);
                self.carry_out(&mut effects).await;
                tokio::select! {
                    _ = self.wind_down(grace) => {}
                    _ = wished(stop, Stop::Orderly) => {}
                }
            }
            Left::Stop(_) => self.handle.kill_tree(),
        }
        // The tree first: a child that keeps the pipe open must not keep us waiting for its end.
        let exit = tokio::select! {
            biased;
            _ = wished(stop, Stop::Orderly) => self.handle.end_tree(std::time::Duration::ZERO).await,
            exit = self.handle.end_tree(grace) => exit,
        };
        self.drain(&mut effects).await;
        // Where the end was our own doing, how the process took it says nothing.
        if self.broken.is_none() {
            self.driver.exited(exit, &mut effects);
        }
        self.carry_out(&mut effects).await;
        while let Ok(request) = inbox.try_recv() {
            tracing::trace!(?request, "a request came too late");
        }
        self.broken.take().map_or_else(
            || gone_failure(exit, self.tail.text()),
            |failure| if failure.evidence.is_empty() { failure.with_stderr(self.tail.text()) } else { failure },
        )
    }

    /// Writes what is left, reads what comes, until the process has exited or the grace is over.
    async fn wind_down(&mut self, grace: std::time::Duration) {
        let handle = self.handle.clone();
        let mut effects = Vec::new();
        let mut buffer = vec![0; READ];
        let mut err = vec![0; 8 << 10];
        let mut stderr = self.stderr.take();
        let deadline = tokio::time::sleep(grace);
        let mut deadline = pin!(deadline);
        let mut exit = pin!(handle.wait());
        let mut reading = true;
        loop {
            tokio::select! {
                read = self.stdout.read(&mut buffer), if reading => match read {
                    Ok(0) | Err(_) => reading = false,
                    Ok(read) => {
                        self.take_output(&buffer[..read], &mut effects);
                        self.carry_out(&mut effects).await;
                    }
                },
                read = read_some(&mut stderr, &mut err) => match read {
                    Ok(0) | Err(_) => stderr = None,
                    Ok(read) => self.take_stderr(&err[..read], &mut effects),
                },
                wrote = write_some(&mut self.stdin, self.outgoing.front(), self.written) => match wrote {
                    Ok(wrote) => self.advance(wrote),
                    Err(_) => {
                        self.stdin = None;
                        self.outgoing.clear();
                    }
                },
                _ = &mut exit => break,
                () = &mut deadline => break,
            }
        }
        self.stderr = stderr;
    }

    /// Reads what is still in the pipes after the whole tree has ended.
    async fn drain(&mut self, effects: &mut Vec<Effect>) {
        let mut buffer = vec![0; READ];
        while let Ok(Ok(read)) = tokio::time::timeout(EXIT_AFTER_EOF, self.stdout.read(&mut buffer)).await {
            if read == 0 || self.broken.is_some() {
                break;
            }
            self.take_output(&buffer[..read], effects);
            self.carry_out(effects).await;
        }
        let Some(mut stderr) = self.stderr.take() else { return };
        while let Ok(Ok(read)) = tokio::time::timeout(EXIT_AFTER_EOF, stderr.read(&mut buffer)).await {
            if read == 0 {
                break;
            }
            self.take_stderr(&buffer[..read], effects);
        }
    }
}

impl Drop for Pump {
    /// A driver that panics takes its process with it, and no instance may wait for what will never come.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.handle.kill_tree();
            self.seats.abandon(Failure::new(FailureKind::Protocol, "the conversation with the process broke down"));
        }
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn write_some(stdin: &mut Option<Stdin>, front: Option<&Vec<u8>>, written: usize) -> std::io::Result<usize> {
    match (stdin, front) {
        (Some(stdin), Some(front)) => stdin.write(&front[written..]).await,
        _ => std::future::pending().await,
    }
}

async fn read_some(from: &mut Option<Output>, buffer: &mut [u8]) -> std::io::Result<usize> {
    match from {
        Some(from) => from.read(buffer).await,
        None => std::future::pending().await,
    }
}

/// Resolves when the wish is stronger than `than`. A link whose last handle is gone is wished away at once.
async fn wished(stop: &mut watch::Receiver<Stop>, than: Stop) -> Stop {
    match stop.wait_for(|wish| *wish > than).await {
        Ok(wish) => *wish,
        Err(_) => Stop::Now,
    }
}
