//! Those who follow the committed writes see each once, in order, and are told where they do not; and
//! a snapshot in log order is one of one moment.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Waker},
    thread,
    time::{Duration, Instant},
};

use crate::common::{DIM, TestDir, id, intent, is_same, outcome, version};
use tala_core::{Intent, IntentId, IntentStore};
use tala_store::{
    CommittedWrite as Write, Delivery, EngineOptions, SeqNo, StorageEngine, Subscription,
};

/// Longer than anything here takes: who waits so long waits in vain.
const LONG: Duration = Duration::from_secs(30);

fn options() -> EngineOptions {
    StorageEngine::options(DIM)
}

/// A store kept up to date by following another: nothing but what was delivered.
#[derive(Default)]
struct Replica {
    intents: BTreeMap<IntentId, Intent>,
    /// The last place seen.
    last: SeqNo,
    delivered: u64,
    lags: u64,
}

impl Replica {
    fn apply(&mut self, seq: SeqNo, write: Write) {
        assert!(seq > self.last, "{seq} after {}", self.last);
        self.last = seq;
        self.delivered += 1;
        match write {
            Write::Insert(intent) => drop(self.intents.insert(intent.id, intent)),
            Write::Outcome { id, outcome } => {
                let intent = self.intents.get_mut(&id).expect("an outcome of nothing");
                intent.outcome = Some(outcome);
            }
            Write::Removal { id } => {
                assert!(self.intents.remove(&id).is_some(), "a removal of nothing");
            }
            other => panic!("{other:?}"),
        }
    }

    /// Follows until the engine has ended, beginning anew where it was too slow.
    fn follow(mut self, engine: &StorageEngine, mut writes: Subscription) -> Self {
        loop {
            match writes.next_timeout(LONG) {
                Delivery::Write(seq, write) => self.apply(seq, write),
                Delivery::Ended => return self,
                Delivery::Lagged { oldest } => {
                    self.lags += 1;
                    // The engine may have been closed meanwhile; then nobody can catch up.
                    let Ok(all) = engine.iter() else { return self };
                    assert!(all.snapshot() >= oldest.previous());
                    self.last = all.snapshot();
                    writes = engine.subscribe(all.snapshot().next()).unwrap();
                    self.intents = all.map(|(_, intent)| (intent.id, intent)).collect();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn check(&self, of: &StorageEngine) {
        let all: Vec<_> = of.iter().unwrap().collect();
        assert_eq!(all.len(), self.intents.len());
        for (_, intent) in all {
            let own = &self.intents[&intent.id];
            assert!(is_same(own, &intent), "{own:?} where the store has {intent:?}");
        }
    }
}

/// Four threads that write, replace, attach and remove; returns how many writes were made.
fn write_much(engine: &StorageEngine, each: u64) -> u64 {
    let count = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (engine, count) = (engine.clone(), &count);
            scope.spawn(move || {
                for step in 0..each {
                    let number = thread * 1_000_000 + step % 50;
                    let writes = match step % 5 {
                        0 => engine.insert(version(number, step)).map(|_| 1),
                        1 => {
                            let batch = (0..3).map(|at| version(number + at, step)).collect();
                            engine.insert_batch(batch).map(|ids| ids.len() as u64)
                        }
                        2 => engine.attach_outcome(id(number - 1), outcome(step)).map(|()| 1),
                        3 => engine.remove(id(number - 1)).map(u64::from),
                        _ => engine.insert(version(number % 7, step)).map(|_| 1),
                    };
                    count.fetch_add(writes.unwrap_or(0), SeqCst);
                    if step % 97 == 0 {
                        engine.flush().unwrap();
                    }
                }
            });
        }
    });
    count.into_inner()
}

#[test]
fn a_replica_that_follows_is_the_store() {
    let dir = TestDir::new();
    let engine = options().hot_capacity(40).open(dir.path()).unwrap();
    let before = write_much(&engine, 50);
    assert!(before > 0);
    // Nothing is kept of that; from here on everything is.
    let mut writes = engine.subscribe(SeqNo::FIRST).unwrap();
    let Delivery::Lagged { oldest } = writes.try_next() else { panic!("older ones are kept") };
    assert_eq!(oldest, SeqNo(engine.stats().visible_seq + 1));
    assert_eq!((writes.position(), writes.try_next()), (oldest, Delivery::Nothing));

    let snapshot = engine.iter().unwrap();
    let start = Replica {
        last: snapshot.snapshot(),
        intents: snapshot.map(|(_, intent)| (intent.id, intent)).collect(),
        ..Replica::default()
    };
    let all = thread::scope(|scope| {
        let followers: Vec<_> = (0..3)
            .map(|_| {
                let start = Replica { intents: start.intents.clone(), ..start };
                let writes = engine.subscribe(start.last.next()).unwrap();
                let engine = &engine;
                scope.spawn(move || start.follow(engine, writes))
            })
            .collect();
        let written = write_much(&engine, 400);
        engine.close().unwrap();
        followers
            .into_iter()
            .map(|follower| {
                let replica = follower.join().unwrap();
                assert_eq!((replica.delivered, replica.lags), (written, 0));
                replica
            })
            .collect::<Vec<_>>()
    });
    // What was delivered is what is on the disk.
    let engine = options().open(dir.path()).unwrap();
    all.iter().for_each(|replica| replica.check(&engine));
}

#[test]
fn one_who_is_too_slow_is_told_and_catches_up() {
    let engine = options().kept_writes_max(20).in_memory().unwrap();
    let writes = engine.subscribe(SeqNo::FIRST).unwrap();
    let is_written = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            write_much(&engine, 600);
            is_written.store(true, SeqCst);
        });
        let mut replica = Replica::default();
        let mut writes = writes;
        loop {
            match writes.next_timeout(Duration::from_millis(20)) {
                Delivery::Write(seq, write) => replica.apply(seq, write),
                Delivery::Lagged { .. } => {
                    replica.lags += 1;
                    let all = engine.iter().unwrap();
                    replica.last = all.snapshot();
                    writes = engine.subscribe(all.snapshot().next()).unwrap();
                    replica.intents = all.map(|(_, intent)| (intent.id, intent)).collect();
                }
                Delivery::Nothing if is_written.load(SeqCst) => break,
                Delivery::Nothing => {}
                other => panic!("{other:?}"),
            }
        }
        println!("{} delivered, {} times too slow", replica.delivered, replica.lags);
        replica.check(&engine);
    });
}

