//! A log that is of no use any more, kept for its blocks.
//!
//! Removing a file gives its blocks back to the file system, and the next log asks for as many: work
//! for the file system's own journal, behind which the log's syncs wait, for tens of milliseconds
//! where freed blocks are also discarded. So one log that segments cover is kept under a temporary
//! name, and the next file that is prepared is made of it: filled with zeros like a new one.
//!
//! Only the names of files matter to recovery: what has a temporary name is no log.

use std::{io, path::Path, sync::Arc};

use tala_core::TalaError;

use super::file::log_name;
use crate::{
    disk::{DiskFile, StoreDir},
    files::sync_dir,
    ids::FileNumber,
    sync::Mutex,
};

/// What the file is called meanwhile. Opening a store removes whatever has such a name.
pub(crate) const SPARE_NAME: &str = "log_spare.wal.tmp";

/// A file, and how long it is to be.
pub(crate) type Taken = (Box<dyn DiskFile>, u64);

/// Room for one file, shared between who retires logs and who prepares them.
#[derive(Clone, Debug)]
pub(crate) struct Spare {
    dir: StoreDir,
    place: Arc<Mutex<Place>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Empty,
    /// Somebody is giving a file the name, or taking it away.
    Busy,
    Full,
    /// Nobody will ask for one any more.
    Closed,
}

impl Spare {
    /// Room in `dir`, for files on which no sync has failed.
    pub(crate) fn new(dir: StoreDir) -> Self {
        Self { dir, place: Arc::new(Mutex::new(Place::Empty)) }
    }

    /// Lets go of log `number`, which segments cover: keeps it as the spare one, if there is room and
    /// it is worth it, and removes it otherwise. What cannot be removed is listed no more, and the next
    /// open tries again.
    pub(crate) fn retire(&self, number: FileNumber) {
        let path = self.dir.join(log_name(number));
        let disk = self.dir.disk();
        let is_kept = self.is_worth_it(number)
            && self.swap(Place::Empty, Place::Busy)
            && match disk.rename(&path, &self.dir.join(SPARE_NAME)) {
                Ok(()) => {
                    // Where nobody wants it any more it goes at once.
                    if !self.swap(Place::Busy, Place::Full) {
                        let _ = disk.remove(&self.dir.join(SPARE_NAME));
                    }
                    true
                }
                Err(_) => {
                    self.swap(Place::Busy, Place::Empty);
                    false
                }
            };
        if !is_kept {
            let _ = disk.remove(&path);
        }
    }

    /// Whether another file could be made of the log: one that is long enough, and has no second name
    /// by which somebody keeps what is in it.
    fn is_worth_it(&self, number: FileNumber) -> bool {
        let file = self.dir.disk().open(&self.dir.join(log_name(number)));
        let least = self.dir.disk().room_ahead().first_bytes;
        let fits = |file: Box<dyn DiskFile>| {
            Ok::<_, io::Error>(file.byte_len()? >= least && file.names_count()? == 1)
        };
        file.and_then(fits).unwrap_or(false)
    }

    /// The spare file, which has the name `path` now, and the length that is to be made of it: at
    /// least `bytes`, at most twice that, and one that prepared files have.
    /// `None` where there is none or it cannot be had.
    ///
    /// # Errors
    /// The new name cannot be made durable, which is as final as the failed sync of a log.
    pub(crate) fn take(&self, path: &Path, bytes: u64) -> Result<Option<Taken>, TalaError> {
        if !self.swap(Place::Full, Place::Busy) {
            return Ok(None);
        }
        let renamed = self.dir.disk().rename(&self.dir.join(SPARE_NAME), path);
        if renamed.is_err() {
            let _ = self.dir.disk().remove(&self.dir.join(SPARE_NAME));
        }
        self.swap(Place::Busy, Place::Empty);
        if renamed.is_err() {
            return Ok(None);
        }
        // Before anything is written to it: a power cut must not give what is written the old name.
        sync_dir(self.dir.disk(), self.dir.path())?;
        Ok(self.open_with_room(path, bytes).ok())
    }

