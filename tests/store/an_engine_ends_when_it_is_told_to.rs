//! `close` and drop: what was accepted is finished, what comes later is refused, the directory is
//! free again.

use std::{sync::Barrier, thread};

use crate::common::{EVER, Model, TestDir, id, intent, outcome};
use tala_core::{IntentStore, StopCause, TalaError};
use tala_store::{Query, StorageEngine};

/// Every call that can be refused.
fn errors(engine: &StorageEngine) -> Vec<TalaError> {
    let query = [1.0; 8];
    vec![
        engine.insert(intent(1)).unwrap_err(),
        engine.try_insert(intent(1)).unwrap_err(),
        engine.insert_batch(vec![intent(1)]).unwrap_err(),
        engine.insert_batch(vec![]).unwrap_err(),
        pollster::block_on(engine.insert_async(intent(1))).unwrap_err(),
        engine.get(id(1)).unwrap_err(),
        engine.query_semantic(&query, 1).unwrap_err(),
        engine.search(Query::new(&query, 1)).unwrap_err(),
        engine.query_temporal(EVER).unwrap_err(),
        engine.attach_outcome(id(1), outcome(1)).unwrap_err(),
        engine.remove(id(1)).unwrap_err(),
        engine.sync().unwrap_err(),
        engine.flush().unwrap_err(),
        engine.wait_indexed().unwrap_err(),
    ]
}

#[test]
fn close_ends_the_engine_for_all_its_clones() {
    let dir = TestDir::new();
    for engine in [StorageEngine::in_memory(8, 10), StorageEngine::open(8, dir.path(), 10).unwrap()]
    {
        engine.insert(intent(1)).unwrap();
        let clone = engine.clone();
        engine.close().unwrap();
        for engine in [&engine, &clone] {
            for error in errors(engine) {
                assert!(error.is_closed(), "{error}");
                assert!(
                    matches!(&error, TalaError::Stopped { actor: "engine", cause }
                        if matches!(**cause, StopCause::Closed)),
                    "{error}"
                );
            }
            engine.close().unwrap();
            assert_eq!(engine.dim(), 8);
        }
    }
}

#[test]
fn the_directory_is_free_when_close_returns_and_the_clones_stay_harmless() {
    let dir = TestDir::new();
    let first = StorageEngine::open(8, dir.path(), 10).unwrap();
    first.insert(intent(1)).unwrap();
    let is_locked = || match StorageEngine::open(8, dir.path(), 10) {
        Err(TalaError::Locked { path }) => path == dir.path(),
        _ => false,
    };
    assert!(is_locked());
    first.close().unwrap();
    let second = StorageEngine::open(8, dir.path(), 10).unwrap();
    // The end of the first takes nothing from the second.
    drop(first);
    assert!(is_locked());
    second.insert(intent(2)).unwrap();
    drop(second);
    assert_eq!(StorageEngine::open(8, dir.path(), 10).unwrap().len(), 2);
}

#[test]
fn dropping_the_last_clone_ends_the_engine_and_frees_the_directory() {
    let dir = TestDir::new();
    let mut model = Model::default();
    for round in 0..5 {
        let engine = StorageEngine::open(8, dir.path(), 3).unwrap();
        model.check(&engine);
        for number in 0..4 {
            engine.insert(intent(round * 10 + number)).unwrap();
            model.insert(intent(round * 10 + number));
        }
        let clone = engine.clone();
        drop(engine);
        assert!(matches!(StorageEngine::open(8, dir.path(), 3), Err(TalaError::Locked { .. })));
        model.check(&clone);
        // On another thread, as the last clone of a server would be.
        thread::spawn(move || drop(clone)).join().unwrap();
    }
    let engine = StorageEngine::open(8, dir.path(), 3).unwrap();
    assert!(engine.recovery().was_clean);
    model.check(&engine);
}

/// Writers are cut off at some moment; what was answered `Ok` before it is there.
#[test]
fn what_was_accepted_before_a_close_is_finished() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 20).unwrap();
    let barrier = Barrier::new(5);
    let acknowledged: Vec<u64> = thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (engine, barrier) = (engine.clone(), &barrier);
                scope.spawn(move || {
                    let mut done = 0;
                    loop {
                        if done == 10 {
                            barrier.wait();
                        }
                        match engine.insert(intent(writer * 1_000 + done)) {
                            Ok(_) => done += 1,
                            Err(error) => {
                                assert!(error.is_closed(), "{error}");
                                return done;
                            }
                        }
                    }
                })
            })
            .collect();
        barrier.wait();
        engine.close().unwrap();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let engine = StorageEngine::open(8, dir.path(), 20).unwrap();
    assert!(engine.recovery().was_clean);
    for (writer, done) in (0..).zip(acknowledged) {
        for number in 0..done {
            assert!(engine.get(id(writer * 1_000 + number)).unwrap().is_some());
        }
    }
}

#[test]
fn many_threads_may_close_at_once() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 20).unwrap();
    engine.insert(intent(1)).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                engine.close().unwrap();
                // Whoever returns first, the directory is free then.
                match StorageEngine::open(8, dir.path(), 20) {
                    Ok(_) | Err(TalaError::Locked { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            });
        }
    });
    assert_eq!(StorageEngine::open(8, dir.path(), 20).unwrap().len(), 1);
}

#[test]
fn in_memory_bad_options_are_the_answer_to_every_call() {
    for (engine, expected) in
        [(StorageEngine::in_memory(0, 10), "dim"), (StorageEngine::in_memory(8, 0), "hot_capacity")]
    {
        let mut errors = errors(&engine);
        errors.push(engine.close().unwrap_err());
        for error in errors {
            assert!(
                matches!(error, TalaError::InvalidOption { option, .. } if option == expected),
                "{error}"
            );
        }
        assert!(engine.is_empty());
        assert_eq!(engine.stats(), tala_store::StoreStats::default());
        assert!(engine.recovery().warnings.is_empty());
    }
}
