//! Every limit and choice of an engine, named, in one type, checked once.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use tala_core::TalaError;

use crate::disk::{Disk, real_disk};

/// When a write counts as done.
///
/// | level | before the answer | killed process loses | power cut loses |
/// |---|---|---|---|
/// | `Sync` | fdatasync, one for all callers that wait | nothing | nothing |
/// | `Interval(d)` | handed to the kernel; fdatasync at least every `d` | nothing | at most the last `d` |
/// | `Os` | handed to the kernel | nothing | what the kernel had not written |
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// Durable before the answer.
    #[default]
    Sync,
    /// Handed to the kernel before the answer, durable at least every so often.
    Interval(Duration),
    /// Handed to the kernel before the answer; the kernel decides when it is durable.
    Os,
}

/// How far opening a directory has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OpenProgress {
    /// Segments are being read.
    Segments {
        /// Bytes read.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Logs are being replayed.
    Logs {
        /// Bytes replayed.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Rows are being linked into the graph.
    Index {
        /// Rows linked.
        done: u64,
        /// Rows in all.
        total: u64,
    },
}

type ProgressCallback = Arc<dyn Fn(OpenProgress) + Send + Sync>;

/// Options of an engine, a builder by value.
///
/// ```
/// use std::time::Duration;
/// use tala_store::{Durability, StorageEngine};
///
/// let engine = StorageEngine::options(384)
///     .hot_capacity(4096)
///     .durability(Durability::Interval(Duration::from_millis(100)))
///     .ef_search(96)
///     .in_memory()?;
/// assert_eq!(engine.dim(), 384);
/// # Ok::<(), tala_core::TalaError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct EngineOptions {
    pub(crate) dim: usize,
    pub(crate) hot_capacity: usize,
    pub(crate) durability: Durability,
    pub(crate) mailbox_capacity: usize,
    pub(crate) mailbox_bytes_max: usize,
    pub(crate) index_lag_max: usize,
    pub(crate) record_bytes_max: usize,
    pub(crate) batch_bytes_max: usize,
    pub(crate) log_bytes_max: u64,
    pub(crate) m: usize,
    pub(crate) ef_construction: usize,
    pub(crate) ef_search: usize,
    pub(crate) exact_below: usize,
    pub(crate) index_threads: usize,
    pub(crate) link_on_open: bool,
    pub(crate) kept_writes_max: usize,
    pub(crate) kept_bytes_max: usize,
    pub(crate) histograms: bool,
    pub(crate) report: Option<(PathBuf, Duration)>,
    pub(crate) progress: Option<ProgressCallback>,
    pub(crate) disk: Arc<dyn Disk>,
}

impl fmt::Debug for EngineOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineOptions")
            .field("dim", &self.dim)
            .field("hot_capacity", &self.hot_capacity)
            .field("durability", &self.durability)
            .field("mailbox_capacity", &self.mailbox_capacity)
            .field("mailbox_bytes_max", &self.mailbox_bytes_max)
            .field("index_lag_max", &self.index_lag_max)
            .field("record_bytes_max", &self.record_bytes_max)
            .field("batch_bytes_max", &self.batch_bytes_max)
            .field("log_bytes_max", &self.log_bytes_max)
            .field("m", &self.m)
            .field("ef_construction", &self.ef_construction)
            .field("ef_search", &self.ef_search)
            .field("exact_below", &self.exact_below)
            .field("index_threads", &self.index_threads)
            .field("link_on_open", &self.link_on_open)
            .field("kept_writes_max", &self.kept_writes_max)
            .field("kept_bytes_max", &self.kept_bytes_max)
            .field("histograms", &self.histograms)
            .field("report_histograms", &self.report)
            .finish_non_exhaustive()
    }
}

impl EngineOptions {
    /// The largest dimension of an embedding.
    pub const DIM_MAX: usize = 65_536;
    /// The largest log record, in bytes, and the default of [`EngineOptions::record_bytes_max`].
    pub const RECORD_BYTES_MAX: usize = 64 << 20;

