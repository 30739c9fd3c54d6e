//! Files mapped into memory: the one place that needs `unsafe` for it.

#![allow(unsafe_code)]

use std::{fs::File, io, path::Path};

use memmap2::Mmap;
use tala_core::{StorageOperation, TalaError};

use crate::disk::{Disk, Mapping};

/// Maps a finished file for reading; `None` where there is no such file.
///
/// Files that are mapped are never written or cut again by this crate. Another program that cuts
/// one while it is mapped can end the process with a bus error; that is a documented limit.
///
/// # Errors
/// The operating system refused, or this is no regular file.
pub(crate) fn map_file(disk: &dyn Disk, path: &Path) -> Result<Option<Mapping>, TalaError> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TalaError::storage(StorageOperation::Open, path, error)),
    };
    let map = file.map();
    map.map(Some).map_err(|error| TalaError::storage(StorageOperation::Map, path, error))
}

/// Maps an open file, for [`map_file`] alone.
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is only read. Its bytes must not change while it is borrowed: this crate
    // publishes a segment by renaming a finished file into place and never writes to it again, and
    // the directory's lock keeps other engines out. A reader that finds bytes changed by somebody
    // else all the same meets values, not references or lengths that it trusts: everything read
    // from a map is bounds-checked when it is used.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn a_mapped_file_has_the_bytes_of_a_read_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for bytes in [b"".to_vec(), b"abc".to_vec(), vec![7; 100_000]] {
            std::fs::write(&path, &bytes).unwrap();
            let map = map_file(&RealDisk, &path).unwrap().unwrap();
            assert_eq!(map[..], std::fs::read(&path).unwrap());
        }
    }

    #[test]
    fn a_missing_file_is_none_and_a_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(map_file(&RealDisk, &dir.path().join("missing")).unwrap().is_none());
        let error = map_file(&RealDisk, dir.path()).unwrap_err();
        assert!(matches!(error, TalaError::Storage { operation: StorageOperation::Open, .. }));
    }
}
