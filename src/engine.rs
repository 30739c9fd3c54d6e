//! The facade: validates, asks the right actor, answers. It owns no thread logic.
//!
//! Reads run on the caller's thread, against the [`view`]. Writes pass the gates (waiting for
//! room), become a letter to the log's writer, and wait for its reply.

mod close;
mod exposition;
mod feed;
mod health;
mod import;
mod open;
mod publish;
mod reads;
mod recall;
mod recover;
mod repair;
mod reporter;
mod tasks;
mod verify;
mod view;
mod writes;

#[cfg(all(test, not(any(loom, shuttle))))]
mod panic_tests;

/// A repair and a check of a directory on any disk.
#[cfg(all(feature = "internals", not(any(loom, shuttle))))]
pub(crate) use self::repair::repair_in;
#[cfg(any(feature = "internals", loom, shuttle))]
pub(crate) use self::verify::verify_in;

/// What `loom-tests` and `shuttle-tests` take from this room.
#[cfg(any(loom, shuttle))]
pub mod models {
    pub use super::{
        close::Actors,
        feed::{CommittedWrite, Delivery, Feed, Subscription},
        publish::Publisher,
        view::{Contents, IndexMap, IntentMap, View},
    };
}

use std::{fmt, path::Path, sync::Arc, time::Duration};

use tala_core::{Intent, IntentId, IntentStore, Outcome, StopCause, TalaError, TimeRange};

use self::{close::Actors, view::View, writes::Gates};
pub use self::{
    feed::{CommittedWrite, Delivery, Iter, Subscription},
    health::{Health, Resource, Shortage},
    open::stored_dim,
    reads::{Query, StoreStats},
    recall::{RecallAt, RecallOptions, RecallReport},
    recover::{RecoveryReport, RecoveryWarning},
    repair::{IncompleteIntent, Loss, RepairReport, repair},
    verify::{VerifyReport, verify},
};
use crate::{
    actor::Fate,
    door::check_embedding,
    ids::{RowId, SeqNo},
    metrics::{Histograms, Instruments, StorageMetrics, Timing},
    options::EngineOptions,
    segment::Manifest,
    sync::{
        Mutex, Spin, Stopwatch,
        atomic::{AtomicBool, Ordering},
        deadline_ns, now_ns,
    },
    wal::{LogOp, WalLetter},
};

/// The storage engine: a handle that is cheap to clone and shared by any number of threads.
///
/// See the [crate's page](crate) for what it does and the methods for what each promises.
#[derive(Clone)]
pub struct StorageEngine {
    state: Result<Arc<Inner>, BadOptions>,
}

/// Why an engine made by [`StorageEngine::in_memory`] answers every call with an error.
#[derive(Clone)]
struct BadOptions {
    error: Arc<TalaError>,
    dim: usize,
    metrics: Arc<Instruments>,
}

struct Inner {
    options: EngineOptions,
    view: Arc<View>,
    fate: Arc<Fate>,
    gates: Gates,
    /// For callers that wait for the log's writer.
    spin: Spin,
    /// Set by `close`: from then on reads are refused as well.
    closed: AtomicBool,
    recovery: RecoveryReport,
    /// The MANIFEST as last published; `None` in memory.
    manifest: Option<Arc<Mutex<Manifest>>>,
    actors: Actors,
}

