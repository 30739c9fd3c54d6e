//! The interface that other programs are written against: every name, signature and field as its
//! page has them. Most of this is checked by compiling it.

// The types are long because the signatures are.
#![allow(clippy::type_complexity)]

use crate::fixed_part;
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tala_core::{Intent, IntentId, IntentStore, Outcome, Status, TalaError, TimeRange};
use tala_store::{
    Durability, EngineOptions, HotBuffer, LockStats, OpenProgress, Query, QueryEngine,
    RecallOptions, RecallReport, RecoveryReport, RecoveryWarning, StorageEngine, StorageMetrics,
    StoreStats, VerifyReport, Wal, WalEntry, replay_wal,
};
use tala_wire::SegmentReader;

#[test]
fn the_log_has_its_signatures() {
    let _: fn(&Path) -> io::Result<Wal> = |path| Wal::create(path);
    let _: fn(String) -> io::Result<Wal> = Wal::create;
    let _: fn(&mut Wal, &[u8; 16], u64, &[f32], &str) -> io::Result<()> = Wal::append;
    let _: fn(&mut Wal) -> io::Result<()> = Wal::sync;
    let _: fn(&Wal) -> u64 = Wal::entry_count;
    let _: fn(&Wal) -> &Path = Wal::path;
    let _: fn(&Path) -> io::Result<Vec<WalEntry>> = |path| replay_wal(path);
    let WalEntry { id, timestamp, embedding, raw_command } = WalEntry {
        id: [0; 16],
        timestamp: 0_u64,
        embedding: Vec::<f32>::new(),
        raw_command: String::new(),
    };
    let _: ([u8; 16], u64, Vec<f32>, String) = (id, timestamp, embedding, raw_command);
}

#[test]
fn the_hot_buffer_has_its_signatures_and_makes_a_segment() {
    let _: fn(usize, usize) -> HotBuffer = HotBuffer::new;
    let _: fn(&mut HotBuffer, [u8; 16], u64, u64, f32, u8, Vec<f32>, Vec<usize>) -> bool =
        HotBuffer::push;
    let _: fn(&HotBuffer) -> usize = HotBuffer::len;
    let _: fn(&HotBuffer) -> bool = HotBuffer::is_empty;
    let _: fn(&mut HotBuffer) -> Vec<u8> = HotBuffer::flush;

    let mut buffer = HotBuffer::new(3, 2);
    assert!(buffer.is_empty());
    assert!(!buffer.push([1; 16], 10, 11, 0.5, 2, vec![1.0, -0.0, 3.0], vec![]));
    assert!(buffer.push([2; 16], 20, 21, 0.25, 0, vec![4.0, 5.0, 6.0], vec![0]));
    assert_eq!((buffer.len(), buffer.is_empty()), (2, false));
    let bytes = buffer.flush();
    assert_eq!((buffer.len(), buffer.is_empty()), (0, true));

    let fixed = fixed_part::read(&bytes);
    assert_eq!((fixed.dim, fixed.rows.len()), (3, 2));
    let first = &fixed.rows[0];
    assert_eq!((first.id, first.timestamp, first.context_hash), ([1; 16], 10, 11));
    assert_eq!((first.confidence, first.status), (0.5, 2));
    assert_eq!(first.embedding[1].to_bits(), (-0.0_f32).to_bits());
    assert_eq!((fixed.edges[0].parent, fixed.edges[0].child), (0, 1));
    let reader = SegmentReader::open(bytes).unwrap();
    assert_eq!(reader.len(), 2);
    reader.verify().unwrap();
}

#[test]
fn the_query_engine_has_its_signatures() {
    let _: fn(usize) -> QueryEngine = QueryEngine::new;
    let _: fn(&mut QueryEngine, [u8; 16], u64, String, Vec<f32>) = QueryEngine::insert;
    let _: fn(&QueryEngine) -> usize = QueryEngine::len;
    let _: fn(&QueryEngine) -> bool = QueryEngine::is_empty;
    // The page shows `&mut self`, so it must be possible to call them on such a place.
    let engine = &mut QueryEngine::new(2);
    let _: Vec<([u8; 16], f32)> = engine.search(&[1.0, 2.0], 3);
    let _: Vec<([u8; 16], f32)> = engine.find_edge_candidates(&[1.0, 2.0], 3);
}

