//! What the engine tells about its own work.

mod backlog;
mod dump;
mod histograms;
mod lock_stats;
mod snapshot;
mod tracked;

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

pub use self::backlog::Backlog;
use self::histograms::Stripes;
pub use dump::Histograms;
pub(crate) use dump::IntervalLog;
pub use histograms::{HistogramsSnapshot, Timing};
pub use lock_stats::LockStats;
pub use snapshot::{LockSnapshot, MetricsSnapshot};
pub use tracked::{LockRank, TrackedMutex, TrackedRwLock};

use tala_core::TalaError;

use crate::sync::{Mutex, now_ns};

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

/// All that an engine records of its own work: the counters, what is behind, and the histograms if it
/// has any.
#[derive(Debug)]
pub struct Instruments {
    counters: Arc<StorageMetrics>,
    backlog: Arc<Backlog>,
    /// `None` where they are switched off.
    stripes: Option<Stripes>,
    /// Since when they record.
    since: SystemTime,
    /// Why the last report could not be written.
    report_error: Mutex<Option<Arc<TalaError>>>,
}

impl Default for Instruments {
    /// Counters alone.
    fn default() -> Self {
        Self {
            counters: Arc::default(),
            backlog: Arc::default(),
            stripes: None,
            since: SystemTime::now(),
            report_error: Mutex::new(None),
        }
    }
}

impl Deref for Instruments {
    type Target = StorageMetrics;

    fn deref(&self) -> &StorageMetrics {
        &self.counters
    }
}

impl Instruments {
    /// Counters and histograms.
    #[must_use]
    pub fn recording() -> Self {
        Self { stripes: Some(Stripes::new()), ..Self::default() }
    }

    /// The counters, for those who only read them.
    pub fn counters(&self) -> &Arc<StorageMetrics> {
        &self.counters
    }

    /// What the threads behind the log's writer are behind with.
    pub fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// Bytes of memory that the histograms take.
    pub fn histogram_bytes(&self) -> u64 {
        self.stripes.as_ref().map_or(0, Stripes::bytes)
    }

    /// Since when they record.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// Records one run in its histogram.
    pub fn record(&self, timing: Timing, ns: u64) {
        if let Some(stripes) = &self.stripes {
            stripes.record(timing, ns);
        }
    }

    /// Records one run that ends now. Returns the time: what follows begins then.
    pub fn record_since(&self, timing: Timing, since_ns: u64) -> u64 {
        let now_ns = now_ns();
        self.record(timing, now_ns.saturating_sub(since_ns));
        now_ns
    }

    /// Notes how the last report went.
    pub fn set_report_error(&self, error: Option<TalaError>) {
        *self.report_error.lock() = error.map(Arc::new);
    }

    /// What was recorded so far.
    pub fn histograms(&self) -> HistogramsSnapshot {
        HistogramsSnapshot::take(self, self.since)
    }
}

/// Adds one run, or several that were timed as one, to a stage's pair of counters; returns the time
/// that it took.
pub(crate) fn record_stage(
    total_ns: &AtomicU64,
    count: &AtomicU64,
    since_ns: u64,
    runs: u64,
) -> u64 {
    let took_ns = now_ns().saturating_sub(since_ns);
    total_ns.fetch_add(took_ns, Relaxed);
    count.fetch_add(runs, Relaxed);
    took_ns
}
