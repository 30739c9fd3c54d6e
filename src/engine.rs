//! The facade: validates, asks the right actor, answers. It owns no thread logic.
//!
//! Reads run on the caller's thread, against the [`view`]. Writes pass the gates (waiting for
//! room), become a letter to the log's writer, and wait for its reply.

mod close;
mod import;
mod open;
mod publish;
mod reads;
mod recall;
mod recover;
mod repair;
mod verify;
mod view;
mod writes;

/// A repair and a check of a directory on any disk.
#[cfg(all(feature = "internals", not(any(loom, shuttle))))]
pub(crate) use self::repair::repair_in;
#[cfg(any(feature = "internals", loom, shuttle))]
pub(crate) use self::verify::verify_in;

/// What `loom-tests` and `shuttle-tests` take from this room.
#[cfg(any(loom, shuttle))]
pub mod models {
    pub use super::{
        publish::Publisher,
        view::{Contents, IndexMap, IntentMap, View},
    };
}

use std::{fmt, future::Future, path::Path, sync::Arc};

use tala_core::{Intent, IntentId, IntentStore, Outcome, StopCause, TalaError, TimeRange};

use self::{close::Actors, view::View, writes::Gates};
pub use self::{
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
    gate::GateClosed,
    ids::RowId,
    metrics::StorageMetrics,
    options::EngineOptions,
    segment::Manifest,
    sync::{
        Mutex, Spin,
        atomic::{AtomicBool, Ordering},
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
    metrics: Arc<StorageMetrics>,
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
            Ok(inner) => &inner.view.metrics,
            Err(bad) => &bad.metrics,
        }
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
        let ops = inner.prepare_batch(intents)?;
        let (room, lag) = inner.pass(&ops)?;
        inner.write(ops, room, Some(lag))?;
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
        let id = intent.id;
        let op = inner.prepare_insert(intent)?;
        match inner.try_pass(&op)? {
            Some((room, lag)) => {
                inner.write(vec![op], room, Some(lag))?;
                Ok(id)
            }
            None => match op.op {
                LogOp::Insert(intent) => Err(TalaError::Busy { intent: Box::new(intent) }),
                _ => unreachable!("an insert was prepared"),
            },
        }
    }

    /// `insert` as a future of no particular runtime. It does nothing before it is first polled.
    /// Dropping it is safe: the intent is then stored whole or not at all. It holds a handle of
    /// the engine.
    ///
    /// Its waker is called on one of the engine's threads, so a task that is polled right there
    /// must not make a call that waits for the engine, such as `insert` or `flush`.
    pub fn insert_async(
        &self,
        intent: Intent,
    ) -> impl Future<Output = Result<IntentId, TalaError>> + Send + 'static + use<> {
        let engine = self.clone();
        async move {
            let inner = engine.inner()?;
            inner.check_open()?;
            let id = intent.id;
            let ops = vec![inner.prepare_insert(intent)?];
            let (room, lag) = match inner.pass_async(&ops).await {
                Ok(permits) => permits,
                Err(GateClosed) => return Err(inner.fate.cause_async().await),
            };
            let answer = inner.send(ops, room, Some(lag));
            match answer.wait_async().await {
                Some(_) => Ok(id),
                None => Err(inner.fate.cause_async().await),
            }
        }
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
        let id = intent.id;
        let ops = vec![inner.prepare_insert(intent)?];
        let (room, lag) = inner.pass(&ops)?;
        inner.write(ops, room, Some(lag))?;
        Ok(id)
    }

    fn get(&self, id: IntentId) -> Result<Option<Intent>, TalaError> {
        let inner = self.inner()?;
        inner.check_readable()?;
        Ok(inner.view.get(&id))
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
        Ok(inner.view.range(range))
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
