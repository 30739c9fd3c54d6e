//! The HNSW graph, writing side: the one builder links rows in row order.
//!
//! Every change is first planned, which only reads and takes long, and then applied, which only
//! writes and takes microseconds. The caller can hold a lock around the second part alone.

use crate::ids::RowId;
use std::{marker::PhantomData, sync::Arc};

use super::{
    arena::Arena,
    columns::{Columns, Full},
    graph::{ALIKE, Counts, Entry, Graph, GraphParams, IDENTICAL, NONE, SLOTS, Seen, TWIN},
    metric::Metric,
    repair::Repair,
    walk::{Key, with_scratch},
};
use crate::{
    distance::Vector,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

/// Above this no level is drawn: with `m = 2` one row in 2^31 would get there.
const LEVEL_MAX: usize = 31;

/// What the builder knows of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Not linked: not yet, or dead when its turn came, or removed since.
    Absent,
    /// A node, a twin, or a row without a place.
    Linked,
    /// A node whose row is dead, kept for its live twins.
    Kept,
    /// A dead node that the repair under way removes. No new link leads to it.
    Condemned,
}

/// A change of the graph, ready to be applied.
#[must_use = "a plan changes nothing until it is applied"]
pub struct Plan {
    /// The row whose turn this was, if any; later plans begin after it.
    row: Option<u32>,
    pub(super) writes: Vec<Write>,
    /// Nodes that lose a link on level 0 by these writes, once for each link.
    dropped: Vec<u32>,
}

/// One step of a [`Plan`]. In the order of a plan, no link leads to what is not written yet.
pub(super) enum Write {
    /// Writes the block and all lists of a new node; `lists[level]` are its neighbors.
    Node { row: u32, upper: u32, lists: Vec<Vec<u32>> },
    /// Hangs a new row in behind `head`, or first in the chain without a place.
    Twin { row: u32, head: Option<u32>, kind: u32 },
    /// Puts a neighbor into the first empty slot.
    Append { row: u32, level: usize, slot: usize, neighbor: u32 },
    /// Replaces a list.
    Replace { row: u32, level: usize, list: Vec<u32> },
    /// Makes `next` follow `previous`, or come first in the chain without a place.
    Chain { previous: Option<u32>, next: u32 },
    /// Moves the entry point.
    Enter { entry: Option<Entry> },
}

/// The one writer of a [`Graph`].
pub struct GraphWriter<M> {
    pub(super) graph: Arc<Graph<M>>,
    params: GraphParams,
    /// All rows below had their turn.
    next: u32,
    /// Deaths up to this sequence number are final for every reader.
    pub(super) horizon: u64,
    /// How many deaths of the arena have been counted.
    deaths_seen: u32,
    pub(super) states: Vec<State>,
    /// For each row the links on level 0 that lead to it from nodes that are not condemned.
    in_degrees: Vec<u32>,
    /// All nodes, condemned ones included until the repair ends.
    pub(super) nodes: Vec<u32>,
    pub(super) rows_count: u32,
    pub(super) dead_count: u32,
    links_count: u64,
    /// Lists handed out in `Graph::upper`.
    upper_count: u32,
    pub(super) repair: Option<Repair>,
}

impl<M: Metric> GraphWriter<M> {
    /// An empty graph over the rows of `arena`, and the one writer of it.
    pub fn new(arena: Arc<Arena>, params: GraphParams) -> Self {
        let params = GraphParams {
            m: params.m.max(2),
            ef_construction: params.ef_construction.max(params.m).max(2),
            ..params
        };
        let graph = Graph {
            arena,
            #[cfg(test)]
            m: params.m,
            blocks: Columns::new(SLOTS + 2 * params.m),
            upper: Columns::new(params.m),
            entry: AtomicU64::new(0),
            placeless: AtomicU32::new(NONE),
            counts: Counts::default(),
            metric: PhantomData,
        };
        Self {
            graph: Arc::new(graph),
            params,
            next: 0,
            horizon: 0,
            deaths_seen: 0,
            states: Vec::new(),
            in_degrees: Vec::new(),
            nodes: Vec::new(),
            rows_count: 0,
            dead_count: 0,
            links_count: 0,
            upper_count: 0,
            repair: None,
        }
    }

