//! The load: requests that are due at random moments, at set rates, and callers that make them.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tala_core::{Intent, IntentId, Outcome, Status, TimeRange};

use super::{
    KindReport, Rates,
    service::{K, KINDS, Kind, Service, key_of},
};
use crate::{
    Failure,
    ann::Truth,
    data::{DataSet, Random},
    stats::Latencies,
};

/// Time between two intents of the record: a range of a hundred of these has a hundred intents.
const STEP_NS: u64 = 1_000_000;
const RANGE_INTENTS: u64 = 100;
/// Rows handed over at once before the day begins.
const LOAD_BATCH: usize = 1_000;
/// Noise that makes a new row out of a known one; a row and a noise meet once in a long while.
const NOISES: usize = 1_021;

/// A service under load.
pub struct Day {
    service: Box<dyn Service>,
    data: DataSet,
    noises: Vec<Vec<f32>>,
    loaded: usize,
    /// Numbers given to intents so far.
    numbered: AtomicU64,
    acknowledged: AtomicU64,
}

/// The report of every kind, in the order of [`KINDS`].
#[derive(Serialize, Deserialize)]
pub struct DayReport {
    pub kinds: Vec<KindReport>,
}

/// What [`Day::load`] tells.
#[derive(Serialize, Deserialize)]
pub struct Loaded {
    pub seconds: f64,
    pub recall: f64,
}

/// How many threads make the requests of a kind: enough that a request that is due finds one free
/// unless the service is behind.
fn callers(kind: Kind) -> usize {
    match kind {
        Kind::Insert => 16,
        Kind::Search | Kind::Outcome => 8,
        Kind::Lookup => 4,
        Kind::Range => 2,
    }
}

fn rate(rates: Rates, kind: Kind) -> f64 {
    match kind {
        Kind::Insert => rates.inserts,
        Kind::Search => rates.searches,
        Kind::Lookup => rates.lookups,
        Kind::Range => rates.ranges,
        Kind::Outcome => rates.outcomes,
    }
}

/// When requests are due, counted from the start: independent of one another, `rate` a second.
fn arrivals(rate: f64, during: Duration, seed: u64) -> Vec<Duration> {
    if rate <= 0.0 {
        return Vec::new();
    }
    let mut random = Random::new(seed);
    let gaps = std::iter::repeat_with(|| -(1.0 - random.unit()).ln() / rate);
    gaps.scan(0.0, |at, gap| {
        *at += gap;
        Some(*at)
    })
    .take_while(|at| *at < during.as_secs_f64())
    .map(Duration::from_secs_f64)
    .collect()
}

impl Day {
    /// A service with nothing in it yet.
    pub fn new(service: Box<dyn Service>, data: DataSet) -> Self {
        let mut random = Random::new(1);
        let scale = 0.3 / (data.source.dim as f32).sqrt();
        let noises = (0..NOISES)
            .map(|_| (0..data.source.dim).map(|_| scale * random.normal()).collect())
            .collect();
        let (numbered, acknowledged) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { service, data, noises, loaded: 0, numbered, acknowledged }
    }

    /// Inserts that were answered without an error.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Intents that the service has.
    pub fn stored(&self) -> Result<u64, Failure> {
        self.service.len()
    }

    /// Intent `number`: the rows as they are, and then each again with noise.
    fn intent(&self, number: u64) -> Intent {
        let index = number as usize;
        let row = self.data.base.row(index % self.data.base.len());
        let embedding = if index < self.data.base.len() {
            row.to_vec()
        } else {
            row.iter()
                .zip(&self.noises[index % NOISES])
                .map(|(value, noise)| value + noise)
                .collect()
        };
        Intent {
            id: id_of(number),
            timestamp: number * STEP_NS,
            raw_command: format!(
                "kubectl -n checkout logs deploy/gateway --since={number}s | less"
            ),
            embedding,
            context_hash: number,
            parent_ids: Vec::new(),
            outcome: None,
            confidence: 1.0,
        }
    }

