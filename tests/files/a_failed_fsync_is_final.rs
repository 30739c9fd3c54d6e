//! An fsync that failed is not asked again: its pages may be gone from the disk and still be seen
//! through the page cache. Writers are told, reads go on, and opened again the store has what was
//! answered.

use crate::child_support;
use std::{fs, path::Path, process::Command};

use crate::child_support::{
    check_reopened, child, child_dir, is_refused, run, stored_by, tell_stored, under, works,
    write_until_refused,
};
use crate::common::{DIM, TestDir};
use tala_core::{StorageOperation, TalaError};
use tala_store::StorageEngine;

/// The numbers of EIO and ENOSPC on Linux. A disk that is a file hands on what that file's disk said.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn is_lost(error: &TalaError) -> bool {
    let codes = [Some(EIO), Some(ENOSPC)];
    is_refused(error, &[StorageOperation::Sync], |source| codes.contains(&source.raw_os_error()))
}

/// The `N`-th fdatasync of a thread fails and does nothing.
#[test]
fn an_fdatasync_that_is_made_to_fail() {
    let name = "an_fdatasync_that_is_made_to_fail";
    if let Some(dir) = child_dir() {
        let engine = StorageEngine::open(DIM, &dir, 30).unwrap();
        let stored = write_until_refused(&engine, |error| {
            is_refused(error, &[StorageOperation::Sync], |source| {
                source.raw_os_error() == Some(EIO)
            })
        });
        return tell_stored(stored);
    }
    let strace = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"];
    let mut probe = Command::new("strace");
    probe.args(strace).args(["-e", "inject=fdatasync:error=EIO:when=1", "true"]);
    if !works(&mut probe, "strace cannot trace here") {
        return;
    }
    // One at the first write, some in the middle, one in the round that ends the log.
    for when in [1, 2, 17, 30, 31, 32, 75] {
        let dir = TestDir::new();
        let inject = format!("inject=fdatasync:error=EIO:when={when}");
        let args = [&strace[..], &["-e", &inject]].concat();
        let stored =
            stored_by(under("strace", &args, &child(module_path!(), name, dir.path(), "")));
        check_reopened(dir.path(), stored);
        // Each insert of one caller is one fdatasync of the log's writer, and rotations have some
        // of their own.
        assert!(stored < when, "{stored} inserts were answered by {when} fdatasyncs");
        assert!(stored + 8 > when, "{stored} inserts before fdatasync {when}");
    }
}

/// A file system on a disk that has less room than it says: what the page cache took is refused by
/// fdatasync, and its pages are dropped. The file system has a journal: without one, and with blocks
/// smaller than pages, Linux loses the block of a sync that it had said was done, whoever wrote it.
#[test]
fn a_disk_that_loses_pages() {
    let name = "a_disk_that_loses_pages";
    if let Some(dir) = child_dir() {
        let (backing, image, disk) =
            (dir.join("backing"), dir.join("backing/image"), dir.join("disk"));
        let options = ["-o", "loop,errors=continue", image.to_str().unwrap()];
        run("mount", &options, &disk);
        let store = disk.join("store");
        let stored = {
            let engine = StorageEngine::open(DIM, &store, 1_000_000).unwrap();
            fill_backing(&backing);
            write_until_refused(&engine, is_lost)
        };
        // The file system has given up as well, until it is mounted again.
        let error = StorageEngine::open(DIM, &store, 1_000_000).unwrap_err();
        assert!(matches!(error, TalaError::Storage { .. }), "{error}");
        run("umount", &[], &disk);
        fs::remove_file(backing.join(BALLAST)).unwrap();
        run("mount", &options, &disk);
        let engine = StorageEngine::open(DIM, &store, 1_000_000).unwrap();
        let len = engine.len() as u64;
        assert!((stored..=stored + 1).contains(&len), "{len} of {stored}");
        child_support::check_stored(&engine, len);
        drop(engine);
        run("umount", &[], &disk);
        return tell_stored(stored);
    }
    let otherwise = "only root can make a disk of a file";
    let mut probe = Command::new("unshare");
    probe.args(["-m", "losetup", "-f"]);
    if !works(&mut probe, otherwise) || !works(Command::new("mkfs.ext4").arg("-V"), otherwise) {
        return;
    }
    let dir = TestDir::new();
    fs::create_dir(dir.file("backing")).unwrap();
    fs::create_dir(dir.file("disk")).unwrap();
    let path = dir.path().display();
    let shell = format!(
        "mount -t tmpfs -o size=24m tala {path}/backing && truncate -s 64M {path}/backing/image \
         && mkfs.ext4 -q {path}/backing/image || exit 1;"
    );
    let child = child(module_path!(), name, dir.path(), &shell);
    let mut probe = under("unshare", &["-m"], &Command::new("true"));
    if works(&mut probe, otherwise) {
        assert!(stored_by(under("unshare", &["-m"], &child)) > 0);
    }
}

/// The name of what takes the room.
const BALLAST: &str = "ballast";

/// Leaves some hundred kilobytes in the file system that backs the disk.
fn fill_backing(backing: &Path) {
    let ballast = vec![1_u8; 64 << 10];
    let mut file = fs::File::create(backing.join(BALLAST)).unwrap();
    while std::io::Write::write_all(&mut file, &ballast).is_ok() {}
    let len = file.metadata().unwrap().len();
    file.set_len(len - (256 << 10)).unwrap();
}
