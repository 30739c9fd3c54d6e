//! A pipe in the place of a file once made opening wait for a writer that never came, and a device
//! was read as an empty log.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::common::{TestDir, intent};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tala_core::{IntentStore, TalaError};
use tala_store::{StorageEngine, replay_wal, stored_dim, verify};

#[derive(Clone, Copy, Debug)]
enum Kind {
    Pipe,
    Socket,
    Device,
    Directory,
}

const KINDS: [Kind; 4] = [Kind::Pipe, Kind::Socket, Kind::Device, Kind::Directory];

fn make(kind: Kind, path: &Path) {
    match kind {
        Kind::Pipe => mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
        Kind::Socket => drop(UnixListener::bind(path).unwrap()),
        Kind::Device => symlink("/dev/null", path).unwrap(),
        Kind::Directory => fs::create_dir(path).unwrap(),
    }
}

/// What `call` returns. It runs on a thread of its own, so that one that waits for ever fails the
/// test.
fn in_time<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(call()));
    receiver.recv_timeout(Duration::from_secs(20)).expect("it does not return")
}

fn assert_names(error: &TalaError, path: &Path, kind: Kind) {
    assert!(
        matches!(error, TalaError::Storage { path: named, .. } if named == path),
        "{kind:?} as {}: {error}",
        path.display()
    );
}

/// A directory with a MANIFEST, a listed segment and a live log; or one of the original.
fn store(name: &str) -> TestDir {
    let dir = TestDir::new();
    if name == "current.wal" {
        return dir;
    }
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    engine.insert(intent(1)).unwrap();
    engine.flush().unwrap();
    engine.close().unwrap();
    fs::remove_file(dir.file(name)).unwrap();
    dir
}

#[test]
fn in_the_place_of_a_file_of_the_store() {
    for name in ["MANIFEST", "LOCK", "log_000002.wal", "segment_000001.tbf", "current.wal"] {
        for kind in KINDS {
            let dir = store(name);
            let path = dir.file(name);
            make(kind, &path);
            let (for_open, for_verify) = (dir.path().to_owned(), dir.path().to_owned());
            let opened = in_time(move || StorageEngine::open(8, for_open, 10).map(drop));
            assert_names(&opened.unwrap_err(), &path, kind);
            let verified = in_time(move || verify(for_verify));
            assert_names(&verified.unwrap().damage[0], &path, kind);
            // The directory is no store any more that could be verified when it goes.
            let _ = fs::remove_file(dir.file("MANIFEST"));
            let _ = fs::remove_dir(dir.file("MANIFEST"));
        }
    }
}

#[test]
fn where_only_a_part_is_read() {
    for kind in KINDS {
        let dir = TestDir::new();
        let path = dir.file("current.wal");
        make(kind, &path);
        let (for_dim, for_replay): (PathBuf, PathBuf) = (dir.path().to_owned(), path.clone());
        assert_names(&in_time(move || stored_dim(for_dim)).unwrap_err(), &path, kind);
        let error = in_time(move || replay_wal(for_replay)).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{kind:?}: {error}");
    }
}

#[test]
fn a_link_to_a_file_is_as_good_as_the_file() {
    let dir = TestDir::new();
    let elsewhere = TestDir::new();
    drop(StorageEngine::open(8, dir.path(), 10).unwrap());
    fs::rename(dir.file("MANIFEST"), elsewhere.file("manifest")).unwrap();
    symlink(elsewhere.file("manifest"), dir.file("MANIFEST")).unwrap();
    drop(StorageEngine::open(8, dir.path(), 10).unwrap());
}
