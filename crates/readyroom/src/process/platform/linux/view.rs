//! Which process belongs to which tree: the table of processes, read from the guardian downwards.

use std::collections::HashMap;

use super::mark::{self, OwnerId, TreeId};
use super::procfs::{Stat, Table};

/// The processes below the guardian, by tree.
#[derive(Debug, Default)]
pub(super) struct View {
    trees: HashMap<TreeId, Vec<Stat>>,
}

impl View {
    /// The living processes of a tree.
    pub(super) fn members(&self, tree: TreeId) -> &[Stat] {
        self.trees.get(&tree).map_or(&[], Vec::as_slice)
    }
}

/// Remembers from look to look which process was in which tree, so that one that hides is still known.
#[derive(Debug, Default)]
pub(super) struct Viewer {
    seen: HashMap<(u32, u64), TreeId>,
}

impl Viewer {
    /// Looks at all processes. `leaders` names the trees by their leaders' pids, also of leaders that have ended.
    ///
    /// Everything that came from a tree is below the guardian: under its leader, or, once its parents are gone, directly
    /// under the guardian. There it is told by the session that its leader opened, by its marks, or because it was seen before.
    pub(super) fn look(&mut self, owner: &OwnerId, guardian: u32, leaders: &HashMap<u32, TreeId>) -> View {
        let table = Table::read();
        let mut trees: HashMap<TreeId, Vec<Stat>> = HashMap::new();
        let mut seen = HashMap::new();
        for &child in table.children(guardian) {
            let Some(stat) = table.get(child) else { continue };
            let key = (stat.pid, stat.started);
            let tree = leaders
                .get(&child)
                .or_else(|| self.seen.get(&key))
                .or_else(|| leaders.get(&stat.session))
                .copied()
                .or_else(|| mark::tree_of(child, owner));
            for stat in std::iter::once(*stat).chain(table.below(child)) {
                let key = (stat.pid, stat.started);
                let Some(tree) = tree.or_else(|| self.seen.get(&key).copied()) else { continue };
                seen.insert(key, tree);
                if stat.runs() {
                    trees.entry(tree).or_default().push(stat);
                }
            }
        }
        self.seen = seen;
        View { trees }
    }
}
