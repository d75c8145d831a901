//! What a batch's jobs changed, applied from the journal; worktrees and refs that it left.

use std::collections::HashMap;

use super::*;

/// Brings in order what an owner who was killed left of a batch's worktrees, and applies what was to be applied. How many changes
/// do not apply.
pub(super) fn take_up(store: &mut Store, batch: &str, recipe: &Recipe) -> anyhow::Result<usize> {
    let Some(workspaces) = &recipe.workspaces else { return Ok(0) };
    // What still writes there is ended first.
    readyroom::process::sweep_orphans();
    for (at, kind) in recipe.kinds.iter().enumerate() {
        if let Some(worktrees) = workspaces.of(batch, at, kind)? {
            worktrees.repository().tidy()?;
            worktrees.salvage(&format!("{batch}/left"))?;
        }
    }
    match workspaces.apply {
        ApplyArg::Auto => apply_pending(store, batch, recipe),
        ApplyArg::Never => Ok(0),
    }
}

/// Applies what is pending: all of it, or, where changes come in the jobs' order, that of jobs before which all have ended. How many
/// changes do not apply.
fn apply_pending(store: &mut Store, batch: &str, recipe: &Recipe) -> anyhow::Result<usize> {
    let in_order = recipe.workspaces.as_ref().is_some_and(|workspaces| workspaces.in_order);
    let ended = |job: &Job| matches!(job.state, JobState::Succeeded | JobState::Failed | JobState::Dropped);
    let jobs = store.jobs(batch)?;
    let due: HashSet<&str> = jobs.iter().take_while(|job| !in_order || ended(job)).map(|job| job.id.as_str()).collect();
    let wanted = |id: &str, recorded: &Recorded| recorded.state == ChangeState::Pending && due.contains(id);
    apply(store, batch, recipe, wanted, |_, _, _, line| {
        say::stderr(line);
        Ok(())
    })
}

/// Applies, after a resumed run, the changes that had to wait for their turn. How many do not apply.
///
/// # Errors
/// As [`resume`].
pub fn apply_rest(path: &Path, batch: &str, recipe: &Recipe) -> anyhow::Result<usize> {
    let mut store = open(Some(path))?;
    let _lease = Lease::take(store.path(), batch)?;
    apply_pending(&mut store, batch, recipe)
}

/// Applies recorded changes that are `wanted`, by the ids of their jobs, in the order in which the jobs ended, or in
/// that of the jobs where that was asked for. Of each one `tell`
/// hears what became of it, and that as a line. How many do not apply.
///
/// # Errors
/// The journal or a repository can't be used; what was applied before is written down.
pub fn apply(
    store: &mut Store,
    batch: &str,
    recipe: &Recipe,
    wanted: impl Fn(&str, &Recorded) -> bool,
    tell: impl Fn(&str, ChangeState, Option<&str>, &str) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let jobs = store.jobs(batch)?;
    let message = recipe.workspaces.as_ref().map(Workspaces::message).transpose()?.flatten();
    let mut conflicts = 0;
    let mut changes = store.changes(batch)?;
    if recipe.workspaces.as_ref().is_some_and(|workspaces| workspaces.in_order) {
        changes.sort_by_key(|(place, _)| *place);
    }
    let mut repositories: HashMap<&Path, Repository> = HashMap::new();
    for (place, recorded) in changes {
        let at = jobs.binary_search_by_key(&place, |job| job.place).ok();
        let Some(job) = at.map(|at| &jobs[at]).filter(|job| wanted(&job.id, &recorded)) else {
            continue;
        };
        let planned = planned_job(job, batch)?;
        let kind = recipe.kinds.get(planned.pool).with_context(|| format!("job {} has no pool", job.id))?;
        if !repositories.contains_key(kind.directory.as_path()) {
            repositories.insert(&kind.directory, Repository::open(&kind.directory)?);
        }
        let repository = &repositories[kind.directory.as_path()];
        let input = planned.input.as_deref().or(planned.id.as_deref()).unwrap_or_default();
        let message = message.as_ref().map(|message| message.fill(input, planned.number));
        let branch = branch_name(batch, planned.number);
        let (state, branch, line) = match bring(repository, &recorded.change, &branch, message.as_deref())? {
            Brought::Whole(None) => (ChangeState::Applied, None, format!("applied {}", job.id)),
            Brought::Whole(Some(problem)) => {
                (ChangeState::Applied, None, format!("applied {}; no commit was made of it: {problem}", job.id))
            }
            Brought::Conflict { files, branch } => {
                conflicts += 1;
                let line = format!("{} does not apply to {}; it is the branch {branch}", job.id, text::list(&files));
                (ChangeState::Conflict, Some(branch), line)
            }
        };
        let stands = job.outcome.clone().map(|mut outcome| {
            if state == ChangeState::Applied {
                outcome["left"] = left(&planned.job.files, &kind.directory);
            }
            with_change(job.state, outcome, state, branch.as_deref())
        });
        let changed = Entry::Changed { batch: batch.to_owned(), place, state, branch: branch.clone(), job: stands };
        store.enter(&[changed])?;
        tell(&job.id, state, branch.as_deref(), &line)?;
    }
    Ok(conflicts)
}

