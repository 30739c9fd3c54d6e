//! Durable file handling that the log, the segments and the MANIFEST share.
//!
//! Everything here names the operation and the path in its errors.

use std::{
    fs::TryLockError,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use tala_core::{StorageOperation, TalaError};

use crate::disk::{Disk, DiskFile, EntryKind, LogSyncs, StoreDir, write_gently};

/// Name of the file that a [`DirLock`] holds.
pub(crate) const LOCK_NAME: &str = "LOCK";

/// Makes the entries of the directory `path` durable: files created, renamed or removed in it.
///
/// # Errors
/// [`TalaError::Storage`].
pub(crate) fn sync_dir(disk: &dyn Disk, path: &Path) -> Result<(), TalaError> {
    // The parent of a bare file name is the empty path, which means the current directory.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let dir = disk.open_dir(path).map_err(failed(StorageOperation::Open, path))?;
    dir.sync_all().map_err(failed(StorageOperation::Sync, path))
}

/// Puts `bytes` into the file `name` of `dir` so that, whenever the power fails, the name stands
/// for all of the old content or all of the new. One writer at a time, which the directory lock
/// sees to: the temporary file's name is fixed, so that a leftover is found and replaced.
///
/// # Errors
/// [`TalaError::Storage`] for the first thing that failed. The old content stands, unless only the
/// last step failed (making the new name durable): then either may.
pub(crate) fn write_atomically(dir: &StoreDir, name: &str, bytes: &[u8]) -> Result<(), TalaError> {
    write_atomically_beside(dir, name, bytes, &LogSyncs::default())
}

/// As [`write_atomically`], of much, and beside a log that is synced meanwhile.
///
/// # Errors
/// As there.
pub(crate) fn write_atomically_beside(
    dir: &StoreDir,
    name: &str,
    bytes: &[u8],
    syncs: &LogSyncs,
) -> Result<(), TalaError> {
    let temporary = dir.join(format!("{name}.tmp"));
    remove_if_there(dir.disk(), &temporary)?;
    let renamed = write_and_rename(dir.disk(), &temporary, &dir.join(name), (bytes, syncs));
    if renamed.is_err() {
        // The first error says more than one about clearing up; a leftover is replaced next time.
        let _ = dir.disk().remove(&temporary);
    }
    renamed?;
    sync_dir(dir.disk(), dir.path())
}

fn write_and_rename(
    disk: &dyn Disk,
    temporary: &Path,
    target: &Path,
    (bytes, syncs): (&[u8], &LogSyncs),
) -> Result<(), TalaError> {
    let file = disk.create_new(temporary).map_err(failed(StorageOperation::Create, temporary))?;
    write_gently(&*file, bytes, syncs).map_err(failed(StorageOperation::Write, temporary))?;
    file.sync_all().map_err(failed(StorageOperation::Sync, temporary))?;
    disk.rename(temporary, target).map_err(failed(StorageOperation::Rename, target))
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), TalaError> {
    match disk.remove(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(TalaError::storage(StorageOperation::Remove, path, error))
        }
        _ => Ok(()),
    }
}

/// All bytes of the file `path`.
///
/// # Errors
/// [`TalaError::Storage`].
pub(crate) fn read_whole(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, TalaError> {
    read_all(disk, path).map_err(failed(StorageOperation::Read, path))
}

/// All bytes of the file `path`, with the error of the operating system as it is.
pub(crate) fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    disk.open(path)?.read_whole()
}

/// All bytes of the file `path` as the disk has them. After a failed fsync the page cache may show
/// bytes that the disk never got, and that the next fsync says nothing about. So recovery makes
/// the file durable as far as it can be, drops its cached pages, and reads, into memory that is there
/// already.
///
/// # Errors
/// [`TalaError::Storage`].
pub(crate) fn reread_from_disk(
    disk: &dyn Disk,
    path: &Path,
    mut bytes: Vec<u8>,
) -> Result<Vec<u8>, TalaError> {
    let file = disk.open(path).map_err(failed(StorageOperation::Open, path))?;
    file.sync_all().map_err(failed(StorageOperation::Sync, path))?;
    file.drop_cached().map_err(failed(StorageOperation::Read, path))?;
    file.read_whole_into(&mut bytes).map_err(failed(StorageOperation::Read, path))?;
    Ok(bytes)
}

