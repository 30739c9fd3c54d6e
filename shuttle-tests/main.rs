//! The engine under random schedules: more threads, and longer stories, than loom can explore.
//!
//! Whole engines of the production code on the simulated disk of the integration tests: eight writers
//! insert, replace, attach outcomes, remove and flush, four readers look all the time. Each schedule is
//! drawn by shuttle from a seed of its own, which is told where one fails and replays it. All its atomics
//! are sequentially consistent: weaker orders are for loom to explore.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle -C debug-assertions" \
//!     cargo test --release --no-default-features --test shuttle --target-dir target/shuttle
//! TALA_SHUTTLE_SEED=7 ... replays what failed with seed 7
//! TALA_SHUTTLE_SCHEDULES=100000 ... explores so many
//! ```
#![cfg(shuttle)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/simulated/mod.rs"]
mod simulated;

use std::{
    env, panic,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

use shuttle::{Config, Runner, scheduler::RandomScheduler, thread};
use tala_core::{Intent, IntentId, IntentStore, Outcome, Status, TimeRange};
use tala_store::{Query, StorageEngine, rooms::verify_on};

use self::simulated::{Kind, SimDisk};

/// What is broken on purpose.
const BREAK: &str = "TALA_MODEL_BREAK";
/// Where schedules begin; each has the seed after that of the one before it.
const FIRST_SEED: u64 = 1;
/// How many schedules, unless told otherwise.
const SCHEDULES: u64 = 10_000;

const WRITERS: u8 = 8;
const READERS: u8 = 4;
/// All writers share so many intents beside one of their own.
const SHARED: u8 = 2;
const DIR: &str = "/store";

fn number_of(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect(name))
}

fn id(number: u8) -> IntentId {
    IntentId::from_bytes([0xA0 + number; 16])
}

/// A version of an intent, all of whose parts tell which.
fn intent(number: u8, version: u8) -> Intent {
    Intent {
        id: id(number),
        timestamp: u64::from(number) << 8 | u64::from(version),
        raw_command: format!("{number} {version}"),
        embedding: vec![1.0 + f32::from(number), f32::from(version)],
        context_hash: version.into(),
        parent_ids: Vec::new(),
        outcome: None,
        confidence: 1.0,
    }
}

fn outcome(number: u8) -> Outcome {
    Outcome {
        status: Status::Success,
        latency_ns: u64::from_le_bytes([number; 8]),
        exit_code: number.into(),
    }
}

/// Checks that this is one version of an intent, with an outcome that is whole, if any.
fn check_whole(seen: &Intent) {
    let number = seen.id.as_bytes()[0] - 0xA0;
    let version = u8::try_from(seen.context_hash).unwrap();
    assert_eq!(*seen, Intent { outcome: seen.outcome, ..intent(number, version) }, "half of two");
    if let Some(seen) = seen.outcome {
        let number = u8::try_from(seen.exit_code).unwrap();
        assert_eq!(seen, outcome(number), "a torn outcome");
    }
}

fn check_there(engine: &StorageEngine, wanted: &Intent) {
    let got = engine.get(wanted.id).unwrap();
    assert_eq!(got.as_ref(), Some(wanted), "acknowledged, but get does not find it");
    let range = TimeRange { start: wanted.timestamp, end: wanted.timestamp + 1 };
    let found = engine.query_temporal(range).unwrap();
    assert_eq!(found, [wanted.clone()], "acknowledged, but the range lacks it");
    let query = Query::new(&wanted.embedding, 64).exact();
    let found = engine.search(query).unwrap();
    let hits: Vec<_> = found.iter().filter(|hit| hit.0 == wanted.id).collect();
    assert_eq!(hits.len(), 1, "acknowledged, but the search has it not once");
    assert!(hits[0].1 > 0.999, "the search has an older version");
}

/// Writes what all write, and what nobody else does; what was answered must be there at once.
fn write(engine: &StorageEngine, writer: u8) {
    let own = SHARED + writer;
    let shared = writer % SHARED;
    engine.insert(intent(own, 1)).unwrap();
    check_there(engine, &intent(own, 1));
    engine.insert(intent(shared, writer)).unwrap();
    match writer % 4 {
        0 => {
            engine.flush().unwrap();
            check_there(engine, &intent(own, 1));
        }
        1 => {
            engine.attach_outcome(id(own), outcome(writer)).unwrap();
            check_there(engine, &Intent { outcome: Some(outcome(writer)), ..intent(own, 1) });
        }
        2 => {
            assert!(engine.remove(id(own)).unwrap(), "it was there");
            assert_eq!(engine.get(id(own)).unwrap(), None, "removed, and there");
        }
        _ => {
            engine.insert(intent(own, 2)).unwrap();
            check_there(engine, &intent(own, 2));
        }
    }
}

/// Looks from several sides: whatever is there is whole, once, and found by the next look as well.
fn read(engine: &StorageEngine, reader: u8) {
    let number = reader % SHARED;
    let got = engine.get(id(number)).unwrap();
    let range = engine.query_temporal(TimeRange { start: 0, end: u64::MAX }).unwrap();
    got.iter().chain(&range).for_each(check_whole);
    let mut ids: Vec<_> = range.iter().map(|intent| intent.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), range.len(), "a range has one id twice");
    // Nobody removes what all share.
    assert!(got.is_none() || ids.contains(&id(number)), "get had what the range lacks");
    let found = engine.search(Query::new(&[1.0, 1.0], 64)).unwrap();
    let mut hits: Vec<_> = found.iter().map(|hit| hit.0).collect();
    hits.sort();
    hits.dedup();
    assert_eq!(hits.len(), found.len(), "a search found one id twice");
    assert!(got.is_none() || hits.contains(&id(number)), "get had what the search lacks");
}

