//! Files that are missing, cut, flipped, emptied, zeroed or newer: either the error names the file
//! and nothing in the directory changes, or it is what a torn write leaves and the prefix is kept.

use std::path::Path;

use crate::common::{Files, Model, TestDir, id, intent, outcome};
use tala_core::{IntentStore, TalaError};
use tala_store::{RecoveryWarning, StorageEngine, VerifyReport, verify};

/// Two segments, a log that the MANIFEST lists, and the live log.
struct Store {
    closed: Files,
    /// As a kill would have left it.
    killed: Files,
    model: Model,
}

const MANIFEST: &str = "MANIFEST";
const SEGMENT: &str = "segment_000001.tbf";

impl Store {
    fn new() -> Self {
        let dir = TestDir::new();
        let mut model = Model::default();
        let open = || StorageEngine::open(8, dir.path(), 10).unwrap();
        let engine = open();
        for number in 0..25 {
            engine.insert(intent(number)).unwrap();
            model.insert(intent(number));
        }
        engine.close().unwrap();
        let engine = open();
        for number in 30..34 {
            engine.insert(intent(number)).unwrap();
            model.insert(intent(number));
        }
        engine.attach_outcome(id(3), outcome(3)).unwrap();
        model.attach(id(3), outcome(3));
        let killed = dir.files();
        engine.close().unwrap();
        let store = Self { closed: dir.files(), killed, model };
        assert_eq!(store.logs().len(), 2);
        assert_eq!(dir.names(".tbf").len(), 2);
        store
    }

    fn logs(&self) -> Vec<String> {
        self.closed.keys().filter(|name| name.ends_with(".wal")).cloned().collect()
    }

    fn listed_log(&self) -> String {
        self.logs()[0].clone()
    }

    fn live_log(&self) -> String {
        self.logs()[1].clone()
    }

    /// Whether `damage` to `name` is refused with an error that `is_expected`, also by `verify`,
    /// and all is well once the file is mended.
    fn assert_refused(&self, name: &str, damage: Damage, is_expected: &dyn Fn(&TalaError) -> bool) {
        let dir = TestDir::of(&damaged(&self.closed, name, damage));
        let before = dir.files();
        for round in 0..2 {
            let error = StorageEngine::open(8, dir.path(), 10).err();
            let error = error.unwrap_or_else(|| panic!("{name} with {damage:?} was opened"));
            assert!(is_expected(&error), "{name} with {damage:?}, round {round}: {error:?}");
        }
        let VerifyReport { damage: found, .. } = verify(dir.path()).unwrap();
        assert!(found.iter().any(is_expected), "{name} with {damage:?}: {found:?}");
        assert!(dir.files() == before, "{name} with {damage:?}: the directory changed");
        dir.put(&self.closed);
        self.model.check(&StorageEngine::open(8, dir.path(), 10).unwrap());
    }
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Missing,
    /// To so many bytes.
    Cut(usize),
    /// The lowest bit of the byte there.
    Flipped(usize),
    /// All of it, at its length.
    Zeroed,
    /// Bytes after the end.
    Longer,
}

fn damaged(files: &Files, name: &str, damage: Damage) -> Files {
    let mut files = files.clone();
    let bytes = files.get_mut(name).unwrap();
    match damage {
        Damage::Missing => drop(files.remove(name)),
        Damage::Cut(len) => bytes.truncate(len),
        Damage::Flipped(at) => bytes[at] ^= 1,
        Damage::Zeroed => bytes.fill(0),
        Damage::Longer => bytes.extend([7; 5]),
    }
    files
}

/// [`TalaError::Corrupt`] that names this file.
fn is_corrupt(name: &str) -> impl Fn(&TalaError) -> bool {
    move |error| {
        matches!(error, TalaError::Corrupt { file, .. }
            if file.file_name().is_some_and(|found| found == name))
    }
}

/// Each kind of damage, and a flip in some places from the first byte to the last.
fn all_damage(len: usize) -> Vec<Damage> {
    let mut all = vec![Damage::Missing, Damage::Cut(0), Damage::Cut(len / 2), Damage::Cut(len - 1)];
    all.extend([Damage::Zeroed, Damage::Longer]);
    all.extend((0..5).map(|place| Damage::Flipped(place * (len - 1) / 4)));
    all
}

#[test]
fn a_damaged_manifest() {
    let store = Store::new();
    for damage in all_damage(store.closed[MANIFEST].len()) {
        store.assert_refused(MANIFEST, damage, &is_corrupt(MANIFEST));
    }
}

