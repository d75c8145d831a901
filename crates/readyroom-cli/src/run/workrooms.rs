//! The worktrees of a run: when a job's end is known for good, what it changed is brought to the caller's files.

use super::*;

/// The worktrees of a run.
#[derive(Debug, Default)]
pub struct Workrooms {
    /// Of each pool; none: it works in its directory.
    pub pools: Vec<Option<Worktrees>>,
    /// Whether changes are applied as jobs end.
    pub applies: bool,
    /// Whether in the jobs' order.
    pub in_order: bool,
    /// The message for a commit of each.
    pub commit: Option<Template>,
    /// What branches and refs are named after.
    pub batch: String,
    /// Whether nothing of the batch is needed after the run.
    pub passing: bool,
    /// Files and directories that the run itself writes to; absolute.
    pub own: Vec<PathBuf>,
}

impl Workrooms {
    /// Those of these files, from the top of a pool's repository, that the run does not write itself.
    fn strange(&self, pool: usize, files: &[PathBuf]) -> Vec<PathBuf> {
        let Some(Some(worktrees)) = self.pools.get(pool) else { return Vec::new() };
        let root = worktrees.repository().root();
        let own = |file: &&PathBuf| self.own.iter().any(|own| root.join(file).starts_with(own));
        files.iter().filter(|file| !own(file)).cloned().collect()
    }
}

impl Shell {
    /// A job's end is known for good. It is told, when what it changed has been brought to the caller's files where that is to be
    /// done.
    pub(super) fn settle(&mut self, ended: Box<Ended>) {
        let stopping = self.state.stop_reason().is_some();
        let pending = ended.change.as_ref().is_some_and(|change| change.state == ChangeState::Pending);
        let waits = pending && self.rooms.applies;
        let Some(order) = &mut self.order else {
            return if waits { self.bring(ended) } else { self.say(Message::Ended(ended)) };
        };
        if !waits {
            let free = order.over(ended.job, None);
            self.say(Message::Ended(ended));
            free.into_iter().for_each(|ended| self.bring(ended));
        } else if stopping {
            self.say(Message::Ended(ended));
        } else {
            order.over(ended.job, Some(ended)).into_iter().for_each(|ended| self.bring(ended));
        }
    }

    /// Has what a job changed brought to the caller's files.
    pub(super) fn bring(&self, ended: Box<Ended>) {
        let (Some(applier), Some(change)) = (&self.applier, &ended.change) else {
            return self.say(Message::Ended(ended));
        };
        let planned = &self.plan.jobs[ended.job];
        let input = planned.input.as_deref().or(planned.id.as_deref()).unwrap_or_default();
        let wanted = Wanted {
            pool: planned.pool,
            change: change.change.clone(),
            branch: branch_name(&self.rooms.batch, planned.number),
            commit: self.rooms.commit.as_ref().map(|message| message.fill(input, planned.number)),
        };
        let kept = self.kept.clone();
        applier.apply(wanted, move |result, strange| drop(kept.send(News::Brought(ended, result, strange))));
    }

    pub(super) fn brought(
        &mut self,
        mut ended: Box<Ended>,
        result: Result<Brought, WorkspaceError>,
        strange: &[PathBuf],
    ) -> Option<Input> {
        let name = self.plan.label(ended.job);
        self.tell_strange(self.plan.jobs[ended.job].pool, strange);
        let mut input = None;
        let mut change = ended.change.take()?;
        match result {
            Ok(Brought::Whole(problem)) => {
                change.state = ChangeState::Applied;
                if let Some(problem) = problem {
                    self.say(Message::Notice(format!("{name}: no commit was made of its change: {problem}")));
                }
            }
            Ok(Brought::Conflict { files, branch }) => {
                let message = format!("its change does not apply to {}; it is the branch {branch}", text::list(&files));
                ended.outcome = Failure::new(FailureKind::Conflict, message).into();
                change.state = ChangeState::Conflict;
                change.branch = Some(branch);
                input = Some(Input::Conflict(ended.job));
            }
            Err(error) => {
                self.say(Message::Stopping(format!("stopping: the change of {name} can't be applied: {error}")));
                input = Some(Input::OutputBroken);
            }
        }
        ended.change = Some(change.clone());
        match &self.journal {
            Some(journal) if change.state != ChangeState::Pending => {
                let kept = self.kept.clone();
                let record = self.record(&ended);
                journal.changed(&ended.clone(), &change, record, move |result| {
                    let _ = kept.send(News::Applied(ended, result));
                });
            }
            _ => self.say(Message::Ended(ended)),
        }
        input
    }

    fn tell_strange(&self, pool: usize, files: &[PathBuf]) {
        let strange = self.rooms.strange(pool, files);
        if !strange.is_empty() {
            self.say(Message::Notice(format!(
                "{} changed in your directory while jobs work in worktrees: you, or a job that left its own",
                text::list(&strange)
            )));
        }
    }

    /// Removes the worktrees, which hold nothing any more.
    pub(super) async fn leave_workrooms(&self) {
        if let Some(applier) = &self.applier {
            for pool in 0..self.rooms.pools.len() {
                self.tell_strange(pool, &applier.strange(pool).await);
            }
        }
        let (pools, batch) = (self.rooms.pools.clone(), self.rooms.batch.clone());
        let passing = self.rooms.passing;
        let left = tokio::task::spawn_blocking(move || {
            let mut left = Vec::new();
            for worktrees in pools.iter().flatten() {
                match worktrees.remove(&[]) {
                    Ok(stayed) => {
                        left.extend(stayed.iter().map(|root| format!("the worktree {} stays", root.display())))
                    }
                    Err(error) => left.push(format!("worktrees could not be removed: {error}")),
                }
                if passing && let Err(error) = worktrees.repository().forget(&batch) {
                    left.push(error.to_string());
                }
            }
            left
        });
        for line in left.await.unwrap_or_default() {
            self.say(Message::Notice(line));
        }
    }
}
