//! Outcomes as JSON lines, each written and flushed as it happens. The form is described by
//! `docs/outcome.schema.json`; `"v"` names its version.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use readyroom::driver::Proof;
use readyroom::journal::ChangeState;
use readyroom::workspace::Edit;
use readyroom::{Denials, Exit, FailureKind, Origin, Outcome, Permissions, Text};
use serde::Serialize;

use super::Broken;
use crate::plan::Plan;
use crate::report::{Ended, JobChange, text};

/// The version of the form. A reader may rely on the fields of the version that it knows.
const VERSION: u32 = 1;

/// Where JSON lines go.
pub struct JsonSink {
    name: String,
    path: Option<PathBuf>,
    out: Box<dyn Write + Send>,
    stdout: bool,
}

impl JsonSink {
    /// Opens `path`, or stdout for `-` and its other name, `/dev/stdout`. What a file holds stays, and lines go behind it.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") || path == Path::new("/dev/stdout") {
            return Ok(Self { name: "stdout".into(), path: None, out: Box::new(io::stdout()), stdout: true });
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("--json {} can't be opened; name another file", path.display()))?;
        Ok(Self {
            name: format!("--json {}", path.display()),
            path: Some(path.to_owned()),
            out: Box::new(file),
            stdout: false,
        })
    }

    /// The same place once more.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn again(&self) -> anyhow::Result<Self> {
        Self::open(self.path.as_deref().unwrap_or(Path::new("-")))
    }

    /// Takes away what a file held: for a batch that is new, once it is certain that it runs.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn begin_anew(&self) -> anyhow::Result<()> {
        let Some(path) = self.path.as_deref().filter(|path| path.is_file()) else { return Ok(()) };
        let emptied = OpenOptions::new().write(true).truncate(true).open(path);
        emptied.map(drop).with_context(|| format!("--json {} can't be emptied; name another file", path.display()))
    }

    /// The file that the lines go to.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Whether the lines go to stdout.
    pub fn is_stdout(&self) -> bool {
        self.stdout
    }

    /// Writes the line of a job that has ended; `file` got its answer.
    pub fn write(&mut self, plan: &Plan, ended: &Ended, file: Option<&Path>) -> Result<(), Broken> {
        self.write_line(&Line::new(plan, ended, file))
    }

    /// Writes the line of a job from its [`record`].
    pub fn write_record(&mut self, record: &serde_json::Value) -> Result<(), Broken> {
        self.write_line(record)
    }

    fn write_line(&mut self, line: &impl Serialize) -> Result<(), Broken> {
        let broken = |name: &str, error| Broken::new(name, error);
        let mut line = serde_json::to_vec(line).map_err(|error| broken(&self.name, io::Error::other(error)))?;
        line.push(b'\n');
        self.out.write_all(&line).and_then(|()| self.out.flush()).map_err(|error| broken(&self.name, error))
    }
}

/// What [`JsonSink::write`] would write.
///
/// # Errors
/// It has no form as JSON.
pub fn record(plan: &Plan, ended: &Ended, file: Option<&Path>) -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(Line::new(plan, ended, file))
}

/// A line: what became of one job.
#[derive(Debug, Serialize)]
struct Line<'a> {
    v: u32,
    batch: Option<&'a str>,
    job: usize,
    id: Option<&'a str>,
    input: Option<&'a str>,
    tool: &'a str,
    model: Option<&'a str>,
    permissions: Permissions,
    directory: Cow<'a, str>,
    files: Vec<Cow<'a, str>>,
    outcome: &'static str,
    failure: Option<Problem<'a>>,
    answer: Option<&'a Text>,
    turns: Vec<TurnLine<'a>>,
    output: Option<Cow<'a, str>>,
    usage: &'a readyroom::Usage,
    seconds: Seconds,
    /// Absent where it had no worktree of its own, or changed nothing.
    change: Option<ChangeLine<'a>>,
    /// Absent where no schema was asked for, or nothing fits.
    value: Option<&'a serde_json::Value>,
    instance: Option<usize>,
    generation: Option<u32>,
    proof: Option<&'a Proof>,
    context_lost: bool,
    ended_at: jiff::Timestamp,
}

/// Why a job did not succeed.
#[derive(Debug, Serialize)]
struct Problem<'a> {
    kind: &'static str,
    message: String,
    evidence: &'a str,
    retryable: bool,
    /// Absent where nobody can say (a time limit).
    origin: Option<Origin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<jiff::Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<Exit>,
}

