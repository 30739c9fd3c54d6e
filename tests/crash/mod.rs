//! What is done to a store on a simulated disk, and what must be found of it after every cut.

// Each test program uses a part of this room.
#![allow(dead_code)]

use std::{
    collections::HashSet,
    io::{self, Write},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, mpsc::sync_channel},
    task::{Context, Waker},
    thread,
    time::{Duration, Instant},
};

use tala_core::{Intent, IntentId, IntentStore, TalaError};
use tala_store::{
    Durability, EngineOptions, StorageEngine,
    rooms::{stay_awake_never, verify_on},
};

use crate::{
    common::{self, DIM, Model, id, outcome},
    simulated::{Event, Kind, Mark, SimDisk, Volume},
};

/// The directory of the store on its disk.
pub const STORE: &str = "/data/store";

/// Choices of what survives a cut, for each place where the power is cut.
const CHOICES: u64 = 32;
/// Numbers of intents that only the check after a crash inserts.
const CHECK: u64 = 900_000;
/// Images that wait to be checked, and threads that check them.
const WAITING: usize = 64;
const CHECKERS: usize = 8;

/// An intent whose time is that of many others, so that their order is told by that of their writes.
fn intent(number: u64) -> Intent {
    Intent { timestamp: 1_000 + number % 4, ..common::intent(number) }
}

/// Another version of it, at another of these times or at the same.
fn version(number: u64, version: u64) -> Intent {
    Intent { timestamp: 1_000 + (number + version) % 4, ..common::version(number, version) }
}

/// Longer than anything here takes: who waits so long waits in vain.
const LONG: Duration = Duration::from_secs(30);

/// Something that a user of a store does, and waits for.
#[derive(Clone, Debug)]
pub enum Step {
    /// Opens it.
    Open,
    Insert(u64),
    /// Begins to insert one, and does not wait for it. The first of several keeps the writer of the log
    /// waiting at its sync, so that all others are written together, as one round.
    Begin(u64),
    /// Waits for all that were begun.
    Await,
    /// Another version of an intent that is there.
    Replace(u64, u64),
    Batch(Range<u64>),
    Outcome(u64),
    Remove(u64),
    Sync,
    Flush,
    /// Waits until the log has been synced without being asked to, as the level `Interval` promises.
    Elapse,
    /// Waits until the log goes on in a file that was prepared for it, and meanwhile gives this intent
    /// the outcome that it has, as often as it takes.
    GoOn(u64),
    /// Closes it in good order.
    Close,
}

impl Step {
    /// What `model` is after this step.
    pub fn apply(&self, model: &mut Model) {
        match self {
            Self::Insert(number) | Self::Begin(number) => model.insert(intent(*number)),
            Self::Replace(number, which) => model.insert(version(*number, *which)),
            Self::Batch(numbers) => numbers.clone().for_each(|number| model.insert(intent(number))),
            Self::Outcome(number) => model.attach(id(*number), outcome(*number)),
            Self::Remove(number) => model.remove(id(*number)),
            Self::Open | Self::Await | Self::Sync | Self::Flush | Self::Elapse | Self::Close => {}
            Self::GoOn(number) => {
                let row = model.rows().iter().find(|row| row.id == id(*number));
                let known = row.and_then(|row| row.outcome);
                assert_eq!(known, Some(outcome(*number)), "it would change something");
            }
        }
    }

    /// Whether everything before it is durable when it is done, at any level.
    fn syncs(&self) -> bool {
        matches!(self, Self::Sync | Self::Flush | Self::Elapse | Self::Close)
    }

