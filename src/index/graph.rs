//! The HNSW graph, reading side: Malkov and Yashunin 2016, "Efficient and robust approximate
//! nearest neighbor search using hierarchical navigable small world graphs".
//!
//! Their `M` is [`GraphParams::m`], `Mmax0` is `2 * m`, `efConstruction` is
//! [`GraphParams::ef_construction`]; `mL` is `1 / ln(m)`.
//!
//! # Why readers need no lock
//! Every neighbor slot is one atomic that is empty or names a node whose own lists were written
//! before. The builder writes a new node's lists first and stores the links to it afterwards, with
//! Release; readers load slots with Acquire. A list that is being replaced reads as a mix of its
//! old and new neighbors, and all of them are nodes. Nothing is ever freed.
//!
//! # Twins
//! Command histories repeat themselves, and a thousand equal vectors would fill each other's lists
//! and become an island that nothing outside links to. So a row that equals a node joins the node's
//! *chain of twins* and is no node itself. A walk that reaches the node reports the chain. A node
//! whose own row is dead stays while it has live twins: its vector is still in the arena.
//! Vectors that a metric cannot place (the zero vector, by cosine) hang in a chain of their own.

use crate::ids::RowId;
use std::{marker::PhantomData, sync::Arc};

use super::{
    arena::Arena,
    columns::{Columns, Full},
    metric::Metric,
    point::{Coded, Point, Ruler},
    search::Best,
    trust::Sight,
    walk::{Asked, Beam, Key, Scratch, Trail, take_new, with_scratch},
};
use crate::{
    distance::Vector,
    kernels::{Probe, prefetch},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

/// An empty neighbor slot, and the end of a chain.
pub(super) const NONE: u32 = u32::MAX;

// The values of an entry of `Graph::places`: a row's chain, and its place above.
pub(super) const TWIN: usize = 0;
/// Of a node: where its lists of the levels above 0 begin. Of a twin: whether it is the node's
/// vector bit for bit ([`IDENTICAL`]) or only as good as that.
pub(super) const UPPER: usize = 1;
pub(super) const PLACE: usize = 2;

/// Rows that are fetched ahead of their turn when they are ranked.
const RANKED_AHEAD: usize = 4;

/// Nodes to the word of [`Graph::buried`].
const WORD_NODES: u32 = u32::BITS;

pub(super) const IDENTICAL: u32 = 1;
pub(super) const ALIKE: u32 = 0;

/// How a graph is built.
#[derive(Clone, Copy, Debug)]
pub struct GraphParams {
    /// Neighbors of a node on each level above 0, at most; twice as many on level 0. At least 2.
    pub m: usize,
    /// Candidates among which the neighbors of a new node are chosen.
    pub ef_construction: usize,
    /// What the level of each row is drawn from.
    pub seed: u64,
}

/// What a graph consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GraphStats {
    /// Nodes with neighbor lists.
    pub nodes: u32,
    /// Rows that a walk can come by: nodes, their twins, and rows without a place.
    pub rows: u32,
    /// Those of `rows` that are dead and wait for a repair.
    pub dead: u32,
    /// Links on all levels.
    pub links: u64,
    /// Bytes of lists, chains and what the builder knows of each row.
    pub bytes: u64,
    /// The highest level with a node.
    pub max_level: usize,
}

/// The shared part of the graph; [`super::link::GraphWriter`] changes it.
pub struct Graph<M> {
    pub(super) arena: Arc<Arena>,
    #[cfg(test)]
    pub(super) m: usize,
    /// For each row `[twin, upper]`.
    pub(super) places: Columns<AtomicU32>,
    /// For each row the `2 * m` slots of level 0. Of a twin the first names its node.
    pub(super) lowest: Columns<AtomicU32>,
    /// Lists of `m` slots; the levels 1.. of a node are neighbors here.
    pub(super) upper: Columns<AtomicU32>,
    /// The entry point: `(level + 1) << 32 | row`, or 0 for an empty graph.
    pub(super) entry: AtomicU64,
    /// First row of the chain of rows without a place.
    pub(super) placeless: AtomicU32,
    /// For each node one bit: whether no row that it stands for is alive. Walks step over such
    /// nodes. The builder sets it once the deaths are final for every reader.
    pub(super) buried: Columns<AtomicU32>,
    /// Whether any such bit was ever set.
    pub(super) any_buried: AtomicU32,
    /// The bits of a [`Sight`], where there are codes.
    pub(super) sight: AtomicU32,
    pub(super) counts: Counts,
    /// For each row 1 once it is written as a node. It orders nothing, so in a model whoever comes by
    /// a node without the order that its lists need may read a 0 here.
    #[cfg(loom)]
    pub(super) written: Columns<AtomicU32>,
    pub(super) metric: PhantomData<fn() -> M>,
}

