//! Each counter, worked out another way.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::common::{EVER, TestDir, id, intent, outcome, version};
use tala_core::IntentStore;
use tala_store::{Durability, LockStats, StorageEngine, StorageMetrics};

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

/// Acquisitions: intents, hnsw, index map, wal, hot.
fn acquisitions(metrics: &StorageMetrics) -> [u64; 5] {
    locks(metrics).map(|lock| read(&lock.acquisitions))
}

fn locks(metrics: &StorageMetrics) -> [&LockStats; 5] {
    [
        &metrics.intents_lock,
        &metrics.hnsw_lock,
        &metrics.index_map_lock,
        &metrics.wal_lock,
        &metrics.hot_lock,
    ]
}

#[test]
fn on_disk_every_counter_is_what_was_done() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    let metrics = engine.metrics();
    assert_eq!(read(&metrics.hot_buffer_capacity), 10);
    for number in 0..20 {
        engine.insert(intent(number)).unwrap();
    }
    engine.insert_batch((20..24).map(intent).collect()).unwrap();
    engine.insert(version(23, 1)).unwrap();
    engine.attach_outcome(id(1), outcome(1)).unwrap();
    engine.attach_outcome(id(23), outcome(1)).unwrap();
    assert!(engine.attach_outcome(id(99), outcome(1)).is_err());
    assert!(engine.remove(id(2)).unwrap());
    assert!(!engine.remove(id(2)).unwrap());
    // Waits for the two segments that are due.
    engine.sync().unwrap();
    engine.wait_indexed().unwrap();

    // 25 inserts, 2 outcomes, 1 removal; what was refused wrote nothing.
    assert_eq!(read(&metrics.wal_entry_count), 28);
    assert_eq!(read(&metrics.wal_append_count), 28);
    assert_eq!(read(&metrics.hot_push_count), 25);
    assert_eq!(read(&metrics.hot_buffer_len), 4);
    assert_eq!(engine.stats().hot_len, 4);
    assert_eq!(engine.stats().linked, 25);
    // A row that was replaced or removed before its turn is not linked.
    let inserted = read(&metrics.hnsw_insert_count);
    assert!((23..=25).contains(&inserted), "{inserted}");

    engine.flush().unwrap();
    assert_eq!(read(&metrics.hot_buffer_len), 0);
    let segments = dir.names(".tbf");
    assert_eq!(segments.len(), 3);
    let bytes: usize = segments.iter().map(|name| dir.files()[name].len()).sum();
    assert_eq!(read(&metrics.segments_flushed_count), 3);
    assert_eq!(read(&metrics.segment_flush_count), 3);
    assert_eq!(read(&metrics.total_bytes_flushed), bytes as u64);
    assert_eq!((engine.stats().segments, engine.stats().segment_bytes), (3, bytes as u64));
    // With nothing to say no segment is made.
    engine.flush().unwrap();
    assert_eq!(read(&metrics.segments_flushed_count), 3);

    for stage in [
        &metrics.wal_append_ns,
        &metrics.hnsw_insert_ns,
        &metrics.hot_push_ns,
        &metrics.segment_flush_ns,
    ] {
        assert!(read(stage) > 0);
    }
    for lock in locks(metrics) {
        assert!(read(&lock.acquisitions) > 0);
        assert!(read(&lock.contentions) <= read(&lock.acquisitions));
        assert!(read(&lock.max_wait_ns) <= read(&lock.total_wait_ns));
        assert!(read(&lock.max_hold_ns) <= read(&lock.total_hold_ns));
        assert!(read(&lock.total_hold_ns) > 0);
    }

    // Counted since open, except what tells how things are.
    engine.insert(intent(50)).unwrap();
    engine.close().unwrap();
    let engine = StorageEngine::open(8, dir.path(), 20).unwrap();
    let metrics = engine.metrics();
    assert_eq!((read(&metrics.hot_buffer_len), read(&metrics.hot_buffer_capacity)), (1, 20));
    for counter in [
        &metrics.wal_entry_count,
        &metrics.wal_append_count,
        &metrics.hot_push_count,
        &metrics.segments_flushed_count,
        &metrics.total_bytes_flushed,
        &metrics.edge_search_count,
    ] {
        assert_eq!(read(counter), 0);
    }
}