    fn perform(
        &self,
        scenario: &Scenario,
        disk: &SimDisk,
        engine: &mut Option<StorageEngine>,
        round: &mut Option<Round>,
    ) -> Result<(), TalaError> {
        if let Self::Open = self {
            *engine = Some(scenario.open(disk)?);
            return Ok(());
        }
        if let Self::Begin(number) = self {
            let store = engine.as_ref().expect("a scenario opens its store first");
            round.get_or_insert_with(|| Round::on(disk)).begin(store, *number);
            return Ok(());
        }
        if let Self::Await = self {
            return round.take().expect("something was begun").wait();
        }
        if let Self::Elapse = self {
            wait_for_sync(disk);
            return Ok(());
        }
        if let Self::GoOn(number) = self {
            let store = engine.as_ref().expect("a scenario opens its store first");
            return go_on_in_prepared(disk, store, *number);
        }
        self.take(engine.as_ref().expect("a scenario opens its store first"))
    }

    /// Takes this step on an open store.
    pub fn take(&self, store: &StorageEngine) -> Result<(), TalaError> {
        match self {
            Self::Open | Self::Elapse | Self::Begin(_) | Self::Await | Self::GoOn(_) => {}
            Self::Insert(number) => drop(store.insert(intent(*number))?),
            Self::Replace(number, which) => drop(store.insert(version(*number, *which))?),
            Self::Batch(numbers) => {
                drop(store.insert_batch(numbers.clone().map(intent).collect())?);
            }
            Self::Outcome(number) => store.attach_outcome(id(*number), outcome(*number))?,
            Self::Remove(number) => drop(store.remove(id(*number))?),
            Self::Sync => store.sync()?,
            Self::Flush => store.flush()?,
            Self::Close => store.close()?,
        }
        Ok(())
    }
}

/// Keeps the writer of a log waiting before its next sync.
#[derive(Default)]
struct Gate {
    /// Whether it is open, and whether somebody waits.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn change(&self, change: impl FnOnce(&mut (bool, bool))) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait_while(&self, condition: impl Fn(&(bool, bool)) -> bool) {
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, LONG, |state| condition(state));
        assert!(!waited.unwrap().1.timed_out(), "nobody came to the gate, or opened it");
    }

    fn pass(&self) {
        self.change(|state| state.1 = true);
        self.wait_while(|(is_open, _)| !is_open);
    }
}

/// Inserts that are under way at the same time.
struct Round {
    gate: Arc<Gate>,
    inserts: Vec<Insertion>,
}

type Insertion = Pin<Box<dyn Future<Output = Result<IntentId, TalaError>> + Send>>;

impl Round {
    fn on(disk: &SimDisk) -> Self {
        let gate = Arc::new(Gate::default());
        let at_sync = Arc::clone(&gate);
        disk.watch(move |kind, path| {
            let is_log = path.extension().is_some_and(|extension| extension == "wal");
            if kind == Kind::Sync && is_log {
                at_sync.pass();
            }
        });
        Self { gate, inserts: Vec::new() }
    }

    fn begin(&mut self, store: &StorageEngine, number: u64) {
        let mut insertion: Insertion = Box::pin(store.insert_async(intent(number)));
        let polled = insertion.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "the writer waits, so nothing is answered");
        self.inserts.push(insertion);
        // The first alone is what the writer holds.
        self.gate.wait_while(|(_, is_held)| !is_held);
    }

    fn wait(mut self) -> Result<(), TalaError> {
        self.gate.change(|state| state.0 = true);
        for insertion in std::mem::take(&mut self.inserts) {
            pollster::block_on(insertion)?;
        }
        Ok(())
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.gate.change(|state| state.0 = true);
    }
}

/// Waits until everything that has been written to the log is synced.
fn wait_for_sync(disk: &SimDisk) {
    let since = Instant::now();
    loop {
        let asked = disk.asked();
        let last = asked.iter().rev().find(|(kind, path)| {
            let is_log = path.extension().is_some_and(|extension| extension == "wal");
            is_log && [Kind::Write, Kind::Sync].contains(kind)
        });
        if last.is_none_or(|(kind, _)| *kind == Kind::Sync) {
            return;
        }
        assert!(since.elapsed() < LONG, "the interval is over, and nothing synced");
        thread::yield_now();
    }
}

