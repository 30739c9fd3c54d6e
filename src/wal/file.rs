//! The log of a store on disk: numbered files, one of them open for appending.
//!
//! This file owns writing and syncing. What is written, and when it has to be synced, is the
//! caller's business.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use tala_core::{StorageOperation, TalaError};

use super::prepare::{Ahead, PREPARED_NAME};
use crate::{
    disk::{DiskFile, LogSyncs, StoreDir},
    files::sync_dir,
    ids::FileNumber,
    sync::now_ns,
};

/// Name of the log file with this number, such as `log_000001.wal`.
pub(crate) fn log_name(number: FileNumber) -> String {
    format!("log_{:06}.wal", number.0)
}

/// The number in the name of a log file, or `None` for any other name.
pub(crate) fn parse_log_name(name: &str) -> Option<FileNumber> {
    let digits = name.strip_prefix("log_")?.strip_suffix(".wal")?;
    let number = FileNumber(digits.parse().ok()?);
    // Only the name that would be written counts, so that no two names have one number.
    (log_name(number) == name).then_some(number)
}

/// What is appended without a sync is written back in steps of so many bytes.
const WRITE_BACK_BYTES: u64 = 1 << 20;

/// How much of the open file the disk was asked to write. Left to the sync that ends the file, all of it
/// would be written while every writer waits.
#[derive(Default, Debug)]
struct WriteBack {
    /// Bytes from the beginning that the disk was asked to write, or has.
    begun: u64,
}

impl WriteBack {
    /// What the disk is to begin with, of a file of `len` bytes; it counts as begun.
    fn due(&mut self, len: u64) -> Option<Range<u64>> {
        let waiting = self.begun..len;
        (len.saturating_sub(self.begun) >= WRITE_BACK_BYTES).then(|| {
            self.begun = len;
            waiting
        })
    }
}

/// Where a log writer puts its bytes.
///
/// A failure is final: after it nothing is known about what is on disk, and every later call
/// reports the same error.
pub trait LogFile: Send {
    /// Hands `bytes` to the operating system, all of them, after everything appended before.
    fn append(&mut self, bytes: &[u8]) -> Result<(), TalaError>;

    /// Makes everything appended so far durable.
    fn sync(&mut self) -> Result<(), TalaError>;

    /// Creates the file `next` and makes its name durable, without going on there yet. Before a
    /// mark that names the next file is written, that file must exist: a mark that says so of a
    /// missing file means that a file was lost.
    fn prepare(&mut self, next: FileNumber) -> Result<(), TalaError>;

    /// Goes on in the file `next`, created first unless it was prepared. The caller has synced
    /// the old one.
    fn rotate(&mut self, next: FileNumber) -> Result<(), TalaError>;

    /// Gives back the room that was prepared after what was appended, if there is any: nothing more
    /// will be.
    fn cut(&mut self) -> Result<(), TalaError> {
        Ok(())
    }

    /// Takes note that a segment will cover what was appended so far: the next file begins with what
    /// no segment covers.
    fn sealed(&mut self) {}

    /// Whether the room that was prepared in the file is used up, much is to come before a segment
    /// covers it, and in the next one some is ready: going on there makes syncs faster.
    fn is_used_up(&mut self) -> bool {
        false
    }
}

/// A log file being written.
#[derive(Debug)]
struct OpenLog {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    number: FileNumber,
    /// So many bytes of it were filled with zeros before anything was appended.
    prepared_bytes: u64,
}

impl OpenLog {
    fn create(dir: &StoreDir, number: FileNumber) -> Result<Self, Failure> {
        let path = dir.join(log_name(number));
        let file = dir.disk().create_new(&path);
        let file = file.map_err(|error| failure(StorageOperation::Create, &path, error))?;
        make_durable(dir)?;
        Ok(Self { file, path, number, prepared_bytes: 0 })
    }

