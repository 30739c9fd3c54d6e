//! What no store should take is refused with an error that says what is wrong, and changes
//! nothing; what is merely unusual is taken.

use std::time::Duration;

use crate::common::{EVER, Model, TestDir, id, intent, is_same, outcome};
use tala_core::{Intent, IntentId, IntentStore, TalaError};
use tala_store::{Durability, EngineOptions, HotBuffer, Query, StorageEngine};

#[test]
fn another_dimension_is_a_mismatch() {
    let dir = TestDir::new();
    for engine in [StorageEngine::in_memory(8, 10), StorageEngine::open(8, dir.path(), 10).unwrap()]
    {
        for got in [0, 1, 7, 9, 800] {
            let wrong = Intent { embedding: vec![1.0; got], ..intent(1) };
            let query = vec![1.0; got];
            for error in [
                engine.insert(wrong.clone()).unwrap_err(),
                engine.try_insert(wrong.clone()).unwrap_err(),
                pollster::block_on(engine.insert_async(wrong)).unwrap_err(),
                engine.query_semantic(&query, 1).unwrap_err(),
                engine.query_semantic(&query, 0).unwrap_err(),
                engine.search(Query::new(&query, 1).ef(10)).unwrap_err(),
            ] {
                assert!(
                    matches!(error, TalaError::DimensionMismatch { expected: 8, got: found } if found == got),
                    "{error}"
                );
            }
        }
        Model::default().check(&engine);
    }
}

#[test]
fn what_is_not_finite_is_refused() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    let is_embedding =
        |error: TalaError| matches!(error, TalaError::InvalidInput { field: "embedding", .. });
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 7] {
            let mut embedding = intent(1).embedding;
            embedding[at] = bad;
            assert!(is_embedding(engine.query_semantic(&embedding, 1).unwrap_err()));
            let wrong = Intent { embedding, ..intent(1) };
            assert!(is_embedding(engine.try_insert(wrong.clone()).unwrap_err()));
            assert!(is_embedding(engine.insert(wrong).unwrap_err()));
        }
        let error = engine.insert(Intent { confidence: bad, ..intent(1) }).unwrap_err();
        assert!(matches!(error, TalaError::InvalidInput { field: "confidence", .. }), "{error}");
    }
    Model::default().check(&engine);
}

#[test]
fn unusual_intents_are_taken_and_come_back_whole() {
    let dir = TestDir::new();
    let unusual = [
        Intent { raw_command: String::new(), ..intent(1) },
        Intent { raw_command: "ä€𝄞\0\n".repeat(1_000_000), ..intent(2) },
        Intent { parent_ids: (0..10_000).map(id).collect(), ..intent(3) },
        Intent { parent_ids: vec![id(4), id(4), id(1), id(999), id(1)], ..intent(4) },
        Intent { timestamp: u64::MAX, ..intent(5) },
        Intent { timestamp: 0, context_hash: u64::MAX, confidence: -f32::MAX, ..intent(6) },
        Intent { id: IntentId::from_bytes([0; 16]), ..intent(7) },
        Intent { id: IntentId::from_bytes([0xFF; 16]), ..intent(8) },
        Intent { confidence: -0.0, outcome: Some(outcome(5)), ..intent(9) },
    ];
    assert!(unusual[1].raw_command.len() > 10_000_000);
    let mut model = Model::default();
    let engine = StorageEngine::open(8, dir.path(), 100).unwrap();
    for intent in unusual {
        engine.insert(intent.clone()).unwrap();
        model.insert(intent);
    }
    model.check(&engine);
    // From the log, then from a segment.
    engine.close().unwrap();
    let engine = StorageEngine::open(8, dir.path(), 100).unwrap();
    model.check(&engine);
    engine.flush().unwrap();
    engine.close().unwrap();
    let engine = StorageEngine::open(8, dir.path(), 100).unwrap();
    assert_eq!(engine.recovery().from_logs, 0);
    model.check(&engine);
}

