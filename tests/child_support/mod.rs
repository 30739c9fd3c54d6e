//! Runs a test a second time as a process of its own, where something is scarce or forbidden.

// Each test program uses a part of this file.
#![allow(dead_code)]

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tala_core::{IntentStore, StopCause, StorageOperation, TalaError};
use tala_store::StorageEngine;

use crate::common::{EVER, TestDir, id, intent, is_same, outcome};

/// Names the directory for a test that was started again as a process of its own.
const CHILD_DIR: &str = "TALA_TEST_CHILD_DIR";

/// The directory of this process, where it is such a child.
pub fn child_dir() -> Option<PathBuf> {
    env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// This program, to run the one test `name` of `module` (its `module_path!()`) on `dir`, after `shell`
/// where that is not empty.
pub fn child(module: &str, name: &str, dir: &Path, shell: &str) -> Command {
    let program = env::current_exe().unwrap();
    // Tests are named without the program that they are in.
    let (_, module) = module.split_once("::").unwrap();
    let name = format!("{module}::{name}");
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{shell} exec \"$@\""), "sh"])
        .arg(program)
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir);
    command
}

/// `command` as what `program` with `args` starts.
pub fn under(program: &str, args: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(program);
    outer.args(args).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        outer.env(key, value.map_or_else(OsString::new, ToOwned::to_owned));
    }
    outer
}

/// `command` where it may mount, and nobody else sees what.
pub fn in_namespace(command: Command) -> Command {
    under("unshare", &["-rm"], &command)
}

/// Whether [`in_namespace`] works here; says so where it does not.
pub fn can_mount() -> bool {
    let dir = TestDir::new();
    let mut command = Command::new("unshare");
    command.args(["-rm", "mount", "-t", "tmpfs", "tala"]).arg(dir.path());
    works(&mut command, "no mount namespace can be made here")
}

/// Whether `command` succeeds; says why the test is skipped where it does not.
pub fn works(command: &mut Command, otherwise: &str) -> bool {
    let works = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !works {
        eprintln!("skipped: {otherwise}");
    }
    works
}

/// Runs `command`, which must succeed.
pub fn run(program: &str, args: &[&str], path: &Path) {
    let status = Command::new(program).args(args).arg(path).status().unwrap();
    assert!(status.success(), "{program} {args:?} {}: {status}", path.display());
}

/// Runs a child that prints how many intents it stored.
pub fn stored_by(mut child: Command) -> u64 {
    let output = child.stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{complaint}");
    let line = text.lines().find_map(|line| line.strip_prefix("stored "));
    line.unwrap_or_else(|| panic!("{text}\n{complaint}")).parse().unwrap()
}

/// What a child says at its end, for [`stored_by`].
pub fn tell_stored(count: u64) {
    println!("\nstored {count}");
}

/// Whether the engine ended because the operating system refused `operation`.
pub fn is_refused(
    error: &TalaError,
    operations: &[StorageOperation],
    is_reason: impl Fn(&std::io::Error) -> bool,
) -> bool {
    match error {
        TalaError::Stopped { cause, .. } => matches!(
            &**cause,
            StopCause::Failed(TalaError::Storage { operation, source, .. })
                if operations.contains(operation) && is_reason(source)
        ),
        _ => false,
    }
}

/// Inserts until the engine refuses, which must be for a reason that `is_due`, and checks what is
/// left of the engine: writes refuse with the cause, reads go on, nothing is half there. Closes it.
/// Returns how many intents there are: 0, 1, 2 and so on.
pub fn write_until_refused(engine: &StorageEngine, is_due: impl Fn(&TalaError) -> bool) -> u64 {
    let mut stored = engine.len() as u64;
    let error = loop {
        match engine.insert(intent(stored)) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 200_000, "it is never refused");
    };
    assert!(is_due(&error), "{error:?}");
    for error in [
        engine.insert(intent(stored)).unwrap_err(),
        engine.insert_batch(vec![intent(stored)]).unwrap_err(),
        engine.try_insert(intent(stored)).unwrap_err(),
        engine.attach_outcome(id(0), outcome(1)).unwrap_err(),
        engine.remove(id(0)).unwrap_err(),
        engine.sync().unwrap_err(),
        engine.flush().unwrap_err(),
        engine.wait_indexed().unwrap_err(),
    ] {
        assert!(is_due(&error), "{error:?}");
    }
    // Reads go on. A write that the log refused is not visible; one that was under way when another
    // thread failed may be.
    let len = engine.len() as u64;
    let is_of_log = matches!(&error, TalaError::Stopped { actor: "tala-wal", .. });
    assert!(len == stored || (!is_of_log && len == stored + 1), "{len} of {stored}: {error}");
    assert_eq!(engine.query_temporal(EVER).unwrap().len() as u64, len);
    check_stored(engine, stored);
    if stored > 0 {
        let query = intent(stored - 1).embedding;
        assert_eq!(engine.query_semantic(&query, 1).unwrap()[0].0, id(stored - 1));
    }
    let error = engine.close().unwrap_err();
    assert!(is_due(&error), "{error:?}");
    engine.close().unwrap();
    stored
}

/// Whether the first `stored` intents are there, bit for bit.
pub fn check_stored(engine: &StorageEngine, stored: u64) {
    for number in 0..stored {
        let found = engine.get(id(number)).unwrap().unwrap();
        assert!(is_same(&found, &intent(number)), "{found:?}");
    }
}

/// Whether `dir` opens with what was answered, the one that failed being there or not, and takes
/// writes again.
pub fn check_reopened(dir: &Path, stored: u64) {
    let engine = StorageEngine::open(crate::common::DIM, dir, 64).unwrap();
    let len = engine.len() as u64;
    assert!(len == stored || len == stored + 1, "{len} of {stored}");
    check_stored(&engine, stored);
    engine.insert(intent(1_000_000)).unwrap();
    engine.flush().unwrap();
    engine.close().unwrap();
    assert!(tala_store::verify(dir).unwrap().is_ok());
}

/// Names of the files in `dir`.
pub fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