    fn open_with_room(&self, path: &Path, bytes: u64) -> io::Result<Taken> {
        let file = self.dir.disk().open_or_create(path)?;
        let len = file.byte_len()?;
        let step = self.dir.disk().room_ahead().step_bytes;
        let room = (len / step * step).clamp(bytes, bytes.saturating_mul(2));
        if len > room {
            file.set_len(room)?;
        }
        Ok((file, room))
    }

    /// Removes the spare file, and keeps no more.
    pub(crate) fn close(&self) {
        let before = std::mem::replace(&mut *self.place.lock(), Place::Closed);
        if before == Place::Full {
            let _ = self.dir.disk().remove(&self.dir.join(SPARE_NAME));
        }
    }

    fn swap(&self, from: Place, to: Place) -> bool {
        let mut place = self.place.lock();
        let is_from = *place == from;
        if is_from {
            *place = to;
        }
        is_from
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::disk::RoomAhead;

    const MIB: u64 = 1 << 20;

    struct Logs(tempfile::TempDir, Spare);

    impl Logs {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let spare = Spare::new(StoreDir::real(dir.path()));
            Self(dir, spare)
        }

        fn retire(&self, number: u64, len: u64) {
            let path = self.0.path().join(log_name(FileNumber(number)));
            let file = std::fs::File::create_new(path).unwrap();
            file.set_len(len).unwrap();
            self.1.retire(FileNumber(number));
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.0.path()).unwrap();
            let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
            entries.map(|entry| name(entry).into_string().unwrap()).collect()
        }
    }

    #[test]
    fn one_log_is_kept_until_it_is_asked_for_or_nobody_will() {
        let logs = Logs::new();
        logs.retire(1, RoomAhead::USUAL.first_bytes - 1);
        assert!(logs.names().is_empty(), "too short to be worth it");
        logs.retire(2, 5 * MIB + 3);
        logs.retire(3, 9 * MIB);
        assert_eq!(logs.names(), [SPARE_NAME]);
        let (file, len) = logs.1.take(&logs.0.path().join("next"), 4 * MIB).unwrap().unwrap();
        assert_eq!((file.byte_len().unwrap(), len), (5 * MIB, 5 * MIB));
        assert_eq!(logs.names(), ["next"]);
        assert!(logs.1.take(&logs.0.path().join("next"), 4 * MIB).unwrap().is_none());

        logs.retire(4, 9 * MIB);
        assert_eq!(logs.names().len(), 2);
        logs.1.close();
        logs.retire(5, 9 * MIB);
        assert_eq!(logs.names(), ["next"]);
    }

    #[test]
    fn the_length_of_what_is_made_of_it_is_near_what_is_asked_for() {
        let logs = Logs::new();
        for (number, len, bytes, room, found) in [
            (1, 4 * MIB, 6 * MIB, 6 * MIB, 4 * MIB),
            (2, 16 * MIB, 4 * MIB, 8 * MIB, 8 * MIB),
            (3, 7 * MIB, 7 * MIB, 7 * MIB, 7 * MIB),
        ] {
            logs.retire(number, len);
            let (file, len) = logs.1.take(&logs.0.path().join("next"), bytes).unwrap().unwrap();
            assert_eq!((len, file.byte_len().unwrap()), (room, found));
        }
    }

    #[test]
    fn a_log_that_somebody_keeps_by_another_name_is_let_go() {
        let logs = Logs::new();
        let path = logs.0.path().join(log_name(FileNumber(1)));
        std::fs::File::create_new(&path).unwrap().set_len(8 * MIB).unwrap();
        std::fs::hard_link(&path, logs.0.path().join("backup")).unwrap();
        logs.1.retire(FileNumber(1));
        assert_eq!(logs.names(), ["backup"]);
        assert!(logs.1.take(&logs.0.path().join("next"), 4 * MIB).unwrap().is_none());
    }
}
