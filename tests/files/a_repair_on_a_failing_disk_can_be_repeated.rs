//! A repair on a disk that refuses one operation of it, each in turn: its report says what could not be
//! read, or its caller is told the cause. The old directory stays as it is, what was begun is no store, and
//! when the reason is gone the same call makes the new store; but where the disk refuses to remove as well,
//! what was begun has to be removed first.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use crate::a_failing_disk_loses_nothing_acknowledged::{assert_tells, plain_faults};
use crate::a_power_cut_loses_nothing_acknowledged::put_original;
use crate::common::{DIM, EVER, Model, intent};
use crate::crash::{STORE, Scenario, Step::*, in_parallel, say};
use crate::simulated::{Entry, Event, Fault, Kind, Op, SimDisk, Volume};
use tala_core::{Intent, IntentStore, TalaError};
use tala_store::{
    Durability, RepairReport, StorageEngine,
    rooms::{Disk, repair_on, verify_on},
};

const NEW: &str = "/new/store";
const UNFINISHED: &str = "REPAIR.unfinished";

/// A store to repair, and what comes of it where nothing is refused.
struct Old {
    volume: Volume,
    report: RepairReport,
    rows: Vec<Intent>,
}

impl Old {
    fn of(disk: &SimDisk) -> Self {
        let volume = disk.volume().cut(1, 0);
        let disk = SimDisk::of(volume.clone());
        let report = repaired(&disk).unwrap();
        assert_untouched(&disk, &volume);
        let rows = rows(&disk);
        assert!(!rows.is_empty());
        Self { volume, report, rows }
    }

    fn open(&self) -> SimDisk {
        SimDisk::of(self.volume.clone())
    }
}

fn repaired(disk: &SimDisk) -> Result<RepairReport, TalaError> {
    repair_on(Arc::new(disk.clone()), Path::new(STORE), Path::new(NEW))
}

fn open_new(disk: &SimDisk) -> Result<StorageEngine, TalaError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    StorageEngine::options(DIM).link_on_open(false).disk(disk).open(NEW)
}

/// What the new store holds, which must be one in good order. It is left as it is.
fn rows(disk: &SimDisk) -> Vec<Intent> {
    let disk = SimDisk::of(disk.volume());
    let report = verify_on(Arc::new(disk.clone()), Path::new(NEW)).unwrap();
    assert!(report.is_ok(), "{:?}", report.damage);
    let engine = open_new(&disk).unwrap();
    engine.query_temporal(EVER).unwrap()
}

/// Nothing in the old directory was created, changed, renamed, removed or synced.
fn assert_untouched(disk: &SimDisk, old: &Volume) {
    let store = Path::new(STORE);
    let files: Vec<Entry> = old.names(store).filter_map(|path| old.entry(path)).collect();
    let is_old = |path: &Path| path.starts_with(store);
    for event in disk.events() {
        let Event::Op(op) = event else { continue };
        let is_touched = match &op {
            Op::Create(path) | Op::MakeDir(path) | Op::Remove(path) => is_old(path),
            Op::RemoveDir(path) | Op::SyncDir(path) => is_old(path),
            Op::Rename(from, to) => is_old(from) || is_old(to),
            Op::Change(file, _) | Op::Sync(file) | Op::FailedSync(file, _) => {
                files.contains(&Entry::File(*file))
            }
            Op::DropCached(file) => files.contains(&Entry::File(*file)),
        };
        assert!(!is_touched, "{op:?}");
    }
}

/// What became of a refusal.
enum Refused {
    /// The caller was told.
    Told,
    /// The report has the file among what is lost.
    Reported,
    /// Nobody needed what was refused.
    Unnoticed,
    /// The caller was told, and what was begun could not be removed.
    InTheWay,
}

fn refuse(old: &Old, at: usize, fault: Fault, lasts: bool) -> Refused {
    let disk = old.open();
    disk.fail(at, fault, lasts);
    let result = repaired(&disk);
    assert_untouched(&disk, &old.volume);
    let failed = disk.failed();
    assert!(!failed.is_empty(), "nothing was refused");
    match result {
        Ok(report) if report == old.report => {
            disk.heal();
            assert!(rows(&disk) == old.rows);
            Refused::Unnoticed
        }
        Ok(report) => {
            let is_named = |(_, path): &(Kind, PathBuf)| {
                report.lost.iter().any(|loss| loss.file == *path)
                    || report.doubts.iter().any(|doubt| doubt.contains(path.to_str().unwrap()))
            };
            assert!(failed.iter().any(is_named), "{failed:?} is not in {report:?}");
            disk.heal();
            assert_eq!(rows(&disk).len() as u64, report.intents);
            Refused::Reported
        }
        Err(error) => {
            // Where not one file can be read, that is what is told.
            let says_nothing_is_left =
                failed.len() > 1 && matches!(error, TalaError::Corrupt { .. });
            if !says_nothing_is_left {
                assert_tells(&error, &disk, fault);
            }
            disk.heal();
            let unfinished = Path::new(NEW).join(UNFINISHED);
            if disk.bytes(&unfinished).is_some() {
                let refused = open_new(&SimDisk::of(disk.volume())).unwrap_err();
                let is_named = matches!(&refused, TalaError::Corrupt { file, .. }
                    if *file == Path::new(NEW).join("MANIFEST"));
                assert!(is_named, "{refused}");
            }
            let again = match repaired(&disk) {
                Err(TalaError::InvalidInput { field: "to", .. }) => {
                    let removing = [Kind::Remove, Kind::OpenDir, Kind::SyncDir];
                    let is_removal = |(kind, _): &(Kind, PathBuf)| removing.contains(kind);
                    assert!(failed.len() > 1 && failed.iter().all(is_removal), "{failed:?}");
                    return Refused::InTheWay;
                }
                again => again.unwrap(),
            };
            assert_untouched(&disk, &old.volume);
            assert!(again == old.report, "{again:?}");
            assert!(rows(&disk) == old.rows);
            Refused::Told
        }
    }
}

