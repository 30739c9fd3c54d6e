//! A directory with a `current.wal` and no MANIFEST was written by the original implementation: it
//! is read once, and its files stay as they were.

use crate::common;
use crate::common::{Files, Model, TestDir, as_imported, id, intent, legacy_frame, outcome};
use crate::fixed_part::{FixedEdge, FixedRow, legacy_segment};
use tala_core::{Intent, IntentStore, Outcome, Status, TalaError};
use tala_store::{RecoveryWarning, StorageEngine, replay_wal, stored_dim};

const LOG: &str = "current.wal";

fn log_of(intents: &[Intent]) -> Vec<u8> {
    intents.iter().flat_map(legacy_frame).collect()
}

fn row_of(intent: &Intent, status: Status) -> FixedRow {
    FixedRow {
        id: *intent.id.as_bytes(),
        timestamp: intent.timestamp,
        context_hash: intent.context_hash,
        confidence: intent.confidence,
        status: status as u8,
        embedding: intent.embedding.clone(),
    }
}

fn dir_of(files: &[(&str, Vec<u8>)]) -> (TestDir, Files) {
    let files: Files =
        files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
    (TestDir::of(&files), files)
}

fn assert_untouched(dir: &TestDir, old: &Files) {
    let now = dir.files();
    for (name, bytes) in old {
        assert!(now.get(name) == Some(bytes), "{name} changed");
    }
}

#[test]
fn a_log_alone() {
    // An id that comes twice: the later record wins.
    let intents = [intent(1), intent(2), Intent { id: id(1), ..intent(3) }, intent(4)];
    let (dir, old) = dir_of(&[(LOG, log_of(&intents))]);
    let mut model = Model::default();
    intents.into_iter().for_each(|intent| model.insert(as_imported(intent)));
    assert_eq!(stored_dim(dir.path()).unwrap(), Some(8));

    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    assert_eq!(engine.recovery().warnings, []);
    assert_eq!(engine.recovery().from_logs, 4);
    model.check(&engine);
    assert_untouched(&dir, &old);
    engine.insert(intent(5)).unwrap();
    model.insert(intent(5));
    engine.attach_outcome(id(1), outcome(1)).unwrap();
    model.attach(id(1), outcome(1));
    engine.close().unwrap();
    for _ in 0..2 {
        let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
        model.check(&engine);
    }
    assert_untouched(&dir, &old);
    assert_eq!(replay_wal(dir.file(LOG)).unwrap().len(), 4);
}

#[test]
fn segments_and_a_log_that_wins_over_them() {
    let bare = |number| Intent { parent_ids: vec![], ..intent(number) };
    let first = [bare(1), bare(2), bare(3)];
    let edges = [FixedEdge { parent: 0, child: 2, relation: 0, weight: 1.0 }];
    let statuses = [Status::Success, Status::Pending, Status::Failure];
    let rows: Vec<_> =
        first.iter().zip(statuses).map(|(intent, status)| row_of(intent, status)).collect();
    let second = [bare(4), bare(5)];
    let second_rows: Vec<_> = second.iter().map(|row| row_of(row, Status::Pending)).collect();
    // The original keeps its log for ever, so most is in both.
    let log = [bare(2), bare(3), bare(5), bare(6)];
    let (dir, old) = dir_of(&[
        ("segment_000001.tbf", legacy_segment(8, &rows, &edges)),
        ("segment_000002.tbf", legacy_segment(8, &second_rows, &[])),
        (LOG, log_of(&log)),
    ]);

    let outcome_of = |status| Some(Outcome { status, latency_ns: 0, exit_code: 0 });
    let mut model = Model::default();
    for (row, status) in first.iter().cloned().zip(statuses) {
        let outcome = (status != Status::Pending).then(|| outcome_of(status).unwrap());
        let parent_ids = if row.id == id(3) { vec![id(1)] } else { vec![] };
        model.insert(Intent { raw_command: String::new(), outcome, parent_ids, ..row });
    }
    for row in second {
        model.insert(Intent { raw_command: String::new(), ..row });
    }
    for row in log {
        // The command is the log's; what a frame has no room for stays.
        let known = model.rows().iter().find(|known| known.id == row.id).cloned();
        let known = known.unwrap_or_else(|| as_imported(row.clone()));
        model.insert(Intent {
            raw_command: row.raw_command,
            timestamp: row.timestamp,
            embedding: row.embedding,
            ..known
        });
    }
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    assert_eq!(engine.recovery().from_segments, 5);
    model.check(&engine);
    assert_untouched(&dir, &old);
    engine.close().unwrap();
    model.check(&StorageEngine::open(8, dir.path(), 10).unwrap());
    assert_untouched(&dir, &old);
    // New segments get numbers that the old ones do not have.
    assert!(dir.names(".tbf").contains(&"segment_000003.tbf".to_owned()));
}

