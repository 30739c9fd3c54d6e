//! Opening a link whose target does not exist once went round in circles until the stack was full.

use std::io::ErrorKind;

use tala_core::TalaError;
use tala_store::StorageEngine;

#[test]
fn a_link_that_leads_nowhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("missing"), &link).unwrap();
    let error = StorageEngine::open(2, &link, 10).unwrap_err();
    assert!(
        matches!(&error, TalaError::Storage { path, source, .. }
            if *path == link && source.kind() == ErrorKind::AlreadyExists),
        "{error}"
    );
}
