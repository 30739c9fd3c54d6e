//! `insert_batch`: checked whole, stored whole, seen whole.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
};

use crate::common::{AtWork, EVER, Model, TestDir, id, intent, outcome, version};
use tala_core::{Intent, IntentStore, TalaError};
use tala_store::StorageEngine;

#[test]
fn a_batch_stores_all_of_its_intents_in_order() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 4).unwrap();
    let mut model = Model::default();
    let at_5 = |number| Intent { timestamp: 5, ..intent(number) };
    let batch: Vec<_> = [9, 3, 7, 1, 8, 2].map(at_5).to_vec();
    batch.iter().cloned().for_each(|intent| model.insert(intent));
    let ids = engine.insert_batch(batch).unwrap();
    assert_eq!(ids, [9, 3, 7, 1, 8, 2].map(id));
    model.check(&engine);
    engine.close().unwrap();
    model.check(&StorageEngine::open(8, dir.path(), 4).unwrap());
}

#[test]
fn an_empty_batch_is_fine_and_writes_nothing() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 4).unwrap();
    let before = (dir.files(), engine.stats().visible_seq);
    assert_eq!(engine.insert_batch(Vec::new()).unwrap(), []);
    assert!((dir.files(), engine.stats().visible_seq) == before);
}

#[test]
fn of_equal_ids_in_a_batch_the_last_wins() {
    let dir = TestDir::new();
    let mut model = Model::default();
    let batch = vec![
        Intent { outcome: Some(outcome(4)), ..intent(1) },
        intent(2),
        version(1, 1),
        version(2, 1),
        version(1, 2),
    ];
    batch.iter().cloned().for_each(|intent| model.insert(intent));
    let engine = StorageEngine::open(8, dir.path(), 100).unwrap();
    let ids = engine.insert_batch(batch).unwrap();
    assert_eq!(ids, [1, 2, 1, 2, 1].map(id));
    assert_eq!(engine.len(), 2);
    model.check(&engine);
    engine.close().unwrap();
    model.check(&StorageEngine::open(8, dir.path(), 100).unwrap());
}

#[test]
fn one_bad_intent_refuses_the_batch_and_is_named() {
    let dir = TestDir::new();
    let engine = StorageEngine::options(8).record_bytes_max(4_000).open(dir.path()).unwrap();
    engine.insert(intent(0)).unwrap();
    let before = (dir.files(), engine.stats().visible_seq);
    let is_dimension =
        |error: &TalaError| matches!(error, TalaError::DimensionMismatch { expected: 8, got: 3 });
    let is_input = |field: &'static str| move |error: &TalaError| matches!(error, TalaError::InvalidInput { field: found, .. } if *found == field);
    let is_large = |error: &TalaError| {
        matches!(error, TalaError::TooLarge { what: "record_bytes_max", max: 4_000, .. })
    };
    type Check<'a> = &'a dyn Fn(&TalaError) -> bool;
    let mut embedding = intent(5).embedding;
    embedding[6] = f32::NAN;
    let bad: [(Intent, Check); 4] = [
        (Intent { embedding: vec![1.0; 3], ..intent(5) }, &is_dimension),
        (Intent { embedding, ..intent(5) }, &is_input("embedding")),
        (Intent { confidence: f32::INFINITY, ..intent(5) }, &is_input("confidence")),
        (Intent { raw_command: "x".repeat(4_000), ..intent(5) }, &is_large),
    ];
    for (bad, is_expected) in bad {
        for at in [0, 1, 3] {
            let mut batch: Vec<_> = (1..4).map(intent).collect();
            batch.insert(at, bad.clone());
            match engine.insert_batch(batch).unwrap_err() {
                TalaError::InBatch { position, source } => {
                    assert_eq!(position, at);
                    assert!(is_expected(&source), "{source}");
                }
                other => panic!("{other}"),
            }
        }
    }
    assert!((dir.files(), engine.stats().visible_seq) == before);
}

#[test]
fn a_batch_above_its_limit_is_too_large() {
    let dir = TestDir::new();
    let engine = StorageEngine::options(8).batch_bytes_max(2_000).open(dir.path()).unwrap();
    let before = (dir.files(), engine.stats().visible_seq);
    let error = engine.insert_batch((0..100).map(intent).collect()).unwrap_err();
    assert!(
        matches!(error, TalaError::TooLarge { what: "batch_bytes_max", got, max: 2_000 } if got > 2_000),
        "{error}"
    );
    assert!((dir.files(), engine.stats().visible_seq) == before);
    engine.insert_batch((0..5).map(intent).collect()).unwrap();
}

/// The log of an open store, cut at every byte of its last batch, gives the batch or nothing of it.
#[test]
fn a_batch_that_is_cut_short_is_not_there() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 100).unwrap();
    engine.insert(intent(0)).unwrap();
    let log = dir.names(".wal").pop().unwrap();
    let before = fs::metadata(dir.file(&log)).unwrap().len() as usize;
    engine.insert_batch((1..4).map(intent).collect()).unwrap();
    let files = dir.files();
    engine.close().unwrap();

    let whole = files[&log].len();
    let copy = TestDir::new();
    for len in (before..whole).step_by(13).chain([whole - 1, whole]) {
        let mut files = files.clone();
        files.get_mut(&log).unwrap().truncate(len);
        copy.put(&files);
        let engine = StorageEngine::open(8, copy.path(), 100).unwrap();
        let expected = if len == whole { 4 } else { 1 };
        assert_eq!(engine.len(), expected, "{len} of {whole} bytes");
        assert_eq!(engine.recovery().warnings.is_empty(), len == whole || len == before);
        assert_eq!(engine.query_temporal(EVER).unwrap().len(), expected);
    }
}

#[test]
fn readers_see_a_batch_whole() {
    const BATCH: u64 = 150;
    let engine = StorageEngine::in_memory(8, 1_000);
    let version_of = |number: u64, round: u64| Intent { timestamp: round, ..intent(number) };
    engine.insert_batch((0..BATCH).map(|number| version_of(number, 0)).collect()).unwrap();
    let at_work = AtomicU64::new(1);
    thread::scope(|scope| {
        let writer = AtWork(&at_work);
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (engine, at_work) = (engine.clone(), &at_work);
                scope.spawn(move || {
                    let mut last = 0;
                    loop {
                        let is_last = at_work.load(SeqCst) == 0;
                        let found = engine.query_temporal(EVER).unwrap();
                        assert_eq!(found.len() as u64, BATCH);
                        let round = found[0].timestamp;
                        assert!(found.iter().all(|intent| intent.timestamp == round));
                        assert!(round >= last, "{round} after {last}");
                        last = round;
                        if is_last {
                            return last;
                        }
                    }
                })
            })
            .collect();
        for round in 1..=40 {
            engine.insert_batch((0..BATCH).map(|n| version_of(n, round)).collect()).unwrap();
        }
        drop(writer);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() == 40));
    });
}
