//! okaywal, a log and nothing else: an entry for each record, opened and configured as its how-to
//! does. "To fully flush all written bytes to disk and make the new entry resilliant to a crash,
//! the writer must be committed"; commits share an fsync. What it checkpoints is gone from it, and
//! its documentation wants that "all necessary changes must be fully synchronized" by then, so a
//! checkpoint appends the entries to an archive file and syncs that, which is the least that a
//! store behind it would have to do. Reading by key is a map that is filled from the archive and
//! the log when it is opened.

use std::{
    collections::HashMap,
    fmt,
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
    sync::{Arc, Mutex},
};

use okaywal::{Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};

use super::{
    payload::{KEY_BYTES, Payload, RECORD_BYTES},
    store::{Client, Level, Opening, Store},
};
use crate::Failure;

/// Opens the log in `dir/log` beside its archive.
pub fn open(dir: &Path, opening: Opening) -> Result<Box<dyn Store>, Failure> {
    if opening.level != Level::Durable {
        return Err("it has no buffered commits".into());
    }
    std::fs::create_dir_all(dir)?;
    let path = dir.join("archive");
    let archive = OpenOptions::new().create(true).append(true).read(true).open(&path)?;
    let mut records = Map::new();
    let mut reader = BufReader::with_capacity(1 << 20, &archive);
    let mut record = [0; RECORD_BYTES];
    while archive_has_more(&mut reader, &mut record)? {
        keep(&mut records, &record)?;
    }
    let records = Arc::new(Mutex::new(records));
    let archiver = Archiver { archive, records: Arc::clone(&records) };
    let log = WriteAheadLog::recover(dir.join("log"), archiver)?;
    Ok(Box::new(OkayWal { log, records }))
}

type Map = HashMap<[u8; KEY_BYTES], Vec<u8>>;

fn archive_has_more(reader: &mut impl Read, record: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(record) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn keep(records: &mut Map, record: &[u8]) -> io::Result<()> {
    let (key, value) = record
        .split_first_chunk()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a record without a key"))?;
    records.insert(*key, value.to_vec());
    Ok(())
}

struct Archiver {
    archive: File,
    /// What was found on opening; what is inserted later is not kept in memory.
    records: Arc<Mutex<Map>>,
}

impl fmt::Debug for Archiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archiver").finish_non_exhaustive()
    }
}

impl LogManager for Archiver {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let Some(chunks) = entry.read_all_chunks()? else { return Ok(()) };
        let mut records = self.records.lock().map_err(|_| io::Error::other("a reader panicked"))?;
        chunks.iter().try_for_each(|chunk| keep(&mut records, chunk))
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        entries: &mut SegmentReader,
        _log: &WriteAheadLog,
    ) -> io::Result<()> {
        let mut writer = BufWriter::with_capacity(1 << 20, &self.archive);
        while let Some(mut entry) = entries.read_entry()? {
            for chunk in entry.read_all_chunks()?.into_iter().flatten() {
                writer.write_all(&chunk)?;
            }
        }
        writer.flush()?;
        drop(writer);
        self.archive.sync_data()
    }
}

struct OkayWal {
    log: WriteAheadLog,
    records: Arc<Mutex<Map>>,
}

impl Store for OkayWal {
    fn client(&self) -> Result<Box<dyn Client + '_>, Failure> {
        Ok(Box::new(OkayWalClient(self.log.clone())))
    }

    fn get(&self, key: &[u8; KEY_BYTES]) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.records.lock().map_err(|_| "a reader panicked")?.get(key).cloned())
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.log.shutdown()?)
    }
}

struct OkayWalClient(WriteAheadLog);

impl Client for OkayWalClient {
    fn insert(&mut self, records: &[Payload]) -> Result<(), Failure> {
        let mut entry = self.0.begin_entry()?;
        for record in records {
            entry.write_chunk(record.bytes())?;
        }
        entry.commit()?;
        Ok(())
    }
}
