//! What becomes of instances: when they are started, stopped, restarted, recycled and given up.

use super::*;

impl Dispatcher {
    /// Starts what is to be started now.
    pub fn start(&mut self, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        if !self.rules.on_demand {
            for instance in &mut self.instances {
                instance.start_at = Some(now);
            }
            self.start_due(now, &mut out);
        }
        out
    }

    pub(super) fn starting(&self) -> usize {
        self.instances.iter().filter(|instance| instance.state == InstanceState::Starting).count()
    }

    pub(super) fn start_due(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.phase != Phase::Open {
            return;
        }
        let mut free = self.rules.starts_at_once.saturating_sub(self.starting());
        for (at, instance) in self.instances.iter_mut().enumerate() {
            if free == 0 {
                break;
            }
            if instance.start_at.is_some_and(|due| due <= now) && instance.state == InstanceState::Down {
                instance.start_at = None;
                instance.state = InstanceState::Starting;
                instance.generation += 1;
                instance.ordered = Some(now);
                instance.pid = None;
                free -= 1;
                out.push(Action::Order(at, Order::Start));
            }
        }
    }

    /// In an on-demand pool: starts the instance that a turn waits for.
    pub(super) fn wake(&mut self, at: usize, now: Instant, out: &mut Vec<Action>) {
        let instance = &mut self.instances[at];
        if self.rules.on_demand && instance.state == InstanceState::Down && instance.start_at.is_none() {
            instance.start_at = Some(now);
            self.start_due(now, out);
        }
    }

    pub(super) fn available(&mut self, at: usize, now: Instant, out: &mut Vec<Action>) {
        let instance = &mut self.instances[at];
        let was_starting = instance.state == InstanceState::Starting;
        if instance.state == InstanceState::Stopping {
            return;
        }
        instance.state = InstanceState::Idle;
        if instance.restart && !was_starting {
            instance.restart = false;
            return self.stop(at, "restarted by hand", out);
        }
        instance.restart = false;
        if std::mem::take(&mut instance.restart_awaited) {
            out.push(Action::Restarted(at, Ok(())));
        }
        if let Some(why) = instance.recycle.take() {
            return self.stop(at, &format!("recycled: {why}"), out);
        }
        if was_starting {
            let took = instance.ordered.map_or(Duration::ZERO, |ordered| now - ordered);
            let (generation, version) = (instance.generation, instance.version.clone());
            out.push(Action::Emit(Event::InstanceReady { instance: at, generation, took, version }));
            self.start_due(now, out);
        }
        self.fill(at, now, out);
    }

    /// An instance grew too old or too large: its process is ended and started again, never in a turn.
    pub fn recycle(&mut self, at: usize, why: &str) -> Vec<Action> {
        let mut out = Vec::new();
        match self.instances[at].state {
            InstanceState::Idle => self.stop(at, &format!("recycled: {why}"), &mut out),
            InstanceState::Busy { .. } | InstanceState::Resetting => self.instances[at].recycle = Some(why.to_owned()),
            _ => {}
        }
        out
    }

    /// Restarts an instance by hand: at once, or when its turn is over. [`Action::Restarted`] follows.
    pub fn restart(&mut self, at: usize, force: bool, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        if self.phase != Phase::Open {
            out.push(Action::Restarted(at, Err(shut_down())));
            return out;
        }
        let instance = &mut self.instances[at];
        instance.supervisor.forgive();
        instance.restart = true;
        instance.restart_awaited = true;
        match &instance.state {
            InstanceState::Quarantined { .. } | InstanceState::Down => {
                instance.restart = false;
                instance.state = InstanceState::Down;
                instance.start_at = Some(now);
                self.start_due(now, &mut out);
            }
            InstanceState::Busy { .. } if !force => {}
            InstanceState::Starting | InstanceState::Stopping => {}
            _ => self.stop(at, "restarted by hand", &mut out),
        }
        out
    }

    pub(super) fn stop(&mut self, at: usize, why: &str, out: &mut Vec<Action>) {
        let instance = &mut self.instances[at];
        if matches!(instance.state, InstanceState::Down | InstanceState::Quarantined { .. }) {
            return;
        }
        instance.state = InstanceState::Stopping;
        out.push(Action::Order(at, Order::Stop { why: why.to_owned() }));
    }

