//! Threads that write and read the same few intents, and the proof that what each saw can be
//! explained by one order of events.
//!
//! The run is a chain of *episodes* on one store. In each the store is opened, all threads work on it
//! for some seconds, everything is looked up, the store is closed and opened again, and everything
//! is looked up once more. Then the calls of every intent are checked as one history
//! ([`history`]), and all calls against a sequential model that was given all writes by their sequence
//! numbers ([`order`]), so that the last look-ups prove what is on disk. What they saw is what the next
//! episode begins with.

mod history;
mod latency;
mod order;
mod worker;

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use tala_store::{StorageEngine, verify};

use self::{
    history::{Call, Clock, Value, check},
    latency::{Latencies, Line},
    order::Order,
    worker::{EPISODE, Shared, Worker, ids},
};
use super::{Level, options, rng::Rng};
use crate::{failure::Failure, json, render};

/// An episode ends after so many calls, whatever the time: its memory is bounded by it.
const CALLS_OF_AN_EPISODE: u64 = 200_000;
/// The slot of whoever looks everything up while no thread works. Threads are below it.
const READER: usize = 63;

/// How often engines report their latencies.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) threads: usize,
    pub(crate) levels: Vec<Level>,
    pub(crate) end: Instant,
    /// Where engines report their latencies.
    pub(crate) hlog: Option<PathBuf>,
}

/// What a run came to.
#[derive(Serialize, Debug)]
pub(crate) struct Done {
    seed: u64,
    threads: usize,
    seconds: f64,
    /// In which threads worked; the rest is opening, closing and checking.
    working_seconds: f64,
    episodes: u64,
    calls: u64,
    /// Steps of single intents that were checked.
    steps: u64,
    histories: u64,
    /// Writes that were followed, in the order of their sequence numbers.
    writes: u64,
    operations: Vec<Line>,
}

impl Done {
    pub(crate) fn write(&self, out: &mut dyn Write, as_json: bool) -> io::Result<()> {
        if as_json {
            return json::write_line(out, self);
        }
        latency::table(&self.operations).write(out, render::terminal_width())?;
        writeln!(
            out,
            "\n{} calls of {} threads in {} episodes, {:.0} a second for {:.1} of {:.1} s",
            self.calls,
            self.threads,
            self.episodes,
            self.calls as f64 / self.working_seconds,
            self.working_seconds,
            self.seconds,
        )?;
        writeln!(
            out,
            "{} steps in {} histories of one intent: every one is linearizable, across every reopening",
            self.steps, self.histories,
        )?;
        writeln!(
            out,
            "{} writes by sequence number: every call was told what a model is after some of them",
            self.writes,
        )
    }
}

/// Works and checks until the time is over.
///
/// # Errors
/// A promise was broken, or the engine failed.
pub(crate) fn run(plan: &Plan, dir: &Path) -> Result<Done, Failure> {
    let started = Instant::now();
    let store = dir.join("store");
    let mut done = Done {
        seed: plan.seed,
        threads: plan.threads,
        seconds: 0.0,
        working_seconds: 0.0,
        episodes: 0,
        calls: 0,
        steps: 0,
        histories: 0,
        writes: 0,
        operations: Vec::new(),
    };
    let mut latencies = Latencies::new()?;
    let mut values: BTreeMap<_, Value> = ids().map(|id| (id, None)).collect();
    let mut levels = plan.levels.iter().copied().cycle();
    while done.episodes == 0 || Instant::now() < plan.end {
        let Some(level) = levels.next() else {
            return Err(Failure::Usage("no durability level is named".to_owned()));
        };
        let episode = Episode { plan, number: done.episodes, level, store: &store };
        let order = Order::new(&values);
        let (calls, order, worked) = episode.run(order, &mut latencies)?;
        for (id, calls) in &calls {
            done.steps += calls.len() as u64;
            done.histories += 1;
            let initial = values.get(id).copied().flatten();
            let last = check(*id, initial, calls).map_err(|refused| episode.failed(&refused))?;
            // It ends with a look-up that nothing was beside, so it can be one thing only.
            values.insert(*id, last.first().copied().flatten());
        }
        // After what is wrong with one intent alone, which says more.
        order.check(&calls).map_err(|what| episode.failed(&what))?;
        done.writes += order.len();
        done.working_seconds += worked.as_secs_f64();
        done.episodes += 1;
    }
    let report = verify(&store)?;
    if !report.is_ok() {
        return Err(Failure::Promise(format!("{report}: {:?}", report.damage)));
    }
    done.calls = latencies.count();
    done.operations = latencies.lines(done.working_seconds);
    done.seconds = started.elapsed().as_secs_f64();
    Ok(done)
}

/// What a thread came to.
fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T, Failure>>) -> Result<T, Failure> {
    let panicked = || Err(Failure::Other("a caller panicked".to_owned()));
    thread.join().unwrap_or_else(|_| panicked())
}

type Calls = BTreeMap<super::content::Id, Vec<Call>>;

