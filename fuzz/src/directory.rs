//! A whole directory: MANIFEST, logs and a segment that need not fit together.
//!
//! Input: switches (1: make all checksums match, those in the MANIFEST too; 2: the third log is one
//! of the original implementation), then for each of MANIFEST, segment 1, log 1, log 2 and log 3
//! two bytes of length and its bytes. A file of length 0 is not there.
//!
//! Checked: `verify` finds damage exactly where opening is refused; what is refused is left as it
//! was, byte for byte; what opens gives the same again after a close, holds each id once, finds by
//! id and by meaning what it has, and takes new intents.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use tala_core::{Intent, IntentId, IntentStore, TalaError, TimeRange};
use tala_store::{Durability, Query, StorageEngine, stored_dim, verify};

use super::{format, split};

/// The files of an input, in order.
const NAMES: [&str; 5] =
    ["MANIFEST", "segment_000001.tbf", "log_000001.wal", "log_000002.wal", "log_000003.wal"];
/// What the last of them is called where it is a log of the original implementation.
const LEGACY_NAME: &str = "current.wal";
/// Larger dimensions take memory in proportion, and nothing else.
const DIM_MAX: usize = 64;

/// An input for this target.
pub fn pack(switches: u8, files: [&[u8]; 5]) -> Vec<u8> {
    let mut bytes = vec![switches];
    for file in files {
        bytes.extend_from_slice(&(file.len() as u16).to_le_bytes());
        bytes.extend_from_slice(file);
    }
    bytes
}

fn unpack(mut bytes: &[u8]) -> [Vec<u8>; 5] {
    std::array::from_fn(|_| {
        let Some((len, rest)) = bytes.split_first_chunk() else { return Vec::new() };
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (file, rest) = rest.split_at(len);
        bytes = rest;
        file.to_vec()
    })
}

fn seal(files: &mut [Vec<u8>; 5]) {
    let [manifest, segment, logs @ ..] = files;
    format::seal_segment(segment);
    logs.iter_mut().for_each(|log| format::seal_log(log, false));
    if format::u64_at(manifest, 48) >= Some(1) {
        let crc = u64::from(crc32c::crc32c(segment));
        format::put(manifest, 96, &(segment.len() as u64).to_le_bytes());
        format::put(manifest, 104, &crc.to_le_bytes());
    }
    format::seal_manifest(manifest);
}

fn files_of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let paths = paths.filter(|path| !path.ends_with("LOCK"));
    paths.map(|path| (path.clone(), fs::read(&path).expect("a file"))).collect()
}

pub fn run(bytes: &[u8]) -> bool {
    let (switches, bytes) = split(bytes);
    let mut files = unpack(bytes);
    if switches & 1 != 0 {
        seal(&mut files);
    }
    // Not for speed's sake alone: nothing here is about what a disk does.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let dir = tempfile::tempdir_in(place).expect("a directory for the files");
    for (name, file) in NAMES.iter().zip(&files).filter(|(_, file)| !file.is_empty()) {
        let is_legacy = switches & 2 != 0 && *name == NAMES[4];
        let name = if is_legacy { LEGACY_NAME } else { name };
        fs::write(dir.path().join(name), file).expect("the file");
    }
    open(dir.path())
}

fn options(dim: usize) -> tala_store::EngineOptions {
    StorageEngine::options(dim).hot_capacity(4).durability(Durability::Os)
}

