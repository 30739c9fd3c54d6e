//! The facade: validates, asks the right actor, answers. It owns no thread logic.
//!
//! Reads run on the caller's thread, against the [`view`]. Writes pass the gates (waiting for
//! room), become a letter to the log's writer, and wait for its reply.

mod close;
mod import;
mod open;
mod publish;
mod recover;
mod verify;
mod view;

/// What the models of `loom-tests` take from this room.
#[cfg(loom)]
pub mod models {
    pub use super::{
        publish::Publisher,
        view::{Contents, IndexMap, IntentMap, View},
    };
}

use std::{
    fmt,
    future::Future,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tala_core::{Intent, IntentId, IntentStore, Outcome, StopCause, TalaError, TimeRange};

use self::{close::Actors, view::View};
pub use self::{
    open::stored_dim,
    recover::{RecoveryReport, RecoveryWarning},
    verify::{VerifyReport, verify},
};
use crate::{
    actor::Fate,
    door::{check_embedding, check_intent},
    gate::{Gate, GateClosed, Permit},
    ids::RowId,
    index::{self, IndexLetter},
    metrics::{StorageMetrics, record_stage},
    options::EngineOptions,
    segment::Manifest,
    sync::{
        Answer, Mutex,
        atomic::{AtomicBool, Ordering},
        now_ns, one_shot,
    },
    wal::{BatchPlace, Encoded, LogOp, PreparedOp, Request, WalLetter, WriteRequest},
};

/// How many rows may be in the arena before inserts are refused. Row numbers have 32 bits; what is
/// left over is for requests that are past this check and on their way.
const ROWS_MAX: usize = (u32::MAX - (1 << 26)) as usize;

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
    /// Set by `close`: from then on reads are refused as well.
    closed: AtomicBool,
    recovery: RecoveryReport,
    /// The MANIFEST as last published; `None` in memory.
    manifest: Option<Arc<Mutex<Manifest>>>,
    actors: Actors,
}

/// Where callers wait for room. Always passed in this order, so that nobody who holds a share of
/// a later gate waits for an earlier one.
struct Gates {
    /// Rows that may wait to be linked.
    lag: Arc<Gate>,
    /// Requests on their way to the log.
    requests: Arc<Gate>,
    /// Their bytes.
    bytes: Arc<Gate>,
}

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
    embedding: &'a [f32],
    k: usize,
    ef: Option<usize>,
}

impl<'a> Query<'a> {
    /// The `k` intents most similar to `embedding`, `[f32; dim]`.
    pub fn new(embedding: &'a [f32], k: usize) -> Self {
        Self { embedding, k, ef: None }
    }

