//! The process that is killed.
//!
//! It reports on standard output. A line goes out in one write(2) of less than `PIPE_BUF` (4,096)
//! bytes, so it arrives whole or not at all, and not mixed with another thread's.

use std::{
    collections::BTreeSet, fmt, fs::File, io::Write, os::fd::AsFd, path::PathBuf, str::FromStr,
    sync::Arc, thread,
};

use tala_core::{IntentStore, TimeRange};
use tala_store::{OpenProgress, StorageEngine};

use super::op::{Kind, Op};
use crate::{
    failure::Failure,
    stress::{Level, content::Id, options, rng::Rng},
};

/// A write of this many bytes or more to a pipe may be torn.
const PIPE_BUF: usize = 4_096;

/// Write to a store with every operation until killed, and report it.
#[derive(clap::Args)]
pub(crate) struct Args {
    dir: PathBuf,
    task: Task,
}

/// What the process is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Task {
    pub(crate) level: Level,
    pub(crate) threads: usize,
    pub(crate) seed: u64,
    pub(crate) round: u64,
    /// Operations of each thread; after them the process closes the store.
    pub(crate) ops_max: u64,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, threads, seed, round, ops_max } = self;
        write!(f, "{}:{threads}:{seed}:{round}:{ops_max}", level.name())
    }
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is no task");
        let words: Vec<&str> = text.split(':').collect();
        let [level, threads, numbers @ ..] = &words[..] else { return Err(refused()) };
        let numbers: Vec<u64> = numbers.iter().filter_map(|word| word.parse().ok()).collect();
        let [seed, round, ops_max] = numbers[..] else { return Err(refused()) };
        let level = <Level as clap::ValueEnum>::from_str(level, false)?;
        let threads = threads.parse().map_err(|_| refused())?;
        Ok(Self { level, threads, seed, round, ops_max })
    }
}

/// How far the opening of a store has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Start,
    Segments,
    Logs,
    /// The store is settled, and its rows are being linked.
    Index,
}

impl Phase {
    pub(crate) const ALL: [Self; 4] = [Self::Start, Self::Segments, Self::Logs, Self::Index];

    pub(crate) fn line(self) -> &'static str {
        match self {
            Self::Start => "opening",
            Self::Segments => "opening segments",
            Self::Logs => "opening logs",
            Self::Index => "opening index",
        }
    }

    fn of(progress: OpenProgress) -> Self {
        match progress {
            OpenProgress::Segments { .. } => Self::Segments,
            OpenProgress::Logs { .. } => Self::Logs,
            OpenProgress::Index { .. } => Self::Index,
            _ => Self::Start,
        }
    }
}

/// Where the report goes. A copy of standard output without its buffer and its lock.
struct Report(File);

impl Report {
    fn line(&self, line: &str) -> Result<(), Failure> {
        let line = format!("{line}\n");
        debug_assert!(line.len() < PIPE_BUF, "only a shorter write is atomic");
        // When the reader is gone, this process ends.
        Ok((&self.0).write_all(line.as_bytes())?)
    }
}

/// Opens the store, writes to it with all threads, and closes it.
pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    out.flush()?;
    let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
    work(args, &Arc::new(Report(stdout.into())))
}

fn work(args: &Args, report: &Arc<Report>) -> Result<(), Failure> {
    let Task { level, threads, seed, round, ops_max } = args.task;
    report.line(Phase::Start.line())?;
    let progress = Arc::clone(report);
    let engine = options(level, &mut Rng::of(&[seed, round]))
        .on_open_progress(move |done| {
            // Where nobody reads, the next line of this thread's says so.
            let _ = progress.line(Phase::of(done).line());
        })
        .open(&args.dir)?;
    report.line("opened")?;
    let everything = engine.query_temporal(TimeRange { start: 0, end: u64::MAX })?;
    let ids: BTreeSet<Id> = everything.iter().filter_map(|intent| Id::of(intent.id)).collect();
    drop(everything);
    thread::scope(|scope| {
        let start = |thread| {
            let known = ids.iter().copied().filter(|id| id.thread() == thread).collect();
            let rng = Rng::of(&[seed, round, thread as u64]);
            let mut writer = Writer { thread, round, ops_count: 0, ids_count: 0, known, rng };
            let (engine, report) = (&engine, &**report);
            scope.spawn(move || writer.run(engine, report, ops_max))
        };
        let writers: Vec<_> = (0..threads).map(start).collect();
        writers.into_iter().try_for_each(|writer| {
            writer.join().unwrap_or_else(|_| Err(Failure::Other("a caller panicked".to_owned())))
        })
    })?;
    report.line("closing")?;
    engine.close()?;
    report.line("closed")
}

