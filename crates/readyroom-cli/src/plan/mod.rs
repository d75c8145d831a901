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

    /// A sentence for each directory in which several of `total` instances may edit at the same time.
    pub fn shared_directories(&self, total: usize) -> Vec<String> {
        let mut directories: Vec<(&PathBuf, usize)> = Vec::new();
        for pool in self.pools.iter().filter(|pool| pool.kind.permissions >= Permissions::Edit) {
            match directories.iter_mut().find(|(directory, _)| *directory == &pool.kind.directory) {
                Some((_, instances)) => *instances += pool.instances,
                None => directories.push((&pool.kind.directory, pool.instances)),
            }
        }
        directories
            .into_iter()
            .map(|(directory, instances)| (directory, instances.min(total)))
            .filter(|(_, instances)| *instances > 1)
            .map(|(directory, instances)| {
                format!("{instances} instances share {} and see each other's edits", directory.display())
            })
            .collect()
    }
}
