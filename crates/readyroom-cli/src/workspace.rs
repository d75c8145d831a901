//! Worktrees for a run: whether a directory's jobs get them, what they start from, how paths come to lead into them, and where
//! they are.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use readyroom::journal::Store;
use readyroom::workspace::{Applied, Bring, Change, Repository, Snapshot, WorkspaceError, Worktrees};
use readyroom::{Context, Permissions};
use serde::{Deserialize, Serialize};

use crate::args::{ApplyArg, RunArgs, WorkspaceArg, WorkspaceArgs};
use crate::plan::{Plan, PoolKind, Template};

/// Finds out which directories' jobs get worktrees.
#[derive(Debug, Default)]
pub struct Chooser {
    wish: Option<WorkspaceArg>,
    keeps: bool,
    known: HashMap<PathBuf, Option<Repository>>,
}

impl Chooser {
    /// One for what was typed.
    pub fn new(args: &RunArgs) -> Self {
        Self {
            wish: args.workspace.workspace,
            keeps: Context::from(args.context) == Context::Keep,
            known: HashMap::new(),
        }
    }

    /// The repository whose worktrees jobs with these permissions in this directory get; none: they work in the directory.
    ///
    /// # Errors
    /// A worktree is wanted and can't be had.
    pub fn choose(&mut self, directory: &Path, permissions: Permissions) -> anyhow::Result<Option<Repository>> {
        match self.wish {
            Some(WorkspaceArg::Shared) => return Ok(None),
            Some(WorkspaceArg::Worktree) if self.keeps => bail!(
                "--context keep and --workspace worktree exclude each other: files are brought back before each job, and \
                 a kept context would speak of others"
            ),
            None if permissions == Permissions::Read || self.keeps => return Ok(None),
            _ => {}
        }
        if let Some(known) = self.known.get(directory) {
            return Ok(known.clone());
        }
        let in_repository = directory.ancestors().any(|above| above.join(".git").exists());
        let found = match (self.wish, in_repository) {
            (None, false) => None,
            _ => match Repository::open(directory) {
                Ok(repository) => Some(repository),
                Err(WorkspaceError::NotARepository { .. }) if self.wish.is_none() => None,
                Err(error) => {
                    return Err(error).context("no worktrees; --workspace shared works in the directory itself");
                }
            },
        };
        self.known.insert(directory.to_owned(), found.clone());
        Ok(found)
    }
}

/// How an input that is a path, seen from `directory`, is called in a worktree of `repository`: the file or directory itself,
/// whatever links lead to it, from there.
///
/// # Errors
/// It is not in the repository.
pub fn localise(repository: &Repository, directory: &Path, input: &str) -> anyhow::Result<String> {
    let plain = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    let within = repository.within(&directory.join(input)).with_context(|| {
        format!("the input {input} can't be worked on in a worktree; --workspace shared works on it where it is")
    })?;
    let from = repository.within(directory)?;
    // As it was typed, where that is the same.
    if Path::new(input).components().filter(|part| *part != std::path::Component::CurDir).all(plain)
        && from.join(input.trim_start_matches("./")) == within
    {
        return Ok(input.to_owned());
    }
    let path = relative(&from, &within);
    path.to_str().map(str::to_owned).with_context(|| format!("the name of {} is not UTF-8", path.display()))
}

/// `path` as seen from `from`, both from the same top.
fn relative(from: &Path, path: &Path) -> PathBuf {
    let common = from.components().zip(path.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| Path::new(".."));
    let found: PathBuf = up.chain(path.components().skip(common).map(|part| Path::new(part.as_os_str()))).collect();
    if found.as_os_str().is_empty() { PathBuf::from(".") } else { found }
}

/// The worktrees of a batch, as they are kept in its recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workspaces {
    /// Part of their names: batches of the same name, in journals of their own, have worktrees of their own.
    #[serde(default)]
    pub mark: String,
    /// What the jobs of each kind start from; none: they work in the directory itself.
    pub bases: Vec<Option<Snapshot>>,
    /// When changes are applied.
    pub apply: ApplyArg,
    /// Whether in the jobs' own order.
    pub in_order: bool,
    /// The message for a commit of each; placeholders as in prompts.
    pub commit: Option<String>,
    /// What is brought in besides.
    pub brought: Vec<(PathBuf, Bring)>,
    /// What is run once in each.
    pub setup: Option<Vec<String>>,
}

impl Workspaces {
    /// What the plan's jobs start from, taken now and kept under the name of the batch.
    ///
    /// # Errors
    /// A repository can't be used, or a file that a job is to work on is not in it.
    pub fn take(args: &RunArgs, kinds: &[PoolKind], plan: &Plan, batch: &str) -> anyhow::Result<Self> {
        let mut taken: HashMap<PathBuf, Snapshot> = HashMap::new();
        let mut bases = Vec::new();
        let wishes = &args.workspace;
        let mut brought = Vec::new();
        for kind in kinds {
            // One that an earlier run of the batch used may be gone.
            let wanted = kind.worktree && kind.directory.is_dir();
            let Some(repository) = &wanted.then(|| Repository::open(&kind.directory)).transpose()? else {
                bases.push(None);
                continue;
            };
            if wishes.commit.is_some() {
                repository.check_identity().context("--commit has no name to commit in")?;
            }
            let base = match taken.get(repository.root()) {
                Some(base) => base.clone(),
                None => {
                    let name = format!("{batch}/base");
                    let base = repository.snapshot(&name).context("--workspace shared needs no copy")?;
                    taken.insert(repository.root().to_owned(), base.clone());
                    base
                }
            };
            if !repository.has_directory(&base, &repository.within(&kind.directory)?)? {
                bail!(
                    "the directory {} is not in the worktrees, since git knows no file in it; add one, or use --workspace shared",
                    kind.directory.display()
                );
            }
            for path in brought_by_name(wishes, repository, kind)? {
                if !brought.contains(&path) {
                    brought.push(path);
                }
            }
            let jobs = plan.pools.iter().filter(|pool| pool.kind == *kind).flat_map(|pool| pool.jobs.iter().copied());
            check_files(plan, jobs, repository, &base, kind, &brought)?;
            bases.push(Some(base));
        }
        let text = |word: &std::ffi::OsString| crate::plan::text(word, "commit message");
        let mark = format!("{:06x}", RandomState::new().build_hasher().finish() & 0x00ff_ffff);
        Ok(Self {
            mark,
            bases,
            apply: wishes.apply,
            in_order: wishes.in_order,
            commit: wishes.commit.as_ref().map(text).transpose()?,
            brought,
            setup: wishes.setup.as_ref().map(|command| ["sh", "-c", command].map(str::to_owned).to_vec()),
        })
    }

