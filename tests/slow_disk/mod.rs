//! A disk that is as slow as the test wants: each sync of a log, of a segment or of a file that is
//! being prepared waits until it is let through.

// Each test program uses a part of this room.
#![allow(dead_code)]

use std::{
    ffi::OsString,
    fs::TryLockError,
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use tala_store::rooms::{Disk, DiskFile, EntryKind, Mapping, RealDisk};

/// How many syncs of one kind are let through, and how many wait or have passed.
#[derive(Debug, Default)]
pub struct Turnstile {
    state: Mutex<Turns>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    /// `None`: all of them.
    allowed: Option<u64>,
    /// Syncs that have come so far.
    came: u64,
}

impl Turnstile {
    /// From now on each sync waits, until what this returns is dropped: by a failing test too, which
    /// would hang instead. So it is declared after the engine, whose end waits for its threads.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Held {
        self.state.lock().unwrap().allowed = Some(0);
        Held(Arc::clone(self))
    }

    /// Syncs that have come so far, those that wait included.
    pub fn syncs(&self) -> u64 {
        self.state.lock().unwrap().came
    }

    /// Returns when more syncs than `seen` have come.
    pub fn wait_for_sync(&self, seen: u64) {
        let mut turns = self.state.lock().unwrap();
        while turns.came <= seen {
            turns = self.changed.wait(turns).unwrap();
        }
    }

    fn pass(&self) {
        let mut turns = self.state.lock().unwrap();
        turns.came += 1;
        self.changed.notify_all();
        while turns.allowed == Some(0) {
            turns = self.changed.wait(turns).unwrap();
        }
        turns.allowed = turns.allowed.map(|allowed| allowed - 1);
    }
}

/// The real disk behind turnstiles. Clones are the same disk; nothing waits at first.
#[derive(Clone, Debug, Default)]
pub struct SlowDisk {
    logs: Arc<Turnstile>,
    /// Before segments are given their names.
    pub segments: Arc<Turnstile>,
    /// Files that are prepared for logs to come, when they are filled.
    pub prepared: Arc<Turnstile>,
}

impl SlowDisk {
    /// [`Turnstile::hold`] of logs.
    #[must_use]
    pub fn hold(&self) -> Held {
        self.logs.hold()
    }

    /// Lets so many more syncs of logs through.
    pub fn let_through(&self, count: u64) {
        let mut turns = self.logs.state.lock().unwrap();
        turns.allowed = turns.allowed.map(|allowed| allowed + count);
        self.logs.changed.notify_all();
    }

    /// Syncs of logs that have come so far, those that wait included.
    pub fn syncs(&self) -> u64 {
        self.logs.syncs()
    }

    /// Returns when more syncs of logs than `seen` have come.
    pub fn wait_for_sync(&self, seen: u64) {
        self.logs.wait_for_sync(seen);
    }

    fn file(
        &self,
        path: &Path,
        file: io::Result<Box<dyn DiskFile>>,
    ) -> io::Result<Box<dyn DiskFile>> {
        // One that is only being prepared becomes a log under this handle; until then it is synced
        // as a whole.
        let name = path.to_string_lossy();
        let is_log = name.ends_with(".wal") || name.ends_with(".wal.tmp");
        let data = is_log.then(|| Arc::clone(&self.logs));
        let whole = if name.ends_with(".wal.tmp") {
            Some(Arc::clone(&self.prepared))
        } else {
            name.contains("segment_").then(|| Arc::clone(&self.segments))
        };
        file.map(|file| Box::new(SlowFile { file, data, whole }) as Box<dyn DiskFile>)
    }
}

/// A turnstile that holds everything up; dropping it lets everything through.
pub struct Held(Arc<Turnstile>);

impl Drop for Held {
    fn drop(&mut self) {
        let turnstile = &*self.0;
        turnstile.state.lock().unwrap_or_else(PoisonError::into_inner).allowed = None;
        turnstile.changed.notify_all();
    }
}

impl Disk for SlowDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.file(path, RealDisk.create_new(path))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.file(path, RealDisk.open(path))
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.file(path, RealDisk.open_or_create(path))
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open_dir(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(path)
    }

    fn kind(&self, path: &Path) -> io::Result<EntryKind> {
        RealDisk.kind(path)
    }
}

#[derive(Debug)]
struct SlowFile {
    file: Box<dyn DiskFile>,
    /// Before its bytes are synced.
    data: Option<Arc<Turnstile>>,
    /// Before it is synced as a whole.
    whole: Option<Arc<Turnstile>>,
}

impl DiskFile for SlowFile {
    fn byte_len(&self) -> io::Result<u64> {
        self.file.byte_len()
    }

    fn read_whole(&self) -> io::Result<Vec<u8>> {
        self.file.read_whole()
    }

    fn map(&self) -> io::Result<Mapping> {
        self.file.map()
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.data.iter().for_each(|turnstile| turnstile.pass());
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.whole.iter().for_each(|turnstile| turnstile.pass());
        self.file.sync_all()
    }

    fn drop_cached(&self) -> io::Result<()> {
        self.file.drop_cached()
    }

    fn try_lock(&self) -> Result<(), TryLockError> {
        self.file.try_lock()
    }

    fn try_lock_shared(&self) -> Result<(), TryLockError> {
        self.file.try_lock_shared()
    }

    fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }
}