/// The name of a log while it is prepared, and that of the older one that it is made of.
pub const PREPARED: &str = "log_next.wal.tmp";
pub const SPARE: &str = "log_spare.wal.tmp";
/// How often others get the processor while a log is prepared, before more is written.
const PATIENCE: u32 = 1_000;

/// Attaches the outcome of this intent again until the log goes on in a prepared file. Where something
/// is refused there may be none, and nobody waits for it.
fn go_on_in_prepared(disk: &SimDisk, store: &StorageEngine, number: u64) -> Result<(), TalaError> {
    let before = disk.renamed_count(PREPARED);
    let since = Instant::now();
    let path = Path::new(STORE).join(PREPARED);
    let is_ready =
        || disk.last_asked_of(PREPARED) == Some(Kind::Sync) && disk.bytes(&path).is_some();
    let is_over = || disk.renamed_count(PREPARED) > before || !disk.failed().is_empty();
    while !is_over() {
        assert!(since.elapsed() < LONG, "no log was prepared");
        store.attach_outcome(id(number), outcome(number))?;
        // Writing more does not make it come sooner, but it may not have been asked for yet.
        for _ in 0..PATIENCE {
            if is_ready() || is_over() {
                break;
            }
            thread::yield_now();
        }
    }
    Ok(())
}

/// Steps on a disk on which logs are prepared early, in which they are: new ones, and older ones that
/// segments cover.
pub fn steps_in_prepared_logs() -> Vec<Step> {
    use Step::{Batch, Flush, GoOn, Insert, Open, Outcome, Remove, Replace};
    let mut steps = vec![Open, Insert(1), Outcome(1), GoOn(1), Batch(2..5), Remove(2)];
    steps.extend([GoOn(1), Insert(5), Replace(3, 1), Flush]);
    steps.extend([Insert(6), Insert(7), GoOn(1), Batch(8..11), Outcome(8), Flush]);
    steps.extend([Insert(11), Insert(12), GoOn(8), Remove(1), Insert(13)]);
    steps
}

/// What is done to a store.
#[derive(Clone)]
pub struct Scenario {
    pub name: &'static str,
    pub durability: Durability,
    pub hot_capacity: usize,
    pub log_bytes_max: u64,
    /// What the store holds before its first step.
    pub before: Model,
    pub steps: Vec<Step>,
}

/// How a run of a scenario ended.
pub struct Run {
    /// Steps that were acknowledged.
    pub done: usize,
    /// Those, and the one that was not, if there was one.
    pub begun: usize,
    /// Why that one was not.
    pub error: Option<TalaError>,
    /// The engine, where there is one.
    pub engine: Option<StorageEngine>,
}

impl Scenario {
    /// Opens the store of this scenario.
    pub fn open(&self, disk: &SimDisk) -> Result<StorageEngine, TalaError> {
        self.options(disk).open(STORE)
    }

    fn options(&self, disk: &SimDisk) -> EngineOptions {
        StorageEngine::options(DIM)
            .durability(self.durability)
            .hot_capacity(self.hot_capacity)
            .log_bytes_max(self.log_bytes_max)
            .link_on_open(false)
            // Of thousands of engines: each would clear megabytes for its histograms, and make a good
            // graph, which no file has.
            .histograms(false)
            .m(4)
            .ef_construction(8)
            .disk(Arc::new(disk.clone()))
    }

    /// Takes its steps, until one fails.
    pub fn run(&self, disk: &SimDisk) -> Run {
        let (mut engine, mut round) = (None, None);
        for (number, step) in self.steps.iter().enumerate() {
            disk.mark(Mark::Begun(number));
            if let Err(error) = step.perform(self, disk, &mut engine, &mut round) {
                return Run { done: number, begun: number + 1, error: Some(error), engine };
            }
            // Nobody is told of what is only begun.
            if !matches!(step, Step::Begin(_)) {
                disk.mark(Mark::Done(number));
            }
        }
        let done = self.steps.len();
        Run { done, begun: done, error: None, engine }
    }

