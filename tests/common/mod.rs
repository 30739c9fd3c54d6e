//! What the tests of the public door share: made-up intents, a reference store to compare with, a
//! directory that is checked when the test ends.

// Each test program uses a part of this file.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use tala_core::{Intent, IntentId, IntentStore, Outcome, Status, TimeRange};
use tala_store::{Query, StorageEngine, verify};

/// Says when it is dropped, by a panic too, so that those who look on end with those who work.
pub struct AtWork<'a>(pub &'a AtomicU64);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Dimension of the embeddings that [`intent`] makes.
pub const DIM: usize = 8;

/// All of time that a range can hold.
pub const EVER: TimeRange = TimeRange { start: 0, end: u64::MAX };

/// A small generator (xorshift64*, Vigna 2016), the same on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in `[-1, 1)`.
    pub fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.float()).collect()
    }
}

pub fn id(number: u64) -> IntentId {
    IntentId::from_bytes(u128::from(number).to_be_bytes())
}

/// An intent of which every field says which one it is; the same each time.
pub fn intent(number: u64) -> Intent {
    Intent {
        id: id(number),
        timestamp: number.wrapping_add(1_000),
        raw_command: format!("befehl ü {number}"),
        embedding: Random::new(number.wrapping_add(1)).vector(DIM),
        context_hash: number.wrapping_mul(0x0123_4567_89AB_CDEF),
        parent_ids: (0..number % 3).map(|parent| id(number.wrapping_sub(parent))).collect(),
        outcome: None,
        confidence: 0.25 + number as f32,
    }
}

/// Another version of `intent(number)`: same id, all else different.
pub fn version(number: u64, version: u64) -> Intent {
    Intent { id: id(number), ..intent(number + 1_000_000 * version) }
}

pub fn outcome(number: u64) -> Outcome {
    let status = [Status::Success, Status::Failure, Status::Partial][(number % 3) as usize];
    Outcome { status, latency_ns: number << 32, exit_code: -(number as i32) }
}

/// A record as the original wrote it: the frame and nothing else.
pub fn legacy_frame(intent: &Intent) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(intent.id.as_bytes());
    payload.extend(intent.timestamp.to_le_bytes());
    payload.extend((intent.embedding.len() as u32).to_le_bytes());
    payload.extend(intent.embedding.iter().flat_map(|value| value.to_le_bytes()));
    payload.extend((intent.raw_command.len() as u32).to_le_bytes());
    payload.extend(intent.raw_command.as_bytes());
    let mut record = (payload.len() as u32).to_le_bytes().to_vec();
    record.extend(payload);
    record
}

/// What a frame says, with what an importer fills in.
pub fn as_imported(intent: Intent) -> Intent {
    Intent { context_hash: 0, parent_ids: vec![], outcome: None, confidence: 1.0, ..intent }
}

/// Cosine in f64; 0 where a vector is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let norms = (dot(a, a)).sqrt() * (dot(b, b)).sqrt();
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}

/// Whether all of two intents is equal, embeddings and confidence by their bits.
pub fn is_same(a: &Intent, b: &Intent) -> bool {
    let bits = |intent: &Intent| -> Vec<u32> {
        intent.embedding.iter().chain([&intent.confidence]).map(|value| value.to_bits()).collect()
    };
    let rest = |intent: &Intent| {
        let Intent { id, timestamp, raw_command, context_hash, parent_ids, outcome, .. } =
            intent.clone();
        (id, timestamp, raw_command, context_hash, parent_ids, outcome)
    };
    rest(a) == rest(b) && bits(a) == bits(b)
}

/// Checks hits against all of `intents`, which they must be the best `k` of.
pub fn assert_exact(hits: &[(IntentId, f32)], intents: &[Intent], query: &[f32], k: usize) {
    assert_eq!(hits.len(), k.min(intents.len()), "number of hits");
    let truth: BTreeMap<IntentId, f64> =
        intents.iter().map(|intent| (intent.id, cosine(&intent.embedding, query))).collect();
    let mut best: Vec<f64> = truth.values().copied().collect();
    best.sort_by(|a, b| b.total_cmp(a));
    for ((id, similarity), best) in hits.iter().zip(best) {
        let similarity = f64::from(*similarity);
        assert!((-1.0..=1.0).contains(&similarity), "{similarity}");
        let own = truth[id];
        assert!((similarity - own).abs() < 1e-5, "{id} is {own} alike, not {similarity}");
        assert!((similarity - best).abs() < 2e-5, "{similarity} where {best} is due");
    }
    assert_order(hits);
}

/// Best first, ties by id, each id once.
pub fn assert_order(hits: &[(IntentId, f32)]) {
    for pair in hits.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        let in_order = before.1 > after.1 || (before.1 == after.1 && before.0 < after.0);
        assert!(in_order, "{before:?} before {after:?}");
    }
    let mut ids: Vec<_> = hits.iter().map(|hit| hit.0).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), hits.len(), "an id is there twice");
}

/// What a store should hold: the contract in its plainest form.
#[derive(Clone, Default)]
pub struct Model {
    /// In order of insertion.
    rows: Vec<Intent>,
    gone: Vec<IntentId>,
}

