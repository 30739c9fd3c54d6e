//! What do readers feel of writers beside them?
//!
//! - `beside an ingest`: four readers search and look up at full speed while two threads insert at full
//!   speed; and, turn by turn, beside threads that do not touch the engine and burn as much processor
//!   time as each thread of the ingest took. The goal is a p99 at most 1.5 times as long.
//! - `beside a builder`: one reader on a processor of its own while rows are linked on another one, in its
//!   own engine; alone; and while rows are linked in an engine that it never looks at, which tells what
//!   comes of two processors that share their memory. The goal is a p99 at most 1.3 times that alone.
//! - `locks`: how long the locks were waited for in all of the first, from the engine's own histograms,
//!   writers included. The goal is a p99.9 of at most 1 ms for those that readers take.
//!
//! The engine is in memory, so that the disk plays no part, and lets the index lag behind by
//! [`LAG_MAX`] rows: each search scans what is not linked, and scanning more of it is work, not waiting.
//! Linux only: it reads what threads took from `/proc`. A plain program without criterion, since it is
//! quantiles that are asked for; goals are told and not enforced, as they mean little on a machine that
//! does something else as well.

mod common;

#[cfg(target_os = "linux")]
mod measure {
    use std::{
        fs,
        hint::spin_loop,
        sync::atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
        thread,
        time::{Duration, Instant},
    };

    use hdrhistogram::Histogram;
    use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
    use tala_core::IntentStore;
    use tala_store::{Query, StorageEngine, Timing};

    use super::common::{Clusters, DIM, Random, id_of, indexed, intent, intents, sized};

    const READERS: usize = 4;
    const WRITERS: usize = 2;
    const NEIGHBORS: usize = 10;
    /// Rows that may wait to be linked: an ingest at full speed is as fast as they are linked then.
    const LAG_MAX: usize = 1_000;

    /// The locks that readers take.
    const LOCK_WAITS: [(&str, Timing); 2] =
        [("intents_lock", Timing::IntentsLockWait), ("index_map_lock", Timing::IndexMapLockWait)];

    /// What readers took.
    struct Times {
        search: Histogram<u64>,
        look_up: Histogram<u64>,
    }

    impl Times {
        fn new() -> Self {
            let empty = || Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
            Self { search: empty(), look_up: empty() }
        }

        fn add(&mut self, other: &Self) {
            self.search.add(&other.search).unwrap();
            self.look_up.add(&other.look_up).unwrap();
        }

        fn tell(&self, name: &str) {
            for (what, times) in [("search", &self.search), ("look-up", &self.look_up)] {
                let us = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
                println!(
                    "  {name:<22} {what:<8} p50 {:>8.1} us  p99 {:>8.1}  p99.9 {:>8.1}  max {:>8.1}  of {}",
                    us(0.5),
                    us(0.99),
                    us(0.999),
                    times.max() as f64 / 1e3,
                    times.len(),
                );
            }
        }

        /// How much longer p99 is than that of `other`.
        fn tell_ratio(&self, other: &Self, name: &str, goal: f64) {
            for (what, ours, theirs) in [
                ("search", &self.search, &other.search),
                ("look-up", &self.look_up, &other.look_up),
            ] {
                let p99 = |times: &Histogram<u64>| times.value_at_quantile(0.99) as f64;
                let ratio = p99(ours) / p99(theirs);
                let verdict = if ratio <= goal { "kept" } else { "missed" };
                println!("  p99 of a {what}: {ratio:.2} times {name}; at most {goal}: {verdict}");
            }
        }
    }

