//! A killed process loses nothing that was answered, at any durability level, through any number
//! of segments and logs, whatever the store is opened with next.

use std::{fs, os::unix::fs::PermissionsExt, sync::Mutex, time::Duration};

use crate::common::{EVER, Model, TestDir, id, intent, outcome, version};
use tala_core::IntentStore;
use tala_store::{Durability, OpenProgress, StorageEngine, stored_dim};

#[test]
fn a_killed_process_loses_nothing_at_any_level() {
    let levels = [
        Durability::Sync,
        Durability::Os,
        Durability::Interval(Duration::from_millis(1)),
        Durability::Interval(Duration::from_secs(3_600)),
    ];
    for level in levels {
        let dir = TestDir::new();
        let open = |dir: &TestDir| {
            StorageEngine::options(8).hot_capacity(12).durability(level).open(dir.path()).unwrap()
        };
        let mut model = Model::default();
        let engine = open(&dir);
        for round in 0..4 {
            for number in 0..9 {
                engine.insert(intent(round * 10 + number)).unwrap();
                model.insert(intent(round * 10 + number));
            }
            engine.attach_outcome(id(round * 10), outcome(round)).unwrap();
            model.attach(id(round * 10), outcome(round));
            engine.remove(id(round * 10 + 1)).unwrap();
            model.remove(id(round * 10 + 1));
            engine.insert(version(3, round)).unwrap();
            model.insert(version(3, round));
            // Segments being written meanwhile would make the copy one of two moments.
            engine.flush().unwrap();
            engine.insert(version(5, round)).unwrap();
            model.insert(version(5, round));
            let copy = dir.copy();
            let again = open(&copy);
            assert!(!again.recovery().was_clean, "{level:?}");
            assert_eq!(again.recovery().warnings, []);
            model.check(&again);
        }
    }
}

#[test]
fn sync_and_flush_make_all_of_it_durable() {
    let dir = TestDir::new();
    let engine = StorageEngine::options(8).durability(Durability::Os).open(dir.path()).unwrap();
    engine.insert(intent(1)).unwrap();
    engine.sync().unwrap();
    engine.sync().unwrap();
    engine.insert(intent(2)).unwrap();
    engine.flush().unwrap();
    // All is in a segment now: nothing of it depends on a log.
    let files = dir.files();
    for name in dir.names(".wal") {
        assert_eq!(files[&name].len(), 0, "{name} holds what the segment covers");
    }
    assert_eq!(dir.names(".tbf"), ["segment_000001.tbf"]);
    let copy = TestDir::of(&files);
    assert_eq!(StorageEngine::open(8, copy.path(), 10).unwrap().len(), 2);
}

#[test]
fn a_store_lives_through_many_small_segments_and_other_capacities() {
    let dir = TestDir::new();
    let mut model = Model::default();
    for (round, hot_capacity) in (0..).zip([10, 10, 3, 1, 1_000, 10]) {
        let engine = StorageEngine::open(8, dir.path(), hot_capacity).unwrap();
        model.check(&engine);
        for number in 0..50 {
            let number = (round * 37 + number) % 170;
            engine.insert(version(number, round)).unwrap();
            model.insert(version(number, round));
        }
        let last = id((round * 37 + 49) % 170);
        engine.attach_outcome(last, outcome(round)).unwrap();
        model.attach(last, outcome(round));
        model.check(&engine);
        engine.close().unwrap();
        // What segments cover is not kept in logs as well.
        let logs = dir.names(".wal");
        assert!(logs.len() <= 3, "{logs:?}");
    }
    assert!(dir.names(".tbf").len() > 50);
    let engine = StorageEngine::open(8, dir.path(), 7).unwrap();
    assert!(engine.recovery().was_clean);
    let report = engine.recovery();
    assert!(report.from_segments > 0 && report.from_logs > 0, "{report:?}");
    model.check(&engine);
}