    pub(crate) fn new(dim: usize) -> Self {
        Self {
            dim,
            hot_capacity: 10_000,
            durability: Durability::Sync,
            mailbox_capacity: 1_024,
            mailbox_bytes_max: 128 << 20,
            index_lag_max: 100_000,
            record_bytes_max: Self::RECORD_BYTES_MAX,
            batch_bytes_max: 128 << 20,
            log_bytes_max: 256 << 20,
            m: 16,
            ef_construction: 200,
            ef_search: 64,
            exact_below: 1_000,
            index_threads: 1,
            link_on_open: true,
            kept_writes_max: 65_536,
            kept_bytes_max: 16 << 20,
            histograms: true,
            report: None,
            progress: None,
            disk: real_disk(),
        }
    }

    /// How many intents make the hot buffer full, so that it becomes a segment. Default 10,000.
    pub fn hot_capacity(mut self, intents: usize) -> Self {
        self.hot_capacity = intents;
        self
    }

    /// When a write counts as done. Default [`Durability::Sync`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How many requests may be on their way to the log at once; more wait. Default 1,024.
    pub fn mailbox_capacity(mut self, requests: usize) -> Self {
        self.mailbox_capacity = requests;
        self
    }

    /// How many bytes of memory requests on their way to the log may hold at once: of intents and
    /// of records, so about twice the bytes of log; more wait. A single request above the limit goes
    /// alone. Default 128 MiB.
    ///
    /// So where writers outrun the disk, what waits takes so many bytes, and the round that the
    /// log's writer is at no more than three times 4 MiB, or three times the largest request where
    /// that is larger. What callers hold who wait for room is theirs.
    pub fn mailbox_bytes_max(mut self, bytes: usize) -> Self {
        self.mailbox_bytes_max = bytes;
        self
    }

    /// How many rows may wait to be linked into the graph; when that many do, inserters wait (and
    /// `try_insert` is refused) until the index has caught up. A batch above the limit goes when
    /// nothing waits. Every search scans the waiting rows, some 20 ns each at dimension 384. Default
    /// 100,000.
    pub fn index_lag_max(mut self, rows: usize) -> Self {
        self.index_lag_max = rows;
        self
    }

    /// The largest record, in bytes of log: 4 per dimension, the command, 16 per parent, about
    /// 100 for the rest. Default and largest value 64 MiB.
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// The largest `insert_batch`, in bytes of log. Default 128 MiB.
    pub fn batch_bytes_max(mut self, bytes: usize) -> Self {
        self.batch_bytes_max = bytes;
        self
    }

    /// How many bytes of log make the hot buffer full even if few intents are in it, so that
    /// outcomes alone cannot grow a log for ever. Default 256 MiB.
    pub fn log_bytes_max(mut self, bytes: u64) -> Self {
        self.log_bytes_max = bytes;
        self
    }

    /// Neighbours of a node in the graph (twice as many on its lowest level): more give better
    /// recall, more memory, slower inserts. Between 2 and 128. Default 16.
    pub fn m(mut self, neighbors: usize) -> Self {
        self.m = neighbors;
        self
    }

    /// Beam width while linking: wider gives a better graph and slower linking. Default 200.
    pub fn ef_construction(mut self, candidates: usize) -> Self {
        self.ef_construction = candidates;
        self
    }

    /// Beam width of `query_semantic`: wider gives better recall and slower searches. Default 64.
    pub fn ef_search(mut self, candidates: usize) -> Self {
        self.ef_search = candidates;
        self
    }

    /// A store with fewer intents is searched by an exact scan. Default 1,000.
    pub fn exact_below(mut self, intents: usize) -> Self {
        self.exact_below = intents;
        self
    }

    /// Threads that link rows into the graph: the index builder and so many less one that it starts
    /// when rows have piled up. The graph is the same for any number. Between 1 and 256. Default 1.
    pub fn index_threads(mut self, threads: usize) -> Self {
        self.index_threads = threads;
        self
    }

    /// Whether `open` returns only when the graph holds every row (`true`, the default), or links
    /// them in the background while searches scan them exactly.
    pub fn link_on_open(mut self, wait: bool) -> Self {
        self.link_on_open = wait;
        self
    }

    /// How many committed writes are kept in memory for [subscriptions](crate::StorageEngine::subscribe),
    /// from the first one on. Default 65,536.
    pub fn kept_writes_max(mut self, writes: usize) -> Self {
        self.kept_writes_max = writes;
        self
    }