    /// Nanoseconds of processor time that a thread took.
    fn taken_ns(task: &str) -> u64 {
        let text = fs::read_to_string(format!("{task}/schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
    }

    /// The engine's threads.
    fn engine_tasks() -> Vec<String> {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let paths = tasks.map(|task| task.unwrap().path().display().to_string());
        paths
            .filter(|path| {
                let name = fs::read_to_string(format!("{path}/comm")).unwrap_or_default();
                ["tala-wal\n", "tala-hnsw\n"].contains(&name.as_str())
            })
            .collect()
    }

    fn engine_ns() -> Vec<u64> {
        engine_tasks().iter().map(|task| taken_ns(task)).collect()
    }

    const SELF: &str = "/proc/thread-self";

    fn read(engine: &StorageEngine, rows: usize, seed: u64, end: &AtomicBool) -> Times {
        let (mut times, mut random) = (Times::new(), Random(seed));
        let mut clusters = Clusters::new(seed);
        while !end.load(Relaxed) {
            let point = clusters.point();
            let since = Instant::now();
            let found = engine.search(Query::new(&point, NEIGHBORS)).unwrap();
            times.search.saturating_record(since.elapsed().as_nanos() as u64);
            assert_eq!(found.len(), NEIGHBORS);
            let id = id_of(random.below(rows));
            let since = Instant::now();
            let got = engine.get(id).unwrap();
            times.look_up.saturating_record(since.elapsed().as_nanos() as u64);
            assert!(got.is_some());
        }
        times
    }

    /// Inserts until the end; the processor time that it took on this thread.
    fn ingest(engine: &StorageEngine, next: &AtomicUsize, end: &AtomicBool) -> u64 {
        let mut clusters = Clusters::new(taken_ns(SELF) | 1);
        while !end.load(Relaxed) {
            engine.insert(intent(next.fetch_add(1, SeqCst), clusters.point())).unwrap();
        }
        taken_ns(SELF)
    }

    /// Takes `share` of a processor until the end, as far as it is given one.
    fn burn(share: f64, end: &AtomicBool) {
        let since = Instant::now();
        while !end.load(Relaxed) {
            let wanted_ns = share * since.elapsed().as_nanos() as f64;
            if (taken_ns(SELF) as f64) < wanted_ns {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_micros(200) {
                    spin_loop();
                }
            } else {
                thread::park_timeout(Duration::from_micros(100));
            }
        }
    }

    /// What a thread beside the readers does until it is told to end.
    type Other<'a> = Box<dyn FnOnce(&AtomicBool) + Send + 'a>;

    /// Returns when so much time has passed, whoever wakes this thread before.
    fn wait(length: Duration) {
        let since = Instant::now();
        while let Some(left) = length.checked_sub(since.elapsed()) {
            thread::park_timeout(left);
        }
    }

    /// Has readers read for so long, and `others` do something beside them.
    fn beside(
        engine: &StorageEngine,
        rows: usize,
        length: Duration,
        others: Vec<Other<'_>>,
    ) -> Times {
        let end = AtomicBool::new(false);
        let mut all = Times::new();
        thread::scope(|scope| {
            let end = &end;
            let others: Vec<_> =
                others.into_iter().map(|other| scope.spawn(move || other(end))).collect();
            let readers: Vec<_> = (0..READERS)
                .map(|reader| scope.spawn(move || read(engine, rows, reader as u64 + 1, end)))
                .collect();
            wait(length);
            end.store(true, SeqCst);
            readers.into_iter().for_each(|reader| all.add(&reader.join().unwrap()));
            others.into_iter().for_each(|other| other.join().unwrap());
        });
        all
    }

    fn beside_an_ingest(length: Duration, turns: usize) {
        let rows = sized(20_000, 500);
        let options = StorageEngine::options(DIM).index_threads(1).index_lag_max(LAG_MAX);
        let engine = indexed(options, intents(rows));
        let next = AtomicUsize::new(rows);
        let mut waits = LOCK_WAITS.map(|_| Times::new().look_up);
        let (mut beside_ingest, mut beside_burning) = (Times::new(), Times::new());
        for turn in 0..turns {
            let writers_ns: [AtomicU64; WRITERS] = Default::default();
            let (since, before_ns) = (Instant::now(), engine_ns());
            let writers = writers_ns.iter().map(|writer_ns| -> Other<'_> {
                Box::new(|end| writer_ns.store(ingest(&engine, &next, end), SeqCst))
            });
            let others = writers.collect();
            let before = engine.histograms().snapshot();
            beside_ingest.add(&beside(&engine, rows, length, others));
            let length_ns = since.elapsed().as_nanos() as f64;
            let engine_ns =
                engine_ns().into_iter().zip(before_ns).map(|(now, before)| now - before);
            let all_ns = engine_ns.chain(writers_ns.iter().map(|writer_ns| writer_ns.load(SeqCst)));
            let shares: Vec<_> = all_ns.map(|ns| ns as f64 / length_ns).collect();
            let recorded = engine.histograms().snapshot().since(&before);
            for ((_, timing), waits) in LOCK_WAITS.iter().zip(&mut waits) {
                waits.add(recorded.get(*timing)).unwrap();
            }
            // What is left to link is no part of the next turn.
            engine.wait_indexed().unwrap();
            let burners =
                shares.iter().map(|share| -> Other<'_> { Box::new(|end| burn(*share, end)) });
            let others = burners.collect();
            beside_burning.add(&beside(&engine, rows, length, others));
            println!(
                "  turn {turn}: {} rows; the ingest took {:.2} processors",
                next.load(SeqCst),
                shares.iter().sum::<f64>()
            );
        }
        beside_ingest.tell("beside an ingest");
        beside_burning.tell("beside burning threads");
        beside_ingest.tell_ratio(&beside_burning, "beside burning threads", 1.5);
        println!("locks");
        for ((name, _), waits) in LOCK_WAITS.iter().zip(waits) {
            let us = |quantile| waits.value_at_quantile(quantile) as f64 / 1e3;
            let verdict = if us(0.999) <= 1e3 { "kept" } else { "missed" };
            println!(
                "  {name}: p99 {:.1} us, p99.9 {:.1}, longest {:.1} of {} waits; p99.9 at most 1,000: {verdict}",
                us(0.99),
                us(0.999),
                waits.max() as f64 / 1e3,
                waits.len(),
            );
        }
    }

    fn pin(thread: Option<Pid>, processor: usize) {
        let mut set = CpuSet::new();
        set.set(processor);
        sched_setaffinity(thread, &set).unwrap();
    }

    /// One reader on `processor`, while `other` does something on another one.
    fn read_pinned(
        engine: &StorageEngine,
        rows: usize,
        processor: usize,
        length: Duration,
        other: impl FnOnce(&AtomicBool) + Send,
    ) -> Times {
        let end = &AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(move || {
                pin(None, processor);
                read(engine, rows, 1, end)
            });
            let other = scope.spawn(move || other(end));
            wait(length);
            end.store(true, SeqCst);
            other.join().unwrap();
            reader.join().unwrap()
        })
    }

