//! What waits for a slow disk takes as much memory as the options say, however much is offered; and
//! histograms take what they say.
//!
//! A program of its own, as it measures the memory of the process.

mod common;
mod slow_disk;

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Waker},
    time::Duration,
};

use common::{Random, TestDir, id, intent};
use peak_alloc::PeakAlloc;
use slow_disk::SlowDisk;
use tala_core::{Intent, TalaError};
use tala_store::{Health, Resource, StorageEngine};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;
const DIM: usize = 256;
/// What may wait in the mailbox.
const WAITING_MAX: usize = 8 * MIB;
/// What the log's writer has taken out of it and works on: the records of a round, the intents that
/// they were made of, and the room that buffers have grown to.
const ROUND_MAX: usize = 3 * 4 * MIB;

fn large(number: u64) -> Intent {
    Intent {
        embedding: Random::new(number).vector(DIM),
        raw_command: "x".repeat(3 << 10),
        ..intent(number)
    }
}

/// Offers an intent as a client does that has gone before it is answered. What was let in by then
/// stays on its way.
fn offer(engine: &StorageEngine, number: u64) {
    let _ = pin!(engine.insert_async(large(number))).poll(&mut Context::from_waker(Waker::noop()));
}

/// One test measures at a time.
static MEASURING: Mutex<()> = Mutex::new(());

#[test]
fn histograms_take_the_memory_that_is_stated() {
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    // The first of a process allocates what the others find.
    drop(StorageEngine::in_memory(DIM, 10));
    let taken = |histograms| {
        let base = MEMORY.current_usage();
        let engine = StorageEngine::options(DIM).histograms(histograms).in_memory().unwrap();
        (MEMORY.current_usage() - base, engine.stats().histogram_bytes as usize)
    };
    let (without, stated_without) = taken(false);
    let (with, stated) = taken(true);
    println!("{without} bytes without histograms, {with} with them, {stated} stated");
    assert_eq!(stated_without, 0);
    // 4.6 MB a stripe, and no more of them than are worth it.
    let stripes = stated / 4_600_000;
    assert!((1..=4).contains(&stripes) && stated < stripes * 4_700_000, "{stated} bytes");
    let slack = 64 << 10;
    assert!((with - without).abs_diff(stated) < slack, "{} taken, {stated} stated", with - without);
}

#[test]
fn memory_stays_under_its_bound_while_the_log_hangs_and_while_it_is_slow() {
    const OFFERED: u64 = 20_000;
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let disk = SlowDisk::default();
    let dir = TestDir::new();
    let engine = StorageEngine::options(DIM)
        .mailbox_bytes_max(WAITING_MAX)
        .mailbox_capacity(1 << 20)
        // The graph is not what is measured.
        .m(4)
        .ef_construction(8)
        .disk(Arc::new(disk.clone()))
        .open(dir.path())
        .unwrap();
    let base = MEMORY.current_usage();
    let offered_bytes = OFFERED as usize * (DIM * 4 + (3 << 10)) * 2;
    assert!(offered_bytes > 5 * (WAITING_MAX + ROUND_MAX), "too little to outrun it");

    // The disk hangs: nothing is committed, and all that is taken is what waits.
    let held = disk.hold();
    MEMORY.reset_peak_usage();
    for number in 0..OFFERED {
        offer(&engine, number);
        if number % (OFFERED / 10) == 0 {
            let used = (MEMORY.current_usage() - base) / 1024;
            println!("disk hangs: {number} offered, {used} KiB, {} in line", engine.queue_depth());
        }
    }
    let taken = MEMORY.peak_usage() - base;
    println!("disk hangs: at most {} KiB were taken", taken / 1024);
    assert!(taken < WAITING_MAX + ROUND_MAX, "{taken} bytes");
    assert!(engine.queue_bytes() <= WAITING_MAX as u64);
    assert!(engine.queue_bytes() > WAITING_MAX as u64 / 2, "the limit is in the wrong measure");

    // Sheds load on purpose, and says why.
    let refused = engine.try_insert(large(OFFERED)).unwrap_err();
    assert!(matches!(&refused, TalaError::Busy { intent } if intent.id == id(OFFERED)));
    let refused = engine.insert_timeout(large(OFFERED), Duration::from_millis(1)).unwrap_err();
    assert!(matches!(&refused, TalaError::Busy { intent } if intent.id == id(OFFERED)));
    {
        let mut waiting = pin!(engine.insert_async(large(OFFERED)));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let Health::Degraded(shortage) = engine.health() else { panic!("{}", engine.health()) };
        assert_eq!((shortage.what, shortage.waiting), (Resource::RequestBytes, 1));
    }

    // The disk is slow: what is committed stays, and so is in memory at the end as well.
    MEMORY.reset_peak_usage();
    let mut number = OFFERED;
    for turn in 0..8 {
        let before = disk.syncs();
        disk.let_through(1);
        for _ in 0..OFFERED / 10 {
            offer(&engine, number);
            number += 1;
        }
        disk.wait_for_sync(before);
        let used = (MEMORY.current_usage() - base) / 1024;
        println!("disk is slow: turn {turn}, {} stored, {used} KiB", engine.len());
    }
    let peak = MEMORY.peak_usage();
    drop(held);
    engine.sync().unwrap();
    engine.wait_indexed().unwrap();
    let stored = MEMORY.current_usage();
    println!(
        "disk is slow: peak {} KiB, {} KiB at rest",
        (peak - base) / 1024,
        (stored - base) / 1024
    );
    assert!(peak < stored + WAITING_MAX + ROUND_MAX, "{} bytes more than at rest", peak - stored);
    assert!(engine.len() > 1_000, "little was committed: {}", engine.len());
    assert_eq!((engine.queue_bytes(), engine.queue_depth()), (0, 0));
}
