//! What becomes of a job when an attempt at it has ended.

use super::*;

fn has_crashed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(failure) if matches!(failure.kind, FailureKind::Crashed { .. }))
}

impl Shell {
    /// Whether what looks like a crash may be the work of the one who is about to stop us.
    pub(super) fn may_be_a_stop(&self, response: &Response) -> bool {
        // By the signal, or in order with a status that programs have for that.
        let by_signal = |exit: &Exit| {
            matches!(exit, Exit::Signal(1 | 2 | 15) | Exit::Status(0 | 1 | 129 | 130 | 143) | Exit::Unknown)
        };
        let exit = response.error().and_then(|failure| match &failure.kind {
            FailureKind::Crashed { exit } => exit.as_ref(),
            _ => None,
        });
        exit.is_some_and(by_signal) && self.state.stop_reason().is_none()
    }

    pub(super) fn response(&mut self, job: usize, mut response: Response) -> Input {
        if has_crashed(&response.outcome) && matches!(self.state.stop_reason(), Some(Stop::Signal(_))) {
            response.outcome = Outcome::Cancelled;
        }
        // What an attempt did in a worktree that held it is gone with it.
        let kind = &self.plan.pools[self.plan.jobs[job].pool].kind;
        response.may_have_acted &= match kind.permissions {
            Permissions::Read => false,
            Permissions::Edit => !kind.worktree,
            Permissions::Full => true,
        };
        self.spent.total += Spent::from(&response.usage);
        self.spent.jobs[job] += Spent::from(&response.usage);
        if let Some(turn) = self.turns.remove(&job) {
            self.jobs.remove(&(self.plan.jobs[job].pool, turn));
        }
        let mut verdict = match &response.outcome {
            Outcome::Succeeded => Verdict::Succeeded,
            Outcome::Cancelled => Verdict::Cancelled,
            _ => Verdict::Failed,
        };
        let mut waits = false;
        match self.next(job, &response) {
            Next::Again(again) if self.state.stop_reason().is_none() => {
                return self.again(job, &again, &response);
            }
            // An attempt that a stop prevents, or that no mending came before, is one for the resume.
            Next::Again(_) => waits = !response.may_have_acted,
            Next::Stop => {
                waits = !response.may_have_acted;
                verdict = Verdict::Blocked;
                if self.state.stop_reason().is_none() {
                    let limit =
                        matches!(response.error().map(|failure| &failure.kind), Some(FailureKind::UsageWindow { .. }));
                    let why = if limit { ", which --on-limit and --max-wait do not wait for" } else { "" };
                    self.say(Message::Stopping(format!("stopping: {}{why}; the rest waits", response.outcome)));
                }
            }
            Next::Done => {}
        }
        let mut turns = response.turns;
        if turns.is_empty() && !response.answer.transcript.is_empty() {
            turns.push(response.answer);
        }
        if let Some(change) = response.change.as_ref().filter(|change| !change.left_alone.is_empty()) {
            let (name, paths) = (self.plan.label(job), text::list(&change.left_alone));
            self.say(Message::Notice(format!(
                "{name}: {paths} left alone: submodules and LFS files are not brought back"
            )));
        }
        let state = if response.outcome.is_success() { ChangeState::Pending } else { ChangeState::Kept };
        let change = response.change.map(|change| JobChange { change, state, branch: None });
        let ended = Ended {
            change,
            value: response.value,
            job,
            outcome: response.outcome,
            turns,
            usage: response.usage,
            timings: response.timings,
            instance: response.instance,
            generation: response.generation,
            proof: response.proof,
            context_lost: response.context_lost,
        };
        match &self.journal {
            Some(journal) if waits => {
                let kept = self.kept.clone();
                let spent = Spent::from(&ended.usage);
                journal.requeue(job, spent, move |result| drop(kept.send(News::Requeued(Box::new(ended), result))));
            }
            _ => self.end(ended),
        }
        Input::Ended(job, verdict)
    }

    /// What becomes of a job after an attempt.
    pub(super) fn next(&mut self, job: usize, response: &Response) -> Next {
        if self.settings.job_budget.is_spent(&self.spent.jobs[job]) {
            return Next::Done;
        }
        let pool = self.plan.jobs[job].pool;
        let streak = match &response.outcome {
            Outcome::Succeeded => {
                self.held_up.remove(&pool);
                self.streaks.remove(&pool);
                0
            }
            Outcome::Failed(failure) => {
                let (kind, jobs) = self.streaks.entry(pool).or_default();
                if *kind != failure.kind.name() {
                    (*kind, *jobs) = (failure.kind.name(), HashSet::new());
                }
                jobs.insert(job);
                jobs.len()
            }
            _ => 0,
        };
        self.settings.retry.next(&Attempt {
            outcome: &response.outcome,
            retried: self.retried.get(&job).copied().unwrap_or(0),
            held_up: self
                .held_up
                .get(&pool)
                .copied()
                .unwrap_or(0)
                .saturating_sub(u32::from(self.state.is_held_up(pool))),
            streak,
            began: response.generation > 0,
            may_have_acted: response.may_have_acted,
            now: jiff::Timestamp::now(),
            chance: fastrand::f64(),
        })
    }

    /// Has a job wait for its next attempt.
    pub(super) fn again(&mut self, job: usize, again: &Again, response: &Response) -> Input {
        let outcome = &response.outcome;
        let pool = self.plan.jobs[job].pool;
        match again.pool {
            PoolEffect::None => *self.retried.entry(job).or_default() += 1,
            // Those that meet one limit at the same time are held up by it once.
            PoolEffect::Slowed | PoolEffect::Parked if self.state.is_held_up(pool) => {}
            PoolEffect::Slowed | PoolEffect::Parked => *self.held_up.entry(pool).or_default() += 1,
        }
        let by_tool = response.error().is_some_and(|failure| failure.kind.origin() == Origin::Tool);
        match response.instance.filter(|_| by_tool) {
            Some(instance) => self.avoid.insert(job, instance),
            None => self.avoid.remove(&job),
        };
        if let Some(journal) = &self.journal {
            let kept = self.kept.clone();
            journal.requeue(job, Spent::from(&response.usage), move |result| {
                if let Err(error) = result {
                    let _ = kept.send(News::NotBegun(error));
                }
            });
        }
        let what = match again.pool {
            PoolEffect::None => "again",
            PoolEffect::Slowed => "all wait and go on slower",
            PoolEffect::Parked => "all wait and go on",
        };
        let (name, after) = (self.plan.jobs[job].key(), text::time(again.after));
        self.say(Message::Notice(format!("{name} {outcome}: {what} in {after}")));
        let (kept, after) = (self.kept.clone(), again.after);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = kept.send(News::Due(job));
        });
        Input::Again(job, again.pool)
    }
}
