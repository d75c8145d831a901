//! How much a process may print while turns are open. Whose output it is can't be told in a process that several share, so
//! turns that overlap have their limits together, also with those that have ended by then.

use std::collections::BTreeMap;

use crate::driver::Slot;

/// What was printed, and by how many turns at most.
#[derive(Debug)]
pub(super) struct Allowance {
    /// For each turn.
    limit: u64,
    printed: u64,
    /// The turns that are open, with what had been printed when each began.
    open: BTreeMap<Slot, u64>,
    /// What had been printed when others ended that overlapped one which is open.
    ended: Vec<u64>,
}

impl Allowance {
    pub fn new(limit: u64) -> Self {
        Self { limit, printed: 0, open: BTreeMap::new(), ended: Vec::new() }
    }

    /// A turn begins in this slot.
    pub fn begin(&mut self, slot: Slot) {
        if self.open.is_empty() {
            self.start_afresh();
        }
        self.open.insert(slot, self.printed);
    }

    /// The slot's turn has ended.
    pub fn end(&mut self, slot: Slot) {
        if self.open.remove(&slot).is_none() {
            return;
        }
        match self.open.values().min() {
            Some(&oldest) => {
                self.ended.push(self.printed);
                self.ended.retain(|&end| end > oldest);
            }
            None => self.start_afresh(),
        }
    }

    /// What was printed so far counts for nothing.
    pub fn start_afresh(&mut self) {
        self.printed = 0;
        self.ended.clear();
    }

    /// So many bytes more were printed. Whether that is within what the turns may print.
    pub fn print(&mut self, bytes: usize) -> bool {
        self.printed += bytes as u64;
        let since = self.open.values().min().copied().unwrap_or(0);
        let turns = (self.open.len() + self.ended.len()).max(1) as u64;
        self.printed - since <= self.limit.saturating_mul(turns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_its_limit_and_begins_at_nothing() {
        let mut allowance = Allowance::new(10);
        assert!(allowance.print(9), "before any turn");
        allowance.begin(Slot(0));
        assert!(allowance.print(10) && !allowance.print(1));
        allowance.end(Slot(0));
        allowance.begin(Slot(0));
        assert!(allowance.print(10) && !allowance.print(1));
    }

    #[test]
    fn a_long_turn_is_not_blamed_for_the_short_ones_beside_it() {
        let mut allowance = Allowance::new(10);
        allowance.begin(Slot(0));
        for _ in 0..50 {
            allowance.begin(Slot(1));
            assert!(allowance.print(9));
            allowance.end(Slot(1));
            assert!(allowance.print(0), "also while it is alone");
        }
    }

    #[test]
    fn those_that_ended_before_the_oldest_open_one_began_count_no_more() {
        let mut allowance = Allowance::new(10);
        allowance.begin(Slot(0));
        for _ in 0..50 {
            allowance.begin(Slot(1));
            assert!(allowance.print(1));
            allowance.end(Slot(1));
        }
        allowance.begin(Slot(1));
        assert!(allowance.print(1));
        allowance.end(Slot(0));
        assert!(allowance.print(19) && !allowance.print(1), "its own limit, and that of the one that ended beside it");
    }
}
