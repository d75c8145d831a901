//! What becomes of turns: where they wait, who gets them, how they end.

use super::*;

impl Dispatcher {
    /// Takes a turn from a caller.
    pub fn submit(&mut self, submission: Submission, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        let id = submission.turn;
        let address = submission.address;
        let key = submission.key.clone();
        self.turns.insert(
            id,
            Queued {
                submission,
                submitted: now,
                place: Place::Waiting { planned: usize::MAX, fixed: true },
                lost: 0,
                acted: false,
            },
        );
        if self.phase != Phase::Open {
            self.finish_unrun(id, Outcome::Cancelled, now, &mut out);
        } else {
            self.route(id, address, key.as_deref(), now, &mut out);
        }
        out
    }

    /// Adds to an open turn. A turn that is no longer known, or is being closed, is not touched: `false`.
    pub fn add(&mut self, addition: Addition, now: Instant) -> (bool, Vec<Action>) {
        let mut out = Vec::new();
        let Some(turn) = self.turns.get_mut(&addition.turn) else { return (false, out) };
        match turn.place {
            _ if !turn.submission.prompts.is_empty() => return (false, out),
            Place::On { stage: Stage::Released, .. } => return (false, out),
            // Its end is on the way, and answers the addition.
            Place::On { stage: Stage::Cancelled, .. } => return (true, out),
            _ => {}
        }
        turn.submission.commands.extend(addition.commands.iter().cloned());
        turn.submission.prompts.clone_from(&addition.prompts);
        turn.submission.mode = addition.mode;
        turn.submission.timeout = addition.timeout;
        if let Place::On { instance, stage } = &mut turn.place {
            *stage = Stage::Given;
            if !addition.prompts.is_empty() {
                // Waiting for the prompt is the caller's time, not the queue's.
                turn.submitted = now;
            }
            let work = Work {
                turn: addition.turn,
                commands: addition.commands,
                prompts: addition.prompts,
                mode: addition.mode,
                timeout: addition.timeout,
                checks: Arc::clone(&turn.submission.checks),
                budget: turn.submission.budget,
                told: 0,
            };
            out.push(Action::Order(*instance, Order::Add(Box::new(work))));
        }
        (true, out)
    }

    /// Closes an open turn without a prompt.
    pub fn release(&mut self, turn: TurnId, out: &mut Vec<Action>) {
        let Some(found) = self.turns.get_mut(&turn).filter(|found| found.submission.prompts.is_empty()) else { return };
        match &mut found.place {
            Place::On { stage: Stage::Cancelled, .. } => {}
            Place::On { instance, stage } => {
                *stage = Stage::Released;
                out.push(Action::Order(*instance, Order::Release(turn)));
            }
            Place::Waiting { .. } => {
                self.forget(turn);
                out.push(Action::Closed(turn));
            }
        }
    }

    /// Closes all turns that are open and have no prompt.
    pub fn release_open(&mut self) -> Vec<Action> {
        let mut out = Vec::new();
        let open = |(id, turn): (&TurnId, &Queued)| turn.submission.prompts.is_empty().then_some(*id);
        let open: Vec<_> = self.turns.iter().filter_map(open).collect();
        for turn in open {
            self.release(turn, &mut out);
        }
        out
    }

    /// Cancels a turn, wherever it is.
    pub fn cancel(&mut self, turn: TurnId, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        match self.turns.get_mut(&turn).map(|turn| &mut turn.place) {
            Some(Place::On { instance, stage }) => {
                if *stage != Stage::Released {
                    *stage = Stage::Cancelled;
                }
                out.push(Action::Order(*instance, Order::Cancel(turn)));
            }
            Some(Place::Waiting { .. }) => self.finish_unrun(turn, Outcome::Cancelled, now, &mut out),
            None => {}
        }
        out
    }

    /// Cancels all turns. Returns how many there were.
    pub fn cancel_all(&mut self, now: Instant) -> (usize, Vec<Action>) {
        let mut all: Vec<_> = self.turns.keys().copied().collect();
        all.sort_unstable();
        let out = all.iter().flat_map(|turn| self.cancel(*turn, now)).collect();
        (all.len(), out)
    }

    /// Finds a place for a turn that has none.
    pub(super) fn route(
        &mut self,
        id: TurnId,
        address: Option<usize>,
        key: Option<&str>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let loads: Vec<_> = self
            .instances
            .iter()
            .enumerate()
            .map(|(at, instance)| Load {
                alive: instance.state.is_alive() && self.may_take(at, id),
                turns: instance.queue.len()
                    + instance.planned
                    + usize::from(matches!(instance.state, InstanceState::Busy { .. })),
            })
            .collect();
        let chosen = match address {
            Some(at) => loads.get(at).filter(|load| load.alive).map(|_| at),
            None => self.router.choose(&loads, key),
        };
        let Some(at) = chosen else {
            let failure = self.no_instance(address);
            return self.finish_unrun(id, failure.into(), now, out);
        };
        let fixed = address.is_some() || self.router.is_final();
        if let Some(turn) = self.turns.get_mut(&id) {
            turn.place = Place::Waiting { planned: at, fixed };
        }
        out.push(Action::Planned(id, at));
        if fixed {
            self.instances[at].queue.push_back(id);
            self.fill(at, now, out);
        } else {
            self.instances[at].planned += 1;
            self.common.push_back(id);
            self.fill_any(id, at, now, out);
        }
    }