fn open(dir: &Path) -> bool {
    let dim = match stored_dim(dir) {
        Ok(Some(dim)) if dim > DIM_MAX => return false,
        Ok(Some(dim)) => dim,
        Ok(None) | Err(_) => 4,
    };
    let before = files_of(dir);
    let report = verify(dir);
    assert_eq!(files_of(dir), before, "a check changes nothing");
    let engine = match options(dim).open(dir) {
        Ok(engine) => engine,
        Err(error) => {
            assert_eq!(files_of(dir), before, "what is refused ({error}) is left as it was");
            let damage =
                matches!(error, TalaError::Corrupt { .. } | TalaError::UnsupportedVersion { .. });
            match report {
                Ok(report) => {
                    assert!(damage && !report.is_ok(), "{error}, but the check says {report}");
                }
                Err(TalaError::InvalidOption { .. }) => {}
                Err(other) => panic!("{error}, but the check says {other}"),
            }
            return false;
        }
    };
    match &report {
        Ok(report) => {
            // A check may say more: it also holds the parts of a segment, the records of a log and
            // the entries of the MANIFEST against each other.
            if report.is_ok() {
                assert_eq!(report.intents, engine.len() as u64, "{report}");
            }
        }
        // A directory without a store is one for a new store.
        Err(error) => assert!(before.is_empty() && engine.is_empty(), "{error}"),
    }
    let was_contradictory = report.is_ok_and(|report| !report.is_ok());
    let held = contents(&engine);
    engine.close().expect("nothing failed");
    let engine = options(dim).open(dir).expect("it was just closed");
    assert!(engine.recovery().was_clean, "{:?}", engine.recovery());
    assert_same(&contents(&engine), &held);
    let new = Intent {
        id: IntentId::from_bytes([0xA5; 16]),
        timestamp: 77,
        raw_command: "new".to_owned(),
        embedding: vec![0.5; dim],
        context_hash: 1,
        parent_ids: Vec::new(),
        outcome: None,
        confidence: 1.0,
    };
    let id = engine.insert(new).expect("there is room");
    engine.flush().expect("there is room");
    drop(engine);
    let engine = options(dim).open(dir).expect("it was just closed");
    assert_eq!(engine.get(id).expect("it is open").expect("it was stored").timestamp, 77);
    let report = verify_closed(engine, dir);
    assert!(report.is_ok() || was_contradictory, "{:?}", report.damage);
    true
}

fn verify_closed(engine: StorageEngine, dir: &Path) -> tala_store::VerifyReport {
    engine.close().expect("nothing failed");
    verify(dir).expect("it was just closed")
}

/// What the engine gives by time, checked against what it gives by id and by meaning.
fn contents(engine: &StorageEngine) -> Vec<Intent> {
    let ever = TimeRange { start: 0, end: u64::MAX };
    let held = engine.query_temporal(ever).expect("it is open");
    let ids: HashSet<IntentId> = held.iter().map(|intent| intent.id).collect();
    assert_eq!(ids.len(), held.len(), "an id is there twice");
    // One of the end of time is in no range.
    assert!(held.len() <= engine.len());
    assert!(held.is_sorted_by_key(|intent| intent.timestamp));
    for intent in &held {
        let found = engine.get(intent.id).expect("it is open").expect("it is there by time");
        assert_same(&[found], std::slice::from_ref(intent));
    }
    let query = vec![1.0; engine.dim()];
    let hits = engine.search(Query::new(&query, usize::MAX).exact()).expect("it is open");
    let found: HashSet<IntentId> = hits.iter().map(|hit| hit.0).collect();
    assert_eq!(found.len(), hits.len(), "an id is found twice");
    for intent in &held {
        let is_searchable = intent.embedding.len() == engine.dim()
            && intent.embedding.iter().all(|value| value.is_finite());
        assert_eq!(found.contains(&intent.id), is_searchable, "{intent:?}");
    }
    held
}

fn assert_same(found: &[Intent], due: &[Intent]) {
    let bits = |intents: &[Intent]| -> Vec<u32> {
        let values = intents.iter().flat_map(|it| it.embedding.iter().chain([&it.confidence]));
        values.map(|value| value.to_bits()).collect()
    };
    let rest = |intents: &[Intent]| -> Vec<_> {
        let rest = |it: &Intent| {
            let command = it.raw_command.clone();
            (it.id, it.timestamp, command, it.context_hash, it.parent_ids.clone(), it.outcome)
        };
        intents.iter().map(rest).collect()
    };
    assert_eq!(rest(found), rest(due));
    assert_eq!(bits(found), bits(due));
}
