//! Ends of jobs that are held back until those of all jobs before them are there.

#![expect(clippy::vec_box, reason = "ends travel in boxes, and are not moved out of them for this")]

use std::collections::{BTreeMap, HashSet};

use crate::report::Ended;

/// Holds ends back.
#[derive(Debug, Default)]
pub struct InOrder {
    next: usize,
    over: HashSet<usize>,
    held: BTreeMap<usize, Box<Ended>>,
}

impl InOrder {
    /// A job is over; `ended` is what has to wait for its turn. Returns what has its turn now, in order.
    pub fn over(&mut self, job: usize, ended: Option<Box<Ended>>) -> Vec<Box<Ended>> {
        self.over.insert(job);
        self.held.extend(ended.map(|ended| (job, ended)));
        let mut free = Vec::new();
        while self.over.remove(&self.next) {
            free.extend(self.held.remove(&self.next));
            self.next += 1;
        }
        free
    }

    /// How many are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Gives up waiting: what is held, in order.
    pub fn give_up(&mut self) -> Vec<Box<Ended>> {
        std::mem::take(&mut self.held).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use readyroom::Outcome;

    use super::*;

    #[test]
    fn ends_come_when_all_before_them_are_there() {
        let mut order = InOrder::default();
        let mut over = |job: usize, waits: bool| {
            let ended = waits.then(|| Box::new(Ended::unstarted(job, Outcome::Succeeded)));
            order.over(job, ended).iter().map(|ended| ended.job).collect::<Vec<_>>()
        };
        assert!(over(2, true).is_empty());
        assert!(over(1, false).is_empty());
        assert_eq!(over(0, true), [0, 2]);
        assert!(over(4, true).is_empty());
        assert_eq!(over(3, true), [3, 4]);
        over(6, true);
        assert_eq!(order.give_up().len(), 1);
    }
}
