//! `query_temporal`: order, bounds, and a cost that follows the answer, not the store.

use std::time::Instant;

use crate::common::{EVER, TestDir, id, intent};
use tala_core::{Intent, IntentStore, TimeRange};
use tala_store::StorageEngine;

fn at(number: u64, timestamp: u64) -> Intent {
    Intent { timestamp, ..intent(number) }
}

fn numbers(engine: &StorageEngine, start: u64, end: u64) -> Vec<u64> {
    let found = engine.query_temporal(TimeRange { start, end }).unwrap();
    found.iter().map(|intent| intent.id.0.as_u128() as u64).collect()
}

fn check_ranges(engine: &StorageEngine) {
    assert_eq!(numbers(engine, 0, u64::MAX), [6, 2, 5, 1, 3, 4, 8]);
    assert_eq!(numbers(engine, 0, 1), [6]);
    assert_eq!(numbers(engine, 10, 20), [2, 5]);
    assert_eq!(numbers(engine, 10, 21), [2, 5, 1, 3]);
    assert_eq!(numbers(engine, 11, 20), [0_u64; 0]);
    assert_eq!(numbers(engine, 20, 20), [0_u64; 0]);
    assert_eq!(numbers(engine, 21, 20), [0_u64; 0]);
    assert_eq!(numbers(engine, u64::MAX, 0), [0_u64; 0]);
    assert_eq!(numbers(engine, u64::MAX - 1, u64::MAX), [8]);
    // The end is outside, so nothing holds the last nanosecond of all; by id it is there.
    assert_eq!(numbers(engine, u64::MAX, u64::MAX), [0_u64; 0]);
    assert_eq!(engine.get(id(7)).unwrap().unwrap().timestamp, u64::MAX);
    assert_eq!(engine.len(), 8);
}

#[test]
fn a_range_has_its_start_and_not_its_end_and_equals_in_order_of_insertion() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 3).unwrap();
    assert_eq!(engine.query_temporal(EVER).unwrap(), []);
    let rows =
        [(2, 10), (1, 20), (5, 10), (3, 20), (7, u64::MAX), (8, u64::MAX - 1), (4, 30), (6, 0)];
    for (number, timestamp) in rows {
        engine.insert(at(number, timestamp)).unwrap();
    }
    check_ranges(&engine);
    engine.close().unwrap();
    check_ranges(&StorageEngine::open(8, dir.path(), 3).unwrap());
}

/// A store in memory whose index does next to no work: this test is about time alone.
fn large(intents: u64) -> StorageEngine {
    let engine = StorageEngine::options(1)
        .m(2)
        .ef_construction(1)
        .index_lag_max(10_000_000)
        .in_memory()
        .unwrap();
    for batch in 0..intents / 1_000 {
        let batch = (batch * 1_000..(batch + 1) * 1_000).map(|number| Intent {
            embedding: vec![1.0],
            parent_ids: vec![],
            raw_command: "ls".to_owned(),
            // Not in order of time, so that the index has to put them there.
            ..at(number, (number * 7_919) % intents)
        });
        engine.insert_batch(batch.collect()).unwrap();
    }
    engine
}

/// The same 100 answers take about the same time from 10,000 intents and from many more. A look
/// at every intent would take 30 times as long, so 3 leaves room for colder caches and for other
/// programs on the machine. With `TALA_TEST_LARGE=1` the larger store has 1,000,000 intents.
#[test]
fn a_hundred_answers_cost_the_same_in_a_larger_store() {
    let many = if std::env::var_os("TALA_TEST_LARGE").is_some() { 1_000_000 } else { 300_000 };
    let engines = [large(10_000), large(many)];
    let mut times_ns = [Vec::new(), Vec::new()];
    // One after the other in turns, so that what else the machine does meets both.
    for round in 0..301 {
        for (engine, times_ns) in engines.iter().zip(&mut times_ns) {
            let start = (round * 31) % 9_000;
            let since = Instant::now();
            let found = engine.query_temporal(TimeRange { start, end: start + 100 }).unwrap();
            times_ns.push(since.elapsed().as_nanos() as f64);
            let timestamps = found.iter().map(|intent| intent.timestamp);
            assert!(timestamps.eq(start..start + 100));
        }
    }
    let median = |mut times_ns: Vec<f64>| {
        times_ns.sort_by(f64::total_cmp);
        times_ns[times_ns.len() / 2]
    };
    let [small, large] = times_ns.map(median);
    println!("100 of 10,000: {small} ns; 100 of {many}: {large} ns");
    assert!(large < 3.0 * small, "{large} ns against {small} ns");
}
