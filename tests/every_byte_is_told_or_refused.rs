//! Every byte of every file of a store, cut at every length and flipped in every bit: what `open` then
//! gives is the exact state, or the exact prefix where the end of a log is torn, or an error that names
//! the file and a place in it. `verify` says the same, `repair` gives only what was there, and none of
//! them asks for memory beyond what the files are worth.
//!
//! `TALA_EVERY_BYTE=1` tries all; without it, a part that is spread evenly. The counts are printed.
//!
//! A program of its own, as it measures what the process asks for.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use common::{EVER, Files, id, intent, is_same, outcome, version};
use tala_core::{Intent, IntentStore, TalaError};
use tala_store::{StorageEngine, repair, verify};

/// Counts what is allocated at a time.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is done by the system's allocator; only numbers are kept beside it.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), SeqCst) + layout.size();
        PEAK.fetch_max(live, SeqCst);
        // SAFETY: the caller keeps what `alloc` asks for, and it is passed on as it is.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: `at` came from `alloc` above with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The peak of what `step` allocated beyond what there was, in bytes.
fn peak_of<T>(step: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.load(SeqCst);
    PEAK.store(before, SeqCst);
    let done = step();
    (done, PEAK.load(SeqCst).saturating_sub(before))
}

/// The tests of this file share one count.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn tries_all() -> bool {
    std::env::var_os("TALA_EVERY_BYTE").is_some_and(|value| value != "0")
}

const DIM: usize = 2;

fn small(mut intent: Intent) -> Intent {
    intent.embedding.truncate(DIM);
    intent
}

/// A store of few bytes, and every state that a prefix of its writes leaves.
struct Store {
    files: Files,
    /// After each write, oldest first: all intents by id.
    states: Vec<BTreeMap<tala_core::IntentId, Intent>>,
    /// The log that was being written, and its length at each of these states.
    live_log: String,
    lens: Vec<usize>,
}

/// What was done to a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It ends after so many bytes.
    Cut(usize),
    /// One bit is another.
    Flip,
}

impl Store {
    /// A segment, a log that the MANIFEST lists, and the live log; closed, or as a kill leaves it.
    fn new(is_closed: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = || StorageEngine::open(DIM, dir.path(), 100).unwrap();
        let (mut states, mut logs) = (Vec::new(), Vec::new());
        let mut record = |engine: &StorageEngine| {
            let rows = engine.query_temporal(EVER).unwrap();
            states.push(rows.into_iter().map(|row| (row.id, row)).collect());
            let entries = fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
            let logs_now =
                entries.map(|it| (it.file_name().into_string().unwrap(), it.metadata().unwrap()));
            let is_log = |name: &str| name.starts_with("log_") && name.ends_with(".wal");
            let newest = logs_now.filter(|(name, _)| is_log(name)).max_by_key(|it| it.0.clone());
            logs.push(newest.map(|(name, found)| (name, found.len() as usize)));
        };
        let engine = open();
        for number in 0..3 {
            engine.insert(small(intent(number))).unwrap();
        }
        engine.attach_outcome(id(1), outcome(1)).unwrap();
        engine.flush().unwrap();
        engine.insert(small(intent(5))).unwrap();
        engine.attach_outcome(id(0), outcome(3)).unwrap();
        engine.close().unwrap();
        let engine = open();
        record(&engine);
        engine.insert(small(intent(6))).unwrap();
        record(&engine);
        engine.insert(small(version(2, 1))).unwrap();
        record(&engine);
        engine.remove(id(1)).unwrap();
        record(&engine);
        engine.attach_outcome(id(6), outcome(5)).unwrap();
        record(&engine);
        if is_closed {
            engine.close().unwrap();
        }
        let entries = fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
        let files = entries
            .map(|it| (it.file_name().into_string().unwrap(), fs::read(it.path()).unwrap()))
            .collect();
        let (live_log, _) = logs.last().unwrap().clone().unwrap();
        let len_at = |log: &Option<(String, usize)>| {
            log.as_ref().filter(|(name, _)| *name == live_log).map_or(0, |(_, len)| *len)
        };
        let lens: Vec<usize> = logs.iter().map(len_at).collect();
        assert!(lens.is_sorted_by(|a, b| a < b), "each write makes the log longer: {lens:?}");
        Self { files, states, live_log, lens }
    }

    fn names(&self) -> Vec<String> {
        let is_empty = |name: &String| self.files[name].is_empty();
        self.files.keys().filter(|name| !is_empty(name)).cloned().collect()
    }

