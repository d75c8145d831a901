//! From Python's words to the engine's options.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use readyroom::cluster::{Wait, blocking};
use readyroom::tool::{AimFile, Definition, Layers, Registry};
use readyroom::{ClusterOptions, Failure};

/// What a launch is asked for, as `readyroom.cluster_manager` gives it: by then of the right types.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub struct Options {
    count: usize,
    routing: String,
    context: String,
    permissions: String,
    model: Option<String>,
    cwd: PathBuf,
    env: BTreeMap<String, String>,
    timeout: Option<f64>,
    wait: String,
    ready_timeout: f64,
    max_pending: usize,
    one_shot: bool,
    home: Option<PathBuf>,
    args: Vec<String>,
    record: Option<PathBuf>,
    tool_files: Vec<PathBuf>,
}

/// Seconds as Python counts them; those that no clock can hold are as long as there is.
pub fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::from_secs(u64::from(u32::MAX)))
}

impl Options {
    /// The engine's options.
    pub fn resolve(&self) -> PyResult<ClusterOptions> {
        let wait = match self.wait.as_str() {
            "first" => Wait::First,
            "all" => Wait::All,
            "none" => Wait::None,
            other => {
                return Err(PyValueError::new_err(format!("wait: `first`, `all` or `none`, not {other:?}")));
            }
        };
        let mut options = ClusterOptions {
            count: self.count,
            routing: word(&self.routing)?,
            context: word(&self.context)?,
            timeout: self.timeout.map(seconds),
            wait,
            ready_timeout: seconds(self.ready_timeout),
            max_pending: self.max_pending,
            record: self.record.clone(),
            one_shot: self.one_shot,
            ..ClusterOptions::default()
        };
        options.contract.cwd.clone_from(&self.cwd);
        options.contract.permissions = word(&self.permissions)?;
        options.contract.model.clone_from(&self.model);
        options.contract.env.clone_from(&self.env);
        options.contract.home.clone_from(&self.home);
        options.contract.args = self.args.iter().map(Into::into).collect();
        Ok(options)
    }

    /// The tool's definition and program, as the layers around the directory have them.
    pub fn locate(&self, tool: &str) -> Result<(Arc<Definition>, PathBuf), Failure> {
        let (definition, found) = registry(&self.cwd, &self.tool_files)?.locate(tool)?;
        Ok((definition, found.program))
    }
}

fn registry(directory: &Path, files: &[PathBuf]) -> Result<Registry, Failure> {
    let layers = files.iter().fold(Layers::around(directory), |layers, file| layers.with_file(file));
    Ok(Registry::load(&layers)?)
}

fn word<T: std::str::FromStr<Err: std::fmt::Display>>(word: &str) -> PyResult<T> {
    word.parse().map_err(|error: T::Err| PyValueError::new_err(error.to_string()))
}

/// A new caller: who has open turns and answers of their own.
#[pyfunction]
pub fn new_caller() -> u64 {
    blocking::new_caller().0
}

/// The registry around a directory in the guide's form, as JSON; with a file of that form over it.
#[pyfunction]
#[pyo3(signature = (directory, path=None))]
pub fn load_registry(directory: PathBuf, path: Option<PathBuf>) -> PyResult<String> {
    let mut layers = Layers::around(&directory);
    if let Some(path) = path {
        let path = directory.join(path);
        let base = path.parent().unwrap_or(&directory).to_owned();
        // Whoever names a file by hand trusts it.
        layers.aim = Some(AimFile { path, base, of_project: false });
    }
    let registry = Registry::load(&layers).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    Ok(registry.to_aim().to_string())
}
