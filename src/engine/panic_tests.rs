//! Panics of the engine's threads where no file is touched: of the index builder around each of its turns,
//! and of the log's writer around each publication, between the sync and the answers. Whoever waits is
//! answered with the cause, later writes are refused, reads go on, `close` and `Drop` end, and what was
//! acknowledged is there when the store is opened again.
//!
//! Panics at what threads ask of a disk are in `tests/files/a_panic_is_told_to_everyone_who_waits.rs`.

use std::{
    collections::BTreeSet,
    panic::resume_unwind,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use tala_core::{Intent, IntentId, IntentStore, StopCause, TalaError, TimeRange};
use tempfile::TempDir;

use super::{Query, StorageEngine, open::Fitting, publish::Publisher};
use crate::{
    actor::{Actor, Flow},
    ids::SeqNo,
    index::IndexActor,
    options::EngineOptions,
    sync::{Inbox, Patience, Reply, block_on},
    wal::{CommitSink, Cut, Staged},
};

const BUILDER: &str = "tala-hnsw";
const WRITER: &str = "tala-wal";

/// Who inserts: two threads and a task.
const CALLERS: u64 = 3;
const TASK: u64 = 2;
/// How many intents each of them inserts.
const EACH: u64 = 3;

/// After so long somebody waits for ever.
const FOR_EVER: Duration = Duration::from_secs(60);

fn options() -> EngineOptions {
    // So few rows may wait that inserts do, and each row is a batch of its own. Searches walk.
    let options = StorageEngine::options(2).m(2).index_lag_max(2).exact_below(0).ef_search(1);
    options.hot_capacity(4).histograms(false)
}

fn id(number: u64) -> IntentId {
    IntentId::from_bytes(u128::from(number).to_be_bytes())
}

/// The `number`-th intent; its time is its number.
fn intent(number: u64) -> Intent {
    Intent {
        id: id(number),
        timestamp: number,
        raw_command: format!("command {number}"),
        embedding: vec![1.0, number as f32],
        context_hash: number,
        parent_ids: Vec::new(),
        outcome: None,
        confidence: 1.0,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moment {
    /// Before a turn.
    Before,
    /// With the turn done.
    After,
}

/// Where a thread panics.
#[derive(Clone)]
struct Trap {
    /// At which of its turns.
    at: usize,
    moment: Moment,
    turns: Arc<AtomicUsize>,
    has_sprung: Arc<AtomicBool>,
}

impl Trap {
    fn new(at: usize, moment: Moment) -> Self {
        Self { at, moment, turns: Arc::default(), has_sprung: Arc::default() }
    }

    fn around<R>(&self, turn: impl FnOnce() -> R) -> R {
        let is_due = self.turns.fetch_add(1, SeqCst) == self.at;
        if is_due && self.moment == Moment::Before {
            self.spring();
        }
        let done = turn();
        if is_due {
            self.spring();
        }
        done
    }

    fn spring(&self) -> ! {
        self.has_sprung.store(true, SeqCst);
        panic!("on purpose");
    }

    fn has_sprung(&self) -> bool {
        self.has_sprung.load(SeqCst)
    }
}

/// A builder or a sink in a trap.
struct Trapped<T> {
    inner: T,
    trap: Trap,
}

impl<A: Actor> Actor for Trapped<A> {
    const NAME: &'static str = A::NAME;
    type Letter = A::Letter;

    fn step(&mut self, letter: A::Letter, inbox: &Inbox<A::Letter>) -> Result<Flow, StopCause> {
        self.trap.around(|| self.inner.step(letter, inbox))
    }

    fn patience(&self) -> Patience {
        self.inner.patience()
    }

    fn work(&mut self) -> Result<(), StopCause> {
        self.trap.around(|| self.inner.work())
    }

    fn finish(&mut self) -> Result<(), StopCause> {
        self.trap.around(|| self.inner.finish())
    }
}

impl<S: CommitSink> CommitSink for Trapped<S> {
    fn contains(&self, id: &IntentId) -> bool {
        self.inner.contains(id)
    }

    fn publish(&mut self, staged: &mut Vec<Staged>) -> Result<(), StopCause> {
        self.trap.around(|| self.inner.publish(staged))
    }

    fn is_full(&self) -> bool {
        self.inner.is_full()
    }

    fn says_nothing(&self) -> bool {
        self.inner.says_nothing()
    }

    fn seal(&mut self, cut: Cut, reply: Option<Reply<()>>) {
        self.trap.around(|| self.inner.seal(cut, reply));
    }

    fn after_seals(&mut self, reply: Reply<()>) {
        self.trap.around(|| self.inner.after_seals(reply));
    }

    fn log_closed(&mut self, last_seq: SeqNo) {
        self.trap.around(|| self.inner.log_closed(last_seq));
    }

    fn discard(&mut self) {
        self.trap.around(|| self.inner.discard());
    }
}

/// One thread of an engine in a trap.
struct Trapping {
    builder: Trap,
    sink: Trap,
}

impl Trapping {
    fn new(actor: &str, trap: &Trap) -> Self {
        let never = Trap::new(usize::MAX, Moment::Before);
        match actor {
            BUILDER => Self { builder: trap.clone(), sink: never },
            WRITER => Self { builder: never, sink: trap.clone() },
            other => panic!("no trap for {other}"),
        }
    }
}

impl Fitting for Trapping {
    type Builder = Trapped<IndexActor>;
    type Sink = Trapped<Publisher>;

    fn builder(&self, builder: IndexActor) -> Self::Builder {
        Trapped { inner: builder, trap: self.builder.clone() }
    }

    fn sink(&self, publisher: Publisher) -> Self::Sink {
        Trapped { inner: publisher, trap: self.sink.clone() }
    }
}

/// A panic of one thread, and what becomes of the engine.
#[derive(Clone, Copy, Debug)]
struct Case {
    actor: &'static str,
    at: usize,
    moment: Moment,
    is_on_disk: bool,
    /// Whether the engine is closed before it is dropped.
    closes: bool,
}

/// Runs `case` on a thread that is left behind where it waits for ever.
fn in_time<R: Send + 'static>(case: Case, run: impl FnOnce(Case) -> R + Send + 'static) -> R {
    let (ended, end) = mpsc::channel::<()>();
    let running = thread::spawn(move || {
        let _ended = ended;
        run(case)
    });
    let is_late = matches!(end.recv_timeout(FOR_EVER), Err(RecvTimeoutError::Timeout));
    assert!(!is_late, "somebody waits for ever: {case:?}");
    running.join().unwrap_or_else(|failure| resume_unwind(failure))
}

/// The error says whose panic it was, and what the panic said.
fn check_cause(error: &TalaError, actor: &str) {
    let TalaError::Stopped { actor: named, cause } = error else { panic!("not a stop: {error}") };
    assert_eq!(*named, actor, "{error}");
    assert!(
        matches!(&**cause, StopCause::Panicked(said) if said == "on purpose"),
        "the cause is not told: {error}"
    );
}

/// Inserts until it is refused; what was acknowledged.
fn insert(engine: &StorageEngine, caller: u64, actor: &str) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for number in caller * EACH..(caller + 1) * EACH {
        let answer = if caller == TASK {
            block_on(engine.insert_async(intent(number)))
        } else {
            engine.insert(intent(number))
        };
        match answer {
            Ok(_) => acknowledged.push(number),
            Err(error) => {
                check_cause(&error, actor);
                break;
            }
        }
        assert!(engine.get(id(number)).unwrap().is_some(), "acknowledged, but not there");
    }
    acknowledged
}

/// Waits for what others write.
fn wait(engine: &StorageEngine, actor: &str) {
    let wait_as_task = || block_on(engine.wait_indexed_async());
    let answers = [engine.wait_indexed(), wait_as_task(), engine.flush(), engine.wait_indexed()];
    for error in answers.into_iter().filter_map(Result::err) {
        check_cause(&error, actor);
    }
}

/// Whatever asks for a write, or for a thread to do something, is refused at once.
fn check_refusals(engine: &StorageEngine, actor: &str) {
    let refused = 1_000;
    let answers = [
        engine.insert(intent(refused)).map(drop),
        engine.try_insert(intent(refused)).map(drop),
        engine.insert_batch(vec![intent(refused)]).map(drop),
        block_on(engine.insert_async(intent(refused))).map(drop),
        engine.remove(id(0)).map(drop),
        engine.flush(),
        engine.sync(),
        engine.wait_indexed(),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let Err(error) = answer else { panic!("call {number} after a panic is let in") };
        check_cause(&error, actor);
    }
    assert!(engine.get(id(refused)).unwrap().is_none(), "refused, but there");
}

/// Every way to read finds what was acknowledged, and only whole intents.
fn check_reads(engine: &StorageEngine, acknowledged: &BTreeSet<u64>) {
    let is_all = |found: BTreeSet<u64>| found.is_superset(acknowledged);
    for number in acknowledged {
        assert_eq!(engine.get(id(*number)).unwrap(), Some(intent(*number)));
    }
    let range = engine.query_temporal(TimeRange { start: 0, end: u64::MAX }).unwrap();
    range.iter().for_each(|found| assert_eq!(*found, intent(found.timestamp)));
    assert!(is_all(range.iter().map(|found| found.timestamp).collect()), "{range:?}");
    let number_of = |id: IntentId| engine.get(id).unwrap().unwrap().timestamp;
    let scanned = engine.search(Query::new(&[1.0, 1.0], 100).exact()).unwrap();
    assert!(is_all(scanned.iter().map(|hit| number_of(hit.0)).collect()), "{scanned:?}");
    let walked = engine.query_semantic(&[1.0, 1.0], 1).unwrap();
    assert!(!walked.is_empty() || acknowledged.is_empty());
}

/// Has a thread panic; whether it came so far, and how many intents are found again that nobody was told
/// are there.
fn run(case: Case) -> Option<usize> {
    let Case { actor, at, moment, is_on_disk, closes } = case;
    let trap = Trap::new(at, moment);
    let dir = TempDir::new().unwrap();
    let engine = if is_on_disk {
        StorageEngine::open_with(options(), dir.path(), &Trapping::new(actor, &trap)).unwrap()
    } else {
        StorageEngine::in_memory_with(options(), &Trapping::new(actor, &trap)).unwrap()
    };
    let acknowledged: BTreeSet<u64> = thread::scope(|scope| {
        let engine = &engine;
        scope.spawn(move || wait(engine, actor));
        let callers: Vec<_> =
            (0..CALLERS).map(|caller| scope.spawn(move || insert(engine, caller, actor))).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    // From here on every row has been linked, or somebody has panicked and is telling it.
    if engine.wait_indexed().is_err() || trap.has_sprung() {
        check_cause(&engine.inner().unwrap().fate.cause(), actor);
        check_refusals(&engine, actor);
    } else {
        assert_eq!(acknowledged.len() as u64, CALLERS * EACH, "refused without a reason");
    }
    check_reads(&engine, &acknowledged);
    if closes {
        let closed = engine.close();
        assert_eq!(closed.is_err(), trap.has_sprung(), "{case:?}: {closed:?}");
        if let Err(error) = closed {
            check_cause(&error, actor);
        }
        engine.close().unwrap();
    }
    drop(engine);
    let mut untold = 0;
    if is_on_disk {
        let engine = options().open(dir.path()).unwrap();
        check_reads(&engine, &acknowledged);
        untold = engine.len() - acknowledged.len();
        engine.insert(intent(2_000)).unwrap();
        engine.close().unwrap();
    }
    trap.has_sprung().then_some(untold)
}

/// Every panic at turn number `at`.
fn cases(actor: &'static str, at: usize) -> impl Iterator<Item = Case> {
    [Moment::Before, Moment::After].into_iter().flat_map(move |moment| {
        let ends = [(true, true), (true, false), (false, true), (false, false)];
        ends.map(|(is_on_disk, closes)| Case { actor, at, moment, is_on_disk, closes })
    })
}

/// Has `actor` panic everywhere; how many turns it takes, and how many intents were found again that
/// nobody had been told are there.
fn panic_everywhere(actor: &'static str) -> (usize, usize) {
    let mut untold = 0;
    let turns = (0..)
        .take_while(|at| {
            cases(actor, *at).all(|case| {
                let found = in_time(case, run);
                untold += found.unwrap_or(0);
                found.is_some()
            })
        })
        .count();
    println!("{actor}: {turns} turns, {untold} intents there that were not acknowledged");
    (turns, untold)
}

#[test]
fn at_every_turn_of_the_builder() {
    // Each row is linked in a turn of its own, and whoever waits for it takes one.
    let (turns, _) = panic_everywhere(BUILDER);
    assert!(turns as u64 > CALLERS * EACH, "{turns} turns");
}

#[test]
fn at_every_publication_of_the_writer_of_the_log() {
    // A caller's next intent comes after its last one was published, and a flush after the first.
    let (turns, untold) = panic_everywhere(WRITER);
    assert!(turns as u64 > EACH, "{turns} turns");
    assert!(untold > 0, "no panic came between a sync and its answers");
}

/// Opens the store in `dir` while its builder panics, and closes it; whether the builder came so far.
fn open_and_close(case: Case, dir: &Path) -> bool {
    let trap = Trap::new(case.at, case.moment);
    let opened = StorageEngine::open_with(options(), dir, &Trapping::new(case.actor, &trap));
    let ended = opened.and_then(|engine| engine.close());
    assert_eq!(ended.is_err(), trap.has_sprung(), "{case:?}: {ended:?}");
    ended.inspect_err(|error| check_cause(error, case.actor)).is_err()
}

#[test]
fn at_every_turn_of_the_builder_while_a_store_is_opened() {
    let written: BTreeSet<u64> = (0..CALLERS * EACH).collect();
    let dir = TempDir::new().unwrap();
    let open = || options().open(dir.path()).unwrap();
    let engine = open();
    for number in &written {
        engine.insert(intent(*number)).unwrap();
    }
    engine.close().unwrap();
    let turns = (0..)
        .take_while(|at| {
            cases(BUILDER, *at).filter(|case| case.is_on_disk && case.closes).all(|case| {
                let path = dir.path().to_owned();
                let has_panicked = in_time(case, move |case| open_and_close(case, &path));
                check_reads(&open(), &written);
                has_panicked
            })
        })
        .count();
    println!("{BUILDER}: {turns} turns of an opening");
    assert!(turns > written.len(), "{turns} turns");
}
