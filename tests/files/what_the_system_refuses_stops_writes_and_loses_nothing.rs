//! No room, no inode, no descriptor, no permission, no directory any more: writers are told the
//! cause, reads go on, nothing that was answered is lost, and when the reason is gone the store
//! opens again.

use crate::child_support;
use std::{fs, io::ErrorKind, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::child_support::{
    can_mount, check_reopened, child, child_dir, in_namespace, is_refused, run, stored_by,
    tell_stored, under, works, write_until_refused,
};
use crate::common::{DIM, TestDir, intent};
use tala_core::{IntentStore, StorageOperation, TalaError};
use tala_store::{StorageEngine, verify};

/// Every operation that makes a name or gives it to a file.
const MAKING: [StorageOperation; 3] =
    [StorageOperation::Create, StorageOperation::Rename, StorageOperation::Open];

/// An engine whose log goes on in a new file, and which makes a segment, every so many intents.
fn rotating(dir: &Path, intents: usize) -> StorageEngine {
    StorageEngine::open(DIM, dir, intents).unwrap()
}

fn is_full(error: &TalaError) -> bool {
    let kinds = [ErrorKind::FileTooLarge, ErrorKind::StorageFull];
    is_refused(error, &[StorageOperation::Write], |source| kinds.contains(&source.kind()))
}

#[test]
fn a_file_that_cannot_grow() {
    if let Some(dir) = child_dir() {
        // The log alone grows: no segment is made.
        return tell_stored(write_until_refused(&rotating(&dir, 1_000_000), is_full));
    }
    let dir = TestDir::new();
    // A limit on the length of a file; without its signal it is an error of `write`.
    let limit = "trap '' XFSZ; ulimit -f 40;";
    let stored = stored_by(child(module_path!(), "a_file_that_cannot_grow", dir.path(), limit));
    assert!(stored > 50, "{stored}");
    check_reopened(dir.path(), stored);
}

/// In a mount namespace of its own, where the machine allows one.
#[test]
fn a_disk_that_is_full() {
    if let Some(dir) = child_dir() {
        let stored = write_until_refused(&rotating(&dir, 1_000_000), is_full);
        run("mount", &["-o", "remount,size=8m"], &dir);
        check_reopened(&dir, stored);
        return tell_stored(stored);
    }
    if !can_mount() {
        return;
    }
    let dir = TestDir::new();
    let mount = format!("mount -t tmpfs -o size=64k tala {} || exit 1;", dir.path().display());
    let child = child(module_path!(), "a_disk_that_is_full", dir.path(), &mount);
    assert!(stored_by(in_namespace(child)) > 50);
}

/// The same while segments are made: whichever thread it is that finds no room.
#[test]
fn a_disk_that_is_full_of_segments() {
    if let Some(dir) = child_dir() {
        let stored = write_until_refused(&rotating(&dir, 64), is_full);
        run("mount", &["-o", "remount,size=8m"], &dir);
        check_reopened(&dir, stored);
        return tell_stored(stored);
    }
    if !can_mount() {
        return;
    }
    for kilobytes in [96, 100, 104, 108] {
        let dir = TestDir::new();
        let path = dir.path().display();
        let mount = format!("mount -t tmpfs -o size={kilobytes}k tala {path} || exit 1;");
        let child = child(module_path!(), "a_disk_that_is_full_of_segments", dir.path(), &mount);
        assert!(stored_by(in_namespace(child)) > 64);
    }
}

#[test]
fn a_disk_without_a_free_inode() {
    if let Some(dir) = child_dir() {
        let is_due = |error: &TalaError| {
            is_refused(error, &MAKING, |source| source.kind() == ErrorKind::StorageFull)
        };
        let stored = write_until_refused(&rotating(&dir, 20), is_due);
        run("mount", &["-o", "remount,nr_inodes=100"], &dir);
        check_reopened(&dir, stored);
        return tell_stored(stored);
    }
    if !can_mount() {
        return;
    }
    // Of these the directory itself, LOCK, MANIFEST and the first log take one each.
    for inodes in 5..9 {
        let dir = TestDir::new();
        let path = dir.path().display();
        let mount = format!("mount -t tmpfs -o nr_inodes={inodes} tala {path} || exit 1;");
        let child = child(module_path!(), "a_disk_without_a_free_inode", dir.path(), &mount);
        assert!(stored_by(in_namespace(child)) >= 20);
    }
}

#[test]
fn a_process_with_too_many_open_files() {
    if let Some(dir) = child_dir() {
        let is_too_many = |source: &std::io::Error| source.raw_os_error() == Some(24);
        let engine = rotating(&dir, 20);
        for number in 0..10 {
            engine.insert(intent(number)).unwrap();
        }
        let mut files = Vec::new();
        while let Ok(file) = fs::File::open("/dev/null") {
            files.push(file);
        }
        let stored = write_until_refused(&engine, |error| is_refused(error, &MAKING, is_too_many));
        drop(engine);
        // Nor can it be opened as things are, and that is no damage.
        let before = child_support::names(Path::new("/proc/self/fd")).len();
        let refused = StorageEngine::open(DIM, &dir, 20).unwrap_err();
        assert!(
            matches!(&refused, TalaError::Storage { source, .. } if is_too_many(source)),
            "{refused}"
        );
        assert!(files.len() > 10 && before > 10);
        drop(files);
        check_reopened(&dir, stored);
        return tell_stored(stored);
    }
    let dir = TestDir::new();
    let child =
        child(module_path!(), "a_process_with_too_many_open_files", dir.path(), "ulimit -n 64;");
    assert!(stored_by(child) >= 10);
}

#[test]
fn a_directory_that_lost_its_permission() {
    if let Some(dir) = child_dir() {
        let engine = rotating(&dir, 20);
        engine.insert(intent(0)).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o500)).unwrap();
        let is_due = |error: &TalaError| {
            is_refused(error, &MAKING, |source| source.kind() == ErrorKind::PermissionDenied)
        };
        let stored = write_until_refused(&engine, is_due);
        drop(engine);
        let refused = StorageEngine::open(DIM, &dir, 20).unwrap_err();
        assert!(
            matches!(&refused, TalaError::Storage { operation: StorageOperation::Create, source, .. }
                if source.kind() == ErrorKind::PermissionDenied),
            "{refused}"
        );
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        check_reopened(&dir, stored);
        return tell_stored(stored);
    }
    // Mode bits mean nothing to root; in a user namespace where it is nobody, they do.
    let otherwise = "no user namespace can be made here";
    if !works(Command::new("unshare").args(["-U", "true"]), otherwise) {
        return;
    }
    let dir = TestDir::new();
    let child = child(module_path!(), "a_directory_that_lost_its_permission", dir.path(), "");
    assert!(stored_by(under("unshare", &["-U"], &child)) >= 20);
}