/// Whether this error says that the file `path` is lost to who reads it, and nothing of the others: the
/// device cannot give what it holds, it is no regular file, links to it lead round in a circle, it may
/// not be read, or memory does not hold it.
pub(crate) fn is_unreadable(disk: &dyn Disk, path: &Path, error: &io::Error) -> bool {
    let is_refused = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::OutOfMemory);
    let is_io = error.raw_os_error() == Some(Errno::IO.raw_os_error());
    is_refused || is_io || is_no_file(disk, path, error)
}

/// Whether this error of opening `path` comes from what stands there: no regular file, or links in a
/// circle.
fn is_no_file(disk: &dyn Disk, path: &Path, error: &io::Error) -> bool {
    let is_irregular = || disk.kind(path).is_ok_and(|kind| kind != EntryKind::File);
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) || is_irregular()
}

/// For `map_err`: the storage error of `operation` on `path`.
pub(crate) fn failed(
    operation: StorageOperation,
    path: &Path,
) -> impl FnOnce(io::Error) -> TalaError {
    move |source| TalaError::storage(operation, path, source)
}

/// The right to write to a directory, or to read it undisturbed: a flock-type lock, exclusive or
/// shared, on the file `LOCK` in it. Free again when released, when dropped, and when the process dies in any way. The file stays.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: Box<dyn DiskFile>,
    path: PathBuf,
}

impl DirLock {
    /// Takes the lock of `dir`, without waiting.
    ///
    /// # Errors
    /// [`TalaError::Locked`] where another holder lives, in this process or another;
    /// [`TalaError::Storage`].
    pub(crate) fn take(dir: &StoreDir) -> Result<Self, TalaError> {
        let path = dir.join(LOCK_NAME);
        let file =
            dir.disk().open_or_create(&path).map_err(failed(StorageOperation::Create, &path))?;
        let locked = file.try_lock();
        Self::of(file, path, locked)
    }

    /// Keeps every writer out of `dir`, without waiting and without creating anything.
    ///
    /// # Errors
    /// As [`DirLock::take`].
    pub(crate) fn take_shared(dir: &StoreDir) -> Result<SharedLock, TalaError> {
        let path = dir.join(LOCK_NAME);
        let file = match dir.disk().open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(SharedLock::Missing),
            Err(error) => {
                let is_no_file = is_no_file(dir.disk(), &path, &error);
                let error = TalaError::storage(StorageOperation::Open, path, error);
                return if is_no_file { Ok(SharedLock::Impossible(error)) } else { Err(error) };
            }
        };
        let locked = file.try_lock_shared();
        Self::of(file, path, locked).map(SharedLock::Held)
    }

    fn of(
        file: Box<dyn DiskFile>,
        path: PathBuf,
        locked: Result<(), TryLockError>,
    ) -> Result<Self, TalaError> {
        match locked {
            Ok(()) => Ok(Self { file, path }),
            Err(TryLockError::WouldBlock) => {
                let dir = path.parent().unwrap_or(Path::new(""));
                Err(TalaError::Locked { path: dir.to_owned() })
            }
            Err(TryLockError::Error(source)) => {
                Err(TalaError::storage(StorageOperation::Lock, path, source))
            }
        }
    }

    /// Gives the lock back; again does nothing.
    ///
    /// # Errors
    /// [`TalaError::Storage`]; the lock is free at the latest when the process ends.
    pub(crate) fn release(&self) -> Result<(), TalaError> {
        self.file.unlock().map_err(failed(StorageOperation::Lock, &self.path))
    }
}

