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

use std::{io, path::Path, sync::Arc};

use tala_core::{StopCause, StorageOperation, TalaError};

use super::Spare;
use crate::{
    actor::{Actor, Ending, Fate, Flow, Handle, spawn},
    disk::{DiskFile, LogSyncs, Rests, RoomAhead, StoreDir, write_piece_of_zeros},
    files::DirLock,
    metrics::Backlog,
    sync::{Answer, Inbox, Outbox, Patience, Received, Reply, mailbox, now_ns, one_shot},
};

/// Where one was used up, the next but one is so many times as large.
const GROWTH: u64 = 4;

/// A file of zeros, and how many they are.
type Prepared = (Box<dyn DiskFile>, u64);

/// The name of the file that becomes the next log, or is becoming it. Opening a store removes whatever
/// has such a name.
pub(crate) const PREPARED_NAME: &str = "log_next.wal.tmp";

/// What the thread is asked for.
#[derive(Debug)]
pub(crate) struct Fill {
    bytes: u64,
    /// Answered with the file; dropped where there will be none.
    reply: Reply<Prepared>,
}

/// The thread.
struct PrepareActor {
    dir: StoreDir,
    /// Where a log that is of no use any more is kept.
    spare: Spare,
    /// Of the log that files are prepared for.
    syncs: LogSyncs,
    /// Of the engine, which a failed sync ends.
    fate: Arc<Fate>,
    backlog: Arc<Backlog>,
    /// No other engine may have the directory while this one may still remove a file from it.
    _lock: Arc<DirLock>,
}

impl PrepareActor {
    /// Makes a file of zeros of at least so many bytes, of the spare one if there is one. Gives up
    /// where the thread is to end.
    fn fill(&self, path: &Path, bytes: u64, inbox: &Inbox<Fill>) -> io::Result<Prepared> {
        let spare = self.spare.take(path, bytes).map_err(|error| {
            self.fate
                .settle(Ending { actor: Self::NAME, cause: Arc::new(StopCause::Failed(error)) });
            io::ErrorKind::Other
        })?;
        let (file, bytes) = match spare {
            Some(taken) => taken,
            None => (self.dir.disk().create_new(path)?, bytes),
        };
        let (mut at, mut rests) = (0, Rests::beside(&self.syncs));
        let mut rest = Patience::None;
        while at < bytes {
            // Nobody asks for another file before this one is there.
            if matches!(inbox.receive(rest), Received::Closed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            at += write_piece_of_zeros(&*file, at, bytes - at)?;
            rest = rests.after_piece().map_or(Patience::None, |rest| {
                Patience::Until(now_ns().saturating_add(rest.as_nanos() as u64))
            });
        }
        file.sync_all().inspect_err(|error| self.give_up_the_disk(path, error))?;
        Ok((file, bytes))
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
}

impl Actor for PrepareActor {
    const NAME: &'static str = "tala-prepare";
    type Letter = Fill;

    fn step(&mut self, letter: Fill, inbox: &Inbox<Fill>) -> Result<Flow, StopCause> {
        let path = self.dir.join(PREPARED_NAME);
        // The log's writer asks for another when it has renamed the last, or could not.
        self.remove(&path);
        match self.fill(&path, letter.bytes, inbox) {
            Ok(prepared) => {
                self.backlog.log_is_ready();
                letter.reply.send(prepared);
            }
            Err(_) => self.remove(&path),
        }
        Ok(Flow::Continue)
    }

    fn finish(&mut self) -> Result<(), StopCause> {
        self.remove(&self.dir.join(PREPARED_NAME));
        self.spare.close();
        Ok(())
    }
}

/// What the log's writer knows of the file after its open one.
#[derive(Debug)]
pub(crate) struct Ahead {
    outbox: Outbox<Fill>,
    room: RoomAhead,
    /// Bytes of the next file to be prepared.
    bytes: u64,
    sizes: Sizes,
    next: Next,
    backlog: Arc<Backlog>,
}

/// What the logs took that segments cover together.
#[derive(Default, Debug)]
struct Sizes {
    /// Of the logs before the open one, those that no segment covers or is going to.
    unsealed_bytes: u64,
    /// Of the logs that the last segment covers.
    sealed_bytes: Option<u64>,
}

#[derive(Debug)]
enum Next {
    /// Nobody was asked yet.
    Unasked,
    /// It is being made.
    Asked(Answer<Prepared>),
    /// It is there.
    Ready(Prepared),
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
        (spare, syncs): (Spare, LogSyncs),
        backlog: &Arc<Backlog>,
    ) -> Result<(Self, Handle<Fill>), TalaError> {
        let actor = PrepareActor {
            dir: dir.clone(),
            spare,
            syncs,
            fate: Arc::clone(fate),
            backlog: Arc::clone(backlog),
            _lock: Arc::clone(lock),
        };
        let (outbox, inbox) = mailbox(1);
        let room = dir.disk().room_ahead();
        let ahead = Self {
            outbox: outbox.clone(),
            room,
            bytes: room.first_bytes,
            sizes: Sizes::default(),
            next: Next::Unasked,
            backlog: Arc::clone(backlog),
        };
        let handle = spawn(actor, (outbox, inbox), &Arc::new(Fate::default()))?;
        Ok((ahead, handle))
    }

    /// Has the next file prepared, if the open log is `len` bytes long and it is time to. Never waits.
    pub(crate) fn look(&mut self, len: u64) {
        match &mut self.next {
            Next::Unasked if len >= self.room.from_bytes => {
                let (reply, answer) = one_shot();
                let fill = Fill { bytes: self.bytes, reply };
                self.backlog.log_asked_for();
                self.next = match self.outbox.try_send(fill) {
                    Ok(()) => Next::Asked(answer),
                    Err(_) => Next::Never,
                };
            }
            Next::Asked(answer) => match answer.try_take() {
                Some(Some(prepared)) => self.next = Next::Ready(prepared),
                Some(None) => self.next = Next::Never,
                None => {}
            },
            Next::Unasked | Next::Ready(_) | Next::Never => {}
        }
    }

    /// Whether the file is ready.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.next, Next::Ready(_))
    }

