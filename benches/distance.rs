//! What does one distance cost?
//!
//! - `distance/in_cache`: what does a kernel cost when both vectors are in the first level cache,
//!   and how much of it is ours beside the bare SIMD kernel?
//! - `distance/from_memory`: and when the rows come in a random order from 320 MiB (4 MiB in a
//!   quick run, which caches hold), as they do in a walk?
//!
//! The order is known ahead, as a walk knows all neighbors of a node, so the processor may fetch a
//! row while it computes with the one before.
//!
//! - `distance/codes_in_cache`, `distance/codes_from_memory`: the same for products of codes, of one
//!   byte to the component, with each set of instructions that this processor has. `dot` takes one
//!   row, `dots4` four in one pass, `prefetched dots4` asks for the next four before it; `coarse`
//!   and `coarse4` read only the high half of each component.
//! - `distance/quantize`: and what does it cost to make a code, to pack it, or to make a probe of one?
//!
//! `cosine walk` is what the graph measures by, `cosine rank` what answers are ranked by,
//! `euclidean` what a `QueryEngine` does both by; `simsimd` are bare SIMD kernels, and `plain loop`
//! is a dot product as the compiler makes it. A quick run leaves out most dimensions.

mod common;

use std::{cell::LazyCell, hint::black_box};

use common::{Random, sized};
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use simsimd::SpatialSimilarity;
use tala_store::rooms::{
    Cosine, Euclidean, KernelPath, Metric, Probe, Vector, coarse, coarse4, code_bytes, dot, dots4,
    pack, prefetch, quantize,
};

const DIMS: [usize; 5] = [64, 128, 384, 768, 1_536];
const QUICK_DIMS: [usize; 2] = [64, 384];

fn plain_loop(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Of the query, and of a row and its norm. Those come in registers: a [`Vector`] made outside goes
/// through memory, where it cannot be copied before its norm has come, and then no row is fetched
/// while another is computed with.
type Kernel = (&'static str, fn(Vector<'_>, &[f32], f32) -> f64);

/// simsimd gives nothing only for unequal lengths.
const KERNELS: [Kernel; 7] = [
    ("cosine walk", |a, b, norm| Cosine::distance(a, Vector::with_norm(b, norm)).into()),
    ("cosine rank", |a, b, norm| Cosine::cost(a, Vector::with_norm(b, norm)).into()),
    ("euclidean", |a, b, norm| Euclidean::distance(a, Vector::with_norm(b, norm)).into()),
    ("simsimd dot", |a, b, _| SpatialSimilarity::dot(a.values(), b).unwrap_or(f64::NAN)),
    ("simsimd cos", |a, b, _| SpatialSimilarity::cos(a.values(), b).unwrap_or(f64::NAN)),
    ("simsimd l2sq", |a, b, _| SpatialSimilarity::l2sq(a.values(), b).unwrap_or(f64::NAN)),
    ("plain loop", |a, b, _| plain_loop(a.values(), b).into()),
];

fn each_kernel(
    group: &mut BenchmarkGroup<'_, WallTime>,
    dim: usize,
    mut bench: impl FnMut(&mut criterion::Bencher<'_>, fn(Vector<'_>, &[f32], f32) -> f64),
) {
    // The row that is fetched; the query is in the cache in both groups.
    group.throughput(Throughput::Bytes(4 * dim as u64));
    for (name, kernel) in KERNELS {
        group.bench_function(BenchmarkId::new(name, dim), |bencher| bench(bencher, kernel));
    }
}

fn in_cache(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("distance/in_cache");
    for &dim in sized(&DIMS[..], &QUICK_DIMS) {
        let mut random = Random(1);
        let (a, b) = (random.vector(dim), random.vector(dim));
        let a = Vector::new(&a);
        let norm = Vector::new(&b).squared_norm();
        each_kernel(&mut group, dim, |bencher, kernel| {
            bencher.iter(|| kernel(black_box(a), black_box(&b), norm));
        });
    }
}

fn from_memory(criterion: &mut Criterion) {
    let memory = LazyCell::new(|| Random(2).vector(sized(320 << 20, 4 << 20) / 4));
    let mut group = criterion.benchmark_group("distance/from_memory");
    for &dim in sized(&DIMS[..], &QUICK_DIMS) {
        let query = Random(3).vector(dim);
        let query = Vector::new(&query);
        // Rows and their norms lie apart, as in the arena.
        let rows = LazyCell::new(|| {
            let rows: Vec<&[f32]> = memory.chunks_exact(dim).collect();
            let norms: Vec<f32> = rows.iter().map(|row| Vector::new(row).squared_norm()).collect();
            let order = Random(4).order(rows.len());
            (norms, order)
        });
        each_kernel(&mut group, dim, |bencher, kernel| {
            let (norms, order) = &*rows;
            let mut next = order.iter().cycle();
            bencher.iter(|| {
                let row = *next.next().unwrap_or(&0);
                let values = &memory[row * dim..][..dim];
                kernel(query, values, norms[row])
            });
        });
    }
}

/// A line of the cache.
const LINE_BYTES: usize = 64;

/// A probe, and memory for `bytes` of codes of random components.
fn probe_and_memory(path: KernelPath, dim: usize, bytes: usize) -> (Probe, Vec<u8>) {
    let mut random = Random(5);
    let mut probe = Probe::with_path(path);
    probe.set_signed(&random_components(&mut random, dim));
    (probe, random_bytes(&mut random, bytes + LINE_BYTES))
}

fn random_components(random: &mut Random, dim: usize) -> Vec<i8> {
    random_bytes(random, dim).into_iter().map(u8::cast_signed).collect()
}