fn fail_everywhere(name: &str, old: &Old, lasts: bool) {
    let well = old.open();
    repaired(&well).unwrap();
    let counts = [const { AtomicU32::new(0) }; 4];
    in_parallel(
        |hand_out| {
            for (at, (kind, _)) in well.asked().into_iter().enumerate() {
                plain_faults(kind).into_iter().for_each(|fault| hand_out((at, kind, fault)));
            }
        },
        |(at, kind, fault)| format!("{name}: lasting {lasts}, operation {at}, {kind:?}, {fault:?}"),
        |(at, _, fault)| {
            let refused = refuse(old, at, fault, lasts) as usize;
            counts[refused].fetch_add(1, Relaxed);
        },
    );
    let [told, reported, unnoticed, in_the_way] = counts.map(AtomicU32::into_inner);
    say(&format!(
        "repair of {name} on a failing disk, lasting {lasts}: {told} refusals told, {reported} in the \
         report, {unnoticed} of what nobody needed, {in_the_way} left something in the way"
    ));
    assert!(told > 50 && reported > 0, "{told} {reported}");
    assert_eq!(in_the_way > 0, lasts);
}

/// Segments, a log that the MANIFEST lists, and one that was being written.
fn closed_store() -> SimDisk {
    let disk = SimDisk::new();
    let scenario = Scenario {
        name: "a store to repair",
        durability: Durability::Sync,
        hot_capacity: 100,
        log_bytes_max: 1 << 20,
        before: Model::default(),
        steps: vec![
            Open,
            Batch(1..5),
            Outcome(1),
            Flush,
            Insert(5),
            Remove(2),
            Flush,
            Insert(6),
            Close,
            Open,
            Insert(7),
            Outcome(6),
            Replace(3, 1),
            Close,
        ],
    };
    let run = scenario.run(&disk);
    assert!(run.error.is_none(), "{:?}", run.error);
    drop(run);
    disk
}

#[test]
fn of_a_store_with_damage() {
    let disk = closed_store();
    for (name, at) in [("segment_000001.tbf", 300), ("log_000003.wal", 20)] {
        let path = Path::new(STORE).join(name);
        let mut bytes = disk.bytes(&path).unwrap_or_else(|| panic!("{name} is not there"));
        bytes[at] ^= 1;
        disk.put(&path, &bytes);
    }
    let old = Old::of(&disk);
    assert!(!old.report.is_complete());
    for lasts in [false, true] {
        fail_everywhere("a damaged store", &old, lasts);
    }
}

#[test]
fn of_a_store_without_its_manifest() {
    let disk = closed_store();
    let store = Path::new(STORE);
    disk.remove(&store.join("MANIFEST")).unwrap();
    disk.open_dir(store).unwrap().sync_all().unwrap();
    fail_everywhere("a store without its MANIFEST", &Old::of(&disk), false);
}

#[test]
fn of_a_directory_of_the_original() {
    let disk = SimDisk::new();
    put_original(&disk, 1..8);
    fail_everywhere("a directory of the original", &Old::of(&disk), false);
}

/// The new directory was empty when the repair began, and is looked at again under its lock.
#[test]
fn and_leaves_a_store_alone_that_came_to_be_meanwhile() {
    let disk = Old::of(&closed_store()).open();
    let (other, is_first) = (disk.clone(), AtomicBool::new(true));
    disk.watch(move |_, path| {
        // The names of directories are made durable before the lock is taken.
        if path.starts_with("/new") && is_first.swap(false, Relaxed) {
            let engine = open_new(&other).unwrap();
            engine.insert(intent(900)).unwrap();
            engine.close().unwrap();
        }
    });
    let refused = repaired(&disk).unwrap_err();
    disk.watch(|_, _| ());
    assert!(matches!(refused, TalaError::InvalidInput { field: "to", .. }), "{refused}");
    assert_eq!(rows(&disk), [intent(900)]);
}
