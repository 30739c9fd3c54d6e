//! The worker's side: opens one store, lets clients insert in closed loops, opens it again and
//! looks for what was acknowledged. The same for every store.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use super::{
    contest,
    payload::{Number, Payload},
    store::{Answer, Client, Closed, Open, Ran, Reopened, Request, Store, Until},
};
use crate::{Failure, stats::Latencies, worker};

/// How many of the acknowledged records are looked for.
const CHECKED_MAX: u64 = 2_000;

/// Answers the driver until it hangs up.
pub fn serve(open: Open) -> Result<(), Failure> {
    let mut bench = Bench { open, store: None, acknowledged: Vec::new() };
    worker::serve(|request| bench.answer(request))
}

struct Bench {
    open: Open,
    store: Option<Box<dyn Store>>,
    /// By client, since the store was opened.
    acknowledged: Vec<u64>,
}

impl Bench {
    fn answer(&mut self, request: Request) -> Result<Answer, Failure> {
        match request {
            Request::Open { dir, opening } => {
                self.store = Some(contest::open(self.open, &dir, opening)?);
                self.acknowledged.clear();
                Ok(Answer::Done)
            }
            Request::Run { clients, until, batch, settle } => {
                let store = self.store.as_deref().ok_or("no store is open")?;
                run(store, &mut self.acknowledged, clients, until, batch, settle).map(Answer::Ran)
            }
            Request::Close => {
                let store = self.store.take().ok_or("no store is open")?;
                let since = Instant::now();
                store.close()?;
                let seconds = since.elapsed().as_secs_f64();
                Ok(Answer::Closed(Closed { seconds, acknowledged: self.acknowledged.clone() }))
            }
            Request::Reopen { dir, opening, acknowledged } => {
                let first = sample(&acknowledged).next().ok_or("nothing was acknowledged")?;
                let first = Payload::of(first);
                let since = Instant::now();
                let store = contest::open(self.open, &dir, opening)?;
                store.get(first.key())?;
                let seconds = since.elapsed().as_secs_f64();
                let (mut checked, mut missing) = (0, 0);
                for number in sample(&acknowledged) {
                    let payload = Payload::of(number);
                    checked += 1;
                    let value = store.get(payload.key())?;
                    missing += u64::from(value.as_deref() != Some(payload.value()));
                }
                self.store = Some(store);
                Ok(Answer::Reopened(Reopened { seconds, checked, missing }))
            }
        }
    }
}

/// Some of what every client had acknowledged, evenly spread; the last of each is among them.
fn sample(acknowledged: &[u64]) -> impl Iterator<Item = Number> {
    let each = (CHECKED_MAX / acknowledged.len().max(1) as u64).max(1);
    (0..).zip(acknowledged).flat_map(move |(client, &count)| {
        let step = count.div_ceil(each).max(1);
        (1..=count).rev().step_by(step as usize).map(move |n| Number { client, sequence: n - 1 })
    })
}

fn run(
    store: &dyn Store,
    acknowledged: &mut Vec<u64>,
    clients: u32,
    until: Until,
    batch: usize,
    settle: bool,
) -> Result<Ran, Failure> {
    let handles: Vec<_> = (0..clients).map(|_| store.client()).collect::<Result<_, _>>()?;
    acknowledged.resize(acknowledged.len().max(handles.len()), 0);
    let start = Barrier::new(handles.len() + 1);
    let share = until.records.map(|records| records.div_ceil(u64::from(clients)));
    let until = Until { records: share, ..until };
    let (since, results) = thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(handles)
            .zip(acknowledged.iter())
            .map(|((client, handle), &sequence)| {
                let (start, first) = (&start, Number { client, sequence });
                scope.spawn(move || insert(handle, start, first, until, batch))
            })
            .collect();
        start.wait();
        let since = Instant::now();
        let results: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        (since, results)
    });
    let seconds = since.elapsed().as_secs_f64();
    let lag = store.lag();
    let mut latencies = Latencies::new()?;
    let mut records = 0;
    for (acknowledged, result) in acknowledged.iter_mut().zip(results) {
        let of_client = result.map_err(|_| "a client panicked")??;
        *acknowledged += of_client.records;
        records += of_client.records;
        latencies.add(&of_client.latencies)?;
    }
    let settle_since = Instant::now();
    if settle {
        store.settle()?;
    }
    let settle_seconds = if settle { settle_since.elapsed().as_secs_f64() } else { 0.0 };
    Ok(Ran { records, seconds, settle_seconds, lag, latency: latencies.summary() })
}