fn next_seq(writes: &mut Subscription) -> Option<SeqNo> {
    match writes.try_next() {
        Delivery::Write(seq, _) => Some(seq),
        Delivery::Nothing => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_kept_is_as_much_as_the_options_say() {
    let engine = options().kept_writes_max(10).in_memory().unwrap();
    let mut late = engine.subscribe(SeqNo::FIRST).unwrap();
    for number in 0..25 {
        engine.insert(intent(number)).unwrap();
    }
    assert_eq!(late.try_next(), Delivery::Lagged { oldest: SeqNo(16) });
    let kept: Vec<_> = std::iter::from_fn(|| next_seq(&mut late)).collect();
    assert_eq!(kept, (16..=25).map(SeqNo).collect::<Vec<_>>());
    // Who comes later begins anywhere among them, or waits for what is to come.
    let mut later = engine.subscribe(SeqNo(20)).unwrap();
    assert_eq!(next_seq(&mut later), Some(SeqNo(20)));
    let mut ahead = engine.subscribe(SeqNo(27)).unwrap();
    assert_eq!(next_seq(&mut ahead), None);
    engine.insert_batch(vec![intent(1), intent(2)]).unwrap();
    assert_eq!(next_seq(&mut ahead), Some(SeqNo(27)));

    // By bytes: of commands of 1,000 bytes, the last nine or so.
    let engine = options().kept_bytes_max(10_000).in_memory().unwrap();
    let mut late = engine.subscribe(SeqNo::FIRST).unwrap();
    let long = |number| Intent { raw_command: "x".repeat(1_000), ..intent(number) };
    (0..50).for_each(|number| assert!(engine.insert(long(number)).is_ok()));
    assert!(matches!(late.try_next(), Delivery::Lagged { oldest } if oldest >= SeqNo(42)));
    let kept = std::iter::from_fn(|| next_seq(&mut late)).count();
    assert!((7..=9).contains(&kept), "{kept}");
    // One write is kept whatever it holds.
    let huge = Intent { raw_command: "x".repeat(1 << 20), ..intent(99) };
    engine.insert(huge.clone()).unwrap();
    let Delivery::Write(_, Write::Insert(found)) = late.try_next() else { panic!("not kept") };
    assert!(is_same(&found, &huge));
}

#[test]
fn a_write_is_visible_when_it_is_delivered() {
    let engine = options().in_memory().unwrap();
    let mut writes = engine.subscribe(SeqNo::FIRST).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            (0..2_000).for_each(|number| assert!(engine.insert(intent(number)).is_ok()));
        });
        for number in 0..2_000 {
            let Delivery::Write(_, Write::Insert(found)) = writes.next() else { panic!("missing") };
            assert!(is_same(&found, &intent(number)));
            assert!(engine.get(found.id).unwrap().is_some(), "delivered before it was visible");
        }
    });
}

#[test]
fn a_replacement_is_delivered_with_the_outcome_that_it_keeps() {
    let engine = options().in_memory().unwrap();
    let mut writes = engine.subscribe(SeqNo::FIRST).unwrap();
    engine.insert(intent(1)).unwrap();
    engine.attach_outcome(id(1), outcome(1)).unwrap();
    engine.insert(version(1, 1)).unwrap();
    engine.attach_outcome(id(2), outcome(2)).unwrap_err();
    assert!(!engine.remove(id(2)).unwrap());
    assert!(engine.remove(id(1)).unwrap());
    let replaced = Intent { outcome: Some(outcome(1)), ..version(1, 1) };
    for due in [
        Write::Insert(intent(1)),
        Write::Outcome { id: id(1), outcome: outcome(1) },
        Write::Insert(replaced),
        Write::Removal { id: id(1) },
    ] {
        let Delivery::Write(_, write) = writes.try_next() else { panic!("{due:?} is missing") };
        assert_eq!(write, due);
    }
    assert_eq!(writes.try_next(), Delivery::Nothing);
}

