//! Links back to a node, and which of them pruning must leave alone.
//!
//! Each node has a *parent*, and is its child; together they are *kin*. Their lists on level 0 lead to
//! each other and keep doing so, and a parent is older than its children, but for that of the oldest
//! node: so these links make a tree over all nodes, and pruning cuts nothing off. A repair finds new
//! parents for the children of dead nodes; where no older one is near it takes a younger one, and
//! where lists are full the way back may be missing.

use super::{
    graph::NONE,
    link::{GraphWriter, Plan, Write},
    metric::Metric,
    walk::{Key, Scratch, with_scratch},
};

impl<M: Metric> GraphWriter<M> {
    /// Plans links to `row` from `selected`, nearest first. If all their lists prefer others and
    /// `row` `is_orphan`, one of `near` has to take it: without a link to it a node is lost.
    pub(super) fn plan_back_links(
        &self,
        row: u32,
        selected: &[Key],
        near: &[Key],
        (level, is_orphan): (usize, bool),
        plan: &mut Plan,
    ) {
        let mut parent = None;
        for at in selected {
            if self.plan_back_link(row, *at, level, plan) {
                // Selected are sorted: of the older ones the nearest, else the nearest of all.
                parent = parent.filter(|old| *old < row || at.row() > row).or(Some(at.row()));
            }
        }
        if !is_orphan {
            return;
        }
        let is_old = |at: &&Key| at.row() < row;
        let has_old = parent.is_some_and(|parent| parent < row);
        let ways = || near.iter().filter(is_old).filter_map(|at| self.way(row, *at, level, plan));
        let any_way = || near.iter().find_map(|at| self.way(row, *at, level, plan));
        let way = if level > 0 || has_old { None } else { ways().next() };
        let way = way.or_else(|| if parent.is_none() { any_way() } else { None });
        if let Some((at, write)) = way {
            plan.writes.push(write);
            parent = Some(at);
        }
        if let (0, Some(parent)) = (level, parent) {
            plan.adoptions.push((row, parent));
            // The way back. A new node has room for it; one that is linked anew may have none.
            if let Some(Write::Node { lists, .. }) = plan.writes.first_mut()
                && let Some(lowest) = lists.first_mut()
                && !lowest.contains(&parent)
            {
                lowest.push(parent);
            }
        }
    }

    /// How `at` can be made to lead to `row`: by a free slot, or in place of the farthest neighbor
    /// that is neither child nor parent of `at`.
    fn way(&self, row: u32, at: Key, level: usize, plan: &Plan) -> Option<(u32, Write)> {
        let at = at.row();
        let mut list: Vec<u32> = self.graph.neighbors(at, level).collect();
        // What the plan has written to the list already counts, but nobody has to be found twice.
        if at == row || list.contains(&row) || plan.changes(at, level) {
            return None;
        }
        if list.len() < self.graph.slots(at, level).len() {
            let slot = list.len();
            return Some((at, Write::Append { row: at, level, slot, neighbor: row }));
        }
        let mut keys = Vec::new();
        with_scratch(|scratch| {
            self.graph.ruler_at(at, &mut scratch.probe)?.keys(&list, &mut keys);
            Some(())
        })?;
        let is_spare = |key: &&Key| level > 0 || !self.are_kin(at, key.row());
        let gone = keys.iter().filter(is_spare).max()?.row();
        list.iter_mut().filter(|other| **other == gone).for_each(|other| *other = row);
        Some((at, Write::Replace { row: at, level, list }))
    }

    /// Plans the link from `at` to `row`, whose distance `at` carries; a full list is selected anew
    /// with `row` among the candidates. Returns whether the link is made.
    fn plan_back_link(&self, row: u32, at: Key, level: usize, plan: &mut Plan) -> bool {
        let slots = self.graph.slots(at.row(), level).len();
        let before: Vec<u32> = self.graph.neighbors(at.row(), level).collect();
        if before.contains(&row) {
            return true;
        }
        if before.len() < slots {
            let slot = before.len();
            plan.writes.push(Write::Append { row: at.row(), level, slot, neighbor: row });
            return true;
        }
        let selected = with_scratch(|scratch| {
            let Scratch { probe, chosen, .. } = scratch;
            let mut candidates = Vec::with_capacity(before.len() + 1);
            self.graph.ruler_at(at.row(), probe)?.keys(&before, &mut candidates);
            candidates.push(Key::new(at.distance(), row));
            candidates.sort_unstable();
            let kept = self.select(&candidates, slots, chosen);
            Some((candidates, kept))
        });
        let Some((candidates, kept)) = selected else { return false };
        let kept = self.plan_replace(at.row(), level, &before, kept, &candidates, plan);
        kept.iter().any(|key| key.row() == row)
    }

    /// Plans `kept` as the list of `node` in place of `before`. Its children and its parent stay:
    /// pruning must not cut them off. `candidates` has the distances. Returns the list.
    pub(super) fn plan_replace(
        &self,
        node: u32,
        level: usize,
        before: &[u32],
        mut kept: Vec<Key>,
        candidates: &[Key],
        plan: &mut Plan,
    ) -> Vec<Key> {
        let slots = self.graph.slots(node, level).len();
        if level == 0 {
            let is_kin = |row: u32| before.contains(&row) && self.are_kin(node, row);
            let selected = kept.len();
            for key in candidates {
                if kept.iter().any(|other| other.row() == key.row()) || !is_kin(key.row()) {
                    continue;
                }
                if kept.len() == slots {
                    // The farthest that is neither child nor parent makes room.
                    let spare = |other: &Key| !is_kin(other.row());
                    let Some(index) = kept.iter().take(selected).rposition(spare) else { break };
                    kept.remove(index);
                }
                kept.push(*key);
            }
        }
        let list = kept.iter().map(|key| key.row()).collect();
        plan.writes.push(Write::Replace { row: node, level, list });
        kept
    }

    /// The node whose list leads to `row` for as long as both are there, or [`NONE`].
    pub(super) fn parent(&self, row: u32) -> u32 {
        self.parents.get(row as usize).copied().unwrap_or(NONE)
    }

    /// Whether one is the parent of the other.
    fn are_kin(&self, a: u32, b: u32) -> bool {
        self.parent(a) == b || self.parent(b) == a
    }
}
