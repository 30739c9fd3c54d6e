//! A damaged store is repaired into a new one: all that is intact is there, exactly; what is not is
//! named by file and range; and the old directory stays as it is.

use std::{collections::BTreeMap, fs};

use crate::common::{
    DIM, EVER, Files, Model, Random, TestDir, id, intent, is_same, outcome, version,
};
use tala_core::{Intent, IntentId, IntentStore, TalaError};
use tala_store::{Durability, RepairReport, StorageEngine, repair, verify};

const MANIFEST: &str = "MANIFEST";

/// Three segments and three logs, with outcomes, removals, replacements and a batch in all of them.
struct Store {
    files: Files,
    model: Model,
    /// Every version of an intent that was ever stored, with every outcome it ever had.
    ever: BTreeMap<IntentId, Vec<Intent>>,
}

impl Store {
    fn new() -> Self {
        let dir = TestDir::new();
        let mut store =
            Self { files: Files::new(), model: Model::default(), ever: BTreeMap::new() };
        for round in 0..6_u64 {
            let options = StorageEngine::options(DIM).hot_capacity(1_000);
            let engine = options.open(dir.path()).unwrap();
            let first = round * 100;
            for number in first..first + 6 {
                store.insert(&engine, intent(number));
            }
            let batch: Vec<Intent> = (first + 20..first + 24).map(intent).collect();
            engine.insert_batch(batch.clone()).unwrap();
            batch.into_iter().for_each(|intent| store.note(intent));
            if round > 0 {
                store.insert(&engine, version(first - 100, round));
                engine.attach_outcome(id(first - 99), outcome(round)).unwrap();
                store.model.attach(id(first - 99), outcome(round));
                assert!(engine.remove(id(first - 98)).unwrap());
                store.model.remove(id(first - 98));
            }
            engine.attach_outcome(id(first + 3), outcome(first)).unwrap();
            store.model.attach(id(first + 3), outcome(first));
            store.note_all();
            if round < 3 {
                engine.flush().unwrap();
            }
            engine.close().unwrap();
        }
        store.files = dir.files();
        assert_eq!((dir.names(".tbf").len(), store.logs().len()), (3, 3));
        store
    }

    fn insert(&mut self, engine: &StorageEngine, intent: Intent) {
        engine.insert(intent.clone()).unwrap();
        self.note(intent);
    }

    fn note(&mut self, intent: Intent) {
        self.model.insert(intent);
        self.note_all();
    }

    fn note_all(&mut self) {
        for row in self.model.rows() {
            let versions = self.ever.entry(row.id).or_default();
            if versions.iter().all(|known| !is_same(known, row)) {
                versions.push(row.clone());
            }
        }
    }

    fn logs(&self) -> Vec<String> {
        self.files.keys().filter(|name| name.ends_with(".wal")).cloned().collect()
    }

    fn segments(&self) -> Vec<String> {
        self.files.keys().filter(|name| name.ends_with(".tbf")).cloned().collect()
    }

    /// Repairs these files, checks what holds of every repair, and gives what came of it.
    fn repaired(&self, files: &Files) -> (RepairReport, TestDir, Vec<Intent>) {
        let old = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(old.path().join(name), bytes).unwrap();
        }
        let new = TestDir::in_memory();
        let report = repair(old.path(), new.path()).unwrap();
        let left: Files = fs::read_dir(old.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
            })
            .collect();
        assert!(left == *files, "the old directory changed");
        let checked = verify(new.path()).unwrap();
        assert!(checked.is_ok(), "{:?}", checked.damage);
        assert_eq!((checked.warnings.len(), checked.intents), (0, report.intents));
        let engine = StorageEngine::open(DIM, new.path(), 100).unwrap();
        assert!(engine.recovery().was_clean);
        let rows = engine.query_temporal(EVER).unwrap();
        assert_eq!(rows.len() as u64, report.intents);
        // Nothing is there that never was, but for what is named.
        for row in &rows {
            if report.incomplete.iter().any(|incomplete| incomplete.id == row.id) {
                continue;
            }
            let is_known = self.ever[&row.id].iter().any(|known| is_same(known, row));
            assert!(is_known, "{row:?} never was");
        }
        if report.is_complete() {
            self.model.check(&engine);
        }
        engine.close().unwrap();
        (report, new, rows)
    }

    fn ids_of(&self) -> Vec<IntentId> {
        self.model.rows().iter().map(|row| row.id).collect()
    }
}

