//! Taking dead rows out of the graph.
//!
//! Dead nodes are walked over, which costs time and crowds out the living, so when too many rows of
//! the graph are dead a *repair* removes them: dead twins leave their chains; nodes that stand for
//! no live row are condemned; the entry point moves if it is one of them; every list that leads to a
//! condemned node is selected anew among the live nodes of the list and those behind the condemned
//! ones (as FreshDiskANN does: Singh et al. 2021, algorithm 4). After that no link leads to a
//! condemned node. Readers go on meanwhile; one that stands on a condemned node finds its links
//! intact.
//!
//! The work is cut into plans of bounded size. A whole repair costs as much as the nodes of the
//! graph have links, and the next one is not due before a fifth of them died.

use crate::ids::RowId;
use std::mem;

use super::{
    graph::{Entry, NONE, Seen},
    link::{GraphWriter, Plan, State, Write},
    metric::Metric,
    point::Ruler,
    walk::{Key, Scratch, Trail, with_scratch},
};

/// A repair is due when more than one in this many rows of the graph is dead. The promise is one in
/// four at most; the difference is what may die while a repair runs.
const DEAD_SHARE: u32 = 5;

/// Nodes looked at in one plan, at most.
const NODES_PER_PLAN: usize = 64;

/// A repair under way.
pub(super) struct Repair {
    /// Rows that died up to here are removed; later deaths wait for the next repair.
    horizon: u64,
    phase: Phase,
    /// Live node with the highest level: the entry point if that one is condemned.
    best: Option<Entry>,
}

enum Phase {
    /// Removing dead twins and condemning dead nodes, from this node of the list on.
    Condemn { node_index: usize },
    /// Moving the entry point.
    Enter,
    /// Selecting lists anew, from this node of the list on.
    Relink { node_index: usize },
}

impl Repair {
    pub(super) fn note_alive(&mut self, node: Entry) {
        if self.best.is_none_or(|best| node.level > best.level) {
            self.best = Some(node);
        }
    }
}

impl<M: Metric> GraphWriter<M> {
    /// Plans the next step of a repair, or returns `None` when nothing is to be done: no repair is
    /// under way and none is due. `horizon` as in [`GraphWriter::draft`].
    pub(crate) fn plan_repair(&mut self, horizon: u64) -> Option<Plan> {
        self.count_deaths(horizon);
        let mut repair = match self.repair.take() {
            Some(repair) => repair,
            None if self.dead_count > self.rows_count / DEAD_SHARE => Repair {
                horizon: self.horizon,
                phase: Phase::Condemn { node_index: 0 },
                best: None,
            },
            None => return None,
        };
        let mut plan = Self::empty_plan();
        let next = match repair.phase {
            Phase::Condemn { node_index } => {
                Some(self.plan_condemn(&mut repair, node_index, &mut plan))
            }
            Phase::Enter => {
                self.plan_enter(&repair, &mut plan);
                Some(Phase::Relink { node_index: 0 })
            }
            Phase::Relink { node_index } => self.plan_relink(node_index, &mut plan),
        };
        match next {
            Some(phase) => self.repair = Some(Repair { phase, ..repair }),
            None => self.finish_repair(),
        }
        Some(plan)
    }

    /// Repairs until nothing is to be done.
    #[cfg(test)]
    pub(crate) fn repair(&mut self, horizon: u64) {
        while let Some(plan) = self.plan_repair(horizon) {
            self.apply(plan);
        }
    }

    fn plan_condemn(&mut self, repair: &mut Repair, from: usize, plan: &mut Plan) -> Phase {
        let end = (from + NODES_PER_PLAN).min(self.nodes.len());
        for index in from..end {
            let Some(node) = self.nodes.get(index).copied() else { break };
            let first = self.graph.chain(node).nth(1).unwrap_or(NONE);
            let has_twins = self.plan_prune(Some(node), first, repair.horizon, plan);
            if !self.graph.arena.is_dead(RowId(node), repair.horizon) || has_twins {
                repair.note_alive(Entry { row: node, level: self.level_of(node) });
                if self.graph.arena.is_dead(RowId(node), repair.horizon)
                    && self.state(node) == State::Linked
                {
                    // No longer a dead row that waits: its twins need the node.
                    self.set_state(node, State::Kept);
                    self.dead_count -= 1;
                }
            } else {
                if self.state(node) == State::Kept {
                    self.dead_count += 1;
                }
                self.condemn(node);
            }
        }
        if end < self.nodes.len() {
            return Phase::Condemn { node_index: end };
        }
        let first = self.graph.chain_of_placeless();
        self.plan_prune(None, first, repair.horizon, plan);
        Phase::Enter
    }

    /// Plans the removal of dead rows from a chain: those from `first` on, which follows
    /// `previous`. Returns whether any row stays.
    fn plan_prune(
        &mut self,
        previous: Option<u32>,
        first: u32,
        horizon: u64,
        plan: &mut Plan,
    ) -> bool {
        let graph = std::sync::Arc::clone(&self.graph);
        let mut last_alive = previous;
        let mut removed_since = false;
        let mut any_alive = false;
        for row in graph.chain(first) {
            if graph.arena.is_dead(RowId(row), horizon) {
                self.set_state(row, State::Absent);
                self.rows_count -= 1;
                self.dead_count -= 1;
                removed_since = true;
                continue;
            }
            if mem::take(&mut removed_since) {
                plan.writes.push(Write::Chain { previous: last_alive, next: row });
            }
            last_alive = Some(row);
            any_alive = true;
        }
        if removed_since {
            plan.writes.push(Write::Chain { previous: last_alive, next: NONE });
        }
        any_alive
    }