struct OfClient {
    records: u64,
    latencies: Latencies,
}

/// One client: an insert after the other, each made ready before its clock starts.
fn insert(
    mut client: Box<dyn Client + '_>,
    start: &Barrier,
    first: Number,
    until: Until,
    batch: usize,
) -> Result<OfClient, Failure> {
    let mut latencies = Latencies::new()?;
    let mut payloads = vec![Payload::of(first); batch];
    let mut records = 0;
    start.wait();
    let deadline = until.seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    while deadline.is_none_or(|deadline| Instant::now() < deadline) {
        let left = until.records.map_or(batch as u64, |count| count - records);
        let payloads = &mut payloads[..batch.min(left as usize)];
        if payloads.is_empty() {
            break;
        }
        for (sequence, payload) in (first.sequence + records..).zip(payloads.iter_mut()) {
            payload.fill(Number { client: first.client, sequence });
        }
        let since = Instant::now();
        client.insert(payloads)?;
        latencies.record(since.elapsed());
        records += payloads.len() as u64;
    }
    Ok(OfClient { records, latencies })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{
        contest::Kind,
        store::{Level, Opening},
    };

    /// What the comparison rests on: nobody looks fast because it was misused and kept nothing.
    #[test]
    fn every_store_gives_back_what_it_acknowledged() {
        let until = Until { seconds: None, records: Some(60) };
        let contestants = [contest::DURABLE, contest::BUFFERED, contest::BATCHES].concat();
        for contestant in contestants {
            let Some(open) = contest::opener(contestant.family()) else { continue };
            let Opening { level, .. } = contestant.opening;
            if contestant.kind == Kind::Bound || level == Level::Interval {
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path().join("store");
            let opening = contestant.opening;
            let ask = |request| {
                let mut bench = Bench { open, store: None, acknowledged: vec![] };
                bench.answer(request).unwrap()
            };
            let mut bench = Bench { open, store: None, acknowledged: vec![] };
            bench.answer(Request::Open { dir: dir.clone(), opening }).unwrap();
            for (clients, batch) in [(1, 1), (3, 1), (2, 7)] {
                let run = Request::Run { clients, until, batch, settle: contestant.settle };
                let Answer::Ran(ran) = bench.answer(run).unwrap() else { panic!("not an answer") };
                assert_eq!(ran.records, 60, "{}", contestant.label);
            }
            let Answer::Closed(closed) = bench.answer(Request::Close).unwrap() else {
                panic!("not an answer");
            };
            assert_eq!(closed.acknowledged, [60 + 20 + 30, 20 + 30, 20]);
            let reopen = |acknowledged| Request::Reopen { dir: dir.clone(), opening, acknowledged };
            let Answer::Reopened(reopened) = ask(reopen(vec![110, 50, 20])) else {
                panic!("not an answer");
            };
            assert_eq!((reopened.checked, reopened.missing), (180, 0), "{}", contestant.label);
            // A record that nobody inserted is missed, so a lost one would be.
            let Answer::Reopened(reopened) = ask(reopen(vec![110, 50, 21])) else {
                panic!("not an answer");
            };
            assert_eq!((reopened.checked, reopened.missing), (181, 1), "{}", contestant.label);
        }
    }

    #[test]
    fn a_sample_has_the_last_of_each_client_and_is_not_large() {
        let acknowledged = [0, 1, 10_000, 3_000_000];
        let numbers: Vec<_> = sample(&acknowledged).collect();
        for (client, count) in [(1, 1), (2, 10_000), (3, 3_000_000)] {
            assert!(numbers.contains(&Number { client, sequence: count - 1 }));
        }
        assert!(numbers.iter().all(|n| n.sequence < acknowledged[n.client as usize]));
        assert!(numbers.len() as u64 <= CHECKED_MAX);
        assert_eq!(numbers.iter().filter(|n| n.client == 3).count(), 500);
    }
}
