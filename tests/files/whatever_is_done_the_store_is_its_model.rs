//! Random sequences of every operation, with closes, drops, kills and power cuts between them, against
//! the plainest store there is: a list. What fails is shrunk, and kept in `proptest-regressions`.
//!
//! `TALA_MODEL=N` gives the number of sequences.

use std::{
    collections::BTreeSet, ffi::OsString, fs, path::Path, sync::Arc, thread::yield_now,
    time::Duration,
};

use crate::common::{
    Files, Random, TestDir, assert_exact, assert_order, cosine, id, is_same, outcome,
};
use crate::simulated::SimDisk;
use pollster::block_on;
use proptest::{collection::vec, prelude::*, sample::select, test_runner::FileFailurePersistence};
use tala_core::{Intent, IntentStore, TalaError, TimeRange};
use tala_store::{
    CommittedWrite, Delivery, Durability, EngineOptions, Query, RecoveryWarning, StorageEngine,
    Subscription,
};

const DIM: usize = 6;
const SEQUENCES_DEFAULT: u32 = 64;
/// So many ids are in use: few enough to be replaced and removed, enough for a graph.
const IDS: u8 = 64;
/// Width of the beam of every search that does not say: small, so that graphs are walked.
const EF: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Insert(Door, Made),
    Batch(Vec<Made>),
    /// A batch of which one intent is refused.
    BadBatch(Vec<Made>, u8),
    BadInsert(Made, bool),
    Outcome(u8, u8),
    Remove(u8),
    Get(u8),
    Range(u8, u8),
    Search(u64, u8, Beam),
    Flush,
    Sync,
    WaitIndexed,
    CheckAll,
    /// The engine ends, and the next has these options.
    End(End, Options),
}

#[derive(Clone, Copy, Debug)]
enum Door {
    Insert,
    Try,
    Async,
    Timeout,
}

/// An intent, in few numbers: which id, and which version of it.
#[derive(Clone, Copy, Debug)]
struct Made {
    number: u8,
    version: u8,
}

#[derive(Clone, Copy, Debug)]
enum Beam {
    Default,
    Of(u8),
    Exact,
}

/// How an engine ends. But for a power cut, everything survives at every level of durability.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Drop,
    /// The next engine goes on with what the files were while this one was open, as after a kill;
    /// with so many bytes of a write that was under way.
    Kill(u8),
    /// The power is cut, and this chooses what survives of what was not synced. On a simulated disk
    /// alone, since the files of a real directory forget nothing; there it is a kill.
    PowerCut(u8),
}

#[derive(Clone, Debug)]
struct Options {
    hot_capacity: usize,
    log_bytes_max: u64,
    durability: Durability,
    exact_below: usize,
    link_on_open: bool,
    index_threads: usize,
}

impl Options {
    fn of_engine(&self) -> EngineOptions {
        StorageEngine::options(DIM)
            .hot_capacity(self.hot_capacity)
            .log_bytes_max(self.log_bytes_max)
            .durability(self.durability)
            .exact_below(self.exact_below)
            .link_on_open(self.link_on_open)
            .index_threads(self.index_threads)
            .ef_search(EF)
            .m(4)
    }
}

impl Made {
    /// All fields follow from the two numbers. Times and embeddings are shared by several.
    fn intent(self) -> Intent {
        let Self { number, version } = self;
        let sum = u64::from(number) * 7 + u64::from(version) * 3;
        let mut random = Random::new(sum % 200);
        let embedding = match sum % 23 {
            0 => vec![0.0; DIM],
            _ => random.vector(DIM),
        };
        Intent {
            id: id(number.into()),
            timestamp: sum % 40,
            raw_command: "y".repeat(usize::from(version)) + &number.to_string(),
            embedding,
            context_hash: sum,
            parent_ids: (0..version % 3).map(|parent| id(u64::from(number ^ parent))).collect(),
            outcome: version.is_multiple_of(5).then(|| outcome(version.into())),
            confidence: f32::from(version),
        }
    }
}

fn made() -> impl Strategy<Value = Made> {
    (0..IDS, 0..30_u8).prop_map(|(number, version)| Made { number, version })
}

