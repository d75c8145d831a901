//! The same key, the same instance, with no table of keys to grow: the instance whose hash with the key is highest.
//! When one dies only its own keys move, and they come back with it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::Load;

pub(super) fn choose(loads: &[Load], key: Option<&str>) -> Option<usize> {
    let mut living = (0..loads.len()).filter(|&at| loads[at].alive);
    match key {
        None => living.next(),
        Some(key) => living.max_by_key(|&at| {
            let mut hasher = DefaultHasher::new();
            (key, at).hash(&mut hasher);
            hasher.finish()
        }),
    }
}