struct Episode<'a> {
    plan: &'a Plan,
    number: u64,
    level: Level,
    store: &'a Path,
}

/// Closes an engine, so that whoever follows it comes to an end, however this one ends.
struct Closing<'a>(&'a StorageEngine);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        // Where it matters, the engine was closed before, and this says nothing.
        drop(self.0.close());
    }
}

impl Episode<'_> {
    /// All calls by intent, all writes in their order, and how long the threads worked.
    fn run(
        &self,
        order: Order,
        latencies: &mut Latencies,
    ) -> Result<(Calls, Order, Duration), Failure> {
        let clock = Clock::default();
        let engine = self.open(0)?;
        let writes = engine.subscribe(engine.iter()?.snapshot().next())?;
        let (mut calls, order, worked) = thread::scope(|scope| {
            let follower = scope.spawn(|| order.follow(writes).map_err(|what| self.failed(&what)));
            let worked = {
                let _closing = Closing(&engine);
                self.work(&engine, &clock, latencies)
            };
            // What a worker was told is looked at first: it may be why the follower failed.
            let order = join(follower);
            let (calls, worked) = worked?;
            Ok::<_, Failure>((calls, order?, worked))
        })?;
        drop(engine);
        check_threads()?;

        let engine = self.open(1)?;
        let has_failed = AtomicBool::new(false);
        let shared =
            Shared { engine: &engine, clock: &clock, end: Instant::now(), has_failed: &has_failed };
        let mut reader = Worker::new(&shared, READER, self.plan.seed, self.number)?;
        reader.look_everything_up()?;
        append(&mut calls, reader.calls);
        engine.close()?;
        drop(engine);
        check_threads()?;
        Ok((calls, order, worked))
    }

    /// Has all threads work, and closes the engine.
    fn work(
        &self,
        engine: &StorageEngine,
        clock: &Clock,
        latencies: &mut Latencies,
    ) -> Result<(Calls, Duration), Failure> {
        let started = Instant::now();
        let end = self.plan.end.min(started + EPISODE);
        let has_failed = AtomicBool::new(false);
        let shared = Shared { engine, clock, end, has_failed: &has_failed };
        let mut reader = Worker::new(&shared, READER, self.plan.seed, self.number)?;
        if self.number == 0 {
            reader.write_groups()?;
        }
        let calls_max = CALLS_OF_AN_EPISODE / self.plan.threads as u64;
        let workers = thread::scope(|scope| -> Result<Vec<Worker<'_>>, Failure> {
            let mut threads = Vec::new();
            for thread in 0..self.plan.threads {
                let mut worker = Worker::new(&shared, thread, self.plan.seed, self.number)?;
                threads.push(scope.spawn(move || worker.run(calls_max).map(|()| worker)));
            }
            // All are joined before the first failure is told.
            let done: Vec<_> = threads.into_iter().map(join).collect();
            done.into_iter().collect()
        })?;
        let worked = started.elapsed();
        for worker in &workers {
            latencies.add(&worker.latencies)?;
        }
        reader.look_everything_up()?;
        let mut calls = Calls::new();
        let of_workers = workers.into_iter().map(|worker| worker.calls);
        of_workers.chain([reader.calls]).for_each(|more| append(&mut calls, more));
        engine.close()?;
        Ok((calls, worked))
    }

    /// What went wrong, and when.
    fn failed(&self, what: &impl fmt::Display) -> Failure {
        Failure::Promise(format!("level {}, episode {}: {what}", self.level.name(), self.number))
    }

    fn open(&self, time: u64) -> Result<StorageEngine, Failure> {
        let rng = &mut Rng::of(&[self.plan.seed, self.number, time, u64::MAX]);
        // Nothing that is followed goes before it was taken, so that the model has every write.
        let mut options =
            options(self.level, rng).kept_writes_max(usize::MAX).kept_bytes_max(usize::MAX);
        if let Some(path) = &self.plan.hlog {
            options = options.report_histograms(path, REPORT_EVERY);
        }
        Ok(options.open(self.store)?)
    }
}

fn append(calls: &mut Calls, more: Calls) {
    for (id, mut more) in more {
        calls.entry(id).or_default().append(&mut more);
    }
}

/// Whether the engine's threads are gone, once it is closed and dropped.
fn check_threads() -> Result<(), Failure> {
    let tasks = Path::new("/proc/self/task");
    // Threads without a name of their own have that of the process.
    let own = fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let mut alive = Vec::new();
        for task in fs::read_dir(tasks).map_err(|error| Failure::file("list", tasks, error))? {
            // A thread that ends meanwhile has no name any more.
            let name = fs::read_to_string(task?.path().join("comm")).unwrap_or_default();
            if name.starts_with("tala-") && name != own {
                alive.push(name.trim_end().to_owned());
            }
        }
        if alive.is_empty() {
            return Ok(());
        }
        // A thread that was joined can stand in the list for a moment.
        if Instant::now() >= end {
            return Err(Failure::Promise(format!("threads outlive their engine: {alive:?}")));
        }
        thread::yield_now();
    }
}