    /// Makes the log `number` of a file that was prepared for it; `None` where that cannot be had.
    fn adopt(
        dir: &StoreDir,
        number: FileNumber,
        (file, prepared_bytes): (Box<dyn DiskFile>, u64),
    ) -> Result<Option<Self>, Failure> {
        let path = dir.join(log_name(number));
        // Whoever put a file there meanwhile would lose it by the renaming, and nobody may create one
        // who does not have the directory's lock.
        if !is_missing(dir, &path) || dir.disk().rename(&dir.join(PREPARED_NAME), &path).is_err() {
            return Ok(None);
        }
        make_durable(dir)?;
        Ok(Some(Self { file, path, number, prepared_bytes }))
    }
}

fn is_missing(dir: &StoreDir, path: &Path) -> bool {
    dir.disk().kind(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Makes the names in `dir` durable.
fn make_durable(dir: &StoreDir) -> Result<(), Failure> {
    sync_dir(dir.disk(), dir.path()).map_err(|error| match error {
        TalaError::Storage { operation, path, source } => Failure { operation, path, source },
        other => failure(StorageOperation::Sync, dir.path(), io::Error::other(other)),
    })
}

/// The parts of a [`TalaError::Storage`], which is reported more than once.
#[derive(Clone, Debug)]
struct Failure {
    operation: StorageOperation,
    path: PathBuf,
    source: Arc<io::Error>,
}

fn failure(operation: StorageOperation, path: &Path, source: io::Error) -> Failure {
    Failure { operation, path: path.to_owned(), source: Arc::new(source) }
}

impl From<Failure> for TalaError {
    fn from(failure: Failure) -> Self {
        let Failure { operation, path, source } = failure;
        Self::Storage { operation, path, source }
    }
}

/// Log files in a directory.
#[derive(Debug)]
pub(crate) struct DiskLog {
    dir: StoreDir,
    open: OpenLog,
    /// Bytes of the open file.
    len: u64,
    write_back: WriteBack,
    /// Whether a segment will cover all of it.
    is_sealed: bool,
    /// For those who write beside it.
    syncs: LogSyncs,
    prepared: Option<OpenLog>,
    /// The file after this one, where files are prepared ahead.
    ahead: Option<Ahead>,
    failed: Option<Failure>,
}

impl DiskLog {
    /// Creates the log file `number` in `dir`, and makes its name durable.
    ///
    /// # Errors
    /// [`TalaError::Storage`], also where the file exists.
    pub(crate) fn create(dir: &StoreDir, number: FileNumber) -> Result<Self, TalaError> {
        let open = OpenLog::create(dir, number)?;
        let dir = dir.clone();
        let syncs = LogSyncs::default();
        let write_back = WriteBack::default();
        let (prepared, ahead, failed) = (None, None, None);
        Ok(Self { dir, open, len: 0, write_back, is_sealed: false, syncs, prepared, ahead, failed })
    }

    /// What is known of its syncs.
    pub(crate) const fn syncs(&self) -> &LogSyncs {
        &self.syncs
    }

    /// Has the files after this one prepared by who is behind `ahead`.
    pub(crate) fn prepare_ahead(&mut self, ahead: Ahead) {
        self.ahead = Some(ahead);
    }

    /// Whether no file will be prepared while this one is open.
    #[cfg(test)]
    pub(crate) fn has_given_up_on_the_next(&self) -> bool {
        self.ahead.as_ref().is_none_or(Ahead::has_given_up)
    }

    /// Whether nothing is left of the room that was prepared in the open file.
    fn has_no_room(&self) -> bool {
        self.len >= self.open.prepared_bytes
    }

    /// Runs `step` unless something failed before, and remembers its failure.
    fn guarded(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), TalaError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone().into());
        }
        step(self).map_err(|failed| {
            self.failed = Some(failed.clone());
            failed.into()
        })
    }
}