#[test]
fn a_damaged_segment() {
    let store = Store::new();
    for damage in all_damage(store.closed[SEGMENT].len()) {
        store.assert_refused(SEGMENT, damage, &is_corrupt(SEGMENT));
    }
}

/// Every byte of a segment is covered by something.
#[test]
fn a_flipped_byte_anywhere_in_a_segment() {
    let store = Store::new();
    let dir = TestDir::of(&store.closed);
    for at in (0..store.closed[SEGMENT].len()).step_by(97) {
        dir.put(&damaged(&store.closed, SEGMENT, Damage::Flipped(at)));
        let error = StorageEngine::open(8, dir.path(), 10).err();
        let error = error.unwrap_or_else(|| panic!("byte {at} may be anything"));
        let names_it = match &error {
            TalaError::Corrupt { file, .. } | TalaError::UnsupportedVersion { file, .. } => {
                file.ends_with(SEGMENT)
            }
            _ => false,
        };
        assert!(names_it, "{error}");
    }
    dir.put(&store.closed);
}

#[test]
fn a_damaged_log_that_the_manifest_lists() {
    let store = Store::new();
    let log = store.listed_log();
    for damage in all_damage(store.closed[&log].len()) {
        // What stands after the accepted length was torn off long ago.
        if !matches!(damage, Damage::Longer) {
            store.assert_refused(&log, damage, &is_corrupt(&log));
        }
    }
    let longer = TestDir::of(&damaged(&store.closed, &log, Damage::Longer));
    store.model.check(&StorageEngine::open(8, longer.path(), 10).unwrap());
}

