//! Chooses the instance for a turn. One file a strategy.

mod least_busy;
mod round_robin;
mod sticky;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::job::UnknownWord;

/// A routing strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    /// Each instance in turn; the choice is final.
    #[default]
    RoundRobin,
    /// The instance with the least to do; a turn that has not started moves to an instance that falls idle.
    LeastBusy,
    /// The same key, the same instance while it lives; without a key, instance 0. The choice is final.
    Sticky,
}

impl Routing {
    /// The strategy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastBusy => "least_busy",
            Self::Sticky => "sticky",
        }
    }
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Routing {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "round_robin" => Ok(Self::RoundRobin),
            "least_busy" => Ok(Self::LeastBusy),
            "sticky" => Ok(Self::Sticky),
            _ => Err(UnknownWord {
                what: "routing",
                given: word.into(),
                expected: "`round_robin`, `least_busy` or `sticky`",
            }),
        }
    }
}

/// What a router sees of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Whether turns may be given to it at all (quarantined instances are not alive).
    pub alive: bool,
    /// Turns that it runs or that wait for it.
    pub turns: usize,
}

/// Chooses instances.
#[derive(Debug)]
pub struct Router {
    routing: Routing,
    next: usize,
}

impl Router {
    /// A router of this strategy.
    pub fn new(routing: Routing) -> Self {
        Self { routing, next: 0 }
    }

    /// The instance for a turn; none where none is alive.
    pub fn choose(&mut self, loads: &[Load], key: Option<&str>) -> Option<usize> {
        match self.routing {
            Routing::RoundRobin => round_robin::choose(&mut self.next, loads),
            Routing::LeastBusy => least_busy::choose(&mut self.next, loads),
            Routing::Sticky => sticky::choose(loads, key),
        }
    }

    /// Whether a turn stays with the instance that was chosen for it.
    pub fn is_final(&self) -> bool {
        self.routing != Routing::LeastBusy
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loads() -> impl Strategy<Value = Vec<Load>> {
        prop::collection::vec((any::<bool>(), 0usize..50).prop_map(|(alive, turns)| Load { alive, turns }), 1..20)
    }

    #[test]
    fn each_has_a_word_and_is_read_from_it() {
        let words =
            [(Routing::RoundRobin, "round_robin"), (Routing::LeastBusy, "least_busy"), (Routing::Sticky, "sticky")];
        for (routing, word) in words {
            assert_eq!((routing.name(), routing.to_string().as_str(), word.parse().unwrap()), (word, word, routing));
        }
        let error = "nearest".parse::<Routing>().unwrap_err().to_string();
        assert!(error.contains("nearest") && error.contains("`least_busy`"), "{error}");
    }

    #[test]
    fn equals_are_chosen_in_turn_all_around() {
        for routing in [Routing::RoundRobin, Routing::LeastBusy] {
            let mut router = Router::new(routing);
            let loads = [Load { alive: true, turns: 0 }; 3];
            let chosen: Vec<_> = (0..7).map(|_| router.choose(&loads, None).unwrap()).collect();
            assert_eq!(chosen, [0, 1, 2, 0, 1, 2, 0], "{routing}");
        }
    }

    proptest! {
        #[test]
        fn the_chosen_instance_is_alive(loads in loads(), key in ".{0,8}", times in 1usize..30) {
            for routing in [Routing::RoundRobin, Routing::LeastBusy, Routing::Sticky] {
                let mut router = Router::new(routing);
                for _ in 0..times {
                    match router.choose(&loads, Some(&key)) {
                        Some(chosen) => prop_assert!(loads[chosen].alive),
                        None => prop_assert!(loads.iter().all(|load| !load.alive)),
                    }
                }
            }
        }

        #[test]
        fn equal_jobs_are_balanced_within_one(count in 1usize..20, jobs in 0usize..200) {
            for routing in [Routing::RoundRobin, Routing::LeastBusy] {
                let mut router = Router::new(routing);
                let mut loads = vec![Load { alive: true, turns: 0 }; count];
                for _ in 0..jobs {
                    let chosen = router.choose(&loads, None).unwrap();
                    loads[chosen].turns += 1;
                }
                let most = loads.iter().map(|load| load.turns).max().unwrap();
                let least = loads.iter().map(|load| load.turns).min().unwrap();
                prop_assert!(most - least <= 1);
            }
        }

        #[test]
        fn nobody_starves(count in 1usize..20) {
            for routing in [Routing::RoundRobin, Routing::LeastBusy] {
                let mut router = Router::new(routing);
                let loads = vec![Load { alive: true, turns: 3 }; count];
                let mut seen = vec![false; count];
                for _ in 0..count {
                    seen[router.choose(&loads, None).unwrap()] = true;
                }
                prop_assert!(seen.iter().all(|seen| *seen));
            }
        }

        #[test]
        fn a_key_moves_only_when_its_instance_dies(count in 2usize..20, keys in prop::collection::vec(".{1,8}", 1..30), dead in 0usize..20) {
            let dead = dead % count;
            let mut router = Router::new(Routing::Sticky);
            let mut loads = vec![Load { alive: true, turns: 0 }; count];
            let before: Vec<_> = keys.iter().map(|key| router.choose(&loads, Some(key)).unwrap()).collect();
            loads[dead].alive = false;
            for (key, before) in keys.iter().zip(before) {
                let after = router.choose(&loads, Some(key)).unwrap();
                let moved = if before == dead { after != dead } else { after == before };
                prop_assert!(moved);
            }
        }
    }

    #[test]
    fn sticky_without_a_key_is_the_first_that_lives() {
        let mut router = Router::new(Routing::Sticky);
        let mut loads = vec![Load { alive: true, turns: 9 }; 3];
        assert_eq!(router.choose(&loads, None), Some(0));
        loads[0].alive = false;
        assert_eq!(router.choose(&loads, None), Some(1));
    }
}