impl fmt::Debug for StorageEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageEngine")
            .field("dim", &self.dim())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl StorageEngine {
    /// Options of an engine for embeddings of `dim` dimensions.
    pub fn options(dim: usize) -> EngineOptions {
        EngineOptions::new(dim)
    }

    /// Opens, or creates, a persistent engine in `dir` at [`Durability::Sync`]; the hot buffer is
    /// full at `hot_capacity` intents. The same as
    /// `StorageEngine::options(dim).hot_capacity(hot_capacity).open(dir)`.
    ///
    /// # Errors
    /// As for [`EngineOptions::open`].
    ///
    /// [`Durability::Sync`]: crate::Durability::Sync
    pub fn open(dim: usize, dir: impl AsRef<Path>, hot_capacity: usize) -> Result<Self, TalaError> {
        Self::options(dim).hot_capacity(hot_capacity).open(dir)
    }

    /// An engine without a log and without files. With bad options every call on it returns the
    /// option's error; [`EngineOptions::in_memory`] returns it at once.
    #[must_use]
    pub fn in_memory(dim: usize, hot_capacity: usize) -> Self {
        match Self::options(dim).hot_capacity(hot_capacity).in_memory() {
            Ok(engine) => engine,
            Err(error) => Self {
                state: Err(BadOptions { error: Arc::new(error), dim, metrics: Arc::default() }),
            },
        }
    }

    fn of(inner: Inner) -> Self {
        Self { state: Ok(Arc::new(inner)) }
    }

    fn inner(&self) -> Result<&Arc<Inner>, TalaError> {
        self.state.as_ref().map_err(BadOptions::error)
    }

    /// Counters of every lock and every stage.
    #[must_use]
    pub fn metrics(&self) -> &Arc<StorageMetrics> {
        match &self.state {
            Ok(inner) => inner.view.metrics.counters(),
            Err(bad) => bad.metrics.counters(),
        }
    }

    /// How long single runs of each kind took, and how long each lock was waited for and held.
    #[must_use]
    pub fn histograms(&self) -> Histograms {
        let instruments = match &self.state {
            Ok(inner) => &inner.view.metrics,
            Err(bad) => &bad.metrics,
        };
        Histograms::of(instruments)
    }

    /// What opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        static NOTHING: RecoveryReport = RecoveryReport::nothing();
        self.state.as_ref().map_or(&NOTHING, |inner| &inner.recovery)
    }

    /// Dimension of the embeddings.
    #[must_use]
    pub fn dim(&self) -> usize {
        match &self.state {
            Ok(inner) => inner.view.dim,
            Err(bad) => bad.dim,
        }
    }

    /// Number of intents.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.as_ref().map_or(0, |inner| inner.view.len())
    }

    /// Whether there is no intent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sizes of the engine's parts.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.state.as_ref().map_or_else(|_| StoreStats::default(), |inner| inner.stats())
    }

    /// Inserts intents as one: consecutive in the log, visible together, and after a crash there
    /// whole or not at all. Of equal ids in the batch the last wins. An empty batch is `Ok`.
    /// Returns the ids in the order given.
    ///
    /// # Errors
    /// [`TalaError::InBatch`] names the first intent that is refused, and then nothing is stored;
    /// [`TalaError::TooLarge`] when the batch exceeds `batch_bytes_max`; otherwise as for
    /// `insert`.
    pub fn insert_batch(&self, intents: Vec<Intent>) -> Result<Vec<IntentId>, TalaError> {
        let inner = self.inner()?;
        inner.check_open()?;
        let ids: Vec<IntentId> = intents.iter().map(|intent| intent.id).collect();
        if ids.is_empty() {
            return Ok(ids);
        }
        let since_ns = now_ns();
        let ops = inner.prepare_batch(intents)?;
        let (room, lag) = inner.pass(&ops)?;
        inner.write(ops, room, Some(lag))?;
        inner.view.metrics.record_since(Timing::Insert, since_ns);
        Ok(ids)
    }

    /// Inserts an intent if there is room for it now, and otherwise gives it back. Once let in it
    /// waits for the commit, as `insert` does.
    ///
    /// # Errors
    /// [`TalaError::Busy`] holds the intent; otherwise as for `insert`.
    pub fn try_insert(&self, intent: Intent) -> Result<IntentId, TalaError> {
        let inner = self.inner()?;
        inner.check_open()?;
        let since_ns = now_ns();
        let op = inner.prepare_insert(intent)?;
        let permits = inner.try_pass(&op)?;
        inner.write_or_give_back(op, permits, since_ns)
    }

    /// Inserts an intent if there is room for it within `timeout`, and otherwise gives it back. Once
    /// let in it waits for the commit, however long that takes, as `insert` does: what is on its way
    /// to the log cannot be called back.
    ///
    /// # Errors
    /// [`TalaError::Busy`] holds the intent; otherwise as for `insert`.
    pub fn insert_timeout(&self, intent: Intent, timeout: Duration) -> Result<IntentId, TalaError> {
        let since_ns = now_ns();
        let deadline_ns = deadline_ns(timeout);
        let inner = self.inner()?;
        inner.check_open()?;
        let op = inner.prepare_insert(intent)?;
        let permits = inner.pass_until(&op, deadline_ns)?;
        inner.write_or_give_back(op, permits, since_ns)
    }

    /// Removes an intent; returns whether there was one. As durable and as ordered as an insert,
    /// and gone from every answer when this returns.
    ///
    /// # Errors
    /// The engine cannot take writes (any more).
    pub fn remove(&self, id: IntentId) -> Result<bool, TalaError> {
        let inner = self.inner()?;
        inner.write_change(LogOp::Removal { id })
    }

    /// Makes everything acknowledged so far durable, whatever the durability level.
    ///
    /// # Errors
    /// The engine cannot take writes (any more).
    pub fn sync(&self) -> Result<(), TalaError> {
        self.inner()?.ask_wal(WalLetter::Sync)
    }

    /// Turns the hot buffer into a segment now; returns when that one and all before it are
    /// published. With an empty buffer no segment is made. In memory the buffer is emptied.
    ///
    /// # Errors
    /// The engine cannot take writes (any more).
    pub fn flush(&self) -> Result<(), TalaError> {
        self.inner()?.ask_wal(WalLetter::Flush)
    }

    /// Waits until the graph holds every intent that was acknowledged before the call.
    ///
    /// # Errors
    /// The engine stopped; the cause.
    pub fn wait_indexed(&self) -> Result<(), TalaError> {
        let inner = self.inner()?;
        inner.check_open()?;
        inner.wait_linked(RowId(inner.view.index.arena.len()))
    }

    /// [`IntentStore::query_semantic`] with a beam width of the caller's choice, or exactly.
    ///
    /// # Errors
    /// As for `query_semantic`.
    pub fn search(&self, query: Query<'_>) -> Result<Vec<(IntentId, f32)>, TalaError> {
        let inner = self.inner()?;
        inner.check_readable()?;
        check_embedding(query.embedding, inner.view.dim)?;
        Ok(inner.search(query))
    }

    /// All intents of this moment in log order: that of their insertions, with the place of each. An
    /// intent that was replaced stands where its replacement does.
    ///
    /// The snapshot is one of references, 40 bytes an intent, copied while commits wait: about as
    /// long as for a [`query_temporal`](IntentStore::query_temporal) of all of time before it copies
    /// intents. What is replaced or removed later stays in memory until the iterator has passed it.
    ///
    /// # Errors
    /// The engine was closed.
    pub fn iter(&self) -> Result<Iter, TalaError> {
        let inner = self.inner()?;
        inner.check_readable()?;
        let (entries, snapshot) = inner.view.snapshot();
        Ok(Iter::new(Arc::clone(&inner.view.index.arena), entries, snapshot))
    }

    /// Follows the committed writes from the place `from` on: each is delivered once, in log order,
    /// when it is visible (and as durable as the engine's level says), and none is left out unless
    /// [`Delivery::Lagged`] says so. Places between two writes may belong to none.
    ///
    /// Writers never wait for a subscription. Kept are the last
    /// [`kept_writes_max`](EngineOptions::kept_writes_max) writes, and no more than
    /// [`kept_bytes_max`](EngineOptions::kept_bytes_max), in memory and from the first subscription of
    /// an engine on; whoever wants older ones, or falls farther behind, is told. Every write is
    /// followed without a gap like this:
    ///
    /// ```
    /// # use tala_store::{Delivery, SeqNo, StorageEngine};
    /// # let engine = StorageEngine::in_memory(2, 10);
    /// let mut writes = engine.subscribe(SeqNo::FIRST)?;
    /// loop {
    ///     match writes.try_next() { // or next(), next_timeout(), next_async()
    ///         Delivery::Write(seq, write) => println!("{seq}: {write:?}"),
    ///         Delivery::Lagged { .. } => {
    ///             let all = engine.iter()?;
    ///             writes = engine.subscribe(all.snapshot().next())?;
    ///             for (seq, intent) in all {
    ///                 println!("{seq}: {intent:?}");
    ///             }
    ///         }
    ///         _ => break,
    ///     }
    /// }
    /// # Ok::<(), tala_core::TalaError>(())
    /// ```
    ///
    /// # Errors
    /// The engine was closed.
    pub fn subscribe(&self, from: SeqNo) -> Result<Subscription, TalaError> {
        let inner = self.inner()?;
        inner.check_readable()?;
        Ok(inner.view.follow(from))
    }

    /// Ends the engine for all its clones. Writes that were accepted finish; later calls on any
    /// clone return [`TalaError::Stopped`]; the directory is free for another engine on return.
    /// A second call is `Ok`.
    ///
    /// Called on one of the engine's own threads, as a waker may do, it cannot wait for the end:
    /// it only asks the engine to take no more writes.
    ///
    /// # Errors
    /// What could not be finished, or the fault that had ended the engine before.
    pub fn close(&self) -> Result<(), TalaError> {
        self.inner()?.close()
    }
}

