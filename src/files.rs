//! Durable file handling that the log, the segments and the MANIFEST share.
//!
//! Everything here names the operation and the path in its errors. Files are made with mode 0600:
//! commands hold secrets.

use std::{
    fs::{File, Metadata, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{Advice, OFlags, fadvise};
use tala_core::{StorageOperation, TalaError};

/// Mode of every file of a store: the owner's alone.
const FILE_MODE: u32 = 0o600;

/// Name of the file that a [`DirLock`] holds.
const LOCK_NAME: &str = "LOCK";

/// Creates the file `path`, which must not exist, for reading and writing.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// Opens the file `path` for reading. Whatever is not a regular file is refused, after links were
/// followed: a pipe would let its reader wait for ever, and a device has no end.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    open_regular(OpenOptions::new().read(true), path)
}

fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // Asked first, since opening a device may already do something to it.
    match std::fs::metadata(path) {
        Ok(found) => check_regular(&found)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // And asked of the open file, which another may have put there since. Where that is a pipe, the
    // flag keeps the open from waiting; to a regular file it means nothing.
    let file = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    check_regular(&file.metadata()?)?;
    Ok(file)
}

fn check_regular(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    let kind = if found.is_dir() { ErrorKind::IsADirectory } else { ErrorKind::InvalidInput };
    Err(io::Error::new(kind, "it is not a regular file"))
}

/// Makes the entries of the directory `path` durable: files created, renamed or removed in it.
///
/// # Errors
/// [`TalaError::Storage`].
pub(crate) fn sync_dir(path: &Path) -> Result<(), TalaError> {
    // The parent of a bare file name is the empty path, which means the current directory.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let dir = File::open(path).map_err(failed(StorageOperation::Open, path))?;
    dir.sync_all().map_err(failed(StorageOperation::Sync, path))
}

/// Puts `bytes` into the file `name` of `dir` so that, whenever the power fails, the name stands
/// for all of the old content or all of the new. One writer at a time, which the directory lock
/// sees to: the temporary file's name is fixed, so that a leftover is found and replaced.
///
/// # Errors
/// [`TalaError::Storage`] for the first thing that failed. The old content stands, unless only the
/// last step failed (making the new name durable): then either may.
pub(crate) fn write_atomically(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), TalaError> {
    let temporary = dir.join(format!("{name}.tmp"));
    remove_if_there(&temporary)?;
    let renamed = write_and_rename(&temporary, &dir.join(name), bytes);
    if renamed.is_err() {
        // The first error says more than one about clearing up; a leftover is replaced next time.
        let _ = std::fs::remove_file(&temporary);
    }
    renamed?;
    sync_dir(dir)
}

fn write_and_rename(temporary: &Path, target: &Path, bytes: &[u8]) -> Result<(), TalaError> {
    let mut file = create_new(temporary).map_err(failed(StorageOperation::Create, temporary))?;
    file.write_all(bytes).map_err(failed(StorageOperation::Write, temporary))?;
    file.sync_all().map_err(failed(StorageOperation::Sync, temporary))?;
    std::fs::rename(temporary, target).map_err(failed(StorageOperation::Rename, target))
}

fn remove_if_there(path: &Path) -> Result<(), TalaError> {
    match std::fs::remove_file(path) {
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
pub(crate) fn read_whole(path: &Path) -> Result<Vec<u8>, TalaError> {
    read_all(path).map_err(failed(StorageOperation::Read, path))
}

/// All bytes of the file `path`, with the error of the operating system as it is.
pub(crate) fn read_all(path: &Path) -> io::Result<Vec<u8>> {
    read_open(&mut open_to_read(path)?)
}

fn read_open(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Too large a file is an error here, not an abort of the process.
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(len)?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All bytes of the file `path` as the disk has them. After a failed fsync the page cache may show
/// bytes that the disk never got, and that the next fsync says nothing about. So recovery makes
/// the file durable as far as it can be, drops its cached pages, and reads.
///
/// # Errors
/// [`TalaError::Storage`].
pub(crate) fn reread_from_disk(path: &Path) -> Result<Vec<u8>, TalaError> {
    let mut file = open_to_read(path).map_err(failed(StorageOperation::Open, path))?;
    file.sync_all().map_err(failed(StorageOperation::Sync, path))?;
    fadvise(&file, 0, None, Advice::DontNeed)
        .map_err(|errno| TalaError::storage(StorageOperation::Read, path, errno.into()))?;
    read_open(&mut file).map_err(failed(StorageOperation::Read, path))
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
    file: File,
    path: PathBuf,
}

impl DirLock {
    /// Takes the lock of `dir`, without waiting.
    ///
    /// # Errors
    /// [`TalaError::Locked`] where another holder lives, in this process or another;
    /// [`TalaError::Storage`].
    pub(crate) fn take(dir: &Path) -> Result<Self, TalaError> {
        let path = dir.join(LOCK_NAME);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let file =
            open_regular(&mut options, &path).map_err(failed(StorageOperation::Create, &path))?;
        let locked = file.try_lock();
        Self::of(file, path, locked)
    }

    /// Keeps every writer out of `dir`, without waiting and without creating anything; `None` where
    /// there is no file to lock.
    ///
    /// # Errors
    /// As [`DirLock::take`].
    pub(crate) fn take_shared(dir: &Path) -> Result<Option<Self>, TalaError> {
        let path = dir.join(LOCK_NAME);
        let file = match open_to_read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TalaError::storage(StorageOperation::Open, path, error)),
        };
        let locked = file.try_lock_shared();
        Self::of(file, path, locked).map(Some)
    }

    fn of(file: File, path: PathBuf, locked: Result<(), TryLockError>) -> Result<Self, TalaError> {
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

    #[test]
    fn a_file_is_replaced_whole_with_nothing_left_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("name.tmp"), b"left over, and longer than the new").unwrap();
        write_atomically(dir.path(), "name", b"old").unwrap();
        write_atomically(dir.path(), "name", b"new").unwrap();
        let path = dir.path().join("name");
        assert_eq!(read_whole(&path).unwrap(), b"new");
        assert_eq!(reread_from_disk(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replacement_leaves_no_temporary_file_and_names_what_failed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("name")).unwrap();
        let error = write_atomically(dir.path(), "name", b"new").unwrap_err();
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
        for error in [read_whole(&missing).unwrap_err(), reread_from_disk(&missing).unwrap_err()] {
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
        let is_taken = || matches!(DirLock::take(dir.path()), Err(TalaError::Locked { .. }));
        let first = DirLock::take(dir.path()).unwrap();
        assert!(is_taken());
        first.release().unwrap();
        first.release().unwrap();
        let second = DirLock::take(dir.path()).unwrap();
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
        assert!(DirLock::take_shared(dir.path()).unwrap().is_none());
        assert!(!dir.path().join("LOCK").exists());
        let writer = DirLock::take(dir.path()).unwrap();
        assert!(matches!(DirLock::take_shared(dir.path()), Err(TalaError::Locked { .. })));
        drop(writer);
        let readers = [0; 2].map(|_| DirLock::take_shared(dir.path()).unwrap().unwrap());
        let error = DirLock::take(dir.path()).unwrap_err();
        assert!(matches!(&error, TalaError::Locked { path } if path == dir.path()), "{error}");
        drop(readers);
        DirLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_dropped_lock_is_free_while_a_process_being_started_has_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::take(dir.path()).unwrap();
        let copy_of_fork = lock.file.try_clone().unwrap();
        drop(lock);
        DirLock::take(dir.path()).unwrap();
        drop(copy_of_fork);
    }
}
