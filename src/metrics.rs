//! What the engine tells about its own work.

mod lock_stats;
mod tracked;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use lock_stats::LockStats;
pub use tracked::{LockRank, TrackedMutex, TrackedRwLock};

use crate::sync::now_ns;

/// Counters of every lock and every stage of one engine.
///
/// All counters are relaxed and only grow, except the two of the hot buffer, which are readings.
/// A pair `x_ns` and `x_count` covers every run of that stage since the engine was opened: the
/// cumulative time in nanoseconds, and how often.
#[derive(Debug, Default)]
pub struct StorageMetrics {
    /// Lock of the map from id to intent.
    pub intents_lock: LockStats,
    /// Lock under which a row is linked into the graph; searches take none.
    pub hnsw_lock: LockStats,
    /// Lock of the map from id to row and of the time index.
    pub index_map_lock: LockStats,
    /// Lock of the log file; its one owner is the log's writer.
    pub wal_lock: LockStats,
    /// Lock of the hot buffer.
    pub hot_lock: LockStats,

    /// Time spent writing log records and making them durable.
    pub wal_append_ns: AtomicU64,
    /// Records written by those runs; 0 in memory.
    pub wal_append_count: AtomicU64,
    /// Time spent linking rows into the graph.
    pub hnsw_insert_ns: AtomicU64,
    /// Rows linked.
    pub hnsw_insert_count: AtomicU64,
    /// Time spent pushing intents into the hot buffer.
    pub hot_push_ns: AtomicU64,
    /// Intents pushed.
    pub hot_push_count: AtomicU64,
    /// Time spent encoding and publishing segments; 0 in memory.
    pub segment_flush_ns: AtomicU64,
    /// Segments encoded and published; 0 in memory.
    pub segment_flush_count: AtomicU64,
    /// Time spent in semantic searches, each taken whole: graph walk, tail scan, re-rank.
    pub edge_search_ns: AtomicU64,
    /// Semantic searches.
    pub edge_search_count: AtomicU64,

    /// Nodes whose distance to the query was computed while queries walked the graph.
    pub hnsw_search_visited: AtomicU64,
    /// Graph walks of queries; a search that is answered by an exact scan has none.
    pub hnsw_search_count: AtomicU64,

    /// Intents in the hot buffer now.
    pub hot_buffer_len: AtomicU64,
    /// How many intents make the hot buffer full.
    pub hot_buffer_capacity: AtomicU64,
    /// Records appended to the log since the engine was opened; 0 in memory.
    pub wal_entry_count: AtomicU64,
    /// Bytes of the segments published since the engine was opened.
    pub total_bytes_flushed: AtomicU64,
    /// Segments published since the engine was opened.
    pub segments_flushed_count: AtomicU64,
}

/// Adds one run, or several that were timed as one, to a stage's pair of counters.
pub(crate) fn record_stage(total_ns: &AtomicU64, count: &AtomicU64, since_ns: u64, runs: u64) {
    total_ns.fetch_add(now_ns().saturating_sub(since_ns), Relaxed);
    count.fetch_add(runs, Relaxed);
}
