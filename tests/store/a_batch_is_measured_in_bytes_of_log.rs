//! Each embedding once counted twice against `batch_bytes_max`, so that the largest batch was half
//! of what the option says.

use tala_core::{Intent, IntentId, TalaError};
use tala_store::StorageEngine;

#[test]
fn a_batch_is_measured_in_bytes_of_log() {
    const DIM: usize = 1_000;
    // A record takes 4 bytes for each dimension and 98 for the rest, without command and parents.
    const RECORD_BYTES: usize = 4 * DIM + 98;
    let dir = tempfile::tempdir().unwrap();
    let engine = StorageEngine::options(DIM).batch_bytes_max(2 * RECORD_BYTES).open(dir.path());
    let engine = engine.unwrap();
    let batch = |count: u8| -> Vec<Intent> {
        let intent = |number| Intent {
            id: IntentId::from_bytes([number; 16]),
            timestamp: 0,
            raw_command: String::new(),
            embedding: vec![1.0; DIM],
            context_hash: 0,
            parent_ids: Vec::new(),
            outcome: None,
            confidence: 1.0,
        };
        (0..count).map(intent).collect()
    };
    assert_eq!(engine.insert_batch(batch(2)).unwrap().len(), 2);
    let error = engine.insert_batch(batch(3)).unwrap_err();
    let limit = (2 * RECORD_BYTES) as u64;
    assert!(
        matches!(error, TalaError::TooLarge { what: "batch_bytes_max", max, .. } if max == limit),
        "{error}"
    );
    assert_eq!(engine.len(), 2);
}