/// [`GraphStats`] as the builder publishes them; they order nothing.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) nodes: AtomicU32,
    pub(super) rows: AtomicU32,
    pub(super) dead: AtomicU32,
    pub(super) links: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// A node and the level at which a walk enters the graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) row: u32,
    pub(super) level: usize,
}

impl Entry {
    pub(super) fn pack(self) -> u64 {
        (self.level as u64 + 1) << 32 | u64::from(self.row)
    }

    fn unpack(packed: u64) -> Option<Self> {
        let level = (packed >> 32).checked_sub(1)?;
        Some(Self { row: packed as u32, level: level as usize })
    }
}

/// What a walk came by, whether it accepted it or not.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) nearest: Option<Key>,
    pub(super) visited: usize,
}

impl Seen {
    fn note(&mut self, key: Key) {
        self.nearest = Some(self.nearest.map_or(key, |nearest| nearest.min(key)));
    }
}

/// The neighbors in the slots of a list.
fn linked(slots: &[AtomicU32]) -> impl Iterator<Item = u32> {
    // Pairs with the Release that stored the link: the neighbor's own lists are written.
    slots.iter().map(|slot| slot.load(Ordering::Acquire)).take_while(|neighbor| *neighbor != NONE)
}

impl<M: Metric> Graph<M> {
    /// The rows that the graph is about.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// What the graph consists of now.
    pub fn stats(&self) -> GraphStats {
        GraphStats {
            nodes: self.counts.nodes.load(Ordering::Relaxed),
            rows: self.counts.rows.load(Ordering::Relaxed),
            dead: self.counts.dead.load(Ordering::Relaxed),
            links: self.counts.links.load(Ordering::Relaxed),
            bytes: self.counts.bytes.load(Ordering::Relaxed),
            max_level: self.entry().map_or(0, |entry| entry.level),
        }
    }

    /// What walks compare.
    pub(super) fn sight(&self) -> Sight {
        if !M::HAS_CODES || !self.arena.has_codes() {
            return Sight::Vectors;
        }
        // Whoever looks at more a moment longer, or at less, finds the same rows.
        Sight::from_bits(self.sight.load(Ordering::Relaxed))
    }

    /// Distances from a row; `probe` is its memory.
    pub(super) fn ruler_at<'a>(&'a self, row: u32, probe: &'a mut Probe) -> Option<Ruler<'a, M>> {
        let arena = &*self.arena;
        let point = match self.sight().detail() {
            Some(detail) => {
                probe.set_code(arena.code(row)?);
                Point::Coded(probe, arena.scale(row)?, detail)
            }
            None => Point::Exact(arena.vector(RowId(row))?),
        };
        Some(Ruler::new(arena, point))
    }

    /// Offers the nearest accepted rows to `best`, approximately: a walk with a beam of `ef`, of
    /// which as many are ranked by their vectors as can be among the best. Returns the number of
    /// nodes whose distance was computed.
    pub fn search(
        &self,
        query: Vector<'_>,
        ef: usize,
        accept: impl Fn(RowId) -> bool,
        best: &mut Best,
    ) -> usize {
        let mut seen = Seen::default();
        with_scratch(|scratch| {
            let detail = self.sight().detail();
            let coded = detail.map(|_| scratch.aim(query));
            let Scratch { trail, probe, .. } = scratch;
            let point = match (coded, detail) {
                (Some(coded), Some(detail)) => Point::Coded(probe, coded.scale, detail),
                _ => Point::Exact(query),
            };
            let ruler = Ruler::new(&self.arena, point);
            let Some(entry) = self.descend(&ruler, 0, trail, &mut seen) else { return };
            if self.any_buried.load(Ordering::Relaxed) == 0 {
                self.walk_level(trail, &ruler, &[entry], 0, ef, |_| true, &mut seen);
            } else {
                // A buried row may be alive in an older snapshot than the builder's.
                let accept = |node| {
                    !self.is_buried(node) || self.members(node).any(|(row, _)| accept(RowId(row)))
                };
                self.walk_level(trail, &ruler, &[entry], 0, ef, accept, &mut seen);
            }
            trail.keys.clear();
            trail.keys.extend(trail.beam.found());
            if coded.is_some() {
                // Which rows are ranked depends on it, so waiting for it holds up what comes after.
                trail.keys.iter().for_each(|key| self.arena.prefetch_error(key.row()));
            }
            ruler.refine(&mut trail.rows, &mut trail.keys);
            self.rank(&trail.keys, query, coded, &accept, best);
        });
        self.rank_placeless(query, &accept, best);
        seen.visited
    }

