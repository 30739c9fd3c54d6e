//! What the tests of this room share: seeded data, a small world, brute force.

use crate::ids::RowId;
use std::sync::Arc;

use tala_core::IntentId;

use super::{
    arena::{Arena, ArenaWriter},
    graph::GraphParams,
    link::GraphWriter,
    metric::Metric,
    search::View,
};

/// A small generator (xorshift64*, Vigna 2016), the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 32) as usize % end
    }

    /// Uniform in `[-1, 1)`.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.float()).collect()
    }

    /// `count` vectors around `centers` random centers: dense clumps far from each other, which is
    /// what embeddings of commands look like, and hard for a graph.
    pub(crate) fn clustered(&mut self, count: usize, dim: usize, centers: usize) -> Vec<Vec<f32>> {
        let centers: Vec<Vec<f32>> = (0..centers).map(|_| self.vector(dim)).collect();
        (0..count)
            .map(|_| {
                let center = &centers[self.below(centers.len())];
                center.iter().map(|value| value + 0.4 * self.float()).collect()
            })
            .collect()
    }
}

/// The id whose bytes, as a number, are `number`.
pub(crate) fn id(number: u64) -> IntentId {
    IntentId::from_bytes(u128::from(number).to_be_bytes())
}

/// The width of the engine's lists; half of its beam, which is enough for small worlds.
pub(crate) const PARAMS: GraphParams = GraphParams { m: 16, ef_construction: 80, seed: 42 };

/// An arena and a graph, each commit with a sequence number of its own.
pub(crate) struct World<M> {
    pub(crate) arena: Arc<Arena>,
    pub(crate) writer: ArenaWriter,
    pub(crate) graph: GraphWriter<M>,
    pub(crate) seq: u64,
}

impl<M: Metric> World<M> {
    pub(crate) fn new(dim: usize, params: GraphParams) -> Self {
        let (arena, writer) = Arena::new(dim);
        let graph = GraphWriter::new(Arc::clone(&arena), params);
        Self { arena, writer, graph, seq: 0 }
    }

    /// Appends a row with the id of this number; `replaced` dies at the same moment.
    pub(crate) fn push(&mut self, vector: &[f32], number: u64, replaced: Option<RowId>) -> RowId {
        self.seq += 1;
        if let Some(row) = replaced {
            self.writer.kill(row, self.seq);
        }
        self.writer.push(vector, id(number), self.seq).unwrap()
    }

    /// Links all rows and repairs as the builder would.
    pub(crate) fn link_all(&mut self) {
        for row in self.graph.next_row().0..self.arena.len() {
            self.graph.link(RowId(row), self.seq).unwrap();
            self.graph.repair(self.seq);
        }
        // A repair may be under way though every row is linked.
        self.graph.repair(self.seq);
    }

    pub(crate) fn view(&self) -> View {
        View {
            linked: self.graph.next_row(),
            snapshot: self.seq,
            rows_end: RowId(self.arena.len()),
        }
    }
}
