//! What does the graph cost?
//!
//! - `index/insert`: how fast does a graph grow from nothing to 10,000 rows: `engine` by cosine,
//!   on a thread of its own behind the engine's writer; `query engine` by Euclidean distance, in
//!   place?
//! - `index/search`: what does a search for 10 among 20,000 cost, by the width of its beam?
//! - `index/edge_candidates`: what do the candidates for edges cost in a `QueryEngine` of 20,000,
//!   by how many are asked for?
//!
//! A quick run has a tenth of the rows.

mod common;

use std::cell::LazyCell;

use common::{Clusters, DIM, indexed, intents, sized};
use criterion::{
    BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use tala_core::Intent;
use tala_store::{Query, QueryEngine, StorageEngine};

const K: usize = 10;

fn query_engine(intents: Vec<Intent>) -> QueryEngine {
    let mut engine = QueryEngine::new(DIM);
    for Intent { id, timestamp, raw_command, embedding, .. } in intents {
        engine.insert(*id.as_bytes(), timestamp, raw_command, embedding);
    }
    engine
}

/// Points around the centers of the intents, but not theirs.
fn queries() -> Vec<Vec<f32>> {
    let mut clusters = Clusters::new(7);
    clusters.points(sized(20_000, 2_000));
    clusters.points(500)
}

fn insert(criterion: &mut Criterion) {
    let intents = intents(sized(10_000, 1_000));
    let mut group = criterion.benchmark_group("index/insert");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(intents.len() as u64));
    group.bench_function("engine", |bencher| {
        bencher.iter_batched(
            || intents.clone(),
            |intents| indexed(StorageEngine::options(DIM), intents),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("query engine", |bencher| {
        bencher.iter_batched(|| intents.clone(), query_engine, BatchSize::PerIteration);
    });
}

fn search(criterion: &mut Criterion) {
    let engine = LazyCell::new(|| {
        let options = StorageEngine::options(DIM).exact_below(0);
        indexed(options, intents(sized(20_000, 2_000)))
    });
    let queries = queries();
    let mut group = criterion.benchmark_group("index/search");
    for ef in [10, 16, 32, 64, 128, 256] {
        group.bench_function(BenchmarkId::new("ef", ef), |bencher| {
            let mut next = queries.iter().cycle();
            let engine = &*engine;
            bencher.iter(|| next.next().map(|query| engine.search(Query::new(query, K).ef(ef))));
        });
    }
}

fn edge_candidates(criterion: &mut Criterion) {
    let engine = LazyCell::new(|| query_engine(intents(sized(20_000, 2_000))));
    let queries = queries();
    let mut group = criterion.benchmark_group("index/edge_candidates");
    for k in [5, 10, 50] {
        group.bench_function(BenchmarkId::new("k", k), |bencher| {
            let mut next = queries.iter().cycle();
            let engine = &*engine;
            bencher.iter(|| next.next().map(|query| engine.find_edge_candidates(query, k)));
        });
    }
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = insert, search, edge_candidates
}
criterion_main!(benches);
