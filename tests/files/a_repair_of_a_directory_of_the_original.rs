//! A directory of the original implementation is repaired too: its log after a damaged place, its
//! segments as far as they go. Once it was imported, its files stand in for a damaged import.

use crate::common::{DIM, EVER, Files, TestDir, id, intent};
use crate::fixed_part::{FixedRow, legacy_segment};
use tala_core::{Intent, IntentId, IntentStore};
use tala_store::{RepairReport, StorageEngine, repair};

const LOG: &str = "current.wal";
const SEGMENT: &str = "segment_000001.tbf";

fn frame(intent: &Intent) -> Vec<u8> {
    let mut payload = intent.id.as_bytes().to_vec();
    payload.extend(intent.timestamp.to_le_bytes());
    payload.extend((intent.embedding.len() as u32).to_le_bytes());
    payload.extend(intent.embedding.iter().flat_map(|value| value.to_le_bytes()));
    payload.extend((intent.raw_command.len() as u32).to_le_bytes());
    payload.extend(intent.raw_command.as_bytes());
    [&(payload.len() as u32).to_le_bytes(), payload.as_slice()].concat()
}

/// Intents 1 to 5 in the log, 4 to 8 in a segment.
fn original() -> Files {
    let row = |number| {
        let Intent { id, timestamp, embedding, .. } = intent(number);
        let id = *id.as_bytes();
        FixedRow { id, timestamp, context_hash: 9, confidence: 0.5, status: 1, embedding }
    };
    let rows: Vec<_> = (4..9).map(row).collect();
    let log = (1..6).flat_map(|number| frame(&intent(number))).collect();
    [(LOG.to_owned(), log), (SEGMENT.to_owned(), legacy_segment(DIM, &rows, &[]))].into()
}

fn repaired(files: &Files) -> (RepairReport, Vec<Intent>) {
    let old = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(old.path().join(name), bytes).unwrap();
    }
    let new = TestDir::in_memory();
    let report = repair(old.path(), new.path()).unwrap();
    let engine = StorageEngine::open(DIM, new.path(), 100).unwrap();
    let rows = engine.query_temporal(EVER).unwrap();
    (report, rows)
}

fn ids(rows: &[Intent]) -> Vec<IntentId> {
    rows.iter().map(|row| row.id).collect()
}

#[test]
fn what_is_whole_comes_out_as_an_import_has_it() {
    let files = original();
    let dir = TestDir::of(&files);
    let imported = StorageEngine::open(DIM, dir.path(), 100).unwrap();
    let (report, rows) = repaired(&files);
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(rows, imported.query_temporal(EVER).unwrap());
}

#[test]
fn the_log_is_read_on_after_a_damaged_record() {
    let mut files = original();
    let at = frame(&intent(1)).len();
    files.get_mut(LOG).unwrap()[at + 1] ^= 0x40;
    let (report, rows) = repaired(&files);
    assert_eq!(ids(&rows), [1, 3, 4, 5, 6, 7, 8].map(id));
    let [loss] = &report.lost[..] else { panic!("{report:?}") };
    let range = (at as u64, (at + frame(&intent(2)).len()) as u64);
    assert_eq!(((loss.from, loss.until), loss.records), (range, None));
    assert!(loss.file.ends_with(LOG));
}

/// The rows that are whole in a segment that was cut; it has no checksums that would say more.
#[test]
fn a_segment_that_was_cut_gives_its_whole_rows() {
    let mut files = original();
    let segment = files.get_mut(SEGMENT).unwrap();
    let embeddings = u64::from_le_bytes(segment[56..64].try_into().unwrap()) as usize;
    segment.truncate(embeddings + 3 * 64);
    let (report, rows) = repaired(&files);
    // The log has 4 and 5 whole; of the others, 6 has its embedding.
    assert_eq!(ids(&rows), [1, 2, 3, 4, 5, 6].map(id));
    assert!(report.lost[0].file.ends_with(SEGMENT) && report.lost[0].records == Some(2));
    assert!(report.incomplete.iter().all(|it| it.missing == ["parent_ids"]), "{report:?}");
}

#[test]
fn the_old_files_stand_in_for_a_damaged_import() {
    let dir = TestDir::of(&original());
    let engine = StorageEngine::open(DIM, dir.path(), 100).unwrap();
    engine.remove(id(2)).unwrap();
    engine.insert(intent(20)).unwrap();
    engine.close().unwrap();
    let imported = "segment_000002.tbf";
    let mut files = dir.files();
    files.get_mut(imported).unwrap()[200] ^= 1;
    let (report, rows) = repaired(&files);
    assert_eq!(ids(&rows), [1, 3, 4, 5, 6, 7, 8, 20].map(id));
    assert!(report.lost[0].file.ends_with(imported), "{report:?}");
    // Without the MANIFEST, too.
    files.remove("MANIFEST");
    let (_, rows) = repaired(&files);
    assert_eq!(ids(&rows), [1, 3, 4, 5, 6, 7, 8, 20].map(id));
}

/// Its log is lost: the segments are there, and the report names the log.
#[test]
fn segments_are_saved_without_the_log() {
    let mut files = original();
    files.remove(LOG).unwrap();
    let (report, rows) = repaired(&files);
    assert_eq!(ids(&rows), [4, 5, 6, 7, 8].map(id));
    assert!(report.lost.iter().any(|loss| loss.file.ends_with(LOG)), "{report:?}");
}
