//! A segment that fails to be written after the log was closed well once made `close` answer only
//! that the engine was closed, without the cause.

use tala_core::{Intent, IntentId, StopCause, TalaError};
use tala_store::StorageEngine;

#[test]
fn close_tells_what_could_not_be_finished() {
    let dir = tempfile::tempdir().unwrap();
    // A directory in the place of the segment's temporary file: it can be neither removed as a file
    // nor created. The segment is large, so that the log is closed before its encoding is done.
    const DIM: usize = 4096;
    const COUNT: usize = 1_000;
    let in_the_way = dir.path().join("segment_000001.tbf.tmp");
    let engine = StorageEngine::open(DIM, dir.path(), COUNT).unwrap();
    std::fs::create_dir(&in_the_way).unwrap();
    let intents = (0..COUNT as u128).map(|number| Intent {
        id: IntentId::from_bytes(number.to_be_bytes()),
        timestamp: 0,
        raw_command: String::new(),
        embedding: vec![1.0; DIM],
        context_hash: 0,
        parent_ids: Vec::new(),
        outcome: None,
        confidence: 1.0,
    });
    engine.insert_batch(intents.collect()).unwrap();
    let error = engine.close().unwrap_err();
    let TalaError::Stopped { actor: "tala-flush", cause } = &error else { panic!("{error}") };
    assert!(
        matches!(&**cause, StopCause::Failed(TalaError::Storage { path, .. }) if *path == in_the_way),
        "{error}"
    );
    assert!(engine.close().is_ok());

    std::fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(StorageEngine::open(DIM, dir.path(), COUNT).unwrap().len(), COUNT);
}
