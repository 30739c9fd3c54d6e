//! Compares an open store with the model, through every way of reading.

use std::collections::{BTreeMap, BTreeSet};

use tala_core::{Intent, IntentStore, TimeRange};
use tala_store::{Query, StorageEngine};

use super::model::{Intents, Model, Unacknowledged};
use crate::{
    failure::Failure,
    stress::{
        content::{Held, Id, TIMESTAMP_END, is_cosine, query},
        rng::Rng,
    },
};

/// All of time that a range can hold.
const EVER: TimeRange = TimeRange { start: 0, end: u64::MAX };

/// What was found to be other than it must be.
#[derive(Default, Debug)]
pub(crate) struct Faults {
    /// Acknowledged and not there.
    pub(crate) lost: u64,
    /// There as something else, or there although it must not be, or told differently by two ways
    /// of reading.
    pub(crate) wrong: u64,
    /// Done in part.
    pub(crate) half: u64,
    /// The first of them in words.
    pub(crate) first: Option<String>,
}

impl Faults {
    fn tell(&mut self, what: impl FnOnce() -> String) {
        self.first.get_or_insert_with(what);
    }

    fn lost(&mut self, what: impl FnOnce() -> String) {
        self.lost += 1;
        self.tell(what);
    }

    fn wrong(&mut self, what: impl FnOnce() -> String) {
        self.wrong += 1;
        self.tell(what);
    }

    fn wrong_unless(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(what);
        }
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        self.lost + self.wrong + self.half
    }
}

/// What a store turned out to hold.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) unacknowledged: Unacknowledged,
    /// Intents that were compared and found equal.
    pub(crate) equal: u64,
    pub(crate) faults: Faults,
}

/// Compares the store with what `model` says, every way of reading with every other. Settles the
/// model.
///
/// # Errors
/// The engine refused to be read.
pub(crate) fn check(
    engine: &StorageEngine,
    model: &mut Model,
    rng: &mut Rng,
) -> Result<Checked, Failure> {
    let mut faults = Faults::default();
    let everything = engine.query_temporal(EVER)?;
    let found = by_id(&everything, &mut faults);
    let unacknowledged = model.settle(&found);
    for half in &unacknowledged.half {
        faults.half += 1;
        faults.tell(|| half.clone());
    }
    let equal = compare(&found, &model.intents, &mut faults);
    check_order(&everything, &model.intents, &mut faults);
    faults.wrong_unless(engine.len() == everything.len(), || {
        format!("the length is {} and a range has {}", engine.len(), everything.len())
    });
    for id in &model.touched {
        let got = engine.get(id.intent_id())?;
        faults.wrong_unless(got.as_ref() == found.get(id), || {
            format!("a look-up and a range disagree on {id:?}: {got:?}")
        });
    }
    for _ in 0..8 {
        let (start, end) = (rng.below(TIMESTAMP_END), rng.below(TIMESTAMP_END));
        let range = engine.query_temporal(TimeRange { start, end })?;
        let is_within = |intent: &&Intent| (start..end).contains(&intent.timestamp);
        faults.wrong_unless(everything.iter().filter(is_within).eq(&range), || {
            format!("the range from {start} to {end} is not that part of all")
        });
    }
    for _ in 0..4 {
        check_search(engine, &found, rng, &mut faults)?;
    }
    Ok(Checked { unacknowledged, equal, faults })
}

fn by_id(everything: &[Intent], faults: &mut Faults) -> BTreeMap<Id, Intent> {
    let mut found = BTreeMap::new();
    for intent in everything {
        match Id::of(intent.id) {
            Some(id) => {
                let before = found.insert(id, intent.clone());
                faults.wrong_unless(before.is_none(), || format!("a range has {id:?} twice"));
            }
            None => faults.wrong(|| format!("there is an intent that nobody wrote: {intent:?}")),
        }
    }
    found
}

