//! What does reading a TBF segment cost? One of 10,000 intents (2,000 in a quick run).
//!
//! - `segment/open`: what does it take to open one: `reader` from bytes in memory, which checks all
//!   but the embeddings; `verify`, which checks every byte; `mapped`, both, from a file in the page
//!   cache, as opening a store does?
//! - `segment/read`: what does a whole row cost, found by its id; and all rows, one after the other?
//! - `segment/find`: what does the question for an id cost that is there; and that is not, which
//!   the bloom filter answers 99 times of 100?
//! - `segment/edges`: what do the edges of a row cost?

mod common;

use std::hint::black_box;

use common::{DIM, Random, id_of, intents, scratch_dir, sized};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tala_core::SegmentId;
use tala_store::rooms::map_file;
use tala_wire::{Row, SegmentReader, SegmentWriter};

fn rows_count() -> usize {
    sized(10_000, 2_000)
}

fn segment() -> Vec<u8> {
    let intents = intents(rows_count());
    let mut writer = SegmentWriter::with_capacity(DIM, intents.len()).unwrap();
    for (intent, seq) in intents.iter().zip(1..) {
        writer.push(&Row::of(intent, seq)).unwrap();
    }
    writer.finish(SegmentId(1), 0).unwrap()
}

fn open(criterion: &mut Criterion) {
    let bytes = segment();
    let dir = scratch_dir();
    let path = dir.path().join("segment");
    std::fs::write(&path, &bytes).unwrap();
    let mut group = criterion.benchmark_group("segment/open");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("reader", |bencher| {
        bencher.iter(|| SegmentReader::open(black_box(&bytes[..])).unwrap());
    });
    group.bench_function("verify", |bencher| {
        let reader = SegmentReader::open(&bytes[..]).unwrap();
        bencher.iter(|| reader.verify().unwrap());
    });
    group.bench_function("mapped", |bencher| {
        bencher.iter(|| {
            let map = map_file(&path).unwrap().unwrap();
            let reader = SegmentReader::open(map).unwrap();
            reader.verify().unwrap();
            reader
        });
    });
}

fn read(criterion: &mut Criterion) {
    let reader = SegmentReader::open(segment()).unwrap();
    let mut group = criterion.benchmark_group("segment/read");
    group.bench_function("row by id", |bencher| {
        let order = Random(1).order(rows_count());
        let mut next = order.iter().cycle();
        bencher.iter(|| {
            let row = next.next().and_then(|number| reader.find(id_of(*number))).unwrap();
            reader.row(row).unwrap().into_intent()
        });
    });
    group.throughput(Throughput::Elements(rows_count() as u64));
    group.bench_function("all rows", |bencher| {
        bencher.iter(|| reader.rows().map(|row| row.unwrap().embedding[0]).sum::<f32>());
    });
}

fn find(criterion: &mut Criterion) {
    let reader = SegmentReader::open(segment()).unwrap();
    let mut group = criterion.benchmark_group("segment/find");
    for (name, first) in [("hit", 0), ("miss", rows_count())] {
        let ids: Vec<_> =
            Random(2).order(rows_count()).into_iter().map(|row| id_of(first + row)).collect();
        group.bench_function(name, |bencher| {
            let mut next = ids.iter().cycle();
            bencher.iter(|| next.next().and_then(|id| reader.find(*id)));
        });
    }
}

fn edges(criterion: &mut Criterion) {
    let reader = SegmentReader::open(segment()).unwrap();
    let order = Random(3).order(rows_count());
    criterion.benchmark_group("segment/edges").bench_function("of a row", |bencher| {
        let mut next = order.iter().cycle();
        bencher.iter(|| {
            let row = *next.next().unwrap_or(&0);
            reader.children(row as u32).map(|edge| edge.target).sum::<u32>()
        });
    });
}

criterion_group! { name = benches; config = common::criterion(); targets = open, read, find, edges }
criterion_main!(benches);