impl<'a> Problem<'a> {
    fn of(outcome: &'a Outcome) -> Option<Self> {
        match outcome {
            Outcome::Failed(failure) => {
                let (mut retry_after_seconds, mut window, mut ended) = (None, None, None);
                match &failure.kind {
                    FailureKind::RateLimited { retry_after } => {
                        retry_after_seconds = retry_after.map(|after| after.as_secs_f64());
                    }
                    FailureKind::UsageWindow { resets_at } => window = *resets_at,
                    FailureKind::Crashed { exit } => ended = *exit,
                    _ => {}
                }
                Some(Self {
                    kind: failure.kind.name(),
                    message: failure.message.clone(),
                    evidence: &failure.evidence,
                    retryable: failure.kind.retryable(),
                    origin: Some(failure.kind.origin()),
                    retry_after_seconds,
                    resets_at: window,
                    exit: ended,
                })
            }
            Outcome::TimedOut { after, evidence } => Some(Self {
                kind: "timed_out",
                message: format!("not done after {}", text::time(*after)),
                evidence,
                retryable: true,
                origin: None,
                retry_after_seconds: None,
                resets_at: None,
                exit: None,
            }),
            _ => None,
        }
    }
}

/// What a job changed in its worktree.
#[derive(Debug, Serialize)]
struct ChangeLine<'a> {
    state: ChangeState,
    branch: Option<&'a str>,
    base: &'a str,
    files: &'a [Edit],
    left_alone: Vec<Cow<'a, str>>,
}

/// A turn's answer.
#[derive(Debug, Serialize)]
struct TurnLine<'a> {
    answer: &'a Text,
    transcript: &'a Text,
    /// Absent where the protocol does not tell.
    denials: Option<&'a [String]>,
    changed_files: Vec<Cow<'a, str>>,
    usage: &'a readyroom::Usage,
}

/// Where the time went, in seconds.
#[derive(Debug, Serialize)]
struct Seconds {
    queued: f64,
    turn: f64,
    reset: f64,
}

impl<'a> Line<'a> {
    fn new(plan: &'a Plan, ended: &'a Ended, file: Option<&'a Path>) -> Self {
        let planned = &plan.jobs[ended.job];
        let kind = &plan.pools[planned.pool].kind;
        let outcome = match &ended.outcome {
            Outcome::Failed(_) => "failed",
            other => other.name(),
        };
        Self {
            v: VERSION,
            batch: plan.batch.as_deref(),
            job: planned.number,
            id: planned.id.as_deref(),
            input: planned.input.as_deref(),
            tool: &kind.tool,
            model: kind.model.as_deref(),
            permissions: kind.permissions,
            directory: kind.directory.to_string_lossy(),
            files: names(&planned.job.files),
            outcome,
            failure: Problem::of(&ended.outcome),
            answer: ended.answer().map(|answer| &answer.text),
            turns: ended
                .turns
                .iter()
                .map(|answer| TurnLine {
                    answer: &answer.text,
                    transcript: &answer.transcript,
                    denials: match &answer.denials {
                        Denials::Known(denials) => Some(denials),
                        Denials::Unknown => None,
                    },
                    changed_files: names(&answer.changed_files),
                    usage: &answer.usage,
                })
                .collect(),
            output: file.map(Path::to_string_lossy),
            usage: &ended.usage,
            seconds: Seconds {
                queued: ended.timings.queued.as_secs_f64(),
                turn: ended.timings.turn.as_secs_f64(),
                reset: ended.timings.reset.as_secs_f64(),
            },
            change: ended.change.as_ref().map(|JobChange { change, state, branch }| ChangeLine {
                state: *state,
                branch: branch.as_deref(),
                base: &change.base,
                files: &change.edits,
                left_alone: names(&change.left_alone),
            }),
            value: ended.value.as_ref(),
            instance: ended.instance,
            generation: ended.instance.map(|_| ended.generation),
            proof: ended.proof.as_ref(),
            context_lost: ended.context_lost,
            ended_at: jiff::Timestamp::now(),
        }
    }
}

fn names(paths: &[PathBuf]) -> Vec<Cow<'_, str>> {
    paths.iter().map(|path| path.to_string_lossy()).collect()
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
