//! A log in which no write was whole was once removed by the open that warned of it.

use crate::common::{Files, TestDir, intent};
use tala_core::IntentStore;
use tala_store::{RecoveryWarning, StorageEngine, verify};

/// A store that was killed after the only write to its second log, and the bytes of that log.
fn killed() -> (Files, Vec<u8>) {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    engine.insert(intent(1)).unwrap();
    engine.close().unwrap();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    engine.insert_batch(vec![intent(2), intent(3)]).unwrap();
    let files = dir.files();
    let log = files["log_000002.wal"].clone();
    (files, log)
}

#[test]
fn a_log_of_which_nothing_counts_is_set_aside() {
    let (mut files, whole) = killed();
    let first_len = 4 + u32::from_le_bytes(whole[..4].try_into().unwrap()) as usize;
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    let torn = [
        whole[..whole.len() - 1].to_vec(),
        // One record of the batch, whole.
        whole[..first_len].to_vec(),
        whole[..3].to_vec(),
        flipped,
        vec![0; 5000],
    ];
    for log in torn {
        files.insert("log_000002.wal".to_owned(), log.clone());
        let dir = TestDir::of(&files);
        let (file, kept_as) = (dir.file("log_000002.wal"), dir.file("log_000002.wal.torn"));
        let before = verify(dir.path()).unwrap();
        assert!(before.is_ok() && before.warnings.len() == 1, "{:?}", before.warnings);

        let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
        let bytes = log.len() as u64;
        let warning = RecoveryWarning::NothingCounts { file, bytes, kept_as: kept_as.clone() };
        assert_eq!(engine.recovery().warnings, [warning]);
        assert_eq!(engine.len(), 1);
        engine.insert(intent(4)).unwrap();
        engine.close().unwrap();

        // It is nobody's log from then on, and its number is not used again.
        for _ in 0..2 {
            let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
            assert_eq!((engine.recovery().warnings.len(), engine.len()), (0, 2));
        }
        assert!(std::fs::read(&kept_as).unwrap() == log);
        assert!(!dir.file("log_000002.wal").exists());
        let after = verify(dir.path()).unwrap();
        let names_it = |warning: &String| warning.contains("log_000002.wal.torn");
        assert!(after.is_ok() && after.warnings.iter().any(names_it), "{:?}", after.warnings);
    }
}

/// The process that published the MANIFEST may have died before it renamed the log.
#[test]
fn it_is_set_aside_by_a_later_open_too() {
    let (mut files, whole) = killed();
    files.insert("log_000002.wal".to_owned(), whole[..9].to_vec());
    let dir = TestDir::of(&files);
    drop(StorageEngine::open(8, dir.path(), 10).unwrap());
    std::fs::rename(dir.file("log_000002.wal.torn"), dir.file("log_000002.wal")).unwrap();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    assert_eq!(engine.recovery().warnings.len(), 1);
    assert!(std::fs::read(dir.file("log_000002.wal.torn")).unwrap() == whole[..9]);
    engine.close().unwrap();
}

/// What is there under the name already is worth as much.
#[test]
fn nothing_is_replaced_by_it() {
    let (mut files, whole) = killed();
    files.insert("log_000002.wal".to_owned(), whole[..9].to_vec());
    files.insert("log_000002.wal.torn".to_owned(), b"precious".to_vec());
    let dir = TestDir::of(&files);
    for _ in 0..2 {
        let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
        let file = dir.file("log_000002.wal");
        let warning =
            RecoveryWarning::NothingCounts { file: file.clone(), bytes: 9, kept_as: file };
        assert_eq!(engine.recovery().warnings, [warning]);
        engine.close().unwrap();
    }
    let now = dir.files();
    assert!(now["log_000002.wal"] == whole[..9] && now["log_000002.wal.torn"] == b"precious");
}

#[test]
fn logs_that_are_empty_or_only_marked_go() {
    let dir = TestDir::new();
    for _ in 0..3 {
        StorageEngine::open(8, dir.path(), 10).unwrap().close().unwrap();
    }
    let (mut files, _) = killed();
    files.insert("log_000002.wal".to_owned(), Vec::new());
    let emptied = TestDir::of(&files);
    let engine = StorageEngine::open(8, emptied.path(), 10).unwrap();
    assert_eq!(engine.recovery().warnings, []);
    assert_eq!(dir.names(".wal").len() + dir.names(".torn").len(), 1);
    assert_eq!(emptied.names(".wal"), ["log_000001.wal", "log_000003.wal"]);
    assert_eq!(emptied.names(".torn"), [""; 0]);
    engine.close().unwrap();
}

/// Its writes are whole, but of an earlier place in the order of writes than is due here.
#[test]
fn the_log_of_another_store_is_set_aside() {
    let (_, foreign) = killed();
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    engine.insert_batch((1..5).map(intent).collect()).unwrap();
    engine.close().unwrap();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    let mut files = dir.files();
    engine.close().unwrap();
    files.insert("log_000002.wal".to_owned(), foreign.clone());

    let dir = TestDir::of(&files);
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    assert_eq!((engine.len(), engine.recovery().warnings.len()), (4, 1));
    assert!(std::fs::read(dir.file("log_000002.wal.torn")).unwrap() == foreign);
    engine.close().unwrap();
}