#[test]
fn other_options_of_the_index_may_be_used_next_time() {
    let dir = TestDir::new();
    let mut model = Model::default();
    for (round, m) in (0..).zip([2, 64, 16]) {
        let engine = StorageEngine::options(8)
            .m(m)
            .ef_construction(10 * m)
            .ef_search(4 * m)
            .exact_below(0)
            .open(dir.path())
            .unwrap();
        for number in 0..20 {
            engine.insert(intent(round * 20 + number)).unwrap();
            model.insert(intent(round * 20 + number));
        }
        assert_eq!(engine.len(), model.rows().len());
        for row in model.rows() {
            assert_eq!(engine.query_semantic(&row.embedding, 1).unwrap()[0].0, row.id);
        }
    }
    model.check(&StorageEngine::open(8, dir.path(), 10).unwrap());
}

#[test]
fn outcomes_alone_do_not_grow_a_log_for_ever() {
    let dir = TestDir::new();
    let open = || {
        StorageEngine::options(8)
            .log_bytes_max(4_096)
            .durability(Durability::Os)
            .open(dir.path())
            .unwrap()
    };
    let engine = open();
    engine.insert_batch((0..5).map(intent).collect()).unwrap();
    for value in 0..1_000 {
        engine.attach_outcome(id(value % 5), outcome(value)).unwrap();
    }
    // 1,000 outcomes take about 100 bytes of log each.
    engine.flush().unwrap();
    let segments = engine.stats().segments;
    assert!((10..100).contains(&segments), "{segments}");
    let log_bytes: usize = dir.names(".wal").iter().map(|name| dir.files()[name].len()).sum();
    assert!(log_bytes <= 4_096 + 200, "{log_bytes} bytes of log are left");
    engine.close().unwrap();
    let engine = open();
    for number in 0..5 {
        let found = engine.get(id(number)).unwrap().unwrap();
        assert_eq!(found.outcome, Some(outcome(995 + number)));
    }
    assert_eq!(engine.len(), 5);
}

#[test]
fn a_new_directory_is_created_with_its_parents_for_the_owner_alone() {
    let parent = TestDir::new();
    let dir = parent.file("a/b/store");
    assert_eq!(stored_dim(&dir).unwrap(), None);
    let engine = StorageEngine::open(8, &dir, 2).unwrap();
    for number in 0..5 {
        engine.insert(intent(number)).unwrap();
    }
    engine.flush().unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let mut kinds = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
        kinds += 1;
    }
    assert!(kinds >= 5);
    drop(engine);
    assert_eq!(stored_dim(&dir).unwrap(), Some(8));
    assert!(tala_store::verify(&dir).unwrap().is_ok());
}

#[test]
fn opening_tells_how_far_it_has_come() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    for number in 0..25 {
        engine.insert(intent(number)).unwrap();
    }
    engine.close().unwrap();
    let seen: &Mutex<Vec<OpenProgress>> = Box::leak(Box::default());
    let engine = StorageEngine::options(8)
        .on_open_progress(|progress| seen.lock().unwrap().push(progress))
        .open(dir.path())
        .unwrap();
    let seen = seen.lock().unwrap();
    let kinds: Vec<_> = seen
        .iter()
        .map(|progress| match progress {
            OpenProgress::Segments { done, total } => (0, *done, *total),
            OpenProgress::Logs { done, total } => (1, *done, *total),
            OpenProgress::Index { done, total } => (2, *done, *total),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(kinds.is_sorted(), "{kinds:?}");
    for kind in 0..3 {
        let last = kinds.iter().rfind(|progress| progress.0 == kind).unwrap();
        assert_eq!(last.1, last.2, "the end is reported");
    }
    assert_eq!(kinds.last(), Some(&(2, 25, 25)));
    // The graph holds every row when `open` returns.
    assert_eq!(engine.stats().linked, 25);
    assert_eq!(engine.query_temporal(EVER).unwrap().len(), 25);
}