    fn beside_a_builder(length: Duration, turns: usize) {
        let ours = sched_getaffinity(None).unwrap();
        let mut processors = (0..CpuSet::MAX_CPU).filter(|number| ours.is_set(*number));
        let (Some(first), Some(second)) = (processors.next(), processors.next()) else {
            println!("  there is only one processor");
            return;
        };
        let rows = sized(20_000, 500);
        // The reader never looks at the other one: what it feels of that one's builder, it feels by what
        // any two programs on this machine share.
        let [engine, elsewhere] =
            [(); 2].map(|()| indexed(StorageEngine::options(DIM).index_threads(1), intents(rows)));
        for task in engine_tasks() {
            let number = task.rsplit('/').next().and_then(|number| number.parse().ok());
            pin(number.and_then(Pid::from_raw), second);
        }
        let next = AtomicUsize::new(rows);
        let feed = |engine: &StorageEngine, end: &AtomicBool| {
            pin(None, second);
            let mut clusters = Clusters::new(3);
            while !end.load(Relaxed) {
                let more = (0..64).map(|_| intent(next.fetch_add(1, SeqCst), clusters.point()));
                engine.insert_batch(more.collect()).unwrap();
                engine.wait_indexed().unwrap();
            }
        };
        let [mut alone, mut beside, mut apart] = [(); 3].map(|()| Times::new());
        for _ in 0..turns {
            let read = |other: &(dyn Fn(&AtomicBool) + Sync)| {
                read_pinned(&engine, rows, first, length, other)
            };
            alone.add(&read(&|_| ()));
            beside.add(&read(&|end| feed(&engine, end)));
            apart.add(&read(&|end| feed(&elsewhere, end)));
        }
        println!("  {} rows were linked beside the reader", next.load(SeqCst) - rows);
        alone.tell("alone");
        beside.tell("beside its builder");
        apart.tell("beside another's");
        beside.tell_ratio(&alone, "alone", 1.3);
        apart.tell_ratio(&alone, "alone", 1.3);
        beside.tell_ratio(&apart, "beside another's", 1.3);
    }

    /// All of it.
    pub fn run() {
        let length = sized(Duration::from_secs(10), Duration::from_millis(200));
        let turns = sized(3, 1);
        println!("beside an ingest");
        beside_an_ingest(length, turns);
        println!("beside a builder");
        beside_a_builder(length, turns);
    }
}

fn main() {
    #[cfg(target_os = "linux")]
    measure::run();
}
