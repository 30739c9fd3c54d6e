//! One thread's part: calls, what they answered, and when.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tala_core::{Intent, IntentId, IntentStore, TalaError, TimeRange};
use tala_store::{Query, StorageEngine};

use super::{
    history::{Call, Clock, Step, Value},
    latency::{Kind, Latencies},
};
use crate::{
    failure::Failure,
    stress::{
        content::{Held, Id, TIMESTAMP_END, intent, outcome, query},
        rng::Rng,
    },
};

/// Intents that every thread writes to and reads, one by one and in batches of any of them.
pub(super) const SINGLES: u64 = 48;
/// Groups of intents that are only ever written together, by a batch.
pub(super) const GROUPS: u64 = 6;
/// Intents of a group.
pub(super) const GROUP: u64 = 4;

/// All ids, singles first. None belongs to a thread.
pub(super) fn ids() -> impl Iterator<Item = Id> {
    (0..SINGLES + GROUPS * GROUP).map(Id)
}

/// The ids of a group.
fn group(index: u64) -> [Id; GROUP as usize] {
    std::array::from_fn(|offset| Id(SINGLES + index * GROUP + offset as u64))
}

/// What all threads of an episode share.
pub(super) struct Shared<'a> {
    pub(super) engine: &'a StorageEngine,
    pub(super) clock: &'a Clock,
    /// When to stop.
    pub(super) end: Instant,
    /// Set by the first who fails: the others stop too.
    pub(super) has_failed: &'a AtomicBool,
}

