//! What the benches share: seeded data, how long to measure, where files go.
//!
//! With `--quick` every bench takes less data and measures for as short as criterion can, so that
//! a run shows that all of them work; figures to compare come from a run without it.

// Each bench uses a part of this file.
#![allow(dead_code)]

use std::{
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use criterion::Criterion;
use tala_core::{Intent, IntentId};
use tala_store::{EngineOptions, StorageEngine};
use tempfile::TempDir;

/// Dimension of the embeddings, where a bench says nothing else.
pub const DIM: usize = 384;

/// Whether this run only has to show that the benches work.
pub fn is_quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}

/// One of two sizes: that of a full run, and that of a quick one.
pub fn sized<T>(full: T, quick: T) -> T {
    if is_quick() { quick } else { full }
}

/// How the benches measure. The flags of the command line come on top.
///
/// A quick run keeps its figures apart, so that no full run is compared with one.
pub fn criterion() -> Criterion {
    let criterion = Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        // As short as criterion measures in a quick run: nobody compares those figures.
        .measurement_time(sized(Duration::from_secs(4), Duration::from_millis(100)));
    if is_quick() { criterion.output_directory(&tmp_dir().join("criterion")) } else { criterion }
}

/// The build's directory for such files, on the same disk as the build. The system's may be in
/// memory, where an fdatasync costs nothing.
fn tmp_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// A directory on a real disk, gone when it is dropped.
pub fn scratch_dir() -> TempDir {
    tempfile::tempdir_in(tmp_dir()).unwrap()
}

/// Runs all jobs at once, each on a thread of its own: when the first began and the last ended.
pub fn together<J: FnOnce() + Send>(jobs: Vec<J>) -> (Instant, Instant) {
    let barrier = &Barrier::new(jobs.len());
    thread::scope(|scope| {
        let timed = |job: J| {
            move || {
                barrier.wait();
                let start = Instant::now();
                job();
                (start, Instant::now())
            }
        };
        let threads: Vec<_> = jobs.into_iter().map(|job| scope.spawn(timed(job))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)))
            .unwrap()
    })
}

/// SplitMix64: small, seeded, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Between -1 and 1.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    /// Below `end`, as good as evenly.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.float()).collect()
    }

    /// `0..count` in a random order (Fisher and Yates).
    pub fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for end in (1..count).rev() {
            order.swap(end, self.below(end + 1));
        }
        order
    }
}

/// Vectors around 200 centers, as embeddings lie around subjects.
pub struct Clusters {
    random: Random,
    centers: Vec<Vec<f32>>,
}

impl Clusters {
    const CENTERS: usize = 200;

    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let centers = (0..Self::CENTERS).map(|_| random.vector(DIM)).collect();
        Self { random, centers }
    }

    pub fn point(&mut self) -> Vec<f32> {
        let center = &self.centers[self.random.below(Self::CENTERS)];
        center.iter().map(|value| value + 0.6 * self.random.float()).collect()
    }

    pub fn points(&mut self, count: usize) -> Vec<Vec<f32>> {
        (0..count).map(|_| self.point()).collect()
    }
}

/// The id of the `number`-th intent; as scattered as random ids are.
pub fn id_of(number: usize) -> IntentId {
    let scattered = Random(number as u64).next();
    IntentId::from_bytes((u128::from(scattered) << 64 | number as u128).to_be_bytes())
}

/// Nanoseconds from one intent to the next.
pub const STEP_NS: u64 = 1_000;

/// The `number`-th intent: it happens [`STEP_NS`] after the one before, and follows from it. Its
/// record takes about 1,700 bytes of log.
pub fn intent(number: usize, embedding: Vec<f32>) -> Intent {
    Intent {
        id: id_of(number),
        timestamp: number as u64 * STEP_NS,
        raw_command: format!("cargo test --workspace --test number_{number:06}"),
        embedding,
        context_hash: Random(number as u64 / 50).next(),
        parent_ids: number.checked_sub(1).map(id_of).into_iter().collect(),
        outcome: None,
        confidence: 0.9,
    }
}

/// The first `count` intents, with embeddings of their own.
pub fn intents(count: usize) -> Vec<Intent> {
    let mut clusters = Clusters::new(7);
    (0..count).map(|number| intent(number, clusters.point())).collect()
}

/// An engine in memory that holds `intents` and has linked them.
pub fn indexed(options: EngineOptions, intents: Vec<Intent>) -> StorageEngine {
    let engine = options.in_memory().unwrap();
    for chunk in intents.chunks(1_000) {
        engine.insert_batch(chunk.to_vec()).unwrap();
    }
    engine.wait_indexed().unwrap();
    engine
}