#[test]
fn a_log_that_changes_later_is_an_error_until_it_is_put_back() {
    let (dir, old) = dir_of(&[(LOG, log_of(&[intent(1), intent(2)]))]);
    drop(StorageEngine::open(8, dir.path(), 10).unwrap());
    let imported = dir.files();
    let mut flipped = old[LOG].clone();
    flipped[60] ^= 1;
    let longer = [&old[LOG][..], &legacy_frame(&intent(3))].concat();
    for (changed, offset) in [(flipped, old[LOG].len()), (longer, old[LOG].len()), (vec![], 0)] {
        std::fs::write(dir.file(LOG), changed).unwrap();
        let before = dir.files();
        match StorageEngine::open(8, dir.path(), 10).err().unwrap() {
            TalaError::Corrupt { file, offset: found, .. } => {
                assert_eq!((file, found), (dir.file(LOG), offset as u64));
            }
            other => panic!("{other}"),
        }
        assert!(dir.files() == before);
    }
    dir.put(&imported);
    assert_eq!(StorageEngine::open(8, dir.path(), 10).unwrap().len(), 2);
}

#[test]
fn what_the_door_would_refuse_is_there_by_id_and_time_and_counted() {
    let nan = Intent { embedding: vec![f32::NAN; 8], ..intent(2) };
    let short = Intent { embedding: vec![1.0; 3], ..intent(3) };
    let infinite = Intent { embedding: vec![f32::INFINITY; 8], ..intent(4) };
    let intents = [intent(1), nan, short, infinite, intent(5)];
    let (dir, old) = dir_of(&[(LOG, log_of(&intents))]);
    let check = |engine: &StorageEngine| {
        assert_eq!(engine.len(), 5);
        for intent in &intents {
            let expected = as_imported(intent.clone());
            assert!(common::is_same(&engine.get(intent.id).unwrap().unwrap(), &expected));
        }
        assert_eq!(engine.query_temporal(common::EVER).unwrap().len(), 5);
        let hits = engine.query_semantic(&intents[0].embedding, 100).unwrap();
        let mut found: Vec<_> = hits.iter().map(|hit| hit.0).collect();
        found.sort();
        assert_eq!(found, [id(1), id(5)]);
    };
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    assert_eq!(engine.recovery().warnings, [RecoveryWarning::NotSearchable { intents: 3 }]);
    check(&engine);
    // They may be replaced by ones that are searched, and removed.
    engine.attach_outcome(id(2), outcome(2)).unwrap();
    assert_eq!(engine.get(id(2)).unwrap().unwrap().outcome, Some(outcome(2)));
    drop(engine);
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    engine.insert(intent(2)).unwrap();
    assert!(engine.remove(id(3)).unwrap());
    assert_eq!(engine.query_semantic(&intent(2).embedding, 1).unwrap()[0].0, id(2));
    drop(engine);
    assert_eq!(StorageEngine::open(8, dir.path(), 10).unwrap().len(), 4);
    assert_untouched(&dir, &old);
}

#[test]
fn a_torn_end_is_left_out_with_a_warning_and_damage_is_refused() {
    let whole = log_of(&[intent(1), intent(2), intent(3)]);
    let two = legacy_frame(&intent(1)).len() + legacy_frame(&intent(2)).len();
    let (dir, old) = dir_of(&[(LOG, whole[..two + 20].to_vec())]);
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    let warning = RecoveryWarning::TornTail { file: dir.file(LOG), offset: two as u64, bytes: 20 };
    assert_eq!(engine.recovery().warnings, [warning]);
    assert_eq!(engine.len(), 2);
    drop(engine);
    assert_untouched(&dir, &old);

    let mut damaged = whole.clone();
    damaged[legacy_frame(&intent(1)).len()] ^= 1;
    let (dir, old) = dir_of(&[(LOG, damaged)]);
    match StorageEngine::open(8, dir.path(), 10).err().unwrap() {
        TalaError::Corrupt { file, offset, .. } => {
            assert_eq!((file, offset), (dir.file(LOG), legacy_frame(&intent(1)).len() as u64));
        }
        other => panic!("{other}"),
    }
    assert_untouched(&dir, &old);
    dir.put(&[(LOG.to_owned(), whole)].into());
    assert_eq!(StorageEngine::open(8, dir.path(), 10).unwrap().len(), 3);
}

#[test]
fn a_damaged_segment_of_another_dimension_or_none_is_refused() {
    let rows = [row_of(&intent(1), Status::Pending)];
    let segment = legacy_segment(8, &rows, &[]);
    let (dir, old) = dir_of(&[("segment_000001.tbf", segment[..200].to_vec()), (LOG, vec![])]);
    match StorageEngine::open(8, dir.path(), 10).err().unwrap() {
        TalaError::Corrupt { file, .. } => assert_eq!(file, dir.file("segment_000001.tbf")),
        other => panic!("{other}"),
    }
    assert_untouched(&dir, &old);

    let (dir, old) = dir_of(&[("segment_000001.tbf", segment.clone()), (LOG, vec![])]);
    let error = StorageEngine::open(4, dir.path(), 10).err().unwrap();
    assert!(matches!(error, TalaError::DimensionMismatch { expected: 8, got: 4 }), "{error}");
    assert_untouched(&dir, &old);
    assert_eq!(StorageEngine::open(8, dir.path(), 10).unwrap().len(), 1);

    // Segments without any log are no directory of the original, nor one of ours.
    let (dir, old) = dir_of(&[("segment_000001.tbf", segment)]);
    match StorageEngine::open(8, dir.path(), 10).err().unwrap() {
        TalaError::Corrupt { file, .. } => assert_eq!(file, dir.file("MANIFEST")),
        other => panic!("{other}"),
    }
    assert_untouched(&dir, &old);
}