fn compare(found: &BTreeMap<Id, Intent>, expected: &Intents, faults: &mut Faults) -> u64 {
    let mut equal = 0;
    for (id, held) in expected {
        match found.get(id) {
            None => faults.lost(|| format!("{id:?} is lost, which had been {held:?}")),
            Some(intent) if *intent == held.intent(*id) => equal += 1,
            Some(intent) => faults.wrong(|| {
                let found = Held::of(*id, intent);
                format!("{id:?} should be {held:?} and is {found:?}")
            }),
        }
    }
    for id in found.keys() {
        let is_expected = expected.contains_key(id);
        faults.wrong_unless(is_expected, || format!("{id:?} is there although it must not be"));
    }
    equal
}

/// By timestamp, then by insertion. Among the intents of one thread the order of insertion is that
/// of the versions; across threads the report does not tell it.
fn check_order(everything: &[Intent], expected: &Intents, faults: &mut Faults) {
    let is_in_order = everything.is_sorted_by_key(|intent| intent.timestamp);
    faults.wrong_unless(is_in_order, || "a range is not in order of time".to_owned());
    let mut places: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new();
    for intent in everything {
        let id = Id::of(intent.id);
        if let Some((id, held)) = id.and_then(|id| Some((id, expected.get(&id)?))) {
            places.entry(id.thread()).or_default().push((intent.timestamp, held.version));
        }
    }
    for (thread, places) in places {
        faults.wrong_unless(places.is_sorted(), || {
            format!("at one timestamp the intents of thread {thread} are not in order of insertion")
        });
    }
}

fn check_search(
    engine: &StorageEngine,
    found: &BTreeMap<Id, Intent>,
    rng: &mut Rng,
    faults: &mut Faults,
) -> Result<(), Failure> {
    let query = query(rng.next());
    // All of them is an exact scan by promise; ten of them, where there are more, is the graph.
    let all = engine.search(Query::new(&query, found.len() + 10))?;
    let few = engine.search(Query::new(&query, 10))?;
    let distinct = |hits: &[(_, f32)]| -> BTreeSet<Id> {
        hits.iter().filter_map(|(id, _)| Id::of(*id)).collect()
    };
    faults.wrong_unless(all.len() == found.len() && distinct(&all).iter().eq(found.keys()), || {
        format!("a search for all has {} hits, a range has {}", all.len(), found.len())
    });
    let few_due = found.len().min(10);
    faults.wrong_unless(few.len() == few_due && distinct(&few).len() == few_due, || {
        format!("a search for 10 of {} has {} hits", found.len(), few.len())
    });
    for hits in [all, few] {
        let is_in_order = hits.is_sorted_by(|a, b| a.1 >= b.1);
        faults.wrong_unless(is_in_order, || "a search is not best first".to_owned());
        for (id, similarity) in hits {
            let intent = Id::of(id).and_then(|id| found.get(&id));
            let is_right =
                intent.is_some_and(|intent| is_cosine(similarity, &query, &intent.embedding));
            faults.wrong_unless(is_right, || format!("{id} is not {similarity} alike"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stress::content::intent;

    fn store(versions: &[(u64, u64)]) -> StorageEngine {
        let engine = StorageEngine::in_memory(crate::stress::DIM, 100);
        for (number, version) in versions {
            engine.insert(intent(Id(*number), *version)).unwrap();
        }
        engine
    }

    fn checked(versions: &[(u64, u64)]) -> (u64, u64, u64) {
        let mut model = Model::new(1);
        for (number, version) in [(1, 10), (2, 20), (3, 30)] {
            model.hear(&format!("intend 0 insert {version:x} {number:x}")).unwrap();
            model.hear("answer 0 done").unwrap();
        }
        let checked = check(&store(versions), &mut model, &mut Rng::of(&[1])).unwrap();
        assert_eq!(checked.faults.count() == 0, checked.faults.first.is_none());
        (checked.equal, checked.faults.lost, checked.faults.wrong)
    }

    #[test]
    fn what_is_lost_or_wrong_is_counted() {
        assert_eq!(checked(&[(1, 10), (2, 20), (3, 30)]), (3, 0, 0));
        assert_eq!(checked(&[(1, 10), (3, 30)]), (2, 1, 0));
        assert_eq!(checked(&[(1, 10), (2, 19), (3, 30)]), (2, 0, 1), "an older version");
        assert_eq!(checked(&[(1, 10), (2, 20), (3, 30), (4, 40)]), (3, 0, 1), "one too many");
    }
}
