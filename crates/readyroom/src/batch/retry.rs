//! What becomes of a job after an attempt: a failure of the job's own is tried again a few times, a limit of the
//! provider's is waited for at no cost to any job, and what no attempt can mend stops the pool.

use std::time::Duration;

use jiff::Timestamp;

use crate::error::FailureKind;
use crate::job::Outcome;

/// The wait before the first retry; each further one waits twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait before a retry.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The wait for a usage window whose end nobody tells, before the first look.
const FIRST_LOOK: Duration = Duration::from_secs(60);
/// The longest wait between looks.
const LONGEST_LOOK: Duration = Duration::from_secs(30 * 60);

/// So many jobs that fail in a row in one way are no fault of theirs.
const OUTAGE: usize = 5;

/// What the caller allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a job may be tried again for a failure of its own.
    pub retries: u32,
    /// Whether a job that may have changed something is tried again, too.
    pub repeat_effects: bool,
    /// How long a usage window may be waited for; zero: not at all.
    pub longest_window: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { retries: 3, repeat_effects: false, longest_window: Duration::from_secs(6 * 3600) }
    }
}

/// An attempt that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// How.
    pub outcome: &'a Outcome,
    /// How often the job was tried again before for failures of its own.
    pub retried: u32,
    /// How often in a row the pool was held up before, without a success between.
    pub held_up: u32,
    /// How many jobs, this one among them, have failed in a row in this way.
    pub streak: usize,
    /// Whether it came to an instance.
    pub began: bool,
    /// Whether the attempt may have changed something that a further one would meet.
    pub may_have_acted: bool,
    /// The time.
    pub now: Timestamp,
    /// A number from 0 to 1, by which waits differ.
    pub chance: f64,
}

/// What becomes of the job.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// That was its end.
    Done,
    /// It is tried again.
    Again(Again),
    /// Nothing more is handed to its pool: a person has to mend something, or a limit lasts longer than may be waited.
    Stop,
}

/// A further attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Again {
    /// After so long.
    pub after: Duration,
    /// What it means for the other jobs of the pool.
    pub pool: PoolEffect,
}

/// What an attempt's end means for its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolEffect {
    /// Nothing: the job's retries are spent on it.
    None,
    /// Nothing new starts for so long, and then half as many at a time.
    Slowed,
    /// Nothing new starts for so long, and then one job alone.
    Parked,
}

impl RetryPolicy {
    /// What becomes of a job after `attempt`.
    pub fn next(&self, attempt: &Attempt<'_>) -> Next {
        let Outcome::Failed(failure) = attempt.outcome else { return Next::Done };
        let may_repeat = self.repeat_effects || !attempt.may_have_acted;
        match &failure.kind {
            FailureKind::Auth | FailureKind::UnknownModel | FailureKind::ToolMissing => Next::Stop,
            FailureKind::NotReady if !attempt.began => Next::Stop,
            FailureKind::RateLimited { retry_after } if may_repeat => {
                let told = retry_after.map(|after| after + spread(Duration::from_secs(1), attempt.chance));
                let after = told.unwrap_or_else(|| wait(FIRST_WAIT, LONGEST_WAIT, attempt.held_up, attempt.chance));
                Next::Again(Again { after, pool: PoolEffect::Slowed })
            }
            FailureKind::UsageWindow { resets_at } => {
                let told = resets_at.map(|at| Duration::try_from(at.duration_since(attempt.now)).unwrap_or_default());
                let after = told.map_or_else(
                    || wait(FIRST_LOOK, LONGEST_LOOK, attempt.held_up, attempt.chance),
                    |after| after + spread(Duration::from_secs(5), attempt.chance),
                );
                if !may_repeat || after > self.longest_window {
                    return Next::Stop;
                }
                Next::Again(Again { after, pool: PoolEffect::Parked })
            }
            FailureKind::Crashed { .. }
            | FailureKind::Stalled
            | FailureKind::ModelError
            | FailureKind::Protocol
            | FailureKind::NotRun
                if may_repeat =>
            {
                self.own_failure(attempt)
            }
            _ => Next::Done,
        }
    }