#[test]
fn a_record_above_its_limit_is_too_large() {
    let dir = TestDir::new();
    let engine = StorageEngine::options(8).record_bytes_max(1_000).open(dir.path()).unwrap();
    for large in [
        Intent { raw_command: "x".repeat(1_000), ..intent(1) },
        Intent { parent_ids: (0..70).map(id).collect(), ..intent(1) },
    ] {
        for error in
            [engine.insert(large.clone()).unwrap_err(), engine.try_insert(large).unwrap_err()]
        {
            assert!(
                matches!(error, TalaError::TooLarge { what: "record_bytes_max", got, max: 1_000 } if got > 1_000),
                "{error}"
            );
        }
    }
    engine.insert(Intent { raw_command: "x".repeat(700), ..intent(1) }).unwrap();
    // The largest record of all is 64 MiB.
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    let large = Intent { raw_command: "x".repeat(64 << 20), ..intent(1) };
    let error = engine.insert(large).unwrap_err();
    assert!(matches!(error, TalaError::TooLarge { max: 0x400_0000, .. }), "{error}");
    assert!(engine.is_empty());
}

#[test]
fn unknown_ids_are_not_found() {
    let engine = StorageEngine::in_memory(8, 10);
    engine.insert(intent(1)).unwrap();
    assert_eq!(engine.get(id(2)).unwrap(), None);
    assert!(!engine.remove(id(2)).unwrap());
    let error = engine.attach_outcome(id(2), outcome(1)).unwrap_err();
    assert!(matches!(error, TalaError::NodeNotFound(found) if found == id(2)), "{error}");
    let found = engine.query_temporal(EVER).unwrap();
    assert!(found.len() == 1 && is_same(&found[0], &intent(1)));
}

#[test]
fn every_bad_option_is_named_and_creates_nothing() {
    let parent = TestDir::new();
    let dir = parent.file("store");
    let options = || StorageEngine::options(8);
    let bad: Vec<(&str, EngineOptions)> = vec![
        ("dim", StorageEngine::options(0)),
        ("dim", StorageEngine::options(EngineOptions::DIM_MAX + 1)),
        ("dim", StorageEngine::options(usize::MAX)),
        ("hot_capacity", options().hot_capacity(0)),
        ("hot_capacity", options().hot_capacity(usize::MAX)),
        ("mailbox_capacity", options().mailbox_capacity(0)),
        ("mailbox_capacity", options().mailbox_capacity(usize::MAX)),
        ("mailbox_bytes_max", options().mailbox_bytes_max(0)),
        ("index_lag_max", options().index_lag_max(0)),
        ("record_bytes_max", options().record_bytes_max(0)),
        ("record_bytes_max", options().record_bytes_max(EngineOptions::RECORD_BYTES_MAX + 1)),
        ("batch_bytes_max", options().batch_bytes_max(0)),
        ("batch_bytes_max", options().batch_bytes_max(usize::MAX)),
        ("log_bytes_max", options().log_bytes_max(0)),
        ("m", options().m(0)),
        ("m", options().m(1)),
        ("m", options().m(129)),
        ("ef_construction", options().ef_construction(0)),
        ("ef_construction", options().ef_construction(usize::MAX)),
        ("ef_search", options().ef_search(0)),
        ("durability", options().durability(Durability::Interval(Duration::ZERO))),
    ];
    for (expected, options) in bad {
        let errors = [options.clone().open(&dir).err(), options.in_memory().err()];
        for error in errors {
            assert!(
                matches!(error, Some(TalaError::InvalidOption { option, .. }) if option == expected),
                "{error:?} where {expected} is bad"
            );
        }
    }
    for error in [
        StorageEngine::open(0, &dir, 10).err().unwrap(),
        StorageEngine::open(8, &dir, 0).err().unwrap(),
    ] {
        assert!(matches!(error, TalaError::InvalidOption { .. }), "{error}");
    }
    assert!(!dir.exists());
}

#[test]
fn a_hot_buffer_refuses_what_the_engine_refuses() {
    for (dim, capacity, expected) in [(0, 10, "dim"), (8, 0, "capacity")] {
        let error = HotBuffer::try_new(dim, capacity).unwrap_err();
        assert!(
            matches!(error, TalaError::InvalidOption { option, .. } if option == expected),
            "{error}"
        );
    }
}
