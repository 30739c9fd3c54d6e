//! How many intents a second does the whole pipeline take in, by durability and by clients?
//!
//! - `ingest/answered`: until every insert is answered: durable as its level says, visible, and
//!   found by searches. The graph grows beside it, on the same processors.
//! - `ingest/linked`: until the graph holds all of them as well.
//!
//! Each client is a thread that inserts one intent after the other. A run is 2,000 intents (200 in
//! a quick run) into a new store; making and closing the store is not counted.

mod common;

use std::time::{Duration, Instant};

use common::{DIM, intents, scratch_dir, sized, together};
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use tala_core::{Intent, IntentStore};
use tala_store::{Durability, StorageEngine};

/// Where the intents go.
#[derive(Clone, Copy)]
enum Level {
    Disk(Durability),
    Memory,
}

const LEVELS: [(&str, Level); 4] = [
    ("sync", Level::Disk(Durability::Sync)),
    ("interval 100 ms", Level::Disk(Durability::Interval(Duration::from_millis(100)))),
    ("os", Level::Disk(Durability::Os)),
    ("in memory", Level::Memory),
];

const CLIENTS: [usize; 3] = [1, 4, 16];

/// One run.
fn ingest(level: Level, clients: usize, intents: &[Intent], is_linked: bool) -> Duration {
    let dir = scratch_dir();
    let options = StorageEngine::options(DIM);
    let engine = match level {
        Level::Disk(durability) => options.durability(durability).open(dir.path()),
        Level::Memory => options.in_memory(),
    };
    let engine = &engine.unwrap();
    let share_len = intents.len().div_ceil(clients);
    let jobs = intents.chunks(share_len).map(|share| {
        let share = share.to_vec();
        move || {
            for intent in share {
                engine.insert(intent).unwrap();
            }
        }
    });
    let (start, mut end) = together(jobs.collect());
    if is_linked {
        engine.wait_indexed().unwrap();
        end = Instant::now();
    }
    engine.close().unwrap();
    end - start
}

fn by_level_and_clients(criterion: &mut Criterion, name: &str, is_linked: bool) {
    let intents = intents(sized(2_000, 200));
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(intents.len() as u64));
    for (name, level) in LEVELS {
        for clients in CLIENTS {
            group.bench_function(BenchmarkId::new(name, clients), |bencher| {
                bencher.iter_custom(|iterations| {
                    (0..iterations).map(|_| ingest(level, clients, &intents, is_linked)).sum()
                });
            });
        }
    }
}

fn answered(criterion: &mut Criterion) {
    by_level_and_clients(criterion, "ingest/answered", false);
}

fn linked(criterion: &mut Criterion) {
    by_level_and_clients(criterion, "ingest/linked", true);
}

criterion_group! { name = benches; config = common::criterion(); targets = answered, linked }
criterion_main!(benches);
