//! The next log file, filled with zeros before it is needed.
//!
//! A sync after an append to a growing file also has to write down the file's new length and where
//! its new blocks are; one after writing over zeros that are on the disk has not, and takes a third
//! less. Filling a file takes long, so a thread of its own does it, a piece at a time, and nobody
//! waits for it: until a file is ready, and where none can be made, logs grow as they always could. Only
//! a failed sync is everybody's: see `PrepareActor::give_up_the_disk`.
//!
//! A file being prepared has the temporary name of the log that it may become. Only the log's writer
//! gives it the log's own name, when it goes on there; whatever has a temporary name is no log, and
//! opening the store removes it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tala_core::{StopCause, StorageOperation, TalaError};

use super::file::log_name;
use crate::{
    actor::{Actor, Ending, Fate, Flow, Handle, spawn},
    disk::{DiskFile, StoreDir},
    files::DirLock,
    ids::FileNumber,
    sync::{Answer, Inbox, Outbox, Patience, Received, Reply, mailbox, one_shot},
};

/// A log this long has the next one prepared: a store that hardly writes needs none.
const PREPARE_FROM_BYTES: u64 = 256 << 10;
/// Files that are prepared are so long, or a multiple of it.
const STEP_BYTES: u64 = 1 << 20;
/// The first file that is prepared.
const FIRST_BYTES: u64 = 4 << 20;
/// The largest.
const LARGEST_BYTES: u64 = 64 << 20;
/// Where one was used up, the next but one is so many times as large.
const GROWTH: u64 = 4;
/// Zeros that are written, and made durable, at once: what a commit may have to wait behind.
const PIECE_BYTES: u64 = 512 << 10;

/// Whether a log file of this length may have been prepared, so that zeros at its end are room. All
/// of one that is nothing else may be: its process ended before its first write.
pub(crate) const fn is_prepared_len(len: u64) -> bool {
    len >= FIRST_BYTES && len.is_multiple_of(STEP_BYTES)
}

/// The temporary name of the log file with this number.
pub(crate) fn prepared_name(number: FileNumber) -> String {
    format!("{}.tmp", log_name(number))
}

/// What the thread is asked for.
#[derive(Debug)]
pub(crate) struct Fill {
    /// Whose temporary name the file gets.
    number: FileNumber,
    bytes: u64,
    /// Answered with the file; dropped where there will be none.
    reply: Reply<Box<dyn DiskFile>>,
}

/// The thread.
struct PrepareActor {
    dir: StoreDir,
    /// The last file that was prepared, if the log's writer has not renamed it since.
    last: Option<PathBuf>,
    /// A request that came while a file was being made that is of no use any more.
    later: Option<Fill>,
    /// Of the engine, which a failed sync ends.
    fate: Arc<Fate>,
    /// No other engine may have the directory while this one may still remove a file from it.
    _lock: Arc<DirLock>,
}

impl PrepareActor {
    /// Makes a file of zeros. Gives up where another file is asked for meanwhile, as the log goes on
    /// without this one then, and where the thread is to end.
    fn fill(
        &mut self,
        path: &Path,
        bytes: u64,
        inbox: &Inbox<Fill>,
    ) -> io::Result<Box<dyn DiskFile>> {
        let file = self.dir.disk().create_new(path)?;
        let mut at = 0;
        while at < bytes {
            match inbox.receive(Patience::None) {
                Received::Nothing => {}
                Received::Letter(later) => {
                    self.later = Some(later);
                    return Err(io::ErrorKind::Interrupted.into());
                }
                Received::Closed => return Err(io::ErrorKind::Interrupted.into()),
            }
            let piece = (bytes - at).min(PIECE_BYTES);
            file.write_zeros(at, piece)?;
            file.sync_data().inspect_err(|error| self.give_up_the_disk(path, error))?;
            at += piece;
        }
        file.sync_all().inspect_err(|error| self.give_up_the_disk(path, error))?;
        Ok(file)
    }

    /// Ends the engine. A file that cannot be made leaves logs that grow; but a failed sync is told
    /// once, to whoever asked, and may have been for a block of the file system that the log's file
    /// is in as well. The log's next sync would say that all is well.
    fn give_up_the_disk(&self, path: &Path, error: &io::Error) {
        let source =
            error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
        let cause = StopCause::Failed(TalaError::storage(StorageOperation::Sync, path, source));
        self.fate.settle(Ending { actor: Self::NAME, cause: Arc::new(cause) });
    }

    fn remove(&self, path: &Path) {
        // What cannot be removed is in nobody's way, and the next open tries again.
        let _ = self.dir.disk().remove(path);
    }

    fn remove_last(&mut self) {
        if let Some(path) = self.last.take() {
            self.remove(&path);
        }
    }
}

