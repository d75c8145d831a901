//! What will be done: jobs, made from the command line, inputs and JSON lines, and the pools they fall into. Made
//! whole and checked before anything is started.

mod allot;
pub mod from;
mod inputs;
mod jobs;
mod placeholder;
mod records;

pub use inputs::text;
pub use jobs::plan;
pub use placeholder::Template;

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use anyhow::bail;
use readyroom::{Job, Permissions, Schema};
use serde::{Deserialize, Serialize};

/// All jobs, and the pools that run them.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The jobs in order; a job's number is its place from 1.
    pub jobs: Vec<Planned>,
    /// The pools in order of their first jobs.
    pub pools: Vec<Pool>,
    /// The batch's id, where a journal is kept.
    pub batch: Option<String>,
}

/// A job with what the command knows about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Its number, from 1, in the batch that it belongs to.
    pub number: usize,
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
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// What the jobs have in common.
    pub kind: PoolKind,
    /// How many instances it gets.
    pub instances: usize,
    /// The jobs, by place, in order.
    pub jobs: Vec<usize>,
}

/// What the jobs of a pool have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PoolKind {
    /// The tool's name.
    pub tool: String,
    /// The model, where one was chosen.
    pub model: Option<String>,
    /// What the tool may do.
    pub permissions: Permissions,
    /// Where it works; absolute.
    pub directory: PathBuf,
    /// Whether each instance works in a worktree of its own instead.
    #[serde(default)]
    pub worktree: bool,
}

impl PoolKind {
    /// Whether a job may run a second time: it can change nothing, or nothing but a worktree that is brought back.
    pub fn is_safe(&self) -> bool {
        match self.permissions {
            Permissions::Read => true,
            Permissions::Edit => self.worktree,
            Permissions::Full => false,
        }
    }
}

impl Planned {
    /// What names it in its batch: its id, its input without `./` and the like, or its number.
    pub fn key(&self) -> String {
        match (&self.id, &self.input) {
            (Some(id), _) => id.clone(),
            (None, Some(input)) => {
                let parts = Path::new(input).components().filter(|part| *part != Component::CurDir);
                let clean: PathBuf = parts.collect();
                if clean.as_os_str().is_empty() { input.clone() } else { clean.to_string_lossy().into_owned() }
            }
            (None, None) => format!("#{}", self.number),
        }
    }

    /// A short name for people: its id, its input, or its number.
    pub fn label(&self) -> String {
        match self.id.as_ref().or(self.input.as_ref()) {
            Some(name) => name.clone(),
            None => format!("job {}", self.number),
        }
    }
}

impl Plan {
    /// Jobs, each with the place of its kind in `kinds`, in pools that share `total` instances.
    pub fn assemble(mut jobs: Vec<Planned>, kinds: &[PoolKind], total: usize) -> Self {
        let mut pools: Vec<(usize, Pool)> = Vec::new();
        for (place, planned) in jobs.iter_mut().enumerate() {
            let kind = planned.pool;
            planned.pool = pools.iter().position(|(known, _)| *known == kind).unwrap_or_else(|| {
                pools.push((kind, Pool { kind: kinds[kind].clone(), instances: 0, jobs: Vec::new() }));
                pools.len() - 1
            });
            pools[planned.pool].1.jobs.push(place);
        }
        let mut pools: Vec<Pool> = pools.into_iter().map(|(_, pool)| pool).collect();
        let counts: Vec<usize> = pools.iter().map(|pool| pool.jobs.len()).collect();
        for (pool, instances) in pools.iter_mut().zip(allot::allot(total, &counts)) {
            pool.instances = instances;
        }
        Self { jobs, pools, batch: None }
    }

    /// What all answers of a pool have to fit, where each of its jobs has one answer and the same schema: a tool may be told
    /// to hold every turn to it.
    pub fn schema(&self, pool: usize) -> Option<&Schema> {
        let mut jobs = self.pools[pool].jobs.iter().map(|place| &self.jobs[*place].job);
        let schema = jobs.clone().next()?.checks.schema.as_ref();
        jobs.all(|job| job.prompts.len() == 1 && job.checks.schema.as_ref() == schema).then_some(schema)?
    }

    /// What the jobs of each pool have in common.
    pub fn kinds(&self) -> Vec<PoolKind> {
        self.pools.iter().map(|pool| pool.kind.clone()).collect()
    }

    /// Refuses two jobs of one name: a batch could not tell them apart.
    ///
    /// # Errors
    /// Which they are.
    pub fn check_names(&self) -> anyhow::Result<()> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for planned in &self.jobs {
            let key = planned.key();
            if let Some(first) = seen.get(&key) {
                bail!(
                    "job {first} and job {} are both named {key:?}; name each once, or give them an `id` with --from",
                    planned.number
                );
            }
            seen.insert(key, planned.number);
        }
        Ok(())
    }

    /// A short name of a job for people: [`Planned::label`].
    pub fn label(&self, job: usize) -> String {
        self.jobs[job].label()
    }

    /// A sentence for each directory in which several of `total` instances may edit at the same time.
    pub fn shared_directories(&self, total: usize) -> Vec<String> {
        let mut directories: Vec<(&PathBuf, usize)> = Vec::new();
        let shared = |pool: &&Pool| pool.kind.permissions >= Permissions::Edit && !pool.kind.worktree;
        for pool in self.pools.iter().filter(shared) {
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