    /// The message for commits.
    ///
    /// # Errors
    /// It is none.
    pub fn message(&self) -> anyhow::Result<Option<Template>> {
        Ok(self.commit.as_deref().map(|message| Template::parse(message, "{}")).transpose()?)
    }

    /// The worktrees of a pool.
    ///
    /// # Errors
    /// The repository or the place can't be used.
    pub fn of(&self, batch: &str, at: usize, kind: &PoolKind) -> anyhow::Result<Option<Worktrees>> {
        let Some(base) = self.bases.get(at).cloned().flatten() else { return Ok(None) };
        let repository = Repository::open(&kind.directory).context("the batch's repository")?;
        // A batch of an earlier version has no mark.
        let dash = if self.mark.is_empty() { "" } else { "-" };
        let name = format!("{batch}{dash}{}.{}", self.mark, at + 1);
        let mut worktrees = Worktrees::new(repository, base, &place()?, name)?.keep_below(format!("{batch}/base"));
        for (path, how) in &self.brought {
            worktrees = worktrees.bring(path, *how);
        }
        if let Some(setup) = &self.setup {
            worktrees = worktrees.with_setup(setup.clone());
        }
        Ok(Some(worktrees))
    }
}

/// Where worktrees are: in the user's state directory, wherever the journal is, so that they lie in no repository.
fn place() -> anyhow::Result<PathBuf> {
    let journal = Store::default_path()?;
    Ok(journal.parent().unwrap_or(Path::new("/")).join("worktrees"))
}

/// What became of a change.
#[derive(Debug)]
pub enum Brought {
    /// The caller's files have it; why there is no commit of it, where there should be one.
    Whole(Option<String>),
    /// It does not apply to these files, and is kept as a branch.
    Conflict {
        /// The files.
        files: Vec<PathBuf>,
        /// The branch.
        branch: String,
    },
}

/// Brings a change to the caller's files, and makes a commit of it where there is a message; one that does not apply is kept as a
/// branch.
///
/// # Errors
/// git failed.
pub fn bring(
    repository: &Repository,
    change: &Change,
    branch: &str,
    message: Option<&str>,
) -> Result<Brought, WorkspaceError> {
    match repository.apply(change)? {
        Applied::Whole => {
            let problem = match message.map(|message| repository.commit(change, message)) {
                None | Some(Ok(true)) => None,
                Some(Ok(false)) => Some("it rests on edits that are not committed".to_owned()),
                Some(Err(error)) => Some(error.to_string()),
            };
            Ok(Brought::Whole(problem))
        }
        Applied::Conflict(files) => Ok(Brought::Conflict { files, branch: repository.keep_as_branch(branch, change)? }),
    }
}

/// What is brought in by name, from the repository's top.
fn brought_by_name(
    args: &WorkspaceArgs,
    repository: &Repository,
    kind: &PoolKind,
) -> anyhow::Result<Vec<(PathBuf, Bring)>> {
    let named = |paths: &[PathBuf], option: &str, how: Bring| -> anyhow::Result<Vec<(PathBuf, Bring)>> {
        let one = |path: &PathBuf| {
            let within = repository.within(&kind.directory.join(path)).with_context(|| {
                format!("{option} {} is not in the repository; name something that git ignores there", path.display())
            })?;
            if within.as_os_str().is_empty() {
                bail!("{option} {} is the repository itself; name something that git ignores there", path.display());
            }
            Ok((within, how))
        };
        paths.iter().map(one).collect()
    };
    let mut all = named(&args.link, "--link", Bring::Copy)?;
    all.extend(named(&args.symlink, "--symlink", Bring::Link)?);
    Ok(all)
}

/// Files that jobs are to work on must be in the worktrees.
fn check_files(
    plan: &Plan,
    jobs: impl Iterator<Item = usize>,
    repository: &Repository,
    base: &Snapshot,
    kind: &PoolKind,
    brought: &[(PathBuf, Bring)],
) -> anyhow::Result<()> {
    let known = repository.files(base)?;
    for job in jobs {
        for file in &plan.jobs[job].job.files {
            let within = repository.within(&kind.directory.join(file))?;
            if !known.contains(&within) && !brought.iter().any(|(path, _)| within.starts_with(path)) {
                bail!(
                    "the file {} is not in the worktrees, since git ignores it; add it to git, bring it in with --link, or work \
                     with --workspace shared",
                    file.display()
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_where_the_tool_works() {
        let seen = |from: &str, path: &str| relative(Path::new(from), Path::new(path)).display().to_string();
        assert_eq!(seen("", "a/b"), "a/b");
        assert_eq!(seen("a", "a/b"), "b");
        assert_eq!(seen("a/c", "a/b"), "../b");
        assert_eq!(seen("a", "a"), ".");
    }
}
