//! What a walk through the graph needs to remember, kept from one walk to the next.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::{BinaryHeap, TryReserveError},
};

/// A node and its distance; ordered by distance, then by row.
///
/// Distances are not negative, and the bits of such floats are ordered as the floats are, so one
/// integer comparison decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key(u64);

impl Key {
    pub(super) fn new(distance: f32, row: u32) -> Self {
        // Adding 0 turns a -0 into +0, whose bits are the smallest.
        Self(u64::from((distance + 0.0).to_bits()) << 32 | u64::from(row))
    }

    pub(super) fn distance(self) -> f32 {
        f32::from_bits((self.0 >> 32) as u32)
    }

    pub(super) fn row(self) -> u32 {
        self.0 as u32
    }
}

/// The memory of one walk.
#[derive(Default)]
pub(super) struct Scratch {
    /// For each row the last walk that came by.
    visited: Vec<u32>,
    walk: u32,
    /// Nodes seen whose neighbors have not been looked at, nearest on top.
    pub(super) candidates: BinaryHeap<Reverse<Key>>,
    /// The best accepted nodes so far, farthest on top.
    pub(super) found: BinaryHeap<Key>,
    /// `found` of a finished walk, nearest first.
    pub(super) sorted: Vec<Key>,
}

impl Scratch {
    /// Begins a walk: nothing is visited, nothing is found.
    pub(super) fn begin(&mut self) {
        self.candidates.clear();
        self.found.clear();
        self.walk = self.walk.checked_add(1).unwrap_or_else(|| {
            self.visited.fill(0);
            1
        });
    }

    /// Whether this walk comes by `row` for the first time.
    pub(super) fn visit(&mut self, row: u32) -> bool {
        let index = row as usize;
        if index >= self.visited.len() && self.grow(index).is_err() {
            // Without memory to remember with, the walk passes the row by.
            return false;
        }
        match self.visited.get_mut(index) {
            Some(last) if *last != self.walk => {
                *last = self.walk;
                true
            }
            _ => false,
        }
    }

    fn grow(&mut self, index: usize) -> Result<(), TryReserveError> {
        let len = (index + 1).next_power_of_two().max(1024);
        self.visited.try_reserve_exact(len - self.visited.len())?;
        self.visited.resize(len, 0);
        Ok(())
    }

    /// Moves what was found to `sorted`, nearest first.
    pub(super) fn sort_found(&mut self) {
        self.sorted.clear();
        self.sorted.extend(self.found.drain());
        self.sorted.sort_unstable();
    }
}

thread_local! {
    /// One memory for each thread that searches, so that a walk in steady state allocates nothing.
    /// Walks of different graphs share it: a walk's number is never used twice on a thread.
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
        // The marks of the very first walk are still there when the count comes around.
        let visited = vec![1; 6_000];
        let mut scratch = Scratch { visited, walk: u32::MAX - 2, ..Scratch::default() };
        for walk in 0..5 {
            scratch.begin();
            for row in [walk, 5_000 + walk, 9_000] {
                assert!(scratch.visit(row));
                assert!(!scratch.visit(row));
            }
        }
    }
}