    /// How many bytes of memory those may hold: 150 or so for each, and the command and parents of
    /// an insert. The last write is kept whatever it holds. Default 16 MiB.
    pub fn kept_bytes_max(mut self, bytes: usize) -> Self {
        self.kept_bytes_max = bytes;
        self
    }

    /// Whether latencies are recorded in histograms
    /// ([`StorageEngine::histograms`](crate::StorageEngine::histograms)), some 10 ns for each time
    /// beside reading the clock. They take 4.6 MB of address space for each stripe, of which
    /// there is one to the processor, 3 counted as 4, and at most 4; memory is used as different times
    /// come up. Default `true`.
    pub fn histograms(mut self, record: bool) -> Self {
        self.histograms = record;
        self
    }

    /// Appends what the histograms recorded to the HdrHistogram interval log `path` every so often and
    /// when the engine ends, on a thread of its own. A new file is readable by its owner alone;
    /// one that is there is continued. Where writing fails, the engine goes on, and
    /// [`Histograms::report_error`](crate::Histograms::report_error) tells why. The file grows by
    /// some kilobytes for each interval. Default: no such thread.
    pub fn report_histograms(mut self, path: impl Into<PathBuf>, every: Duration) -> Self {
        self.report = Some((path.into(), every));
        self
    }

    /// Calls `callback` while a directory is being opened, on the thread that opens it.
    pub fn on_open_progress(
        mut self,
        callback: impl Fn(OpenProgress) + Send + Sync + 'static,
    ) -> Self {
        self.progress = Some(Arc::new(callback));
        self
    }

    /// The disk that the store is on: for tests, which have a simulated one.
    #[cfg(any(feature = "internals", loom, shuttle))]
    #[doc(hidden)]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    pub(crate) fn report(&self, progress: OpenProgress) {
        if let Some(callback) = &self.progress {
            callback(progress);
        }
    }

    /// Checks every option.
    pub(crate) fn check(&self) -> Result<(), TalaError> {
        let positive = "must be at least 1";
        let rules: [(&'static str, bool, &'static str); 16] = [
            ("dim", (1..=Self::DIM_MAX).contains(&self.dim), "must be between 1 and 65,536"),
            ("hot_capacity", self.hot_capacity > 0, positive),
            ("hot_capacity", u32::try_from(self.hot_capacity).is_ok(), "must fit 32 bits"),
            ("mailbox_capacity", self.mailbox_capacity > 0, positive),
            ("mailbox_capacity", self.mailbox_capacity <= 1 << 20, "must be at most 1,048,576"),
            ("mailbox_bytes_max", self.mailbox_bytes_max > 0, positive),
            ("index_lag_max", self.index_lag_max > 0, positive),
            ("kept_writes_max", self.kept_writes_max > 0, positive),
            ("kept_bytes_max", self.kept_bytes_max > 0, positive),
            (
                "record_bytes_max",
                (1..=Self::RECORD_BYTES_MAX).contains(&self.record_bytes_max),
                "must be between 1 byte and 64 MiB",
            ),
            (
                "batch_bytes_max",
                (1..=1 << 30).contains(&self.batch_bytes_max),
                "must be between 1 byte and 1 GiB",
            ),
            ("log_bytes_max", self.log_bytes_max > 0, positive),
            ("index_threads", (1..=256).contains(&self.index_threads), "must be between 1 and 256"),
            ("m", (2..=128).contains(&self.m), "must be between 2 and 128"),
            (
                "ef_construction",
                (1..=65_536).contains(&self.ef_construction),
                "must be between 1 and 65,536",
            ),
            ("ef_search", self.ef_search > 0, positive),
        ];
        if let Some((option, _, reason)) = rules.into_iter().find(|(_, holds, _)| !holds) {
            return Err(TalaError::InvalidOption { option, reason });
        }
        if let Some((_, every)) = &self.report {
            let option = "report_histograms";
            let reason = match (every.is_zero(), self.histograms) {
                (true, _) => "an interval must be longer than zero",
                (_, false) => "there are no histograms to report",
                (false, true) => "",
            };
            if !reason.is_empty() {
                return Err(TalaError::InvalidOption { option, reason });
            }
        }
        if matches!(self.durability, Durability::Interval(interval) if interval.is_zero()) {
            let reason = "an interval must be longer than zero";
            return Err(TalaError::InvalidOption { option: "durability", reason });
        }
        Ok(())
    }
}