    /// The graph that this writes to.
    pub fn graph(&self) -> &Arc<Graph<M>> {
        &self.graph
    }

    /// All rows below this one had their turn: what a search does not find of them in the graph was
    /// dead.
    pub fn next_row(&self) -> RowId {
        RowId(self.next)
    }

    /// Plans and applies in one: gives `row` its turn.
    ///
    /// # Errors
    /// There is no room for the row; the graph is as before.
    pub fn link(&mut self, row: RowId, horizon: u64) -> Result<(), Full> {
        let plan = self.plan(row, horizon)?;
        self.apply(plan);
        Ok(())
    }

    /// Plans the links of `row`, the next one in row order. A row that had its turn, or that is not
    /// published, gives an empty plan; a row that died at or before `horizon` is never linked.
    ///
    /// `horizon` is a sequence number that was already visible to readers before this call: no
    /// search that begins later has an older snapshot. A search that began earlier and still sees a
    /// row that died since may miss it, as it may miss any row of the graph.
    ///
    /// # Errors
    /// There is no room for the row; nothing was changed.
    pub fn plan(&mut self, row: RowId, horizon: u64) -> Result<Plan, Full> {
        self.count_deaths(horizon);
        let mut plan = Self::empty_plan();
        let row = row.0;
        let graph = Arc::clone(&self.graph);
        let Some(vector) = graph.arena.vector(RowId(row)) else { return Ok(plan) };
        if row < self.next {
            return Ok(plan);
        }
        plan.row = Some(row);
        if graph.arena.is_dead(RowId(row), self.horizon) {
            return Ok(plan);
        }
        graph.blocks.reserve(row)?;
        if M::is_placeless(vector) {
            plan.writes.push(Write::Twin { row, head: None, kind: ALIKE });
            return Ok(plan);
        }
        let level = level_of(row, self.params);
        let entry = graph.entry();
        let top = entry.map(|entry| entry.level);
        let mut seen = Seen::default();
        // Levels from which the new node gets neighbors, nearest candidates first on each.
        let mut candidates: Vec<Vec<Key>> = Vec::new();
        if let (Some(top), Some(nearest)) = (top, graph.descend(vector, level, &mut seen)) {
            let mut entries = vec![nearest];
            for level in (0..=level.min(top)).rev() {
                let found = self.candidates(vector, &entries, level, &mut seen);
                entries =
                    if found.is_empty() { Vec::from_iter(seen.nearest) } else { found.clone() };
                candidates.push(found);
            }
            candidates.reverse();
            if let Some(twin) = self.twin(seen.nearest) {
                plan.writes.push(twin_write(&graph, row, vector, twin));
                return Ok(plan);
            }
            if let Some(lowest) = candidates.first_mut()
                && lowest.is_empty()
            {
                // Nothing alive to link to: a dead node makes the new one reachable.
                lowest.extend(seen.nearest);
            }
        }
        self.plan_node(row, level, &candidates, &mut plan)?;
        if top.is_none_or(|top| level > top) {
            plan.writes.push(Write::Enter { entry: Some(Entry { row, level }) });
        }
        Ok(plan)
    }

    /// The live nodes nearest to `vector` on `level`, nearest first.
    pub(super) fn candidates(
        &self,
        vector: Vector<'_>,
        entries: &[Key],
        level: usize,
        seen: &mut Seen,
    ) -> Vec<Key> {
        with_scratch(|scratch| {
            let ef = self.params.ef_construction;
            let accept = |node| self.is_alive(node);
            self.graph.walk_level(scratch, vector, entries, level, ef, accept, seen);
            scratch.sort_found();
            scratch.sorted.clone()
        })
    }

    /// The nearest node met, if it is a twin.
    fn twin(&self, nearest: Option<Key>) -> Option<u32> {
        let nearest = nearest.filter(|nearest| M::are_twins(nearest.distance()))?.row();
        (self.state(nearest) != State::Condemned).then_some(nearest)
    }