    /// Whether there will be none before the next log is begun.
    #[cfg(test)]
    pub(crate) fn has_given_up(&self) -> bool {
        matches!(self.next, Next::Never)
    }

    /// The file and its length, if it is ready. It has its temporary name still. One that is being
    /// made will be for the log after the next.
    ///
    /// Whoever gets none goes on in a file of its own making, and that is noted.
    pub(crate) fn take(&mut self) -> Option<Prepared> {
        match std::mem::replace(&mut self.next, Next::Unasked) {
            Next::Ready(prepared) => Some(prepared),
            other => {
                self.next = other;
                self.backlog.log_made_by_writer();
                None
            }
        }
    }

    /// A new log was begun, after one of `len` bytes. Where that was the last of those that a segment
    /// will cover, `is_sealed`.
    pub(crate) fn begun(&mut self, len: u64, is_sealed: bool) {
        if matches!(self.next, Next::Never) {
            self.next = Next::Unasked;
        }
        let Sizes { unsealed_bytes, sealed_bytes } = &mut self.sizes;
        *unsealed_bytes = unsealed_bytes.saturating_add(len);
        if is_sealed {
            // The next will be about as long; what is more goes to the end of a file that grows.
            self.bytes = std::mem::take(unsealed_bytes);
            *sealed_bytes = Some(self.bytes);
        } else {
            self.bytes = self.bytes.max(len).saturating_mul(GROWTH);
        }
        self.bytes = self.room.file_bytes(self.bytes);
    }

    /// Whether it is worth it to go on in another file at byte `len` of the open one: not where a
    /// segment will cover it soon, by what the logs before took.
    pub(crate) fn has_much_to_come(&self, len: u64) -> bool {
        let so_far = self.sizes.unsealed_bytes.saturating_add(len);
        self.sizes.sealed_bytes.is_none_or(|due| so_far < due - due / 8 || so_far >= due + due / 8)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        ids::FileNumber,
        wal::{DiskLog, LogFile, log_name},
    };

