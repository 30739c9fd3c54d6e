//! Every format version that was ever written is kept as a small directory in `tests/fixtures`, with a
//! list of what it holds, and must open for ever.
//!
//! A new version gets a new directory: `TALA_WRITE_FIXTURE=NAME cargo test --test files
//! fixtures_of_every_version_open` writes `tests/fixtures/NAME` with what the build writes now, and
//! refuses to touch one that is there. It is then committed, and never changed.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use crate::common::{DIM, EVER, id, intent, outcome, version};
use crate::fixed_part::{FixedEdge, FixedRow, legacy_segment};
use tala_core::{Intent, IntentStore};
use tala_store::{StorageEngine, repair, stored_dim, verify};

/// The list of what a directory holds, beside its files.
const CONTENTS: &str = "contents.txt";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// All of a store as text, every bit of it: one line for each intent, by time and order of insertion.
fn contents_of(dir: &Path) -> String {
    let dim = stored_dim(dir).unwrap().unwrap();
    let engine = StorageEngine::open(dim, dir, 100).unwrap();
    let mut text = format!("dim {dim}\n");
    for row in engine.query_temporal(EVER).unwrap() {
        let bits = |values: &[f32]| -> String {
            values.iter().map(|value| format!("{:08x}", value.to_bits())).collect()
        };
        let parents: Vec<String> = row.parent_ids.iter().map(ToString::to_string).collect();
        let outcome = row.outcome.map_or("-".to_owned(), |it| {
            format!("{}/{}/{}", it.status as u8, it.latency_ns, it.exit_code)
        });
        writeln!(
            text,
            "{} time {} context {} confidence {} outcome {outcome} parents [{}] embedding {} {:?}",
            row.id,
            row.timestamp,
            row.context_hash,
            bits(&[row.confidence]),
            parents.join(" "),
            bits(&row.embedding),
            row.raw_command,
        )
        .unwrap();
        assert_eq!(engine.get(row.id).unwrap().unwrap(), row);
        if row.embedding.len() == dim {
            let best = engine.query_semantic(&row.embedding, 1).unwrap();
            assert!((best[0].1 - 1.0).abs() < 1e-5, "{best:?}");
        }
    }
    engine.close().unwrap();
    text
}

