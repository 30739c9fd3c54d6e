//! Directories that an engine cannot have: the error says why, and nothing in them changes.

mod common;

use std::{
    env, fs,
    io::{ErrorKind, Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use common::{Model, TestDir, id, intent};
use tala_core::{IntentStore, StopCause, StorageOperation, TalaError};
use tala_store::{StorageEngine, stored_dim, verify};

/// Names the directory for a test that was started again as a process of its own.
const CHILD_DIR: &str = "TALA_TEST_CHILD_DIR";

/// This program, to run the one test `name` on `dir`, after `shell` where that is not empty.
fn child(name: &str, dir: &Path, shell: &str) -> Command {
    let program = env::current_exe().unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{shell} exec \"$@\""), "sh"])
        .arg(program)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir);
    command
}

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
    if let Some(dir) = env::var_os(CHILD_DIR) {
        let engine = StorageEngine::open(8, dir, 10).unwrap();
        engine.insert(intent(100)).unwrap();
        println!("\nopen");
        // Killed while it waits here.
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    let (dir, mut model) = filled();
    let mut child = child("in_use_by_another_process_until_that_dies", dir.path(), "")
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
    let error = error_of(dir.path());
    assert!(matches!(&error, TalaError::Locked { path } if path == dir.path()), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    model.insert(intent(100));
    model.check(&engine);
}

/// Writes until the disk is full, in whichever way, and checks what is left of the engine.
fn fill(dir: &Path) -> u64 {
    let engine = StorageEngine::open(8, dir, 1_000_000).unwrap();
    let mut stored = engine.len() as u64;
    let error = loop {
        match engine.insert(intent(stored)) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100_000, "the disk is never full");
    };
    let is_full = |error: &TalaError| match error {
        TalaError::Stopped { actor: "tala-wal", cause } => matches!(
            &**cause,
            StopCause::Failed(TalaError::Storage { operation: StorageOperation::Write, path, source })
                if path.extension().is_some_and(|extension| extension == "wal")
                    && matches!(source.kind(), ErrorKind::FileTooLarge | ErrorKind::StorageFull)
        ),
        _ => false,
    };
    assert!(is_full(&error), "{error:?}");
    for error in [
        engine.insert(intent(stored)).unwrap_err(),
        engine.attach_outcome(id(0), common::outcome(1)).unwrap_err(),
        engine.remove(id(0)).unwrap_err(),
        engine.sync().unwrap_err(),
        engine.flush().unwrap_err(),
        engine.wait_indexed().unwrap_err(),
    ] {
        assert!(is_full(&error), "{error:?}");
    }
    // Reads go on, and what failed is not half visible.
    assert_eq!(engine.get(id(stored)).unwrap(), None);
    assert!(engine.get(id(stored - 1)).unwrap().is_some());
    assert_eq!(engine.query_temporal(common::EVER).unwrap().len() as u64, stored);
    let query = intent(stored - 1).embedding;
    assert_eq!(engine.query_semantic(&query, 1).unwrap()[0].0, id(stored - 1));
    assert!(is_full(&engine.close().unwrap_err()));
    engine.close().unwrap();
    stored
}

/// What was answered is there; the one that failed may or may not be.
fn check_filled(dir: &Path, stored: u64) {
    let engine = StorageEngine::open(8, dir, 1_000_000).unwrap();
    let len = engine.len() as u64;
    assert!(len == stored || len == stored + 1, "{len} of {stored}");
    for number in 0..stored {
        let found = engine.get(id(number)).unwrap().unwrap();
        assert!(common::is_same(&found, &intent(number)));
    }
    engine.insert(intent(1_000_000)).unwrap();
}

/// Runs a child that prints how many intents it stored.
fn stored_by(mut child: Command) -> u64 {
    let output = child.stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{complaint}");
    let line = text.lines().find_map(|line| line.strip_prefix("stored ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn a_log_that_cannot_grow_stops_the_writes_and_keeps_what_was_answered() {
    let name = "a_log_that_cannot_grow_stops_the_writes_and_keeps_what_was_answered";
    if let Some(dir) = env::var_os(CHILD_DIR) {
        println!("\nstored {}", fill(Path::new(&dir)));
        return;
    }
    let dir = TestDir::new();
    // A limit on the length of a file; without its signal it is an error of `write`.
    let stored = stored_by(child(name, dir.path(), "trap '' XFSZ; ulimit -f 40;"));
    assert!(stored > 50, "{stored}");
    check_filled(dir.path(), stored);
}

/// In a mount namespace of its own, where the machine allows one.
#[test]
fn a_full_disk_stops_the_writes_and_keeps_what_was_answered() {
    let name = "a_full_disk_stops_the_writes_and_keeps_what_was_answered";
    if let Some(dir) = env::var_os(CHILD_DIR) {
        let dir = Path::new(&dir);
        let stored = fill(dir);
        let mut remount = Command::new("mount");
        remount.args(["-o", "remount,size=8m"]).arg(dir);
        assert!(remount.status().unwrap().success());
        check_filled(dir, stored);
        assert!(verify(dir).unwrap().is_ok());
        println!("\nstored {stored}");
        return;
    }
    if !can_mount() {
        eprintln!("skipped: no mount namespace can be made here");
        return;
    }
    let dir = TestDir::new();
    let mount = format!("mount -t tmpfs -o size=64k tala {} || exit 1;", dir.path().display());
    assert!(stored_by(in_namespace(child(name, dir.path(), &mount))) > 50);
}

#[test]
fn a_disk_that_is_read_only_is_refused_and_can_be_verified() {
    let name = "a_disk_that_is_read_only_is_refused_and_can_be_verified";
    if let Some(dir) = env::var_os(CHILD_DIR) {
        let error = error_of(Path::new(&dir));
        assert!(
            matches!(&error, TalaError::Storage { source, .. }
                if source.kind() == ErrorKind::ReadOnlyFilesystem),
            "{error}"
        );
        let report = verify(&dir).unwrap();
        assert!(report.is_ok(), "{report}");
        println!("\nstored {}", report.intents);
        return;
    }
    if !can_mount() {
        eprintln!("skipped: no mount namespace can be made here");
        return;
    }
    let (dir, model) = filled();
    let before = dir.files();
    let path = dir.path().display();
    let mount = format!("mount --bind {path} {path} && mount -o remount,bind,ro {path} || exit 1;");
    assert_eq!(stored_by(in_namespace(child(name, dir.path(), &mount))), 25);
    assert!(dir.files() == before);
    model.check(&StorageEngine::open(8, dir.path(), 10).unwrap());
}

fn in_namespace(child: Command) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-rm"]).arg(child.get_program()).args(child.get_args());
    for (key, value) in child.get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    command
}

fn can_mount() -> bool {
    let dir = TestDir::new();
    let mut command = Command::new("unshare");
    command.args(["-rm", "mount", "-t", "tmpfs", "tala"]).arg(dir.path());
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
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
