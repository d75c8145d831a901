//! Chooses the instance.

use serde::{Deserialize, Serialize};

/// A routing strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    /// Each instance in turn.
    #[default]
    RoundRobin,
    /// The instance with the least to do.
    LeastBusy,
    /// The same key, the same instance.
    Sticky,
}
