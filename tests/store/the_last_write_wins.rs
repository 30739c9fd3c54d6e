//! Inserts, replacements, outcomes and removals in any order leave what the last of them said,
//! now and after every way to open the store again.

use crate::common::{Model, Random, TestDir, id, intent, outcome, version};
use tala_core::{Intent, IntentStore, TalaError, TimeRange};
use tala_store::StorageEngine;

/// Applies the same change to a store and to the model.
struct Pair {
    engine: StorageEngine,
    model: Model,
}

impl Pair {
    fn insert(&mut self, intent: Intent) {
        assert_eq!(self.engine.insert(intent.clone()).unwrap(), intent.id);
        self.model.insert(intent);
    }

    fn attach(&mut self, number: u64, value: u64) {
        self.engine.attach_outcome(id(number), outcome(value)).unwrap();
        self.model.attach(id(number), outcome(value));
    }

    fn remove(&mut self, number: u64) {
        assert!(self.engine.remove(id(number)).unwrap());
        assert!(!self.engine.remove(id(number)).unwrap());
        self.model.remove(id(number));
    }

    fn check(&self) {
        self.model.check(&self.engine);
    }
}

/// Runs a scenario in memory, and on disk with each way to open again after each of its steps:
/// after a close, with a flush before it, and as after a kill.
fn everywhere(steps: &[&dyn Fn(&mut Pair)]) {
    let mut pair = Pair { engine: StorageEngine::in_memory(8, 4), model: Model::default() };
    for step in steps {
        step(&mut pair);
        pair.check();
    }
    pair.engine.flush().unwrap();
    pair.check();

    for (hot_capacity, flushes, kills) in
        [(4, false, false), (100, true, false), (100, false, false), (100, false, true)]
    {
        let mut dir = TestDir::new();
        let mut model = Model::default();
        for step in steps {
            let engine = StorageEngine::open(8, dir.path(), hot_capacity).unwrap();
            let mut pair = Pair { engine, model };
            pair.check();
            step(&mut pair);
            pair.check();
            if flushes {
                pair.engine.flush().unwrap();
                pair.check();
            }
            let copy = kills.then(|| dir.copy());
            pair.engine.close().unwrap();
            dir = copy.unwrap_or(dir);
            model = pair.model;
        }
        model.check(&StorageEngine::open(8, dir.path(), hot_capacity).unwrap());
    }
}

#[test]
fn a_replacement_takes_the_place_of_the_old_intent_everywhere() {
    everywhere(&[
        &|pair| (0..10).for_each(|number| pair.insert(intent(number))),
        &|pair| (3..6).for_each(|number| pair.insert(version(number, 1))),
        &|pair| pair.insert(version(3, 2)),
        // Back to what it was, in a new place.
        &|pair| pair.insert(intent(3)),
    ]);
}

#[test]
fn a_replacement_has_its_own_place_among_equal_timestamps() {
    let at_5 = |number| Intent { timestamp: 5, ..intent(number) };
    everywhere(&[
        &|pair| (0..4).for_each(|number| pair.insert(at_5(number))),
        &|pair| pair.insert(at_5(1)),
        &|pair| {
            let range = TimeRange { start: 5, end: 6 };
            let ids: Vec<_> =
                pair.engine.query_temporal(range).unwrap().iter().map(|found| found.id).collect();
            assert_eq!(ids, [id(0), id(2), id(3), id(1)]);
        },
    ]);
}

#[test]
fn a_replacement_without_an_outcome_keeps_the_one_attached() {
    everywhere(&[
        &|pair| (0..6).for_each(|number| pair.insert(intent(number))),
        &|pair| pair.attach(2, 7),
        &|pair| pair.insert(version(2, 1)),
        &|pair| assert_eq!(pair.engine.get(id(2)).unwrap().unwrap().outcome, Some(outcome(7))),
        // The same insert delivered twice.
        &|pair| pair.insert(version(2, 1)),
        &|pair| pair.insert(Intent { outcome: Some(outcome(8)), ..version(2, 2) }),
        &|pair| assert_eq!(pair.engine.get(id(2)).unwrap().unwrap().outcome, Some(outcome(8))),
    ]);
}

#[test]
fn the_last_outcome_wins_wherever_the_intent_is_stored() {
    everywhere(&[
        &|pair| (0..10).for_each(|number| pair.insert(intent(number))),
        &|pair| (0..10).for_each(|number| pair.attach(number, number)),
        &|pair| (0..3).for_each(|value| pair.attach(1, 20 + value)),
        // Outcomes alone, for intents in segments long gone from the log.
        &|pair| pair.attach(0, 30),
        &|pair| assert_eq!(pair.engine.get(id(1)).unwrap().unwrap().outcome, Some(outcome(22))),
    ]);
}

#[test]
fn what_is_removed_is_gone_and_comes_back_without_an_outcome() {
    everywhere(&[
        &|pair| (0..10).for_each(|number| pair.insert(intent(number))),
        &|pair| pair.attach(4, 1),
        &|pair| (3..6).for_each(|number| pair.remove(number)),
        &|pair| pair.insert(intent(4)),
        &|pair| assert_eq!(pair.engine.get(id(4)).unwrap().unwrap().outcome, None),
        &|pair| [0, 1, 2, 4, 6, 7, 8, 9].into_iter().for_each(|number| pair.remove(number)),
    ]);
}

#[test]
fn an_outcome_for_an_unknown_id_is_not_found_and_writes_nothing() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 100).unwrap();
    engine.insert(intent(1)).unwrap();
    engine.insert(intent(2)).unwrap();
    assert!(engine.remove(id(2)).unwrap());
    let before = (dir.files(), engine.stats().visible_seq);
    for unknown in [id(2), id(3)] {
        let error = engine.attach_outcome(unknown, outcome(1)).unwrap_err();
        assert!(matches!(error, TalaError::NodeNotFound(id) if id == unknown), "{error}");
        assert!(!engine.remove(unknown).unwrap());
    }
    assert!((dir.files(), engine.stats().visible_seq) == before);
}

/// A long random walk with few ids, so that everything happens to each, in small segments.
#[test]
fn a_random_history_leaves_what_its_last_words_say() {
    for seed in 1..=3 {
        let mut random = Random::new(seed);
        let dir = TestDir::new();
        let open = |capacity| StorageEngine::open(8, dir.path(), capacity).unwrap();
        let mut pair = Pair { engine: open(7), model: Model::default() };
        for step in 0..400 {
            let number = random.bits() % 25;
            let exists = pair.model.rows().iter().any(|row| row.id == id(number));
            match random.bits() % 20 {
                0..10 => pair.insert(version(number, step)),
                10..14 if exists => pair.attach(number, step),
                14..18 if exists => pair.remove(number),
                18 => pair.engine.flush().unwrap(),
                19 if step % 3 == 0 => {
                    pair.engine.close().unwrap();
                    pair.engine = open([5, 7, 50][(step % 9 / 3) as usize]);
                    pair.check();
                }
                _ => {}
            }
        }
        println!("seed {seed}: {} intents", pair.model.rows().len());
        pair.check();
        pair.engine.close().unwrap();
        pair.model.check(&open(1_000));
    }
}