/// How a job stands, and its outcome, when this has become of its change.
fn with_change(stood: JobState, mut outcome: Value, state: ChangeState, branch: Option<&str>) -> (JobState, Value) {
    outcome["change"]["state"] = state.name().into();
    outcome["change"]["branch"] = branch.into();
    let stands = match state {
        ChangeState::Conflict if stood == JobState::Succeeded => {
            outcome["outcome"] = "failed".into();
            let kind = FailureKind::Conflict;
            outcome["failure"] = serde_json::json!({
                "kind": kind.name(), "message": "its change does not apply", "evidence": "",
                "retryable": kind.retryable(), "origin": kind.origin(),
            });
            JobState::Failed
        }
        ChangeState::Applied if outcome["failure"]["kind"] == FailureKind::Conflict.name() => {
            outcome["outcome"] = "succeeded".into();
            outcome["failure"] = Value::Null;
            JobState::Succeeded
        }
        _ => stood,
    };
    (stands, outcome)
}

/// Removes what is kept of a batch outside of the journal: worktrees that its owner left, and its refs. What could not be removed,
/// in sentences.
pub fn clear(batch: &Batch) -> Vec<String> {
    let mut problems = put_away(batch);
    problems.extend(each_worktrees(batch, |worktrees| Ok(worktrees.repository().forget(&batch.id)?)));
    problems
}

/// Removes worktrees that a batch's owner left, and keeps what they held as commits. What could not be removed, in sentences.
pub fn put_away(batch: &Batch) -> Vec<String> {
    let left = format!("{}/left", batch.id);
    each_worktrees(batch, |worktrees| Ok(worktrees.salvage(&left).map(drop)?))
}

/// What went wrong in doing something with the worktrees of each kind of job.
fn each_worktrees(batch: &Batch, what: impl Fn(&Worktrees) -> anyhow::Result<()>) -> Vec<String> {
    let Ok(recipe) = serde_json::from_value::<Recipe>(batch.spec.clone()) else { return Vec::new() };
    let Some(workspaces) = &recipe.workspaces else { return Vec::new() };
    let kinds = recipe.kinds.iter().enumerate();
    let done = kinds.map(|(at, kind)| workspaces.of(&batch.id, at, kind)?.as_ref().map_or(Ok(()), &what));
    done.filter_map(|done| done.err()).map(|error| format!("{error:#}")).collect()
}

/// The branch for a change that does not apply.
pub fn branch_name(batch: &str, number: usize) -> String {
    format!("readyroom/{batch}/{number}")
}