    /// Beam width of the graph walk; wider finds more of the true neighbors and takes longer. At
    /// least `k` is used. The default is the engine's `ef_search`.
    pub fn ef(mut self, candidates: usize) -> Self {
        self.ef = Some(candidates);
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
    /// Published segments.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Intents in the hot buffer.
    pub hot_len: u64,
    /// The last sequence number that readers see.
    pub visible_seq: u64,
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
        let op = inner.prepare_insert(intent, BatchPlace::SINGLE)?;
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
    pub fn insert_async(
        &self,
        intent: Intent,
    ) -> impl Future<Output = Result<IntentId, TalaError>> + Send + 'static + use<> {
        let engine = self.clone();
        async move {
            let inner = engine.inner()?;
            inner.check_open()?;
            let id = intent.id;
            let ops = vec![inner.prepare_insert(intent, BatchPlace::SINGLE)?];
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

    /// [`IntentStore::query_semantic`] with a beam width of the caller's choice.
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
        let ops = vec![inner.prepare_insert(intent, BatchPlace::SINGLE)?];
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

    fn prepare_insert(&self, intent: Intent, place: BatchPlace) -> Result<PreparedOp, TalaError> {
        check_intent(&intent, self.view.dim)?;
        let rows = u64::from(self.view.index.arena.len());
        check_size("number of rows", rows, ROWS_MAX)?;
        let encoded = if self.is_persistent() {
            let encoded = Encoded::insert(&intent, place)?;
            check_size("record_bytes_max", encoded.encoded_len(), self.options.record_bytes_max)?;
            Some(encoded)
        } else {
            None
        };
        Ok(PreparedOp { op: LogOp::Insert(intent), encoded })
    }

    fn prepare_batch(&self, intents: Vec<Intent>) -> Result<Vec<PreparedOp>, TalaError> {
        let what = "batch";
        let len = u32::try_from(intents.len()).map_err(|_| TalaError::TooLarge {
            what,
            got: intents.len() as u64,
            max: u64::from(u32::MAX),
        })?;
        let in_batch = |position: usize| {
            move |source| TalaError::InBatch { position, source: Box::new(source) }
        };
        // All are checked before the first is encoded: encoding a batch that is refused is a waste.
        for (position, intent) in intents.iter().enumerate() {
            check_intent(intent, self.view.dim).map_err(in_batch(position))?;
        }
        let mut bytes = 0;
        let mut ops = Vec::with_capacity(intents.len());
        for (index, intent) in (0..len).zip(intents) {
            let place = BatchPlace { index, len };
            let op = self.prepare_insert(intent, place).map_err(in_batch(index as usize))?;
            bytes += op.log_bytes();
            check_size("batch_bytes_max", bytes as u64, self.options.batch_bytes_max)?;
            ops.push(op);
        }
        Ok(ops)
    }

    fn is_persistent(&self) -> bool {
        self.manifest.is_some()
    }

    /// Waits for room for these inserts.
    fn pass(&self, ops: &[PreparedOp]) -> Result<(Vec<Permit>, Permit), TalaError> {
        let closed = |GateClosed| self.fate.cause();
        let lag = self.gates.lag.pass(ops.len()).map_err(closed)?;
        let requests = self.gates.requests.pass(1).map_err(closed)?;
        let bytes =
            self.gates.bytes.pass(ops.iter().map(PreparedOp::held_bytes).sum()).map_err(closed)?;
        Ok((vec![requests, bytes], lag))
    }

    /// Room for this insert if there is some now.
    fn try_pass(&self, op: &PreparedOp) -> Result<Option<(Vec<Permit>, Permit)>, TalaError> {
        let closed = |GateClosed| self.fate.cause();
        let Some(lag) = self.gates.lag.try_pass(1).map_err(closed)? else { return Ok(None) };
        let Some(requests) = self.gates.requests.try_pass(1).map_err(closed)? else {
            return Ok(None);
        };
        let Some(bytes) = self.gates.bytes.try_pass(op.held_bytes()).map_err(closed)? else {
            return Ok(None);
        };
        Ok(Some((vec![requests, bytes], lag)))
    }

    async fn pass_async(&self, ops: &[PreparedOp]) -> Result<(Vec<Permit>, Permit), GateClosed> {
        let lag = self.gates.lag.pass_async(ops.len()).await?;
        let requests = self.gates.requests.pass_async(1).await?;
        let bytes =
            self.gates.bytes.pass_async(ops.iter().map(PreparedOp::held_bytes).sum()).await?;
        Ok((vec![requests, bytes], lag))
    }

    /// Sends a request to the log's writer. Its gates were passed, so there is room for it.
    fn send(&self, ops: Vec<PreparedOp>, room: Vec<Permit>, lag: Option<Permit>) -> Answer<bool> {
        let (reply, answer) = one_shot();
        self.actors.send_wal(WalLetter::Write(WriteRequest { ops, room, lag, reply }));
        answer
    }

    /// Writes, and returns whether the operation applied.
    fn write(
        &self,
        ops: Vec<PreparedOp>,
        room: Vec<Permit>,
        lag: Option<Permit>,
    ) -> Result<bool, TalaError> {
        self.send(ops, room, lag).wait().ok_or_else(|| self.fate.cause())
    }

    /// Writes an outcome or a removal, which the index's lag does not hold up.
    fn write_change(&self, op: LogOp) -> Result<bool, TalaError> {
        self.check_open()?;
        let encoded = match &op {
            LogOp::Outcome { id, outcome } => Encoded::outcome(*id, *outcome, BatchPlace::SINGLE)?,
            LogOp::Removal { id } => Encoded::removal(*id, BatchPlace::SINGLE)?,
            LogOp::Insert(_) | LogOp::Mark(_) => unreachable!("inserts are prepared elsewhere"),
        };
        let op = PreparedOp { op, encoded: self.is_persistent().then_some(encoded) };
        let requests = self.gates.requests.pass(1).map_err(|GateClosed| self.fate.cause())?;
        self.write(vec![op], vec![requests], None)
    }

    /// Asks the log's writer for something that is answered with "done".
    fn ask_wal(&self, letter: impl FnOnce(Request) -> WalLetter) -> Result<(), TalaError> {
        self.check_open()?;
        let room = self.gates.requests.pass(1).map_err(|GateClosed| self.fate.cause())?;
        let (reply, answer) = one_shot();
        self.actors.send_wal(letter(Request { room: Some(room), reply }));
        answer.wait().ok_or_else(|| self.fate.cause())
    }

    /// Waits until the rows below `row` are linked.
    fn wait_linked(&self, row: RowId) -> Result<(), TalaError> {
        let (reply, answer) = one_shot();
        self.actors.send_index(IndexLetter::WaitLinked(row, reply));
        answer.wait().ok_or_else(|| self.fate.cause())
    }

    fn search(&self, query: Query<'_>) -> Vec<(IntentId, f32)> {
        let since_ns = now_ns();
        let metrics = &self.view.metrics;
        let shared = &*self.view.index;
        let wanted = index::Query {
            vector: query.embedding,
            k: query.k,
            ef: query.ef.unwrap_or(self.options.ef_search),
            exact_below: self.options.exact_below,
        };
        let found = index::search(&shared.graph, wanted, shared.view());
        if found.is_walked {
            metrics.hnsw_search_visited.fetch_add(found.visited as u64, Relaxed);
            metrics.hnsw_search_count.fetch_add(1, Relaxed);
        }
        record_stage(&metrics.edge_search_ns, &metrics.edge_search_count, since_ns, 1);
        found.hits
    }

    fn stats(&self) -> StoreStats {
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
            segments,
            segment_bytes,
            hot_len: self.view.metrics.hot_buffer_len.load(Relaxed),
            visible_seq: index.visible.load(Ordering::Acquire),
        }
    }
}

fn check_size(what: &'static str, got: u64, max: usize) -> Result<(), TalaError> {
    let max = max as u64;
    if got > max { Err(TalaError::TooLarge { what, got, max }) } else { Ok(()) }
}

fn closed() -> TalaError {
    TalaError::Stopped { actor: "engine", cause: Arc::new(StopCause::Closed) }
}