    /// Offers the accepted members of `nodes`, nearest first, but for those whose rows are not
    /// likely to be among the best.
    fn rank(
        &self,
        nodes: &[Key],
        query: Vector<'_>,
        coded: Option<Coded>,
        accept: &impl Fn(RowId) -> bool,
        best: &mut Best,
    ) {
        let arena = &*self.arena;
        let is_far = |node: &Key, best: &Best| {
            let Some(worst) = best.worst() else { return false };
            // A member is at most the slack nearer or farther than its node.
            let slack = M::TWIN_SLACK
                + coded.map_or(M::TWIN_SLACK, |coded| {
                    coded.likely(arena.coding(node.row()).unwrap_or_default().1, arena.dim())
                });
            node.distance() - slack > M::distance_of(worst)
        };
        let fetch = |node: &Key| arena.prefetch(RowId(node.row()));
        nodes.iter().take(RANKED_AHEAD).for_each(fetch);
        let mut ahead = nodes.iter().skip(RANKED_AHEAD);
        for node in nodes {
            ahead.next().into_iter().filter(|node| !is_far(node, best)).for_each(fetch);
            // The code of a later node may be off by more.
            if is_far(node, best) {
                continue;
            }
            let mut cost_of_node = None;
            for (row, identical) in self.members(node.row()) {
                let row = RowId(row);
                if !accept(row) {
                    continue;
                }
                let Some(vector) = arena.vector(row) else { continue };
                let cost = match cost_of_node {
                    Some(cost) if identical => cost,
                    _ => M::cost(query, vector),
                };
                if identical {
                    cost_of_node = Some(cost);
                }
                best.offer_row(arena, row, cost);
            }
        }
    }

    /// Offers the accepted rows without a place if they can be among the best.
    fn rank_placeless(&self, query: Vector<'_>, accept: &impl Fn(RowId) -> bool, best: &mut Best) {
        let first = self.chain_of_placeless();
        let Some(vector) = self.arena.vector(RowId(first)) else { return };
        let cost = M::cost(query, vector);
        if best.worst().is_none_or(|worst| cost <= worst) {
            for row in self.chain(first).map(RowId).filter(|row| accept(*row)) {
                best.offer_row(&self.arena, row, cost);
            }
        }
    }