/// One thread's part.
struct Writer {
    thread: usize,
    round: u64,
    /// Versions given so far.
    ops_count: u64,
    /// New ids made so far.
    ids_count: u64,
    /// Ids of this thread that exist or have existed.
    known: Vec<Id>,
    rng: Rng,
}

impl Writer {
    fn run(&mut self, engine: &StorageEngine, report: &Report, ops: u64) -> Result<(), Failure> {
        for _ in 0..ops {
            let op = self.next_op();
            report.line(&format!("intend {} {op}", self.thread))?;
            match op.call(engine, self.thread) {
                Ok(answer) => report.line(&format!("answer {} {answer}", self.thread))?,
                Err(error) => {
                    // No line that the reader knows: it ends this process.
                    report.line(&format!("failed {} {op}: {error}", self.thread))?;
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    fn next_op(&mut self) -> Op {
        let (kind, ids) = match self.rng.below(100) {
            0..26 => (Kind::Insert, vec![self.new_id()]),
            26..36 => (Kind::Insert, vec![self.known_id()]),
            36..42 => (Kind::TryInsert, vec![self.new_or_known_id()]),
            42..48 => (Kind::Async, vec![self.new_or_known_id()]),
            48..51 => (Kind::Dropped, vec![self.new_or_known_id()]),
            51..64 => (Kind::Outcome, vec![self.known_id()]),
            64..73 => (Kind::Remove, vec![self.known_id()]),
            73..84 => {
                // Now and then longer than what is published at once, and than the hot buffer.
                let is_long = self.rng.one_in(8);
                let len = if is_long { 70 } else { 2 } + self.rng.below(8);
                (Kind::Batch, (0..len).map(|_| self.new_or_known_id()).collect())
            }
            84..85 => (Kind::Flush, vec![]),
            85..87 => (Kind::Sync, vec![]),
            87..96 => (Kind::Get, vec![self.known_id()]),
            96..98 => (Kind::Range, vec![]),
            _ => (Kind::Search, vec![]),
        };
        let kind = if self.rng.one_in(3) { kind.by_another_door() } else { kind };
        // Rounds do not share versions either.
        let version = self.round << 32 | self.ops_count;
        self.ops_count += ids.len().max(1) as u64;
        Op { kind, version, ids }
    }

    fn new_id(&mut self) -> Id {
        // The round keeps them apart from those of the rounds before, whatever became of these.
        let id = Id::new(self.thread, self.round << 24 | self.ids_count);
        self.ids_count += 1;
        self.known.push(id);
        id
    }

    fn known_id(&mut self) -> Id {
        if self.known.is_empty() { self.new_id() } else { self.rng.pick(&self.known) }
    }

    fn new_or_known_id(&mut self) -> Id {
        if self.rng.one_in(2) { self.new_id() } else { self.known_id() }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read};

    use super::*;
    use crate::stress::crash::{
        check::check,
        model::{Event, Model},
    };

    #[test]
    fn a_task_is_read_as_written() {
        let task = Task { level: Level::Os, threads: 8, seed: 1, round: 2, ops_max: u64::MAX };
        assert_eq!(task.to_string().parse(), Ok(task));
        for text in ["", "os", "os:8:1:2", "os:8:1:2:3:4", "fast:8:1:2:3", "os:x:1:2:3"] {
            assert!(text.parse::<Task>().is_err(), "{text}");
        }
    }

    /// The work of the process, done to its end by this one.
    #[test]
    fn the_work_is_all_there_when_nobody_kills_it() {
        let dir = tempfile::tempdir().unwrap();
        let (store, report) = (dir.path().join("store"), dir.path().join("report"));
        let task = Task { level: Level::Os, threads: 3, seed: 5, round: 0, ops_max: 120 };
        let lines =
            Arc::new(Report(File::options().append(true).create(true).open(&report).unwrap()));
        work(&Args { dir: store.clone(), task }, &lines).unwrap();

        let mut model = Model::new(3);
        let mut text = String::new();
        File::open(&report).unwrap().read_to_string(&mut text).unwrap();
        let events: Vec<Event> = text.lines().map(|line| model.hear(line).unwrap()).collect();
        let count = |event| events.iter().filter(|heard| **heard == event).count();
        assert_eq!(count(Event::Intended), 360);
        assert_eq!(count(Event::Acknowledged) + count(Event::Answered), 360);
        assert_eq!(events.last(), Some(&Event::Closed));

        let rng = &mut Rng::of(&[5]);
        let engine = options(Level::Os, rng).open(&store).unwrap();
        assert!(engine.recovery().was_clean);
        let checked = check(&engine, &mut model, rng).unwrap();
        assert_eq!(checked.faults.count(), 0, "{:?}", checked.faults);
        assert_eq!(checked.equal as usize, model.intents.len());
        assert!(checked.equal > 100 && fs::read_dir(store).unwrap().count() > 3);
    }
}