fn options() -> impl Strategy<Value = Options> {
    let levels =
        vec![Durability::Os, Durability::Interval(Duration::from_millis(3)), Durability::Sync];
    let sizes = (select(vec![2_usize, 5, 20, 1_000]), select(vec![300_u64, 3_000, 1 << 20]));
    let index = (select(vec![0_usize, 12, 1_000]), any::<bool>(), 1..3_usize);
    (sizes, select(levels), index).prop_map(|(sizes, durability, index)| Options {
        hot_capacity: sizes.0,
        log_bytes_max: sizes.1,
        durability,
        exact_below: index.0,
        link_on_open: index.1,
        index_threads: index.2,
    })
}

fn op() -> impl Strategy<Value = Op> {
    let door = select(vec![Door::Insert, Door::Try, Door::Async, Door::Timeout]);
    let beam = prop_oneof![Just(Beam::Default), (0..40_u8).prop_map(Beam::Of), Just(Beam::Exact),];
    let end = prop_oneof![
        Just(End::Close),
        Just(End::Drop),
        prop_oneof![Just(0), 1..120_u8].prop_map(End::Kill),
        any::<u8>().prop_map(End::PowerCut),
    ];
    prop_oneof![
        8 => (door, made()).prop_map(|(door, made)| Op::Insert(door, made)),
        5 => vec(made(), 0..14).prop_map(Op::Batch),
        1 => (vec(made(), 1..4), any::<u8>()).prop_map(|(made, at)| Op::BadBatch(made, at)),
        1 => (made(), any::<bool>()).prop_map(|(made, is_nan)| Op::BadInsert(made, is_nan)),
        4 => (0..IDS, any::<u8>()).prop_map(|(id, outcome)| Op::Outcome(id, outcome)),
        3 => (0..IDS).prop_map(Op::Remove),
        2 => (0..IDS).prop_map(Op::Get),
        2 => (0..45_u8, 0..45_u8).prop_map(|(start, end)| Op::Range(start, end)),
        5 => (any::<u64>(), 0..20_u8, beam).prop_map(|(seed, k, beam)| Op::Search(seed, k, beam)),
        2 => Just(Op::Flush),
        1 => Just(Op::Sync),
        2 => Just(Op::WaitIndexed),
        1 => Just(Op::CheckAll),
        3 => (end, options()).prop_map(|(end, options)| Op::End(end, options)),
    ]
}

/// The plainest store: rows in order of insertion.
#[derive(Default)]
struct Model {
    rows: Vec<Intent>,
}

impl Model {
    fn find(&mut self, number: u8) -> Option<&mut Intent> {
        self.rows.iter_mut().find(|row| row.id == id(number.into()))
    }

    fn insert(&mut self, mut intent: Intent) {
        if let Some(at) = self.rows.iter().position(|row| row.id == intent.id) {
            let old = self.rows.remove(at);
            intent.outcome = intent.outcome.or(old.outcome);
        }
        self.rows.push(intent);
    }

    fn range(&self, range: TimeRange) -> Vec<&Intent> {
        let inside = |row: &&Intent| (range.start..range.end).contains(&row.timestamp);
        let mut rows: Vec<&Intent> = self.rows.iter().filter(inside).collect();
        rows.sort_by_key(|row| row.timestamp);
        rows
    }

    fn check_all(&self, engine: &StorageEngine, options: &Options) {
        assert_eq!(engine.len(), self.rows.len());
        assert_eq!(engine.is_empty(), self.rows.is_empty());
        assert_eq!(engine.stats().intents, self.rows.len() as u64);
        for number in 0..IDS {
            self.check_one(engine, number);
        }
        self.check_range(engine, 0, u64::MAX);
        let rows: Vec<Intent> = engine.iter().unwrap().map(|(_, intent)| intent).collect();
        assert_same(&rows, &self.rows);
        for k in [1, 3, self.rows.len() + 3] {
            self.check_search(engine, options, k as u64, k, Beam::Exact);
            self.check_search(engine, options, k as u64, k, Beam::Default);
        }
    }