#[test]
fn in_memory_there_is_no_log_and_no_segment() {
    let engine = StorageEngine::in_memory(8, 10);
    for number in 0..35 {
        engine.insert(intent(number)).unwrap();
    }
    engine.attach_outcome(id(3), outcome(3)).unwrap();
    engine.sync().unwrap();
    let metrics = engine.metrics();
    assert_eq!((read(&metrics.hot_buffer_len), read(&metrics.hot_push_count)), (5, 35));
    engine.flush().unwrap();
    assert_eq!(read(&metrics.hot_buffer_len), 0);
    for counter in [
        &metrics.wal_append_ns,
        &metrics.wal_append_count,
        &metrics.wal_entry_count,
        &metrics.segment_flush_ns,
        &metrics.segment_flush_count,
        &metrics.total_bytes_flushed,
        &metrics.segments_flushed_count,
        &metrics.wal_lock.acquisitions,
    ] {
        assert_eq!(read(counter), 0);
    }
    assert_eq!(engine.len(), 35);
}

#[test]
fn every_commit_takes_its_locks_and_every_read_its_own() {
    let dir = TestDir::new();
    let engine = StorageEngine::options(8).durability(Durability::Os).open(dir.path()).unwrap();
    let metrics = engine.metrics();
    for number in 0..50 {
        let before = acquisitions(metrics);
        engine.insert(intent(number)).unwrap();
        let after = acquisitions(metrics);
        for lock in [0, 2, 3, 4] {
            assert!(after[lock] > before[lock], "lock {lock}");
        }
        if number % 2 == 0 {
            let before = acquisitions(metrics);
            engine.attach_outcome(id(number), outcome(1)).unwrap();
            let after = acquisitions(metrics);
            for lock in [0, 2, 3, 4] {
                assert!(after[lock] > before[lock], "lock {lock}");
            }
        }
    }
    engine.wait_indexed().unwrap();
    // Nobody else is at work from here on.
    engine.sync().unwrap();
    assert!(read(&metrics.hnsw_lock.acquisitions) >= read(&metrics.hnsw_insert_count));
    assert_eq!(read(&metrics.hnsw_insert_count), 50);

    let before = acquisitions(metrics);
    for number in 0..10 {
        engine.get(id(number)).unwrap();
        engine.get(id(number + 1_000)).unwrap();
    }
    let [intents, hnsw, index_map, wal, hot] = before;
    assert_eq!(acquisitions(metrics), [intents + 20, hnsw, index_map, wal, hot]);
    engine.query_temporal(EVER).unwrap();
    assert_eq!(acquisitions(metrics), [intents + 20, hnsw, index_map + 1, wal, hot]);

    // A search takes none.
    let before = acquisitions(metrics);
    for number in 0..10 {
        engine.query_semantic(&intent(number).embedding, 3).unwrap();
    }
    assert_eq!(acquisitions(metrics), before);
}

#[test]
fn searches_are_counted_and_so_are_the_nodes_they_visit() {
    let engine = StorageEngine::in_memory(8, 10_000);
    engine.insert_batch((0..900).map(intent).collect()).unwrap();
    engine.wait_indexed().unwrap();
    let metrics = engine.metrics();
    for _ in 0..7 {
        engine.query_semantic(&[1.0; 8], 3).unwrap();
    }
    // A small store is scanned; no graph is walked.
    assert_eq!((read(&metrics.edge_search_count), read(&metrics.hnsw_search_count)), (7, 0));
    assert_eq!(read(&metrics.hnsw_search_visited), 0);
    assert!(read(&metrics.edge_search_ns) > 0);

    engine.insert_batch((900..3_000).map(intent).collect()).unwrap();
    engine.wait_indexed().unwrap();
    for _ in 0..5 {
        let before = read(&metrics.hnsw_search_visited);
        engine.query_semantic(&[1.0; 8], 3).unwrap();
        let visited = read(&metrics.hnsw_search_visited) - before;
        // At least as many as the beam is wide, and not the whole graph.
        assert!((64..3_000).contains(&visited), "{visited}");
    }
    assert_eq!((read(&metrics.edge_search_count), read(&metrics.hnsw_search_count)), (12, 5));
    // What is refused at the door is no search.
    assert!(engine.query_semantic(&[1.0; 7], 3).is_err());
    assert_eq!(read(&metrics.edge_search_count), 12);
}