    /// What the store holds after 0, 1, 2 ... steps.
    pub fn states(&self) -> Vec<Model> {
        let mut model = self.before.clone();
        let mut states = vec![model.clone()];
        for step in &self.steps {
            step.apply(&mut model);
            states.push(model.clone());
        }
        states
    }

    /// Of `done` steps, how many a power cut must leave.
    pub fn floor(&self, done: usize) -> usize {
        match self.durability {
            Durability::Sync => done,
            _ => self.steps[..done].iter().rposition(Step::syncs).map_or(0, |step| step + 1),
        }
    }
}

/// What may be found on a medium.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Allowed {
    /// At least what so many steps made.
    pub from: usize,
    /// At most what so many made.
    pub to: usize,
}

/// Opens the store on this medium, compares it with what it may be, writes to it, closes it, cuts the
/// power, opens it again, and compares again. Panics where anything is wrong.
pub fn check(scenario: &Scenario, states: &[Model], volume: Volume, allowed: Allowed) {
    let disk = SimDisk::of(volume);
    let engine = match scenario.open(&disk) {
        Ok(engine) => engine,
        Err(error) => panic!("it cannot be opened: {error}"),
    };
    let found = which(states, &engine, allowed);
    let mut model = states[found].clone();
    write_again(&engine, &mut model);
    assert!(model.is_in(&engine), "it does not hold what was written after the crash");
    model.check_search(&engine);
    engine.close().expect("a store that was opened can be closed");
    drop(engine);
    let report = verify_on(Arc::new(disk.clone()), Path::new(STORE)).expect("it can be checked");
    assert!(report.is_ok(), "{report}: {:?}", report.damage);
    let left = SimDisk::of(disk.volume().cut(1, 0));
    let engine = scenario.open(&left).expect("it opens once more");
    assert!(engine.recovery().was_clean, "it was closed");
    assert!(model.is_in(&engine), "what was written after the crash is not there");
    model.check_search(&engine);
}

/// Opens the store, and cuts the power when it is open: what its user saw is what must be there then.
pub fn check_what_is_told(scenario: &Scenario, states: &[Model], disk: &SimDisk, allowed: Allowed) {
    let engine = scenario.open(disk).unwrap_or_else(|error| panic!("it cannot be opened: {error}"));
    let found = which(states, &engine, allowed);
    let left = disk.volume().cut(1, seed());
    drop(engine);
    let engine = scenario.open(&SimDisk::of(left)).expect("it opens once more");
    assert!(states[found].is_in(&engine), "its user saw what was not on the disk");
}

/// After how many steps the store was as it is now.
pub fn which(states: &[Model], engine: &StorageEngine, allowed: Allowed) -> usize {
    let Allowed { from, to } = allowed;
    let found = (from..=to).rev().find(|&steps| states[steps].is_in(engine));
    found.unwrap_or_else(|| {
        let elsewhere = (0..states.len()).find(|&steps| states[steps].is_in(engine));
        panic!(
            "it holds {} intents, which are not those after {from} to {to} steps, but after \
             {elsewhere:?}; {:?}",
            engine.len(),
            engine.recovery(),
        )
    })
}

/// Writes of every kind.
fn write_again(engine: &StorageEngine, model: &mut Model) {
    let oldest = model.rows().first().map(|row| row.id);
    for number in CHECK..CHECK + 3 {
        engine.insert(intent(number)).unwrap();
        model.insert(intent(number));
    }
    if let Some(oldest) = oldest {
        engine.attach_outcome(oldest, outcome(7)).unwrap();
        model.attach(oldest, outcome(7));
    }
    assert!(engine.remove(id(CHECK)).unwrap());
    model.remove(id(CHECK));
    let ids = engine.insert_batch((CHECK + 3..CHECK + 6).map(intent).collect()).unwrap();
    assert_eq!(ids.len(), 3);
    (CHECK + 3..CHECK + 6).for_each(|number| model.insert(intent(number)));
}

