//! The disk on which crashes are tried: what a cut may leave, it does leave for some choice, and what
//! was synced, it leaves for every one.

use crate::common;
use std::{collections::BTreeSet, path::Path};

use crate::common::{Model, TestDir};
use crate::crash::{STORE, Scenario, Step::*};
use crate::simulated::{EIO, Fault, Lost, SimDisk, Volume};
use tala_store::{Durability, StorageEngine, rooms::Disk};

const DIR: &str = "/dir";

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(Path::new(DIR)).unwrap();
    disk.open_dir(Path::new("/")).unwrap().sync_all().unwrap();
    disk
}

fn bytes(volume: Volume, path: &str) -> Option<Vec<u8>> {
    SimDisk::of(volume).bytes(Path::new(path))
}

/// What the file is after each of many cuts.
fn outcomes(disk: &SimDisk, path: &str) -> BTreeSet<Option<Vec<u8>>> {
    (1..400).map(|choice| bytes(disk.volume().cut(choice, 1), path)).collect()
}

#[test]
fn what_was_not_synced_is_there_in_any_part() {
    let disk = disk();
    let path = "/dir/file";
    let file = disk.create_new(Path::new(path)).unwrap();
    file.write_all_at(&[1; 1_500], 0).unwrap();
    file.sync_data().unwrap();
    disk.open_dir(Path::new(DIR)).unwrap().sync_all().unwrap();
    assert_eq!(outcomes(&disk, path), BTreeSet::from([Some(vec![1; 1_500])]));
    file.write_all_at(&[2; 2_000], 700).unwrap();
    let found: Vec<Vec<u8>> = outcomes(&disk, path).into_iter().map(Option::unwrap).collect();
    let whole = [vec![1; 700], vec![2; 2_000]].concat();
    assert!(found.contains(&vec![1; 1_500]) && found.contains(&whole));
    // Sectors end at 1,024, 1,536, 2,048 and 2,560.
    let has = |what: &dyn Fn(&[u8]) -> bool| found.iter().any(|bytes| what(bytes));
    assert!(has(&|bytes| bytes.len() > 2_048 && bytes[1_023] == 1 && bytes[1_024] == 2));
    assert!(has(&|bytes| bytes.len() > 1_600 && bytes[1_400] == 2 && bytes[1_536] == 0));
    assert!(has(&|bytes| bytes[1_100] == 2 && bytes[1_200] == 1), "torn inside a sector");
    for bytes in &found {
        assert!(bytes.iter().take(700).all(|byte| *byte == 1), "what was synced stays");
        assert!(bytes.len() <= 2_700);
    }
}

#[test]
fn names_are_there_or_not_and_a_rename_is_atomic() {
    let disk = disk();
    let (old, new) = (Path::new("/dir/new.tmp"), Path::new("/dir/new"));
    for (byte, path) in [(1, new), (2, old)] {
        let file = disk.create_new(path).unwrap();
        file.write_all_at(&[byte], 0).unwrap();
        file.sync_all().unwrap();
    }
    disk.open_dir(Path::new(DIR)).unwrap().sync_all().unwrap();
    disk.rename(old, new).unwrap();
    let disk_after = |choice| SimDisk::of(disk.volume().cut(choice, 3));
    let mut seen = BTreeSet::new();
    for choice in 1..100 {
        let disk = disk_after(choice);
        seen.insert((disk.bytes(old), disk.bytes(new)));
    }
    let before = (Some(vec![2]), Some(vec![1]));
    assert_eq!(seen, BTreeSet::from([before, (None, Some(vec![2]))]));
    disk.remove(new).unwrap();
    assert_eq!(outcomes(&disk, "/dir/new"), [None, Some(vec![1]), Some(vec![2])].into());
    disk.open_dir(Path::new(DIR)).unwrap().sync_all().unwrap();
    assert_eq!(outcomes(&disk, "/dir/new"), [None].into());
}

#[test]
fn after_a_failed_sync_the_cache_shows_what_the_disk_has_not() {
    let disk = disk();
    let path = Path::new("/dir/file");
    let file = disk.create_new(path).unwrap();
    disk.open_dir(Path::new(DIR)).unwrap().sync_all().unwrap();
    file.write_all_at(b"lost", 0).unwrap();
    disk.fail(0, Fault::Sync(Lost::All), false);
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(EIO));
    file.sync_data().unwrap();
    assert_eq!(file.read_whole().unwrap(), b"lost");
    assert_eq!(bytes(disk.volume().cut(1, 0), "/dir/file").unwrap(), b"");
    file.drop_cached().unwrap();
    assert_eq!(file.read_whole().unwrap(), b"");
}

#[test]
fn a_lock_has_one_holder_and_ends_with_its_file() {
    let disk = disk();
    let path = Path::new("/dir/LOCK");
    let first = disk.open_or_create(path).unwrap();
    let second = disk.open_or_create(path).unwrap();
    first.try_lock().unwrap();
    assert!(second.try_lock().is_err() && second.try_lock_shared().is_err());
    drop(first);
    second.try_lock_shared().unwrap();
    let third = disk.open(path).unwrap();
    third.try_lock_shared().unwrap();
    assert!(disk.open(path).unwrap().try_lock().is_err());
}

/// The simulated disk does what the real one does: the same steps leave the same files.
#[test]
fn a_store_on_it_is_as_one_on_a_real_disk() {
    let steps = vec![
        Open,
        Batch(1..4),
        Insert(4),
        Insert(5),
        Flush,
        Remove(2),
        Close,
        Open,
        Outcome(4),
        Insert(6),
        Close,
    ];
    let scenario = Scenario {
        name: "both",
        durability: Durability::Sync,
        hot_capacity: 4,
        log_bytes_max: 1 << 20,
        before: Model::default(),
        steps,
    };
    let simulated = SimDisk::new();
    assert!(scenario.run(&simulated).error.is_none());
    let real = TestDir::new();
    let mut engine: Option<StorageEngine> = None;
    for step in &scenario.steps {
        let options = StorageEngine::options(common::DIM).hot_capacity(4).link_on_open(false);
        match step {
            Open => engine = Some(options.open(real.path()).unwrap()),
            step => step.take(engine.as_ref().unwrap()).unwrap(),
        }
    }
    drop(engine);
    let files = real.files();
    let names = simulated.list(Path::new(STORE)).unwrap();
    assert_eq!(names.len(), files.len());
    for (name, bytes) in files {
        let path = Path::new(STORE).join(&name);
        let found = simulated.bytes(&path).unwrap();
        assert_eq!(found.len(), bytes.len(), "{name}");
        // Segments say when they were made, and the MANIFEST their checksums.
        assert!(found == bytes || !name.ends_with(".wal"), "{name}");
    }
}