/// What became of the wish to keep writers out of a directory.
#[derive(Debug)]
pub(crate) enum SharedLock {
    /// They are kept out until this is dropped, which is all that is done with it.
    Held(#[allow(dead_code)] DirLock),
    /// There is no file to lock, and a writer may make one.
    Missing,
    /// What stands in its place can be locked by nobody, so that nobody can open the store.
    Impossible(TalaError),
}

impl SharedLock {
    /// Whether it is held.
    pub(crate) const fn is_held(&self) -> bool {
        matches!(self, Self::Held(_))
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing the file frees the lock only when no copy of the descriptor is left, and a
        // process that another thread is just starting has one until it runs its own program.
        let _ = self.release();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn a_file_is_replaced_whole_with_nothing_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreDir::real(dir.path());
        std::fs::write(dir.path().join("name.tmp"), b"left over, and longer than the new").unwrap();
        write_atomically(&store, "name", b"old").unwrap();
        write_atomically(&store, "name", b"new").unwrap();
        let path = dir.path().join("name");
        assert_eq!(read_whole(&RealDisk, &path).unwrap(), b"new");
        assert_eq!(reread_from_disk(&RealDisk, &path, b"longer".to_vec()).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replacement_leaves_no_temporary_file_and_names_what_failed() {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreDir::real(dir.path());
        std::fs::create_dir(dir.path().join("name")).unwrap();
        let error = write_atomically(&store, "name", b"new").unwrap_err();
        let renaming = StorageOperation::Rename;
        assert!(
            matches!(&error, TalaError::Storage { operation, path, .. }
                if *operation == renaming && *path == dir.path().join("name")),
            "{error}"
        );
        assert!(!dir.path().join("name.tmp").exists());
    }

    #[test]
    fn a_missing_file_is_not_found_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        for error in [
            read_whole(&RealDisk, &missing).unwrap_err(),
            reread_from_disk(&RealDisk, &missing, Vec::new()).unwrap_err(),
        ] {
            assert!(
                matches!(&error, TalaError::Storage { path, source, .. }
                    if *path == missing && source.kind() == ErrorKind::NotFound),
                "{error}"
            );
        }
    }

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreDir::real(dir.path());
        let is_taken = || matches!(DirLock::take(&store), Err(TalaError::Locked { .. }));
        let first = DirLock::take(&store).unwrap();
        assert!(is_taken());
        first.release().unwrap();
        first.release().unwrap();
        let second = DirLock::take(&store).unwrap();
        assert!(is_taken());
        // The first holder's end takes nothing from the second.
        drop(first);
        assert!(is_taken());
        drop(second);
        assert!(!is_taken());
        let mode = dir.path().join("LOCK").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_shared_lock_creates_nothing_and_keeps_writers_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreDir::real(dir.path());
        assert!(matches!(DirLock::take_shared(&store).unwrap(), SharedLock::Missing));
        assert!(!dir.path().join("LOCK").exists());
        let writer = DirLock::take(&store).unwrap();
        assert!(matches!(DirLock::take_shared(&store), Err(TalaError::Locked { .. })));
        drop(writer);
        let readers = [0; 2].map(|_| DirLock::take_shared(&store).unwrap());
        assert!(readers.iter().all(SharedLock::is_held));
        let error = DirLock::take(&store).unwrap_err();
        assert!(matches!(&error, TalaError::Locked { path } if path == dir.path()), "{error}");
        drop(readers);
        DirLock::take(&store).unwrap();
    }

    #[test]
    fn a_dropped_lock_is_free_while_a_process_being_started_has_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreDir::real(dir.path());
        let file = std::fs::File::create(dir.path().join(LOCK_NAME)).unwrap();
        let copy_of_fork = file.try_clone().unwrap();
        let locked = file.try_lock();
        let lock = DirLock::of(Box::new(file), dir.path().join(LOCK_NAME), locked).unwrap();
        drop(lock);
        DirLock::take(&store).unwrap();
        drop(copy_of_fork);
    }
}
