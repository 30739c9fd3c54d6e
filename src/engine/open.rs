//! Opening: recover what a directory holds, settle it in a new MANIFEST, start the threads.

use std::{path::Path, sync::Arc};

use tala_core::{SegmentId, StorageOperation, TalaError};

use super::{
    Gates, Inner, StorageEngine,
    close::Actors,
    feed::Feed,
    import::{check_untouched, import, legacy_dim},
    publish::Publisher,
    recover::{
        Listing, Recovered, Unlisted, ensure_dir, manifest_is_lost, read_logs, set_aside,
        settle_dir,
    },
    reporter::ReportActor,
    view::{Contents, View},
};
use crate::{
    actor::{Actor, Fate, mailbox_for, spawn},
    disk::StoreDir,
    files::DirLock,
    gate::Gate,
    ids::{FileNumber, RowId, SeqNo},
    index::{Arena, ArenaWriter, Graph, GraphParams, GraphWriter, IndexActor, IndexLetter, Shared},
    metrics::{Instruments, LockRank, TrackedMutex},
    options::{Durability, EngineOptions, OpenProgress},
    segment::{DiskSegments, FlushActor, Manifest, segment_name},
    sync::{
        Mutex, Spin, Stopwatch,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
        awake_mailbox, mailbox, one_shot,
    },
    trace,
    wal::{Ahead, CommitSink, DiskLog, Log, Request, Spare, WalActor, WalLetter, log_name},
};

/// Letters of sealed buffers that may wait for the flusher; beyond that the log's writer waits.
pub(super) const FLUSH_MAILBOX: usize = 1;
/// Letters for the index builder: those of callers that wait for rows, who pass a gate for half of
/// them, and wakes, of which one is sent only where no letter is there. So nobody waits for room.
const INDEX_MAILBOX: usize = 64;
/// Letters for the log's writer beyond those that passed the gate: the close, and the flush that
/// opening may begin with.
const CONTROL_LETTERS: usize = 2;
/// With more old logs than this, opening begins by turning them into a segment.
const OLD_LOGS_MAX: usize = 8;
/// What the levels of the graph's nodes are drawn from; fixed, so that the same rows in the same
/// order make the same graph.
const LEVEL_SEED: u64 = 0x7a1a;
/// How many rows are linked between two reports of progress.
const LINK_REPORT_ROWS: u32 = 256;

/// What a persistent engine has and one in memory has not.
struct OnDisk {
    file: DiskLog,
    number: FileNumber,
    manifest: Arc<Mutex<Manifest>>,
    lock: Arc<DirLock>,
}

/// What is put around parts of an engine before its threads have them: nothing, but in tests, where
/// some of them fail.
pub(super) trait Fitting {
    /// Who links rows.
    type Builder: Actor<Letter = IndexLetter>;
    /// What becomes of durable writes.
    type Sink: CommitSink;

    /// Around the index builder.
    fn builder(&self, builder: IndexActor) -> Self::Builder;

    /// Around what publishes for the log's writer.
    fn sink(&self, publisher: Publisher) -> Self::Sink;
}

/// The parts of every engine outside of tests.
struct AsTheyAre;

impl Fitting for AsTheyAre {
    type Builder = IndexActor;
    type Sink = Publisher;

    fn builder(&self, builder: IndexActor) -> IndexActor {
        builder
    }

    fn sink(&self, publisher: Publisher) -> Publisher {
        publisher
    }
}

impl EngineOptions {
    /// Opens `dir`, creating it if need be, and recovers what it holds.
    ///
    /// # Errors
    /// - [`TalaError::InvalidOption`]: an option has a value it cannot have.
    /// - [`TalaError::Locked`]: another engine has the directory open.
    /// - [`TalaError::DimensionMismatch`]: the directory holds embeddings of another dimension.
    /// - [`TalaError::Corrupt`], [`TalaError::UnsupportedVersion`]: a file is damaged, or newer
    ///   than this build.
    /// - [`TalaError::Storage`]: the operating system refused something, or what should be a file is
    ///   none.
    ///
    /// No error changes which writes the directory holds. A file `LOCK` may be there afterwards; and
    /// where the operating system refused, what opening had begun: an empty log, a segment that
    /// nothing lists, or a new MANIFEST that says the same. They are in nobody's way.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<StorageEngine, TalaError> {
        StorageEngine::open_with(self, dir.as_ref(), &AsTheyAre)
    }

    /// An engine without a log and without files: everything is gone when it is dropped.
    ///
    /// # Errors
    /// [`TalaError::InvalidOption`], or no thread could be started.
    pub fn in_memory(self) -> Result<StorageEngine, TalaError> {
        StorageEngine::in_memory_with(self, &AsTheyAre)
    }
}

