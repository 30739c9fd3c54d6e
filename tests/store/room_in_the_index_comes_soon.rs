//! The index builder links rows in batches. It does not keep anybody waiting for a batch to be full:
//! not those who wait for room, not those who wait for their rows, and no row for ever.

use std::{
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::common::{Random, intent};
use tala_core::{Intent, IntentStore};
use tala_store::StorageEngine;

/// After this a test fails in place of hanging.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `scenario` and fails when it does not come to its end.
fn in_time(scenario: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let thread = thread::spawn(move || {
        scenario();
        let _ = done.send(());
    });
    match is_done.recv_timeout(DEADLINE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("somebody waits for ever"),
        // A panic of the scenario comes out here.
        _ => thread.join().unwrap(),
    }
}

fn store(lag_max: usize) -> StorageEngine {
    StorageEngine::options(8)
        .index_lag_max(lag_max)
        .ef_construction(20)
        .index_threads(2)
        .in_memory()
        .unwrap()
}

fn batch(numbers: std::ops::Range<u64>) -> Vec<Intent> {
    numbers.map(intent).collect()
}

#[test]
fn many_inserters_get_through_a_narrow_door() {
    const EACH: u64 = 600;
    for lag_max in [1, 2, 10, 100] {
        in_time(move || {
            let engine = store(lag_max);
            let threads: Vec<_> = (0..4)
                .map(|thread_index| {
                    let engine = engine.clone();
                    thread::spawn(move || {
                        let mut random = Random::new(thread_index);
                        let mut next = thread_index * EACH;
                        let end = next + EACH;
                        while next < end {
                            // Single rows, batches that fit, and batches that never do.
                            let size = [1, 1, 3, 40, 150][random.bits() as usize % 5];
                            let size = size.min(end - next);
                            if size == 1 {
                                engine.insert(intent(next)).unwrap();
                            } else {
                                engine.insert_batch(batch(next..next + size)).unwrap();
                            }
                            if random.bits().is_multiple_of(16) {
                                engine.wait_indexed().unwrap();
                            }
                            next += size;
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            engine.wait_indexed().unwrap();
            let stats = engine.stats();
            assert_eq!((stats.rows, stats.linked), (4 * EACH, 4 * EACH), "lag {lag_max}");
            assert_eq!(engine.len() as u64, 4 * EACH);
        });
    }
}

/// Each batch needs room that is there only when rows of the one before it are linked which make no
/// full batch of the builder. It gives up on those by itself after a quarter of a second, and 80
/// times as much is 20 seconds.
#[test]
fn who_waits_for_room_does_not_wait_for_more_rows() {
    const ROUNDS: u64 = 80;
    in_time(|| {
        let engine = store(100);
        // The builder's batches are of 32 rows from about a thousand rows on.
        engine.insert_batch(batch(0..1_100)).unwrap();
        engine.wait_indexed().unwrap();
        let begin = Instant::now();
        for first in (0..ROUNDS).map(|round| 2_000 + round * 95) {
            engine.insert_batch(batch(first..first + 95)).unwrap();
        }
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(10), "{ROUNDS} batches took {took:?}");
        assert!(engine.stats().linked >= 1_100 + (ROUNDS - 2) * 95);
    });
}

/// As above for those who wait for their rows.
#[test]
fn who_waits_for_the_index_does_not_wait_for_more_rows() {
    const ROUNDS: u64 = 80;
    in_time(|| {
        let engine = store(100_000);
        engine.insert_batch(batch(0..3_000)).unwrap();
        engine.wait_indexed().unwrap();
        let begin = Instant::now();
        for number in 3_000..3_000 + ROUNDS {
            engine.insert(intent(number)).unwrap();
            engine.wait_indexed().unwrap();
            assert_eq!(engine.stats().linked, number + 1);
        }
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(10), "{ROUNDS} rows took {took:?}");
    });
}

#[test]
fn a_lone_row_is_linked_though_nobody_asks() {
    let engine = store(100_000);
    engine.insert_batch(batch(0..3_000)).unwrap();
    engine.wait_indexed().unwrap();
    let linked = |count: &AtomicU64| count.load(Relaxed);
    let count = &engine.metrics().hnsw_insert_count;
    for number in 3_000..3_003 {
        let before = linked(count);
        engine.insert(intent(number)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while linked(count) == before {
            assert!(Instant::now() < deadline, "row {number} still waits");
            thread::yield_now();
        }
        assert_eq!(linked(count), before + 1);
    }
}