    fn check_one(&self, engine: &StorageEngine, number: u8) {
        let found = engine.get(id(number.into())).unwrap();
        let due = self.rows.iter().find(|row| row.id == id(number.into()));
        match (&found, due) {
            (None, None) => {}
            (Some(found), Some(due)) if is_same(found, due) => {}
            _ => panic!("{found:?} where {due:?} is due"),
        }
    }

    fn check_range(&self, engine: &StorageEngine, start: u64, end: u64) {
        let range = TimeRange { start, end };
        let (found, due) = (engine.query_temporal(range).unwrap(), self.range(range));
        assert_eq!(found.len(), due.len(), "{found:?} where {due:?} are due");
        for (found, due) in found.iter().zip(due) {
            assert!(is_same(found, due), "{found:?} where {due:?} is due");
        }
    }

    fn check_search(
        &self,
        engine: &StorageEngine,
        options: &Options,
        seed: u64,
        k: usize,
        beam: Beam,
    ) {
        let query = Random::new(seed).vector(DIM);
        let asked = Query::new(&query, k);
        let (asked, ef) = match beam {
            Beam::Default => (asked, EF),
            Beam::Of(ef) => (asked.ef(ef.into()), ef.into()),
            Beam::Exact => (asked.exact(), usize::MAX),
        };
        let hits = engine.search(asked).unwrap();
        let len = self.rows.len();
        if len < options.exact_below || ef.max(k) >= len.div_ceil(2) {
            assert_exact(&hits, &self.rows, &query, k);
            return;
        }
        // The graph was walked: who is found is a matter of recall, all else is not.
        assert!(hits.len() <= k);
        assert_order(&hits);
        for (id, similarity) in &hits {
            let row = self.rows.iter().find(|row| row.id == *id);
            let own = cosine(&row.expect("only what is stored is found").embedding, &query);
            assert!((f64::from(*similarity) - own).abs() < 1e-5, "{similarity} where {own} is due");
        }
    }
}

/// The files of a directory as they are at one moment, while an engine has it open and nobody
/// writes to it. Its flusher may be at work, so they are read until names and MANIFEST were the
/// same before and after: in between nothing can have changed but a file that nobody relies on yet.
fn files_at_one_moment(dir: &Path) -> Files {
    let names = || -> BTreeSet<OsString> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    let manifest = || fs::read(dir.join("MANIFEST")).unwrap();
    loop {
        let before = (names(), manifest());
        let read = |name: &OsString| {
            Some((name.to_str().unwrap().to_owned(), fs::read(dir.join(name)).ok()?))
        };
        let files: Option<Files> = before.0.iter().map(read).collect();
        if let Some(files) = files
            && before == (names(), manifest())
            && files["MANIFEST"] == before.1
        {
            return files;
        }
        yield_now();
    }
}

/// Adds to the log in use what a write leaves that was cut short: the front of a record.
fn add_torn_write(files: &mut Files, bytes: u8) {
    let is_log = |name: &&mut (&String, &mut Vec<u8>)| name.0.ends_with(".wal");
    let mut logs: Vec<_> = files.iter_mut().collect();
    let Some((_, log)) = logs.iter_mut().rfind(|log| is_log(log)) else { return };
    let mut payload_len = 4_000_u32.to_le_bytes().to_vec();
    payload_len.resize(bytes.into(), 0xA5);
    // Room prepared ahead of the end is where a write goes. The last bytes of a checksum may be zeros.
    let zeros_count = log.iter().rev().take_while(|byte| **byte == 0).count();
    log.truncate(log.len() - zeros_count.saturating_sub(4));
    log.extend(payload_len);
}

/// An engine and where it lives.
struct Store {
    engine: StorageEngine,
    /// `None` in memory. Dropped after the engine, since it is checked then.
    dir: Option<TestDir>,
    /// Where it lives on a simulated disk.
    disk: Option<SimDisk>,
    options: Options,
    model: Model,
    /// What the store held after each operation since the last that made all before it durable.
    since_synced: Vec<Vec<Intent>>,
    ops_count: u64,
    /// `None` before the first operation.
    follower: Option<Follower>,
}

