//! What a walk through the graph needs to remember, kept from one walk to the next.

use std::{cell::Cell, cmp::Reverse, collections::BinaryHeap};

use super::point::Coded;
use crate::{
    distance::Vector,
    kernels::{Probe, Quantized, quantize},
};

/// A node and its distance; ordered by distance, then by row.
///
/// Distances are not negative, and the bits of such floats are ordered as the floats are, so one
/// integer comparison decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key(u64);

impl Key {
    #[inline]
    pub(super) fn new(distance: f32, row: u32) -> Self {
        // Adding 0 turns a -0 into +0, whose bits are the smallest.
        Self(u64::from((distance + 0.0).to_bits()) << 32 | u64::from(row))
    }

    pub(super) fn distance(self) -> f32 {
        f32::from_bits((self.0 >> 32) as u32)
    }

    #[inline]
    pub(super) fn row(self) -> u32 {
        self.0 as u32
    }
}

/// Which rows a walk came by.
#[derive(Default)]
pub(super) struct Marks {
    /// For each row the number of the last walk that came by. One byte, so that the marks of a
    /// million rows stay in the cache; every 255 walks they are wiped.
    visited: Vec<u8>,
    walk: u8,
}

impl Marks {
    /// Begins a walk among rows below `rows_end`: nothing is visited.
    pub(super) fn begin(&mut self, rows_end: u32) {
        let len = rows_end as usize;
        if len > self.visited.len() {
            let more = len.next_power_of_two().max(1024) - self.visited.len();
            // Without memory to remember with, walks pass the later rows by.
            if self.visited.try_reserve_exact(more).is_ok() {
                self.visited.resize(self.visited.len() + more, 0);
            }
        }
        self.walk = self.walk.checked_add(1).unwrap_or_else(|| {
            self.visited.fill(0);
            1
        });
    }

    /// Whether this walk has not come by `row` yet.
    #[inline]
    pub(super) fn is_new(&self, row: u32) -> bool {
        self.visited.get(row as usize).is_some_and(|last| *last != self.walk)
    }

    /// Whether this walk comes by `row` for the first time.
    #[inline]
    pub(super) fn visit(&mut self, row: u32) -> bool {
        let last = self.visited.get_mut(row as usize);
        last.is_some_and(|last| is_first_visit(last, self.walk))
    }
}

/// The nearest nodes met so far, and which of them were left behind. A sorted array: it is short,
/// and most of what is offered to it is too far and costs one comparison.
#[derive(Default)]
pub(super) struct Beam {
    width: usize,
    /// Keys, nearest first, moved up by one bit, the lowest of which says that the node's neighbors
    /// were looked at. The highest bit of a key is free: distances have no sign.
    entries: Vec<u64>,
    /// All entries before this one were looked at.
    next: usize,
    /// The least of what is too far, once the beam is full.
    limit: u64,
    /// Nodes that may be walked over and not found, nearest on top.
    passing: BinaryHeap<Reverse<Key>>,
}

impl Beam {
    /// An empty beam for `width` nodes.
    pub(super) fn begin(&mut self, width: usize) {
        self.width = width.max(1);
        self.entries.clear();
        self.next = 0;
        self.limit = u64::MAX;
        self.passing.clear();
    }

    /// Whether a node of this key would be kept.
    #[inline]
    pub(super) fn admits(&self, key: Key) -> bool {
        key.0 << 1 < self.limit
    }

    /// Keeps a node that the beam admits, in place of the farthest if the beam is full.
    pub(super) fn insert(&mut self, key: Key) {
        let entry = key.0 << 1;
        let place = self.entries.partition_point(|other| *other < entry);
        if self.entries.len() == self.width {
            self.entries.pop();
        }
        self.entries.insert(place.min(self.entries.len()), entry);
        self.next = self.next.min(place);
        if self.entries.len() == self.width {
            self.limit = self.entries.last().map_or(u64::MAX, |last| last & !1);
        }
    }

    /// Remembers a node that the beam admits but that must not be found.
    pub(super) fn pass_over(&mut self, key: Key) {
        self.passing.push(Reverse(key));
    }

    /// The nearest node whose neighbors were not looked at; they are after this.
    pub(super) fn pop(&mut self) -> Option<Key> {
        while self.entries.get(self.next).is_some_and(|entry| entry & 1 == 1) {
            self.next += 1;
        }
        let nearest = self.entries.get(self.next).map(|entry| Key(entry >> 1));
        if let Some(Reverse(passing)) = self.passing.peek().copied()
            && self.admits(passing)
            && nearest.is_none_or(|nearest| passing < nearest)
        {
            self.passing.pop();
            return Some(passing);
        }
        if let Some(entry) = self.entries.get_mut(self.next) {
            *entry |= 1;
        }
        nearest
    }

    /// A guess at what [`Beam::pop`] will give, one after the other: right unless something nearer is
    /// met.
    pub(super) fn upcoming(&self) -> impl Iterator<Item = Key> {
        let rest = self.entries.get(self.next..).unwrap_or_default();
        rest.iter().filter(|entry| **entry & 1 == 0).map(|entry| Key(entry >> 1))
    }

    /// What was found, nearest first.
    pub(super) fn found(&self) -> impl Iterator<Item = Key> {
        self.entries.iter().map(|entry| Key(entry >> 1))
    }
}

/// What a walk has asked for ahead of its turn, by node.
pub(super) struct Asked {
    /// The nodes that were likely next, and whose lists are near.
    pub(super) lists: [u32; 2],
    /// The last node whose neighbors' codes were asked for.
    pub(super) neighbors: u32,
}