#[test]
fn one_who_waits_is_woken_by_a_write_by_the_end_and_by_time() {
    let engine = options().in_memory().unwrap();
    let mut writes = engine.subscribe(SeqNo::FIRST).unwrap();
    let begun = Instant::now();
    assert_eq!(writes.next_timeout(Duration::from_millis(20)), Delivery::Nothing);
    assert!(begun.elapsed() >= Duration::from_millis(20));
    // A future that is dropped takes nothing along.
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(writes.next_async()).poll(&mut context).is_pending());
    let waiting = thread::spawn(move || {
        let first = writes.next();
        assert!(matches!(first, Delivery::Write(SeqNo::FIRST, _)), "{first:?}");
        (writes.next(), writes.next(), writes)
    });
    engine.insert(intent(1)).unwrap();
    // A subscription is no handle: with the last of those the engine ends.
    drop(engine);
    let (last, again, mut writes) = waiting.join().unwrap();
    assert_eq!((last, again), (Delivery::Ended, Delivery::Ended));
    assert_eq!(writes.next_timeout(Duration::MAX), Delivery::Ended);
    assert_eq!(writes.try_next(), Delivery::Ended);
}

#[test]
fn one_who_waits_is_told_of_a_failure_of_any_thread() {
    let dir = TestDir::new();
    let engine = options().open(dir.path()).unwrap();
    let mut writes = engine.subscribe(SeqNo::FIRST).unwrap();
    engine.insert(intent(1)).unwrap();
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        assert!(matches!(writes.next(), Delivery::Write(..)));
        sender.send(writes.next()).unwrap();
    });
    // The flusher cannot write the segment, and the log's writer has nothing to do.
    std::fs::create_dir(dir.file("segment_000001.tbf.tmp")).unwrap();
    std::fs::create_dir(dir.file("segment_000001.tbf")).unwrap();
    engine.flush().unwrap_err();
    assert_eq!(ended.recv_timeout(LONG), Ok(Delivery::Ended));
    let _ = engine.close();
    for name in ["segment_000001.tbf.tmp", "segment_000001.tbf"] {
        let _ = std::fs::remove_dir(dir.file(name));
    }
    assert!(engine.iter().unwrap_err().is_closed());
    assert!(engine.subscribe(SeqNo::FIRST).unwrap_err().is_closed());
}

#[test]
fn a_snapshot_is_of_one_moment_and_in_log_order() {
    let engine = options().in_memory().unwrap();
    let pair = |round: u64| vec![version(1, round), version(2, round)];
    engine.insert_batch(pair(1)).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            (2..3_000).for_each(|round| drop(engine.insert_batch(pair(round)).unwrap()));
            is_over.store(true, SeqCst);
        });
        let mut last = SeqNo::ZERO;
        while !is_over.load(SeqCst) {
            let all = engine.iter().unwrap();
            let snapshot = all.snapshot();
            assert_eq!(all.len(), 2);
            let all: Vec<_> = all.collect();
            let rounds = all.iter().map(|(_, intent)| intent.timestamp).collect::<Vec<_>>();
            assert_eq!(rounds[0] + 1, rounds[1], "half of a batch");
            assert_eq!(all[0].0.next(), all[1].0);
            assert_eq!(all[1].0, snapshot);
            assert!(snapshot >= last, "a later snapshot sees less");
            last = snapshot;
        }
    });
}

#[test]
fn the_order_of_the_log_is_kept_when_the_store_is_opened_again() {
    let dir = TestDir::new();
    let engine = options().hot_capacity(7).open(dir.path()).unwrap();
    // Times run backwards, so that their order is another.
    let backwards = |number: u64| Intent { timestamp: 1_000 - number, ..intent(number) };
    (0..30).for_each(|number| assert!(engine.insert(backwards(number)).is_ok()));
    engine.insert(backwards(3)).unwrap();
    assert!(engine.remove(id(5)).unwrap());
    engine.attach_outcome(id(6), outcome(6)).unwrap();
    let all: Vec<_> = engine.iter().unwrap().collect();
    let numbers: Vec<_> = all.iter().map(|(_, intent)| intent.id).collect();
    let due = (0..30).filter(|number| ![3, 5].contains(number)).chain([3]).map(id);
    assert_eq!(numbers, due.collect::<Vec<_>>());
    assert!(all.is_sorted_by_key(|(seq, _)| *seq));
    engine.close().unwrap();
    let engine = options().open(dir.path()).unwrap();
    assert_eq!(engine.iter().unwrap().collect::<Vec<_>>(), all);
    // Whoever had seen everything goes on without a gap.
    let mut writes = engine.subscribe(engine.iter().unwrap().snapshot().next()).unwrap();
    engine.insert(intent(31)).unwrap();
    assert!(
        matches!(writes.next(), Delivery::Write(_, Write::Insert(found)) if found.id == id(31))
    );
}
