//! A disk that refuses one operation of a store, each in turn and each in every way: whoever writes is
//! told the cause, nothing acknowledged is lost, reads go on, and when the reason is gone a new open
//! finds everything.

use crate::common;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::a_power_cut_loses_nothing_acknowledged::put_original;
use crate::common::{DIM, Model, id, intent};
use crate::crash::{
    Allowed, PREPARED, Run, SPARE, STORE, Scenario, Step, Step::*, check, check_what_is_told,
    in_parallel, say, steps_in_prepared_logs, which,
};
use crate::simulated::{EACCES, EINTR, EIO, EMFILE, ENOSPC, Fault, Kind, Lost, SimDisk, Volume};
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
        Kind::Open | Kind::OpenDir => errno(&[EIO, EMFILE, EACCES, EINTR]),
        Kind::Rename => errno(&[EIO, ENOSPC, EACCES]),
        Kind::Remove | Kind::List | Kind::Look => errno(&[EIO, EACCES]),
        Kind::Write => vec![
            Fault::Errno(EIO),
            Fault::Errno(ENOSPC),
            Fault::Errno(EINTR),
            Fault::Short(EIO),
            Fault::Short(ENOSPC),
            Fault::Short(EINTR),
        ],
        Kind::Sync => {
            let lost = [Lost::All, Lost::Half, Lost::Nothing].map(Fault::Sync);
            [&lost[..], &[Fault::Errno(EINTR)]].concat()
        }
        Kind::SetLen => errno(&[EIO, ENOSPC, EINTR]),
        Kind::Read | Kind::Map | Kind::SyncDir | Kind::DropCached => errno(&[EIO, EINTR]),
        Kind::Lock | Kind::Unlock => errno(&[EIO]),
    }
}

/// The two reasons that any operation may fail for, and the ways of a write and a sync to do so.
pub fn plain_faults(kind: Kind) -> Vec<Fault> {
    let both = [Fault::Errno(EIO), Fault::Errno(ENOSPC)];
    match kind {
        Kind::Write => [&both[..], &[Fault::Short(EIO), Fault::Short(ENOSPC)]].concat(),
        Kind::Sync => [&both[..], &[Fault::Sync(Lost::All), Fault::Sync(Lost::Half)]].concat(),
        _ => both.to_vec(),
    }
}

/// Whether it may happen to whoever asks again, too. An interruption that lasted would be none.
fn may_last(fault: Fault) -> bool {
    !matches!(fault, Fault::Errno(EINTR) | Fault::Short(EINTR))
}

