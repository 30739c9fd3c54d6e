//! How an engine is: running, short of something, failed, closed.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use crate::common::{DIM, Random, TestDir, id, intent};
use crate::slow_disk::SlowDisk;
use tala_core::{Intent, IntentStore, StopCause};
use tala_store::{Health, Resource, Shortage, StorageEngine};

fn shortage(engine: &StorageEngine) -> Option<(Resource, Shortage)> {
    match engine.health() {
        Health::Degraded(shortage) => Some((shortage.what, shortage)),
        _ => None,
    }
}

#[test]
fn a_full_mailbox_is_told_with_who_waits_for_it() {
    let disk = SlowDisk::default();
    let dir = TestDir::new();
    let options = StorageEngine::options(DIM).disk(Arc::new(disk.clone()));
    let engine = options.mailbox_capacity(3).open(dir.path()).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(engine.health(), Health::Running));
    assert_eq!((engine.queue_depth(), engine.queue_bytes(), engine.index_lag()), (0, 0, 0));

    let held = disk.hold();
    let seen = disk.syncs();
    let mut first = pin!(engine.insert_async(intent(0)));
    assert!(first.as_mut().poll(&mut context).is_pending());
    disk.wait_for_sync(seen);
    // The first is with the log's writer: three more fill the mailbox.
    let mut others: Vec<_> =
        (1..=5).map(|number| Box::pin(engine.insert_async(intent(number)))).collect();
    for (count, other) in (1..).zip(&mut others) {
        assert!(other.as_mut().poll(&mut context).is_pending());
        assert_eq!(engine.queue_depth(), 3.min(count));
        assert_eq!(shortage(&engine).is_some(), count >= 3);
    }
    assert!(engine.queue_bytes() > 0);
    let (what, shortage) = shortage(&engine).unwrap();
    assert_eq!(what, Resource::Requests);
    assert_eq!((shortage.used, shortage.limit, shortage.waiting), (3, 3, 2));
    assert!(engine.health().takes_writes());
    assert_eq!(
        engine.health().to_string(),
        "degraded: 3 requests wait for the log where 3 may; 2 callers wait for room"
    );

    drop(held);
    for call in others {
        pollster::block_on(call).unwrap();
    }
    assert!(matches!(engine.health(), Health::Running));
    engine.close().unwrap();
    assert!(matches!(engine.health(), Health::Closed));
    assert!(!engine.health().takes_writes());
}

#[test]
fn an_index_that_lags_is_told() {
    const WIDE: usize = 256;
    let engine = StorageEngine::options(WIDE)
        .index_lag_max(10)
        .m(64)
        .ef_construction(1_000)
        .in_memory()
        .unwrap();
    let mut random = Random::new(1);
    let rows: Vec<_> = (0..2_000)
        .map(|number| Intent { embedding: random.vector(WIDE), ..intent(number) })
        .collect();
    engine.insert_batch(rows).unwrap();
    let lag = engine.index_lag();
    let (what, shortage) = shortage(&engine).expect("the index is too fast for this test");
    assert_eq!((what, shortage.limit), (Resource::UnlinkedRows, 10));
    assert!(shortage.used > 10 && lag <= 2_000);
    engine.wait_indexed().unwrap();
    assert_eq!(engine.index_lag(), 0);
    assert!(matches!(engine.health(), Health::Running));
}

/// Looks until `is_so`; what it waits for is another thread's to do, at once.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up_at = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < give_up_at, "{what}: never");
        std::thread::yield_now();
    }
}

#[test]
fn segments_that_are_slower_than_inserts_are_told() {
    let disk = SlowDisk::default();
    let dir = TestDir::new();
    let options = StorageEngine::options(DIM).disk(Arc::new(disk.clone()));
    let engine = options.hot_capacity(2).open(dir.path()).unwrap();
    let pair = |number| vec![intent(number), intent(number + 1)];
    // A second time as the first: what was told is over.
    for round in 1..=2 {
        let held = disk.segments.hold();
        let seen = disk.segments.syncs();
        // One is being written, one waits in the flusher's mailbox.
        engine.insert_batch(pair(0)).unwrap();
        disk.segments.wait_for_sync(seen);
        engine.insert_batch(pair(2)).unwrap();
        engine.sync().unwrap();
        assert!(matches!(engine.health(), Health::Running), "{}", engine.health());
        // For the third there is no room. Its intents are stored, and the log's writer waits.
        engine.insert_batch(pair(4)).unwrap();
        wait_until("segments are slow", || shortage(&engine).is_some());
        let mut context = Context::from_waker(Waker::noop());
        let mut late = pin!(engine.insert_async(intent(6)));
        assert!(late.as_mut().poll(&mut context).is_pending());
        let (what, shortage) = shortage(&engine).unwrap();
        assert_eq!(what, Resource::SealedBuffers);
        assert_eq!((shortage.used, shortage.limit, shortage.waiting), (3, 2, 1));
        assert!(shortage.makes_inserts_wait() && engine.health().takes_writes());
        assert_eq!(
            engine.health().to_string(),
            "degraded: 3 full buffers wait to be segments where 2 may; 1 callers wait for room"
        );

        drop(held);
        pollster::block_on(late).unwrap();
        engine.flush().unwrap();
        assert!(matches!(engine.health(), Health::Running), "{}", engine.health());
        assert_eq!(engine.stats().segments, 4 * round);
    }
}

