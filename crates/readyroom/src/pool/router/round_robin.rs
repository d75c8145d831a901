//! Each living instance in turn.

use super::Load;

pub(super) fn choose(next: &mut usize, loads: &[Load]) -> Option<usize> {
    let chosen = (0..loads.len()).map(|step| (*next + step) % loads.len()).find(|&at| loads[at].alive)?;
    *next = chosen + 1;
    Some(chosen)
}
