//! Where results go: answers to stdout or to files of their own, outcomes as JSON lines. Everything is written and
//! flushed as it happens; what can't be written is an error that names the place.

mod answers;
mod files;
mod json;

pub use answers::render;
pub use files::UNFINISHED;
pub use json::{JsonSink, record};

use std::io;
use std::path::Path;
use std::sync::Arc;

use readyroom::{Outcome, Text};
use rustix::event::{PollFd, PollFlags};
use serde_json::Value;

use crate::plan::{Plan, Planned};
use crate::report::Ended;

use answers::Answers;

/// An output that can't be written any more.
#[derive(Debug)]
pub struct Broken {
    /// What was being written, where.
    what: String,
    error: io::Error,
}

impl Broken {
    /// What could not be written, where, and why.
    pub fn new(what: impl Into<String>, error: io::Error) -> Self {
        Self { what: what.into(), error }
    }

    /// Whether the reader went away (`| head`).
    pub fn reader_gone(&self) -> bool {
        self.error.kind() == io::ErrorKind::BrokenPipe
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.reader_gone() {
            return write!(f, "{} was closed by its reader", self.what);
        }
        write!(f, "{} can't be written: {}", self.what, self.error)?;
        match self.error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => f.write_str("; free some space and run again"),
            io::ErrorKind::PermissionDenied => f.write_str("; change its mode or name another"),
            _ => Ok(()),
        }
    }
}

/// Has `gone` called when whoever reads our stdout closes it, also while nothing is written.
///
/// # Errors
/// The system refuses a thread.
pub fn watch_stdout(gone: impl FnOnce(Broken) + Send + 'static) -> io::Result<()> {
    let watch = move || {
        let stdout = io::stdout();
        // No event is asked for: that the other end is gone is told all the same. A file or a terminal has none.
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        while matches!(rustix::event::poll(&mut fds, None), Err(rustix::io::Errno::INTR)) {}
        if fds[0].revents().contains(PollFlags::ERR) {
            gone(Broken::new("stdout", io::ErrorKind::BrokenPipe.into()));
        }
    };
    std::thread::Builder::new().name("stdout".into()).spawn(watch).map(drop)
}

/// All outputs of a run.
pub struct Outputs {
    plan: Arc<Plan>,
    /// Absent where the JSON lines take stdout for themselves.
    answers: Option<Answers>,
    json: Option<JsonSink>,
    /// Jobs whose results are where they were to go, and that nobody has asked for yet.
    told: Vec<usize>,
    /// Whether something could not be written.
    broken: bool,
}

impl Outputs {
    /// The outputs of `plan`: JSON lines to `json`, where it is given; answers to stdout unless the JSON lines go there.
    pub fn new(plan: Arc<Plan>, json: Option<JsonSink>, keep_order: bool, terminal: bool) -> Self {
        let to_stdout = !json.as_ref().is_some_and(JsonSink::is_stdout);
        let answers = to_stdout.then(|| Answers::new(Arc::clone(&plan), keep_order, terminal));
        Self { plan, answers, json, told: Vec::new(), broken: false }
    }

    /// Whether anything is written to stdout while the run goes on.
    pub fn use_stdout(&self) -> bool {
        self.json.as_ref().is_some_and(JsonSink::is_stdout) || (0..self.plan.jobs.len()).any(|job| self.shows(job))
    }

    /// Whether the answer of this job goes to stdout.
    pub fn shows(&self, job: usize) -> bool {
        self.answers.is_some() && self.plan.jobs[job].output.is_none()
    }

    /// Writes a job's outcome and answer. Where the answer's own file can't be written the answer goes to stdout, so
    /// that it is not lost.
    ///
    /// # Errors
    /// What can't be written; everything else is written all the same.
    pub fn ended(&mut self, ended: &Ended) -> Result<(), Broken> {
        let answer = ended.answer().filter(|_| ended.outcome.is_success()).map(|answer| &answer.text);
        let ToFile { left, file, mut result } = to_file(self.plan.jobs[ended.job].output.as_deref(), answer);
        if let Some(json) = &mut self.json {
            result = result.and(json.write(&self.plan, ended, file));
        }
        let mut out = Vec::new();
        match &mut self.answers {
            Some(answers) => result = result.and(answers.ended(ended.job, left, &mut out)),
            None => out.push(ended.job),
        }
        self.written(&result, out);
        result
    }

    /// Writes what was held back for the order.
    ///
    /// # Errors
    /// Stdout can't be written.
    pub fn finish(&mut self) -> Result<(), Broken> {
        let mut out = Vec::new();
        let result = self.answers.as_mut().map_or(Ok(()), |answers| answers.finish(&mut out));
        self.written(&result, out);
        result
    }

    /// Once something can't be written nothing counts as told: a resume tells too much rather than too little.
    fn written(&mut self, result: &Result<(), Broken>, out: Vec<usize>) {
        self.broken |= result.is_err();
        if !self.broken {
            self.told.extend(out);
        }
    }

    /// The jobs whose results have come to where they were to go since this was asked last.
    pub fn take_told(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.told)
    }
}

/// What became of an answer that may have a file of its own.
struct ToFile<'a> {
    /// The answer, where it is still to be shown.
    left: Option<&'a Text>,
    /// The file that has it.
    file: Option<&'a Path>,
    result: Result<(), Broken>,
}

fn to_file<'a>(path: Option<&'a Path>, answer: Option<&'a Text>) -> ToFile<'a> {
    let (Some(path), Some(text)) = (path, answer) else { return ToFile { left: answer, file: None, result: Ok(()) } };
    match files::write(path, text.as_bytes()) {
        Ok(()) => ToFile { left: None, file: Some(path), result: Ok(()) },
        Err(error) => {
            let what = format!("the answer's file {}", path.display());
            ToFile { left: answer, file: None, result: Err(Broken::new(what, error)) }
        }
    }
}

/// The answer in a job's record.
pub fn answer_of(record: &Value) -> Option<Text> {
    serde_json::from_value(record["answer"].clone()).ok()
}

/// Writes the result of a job from its record, as [`Outputs::ended`] would have: the run that had it was ended before it
/// could.
///
/// # Errors
/// As [`Outputs::ended`].
pub fn retell(planned: &Planned, record: &Value, json: Option<&mut JsonSink>, terminal: bool) -> Result<(), Broken> {
    let answer = answer_of(record);
    let answer = answer.as_ref().filter(|_| record["outcome"] == Outcome::Succeeded.name());
    let ToFile { left, mut result, .. } = to_file(planned.output.as_deref(), answer);
    let shows = !json.as_ref().is_some_and(|json| json.is_stdout());
    if let Some(json) = json {
        result = result.and(json.write_record(record));
    }
    match left {
        Some(answer) if shows => result.and(answers::write_one(&planned.label(), answer, terminal)),
        _ => result,
    }
}

/// Checks that answers can be written to their files, as far as that can be known, and makes their directories.
///
/// # Errors
/// A directory that can't be made.
pub fn prepare(jobs: &[Planned]) -> anyhow::Result<()> {
    use anyhow::Context as _;
    for path in jobs.iter().filter_map(|planned| planned.output.as_deref()) {
        // What is no plain file is written to where it stands.
        let replaced = !path.starts_with("/dev") && (path.is_file() || !path.exists());
        if let Some(parent) = path.parent().filter(|parent| replaced && !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).with_context(|| {
                format!("the directory {} of --output can't be made; name another", parent.display())
            })?;
            files::check_directory(parent).with_context(|| {
                format!("no answer can be written to the directory {} of --output; name another", parent.display())
            })?;
        }
    }
    Ok(())
}
