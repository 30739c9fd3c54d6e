//! A log on its own, outside every store.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use tala_core::TalaError;

use crate::{
    disk::{Disk, DiskFile, RealDisk},
    files::sync_dir,
    ids::{FileNumber, SeqNo},
    wal::record::{BatchPlace, Encoded, InsertFields, Stamp},
};

/// The number in the records of a log on its own.
const FILE: FileNumber = FileNumber(0);
/// Bytes that are gathered before they are handed to the operating system.
const BUFFER_BYTES: usize = 64 * 1024;

/// A log file of intents, to be read again with [`replay_wal`](crate::replay_wal).
///
/// Appended entries are buffered; [`sync`](Self::sync) makes them durable. Dropping the log hands
/// the buffer to the operating system, without making it durable and without a way to report an
/// error. A failed write or sync is final: nothing is known about the file's end then, and every
/// later call fails.
#[derive(Debug)]
pub struct Wal {
    path: PathBuf,
    out: Poisoning<Appending>,
    entry_count: u64,
    synced: SeqNo,
}

impl Wal {
    /// Creates the log file `path` with mode 0600; its name is durable on return.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where there is a file: it may be a log with entries in it.
    /// Otherwise what the operating system says.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::create_on(&RealDisk, path.as_ref().to_owned())
    }

    fn create_on(disk: &dyn Disk, path: PathBuf) -> io::Result<Self> {
        let file = Appending { file: disk.create_new(&path)?, len: 0 };
        sync_dir(disk, path.parent().unwrap_or(Path::new(""))).map_err(io_error)?;
        Ok(Self { path, out: Poisoning::new(file), entry_count: 0, synced: SeqNo::ZERO })
    }

    /// Appends an intent: 16 bytes of identity, nanoseconds since the epoch, an embedding of any
    /// dimension (kept bit for bit), the command. It is durable after the next
    /// [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for an entry too long for the format (4 GiB); the log goes
    /// on. What the operating system says, or that an earlier write or sync failed; the log is
    /// over.
    pub fn append(
        &mut self,
        id: &[u8; 16],
        timestamp: u64,
        embedding: &[f32],
        raw_command: &str,
    ) -> io::Result<()> {
        let fields = InsertFields {
            id,
            timestamp,
            embedding,
            command: raw_command,
            context_hash: 0,
            confidence: 1.0,
            parent_ids: &[],
            outcome: None,
        };
        let record = Encoded::insert_fields(fields, BatchPlace::SINGLE).map_err(io_error)?;
        let seq = SeqNo(self.entry_count).next();
        let stamp = Stamp { seq, file: FILE, synced: self.synced };
        self.out.append(|buffer| record.stamp_into(buffer, stamp))?;
        self.entry_count = seq.0;
        Ok(())
    }

    /// Makes every entry appended so far durable.
    ///
    /// # Errors
    /// What the operating system says, or that an earlier write or sync failed; the log is over.
    pub fn sync(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.out.guarded(|out| out.file.sync_data())?;
        self.synced = SeqNo(self.entry_count);
        Ok(())
    }

    /// The number of entries appended.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        self.entry_count
    }

    /// The path that the log was created with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn io_error(error: TalaError) -> io::Error {
    match error {
        TalaError::Storage { source, .. } => io::Error::new(source.kind(), source),
        other => io::Error::new(io::ErrorKind::InvalidInput, other),
    }
}

/// A file that is only written to at its end.
#[derive(Debug)]
struct Appending {
    file: Box<dyn DiskFile>,
    len: u64,
}

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A buffered writer that ends with its first failure. The buffer of the standard library would
/// write again what may have been written in part.
#[derive(Debug)]
struct Poisoning<W: Write> {
    writer: W,
    buffer: Vec<u8>,
    is_over: bool,
}

impl<W: Write> Poisoning<W> {
    const fn new(writer: W) -> Self {
        Self { writer, buffer: Vec::new(), is_over: false }
    }

    /// Adds what `fill` adds to the buffer, and writes it out when it is full.
    fn append(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.check()?;
        fill(&mut self.buffer);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.guarded(|writer| writer.write_all(&buffer))?;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    fn guarded(&mut self, step: impl FnOnce(&mut W) -> io::Result<()>) -> io::Result<()> {
        self.check()?;
        let done = step(&mut self.writer);
        self.is_over = done.is_err();
        done
    }

    fn check(&self) -> io::Result<()> {
        if self.is_over {
            return Err(io::Error::other("an earlier write or sync of this log failed"));
        }
        Ok(())
    }
}

impl<W: Write> Drop for Poisoning<W> {
    fn drop(&mut self) {
        // There is no one to tell. After a failure this writes nothing.
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails its second write after taking half of it.
    #[derive(Default)]
    struct FailsOnce {
        written: Vec<u8>,
        writes: usize,
    }

    impl Write for &mut FailsOnce {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            match self.writes {
                2 => Ok(self.written.write(&bytes[..bytes.len() / 2])?),
                3 => Err(io::ErrorKind::StorageFull.into()),
                _ => self.written.write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_is_written_after_a_failed_write() {
        let mut disk = FailsOnce::default();
        let mut out = Poisoning::new(&mut disk);
        out.append(|buffer| buffer.extend_from_slice(b"ab")).unwrap();
        out.flush().unwrap();
        out.append(|buffer| buffer.extend_from_slice(b"cdef")).unwrap();
        assert_eq!(out.flush().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(out.append(|buffer| buffer.push(b'g')).is_err());
        assert!(out.flush().is_err());
        assert!(out.guarded(|_| Ok(())).is_err());
        drop(out);
        assert_eq!(disk.written, b"abcd");
    }

    #[test]
    fn a_full_buffer_is_written_out() {
        let mut disk = Vec::new();
        let mut out = Poisoning::new(&mut disk);
        out.append(|buffer| buffer.resize(BUFFER_BYTES, 7)).unwrap();
        assert!(out.buffer.is_empty());
        drop(out);
        assert_eq!(disk.len(), BUFFER_BYTES);
    }

    #[test]
    fn the_synced_number_follows_the_syncs() {
        use crate::{
            files::read_whole,
            wal::record::{Frame, decode_frame},
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut wal = Wal::create(&path).unwrap();
        for syncs in [false, true, false, true] {
            wal.append(&[1; 16], 1, &[0.5], "ls").unwrap();
            if syncs {
                wal.sync().unwrap();
            }
        }
        let bytes = read_whole(&RealDisk, &path).unwrap();
        let mut rest = &bytes[..];
        let mut stamps = Vec::new();
        while !rest.is_empty() {
            let Frame { len, stamp, .. } = decode_frame(rest).unwrap();
            stamps.push((stamp.seq.0, stamp.file.0, stamp.synced.0));
            rest = &rest[len..];
        }
        assert_eq!(stamps, [(1, 0, 0), (2, 0, 0), (3, 0, 2), (4, 0, 2)]);
    }
}