impl Actor for PrepareActor {
    const NAME: &'static str = "tala-prepare";
    type Letter = Fill;

    fn step(&mut self, letter: Fill, inbox: &Inbox<Fill>) -> Result<Flow, StopCause> {
        let mut wanted = Some(letter);
        while let Some(Fill { number, bytes, reply }) = wanted {
            // The log's writer asks for the next only when it has renamed the last, or wants it no more.
            self.remove_last();
            let path = self.dir.join(prepared_name(number));
            match self.fill(&path, bytes, inbox) {
                Ok(file) => {
                    self.last = Some(path);
                    reply.send(file);
                }
                Err(_) => self.remove(&path),
            }
            wanted = self.later.take();
        }
        Ok(Flow::Continue)
    }

    fn finish(&mut self) -> Result<(), StopCause> {
        self.remove_last();
        Ok(())
    }
}

/// What the log's writer knows of the file after its open one.
#[derive(Debug)]
pub(crate) struct Ahead {
    outbox: Outbox<Fill>,
    /// Bytes of the next file to be prepared.
    bytes: u64,
    next: Next,
}

#[derive(Debug)]
enum Next {
    /// Nobody was asked yet.
    Unasked,
    /// It is being made.
    Asked(Answer<Box<dyn DiskFile>>, u64),
    /// It is there, so many bytes long.
    Ready(Box<dyn DiskFile>, u64),
    /// There will be none.
    Never,
}

impl Ahead {
    /// Starts the thread, which ends when the `Ahead` and the handle's outbox are gone. Its end, in
    /// whatever way, is no other thread's; only a sync of its that fails ends the engine of this `fate`.
    ///
    /// # Errors
    /// The operating system has no room for another thread.
    pub(crate) fn start(
        dir: &StoreDir,
        lock: &Arc<DirLock>,
        fate: &Arc<Fate>,
    ) -> Result<(Self, Handle<Fill>), TalaError> {
        let actor = PrepareActor {
            dir: dir.clone(),
            last: None,
            later: None,
            fate: Arc::clone(fate),
            _lock: Arc::clone(lock),
        };
        let (outbox, inbox) = mailbox(1);
        let ahead = Self { outbox: outbox.clone(), bytes: FIRST_BYTES, next: Next::Unasked };
        let handle = spawn(actor, (outbox, inbox), &Arc::new(Fate::default()))?;
        Ok((ahead, handle))
    }

    /// Has the file after `number` prepared, if log `number` is `len` bytes long, it is time to, and
    /// it `is_worth_it`. Never waits.
    pub(crate) fn look(&mut self, number: FileNumber, len: u64, is_worth_it: bool) {
        match &mut self.next {
            Next::Unasked if len >= PREPARE_FROM_BYTES && is_worth_it => {
                let (reply, answer) = one_shot();
                let fill = Fill { number: number.next(), bytes: self.bytes, reply };
                self.next = match self.outbox.try_send(fill) {
                    Ok(()) => Next::Asked(answer, self.bytes),
                    Err(_) => Next::Never,
                };
            }
            Next::Asked(answer, bytes) => match answer.try_take() {
                Some(Some(file)) => self.next = Next::Ready(file, *bytes),
                Some(None) => self.next = Next::Never,
                None => {}
            },
            Next::Unasked | Next::Ready(..) | Next::Never => {}
        }
    }