/// Enough for a log to have the next one prepared.
fn much(from: u64) -> Vec<Intent> {
    let raw_command = "x".repeat(300 << 10);
    vec![Intent { raw_command, ..intent(from) }]
}

fn late_logs(engine: &StorageEngine) -> Option<u64> {
    let (what, shortage) = shortage(engine)?;
    assert_eq!((what, shortage.limit, shortage.waiting), (Resource::PreparedLogs, 0, 0));
    assert!(!shortage.makes_inserts_wait() && engine.health().takes_writes());
    Some(shortage.used)
}

#[test]
fn logs_that_are_not_prepared_in_time_are_told() {
    let disk = SlowDisk::default();
    let dir = TestDir::new();
    let options = StorageEngine::options(DIM).disk(Arc::new(disk.clone()));
    let engine = options.open(dir.path()).unwrap();
    let held = disk.prepared.hold();
    engine.insert(intent(0)).unwrap();
    engine.flush().unwrap();
    assert_eq!(late_logs(&engine), None, "a small store has none prepared");
    engine.insert_batch(much(1)).unwrap();
    disk.prepared.wait_for_sync(0);
    assert_eq!(late_logs(&engine), None, "it is being prepared, and there is time");
    for late in 1..3 {
        engine.flush().unwrap();
        assert_eq!(late_logs(&engine), Some(late));
        engine.try_insert(intent(late + 1)).unwrap();
    }
    assert_eq!(engine.health().to_string(), "degraded: 2 logs begun before their file was ready");
    drop(held);
    // Nobody has to write for it to be over.
    wait_until("a log is ready", || matches!(engine.health(), Health::Running));
}

#[test]
fn logs_that_cannot_be_prepared_are_told_until_they_can() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(DIM, dir.path(), 1_000).unwrap();
    let taken = dir.file("log_next.wal.tmp");
    std::fs::create_dir(&taken).unwrap();
    engine.insert_batch(much(0)).unwrap();
    engine.flush().unwrap();
    assert_eq!(late_logs(&engine), Some(1));
    engine.insert_batch(much(1)).unwrap();
    engine.flush().unwrap();
    assert_eq!(late_logs(&engine), Some(2));
    std::fs::remove_dir(&taken).unwrap();
    wait_until("a log is ready", || {
        engine.insert_batch(much(2)).unwrap();
        engine.flush().unwrap();
        matches!(engine.health(), Health::Running)
    });
}

#[test]
fn a_failure_is_told_with_the_thread_and_its_cause() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(DIM, dir.path(), 10).unwrap();
    engine.insert(intent(1)).unwrap();
    // The next log's name is taken by a directory.
    std::fs::create_dir(dir.file("log_000002.wal")).unwrap();
    let error = engine.flush().unwrap_err();
    let Health::Failed { actor, cause } = engine.health() else { panic!("{}", engine.health()) };
    assert_eq!(actor, "tala-wal");
    assert!(matches!(*cause, StopCause::Failed(_)));
    assert_eq!(engine.health().to_string(), format!("failed: {error}"));
    assert!(!engine.health().takes_writes());
    assert!(engine.get(id(1)).unwrap().is_some(), "reads go on");
    let _ = engine.close();
    std::fs::remove_dir(dir.file("log_000002.wal")).unwrap();
}

#[test]
fn an_engine_of_bad_options_has_failed() {
    let engine = StorageEngine::in_memory(0, 10);
    let Health::Failed { actor, cause } = engine.health() else { panic!("{}", engine.health()) };
    assert_eq!((actor, cause.to_string()), ("engine", engine.get(id(1)).unwrap_err().to_string()));
    assert_eq!((engine.queue_depth(), engine.queue_bytes(), engine.index_lag()), (0, 0, 0));
}
