//! What a resume does with each job: the restart table.

use serde::{Deserialize, Serialize};

/// How a job stands in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Nothing of it was ever sent to a tool.
    Queued,
    /// It was going to be sent to a tool, and no end of it is known: its prompt may have run.
    Running,
    /// It succeeded.
    Succeeded,
    /// It ended otherwise, by itself.
    Failed,
    /// It was cancelled while it ran, since its batch was stopped.
    Cancelled,
    /// Its owner died while it ran, and nobody can say how far it came.
    Lost,
    /// Somebody took it out of its batch: it is not to run any more.
    Dropped,
}

impl JobState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled, Self::Lost, Self::Dropped];

    /// Its name in the file and for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Dropped => "dropped",
        }
    }

    pub(super) fn read(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What the one who resumes asks for besides what was never run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Also what failed.
    pub failed: bool,
    /// Also what may have run.
    pub lost: bool,
}

/// What becomes of a job at a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is run.
    Run,
    /// It is left as it is.
    Leave,
    /// It may have run: it is set down as lost, and not run.
    Lose,
}

/// The restart table. `safe`: running the job a second time can do no harm, since it changes nothing, or nothing but its own
/// worktree.
pub fn next(state: JobState, safe: bool, wishes: Wishes) -> Next {
    match state {
        JobState::Queued => Next::Run,
        JobState::Running | JobState::Cancelled | JobState::Lost if safe || wishes.lost => Next::Run,
        JobState::Running | JobState::Cancelled => Next::Lose,
        JobState::Failed if wishes.failed => Next::Run,
        JobState::Lost | JobState::Succeeded | JobState::Failed | JobState::Dropped => Next::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table() {
        use JobState::*;
        use Next::*;
        let none = Wishes::default();
        let failed_too = Wishes { failed: true, lost: false };
        let lost_too = Wishes { failed: false, lost: true };
        // State; then safe or not: as it is, with --failed, with --lost.
        let rows = [
            (Queued, [Run, Run, Run], [Run, Run, Run]),
            (Running, [Run, Run, Run], [Lose, Lose, Run]),
            (Cancelled, [Run, Run, Run], [Lose, Lose, Run]),
            (Lost, [Run, Run, Run], [Leave, Leave, Run]),
            (Failed, [Leave, Run, Leave], [Leave, Run, Leave]),
            (Succeeded, [Leave, Leave, Leave], [Leave, Leave, Leave]),
            (Dropped, [Leave, Leave, Leave], [Leave, Leave, Leave]),
        ];
        assert_eq!(rows.len(), JobState::ALL.len());
        for (state, safe, unsafe_) in rows {
            for (at, wishes) in [none, failed_too, lost_too].into_iter().enumerate() {
                assert_eq!(next(state, true, wishes), safe[at], "{state:?}, safe, {wishes:?}");
                assert_eq!(next(state, false, wishes), unsafe_[at], "{state:?}, {wishes:?}");
            }
        }
    }

    #[test]
    fn names_come_back() {
        assert!(JobState::ALL.iter().all(|state| JobState::read(state.name()) == Some(*state)));
        assert_eq!(JobState::read("other"), None);
    }
}