/// A thread: which, and what it has done so far.
pub(super) struct Worker<'a> {
    shared: &'a Shared<'a>,
    thread: usize,
    rng: Rng,
    /// The version that is given next; every one of a run is different.
    version: u64,
    /// What its calls did to which intent.
    pub(super) calls: BTreeMap<Id, Vec<Call>>,
    pub(super) latencies: Latencies,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        shared: &'a Shared<'a>,
        thread: usize,
        seed: u64,
        episode: u64,
    ) -> Result<Self, Failure> {
        Ok(Self {
            shared,
            thread,
            rng: Rng::of(&[seed, episode, thread as u64]),
            version: episode << 40 | (thread as u64) << 32,
            calls: BTreeMap::new(),
            latencies: Latencies::new()?,
        })
    }

    /// Works until the time is over, there were `calls_max` calls, or somebody failed.
    pub(super) fn run(&mut self, calls_max: u64) -> Result<(), Failure> {
        let Shared { end, has_failed, .. } = *self.shared;
        for _ in 0..calls_max {
            if Instant::now() >= end || has_failed.load(Ordering::Relaxed) {
                break;
            }
            if let Err(error) = self.step() {
                has_failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Looks every intent up, one by one.
    pub(super) fn look_everything_up(&mut self) -> Result<(), Failure> {
        ids().try_for_each(|id| self.get(id))
    }

    /// Writes every group for the first time.
    pub(super) fn write_groups(&mut self) -> Result<(), Failure> {
        (0..GROUPS).try_for_each(|index| self.write_group(index))
    }

    fn step(&mut self) -> Result<(), Failure> {
        match self.rng.below(1_000) {
            0..140 => self.insert(),
            140..180 => self.try_insert(),
            180..220 => self.insert_async(),
            220..260 => {
                let index = self.rng.below(GROUPS);
                self.write_group(index)
            }
            260..290 => self.batch_of_singles(),
            290..410 => self.attach(),
            410..490 => self.remove(),
            490..800 => {
                let id = self.any_id();
                self.get(id)
            }
            800..880 => self.range(),
            880..900 => self.range_of_all(),
            900..970 => self.search(),
            970..990 => self.search_exactly(),
            990..996 => self.barrier(Kind::Sync, StorageEngine::sync),
            _ => self.barrier(Kind::Flush, StorageEngine::flush),
        }
    }

    /// Makes one call, and returns its answer with when it began and ended.
    fn call<T>(&mut self, kind: Kind, ask: impl FnOnce(&StorageEngine) -> T) -> (T, (u64, u64)) {
        let Shared { engine, clock, .. } = *self.shared;
        let begin = clock.now();
        let started = Instant::now();
        let answer = ask(engine);
        let took = started.elapsed();
        let end = clock.now();
        self.latencies.record(kind, took);
        (answer, (begin, end))
    }

    fn record(&mut self, id: Id, (begin, end): (u64, u64), step: Step) {
        let call = Call { thread: self.thread, begin, end, step };
        self.calls.entry(id).or_default().push(call);
    }

    fn any_id(&mut self) -> Id {
        Id(self.rng.below(SINGLES + GROUPS * GROUP))
    }

    fn any_single(&mut self) -> Id {
        // A few of them get most of what is asked, so that calls meet.
        let end = if self.rng.one_in(2) { 4 } else { SINGLES };
        Id(self.rng.below(end))
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn insert(&mut self) -> Result<(), Failure> {
        let (id, version) = (self.any_single(), self.next_version());
        let intent = intent(id, version);
        let (answer, when) = self.call(Kind::Insert, |engine| engine.insert(intent));
        answer?;
        self.record(id, when, Step::Inserted { version });
        Ok(())
    }

    fn try_insert(&mut self) -> Result<(), Failure> {
        let (id, version) = (self.any_single(), self.next_version());
        let intent = intent(id, version);
        let (answer, when) = self.call(Kind::TryInsert, |engine| engine.try_insert(intent));
        match answer {
            Ok(_) => self.record(id, when, Step::Inserted { version }),
            // Then it has done nothing, which every later read confirms.
            Err(TalaError::Busy { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn insert_async(&mut self) -> Result<(), Failure> {
        let (id, version) = (self.any_single(), self.next_version());
        let intent = intent(id, version);
        let (answer, when) =
            self.call(Kind::Async, |engine| pollster::block_on(engine.insert_async(intent)));
        answer?;
        self.record(id, when, Step::Inserted { version });
        Ok(())
    }

    fn batch(&mut self, ids: &[Id], version: u64) -> Result<(), Failure> {
        let intents = ids.iter().map(|id| intent(*id, version)).collect();
        let (answer, when) = self.call(Kind::Batch, |engine| engine.insert_batch(intents));
        answer?;
        ids.iter().for_each(|id| self.record(*id, when, Step::Inserted { version }));
        Ok(())
    }

    fn write_group(&mut self, index: u64) -> Result<(), Failure> {
        let version = self.next_version();
        self.batch(&group(index), version)
    }

    fn batch_of_singles(&mut self) -> Result<(), Failure> {
        let mut ids: Vec<Id> = (0..2 + self.rng.below(6)).map(|_| self.any_single()).collect();
        // What equal ids in a batch do is checked elsewhere; here each call is one step of an id.
        ids.sort_unstable();
        ids.dedup();
        let version = self.next_version();
        self.batch(&ids, version)
    }

    fn attach(&mut self) -> Result<(), Failure> {
        let (id, version) = (self.any_id(), self.next_version());
        let outcome = outcome(version);
        let (answer, when) =
            self.call(Kind::Outcome, |engine| engine.attach_outcome(id.intent_id(), outcome));
        let was_there = match answer {
            Ok(()) => true,
            Err(TalaError::NodeNotFound(_)) => false,
            Err(error) => return Err(error.into()),
        };
        self.record(id, when, Step::Attached { version, was_there });
        Ok(())
    }

    fn remove(&mut self) -> Result<(), Failure> {
        let id = self.any_single();
        let (answer, when) = self.call(Kind::Remove, |engine| engine.remove(id.intent_id()));
        self.record(id, when, Step::Removed { was_there: answer? });
        Ok(())
    }

    fn barrier(
        &mut self,
        kind: Kind,
        ask: impl FnOnce(&StorageEngine) -> Result<(), TalaError>,
    ) -> Result<(), Failure> {
        Ok(self.call(kind, ask).0?)
    }

    fn get(&mut self, id: Id) -> Result<(), Failure> {
        let (found, when) = self.call(Kind::Get, |engine| engine.get(id.intent_id()));
        let value = found?.map(|found| held(id, &found)).transpose()?;
        self.record(id, when, Step::Saw(value));
        Ok(())
    }

    fn range(&mut self) -> Result<(), Failure> {
        let start = self.rng.below(TIMESTAMP_END);
        let range = TimeRange { start, end: start + 1 + self.rng.below(TIMESTAMP_END / 8) };
        let (found, when) = self.call(Kind::Range, |engine| engine.query_temporal(range));
        let found = by_id(range, &found?)?;
        for id in ids() {
            let step = match found.get(&id) {
                Some(held) => Step::Saw(Some(*held)),
                None => Step::WasOutside { start: range.start, end: range.end },
            };
            self.record(id, when, step);
        }
        Ok(())
    }

    fn range_of_all(&mut self) -> Result<(), Failure> {
        let range = TimeRange { start: 0, end: u64::MAX };
        let (found, when) = self.call(Kind::RangeAll, |engine| engine.query_temporal(range));
        let found = by_id(range, &found?)?;
        for index in 0..GROUPS {
            let versions = group(index).map(|id| found.get(&id).map(|held| held.version));
            if versions.iter().any(|version| *version != versions[0]) {
                let what = format!("a range saw part of a batch: group {index} is {versions:?}");
                return Err(Failure::Promise(what));
            }
        }
        for id in ids() {
            let value: Value = found.get(&id).copied();
            self.record(id, when, Step::Saw(value));
        }
        Ok(())
    }

    fn search(&mut self) -> Result<(), Failure> {
        let (seed, k) = (self.rng.next(), 1 + self.rng.below(10) as usize);
        let embedding = query(seed);
        let (hits, when) =
            self.call(Kind::Search, |engine| engine.search(Query::new(&embedding, k)));
        self.record_hits(seed, k, &hits?, when)?;
        Ok(())
    }

    fn search_exactly(&mut self) -> Result<(), Failure> {
        let seed = self.rng.next();
        let embedding = query(seed);
        let (hits, when) = self.call(Kind::SearchAll, |engine| {
            engine.search(Query::new(&embedding, usize::MAX).exact())
        });
        let seen = self.record_hits(seed, usize::MAX, &hits?, when)?;
        for id in ids().filter(|id| !seen.contains_key(id)) {
            self.record(id, when, Step::Saw(None));
        }
        Ok(())
    }

    /// What a search found are reads; what a walk did not find tells nothing.
    fn record_hits(
        &mut self,
        query: u64,
        k: usize,
        hits: &[(IntentId, f32)],
        when: (u64, u64),
    ) -> Result<BTreeMap<Id, f32>, Failure> {
        let promise = |what: String| Err(Failure::Promise(what));
        let is_better =
            |a: &(IntentId, f32), b: &(IntentId, f32)| a.1 > b.1 || (a.1 == b.1 && a.0 < b.0);
        if !hits.is_sorted_by(is_better) || hits.len() > k {
            return promise(format!("a search for {k} is not in order: {hits:?}"));
        }
        let mut seen = BTreeMap::new();
        for (id, similarity) in hits {
            let Some(id) = Id::of(*id).filter(|id| ids().any(|known| known == *id)) else {
                return promise(format!("a search found {id}, which nobody wrote"));
            };
            if seen.insert(id, *similarity).is_some() {
                return promise(format!("a search found {id:?} twice"));
            }
            self.record(id, when, Step::WasLike { query, similarity: *similarity });
        }
        Ok(seen)
    }
}

fn held(id: Id, found: &Intent) -> Result<Held, Failure> {
    Held::of(id, found).map_err(Failure::Promise)
}

/// The intents of a range, which must be in order, within it, and there once.
fn by_id(range: TimeRange, found: &[Intent]) -> Result<BTreeMap<Id, Held>, Failure> {
    let promise = |what: String| Err(Failure::Promise(what));
    if !found.is_sorted_by_key(|intent| intent.timestamp) {
        return promise(format!("a range is not in order of time: {range:?}"));
    }
    let mut all = BTreeMap::new();
    for intent in found {
        let Some(id) = Id::of(intent.id) else {
            return promise(format!("a range holds what nobody wrote: {intent:?}"));
        };
        if !(range.start..range.end).contains(&intent.timestamp) {
            return promise(format!("{id:?} is not within {range:?}"));
        }
        if all.insert(id, held(id, intent)?).is_some() {
            return promise(format!("a range holds {id:?} twice"));
        }
    }
    Ok(all)
}

/// How long an episode may take.
pub(super) const EPISODE: Duration = Duration::from_secs(5);
