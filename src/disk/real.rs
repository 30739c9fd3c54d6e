//! The disk of the operating system.
//!
//! Files are made with mode 0600 and directories with 0700: commands hold secrets.

use std::{
    ffi::OsString,
    fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read},
    num::NonZeroU64,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::{Advice, OFlags, fadvise};

use super::{Disk, DiskFile, EntryKind, Mapping};
use crate::mapping::map;

/// Mode of every file of a store: the owner's alone.
const FILE_MODE: u32 = 0o600;
/// Mode of every directory that a store makes.
const DIR_MODE: u32 = 0o700;

/// The disk of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        open_regular(OpenOptions::new().read(true), path)
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        open_regular(&mut options, path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::open(path)?))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(DIR_MODE).create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }

    fn kind(&self, path: &Path) -> io::Result<EntryKind> {
        std::fs::metadata(path).map(|found| kind_of(&found))
    }
}

/// A pipe would let its reader wait for ever, and a device has no end.
fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<Box<dyn DiskFile>> {
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
    Ok(Box::new(file))
}

fn check_regular(found: &Metadata) -> io::Result<()> {
    let kind = match kind_of(found) {
        EntryKind::File => return Ok(()),
        EntryKind::Dir => ErrorKind::IsADirectory,
        EntryKind::Other => ErrorKind::InvalidInput,
    };
    Err(io::Error::new(kind, "it is not a regular file"))
}

fn kind_of(found: &Metadata) -> EntryKind {
    if found.is_file() {
        EntryKind::File
    } else if found.is_dir() {
        EntryKind::Dir
    } else {
        EntryKind::Other
    }
}

impl DiskFile for File {
    fn byte_len(&self) -> io::Result<u64> {
        self.metadata().map(|found| found.len())
    }

    fn read_whole(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_whole_into(&mut bytes)?;
        Ok(bytes)
    }

    fn read_whole_into(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.clear();
        // Too large a file is an error here, not an abort of the process.
        let len = usize::try_from(self.byte_len()?).unwrap_or(usize::MAX);
        bytes.try_reserve_exact(len)?;
        let mut file = self;
        file.read_to_end(bytes)?;
        Ok(())
    }

    fn read_start(&self, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut at = 0;
        let end = len.min(self.byte_len()?);
        bytes.try_reserve_exact(usize::try_from(end).unwrap_or(usize::MAX))?;
        bytes.resize(end as usize, 0);
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, at as u64) {
                // It was cut meanwhile.
                Ok(0) => break,
                Ok(read) => at += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(at);
        Ok(bytes)
    }

    fn map(&self) -> io::Result<Mapping> {
        map(self).map(Mapping::Mapped)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }

    fn begin_write_back(&self, offset: u64, len: u64) {
        // Asked to forget pages, the system begins to write back those that are dirty, and keeps them.
        let _ = fadvise(self, offset, NonZeroU64::new(len), Advice::DontNeed);
    }

    fn names_count(&self) -> io::Result<u64> {
        self.metadata().map(|found| found.nlink())
    }

    fn drop_cached(&self) -> io::Result<()> {
        Ok(fadvise(self, 0, None, Advice::DontNeed)?)
    }

    fn try_lock(&self) -> Result<(), TryLockError> {
        File::try_lock(self)
    }

    fn try_lock_shared(&self) -> Result<(), TryLockError> {
        File::try_lock_shared(self)
    }

    fn unlock(&self) -> io::Result<()> {
        File::unlock(self)
    }
}