    const ROOM: RoomAhead = RoomAhead::USUAL;

    struct Rig {
        dir: tempfile::TempDir,
        log: DiskLog,
        handle: Handle<Fill>,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = StoreDir::real(dir.path());
            let mut log = DiskLog::create(&store, FileNumber(1)).unwrap();
            let lock = Arc::new(DirLock::take(&store).unwrap());
            let (ahead, mut handle) = Ahead::start(
                &store,
                &lock,
                &Arc::default(),
                (Spare::new(store.clone()), LogSyncs::default()),
                &Arc::default(),
            )
            .unwrap();
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
        let mut prepared = Rig::new();
        let first_len = prepared.append_until(LogFile::is_used_up);
        assert!(first_len >= ROOM.from_bytes, "asked for too early");
        assert!(!prepared.path(&log_name(FileNumber(2))).exists(), "it is no log yet");
        prepared.log.prepare(FileNumber(2)).unwrap();
        let second = prepared.path(&log_name(FileNumber(2)));
        let bytes = std::fs::read(&second).unwrap();
        assert!(bytes.len() as u64 == ROOM.first_bytes && bytes.iter().all(|byte| *byte == 0));
        assert!(!prepared.path(PREPARED_NAME).exists());
        prepared.log.cut().unwrap();
        assert_eq!(len_of(&prepared.path(&log_name(FileNumber(1)))), first_len);
        prepared.log.rotate(FileNumber(2)).unwrap();
        assert!(!prepared.log.is_used_up(), "there is room in it");

        prepared.log.append(b"some").unwrap();
        assert_eq!(len_of(&second), ROOM.first_bytes, "written over zeros");
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
        const MIB: u64 = 1 << 20;
        let (outbox, _inbox) = mailbox(1);
        let mut ahead = Ahead {
            outbox,
            room: ROOM,
            bytes: ROOM.first_bytes,
            sizes: Sizes::default(),
            next: Next::Unasked,
            backlog: Arc::default(),
        };
        ahead.begun(ROOM.first_bytes, false);
        assert_eq!(ahead.bytes, ROOM.largest_bytes.min(4 * ROOM.first_bytes));
        assert!(ahead.has_much_to_come(16 * MIB), "nobody knows");
        ahead.begun(5 * MIB, true);
        assert_eq!(ahead.bytes, 9 * MIB, "both were of one segment");
        assert!(ahead.has_much_to_come(7 * MIB));
        assert!(!ahead.has_much_to_come(8 * MIB));
        assert!(ahead.has_much_to_come(11 * MIB), "it goes on longer than before");
        ahead.begun(6 * MIB + 1, true);
        assert_eq!(ahead.bytes, 7 * MIB);
        assert!(ROOM.is_prepared_len(ahead.bytes) && !ROOM.is_prepared_len(ahead.bytes - 1));
        ahead.begun(60 * MIB, false);
        assert_eq!(ahead.bytes, ROOM.largest_bytes);
        ahead.begun(10, true);
        assert_eq!(ahead.bytes, ROOM.largest_bytes);
        ahead.begun(10, true);
        assert_eq!(ahead.bytes, ROOM.first_bytes);
    }

    #[test]
    fn one_that_is_not_ready_in_time_is_for_the_log_after() {
        let mut prepared = Rig::new();
        prepared.log.append(&vec![7; ROOM.from_bytes as usize]).unwrap();
        // Whether it is ready is not known before the log is asked again.
        prepared.log.prepare(FileNumber(2)).unwrap();
        prepared.log.rotate(FileNumber(2)).unwrap();
        assert_eq!(len_of(&prepared.path(&log_name(FileNumber(2)))), 0);
        prepared.append_until(LogFile::is_used_up);
        prepared.log.prepare(FileNumber(3)).unwrap();
        assert!(len_of(&prepared.path(&log_name(FileNumber(3)))) >= ROOM.first_bytes);
        drop(prepared.end());
    }

    #[test]
    fn where_no_file_can_be_prepared_logs_grow() {
        let mut prepared = Rig::new();
        std::fs::create_dir(prepared.path(PREPARED_NAME)).unwrap();
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
