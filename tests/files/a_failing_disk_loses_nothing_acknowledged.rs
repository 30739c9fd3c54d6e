//! A disk that refuses one operation of a store, each in turn and each in every way: whoever writes is
//! told the cause, nothing acknowledged is lost, reads go on, and when the reason is gone a new open
//! finds everything.

use crate::common;
use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::common::{DIM, Model, id, intent};
use crate::crash::{
    Allowed, Run, STORE, Scenario, Step, Step::*, check, check_what_is_told, in_parallel, which,
};
use crate::simulated::{EACCES, EINTR, EIO, EMFILE, ENOSPC, Fault, Kind, Lost, SimDisk};
use tala_core::{IntentStore, StopCause, StorageOperation, TalaError};
use tala_store::Durability;

fn scenario(durability: Durability) -> Scenario {
    let mut steps: Vec<Step> = vec![Open, Insert(1), Batch(2..5), Outcome(1), Insert(5)];
    steps.extend([Insert(6), Remove(5), Sync, Flush, Insert(7), Replace(1, 1), Close]);
    steps.extend([Open, Insert(8), Flush, Insert(9), Close]);
    Scenario {
        name: "failing disk",
        durability,
        hot_capacity: 4,
        log_bytes_max: 1 << 20,
        before: Model::default(),
        steps,
    }
}

/// How an operation of this kind may fail.
fn faults(kind: Kind) -> Vec<Fault> {
    let errno = |numbers: &[i32]| numbers.iter().copied().map(Fault::Errno).collect();
    match kind {
        Kind::Create | Kind::MakeDir => errno(&[EIO, ENOSPC, EMFILE, EACCES]),
        Kind::Open | Kind::OpenDir => errno(&[EIO, EMFILE, EACCES]),
        Kind::Rename | Kind::Remove | Kind::List | Kind::Look => errno(&[EIO, EACCES]),
        Kind::Write => {
            vec![Fault::Errno(EIO), Fault::Errno(ENOSPC), Fault::Short(EIO), Fault::Short(ENOSPC)]
        }
        Kind::Sync => [Lost::All, Lost::Half, Lost::Nothing].map(Fault::Sync).to_vec(),
        Kind::Read | Kind::Map | Kind::SyncDir | Kind::DropCached | Kind::SetLen => errno(&[EIO]),
        Kind::Lock | Kind::Unlock => errno(&[EIO]),
    }
}

/// The operation that a refusal is about, as an error names it.
fn operations(kind: Kind) -> &'static [StorageOperation] {
    use StorageOperation as Named;
    match kind {
        Kind::Create | Kind::MakeDir => &[Named::Create],
        Kind::Open => &[Named::Open, Named::Read],
        Kind::OpenDir | Kind::Look => &[Named::Open],
        Kind::Rename => &[Named::Rename],
        Kind::Remove => &[Named::Remove],
        Kind::List => &[Named::List],
        Kind::Read | Kind::DropCached => &[Named::Read],
        Kind::Map => &[Named::Map],
        Kind::Write | Kind::SetLen => &[Named::Write],
        Kind::Sync | Kind::SyncDir => &[Named::Sync],
        Kind::Lock | Kind::Unlock => &[Named::Lock],
    }
}

/// What the operating system refused, as an error tells.
fn cause(error: &TalaError) -> (StorageOperation, PathBuf, &io::Error) {
    match error {
        TalaError::Storage { operation, path, source } => (*operation, path.clone(), source),
        TalaError::Stopped { cause, .. } => match &**cause {
            StopCause::Failed(error) => cause_of(error),
            other => panic!("the cause is not told: {other:?}"),
        },
        other => panic!("not a refusal: {other:?}"),
    }
}

fn cause_of(error: &TalaError) -> (StorageOperation, PathBuf, &io::Error) {
    cause(error)
}

fn errno_of(fault: Fault) -> i32 {
    match fault {
        Fault::Errno(errno) | Fault::Short(errno) => errno,
        Fault::Sync(_) => EIO,
        Fault::ShortOnly => unreachable!("it fails nothing"),
    }
}

/// The error names what was refused: the operation, the path, the reason.
fn assert_tells(error: &TalaError, disk: &SimDisk, fault: Fault) {
    let (operation, named, source) = cause(error);
    let failed = disk.failed();
    let is_named =
        failed.iter().any(|(kind, path)| operations(*kind).contains(&operation) && named == *path);
    assert!(is_named, "{error}: what failed is {failed:?}");
    assert_eq!(source.raw_os_error(), Some(errno_of(fault)), "{error}");
}

