//! What the examples in the documentation run on: a real cluster of a small real tool, Python's own prompt.

use std::error::Error;
use std::sync::Arc;

use crate::cluster::{ClusterOptions, Wait, blocking};
use crate::job::{Context, Permissions};
use crate::tool::Definition;

const PYTHON: &str = r#"
id = "python3"
driver = "repl"
transport = "merged"
argv = ["python3", "-i", "-q", "-u"]
[permissions.full]
[repl]
frame = "python_exec"
start = "import sys;sys.ps1=sys.ps2='';sys.stdin=open('/dev/null')\n"
fence = "print(\"\\n{a}\"+\"{b}\")\n"
marker = "\n{a}{b}\n"
interrupt = true
"#;

/// Runs an example on a cluster of two Pythons that keep their context.
///
/// # Errors
/// What the example says, and what keeps the cluster from being launched.
pub fn run(example: impl FnOnce(blocking::Cluster) -> Result<(), Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    crate::init();
    let definition: Arc<Definition> = Arc::new(toml::from_str(PYTHON)?);
    let options =
        ClusterOptions::default().count(2).context(Context::Keep).permissions(Permissions::Full).wait(Wait::All);
    let cluster = blocking::Cluster::launch(definition, "python3".as_ref(), options)?;
    example(cluster.clone())?;
    cluster.shutdown();
    Ok(())
}

/// Runs an asynchronous example on the same.
///
/// # Errors
/// As [`run`].
pub fn run_async<F>(example: impl FnOnce(crate::Cluster) -> F) -> Result<(), Box<dyn Error>>
where
    F: Future<Output = Result<(), Box<dyn Error>>>,
{
    run(|cluster| cluster.block_on(example(cluster.as_async().clone())))
}
