//! The HNSW graph, writing side: the one builder links rows in row order.
//!
//! A row is first drafted, which only reads and takes long: several threads can draft the rows of a
//! batch. Then, in row order, each draft is settled into a plan, which is short, and the plan is
//! applied, which only writes and takes microseconds. The caller can hold a lock around the last
//! part alone.

use crate::ids::RowId;
use std::{marker::PhantomData, sync::Arc};

use super::{
    arena::Arena,
    columns::{Columns, Full},
    draft::{Draft, Turn},
    graph::{ALIKE, Counts, Entry, Graph, GraphParams, IDENTICAL, NONE, PLACE, TWIN},
    metric::Metric,
    repair::Repair,
    trust::{Sight, Trust},
    walk::Key,
};
use crate::{
    random::SplitMix64,
    sync::{
        atomic::{AtomicU32, AtomicU64, Ordering},
        release,
    },
};

/// Above this no level is drawn: with `m = 2` one row in 2^31 would get there.
const LEVEL_MAX: usize = 31;

/// What the builder knows of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Not linked: not yet, or dead when its turn came, or removed since.
    Absent,
    /// A node.
    Linked,
    /// A twin, or a row without a place.
    Hanging,
    /// A node whose row is dead, kept for its live twins.
    Kept,
    /// A dead node that the repair under way removes. No new link leads to it.
    Condemned,
}

/// Lists of neighbors start on boundaries of this many bytes: a cache line.
const LINE_BYTES: usize = 64;

/// A change of the graph, ready to be applied.
#[must_use = "a plan changes nothing until it is applied"]
pub struct Plan {
    /// The row whose turn this was, if any; later plans begin after it.
    row: Option<u32>,
    pub(super) writes: Vec<Write>,
    /// Nodes and the parents that they get; the links are among the writes or there already.
    pub(super) adoptions: Vec<(u32, u32)>,
}

impl Plan {
    /// Turns the order of the writes around, so that links lead to what is not written yet: what a
    /// model of readers must notice.
    #[cfg(loom)]
    pub fn turn_around(&mut self) {
        self.writes.reverse();
    }

    /// Whether it writes to this list.
    pub(super) fn changes(&self, node: u32, at_level: usize) -> bool {
        self.writes.iter().any(|write| match write {
            Write::Append { row, level, .. } | Write::Replace { row, level, .. } => {
                (*row, *level) == (node, at_level)
            }
            Write::Node { row, .. } => *row == node,
            _ => false,
        })
    }
}