    /// What becomes of a job that failed by itself: a retry, unless so many do that it is no fault of theirs.
    fn own_failure(&self, attempt: &Attempt<'_>) -> Next {
        if attempt.streak >= OUTAGE {
            let look = |before, chance| wait(FIRST_LOOK, LONGEST_LOOK, before, chance);
            let waited: Duration = (0..attempt.held_up).map(|before| look(before, 0.5)).sum();
            let after = look(attempt.held_up, attempt.chance);
            return match waited + after > self.longest_window {
                true => Next::Stop,
                false => Next::Again(Again { after, pool: PoolEffect::Parked }),
            };
        }
        if attempt.retried >= self.retries {
            return Next::Done;
        }
        let after = wait(FIRST_WAIT, LONGEST_WAIT, attempt.retried, attempt.chance);
        Next::Again(Again { after, pool: PoolEffect::None })
    }
}

/// `first`, doubled for each time before, a quarter more or less, and never longer than `longest`.
fn wait(first: Duration, longest: Duration, before: u32, chance: f64) -> Duration {
    let whole = first.saturating_mul(2_u32.saturating_pow(before.min(16))).min(longest);
    whole.mul_f64(0.75 + 0.5 * chance.clamp(0.0, 1.0)).min(longest)
}

/// Up to `most`, so that many do not come back at once.
fn spread(most: Duration, chance: f64) -> Duration {
    most.mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;

    /// The first attempt at a job, which changed nothing.
    fn attempt(outcome: &Outcome, now: Timestamp) -> Attempt<'_> {
        Attempt { outcome, retried: 0, held_up: 0, streak: 1, began: true, may_have_acted: false, now, chance: 0.5 }
    }

    fn next(kind: FailureKind, change: impl FnOnce(&mut Attempt<'_>)) -> Next {
        let outcome = Outcome::from(kind);
        let now = "2026-03-01T10:00:00Z".parse().unwrap();
        let mut attempt = attempt(&outcome, now);
        change(&mut attempt);
        RetryPolicy::default().next(&attempt)
    }

    fn again(seconds: f64, pool: PoolEffect) -> Next {
        Next::Again(Again { after: Duration::from_secs_f64(seconds), pool })
    }

    #[test]
    fn every_kind_has_its_row() {
        use FailureKind::*;
        for kind in [Crashed { exit: None }, Stalled, ModelError, Protocol, NotRun] {
            assert_eq!(next(kind.clone(), |_| {}), again(1.0, PoolEffect::None), "{kind}");
            assert_eq!(next(kind.clone(), |attempt| attempt.retried = 2), again(4.0, PoolEffect::None), "{kind}");
            assert_eq!(next(kind.clone(), |attempt| attempt.retried = 3), Next::Done, "{kind}");
            assert_eq!(next(kind.clone(), |attempt| attempt.may_have_acted = true), Next::Done, "{kind}");
        }
        for kind in [Auth, UnknownModel, ToolMissing] {
            assert_eq!(next(kind.clone(), |_| {}), Next::Stop, "{kind}");
        }
        assert_eq!(next(NotReady, |attempt| attempt.began = false), Next::Stop, "no instance is left for any");
        for kind in [
            NotReady,
            PermissionDenied,
            OutputLimit,
            BadInput,
            VerifyFailed,
            Schema,
            Unchanged,
            OutOfScope,
            Conflict,
            Budget,
        ] {
            assert_eq!(next(kind.clone(), |_| {}), Next::Done, "{kind}");
        }
    }

    #[test]
    fn other_ends_are_ends() {
        let now = Timestamp::UNIX_EPOCH;
        for outcome in [Outcome::Succeeded, Outcome::Cancelled, Outcome::Lost] {
            let attempt = attempt(&outcome, now);
            assert_eq!(RetryPolicy::default().next(&attempt), Next::Done);
        }
    }

    #[test]
    fn a_limit_costs_no_retries() {
        let told = FailureKind::RateLimited { retry_after: Some(Duration::from_secs(3)) };
        assert_eq!(next(told.clone(), |attempt| attempt.retried = 3), again(3.5, PoolEffect::Slowed));
        assert_eq!(next(told, |attempt| attempt.may_have_acted = true), Next::Done);
        let untold = FailureKind::RateLimited { retry_after: None };
        assert_eq!(next(untold, |attempt| attempt.held_up = 10), again(60.0, PoolEffect::Slowed));
    }

    #[test]
    fn a_window_is_waited_for_as_long_as_that_may_be() {
        let at = |time: &str| FailureKind::UsageWindow { resets_at: Some(time.parse().unwrap()) };
        assert_eq!(next(at("2026-03-01T11:00:00Z"), |_| {}), again(3602.5, PoolEffect::Parked));
        assert_eq!(next(at("2026-03-01T09:00:00Z"), |_| {}), again(2.5, PoolEffect::Parked));
        assert_eq!(next(at("2026-03-02T10:00:00Z"), |_| {}), Next::Stop);
        let untold = FailureKind::UsageWindow { resets_at: None };
        assert_eq!(next(untold.clone(), |_| {}), again(60.0, PoolEffect::Parked));
        assert_eq!(next(untold.clone(), |attempt| attempt.held_up = 20), again(1800.0, PoolEffect::Parked));
        // 2.5 s come upon each, so that not all come back at once.
        assert_eq!(next(at("2026-03-01T15:59:57.5Z"), |_| {}), again(6.0 * 3600.0, PoolEffect::Parked), "no longer");
        let none = RetryPolicy { longest_window: Duration::ZERO, ..RetryPolicy::default() };
        let outcome = Outcome::Failed(Failure::new(untold, "used up"));
        let now = Timestamp::UNIX_EPOCH;
        let attempt = attempt(&outcome, now);
        assert_eq!(none.next(&attempt), Next::Stop);
    }

    #[test]
    fn many_jobs_that_fail_alike_are_an_outage() {
        let crash = || FailureKind::Crashed { exit: None };
        let at = |held_up| {
            move |attempt: &mut Attempt<'_>| {
                (attempt.streak, attempt.retried, attempt.held_up) = (OUTAGE, 3, held_up);
            }
        };
        assert_eq!(next(crash(), at(0)), again(60.0, PoolEffect::Parked), "also with no retries left");
        assert_eq!(next(crash(), at(3)), again(480.0, PoolEffect::Parked));
        // 60, 120, 240, 480, 960 s and ten times half an hour were waited; one more is 60 s too many, and one that is shorter by
        // these is not.
        assert_eq!(next(crash(), at(15)), Next::Stop);
        let shorter = |attempt: &mut Attempt<'_>| {
            at(15)(attempt);
            attempt.chance = 1.3 / 3.0;
        };
        assert_eq!(next(crash(), shorter), again(1740.0, PoolEffect::Parked));
        assert_eq!(next(crash(), at(30)), Next::Stop);
        assert_eq!(next(FailureKind::BadInput, at(0)), Next::Done, "such are the jobs' own");
        assert_eq!(next(crash(), |attempt| (attempt.streak, attempt.may_have_acted) = (9, true)), Next::Done);
    }

    #[test]
    fn waits_differ_by_chance_and_never_pass_the_longest() {
        for before in 0..40 {
            for chance in [0.0, 0.3, 1.0] {
                let wait = wait(FIRST_WAIT, LONGEST_WAIT, before, chance);
                assert!(wait >= FIRST_WAIT.mul_f64(0.75) && wait <= LONGEST_WAIT, "{wait:?}");
            }
        }
    }
}
