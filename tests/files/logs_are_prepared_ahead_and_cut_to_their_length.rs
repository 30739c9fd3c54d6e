//! A store that is written to has its next log filled with zeros ahead. Nobody sees more of that than
//! its speed: what a crash leaves of it is no torn write, and no log keeps zeros that it does not need.

use crate::common;
use std::{
    collections::HashSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::common::{Random, TestDir, id};
use crate::simulated::{Change, Event, Op, SimDisk};
use tala_core::{Intent, IntentStore, StopCause, StorageOperation, TalaError};
use tala_store::{Durability, EngineOptions, RecoveryWarning, StorageEngine, rooms::Disk};

const DIM: usize = 512;
const BATCH: u64 = 16;

fn intents(batch: u64) -> Vec<Intent> {
    let intent = |number| Intent {
        embedding: Random::new(number + 1).vector(DIM),
        raw_command: "make".to_owned(),
        ..common::intent(number)
    };
    (batch * BATCH..(batch + 1) * BATCH).map(intent).collect()
}

/// With as little of a graph as there can be, which is in no log.
fn options() -> EngineOptions {
    let options = StorageEngine::options(DIM).m(2).ef_construction(1);
    options.hot_capacity(1_000_000).link_on_open(false)
}

/// How many zeros the file ends with.
fn zeros_count(dir: &TestDir, name: &str) -> usize {
    let bytes = std::fs::read(dir.file(name)).unwrap();
    bytes.iter().rev().take_while(|byte| **byte == 0).count()
}

#[test]
fn logs_are_prepared_ahead_and_cut_to_their_length() {
    let dir = TestDir::new();
    let engine = options().open(dir.path()).unwrap();
    // How long it takes to prepare one is the disk's business.
    let give_up_at = Instant::now() + Duration::from_secs(120);
    let mut batches = 0;
    while !dir.file("log_000002.wal").exists() {
        assert!(Instant::now() < give_up_at, "no log was prepared after {batches} batches");
        engine.insert_batch(intents(batches)).unwrap();
        batches += 1;
    }
    engine.insert_batch(intents(batches)).unwrap();
    batches += 1;
    assert!(batches * BATCH * 4 * DIM as u64 >= 256 << 10, "a small store needs none");
    assert!(zeros_count(&dir, "log_000001.wal") < 4, "the first one grew");
    assert!(zeros_count(&dir, "log_000002.wal") > 1 << 20);

    // What a crash leaves: the zeros, and perhaps a log in which nothing was written yet, and a file
    // that is being prepared.
    let crashed = dir.copy();
    std::fs::write(crashed.file("log_000003.wal"), vec![0; 4 << 20]).unwrap();
    for name in ["log_next.wal.tmp", "log_spare.wal.tmp", "log_000004.wal.tmp"] {
        std::fs::write(crashed.file(name), [0; 5_000]).unwrap();
    }
    let check = |engine: &StorageEngine| {
        assert_eq!(engine.recovery().warnings, []);
        assert_eq!(engine.len() as u64, batches * BATCH);
        for number in [0, batches * BATCH - 1] {
            assert!(engine.get(id(number)).unwrap().is_some());
        }
    };
    let reopened = options().open(crashed.path()).unwrap();
    check(&reopened);
    assert!(!reopened.recovery().was_clean);
    assert!(zeros_count(&crashed, "log_000002.wal") < 4, "cut when it was recovered");
    assert!(!crashed.file("log_000003.wal").exists());
    for ending in [".tmp", ".torn"] {
        assert_eq!(crashed.names(ending), Vec::<String>::new());
    }
    reopened.close().unwrap();

    engine.close().unwrap();
    assert_eq!(dir.names(".tmp"), Vec::<String>::new());
    for name in dir.names(".wal") {
        assert!(zeros_count(&dir, &name) < 4, "{name} was not cut when it was ended");
    }
    let reopened = options().open(dir.path()).unwrap();
    check(&reopened);
    assert!(reopened.recovery().was_clean);
}

/// A failed sync of the file that is being prepared may have been for what the log needs as well, and
/// nobody is told twice.
#[test]
fn a_failed_sync_of_what_is_prepared_ends_the_engine() {
    let disk = SimDisk::new();
    let open = |disk: &SimDisk| {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        options().disk(disk).open(Path::new("/data/store"))
    };
    let engine = open(&disk).unwrap();
    disk.fail_sync_of(".wal.tmp");
    let give_up_at = Instant::now() + Duration::from_secs(120);
    let mut batches = 0;
    let error = loop {
        assert!(Instant::now() < give_up_at, "nothing was refused in {batches} batches");
        match engine.insert_batch(intents(batches)) {
            Ok(_) => batches += 1,
            Err(error) => break error,
        }
    };
    let TalaError::Stopped { actor: "tala-prepare", cause } = &error else { panic!("{error:?}") };
    let StopCause::Failed(TalaError::Storage { operation, path, .. }) = &**cause else {
        panic!("{error:?}")
    };
    assert_eq!(*operation, StorageOperation::Sync);
    assert!(path.to_string_lossy().ends_with(".wal.tmp"), "{error}");
    drop(engine);
    let engine = open(&SimDisk::of(disk.volume())).unwrap();
    let len = engine.len() as u64;
    assert!(len == batches * BATCH || len == (batches + 1) * BATCH, "{len}");
}

/// Where nothing is synced, the sync that ends a log would have all of it to write.
#[test]
fn what_is_not_synced_is_written_back_step_by_step() {
    const STEP: u64 = 1 << 20;
    let disk = SimDisk::new();
    let on_disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = options().durability(Durability::Os).disk(on_disk);
    let engine = options.open(Path::new("/data/store")).unwrap();
    let mut log_bytes = 0;
    for batch in 0..80 {
        engine.insert_batch(intents(batch)).unwrap();
        log_bytes += BATCH * 4 * DIM as u64;
        let begun = disk.begun();
        let mut next = 0;
        for step in &begun {
            assert!(step.start == next && step.end - step.start >= STEP, "{begun:?}");
            next = step.end;
        }
        assert!(log_bytes < next + STEP, "{log_bytes} bytes of embeddings, and {begun:?}");
    }
    assert!(log_bytes > 2 * STEP);
}

/// Intents of a segment whose logs are long enough to be kept for their blocks.
const LONG: usize = 2_048;

fn with_segments(disk: &SimDisk) -> EngineOptions {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    options().hot_capacity(LONG).disk(disk)
}

/// A log that segments cover becomes the next one that is prepared, whatever it was called, and the
/// power may be cut at any moment of that.
#[test]
fn logs_are_made_of_older_ones_and_a_power_cut_does_not_mix_them_up() {
    const CUTS_FROM: u64 = 3 * LONG as u64 / BATCH;
    let disk = SimDisk::new();
    let dir = Path::new("/data/store");
    let engine = with_segments(&disk).open(dir).unwrap();
    let mut images = HashSet::new();
    for batch in 0..2 * CUTS_FROM {
        engine.insert_batch(intents(batch)).unwrap();
        if batch < CUTS_FROM || !batch.is_multiple_of(16) {
            continue;
        }
        let volume = disk.volume();
        for choice in [1, 2 + batch] {
            let left = volume.cut(choice, batch);
            if !images.insert(left.fingerprint()) {
                continue;
            }
            let left = SimDisk::of(left);
            let reopened = with_segments(&left).open(dir).unwrap();
            let (len, due) = (reopened.len() as u64, (batch + 1) * BATCH);
            assert_eq!(len, due, "after batch {batch}, choice {choice}");
            for number in [0, due / 2, due - 1] {
                assert!(reopened.get(id(number)).unwrap().is_some(), "{number} of {due}");
            }
            let aside: Vec<_> =
                reopened.recovery().warnings.iter().filter(|it| !is_torn_tail(it)).collect();
            assert!(aside.is_empty(), "{aside:?}");
            reopened.close().unwrap();
        }
    }
    assert!(images.len() > 30, "only {} images", images.len());
    let taken = |event: &Event| matches!(event, Event::Op(Op::Rename(from, _)) if from.ends_with("log_spare.wal.tmp"));
    let events = disk.events();
    let count = events.iter().filter(|event| taken(event)).count();
    assert!(count > 0, "none was used");
    // A cut rarely comes between: the new name is durable before there is anything new in the file.
    let is_of_zeros = |event: &Event| match event {
        Event::Op(Op::Change(_, Change::Write { bytes, .. })) => {
            bytes.iter().all(|byte| *byte == 0)
        }
        _ => false,
    };
    let is_sync_of_dir = |event: &Event| matches!(event, Event::Op(Op::SyncDir(_)));
    for (at, _) in events.iter().enumerate().filter(|(_, event)| taken(event)) {
        let mut later = events[at..].iter();
        let next = later.find(|event| is_of_zeros(event) || is_sync_of_dir(event));
        assert!(next.is_some_and(is_sync_of_dir), "it is written to while its name may come back");
    }
    engine.close().unwrap();
    let left: Vec<_> = disk.list(dir).unwrap();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{left:?}");
}

const fn is_torn_tail(warning: &RecoveryWarning) -> bool {
    matches!(warning, RecoveryWarning::TornTail { .. })
}
