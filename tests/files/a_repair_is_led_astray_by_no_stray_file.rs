//! What lies about in a damaged store, or in its name, does not make a repair lose what is intact, or
//! write where it must not.

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc};

use crate::common::{DIM, EVER, Files, TestDir, id, intent};
use crate::simulated::{EACCES, EIO, ELOOP, ENOMEM, SimDisk};
use tala_core::{IntentId, IntentStore, TalaError};
use tala_store::{
    RepairReport, StorageEngine, repair,
    rooms::{Disk, repair_on},
    verify,
};

/// The files of a store with these intents, whose process was killed in its opening number `openings`.
fn killed(numbers: std::ops::Range<u64>, openings: usize) -> Files {
    let dir = TestDir::new();
    for _ in 1..openings {
        StorageEngine::open(DIM, dir.path(), 100).unwrap().close().unwrap();
    }
    let engine = StorageEngine::open(DIM, dir.path(), 100).unwrap();
    for number in numbers {
        engine.insert(intent(number)).unwrap();
    }
    let files = dir.files();
    engine.close().unwrap();
    files
}

fn repaired(files: &Files) -> (RepairReport, Vec<IntentId>) {
    let old = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(old.path().join(name), bytes).unwrap();
    }
    let new = TestDir::in_memory();
    let report = repair(old.path(), new.path()).unwrap();
    let engine = StorageEngine::open(DIM, new.path(), 100).unwrap();
    let mut ids: Vec<_> = engine.query_temporal(EVER).unwrap().iter().map(|row| row.id).collect();
    ids.sort();
    (report, ids)
}

/// Its numbers begin again where those of the log before it are proven to have been synced: it is no
/// reason to leave those out.
#[test]
fn a_log_of_another_store_takes_nothing_away() {
    let mut files = killed(1..21, 1);
    let stray = killed(100..102, 3);
    let name = "log_000003.wal";
    files.insert(name.to_owned(), stray[name].clone());
    let (report, ids) = repaired(&files);
    let lost: Vec<u64> = (1..21).filter(|number| !ids.contains(&id(*number))).collect();
    assert!(lost.is_empty(), "{lost:?} are lost: {report:?}");
    assert!(report.doubts.iter().any(|doubt| doubt.contains(name)), "{report:?}");
}

#[test]
fn a_log_that_was_set_aside_is_named() {
    let mut files = killed(1..3, 1);
    let name = "log_000009.wal.torn";
    files.insert(name.to_owned(), b"part of a write".to_vec());
    let (report, ids) = repaired(&files);
    assert_eq!(ids, [id(1), id(2)]);
    assert!(report.doubts.iter().any(|doubt| doubt.contains(name)), "{report:?}");
}

#[test]
fn a_detour_over_a_missing_directory_does_not_lead_into_the_old_store() {
    let home = tempfile::tempdir().unwrap();
    let old = home.path().join("old");
    fs::create_dir(&old).unwrap();
    for (name, bytes) in killed(1..3, 1) {
        fs::write(old.join(name), bytes).unwrap();
    }
    let entries = || fs::read_dir(&old).unwrap().count();
    let before = entries();
    for to in ["missing/../old/new", "missing/below/../../old/new", "old/../old/new"] {
        let error = repair(&old, home.path().join(to)).unwrap_err();
        assert!(matches!(error, TalaError::InvalidInput { field: "to", .. }), "{to}: {error}");
    }
    assert_eq!((entries(), home.path().join("missing").exists()), (before, false));
}

/// Somebody made the directory and did not make that durable; the new store must not be lost with it.
#[test]
fn a_new_directory_that_was_there_is_made_durable() {
    let disk = SimDisk::new();
    for (name, bytes) in killed(1..6, 1) {
        disk.put(&Path::new("/old").join(name), &bytes);
    }
    let new = Path::new("/new");
    disk.create_dir(new).unwrap();
    let report = repair_on(Arc::new(disk.clone()), Path::new("/old"), new).unwrap();
    assert_eq!(report.intents, 5);
    let left = disk.volume().cut(1, 0);
    assert!(left.entry(&new.join("MANIFEST")).is_some(), "{}", left.describe());
}

/// As every other file that is none, it counts as lost.
#[test]
fn a_directory_in_the_place_of_the_manifest_is_a_lost_manifest() {
    let mut files = killed(1..6, 1);
    files.remove("MANIFEST").unwrap();
    let old = TestDir::of(&files);
    fs::create_dir(old.file("MANIFEST")).unwrap();
    let new = TestDir::in_memory();
    let report = repair(old.path(), new.path()).unwrap();
    assert_eq!((report.intents, report.lost.len()), (5, 1), "{report:?}");
    assert!(report.lost[0].file.ends_with("MANIFEST"));
    fs::remove_dir(old.file("MANIFEST")).unwrap();
}

/// Nobody can hold such a lock, so nobody writes to the store.
#[test]
fn what_stands_in_the_place_of_the_lock_stops_nothing() {
    let make: [fn(&Path); 3] = [
        |path| fs::create_dir(path).unwrap(),
        |path| symlink("/dev/null", path).unwrap(),
        |path| symlink(path.file_name().unwrap(), path).unwrap(),
    ];
    for make in make {
        let mut files = killed(1..6, 1);
        files.remove("LOCK").unwrap();
        let old = tempfile::tempdir().unwrap();
        for (name, bytes) in &files {
            fs::write(old.path().join(name), bytes).unwrap();
        }
        let lock = old.path().join("LOCK");
        make(&lock);
        let new = TestDir::in_memory();
        let report = repair(old.path(), new.path()).unwrap();
        assert!(report.intents == 5 && report.is_complete(), "{report:?}");
        let is_told = |doubt: &String| doubt.contains("LOCK") && doubt.contains("nobody can hold");
        assert!(report.doubts.iter().any(is_told), "{report:?}");
        let checked = verify(old.path()).unwrap();
        assert_eq!(checked.intents, 5, "{checked:?}");
        let [TalaError::Storage { path, .. }] = &checked.damage[..] else { panic!("{checked:?}") };
        assert_eq!(*path, lock);
    }
}

/// Whatever the reason, the other files can be.
#[test]
fn a_file_that_cannot_be_read_is_lost_alone() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(DIM, dir.path(), 100).unwrap();
    (1..4).for_each(|number| assert!(engine.insert(intent(number)).is_ok()));
    engine.flush().unwrap();
    (4..6).for_each(|number| assert!(engine.insert(intent(number)).is_ok()));
    engine.close().unwrap();
    let cases = [("segment_000001.tbf", 2), ("log_000002.wal", 3), ("MANIFEST", 5)];
    for (name, left) in cases {
        for errno in [EIO, EACCES, ELOOP, ENOMEM] {
            let disk = SimDisk::new();
            for (name, bytes) in dir.files() {
                disk.put(&Path::new("/old").join(name), &bytes);
            }
            disk.fail_open_of(name, errno);
            let report = repair_on(Arc::new(disk), Path::new("/old"), Path::new("/new")).unwrap();
            let [lost] = &report.lost[..] else { panic!("{name}, {errno}: {report:?}") };
            let reason = std::io::Error::from_raw_os_error(errno).to_string();
            assert!(lost.file.ends_with(name) && lost.what.contains(&reason), "{lost}");
            assert_eq!(report.intents, left, "{name}, {errno}: {report:?}");
        }
    }
}
