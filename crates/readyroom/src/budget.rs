//! What attempts have cost, and how much they may cost.

use serde::{Deserialize, Serialize};

use crate::job::Usage;

/// What attempts have cost, as far as their tools tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Tokens in both directions.
    pub tokens: u64,
    /// In US dollars.
    pub usd: f64,
}

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.usd += other.usd;
    }
}

impl From<&Usage> for Spent {
    fn from(usage: &Usage) -> Self {
        let tokens = usage.input_tokens.unwrap_or(0).saturating_add(usage.output_tokens.unwrap_or(0));
        Self { tokens, usd: usage.cost_usd.unwrap_or(0.0) }
    }
}

/// How much may be spent. Nothing that has begun is cut short for it: what is spent is known when a turn has ended.
///
/// ```
/// use readyroom::{Budget, Spent};
///
/// let budget = Budget { tokens: Some(1000), usd: None };
/// assert!(!budget.is_spent(&Spent { tokens: 999, usd: 5.0 }));
/// assert!(budget.is_spent(&Spent { tokens: 1000, usd: 0.0 }));
/// assert_eq!(budget.after(&Spent { tokens: 400, usd: 0.0 }).tokens, Some(600));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Tokens in both directions; none: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// In US dollars; none: any amount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
}

impl Budget {
    /// Whether it sets no limit.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing is left of it.
    pub fn is_spent(&self, spent: &Spent) -> bool {
        self.tokens.is_some_and(|most| spent.tokens >= most) || self.usd.is_some_and(|most| spent.usd >= most)
    }

    /// What is left of it.
    #[must_use]
    pub fn after(&self, spent: &Spent) -> Self {
        Self {
            tokens: self.tokens.map(|most| most.saturating_sub(spent.tokens)),
            usd: self.usd.map(|most| (most - spent.usd).max(0.0)),
        }
    }
}
