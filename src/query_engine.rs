//! A search engine for one owner: vectors, their graph and what belongs to them, all in memory.

use crate::ids::RowId;
use std::{collections::HashMap, sync::Arc};

use tala_core::{IntentId, TalaError};

use crate::{
    distance::{Vector, similarity},
    door::check_embedding,
    index::{
        arena::{Arena, ArenaWriter},
        graph::GraphParams,
        link::GraphWriter,
        metric::Euclidean,
        search::{Best, Query, View, nearest},
    },
    options::EngineOptions,
};

const PARAMS: GraphParams = GraphParams { m: 16, ef_construction: 200, seed: 0x7461_6C61 };

/// Width of the beam of a search, at least.
const EF_SEARCH: usize = 64;

/// With fewer intents than this, searches look at every one.
const EXACT_BELOW: usize = 1_000;

/// How many nearest intents are ranked anew for each edge candidate that is asked for.
const CANDIDATES_PER_EDGE: usize = 4;

/// Steps of repair after an insert, at most. A graph of `n` nodes needs about `n` steps, and from
/// when a repair is due there is time for `n / 20` replacements before too many nodes are dead.
const REPAIR_STEPS: usize = 32;

/// A semantic search engine in memory: an HNSW graph over raw embeddings by Euclidean distance, and
/// the timestamp and command of each intent beside it.
///
/// Embeddings are finite, `[f32; dim]`, and need not be normalised. Answers hold each id once, and
/// ties are in the order of the ids. Small engines, and questions for a good part of all intents,
/// are answered exactly; otherwise the graph finds nearly all of the nearest.
///
/// ```
/// use tala_store::QueryEngine;
///
/// let mut engine = QueryEngine::new(2);
/// engine.insert([1; 16], 10, "cargo build".to_string(), vec![1.0, 0.0]);
/// engine.insert([2; 16], 20, "cargo test".to_string(), vec![3.0, 0.0]);
/// assert_eq!(engine.search(&[0.0, 0.0], 2), [([1; 16], 1.0), ([2; 16], 3.0)]);
/// assert_eq!(engine.find_edge_candidates(&[2.0, 0.0], 1), [([1; 16], 1.0)]);
/// ```
pub struct QueryEngine {
    arena: Arc<Arena>,
    writer: ArenaWriter,
    graph: GraphWriter<Euclidean>,
    entries: HashMap<[u8; 16], Entry>,
    /// Number of inserts; each has its own sequence number.
    seq: u64,
}

struct Entry {
    row: RowId,
    timestamp: u64,
    raw_command: String,
}