    /// Plans the lists of a new node and the links back to it (algorithm 1).
    fn plan_node(
        &mut self,
        row: u32,
        level: usize,
        candidates: &[Vec<Key>],
        plan: &mut Plan,
    ) -> Result<(), Full> {
        let upper = self.upper_count;
        if level > 0 {
            let count = u32::try_from(level).map_err(|_| Full::Rows)?;
            let end = upper.checked_add(count).ok_or(Full::Rows)?;
            for list in upper..end {
                self.graph.upper.reserve(list)?;
            }
            // Lists of a plan that is never applied are lost; that costs memory and nothing else.
            self.upper_count = end;
        }
        // The block of the new node comes first in the plan; its lists are filled in below.
        plan.writes.push(Write::Node { row, upper, lists: Vec::new() });
        let mut lists = vec![Vec::new(); level + 1];
        for (level, (list, candidates)) in lists.iter_mut().zip(candidates).enumerate() {
            let selected = self.select(candidates, self.params.m);
            self.plan_back_links(row, &selected, level, true, plan);
            list.extend(selected.iter().map(|key| key.row()));
        }
        if let Some(Write::Node { lists: empty, .. }) = plan.writes.first_mut() {
            *empty = lists;
        }
        Ok(())
    }

    /// Algorithm 4: of `candidates`, nearest first, keeps each one that is as near to the base as to
    /// any kept before it, or nearer; `max` at most. Links then lead in different directions, and not all
    /// into the densest one. Slots left over stay empty: filling them from the
    /// rejected candidates lengthened walks by a tenth on 20,000 real embeddings, and recall was
    /// that of a wider beam.
    pub(super) fn select(&self, candidates: &[Key], max: usize) -> Vec<Key> {
        let arena = &self.graph.arena;
        let mut kept: Vec<(Key, Vector<'_>)> = Vec::with_capacity(max);
        for candidate in candidates {
            if kept.len() == max {
                break;
            }
            let Some(vector) = arena.vector(RowId(candidate.row())) else { continue };
            if kept.iter().all(|(_, other)| candidate.distance() <= M::distance(vector, *other)) {
                kept.push((*candidate, vector));
            }
        }
        kept.into_iter().map(|(key, _)| key).collect()
    }

    /// Plans links to `row` from `selected`, nearest first. If all their lists prefer others and
    /// `row` `is_orphan`, the nearest one has to take it: without a link to it a node is lost.
    pub(super) fn plan_back_links(
        &self,
        row: u32,
        selected: &[Key],
        level: usize,
        is_orphan: bool,
        plan: &mut Plan,
    ) {
        let mut is_linked = !is_orphan;
        for at in selected {
            is_linked |= self.plan_back_link(row, *at, level, false, plan);
        }
        if let (false, Some(nearest)) = (is_linked, selected.first()) {
            self.plan_back_link(row, *nearest, level, true, plan);
        }
    }

    /// Plans the link from `at` to `row`, whose distance `at` carries; a full list is selected anew
    /// with `row` among the candidates. Returns whether the link is made, as it is if `is_forced`.
    fn plan_back_link(
        &self,
        row: u32,
        at: Key,
        level: usize,
        is_forced: bool,
        plan: &mut Plan,
    ) -> bool {
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
        let Some(base) = self.graph.arena.vector(RowId(at.row())) else { return false };
        let mut candidates: Vec<Key> =
            before.iter().filter_map(|neighbor| self.graph.key(base, *neighbor)).collect();
        candidates.push(Key::new(at.distance(), row));
        candidates.sort_unstable();
        let mut kept = self.select(&candidates, slots);
        if is_forced && !kept.iter().any(|key| key.row() == row) {
            kept.truncate(slots - 1);
            kept.push(Key::new(at.distance(), row));
        }
        let is_linked = kept.iter().any(|key| key.row() == row);
        self.plan_replace(at.row(), level, &before, kept, &candidates, plan);
        is_linked
    }

    /// Plans `kept` as the list of `node` in place of `before`. A neighbor that would lose the last
    /// link to it stays: pruning must not cut a node off. `candidates` has the distances.
    pub(super) fn plan_replace(
        &self,
        node: u32,
        level: usize,
        before: &[u32],
        mut kept: Vec<Key>,
        candidates: &[Key],
        plan: &mut Plan,
    ) {
        let slots = self.graph.slots(node, level).len();
        if level == 0 {
            let is_last = |row: u32, plan: &Plan| {
                let dropped = plan.dropped.iter().filter(|other| **other == row).count();
                before.contains(&row) && self.in_degree(row) as usize <= dropped + 1
            };
            let selected = kept.len();
            for key in candidates {
                if kept.iter().any(|other| other.row() == key.row()) || !is_last(key.row(), plan) {
                    continue;
                }
                if kept.len() == slots {
                    // Of the old neighbors the farthest that has other links to it makes room.
                    let spare =
                        |other: &Key| before.contains(&other.row()) && !is_last(other.row(), plan);
                    let Some(index) = kept.iter().take(selected).rposition(spare) else { break };
                    kept.remove(index);
                }
                kept.push(*key);
            }
            let is_kept = |row: &u32| kept.iter().any(|key| key.row() == *row);
            plan.dropped.extend(before.iter().filter(|row| !is_kept(row)));
        }
        let list = kept.iter().map(|key| key.row()).collect();
        plan.writes.push(Write::Replace { row: node, level, list });
    }

    /// Carries out a plan. Plans are applied in the order in which they were made, each before the
    /// next is made.
    pub fn apply(&mut self, plan: Plan) {
        for write in plan.writes {
            self.write(write);
        }
        if let Some(row) = plan.row {
            self.next = row + 1;
        }
        let counts = &self.graph.counts;
        counts.nodes.store(self.nodes.len() as u32, Ordering::Relaxed);
        counts.rows.store(self.rows_count, Ordering::Relaxed);
        counts.dead.store(self.dead_count, Ordering::Relaxed);
        counts.links.store(self.links_count, Ordering::Relaxed);
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Node { row, upper, lists } => {
                // Relaxed throughout: nobody reads this block before a Release link leads to it.
                if let Some([twin, place, ..]) = self.graph.blocks.get(row) {
                    twin.store(NONE, Ordering::Relaxed);
                    place.store(upper, Ordering::Relaxed);
                }
                self.enlist(row);
                for (level, list) in lists.iter().enumerate() {
                    for slot in self.graph.slots(row, level) {
                        slot.store(NONE, Ordering::Relaxed);
                    }
                    self.write_list(row, level, list);
                }
                self.nodes.push(row);
                if let Some(repair) = &mut self.repair {
                    repair.note_alive(Entry { row, level: lists.len().saturating_sub(1) });
                }
            }
            Write::Twin { row, head, kind } => {
                let before = match head {
                    Some(head) => self.graph.blocks.first(head),
                    None => Some(&self.graph.placeless),
                };
                if let (Some(before), Some([twin, place, ..])) =
                    (before, self.graph.blocks.get(row))
                {
                    twin.store(before.load(Ordering::Relaxed), Ordering::Relaxed);
                    place.store(kind, Ordering::Relaxed);
                    // Release: whoever meets the row in the chain sees its block.
                    before.store(row, Ordering::Release);
                }
                self.enlist(row);
            }
            Write::Append { row, level, slot, neighbor } => {
                if let Some(slot) = self.graph.slots(row, level).get(slot) {
                    // Release: the neighbor's block is seen by whoever follows the link.
                    slot.store(neighbor, Ordering::Release);
                    self.links_count += 1;
                    self.count_in_link(row, level, neighbor, 1);
                }
            }
            Write::Replace { row, level, list } => self.write_list(row, level, &list),
            Write::Chain { previous, next } => {
                let before = match previous {
                    Some(previous) => self.graph.blocks.get(previous).and_then(|b| b.get(TWIN)),
                    None => Some(&self.graph.placeless),
                };
                if let Some(before) = before {
                    before.store(next, Ordering::Release);
                }
            }
            Write::Enter { entry } => {
                self.graph.entry.store(entry.map_or(0, Entry::pack), Ordering::Release);
            }
        }
    }