fn ids(rows: &[Intent]) -> Vec<IntentId> {
    rows.iter().map(|row| row.id).collect()
}

fn without(files: &Files, name: &str) -> Files {
    let mut files = files.clone();
    files.remove(name).unwrap();
    files
}

#[test]
fn a_store_without_damage_comes_out_whole() {
    let store = Store::new();
    let (report, new, _) = store.repaired(&store.files);
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.segments_read, report.logs_read, report.doubts.len()), (3, 3, 0));
    // Writing goes on in it.
    let engine = StorageEngine::open(DIM, new.path(), 100).unwrap();
    engine.insert(intent(9_000)).unwrap();
    engine.close().unwrap();
    let engine = StorageEngine::open(DIM, new.path(), 100).unwrap();
    assert_eq!(engine.len(), store.model.rows().len() + 1);
}

#[test]
fn a_lost_manifest_is_made_up_for() {
    let store = Store::new();
    let mut cut = store.files.clone();
    cut.get_mut(MANIFEST).unwrap().truncate(40);
    let mut flipped = store.files.clone();
    flipped.get_mut(MANIFEST).unwrap()[30] ^= 4;
    for files in [without(&store.files, MANIFEST), cut, flipped] {
        let (report, _, rows) = store.repaired(&files);
        assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
        assert!(report.lost[0].file.ends_with(MANIFEST) && report.lost[0].records == Some(0));
        let mut found: Vec<Intent> = rows;
        found.sort_by_key(|row| row.id);
        let mut expected = store.model.rows().to_vec();
        expected.sort_by_key(|row| row.id);
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(&expected).all(|(found, expected)| is_same(found, expected)));
    }
}

/// Every record of a log but the one that was hit is there, and the report says which bytes and how many.
#[test]
fn one_record_of_a_log_is_lost_and_no_other() {
    let store = Store::new();
    let mut turn = 0;
    for log in store.logs() {
        let bytes = &store.files[&log];
        let mut at = 0;
        while at < bytes.len() {
            let len = 4 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            let flipped = [at, at + 21, at + len - 1][turn % 3];
            turn += 1;
            let mut files = store.files.clone();
            files.get_mut(&log).unwrap()[flipped] ^= 2;
            let (report, _, rows) = store.repaired(&files);
            let [loss] = &report.lost[..] else { panic!("{:?}", report.lost) };
            assert!(loss.file.ends_with(&log));
            assert_eq!((loss.from, loss.until), (at as u64, (at + len) as u64));
            assert_eq!(loss.records, Some(1), "{loss}");
            // One record says at most one thing of one intent.
            let (found, expected) = (ids(&rows), store.ids_of());
            let gone = expected.iter().filter(|id| !found.contains(id)).count();
            let back = found.iter().filter(|id| !expected.contains(id)).count();
            let is_differing =
                |row: &&Intent| store.model.rows().iter().all(|known| !is_same(known, row));
            let differing = rows.iter().filter(is_differing).count();
            assert!(gone + differing <= 1 && back <= 1, "{gone} {back} {differing}");
            at += len;
        }
    }
}