impl StorageEngine {
    /// See [`EngineOptions::open`].
    pub(super) fn open_with(
        options: EngineOptions,
        path: &Path,
        fitting: &impl Fitting,
    ) -> Result<Self, TalaError> {
        options.check()?;
        let _opening = trace::opening(path);
        let dir = &StoreDir::new(Arc::clone(&options.disk), path);
        ensure_dir(dir.disk(), path)?;
        let lock = Arc::new(DirLock::take(dir)?);
        let (graph, graph_writer, arena) = new_index(&options);
        let mut recovered = Recovered::empty(&options, arena)?;
        let (mut manifest, listing) = {
            let _recovering = trace::recovering();
            let found = recover(dir, &options, &mut recovered)?;
            let (intents, warnings) = (recovered.intents.len(), recovered.report.warnings.len());
            trace::recovered(intents, recovered.last_seq.0, warnings);
            found
        };
        let number = next_log(&manifest, &listing);
        let file = DiskLog::create(dir, number)?;
        settle(dir, &mut manifest, number, &listing, &recovered)?;
        tidy(dir, &manifest, &listing, &mut recovered);
        let old_logs_count = manifest.logs.len();
        let on_disk = OnDisk { file, number, manifest: Arc::new(Mutex::new(manifest)), lock };
        let must_flush = old_logs_count > OLD_LOGS_MAX
            || recovered.hot.is_full()
            || recovered.log_bytes >= options.log_bytes_max;
        let engine =
            start(options, recovered, (graph, graph_writer), Some((dir, on_disk)), fitting)?;
        let inner = engine.inner()?;
        if must_flush {
            // Nobody waits for this one; if it fails, the engine's fate says so.
            inner.actors.send_wal(WalLetter::Flush(Request { room: None, reply: one_shot().0 }));
        }
        if inner.options.link_on_open {
            inner.link_all()?;
        }
        Ok(engine)
    }

    /// See [`EngineOptions::in_memory`].
    pub(super) fn in_memory_with(
        options: EngineOptions,
        fitting: &impl Fitting,
    ) -> Result<Self, TalaError> {
        options.check()?;
        let (graph, graph_writer, arena) = new_index(&options);
        let recovered = Recovered::empty(&options, arena)?;
        start(options, recovered, (graph, graph_writer), None, fitting)
    }
}

pub(super) fn new_index(options: &EngineOptions) -> (Arc<Graph>, GraphWriter, ArenaWriter) {
    let (arena, arena_writer) = Arena::new(options.dim);
    let params =
        GraphParams { m: options.m, ef_construction: options.ef_construction, seed: LEVEL_SEED };
    let graph_writer = GraphWriter::new(arena, params);
    (Arc::clone(graph_writer.graph()), graph_writer, arena_writer)
}

/// Reads the directory, or makes a new store of it.
fn recover(
    dir: &StoreDir,
    options: &EngineOptions,
    recovered: &mut Recovered,
) -> Result<(Manifest, Listing), TalaError> {
    let listing = Listing::of(dir)?;
    let manifest = match Manifest::load(dir)? {
        Some(manifest) => {
            let expected = manifest.dim as usize;
            if expected != options.dim {
                return Err(TalaError::DimensionMismatch { expected, got: options.dim });
            }
            if let Some(legacy) = &manifest.legacy {
                check_untouched(dir, legacy)?;
            }
            recovered.add_segments(dir, &manifest, options)?;
            let logs = read_logs(dir, &manifest, &listing)?;
            recovered.last_seq = SeqNo(manifest.next_seq.0 - 1);
            recovered.add_logs(&logs, options)?;
            manifest
        }
        None => match listing.without_manifest() {
            Unlisted::Nothing => {
                settle_dir(dir.disk(), dir.path())?;
                let manifest = Manifest::new(options.dim as u32);
                manifest.publish(dir)?;
                manifest
            }
            Unlisted::Legacy => {
                settle_dir(dir.disk(), dir.path())?;
                import(dir, options.dim, &listing, recovered)?
            }
            Unlisted::Damaged => return Err(manifest_is_lost(dir.path())),
        },
    };
    Ok((manifest, listing))
}

/// Number of the log to go on in. Numbers are never used twice, those of emptied logs included.
fn next_log(manifest: &Manifest, listing: &Listing) -> FileNumber {
    let last_log = listing.live_logs(manifest.next_log).next_back().unwrap_or_default();
    last_log.next().max(manifest.next_log)
}

