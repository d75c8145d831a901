//! The worktrees of a run: when a job's end is known for good, what it changed is brought to the caller's files.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::*;
use crate::output::UNFINISHED;

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
    /// The files that its standard output and error go to.
    pub streams: Vec<FileId>,
    /// Files of which it was told that they changed meanwhile; absolute.
    pub told: HashSet<PathBuf>,
}

/// A file, by its device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId(u64, u64);

impl FileId {
    /// That of an open file; none where it is a terminal, a pipe or the like.
    pub fn of(open: BorrowedFd<'_>) -> Option<Self> {
        let file = File::from(open.try_clone_to_owned().ok()?);
        file.metadata().ok().filter(std::fs::Metadata::is_file).map(|facts| Self::from(&facts))
    }
}

impl From<&std::fs::Metadata> for FileId {
    fn from(facts: &std::fs::Metadata) -> Self {
        Self(facts.dev(), facts.ino())
    }
}

impl Workrooms {
    /// What is to be said of these files, from the top of a pool's repository: of those that the run does not write itself, and
    /// that it was not told of before.
    fn notice(&mut self, pool: usize, changed: &[PathBuf]) -> Option<Message> {
        let root = self.pools.get(pool)?.as_ref()?.repository().root().to_owned();
        let is_news = |file: &&PathBuf| {
            let file = root.join(file);
            !self.writes(&file) && self.told.insert(file)
        };
        let strange: Vec<PathBuf> = changed.iter().filter(is_news).cloned().collect();
        (!strange.is_empty()).then(|| {
            Message::Notice(format!(
                "{} changed in your directory while jobs work in worktrees: you, or a job that left its own",
                text::list(&strange)
            ))
        })
    }

    /// Whether the run itself writes to this file.
    fn writes(&self, file: &Path) -> bool {
        let unfinished =
            file.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(UNFINISHED));
        unfinished
            || self.own.iter().any(|own| file.starts_with(own))
            || file.metadata().is_ok_and(|facts| self.streams.contains(&FileId::from(&facts)))
    }
}

impl Shell {
    /// A job's end is known for good. It is told, when what it changed has been brought to the caller's files where that is to be
    /// done.
    pub(super) fn settle(&mut self, ended: Box<Ended>) {
        let cancelled = self.state.stop_reason().is_some_and(|stop| !stop.lets_end());
        let pending = ended.change.as_ref().is_some_and(|change| change.state == ChangeState::Pending);
        let waits = pending && self.rooms.applies;
        let Some(order) = &mut self.order else {
            return if waits { self.bring(ended) } else { self.say(Message::Ended(ended)) };
        };
        if ended.outcome == Outcome::Cancelled {
            // A resume runs it, and what comes behind it waits for that.
            self.say(Message::Ended(ended));
        } else if !waits {
            let free = order.over(ended.job, None);
            self.say(Message::Ended(ended));
            free.into_iter().for_each(|ended| self.bring(ended));
        } else if cancelled {
            self.say(Message::Ended(ended));
        } else {
            order.over(ended.job, Some(ended)).into_iter().for_each(|ended| self.bring(ended));
        }
    }

    /// Whether the run stops, all that ran has ended, and what is held back waits for jobs that will not run.
    pub(super) fn waits_in_vain(&self) -> bool {
        let held = self.order.as_ref().map_or(0, InOrder::held);
        held > 0 && self.state.stop_reason().is_some() && self.turns.is_empty() && self.state.unwritten() == held
    }

    /// Tells what is held back; its changes stay pending.
    pub(super) fn give_up_order(&mut self) {
        for ended in self.order.as_mut().map(InOrder::give_up).unwrap_or_default() {
            self.say(Message::Ended(ended));
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
        let pool = self.plan.jobs[ended.job].pool;
        if let Some(notice) = self.rooms.notice(pool, strange) {
            self.say(notice);
        }
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

    /// Removes the worktrees, which hold nothing any more.
    pub(super) async fn leave_workrooms(&mut self) {
        if let Some(applier) = &self.applier {
            for pool in 0..self.rooms.pools.len() {
                if let Some(notice) = self.rooms.notice(pool, &applier.strange(pool).await) {
                    self.say(notice);
                }
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