#[test]
fn the_engine_has_its_signatures() {
    let _: fn(usize, &Path, usize) -> Result<StorageEngine, TalaError> =
        |dim, dir, hot_capacity| StorageEngine::open(dim, dir, hot_capacity);
    let _: fn(usize, String, usize) -> Result<StorageEngine, TalaError> = StorageEngine::open;
    let _: fn(usize, usize) -> StorageEngine = StorageEngine::in_memory;
    let _: fn(&StorageEngine) -> &Arc<StorageMetrics> = StorageEngine::metrics;
    fn store<S: IntentStore>() {
        let _: fn(&S, Intent) -> Result<IntentId, TalaError> = S::insert;
        let _: fn(&S, IntentId) -> Result<Option<Intent>, TalaError> = S::get;
        let _: fn(&S, &[f32], usize) -> Result<Vec<(IntentId, f32)>, TalaError> = S::query_semantic;
        let _: fn(&S, TimeRange) -> Result<Vec<Intent>, TalaError> = S::query_temporal;
        let _: fn(&S, IntentId, Outcome) -> Result<(), TalaError> = S::attach_outcome;
    }
    store::<StorageEngine>();
    let engine = StorageEngine::in_memory(2, 10);
    let _: &dyn IntentStore = &engine;
    assert!(engine.is_empty());
}

#[test]
fn the_metrics_have_their_fields() {
    let metrics: &StorageMetrics = &Arc::clone(StorageEngine::in_memory(2, 10).metrics());
    let _: [&LockStats; 5] = [
        &metrics.intents_lock,
        &metrics.hnsw_lock,
        &metrics.index_map_lock,
        &metrics.wal_lock,
        &metrics.hot_lock,
    ];
    let counters: [&AtomicU64; 16] = [
        &metrics.wal_append_ns,
        &metrics.wal_append_count,
        &metrics.hnsw_insert_ns,
        &metrics.hnsw_insert_count,
        &metrics.hot_push_ns,
        &metrics.hot_push_count,
        &metrics.segment_flush_ns,
        &metrics.segment_flush_count,
        &metrics.edge_search_ns,
        &metrics.edge_search_count,
        &metrics.hnsw_search_visited,
        &metrics.hnsw_search_count,
        &metrics.hot_buffer_len,
        &metrics.wal_entry_count,
        &metrics.total_bytes_flushed,
        &metrics.segments_flushed_count,
    ];
    assert!(counters.iter().all(|counter| counter.load(Relaxed) == 0));
    assert_eq!(metrics.hot_buffer_capacity.load(Relaxed), 10);

    let stats: LockStats = LockStats::new();
    stats.record_acquisition(1_000);
    stats.record_acquisition(1_001);
    stats.record_acquisition(7);
    stats.record_release(30);
    stats.record_release(20);
    let read = |counter: &AtomicU64| counter.load(Relaxed);
    assert_eq!((read(&stats.acquisitions), read(&stats.contentions)), (3, 1));
    assert_eq!((read(&stats.total_wait_ns), read(&stats.max_wait_ns)), (2_008, 1_001));
    assert_eq!((read(&stats.total_hold_ns), read(&stats.max_hold_ns)), (50, 30));
}

#[test]
fn the_shared_types_have_their_shapes() {
    let numbers = [Status::Pending, Status::Success, Status::Failure, Status::Partial];
    assert_eq!(numbers.map(|status| status as u8), [0, 1, 2, 3]);
    let id = IntentId::random();
    let bytes: &[u8; 16] = id.as_bytes();
    assert_eq!(IntentId(IntentId::from_bytes(*bytes).0), id);
    assert_ne!(IntentId::random(), id);
    let error: TalaError = io::Error::from(io::ErrorKind::NotFound).into();
    assert!(matches!(error, TalaError::Io(source) if source.kind() == io::ErrorKind::NotFound));
    assert!(TalaError::NodeNotFound(id).to_string().contains(&id.to_string()));
}

#[test]
fn everything_public_is_shared_by_threads_and_the_engine_is_cloned() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<StorageEngine>();
    is_shared::<StorageMetrics>();
    is_shared::<LockStats>();
    is_shared::<HotBuffer>();
    is_shared::<QueryEngine>();
    is_shared::<Wal>();
    is_shared::<WalEntry>();
    is_shared::<EngineOptions>();
    is_shared::<Durability>();
    is_shared::<OpenProgress>();
    is_shared::<Query<'static>>();
    is_shared::<RecallOptions>();
    is_shared::<RecallReport>();
    is_shared::<RecoveryReport>();
    is_shared::<RecoveryWarning>();
    is_shared::<StoreStats>();
    is_shared::<VerifyReport>();
    is_shared::<TalaError>();
    fn is_cloned<T: Clone>() {}
    is_cloned::<StorageEngine>();
    fn is_static<T: Send + 'static>(_: &T) {}
    let engine = StorageEngine::in_memory(2, 10);
    let intent = Intent {
        id: IntentId::random(),
        timestamp: 0,
        raw_command: String::new(),
        embedding: vec![0.0; 2],
        context_hash: 0,
        parent_ids: vec![],
        outcome: None,
        confidence: 0.0,
    };
    let future = engine.insert_async(intent);
    is_static(&future);
    drop(engine);
    drop(future);
}