    /// Overwrites a list slot by slot; readers meanwhile see old and new neighbors, all of them
    /// nodes.
    fn write_list(&mut self, row: u32, level: usize, list: &[u32]) {
        let values = list.iter().copied().chain(std::iter::repeat(NONE));
        let graph = Arc::clone(&self.graph);
        for (slot, value) in graph.slots(row, level).iter().zip(values) {
            let before = slot.load(Ordering::Relaxed);
            if before == value {
                continue;
            }
            slot.store(value, Ordering::Release);
            if value != NONE {
                self.links_count += 1;
                self.count_in_link(row, level, value, 1);
            }
            if before != NONE {
                self.links_count -= 1;
                self.count_in_link(row, level, before, -1);
            }
        }
    }

    /// Counts a link from `row` to `neighbor` that came or went.
    fn count_in_link(&mut self, row: u32, level: usize, neighbor: u32, change: i32) {
        if level == 0
            && self.state(row) != State::Condemned
            && let Some(degree) = self.in_degrees.get_mut(neighbor as usize)
        {
            *degree = degree.saturating_add_signed(change);
        }
    }

    pub(super) fn in_degree(&self, row: u32) -> u32 {
        self.in_degrees.get(row as usize).copied().unwrap_or(0)
    }

    /// Gives a dead node up: its links do not count as ways to other nodes any more.
    pub(super) fn condemn(&mut self, node: u32) {
        let neighbors: Vec<u32> = self.graph.neighbors(node, 0).collect();
        for neighbor in neighbors {
            self.count_in_link(node, 0, neighbor, -1);
        }
        self.set_state(node, State::Condemned);
    }

