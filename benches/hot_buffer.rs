//! What does the hot buffer cost?
//!
//! - `hot_buffer/push`: how fast are intents pushed into an empty buffer, growth included? Each
//!   has a parent. This is the public `HotBuffer` with embeddings of its own; the engine's refers to
//!   rows of the index instead, and `ingest` has its cost.
//! - `hot_buffer/flush`: how fast does a full one become the bytes of a TBF segment?

mod common;

use std::hint::black_box;

use common::{DIM, intents, sized};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tala_core::Intent;
use tala_store::HotBuffer;

/// A buffer has no use for the commands, and makes the parents of numbers: without both, nothing
/// else is measured but pushing.
fn bare_intents() -> Vec<Intent> {
    let bare = |intent| Intent { raw_command: String::new(), parent_ids: Vec::new(), ..intent };
    intents(sized(10_000, 2_000)).into_iter().map(bare).collect()
}

fn fill(intents: Vec<Intent>) -> HotBuffer {
    let mut buffer = HotBuffer::new(DIM, intents.len());
    for (number, intent) in intents.into_iter().enumerate() {
        let parents = number.checked_sub(1).into_iter().collect();
        let Intent { id, timestamp, context_hash, confidence, embedding, .. } = intent;
        buffer.push(*id.as_bytes(), timestamp, context_hash, confidence, 1, embedding, parents);
    }
    buffer
}

fn push(criterion: &mut Criterion) {
    let intents = bare_intents();
    let mut group = criterion.benchmark_group("hot_buffer/push");
    group.throughput(Throughput::Elements(intents.len() as u64));
    group.bench_function(format!("{} intents", intents.len()), |bencher| {
        bencher.iter_batched(|| intents.clone(), fill, BatchSize::PerIteration);
    });
}

fn flush(criterion: &mut Criterion) {
    let intents = bare_intents();
    let mut group = criterion.benchmark_group("hot_buffer/flush");
    group.throughput(Throughput::Bytes(fill(intents.clone()).flush().len() as u64));
    group.bench_function(format!("{} intents", intents.len()), |bencher| {
        let setup = || fill(intents.clone());
        bencher.iter_batched_ref(
            setup,
            |buffer| black_box(buffer.flush()),
            BatchSize::PerIteration,
        );
    });
}

criterion_group! { name = benches; config = common::criterion(); targets = push, flush }
criterion_main!(benches);