    /// Whether a turn may go to an instance: not to one that it avoids while another lives.
    fn may_take(&self, at: usize, id: TurnId) -> bool {
        let Some(Submission { address: None, avoid: Some(avoided), .. }) =
            self.turns.get(&id).map(|turn| &turn.submission)
        else {
            return true;
        };
        let lives = |(other, instance): (usize, &Instance)| other != at && instance.state.is_alive();
        *avoided != at || self.rules.routing == Routing::Sticky || !self.instances.iter().enumerate().any(lives)
    }

    /// Gives the next turn to this instance if it is idle, else to any that is and may take this turn.
    fn fill_any(&mut self, id: TurnId, at: usize, now: Instant, out: &mut Vec<Action>) {
        let is_idle = |&at: &usize| self.instances[at].state == InstanceState::Idle && self.may_take(at, id);
        let idle = Some(at).filter(is_idle).or_else(|| (0..self.instances.len()).find(is_idle));
        self.fill(idle.unwrap_or(at), now, out);
    }

    /// Gives an idle instance its next turn.
    pub(super) fn fill(&mut self, at: usize, now: Instant, out: &mut Vec<Action>) {
        if self.instances[at].state != InstanceState::Idle {
            return self.wake(at, now, out);
        }
        // The older one, so that neither queue can starve the other.
        let common = self.common.iter().position(|id| self.may_take(at, *id));
        let own = &mut self.instances[at].queue;
        let next = match common {
            Some(place) if own.front().is_none_or(|own| self.common[place] < *own) => self.common.remove(place),
            _ => own.pop_front(),
        };
        let Some(id) = next else { return };
        let Some(turn) = self.turns.get_mut(&id) else { return };
        if let Place::Waiting { planned, fixed: false } = turn.place {
            self.instances[planned].planned -= 1;
        }
        turn.place = Place::On { instance: at, stage: Stage::Given };
        let submission = &turn.submission;
        let work = Work {
            turn: id,
            commands: submission.commands.clone(),
            prompts: submission.prompts.clone(),
            mode: submission.mode,
            timeout: submission.timeout,
            checks: Arc::clone(&submission.checks),
            budget: submission.budget,
            told: turn.submission.told,
        };
        self.instances[at].state = InstanceState::Busy { turn: id };
        out.push(Action::Order(at, Order::Run(Box::new(work))));
    }

    pub(super) fn no_instance(&self, address: Option<usize>) -> Failure {
        let last = match address {
            Some(at) => self.instances.get(at).and_then(|instance| instance.last_failure.clone()),
            None => self.instances.iter().find_map(|instance| instance.last_failure.clone()),
        };
        match last {
            Some(failure) => {
                let message = format!("no instance is left: {}", failure.message);
                // A crash was another turn's, and no reason to send this one again.
                let kind = if failure.kind.retryable() { FailureKind::NotReady } else { failure.kind };
                Failure { kind, message, ..failure }
            }
            None => Failure::new(FailureKind::NotReady, "no instance is left"),
        }
    }

    pub(super) fn held(
        &mut self,
        at: usize,
        id: TurnId,
        replies: Vec<ContextReply>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(turn) = self.turns.get_mut(&id) else { return };
        if let Place::On { stage, .. } = &mut turn.place {
            match stage {
                // The order came while the commands were being answered, when there was nothing to let go yet.
                Stage::Released => out.push(Action::Order(at, Order::Release(id))),
                Stage::Given if turn.submission.prompts.is_empty() => *stage = Stage::Held(now),
                _ => {}
            }
        }
        turn.submission.told += replies.len();
        for reply in replies {
            let mut response = self.response(id, Some(at), Outcome::Succeeded);
            match &reply.result {
                Ok(text) => response.answer.text = text.clone().into(),
                Err(failure) => response.outcome = failure.clone().into(),
            }
            response.preamble = vec![reply];
            out.push(Action::Acknowledge(Box::new(response)));
        }
    }

    /// The instance went down with the turn on its way to it. It may be up again by now, or given up.
    pub(super) fn not_taken(&mut self, at: usize, id: TurnId, now: Instant, out: &mut Vec<Action>) {
        let Some(turn) = self.turns.get_mut(&id) else { return };
        let Place::On { stage, .. } = turn.place else { return };
        if stage == Stage::Released {
            self.forget(id);
            return out.push(Action::Closed(id));
        }
        if stage == Stage::Cancelled || self.phase != Phase::Open {
            return self.finish_unrun(id, Outcome::Cancelled, now, out);
        }
        let address = turn.submission.address;
        if !self.instances[at].state.is_alive() {
            let key = turn.submission.key.clone();
            return self.route(id, address, key.as_deref(), now, out);
        }
        let fixed = address.is_some() || self.router.is_final();
        turn.place = Place::Waiting { planned: at, fixed };
        if fixed {
            self.instances[at].queue.push_front(id);
            self.fill(at, now, out);
        } else {
            self.instances[at].planned += 1;
            self.common.push_front(id);
            self.fill_any(id, at, now, out);
        }
    }