impl QueryEngine {
    /// An empty engine for embeddings `[f32; dim]`, with `m = 16` and `ef_construction = 200`.
    ///
    /// # Panics
    /// Where [`QueryEngine::try_new`] gives an error: `dim` is 0 or above 65,536.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        match Self::try_new(dim) {
            Ok(engine) => engine,
            Err(error) => panic!("QueryEngine::new: {error}"),
        }
    }

    /// [`QueryEngine::new`] for dimensions of unknown origin.
    ///
    /// # Errors
    /// [`TalaError::InvalidOption`] when `dim` is 0 or above [`EngineOptions::DIM_MAX`].
    pub fn try_new(dim: usize) -> Result<Self, TalaError> {
        if !(1..=EngineOptions::DIM_MAX).contains(&dim) {
            let reason = "must be between 1 and 65,536";
            return Err(TalaError::InvalidOption { option: "dim", reason });
        }
        let (arena, writer) = Arena::without_codes(dim);
        let graph = GraphWriter::new(Arc::clone(&arena), PARAMS);
        Ok(Self { arena, writer, graph, entries: HashMap::new(), seq: 0 })
    }

    /// Inserts an intent; one with the same id is replaced.
    ///
    /// # Panics
    /// Where [`QueryEngine::try_insert`] gives an error.
    pub fn insert(
        &mut self,
        id: [u8; 16],
        timestamp: u64,
        raw_command: String,
        embedding: Vec<f32>,
    ) {
        if let Err(error) = self.try_insert(id, timestamp, raw_command, embedding) {
            panic!("QueryEngine::insert: {error}");
        }
    }

    /// Inserts an intent; one with the same id is replaced. `timestamp` is in nanoseconds since the
    /// Unix epoch.
    ///
    /// # Errors
    /// The embedding has another dimension or is not finite, or there is no room for another one
    /// (2^32 inserts, or no memory). The engine is then as it was before.
    pub fn try_insert(
        &mut self,
        id: [u8; 16],
        timestamp: u64,
        raw_command: String,
        embedding: Vec<f32>,
    ) -> Result<(), TalaError> {
        self.check(&embedding)?;
        let seq = self.seq + 1;
        let row = self.writer.push(&embedding, IntentId::from_bytes(id), seq)?;
        self.seq = seq;
        if let Some(old) = self.entries.insert(id, Entry { row, timestamp, raw_command }) {
            self.writer.kill(old.row, seq);
        }
        self.link();
        Ok(())
    }

    /// The `k` nearest intents by Euclidean distance (the root, not the square), nearest first, as
    /// `(id, distance)`. A distance is never below 0, and never -0.
    ///
    /// # Panics
    /// Where [`QueryEngine::try_search`] gives an error.
    #[must_use]
    pub fn search(&self, query: &[f32], k: usize) -> Vec<([u8; 16], f32)> {
        match self.try_search(query, k) {
            Ok(hits) => hits,
            Err(error) => panic!("QueryEngine::search: {error}"),
        }
    }

    /// [`QueryEngine::search`] for queries of unknown origin.
    ///
    /// # Errors
    /// The query has another dimension or is not finite.
    pub fn try_search(&self, query: &[f32], k: usize) -> Result<Vec<([u8; 16], f32)>, TalaError> {
        self.check(query)?;
        Ok(self.nearest(query, k).into_iter().map(|(id, cost)| (*id.as_bytes(), cost)).collect())
    }

    /// Candidates for edges to an intent with this embedding: the `4 * k` nearest by Euclidean
    /// distance, ranked by exact cosine similarity; the best `k` of them, best first, as
    /// `(id, similarity in [-1, 1])`.
    ///
    /// # Panics
    /// Where [`QueryEngine::try_find_edge_candidates`] gives an error.
    #[must_use]
    pub fn find_edge_candidates(&self, embedding: &[f32], k: usize) -> Vec<([u8; 16], f32)> {
        match self.try_find_edge_candidates(embedding, k) {
            Ok(hits) => hits,
            Err(error) => panic!("QueryEngine::find_edge_candidates: {error}"),
        }
    }

    /// [`QueryEngine::find_edge_candidates`] for embeddings of unknown origin.
    ///
    /// # Errors
    /// The embedding has another dimension or is not finite.
    pub fn try_find_edge_candidates(
        &self,
        embedding: &[f32],
        k: usize,
    ) -> Result<Vec<([u8; 16], f32)>, TalaError> {
        self.check(embedding)?;
        let k = k.min(self.len());
        let vector = Vector::new(embedding);
        let mut best = Best::new(k);
        for (id, _) in self.nearest(embedding, CANDIDATES_PER_EDGE.saturating_mul(k)) {
            let row = self.entries.get(id.as_bytes()).map(|entry| entry.row);
            if let Some(other) = row.and_then(|row| self.arena.vector(row)) {
                best.offer(id, -similarity(vector, other));
            }
        }
        Ok(best.into_hits().into_iter().map(|(id, cost)| (*id.as_bytes(), -cost)).collect())
    }

    /// Timestamp and command of the intent with this id.
    #[must_use]
    pub fn get(&self, id: &[u8; 16]) -> Option<(u64, &str)> {
        let entry = self.entries.get(id)?;
        Some((entry.timestamp, &entry.raw_command))
    }

    /// Number of intents.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Links what is not linked yet. Where memory is short the rest stays for the next time, and
    /// searches look at it row by row meanwhile.
    fn link(&mut self) {
        for row in self.graph.next_row().0..self.arena.len() {
            if self.graph.link(RowId(row), self.seq).is_err() {
                break;
            }
        }
        for _ in 0..REPAIR_STEPS {
            match self.graph.plan_repair(self.seq) {
                Some(plan) => self.graph.apply(plan),
                None => break,
            }
        }
    }

    fn nearest(&self, vector: &[f32], k: usize) -> Vec<(IntentId, f32)> {
        let query = Query { vector, k, ef: EF_SEARCH, exact_below: EXACT_BELOW };
        let view = View {
            linked: self.graph.next_row(),
            snapshot: self.seq,
            rows_end: RowId(self.arena.len()),
        };
        nearest(self.graph.graph(), query, view).hits
    }

    fn check(&self, embedding: &[f32]) -> Result<(), TalaError> {
        check_embedding(embedding, self.arena.dim())
    }
}
