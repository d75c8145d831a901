//! What will be done: jobs, made from the command line, inputs and JSON lines, and the pools they fall into. Made
//! whole and checked before anything is started.

mod allot;
mod from;
mod inputs;
mod jobs;
mod placeholder;
mod records;

pub use jobs::plan;

use std::path::PathBuf;

use readyroom::{Job, Permissions};

/// All jobs, and the pools that run them.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The jobs in order; a job's number is its place from 1.
    pub jobs: Vec<Planned>,
    /// The pools in order of their first jobs.
    pub pools: Vec<Pool>,
}

/// A job with what the command knows about it.
#[derive(Debug, PartialEq)]
pub struct Planned {
    /// Its name from `--from`.
    pub id: Option<String>,
    /// Its input.
    pub input: Option<String>,
    /// The pool, by place.
    pub pool: usize,
    /// The file for its answer.
    pub output: Option<PathBuf>,
    /// What the library gets.
    pub job: Job,
}

/// Jobs of one tool, model, permission level and directory, which can share instances.
#[derive(Debug, PartialEq)]
pub struct Pool {
    /// What the jobs have in common.
    pub kind: PoolKind,
    /// How many instances it gets.
    pub instances: usize,
    /// The jobs, by place, in order.
    pub jobs: Vec<usize>,
}

/// What the jobs of a pool have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKind {
    /// The tool's name.
    pub tool: String,
    /// The model, where one was chosen.
    pub model: Option<String>,
    /// What the tool may do.
    pub permissions: Permissions,
    /// Where it works; absolute.
    pub directory: PathBuf,
}

impl Plan {
    /// A short name of a job for people: its id, its input, or its number.
    pub fn label(&self, job: usize) -> String {
        let planned = &self.jobs[job];
        match planned.id.as_ref().or(planned.input.as_ref()) {
            Some(name) => name.clone(),
            None => format!("job {}", job + 1),
        }
    }

    /// How many instances all pools have that can run at the same time, given a total.
    pub fn instances_at_once(&self, total: usize) -> usize {
        self.pools.iter().map(|pool| pool.instances).sum::<usize>().min(total)
    }
}