impl Model {
    pub fn insert(&mut self, mut intent: Intent) {
        if let Some(at) = self.rows.iter().position(|row| row.id == intent.id) {
            let old = self.rows.remove(at);
            intent.outcome = intent.outcome.or(old.outcome);
        }
        self.rows.push(intent);
    }

    pub fn attach(&mut self, id: IntentId, outcome: Outcome) {
        self.rows.iter_mut().find(|row| row.id == id).unwrap().outcome = Some(outcome);
    }

    pub fn remove(&mut self, id: IntentId) {
        self.rows.retain(|row| row.id != id);
        self.gone.push(id);
    }

    /// Whether the engine holds exactly this, as look-ups by time and by id tell: the latter of those that
    /// were removed, too.
    pub fn is_in(&self, engine: &StorageEngine) -> bool {
        let found = engine.query_temporal(EVER).unwrap();
        let by_time = self.by_time();
        let get = |id| engine.get(id).unwrap();
        engine.len() == self.rows.len()
            && found.len() == by_time.len()
            && found.iter().zip(by_time).all(|(found, row)| is_same(found, row))
            && self.rows.iter().all(|row| get(row.id).is_some_and(|found| is_same(&found, row)))
            && self.absent().all(|id| get(id).is_none())
    }

    /// What a range over all of time gives. The sort is stable, so equal timestamps stay in order of
    /// insertion.
    fn by_time(&self) -> Vec<&Intent> {
        let mut rows: Vec<&Intent> = self.rows.iter().collect();
        rows.retain(|row| row.timestamp < u64::MAX);
        rows.sort_by_key(|row| row.timestamp);
        rows
    }

    /// Ids of what was removed and not inserted again.
    fn absent(&self) -> impl Iterator<Item = IntentId> {
        let is_gone = |id: &&IntentId| self.rows.iter().all(|row| row.id != **id);
        self.gone.iter().filter(is_gone).copied()
    }

    /// Checks an exact search for what was inserted last.
    pub fn check_search(&self, engine: &StorageEngine) {
        let query = self.rows.last().map_or(vec![1.0; engine.dim()], |row| row.embedding.clone());
        let hits = engine.search(Query::new(&query, 3).exact()).unwrap();
        assert_exact(&hits, &self.rows, &query, 3);
    }

    pub fn rows(&self) -> &[Intent] {
        &self.rows
    }

    /// Checks every kind of answer of `engine`.
    pub fn check(&self, engine: &StorageEngine) {
        assert_eq!(engine.len(), self.rows.len());
        assert_eq!(engine.is_empty(), self.rows.is_empty());
        assert_eq!(engine.stats().intents, self.rows.len() as u64);
        for row in &self.rows {
            let found = engine.get(row.id).unwrap().unwrap();
            assert!(is_same(&found, row), "{found:?} should be {row:?}");
        }
        for id in self.absent() {
            assert_eq!(engine.get(id).unwrap(), None);
        }
        let by_time = self.by_time();
        let found = engine.query_temporal(EVER).unwrap();
        assert_eq!(found.len(), by_time.len());
        for (found, row) in found.iter().zip(by_time) {
            assert!(is_same(found, row), "{found:?} should be {row:?}");
        }
        let mut random = Random::new(self.rows.len() as u64);
        for k in [1, 5, self.rows.len() + 3] {
            let query = random.vector(engine.dim());
            let hits = engine.query_semantic(&query, k).unwrap();
            assert_exact(&hits, &self.rows, &query, k);
        }
    }
}

/// A directory for one test. When it goes, [`verify`] must find nothing wrong with what is in it.
pub struct TestDir {
    dir: tempfile::TempDir,
}

/// The files of a directory by name.
pub type Files = BTreeMap<String, Vec<u8>>;

impl TestDir {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// In memory where the machine has a place for it: for tests that open thousands of stores and ask
    /// nothing of a disk.
    pub fn in_memory() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self { dir: dir.unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn files(&self) -> Files {
        fs::read_dir(self.path())
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
            })
            .collect()
    }

    /// Names of the files that end like this, in order.
    pub fn names(&self, ending: &str) -> Vec<String> {
        self.files().into_keys().filter(|name| name.ends_with(ending)).collect()
    }

    /// A directory of these files.
    pub fn of(files: &Files) -> Self {
        let dir = Self::new();
        dir.put(files);
        dir
    }

    /// Makes these files the content of the directory.
    pub fn put(&self, files: &Files) {
        for name in self.files().into_keys().filter(|name| !files.contains_key(name)) {
            fs::remove_file(self.file(&name)).unwrap();
        }
        for (name, bytes) in files {
            fs::write(self.file(name), bytes).unwrap();
        }
    }

    /// What a killed process would leave: the files as they are now.
    pub fn copy(&self) -> Self {
        Self::of(&self.files())
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if !std::thread::panicking() && self.file("MANIFEST").exists() {
            let report = verify(self.path()).unwrap();
            assert!(report.is_ok(), "{report}: {:?}", report.damage);
        }
    }
}