fn copy_of(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != CONTENTS {
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    dir
}

/// A segment, a log that the MANIFEST lists, and the log of a closed or a killed engine.
fn write_ours(dir: &Path, is_closed: bool) {
    let open = || StorageEngine::open(DIM, dir, 100).unwrap();
    let engine = open();
    for number in 0..6 {
        engine.insert(intent(number)).unwrap();
    }
    engine.attach_outcome(id(2), outcome(2)).unwrap();
    engine.flush().unwrap();
    engine.remove(id(1)).unwrap();
    engine.attach_outcome(id(3), outcome(3)).unwrap();
    engine.insert(version(4, 1)).unwrap();
    engine.flush().unwrap();
    engine.insert_batch((10..13).map(intent).collect()).unwrap();
    engine.close().unwrap();
    let engine = open();
    let whole = Intent { outcome: Some(outcome(7)), ..intent(20) };
    engine.insert(whole).unwrap();
    engine.attach_outcome(id(11), outcome(11)).unwrap();
    engine.remove(id(12)).unwrap();
    if is_closed {
        engine.close().unwrap();
        return;
    }
    let killed: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    engine.close().unwrap();
    drop(engine);
    killed.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
}

/// What the original implementation leaves: `current.wal` and a segment, both without anything of ours.
fn write_original(dir: &Path) {
    let mut log = Vec::new();
    for Intent { id, timestamp, raw_command, embedding, .. } in (2..5).map(intent) {
        let mut payload = id.as_bytes().to_vec();
        payload.extend(timestamp.to_le_bytes());
        payload.extend((embedding.len() as u32).to_le_bytes());
        payload.extend(embedding.iter().flat_map(|value| value.to_le_bytes()));
        payload.extend((raw_command.len() as u32).to_le_bytes());
        payload.extend(raw_command.as_bytes());
        log.extend((payload.len() as u32).to_le_bytes());
        log.extend(payload);
    }
    fs::write(dir.join("current.wal"), log).unwrap();
    let row = |number: u64| FixedRow {
        id: *id(number).as_bytes(),
        timestamp: intent(number).timestamp,
        context_hash: number,
        confidence: 0.5,
        status: number as u8 % 4,
        embedding: intent(number).embedding,
    };
    let rows: Vec<_> = (0..4).map(row).collect();
    let edge = FixedEdge { parent: 0, child: 2, relation: 0, weight: 1.0 };
    fs::write(dir.join("segment_000001.tbf"), legacy_segment(DIM, &rows, &[edge])).unwrap();
}

/// The versions of the formats that the files of this store have, as fixtures are named after them.
fn versions_in(dir: &Path) -> String {
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let u16_at =
        |bytes: &[u8], at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    let (manifest, segment) = (read("MANIFEST"), read("segment_000001.tbf"));
    assert_eq!((&manifest[..8], &segment[..4]), (&b"TALAMANI"[..], &b"TALB"[..]));
    let manifest = u32::from_le_bytes(manifest[8..12].try_into().unwrap());
    let segment = format!("{}.{}", u16_at(&segment, 6), u16_at(&segment, 4));
    // The last eight bytes of the first record of any log that has one.
    let log = (1..9).map(|number| dir.join(format!("log_{number:06}.wal")));
    let log = log.filter_map(|path| fs::read(path).ok()).find(|bytes| !bytes.is_empty()).unwrap();
    let end = 4 + u32::from_le_bytes(log[..4].try_into().unwrap()) as usize;
    assert_eq!(log[end - 8..end - 5], [0xF5, 0x54, 0x57]);
    format!("manifest{manifest}-log{}-segment{segment}", log[end - 5])
}

/// A build that writes another version has to bring its fixture.
#[test]
fn what_this_build_writes_is_kept() {
    for (ending, is_closed) in [("closed", true), ("killed", false)] {
        let dir = tempfile::tempdir().unwrap();
        write_ours(dir.path(), is_closed);
        let name = format!("{ending}-{}", versions_in(dir.path()));
        let kept = fixtures().join(&name);
        assert!(kept.is_dir(), "write it: TALA_WRITE_FIXTURE={name}");
        assert_eq!(versions_in(&kept), versions_in(dir.path()));
    }
}

#[test]
fn every_fixture_holds_what_it_held() {
    let mut names = Vec::new();
    for entry in fs::read_dir(fixtures()).unwrap() {
        let fixture = entry.unwrap().path();
        let expected = fs::read_to_string(fixture.join(CONTENTS)).unwrap();
        assert!(expected.lines().count() > 4, "{}", fixture.display());
        let old = copy_of(&fixture);
        let report = verify(old.path()).unwrap();
        assert!(report.is_ok(), "{}: {:?}", fixture.display(), report.damage);
        // As it was, then as this build has left it, and as a repair has it.
        let new = tempfile::tempdir().unwrap();
        repair(old.path(), new.path()).unwrap();
        for dir in [old.path(), old.path(), new.path()] {
            assert_eq!(contents_of(dir), expected, "{}", fixture.display());
        }
        names.push(fixture.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    for name in ["closed-manifest1-log1-segment1.0", "killed-manifest1-log1-segment1.0", "original"]
    {
        assert!(names.iter().any(|known| known == name), "{name} is missing: {names:?}");
    }
}

/// Writes a new fixture where that is asked for; otherwise shows that what would be written opens.
#[test]
fn a_fixture_can_be_written() {
    let name = std::env::var("TALA_WRITE_FIXTURE").ok();
    let dir = tempfile::tempdir().unwrap();
    match name.as_deref() {
        Some(name) if name.starts_with("original") => write_original(dir.path()),
        Some(name) => write_ours(dir.path(), !name.starts_with("killed")),
        None => write_ours(dir.path(), true),
    }
    let contents = contents_of(copy_of(dir.path()).path());
    assert!(contents.lines().count() > 4, "{contents}");
    let Some(name) = name else { return };
    let fixture = fixtures().join(&name);
    fs::create_dir_all(fixtures()).unwrap();
    fs::create_dir(&fixture).expect("a fixture is written once and never changed");
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "LOCK" {
            fs::copy(entry.path(), fixture.join(entry.file_name())).unwrap();
        }
    }
    fs::write(fixture.join(CONTENTS), contents).unwrap();
}
