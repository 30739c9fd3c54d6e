//! Backpressure: who waits, who does not, and what becomes of those who wait when the engine ends.

use crate::common;
use std::{
    future::Future,
    pin::pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use crate::common::{Model, TestDir, id, intent, is_same, outcome};
use crate::slow_disk::SlowDisk;
use tala_core::{Intent, IntentStore, TalaError};
use tala_store::{Durability, EngineOptions, StorageEngine};

/// A store whose index has much to do: linking takes seconds, and only `index_lag_max` rows may
/// wait. A batch above the limit goes when nothing waits.
fn lagging(dim: usize) -> StorageEngine {
    let engine = StorageEngine::options(dim)
        .index_lag_max(10)
        .m(64)
        .ef_construction(1_000)
        .in_memory()
        .unwrap();
    let mut random = common::Random::new(1);
    let rows = (0..3_000)
        .map(|number| Intent { embedding: random.vector(dim), ..intent(number) })
        .collect();
    engine.insert_batch(rows).unwrap();
    assert!(engine.stats().linked < 2_500, "the index is too fast for this test");
    engine
}

fn wide(number: u64, dim: usize) -> Intent {
    Intent { embedding: common::Random::new(number).vector(dim), ..intent(number) }
}

#[test]
fn try_insert_gives_the_intent_back_when_the_index_lags() {
    let engine = lagging(256);
    let offered = wide(9_000, 256);
    match engine.try_insert(offered.clone()).unwrap_err() {
        TalaError::Busy { intent } => assert!(is_same(&intent, &offered)),
        other => panic!("{other}"),
    }
    assert_eq!(engine.get(offered.id).unwrap(), None);
    assert_eq!(engine.len(), 3_000);

    // Others are not held up by the lag.
    engine.attach_outcome(id(1), outcome(1)).unwrap();
    assert!(engine.remove(id(2)).unwrap());
    engine.sync().unwrap();
    engine.flush().unwrap();
    assert!(engine.stats().linked < 3_000, "the index is too fast for this test");

    // Whoever waits for room is answered when the engine ends.
    let waiting = {
        let engine = engine.clone();
        thread::spawn(move || engine.insert(wide(9_001, 256)))
    };
    let mut future = pin!(engine.insert_async(wide(9_002, 256)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    engine.close().unwrap();
    assert!(waiting.join().unwrap().unwrap_err().is_closed());
    match future.poll(&mut context) {
        Poll::Ready(Err(error)) => assert!(error.is_closed()),
        other => panic!("{other:?}"),
    }
    assert!(engine.wait_indexed().unwrap_err().is_closed());
}

#[test]
fn insert_timeout_waits_for_room_as_long_as_it_is_told_to() {
    let engine = lagging(256);
    let offered = wide(9_000, 256);
    let begun = Instant::now();
    match engine.insert_timeout(offered.clone(), Duration::from_millis(30)).unwrap_err() {
        TalaError::Busy { intent } => assert!(is_same(&intent, &offered)),
        other => panic!("{other}"),
    }
    assert!(begun.elapsed() >= Duration::from_millis(30), "it did not wait");
    assert!(engine.index_lag() > 10, "the index is too fast for this test");
    // Who gave up stands in nobody's way, and who has time is served.
    assert_eq!(engine.insert_timeout(offered.clone(), Duration::MAX).unwrap(), offered.id);
    assert!(is_same(&engine.get(offered.id).unwrap().unwrap(), &offered));
    // Room that is there is taken without any wait.
    engine.wait_indexed().unwrap();
    assert!(engine.insert_timeout(wide(9_001, 256), Duration::ZERO).is_ok());
    engine.close().unwrap();
    let closed = engine.insert_timeout(wide(9_002, 256), Duration::MAX).unwrap_err();
    assert!(closed.is_closed());
}

/// Whichever of the gates has no room, and what was taken at those before it is given back.
#[test]
fn insert_timeout_gives_up_before_a_log_that_hangs() {
    type Limit = fn(EngineOptions) -> EngineOptions;
    let limits: [(&str, Limit); 2] = [
        ("requests", |options| options.mailbox_capacity(1)),
        ("bytes", |options| options.mailbox_bytes_max(1)),
    ];
    for (name, limit) in limits {
        let disk = SlowDisk::default();
        let dir = TestDir::new();
        let options = StorageEngine::options(8).disk(Arc::new(disk.clone()));
        let engine = limit(options).open(dir.path()).unwrap();
        let held = disk.hold();
        let seen = disk.syncs();
        let mut context = Context::from_waker(Waker::noop());
        let mut calls = [1, 2].map(|number| Box::pin(engine.insert_async(intent(number))));
        // The log's writer has the first, and the second takes all the room behind it.
        assert!(calls[0].as_mut().poll(&mut context).is_pending());
        disk.wait_for_sync(seen);
        assert!(calls[1].as_mut().poll(&mut context).is_pending());
        let (sender, answer) = mpsc::channel();
        let timed = {
            let engine = engine.clone();
            thread::spawn(move || {
                sender.send(engine.insert_timeout(intent(3), Duration::from_millis(10)))
            })
        };
        // Not for ever where it waits for ever: the disk is let go of then.
        let refused = answer.recv_timeout(Duration::from_secs(60)).expect(name).unwrap_err();
        assert!(matches!(&refused, TalaError::Busy { intent: back } if **back == intent(3)));
        timed.join().unwrap().unwrap();
        assert_eq!(engine.queue_depth(), 1, "{name}: a place was taken along");
        drop(held);
        for call in calls {
            pollster::block_on(call).unwrap();
        }
        assert_eq!((engine.queue_depth(), engine.queue_bytes()), (0, 0), "{name}");
        assert_eq!(engine.insert_timeout(intent(3), Duration::MAX).unwrap(), id(3));
    }
}

#[test]
fn try_insert_stores_where_there_is_room() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 4).unwrap();
    let mut model = Model::default();
    for number in 0..10 {
        assert_eq!(engine.try_insert(intent(number)).unwrap(), id(number));
        model.insert(intent(number));
    }
    model.check(&engine);
}

#[test]
fn an_engine_with_room_for_one_serves_many() {
    let dir = TestDir::new();
    let engine = StorageEngine::options(8)
        .mailbox_capacity(1)
        .mailbox_bytes_max(1)
        .index_lag_max(1)
        .durability(Durability::Os)
        .open(dir.path())
        .unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            let engine = &engine;
            scope.spawn(move || {
                for step in 0..40 {
                    engine.insert(intent(100 * writer + step)).unwrap();
                    engine.attach_outcome(id(100 * writer + step), outcome(step)).unwrap();
                }
            });
        }
    });
    engine.insert_batch((1_000..1_050).map(intent).collect()).unwrap();
    engine.wait_indexed().unwrap();
    assert_eq!(engine.len(), 210);
    assert_eq!(engine.stats().linked, 210);
}