    /// The turn was held up at its gate and is not to run; its instance is as it was.
    pub fn stopped_at_gate(&mut self, at: usize, id: TurnId, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        self.turns.entry(id).and_modify(|turn| turn.place = Place::On { instance: at, stage: Stage::Cancelled });
        self.finish_unrun(id, Outcome::Cancelled, now, &mut out);
        if matches!(self.instances[at].state, InstanceState::Busy { turn } if turn == id) {
            self.instances[at].state = InstanceState::Resetting;
            self.available(at, now, &mut out);
        }
        out
    }

    /// The instance's process ended before the turn's prompt was sent: another does all of the turn.
    pub(super) fn not_begun(&mut self, at: usize, id: TurnId, failure: Failure, now: Instant, out: &mut Vec<Action>) {
        let Some(turn) = self.turns.get_mut(&id) else { return };
        turn.lost += 1;
        if turn.lost < LOSSES {
            return self.not_taken(at, id, now, out);
        }
        match turn.place {
            Place::On { stage: Stage::Given | Stage::Held(_), .. } if self.phase == Phase::Open => {
                self.turns.remove(&id);
                let response = self.response(id, Some(at), failure.into());
                self.finish(response, out);
            }
            _ => self.not_taken(at, id, now, out),
        }
    }

    pub(super) fn done(&mut self, at: usize, done: Done, now: Instant, out: &mut Vec<Action>) {
        let instance = &mut self.instances[at];
        instance.turns += 1;
        match done.outcome.is_success() {
            true => instance.supervisor.succeeded(),
            false => instance.supervisor.ran(),
        }
        if matches!(instance.state, InstanceState::Busy { .. }) {
            instance.state = InstanceState::Resetting;
        }
        let Some(turn) = self.turns.get(&done.turn) else { return };
        let released = turn.submission.prompts.is_empty();
        let changed = done.answers.iter().any(|answer| !answer.changed_files.is_empty());
        let may_have_acted = turn.acted || changed || self.rules.blind;
        let waited = (now - turn.submitted).saturating_sub(done.timings.turn);
        let mut response = self.response(done.turn, Some(at), done.outcome);
        for answer in &done.answers {
            response.usage.add(&answer.usage);
        }
        response.answer = done.answers.last().cloned().unwrap_or_default();
        response.turns = done.answers;
        response.preamble = done.replies;
        response.proof = done.proof;
        response.context_lost = done.context_lost;
        response.change = done.change;
        response.value = done.value;
        response.may_have_acted = may_have_acted;
        response.timings = Timings { queued: waited, ..done.timings };
        self.turns.remove(&done.turn);
        if released && response.outcome.is_success() {
            out.push(Action::Closed(done.turn));
        } else {
            self.finish(response, out);
        }
    }

    pub(super) fn response(&self, turn: TurnId, instance: Option<usize>, outcome: Outcome) -> Response {
        Response {
            instance,
            generation: instance.map_or(0, |at| self.instances[at].generation),
            ..Response::unrun(turn, self.rules.tool.clone(), outcome)
        }
    }

    /// Ends a turn that never came to an instance.
    pub(super) fn finish_unrun(&mut self, id: TurnId, outcome: Outcome, now: Instant, out: &mut Vec<Action>) {
        let Some(turn) = self.forget(id) else { return };
        let mut response = self.response(id, turn.submission.address, outcome);
        response.timings.queued = now - turn.submitted;
        self.finish(response, out);
    }

    pub(super) fn finish(&mut self, response: Response, out: &mut Vec<Action>) {
        if response.outcome.is_success() {
            self.succeeded += 1;
        } else {
            self.unsuccessful += 1;
        }
        out.push(Action::Emit(Event::TurnEnded {
            turn: response.turn,
            instance: response.instance,
            outcome: response.outcome.clone(),
            usage: response.usage.clone(),
            took: response.timings.turn,
        }));
        out.push(Action::Finish(Box::new(response)));
    }

    pub(super) fn forget(&mut self, id: TurnId) -> Option<Queued> {
        let turn = self.turns.remove(&id)?;
        if let Place::Waiting { planned, fixed } = turn.place
            && planned < self.instances.len()
        {
            if fixed {
                self.instances[planned].queue.retain(|queued| *queued != id);
            } else {
                self.instances[planned].planned -= 1;
                self.common.retain(|queued| *queued != id);
            }
        }
        Some(turn)
    }
}