    /// Whether the file is ready.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.next, Next::Ready(..))
    }

    /// Whether there will be none before the next log is begun.
    #[cfg(test)]
    pub(crate) fn has_given_up(&self) -> bool {
        matches!(self.next, Next::Never)
    }

    /// The file and its length, if it is ready. It has its temporary name still. `None` until the
    /// next log is begun.
    pub(crate) fn take(&mut self) -> Option<(Box<dyn DiskFile>, u64)> {
        match std::mem::replace(&mut self.next, Next::Never) {
            Next::Ready(file, bytes) => Some((file, bytes)),
            // One that is being made is of no use: its log begins without it. The thread removes it.
            Next::Asked(..) | Next::Unasked | Next::Never => None,
        }
    }

    /// A new log was begun, after one of `len` bytes that was used up or that a segment covers.
    pub(crate) fn begun(&mut self, len: u64, was_used_up: bool) {
        self.next = Next::Unasked;
        self.bytes = if was_used_up {
            self.bytes.max(len).saturating_mul(GROWTH)
        } else {
            // The next will be as long, or a little longer.
            len.saturating_add(len / 8)
        };
        let steps = self.bytes.div_ceil(STEP_BYTES);
        self.bytes = steps.saturating_mul(STEP_BYTES).clamp(FIRST_BYTES, LARGEST_BYTES);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::wal::{DiskLog, LogFile};

    struct Prepared {
        dir: tempfile::TempDir,
        log: DiskLog,
        handle: Handle<Fill>,
    }

    impl Prepared {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = StoreDir::real(dir.path());
            let mut log = DiskLog::create(&store, FileNumber(1)).unwrap();
            let lock = Arc::new(DirLock::take(&store).unwrap());
            let (ahead, mut handle) = Ahead::start(&store, &lock, &Arc::default()).unwrap();
            handle.release();
            log.prepare_ahead(ahead);
            Self { dir, log, handle }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// Appends until the next file is there, or `is_enough`.
        fn append_until(&mut self, mut is_enough: impl FnMut(&mut DiskLog) -> bool) -> u64 {
            let mut appended = 0_u64;
            while !is_enough(&mut self.log) {
                self.log.append(&[7; 1_024]).unwrap();
                appended += 1_024;
                // Syncs that carry much have nothing prepared.
                if appended.is_multiple_of(32 << 10) {
                    self.log.sync().unwrap();
                }
                std::thread::yield_now();
            }
            appended
        }

        /// Ends as an engine does.
        fn end(mut self) -> tempfile::TempDir {
            drop(self.log);
            self.handle.join();
            self.dir
        }
    }

    fn len_of(path: &Path) -> u64 {
        path.metadata().unwrap().len()
    }

    #[test]
    fn a_log_goes_on_in_a_file_of_zeros_and_leaves_none_behind() {
        let mut prepared = Prepared::new();
        let first_len = prepared.append_until(LogFile::is_used_up);
        assert!(first_len >= PREPARE_FROM_BYTES, "asked for too early");
        assert!(!prepared.path(&log_name(FileNumber(2))).exists(), "it is no log yet");
        prepared.log.prepare(FileNumber(2)).unwrap();
        let second = prepared.path(&log_name(FileNumber(2)));
        let bytes = std::fs::read(&second).unwrap();
        assert!(bytes.len() as u64 == FIRST_BYTES && bytes.iter().all(|byte| *byte == 0));
        assert!(!prepared.path(&prepared_name(FileNumber(2))).exists());
        prepared.log.cut().unwrap();
        assert_eq!(len_of(&prepared.path(&log_name(FileNumber(1)))), first_len);
        prepared.log.rotate(FileNumber(2)).unwrap();
        assert!(!prepared.log.is_used_up(), "there is room in it");

        prepared.log.append(b"some").unwrap();
        assert_eq!(len_of(&second), FIRST_BYTES, "written over zeros");
        prepared.log.cut().unwrap();
        prepared.log.sync().unwrap();
        assert_eq!(std::fs::read(&second).unwrap(), b"some");
        let dir = prepared.end();
        let mut names: Vec<_> =
            dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["LOCK", "log_000001.wal", "log_000002.wal"]);
    }

    #[test]
    fn files_grow_with_the_logs_and_are_as_long_as_those_that_segments_end() {
        let (outbox, _inbox) = mailbox(1);
        let mut ahead = Ahead { outbox, bytes: FIRST_BYTES, next: Next::Unasked };
        ahead.begun(FIRST_BYTES, true);
        assert_eq!(ahead.bytes, 4 * FIRST_BYTES);
        ahead.begun(16 << 20, false);
        assert_eq!(ahead.bytes, 18 << 20);
        ahead.begun((16 << 20) + 1, false);
        assert_eq!(ahead.bytes, 19 << 20);
        assert!(is_prepared_len(ahead.bytes) && !is_prepared_len(ahead.bytes - 1));
        ahead.begun(60 << 20, true);
        assert_eq!(ahead.bytes, LARGEST_BYTES);
        ahead.begun(10, false);
        assert_eq!(ahead.bytes, FIRST_BYTES);
    }

    #[test]
    fn syncs_that_carry_much_have_nothing_prepared() {
        let mut prepared = Prepared::new();
        for _ in 0..16 {
            prepared.log.append(&[7; 64 << 10]).unwrap();
            prepared.log.sync().unwrap();
        }
        let ahead = prepared.log.ahead().unwrap();
        assert!(matches!(ahead.next, Next::Unasked));
        drop(prepared.end());
    }

    #[test]
    fn where_no_file_can_be_prepared_logs_grow() {
        let mut prepared = Prepared::new();
        std::fs::create_dir(prepared.path(&prepared_name(FileNumber(2)))).unwrap();
        let never = |log: &mut DiskLog| log.has_given_up_on_the_next();
        prepared.append_until(never);
        assert!(!prepared.log.is_used_up());
        prepared.log.prepare(FileNumber(2)).unwrap();
        prepared.log.rotate(FileNumber(2)).unwrap();
        prepared.log.append(b"x").unwrap();
        assert_eq!(len_of(&prepared.path(&log_name(FileNumber(2)))), 1);
        drop(prepared.end());
    }
}