    /// Stores and indexes all rows of the base; returns the seconds, and recall@[`K`] of all
    /// queries, which is not timed.
    pub fn load(&mut self) -> Result<Loaded, Failure> {
        let rows = self.data.base.len();
        let start = Instant::now();
        for from in (0..rows).step_by(LOAD_BATCH) {
            let batch = from..rows.min(from + LOAD_BATCH);
            self.service.load(batch.map(|number| self.intent(number as u64)).collect())?;
        }
        self.service.settle()?;
        self.loaded = rows;
        *self.numbered.get_mut() = rows as u64;
        *self.acknowledged.get_mut() = rows as u64;
        let seconds = start.elapsed().as_secs_f64();
        let row_of: HashMap<u64, u64> =
            (0..rows as u64).map(|number| (key_of(id_of(number)), number)).collect();
        let found = (0..self.data.queries.len())
            .map(|query| {
                let keys = self.service.search(self.data.queries.row(query))?;
                Ok(keys.iter().filter_map(|key| row_of.get(key).copied()).collect())
            })
            .collect::<Result<Vec<Vec<u64>>, Failure>>()?;
        let recall = Truth::new(&self.data, K).recall(&self.data, &found);
        Ok(Loaded { seconds, recall })
    }

    /// Makes requests of all kinds for so long.
    pub fn live(
        &mut self,
        during: Duration,
        rates: Rates,
        seed: u64,
    ) -> Result<DayReport, Failure> {
        if self.loaded == 0 {
            return Err("nothing is loaded yet".into());
        }
        let due: Vec<Vec<Duration>> = (0..)
            .zip(KINDS)
            .map(|(number, kind)| arrivals(rate(rates, kind), during, seed * 8 + number))
            .collect();
        let next: Vec<AtomicUsize> = KINDS.iter().map(|_| AtomicUsize::new(0)).collect();
        // Time for all threads to start before the first request is due.
        let start = Instant::now() + Duration::from_millis(200);
        let this = &*self;
        let kinds = thread::scope(|scope| {
            let groups: Vec<Vec<_>> = KINDS
                .into_iter()
                .zip(due.iter().zip(&next))
                .map(|(kind, (due, next))| {
                    (0..callers(kind))
                        .map(|_| scope.spawn(move || this.call(kind, due, next, (start, seed))))
                        .collect()
                })
                .collect();
            groups
                .into_iter()
                .map(|group| {
                    let mut all = Caller::new()?;
                    for thread in group {
                        all.add(thread.join().map_err(|_| "a caller panicked")??)?;
                    }
                    Ok(all.report(start + during))
                })
                .collect::<Result<Vec<KindReport>, Failure>>()
        })?;
        Ok(DayReport { kinds })
    }