impl BadOptions {
    /// The same error again; errors are not `Clone`, this kind is two words.
    fn error(&self) -> TalaError {
        match &*self.error {
            TalaError::InvalidOption { option, reason } => {
                TalaError::InvalidOption { option, reason }
            }
            TalaError::Storage { operation, path, source } => TalaError::Storage {
                operation: *operation,
                path: path.clone(),
                source: Arc::clone(source),
            },
            other => TalaError::InvalidInput { field: "options", reason: other.to_string() },
        }
    }
}

impl IntentStore for StorageEngine {
    fn insert(&self, intent: Intent) -> Result<IntentId, TalaError> {
        let inner = self.inner()?;
        inner.check_open()?;
        let since_ns = now_ns();
        let id = intent.id;
        let ops = vec![inner.prepare_insert(intent)?];
        let (room, lag) = inner.pass(&ops)?;
        inner.write(ops, room, Some(lag))?;
        inner.view.metrics.record_since(Timing::Insert, since_ns);
        Ok(id)
    }

    fn get(&self, id: IntentId) -> Result<Option<Intent>, TalaError> {
        let inner = self.inner()?;
        inner.check_readable()?;
        let watch = Stopwatch::start();
        let found = inner.view.get(&id);
        inner.view.metrics.record(Timing::Get, watch.elapsed_ns());
        Ok(found)
    }