/// One who knows of the store what a subscription delivers.
struct Follower {
    writes: Subscription,
    model: Model,
}

impl Follower {
    /// One who begins with what the store holds now.
    fn of(engine: &StorageEngine, model: &Model) -> Self {
        let now = engine.iter().unwrap().snapshot();
        let writes = engine.subscribe(now.next()).unwrap();
        Self { writes, model: Model { rows: model.rows.clone() } }
    }

    /// Takes what is delivered, which makes `due` of what was there.
    fn follow(&mut self, due: &Model) {
        loop {
            match self.writes.try_next() {
                Delivery::Write(_, CommittedWrite::Insert(intent)) => self.model.insert(intent),
                Delivery::Write(_, CommittedWrite::Outcome { id, outcome }) => {
                    let row = self.model.rows.iter_mut().find(|row| row.id == id);
                    row.expect("it is attached to what is there").outcome = Some(outcome);
                }
                Delivery::Write(_, CommittedWrite::Removal { id }) => {
                    self.model.rows.retain(|row| row.id != id);
                }
                Delivery::Nothing => break,
                other => panic!("{other:?}"),
            }
        }
        assert_same(&self.model.rows, &due.rows);
    }
}

fn assert_same(found: &[Intent], due: &[Intent]) {
    assert_eq!(found.len(), due.len(), "{found:?} where {due:?} are due");
    for (found, due) in found.iter().zip(due) {
        assert!(is_same(found, due), "{found:?} where {due:?} is due");
    }
}

/// The directory of a store on a simulated disk.
const STORE: &str = "/data/store";

fn open_on(disk: &SimDisk, options: &Options) -> StorageEngine {
    options.of_engine().disk(Arc::new(disk.clone())).open(STORE).unwrap()
}

impl Store {
    fn new(options: Options, is_persistent: bool) -> Self {
        let dir = is_persistent.then(TestDir::new);
        let engine = match &dir {
            Some(dir) => options.of_engine().open(dir.path()),
            None => options.of_engine().in_memory(),
        };
        Self {
            dir,
            disk: None,
            engine: engine.unwrap(),
            options,
            model: Model::default(),
            since_synced: vec![vec![]],
            ops_count: 0,
            follower: None,
        }
    }

    fn on_a_simulated_disk(options: Options) -> Self {
        let disk = SimDisk::new();
        let engine = open_on(&disk, &options);
        let (model, since_synced) = (Model::default(), vec![vec![]]);
        let (dir, disk) = (None, Some(disk));
        Self { dir, disk, engine, options, model, since_synced, ops_count: 0, follower: None }
    }

    fn run(&mut self, op: Op) {
        let is_synced = matches!(self.options.durability, Durability::Sync)
            || matches!(op, Op::Sync | Op::Flush);
        let is_end = matches!(op, Op::End(..));
        self.perform(op);
        match &mut self.follower {
            Some(follower) if !is_end => follower.follow(&self.model),
            follower => *follower = Some(Follower::of(&self.engine, &self.model)),
        }
        if is_synced {
            self.since_synced.clear();
        }
        if self.since_synced.last() != Some(&self.model.rows) {
            self.since_synced.push(self.model.rows.clone());
        }
    }