    /// Whether no row that `node` stands for is alive, as far as the builder has come.
    #[inline]
    pub(super) fn is_buried(&self, node: u32) -> bool {
        let word = self.buried.first(node / WORD_NODES);
        // Only a hint for walks: the rows that are found are looked at one by one.
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (node % WORD_NODES) & 1 == 1)
    }

    /// Sets or clears the mark of a node; for the builder alone.
    pub(super) fn set_buried(&self, node: u32, is_buried: bool) {
        let Some(word) = self.buried.first(node / WORD_NODES) else { return };
        let bit = 1 << (node % WORD_NODES);
        let before = word.load(Ordering::Relaxed);
        word.store(if is_buried { before | bit } else { before & !bit }, Ordering::Relaxed);
        if is_buried {
            self.any_buried.store(1, Ordering::Relaxed);
        }
    }

    /// Makes room for a node or a twin of this row.
    pub(super) fn reserve(&self, row: u32) -> Result<(), Full> {
        #[cfg(loom)]
        self.written.reserve(row)?;
        self.places.reserve(row)?;
        self.lowest.reserve(row)?;
        self.buried.reserve(row / WORD_NODES)
    }

    pub(super) fn entry(&self) -> Option<Entry> {
        // Pairs with the Release of the builder: the entry point's lists are written.
        Entry::unpack(self.entry.load(Ordering::Acquire))
    }

    /// First row of the chain of rows without a place, or [`NONE`].
    pub(super) fn chain_of_placeless(&self) -> u32 {
        self.placeless.load(Ordering::Acquire)
    }

    /// The rows of a chain from `first` on.
    pub(super) fn chain(&self, first: u32) -> impl Iterator<Item = u32> {
        std::iter::successors((first != NONE).then_some(first), |row| {
            // Pairs with the Release that hung the next row in.
            let next = self.places.first(*row)?.load(Ordering::Acquire);
            (next != NONE).then_some(next)
        })
    }

    /// The rows that `node` stands for, itself first, and whether each equals it bit for bit.
    pub(super) fn members(&self, node: u32) -> impl Iterator<Item = (u32, bool)> {
        self.chain(node).map(move |row| (row, row == node || self.is_identical(row)))
    }

    fn is_identical(&self, twin: u32) -> bool {
        let kind = self.places.get(twin).and_then(|place| place.get(UPPER));
        // Written before the twin was hung in.
        kind.is_some_and(|kind| kind.load(Ordering::Relaxed) == IDENTICAL)
    }

    /// The slots of `node` on `level`: neighbors first, then empty ones.
    pub(super) fn slots(&self, node: u32, level: usize) -> &[AtomicU32] {
        #[cfg(loom)]
        assert!(
            self.written.first(node).is_some_and(|written| written.load(Ordering::Relaxed) == 1),
            "a node was met that is not written"
        );
        let slots = || {
            let Some(above) = level.checked_sub(1) else { return self.lowest.get(node) };
            let upper = self.places.get(node)?.get(UPPER)?.load(Ordering::Relaxed);
            self.upper.get(upper.checked_add(u32::try_from(above).ok()?)?)
        };
        slots().unwrap_or(&[])
    }

    /// The neighbors of `node` on `level`, which `node` must have.
    pub(super) fn neighbors(&self, node: u32, level: usize) -> impl Iterator<Item = u32> {
        linked(self.slots(node, level))
    }

    /// Goes down greedily from the entry point to just above `level` (algorithm 5, first loop) and
    /// returns the nearest node met.
    pub(super) fn descend(
        &self,
        ruler: &Ruler<'_, M>,
        level: usize,
        trail: &mut Trail,
        seen: &mut Seen,
    ) -> Option<Key> {
        let entry = self.entry()?;
        let mut nearest = ruler.key(entry.row)?;
        seen.visited += 1;
        if entry.level <= level {
            seen.note(nearest);
            return Some(nearest);
        }
        let Trail { marks, rows, keys, .. } = trail;
        marks.begin(self.arena.len());
        marks.visit(entry.row);
        for above in (level + 1..=entry.level).rev() {
            loop {
                let before = nearest;
                // What was met before is no nearer than the nearest of all that were met.
                let slots = self.slots(before.row(), above);
                let rows = take_new(marks, linked(slots), slots.len(), rows);
                keys.clear();
                ruler.keys_on_walk(rows, keys);
                seen.visited += keys.len();
                nearest = keys.iter().copied().fold(nearest, Key::min);
                if nearest == before {
                    break;
                }
            }
        }
        seen.note(nearest);
        Some(nearest)
    }

    /// Algorithm 2: walks `level` from `entries` with a beam of `ef` and leaves the nearest
    /// accepted nodes in the trail's beam. Nodes that are not accepted are walked over.
    #[expect(clippy::too_many_arguments, reason = "the letters of algorithm 2, and a filter")]
    pub(super) fn walk_level(
        &self,
        trail: &mut Trail,
        ruler: &Ruler<'_, M>,
        entries: &[Key],
        level: usize,
        ef: usize,
        accept: impl Fn(u32) -> bool,
        seen: &mut Seen,
    ) {
        let Trail { marks, beam, rows, keys } = trail;
        marks.begin(self.arena.len());
        beam.begin(ef);
        keys.clear();
        keys.extend(entries.iter().filter(|entry| marks.visit(entry.row())));
        let is_far = level == 0 && ruler.is_far();
        let mut asked = Asked { lists: [NONE; 2], neighbors: NONE };
        loop {
            for key in keys.iter().copied() {
                if !beam.admits(key) {
                    continue;
                }
                // The nearest of all is admitted: there is nothing nearer to keep it out.
                seen.note(key);
                if accept(key.row()) {
                    beam.insert(key);
                } else {
                    beam.pass_over(key);
                }
            }
            let Some(nearest) = beam.pop() else { break };
            let mut next_list = None;
            if is_far {
                next_list = self.look_ahead(beam, &mut asked, level);
            } else if let Some(next) = beam.upcoming().next() {
                prefetch(self.slots(next.row(), level));
            }
            let slots = self.slots(nearest.row(), level);
            let rows = take_new(marks, linked(slots), slots.len(), rows);
            if let Some(list) = next_list {
                // While these are on their way, the codes that were asked for before are compared.
                ruler.prefetch_on_walk(linked(list).filter(|row| marks.is_new(*row)));
            }
            keys.clear();
            ruler.keys_on_walk(rows, keys);
            seen.visited += keys.len();
        }
    }

    /// Asks for the lists of the two nodes that are likely next. Returns the list of the first, if
    /// it was asked for a node ago, so that it is there by now, and its neighbors were not.
    fn look_ahead(&self, beam: &Beam, asked: &mut Asked, level: usize) -> Option<&[AtomicU32]> {
        let before = std::mem::replace(&mut asked.lists, [NONE; 2]);
        for (list, next) in asked.lists.iter_mut().zip(beam.upcoming()) {
            *list = next.row();
            if !before.contains(list) {
                prefetch(self.slots(*list, level));
            }
        }
        let [next, _] = asked.lists;
        if next == NONE || next == asked.neighbors || !before.contains(&next) {
            return None;
        }
        asked.neighbors = next;
        Some(self.slots(next, level))
    }
}
