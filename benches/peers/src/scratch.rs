//! Where the stores are while they are measured.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::Failure;

/// The magic number of a tmpfs, from `statfs(2)`.
const TMPFS: u64 = 0x0102_1994;

/// The directory under which everything is made; it is emptied before and removed afterwards.
pub struct Scratch {
    path: PathBuf,
    /// The directory, locked: two runs in one would find each other's stores.
    _lock: File,
}

impl Scratch {
    /// Makes a directory of its own under `parent`.
    ///
    /// # Errors
    /// It cannot be made, or would be in memory, where no sync means anything.
    pub fn new(parent: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(parent)?;
        let kind = rustix::fs::statfs(parent)?.f_type;
        if kind as u64 == TMPFS {
            let parent = parent.display();
            return Err(format!("{parent} is in memory (tmpfs); name a disk by --scratch").into());
        }
        Self::anywhere(parent)
    }

    /// The same where no time is measured, so that it may be in memory.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn anywhere(parent: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(parent)?;
        let path = parent.canonicalize()?.join("peers-scratch");
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let lock = File::open(&path)?;
        lock.try_lock().map_err(|error| format!("{}: {error}: another run?", path.display()))?;
        for left in fs::read_dir(&path)? {
            let left = left?;
            if left.file_type()?.is_dir() {
                fs::remove_dir_all(left.path())?;
            } else {
                fs::remove_file(left.path())?;
            }
        }
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns when the disk has got rid of everything that was removed here.
    ///
    /// # Errors
    /// The file system's own.
    pub fn settle(&self) -> Result<(), Failure> {
        Ok(rustix::fs::syncfs(fs::File::open(&self.path)?)?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left takes room and does no other harm.
        let _ = fs::remove_dir_all(&self.path);
    }
}
