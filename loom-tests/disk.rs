//! Files in memory, for the log and for segments.
//!
//! What is on a disk is a fact, not something that threads tell each other: the locks here are
//! those of std, so that loom takes them for no order. But who looks at it does so before or after
//! it is changed, and loom explores both ([`SharedDisk::lock`]).

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use tala_core::{IntentId, StorageOperation, TalaError};
use tala_store::rooms::{
    Arena, FileNumber, HotBuffer, LogFile, SegmentStore, SeqNo, encode_segment,
    sync::{
        Inbox, Patience,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};
use tala_wire::SegmentReader;

/// What a medium does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// Nothing.
    None,
    /// Every append but the first is refused.
    RefusesAppends,
    /// Every sync but the first is refused.
    RefusesSyncs,
    /// Every segment is refused.
    RefusesSegments,
    /// Syncs are reported as done and are not.
    ForgetsSyncs,
    /// As `RefusesAppends`, but what is refused is reported as done.
    HidesRefusals,
    /// A segment is reported as published and is not before the next one.
    PutsSegmentsOff,
    /// A segment is published twice.
    RepeatsSegments,
    /// What is asked of the log the so-manieth time is refused.
    RefusesStep(u32),
}

/// What a disk holds of one engine.
#[derive(Debug, Default)]
pub struct Disk {
    /// Every log file, one after the other.
    log: Vec<u8>,
    /// How much of `log` a crash leaves.
    synced_len: usize,
    /// Every published segment.
    pub segments: Vec<Segment>,
    /// Those that were put off.
    put_off: Vec<Segment>,
}

/// A disk that the threads of a model share.
#[derive(Default)]
pub struct SharedDisk {
    disk: Mutex<Disk>,
    /// What loom sees of each look and each change. Of accesses that it does not see, it explores
    /// one order only.
    turns: AtomicU32,
}

impl SharedDisk {
    /// To look at what is there, or to change what others find.
    pub fn lock(&self) -> MutexGuard<'_, Disk> {
        // Relaxed: no thread learns anything from it.
        self.turns.fetch_add(1, Relaxed);
        self.lock_unseen()
    }

    /// To change what nobody looks at yet.
    fn lock_unseen(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }
}

/// A published segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The rows in it.
    pub rows: Vec<(IntentId, u64)>,
    /// The last sequence number that it covers.
    pub last_seq: u64,
    /// The last log file that it covers.
    pub log: FileNumber,
}

impl Disk {
    /// Where the record of `id` starts in the log, if a crash would leave it there.
    pub fn durable_place(&self, id: &IntentId) -> Option<usize> {
        self.durable_place_of(id.as_bytes())
    }

    /// Where these bytes are in the log, if a crash would leave them there.
    pub fn durable_place_of(&self, bytes: &[u8]) -> Option<usize> {
        self.log[..self.synced_len].windows(bytes.len()).position(|found| found == bytes)
    }

    /// How often `id` is in a published segment.
    pub fn segments_with(&self, id: &IntentId) -> usize {
        self.segments.iter().flat_map(|segment| &segment.rows).filter(|row| row.0 == *id).count()
    }
}

/// The log of a [`Disk`].
pub struct ModelLog {
    disk: Arc<SharedDisk>,
    flaw: Flaw,
    appends: u32,
    syncs: u32,
    steps: u32,
}

impl ModelLog {
    pub fn new(disk: Arc<SharedDisk>, flaw: Flaw) -> Self {
        Self { disk, flaw, appends: 0, syncs: 0, steps: 0 }
    }

    fn step(&mut self, operation: StorageOperation) -> Result<(), TalaError> {
        self.steps += 1;
        if self.flaw == Flaw::RefusesStep(self.steps) { Err(refusal(operation)) } else { Ok(()) }
    }
}

impl LogFile for ModelLog {
    fn append(&mut self, bytes: &[u8]) -> Result<(), TalaError> {
        self.step(StorageOperation::Write)?;
        self.appends += 1;
        let is_refused = self.appends > 1;
        match self.flaw {
            Flaw::RefusesAppends if is_refused => Err(refusal(StorageOperation::Write)),
            Flaw::HidesRefusals if is_refused => Ok(()),
            _ => {
                // Found by nobody before it is synced.
                self.disk.lock_unseen().log.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn sync(&mut self) -> Result<(), TalaError> {
        self.step(StorageOperation::Sync)?;
        self.syncs += 1;
        match self.flaw {
            Flaw::RefusesSyncs if self.syncs > 1 => Err(refusal(StorageOperation::Sync)),
            Flaw::ForgetsSyncs => Ok(()),
            _ => {
                let mut disk = self.disk.lock();
                disk.synced_len = disk.log.len();
                Ok(())
            }
        }
    }

    fn prepare(&mut self, _next: FileNumber) -> Result<(), TalaError> {
        self.step(StorageOperation::Create)
    }

    fn rotate(&mut self, _next: FileNumber) -> Result<(), TalaError> {
        self.step(StorageOperation::Open)
    }
}

/// The segments of a [`Disk`].
pub struct ModelSegments {
    pub disk: Arc<SharedDisk>,
    pub arena: Arc<Arena>,
    pub flaw: Flaw,
    /// Each publication waits for a word here, or for the end of the words.
    pub words: Option<Inbox<()>>,
}

impl SegmentStore for ModelSegments {
    fn log_closed(&mut self, _last_seq: SeqNo) -> Result<(), TalaError> {
        Ok(())
    }

    fn publish(
        &mut self,
        buffer: &HotBuffer,
        last_seq: SeqNo,
        log: FileNumber,
    ) -> Result<u64, TalaError> {
        if self.flaw == Flaw::RefusesSegments {
            return Err(refusal(StorageOperation::Create));
        }
        if let Some(words) = &self.words {
            words.receive(Patience::Endless);
        }
        let bytes = encode_segment(buffer, &*self.arena)?;
        let len = bytes.len() as u64;
        let reader = SegmentReader::open(bytes).unwrap();
        let rows = (0..reader.len())
            .map(|row| (reader.id(row).unwrap(), reader.seq(row).unwrap()))
            .collect();
        let segment = Segment { rows, last_seq: last_seq.0, log };
        let mut disk = self.disk.lock();
        let late = std::mem::take(&mut disk.put_off);
        disk.segments.extend(late);
        match self.flaw {
            Flaw::PutsSegmentsOff => disk.put_off.push(segment),
            Flaw::RepeatsSegments => disk.segments.extend([segment.clone(), segment]),
            _ => disk.segments.push(segment),
        }
        Ok(len)
    }
}

fn refusal(operation: StorageOperation) -> TalaError {
    TalaError::storage(operation, "model", io::Error::from(io::ErrorKind::StorageFull))
}