    /// One caller: takes the next request that is due, waits for its moment, makes it.
    fn call(
        &self,
        kind: Kind,
        due: &[Duration],
        next: &AtomicUsize,
        (start, seed): (Instant, u64),
    ) -> Result<Caller, Failure> {
        // Wake when a request is due and not up to 50 us later, as threads do by default.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let mut caller = Caller::new()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(due) = due.get(number) else { return Ok(caller) };
            let due = start + *due;
            let request = self.request(kind, seed, number as u64);
            // Pacing, not synchronization: nothing depends on when this ends but the load itself.
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let begun = Instant::now();
            let result = self.make(request);
            let ended = Instant::now();
            caller.offered += 1;
            caller.last = caller.last.max(Some(ended));
            caller.response.record(ended - due);
            caller.service.record(ended - begun);
            if let Err(error) = result {
                caller.failed += 1;
                caller.first_failure.get_or_insert(error);
            }
        }
    }

    /// The request, ready to be made, so that making it up costs no latency.
    fn request(&self, kind: Kind, seed: u64, number: u64) -> Request<'_> {
        // Streams of different days and kinds have nothing to do with each other.
        let mut random = Random::new(seed ^ (kind as u64) << 56);
        let mut random = Random::new(random.next() ^ number);
        let known = random.below(self.loaded) as u64;
        match kind {
            Kind::Insert => {
                let number = self.numbered.fetch_add(1, Ordering::Relaxed);
                Request::Insert(Box::new(self.intent(number)))
            }
            Kind::Search => {
                Request::Search(self.data.queries.row(random.below(self.data.queries.len())))
            }
            Kind::Lookup => Request::Lookup(id_of(known)),
            Kind::Range => {
                let start = known * STEP_NS;
                Request::Range(TimeRange { start, end: start + RANGE_INTENTS * STEP_NS })
            }
            Kind::Outcome => Request::Outcome(id_of(known)),
        }
    }

    fn make(&self, request: Request<'_>) -> Result<(), Failure> {
        match request {
            Request::Insert(intent) => {
                self.service.insert(*intent)?;
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Request::Search(query) => {
                let found = self.service.search(query)?.len();
                if found != K {
                    return Err(format!("a search found {found}").into());
                }
            }
            Request::Lookup(id) => match self.service.get(id)? {
                Some(intent) if intent.id == id => {}
                _ => return Err("a look-up did not find its intent".into()),
            },
            Request::Range(range) => {
                let intents = self.service.range(range)?.len();
                if intents == 0 || intents > RANGE_INTENTS as usize {
                    return Err(format!("a range has {intents} intents").into());
                }
            }
            Request::Outcome(id) => {
                let outcome =
                    Outcome { status: Status::Success, latency_ns: 1_000_000, exit_code: 0 };
                self.service.outcome(id, outcome)?;
            }
        }
        Ok(())
    }
}

/// Random-looking and different for different numbers.
fn id_of(number: u64) -> IntentId {
    let mut random = Random::new(number);
    IntentId::from_bytes(
        (u128::from(random.next()) << 64 | u128::from(random.next())).to_be_bytes(),
    )
}

enum Request<'a> {
    Insert(Box<Intent>),
    Search(&'a [f32]),
    Lookup(IntentId),
    Range(TimeRange),
    Outcome(IntentId),
}

/// What callers have seen.
struct Caller {
    offered: u64,
    failed: u64,
    first_failure: Option<Failure>,
    last: Option<Instant>,
    response: Latencies,
    service: Latencies,
}

impl Caller {
    fn new() -> Result<Self, Failure> {
        let (response, service) = (Latencies::new()?, Latencies::new()?);
        Ok(Self { offered: 0, failed: 0, first_failure: None, last: None, response, service })
    }

    fn add(&mut self, other: Self) -> Result<(), Failure> {
        self.offered += other.offered;
        self.failed += other.failed;
        self.last = self.last.max(other.last);
        if let Some(error) = other.first_failure {
            eprintln!("a request failed: {error}");
        }
        self.response.add(&other.response)?;
        self.service.add(&other.service)
    }

    fn report(&self, end: Instant) -> KindReport {
        let late = self.last.map_or(Duration::ZERO, |last| last.saturating_duration_since(end));
        KindReport {
            offered: self.offered,
            failed: self.failed,
            late_s: late.as_secs_f64(),
            response: self.response.summary(),
            service: self.service.summary(),
            curve: self.response.curve(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_keep_their_rate_and_are_the_same_for_everybody() {
        let during = Duration::from_secs(10);
        let first = arrivals(1_000.0, during, 3);
        assert!((9_000..11_000).contains(&first.len()), "{}", first.len());
        assert!(first.is_sorted() && first.last() < Some(&during));
        assert_eq!(first, arrivals(1_000.0, during, 3));
        assert_ne!(first, arrivals(1_000.0, during, 4));
        assert!(arrivals(0.0, during, 3).is_empty());
    }
}
