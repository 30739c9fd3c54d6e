//! The seam under every file operation: what the engine asks of an operating system, and nothing
//! else of the library asks for it another way.
//!
//! There is one [`Disk`] for those who use a store, the real one, and a simulated one for tests,
//! which remembers what a power cut would leave. Errors are those of the operating system as they
//! are; who calls knows what it was about, and says so.

use std::{
    ffi::OsString,
    fmt,
    fs::TryLockError,
    io,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::Mmap;

mod gentle;
mod real;
mod room;

pub(crate) use gentle::{LogSyncs, Rests, write_gently, write_piece_of_zeros};
pub use real::RealDisk;
pub use room::RoomAhead;

/// Zeros that are written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What stands under a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// Something else: a device, a pipe, a socket.
    Other,
}

/// File systems, as far as a store needs them. Links are followed.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Creates the file `path`, which must not exist, for reading and writing by its owner alone.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens the regular file `path` for reading; whatever else is there is refused, and not waited
    /// for.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens the regular file `path` for reading and writing, or creates it.
    fn open_or_create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens the directory `path`, to sync it: what was created, renamed or removed in it is durable
    /// after its [`sync_all`](DiskFile::sync_all). Nothing else can be done with it.
    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Creates the directory `path` for its owner alone.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Gives the file `from` the name `to`, in place of what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the file `path`.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names in the directory `path`, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// What stands under the name `path`.
    fn kind(&self, path: &Path) -> io::Result<EntryKind>;

    /// How much room logs on it get ahead. Always the same, wherever a store may be moved to.
    fn room_ahead(&self) -> RoomAhead {
        RoomAhead::USUAL
    }
}

/// An open file. It is closed when it is dropped.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Its length in bytes.
    fn byte_len(&self) -> io::Result<u64>;

    /// All of its bytes. A length that memory cannot hold is an error.
    fn read_whole(&self) -> io::Result<Vec<u8>>;

    /// [`DiskFile::read_whole`] into memory that is there already, whatever it holds.
    fn read_whole_into(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        *bytes = self.read_whole()?;
        Ok(())
    }

    /// Its first `len` bytes, or all where it has less.
    fn read_start(&self, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = self.read_whole()?;
        bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(bytes)
    }

    /// All of its bytes, mapped. Nobody may write to a file that is mapped.
    fn map(&self) -> io::Result<Mapping>;

    /// Writes some of `bytes` at `offset`, at least one unless there is none or no room for it;
    /// returns how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; after an error some of them may have been written. What
    /// interrupts a write, or has it write less, does not fail it.
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    offset += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes `len` zeros at `offset`, so that the room is there when it is needed; as
    /// [`write_all_at`](DiskFile::write_all_at) otherwise.
    // For logs that are filled ahead.
    #[cfg_attr(not(any(feature = "internals", loom, shuttle)), allow(dead_code))]
    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut at = offset;
        while at < end {
            let step = (end - at).min(ZEROS.len() as u64);
            self.write_all_at(&ZEROS[..step as usize], at)?;
            at += step;
        }
        Ok(())
    }

    /// Cuts the file to `len`, or has it read as zeros up to there.
    #[cfg_attr(not(any(feature = "internals", loom, shuttle)), allow(dead_code))]
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes its bytes durable, and what is needed to read them (fdatasync).
    fn sync_data(&self) -> io::Result<()>;

    /// Makes its bytes durable, and all that is known of it (fsync).
    fn sync_all(&self) -> io::Result<()>;

    /// Asks the system to begin writing these bytes to the disk, if they are not there yet. It may do
    /// so or not: nothing is durable before a sync, which then has less to do.
    fn begin_write_back(&self, _offset: u64, _len: u64) {}

    /// How many names the file has.
    fn names_count(&self) -> io::Result<u64> {
        Ok(1)
    }

    /// Has what is read next come from the disk instead of the page cache, as far as it is synced.
    fn drop_cached(&self) -> io::Result<()>;

    /// Locks it against everyone else, without waiting (flock).
    fn try_lock(&self) -> Result<(), TryLockError>;

    /// Locks it against those who want it alone, without waiting.
    fn try_lock_shared(&self) -> Result<(), TryLockError>;

    /// Gives the lock back.
    fn unlock(&self) -> io::Result<()>;
}

/// The bytes of a file that is mapped into memory.
#[derive(Debug)]
pub enum Mapping {
    /// By the operating system.
    Mapped(Mmap),
    /// A copy, of a file that there is no map of: one on a disk of a test.
    #[cfg_attr(not(any(feature = "internals", loom, shuttle)), allow(dead_code))]
    Copied(Vec<u8>),
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Copied(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// The directory of a store, and the disk that it is on.
#[derive(Clone, Debug)]
pub struct StoreDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl StoreDir {
    /// The directory `path` of `disk`.
    pub fn new(disk: Arc<dyn Disk>, path: &Path) -> Self {
        Self { disk, path: path.to_owned() }
    }

    /// The directory `path` of the operating system.
    pub fn real(path: &Path) -> Self {
        Self::new(real_disk(), path)
    }

    /// The disk.
    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file `name` in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

/// The disk of the operating system.
pub(crate) fn real_disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn zeros_fill_exactly_the_range_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0, 1, ZEROS.len(), 2 * ZEROS.len() + 7] {
            let path = dir.path().join(len.to_string());
            let file = RealDisk.create_new(&path).unwrap();
            file.write_all_at(&vec![7; len + 8], 0).unwrap();
            file.write_zeros(5, len as u64).unwrap();
            let bytes = file.read_whole().unwrap();
            assert_eq!(bytes.len(), len + 8);
            assert!(bytes[..5].iter().chain(&bytes[5 + len..]).all(|byte| *byte == 7));
            assert!(bytes[5..5 + len].iter().all(|byte| *byte == 0));
        }
        let file = RealDisk.create_new(&dir.path().join("file")).unwrap();
        assert!(file.write_zeros(u64::MAX, 2).is_err());
    }
}