    fn query_semantic(
        &self,
        embedding: &[f32],
        k: usize,
    ) -> Result<Vec<(IntentId, f32)>, TalaError> {
        self.search(Query::new(embedding, k))
    }

    fn query_temporal(&self, range: TimeRange) -> Result<Vec<Intent>, TalaError> {
        let inner = self.inner()?;
        inner.check_readable()?;
        let watch = Stopwatch::start();
        let found = inner.view.range(range);
        inner.view.metrics.record(Timing::Temporal, watch.elapsed_ns());
        Ok(found)
    }

    fn attach_outcome(&self, id: IntentId, outcome: Outcome) -> Result<(), TalaError> {
        let inner = self.inner()?;
        if inner.write_change(LogOp::Outcome { id, outcome })? {
            Ok(())
        } else {
            Err(TalaError::NodeNotFound(id))
        }
    }
}

impl Inner {
    /// Whether reads are allowed: they are until the engine is closed, after a failure too.
    fn check_readable(&self) -> Result<(), TalaError> {
        if self.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }

    /// Whether writes are allowed.
    fn check_open(&self) -> Result<(), TalaError> {
        self.check_readable()?;
        self.fate.check()
    }
}

fn closed() -> TalaError {
    TalaError::Stopped { actor: "engine", cause: Arc::new(StopCause::Closed) }
}