/// The memory of one walk over one level.
#[derive(Default)]
pub(super) struct Trail {
    pub(super) marks: Marks,
    pub(super) beam: Beam,
    /// Neighbors that are looked at together, and their keys.
    pub(super) rows: Vec<u32>,
    pub(super) keys: Vec<Key>,
}

/// Whether the last walk that came by was another, and from now on it is this one. Without a branch: half of
/// the neighbors of a node are new, in no order.
#[inline]
fn is_first_visit(last: &mut u8, walk: u8) -> bool {
    std::mem::replace(last, walk) != walk
}

/// Those of `neighbors`, `len` at most, that the walk comes by for the first time, in the memory of `rows`,
/// which may hold older ones behind them.
#[inline]
pub(super) fn take_new<'r>(
    marks: &mut Marks,
    neighbors: impl Iterator<Item = u32>,
    len: usize,
    rows: &'r mut Vec<u32>,
) -> &'r [u32] {
    if rows.len() < len {
        rows.resize(len, 0);
    }
    let (visited, walk) = (marks.visited.as_mut_slice(), marks.walk);
    let room = rows.as_mut_slice();
    let mut count = 0;
    for neighbor in neighbors {
        // The next one overwrites what is not new.
        let Some(slot) = room.get_mut(count) else { break };
        *slot = neighbor;
        let Some(last) = visited.get_mut(neighbor as usize) else { continue };
        count += usize::from(is_first_visit(last, walk));
    }
    room.get(..count).unwrap_or_default()
}

/// The memory of one search.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) trail: Trail,
    /// Where the walk starts from, as a code.
    pub(super) probe: Probe,
    /// The rows that were chosen for a list.
    pub(super) chosen: Vec<Probe>,
    /// A code of one sign for each component, before it becomes a probe.
    signed: Vec<i8>,
}

impl Scratch {
    /// Makes `probe` that of a query, and says how far its code is off.
    pub(super) fn aim(&mut self, query: Vector<'_>) -> Coded {
        self.signed.resize(query.values().len(), 0);
        let Quantized { scale, error } = quantize(query.values(), query.norm(), &mut self.signed);
        self.probe.set_signed(&self.signed);
        Coded { scale, error }
    }
}

thread_local! {
    /// One memory for each thread that searches, so that a walk in steady state allocates nothing.
    /// Walks of different graphs share it: a walk's number is not used twice without a wipe.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Runs `walk` with this thread's memory, or with a new one where that is in use or gone.
pub(super) fn with_scratch<R>(walk: impl FnOnce(&mut Scratch) -> R) -> R {
    let mut scratch = SCRATCH.try_with(Cell::take).ok().flatten().unwrap_or_default();
    let result = walk(&mut scratch);
    // While a thread ends its memory may be gone already; then this one goes too.
    let _ = SCRATCH.try_with(|pool| pool.set(Some(scratch)));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_by_distance_then_row() {
        let distances = [0.0, 1e-45, 0.5, 1.0, 2.0, 1e30, f32::INFINITY];
        for pair in distances.windows(2) {
            assert!(Key::new(pair[0], u32::MAX) < Key::new(pair[1], 0));
            assert!(Key::new(pair[0], 1) < Key::new(pair[0], 2));
            assert_eq!(Key::new(pair[1], 9).distance(), pair[1]);
        }
        assert_eq!(Key::new(-0.0, 3), Key::new(0.0, 3));
    }

    #[test]
    fn each_walk_visits_anew_even_when_the_count_of_walks_wraps() {
        let mut marks = Marks::default();
        for walk in 0..600 {
            marks.begin(9_001);
            for row in [walk, 5_000 + walk, 9_000] {
                assert!(marks.visit(row), "walk {walk}, row {row}");
                assert!(!marks.visit(row));
            }
        }
    }

    #[test]
    fn a_beam_keeps_the_nearest_and_gives_each_once_nearest_first() {
        let key = |distance: f32| Key::new(distance, distance as u32);
        let mut beam = Beam::default();
        beam.begin(3);
        for distance in [5.0, 2.0, 9.0] {
            assert!(beam.admits(key(distance)));
            beam.insert(key(distance));
        }
        assert!(!beam.admits(key(9.0)) && !beam.admits(key(10.0)) && beam.admits(key(8.0)));
        assert_eq!(beam.upcoming().collect::<Vec<_>>(), [key(2.0), key(5.0), key(9.0)]);
        assert_eq!(beam.pop(), Some(key(2.0)));
        beam.insert(key(1.0));
        assert_eq!(beam.pop(), Some(key(1.0)));
        assert_eq!(beam.pop(), Some(key(5.0)));
        assert_eq!(beam.pop(), None);
        beam.insert(key(3.0));
        assert_eq!(beam.pop(), Some(key(3.0)));
        assert_eq!(beam.found().collect::<Vec<_>>(), [key(1.0), key(2.0), key(3.0)]);
    }

    #[test]
    fn what_is_passed_over_is_given_in_its_turn_and_never_found() {
        let key = |distance: f32| Key::new(distance, distance as u32);
        let mut beam = Beam::default();
        beam.begin(1);
        beam.insert(key(4.0));
        beam.pass_over(key(3.0));
        beam.pass_over(key(2.0));
        assert_eq!(beam.pop(), Some(key(2.0)));
        assert_eq!(beam.pop(), Some(key(3.0)));
        assert_eq!(beam.pop(), Some(key(4.0)));
        // Beyond the beam nothing is walked over either.
        beam.pass_over(key(5.0));
        assert_eq!(beam.pop(), None);
        assert_eq!(beam.found().collect::<Vec<_>>(), [key(4.0)]);
    }
}