/// What is left of a medium by a cut, and what may be found on it.
#[derive(Clone)]
pub struct Image {
    pub volume: Volume,
    pub allowed: Allowed,
    /// At least what so many steps made is there after a power cut that comes before it is opened.
    pub floor: usize,
    /// Where the cut was, and which choice of what survived it.
    pub place: String,
}

/// How many choices there are at each cut: as the environment says, or `CHOICES`.
pub fn choices() -> u64 {
    number_of("TALA_CRASH_SEEDS").unwrap_or(CHOICES).max(2)
}

/// The seed of all choices: as the environment says, or 1.
pub fn seed() -> u64 {
    number_of("TALA_CRASH_SEED").unwrap_or(1)
}

/// By which variables the same choices are made again.
pub fn drawn_by() -> String {
    format!("TALA_CRASH_SEED={} TALA_CRASH_SEEDS={}", seed(), choices())
}

fn number_of(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Calls `visit` with the medium after each change of it, beginning with none, and with how many steps
/// had begun and were done by then.
pub fn each_cut(
    start: &Volume,
    events: &[Event],
    mut visit: impl FnMut(usize, &Volume, usize, usize),
) {
    let mut volume = start.clone();
    let (mut begun, mut done, mut cuts) = (0, 0, 0);
    for event in events {
        match event {
            // Whoever was told of a step was told before anything else happened.
            Event::Mark(Mark::Begun(number)) => begun = number + 1,
            Event::Mark(Mark::Done(number)) => {
                done = number + 1;
                visit(cuts, &volume, begun, done);
            }
            Event::Op(op) => {
                volume.apply(op);
                cuts += 1;
                visit(cuts, &volume, begun, done);
            }
        }
    }
}

/// Counts of a sweep.
#[derive(Default, Debug)]
pub struct Counts {
    /// Choices of what survives.
    pub choices: u64,
    /// Of those, the ones that differ: images that were opened.
    pub images: u64,
}

impl Counts {
    /// Says what was tried, even where the output of tests that pass is not shown: how much that is
    /// depends on what differs, and nothing else would tell that it became less.
    pub fn say(&self, what: &str) {
        let Self { choices, images } = self;
        let alike = choices - images;
        say(&format!(
            "{what}: {images} images opened, {alike} more were like one of them; {}",
            drawn_by()
        ));
    }
}

/// Says it even where the output of tests that pass is not shown.
pub fn say(what: &str) {
    // At once, so that no other test's line begins within it.
    let _ = io::stderr().write_all(format!("{what}\n").as_bytes());
}

/// Does `work` with everything that `produce` hands out, on several threads, and ends with the first
/// that panics, in the words of `place` and its own. Nearly all time here is spent on waiting for
/// threads of engines to start and to answer.
pub fn in_parallel<T: Send>(
    produce: impl FnOnce(&mut dyn FnMut(T)),
    place: impl Fn(&T) -> String + Sync,
    work: impl Fn(T) + Sync,
) {
    // A caller and a writer that are awake for each other take the processors from the other checkers. From
    // here on for the whole program; others, such as `store`, keep staying awake.
    stay_awake_never();
    let failure: Mutex<Option<String>> = Mutex::new(None);
    let (sender, receiver) = sync_channel::<T>(WAITING);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        for _ in 0..CHECKERS {
            scope.spawn(|| {
                loop {
                    let next = receiver.lock().unwrap().recv();
                    let Ok(item) = next else { break };
                    if failure.lock().unwrap().is_some() {
                        continue;
                    }
                    let place = place(&item);
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(item))) {
                        let what = panic
                            .downcast_ref::<String>()
                            .map(String::as_str)
                            .or_else(|| panic.downcast_ref::<&str>().copied())
                            .unwrap_or_default();
                        failure.lock().unwrap().get_or_insert(format!("{place}: {what}"));
                    }
                }
            });
        }
        produce(&mut |item| sender.send(item).expect("they live until the sender is gone"));
        drop(sender);
    });
    if let Some(failure) = failure.into_inner().unwrap() {
        panic!("{failure}");
    }
}