/// Writes down, before the first append to log `number`, that it goes on there, and how far each
/// older log counts. The file is there already: a MANIFEST that names a log proves that there was
/// one.
fn settle(
    dir: &StoreDir,
    manifest: &mut Manifest,
    number: FileNumber,
    listing: &Listing,
    recovered: &Recovered,
) -> Result<(), TalaError> {
    manifest.next_log = number;
    // Those of interrupted flushes are not used again.
    let last_segment = listing.segments.last().map_or(0, |last| last.0);
    manifest.next_segment = manifest.next_segment.max(SegmentId(last_segment + 1));
    manifest.next_seq = recovered.last_seq.next();
    // What was kept came back from the disk, or a mark says that it is there.
    manifest.synced_seq = recovered.last_seq;
    manifest.logs.clone_from(&recovered.logs);
    manifest.publish(dir)
}

/// Clears away what the MANIFEST just published says is of no use: logs that it does not count, and
/// what interrupted flushes left. Whatever cannot be removed is tried again by the next open.
fn tidy(dir: &StoreDir, manifest: &Manifest, listing: &Listing, recovered: &mut Recovered) {
    let Recovered { uncounted, report, .. } = &mut *recovered;
    let is_retired =
        |number: &&FileNumber| **number < manifest.next_log && manifest.log(**number).is_none();
    let logs = listing.logs.iter().filter(is_retired);
    report
        .warnings
        .extend(logs.filter_map(|number| set_aside(dir, *number, uncounted.contains(number))));
    // What was imported stays: its segments are not listed, and are older than the first of ours.
    // Among them may be the segment of an import that was interrupted. It stays as well: its name
    // does not tell it from one that another program made, and its number is not used again.
    let first_ours = match (&manifest.legacy, manifest.segments.first()) {
        (Some(_), Some(first)) => first.id,
        _ => SegmentId(0),
    };
    let is_unlisted = |id: &&SegmentId| {
        **id >= first_ours && !manifest.segments.iter().any(|segment| segment.id == **id)
    };
    // Room that was prepared in a log and not needed: whoever reads fixed frames expects none.
    for (number, accepted_len) in std::mem::take(&mut recovered.zero_tails) {
        if let Ok(file) = dir.disk().open_or_create(&dir.join(log_name(number))) {
            let _ = file.set_len(accepted_len);
        }
    }
    let segments =
        listing.segments.iter().filter(is_unlisted).map(|id| dir.join(segment_name(*id)));
    for path in segments.chain(listing.temporary.iter().cloned()) {
        let _ = dir.disk().remove(&path);
    }
}