    pub(super) fn ended(
        &mut self,
        at: usize,
        why: String,
        failure: Option<Failure>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let jitter = self.jitter();
        let instance = &mut self.instances[at];
        let generation = instance.generation;
        instance.pid = None;
        instance.started = None;
        instance.recycle = None;
        let wanted = instance.state == InstanceState::Stopping || failure.is_none();
        instance.state = InstanceState::Down;
        out.push(Action::Emit(Event::InstanceEnded { instance: at, generation, why, failure: failure.clone() }));
        if self.phase != Phase::Open {
            self.start_due(now, out);
            return self.check_down(out);
        }
        let instance = &mut self.instances[at];
        let waited_for = !instance.queue.is_empty() || !self.common.is_empty() || instance.restart_awaited;
        let needed = !self.rules.on_demand || waited_for;
        instance.last_failure.clone_from(&failure);
        match failure {
            Some(failure) if !wanted => match instance.supervisor.failed(&failure, jitter) {
                Verdict::Restart(pause) => {
                    if needed {
                        instance.restarts += 1;
                        instance.start_at = Some(now + pause);
                    }
                }
                Verdict::Quarantine => self.quarantine(at, failure, now, out),
            },
            _ => {
                instance.restart = false;
                if needed {
                    instance.start_at = Some(now);
                }
            }
        }
        self.start_due(now, out);
    }

    pub(super) fn quarantine(&mut self, at: usize, failure: Failure, now: Instant, out: &mut Vec<Action>) {
        let instance = &mut self.instances[at];
        instance.state = InstanceState::Quarantined { failure: failure.clone() };
        instance.start_at = None;
        if std::mem::take(&mut instance.restart_awaited) {
            out.push(Action::Restarted(at, Err(failure.clone())));
        }
        out.push(Action::Emit(Event::InstanceQuarantined { instance: at, failure }));
        // What waited for this instance alone goes to the others; what waits for any waits on while one lives.
        let orphans: Vec<_> = self.instances[at].queue.drain(..).collect();
        for id in orphans {
            let Some(turn) = self.turns.get(&id) else { continue };
            let (address, key) = (turn.submission.address, turn.submission.key.clone());
            self.route(id, address, key.as_deref(), now, out);
        }
        // In an on-demand pool nobody else may have been started for what waits for any, and an idle instance may be the
        // last one for a turn that avoided it.
        if !self.common.is_empty() {
            (0..self.instances.len()).for_each(|other| self.fill(other, now, out));
        }
        if self.hopeless().is_some() {
            let rest: Vec<_> = self.common.iter().copied().collect();
            for id in rest {
                let failure = self.no_instance(None);
                self.finish_unrun(id, failure.into(), now, out);
            }
        }
    }

    /// Nothing new is taken; what runs is cancelled; all instances are ended in order. [`Action::Down`] follows.
    pub fn close(&mut self, now: Instant) -> (usize, Vec<Action>) {
        let (dropped, mut out) = self.cancel_all(now);
        self.phase = Phase::Closing;
        for at in 0..self.instances.len() {
            self.instances[at].start_at = None;
            if std::mem::take(&mut self.instances[at].restart_awaited) {
                out.push(Action::Restarted(at, Err(shut_down())));
            }
            self.stop(at, "the pool is shut down", &mut out);
        }
        self.check_down(&mut out);
        (dropped, out)
    }

    pub(super) fn check_down(&mut self, out: &mut Vec<Action>) {
        let down =
            |instance: &Instance| matches!(instance.state, InstanceState::Down | InstanceState::Quarantined { .. });
        if self.phase == Phase::Closing && self.instances.iter().all(down) {
            self.phase = Phase::Down;
            out.push(Action::Down);
        }
    }

    /// A number in 0..1 that spreads restarts; it needs no more randomness than to differ.
    pub(super) fn jitter(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        f64::from(u32::try_from(self.random >> 32).unwrap_or_default()) / f64::from(u32::MAX)
    }
}
