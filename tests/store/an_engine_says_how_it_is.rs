//! How an engine is: running, short of something, failed, closed.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
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