/// Everything is gone then, and nothing can be done about it: but it is told, and the same place
/// can be used for a new store.
#[test]
fn a_directory_that_is_removed_under_the_engine() {
    let parent = TestDir::new();
    let dir = parent.file("store");
    let engine = rotating(&dir, 20);
    engine.insert(intent(0)).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let is_due = |error: &TalaError| {
        is_refused(error, &MAKING, |source| source.kind() == ErrorKind::NotFound)
    };
    assert!(write_until_refused(&engine, is_due) >= 20);
    drop(engine);
    assert!(!dir.exists(), "it is not made again behind the back of who removed it");
    let engine = rotating(&dir, 20);
    assert!(engine.is_empty());
    engine.insert(intent(7)).unwrap();
    engine.close().unwrap();
    assert!(verify(&dir).unwrap().is_ok());
}

/// As if it had been removed; but everything that was answered is where it was moved to.
#[test]
fn a_directory_that_is_moved_under_the_engine() {
    let parent = TestDir::new();
    let (dir, other) = (parent.file("store"), parent.file("moved"));
    let engine = rotating(&dir, 20);
    engine.insert(intent(0)).unwrap();
    fs::rename(&dir, &other).unwrap();
    let is_due = |error: &TalaError| {
        is_refused(error, &MAKING, |source| source.kind() == ErrorKind::NotFound)
    };
    // The lock goes with the directory.
    assert!(matches!(verify(&other), Err(TalaError::Locked { .. })));
    let stored = write_until_refused(&engine, is_due);
    assert!(stored >= 20 && !dir.exists());
    drop(engine);
    check_reopened(&other, stored);
}
