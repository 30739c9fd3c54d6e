//! A program that writes `current.wal` with this crate's `Wal` writes records with checksums. Their
//! import once took them for one torn write, and the store began empty.

use tala_core::{IntentId, IntentStore};
use tala_store::{RecoveryWarning, StorageEngine, Wal, stored_dim};

#[test]
fn a_legacy_directory_may_hold_a_log_with_checksums() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("current.wal");
    let mut wal = Wal::create(&path).unwrap();
    for number in 1..=3 {
        wal.append(&[number; 16], u64::from(number), &[1.0, f32::from(number)], "ls").unwrap();
    }
    wal.sync().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let whole_len = bytes.len() as u64;
    bytes.extend([7; 30]);
    std::fs::write(&path, bytes).unwrap();

    assert_eq!(stored_dim(dir.path()).unwrap(), Some(2));
    for _ in 0..2 {
        let engine = StorageEngine::open(2, dir.path(), 10).unwrap();
        assert_eq!(engine.len(), 3);
        let second = engine.get(IntentId::from_bytes([2; 16])).unwrap().unwrap();
        assert_eq!((second.embedding, second.raw_command.as_str()), (vec![1.0, 2.0], "ls"));
        if !engine.recovery().warnings.is_empty() {
            let torn =
                RecoveryWarning::TornTail { file: path.clone(), offset: whole_len, bytes: 30 };
            assert_eq!(engine.recovery().warnings, [torn]);
        }
    }
}
