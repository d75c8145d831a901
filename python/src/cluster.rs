//! A cluster's calls.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use readyroom::cluster::CallerId;
use readyroom::driver::Activity;
use readyroom::event::TurnId;
use readyroom::{Event, Job, Mode};
use serde::Serialize;

use crate::failure::{exception, launch_exception, submit_exception};
use crate::options::{Options, seconds};
use crate::response::RawResponse;
use crate::runtime::{News, Stop, call_back, runtime, wait, wait_until};

/// Launches a cluster, and waits for as many instances as the options ask.
#[pyfunction]
#[pyo3(signature = (tool, options, stop=None))]
pub fn launch(py: Python<'_>, tool: &str, options: Options, stop: Option<&Stop>) -> PyResult<Cluster> {
    let resolved = options.resolve()?;
    let (definition, program) = options.locate(tool).map_err(|failure| exception(py, &failure))?;
    // Where a signal or a stop ends the wait, the launch is dropped, and all that it has started ends.
    let launched = wait_until(py, stop, readyroom::Cluster::launch(definition, &program, resolved))?;
    launched.map(|cluster| Cluster { cluster }).map_err(|error| launch_exception(py, &error))
}

/// A pool of warm instances.
#[pyclass(frozen, weakref)]
#[derive(Debug)]
pub struct Cluster {
    cluster: readyroom::Cluster,
}

/// What is submitted.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
struct Order {
    prompts: Vec<String>,
    files: Vec<PathBuf>,
    mode: String,
    key: Option<String>,
    timeout: Option<f64>,
}

#[pymethods]
impl Cluster {
    #[getter]
    fn tool(&self) -> &str {
        self.cluster.tool()
    }

    #[pyo3(signature = (caller, text, instance=None, key=None))]
    fn send(
        &self,
        py: Python<'_>,
        caller: u64,
        text: &str,
        instance: Option<usize>,
        key: Option<String>,
    ) -> PyResult<usize> {
        let sent = wait(py, self.cluster.send_as(CallerId(caller), text, instance, key))?;
        sent.map_err(|error| submit_exception(py, &error))
    }

    #[pyo3(signature = (caller, timeout, instance=None))]
    fn read(
        &self,
        py: Python<'_>,
        caller: u64,
        timeout: f64,
        instance: Option<usize>,
    ) -> PyResult<Option<RawResponse>> {
        let response = wait(py, self.cluster.read_as(CallerId(caller), instance, seconds(timeout)))?;
        Ok(response.map(RawResponse))
    }

    /// A caller is gone.
    fn forget(&self, caller: u64) -> PyResult<()> {
        let _guard = runtime()?.enter();
        self.cluster.forget_caller(CallerId(caller));
        Ok(())
    }

    /// Submits a job. Its response goes to `callback`, on a thread of ours, and before that the pieces of its answer, as
    /// the tool prints them, to `pieces`.
    #[pyo3(signature = (order, callback, pieces=None))]
    fn submit(&self, py: Python<'_>, order: Order, callback: Py<PyAny>, pieces: Option<Py<PyAny>>) -> PyResult<Ticket> {
        let mode = match order.mode.as_str() {
            "default" => Mode::Default,
            "ask" => Mode::Ask,
            "code" => Mode::Code,
            "architect" => Mode::Architect,
            other => return Err(PyValueError::new_err(format!("mode: no mode {other:?}"))),
        };
        let timeout = order.timeout.map(seconds);
        let job = Job { prompts: order.prompts, files: order.files, mode, key: order.key, timeout, ..Job::default() };
        let runtime = runtime()?;
        let events = pieces.map(|pieces| (self.cluster.events(), pieces));
        let ticket = self.cluster.submit(job).map_err(|error| submit_exception(py, &error))?;
        let turn = ticket.id();
        runtime.spawn(async move {
            if let Some((events, pieces)) = events {
                tell_pieces(events, turn, pieces).await;
            }
            call_back(callback, News::Response(Box::new(RawResponse(ticket.await))));
        });
        Ok(Ticket { cluster: self.cluster.clone(), turn })
    }

    /// Turns that are queued, run, or wait to be read.
    fn pending(&self) -> usize {
        self.cluster.pending()
    }