#[test]
fn a_flip_in_what_is_known_to_have_been_synced() {
    let store = Store::new();
    let log = store.live_log();
    // Of a closed store the mark at the end proves all that stands before it.
    let mark = 82;
    let len = store.closed[&log].len();
    for at in [0, 1, 20, 40, len / 2, len - mark - 90, len - mark - 1] {
        store.assert_refused(&log, Damage::Flipped(at), &is_corrupt(&log));
    }
    store.assert_refused(&log, Damage::Longer, &is_corrupt(&log));

    // After a kill, all but the last record is proved by the one after it.
    let dir = TestDir::of(&damaged(&store.killed, &log, Damage::Flipped(40)));
    let before = dir.files();
    let error = StorageEngine::open(8, dir.path(), 10).err().unwrap();
    match &error {
        TalaError::Corrupt { file, offset: 0, what } => {
            assert!(file.ends_with(&log));
            assert!(what.contains("checksum"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    assert!(dir.files() == before);
    dir.put(&store.killed);
    store.model.check(&StorageEngine::open(8, dir.path(), 10).unwrap());
}

/// How many intents are there after the live log of a killed store was damaged, and how many
/// bytes its warning says do not count.
fn opened(store: &Store, damage: Damage) -> (usize, Option<(u64, u64)>) {
    let log = store.live_log();
    let dir = TestDir::of(&damaged(&store.killed, &log, damage));
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    assert!(!engine.recovery().was_clean);
    let warning = match &engine.recovery().warnings[..] {
        [] => None,
        [RecoveryWarning::TornTail { file, offset, bytes }] => {
            assert!(file.ends_with(&log));
            Some((*offset, *bytes))
        }
        [RecoveryWarning::NothingCounts { file, bytes, kept_as }] => {
            assert!(file.ends_with(&log) && *kept_as == dir.file(&format!("{log}.torn")));
            assert!(
                dir.files()[&format!("{log}.torn")] == damaged(&store.killed, &log, damage)[&log]
            );
            assert!(!file.exists());
            Some((0, *bytes))
        }
        other => panic!("{other:?}"),
    };
    let len = engine.len();
    // What was kept is kept for good, and writing goes on.
    engine.insert(intent(100)).unwrap();
    engine.close().unwrap();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    assert_eq!(engine.len(), len + 1);
    assert_eq!(engine.recovery().warnings, []);
    (len, warning)
}

#[test]
fn a_torn_end_of_the_live_log_is_cut_with_a_warning() {
    let store = Store::new();
    let bytes = store.killed[&store.live_log()].clone();
    let first = 4 + u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    let len = bytes.len();
    // 25 intents are in the segments and the listed log, 4 in this one, then an outcome.
    assert_eq!(opened(&store, Damage::Cut(first)), (26, None));
    assert_eq!(opened(&store, Damage::Cut(first + 30)), (26, Some((first as u64, 30))));
    assert_eq!(opened(&store, Damage::Cut(first - 1)), (25, Some((0, first as u64 - 1))));
    let outcome_len = 95;
    let last = (len - outcome_len) as u64;
    assert_eq!(opened(&store, Damage::Cut(len - 1)), (29, Some((last, outcome_len as u64 - 1))));
    assert_eq!(opened(&store, Damage::Flipped(len - 1)), (29, Some((last, outcome_len as u64))));
    assert_eq!(opened(&store, Damage::Longer), (29, Some((len as u64, 5))));
}

/// A log is one file among others: where all of it is gone there is nothing left in it that says
/// what it held. It reads like the log of a process that died before its first write, but bytes
/// that are all gone are worth a warning.
#[test]
fn a_live_log_of_which_nothing_is_left_is_an_empty_one() {
    let store = Store::new();
    assert_eq!(opened(&store, Damage::Cut(0)), (25, None));
    let len = store.killed[&store.live_log()].len() as u64;
    assert_eq!(opened(&store, Damage::Zeroed), (25, Some((0, len))));
}

/// Zeros after the end are room that was prepared ahead.
#[test]
fn zeros_after_the_end_of_a_log_are_nothing() {
    let store = Store::new();
    let mut files = store.killed.clone();
    files.get_mut(&store.live_log()).unwrap().extend([0; 10_000]);
    let dir = TestDir::of(&files);
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    assert_eq!(engine.recovery().warnings, []);
    store.model.check(&engine);
}

fn is_newer(name: &str, expected: u32) -> impl Fn(&TalaError) -> bool {
    move |error| {
        matches!(error, TalaError::UnsupportedVersion { file, found, supported: 1 }
            if *found == expected && file.ends_with(Path::new(name)))
    }
}

/// An intact file of a version to come, in the place of `name`.
fn assert_newer_is_refused(store: &Store, name: &str, newer: Vec<u8>, version: u32) {
    let mut files = store.closed.clone();
    files.insert(name.to_owned(), newer);
    let dir = TestDir::of(&files);
    let error = StorageEngine::open(8, dir.path(), 10).err().unwrap();
    assert!(is_newer(name, version)(&error), "{error:?}");
    assert!(verify(dir.path()).unwrap().damage.iter().any(is_newer(name, version)));
    assert!(dir.files() == files);
    dir.put(&store.closed);
    store.model.check(&StorageEngine::open(8, dir.path(), 10).unwrap());
}

#[test]
fn a_newer_manifest() {
    let store = Store::new();
    let mut bytes = store.closed[MANIFEST].clone();
    bytes[8] = 7;
    let body = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_le_bytes());
    assert_newer_is_refused(&store, MANIFEST, bytes, 7);
}

#[test]
fn a_newer_segment() {
    let store = Store::new();
    let mut bytes = store.closed[SEGMENT].clone();
    bytes[6] = 3;
    let crc = crc32c::crc32c(&bytes[..104]);
    bytes[104..108].copy_from_slice(&crc.to_le_bytes());
    assert_newer_is_refused(&store, SEGMENT, bytes, 3);
}

#[test]
fn a_newer_log() {
    let store = Store::new();
    let log = store.live_log();
    let mut bytes = store.closed[&log].clone();
    let end = 4 + u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    bytes[end - 5] = 2;
    let crc = crc32c::crc32c(&bytes[..end - 4]);
    bytes[end - 4..end].copy_from_slice(&crc.to_le_bytes());
    assert_newer_is_refused(&store, &log, bytes, 2);
}

/// Left by flushes and publications that were interrupted: of no use, and in nobody's way.
#[test]
fn unfinished_and_unlisted_files_are_ignored() {
    let store = Store::new();
    let mut files = store.killed.clone();
    files.insert("MANIFEST.tmp".to_owned(), b"half of one".to_vec());
    files.insert("segment_000003.tbf.tmp".to_owned(), vec![1; 100]);
    files.insert("segment_000007.tbf".to_owned(), vec![2; 100]);
    let dir = TestDir::of(&files);
    let engine = StorageEngine::open(8, dir.path(), 3).unwrap();
    store.model.check(&engine);
    // Its number is not used again.
    engine.insert(intent(100)).unwrap();
    engine.flush().unwrap();
    engine.close().unwrap();
    let segments = dir.names(".tbf");
    assert!(segments.len() > 2 && !segments.contains(&"segment_000007.tbf".to_owned()));
    assert!(segments.contains(&"segment_000008.tbf".to_owned()), "{segments:?}");
    assert_eq!(dir.names(".tmp"), [""; 0]);
}
