//! From what was found, in any order, to what the store held: last write wins, by sequence number.

use std::collections::{HashMap, HashSet};

use tala_core::{IntentId, Outcome};

use crate::ids::IdMap;

/// Where an intent can be read: which source, and where in it.
pub type Spot = (usize, usize);

/// Something that a file says happened.
#[derive(Debug)]
pub struct Event {
    /// When: a sequence number; 0 for what is older than all numbers.
    pub seq: u64,
    /// To which intent.
    pub id: IntentId,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// The intent was stored, as it stands at this spot.
    Put {
        /// Where.
        spot: Spot,
        /// With this outcome; without one, that of the intent it replaces stays.
        outcome: Option<Outcome>,
        /// Whether all of it is intact.
        is_whole: bool,
        /// Whether the spot says only what a log without tails has, so that the rest is what was known
        /// before.
        is_bare: bool,
    },
    /// A version of the intent was stored that cannot be read.
    Unreadable,
    /// An outcome was attached.
    Outcome(Outcome),
    /// The intent was removed.
    Removal,
    /// The version that was stored with this number has this outcome by now.
    Settled {
        /// The number of that version.
        put_seq: u64,
        /// Its outcome.
        outcome: Option<Outcome>,
    },
}

impl What {
    /// Order among events of one number: a segment says how things stood after all else.
    const fn rank(&self) -> u8 {
        match self {
            Self::Put { .. } | Self::Unreadable | Self::Outcome(_) | Self::Removal => 0,
            Self::Settled { .. } => 1,
        }
    }
}

/// The version of an intent that counts.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// In which source it is.
    pub source: usize,
    /// Where in it.
    pub at: usize,
    /// Where the fields are that it does not say.
    pub beneath: Option<Spot>,
    /// Its outcome.
    pub outcome: Option<Outcome>,
    seq: u64,
    /// Place among all puts.
    order: usize,
    is_whole: bool,
    /// Whether a newer one was lost.
    is_outdated: bool,
}

/// What the store held, as far as it can be told.
#[derive(Debug, Default)]
pub struct Merged {
    versions: IdMap<Version>,
    /// Known by their id alone.
    unreadable: HashSet<IntentId>,
    /// Known by an outcome alone. A version that follows keeps it, as it would have kept it from the
    /// version that is lost.
    outcomes_alone: HashMap<IntentId, Outcome>,
}

impl Merged {
    /// Folds events as opening a store folds records.
    pub fn of(mut events: Vec<Event>) -> Self {
        // Stable, so that what is older than all numbers stays in its order.
        events.sort_by_key(|event| (event.seq, event.what.rank()));
        let mut merged = Self::default();
        for (order, event) in events.into_iter().enumerate() {
            merged.apply(event, order);
        }
        merged
    }

    fn apply(&mut self, Event { seq, id, what }: Event, order: usize) {
        match what {
            What::Put { spot: (source, at), outcome, is_whole, is_bare } => {
                let old = self.versions.get(&id).copied();
                let is_again = old.is_some_and(|old| old.seq == seq && seq != 0);
                if is_again && old.is_some_and(|old| old.is_whole || !is_whole) {
                    return;
                }
                self.unreadable.remove(&id);
                let attached = self.outcomes_alone.remove(&id);
                let beneath = old.filter(|_| is_bare);
                let beneath = beneath.map(|old| old.beneath.unwrap_or((old.source, old.at)));
                let outcome = outcome.or(old.map_or(attached, |old| old.outcome));
                let (is_outdated, order) =
                    (false, old.filter(|_| is_again).map_or(order, |old| old.order));
                let version =
                    Version { source, at, beneath, outcome, seq, order, is_whole, is_outdated };
                self.versions.insert(id, version);
            }
            What::Unreadable => match self.versions.get_mut(&id) {
                // The same write may be intact elsewhere.
                Some(old) => old.is_outdated |= old.seq < seq,
                None => drop(self.unreadable.insert(id)),
            },
            What::Outcome(outcome) => match self.versions.get_mut(&id) {
                Some(old) => old.outcome = Some(outcome),
                None => drop(self.outcomes_alone.insert(id, outcome)),
            },
            What::Removal => {
                self.versions.remove(&id);
                self.unreadable.remove(&id);
                self.outcomes_alone.remove(&id);
            }
            What::Settled { put_seq, outcome } => {
                if let Some(old) = self.versions.get_mut(&id).filter(|old| old.seq == put_seq) {
                    old.outcome = outcome;
                }
            }
        }
    }

    /// The versions that count, in the order in which they were stored.
    pub fn in_order(&self) -> Vec<Version> {
        let mut versions: Vec<Version> = self.versions.values().copied().collect();
        versions.sort_unstable_by_key(|version| version.order);
        versions
    }

    /// Ids of intents that nothing else is left of.
    pub fn lost_intents(&self) -> Vec<IntentId> {
        sorted(self.unreadable.iter().copied())
    }

