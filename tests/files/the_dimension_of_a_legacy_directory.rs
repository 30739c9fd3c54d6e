//! The dimension of a directory of the original is that of its first embedding. A log that began
//! with an intent without one once made it 0.

use crate::common::{TestDir, id, intent};
use tala_core::{Intent, IntentStore, TalaError};
use tala_store::{RecoveryWarning, StorageEngine, Wal, stored_dim};

/// A directory of the original whose log has intents with embeddings of these dimensions.
fn dir_of(dims: &[usize]) -> TestDir {
    let dir = TestDir::new();
    let mut log = Wal::create(dir.file("current.wal")).unwrap();
    for (number, &dim) in dims.iter().enumerate() {
        let Intent { id, timestamp, raw_command, .. } = intent(number as u64);
        log.append(id.as_bytes(), timestamp, &vec![1.0; dim], &raw_command).unwrap();
    }
    log.sync().unwrap();
    dir
}

#[test]
fn it_is_that_of_the_first_embedding() {
    for (dims, expected) in
        [(&[0, 0, 8, 3][..], Some(8)), (&[3, 8], Some(3)), (&[0], None), (&[], None)]
    {
        assert_eq!(stored_dim(dir_of(dims).path()).unwrap(), expected, "{dims:?}");
    }
}

/// An import is for good. One with a mistaken dimension once left every intent where no search
/// finds it.
#[test]
fn a_dimension_that_no_embedding_has_is_refused() {
    for (dims, expected) in [(&[8, 8][..], 8), (&[0, 8, 3], 8)] {
        let dir = dir_of(dims);
        let mut before = dir.files();
        let error = StorageEngine::open(4, dir.path(), 10).unwrap_err();
        assert!(
            matches!(error, TalaError::DimensionMismatch { expected: found, got: 4 }
                if found == expected),
            "{error}"
        );
        before.insert("LOCK".to_owned(), Vec::new());
        assert!(dir.files() == before);
        let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
        assert_eq!(engine.len(), dims.len());
        assert_eq!(engine.query_semantic(&[1.0; 8], 1).unwrap()[0].0, id(u64::from(dims[0] == 0)));
    }
}

#[test]
fn one_that_some_embedding_has_is_taken() {
    let dir = dir_of(&[3, 0, 8]);
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    assert_eq!(engine.recovery().warnings, [RecoveryWarning::NotSearchable { intents: 2 }]);
    assert_eq!(engine.query_semantic(&[1.0; 8], 9).unwrap()[0].0, id(2));
}

#[test]
fn any_is_taken_where_there_is_no_embedding() {
    for dims in [&[][..], &[0, 0]] {
        let dir = dir_of(dims);
        let engine = StorageEngine::open(5, dir.path(), 10).unwrap();
        assert_eq!(engine.len(), dims.len());
    }
}
