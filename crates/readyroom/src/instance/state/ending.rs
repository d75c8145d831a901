//! The end of a turn: what it left is ended, what it did is looked at, it is told, and the instance is made ready for the next.

use super::*;

impl Machine {
    pub(super) fn finish(&mut self, active: Active, outcome: Outcome, now: Instant, out: &mut Vec<Action>) {
        self.turns += 1;
        let began = active.began;
        let strays = match (outcome.is_success(), self.rules.context) {
            (false, _) => Some(Strays::All),
            (true, Context::Fresh) if self.rules.commands => Some(Strays::Orphans),
            (true, _) => None,
        };
        let ended = Ended { active, outcome, took: now - began, process: Process::Usable };
        match strays {
            None => self.review(ended, now, out),
            Some(strays) => {
                out.push(Action::Settle(began, strays));
                self.enter(State::Settling(Box::new(ended)), None);
            }
        }
    }

    pub(super) fn finish_gone(
        &mut self,
        active: Active,
        outcome: Outcome,
        failure: Failure,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let took = now - active.began;
        self.review(Ended { active, outcome, took, process: Process::Gone(failure) }, now, out);
    }

    pub(super) fn settled(&mut self, strays: Vec<String>, now: Instant, out: &mut Vec<Action>) {
        if !strays.is_empty() {
            out.push(Action::Tell(Notice::StraysEnded(strays)));
        }
        match std::mem::replace(&mut self.state, State::Down) {
            State::Settling(ended) => self.review(*ended, now, out),
            state => self.state = state,
        }
    }

    /// Nothing of the turn runs any more: has what it did looked at, where there is something to look at.
    pub(super) fn review(&mut self, ended: Ended, now: Instant, out: &mut Vec<Action>) {
        let good = ended.outcome.is_success();
        if !self.rules.worktree && (!good || ended.active.work.checks.is_empty()) {
            let (done, process) = self.done(ended);
            return self.after_turn(done, process, now, out);
        }
        out.push(Action::Review(Box::new(ended.review(self.rules.converses))));
        let deadline = if good { ended.active.deadline() } else { None };
        self.enter(State::Reviewing(Box::new(ended)), deadline);
    }

    pub(super) fn reviewed(&mut self, found: Reviewed, now: Instant, out: &mut Vec<Action>) {
        let mut ended = match std::mem::replace(&mut self.state, State::Down) {
            State::Reviewing(ended) => *ended,
            state => {
                self.state = state;
                return;
            }
        };
        self.deadline = None;
        match found.finding {
            Finding::Again { prompt, repairs } => match (&ended.process, ended.outcome.is_success()) {
                (Process::Usable, true) => {
                    let mut active = ended.active;
                    active.repairs = repairs;
                    active.work.prompts.push(prompt);
                    return self.begin(active, now, out);
                }
                // It was cancelled meanwhile; the worktree still holds what it did.
                (Process::Usable, false) => return self.review(ended, now, out),
                // Nobody is left to mend it, and whoever comes next cleans the worktree up first.
                (Process::Gone(failure) | Process::Spoiled(failure), _) => ended.outcome = failure.clone().into(),
            },
            Finding::Bad(failure) if ended.outcome.is_success() => ended.outcome = failure.into(),
            Finding::Broken(failure) => {
                if ended.outcome.is_success() {
                    ended.outcome = failure.clone().into();
                }
                if ended.process == Process::Usable {
                    ended.process = Process::Spoiled(failure);
                }
            }
            Finding::Good | Finding::Bad(_) => {}
        }
        let (mut done, process) = self.done(ended);
        (done.change, done.value) = (found.change, found.value);
        self.after_turn(done, process, now, out);
    }

    pub(super) fn done(&mut self, ended: Ended) -> (Done, Process) {
        // Where the process is gone, the next one tells of the loss.
        let lost = ended.process == Process::Usable && std::mem::take(&mut self.lost);
        ended.done(self.last_reset, lost)
    }

    /// The turn is over and told; makes the instance available again, or ends its process.
    pub(super) fn after_turn(&mut self, done: Done, process: Process, now: Instant, out: &mut Vec<Action>) {
        let success = done.outcome.is_success();
        let stopped = matches!(done.outcome, Outcome::Cancelled | Outcome::TimedOut { .. });
        out.push(Action::Tell(Notice::Done(Box::new(done))));
        self.cleared = !matches!(process, Process::Spoiled(_));
        let spent = self.rules.recycle_after.is_some_and(|most| self.turns >= most);
        match (process, self.stop_after_turn.take()) {
            (Process::Gone(_), Some(why)) => return self.down(why, None, out),
            // A process that was ended to end its turn has not failed, nor has one that had no turn left.
            (Process::Gone(_), None) if stopped || spent => {
                return self.down("recycled: its process ended with the turn".into(), None, out);
            }
            (Process::Gone(failure), None) => {
                return self.down("its process ended in a turn".into(), Some(failure), out);
            }
            (Process::Spoiled(failure), _) => {
                return self.stop("its worktree can't be brought back".into(), Some(failure), out);
            }
            (Process::Usable, Some(why)) => return self.stop(why, None, out),
            (Process::Usable, None) => {}
        }
        if spent {
            let why = format!("recycled: {} turn{}", self.turns, if self.turns == 1 { "" } else { "s" });
            return self.stop(why, None, out);
        }
        if self.rules.context == Context::Fresh || !success {
            self.lost |= self.rules.context == Context::Keep;
            out.push(Action::Request(Request::Reset { slot: self.slot }));
            self.enter(State::Resetting { since: now }, seconds_after(now, self.rules.limits.reset_seconds));
        } else {
            self.enter(State::Idle, None);
            out.push(Action::Tell(Notice::Available));
        }
    }

    /// The conversation is known to be new.
    pub(super) fn fresh(&mut self, proof: Proof, now: Instant, out: &mut Vec<Action>) {
        match self.state {
            State::Resetting { since } if self.rules.worktree => {
                out.push(Action::Tidy);
                self.enter(State::Tidying { since, proof }, None);
            }
            State::Opening { since } | State::Resetting { since } => self.proven(proof, since, now, out),
            _ => {}
        }
    }

    pub(super) fn tidied(&mut self, result: Result<(), Failure>, now: Instant, out: &mut Vec<Action>) {
        match (std::mem::replace(&mut self.state, State::Down), result) {
            (State::Tidying { since, proof }, Ok(())) => self.proven(proof, since, now, out),
            (State::Tidying { .. }, Err(failure)) => {
                self.stop("its worktree can't be brought back".into(), Some(failure), out);
            }
            (state, _) => self.state = state,
        }
    }

    fn proven(&mut self, proof: Proof, since: Instant, now: Instant, out: &mut Vec<Action>) {
        self.last_reset = now - since;
        self.conversation = Conversation::New(proof.clone());
        self.enter(State::Idle, None);
        out.push(Action::Tell(Notice::Proven { proof, took: now - since }));
        out.push(Action::Tell(Notice::Available));
    }
}