impl LogFile for DiskLog {
    fn append(&mut self, bytes: &[u8]) -> Result<(), TalaError> {
        self.guarded(|log| {
            let OpenLog { file, path, .. } = &log.open;
            file.write_all_at(bytes, log.len)
                .map_err(|error| failure(StorageOperation::Write, path, error))?;
            log.len += bytes.len() as u64;
            if let Some(due) = log.write_back.due(log.len) {
                file.begin_write_back(due.start, due.end - due.start);
            }
            if let Some(ahead) = &mut log.ahead {
                ahead.look(log.len);
            }
            Ok(())
        })
    }

    fn sync(&mut self) -> Result<(), TalaError> {
        self.guarded(|log| {
            let OpenLog { file, path, .. } = &log.open;
            let since_ns = now_ns();
            log.syncs.begin();
            file.sync_data().map_err(|error| failure(StorageOperation::Sync, path, error))?;
            log.syncs.end(now_ns().saturating_sub(since_ns));
            log.write_back.begun = log.len;
            Ok(())
        })
    }

    fn prepare(&mut self, next: FileNumber) -> Result<(), TalaError> {
        self.guarded(|log| {
            if log.prepared.as_ref().is_some_and(|prepared| prepared.number == next) {
                return Ok(());
            }
            let ready = match &mut log.ahead {
                Some(ahead) if next == log.open.number.next() => ahead.take(),
                _ => None,
            };
            let adopted = match ready {
                Some(ready) => OpenLog::adopt(&log.dir, next, ready)?,
                None => None,
            };
            log.prepared = match adopted {
                Some(adopted) => Some(adopted),
                None => Some(OpenLog::create(&log.dir, next)?),
            };
            Ok(())
        })
    }

    fn rotate(&mut self, next: FileNumber) -> Result<(), TalaError> {
        self.guarded(|log| {
            log.open = match log.prepared.take() {
                Some(prepared) if prepared.number == next => prepared,
                _ => OpenLog::create(&log.dir, next)?,
            };
            if let Some(ahead) = &mut log.ahead {
                ahead.begun(log.len, log.is_sealed);
            }
            log.len = 0;
            log.write_back = WriteBack::default();
            log.is_sealed = false;
            Ok(())
        })
    }

    fn cut(&mut self) -> Result<(), TalaError> {
        self.guarded(|log| {
            if log.len < log.open.prepared_bytes {
                let OpenLog { file, path, .. } = &log.open;
                file.set_len(log.len)
                    .map_err(|error| failure(StorageOperation::Write, path, error))?;
                log.open.prepared_bytes = log.len;
            }
            Ok(())
        })
    }

    fn is_used_up(&mut self) -> bool {
        let goes_on = |ahead: &Ahead| ahead.is_ready() && ahead.has_much_to_come(self.len);
        self.has_no_room() && self.ahead.as_ref().is_some_and(goes_on)
    }

