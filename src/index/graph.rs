//! The HNSW graph, reading side: Malkov and Yashunin 2016, "Efficient and robust approximate
//! nearest neighbor search using hierarchical navigable small world graphs".
//!
//! Their `M` is [`GraphParams::m`], `Mmax0` is `2 * m`, `efConstruction` is
//! [`GraphParams::ef_construction`]; `mL` is `1 / ln(m)`.
//!
//! # Why readers need no lock
//! Every neighbor slot is one atomic that is empty or names a node whose own lists were written
//! before. The builder writes a new node's block first and stores the links to it afterwards, with
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
    columns::Columns,
    metric::Metric,
    search::HITS_AHEAD,
    walk::{Key, Scratch, with_scratch},
};
use crate::{
    distance::Vector,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

/// An empty neighbor slot, and the end of a chain.
pub(super) const NONE: u32 = u32::MAX;

// The values of an entry of `Graph::blocks`: a row's chain, its place above, its level 0 list.
pub(super) const TWIN: usize = 0;
/// Of a node: where its lists of the levels above 0 begin. Of a twin: whether it is the node's
/// vector bit for bit ([`IDENTICAL`]) or only as good as that.
pub(super) const UPPER: usize = 1;
pub(super) const SLOTS: usize = 2;

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
    /// The highest level with a node.
    pub max_level: usize,
}

/// What a walk found.
pub struct Walk {
    /// Accepted rows with their distances, in no order. All twins of the `k` nearest nodes are
    /// among them, so there may be more than were asked for.
    pub rows: Vec<(RowId, f32)>,
    /// Number of nodes whose distance was computed.
    pub visited: usize,
}

/// The shared part of the graph; [`super::link::GraphWriter`] changes it.
pub struct Graph<M> {
    pub(super) arena: Arc<Arena>,
    #[cfg(test)]
    pub(super) m: usize,
    /// For each row `[twin, upper, slot; 2m]`.
    pub(super) blocks: Columns<AtomicU32>,
    /// Lists of `m` slots; the levels 1.. of a node are neighbors here.
    pub(super) upper: Columns<AtomicU32>,
    /// The entry point: `(level + 1) << 32 | row`, or 0 for an empty graph.
    pub(super) entry: AtomicU64,
    /// First row of the chain of rows without a place.
    pub(super) placeless: AtomicU32,
    pub(super) counts: Counts,
    pub(super) metric: PhantomData<fn() -> M>,
}