/// What is left when all have written.
fn check_end(engine: &StorageEngine) {
    for writer in 0..WRITERS {
        let own = SHARED + writer;
        match writer % 4 {
            1 => {
                let outcome = Some(outcome(writer));
                check_there(engine, &Intent { outcome, ..intent(own, 1) });
            }
            2 => assert_eq!(engine.get(id(own)).unwrap(), None),
            3 => check_there(engine, &intent(own, 2)),
            _ => check_there(engine, &intent(own, 1)),
        }
    }
    for number in 0..SHARED {
        let got = engine.get(id(number)).unwrap().expect("it was written");
        check_there(engine, &got);
    }
}

fn story() {
    let disk = SimDisk::new();
    if env::var(BREAK).is_ok_and(|broken| broken == "sync") {
        disk.forget(Kind::Sync);
    }
    let options = StorageEngine::options(2).m(2).hot_capacity(4).exact_below(4).index_lag_max(4);
    let options = options.mailbox_capacity(3).disk(Arc::new(disk.clone()));
    let engine = options.open(DIR).unwrap();
    let threads: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let engine = engine.clone();
            thread::spawn(move || write(&engine, writer))
        })
        .collect();
    let readers: Vec<_> = (0..READERS)
        .map(|reader| {
            let engine = engine.clone();
            thread::spawn(move || read(&engine, reader))
        })
        .collect();
    threads.into_iter().chain(readers).for_each(|thread| thread.join().unwrap());
    check_end(&engine);
    let intents = engine.len() as u64;
    engine.close().unwrap();
    // All of it is on the disk if the power goes off now.
    let left = Arc::new(SimDisk::of(disk.volume().cut(1, 0)));
    let report = verify_on(left, Path::new(DIR)).unwrap();
    assert!(report.is_ok(), "what is on the disk is damaged: {report}");
    assert_eq!(report.intents, intents, "acknowledged, but not on the disk");
}

/// The seed of the schedule that runs.
static SEED: AtomicU64 = AtomicU64::new(0);

/// Has a panic tell the seed before anything else: what unwinds then may end the process.
fn tell_seeds() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let seed = SEED.load(SeqCst);
        eprintln!("failed with seed {seed}: TALA_SHUTTLE_SEED={seed} replays it");
        before(info);
    }));
}

/// Runs the schedule of each of these seeds.
fn explore(seeds: impl Iterator<Item = u64>) {
    tell_seeds();
    for seed in seeds {
        SEED.store(seed, SeqCst);
        let mut config = Config::new();
        config.max_steps = shuttle::MaxSteps::FailAfter(10_000_000);
        config.silence_warnings = true;
        config.failure_persistence = shuttle::FailurePersistence::None;
        Runner::new(RandomScheduler::new_from_seed(seed, 1), config).run(story);
    }
}

#[test]
fn promises_hold_under_random_schedules() {
    if let Some(seed) = number_of("TALA_SHUTTLE_SEED") {
        return explore(std::iter::once(seed));
    }
    let count = number_of("TALA_SHUTTLE_SCHEDULES").unwrap_or(SCHEDULES);
    let since = Instant::now();
    explore(FIRST_SEED..FIRST_SEED + count);
    println!("{count} schedules in {:.1?}", since.elapsed());
}

/// Runs the schedules in a process of its own, with `broken` wrong on purpose: whether all passed, and what
/// was said.
fn run_broken(broken: &str, name: &str, value: u64) -> (bool, String) {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "promises_hold_under_random_schedules", "--nocapture"])
        .env(BREAK, broken)
        .env_remove("TALA_SHUTTLE_SEED")
        .env_remove("TALA_SHUTTLE_SCHEDULES")
        .env(name, value.to_string())
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The seed that a failure tells.
fn told_seed(said: &str) -> u64 {
    let seed = said.split("TALA_SHUTTLE_SEED=").nth(1).expect("the seed is told");
    seed.split(' ').next().unwrap().parse().unwrap()
}

/// A store that does not sync is noticed, under any schedule.
#[test]
fn a_disk_that_forgets_is_noticed() {
    let (passed, said) = run_broken("sync", "TALA_SHUTTLE_SCHEDULES", 1);
    assert!(
        !passed && told_seed(&said) == FIRST_SEED,
        "a disk that forgets is not noticed: {said}"
    );
}

/// A thread that goes to sleep without a last look at its mailbox is noticed under some schedules and not
/// under others; the seed of one of them is told, and fails again, in the same way.
#[test]
fn a_wake_that_is_lost_is_noticed_and_its_seed_replays_it() {
    let broken = "a sleep without a last look";
    let (passed, said) = run_broken(broken, "TALA_SHUTTLE_SCHEDULES", 1_000);
    assert!(!passed, "no schedule notices it");
    let seed = told_seed(&said);
    // Who waits for whom.
    let reason =
        |said: &str| said.lines().find(|line| line.contains("deadlock!")).map(str::to_owned);
    let first = reason(&said);
    assert!(first.is_some(), "{said}");
    for _ in 0..3 {
        let (passed, again) = run_broken(broken, "TALA_SHUTTLE_SEED", seed);
        assert!(!passed && told_seed(&again) == seed, "the seed does not replay it: {again}");
        assert_eq!(reason(&again), first, "{again}");
    }
    let passes = |seed| run_broken(broken, "TALA_SHUTTLE_SEED", seed).0;
    assert!((seed + 1..seed + 100).any(passes), "it takes no race");
}