/// One step of a [`Plan`]. In the order of a plan, no link leads to what is not written yet.
pub(super) enum Write {
    /// Writes the place and all lists of a new node; `lists[level]` are its neighbors.
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
    /// For each node its parent, or [`NONE`]; see [`super::kin`].
    pub(super) parents: Vec<u32>,
    /// All nodes, condemned ones included until the repair ends.
    pub(super) nodes: Vec<u32>,
    pub(super) rows_count: u32,
    pub(super) dead_count: u32,
    links_count: u64,
    /// Lists handed out in `Graph::upper`.
    upper_count: u32,
    trust: Trust,
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
        let sight = Sight::of_dim(arena.dim());
        let graph = Graph {
            arena,
            #[cfg(test)]
            m: params.m,
            places: Columns::new(PLACE),
            lowest: Columns::walked(2 * params.m, LINE_BYTES),
            upper: Columns::aligned(params.m, LINE_BYTES),
            buried: Columns::new(1),
            any_buried: AtomicU32::new(0),
            sight: AtomicU32::new(sight.bits()),
            entry: AtomicU64::new(0),
            placeless: AtomicU32::new(NONE),
            counts: Counts::default(),
            #[cfg(loom)]
            written: Columns::new(1),
            metric: PhantomData,
        };
        Self {
            graph: Arc::new(graph),
            params,
            next: 0,
            horizon: 0,
            deaths_seen: 0,
            states: Vec::new(),
            parents: Vec::new(),
            nodes: Vec::new(),
            rows_count: 0,
            dead_count: 0,
            links_count: 0,
            upper_count: 0,
            trust: Trust::new(sight),
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

    /// Drafts, settles and applies in one: gives `row`, the next one in row order, its turn.
    ///
    /// # Errors
    /// There is no room for the row; the graph is as before.
    pub fn link(&mut self, row: RowId, horizon: u64) -> Result<(), Full> {
        for draft in self.draft(row..RowId(row.0.saturating_add(1)), horizon, 1) {
            let plan = self.settle(draft)?;
            self.apply(plan);
        }
        Ok(())
    }

    /// Makes a plan of a draft; that of the row before it was applied.
    ///
    /// # Errors
    /// There is no room for the row; nothing was changed.
    pub fn settle(&mut self, draft: Draft) -> Result<Plan, Full> {
        let mut plan = Self::empty_plan();
        let row = draft.row;
        plan.row = Some(row);
        if !matches!(draft.turn, Turn::Dead) {
            self.graph.reserve(row)?;
        }
        self.trust.vote(draft.doubt);
        self.graph.sight.store(self.trust.sight().bits(), Ordering::Relaxed);
        match draft.turn {
            Turn::Dead => {}
            Turn::Placeless => plan.writes.push(Write::Twin { row, head: None, kind: ALIKE }),
            Turn::Twin(other) => {
                let node = self.node_of(other);
                if !self.are_twins(row, node) {
                    // The other became a twin itself meanwhile, and three in a row may drift apart.
                    let draft = Draft { doubt: None, ..self.draft_row(row, row) };
                    return self.settle(draft);
                }
                plan.writes.push(twin_write(&self.graph, row, node));
            }
            Turn::Node { mut lists, mut near } => {
                for (level, list) in lists.iter_mut().enumerate() {
                    self.lead_to_nodes(row, level, list);
                }
                self.lead_to_nodes(row, 0, &mut near);
                let level = lists.len().saturating_sub(1);
                self.plan_node(row, lists, &near, &mut plan)?;
                if self.graph.entry().is_none_or(|entry| level > entry.level) {
                    plan.writes.push(Write::Enter { entry: Some(Entry { row, level }) });
                }
            }
        }
        Ok(plan)
    }

    fn are_twins(&self, a: u32, b: u32) -> bool {
        let vector = |row| self.graph.arena.vector(RowId(row));
        vector(a).zip(vector(b)).is_some_and(|(a, b)| M::are_twins(M::distance(a, b)))
    }

    /// The node that a linked row hangs on: itself if it is one.
    fn node_of(&self, row: u32) -> u32 {
        if self.state(row) != State::Hanging {
            return row;
        }
        let head = self.graph.lowest.first(row).map_or(NONE, |slot| slot.load(Ordering::Relaxed));
        if head == NONE { row } else { head }
    }

    /// Rows of the batch may have become twins since they were drafted: their nodes stand for them.
    fn lead_to_nodes(&self, row: u32, level: usize, list: &mut Vec<Key>) {
        if list.iter().all(|key| self.state(key.row()) != State::Hanging) {
            return;
        }
        let keys = std::mem::take(list);
        for key in keys {
            let key = Key::new(key.distance(), self.node_of(key.row()));
            let has_level = level == 0 || self.level_of(key.row()) >= level;
            if has_level && key.row() != row && list.iter().all(|other| other.row() != key.row()) {
                list.push(key);
            }
        }
    }

    /// Plans the writing of a new node and the links back to it (algorithm 1).
    fn plan_node(
        &mut self,
        row: u32,
        lists: Vec<Vec<Key>>,
        near: &[Key],
        plan: &mut Plan,
    ) -> Result<(), Full> {
        let upper = self.upper_count;
        let above = u32::try_from(lists.len().saturating_sub(1)).map_err(|_| Full::Rows)?;
        let end = upper.checked_add(above).ok_or(Full::Rows)?;
        for list in upper..end {
            self.graph.upper.reserve(list)?;
        }
        // Lists of a plan that is never applied are lost; that costs memory and nothing else.
        self.upper_count = end;
        let rows = lists.iter().map(|list| list.iter().map(|key| key.row()).collect()).collect();
        // First in the plan: what links to the node comes after it is written.
        plan.writes.push(Write::Node { row, upper, lists: rows });
        if let Some(lowest) = lists.first() {
            // The oldest node had nobody to be the child of when it was linked.
            let oldest = lowest.iter().find(|key| self.parent(key.row()) == NONE);
            plan.adoptions.extend(oldest.map(|key| (key.row(), row)));
        }
        for (level, list) in lists.iter().enumerate() {
            let near = if level == 0 { near } else { list };
            self.plan_back_links(row, list, near, (level, true), plan);
        }
        Ok(())
    }

    /// Carries out a plan. Plans are applied in the order in which they were made, each before the
    /// next is made.
    pub fn apply(&mut self, plan: Plan) {
        for write in plan.writes {
            self.write(write);
        }
        for (node, parent) in plan.adoptions {
            if let Some(slot) = self.parents.get_mut(node as usize) {
                *slot = parent;
            }
        }
        if let Some(row) = plan.row {
            self.next = row + 1;
        }
        let counts = &self.graph.counts;
        counts.nodes.store(self.nodes.len() as u32, Ordering::Relaxed);
        counts.rows.store(self.rows_count, Ordering::Relaxed);
        counts.dead.store(self.dead_count, Ordering::Relaxed);
        counts.links.store(self.links_count, Ordering::Relaxed);
        counts.bytes.store(self.bytes(), Ordering::Relaxed);
    }

    /// Bytes of the graph and of what this knows of it; the marks of buried nodes, an eighth of a byte
    /// for a row, left aside.
    fn bytes(&self) -> u64 {
        let list = self.params.m * size_of::<u32>();
        let row = PLACE * size_of::<u32>() + 2 * list + size_of::<State>() + size_of::<u32>();
        let lists = self.states.len() * row + self.upper_count as usize * list;
        (lists + self.nodes.len() * size_of::<u32>()) as u64
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Node { row, upper, lists } => {
                // Relaxed throughout: nobody reads these before a Release link leads to the node.
                #[cfg(loom)]
                if let Some(written) = self.graph.written.first(row) {
                    written.store(1, Ordering::Relaxed);
                }
                if let Some([twin, place]) = self.graph.places.get(row) {
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
                    Some(head) => self.graph.places.first(head),
                    None => Some(&self.graph.placeless),
                };
                if let Some(slot) = self.graph.lowest.first(row) {
                    slot.store(head.unwrap_or(NONE), Ordering::Relaxed);
                }
                if let (Some(before), Some([twin, place])) = (before, self.graph.places.get(row)) {
                    twin.store(before.load(Ordering::Relaxed), Ordering::Relaxed);
                    place.store(kind, Ordering::Relaxed);
                    // Release: whoever meets the row in the chain sees its place.
                    before.store(row, Ordering::Release);
                }
                self.enlist(row);
                self.set_state(row, State::Hanging);
                if let Some(head) = head {
                    self.graph.set_buried(head, false);
                }
            }
            Write::Append { row, level, slot, neighbor } => {
                if let Some(slot) = self.graph.slots(row, level).get(slot) {
                    // Release: the neighbor's lists are seen by whoever follows the link.
                    slot.store(neighbor, release("links without an order"));
                    self.links_count += 1;
                }
            }
            Write::Replace { row, level, list } => self.write_list(row, level, &list),
            Write::Chain { previous, next } => {
                let before = match previous {
                    Some(previous) => {
                        self.graph.places.get(previous).and_then(|place| place.get(TWIN))
                    }
                    None => Some(&self.graph.placeless),
                };
                if let Some(before) = before {
                    before.store(next, Ordering::Release);
                }
            }
            Write::Enter { entry } => {
                self.graph
                    .entry
                    .store(entry.map_or(0, Entry::pack), release("an entry without an order"));
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
            slot.store(value, release("links without an order"));
            if value != NONE {
                self.links_count += 1;
            }
            if before != NONE {
                self.links_count -= 1;
            }
        }
    }

    /// Gives a dead node up: no new link leads to it.
    pub(super) fn condemn(&mut self, node: u32) {
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
            self.parents.resize(index + 1, NONE);
        }
        if let Some(slot) = self.states.get_mut(index) {
            *slot = state;
        }
    }