    fn enlist(&mut self, row: u32) {
        self.set_state(row, State::Linked);
        self.rows_count += 1;
    }

    pub(super) fn state(&self, row: u32) -> State {
        self.states.get(row as usize).copied().unwrap_or(State::Absent)
    }

    pub(super) fn set_state(&mut self, row: u32, state: State) {
        let index = row as usize;
        if index >= self.states.len() {
            self.states.resize(index + 1, State::Absent);
            self.in_degrees.resize(index + 1, 0);
        }
        if let Some(slot) = self.states.get_mut(index) {
            *slot = state;
        }
    }

    /// Whether `node` stands for a row that is not dead, so that links may lead to it.
    pub(super) fn is_alive(&self, node: u32) -> bool {
        let arena = &self.graph.arena;
        self.state(node) != State::Condemned
            && self.graph.chain(node).any(|row| !arena.is_dead(RowId(row), self.horizon))
    }

    /// Raises the horizon and counts the linked rows that died up to it.
    pub(super) fn count_deaths(&mut self, horizon: u64) {
        self.horizon = self.horizon.max(horizon);
        while let Some(row) = self.graph.arena.killed(self.deaths_seen) {
            // Deaths come in order. A row that is counted before its turn is dead at its turn.
            if !self.graph.arena.is_dead(row, self.horizon) {
                break;
            }
            self.deaths_seen += 1;
            self.dead_count += u32::from(self.state(row.0) != State::Absent);
        }
    }

    pub(super) fn empty_plan() -> Plan {
        Plan { row: None, writes: Vec::new(), dropped: Vec::new() }
    }

    pub(super) fn level_of(&self, row: u32) -> usize {
        level_of(row, self.params)
    }

    pub(super) fn params(&self) -> GraphParams {
        self.params
    }

    /// Corrects the count of links by those of a node that leaves the graph.
    pub(super) fn forget_links(&mut self, node: u32) {
        for level in 0..=self.level_of(node) {
            self.links_count -= self.graph.neighbors(node, level).count() as u64;
        }
    }
}

fn twin_write<M: Metric>(graph: &Graph<M>, row: u32, vector: Vector<'_>, head: u32) -> Write {
    let identical = graph.arena.row(RowId(head)).is_some_and(|node| {
        node.iter().map(|value| value.to_bits()).eq(vector.values().iter().map(|v| v.to_bits()))
    });
    Write::Twin { row, head: Some(head), kind: if identical { IDENTICAL } else { ALIKE } }
}

/// The level of a row: `floor(-ln(u) / ln(m))` for a `u` in (0, 1] that depends on the row and the
/// seed alone, so that the same rows give the same graph.
fn level_of(row: u32, params: GraphParams) -> usize {
    // SplitMix64 (Steele, Lea and Flood 2014).
    let mut z = (params.seed ^ u64::from(row)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let uniform = ((z >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    ((-uniform.ln() / (params.m as f64).ln()) as usize).min(LEVEL_MAX)
}
