//! What `submit` returns, and turns that are put together step by step.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Cluster, SubmitError};
use crate::driver::ContextCommand;
use crate::event::TurnId;
use crate::job::{Job, Mode, Outcome};
use crate::pool::{Input, Response, WeakPool};

/// A submitted job. Awaiting it gives its response. Dropping it cancels nothing. It does not keep the cluster alive: where
/// that is dropped first, the response says that the job was cancelled.
#[derive(Debug)]
pub struct Ticket {
    turn: TurnId,
    response: oneshot::Receiver<Response>,
    pool: WeakPool,
    done: Arc<AtomicU64>,
}

impl Ticket {
    pub(super) fn new(
        turn: TurnId,
        response: oneshot::Receiver<Response>,
        pool: WeakPool,
        done: Arc<AtomicU64>,
    ) -> Self {
        Self { turn, response, pool, done }
    }

    /// The turn's id, as events name it.
    pub fn id(&self) -> TurnId {
        self.turn
    }

    /// Cancels the job, queued or running. The response says so.
    pub fn cancel(&self) {
        self.pool.input(Input::Cancel(self.turn));
    }
}

impl Future for Ticket {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        Pin::new(&mut self.response).poll(context).map(|response| {
            self.done.fetch_add(1, Ordering::Relaxed);
            // The pool is gone only when the cluster was dropped with the job unfinished.
            response.unwrap_or_else(|_| Response::unrun(self.turn, String::new(), Outcome::Cancelled))
        })
    }
}

/// A turn that is put together: context commands first, then one prompt that submits it.
#[derive(Debug)]
#[must_use = "a turn runs when it gets its prompt"]
pub struct TurnBuilder {
    cluster: Cluster,
    commands: Vec<ContextCommand>,
    timeout: Option<Duration>,
    key: Option<String>,
    address: Option<usize>,
}

impl TurnBuilder {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster, commands: Vec::new(), timeout: None, key: None, address: None }
    }

    /// A file to work on, relative to the cluster's directory.
    #[expect(clippy::should_implement_trait, reason = "it is the word that the tools themselves use")]
    pub fn add(mut self, file: impl Into<PathBuf>) -> Self {
        self.commands.push(ContextCommand::Add(file.into()));
        self
    }

    /// A file to read and not to change, where the tool knows the difference.
    pub fn read_only(mut self, file: impl Into<PathBuf>) -> Self {
        self.commands.push(ContextCommand::ReadOnly(file.into()));
        self
    }

    /// Takes a file out again.
    pub fn drop_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.commands.push(ContextCommand::Drop(file.into()));
        self
    }

    /// The longest time that it may run.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The sticky key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The instance that it must go to.
    pub fn on(mut self, instance: usize) -> Self {
        self.address = Some(instance);
        self
    }

    /// Submits it with a question: edits are denied where the tool can deny them.
    ///
    /// # Errors
    /// As [`Cluster::submit`].
    pub fn ask(self, prompt: impl Into<String>) -> Result<Ticket, SubmitError> {
        self.with_mode(prompt, Mode::Ask)
    }

    /// Submits it with work to do.
    ///
    /// # Errors
    /// As [`Cluster::submit`].
    pub fn code(self, prompt: impl Into<String>) -> Result<Ticket, SubmitError> {
        self.with_mode(prompt, Mode::Code)
    }

    /// Submits it with a prompt for the tool as it is set up.
    ///
    /// # Errors
    /// As [`Cluster::submit`].
    pub fn prompt(self, prompt: impl Into<String>) -> Result<Ticket, SubmitError> {
        self.with_mode(prompt, Mode::Default)
    }

    fn with_mode(self, prompt: impl Into<String>, mode: Mode) -> Result<Ticket, SubmitError> {
        let Self { cluster, commands, timeout, key, address } = self;
        let job = Job { mode, timeout, key, ..Job::new(prompt) };
        cluster.submit_turn(commands, job, address, None, None)
    }
}
