//! What does the log cost?
//!
//! - `wal/append`: how fast are records appended to a [`Wal`] that is not synced?
//! - `wal/append_sync`: what does a durable append to a [`Wal`] take, by records for one sync?
//! - `wal/encode`: what does a writer's thread pay to make one record?
//! - `wal/log_file`: what does the log's writer pay for a batch of made records without a sync: a
//!   stamp for each, one write?
//! - `wal/fdatasync`: what does the disk take to make so many appended bytes durable? The write
//!   before it is not counted.
//! - `wal/replay`: how fast is a log read again?

mod common;

use std::{
    fs,
    time::{Duration, Instant},
};

use common::{intents, scratch_dir, sized};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tala_core::Intent;
use tala_store::{
    Wal, replay_wal,
    rooms::{BatchPlace, Encoded, FileNumber, LogFile, SeqNo, Stamp, create_log},
};

/// Records in a round of the log's writer: one client, and many.
const BATCHES: [usize; 3] = [1, 16, 256];

fn append_all(wal: &mut Wal, intents: &[Intent]) {
    for intent in intents {
        wal.append(intent.id.as_bytes(), intent.timestamp, &intent.embedding, &intent.raw_command)
            .unwrap();
    }
}

fn log_bytes(intents: &[Intent]) -> u64 {
    intents.iter().map(|intent| encode(intent).encoded_len()).sum()
}

fn encode(intent: &Intent) -> Encoded {
    Encoded::insert(intent, BatchPlace::SINGLE).unwrap()
}

fn append(criterion: &mut Criterion) {
    let intents = intents(1_000);
    let mut group = criterion.benchmark_group("wal/append");
    group.throughput(Throughput::Bytes(log_bytes(&intents)));
    group.bench_function("1000 records", |bencher| {
        bencher.iter_custom(|iterations| {
            // A new file each time, so that no run fills the disk.
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let dir = scratch_dir();
                let mut wal = Wal::create(dir.path().join("log")).unwrap();
                let start = Instant::now();
                append_all(&mut wal, &intents);
                total += start.elapsed();
            }
            total
        });
    });
}

fn append_sync(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal/append_sync");
    for records in BATCHES {
        let intents = intents(records);
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(BenchmarkId::from_parameter(records), |bencher| {
            bencher.iter_custom(|iterations| {
                // A directory for each sample, so that the files of a long run do not add up.
                let dir = scratch_dir();
                let mut wal = Wal::create(dir.path().join("log")).unwrap();
                let start = Instant::now();
                for _ in 0..iterations {
                    append_all(&mut wal, &intents);
                    wal.sync().unwrap();
                }
                start.elapsed()
            });
        });
    }
}

fn encode_one(criterion: &mut Criterion) {
    let intent = intents(1).remove(0);
    let mut group = criterion.benchmark_group("wal/encode");
    group.throughput(Throughput::Bytes(encode(&intent).encoded_len()));
    group.bench_function("1 record", |bencher| bencher.iter(|| encode(&intent)));
}

fn log_file(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal/log_file");
    for records in BATCHES {
        let batch: Vec<Encoded> = intents(records).iter().map(encode).collect();
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(BenchmarkId::from_parameter(records), |bencher| {
            bencher.iter_custom(|iterations| {
                let dir = scratch_dir();
                let mut number = FileNumber(1);
                let mut log = create_log(dir.path(), number).unwrap();
                let mut bytes = Vec::new();
                let mut seq = SeqNo::ZERO;
                let mut total = Duration::ZERO;
                let mut file_bytes = 0;
                for _ in 0..iterations {
                    let start = Instant::now();
                    bytes.clear();
                    for record in &batch {
                        seq = seq.next();
                        let stamp = Stamp { seq, file: number, synced: SeqNo::ZERO };
                        record.stamp_into(&mut bytes, stamp);
                    }
                    log.append(&bytes).unwrap();
                    total += start.elapsed();
                    file_bytes += bytes.len();
                    if file_bytes > 256 << 20 {
                        // The next file replaces this one, so that no run fills the disk.
                        for file in fs::read_dir(dir.path()).unwrap() {
                            fs::remove_file(file.unwrap().path()).unwrap();
                        }
                        number = number.next();
                        log.rotate(number).unwrap();
                        file_bytes = 0;
                    }
                }
                total
            });
        });
    }
}

fn fdatasync(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal/fdatasync");
    for (name, len) in [("1.6 KB", 1_600), ("16 KB", 16_000), ("256 KB", 256_000)] {
        let bytes = vec![0x5A; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let dir = scratch_dir();
                let mut log = create_log(dir.path(), FileNumber(1)).unwrap();
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    log.append(&bytes).unwrap();
                    let start = Instant::now();
                    log.sync().unwrap();
                    total += start.elapsed();
                }
                total
            });
        });
    }
}

fn replay(criterion: &mut Criterion) {
    let dir = scratch_dir();
    let path = dir.path().join("log");
    let mut wal = Wal::create(&path).unwrap();
    append_all(&mut wal, &intents(sized(10_000, 1_000)));
    wal.sync().unwrap();
    let mut group = criterion.benchmark_group("wal/replay");
    group.throughput(Throughput::Bytes(fs::metadata(&path).unwrap().len()));
    group.bench_function("warm", |bencher| bencher.iter(|| replay_wal(&path).unwrap()));
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = append, append_sync, encode_one, log_file, fdatasync, replay
}
criterion_main!(benches);