/// [`GraphStats`] as the builder publishes them; they order nothing.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) nodes: AtomicU32,
    pub(super) rows: AtomicU32,
    pub(super) dead: AtomicU32,
    pub(super) links: AtomicU64,
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
        self.visited += 1;
        self.nearest = Some(self.nearest.map_or(key, |nearest| nearest.min(key)));
    }
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
            max_level: self.entry().map_or(0, |entry| entry.level),
        }
    }

    /// The `k` nearest accepted rows, approximately: a walk with a beam of `max(ef, k)`.
    pub fn search(
        &self,
        query: Vector<'_>,
        k: usize,
        ef: usize,
        accept: impl Fn(RowId) -> bool,
    ) -> Walk {
        let mut seen = Seen::default();
        if k == 0 {
            return Walk { rows: Vec::new(), visited: 0 };
        }
        let mut rows = Vec::with_capacity(k.min(HITS_AHEAD));
        let accept_node = |node: u32| self.members(node).any(|(row, _)| accept(RowId(row)));
        with_scratch(|scratch| {
            if let Some(entry) = self.descend(query, 0, &mut seen) {
                self.walk_level(scratch, query, &[entry], 0, ef.max(k), accept_node, &mut seen);
                scratch.sort_found();
                self.expand(&scratch.sorted, query, k, &accept, &mut rows);
            }
        });
        self.add_placeless(query, k, &accept, &mut rows);
        Walk { rows, visited: seen.visited }
    }

    /// Adds the accepted members of `nodes`, which are sorted, until no later node can have a row
    /// among the `k` nearest.
    fn expand(
        &self,
        nodes: &[Key],
        query: Vector<'_>,
        k: usize,
        accept: &impl Fn(RowId) -> bool,
        rows: &mut Vec<(RowId, f32)>,
    ) {
        // A member is at most the slack nearer or farther than its node.
        let mut enough = f32::INFINITY;
        for node in nodes {
            if node.distance() > enough {
                break;
            }
            for (row, identical) in self.members(node.row()) {
                if !accept(RowId(row)) {
                    continue;
                }
                let distance = match self.arena.vector(RowId(row)) {
                    Some(vector) if !identical => M::distance(query, vector),
                    _ => node.distance(),
                };
                rows.push((RowId(row), distance));
            }
            if rows.len() >= k && enough == f32::INFINITY {
                enough = node.distance() + 2.0 * M::TWIN_SLACK;
            }
        }
    }

    /// Adds the accepted rows without a place if they can be among the `k` nearest.
    fn add_placeless(
        &self,
        query: Vector<'_>,
        k: usize,
        accept: &impl Fn(RowId) -> bool,
        rows: &mut Vec<(RowId, f32)>,
    ) {
        let first = self.chain_of_placeless();
        let Some(vector) = self.arena.vector(RowId(first)) else { return };
        let distance = M::distance(query, vector);
        if rows.iter().filter(|(_, other)| *other < distance).count() < k {
            let chain = self.chain(first).map(RowId).filter(|row| accept(*row));
            rows.extend(chain.map(|row| (row, distance)));
        }
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
            let next = self.blocks.first(*row)?.load(Ordering::Acquire);
            (next != NONE).then_some(next)
        })
    }

    /// The rows that `node` stands for, itself first, and whether each equals it bit for bit.
    pub(super) fn members(&self, node: u32) -> impl Iterator<Item = (u32, bool)> {
        self.chain(node).map(move |row| (row, row == node || self.is_identical(row)))
    }

    fn is_identical(&self, twin: u32) -> bool {
        let kind = self.blocks.get(twin).and_then(|block| block.get(UPPER));
        // Written before the twin was hung in.
        kind.is_some_and(|kind| kind.load(Ordering::Relaxed) == IDENTICAL)
    }

    /// The slots of `node` on `level`: neighbors first, then empty ones.
    pub(super) fn slots(&self, node: u32, level: usize) -> &[AtomicU32] {
        let slots = || {
            let block = self.blocks.get(node)?;
            let Some(above) = level.checked_sub(1) else { return block.get(SLOTS..) };
            let upper = block.get(UPPER)?.load(Ordering::Relaxed);
            self.upper.get(upper.checked_add(u32::try_from(above).ok()?)?)
        };
        slots().unwrap_or(&[])
    }

    /// The neighbors of `node` on `level`, which `node` must have.
    pub(super) fn neighbors(&self, node: u32, level: usize) -> impl Iterator<Item = u32> {
        // Pairs with the Release that stored the link: the neighbor's own lists are written.
        self.slots(node, level)
            .iter()
            .map(|slot| slot.load(Ordering::Acquire))
            .take_while(|neighbor| *neighbor != NONE)
    }

    /// The distance of `query` to `node`.
    pub(super) fn key(&self, query: Vector<'_>, node: u32) -> Option<Key> {
        Some(Key::new(M::distance(query, self.arena.vector(RowId(node))?), node))
    }

    /// Goes down greedily from the entry point to just above `level` (algorithm 5, first loop) and
    /// returns the nearest node met.
    pub(super) fn descend(&self, query: Vector<'_>, level: usize, seen: &mut Seen) -> Option<Key> {
        let entry = self.entry()?;
        let mut nearest = self.key(query, entry.row)?;
        seen.note(nearest);
        for above in (level + 1..=entry.level).rev() {
            loop {
                let before = nearest;
                for neighbor in self.neighbors(before.row(), above) {
                    let Some(key) = self.key(query, neighbor) else { continue };
                    seen.note(key);
                    nearest = nearest.min(key);
                }
                if nearest == before {
                    break;
                }
            }
        }
        Some(nearest)
    }

    /// Algorithm 2: walks `level` from `entries` with a beam of `ef` and leaves the nearest
    /// accepted nodes in `scratch.found`. Nodes that are not accepted are walked over.
    #[expect(clippy::too_many_arguments, reason = "the letters of algorithm 2, and a filter")]
    pub(super) fn walk_level(
        &self,
        scratch: &mut Scratch,
        query: Vector<'_>,
        entries: &[Key],
        level: usize,
        ef: usize,
        accept: impl Fn(u32) -> bool,
        seen: &mut Seen,
    ) {
        scratch.begin();
        for entry in entries {
            if scratch.visit(entry.row()) {
                scratch.candidates.push(std::cmp::Reverse(*entry));
                if accept(entry.row()) {
                    scratch.found.push(*entry);
                }
            }
        }
        while let Some(std::cmp::Reverse(candidate)) = scratch.candidates.pop() {
            if scratch.found.len() >= ef
                && scratch.found.peek().is_some_and(|worst| candidate > *worst)
            {
                break;
            }
            for neighbor in self.neighbors(candidate.row(), level) {
                if !scratch.visit(neighbor) {
                    continue;
                }
                let Some(key) = self.key(query, neighbor) else { continue };
                seen.note(key);
                let full = scratch.found.len() >= ef;
                if full && scratch.found.peek().is_some_and(|worst| key > *worst) {
                    continue;
                }
                scratch.candidates.push(std::cmp::Reverse(key));
                if accept(neighbor) {
                    if full {
                        scratch.found.pop();
                    }
                    scratch.found.push(key);
                }
            }
        }
    }
}
