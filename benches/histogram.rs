//! What does it cost to remember one more measured time?
//!
//! - `histogram/record`: into the counters of a lock and into a histogram, as the engine does for each
//!   acquisition; into a histogram of the crate of 1 ns to 60 s with three digits, which its thread
//!   owns; and into one behind a mutex that nobody else wants. Beside them one reading of the clock,
//!   which any of them needs.
//! - `histogram/together`: two threads record at once, as often each; the time of one round of both.
//!   `same` is always the same time, which both would write to the same counter without stripes.
//! - `histogram/read`: a snapshot of all of an engine's, the interval since an earlier one, a quantile.
//!
//! The times are drawn evenly from the powers of two between 1 ns and 17 s, so that they fall
//! into buckets all over the histogram.

mod common;

use std::{hint::black_box, time::Instant};

use common::{Random, together};
use criterion::{Criterion, criterion_group, criterion_main};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tala_store::{LockStats, StorageEngine, Timing, rooms::Instruments};

const NS_MAX: u64 = 60_000_000_000;
const DIGITS: u8 = 3;

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, NS_MAX, DIGITS).unwrap()
}

fn times() -> Vec<u64> {
    let mut random = Random(1);
    (0..4_096).map(|_| (random.next() | 1 << 63) >> (30 + random.below(34))).collect()
}

fn record(criterion: &mut Criterion) {
    let times = times();
    let mut group = criterion.benchmark_group("histogram/record");
    group.bench_function("clock", |bencher| bencher.iter(Instant::now));
    group.bench_function("lock counters", |bencher| {
        let stats = LockStats::new();
        let mut next = times.iter().cycle();
        bencher.iter(|| {
            let time = *next.next().unwrap_or(&1);
            stats.record_acquisition(time);
            stats.record_release(time);
        });
        black_box(stats);
    });
    group.bench_function("engine", |bencher| {
        let instruments = Instruments::recording();
        let mut next = times.iter().cycle();
        bencher.iter(|| instruments.record(Timing::Get, *next.next().unwrap_or(&1)));
        black_box(instruments);
    });
    group.bench_function("engine, switched off", |bencher| {
        let instruments = Instruments::default();
        let mut next = times.iter().cycle();
        bencher.iter(|| black_box(&instruments).record(Timing::Get, *next.next().unwrap_or(&1)));
    });
    group.bench_function("owned", |bencher| {
        let mut histogram = empty();
        let mut next = times.iter().cycle();
        bencher.iter(|| histogram.record(*next.next().unwrap_or(&1)).unwrap());
        black_box(histogram);
    });
    group.bench_function("behind a mutex", |bencher| {
        let histogram = Mutex::new(empty());
        let mut next = times.iter().cycle();
        bencher.iter(|| histogram.lock().record(*next.next().unwrap_or(&1)).unwrap());
        black_box(histogram);
    });
}

fn record_together(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("histogram/together");
    for (name, times) in [("engine", times()), ("engine, same", vec![1_000; 4_096])] {
        let instruments = Instruments::recording();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let job = || {
                    let mut next = times.iter().cycle();
                    for _ in 0..iterations {
                        instruments.record(Timing::Get, *next.next().unwrap_or(&1));
                    }
                };
                let (start, end) = together(vec![job; 2]);
                end - start
            });
        });
    }
}

fn read(criterion: &mut Criterion) {
    let engine = StorageEngine::in_memory(8, 1_000);
    let earlier = engine.histograms().snapshot();
    let mut full = empty();
    times().into_iter().for_each(|time| full.record(time).unwrap());
    let instruments = Instruments::recording();
    for timing in Timing::ALL {
        times().into_iter().for_each(|time| instruments.record(timing, time));
    }
    let mut group = criterion.benchmark_group("histogram/read");
    group.bench_function("snapshot", |bencher| bencher.iter(|| instruments.histograms()));
    let later = instruments.histograms();
    group.bench_function("since", |bencher| bencher.iter(|| later.since(black_box(&earlier))));
    group.bench_function("p99", |bencher| {
        bencher.iter(|| black_box(&full).value_at_quantile(0.99));
    });
}

criterion_group! { name = benches; config = common::criterion(); targets = record, record_together, read }
criterion_main!(benches);
