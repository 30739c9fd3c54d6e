//! The readers' half of the facade: queries by meaning, and sizes.

use std::sync::atomic::Ordering::Relaxed;

use tala_core::IntentId;

use super::Inner;
use crate::{
    index::{self, search::Answer},
    metrics::{Timing, record_stage},
    sync::{atomic::Ordering, now_ns},
};

/// A query by meaning.
///
/// ```
/// use tala_store::Query;
/// let embedding = [0.5_f32; 8];
/// let query = Query::new(&embedding, 10).ef(200);
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Query<'a> {
    pub(super) embedding: &'a [f32],
    k: usize,
    ef: Option<usize>,
    is_exact: bool,
}

impl<'a> Query<'a> {
    /// The `k` intents most similar to `embedding`, `[f32; dim]`.
    pub fn new(embedding: &'a [f32], k: usize) -> Self {
        Self { embedding, k, ef: None, is_exact: false }
    }

    /// Beam width of the graph walk; wider finds more of the true neighbors and takes longer. At
    /// least `k` is used. The default is the engine's `ef_search`.
    pub fn ef(mut self, candidates: usize) -> Self {
        self.ef = Some(candidates);
        self
    }

    /// Compares every intent instead of walking the graph: the true neighbors, by which the recall
    /// of other queries is measured, in a time that grows with the store. A beam width plays no
    /// part then.
    ///
    /// ```
    /// # use tala_core::{Intent, IntentId, IntentStore};
    /// # use tala_store::{Query, StorageEngine};
    /// # let engine = StorageEngine::in_memory(2, 10);
    /// # for number in 0..5_u8 {
    /// #     engine.insert(Intent {
    /// #         id: IntentId::from_bytes([number; 16]),
    /// #         timestamp: 0,
    /// #         raw_command: String::new(),
    /// #         embedding: vec![1.0, f32::from(number)],
    /// #         context_hash: 0,
    /// #         parent_ids: vec![],
    /// #         outcome: None,
    /// #         confidence: 1.0,
    /// #     })?;
    /// # }
    /// let embedding = [1.0, 0.5];
    /// let truth = engine.search(Query::new(&embedding, 3).exact())?;
    /// let found = engine.search(Query::new(&embedding, 3).ef(16))?;
    /// // Of the three most similar intents so many were found:
    /// let right = found.iter().filter(|(_, similarity)| *similarity >= truth[2].1).count();
    /// assert_eq!(right, 3);
    /// # Ok::<(), tala_core::TalaError>(())
    /// ```
    pub fn exact(mut self) -> Self {
        self.is_exact = true;
        self
    }
}

/// Sizes of an engine at one moment. The numbers are read one after the other, not all at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Intents in the store.
    pub intents: u64,
    /// Rows in the arena: intents and what they replaced since the engine was opened.
    pub rows: u64,
    /// Rows that the index builder has dealt with.
    pub linked: u64,
    /// Rows in the graph.
    pub graph_nodes: u64,
    /// Of those, replaced or removed ones.
    pub graph_dead: u64,
    /// Bytes of memory that the index takes for these rows: codes, links, ids. The embeddings
    /// themselves, 4 bytes to the component, and the intents come on top.
    pub index_bytes: u64,
    /// Bytes of memory of the latency histograms, whether written to or not.
    pub histogram_bytes: u64,
    /// Published segments.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Intents in the hot buffer.
    pub hot_len: u64,
    /// The last sequence number that readers see.
    pub visible_seq: u64,
}

impl Inner {
    /// Answers a query whose embedding was checked.
    pub(super) fn search(&self, query: Query<'_>) -> Vec<(IntentId, f32)> {
        self.answer(query).hits
    }

    /// The answer to a query whose embedding was checked, and how it was found.
    pub(super) fn answer(&self, query: Query<'_>) -> Answer {
        let since_ns = now_ns();
        let metrics = &self.view.metrics;
        let shared = &*self.view.index;
        let wanted = index::Query {
            vector: query.embedding,
            k: query.k,
            ef: query.ef.unwrap_or(self.options.ef_search),
            exact_below: if query.is_exact { usize::MAX } else { self.options.exact_below },
        };
        let found = index::search(&shared.graph, wanted, shared.view());
        if found.is_walked {
            metrics.hnsw_search_visited.fetch_add(found.visited as u64, Relaxed);
            metrics.hnsw_search_count.fetch_add(1, Relaxed);
        }
        let took_ns =
            record_stage(&metrics.edge_search_ns, &metrics.edge_search_count, since_ns, 1);
        metrics.record(Timing::Semantic, took_ns);
        found
    }

    pub(super) fn stats(&self) -> StoreStats {
        let index = &*self.view.index;
        let graph = index.graph.stats();
        let (segments, segment_bytes) = self.manifest.as_ref().map_or((0, 0), |manifest| {
            let manifest = manifest.lock();
            let bytes = manifest.segments.iter().map(|segment| segment.bytes).sum();
            (manifest.segments.len() as u64, bytes)
        });
        StoreStats {
            intents: self.view.len() as u64,
            rows: u64::from(index.arena.len()),
            linked: u64::from(index.linked.load(Ordering::Acquire)),
            graph_nodes: u64::from(graph.rows),
            graph_dead: u64::from(graph.dead),
            index_bytes: index.arena.index_bytes() + graph.bytes,
            histogram_bytes: self.view.metrics.histogram_bytes(),
            segments,
            segment_bytes,
            hot_len: self.view.metrics.hot_buffer_len.load(Relaxed),
            visible_seq: index.visible.load(Ordering::Acquire),
        }
    }
}
