//! Eight threads insert, query and attach outcomes at once. Whatever was acknowledged is in every
//! read that begins later, by whichever way and on whichever thread.

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
};

use crate::common::{AtWork, EVER, TestDir, assert_order, id, intent, is_same, outcome};
use tala_core::{Intent, IntentStore, TimeRange};
use tala_store::{Durability, StorageEngine};

const WRITERS: u64 = 5;
const EACH: u64 = 300;

/// Writer `writer`'s intent `step`.
fn of(writer: u64, step: u64) -> Intent {
    Intent { timestamp: step * WRITERS + writer, ..intent(writer * 1_000_000 + step) }
}

fn write(engine: &StorageEngine, writer: u64, acknowledged: &AtomicU64) {
    for step in 0..EACH {
        let new = of(writer, step);
        engine.insert(new.clone()).unwrap();
        acknowledged.store(step + 1, SeqCst);
        // There at once, by each of the three ways.
        assert!(is_same(&engine.get(new.id).unwrap().unwrap(), &new));
        let moment = TimeRange { start: new.timestamp, end: new.timestamp + 1 };
        assert!(is_same(&engine.query_temporal(moment).unwrap()[0], &new));
        let hits = engine.query_semantic(&new.embedding, 1).unwrap();
        assert_eq!(hits[0].0, new.id);
        assert!(hits[0].1 > 0.999_99);
        if step % 3 == 0 {
            engine.attach_outcome(new.id, outcome(step)).unwrap();
            assert_eq!(engine.get(new.id).unwrap().unwrap().outcome, Some(outcome(step)));
        }
    }
}

/// Steps of each writer in what was read; they must be the first ones, without a gap.
fn prefixes(found: &[Intent]) -> [u64; WRITERS as usize] {
    let mut steps = [0; WRITERS as usize];
    for intent in found {
        let (step, writer) = (intent.timestamp / WRITERS, intent.timestamp % WRITERS);
        // The range is ordered by time, so steps of one writer come one after the other.
        assert_eq!(step, steps[writer as usize], "a gap in what writer {writer} wrote");
        steps[writer as usize] += 1;
    }
    steps
}

fn read(engine: &StorageEngine, acknowledged: &[AtomicU64], at_work: &AtomicU64) {
    let mut seen = [0; WRITERS as usize];
    let mut seen_len = 0;
    loop {
        let is_last = at_work.load(SeqCst) == 0;
        let before: Vec<u64> = acknowledged.iter().map(|steps| steps.load(SeqCst)).collect();
        let found = prefixes(&engine.query_temporal(EVER).unwrap());
        let len = engine.len();
        for writer in 0..WRITERS as usize {
            assert!(found[writer] >= before[writer], "less than what was acknowledged");
            assert!(found[writer] >= seen[writer], "less than an earlier read saw");
            // What this read saw, the other ways see after it.
            if let Some(last) = found[writer].checked_sub(1) {
                let last = of(writer as u64, last);
                assert!(engine.get(last.id).unwrap().is_some());
                let hits = engine.query_semantic(&last.embedding, 1).unwrap();
                assert_eq!(hits[0].0, last.id);
            }
        }
        assert!(len as u64 >= found.iter().sum() && len >= seen_len);
        (seen, seen_len) = (found, len);
        if is_last {
            return;
        }
    }
}

/// What a search found, look-ups that begin later find as well.
fn search(engine: &StorageEngine, acknowledged: &[AtomicU64], at_work: &AtomicU64) {
    let mut seen = 0;
    while at_work.load(SeqCst) > 0 {
        let before: u64 = acknowledged.iter().map(|steps| steps.load(SeqCst)).sum();
        let hits = engine.query_semantic(&intent(7).embedding, usize::MAX).unwrap();
        assert!(hits.len() as u64 >= before && hits.len() >= seen);
        assert_order(&hits);
        for (id, _) in hits.iter().step_by(50) {
            assert!(engine.get(*id).unwrap().is_some());
        }
        assert!(engine.query_temporal(EVER).unwrap().len() >= hits.len());
        seen = hits.len();
    }
}

fn run(engine: &StorageEngine) {
    let acknowledged: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let at_work = AtomicU64::new(WRITERS);
    thread::scope(|scope| {
        for (writer, steps) in (0..).zip(&acknowledged) {
            let at_work = AtWork(&at_work);
            scope.spawn(move || {
                let _at_work = at_work;
                write(engine, writer, steps);
            });
        }
        for _ in 0..2 {
            scope.spawn(|| read(engine, &acknowledged, &at_work));
        }
        scope.spawn(|| search(engine, &acknowledged, &at_work));
    });
    check(engine);
}

fn check(engine: &StorageEngine) {
    assert_eq!(engine.len() as u64, WRITERS * EACH);
    assert_eq!(prefixes(&engine.query_temporal(EVER).unwrap()), [EACH; WRITERS as usize]);
    for writer in 0..WRITERS {
        for step in 0..EACH {
            let outcome = (step % 3 == 0).then(|| outcome(step));
            let expected = Intent { outcome, ..of(writer, step) };
            assert!(is_same(&engine.get(expected.id).unwrap().unwrap(), &expected));
        }
    }
    let hits = engine.query_semantic(&intent(7).embedding, usize::MAX).unwrap();
    assert_eq!(hits.len() as u64, WRITERS * EACH);
    assert_eq!(engine.get(id(999)).unwrap(), None);
}

#[test]
fn in_memory() {
    run(&StorageEngine::in_memory(8, 100));
}

#[test]
fn on_disk_and_after_opening_it_again() {
    let dir = TestDir::new();
    let options = || {
        StorageEngine::options(8).hot_capacity(200).durability(Durability::Os).index_lag_max(500)
    };
    let engine = options().open(dir.path()).unwrap();
    run(&engine);
    engine.close().unwrap();
    check(&options().open(dir.path()).unwrap());
}
