//! What opening takes, a check takes, and what opening refuses, a check reports; and it changes
//! nothing. It once left a LOCK file in every directory that it was shown.

use std::{fs, io::ErrorKind};

use crate::common::{TestDir, intent};
use tala_core::{Intent, IntentStore, TalaError};
use tala_store::{StorageEngine, Wal, stored_dim, verify};

fn filled() -> TestDir {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    engine.insert(intent(1)).unwrap();
    engine.close().unwrap();
    dir
}

/// A directory of the original with two intents.
fn legacy() -> TestDir {
    let dir = TestDir::new();
    let mut log = Wal::create(dir.file("current.wal")).unwrap();
    for Intent { id, timestamp, raw_command, embedding, .. } in [intent(1), intent(2)] {
        log.append(id.as_bytes(), timestamp, &embedding, &raw_command).unwrap();
        // So that the second record proves the first one.
        log.sync().unwrap();
    }
    dir
}

#[test]
fn what_is_no_store_is_not_found_and_left_alone() {
    for name in [None, Some("notes.txt")] {
        let dir = TestDir::new();
        if let Some(name) = name {
            fs::write(dir.file(name), "mine").unwrap();
        }
        let before = dir.files();
        let error = verify(dir.path()).unwrap_err();
        assert!(
            matches!(&error, TalaError::Storage { path, source, .. }
                if *path == dir.file("MANIFEST") && source.kind() == ErrorKind::NotFound),
            "{error}"
        );
        assert_eq!(stored_dim(dir.path()).unwrap(), None);
        let missing = verify(dir.file("missing")).unwrap_err();
        assert!(
            matches!(&missing, TalaError::Storage { path, source, .. }
                if *path == dir.file("missing") && source.kind() == ErrorKind::NotFound),
            "{missing}"
        );
        assert!(dir.files() == before);
    }
}

#[test]
fn a_store_without_a_lock_file_is_checked_without_one() {
    let dir = filled();
    fs::remove_file(dir.file("LOCK")).unwrap();
    let before = dir.files();
    let report = verify(dir.path()).unwrap();
    assert!(report.is_ok() && report.intents == 1, "{report}");
    assert!(dir.files() == before);
}

/// Also a store that lost all but its logs is one.
#[test]
fn a_lost_manifest_is_damage() {
    let dir = filled();
    fs::remove_file(dir.file("MANIFEST")).unwrap();
    let is_named = |error: &TalaError| matches!(error, TalaError::Corrupt { file, .. } if *file == dir.file("MANIFEST"));
    assert!(is_named(&verify(dir.path()).unwrap().damage[0]));
    assert!(is_named(&stored_dim(dir.path()).unwrap_err()));
    assert!(is_named(&StorageEngine::open(8, dir.path(), 10).unwrap_err()));
}

#[test]
fn records_of_another_dimension_are_damage() {
    let dir = filled();
    // An intact MANIFEST of a store of another dimension.
    let mut manifest = fs::read(dir.file("MANIFEST")).unwrap();
    manifest[12] = 7;
    let body = manifest.len() - 4;
    let crc = crc32c::crc32c(&manifest[..body]);
    manifest[body..].copy_from_slice(&crc.to_le_bytes());
    fs::write(dir.file("MANIFEST"), manifest).unwrap();

    let refused = StorageEngine::open(7, dir.path(), 10).unwrap_err();
    assert!(
        matches!(&refused, TalaError::Corrupt { file, .. } if *file == dir.file("log_000001.wal")),
        "{refused}"
    );
    let damage = verify(dir.path()).unwrap().damage;
    assert_eq!(damage.iter().map(ToString::to_string).collect::<Vec<_>>(), [refused.to_string()]);
    fs::remove_file(dir.file("MANIFEST")).unwrap();
}

#[test]
fn an_imported_log_that_is_missing_is_damage() {
    let dir = legacy();
    drop(StorageEngine::open(8, dir.path(), 10).unwrap());
    fs::rename(dir.file("current.wal"), dir.file("elsewhere")).unwrap();
    let is_named = |error: &TalaError| matches!(error, TalaError::Corrupt { file, .. } if *file == dir.file("current.wal"));
    let refused = StorageEngine::open(8, dir.path(), 10).unwrap_err();
    assert!(is_named(&refused), "{refused}");
    let report = verify(dir.path()).unwrap();
    assert!(report.damage.len() == 1 && is_named(&report.damage[0]), "{:?}", report.damage);
    assert_eq!(report.intents, 2);
    fs::rename(dir.file("elsewhere"), dir.file("current.wal")).unwrap();
}

#[test]
fn every_damaged_log_that_the_manifest_lists_is_named() {
    let dir = filled();
    for number in [2, 3] {
        let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
        engine.insert(intent(number)).unwrap();
        engine.close().unwrap();
    }
    let whole = dir.files();
    let damaged = ["log_000001.wal", "log_000002.wal"].map(|name| dir.file(name));
    damaged.iter().for_each(|log| fs::write(log, "").unwrap());
    let damage = verify(dir.path()).unwrap().damage;
    assert_eq!(damage.len(), 2, "{damage:?}");
    for log in damaged {
        assert!(
            damage
                .iter()
                .any(|error| { matches!(error, TalaError::Corrupt { file, .. } if *file == log) })
        );
    }
    dir.put(&whole);
}

#[test]
fn a_directory_of_the_original_is_checked_and_not_imported() {
    let dir = legacy();
    let before = dir.files();
    let report = verify(dir.path()).unwrap();
    assert!(report.is_ok(), "{:?}", report.damage);
    assert_eq!((report.dim, report.intents, report.records, report.warnings.len()), (8, 2, 2, 1));
    assert!(dir.files() == before);

    let mut bytes = before["current.wal"].clone();
    bytes[40] ^= 1;
    fs::write(dir.file("current.wal"), bytes).unwrap();
    let refused = StorageEngine::open(8, dir.path(), 10).unwrap_err();
    let damage = verify(dir.path()).unwrap().damage;
    assert_eq!(damage.iter().map(ToString::to_string).collect::<Vec<_>>(), [refused.to_string()]);
}
