//! Directories that an engine cannot have: the error says why, and nothing in them changes.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    path::Path,
    process::Stdio,
};

use crate::child_support::{can_mount, child, child_dir, in_namespace, stored_by, tell_stored};
use crate::common::{Model, TestDir, intent};
use tala_core::{IntentStore, StorageOperation, TalaError};
use tala_store::{StorageEngine, stored_dim, verify};

fn error_of(dir: &Path) -> TalaError {
    match StorageEngine::open(8, dir, 10) {
        Ok(_) => panic!("{} was opened", dir.display()),
        Err(error) => error,
    }
}

fn filled() -> (TestDir, Model) {
    let dir = TestDir::new();
    let mut model = Model::default();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    for number in 0..25 {
        engine.insert(intent(number)).unwrap();
        model.insert(intent(number));
    }
    (dir, model)
}

#[test]
fn a_file_in_the_place_of_a_directory() {
    let parent = TestDir::new();
    let file = parent.file("file");
    fs::write(&file, b"precious").unwrap();
    for dir in [file.clone(), file.join("below")] {
        let error = error_of(&dir);
        assert!(
            matches!(&error, TalaError::Storage { operation: StorageOperation::Open, path, source }
                if *path == dir && source.kind() == ErrorKind::NotADirectory),
            "{error}"
        );
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

/// Mode bits mean nothing to root, who may run the tests, so the place is one where nobody may
/// create anything.
#[test]
fn a_place_without_permission() {
    let dir = Path::new("/proc/tala-store");
    let error = error_of(dir);
    assert!(
        matches!(&error, TalaError::Storage { operation: StorageOperation::Create, path, .. }
            if path == dir),
        "{error}"
    );
}

#[test]
fn another_dimension() {
    let (dir, model) = filled();
    let before = dir.files();
    for got in [1, 7, 9, 16] {
        let error = StorageEngine::open(got, dir.path(), 10).err().unwrap();
        assert!(
            matches!(error, TalaError::DimensionMismatch { expected: 8, got: found } if found == got),
            "{error}"
        );
    }
    assert!(dir.files() == before);
    assert_eq!(stored_dim(dir.path()).unwrap(), Some(8));
    model.check(&StorageEngine::open(8, dir.path(), 10).unwrap());
}

#[test]
fn in_use_in_this_process() {
    let (dir, model) = filled();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    let before = dir.files();
    for error in [error_of(dir.path()), verify(dir.path()).unwrap_err()] {
        assert!(matches!(&error, TalaError::Locked { path } if path == dir.path()), "{error}");
    }
    assert!(dir.files() == before);
    model.check(&engine);
}

#[test]
fn in_use_by_another_process_until_that_dies() {
    if let Some(dir) = child_dir() {
        let engine = StorageEngine::open(8, dir, 10).unwrap();
        engine.insert(intent(100)).unwrap();
        println!("\nopen");
        // Killed while it waits here.
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    let (dir, mut model) = filled();
    let mut child =
        child(module_path!(), "in_use_by_another_process_until_that_dies", dir.path(), "")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut told = Vec::new();
    while !told.ends_with(b"\nopen\n") {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        told.extend(byte);
    }
    for error in [error_of(dir.path()), verify(dir.path()).unwrap_err()] {
        assert!(matches!(&error, TalaError::Locked { path } if path == dir.path()), "{error}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    model.insert(intent(100));
    model.check(&engine);
}

#[test]
fn a_disk_that_is_read_only_is_refused_and_can_be_verified() {
    let name = "a_disk_that_is_read_only_is_refused_and_can_be_verified";
    if let Some(dir) = child_dir() {
        let error = error_of(&dir);
        assert!(
            matches!(&error, TalaError::Storage { source, .. }
                if source.kind() == ErrorKind::ReadOnlyFilesystem),
            "{error}"
        );
        let report = verify(&dir).unwrap();
        assert!(report.is_ok(), "{report}");
        tell_stored(report.intents);
        return;
    }
    if !can_mount() {
        return;
    }
    let (dir, model) = filled();
    let before = dir.files();
    let path = dir.path().display();
    let mount = format!("mount --bind {path} {path} && mount -o remount,bind,ro {path} || exit 1;");
    assert_eq!(stored_by(in_namespace(child(module_path!(), name, dir.path(), &mount))), 25);
    assert!(dir.files() == before);
    model.check(&StorageEngine::open(8, dir.path(), 10).unwrap());
}

/// Opening once counted on from a number after which there is none.
#[test]
fn numbers_that_nothing_counts_on_from_are_not_ours() {
    let last_of_ours = i64::MAX;
    let names = [
        format!("segment_{}.tbf", u64::MAX),
        format!("log_{}.wal", u64::MAX),
        format!("log_{last_of_ours}.wal"),
    ];
    for name in names {
        let dir = TestDir::new();
        drop(StorageEngine::open(8, dir.path(), 10).unwrap());
        fs::write(dir.file(&name), b"mine").unwrap();
        for number in 0..2 {
            let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
            engine.insert(intent(number)).unwrap();
            engine.flush().unwrap();
            engine.close().unwrap();
        }
        assert_eq!(fs::read(dir.file(&name)).unwrap(), b"mine");
    }
}

/// Files that are not the engine's stay as they are.
#[test]
fn a_directory_of_something_else_is_left_alone() {
    let dir = TestDir::new();
    fs::File::create(dir.file("notes.txt")).unwrap().write_all(b"mine").unwrap();
    fs::create_dir(dir.file("more")).unwrap();
    let engine = StorageEngine::open(8, dir.path(), 2).unwrap();
    for number in 0..5 {
        engine.insert(intent(number)).unwrap();
    }
    drop(engine);
    drop(StorageEngine::open(8, dir.path(), 2).unwrap());
    assert_eq!(fs::read(dir.file("notes.txt")).unwrap(), b"mine");
    assert!(dir.file("more").is_dir());
}
