//! Results that stand in the journal and never came to where they were to go: their run was killed in between, or could
//! not write them. A resume tells them.

use super::*;
use crate::exit::ExitStatus;
use crate::output::{self, JsonSink};

/// How results are told.
#[derive(Debug, Clone, Copy)]
pub struct Telling {
    /// Whether stdout is a terminal.
    pub terminal: bool,
    /// Only what went wrong.
    pub quiet: bool,
}

/// Such a result.
#[derive(Debug)]
pub struct Untold {
    place: usize,
    planned: Planned,
    outcome: Value,
}

impl Untold {
    /// Those of a batch, without those of jobs that are run again.
    ///
    /// # Errors
    /// The journal can't be read.
    pub(super) fn of(store: &Store, batch: &str, again: &[usize]) -> anyhow::Result<Vec<Self>> {
        let jobs = store.untold(batch)?.into_iter().filter(|job| !again.contains(&job.place));
        jobs.map(|job| {
            let planned = planned_job(&job, batch)?;
            let mut outcome = job.outcome.unwrap_or_default();
            if let Some(fields) = outcome.as_object_mut() {
                // What the journal keeps besides.
                fields.remove("left");
            }
            Ok(Self { place: job.place, planned, outcome })
        })
        .collect()
    }

    /// Whether what it changed still waits for its turn.
    pub(super) fn waits(&self) -> bool {
        self.outcome["change"]["state"] == ChangeState::Pending.name()
    }

    /// Tells it.
    fn tell(&self, json: Option<&mut JsonSink>, how: Telling) -> Result<(), output::Broken> {
        output::retell(&self.planned, &self.outcome, json, how.terminal)?;
        let how = match self.outcome["failure"]["message"].as_str() {
            Some(message) => format!("had failed: {message}"),
            None if how.quiet => return Ok(()),
            None => "had succeeded".to_owned(),
        };
        say::stderr(&format!(
            "{} {how}; its run was ended before it could tell",
            text::one_line(&self.planned.label())
        ));
        Ok(())
    }

    /// Tells results; `told` hears of each whose it is. How the command stands with that.
    ///
    /// # Errors
    /// A directory for answers can't be made; what `told` says.
    pub fn tell_all(
        all: &[Self],
        mut json: Option<&mut JsonSink>,
        how: Telling,
        mut told: impl FnMut(usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<ExitStatus> {
        let mut status = ExitStatus::Success;
        for untold in all {
            output::prepare(std::slice::from_ref(&untold.planned))?;
            if let Err(broken) = untold.tell(json.as_deref_mut(), how) {
                say::stderr(&format!("stopping: {broken}"));
                return Ok(ExitStatus::StoppedEarly);
            }
            told(untold.place)?;
            if !untold.outcome["failure"].is_null() {
                status = ExitStatus::SomeFailed;
            }
        }
        Ok(status)
    }
}

/// Tells, after a resumed run, the results that had to wait for their changes' turn.
///
/// # Errors
/// As [`Untold::tell_all`]; the journal can't be used.
pub fn tell_rest(path: &Path, batch: &str, json: Option<&mut JsonSink>, how: Telling) -> anyhow::Result<ExitStatus> {
    let mut store = open(Some(path))?;
    let _lease = Lease::take(store.path(), batch)?;
    let untold = Untold::of(&store, batch, &[])?;
    Untold::tell_all(&untold, json, how, |place| Ok(store.enter(&[Entry::Told { batch: batch.to_owned(), place }])?))
}
