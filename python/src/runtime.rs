//! The one runtime of this process, and how Python waits for what runs in it.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::Runtime;

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

/// Waits for a future without holding the interpreter. A signal's exception ends the wait.
pub fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = T> + Send) -> PyResult<T> {
    let runtime = runtime()?;
    let mut future = pin!(future);
    loop {
        let done = py.detach(|| runtime.block_on(async { tokio::time::timeout(SLICE, future.as_mut()).await.ok() }));
        match done {
            Some(value) => return Ok(value),
            None => py.check_signals()?,
        }
    }
}

/// What Python is told.
#[derive(Debug)]
pub enum News {
    /// A turn has ended.
    Response(Box<RawResponse>),
    /// Something happened, as JSON.
    Event(String),
    /// A cluster is down.
    Down,
}

/// Has Python called, on a thread that is there for this: the runtime's own must not wait for the interpreter.
pub fn call_back(callback: impl Into<Arc<Py<PyAny>>>, news: News) {
    static CALLS: OnceLock<Sender<(Arc<Py<PyAny>>, News)>> = OnceLock::new();
    let calls = CALLS.get_or_init(|| {
        let (calls, inbox) = mpsc::channel();
        // Without its thread, news is dropped, and who waits for it waits until the end of its time.
        let _ = std::thread::Builder::new().name("readyroom-calls".into()).spawn(move || {
            while let Ok((callback, news)) = inbox.recv() {
                call(&callback, news);
            }
        });
        calls
    });
    let _ = calls.send((callback.into(), news));
}

fn call(callback: &Arc<Py<PyAny>>, news: News) {
    // None: the interpreter is ending.
    Python::try_attach(|py| {
        let called = match news {
            News::Response(response) => callback.call1(py, (*response,)),
            News::Event(event) => callback.call1(py, (event,)),
            News::Down => callback.call0(py),
        };
        if let Err(error) = called {
            error.write_unraisable(py, Some(callback.bind(py)));
        }
    });
}
