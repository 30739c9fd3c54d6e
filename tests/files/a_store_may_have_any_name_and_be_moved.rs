//! A store is its directory, whatever that is called and wherever it is: nothing in it says where.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::Path,
};

use crate::common::{DIM, Model, TestDir, id, intent, outcome};
use tala_core::{IntentStore, TalaError};
use tala_store::{StorageEngine, stored_dim, verify};

/// Opens `dir`, checks it, writes a little of everything, and closes it.
fn live_in(dir: &Path, model: &mut Model, from: u64) {
    let engine = StorageEngine::open(DIM, dir, 10).unwrap();
    model.check(&engine);
    for number in from..from + 25 {
        engine.insert(intent(number)).unwrap();
        model.insert(intent(number));
    }
    engine.attach_outcome(id(from), outcome(from)).unwrap();
    model.attach(id(from), outcome(from));
    engine.remove(id(from + 1)).unwrap();
    model.remove(id(from + 1));
    model.check(&engine);
    engine.close().unwrap();
    assert!(verify(dir).unwrap().is_ok());
    assert_eq!(stored_dim(dir).unwrap(), Some(DIM));
}

#[test]
fn names_with_spaces_and_without_unicode() {
    let parent = TestDir::new();
    let names: [&[u8]; 6] = [
        b"with  spaces ",
        b"new\nline",
        b"not \xff\xfe UTF-8 \x80",
        "ünïcödé 日本".as_bytes(),
        b"-rf",
        &[b'n'; 255],
    ];
    for name in names {
        let dir = parent.path().join(OsStr::from_bytes(name));
        let mut model = Model::default();
        live_in(&dir, &mut model, 0);
        live_in(&dir, &mut model, 100);
        // And errors can name it.
        let error = StorageEngine::open(DIM + 1, &dir, 10).unwrap_err();
        assert!(matches!(error, TalaError::DimensionMismatch { .. }), "{error}");
        let engine = StorageEngine::open(DIM, &dir, 10).unwrap();
        let error = StorageEngine::open(DIM, &dir, 10).unwrap_err();
        assert!(matches!(&error, TalaError::Locked { path } if *path == dir), "{error}");
        assert!(!error.to_string().is_empty());
        drop(engine);
    }
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), names.len(), "nothing beside them");
}

#[test]
fn a_link_to_a_directory_is_that_directory() {
    let parent = TestDir::new();
    let (dir, link) = (parent.file("store"), parent.file("link"));
    let mut model = Model::default();
    fs::create_dir(&dir).unwrap();
    symlink(&dir, &link).unwrap();
    live_in(&link, &mut model, 0);
    live_in(&dir, &mut model, 100);
    // Under either name there is one lock.
    let engine = StorageEngine::open(DIM, &link, 10).unwrap();
    for name in [&dir, &link] {
        let error = StorageEngine::open(DIM, name, 10).unwrap_err();
        assert!(matches!(&error, TalaError::Locked { path } if path == name), "{error}");
    }
    drop(engine);
    // A link that is turned elsewhere while nobody has it open is another store.
    fs::remove_file(&link).unwrap();
    symlink(parent.file("other"), &link).unwrap();
    fs::create_dir(parent.file("other")).unwrap();
    assert!(StorageEngine::open(DIM, &link, 10).unwrap().is_empty());
    live_in(&dir, &mut model, 200);
}

#[test]
fn a_store_may_be_moved_and_copied_between_two_openings() {
    let parent = TestDir::new();
    let mut model = Model::default();
    let mut dir = parent.file("0");
    for number in 1..5 {
        live_in(&dir, &mut model, number * 100);
        let next = parent.file(&number.to_string());
        fs::rename(&dir, &next).unwrap();
        assert!(!dir.exists());
        dir = next;
    }
    let copy = parent.file("copy");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let mut of_copy = model.clone();
    live_in(&copy, &mut of_copy, 900);
    live_in(&dir, &mut model, 800);
}
