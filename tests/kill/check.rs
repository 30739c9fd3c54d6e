//! Compares an open store with the model, through every way of reading.

use std::collections::{BTreeMap, BTreeSet};

use tala_core::{Intent, IntentStore, TimeRange};
use tala_store::{Query, StorageEngine};

use super::{
    DIM, THREADS,
    model::{Intents, Model, Unacknowledged},
    op::{Id, TIMESTAMP_END},
    rng::Rng,
};

/// Asserts that the store holds what `model` says, every way of reading agreeing. Settles the
/// model.
pub fn check(engine: &StorageEngine, model: &mut Model, rng: &mut Rng) -> Unacknowledged {
    let everything = engine.query_temporal(TimeRange { start: 0, end: u64::MAX }).unwrap();
    let found = by_id(&everything);
    assert_eq!(found.len(), everything.len(), "a range gives each id once");
    let unacknowledged = model.settle(&found).unwrap_or_else(|error| panic!("{error}"));
    check_contents(&found, &model.intents);
    check_order(&everything, &model.intents);
    assert_eq!(engine.len(), model.intents.len());
    for id in &model.touched {
        let got = engine.get(id.intent_id()).unwrap();
        assert_eq!(got.as_ref(), found.get(id), "get and range disagree on {id:?}");
    }
    for _ in 0..8 {
        let (start, end) = (rng.below(TIMESTAMP_END), rng.below(TIMESTAMP_END));
        let range = engine.query_temporal(TimeRange { start, end }).unwrap();
        let is_within = |intent: &&Intent| (start..end).contains(&intent.timestamp);
        let expected: Vec<&Intent> = everything.iter().filter(is_within).collect();
        assert_eq!(range.iter().collect::<Vec<_>>(), expected, "range {start}..{end}");
    }
    for _ in 0..4 {
        check_search(engine, &found, rng);
    }
    unacknowledged
}

fn by_id(intents: &[Intent]) -> BTreeMap<Id, Intent> {
    let id = |intent: &Intent| Id::of(intent.id).expect("only ids of children are there");
    intents.iter().map(|intent| (id(intent), intent.clone())).collect()
}

fn check_contents(found: &BTreeMap<Id, Intent>, expected: &Intents) {
    for (id, expected) in expected {
        let intent = found.get(id).unwrap_or_else(|| panic!("{id:?} is lost: {expected:?}"));
        assert_eq!(intent, &expected.intent(*id), "{id:?} is not what was acknowledged");
    }
    for id in found.keys() {
        assert!(expected.contains_key(id), "{id:?} is there although it must not be");
    }
}

/// By timestamp, then by insertion. Among the intents of one thread the order of insertion is that
/// of the versions; across threads the report does not tell it.
fn check_order(everything: &[Intent], expected: &Intents) {
    assert!(everything.is_sorted_by_key(|intent| intent.timestamp), "a range is in order of time");
    for thread in 0..THREADS {
        let ids = everything.iter().filter_map(|intent| Some((Id::of(intent.id)?, intent)));
        let of_thread = ids.filter(|(id, _)| id.thread() == thread);
        let places: Vec<_> =
            of_thread.map(|(id, intent)| (intent.timestamp, expected[&id].version)).collect();
        assert!(
            places.is_sorted(),
            "at one timestamp a range is in order of insertion: {places:?}"
        );
    }
}

fn check_search(engine: &StorageEngine, found: &BTreeMap<Id, Intent>, rng: &mut Rng) {
    let query: Vec<f32> = (0..DIM).map(|_| rng.component()).collect();
    // All of them is an exact scan by promise; ten of them, where there are more, is the graph.
    let all = engine.search(Query::new(&query, found.len() + 10)).unwrap();
    let ids: BTreeSet<Id> = all.iter().filter_map(|(id, _)| Id::of(*id)).collect();
    assert_eq!(all.len(), found.len(), "search and range disagree");
    assert!(ids.iter().eq(found.keys()), "search and range disagree");
    let few = engine.search(Query::new(&query, 10)).unwrap();
    assert_eq!(few.len(), found.len().min(10));
    let distinct: BTreeSet<_> = few.iter().map(|(id, _)| id).collect();
    assert_eq!(distinct.len(), few.len(), "a search gives each id once");
    for answer in [all, few] {
        assert!(answer.is_sorted_by(|a, b| a.1 >= b.1), "best first");
        for (id, similarity) in answer {
            let intent = &found[&Id::of(id).expect("only ids of children are there")];
            let expected = cosine(&query, &intent.embedding);
            // Components are of about size 1 and there are 8 of them: f32 is good to 1e-6.
            assert!((similarity - expected).abs() < 1e-5, "{id}: {similarity} is not {expected}");
        }
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()) as f32
}