    fn perform(&mut self, op: Op) {
        let (engine, model) = (&self.engine, &mut self.model);
        // Every call that has an async twin goes by it every other time.
        self.ops_count += 1;
        let is_async = self.ops_count.is_multiple_of(2);
        match op {
            Op::Insert(door, made) => {
                let intent = made.intent();
                let stored = match door {
                    Door::Insert => engine.insert(intent.clone()),
                    Door::Try => engine.try_insert(intent.clone()),
                    Door::Async => block_on(engine.insert_async(intent.clone())),
                    Door::Timeout => {
                        engine.insert_timeout(intent.clone(), Duration::from_secs(3_600))
                    }
                };
                assert_eq!(stored.unwrap(), intent.id);
                model.insert(intent);
                model.check_one(engine, made.number);
            }
            Op::Batch(batch) => {
                let intents: Vec<Intent> = batch.iter().map(|made| made.intent()).collect();
                let ids: Vec<_> = intents.iter().map(|intent| intent.id).collect();
                let stored = match is_async {
                    true => block_on(engine.insert_batch_async(intents.clone())),
                    false => engine.insert_batch(intents.clone()),
                };
                assert_eq!(stored.unwrap(), ids);
                intents.into_iter().for_each(|intent| model.insert(intent));
                batch.iter().for_each(|made| model.check_one(engine, made.number));
            }
            Op::BadBatch(batch, at) => {
                let at = usize::from(at) % batch.len();
                let mut intents: Vec<Intent> = batch.iter().map(|made| made.intent()).collect();
                intents[at].confidence = f32::INFINITY;
                let refused = engine.insert_batch(intents).unwrap_err();
                assert!(
                    matches!(refused, TalaError::InBatch { position, .. } if position == at),
                    "{refused}"
                );
                batch.iter().for_each(|made| model.check_one(engine, made.number));
            }
            Op::BadInsert(made, is_nan) => {
                let mut intent = made.intent();
                if is_nan {
                    intent.embedding[0] = f32::NAN;
                } else {
                    intent.embedding.push(0.0);
                }
                assert!(engine.insert(intent).is_err());
                model.check_one(engine, made.number);
            }
            Op::Outcome(number, version) => {
                let (id, outcome) = (id(number.into()), outcome(version.into()));
                let done = match is_async {
                    true => block_on(engine.attach_outcome_async(id, outcome)),
                    false => engine.attach_outcome(id, outcome),
                };
                match model.find(number) {
                    Some(row) => {
                        done.unwrap();
                        row.outcome = Some(outcome);
                    }
                    None => assert!(matches!(done, Err(TalaError::NodeNotFound(_)))),
                }
                model.check_one(engine, number);
            }
            Op::Remove(number) => {
                let was_there = model.find(number).is_some();
                let done = match is_async {
                    true => block_on(engine.remove_async(id(number.into()))),
                    false => engine.remove(id(number.into())),
                };
                assert_eq!(done.unwrap(), was_there);
                model.rows.retain(|row| row.id != id(number.into()));
                model.check_one(engine, number);
            }
            Op::Get(number) => model.check_one(engine, number),
            Op::Range(start, end) => model.check_range(engine, start.into(), end.into()),
            Op::Search(seed, k, beam) => {
                model.check_search(engine, &self.options, seed, k.into(), beam);
            }
            Op::Flush => {
                let done = if is_async { block_on(engine.flush_async()) } else { engine.flush() };
                done.unwrap();
                assert_eq!(engine.stats().hot_len, 0);
            }
            Op::Sync => {
                let done = if is_async { block_on(engine.sync_async()) } else { engine.sync() };
                done.unwrap();
            }
            Op::WaitIndexed => {
                let done = match is_async {
                    true => block_on(engine.wait_indexed_async()),
                    false => engine.wait_indexed(),
                };
                done.unwrap();
                let stats = engine.stats();
                assert_eq!(stats.linked, stats.rows);
            }
            Op::CheckAll => model.check_all(engine, &self.options),
            Op::End(end, options) => self.end(end, options),
        }
        assert_eq!(self.engine.len(), self.model.rows.len());
    }