    fn plan_enter(&self, repair: &Repair, plan: &mut Plan) {
        let is_condemned = |entry: Entry| self.state(entry.row) == State::Condemned;
        if self.graph.entry().is_some_and(is_condemned) {
            plan.writes.push(Write::Enter { entry: repair.best });
        }
    }

    /// Plans new lists for the next node that has a condemned neighbor. Nodes linked since the
    /// repair began are at the end of the list and have their turn as well.
    fn plan_relink(&mut self, from: usize, plan: &mut Plan) -> Option<Phase> {
        let end = (from + NODES_PER_PLAN).min(self.nodes.len());
        for index in from..end {
            let Some(node) = self.nodes.get(index).copied() else { break };
            if self.state(node) == State::Condemned {
                continue;
            }
            for level in 0..=self.level_of(node) {
                let is_condemned = |row: u32| self.state(row) == State::Condemned;
                // A node that only condemned ones led to needs links as well.
                let is_orphan = level == 0 && self.is_orphan(node);
                if is_orphan || self.graph.neighbors(node, level).any(is_condemned) {
                    self.plan_list(node, level, plan);
                }
            }
            // One changed node to the plan: the next one must see its links.
            if !plan.writes.is_empty() {
                return Some(Phase::Relink { node_index: index + 1 });
            }
        }
        (end < self.nodes.len()).then_some(Phase::Relink { node_index: end })
    }

    /// Plans a new list of `node` on `level`, and links back from those new in it.
    fn plan_list(&self, node: u32, level: usize, plan: &mut Plan) {
        let before: Vec<u32> = self.graph.neighbors(node, level).collect();
        let slots = self.graph.slots(node, level).len();
        let (candidates, selected) = with_scratch(|scratch| {
            let candidates = self.candidates_around(node, level, scratch);
            let selected = self.select(&candidates, slots, &mut scratch.chosen);
            (candidates, selected)
        });
        let alive = |row: &u32| self.state(*row) != State::Condemned;
        let before: Vec<u32> = before.into_iter().filter(alive).collect();
        let is_orphan = level == 0 && self.is_orphan(node);
        let new: Vec<Key> = selected
            .iter()
            .filter(|key| is_orphan || !before.contains(&key.row()))
            .copied()
            .collect();
        let _ = self.plan_replace(node, level, &before, selected, &candidates, plan);
        self.plan_back_links(node, &new, &candidates, (level, is_orphan), plan);
    }

    /// Whether the parent of `node` is no more.
    fn is_orphan(&self, node: u32) -> bool {
        let parent = self.parent(node);
        parent == NONE || self.state(parent) == State::Condemned
    }

    /// What the list of `node` can be chosen from, nearest first.
    fn candidates_around(&self, node: u32, level: usize, scratch: &mut Scratch) -> Vec<Key> {
        let Scratch { trail, probe, .. } = scratch;
        let Some(ruler) = self.graph.ruler_at(node, probe) else { return Vec::new() };
        let mut candidates = self.live_around(node, level, &ruler, trail);
        if candidates.is_empty() {
            let mut seen = Seen::default();
            if let Some(nearest) = self.graph.descend(&ruler, level, trail, &mut seen) {
                candidates = self.candidates(&ruler, trail, &[nearest], level, &mut seen);
                candidates.retain(|key| key.row() != node);
            }
        }
        candidates
    }

    /// The live neighbors of `node` and the live nodes behind its condemned ones, nearest first.
    fn live_around(
        &self,
        node: u32,
        level: usize,
        ruler: &Ruler<'_, M>,
        trail: &mut Trail,
    ) -> Vec<Key> {
        let enough = self.params().ef_construction;
        let Trail { marks, rows, .. } = trail;
        marks.begin(self.graph.arena.len());
        marks.visit(node);
        rows.clear();
        let mut around = vec![node];
        // Breadth first, so that what is cut off is farthest.
        let mut next = 0;
        while let Some(row) = around.get(next).copied() {
            next += 1;
            if rows.len() >= enough {
                break;
            }
            for neighbor in self.graph.neighbors(row, level) {
                if !marks.visit(neighbor) {
                    continue;
                }
                if self.state(neighbor) == State::Condemned {
                    around.push(neighbor);
                } else {
                    rows.push(neighbor);
                }
            }
        }
        let mut candidates = Vec::with_capacity(rows.len());
        ruler.keys(rows, &mut candidates);
        candidates.sort_unstable();
        candidates
    }

    /// Strikes the condemned nodes off. Their lists stay: a reader may still stand on one.
    fn finish_repair(&mut self) {
        let nodes = mem::take(&mut self.nodes);
        let (condemned, nodes): (Vec<u32>, Vec<u32>) =
            nodes.into_iter().partition(|node| self.state(*node) == State::Condemned);
        self.nodes = nodes;
        for node in condemned {
            self.forget_links(node);
            // A condemned row stays condemned: no later plan may link to it.
            self.rows_count -= 1;
            self.dead_count -= 1;
        }
    }
}