#[test]
fn a_missing_file_is_all_that_is_lost() {
    let store = Store::new();
    for name in store.logs().into_iter().chain(store.segments()) {
        let (report, _, rows) = store.repaired(&without(&store.files, &name));
        assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
        assert!(report.lost[0].file.ends_with(&name));
        assert!(report.lost[0].records.is_some_and(|records| records > 9), "{:?}", report.lost);
        assert!(rows.len() + 12 >= store.model.rows().len());
        assert!(report.doubts.iter().any(|doubt| doubt.contains("removed is back")));
    }
}

/// A segment of many blocks, of which one is damaged: the rows of the others are there.
#[test]
fn the_rows_of_intact_blocks_are_saved() {
    let dir = TestDir::new();
    let dim = 1_000;
    let row = |number: u64| Intent { embedding: Random::new(number).vector(dim), ..intent(number) };
    let engine = StorageEngine::options(dim).durability(Durability::Os).open(dir.path()).unwrap();
    engine.insert_batch((0..200).map(row).collect()).unwrap();
    engine.attach_outcome(id(7), outcome(7)).unwrap();
    engine.flush().unwrap();
    engine.close().unwrap();
    let files = dir.files();
    let name = "segment_000001.tbf";
    let len = files[name].len();
    let embeddings_end = u64::from_le_bytes(files[name][64..72].try_into().unwrap()) as usize;
    for at in (500..len).step_by(31_337).chain([len - 1, len - 30]) {
        let old = tempfile::tempdir().unwrap();
        for (name, bytes) in &files {
            fs::write(old.path().join(name), bytes).unwrap();
        }
        let mut bytes = files[name].clone();
        bytes[at] ^= 8;
        fs::write(old.path().join(name), &bytes).unwrap();
        let new = TestDir::in_memory();
        let report = repair(old.path(), new.path()).unwrap();
        assert!(!report.lost.is_empty() && report.lost.iter().all(|it| it.file.ends_with(name)));
        let engine = StorageEngine::open(dim, new.path(), 100).unwrap();
        let mut whole = 0;
        for number in 0..200 {
            let Some(found) = engine.get(id(number)).unwrap() else { continue };
            let mut expected = row(number);
            expected.outcome = (number == 7).then(|| outcome(7));
            let missing: Vec<&str> = report
                .incomplete
                .iter()
                .filter(|incomplete| incomplete.id == id(number))
                .flat_map(|incomplete| incomplete.missing.iter().copied())
                .collect();
            whole += usize::from(missing.is_empty());
            // What is not named is exact, and what is named is empty and not wrong.
            for field in missing {
                match field {
                    "embedding" => expected.embedding = vec![],
                    "raw_command" => expected.raw_command = String::new(),
                    "parent_ids" => expected.parent_ids = vec![],
                    "outcome" => expected.outcome = None,
                    "context_hash" => expected.context_hash = 0,
                    "confidence" => expected.confidence = 0.0,
                    other => panic!("{other}"),
                }
            }
            assert!(is_same(&found, &expected), "byte {at}: {found:?}");
        }
        let is_footer = at >= len - 40;
        let block = at / 65_536 * 65_536;
        // Ids and times of all rows are in block 0, tables and commands in the last; those between
        // have embeddings of 17 rows each.
        let (whole_min, intents_min) = match (is_footer, block) {
            (true, _) => (200, 200),
            (_, 0) => (0, 0),
            (_, block) if block + 65_536 < embeddings_end => (180, 200),
            _ => (0, 180),
        };
        let intents = report.intents as usize;
        assert!(whole >= whole_min && intents >= intents_min, "byte {at}: {whole} whole, {report}");
        assert_eq!(whole == 200, is_footer, "byte {at}");
    }
}

