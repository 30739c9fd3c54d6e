//! What does a lock pay for counting itself?
//!
//! - `locks/uncontended`: one thread takes and releases, of a bare lock, of one that counts, and of
//!   one that also records wait and hold in histograms, as an engine's do. `mutex/two clocks` is the bare
//!   lock and two readings of the clock: what counting may cost at most.
//! - `locks/contended`: two threads do so at once, as often each; the time of one round of both.
//!   `read` are two readers, who keep nobody waiting and yet write to the same counters.
//!
//! The work under the lock is adding 1.

mod common;

use std::{hint::black_box, sync::Arc, time::Instant};

use common::together;
use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use parking_lot::{Mutex, RwLock};
use tala_store::{
    StorageEngine,
    rooms::{Instruments, LockRank, TrackedMutex, TrackedRwLock},
};

/// The measure of one round.
type Bench = fn(&mut BenchmarkGroup<'_, WallTime>, &str, &(dyn Fn() + Sync));

fn alone(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, round: &(dyn Fn() + Sync)) {
    group.bench_function(name, |bencher| bencher.iter(round));
}

fn against_another(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    round: &(dyn Fn() + Sync),
) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let (start, end) = together(vec![|| (0..iterations).for_each(|_| round()); 2]);
            end - start
        });
    });
}

fn all_locks(criterion: &mut Criterion, name: &str, bench: Bench) {
    let counting = Arc::new(Instruments::default());
    let recording = Arc::new(Instruments::recording());
    let mut group = criterion.benchmark_group(name);

    let bare = Mutex::new(0_u64);
    bench(&mut group, "mutex/bare", &|| *bare.lock() += 1);
    bench(&mut group, "mutex/two clocks", &|| {
        let begun = Instant::now();
        *bare.lock() += black_box(begun.elapsed()).as_nanos() as u64;
    });
    let tracked = TrackedMutex::new(0_u64, &counting, LockRank::Hot);
    bench(&mut group, "mutex/counted", &|| *tracked.lock() += 1);
    let tracked = TrackedMutex::new(0_u64, &recording, LockRank::Hot);
    bench(&mut group, "mutex/recorded", &|| *tracked.lock() += 1);

    let bare = RwLock::new(0_u64);
    bench(&mut group, "write/bare", &|| *bare.write() += 1);
    bench(&mut group, "read/bare", &|| _ = black_box(*bare.read() + 1));
    let tracked = TrackedRwLock::new(0_u64, &recording, LockRank::Intents);
    bench(&mut group, "write/recorded", &|| *tracked.write() += 1);
    bench(&mut group, "read/recorded", &|| _ = black_box(*tracked.read() + 1));
}

fn uncontended(criterion: &mut Criterion) {
    // Locks go by the processor's counter once an engine has been opened.
    drop(StorageEngine::options(4).in_memory());
    all_locks(criterion, "locks/uncontended", alone);
}

fn contended(criterion: &mut Criterion) {
    all_locks(criterion, "locks/contended", against_another);
}

criterion_group! { name = benches; config = common::criterion(); targets = uncontended, contended }
criterion_main!(benches);
