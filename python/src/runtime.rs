//! The one runtime of this process, and how Python waits for what runs in it.

use std::cell::Cell;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::failure::cancelled;
use crate::response::RawResponse;

/// How long a wait goes on without a look at signals.
const SLICE: Duration = Duration::from_millis(50);

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static FORKED: AtomicBool = AtomicBool::new(false);

/// The runtime, started when it is first needed.
pub fn runtime() -> PyResult<&'static Runtime> {
    check_fork()?;
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let fresh = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("readyroom")
        .enable_all()
        .build()
        .map_err(|error| PyRuntimeError::new_err(format!("the runtime can't be started: {error}")))?;
    Ok(RUNTIME.get_or_init(|| fresh))
}

/// Refuses to go on in a forked child, where the runtime's threads do not exist.
fn check_fork() -> PyResult<()> {
    if FORKED.load(Ordering::Relaxed) {
        return Err(PyRuntimeError::new_err(
            "this process was forked from one that uses readyroom, whose threads are not here; start it with the \
             `spawn` method (multiprocessing.get_context(\"spawn\")), or launch the cluster after the fork",
        ));
    }
    Ok(())
}

/// Called in each forked child.
#[pyfunction]
pub fn forked() {
    if RUNTIME.get().is_some() {
        FORKED.store(true, Ordering::Relaxed);
        readyroom::process::leave_to_parent();
    }
}

/// Names the program that guards the tools' processes.
#[pyfunction]
pub fn use_program(path: PathBuf) {
    readyroom::process::use_program(path);
}

/// What ends waits of other threads.
#[pyclass(frozen)]
#[derive(Debug)]
pub struct Stop(watch::Sender<bool>);

#[pymethods]
impl Stop {
    #[new]
    fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Ends the waits that were given this, also those that begin later.
    fn set(&self) {
        self.0.send_replace(true);
    }

    fn is_set(&self) -> bool {
        *self.0.borrow()
    }
}

/// Waits for a future without holding the interpreter. A signal's exception ends the wait, and what drops the future.
pub fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = T> + Send) -> PyResult<T> {
    wait_until(py, None, future)
}

/// As [`wait`]; a stop ends it, too, as cancelled.
pub fn wait_until<T: Send>(py: Python<'_>, stop: Option<&Stop>, future: impl Future<Output = T> + Send) -> PyResult<T> {
    let runtime = runtime()?;
    let mut stopped = stop.map(|stop| stop.0.subscribe());
    let mut future = pin!(async {
        let stopped = async {
            match &mut stopped {
                Some(stopped) => drop(stopped.wait_for(|is_set| *is_set).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stopped => None,
            value = future => Some(value),
        }
    });
    loop {
        let done = py.detach(|| runtime.block_on(async { tokio::time::timeout(SLICE, future.as_mut()).await.ok() }));
        match done {
            Some(Some(value)) => return Ok(value),
            Some(None) => return Err(cancelled(py)),
            None => {
                hand_over();
                py.check_signals()?;
            }
        }
    }
}

/// What Python is told.
#[derive(Debug)]
pub enum News {
    /// A turn has ended.
    Response(Box<RawResponse>),
    /// A turn's tool has printed a piece of its answer.
    Piece(String),
    /// Something happened, as JSON.
    Event(String),
    /// A cluster is down.
    Down,
}

/// Whom to call, and with what.
type Call = (Arc<Py<PyAny>>, News);

/// What is called in order, one after the other.
struct Calls {
    outbox: Sender<Call>,
    inbox: Arc<Mutex<Receiver<Call>>>,
}

static CALLS: OnceLock<Calls> = OnceLock::new();

thread_local! {
    /// Whether this thread is the one that makes the calls.
    static MAKES_CALLS: Cell<bool> = const { Cell::new(false) };
}

/// Has Python called, on a thread that is there for this: the runtime's own must not wait for the interpreter.
pub fn call_back(callback: impl Into<Arc<Py<PyAny>>>, news: News) {
    let calls = CALLS.get_or_init(|| {
        let (outbox, inbox) = mpsc::channel();
        let inbox = Arc::new(Mutex::new(inbox));
        make_calls(Arc::clone(&inbox));
        Calls { outbox, inbox }
    });
    let _ = calls.outbox.send((callback.into(), news));
}

/// Called before a wait. Where it is a callback that waits, another thread makes the calls from now on: among them may
/// be the one that it waits for.
#[pyfunction]
pub fn hand_over() {
    if MAKES_CALLS.replace(false)
        && let Some(calls) = CALLS.get()
    {
        make_calls(Arc::clone(&calls.inbox));
    }
}

/// Makes the calls, on a thread of its own, until it hands that over.
fn make_calls(inbox: Arc<Mutex<Receiver<Call>>>) {
    // Without its thread, news is dropped, and who waits for it waits until the end of its time.
    let _ = std::thread::Builder::new().name("readyroom-calls".into()).spawn(move || {
        MAKES_CALLS.set(true);
        while MAKES_CALLS.get() {
            let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((callback, news)) = next else { return };
            call(&callback, news);
        }
    });
}

fn call(callback: &Arc<Py<PyAny>>, news: News) {
    // None: the interpreter is ending.
    Python::try_attach(|py| {
        let called = match news {
            News::Response(response) => callback.call1(py, (*response,)),
            News::Event(text) | News::Piece(text) => callback.call1(py, (text,)),
            News::Down => callback.call0(py),
        };
        if let Err(error) = called {
            error.write_unraisable(py, Some(callback.bind(py)));
        }
    });
}
