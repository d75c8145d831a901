//! What a job did, and whether that is what it had to prove: looked at when nothing of its turns runs any more, in the directory
//! where it worked. Afterwards the directory is brought back to what jobs start from, unless the tool is to mend something.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::command::{self, CommandEnd};
use super::desk::{Desk, Look};
use crate::check::{Checks, Verify};
use crate::error::{Failure, FailureKind};
use crate::job::Text;
use crate::workspace::{Change, OUTER_GIT, WorkspaceError};

/// How often an answer without a value that fits is asked for again.
const SCHEMA_ROUNDS: u32 = 1;

/// How many of the last lines of a verify command go back to the tool.
const LINES: usize = 60;

/// How often a job was asked to mend what it had done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs {
    verify: u32,
    schema: u32,
}

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// What it has to prove; none where it did not come to a good end.
    pub checks: Option<Arc<Checks>>,
    /// Its own files, from the directory.
    pub files: Vec<PathBuf>,
    /// Its answer.
    pub answer: Text,
    /// How often it was asked to mend something.
    pub repairs: Repairs,
    /// Whether it can be asked to.
    pub mendable: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Reviewed {
    /// What it changed, in a worktree.
    pub change: Option<Change>,
    /// The value in its answer that fits its schema.
    pub value: Option<Value>,
    /// What that comes to.
    pub finding: Finding,
}

/// What a look at a job's work comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// All is well.
    Good,
    /// The tool is to mend something, in the same session.
    Again {
        /// What it is told.
        prompt: String,
        /// How often it was asked to, this time counted.
        repairs: Repairs,
    },
    /// It has failed.
    Bad(Failure),
    /// The worktree is of no use any more.
    Broken(Failure),
}

impl Review {
    /// Looks at what was done in `directory`, which is in the desk's worktree where there is one. Ends early when `stop` is true.
    pub(super) async fn carry_out(
        self,
        desk: Option<Arc<Desk>>,
        directory: PathBuf,
        stop: watch::Receiver<bool>,
    ) -> Reviewed {
        let (touched, change) = match at_desk(&desk, |desk| desk.look()).await {
            Ok(None | Some(Look::Untouched)) => (false, None),
            Ok(Some(Look::Touched(change))) => (true, change.map(|change| *change)),
            Err(failure) => return Reviewed { change: None, value: None, finding: Finding::Broken(failure) },
        };
        let (finding, value) = self.judge(change.as_ref(), desk.as_deref(), &directory, stop).await;
        let verified = self.checks.as_ref().is_some_and(|checks| checks.verify.is_some());
        if !touched && !verified {
            return Reviewed { change, value, finding };
        }
        let again = matches!(finding, Finding::Again { .. });
        let left = change.clone();
        let back = at_desk(&desk, move |desk| match again {
            // What the command changed is not the tool's.
            true => desk.restore(left.as_ref()),
            false => desk.reset(),
        });
        match back.await {
            Ok(_) => Reviewed { change, value, finding },
            Err(failure) => Reviewed { change, value, finding: Finding::Broken(failure) },
        }
    }

    async fn judge(
        &self,
        change: Option<&Change>,
        desk: Option<&Desk>,
        directory: &Path,
        stop: watch::Receiver<bool>,
    ) -> (Finding, Option<Value>) {
        let Some(checks) = &self.checks else { return (Finding::Good, None) };
        let bad = |kind, message: String| Finding::Bad(Failure::new(kind, message));
        if checks.require_change && change.is_none() {
            return (bad(FailureKind::Unchanged, "it changed no file".into()), None);
        }
        if checks.only_files
            && let (Some(change), Some(desk)) = (change, desk)
            && let Some(other) = self.out_of_scope(change, desk, directory)
        {
            let message = format!("it changed {}, which is none of its files", other.display());
            return (bad(FailureKind::OutOfScope, message), None);
        }
        let mut value = None;
        if let Some(schema) = &checks.schema {
            match schema.find(&self.answer.to_string_lossy()) {
                Ok(found) => value = Some(found),
                Err(why) if self.mendable && self.repairs.schema < SCHEMA_ROUNDS => {
                    let prompt = format!(
                        "Your answer does not fit the JSON Schema: {why}. Answer again, with nothing but a JSON value that \
                         fits this schema:\n{schema}"
                    );
                    let repairs = Repairs { schema: self.repairs.schema + 1, ..self.repairs };
                    return (Finding::Again { prompt, repairs }, None);
                }
                Err(why) => return (bad(FailureKind::Schema, why), None),
            }
        }
        match &checks.verify {
            Some(verify) => {
                let without: &[&str] = if desk.is_some() { &OUTER_GIT } else { &[] };
                (self.verify(verify, directory, without, stop).await, value)
            }
            None => (Finding::Good, value),
        }
    }

    /// A file that was changed and is none of the job's.
    fn out_of_scope(&self, change: &Change, desk: &Desk, directory: &Path) -> Option<PathBuf> {
        let own: Vec<PathBuf> = self.files.iter().map(|file| plain(&directory.join(file))).collect();
        let changed = change.edits.iter().flat_map(|edit| [Some(&edit.path), edit.from.as_ref()]).flatten();
        changed.into_iter().find(|path| !own.contains(&plain(&desk.root().join(path)))).cloned()
    }

    async fn verify(
        &self,
        verify: &Verify,
        directory: &Path,
        without: &[&str],
        stop: watch::Receiver<bool>,
    ) -> Finding {
        let (end, said) = command::run(&verify.argv, directory, without, verify.timeout, stop).await;
        match end {
            CommandEnd::Exited(exit) if exit.is_zero() => return Finding::Good,
            // Whoever stopped it knows how the job ended.
            CommandEnd::Stopped => return Finding::Good,
            _ => {}
        }
        let name = command::shown(&verify.argv);
        let mendable = self.mendable && self.repairs.verify < verify.rounds;
        if !mendable || matches!(end, CommandEnd::NotStarted(_)) {
            let failure = Failure::new(FailureKind::VerifyFailed, format!("`{name}` {end}"));
            return Finding::Bad(failure.with_stderr(said));
        }
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
        let prompt =
            format!("The check `{name}` {end}. The last that it said:\n\n{last}\n\nMend what it complains about.");
        Finding::Again { prompt, repairs: Repairs { verify: self.repairs.verify + 1, ..self.repairs } }
    }
}

async fn at_desk<T: Send + 'static>(
    desk: &Option<Arc<Desk>>,
    work: impl FnOnce(&Desk) -> Result<T, WorkspaceError> + Send + 'static,
) -> Result<Option<T>, Failure> {
    let Some(desk) = desk.clone() else { return Ok(None) };
    on_disk(move || work(&desk)).await.map(Some)
}

/// Runs what blocks on git.
pub(super) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WorkspaceError> + Send + 'static,
) -> Result<T, Failure> {
    let why = match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic.to_string(),
    };
    Err(Failure::new(FailureKind::NotReady, format!("the worktree can't be used: {why}")))
}

/// Without `.` and `..`, by the words alone.
fn plain(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    clean
}