    fn bytes(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }
}

/// A directory in memory where there is one: thousands of stores are opened.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[derive(Default, Debug)]
struct Counts {
    verified: u64,
    opened: u64,
    repaired: u64,
    refused: u64,
    torn: u64,
    exact: u64,
}

struct Trial<'a> {
    store: &'a Store,
    dir: tempfile::TempDir,
    counts: Counts,
    /// What `verify`, `open` and `repair` take on the intact store.
    intact_peaks: [usize; 3],
}

impl<'a> Trial<'a> {
    fn new(store: &'a Store) -> Self {
        let mut trial =
            Self { store, dir: scratch(), counts: Counts::default(), intact_peaks: [0; 3] };
        trial.put("", None);
        let peaks = [
            peak_of(|| drop(verify(trial.path()).unwrap())).1,
            peak_of(|| drop(StorageEngine::open(DIM, trial.path(), 100).unwrap())).1,
            peak_of(|| drop(repair(trial.path(), trial.dir.path().join("new")).unwrap())).1,
        ];
        trial.intact_peaks = peaks;
        trial
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// The store again, with these bytes in place of one file.
    fn put(&self, name: &str, bytes: Option<&[u8]>) {
        let _ = fs::remove_dir_all(self.path());
        fs::create_dir(self.path()).unwrap();
        for (file, intact) in &self.store.files {
            let bytes = bytes.filter(|_| file == name).unwrap_or(intact);
            fs::write(self.path().join(file), bytes).unwrap();
        }
    }

    /// Whether this error says where the damage is: in the file, or where the file contradicts another.
    fn is_named(&self, error: &TalaError, name: &str, len: usize) -> bool {
        match error {
            TalaError::Corrupt { file, offset, .. } => {
                let is_it = file.ends_with(name);
                file.starts_with(self.path()) && (!is_it || *offset <= len as u64)
            }
            TalaError::UnsupportedVersion { file, .. } => file.ends_with(name),
            _ => false,
        }
    }

    fn bounded(&self, which: usize, peak: usize, what: &str) {
        // Four times all files, and the noise of threads that start and end.
        let allowed = self.intact_peaks[which] + 4 * self.store.bytes() + (1 << 17);
        assert!(peak <= allowed, "{what}: {peak} bytes at a time, {allowed} allowed");
    }

    /// Tries the store with `bytes` in place of the file `name`.
    fn run(&mut self, name: &str, bytes: &[u8], change: Change, opens: bool, what: &str) {
        self.put(name, Some(bytes));
        let (report, peak) = peak_of(|| verify(self.path()).unwrap());
        self.bounded(0, peak, what);
        self.counts.verified += 1;
        for damage in &report.damage {
            assert!(self.is_named(damage, name, bytes.len()), "{what}: {damage}");
        }
        if !opens {
            return;
        }
        let new = self.dir.path().join("new");
        let _ = fs::remove_dir_all(&new);
        let (repaired, peak) = peak_of(|| repair(self.path(), &new));
        self.bounded(2, peak, what);
        self.counts.repaired += 1;
        match repaired {
            Ok(repaired) => {
                let engine = StorageEngine::open(DIM, &new, 100).unwrap();
                for row in engine.query_temporal(EVER).unwrap() {
                    let mut known = self.store.states.iter().filter_map(|state| state.get(&row.id));
                    let is_named = repaired.incomplete.iter().any(|it| it.id == row.id);
                    // A version with the outcome of another time is told as a doubt or a loss.
                    let is_same_but_outcome = |known: &&Intent| {
                        is_same(&Intent { outcome: row.outcome, ..(*known).clone() }, &row)
                    };
                    assert!(
                        is_named || known.any(|it| is_same_but_outcome(&it)),
                        "{what}: {row:?}"
                    );
                }
            }
            Err(error) => {
                // A version that this build does not know is nothing to be repaired.
                assert!(matches!(error, TalaError::UnsupportedVersion { .. }), "{what}: {error}");
            }
        }

        let (opened, peak) = peak_of(|| StorageEngine::open(DIM, self.path(), 100));
        self.bounded(1, peak, what);
        self.counts.opened += 1;
        assert_eq!(opened.is_ok(), report.is_ok(), "{what}: {report}");
        let engine = match opened {
            Ok(engine) => engine,
            Err(error) => {
                self.counts.refused += 1;
                assert!(self.is_named(&error, name, bytes.len()), "{what}: {error}");
                return;
            }
        };
        let rows = engine.query_temporal(EVER).unwrap();
        let state: BTreeMap<_, _> = rows.into_iter().map(|row| (row.id, row)).collect();
        let is_equal = |other: &&BTreeMap<_, _>| {
            state.len() == other.len()
                && state.iter().all(|(id, row)| other.get(id).is_some_and(|it| is_same(it, row)))
        };
        let found = self.store.states.iter().rposition(|state| is_equal(&state));
        let Some(found) = found else { panic!("{what}: a wrong answer: {state:?}") };
        if found + 1 == self.store.states.len() {
            self.counts.exact += 1;
            return;
        }
        // Less than all is a torn end of the log that was being written, and nothing else. A flipped bit
        // takes the last write at most, since later writes prove that one before them was synced; a cut
        // takes what does not stand whole before it.
        let last = self.store.states.len() - 1;
        assert_eq!(name, self.store.live_log, "{what}: writes {found} of {last}");
        let due = match change {
            Change::Flip => last - 1,
            Change::Cut(len) => self.store.lens.partition_point(|it| *it <= len).saturating_sub(1),
        };
        assert_eq!(found, due, "{what}: writes of {last}");
        self.counts.torn += 1;
    }

    /// Without the variable, checks each `checks_every`th change and opens each `opens_every`th of those.
    fn sweep(mut self, checks_every: usize, opens_every: usize) -> Counts {
        let (checks_every, opens_every) =
            if tries_all() { (1, 1) } else { (checks_every, opens_every) };
        let mut turn = 0_usize;
        let mut turns = || {
            turn += 1;
            (turn.is_multiple_of(checks_every), turn.is_multiple_of(checks_every * opens_every))
        };
        for name in self.store.names() {
            let intact = self.store.files[&name].clone();
            for len in 0..intact.len() {
                let (checks, opens) = turns();
                if checks {
                    let what = format!("{name} cut to {len}");
                    self.run(&name, &intact[..len], Change::Cut(len), opens, &what);
                }
            }
            let mut bytes = intact;
            for bit in 0..bytes.len() * 8 {
                let (checks, opens) = turns();
                if !checks {
                    continue;
                }
                bytes[bit / 8] ^= 1 << (bit % 8);
                self.run(&name, &bytes, Change::Flip, opens, &format!("{name}, bit {bit}"));
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
        self.counts
    }
}

/// After a close, not one bit may be lost, and `open` refuses all damage.
#[test]
fn of_a_closed_store() {
    let _alone = alone();
    let store = Store::new(true);
    let counts = Trial::new(&store).sweep(5, 23);
    println!("closed, {} bytes: {counts:?}", store.bytes());
    assert_eq!(counts.torn, 0, "{counts:?}");
    let bytes = store.bytes() as u64;
    assert!(counts.verified >= 9 * bytes / 5 && counts.opened >= counts.verified / 23);
    assert!(counts.refused > counts.opened * 9 / 10, "{counts:?}");
}

/// After a kill, the last write may pass for torn, and what is before it may not.
#[test]
fn of_a_killed_store() {
    let _alone = alone();
    let store = Store::new(false);
    let counts = Trial::new(&store).sweep(5, 23);
    println!("killed, {} bytes: {counts:?}", store.bytes());
    assert!(counts.torn > 0 && counts.refused > counts.torn, "{counts:?}");
}

/// The MANIFEST with these numbers, each of 8 bytes, at these places, and a checksum that matches.
fn sealed(manifest: &[u8], numbers: &[(usize, u64)]) -> Vec<u8> {
    let mut bytes = manifest.to_vec();
    for (at, number) in numbers {
        bytes[*at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Opens a store with this MANIFEST, which must be refused. Returns why, and the peak of memory.
fn refused(trial: &Trial<'_>, manifest: &[u8]) -> (TalaError, usize) {
    trial.put("MANIFEST", Some(manifest));
    let (opened, peak) = peak_of(|| StorageEngine::open(DIM, trial.path(), 100));
    let error = opened.expect_err("it opened");
    let damage = verify(trial.path()).unwrap().damage;
    assert!(damage.iter().any(|it| it.to_string() == error.to_string()), "{error}, {damage:?}");
    (error, peak)
}

fn names(error: &TalaError, name: &str) -> bool {
    matches!(error, TalaError::Corrupt { file, .. } if file.ends_with(name))
}

/// Where the counts of the MANIFEST are.
const COUNTS: [usize; 3] = [48, 56, 64];
const HEADER_BYTES: usize = 72;
/// The numbers of a segment or a log that it lists, by the number of that.
type Entry = fn(u64) -> [u64; 5];

/// Counts that no file is long enough for take no memory, and counts that are true of a file that lists
/// nothing that is there take as much as the file does, and what is made of it.
#[test]
fn of_a_manifest_with_huge_counts() {
    let _alone = alone();
    let store = Store::new(true);
    let trial = Trial::new(&store);
    let manifest = &store.files["MANIFEST"];
    // What opening takes before it looks at the MANIFEST, and error messages.
    let (error, least) = refused(&trial, &vec![b'x'; manifest.len()]);
    assert!(names(&error, "MANIFEST"), "{error}");
    let allowed = least + manifest.len() + (1 << 12);
    for at in COUNTS {
        for count in [1 << 16, 1 << 32, u64::MAX / 40, u64::MAX / 32 + 1, 1 << 63, u64::MAX] {
            let (error, peak) = refused(&trial, &sealed(manifest, &[(at, count)]));
            assert!(names(&error, "MANIFEST"), "{at}, {count}: {error}");
            assert!(peak <= allowed, "{at}, {count}: {peak} bytes at a time, {allowed} allowed");
        }
    }

    let entries_count = 50_000_u64;
    let next = entries_count + 1;
    let segment: Entry = |id| [id, id, id, u64::MAX / 2, 0];
    let log: Entry = |number| [number, number, number, 1, 0];
    for (at, width, entry, first) in
        [(COUNTS[0], 5, segment, "segment_000001.tbf"), (COUNTS[1], 4, log, "log_000001.wal")]
    {
        let mut bytes = manifest[..HEADER_BYTES].to_vec();
        let entries = (1..next).flat_map(|number| entry(number).into_iter().take(width));
        bytes.extend(entries.flat_map(u64::to_le_bytes));
        bytes.extend([0; 4]);
        let counts = COUNTS.map(|count| (count, if count == at { entries_count } else { 0 }));
        let bytes =
            sealed(&sealed(&bytes, &counts), &[(16, next), (24, next), (32, next), (40, 0)]);
        let (error, peak) = refused(&trial, &bytes);
        assert!(names(&error, first), "{error}");
        // Its bytes, what is made of them, and a set of the segments' numbers.
        let allowed = least + 5 * bytes.len() / 2 + (1 << 12);
        assert!(peak <= allowed, "{first}: {peak} bytes at a time, {allowed} allowed");
    }
}

/// Whatever a number of the MANIFEST is: it is refused, or what is written then is there afterwards; and
/// where the next one would be none that is accepted, writing is refused.
#[test]
fn of_a_manifest_with_numbers_that_run_out() {
    let _alone = alone();
    let store = Store::new(true);
    let trial = Trial::new(&store);
    let manifest = &store.files["MANIFEST"];
    let (mut refused, mut opened) = (0, 0);
    for at in (16..manifest.len() - 4).step_by(8) {
        let (below, middle) = (u64::MAX - 1, 1 << 63);
        for number in [0, 1, 1 << 32, middle - 1, middle, middle + 1, below, u64::MAX] {
            let what = format!("{number} at byte {at}");
            trial.put("MANIFEST", Some(&sealed(manifest, &[(at, number)])));
            let engine = match StorageEngine::open(DIM, trial.path(), 100) {
                Ok(engine) => engine,
                Err(TalaError::Corrupt { .. }) => {
                    refused += 1;
                    continue;
                }
                Err(other) => panic!("{what}: {other}"),
            };
            opened += 1;
            let before = engine.len();
            let mut writes = (70..72).map(|number| {
                engine.insert(small(intent(number)))?;
                engine.flush()
            });
            if let Some(error) = writes.find_map(Result::err) {
                // The one that is there is the last that may be.
                assert_eq!(number, middle - 1, "{what}: {error}");
                assert!(error.to_string().contains("out of range"), "{what}: {error}");
                continue;
            }
            engine.close().unwrap();
            drop(engine);
            let engine = StorageEngine::open(DIM, trial.path(), 100);
            let engine = engine.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(engine.len(), before + 2, "{what}");
        }
    }
    println!("{refused} refused, {opened} opened");
    assert!(refused > opened && opened > 0, "{refused} {opened}");
}