/// After a step failed: reads go on, writes are refused with the cause, and so is the close.
fn assert_stopped(states: &[Model], run: &mut Run, disk: &SimDisk, fault: Fault) {
    let allowed = Allowed { from: run.done, to: run.begun };
    // After a close that failed there is nothing to read.
    let Some(engine) = run.engine.take() else { return };
    if engine.query_temporal(common::EVER).is_err() {
        return;
    }
    let shown = which(states, &engine, allowed);
    if let Some(row) = states[shown].rows().first() {
        assert!(engine.get(row.id).unwrap().is_some());
        assert!(!engine.query_semantic(&[0.5; DIM], 3).unwrap().is_empty());
    }
    assert_tells(&engine.insert(intent(500)).unwrap_err(), disk, fault);
    assert!(engine.get(id(500)).unwrap().is_none());
    assert_tells(&engine.flush().unwrap_err(), disk, fault);
    assert_tells(&engine.close().unwrap_err(), disk, fault);
}

/// A refusal of one operation.
struct Refusal {
    /// Its number in a run in which all goes well.
    at: usize,
    /// What it is there. Threads of the engine work side by side, so it may be another here.
    kind: Kind,
    fault: Fault,
}

fn fail_everywhere(durability: Durability, lasts: bool) {
    let scenario = scenario(durability);
    let states = scenario.states();
    let well = SimDisk::new();
    assert!(scenario.run(&well).error.is_none());
    // By kind: how many were tried, and of how many a caller was told.
    let counts: Mutex<BTreeMap<Kind, (u32, u32)>> = Mutex::default();
    in_parallel(
        |hand_out| {
            for (at, (kind, _)) in well.asked().into_iter().enumerate() {
                faults(kind).into_iter().for_each(|fault| hand_out(Refusal { at, kind, fault }));
            }
        },
        |Refusal { at, kind, fault }| {
            format!("{durability:?}, lasting {lasts}, operation {at}, {kind:?}, {fault:?}")
        },
        |Refusal { at, kind, fault }| {
            let disk = SimDisk::new();
            disk.fail(at, fault, lasts);
            let was_told = refuse(&scenario, &states, &disk, fault);
            let mut counts = counts.lock().unwrap();
            let (tried, told) = counts.entry(kind).or_default();
            *tried += 1;
            *told += u32::from(was_told);
        },
    );
    let counts = counts.into_inner().unwrap();
    println!("{durability:?}, lasting {lasts}: kind: (tried, told to the caller) {counts:?}");
    for kind in [Kind::Create, Kind::Write, Kind::Sync, Kind::SyncDir, Kind::Rename] {
        assert!(counts[&kind].1 > 0, "no {kind:?} was refused to anyone");
    }
}

/// Runs the scenario on a disk that refuses something, and then opens what is on it. Whether a caller
/// was told.
fn refuse(scenario: &Scenario, states: &[Model], disk: &SimDisk, fault: Fault) -> bool {
    let mut run = scenario.run(disk);
    match &run.error {
        Some(error) => {
            assert_tells(error, disk, fault);
            assert_stopped(states, &mut run, disk, fault);
        }
        None => assert_eq!(run.done, scenario.steps.len()),
    }
    let was_told = run.error.is_some();
    let allowed = Allowed { from: scenario.floor(run.done), to: run.begun };
    drop(run);
    // The reason is gone, and the machine is on: its page cache may show what the disk has not.
    check_what_is_told(scenario, states, &SimDisk::of(disk.volume()), allowed);
    for choice in 0..4 {
        check(scenario, states, disk.volume().cut(choice, 1), allowed);
    }
    was_told
}

#[test]
fn once() {
    fail_everywhere(Durability::Sync, false);
}

#[test]
fn from_then_on() {
    fail_everywhere(Durability::Sync, true);
}

#[test]
fn where_syncs_are_rare() {
    fail_everywhere(Durability::Os, false);
}

