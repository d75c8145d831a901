//! The living instance with the fewest turns; among equals, in turn.

use super::Load;

pub(super) fn choose(next: &mut usize, loads: &[Load]) -> Option<usize> {
    let chosen = (0..loads.len())
        .map(|step| (*next + step) % loads.len())
        .filter(|&at| loads[at].alive)
        .min_by_key(|&at| loads[at].turns)?;
    *next = chosen + 1;
    Some(chosen)
}
