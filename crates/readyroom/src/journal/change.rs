//! What jobs changed, as the journal keeps it: recorded before it is applied, in the order in which the jobs ended.

use serde::{Deserialize, Serialize};

use crate::workspace::Change;

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeState {
    /// It is to be applied.
    Pending,
    /// It is in the caller's files.
    Applied,
    /// It does not apply, and is kept as a branch.
    Conflict,
    /// It is of a job that did not succeed, and is kept for who wants to look at it.
    Kept,
}

impl ChangeState {
    const ALL: [Self; 4] = [Self::Pending, Self::Applied, Self::Conflict, Self::Kept];

    /// Its name in the file and for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Applied => "applied",
            Self::Conflict => "conflict",
            Self::Kept => "kept",
        }
    }

    pub(super) fn read(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A change in the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The change.
    pub change: Change,
    /// What became of it.
    pub state: ChangeState,
    /// The branch that it is kept as, where it is kept as one.
    pub branch: Option<String>,
}
