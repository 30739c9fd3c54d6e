//! The threads of an engine can be told apart from outside, and are gone with it. One test, since
//! it looks at all threads of its process.

mod common;

use std::{collections::BTreeSet, fs};

use common::{TestDir, intent};
use tala_core::IntentStore;
use tala_store::StorageEngine;

/// Names of this process' threads that are the engine's.
fn names() -> BTreeSet<String> {
    fs::read_dir("/proc/self/task")
        .unwrap()
        // A thread may end while the directory is read.
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .filter(|name| name.starts_with("tala-"))
        .collect()
}

#[test]
fn threads_have_names_and_end_with_their_engine() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(names(), BTreeSet::new());
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    engine.insert(intent(1)).unwrap();
    engine.flush().unwrap();
    let mut found = names();
    // A helper that prepares files may be there or not.
    found.remove("tala-prepare");
    assert_eq!(found, set(&["tala-flush", "tala-hnsw", "tala-wal"]));
    drop(engine);
    assert_eq!(names(), BTreeSet::new());

    let engine = StorageEngine::in_memory(8, 10);
    engine.insert(intent(1)).unwrap();
    engine.wait_indexed().unwrap();
    assert_eq!(names(), set(&["tala-hnsw", "tala-wal"]));
    engine.clone().close().unwrap();
    drop(engine);
    assert_eq!(names(), BTreeSet::new());
}