/// Starts the threads of an engine that begins with `recovered`.
fn start(
    options: EngineOptions,
    recovered: Recovered,
    (graph, graph_writer): (Arc<Graph>, GraphWriter),
    on_disk: Option<(&StoreDir, OnDisk)>,
    fitting: &impl Fitting,
) -> Result<StorageEngine, TalaError> {
    let Recovered {
        arena: arena_writer, intents, index_map, hot, last_seq, log_bytes, report, ..
    } = recovered;
    let arena = Arc::clone(arena_writer.arena());
    Stopwatch::prepare();
    let instruments =
        if options.histograms { Instruments::recording() } else { Instruments::default() };
    let metrics = Arc::new(instruments);
    metrics.hot_buffer_capacity.store(hot.capacity() as u64, Ordering::Relaxed);
    metrics.hot_buffer_len.store(hot.len() as u64, Ordering::Relaxed);
    let gates = Gates {
        lag: Gate::new(options.index_lag_max),
        requests: Gate::new(options.mailbox_capacity),
        bytes: Gate::new(options.mailbox_bytes_max),
        waits: Gate::new(INDEX_MAILBOX / 2),
    };
    gates.lag.take_anyway(arena.len() as usize);
    let feed = Arc::new(Feed::new(options.kept_writes_max, options.kept_bytes_max));
    let fate = Fate::new(vec![
        Arc::clone(&gates.lag),
        Arc::clone(&gates.requests),
        Arc::clone(&gates.bytes),
        Arc::clone(&gates.waits),
    ]);
    let followers = Arc::clone(&feed);
    let fate = Arc::new(fate.on_end(move || followers.end()));
    let index = Arc::new(Shared {
        arena: Arc::clone(&arena),
        graph,
        linked: AtomicU32::new(0),
        visible: AtomicU64::new(last_seq.0),
        wake_at: AtomicU64::new(u64::MAX),
        hnsw_lock: TrackedMutex::new((), &metrics, LockRank::Hnsw),
        lag: Arc::clone(&gates.lag),
        metrics: Arc::clone(&metrics),
    });
    let contents = Contents { intents, index_map, hot };
    let view = View::new(options.dim, Arc::clone(&index), contents, feed, Arc::clone(&metrics));
    let view = Arc::new(view);

    // Downstream first, since each thread is made with the outboxes that it sends to.
    let index_mailbox = mailbox_for::<IndexActor>(INDEX_MAILBOX);
    let index_outbox = index_mailbox.0.clone();
    let builder =
        IndexActor::new(index, graph_writer, options.index_threads, options.index_lag_max);
    let shared = Arc::clone(&view.index);
    let index = Some(spawn(fitting.builder(builder), index_mailbox, &fate)?);
    let (mut flusher, mut log, mut manifest, mut lock) = (None, None, None, None);
    let mut flush_outbox = None;
    let mut prepare = None;
    if let Some((dir, mut on_disk)) = on_disk {
        let syncs = on_disk.file.syncs().clone();
        // Where the kernel decides when bytes are durable, no sync is there to be made faster. And
        // without the thread, logs grow.
        let spare = Spare::new(dir.clone());
        if options.durability != Durability::Os
            && let Ok((ahead, mut handle)) = Ahead::start(
                dir,
                &on_disk.lock,
                &fate,
                (spare.clone(), syncs.clone()),
                metrics.backlog(),
            )
        {
            on_disk.file.prepare_ahead(ahead);
            handle.release();
            prepare = Some(handle);
        } else {
            spare.close();
        }
        let retire_log = Box::new(move |number| spare.retire(number));
        let store = DiskSegments::new(
            dir.clone(),
            (retire_log, syncs),
            Arc::clone(&on_disk.manifest),
            arena,
            Arc::clone(&on_disk.lock),
        );
        let flush_mailbox = mailbox(FLUSH_MAILBOX);
        flush_outbox = Some(flush_mailbox.0.clone());
        let actor = FlushActor::new(store, Arc::clone(&metrics));
        flusher = Some(spawn(actor, flush_mailbox, &fate)?);
        log = Some(Log {
            file: TrackedMutex::new(on_disk.file, &metrics, LockRank::Wal),
            number: on_disk.number,
            durability: options.durability,
            bytes_max: options.log_bytes_max,
            covered_bytes: log_bytes,
            synced: last_seq,
            unsynced_since_ns: None,
        });
        manifest = Some(on_disk.manifest);
        lock = Some(on_disk.lock);
    }
    let mut reporter = None;
    if let Some((path, every)) = &options.report {
        reporter = Some(ReportActor::start(path, &metrics, *every)?);
    }
    let waiter_outbox = index_outbox.clone();
    let publisher = Publisher::new(Arc::clone(&view), arena_writer, index_outbox, flush_outbox);
    let sink = fitting.sink(publisher);
    let wal = WalActor::new(log, sink, last_seq.next(), Arc::clone(&fate), metrics);
    let wal = spawn(wal, awake_mailbox(options.mailbox_capacity + CONTROL_LETTERS), &fate)?;
    // Last, when nothing can fail any more: the builder goes on while somebody can write to it, and it
    // is the end of the engine that closes the gate.
    shared.wake_for_room(waiter_outbox);
    Ok(StorageEngine::of(Inner {
        options,
        view,
        fate,
        gates,
        spin: Spin::for_callers(),
        closed: AtomicBool::new(false),
        recovery: report,
        manifest,
        actors: Actors {
            wal,
            flusher,
            index,
            prepare,
            reporter,
            lock,
            close_is_sent: AtomicBool::new(false),
        },
    }))
}

impl Inner {
    /// Waits until every row is linked, telling how far it has come.
    fn link_all(&self) -> Result<(), TalaError> {
        let total = self.view.index.arena.len();
        let mut done = 0;
        while done < total {
            self.options.report(OpenProgress::Index { done: done.into(), total: total.into() });
            done = done.saturating_add(LINK_REPORT_ROWS).min(total);
            self.wait_linked(RowId(done))?;
        }
        if total > 0 {
            self.options.report(OpenProgress::Index { done: total.into(), total: total.into() });
        }
        Ok(())
    }
}

/// Dimension of the embeddings of the store in `dir`; `None` where there is no store, or one of the
/// original implementation without any embedding.
///
/// # Errors
/// A file cannot be read or is damaged.
pub fn stored_dim(dir: impl AsRef<Path>) -> Result<Option<usize>, TalaError> {
    stored_dim_in(&StoreDir::real(dir.as_ref()))
}

fn stored_dim_in(dir: &StoreDir) -> Result<Option<usize>, TalaError> {
    if let Some(manifest) = Manifest::load(dir)? {
        return Ok(Some(manifest.dim as usize));
    }
    match dir.disk().kind(dir.path()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TalaError::storage(StorageOperation::Open, dir.path(), error)),
        Ok(_) => {}
    }
    let listing = Listing::of(dir)?;
    match listing.without_manifest() {
        Unlisted::Nothing => Ok(None),
        Unlisted::Legacy => legacy_dim(dir, &listing),
        Unlisted::Damaged => Err(manifest_is_lost(dir.path())),
    }
}
