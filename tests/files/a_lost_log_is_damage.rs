//! The log that was open last is listed nowhere by its length. When its file was lost, or cut after
//! the store had been closed, the store once opened without what the log had held.

use crate::common::{DIM, intent};
use tala_core::{IntentStore, TalaError};
use tala_store::{StorageEngine, verify};

#[test]
fn a_lost_log_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    // The first log of a store, the log of one opened again, and the log after a flush.
    for round in 1..=3 {
        let engine = StorageEngine::open(DIM, dir.path(), 100).unwrap();
        assert_eq!(engine.len() as u64, 2 * (round - 1));
        engine.insert(intent(2 * round)).unwrap();
        if round == 3 {
            engine.flush().unwrap();
        }
        engine.insert(intent(2 * round + 1)).unwrap();
        engine.close().unwrap();

        let is_log = |name: &String| name.starts_with("log_");
        let names = std::fs::read_dir(dir.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let log = dir.path().join(names.filter(is_log).max().unwrap());
        let saved = std::fs::read(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        let is_named =
            |error: &TalaError| matches!(error, TalaError::Corrupt { file, .. } if *file == log);
        let error = StorageEngine::open(DIM, dir.path(), 100).unwrap_err();
        assert!(is_named(&error), "round {round}: {error}");
        assert!(verify(dir.path()).unwrap().damage.iter().any(is_named));
        // A closed store has written down how far its log went, so a shorter one is no torn write.
        for len in [0, saved.len() / 2, saved.len() - 1] {
            std::fs::write(&log, &saved[..len]).unwrap();
            let error = StorageEngine::open(DIM, dir.path(), 100).unwrap_err();
            assert!(is_named(&error), "round {round}, length {len}: {error}");
            assert!(verify(dir.path()).unwrap().damage.iter().any(is_named));
        }
        std::fs::write(&log, vec![0; saved.len()]).unwrap();
        assert!(is_named(&StorageEngine::open(DIM, dir.path(), 100).unwrap_err()));
        std::fs::write(&log, saved).unwrap();
    }
    assert_eq!(StorageEngine::open(DIM, dir.path(), 100).unwrap().len(), 6);
}