/// Checks the images that `produce` hands out, each once.
pub fn sweep(scenario: &Scenario, produce: impl FnOnce(&mut dyn FnMut(Image))) -> Counts {
    let states = scenario.states();
    let mut counts = Counts::default();
    let mut seen = HashSet::new();
    in_parallel(
        |hand_out| {
            produce(&mut |image: Image| {
                counts.choices += 1;
                if seen.insert((image.volume.fingerprint(), image.allowed)) {
                    counts.images += 1;
                    hand_out(image);
                }
            });
        },
        |image| {
            let Image { volume, place, .. } = image;
            format!("{}: {place}, on the disk:\n{}", scenario.name, volume.describe())
        },
        |image| check(scenario, &states, image.volume, image.allowed),
    );
    counts
}

/// Hands out what every cut of these events may leave.
pub fn images(
    scenario: &Scenario,
    start: &Volume,
    events: &[Event],
    choices: u64,
    hand_out: &mut dyn FnMut(Image),
) {
    each_cut(start, events, |cut, volume, begun, done| {
        for choice in 0..choices {
            // A kill takes nothing from what was handed to the kernel.
            let from = if choice == 0 { done } else { scenario.floor(done) };
            hand_out(Image {
                volume: volume.cut(choice, seed().wrapping_add(cut as u64)),
                allowed: Allowed { from, to: begun },
                floor: scenario.floor(done),
                place: format!(
                    "after change {cut}, {done} steps done, choice {choice} ({})",
                    drawn_by()
                ),
            });
        }
    });
}

/// Opens the image and cuts that short after every change that opening makes: hands out `choices` of
/// what each cut leaves, and the last of them, by which the store had been opened and told its user
/// what it holds.
pub fn cut_the_opening(
    scenario: &Scenario,
    states: &[Model],
    image: &Image,
    choices: u64,
    hand_out: &mut dyn FnMut(Image),
) {
    let Image { volume: start, allowed, floor, place } = image;
    let disk = SimDisk::of(start.clone());
    let engine = scenario.open(&disk).unwrap_or_else(|error| panic!("{place}: {error}"));
    let events = disk.events();
    let found = which(states, &engine, *allowed);
    drop(engine);
    let changes = events.iter().filter(|event| matches!(event, Event::Op(_))).count();
    each_cut(start, &events, |cut, volume, _, _| {
        for choice in 0..choices {
            let (from, to, floor) = match (cut == changes, choice) {
                (true, _) => (found, found, found),
                (false, 0) => (allowed.from, allowed.to, *floor),
                (false, _) => (*floor, allowed.to, *floor),
            };
            let allowed = Allowed { from, to };
            let place = format!("{place}; then change {cut} of opening, choice {choice}");
            let volume = volume.cut(choice, seed().wrapping_add(cut as u64));
            hand_out(Image { volume, allowed, floor, place });
        }
    });
}

/// Runs the scenario once, and checks every image that any cut of it may leave.
pub fn cut_everywhere(scenario: &Scenario, disk: &SimDisk) {
    let start = disk.volume();
    let run = scenario.run(disk);
    assert!(run.error.is_none(), "{:?}", run.error);
    drop(run);
    let events = disk.events();
    let counts = sweep(scenario, |hand_out| {
        images(scenario, &start, &events, choices(), hand_out);
    });
    let changes = events.iter().filter(|event| matches!(event, Event::Op(_))).count();
    let what = format!("{}: power cut after each of {changes} changes", scenario.name);
    counts.say(&what);
}