/// The operation that a refusal is about, as an error names it.
fn operations(kind: Kind) -> &'static [StorageOperation] {
    use StorageOperation as Named;
    match kind {
        Kind::Create | Kind::MakeDir => &[Named::Create],
        Kind::Open => &[Named::Open, Named::Read],
        Kind::OpenDir => &[Named::Open],
        // What is in a directory is asked for after what it is.
        Kind::Look => &[Named::Open, Named::List],
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
pub fn assert_tells(error: &TalaError, disk: &SimDisk, fault: Fault) {
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
    kind: Kind,
    /// Its number among those of this kind. Threads of the engine work side by side, so it need not be
    /// what it is in another run.
    number: usize,
    fault: Fault,
}

/// Choices of what survives the power cut after a refusal: the first is none, but a kill.
const CHOICES: u64 = 4;

/// What was refused in all runs.
#[derive(Default)]
struct Refused {
    /// By kind: how many were tried, and of how many a caller was told.
    counts: BTreeMap<Kind, (u32, u32)>,
    /// Of each kind, the names of the files.
    names: BTreeSet<(Kind, String)>,
}

/// A scenario, and what is on the disk before it.
struct Case {
    scenario: Scenario,
    start: Volume,
    faults: fn(Kind) -> Vec<Fault>,
    /// Whether one operation of a kind fails in one of these ways, with one power cut after it, and the next
    /// in the next, and not each in all of them.
    in_turn: bool,
    lasts: bool,
}

impl Case {
    fn of(scenario: Scenario) -> Self {
        let start = SimDisk::new().volume();
        Self { scenario, start, faults, in_turn: false, lasts: false }
    }

    /// Refuses each operation in these ways, and returns what was refused.
    fn fail_everywhere(&self) -> Refused {
        let Self { scenario, start, faults, in_turn, lasts } = self;
        let Scenario { name, durability, .. } = scenario;
        let states = scenario.states();
        let well = SimDisk::of(start.clone());
        assert!(scenario.run(&well).error.is_none());
        let refused: Mutex<Refused> = Mutex::default();
        in_parallel(
            |hand_out| {
                let mut numbers: BTreeMap<Kind, usize> = BTreeMap::new();
                for (kind, _) in well.asked() {
                    let count = numbers.entry(kind).or_default();
                    let number = *count;
                    *count += 1;
                    let mut faults = faults(kind);
                    faults.retain(|fault| !lasts || may_last(*fault));
                    if *in_turn {
                        faults = vec![faults[number % faults.len()]];
                    }
                    faults.into_iter().for_each(|fault| hand_out(Refusal { kind, number, fault }));
                }
            },
            |Refusal { kind, number, fault }| {
                format!("{name}, {durability:?}, lasting {lasts}: {fault:?} of {kind:?} {number}")
            },
            |Refusal { kind, number, fault }| {
                let disk = SimDisk::of(start.clone());
                disk.fail_nth(kind, number, fault, *lasts);
                let choice = number as u64 % CHOICES;
                let choices = if *in_turn { choice..choice + 1 } else { 0..CHOICES };
                let was_told = refuse(scenario, &states, &disk, (fault, choices));
                let mut refused = refused.lock().unwrap();
                let (tried, told) = refused.counts.entry(kind).or_default();
                *tried += 1;
                *told += u32::from(was_told);
                let name = |path: PathBuf| Some(path.file_name()?.to_str()?.to_owned());
                let names = disk.failed().into_iter();
                refused.names.extend(names.filter_map(|(kind, path)| Some((kind, name(path)?))));
            },
        );
        let refused = refused.into_inner().unwrap();
        let tried: u32 = refused.counts.values().map(|(tried, _)| tried).sum();
        let told: u32 = refused.counts.values().map(|(_, told)| told).sum();
        say(&format!(
            "{name}, {durability:?}, lasting {lasts}: {tried} refusals, {told} told to a caller"
        ));
        refused
    }
}

fn fail_everywhere(durability: Durability, lasts: bool) {
    let refused = Case { lasts, ..Case::of(scenario(durability)) }.fail_everywhere();
    for kind in [Kind::Create, Kind::Write, Kind::Sync, Kind::SyncDir, Kind::Rename] {
        assert!(refused.counts[&kind].1 > 0, "no {kind:?} was refused to anyone");
    }
}

/// The files of a directory of the original implementation that `put_original` makes, as they are.
fn original_files(disk: &SimDisk) -> Vec<Option<Vec<u8>>> {
    let names = ["current.wal", "segment_000001.tbf", "segment_000002.tbf"];
    names.map(|name| disk.bytes(&Path::new(STORE).join(name))).to_vec()
}

/// Runs the scenario on a disk that refuses something, and then opens what is on it. Whether a caller
/// was told.
fn refuse(
    scenario: &Scenario,
    states: &[Model],
    disk: &SimDisk,
    (fault, choices): (Fault, Range<u64>),
) -> bool {
    let originals = original_files(disk);
    let mut run = scenario.run(disk);
    if originals[0].is_some() {
        assert!(original_files(disk) == originals, "what is imported is not written to");
    }
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
    for choice in choices {
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

/// Logs are prepared ahead and made of older ones, and cut to their length when they end.
fn prepared_logs() -> Case {
    let scenario = Scenario {
        name: "failing disk with prepared logs",
        // Without a segment at the end, which would have what a log has lost.
        steps: [steps_in_prepared_logs(), vec![Close, Open, Insert(14), Close]].concat(),
        hot_capacity: 100,
        ..scenario(Durability::Sync)
    };
    let start = SimDisk::with_prepared_logs().volume();
    Case { start, in_turn: true, ..Case::of(scenario) }
}

fn fail_prepared_logs(lasts: bool) {
    let Refused { counts, .. } = Case { lasts, ..prepared_logs() }.fail_everywhere();
    for kind in [Kind::Create, Kind::Write, Kind::Sync, Kind::SyncDir, Kind::Rename, Kind::SetLen] {
        assert!(counts[&kind].1 > 0, "no {kind:?} was refused to anyone");
    }
}

/// Threads work side by side, so that numbers alone need not come to these. A rename is named by what it
/// makes.
#[test]
fn by_what_is_done_to_prepared_and_reused_logs_alone() {
    let Case { scenario, start, faults, .. } = prepared_logs();
    let states = scenario.states();
    for (kind, end) in [
        (Kind::Rename, SPARE),
        (Kind::Rename, PREPARED),
        (Kind::Rename, ".wal"),
        (Kind::SetLen, ".wal"),
        (Kind::Sync, PREPARED),
    ] {
        for fault in faults(kind) {
            println!("{fault:?} of {kind:?} of {end}");
            let disk = SimDisk::of(start.clone());
            disk.fail_first_of(kind, end, fault);
            refuse(&scenario, &states, &disk, (fault, 0..CHOICES));
            assert!(!disk.failed().is_empty(), "it was not asked for");
        }
    }
}

#[test]
fn once_while_logs_are_prepared_and_reused() {
    fail_prepared_logs(false);
}

#[test]
fn from_then_on_while_logs_are_prepared_and_reused() {
    fail_prepared_logs(true);
}

/// Where the import of a directory of the original implementation is refused, the next opening imports it;
/// its own files stay as they are whatever happens.
#[test]
fn while_a_directory_of_the_original_is_imported() {
    let disk = SimDisk::new();
    let before = put_original(&disk, 1..8);
    let scenario = Scenario {
        name: "failing disk under an import",
        before,
        steps: vec![Open, Insert(100), Outcome(1), Remove(44), Close, Open, Close],
        ..scenario(Durability::Sync)
    };
    for lasts in [false, true] {
        let case = Case {
            start: disk.volume(),
            faults: plain_faults,
            in_turn: lasts,
            lasts,
            ..Case::of(scenario.clone())
        };
        let Refused { counts, names } = case.fail_everywhere();
        for kind in [Kind::Open, Kind::Read, Kind::Map, Kind::List, Kind::Write, Kind::Rename] {
            assert!(counts[&kind].1 > 0, "no {kind:?} was refused to anyone");
        }
        assert!(names.contains(&(Kind::Read, "current.wal".to_owned())), "{names:?}");
    }
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