    /// Whether `node` stands for a row that is not dead, so that links may lead to it.
    pub(super) fn is_alive(&self, node: u32) -> bool {
        !self.graph.is_buried(node) && self.state(node) != State::Condemned
    }

    /// Marks the node of a dead row if it stands for no other that is alive.
    fn bury(&self, row: u32) {
        let node = self.node_of(row);
        let arena = &self.graph.arena;
        let mut members = self.graph.chain(node);
        if self.state(node) != State::Hanging
            && members.all(|row| arena.is_dead(RowId(row), self.horizon))
        {
            self.graph.set_buried(node, true);
        }
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
            if self.state(row.0) != State::Absent {
                self.dead_count += 1;
                self.bury(row.0);
            }
        }
    }

    pub(super) fn empty_plan() -> Plan {
        Plan { row: None, writes: Vec::new(), adoptions: Vec::new() }
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

fn twin_write<M: Metric>(graph: &Graph<M>, row: u32, head: u32) -> Write {
    let bits = |row| graph.arena.row(RowId(row)).map(|row| row.iter().map(|value| value.to_bits()));
    let identical = match (bits(row), bits(head)) {
        (Some(row), Some(head)) => row.eq(head),
        _ => false,
    };
    Write::Twin { row, head: Some(head), kind: if identical { IDENTICAL } else { ALIKE } }
}

/// The level of a row: `floor(-ln(u) / ln(m))` for a `u` in (0, 1] that depends on the row and the
/// seed alone, so that the same rows give the same graph.
pub(crate) fn level_of(row: u32, params: GraphParams) -> usize {
    let z = SplitMix64(params.seed ^ u64::from(row)).next();
    let uniform = ((z >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    ((-uniform.ln() / (params.m as f64).ln()) as usize).min(LEVEL_MAX)
}