    /// Ids of intents whose newest version is lost.
    pub fn older_versions(&self) -> Vec<IntentId> {
        let outdated = self.versions.iter().filter(|(_, version)| version.is_outdated);
        sorted(outdated.map(|(id, _)| *id))
    }

    /// How many intents there are that only an outcome is left of.
    pub fn outcomes_without_intent(&self) -> u64 {
        let is_alone = |id: &&IntentId| !self.unreadable.contains(id);
        self.outcomes_alone.keys().filter(is_alone).count() as u64
    }
}

fn sorted(ids: impl Iterator<Item = IntentId>) -> Vec<IntentId> {
    let mut ids: Vec<IntentId> = ids.collect();
    ids.sort_unstable();
    ids
}

#[cfg(test)]
mod tests {
    use tala_core::Status;

    use super::*;

    fn id(number: u8) -> IntentId {
        IntentId::from_bytes([number; 16])
    }

    fn outcome(exit_code: i32) -> Outcome {
        Outcome { status: Status::Failure, latency_ns: 1, exit_code }
    }

    fn put(seq: u64, at: usize, outcome: Option<Outcome>) -> Event {
        let what = What::Put { spot: (0, at), outcome, is_whole: true, is_bare: false };
        Event { seq, id: id(1), what }
    }

    fn event(seq: u64, what: What) -> Event {
        Event { seq, id: id(1), what }
    }

    fn state(events: Vec<Event>) -> Option<(usize, Option<i32>)> {
        let merged = Merged::of(events);
        let versions = merged.in_order();
        versions.first().map(|it| (it.at, it.outcome.map(|outcome| outcome.exit_code)))
    }

    #[test]
    fn the_last_write_wins_wherever_it_was_found() {
        assert_eq!(state(vec![put(7, 2, None), put(3, 1, None)]), Some((2, None)));
        // A replacement without an outcome keeps the one attached.
        let attached = || event(5, What::Outcome(outcome(9)));
        let events = vec![put(7, 2, None), attached(), put(3, 1, None)];
        assert_eq!(state(events), Some((2, Some(9))));
        let events = vec![put(7, 2, None), attached(), event(6, What::Removal), put(3, 1, None)];
        assert_eq!(state(events), Some((2, None)));
        assert_eq!(state(vec![event(8, What::Removal), put(7, 2, None)]), None);
    }

    #[test]
    fn an_outcome_outlives_the_version_that_it_was_attached_to() {
        let attached = || event(5, What::Outcome(outcome(9)));
        assert_eq!(state(vec![attached(), put(7, 2, None)]), Some((2, Some(9))));
        assert_eq!(state(vec![attached(), put(7, 2, Some(outcome(4)))]), Some((2, Some(4))));
        let events = vec![attached(), event(6, What::Removal), put(7, 2, None)];
        assert_eq!(state(events), Some((2, None)));
        let unreadable = event(3, What::Unreadable);
        assert_eq!(state(vec![unreadable, attached(), put(7, 2, None)]), Some((2, Some(9))));
    }

    #[test]
    fn a_segment_says_how_its_row_stood_when_it_was_cut() {
        let settled = |outcome| event(9, What::Settled { put_seq: 3, outcome });
        let attached = |seq, code| event(seq, What::Outcome(outcome(code)));
        // The log lost the last outcome; the segment has it.
        let events = vec![put(3, 1, None), attached(4, 1), settled(Some(outcome(2)))];
        assert_eq!(state(events), Some((1, Some(2))));
        let events =
            vec![put(3, 1, None), settled(Some(outcome(2))), attached(10, 3), attached(9, 4)];
        assert_eq!(state(events), Some((1, Some(3))));
        // It says nothing of a version that replaced its row.
        let events = vec![put(3, 1, None), put(5, 2, None), settled(Some(outcome(2)))];
        assert_eq!(state(events), Some((2, None)));
    }

    #[test]
    fn a_whole_copy_of_a_write_wins_over_what_is_left_of_another() {
        let part = || {
            let what = What::Put { spot: (0, 8), outcome: None, is_whole: false, is_bare: false };
            event(3, what)
        };
        assert_eq!(state(vec![part(), put(3, 1, None)]), Some((1, None)));
        assert_eq!(state(vec![put(3, 1, None), part()]), Some((1, None)));
    }

    #[test]
    fn what_cannot_be_read_is_told_by_name() {
        let merged = Merged::of(vec![put(3, 1, None), event(4, What::Unreadable)]);
        assert_eq!((merged.older_versions(), merged.lost_intents()), (vec![id(1)], vec![]));
        let merged = Merged::of(vec![event(4, What::Unreadable), put(4, 1, None)]);
        assert_eq!((merged.older_versions(), merged.lost_intents()), (vec![], vec![]));
        let merged = Merged::of(vec![event(4, What::Unreadable)]);
        assert_eq!((merged.older_versions(), merged.lost_intents()), (vec![], vec![id(1)]));
        let merged = Merged::of(vec![event(4, What::Outcome(outcome(1)))]);
        assert_eq!(merged.outcomes_without_intent(), 1);
    }
}
