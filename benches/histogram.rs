//! What does it cost to remember one more measured time?
//!
//! - `histogram/record`: into the counters of a lock, as the engine does for each acquisition; into
//!   a histogram of 1 ns to 60 s with three digits, which its thread owns; and into one behind a
//!   mutex that nobody else wants. Beside them one reading of the clock, which any of them needs.
//! - `histogram/read`: what do a merge of two threads' histograms and a quantile cost?
//!
//! The times are drawn evenly from the powers of two between 1 ns and 17 s, so that they fall
//! into buckets all over the histogram.

mod common;

use std::{hint::black_box, time::Instant};

use common::Random;
use criterion::{Criterion, criterion_group, criterion_main};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tala_store::LockStats;

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

fn read(criterion: &mut Criterion) {
    let mut full = empty();
    times().into_iter().for_each(|time| full.record(time).unwrap());
    let mut group = criterion.benchmark_group("histogram/read");
    group.bench_function("merge", |bencher| {
        let mut sum = empty();
        bencher.iter(|| sum.add(black_box(&full)).unwrap());
    });
    group.bench_function("p99", |bencher| {
        bencher.iter(|| black_box(&full).value_at_quantile(0.99));
    });
}

criterion_group! { name = benches; config = common::criterion(); targets = record, read }
criterion_main!(benches);