    fn sealed(&mut self) {
        self.is_sealed = true;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{disk::RealDisk, files::read_whole};

    #[test]
    fn names_and_numbers_are_one_to_one() {
        for (number, name) in [(1, "log_000001.wal"), (1_234_567, "log_1234567.wal")] {
            assert_eq!(log_name(FileNumber(number)), name);
            assert_eq!(parse_log_name(name), Some(FileNumber(number)));
        }
        for name in [
            "log_1.wal",
            "log_0000001.wal",
            "log_+00001.wal",
            "log_000001.wal.tmp",
            "log_.wal",
            "log_99999999999999999999.wal",
            "current.wal",
        ] {
            assert_eq!(parse_log_name(name), None, "{name}");
        }
    }

    #[test]
    fn bytes_go_to_the_file_that_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = DiskLog::create(&StoreDir::real(dir.path()), FileNumber(1)).unwrap();
        log.append(b"ab").unwrap();
        log.append(b"c").unwrap();
        log.sync().unwrap();
        log.prepare(FileNumber(2)).unwrap();
        log.prepare(FileNumber(2)).unwrap();
        log.append(b"d").unwrap();
        log.rotate(FileNumber(2)).unwrap();
        log.append(b"e").unwrap();
        log.rotate(FileNumber(3)).unwrap();
        log.sync().unwrap();
        for (number, content) in [(1, &b"abcd"[..]), (2, b"e"), (3, b"")] {
            let path = dir.path().join(log_name(FileNumber(number)));
            assert_eq!(read_whole(&RealDisk, &path).unwrap(), content);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_is_not_synced_is_written_back_in_steps_and_once() {
        let mut write_back = WriteBack::default();
        let (mut len, mut next) = (0, 0);
        for _ in 0..10_000 {
            len += 1_600;
            if let Some(due) = write_back.due(len) {
                assert_eq!((due.start, due.end), (next, len), "all that came since");
                next = len;
            }
            assert!(len - next < WRITE_BACK_BYTES);
        }
        let dir = tempfile::tempdir().unwrap();
        let mut log = DiskLog::create(&StoreDir::real(dir.path()), FileNumber(1)).unwrap();
        let megabyte = vec![7; WRITE_BACK_BYTES as usize];
        log.append(&megabyte[1..]).unwrap();
        assert_eq!(log.write_back.begun, 0);
        log.append(&[7; 2]).unwrap();
        assert_eq!(log.write_back.begun, WRITE_BACK_BYTES + 1);
        log.append(b"x").unwrap();
        log.sync().unwrap();
        assert_eq!(log.write_back.begun, log.len, "a sync writes all there is");
        log.rotate(FileNumber(2)).unwrap();
        assert_eq!((log.write_back.begun, log.len), (0, 0));
    }

    #[test]
    fn an_existing_file_is_never_written_to() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log_000001.wal"), b"precious").unwrap();
        let error = DiskLog::create(&StoreDir::real(dir.path()), FileNumber(1)).unwrap_err();
        assert!(
            matches!(&error, TalaError::Storage { operation: StorageOperation::Create, source, .. }
                if source.kind() == io::ErrorKind::AlreadyExists),
            "{error}"
        );
        assert_eq!(read_whole(&RealDisk, &dir.path().join("log_000001.wal")).unwrap(), b"precious");
    }

    #[test]
    fn after_a_failure_every_call_reports_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log_000002.wal"), b"").unwrap();
        let mut log = DiskLog::create(&StoreDir::real(dir.path()), FileNumber(1)).unwrap();
        let first = log.rotate(FileNumber(2)).unwrap_err().to_string();
        for later in
            [log.append(b"x"), log.sync(), log.prepare(FileNumber(3)), log.rotate(FileNumber(3))]
        {
            assert_eq!(later.unwrap_err().to_string(), first);
        }
        assert_eq!(read_whole(&RealDisk, &log.open.path).unwrap(), b"");
        assert!(!dir.path().join("log_000003.wal").exists());
    }

    #[test]
    fn a_full_disk_is_an_error_of_the_write() {
        // A device that takes no bytes stands in for the full disk.
        let path = PathBuf::from("/dev/full");
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let open = OpenLog { file: Box::new(file), path, number: FileNumber(1), prepared_bytes: 0 };
        let dir = StoreDir::real(Path::new("/dev"));
        let mut log = DiskLog {
            dir,
            open,
            len: 0,
            write_back: WriteBack::default(),
            is_sealed: false,
            syncs: LogSyncs::default(),
            prepared: None,
            ahead: None,
            failed: None,
        };
        let error = log.append(b"x").unwrap_err();
        assert!(
            matches!(&error, TalaError::Storage { operation: StorageOperation::Write, source, .. }
                if source.kind() == io::ErrorKind::StorageFull),
            "{error}"
        );
        assert_eq!(log.sync().unwrap_err().to_string(), error.to_string());
    }
}