#[test]
fn a_target_that_is_not_empty_or_lies_inside_is_refused() {
    let store = Store::new();
    let old = TestDir::of(&store.files);
    let new = TestDir::in_memory();
    fs::write(new.file("notes.txt"), "mine").unwrap();
    for to in [new.path().to_owned(), old.file("new"), old.path().to_owned()] {
        let error = repair(old.path(), &to).unwrap_err();
        assert!(matches!(error, TalaError::InvalidInput { field: "to", .. }), "{error}");
    }
    assert!(old.files() == store.files);
    let engine = StorageEngine::open(DIM, old.path(), 100).unwrap();
    let error = repair(old.path(), new.file("new")).unwrap_err();
    assert!(matches!(error, TalaError::Locked { .. }), "{error}");
    assert!(!new.file("new").exists());
    drop(engine);
    // No store at all.
    let other = TestDir::new();
    let error = repair(new.path(), other.path()).unwrap_err();
    assert!(matches!(error, TalaError::Storage { .. }), "{error}");
    assert!(other.files().is_empty());
}

/// A directory is that of an interrupted repair until its MANIFEST is there.
#[test]
fn an_unfinished_repair_does_not_open() {
    let store = Store::new();
    let (_, new, _) = store.repaired(&store.files);
    let segment = new.names(".tbf")[0].clone();
    let files = new.files();
    for keep_segment in [true, false] {
        let mut unfinished = Files::new();
        unfinished.insert("REPAIR.unfinished".to_owned(), vec![]);
        if keep_segment {
            unfinished.insert(segment.clone(), files[&segment].clone());
        }
        let dir = TestDir::of(&unfinished);
        let error = StorageEngine::open(DIM, dir.path(), 100).unwrap_err();
        assert!(
            matches!(&error, TalaError::Corrupt { file, .. } if *file == dir.file(MANIFEST)),
            "{error}"
        );
        assert!(!verify(dir.path()).unwrap().is_ok());
        if keep_segment {
            // What it had read and not written yet, nobody can count here.
            let again = TestDir::in_memory();
            let report = repair(dir.path(), again.path()).unwrap();
            let [loss] = &report.lost[..] else { panic!("{report:?}") };
            assert!(loss.records.is_none() && loss.what.contains("interrupted"), "{loss}");
        }
    }
    // The sign may stay behind where the power failed after the MANIFEST was there.
    fs::write(new.file("REPAIR.unfinished"), "").unwrap();
    StorageEngine::open(DIM, new.path(), 100).unwrap().close().unwrap();
    assert!(!new.file("REPAIR.unfinished").exists());
}

/// A log that was cut off, as the MANIFEST says, has records that never counted.
#[test]
fn what_never_counted_stays_out() {
    let dir = TestDir::new();
    let engine = StorageEngine::options(DIM).durability(Durability::Os).open(dir.path()).unwrap();
    engine.insert(intent(1)).unwrap();
    engine.sync().unwrap();
    for number in 2..6 {
        engine.insert(intent(number)).unwrap();
    }
    let mut killed = dir.files();
    engine.close().unwrap();
    drop(engine);
    // The second record never reached the disk; the others did, but nobody may have them.
    let first = &killed["log_000001.wal"];
    let len = 4 + u32::from_le_bytes(first[..4].try_into().unwrap()) as usize;
    killed.get_mut("log_000001.wal").unwrap()[len + 40] ^= 1;
    dir.put(&killed);
    let engine = StorageEngine::open(DIM, dir.path(), 100).unwrap();
    assert_eq!(engine.len(), 1);
    engine.insert(intent(10)).unwrap();
    engine.insert(intent(11)).unwrap();
    engine.close().unwrap();
    let files = dir.files();
    for files in [files.clone(), without(&files, MANIFEST)] {
        let old = tempfile::tempdir().unwrap();
        for (name, bytes) in &files {
            fs::write(old.path().join(name), bytes).unwrap();
        }
        let new = TestDir::in_memory();
        let report = repair(old.path(), new.path()).unwrap();
        let engine = StorageEngine::open(DIM, new.path(), 100).unwrap();
        let mut found = ids(&engine.query_temporal(EVER).unwrap());
        found.sort();
        assert_eq!(found, [id(1), id(10), id(11)], "{report:?}");
    }
}