    fn end(&mut self, end: End, options: Options) {
        if self.disk.is_some() {
            self.end_on_a_simulated_disk(end, options);
            return;
        }
        // What was kept in memory alone does not outlive its engine.
        let Some(dir) = &self.dir else { return };
        let mut torn_bytes = 0;
        let mut goes_on_in = None;
        match end {
            End::Close => {
                self.engine.close().unwrap();
                let closed = self.engine.get(id(0)).unwrap_err();
                assert!(matches!(closed, TalaError::Stopped { .. }), "{closed}");
            }
            End::Drop => {}
            End::Kill(_) | End::PowerCut(_) => {
                let bytes = if let End::Kill(bytes) = end { bytes } else { 0 };
                let mut files = files_at_one_moment(dir.path());
                if bytes > 0 {
                    add_torn_write(&mut files, bytes);
                }
                torn_bytes = bytes;
                goes_on_in = Some(TestDir::of(&files));
            }
        }
        let was_killed = goes_on_in.is_some();
        // An engine in memory takes the place of the old one, which so ends before the next begins.
        self.engine = options.of_engine().in_memory().unwrap();
        if let Some(copy) = goes_on_in {
            self.dir = Some(copy);
        }
        let dir = self.dir.as_ref().expect("it was there before");
        self.engine = options.of_engine().open(dir.path()).unwrap();
        self.options = options;
        let recovery = self.engine.recovery();
        assert_eq!(recovery.was_clean, !was_killed, "{recovery:?}");
        for warning in &recovery.warnings {
            let is_due = torn_bytes > 0
                && matches!(
                    warning,
                    RecoveryWarning::TornTail { .. } | RecoveryWarning::NothingCounts { .. }
                );
            assert!(is_due, "{warning}");
        }
        assert_eq!(recovery.warnings.len(), usize::from(torn_bytes > 0), "{recovery:?}");
        self.model.check_all(&self.engine, &self.options);
    }
}

impl Store {
    fn end_on_a_simulated_disk(&mut self, end: End, options: Options) {
        let disk = self.disk.as_ref().expect("the caller has seen it");
        let left = match end {
            End::Close => {
                self.engine.close().unwrap();
                None
            }
            End::Drop => None,
            // A choice of 0 leaves what programs saw.
            End::Kill(_) => Some(disk.volume().cut(0, 0)),
            End::PowerCut(choice) => Some(disk.volume().cut(u64::from(choice) + 1, 0)),
        };
        self.engine = options.of_engine().in_memory().unwrap();
        if let Some(left) = left {
            self.disk = Some(SimDisk::of(left));
        }
        self.engine = open_on(self.disk.as_ref().expect("it was there before"), &options);
        self.options = options;
        if let End::PowerCut(_) = end {
            // In the order of the log, which alone tells two states apart between which an intent was
            // replaced by its like.
            let rows: Vec<Intent> = self.engine.iter().unwrap().map(|(_, intent)| intent).collect();
            let is_it = |state: &&Vec<Intent>| {
                state.len() == rows.len()
                    && state.iter().zip(&rows).all(|(due, found)| is_same(found, due))
            };
            let state = self.since_synced.iter().rev().find(is_it);
            let state = state.unwrap_or_else(|| {
                panic!(
                    "{} intents are none of the {} states since the last sync",
                    rows.len(),
                    self.since_synced.len()
                )
            });
            self.model.rows.clone_from(state);
        }
        // What an open has shown stays.
        self.since_synced = vec![self.model.rows.clone()];
        self.model.check_all(&self.engine, &self.options);
    }
}

fn config() -> ProptestConfig {
    let sequences = std::env::var("TALA_MODEL").ok();
    let sequences = sequences.map(|text| text.parse().expect("TALA_MODEL is a number"));
    ProptestConfig {
        cases: sequences.unwrap_or(SEQUENCES_DEFAULT),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/proptest-regressions/whatever_is_done_the_store_is_its_model.txt",
        ))),
        // Threads that have to be waited for make a step slow, above all on a busy machine.
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_store_on_disk_is_its_model(first in options(), ops in vec(op(), 1..70)) {
        let mut store = Store::new(first, true);
        ops.into_iter().for_each(|op| store.run(op));
        // What has been looked at in parts must be right as a whole, and so on disk.
        store.run(Op::CheckAll);
        let options = store.options.clone();
        store.run(Op::End(End::Close, options));
    }

    #[test]
    fn a_store_without_power_is_its_model(first in options(), ops in vec(op(), 1..70)) {
        let mut store = Store::on_a_simulated_disk(first);
        ops.into_iter().for_each(|op| store.run(op));
        let options = store.options.clone();
        // The last choice leaves nothing that was not synced.
        store.run(Op::End(End::PowerCut(0), options));
    }

    #[test]
    fn a_store_in_memory_is_its_model(first in options(), ops in vec(op(), 1..70)) {
        let mut store = Store::new(first, false);
        ops.into_iter().for_each(|op| store.run(op));
        store.run(Op::CheckAll);
    }
}
