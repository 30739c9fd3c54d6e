//! The process that is killed.
//!
//! It reports on standard error, which the test runner leaves alone. A line goes out in one
//! write(2) of less than `PIPE_BUF` (4,096) bytes, so it arrives whole or not at all, and not mixed
//! with another thread's. Whatever else arrives there, such as a panic, is no line of the report.

use std::{env, io::Write, path::Path, path::PathBuf, thread};

use tala_core::{IntentStore, TimeRange};
use tala_store::{OpenProgress, StorageEngine};

use super::{
    Level, THREADS,
    op::{Id, Kind, Op},
    options,
    rng::Rng,
};

/// Set in the environment of a child: the directory of the store.
pub const DIR_VARIABLE: &str = "TALA_KILL_CHILD_DIR";
/// Set in the environment of a child: its [`Task`].
pub const TASK_VARIABLE: &str = "TALA_KILL_CHILD_TASK";

/// What a child is to do.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub level: Level,
    pub seed: u64,
    pub round: u64,
    /// Operations of each thread; after them the child closes the store.
    pub ops_max: u64,
}

impl Task {
    pub fn to_text(self) -> String {
        format!("{} {} {} {}", self.level.name(), self.seed, self.round, self.ops_max)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let level = Level::from_name(words.next()?)?;
        let mut numbers = words.map(|word| word.parse().ok());
        let (seed, round) = (numbers.next()??, numbers.next()??);
        Some(Self { level, seed, round, ops_max: numbers.next()?? })
    }
}

/// What the environment asks this process to do; `None` where it is not a child.
pub fn task_of_environment() -> Option<(PathBuf, Task)> {
    let dir = env::var_os(DIR_VARIABLE)?;
    let task = env::var(TASK_VARIABLE).expect("a child has a task");
    Some((dir.into(), Task::parse(&task).expect("a task is what `to_text` wrote")))
}

/// What a child that opens the store is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Start,
    Segments,
    Logs,
    /// The store is settled, and its rows are being linked.
    Index,
}

impl Phase {
    pub const ALL: [Self; 4] = [Self::Start, Self::Segments, Self::Logs, Self::Index];

    pub fn line(self) -> &'static str {
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

/// Reports to the process that started this one. When that one is gone, this one ends.
pub fn report_to_parent(line: &str) {
    let line = format!("{line}\n");
    assert!(line.len() < 4_096, "only a write below PIPE_BUF is atomic");
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("the harness reads until the child is dead");
}

/// Opens the store in `dir`, writes to it with all threads, and closes it.
pub fn work(dir: &Path, task: Task, report: impl Fn(&str) + Clone + Send + Sync + 'static) {
    let Task { level, seed, round, ops_max } = task;
    report(Phase::Start.line());
    let progress = report.clone();
    let engine = options(level, &mut Rng::of(&[seed, round]))
        .on_open_progress(move |done| progress(Phase::of(done).line()))
        .open(dir)
        .expect("a store that was killed opens");
    report("opened");
    let everything = engine.query_temporal(TimeRange { start: 0, end: u64::MAX }).unwrap();
    let mut ids: Vec<Id> = everything.iter().filter_map(|intent| Id::of(intent.id)).collect();
    ids.sort();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let known = ids.iter().copied().filter(|id| id.thread() == thread).collect();
            let rng = Rng::of(&[seed, round, thread as u64]);
            let mut writer = Writer { thread, round, ops_count: 0, ids_count: 0, known, rng };
            let (engine, report) = (&engine, &report);
            scope.spawn(move || {
                for _ in 0..ops_max {
                    writer.step(engine, report);
                }
            });
        }
    });
    report("closing");
    engine.close().unwrap();
    report("closed");
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
    fn step(&mut self, engine: &StorageEngine, report: &impl Fn(&str)) {
        let op = self.next_op();
        report(&format!("intend {} {op}", self.thread));
        let answer = op.call(engine).expect("a healthy engine takes writes");
        report(&format!("answer {} {}", self.thread, answer.name()));
    }

    fn next_op(&mut self) -> Op {
        let (kind, ids) = match self.rng.below(100) {
            0..50 => (Kind::Insert, vec![self.new_id()]),
            50..62 => (Kind::Insert, vec![self.known_id()]),
            62..78 => (Kind::Outcome, vec![self.known_id()]),
            78..86 => (Kind::Remove, vec![self.known_id()]),
            _ => {
                // Now and then longer than what is published at once, and than the hot buffer.
                let is_long = self.rng.one_in(8);
                let len = if is_long { 70 } else { 2 } + self.rng.below(8);
                (Kind::Batch, (0..len).map(|_| self.new_or_known_id()).collect())
            }
        };
        // Rounds do not share versions either.
        let version = self.round << 32 | self.ops_count;
        self.ops_count += ids.len() as u64;
        Op { kind, version, ids }
    }

    fn new_id(&mut self) -> Id {
        // The round keeps them apart from those of the rounds before, whatever became of these.
        let id = Id::new(self.thread, self.round << 18 | self.ids_count);
        self.ids_count += 1;
        assert!(self.ids_count < 1 << 18, "a round does not get that far");
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
