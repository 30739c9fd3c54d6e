//! How much memory does an engine take while writers outrun the disk?
//!
//! Not a time that criterion could measure, so a program of its own, which prints a line a second. A
//! service is offered more than its disk takes: 20 intents a millisecond, of which each has a command
//! of 3 KiB and 256 dimensions, while the disk lets one sync through every 250 ms; from the 8th to the
//! 14th second it hangs and lets none through. What has no room is turned away, as
//! `examples/ingest-service` does; what was let in stays on its way until it is acknowledged.
//!
//! The stated bound is what "Memory" in README.md says: what the process had at first, what was
//! acknowledged, a segment, `mailbox_bytes_max`, the round that the log's writer is at, the histograms;
//! and what callers hold who wait for room, which is theirs. The program fails where the process had
//! more.
//!
//! ```text
//! cargo bench --bench outrun              # 20 s; with --quick 4
//! ```

mod common;
#[path = "../tests/slow_disk/mod.rs"]
mod slow_disk;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use common::{Random, intent, scratch_dir, sized};
use slow_disk::SlowDisk;
use tala_core::Intent;
use tala_store::{Health, StorageEngine};
use tokio::runtime::Builder;

const MIB: u64 = 1 << 20;
const DIM: usize = 256;
const COMMAND_BYTES: usize = 3 << 10;
/// Offered each millisecond.
const OFFERED: u64 = 20;
/// Between two syncs that the disk lets through.
const SYNC_EVERY_MS: u64 = 250;
const WAITING_MAX: u64 = 16 * MIB;
/// The records of a round, the intents that they were made of, and the room that buffers have grown to.
const ROUND_MAX: u64 = 3 * 4 * MIB;
/// Intents of a segment, which is put together in memory.
const HOT_CAPACITY: u64 = 1_000;

/// Bytes of memory of an acknowledged intent: its embedding, its code and links, its command, and its
/// places in the maps.
const STORED_BYTES: u64 = DIM as u64 * 4 + (DIM as u64 + 200) + COMMAND_BYTES as u64 + 500;

/// Bytes that a caller holds who waits for room: its intent, and the record of it.
const CALLERS_BYTES: u64 = 2 * (DIM as u64 * 4 + COMMAND_BYTES as u64) + 500;

fn large(number: u64) -> Intent {
    let intent = intent(number as usize, Random(number).vector(DIM));
    Intent { raw_command: "x".repeat(COMMAND_BYTES), parent_ids: Vec::new(), ..intent }
}

/// Bytes of memory that the process has, as the system counts them.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn main() {
    let seconds = sized(20, 4);
    let hangs_ms = sized(8_000..14_000, 1_000..3_000);
    let disk = SlowDisk::default();
    let dir = scratch_dir();
    let engine = StorageEngine::options(DIM)
        .mailbox_bytes_max(WAITING_MAX as usize)
        .mailbox_capacity(1 << 20)
        .hot_capacity(HOT_CAPACITY as usize)
        .disk(Arc::new(disk.clone()))
        .open(dir.path())
        .unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let first_bytes = resident_bytes();
    let held = disk.hold();
    let (mut offered, mut refused, mut worst) = (0, 0, 0.0_f64);
    let begun = Instant::now();
    println!(
        "{:>3} {:>8} {:>8} {:>12} {:>9} {:>7} {:>9} {:>12} {:>9}  short of",
        "s",
        "offered",
        "refused",
        "acknowledged",
        "queue MiB",
        "waiting",
        "index lag",
        "resident MiB",
        "bound MiB"
    );
    for ms in 0..=seconds * 1_000 {
        let due = begun + Duration::from_millis(ms);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if ms % SYNC_EVERY_MS == 0 && !hangs_ms.contains(&ms) {
            disk.let_through(1);
        }
        if ms % 1_000 == 0 {
            let done = acknowledged.load(Relaxed);
            let (short_of, waiting) = match engine.health() {
                Health::Degraded(shortage) => (format!("{:?}", shortage.what), shortage.waiting),
                health => (health.to_string(), 0),
            };
            let bound = first_bytes
                + (done + HOT_CAPACITY) * STORED_BYTES
                + WAITING_MAX
                + ROUND_MAX
                + engine.stats().histogram_bytes
                + waiting * CALLERS_BYTES;
            let resident = resident_bytes();
            worst = worst.max(resident as f64 / bound as f64);
            let mib = |bytes: u64| bytes as f64 / MIB as f64;
            println!(
                "{:>3} {offered:>8} {refused:>8} {done:>12} {:>9.1} {waiting:>7} {:>9} {:>12.1} {:>9.1}  {short_of}",
                ms / 1_000,
                mib(engine.queue_bytes()),
                engine.index_lag(),
                mib(resident),
                mib(bound),
            );
        }
        for _ in 0..OFFERED {
            offered += 1;
            if matches!(engine.health(), Health::Degraded(shortage) if shortage.makes_inserts_wait())
            {
                refused += 1;
                continue;
            }
            let insert = engine.insert_async(large(offered));
            let acknowledged = Arc::clone(&acknowledged);
            runtime.spawn(async move {
                insert.await.unwrap();
                acknowledged.fetch_add(1, Relaxed);
            });
        }
    }
    drop(held);
    engine.sync().unwrap();
    println!("at most {:.0}% of the stated bound", worst * 100.0);
    // What the allocator keeps for itself is in no bound of ours.
    assert!(worst <= 1.05, "more memory than is stated");
}