    fn check_health(&self, py: Python<'_>) -> PyResult<String> {
        let health = wait(py, self.cluster.check_health())?;
        Ok(json(&health))
    }

    fn status(&self, py: Python<'_>) -> PyResult<String> {
        let status = wait(py, self.cluster.status())?;
        Ok(json(&status))
    }

    /// Calls of `send` and jobs submitted; responses handed out.
    fn metrics(&self) -> (u64, u64) {
        let metrics = self.cluster.metrics();
        (metrics.total_sent, metrics.total_received)
    }

    #[pyo3(signature = (instance, force, stop=None))]
    fn restart(&self, py: Python<'_>, instance: usize, force: bool, stop: Option<&Stop>) -> PyResult<()> {
        let restarted = wait_until(py, stop, self.cluster.restart_instance(instance, force))?;
        restarted.map_err(|failure| exception(py, &failure))
    }

    #[pyo3(signature = (stop=None))]
    fn drain(&self, py: Python<'_>, stop: Option<&Stop>) -> PyResult<()> {
        wait_until(py, stop, self.cluster.drain())
    }

    /// How many turns it dropped.
    fn shutdown(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(wait(py, self.cluster.shutdown())?.dropped)
    }

    /// Shuts down without being waited for; `callback` is called when that is done.
    fn shutdown_soon(&self, callback: Py<PyAny>) -> PyResult<()> {
        let cluster = self.cluster.clone();
        runtime()?.spawn(async move {
            cluster.shutdown().await;
            call_back(callback, News::Down);
        });
        Ok(())
    }

    /// Has `callback` called with each event, as JSON; those of turns only with `turns`.
    fn on_event(&self, callback: Py<PyAny>, turns: bool) -> PyResult<()> {
        let mut events = self.cluster.events();
        let callback = Arc::new(callback);
        runtime()?.spawn(async move {
            while let Some(event) = events.recv().await {
                let of_turn = matches!(
                    event,
                    Event::TurnStarted { .. }
                        | Event::TurnProgressed { .. }
                        | Event::TurnEnded { .. }
                        | Event::ContextProven { .. }
                );
                if turns || !of_turn {
                    call_back(Arc::clone(&callback), News::Event(json(&event)));
                }
            }
        });
        Ok(())
    }

    fn events(&self) -> Events {
        Events { events: Arc::new(tokio::sync::Mutex::new(self.cluster.events())) }
    }
}

/// Tells the pieces of a turn's answer until it ends, or until one was missed: the whole is in the response.
async fn tell_pieces(mut events: readyroom::cluster::Events, turn: TurnId, callback: Py<PyAny>) {
    let callback = Arc::new(callback);
    while let Some(event) = events.recv().await {
        match event {
            Event::TurnProgressed { turn: of, activity: Activity::Text(piece), .. } if of == turn => {
                call_back(Arc::clone(&callback), News::Piece(piece));
            }
            Event::TurnEnded { turn: of, .. } if of == turn => return,
            Event::EventsMissed { .. } => return,
            _ => {}
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data has a form in JSON")
}

/// A job that was submitted.
#[pyclass(frozen)]
#[derive(Debug)]
pub struct Ticket {
    cluster: readyroom::Cluster,
    turn: TurnId,
}

#[pymethods]
impl Ticket {
    #[getter]
    fn turn(&self) -> u64 {
        self.turn.0
    }

    fn cancel(&self) {
        self.cluster.cancel(self.turn);
    }
}

/// The events of a cluster.
#[pyclass(frozen)]
#[derive(Debug)]
pub struct Events {
    events: Arc<tokio::sync::Mutex<readyroom::cluster::Events>>,
}

#[pymethods]
impl Events {
    /// The next event as JSON; None when the time is over, or no event will come any more.
    #[pyo3(signature = (timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<String>> {
        let events = Arc::clone(&self.events);
        let next = async move { events.lock().await.recv().await };
        let event = match timeout {
            None => wait(py, next)?,
            Some(timeout) => {
                let limit = seconds(timeout);
                match wait(py, async move { tokio::time::timeout(limit, next).await })? {
                    Ok(event) => event,
                    Err(_) => return Ok(None),
                }
            }
        };
        Ok(event.map(|event| json(&event)))
    }
}
