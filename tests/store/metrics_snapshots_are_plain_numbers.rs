//! The counters at one moment: as they are, less what they were, and on their way to others.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use crate::common::{TestDir, id, intent};
use tala_core::IntentStore;
use tala_store::{LockSnapshot, LockStats, MetricsSnapshot, StorageEngine, StorageMetrics};

fn work(engine: &StorageEngine, from: u64) {
    for number in from..from + 12 {
        engine.insert(intent(number)).unwrap();
        engine.get(id(number)).unwrap();
        engine.query_semantic(&intent(number).embedding, 1).unwrap();
    }
    engine.flush().unwrap();
    engine.wait_indexed().unwrap();
}

/// The counters of a lock, in the order of its fields.
fn of_lock(lock: &LockStats) -> [u64; 6] {
    [
        &lock.acquisitions,
        &lock.contentions,
        &lock.total_wait_ns,
        &lock.total_hold_ns,
        &lock.max_wait_ns,
        &lock.max_hold_ns,
    ]
    .map(|counter| counter.load(Relaxed))
}

fn of_lock_snapshot(lock: LockSnapshot) -> [u64; 6] {
    [
        lock.acquisitions,
        lock.contentions,
        lock.total_wait_ns,
        lock.total_hold_ns,
        lock.max_wait_ns,
        lock.max_hold_ns,
    ]
}

fn counters(metrics: &StorageMetrics) -> Vec<u64> {
    [
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
        &metrics.wal_entry_count,
        &metrics.total_bytes_flushed,
        &metrics.segments_flushed_count,
        &metrics.hot_buffer_len,
        &metrics.hot_buffer_capacity,
    ]
    .iter()
    .map(|counter| counter.load(Relaxed))
    .collect()
}

fn numbers(of: &MetricsSnapshot) -> Vec<u64> {
    vec![
        of.wal_append_ns,
        of.wal_append_count,
        of.hnsw_insert_ns,
        of.hnsw_insert_count,
        of.hot_push_ns,
        of.hot_push_count,
        of.segment_flush_ns,
        of.segment_flush_count,
        of.edge_search_ns,
        of.edge_search_count,
        of.hnsw_search_visited,
        of.hnsw_search_count,
        of.wal_entry_count,
        of.total_bytes_flushed,
        of.segments_flushed_count,
        of.hot_buffer_len,
        of.hot_buffer_capacity,
    ]
}

#[test]
fn a_snapshot_has_every_counter_and_a_difference_what_came_since() {
    let dir = TestDir::new();
    let engine = StorageEngine::options(8)
        .exact_below(1)
        .ef_search(2)
        .hot_capacity(100)
        .open(dir.path())
        .unwrap();
    work(&engine, 0);
    let begun = Instant::now();
    let before = engine.metrics().snapshot();
    work(&engine, 100);
    let after = engine.metrics().snapshot();
    let at_most_ns = begun.elapsed().as_nanos() as u64;
    engine.close().unwrap();

    let metrics = engine.metrics();
    let last = metrics.snapshot();
    assert_eq!(numbers(&last), counters(metrics));
    for (lock, snapshot) in [
        (&metrics.intents_lock, last.intents_lock),
        (&metrics.hnsw_lock, last.hnsw_lock),
        (&metrics.index_map_lock, last.index_map_lock),
        (&metrics.wal_lock, last.wal_lock),
        (&metrics.hot_lock, last.hot_lock),
    ] {
        assert_eq!(of_lock_snapshot(snapshot), of_lock(lock));
    }
    // Each has a value of its own, or two could be mixed up.
    assert!(numbers(&last)[..16].iter().filter(|value| **value > 0).count() >= 15, "{last:?}");

    let between = after - before;
    let (early, late, came) = (numbers(&before), numbers(&after), numbers(&between));
    for field in 0..15 {
        assert_eq!(came[field], late[field] - early[field], "field {field}");
    }
    assert_eq!((came[15], came[16]), (late[15], late[16]), "states are those of the later");
    assert_eq!((between.wal_entry_count, between.segments_flushed_count), (12, 1));
    let [acquisitions, _, wait_ns, hold_ns, max_wait_ns, max_hold_ns] =
        of_lock_snapshot(between.wal_lock);
    let (early, late) = (before.wal_lock, after.wal_lock);
    assert_eq!(acquisitions, late.acquisitions - early.acquisitions);
    assert_eq!(wait_ns, late.total_wait_ns - early.total_wait_ns);
    assert_eq!(hold_ns, late.total_hold_ns - early.total_hold_ns);
    assert_eq!((max_wait_ns, max_hold_ns), (late.max_wait_ns, late.max_hold_ns));

    assert!((1..=at_most_ns).contains(&between.read_at_ns));
    let rate = between.per_second(between.wal_entry_count);
    assert!((rate - 12e9 / between.read_at_ns as f64).abs() < 1e-6);
    // The wrong way round nothing came, and nothing panics.
    let nothing = before - after;
    assert_eq!(nothing.wal_entry_count, 0);
    assert_eq!(nothing.per_second(1), 0.0);
}

#[cfg(feature = "serde")]
#[test]
fn a_snapshot_goes_to_others_and_comes_back() {
    let engine = StorageEngine::in_memory(8, 10);
    work(&engine, 0);
    let snapshot = engine.metrics().snapshot();
    let text = serde_json::to_string(&snapshot).unwrap();
    assert!(
        text.contains("\"acquisitions\"") && text.contains("\"edge_search_count\":12"),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<MetricsSnapshot>(&text).unwrap(), snapshot);
}
