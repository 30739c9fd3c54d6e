//! The counters at one moment, as plain numbers.

use std::{
    ops::Sub,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{LockStats, StorageMetrics};
use crate::sync::now_ns;

/// [`LockStats`] as numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LockSnapshot {
    /// Acquisitions.
    pub acquisitions: u64,
    /// Of those, with a wait above 1 microsecond.
    pub contentions: u64,
    /// Nanoseconds waited.
    pub total_wait_ns: u64,
    /// Nanoseconds held.
    pub total_hold_ns: u64,
    /// The longest wait since the engine was opened, in nanoseconds.
    pub max_wait_ns: u64,
    /// The longest hold since the engine was opened, in nanoseconds.
    pub max_hold_ns: u64,
}

/// [`StorageMetrics`] as numbers, and when they were read.
///
/// The counters are read one after the other while others count on, so two that belong together may
/// be a run apart.
///
/// A snapshot less an earlier one of the same engine is what happened between them: counts and times are
/// differences, `read_at_ns` is the time between, and what is a state or a maximum is that of the
/// later one.
///
/// ```
/// # use tala_store::StorageEngine;
/// # let engine = StorageEngine::in_memory(8, 1000);
/// let before = engine.metrics().snapshot();
/// // ... some time later:
/// let between = engine.metrics().snapshot() - before;
/// let writes_per_second = between.per_second(between.wal_entry_count);
/// # assert_eq!(writes_per_second, 0.0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// When it was read, in nanoseconds on a clock of this process that never goes back.
    pub read_at_ns: u64,
    /// `intents_lock`.
    pub intents_lock: LockSnapshot,
    /// `hnsw_lock`.
    pub hnsw_lock: LockSnapshot,
    /// `index_map_lock`.
    pub index_map_lock: LockSnapshot,
    /// `wal_lock`.
    pub wal_lock: LockSnapshot,
    /// `hot_lock`.
    pub hot_lock: LockSnapshot,
    /// Nanoseconds spent writing log records and making them durable.
    pub wal_append_ns: u64,
    /// Records written by those runs.
    pub wal_append_count: u64,
    /// Nanoseconds spent linking rows.
    pub hnsw_insert_ns: u64,
    /// Rows linked.
    pub hnsw_insert_count: u64,
    /// Nanoseconds spent pushing intents into the hot buffer.
    pub hot_push_ns: u64,
    /// Intents pushed.
    pub hot_push_count: u64,
    /// Nanoseconds spent encoding and publishing segments.
    pub segment_flush_ns: u64,
    /// Segments encoded and published.
    pub segment_flush_count: u64,
    /// Nanoseconds spent in semantic searches.
    pub edge_search_ns: u64,
    /// Semantic searches.
    pub edge_search_count: u64,
    /// Nodes visited by walks of queries.
    pub hnsw_search_visited: u64,
    /// Walks of queries.
    pub hnsw_search_count: u64,
    /// Intents in the hot buffer; a state.
    pub hot_buffer_len: u64,
    /// How many make it full; a state.
    pub hot_buffer_capacity: u64,
    /// Records appended to the log.
    pub wal_entry_count: u64,
    /// Bytes of the segments published.
    pub total_bytes_flushed: u64,
    /// Segments published.
    pub segments_flushed_count: u64,
}