/// What interrupts a write, or has it take less, is nobody's business.
#[test]
fn not_at_all_where_a_write_is_only_interrupted() {
    let scenario = scenario(Durability::Sync);
    let states = scenario.states();
    let well = SimDisk::new();
    assert!(scenario.run(&well).error.is_none());
    let asked = well.asked();
    let writes = asked.iter().enumerate().filter(|(_, (kind, _))| *kind == Kind::Write);
    let mut tried = 0;
    for (at, _) in writes {
        for fault in [Fault::Errno(EINTR), Fault::ShortOnly] {
            let disk = SimDisk::new();
            disk.fail_write(at, fault);
            let run = scenario.run(&disk);
            assert!(run.error.is_none(), "{at} {fault:?}: {:?}", run.error);
            drop(run);
            let all = states.len() - 1;
            check(&scenario, &states, disk.volume().cut(1, 0), Allowed { from: all, to: all });
            tried += 1;
        }
    }
    assert!(tried > 10, "{tried}");
}

/// After a failed sync the page cache shows a write that the disk has not, and the next sync says that
/// all is well. Recovery finds out, since it reads what the disk has; on a disk that says that it has
/// dropped its cached pages and has not, this test sees recovery deceived.
#[test]
fn by_what_the_page_cache_shows_after_a_failed_sync() {
    let scenario =
        Scenario { steps: vec![Open, Insert(1), Insert(2)], ..scenario(Durability::Sync) };
    let states = scenario.states();
    let well = SimDisk::new();
    drop(scenario.run(&well));
    let asked = well.asked();
    let wrote = |path: &std::path::Path| path.ends_with("log_000001.wal");
    let mut syncs =
        asked.iter().enumerate().filter(|(_, (kind, path))| *kind == Kind::Sync && wrote(path));
    let (at, _) = syncs.nth(1).expect("each insert is synced");
    for forgets in [false, true] {
        let disk = SimDisk::new();
        disk.fail(at, Fault::Sync(Lost::All), false);
        let run = scenario.run(&disk);
        assert_eq!((run.done, run.begun), (2, 3));
        drop(run);
        let disk = SimDisk::of(disk.volume());
        if forgets {
            disk.forget(Kind::DropCached);
        }
        let allowed = Allowed { from: 2, to: 3 };
        let told = catch_unwind(AssertUnwindSafe(|| {
            check_what_is_told(&scenario, &states, &disk, allowed);
        }));
        assert_eq!(told.is_err(), forgets);
    }
}

/// Another program removes the directory after a step. Whoever needs a file of it by name is told so;
/// what is in memory is read; and a new store can be made there.
#[test]
fn by_the_removal_of_the_directory_under_it() {
    let scenario = scenario(Durability::Sync);
    let states = scenario.states();
    let store = Path::new(STORE);
    let (mut stopped, mut unaware) = (0, 0);
    for at in 1..scenario.steps.len() {
        let disk = SimDisk::new();
        let (before, after) = scenario.steps.split_at(at);
        let run = Scenario { steps: before.to_vec(), ..scenario.clone() }.run(&disk);
        assert!(run.error.is_none(), "{at}: {:?}", run.error);
        let Some(engine) = run.engine.filter(|_| !matches!(before.last(), Some(Close))) else {
            continue;
        };
        // Nobody is in the middle of a segment then.
        engine.flush().unwrap();
        disk.remove_dir(store);
        assert!(disk.volume().entry(store).is_none());
        let mut done = at;
        let steps = after.iter().take_while(|step| !matches!(step, Close));
        let error =
            steps.map(|step| step.take(&engine).inspect(|()| done += 1)).find_map(Result::err);
        match &error {
            Some(error) => {
                let (_, path, source) = cause(error);
                assert!(path.starts_with(store), "{at}: {error}");
                assert_eq!(source.kind(), io::ErrorKind::NotFound, "{at}: {error}");
                cause(&engine.insert(intent(500)).unwrap_err());
                stopped += 1;
            }
            None => unaware += 1,
        }
        which(&states, &engine, Allowed { from: done, to: (done + 1).min(states.len() - 1) });
        drop(engine);
        let new = Scenario { steps: vec![Open, Insert(1), Close], ..scenario.clone() };
        let run = new.run(&disk);
        assert!(run.error.is_none(), "{at}: {:?}", run.error);
        drop(run);
        check(&new, &new.states(), disk.volume().cut(1, 0), Allowed { from: 3, to: 3 });
    }
    println!("{stopped} engines noticed, {unaware} needed no file by name");
    assert!(stopped > 5 && unaware > 0, "{stopped} {unaware}");
}
