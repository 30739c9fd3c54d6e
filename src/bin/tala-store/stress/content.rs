//! What the numbers stand for that the harnesses exchange.
//!
//! Every field of an intent follows from its id and its version, and every field of an outcome
//! from its version. So a short line tells each byte that was written, and of an intent that was
//! read it can be told which write it comes from, and that it is whole.

use tala_core::{Intent, IntentId, Outcome, Status};

use super::{DIM, rng::Rng};

/// Timestamps are below this: few enough that many intents have the same one.
pub(crate) const TIMESTAMP_END: u64 = 2_000;

/// What the streams of random numbers are for that belong to one version of one id.
const TIME: u64 = 1;
const EMBEDDING: u64 = 2;
const REST: u64 = 3;

/// Number of an intent's id. The highest byte is the thread that owns it, where one does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Id(pub(crate) u64);

impl Id {
    /// Id `number`, below 2 to the 56, of a thread.
    pub(crate) fn new(thread: usize, number: u64) -> Self {
        Self((thread as u64) << 56 | (number & (u64::MAX >> 8)))
    }

    pub(crate) fn thread(self) -> usize {
        (self.0 >> 56) as usize
    }

    pub(crate) fn intent_id(self) -> IntentId {
        IntentId::from_bytes(u128::from(self.0).to_be_bytes())
    }

    /// The number of this id; `None` for an id that no harness ever made.
    pub(crate) fn of(id: IntentId) -> Option<Self> {
        u64::try_from(u128::from_be_bytes(*id.as_bytes())).ok().map(Self)
    }
}

/// Its timestamp.
pub(crate) fn timestamp(id: Id, version: u64) -> u64 {
    Rng::of(&[id.0, version, TIME]).below(TIMESTAMP_END)
}

/// Its embedding.
pub(crate) fn embedding(id: Id, version: u64) -> Vec<f32> {
    let mut rng = Rng::of(&[id.0, version, EMBEDDING]);
    (0..DIM).map(|_| rng.component()).collect()
}

/// The version of the outcome that this version of an intent comes with, if it does.
pub(crate) fn own_outcome(version: u64) -> Option<u64> {
    Rng::of(&[version, REST]).one_in(4).then_some(version)
}

/// The intent that this version of this id stands for, as it is inserted.
pub(crate) fn intent(id: Id, version: u64) -> Intent {
    let mut rng = Rng::of(&[id.0, version, REST]);
    let mut raw_command = format!("{:x} {version:x} ", id.0);
    (0..rng.below(60)).for_each(|_| raw_command.push(rng.pick(&['a', 'é', '→', '\n'])));
    if rng.one_in(30) {
        // A long write can be killed half way.
        raw_command = raw_command.repeat(1 + 60_000 / raw_command.len());
    }
    let parent_ids = (0..rng.below(4)).map(|_| Id::new(id.thread(), rng.below(9)).intent_id());
    Intent {
        id: id.intent_id(),
        parent_ids: parent_ids.collect(),
        timestamp: timestamp(id, version),
        raw_command,
        embedding: embedding(id, version),
        context_hash: rng.next(),
        outcome: own_outcome(version).map(outcome),
        confidence: rng.component(),
    }
}

/// The outcome that this version stands for.
pub(crate) fn outcome(version: u64) -> Outcome {
    let mut rng = Rng::of(&[version]);
    Outcome {
        status: rng.pick(&[Status::Pending, Status::Success, Status::Failure, Status::Partial]),
        latency_ns: version,
        exit_code: rng.next() as i32,
    }
}

/// An intent as a store holds it: which version, with the outcome of which version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Held {
    pub(crate) version: u64,
    pub(crate) outcome: Option<u64>,
}

impl Held {
    /// What an insert of `version` makes of what was there.
    pub(crate) fn inserted(version: u64, old: Option<Self>) -> Self {
        let kept = old.and_then(|old| old.outcome);
        Self { version, outcome: own_outcome(version).or(kept) }
    }

    /// The intent that it stands for.
    pub(crate) fn intent(self, id: Id) -> Intent {
        Intent { outcome: self.outcome.map(outcome), ..intent(id, self.version) }
    }

    /// Which version of `id` this intent is. An error where it is none, bit for bit.
    pub(crate) fn of(id: Id, found: &Intent) -> Result<Self, String> {
        let version = found.raw_command.split(' ').nth(1);
        let version = version.and_then(|word| u64::from_str_radix(word, 16).ok());
        let outcome = found.outcome.map(|outcome| outcome.latency_ns);
        let held = version.map(|version| Self { version, outcome });
        match held {
            Some(held) if held.intent(id) == *found => Ok(held),
            _ => Err(format!("{id:?} is nothing that was ever written: {found:?}")),
        }
    }
}

/// A vector to search for.
pub(crate) fn query(seed: u64) -> Vec<f32> {
    let mut rng = Rng::of(&[seed]);
    (0..DIM).map(|_| rng.component()).collect()
}

/// Whether `similarity` is the cosine of two vectors, as well as f32 can tell: their 8 components
/// are of about size 1.
pub(crate) fn is_cosine(similarity: f32, a: &[f32], b: &[f32]) -> bool {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    (f64::from(similarity) - cosine).abs() < 1e-5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_tells_which_version_it_is_and_no_other_passes() {
        for number in 0..200 {
            let (id, version) = (Id::new(3, number), number << 32 | 7);
            let inserted = Held::inserted(version, None);
            assert_eq!(Held::of(id, &intent(id, version)), Ok(inserted));
            let held = Held { version, outcome: Some(99) };
            assert_eq!(Held::of(id, &held.intent(id)), Ok(held));
            assert!(Held::of(Id::new(3, number + 1), &intent(id, version)).is_err());
            let mut torn = intent(id, version);
            torn.embedding[5] = -torn.embedding[5];
            assert!(Held::of(id, &torn).is_err());
            let mut torn = held.intent(id);
            torn.outcome = torn.outcome.map(|outcome| Outcome { exit_code: 1, ..outcome });
            assert!(Held::of(id, &torn).is_err());
        }
    }

    #[test]
    fn a_replacement_keeps_an_outcome_unless_it_brings_one() {
        let with = (0..).find(|version| own_outcome(*version).is_some()).unwrap();
        let without = (0..).find(|version| own_outcome(*version).is_none()).unwrap();
        let old = Some(Held { version: 1_000, outcome: Some(2_000) });
        assert_eq!(Held::inserted(with, old).outcome, Some(with));
        assert_eq!(Held::inserted(without, old).outcome, Some(2_000));
        assert_eq!(Held::inserted(without, None).outcome, None);
    }
}
