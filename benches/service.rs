//! What does a service pay for looking at the engine with every request, and for following its writes?
//!
//! - `service/asked`: one question of an engine that has work: how deep its queue is, how far its
//!   index lags, how it is.
//! - `service/followed`: batches of 100 intents into memory, which is the log's writer publishing and
//!   little else; the time for all of them. Nobody follows the writes; they are kept and nobody
//!   reads; somebody reads.

mod common;

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use common::{intents, sized};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use tala_core::Intent;
use tala_store::{Delivery, SeqNo, StorageEngine};

/// Narrow, so that copying vectors does not hide what following costs.
const NARROW: usize = 8;
const BATCH: usize = 100;

fn asked(criterion: &mut Criterion) {
    let engine = StorageEngine::in_memory(common::DIM, 1_000);
    engine.insert_batch(intents(500)).unwrap();
    let mut group = criterion.benchmark_group("service/asked");
    group.bench_function("queue_depth", |bencher| bencher.iter(|| black_box(engine.queue_depth())));
    group.bench_function("queue_bytes", |bencher| bencher.iter(|| black_box(engine.queue_bytes())));
    group.bench_function("index_lag", |bencher| bencher.iter(|| black_box(engine.index_lag())));
    group.bench_function("health", |bencher| bencher.iter(|| black_box(engine.health())));
}

#[derive(Clone, Copy)]
enum Followed {
    ByNobody,
    Kept,
    ByOne,
}

fn publish(intents: &[Intent], followed: Followed) -> Duration {
    // Linking goes on beside it, and is kept as short as it can be.
    let options = StorageEngine::options(NARROW).index_lag_max(usize::MAX).m(2).ef_construction(1);
    let engine = options.hot_capacity(intents.len() + 1).in_memory().unwrap();
    let mut writes = match followed {
        Followed::ByNobody => None,
        Followed::Kept | Followed::ByOne => Some(engine.subscribe(SeqNo::FIRST).unwrap()),
    };
    let reader = match followed {
        Followed::ByOne => writes.take().map(|mut writes| {
            thread::spawn(move || {
                let mut count = 0;
                while !matches!(writes.next(), Delivery::Ended) {
                    count += 1;
                }
                count
            })
        }),
        Followed::ByNobody | Followed::Kept => None,
    };
    let batches: Vec<Vec<Intent>> = intents.chunks(BATCH).map(<[Intent]>::to_vec).collect();
    let begun = Instant::now();
    for batch in batches {
        engine.insert_batch(batch).unwrap();
    }
    let took = begun.elapsed();
    drop(engine);
    if let Some(reader) = reader {
        assert_eq!(reader.join().unwrap(), intents.len());
    }
    took
}

fn followed(criterion: &mut Criterion) {
    let mut intents = intents(sized(10_000, 1_000));
    intents.iter_mut().for_each(|intent| intent.embedding.truncate(NARROW));
    let mut group = criterion.benchmark_group("service/followed");
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(intents.len() as u64));
    for (name, followed) in
        [("by nobody", Followed::ByNobody), ("kept", Followed::Kept), ("by one", Followed::ByOne)]
    {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations).map(|_| publish(&intents, followed)).sum()
            });
        });
    }
}

criterion_group! { name = benches; config = common::criterion(); targets = asked, followed }
criterion_main!(benches);