/// The memory from where its first line begins, as rows do in a store.
fn lines(memory: &[u8]) -> &[u8] {
    &memory[memory.as_ptr().align_offset(LINE_BYTES)..]
}

fn random_bytes(random: &mut Random, len: usize) -> Vec<u8> {
    let words = (0..len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes());
    words.take(len).collect()
}

fn codes_in_cache(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("distance/codes_in_cache");
    for &dim in sized(&DIMS[..], &QUICK_DIMS) {
        let bytes = code_bytes(dim);
        for path in KernelPath::available() {
            let (probe, memory) = probe_and_memory(path, dim, 4 * bytes);
            let codes = lines(&memory);
            let four = |bytes_read: usize| {
                let codes = black_box(codes);
                [0, 1, 2, 3].map(|row| &codes[row * bytes..][..bytes_read])
            };
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(BenchmarkId::new(format!("dot {path}"), dim), |bencher| {
                bencher.iter(|| dot(black_box(&probe), black_box(&codes[..bytes])));
            });
            group.throughput(Throughput::Bytes(bytes as u64 / 2));
            group.bench_function(BenchmarkId::new(format!("coarse {path}"), dim), |bencher| {
                bencher.iter(|| coarse(black_box(&probe), black_box(&codes[..bytes / 2])));
            });
            group.throughput(Throughput::Bytes(4 * bytes as u64));
            group.bench_function(BenchmarkId::new(format!("dots4 {path}"), dim), |bencher| {
                bencher.iter(|| dots4(black_box(&probe), four(bytes)));
            });
            group.throughput(Throughput::Bytes(2 * bytes as u64));
            group.bench_function(BenchmarkId::new(format!("coarse4 {path}"), dim), |bencher| {
                bencher.iter(|| coarse4(black_box(&probe), four(bytes / 2)));
            });
        }
    }
}

fn codes_from_memory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("distance/codes_from_memory");
    for &dim in sized(&DIMS[..], &QUICK_DIMS) {
        for path in KernelPath::available() {
            let bytes = code_bytes(dim);
            let memory_bytes = sized(320 << 20, 4 << 20);
            let world = LazyCell::new(|| {
                let (probe, memory) = probe_and_memory(path, dim, memory_bytes);
                (probe, memory, Random(4).order(memory_bytes / bytes))
            });
            for (name, is_coarse) in [("dot", false), ("coarse", true)] {
                let bytes_read = if is_coarse { bytes / 2 } else { bytes };
                group.throughput(Throughput::Bytes(bytes_read as u64));
                group.bench_function(BenchmarkId::new(format!("{name} {path}"), dim), |bencher| {
                    let (probe, memory, order) = &*world;
                    let codes = lines(memory);
                    let mut next = order.iter().cycle();
                    bencher.iter(|| {
                        let row = &codes[next.next().unwrap_or(&0) * bytes..][..bytes_read];
                        if is_coarse { coarse(probe, row) } else { dot(probe, row) as f32 }
                    });
                });
            }
            for (name, is_coarse, is_prefetched) in [
                ("dots4", false, false),
                ("prefetched dots4", false, true),
                ("coarse4", true, false),
                ("prefetched coarse4", true, true),
            ] {
                let bytes_read = if is_coarse { bytes / 2 } else { bytes };
                group.throughput(Throughput::Bytes(4 * bytes_read as u64));
                group.bench_function(BenchmarkId::new(format!("{name} {path}"), dim), |bencher| {
                    let (probe, memory, order) = &*world;
                    let codes = lines(memory);
                    let mut next = order.iter().cycle();
                    let mut four = || {
                        [(); 4].map(|()| &codes[next.next().unwrap_or(&0) * bytes..][..bytes_read])
                    };
                    let mut rows = four();
                    bencher.iter(|| {
                        let next_rows = four();
                        if is_prefetched {
                            next_rows.into_iter().for_each(prefetch);
                        }
                        let rows = std::mem::replace(&mut rows, next_rows);
                        if is_coarse {
                            coarse4(probe, rows)
                        } else {
                            dots4(probe, rows).map(|dot| dot as f32)
                        }
                    });
                });
            }
        }
    }
}

fn making_codes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("distance/quantize");
    for &dim in sized(&DIMS[..], &QUICK_DIMS) {
        let values = Random(6).vector(dim);
        let norm = f64::from(Vector::new(&values).squared_norm()).sqrt();
        let mut components = vec![0; dim];
        group.bench_function(BenchmarkId::new("quantize", dim), |bencher| {
            bencher.iter(|| quantize(black_box(&values), norm, &mut components));
        });
        let huge: Vec<f32> = values.iter().map(|value| 1e30 * value).collect();
        group.bench_function(BenchmarkId::new("quantize huge", dim), |bencher| {
            bencher.iter(|| quantize(black_box(&huge), 1e30 * norm, &mut components));
        });
        let components = random_components(&mut Random(7), dim);
        let mut code = vec![0; code_bytes(dim)];
        group.bench_function(BenchmarkId::new("pack", dim), |bencher| {
            bencher.iter(|| pack(black_box(&components), black_box(&mut code)));
        });
        let mut probe = Probe::new();
        group.bench_function(BenchmarkId::new("probe of components", dim), |bencher| {
            bencher.iter(|| black_box(&mut probe).set_signed(black_box(&components)));
        });
        group.bench_function(BenchmarkId::new("probe of a code", dim), |bencher| {
            bencher.iter(|| black_box(&mut probe).set_code(black_box(&code)));
        });
    }
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = in_cache, from_memory, codes_in_cache, codes_from_memory, making_codes
}
criterion_main!(benches);
