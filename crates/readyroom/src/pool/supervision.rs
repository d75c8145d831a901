//! What becomes of an instance whose process failed: a restart after a growing pause, or quarantine.

use std::time::Duration;

use crate::error::{Failure, FailureKind};

/// How many lives in a row may end in failure without having run a turn before the instance is quarantined.
pub const BUDGET: u32 = 4;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What to do after a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Start again after this pause.
    Restart(Duration),
    /// Leave it down until somebody restarts it by hand.
    Quarantine,
}

/// Counts an instance's failures.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    /// With no turn that succeeded between them.
    in_a_row: u32,
    /// Those since the last turn, however that ended.
    idle: u32,
}

impl Supervisor {
    /// A turn succeeded: the failures before it no longer count.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A turn ran and did not succeed: what ended the process may be the turn's own doing.
    pub fn ran(&mut self) {
        self.idle = 0;
    }

    /// Somebody restarts the instance by hand: it gets its whole budget again.
    pub fn forgive(&mut self) {
        *self = Self::default();
    }

    /// The process failed. `jitter` in 0..1 spreads the restarts of instances that failed together.
    pub fn failed(&mut self, failure: &Failure, jitter: f64) -> Verdict {
        self.in_a_row += 1;
        self.idle += 1;
        let hopeless = matches!(
            failure.kind,
            FailureKind::ToolMissing
                | FailureKind::BadInput
                | FailureKind::PermissionDenied
                | FailureKind::Auth
                | FailureKind::UnknownModel
        );
        if hopeless || self.idle >= BUDGET {
            return Verdict::Quarantine;
        }
        // The first restart is at once: one crash says nothing about the next life.
        if self.in_a_row == 1 {
            return Verdict::Restart(Duration::ZERO);
        }
        let pause = (FIRST_PAUSE * 2u32.saturating_pow(self.in_a_row - 2)).min(LONGEST_PAUSE);
        Verdict::Restart(pause.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crash() -> Failure {
        Failure::new(FailureKind::Crashed { exit: None }, "it crashed")
    }

    #[test]
    fn crashes_in_a_row_are_restarted_ever_later_and_then_quarantined() {
        let mut supervisor = Supervisor::default();
        let pauses: Vec<_> = (0..BUDGET).map(|_| supervisor.failed(&crash(), 0.5)).collect();
        assert_eq!(
            pauses,
            [
                Verdict::Restart(Duration::ZERO),
                Verdict::Restart(FIRST_PAUSE),
                Verdict::Restart(FIRST_PAUSE * 2),
                Verdict::Quarantine,
            ]
        );
    }

    #[test]
    fn crashes_in_turns_are_restarted_ever_later_and_never_quarantined() {
        let mut supervisor = Supervisor::default();
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            supervisor.ran();
            let Verdict::Restart(pause) = supervisor.failed(&crash(), 0.5) else { panic!("it runs turns") };
            assert!(pause >= last);
            last = pause;
        }
        assert_eq!(last, LONGEST_PAUSE);
    }

    #[test]
    fn a_turn_that_succeeds_gives_the_budget_back() {
        let mut supervisor = Supervisor::default();
        for _ in 0..20 {
            assert_eq!(supervisor.failed(&crash(), 0.5), Verdict::Restart(Duration::ZERO));
            supervisor.succeeded();
        }
    }

    #[test]
    fn what_cannot_get_better_by_itself_is_not_tried_again() {
        for kind in [FailureKind::ToolMissing, FailureKind::Auth, FailureKind::UnknownModel] {
            let failure = Failure::new(kind, "no such thing");
            assert_eq!(Supervisor::default().failed(&failure, 0.5), Verdict::Quarantine);
        }
    }
}