impl StorageMetrics {
    /// The counters as they are now.
    #[must_use]
    pub fn snapshot(&self) -> MetricsSnapshot {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        MetricsSnapshot {
            read_at_ns: now_ns(),
            intents_lock: self.intents_lock.snapshot(),
            hnsw_lock: self.hnsw_lock.snapshot(),
            index_map_lock: self.index_map_lock.snapshot(),
            wal_lock: self.wal_lock.snapshot(),
            hot_lock: self.hot_lock.snapshot(),
            wal_append_ns: read(&self.wal_append_ns),
            wal_append_count: read(&self.wal_append_count),
            hnsw_insert_ns: read(&self.hnsw_insert_ns),
            hnsw_insert_count: read(&self.hnsw_insert_count),
            hot_push_ns: read(&self.hot_push_ns),
            hot_push_count: read(&self.hot_push_count),
            segment_flush_ns: read(&self.segment_flush_ns),
            segment_flush_count: read(&self.segment_flush_count),
            edge_search_ns: read(&self.edge_search_ns),
            edge_search_count: read(&self.edge_search_count),
            hnsw_search_visited: read(&self.hnsw_search_visited),
            hnsw_search_count: read(&self.hnsw_search_count),
            hot_buffer_len: read(&self.hot_buffer_len),
            hot_buffer_capacity: read(&self.hot_buffer_capacity),
            wal_entry_count: read(&self.wal_entry_count),
            total_bytes_flushed: read(&self.total_bytes_flushed),
            segments_flushed_count: read(&self.segments_flushed_count),
        }
    }
}

impl LockStats {
    /// The counters as they are now.
    #[must_use]
    pub fn snapshot(&self) -> LockSnapshot {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        LockSnapshot {
            acquisitions: read(&self.acquisitions),
            contentions: read(&self.contentions),
            total_wait_ns: read(&self.total_wait_ns),
            total_hold_ns: read(&self.total_hold_ns),
            max_wait_ns: read(&self.max_wait_ns),
            max_hold_ns: read(&self.max_hold_ns),
        }
    }
}

impl MetricsSnapshot {
    /// How many a second `count` are, in the time that this difference of two snapshots is about; 0
    /// where there is no time between them.
    #[must_use]
    pub fn per_second(&self, count: u64) -> f64 {
        if self.read_at_ns == 0 { 0.0 } else { count as f64 * 1e9 / self.read_at_ns as f64 }
    }
}

impl Sub for LockSnapshot {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            acquisitions: self.acquisitions.saturating_sub(earlier.acquisitions),
            contentions: self.contentions.saturating_sub(earlier.contentions),
            total_wait_ns: self.total_wait_ns.saturating_sub(earlier.total_wait_ns),
            total_hold_ns: self.total_hold_ns.saturating_sub(earlier.total_hold_ns),
            max_wait_ns: self.max_wait_ns,
            max_hold_ns: self.max_hold_ns,
        }
    }
}

impl Sub for MetricsSnapshot {
    type Output = Self;

    /// What happened since `earlier`; nothing where that is the later one.
    fn sub(self, earlier: Self) -> Self {
        let since = |read: fn(&Self) -> u64| read(&self).saturating_sub(read(&earlier));
        Self {
            read_at_ns: since(|of| of.read_at_ns),
            intents_lock: self.intents_lock - earlier.intents_lock,
            hnsw_lock: self.hnsw_lock - earlier.hnsw_lock,
            index_map_lock: self.index_map_lock - earlier.index_map_lock,
            wal_lock: self.wal_lock - earlier.wal_lock,
            hot_lock: self.hot_lock - earlier.hot_lock,
            wal_append_ns: since(|of| of.wal_append_ns),
            wal_append_count: since(|of| of.wal_append_count),
            hnsw_insert_ns: since(|of| of.hnsw_insert_ns),
            hnsw_insert_count: since(|of| of.hnsw_insert_count),
            hot_push_ns: since(|of| of.hot_push_ns),
            hot_push_count: since(|of| of.hot_push_count),
            segment_flush_ns: since(|of| of.segment_flush_ns),
            segment_flush_count: since(|of| of.segment_flush_count),
            edge_search_ns: since(|of| of.edge_search_ns),
            edge_search_count: since(|of| of.edge_search_count),
            hnsw_search_visited: since(|of| of.hnsw_search_visited),
            hnsw_search_count: since(|of| of.hnsw_search_count),
            hot_buffer_len: self.hot_buffer_len,
            hot_buffer_capacity: self.hot_buffer_capacity,
            wal_entry_count: since(|of| of.wal_entry_count),
            total_bytes_flushed: since(|of| of.total_bytes_flushed),
            segments_flushed_count: since(|of| of.segments_flushed_count),
        }
    }
}
