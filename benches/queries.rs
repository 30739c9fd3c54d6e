//! What does a question to a store cost its caller?
//!
//! - `queries/get`: by id, in a store of 10,000 and of 100,000 intents?
//! - `queries/temporal`: by time, for 1, 100 and 10,000 answers, in both stores?
//! - `queries/semantic`: by meaning, 10 answers at the default beam width among 10,000: `idle`; and
//!   `under ingest`, while another thread inserts as fast as the graph takes rows in? The store
//!   grows meanwhile, by some thousand rows a second.
//!
//! A quick run has stores of 200 and 1,000 intents, and 1,000 for semantic questions.
//!
//! Rows lie everywhere in memory as in any store. Linking 100,000 of them would take a minute, and
//! questions by id and by time know nothing of the graph: so in those stores 100 embeddings repeat.

mod common;

use std::{
    cell::LazyCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use common::{Clusters, DIM, Random, STEP_NS, id_of, indexed, intent, intents, sized};
use criterion::{Bencher, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tala_core::{IntentStore, TimeRange};
use tala_store::StorageEngine;

const K: usize = 10;
/// Different questions by meaning.
const QUERIES: usize = 500;
/// Rows that wait to be linked while the store is written to, at most.
const LAG_MAX: usize = 64;

fn sizes() -> [usize; 2] {
    sized([10_000, 100_000], [200, 1_000])
}

/// A store to ask by id and by time.
fn store(count: usize) -> StorageEngine {
    let embeddings = Clusters::new(5).points(100);
    let intents = (0..count).map(|number| intent(number, embeddings[number % 100].clone()));
    indexed(StorageEngine::options(DIM), intents.collect())
}

fn get(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queries/get");
    for size in sizes() {
        let engine = LazyCell::new(|| store(size));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            let engine = &*engine;
            let order = Random(1).order(size);
            let mut next = order.iter().cycle();
            bencher.iter(|| next.next().map(|number| engine.get(id_of(*number)).unwrap()));
        });
    }
}

fn temporal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queries/temporal");
    for size in sizes() {
        let engine = LazyCell::new(|| store(size));
        for answers in [1, 100, 10_000] {
            if answers > size {
                continue;
            }
            group.throughput(Throughput::Elements(answers as u64));
            group.bench_function(BenchmarkId::new(format!("of {size}"), answers), |bencher| {
                let engine = &*engine;
                let mut random = Random(2);
                bencher.iter(|| {
                    let first = random.below(size - answers + 1) as u64;
                    let end = (first + answers as u64) * STEP_NS;
                    engine.query_temporal(TimeRange { start: first * STEP_NS, end }).unwrap()
                });
            });
        }
    }
}

/// Intents in the store that is searched by meaning.
fn searched_count() -> usize {
    sized(10_000, 1_000)
}

fn searched() -> StorageEngine {
    let options = StorageEngine::options(DIM).exact_below(0).index_lag_max(LAG_MAX);
    indexed(options, intents(searched_count()))
}

/// A store and a thread that inserts into it until this is dropped.
struct Growing {
    engine: StorageEngine,
    is_over: Arc<AtomicBool>,
    writer: Option<JoinHandle<()>>,
}

impl Growing {
    fn start() -> Self {
        let engine = searched();
        let is_over = Arc::new(AtomicBool::new(false));
        let writer = {
            let (engine, is_over) = (engine.clone(), Arc::clone(&is_over));
            thread::spawn(move || {
                // Points around the same centers, after those that are stored and asked for.
                let first = searched_count();
                let mut clusters = Clusters::new(7);
                clusters.points(first + QUERIES);
                for number in first.. {
                    if is_over.load(Relaxed) {
                        break;
                    }
                    engine.insert(intent(number, clusters.point())).unwrap();
                }
            })
        };
        Self { engine, is_over, writer: Some(writer) }
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        let ended = self.writer.take().map(JoinHandle::join);
        // Figures of a store that did not grow would be wrong.
        assert!(thread::panicking() || ended.is_some_and(|ended| ended.is_ok()), "no writer");
    }
}

fn semantic(criterion: &mut Criterion) {
    let queries = {
        let mut clusters = Clusters::new(7);
        clusters.points(searched_count());
        clusters.points(QUERIES)
    };
    let mut group = criterion.benchmark_group("queries/semantic");
    let search = |bencher: &mut Bencher<'_>, engine: &StorageEngine| {
        let mut next = queries.iter().cycle();
        bencher.iter(|| next.next().map(|query| engine.query_semantic(query, K).unwrap()));
    };
    let idle = LazyCell::new(searched);
    group.bench_function("idle", |bencher| search(bencher, &idle));
    let growing = LazyCell::new(Growing::start);
    group.bench_function("under ingest", |bencher| search(bencher, &growing.engine));
}

criterion_group! { name = benches; config = common::criterion(); targets = get, temporal, semantic }
criterion_main!(benches);