#[test]
fn wait_indexed_waits_for_all_that_was_inserted() {
    let engine = StorageEngine::in_memory(8, 100);
    for round in 1..=3 {
        let batch = (round * 500..(round + 1) * 500).map(intent).collect();
        engine.insert_batch(batch).unwrap();
        engine.wait_indexed().unwrap();
        let stats = engine.stats();
        assert_eq!(
            (stats.rows, stats.linked, stats.graph_nodes),
            (round * 500, round * 500, round * 500)
        );
    }
}

#[test]
fn an_insert_is_a_future_of_any_executor() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 4).unwrap();
    let mut model = Model::default();
    for number in 0..10 {
        assert_eq!(pollster::block_on(engine.insert_async(intent(number))).unwrap(), id(number));
        model.insert(intent(number));
    }
    model.check(&engine);
    let bad = Intent { embedding: vec![0.0], ..intent(0) };
    let error = pollster::block_on(engine.insert_async(bad)).unwrap_err();
    assert!(matches!(error, TalaError::DimensionMismatch { expected: 8, got: 1 }), "{error}");
    let late = engine.insert_async(intent(99));
    engine.close().unwrap();
    assert!(pollster::block_on(late).unwrap_err().is_closed());
}

#[test]
fn a_dropped_future_stores_its_intent_whole_or_not_at_all() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 1_000).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    for number in 0..50 {
        // Never polled: nothing happens.
        drop(engine.insert_async(intent(1_000 + number)));
        // Polled once: on its way, and nobody waits for the answer.
        let _ = pin!(engine.insert_async(intent(number))).poll(&mut context);
    }
    engine.sync().unwrap();
    let mut model = Model::default();
    for number in 0..50 {
        assert_eq!(engine.get(id(1_000 + number)).unwrap(), None);
        if engine.get(id(number)).unwrap().is_some() {
            model.insert(intent(number));
        }
    }
    // Nothing of a future that was dropped holds a place: there is room for others.
    for number in 100..1_200 {
        engine.insert(intent(number)).unwrap();
        model.insert(intent(number));
    }
    model.check(&engine);
    engine.close().unwrap();
    model.check(&StorageEngine::open(8, dir.path(), 1_000).unwrap());
}
