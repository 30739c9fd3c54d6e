//! The MANIFEST: which segments and logs of a directory count, and how far.
//!
//! It is replaced whole, by rename, and published before the first log file is created; so logs
//! or segments without one are damage, never an empty store.
//!
//! # Layout
//!
//! All numbers are little-endian. `s` is the number of segments, `l` that of logs, `m` 1 where
//! there is a legacy entry and 0 otherwise. The magic, the version and the checksum at the end
//! stay where they are in every later version.
//!
//! | offset | bytes | type | meaning |
//! |---|---|---|---|
//! | 0 | 8 | bytes | magic `TALAMANI` |
//! | 8 | 4 | u32 | format version: 1 |
//! | 12 | 4 | u32 | dimension of the embeddings |
//! | 16 | 8 | u64 | next segment number |
//! | 24 | 8 | u64 | first live log number; 0 where no log was made yet |
//! | 32 | 8 | u64 | sequence number that the first record of that log has or will have |
//! | 40 | 8 | u64 | highest sequence number known to be synced |
//! | 48 | 8 | u64 | segments = s |
//! | 56 | 8 | u64 | logs = l |
//! | 64 | 8 | u64 | legacy entries = m |
//! | 72 | 40 s | | the segments |
//! | next | 32 l | | the logs |
//! | next | 16 m | | `current.wal` as it was imported |
//! | next | 4 | u32 | CRC-32C of every byte before this field |
//!
//! | offset in a segment | bytes | type | meaning |
//! |---|---|---|---|
//! | 0 | 8 | u64 | number |
//! | 8 | 16 | u64, u64 | first and last sequence number, inclusive |
//! | 24 | 8 | u64 | length of its file |
//! | 32 | 4 | u32 | CRC-32C of its file |
//! | 36 | 4 | | 0 |
//!
//! | offset in a log | bytes | type | meaning |
//! |---|---|---|---|
//! | 0 | 8 | u64 | number |
//! | 8 | 16 | u64, u64 | first and last sequence number, inclusive; last = first - 1: none |
//! | 24 | 8 | u64 | bytes of it that count |
//!
//! | offset in `current.wal` | bytes | type | meaning |
//! |---|---|---|---|
//! | 0 | 8 | u64 | length of the file |
//! | 8 | 4 | u32 | CRC-32C of the file |
//! | 12 | 4 | | 0 |

use std::{collections::HashSet, io, path::Path};

use crc32c::crc32c;
use tala_core::{SegmentId, StorageOperation, TalaError};

use crate::{
    bytes::Fields,
    disk::StoreDir,
    files::write_atomically,
    ids::{FileNumber, NUMBER_END, SeqNo},
};

/// Name of the file in its directory.
pub(crate) const MANIFEST_NAME: &str = "MANIFEST";

const MAGIC: [u8; 8] = *b"TALAMANI";
const VERSION: u32 = 1;
const VERSION_OFFSET: u64 = 8;
const COUNTS_OFFSET: u64 = 48;
const HEADER_BYTES: u64 = 72;
const CRC_BYTES: u64 = 4;
/// What is read at most of a file of another version, to tell whether it is intact.
const UNKNOWN_BYTES_MAX: u64 = 64 << 20;
const SEGMENT_BYTES: u64 = 40;
const LOG_BYTES: u64 = 32;
const LEGACY_BYTES: u64 = 16;

/// Name of the segment file with this id, such as `segment_000001.tbf`.
pub(crate) fn segment_name(id: SegmentId) -> String {
    format!("segment_{id}.tbf")
}

/// The id in the name of a segment file, or `None` for any other name.
pub(crate) fn parse_segment_name(name: &str) -> Option<SegmentId> {
    let digits = name.strip_prefix("segment_")?.strip_suffix(".tbf")?;
    let id = SegmentId(digits.parse().ok()?);
    (segment_name(id) == name).then_some(id)
}

/// What counts in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Manifest {
    /// Dimension of the embeddings, at least 1.
    pub(crate) dim: u32,
    /// The live segments. Ids are distinct and below `next_segment`; sequence ranges ascend
    /// below `next_seq` and do not overlap.
    pub(crate) segments: Vec<SegmentEntry>,
    /// Segment files with this number or a higher one never counted.
    pub(crate) next_segment: SegmentId,
    /// A log with this number or a higher one is live: read as far as it goes. Its file was made
    /// before the MANIFEST said so, and is never removed while it is live, so one that is missing
    /// was lost. 0 as long as no log was made.
    pub(crate) next_log: FileNumber,
    /// The sequence number that the first record of log `next_log` has or will have.
    pub(crate) next_seq: SeqNo,
    /// Everything up to this sequence number had been synced when the MANIFEST was published; what
    /// is missing of it was lost. The last thing a store that is closed writes down.
    pub(crate) synced_seq: SeqNo,
    /// Older logs that still count, each read exactly as far as it says. Numbers and sequence
    /// ranges ascend, below `next_log` and `next_seq`. Any other log below `next_log` is retired:
    /// segments hold what was in it.
    pub(crate) logs: Vec<LogEntry>,
    /// The log of the original implementation, where it was imported.
    pub(crate) legacy: Option<LegacyEntry>,
}

/// A live segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentEntry {
    /// Its number.
    pub(crate) id: SegmentId,
    /// The first sequence number it covers, at least 1.
    pub(crate) first_seq: SeqNo,
    /// The last, inclusive.
    pub(crate) last_seq: SeqNo,
    /// Length of its file.
    pub(crate) bytes: u64,
    /// A CRC-32C of its file; of which bytes, the segment store says.
    pub(crate) crc: u32,
}

/// An older log that still counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogEntry {
    /// Its number, at least 1.
    pub(crate) number: FileNumber,
    /// Sequence number of its first record, at least 1.
    pub(crate) first_seq: SeqNo,
    /// Of its last record; the one before `first_seq` where it has none.
    pub(crate) last_seq: SeqNo,
    /// Bytes of it that count, 0 exactly where it has no records.
    pub(crate) accepted_len: u64,
}

/// `current.wal` as it was when it was imported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LegacyEntry {
    /// Its length.
    pub(crate) bytes: u64,
    /// CRC-32C of all of it.
    pub(crate) crc: u32,
}

impl Manifest {
    /// A manifest of an empty store.
    pub(crate) const fn new(dim: u32) -> Self {
        Self {
            dim,
            segments: Vec::new(),
            next_segment: SegmentId(1),
            next_log: FileNumber(0),
            next_seq: SeqNo::FIRST,
            synced_seq: SeqNo::ZERO,
            logs: Vec::new(),
            legacy: None,
        }
    }

    /// The last sequence number that segments cover; [`SeqNo::ZERO`] where there are none.
    pub(crate) fn covered_seq(&self) -> SeqNo {
        self.segments.last().map_or(SeqNo::ZERO, |segment| segment.last_seq)
    }

    /// Lets go of the logs up to `log`, whose last sequence number is `last_seq`: segments cover
    /// them. Returns their numbers.
    pub(crate) fn retire_logs(&mut self, log: FileNumber, last_seq: SeqNo) -> Vec<FileNumber> {
        let listed = self.logs.extract_if(.., |entry| entry.number <= log);
        let mut retired: Vec<FileNumber> = listed.map(|entry| entry.number).collect();
        while self.next_log <= log {
            retired.push(self.next_log);
            self.next_log = self.next_log.next();
            self.next_seq = last_seq.next();
        }
        retired
    }

    /// The accepted log with this number.
    pub(crate) fn log(&self, number: FileNumber) -> Option<&LogEntry> {
        self.logs.iter().find(|log| log.number == number)
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// [`TalaError::InvalidInput`] where the fields contradict each other: such a file could not
    /// be read again.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, TalaError> {
        self.validate().map_err(|(_, what)| TalaError::InvalidInput {
            field: "manifest",
            reason: what.to_owned(),
        })?;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.dim.to_le_bytes());
        let counts = [self.segments.len(), self.logs.len(), usize::from(self.legacy.is_some())];
        let numbers = [self.next_segment.0, self.next_log.0, self.next_seq.0, self.synced_seq.0];
        extend_with(&mut bytes, numbers);
        extend_with(&mut bytes, counts.map(|count| count as u64));
        for SegmentEntry { id, first_seq, last_seq, bytes: len, crc } in &self.segments {
            extend_with(&mut bytes, [id.0, first_seq.0, last_seq.0, *len, u64::from(*crc)]);
        }
        for LogEntry { number, first_seq, last_seq, accepted_len } in &self.logs {
            extend_with(&mut bytes, [number.0, first_seq.0, last_seq.0, *accepted_len]);
        }
        if let Some(LegacyEntry { bytes: len, crc }) = self.legacy {
            extend_with(&mut bytes, [len, u64::from(crc)]);
        }
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        Ok(bytes)
    }

    /// The manifest in `bytes`, which were read from `path`.
    ///
    /// # Errors
    /// [`TalaError::UnsupportedVersion`] for an intact file of a newer version;
    /// [`TalaError::Corrupt`] for anything else that is not a manifest.
    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Self, TalaError> {
        let corrupt = |offset: u64, what: &str| TalaError::corrupt(path, offset, what);
        if !bytes.starts_with(&MAGIC) {
            return Err(corrupt(0, "not a manifest"));
        }
        let body = match bytes.split_last_chunk() {
            Some((body, crc)) if crc32c(body) == u32::from_le_bytes(*crc) => body,
            _ => return Err(corrupt(0, "the checksum does not match")),
        };
        let version = body.get(VERSION_OFFSET as usize..).and_then(|rest| Fields::new(rest).u32());
        match version {
            Some(VERSION) => {}
            Some(found) if found > VERSION => {
                let file = path.to_owned();
                return Err(TalaError::UnsupportedVersion { file, found, supported: VERSION });
            }
            _ => return Err(corrupt(VERSION_OFFSET, "there is no such format version")),
        }
        let manifest =
            parse(body).ok_or_else(|| corrupt(HEADER_BYTES, "the lengths do not add up"))?;
        manifest.validate().map_err(|(offset, what)| corrupt(offset, what))?;
        Ok(manifest)
    }

    /// The manifest of `dir`, or `None` where there is none.
    ///
    /// # Errors
    /// As [`Manifest::decode`], and [`TalaError::Storage`].
    pub(crate) fn load(dir: &StoreDir) -> Result<Option<Self>, TalaError> {
        let path = dir.join(MANIFEST_NAME);
        let refused = |error| TalaError::storage(StorageOperation::Read, &path, error);
        let file = match dir.disk().open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refused(error)),
        };
        let len = file.byte_len();
        let len = len.map_err(|error| TalaError::storage(StorageOperation::Open, &path, error))?;
        let header = file.read_start(HEADER_BYTES).map_err(refused)?;
        // What it says itself bounds what is read, before room is made for it.
        check_len(&path, &header, len)?;
        Self::decode(&path, &file.read_whole().map_err(refused)?).map(Some)
    }

    /// Makes this the manifest of `dir`, durably. The caller holds the directory's lock.
    ///
    /// # Errors
    /// As [`Manifest::encode`], and [`TalaError::Storage`].
    pub(crate) fn publish(&self, dir: &StoreDir) -> Result<(), TalaError> {
        write_atomically(dir, MANIFEST_NAME, &self.encode()?)
    }

    /// Whether the segments' sequence ranges leave no gap, beyond what [`Manifest::decode`] asks for.
    ///
    /// # Errors
    /// [`TalaError::Corrupt`] with the first that does not fit; `path` is the file.
    pub(crate) fn check_arithmetic(&self, path: &Path) -> Result<(), TalaError> {
        let mut offset = HEADER_BYTES;
        let mut covered = SeqNo::ZERO;
        for segment in &self.segments {
            if segment.first_seq != covered.next() {
                let what = format!(
                    "segment {} begins at sequence number {}, the one before ends at {covered}",
                    segment.id, segment.first_seq
                );
                return Err(TalaError::corrupt(path, offset, what));
            }
            covered = segment.last_seq;
            offset += SEGMENT_BYTES;
        }
        Ok(())
    }

    /// Checks what the fields' documentation promises. The error is an offset and what is wrong.
    fn validate(&self) -> Result<(), (u64, &'static str)> {
        let header = [
            (self.dim > 0, 12, "the dimension is 0"),
            (self.next_segment.0 > 0, 16, "the next segment number is 0"),
            (self.next_segment.0 < NUMBER_END, 16, "the next segment number is out of range"),
            (self.next_log.0 > 0 || self.logs.is_empty(), 24, "the first live log number is 0"),
            (self.next_log.0 < NUMBER_END, 24, "the first live log number is out of range"),
            (self.next_seq > SeqNo::ZERO, 32, "the next sequence number is 0"),
            (self.next_seq.0 < NUMBER_END, 32, "the next sequence number is out of range"),
        ];
        if let Some((_, offset, what)) = header.into_iter().find(|(holds, ..)| !holds) {
            return Err((offset, what));
        }
        let mut offset = HEADER_BYTES;
        let mut ids = HashSet::with_capacity(self.segments.len());
        let mut previous = SeqNo::ZERO;
        for segment in &self.segments {
            let what = if segment.id >= self.next_segment || segment.id.0 == 0 {
                "a segment number is out of range"
            } else if !ids.insert(segment.id) {
                "a segment is listed twice"
            } else if segment.first_seq <= previous || segment.last_seq < segment.first_seq {
                "the segments' sequence ranges do not ascend"
            } else if segment.last_seq >= self.next_seq {
                "a segment's sequence range is not below the next sequence number"
            } else {
                previous = segment.last_seq;
                offset += SEGMENT_BYTES;
                continue;
            };
            return Err((offset, what));
        }
        let (mut number, mut previous) = (FileNumber(0), SeqNo::ZERO);
        for log in &self.logs {
            let is_empty = log.last_seq < log.first_seq;
            let what = if log.number <= number || log.number >= self.next_log {
                "a log number is out of range"
            } else if log.first_seq <= previous || log.last_seq < log.first_seq.previous() {
                "the logs' sequence ranges do not ascend"
            } else if log.first_seq <= self.covered_seq() {
                "a log counts, although segments cover its beginning"
            } else if log.last_seq >= self.next_seq {
                "a log's sequence range is not below the next sequence number"
            } else if is_empty != (log.accepted_len == 0) {
                "a log's length contradicts its sequence range"
            } else {
                (number, previous) = (log.number, log.last_seq);
                offset += LOG_BYTES;
                continue;
            };
            return Err((offset, what));
        }
        Ok(())
    }
}

/// Whether a file of `len` bytes that begins with `header` is as long as its counts ask for. One of a
/// version that this build does not know may have any length up to a bound, and one with less than a
/// header is left to who reads it.
fn check_len(path: &Path, header: &[u8], len: u64) -> Result<(), TalaError> {
    if !header.starts_with(&MAGIC) {
        return Err(TalaError::corrupt(path, 0, "not a manifest"));
    }
    let mut fields = Fields::new(header.get(VERSION_OFFSET as usize..).unwrap_or_default());
    let is_known = fields.u32() == Some(VERSION);
    if len < HEADER_BYTES {
        return Ok(());
    }
    let (at, what) = if is_known {
        let counts = header.get(COUNTS_OFFSET as usize..).unwrap_or_default();
        match due_len(&mut Fields::new(counts)) {
            Some(due) if due == len => return Ok(()),
            Some(due) => (len.min(due), format!("the counts ask for {due} bytes")),
            None => (COUNTS_OFFSET, "no file is as long as its counts ask for".to_owned()),
        }
    } else if len <= UNKNOWN_BYTES_MAX {
        return Ok(());
    } else {
        (UNKNOWN_BYTES_MAX, "no manifest of another version is read that is so long".to_owned())
    };
    Err(TalaError::corrupt(path, at, format!("the file has {len} bytes, but {what}")))
}

/// How long a file with these counts is.
fn due_len(counts: &mut Fields<'_>) -> Option<u64> {
    let segments = counts.u64()?.checked_mul(SEGMENT_BYTES)?;
    let logs = counts.u64()?.checked_mul(LOG_BYTES)?;
    let legacy = counts.u64()?.checked_mul(LEGACY_BYTES)?;
    let body = HEADER_BYTES.checked_add(segments)?.checked_add(logs)?.checked_add(legacy)?;
    body.checked_add(CRC_BYTES)
}

fn extend_with<const N: usize>(bytes: &mut Vec<u8>, numbers: [u64; N]) {
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
}

/// The fields of a body whose checksum matches; `None` where its length is not what its counts
/// say. Nothing is allocated before the counts are known to fit, and then no more than the file has
/// bytes.
fn parse(body: &[u8]) -> Option<Manifest> {
    let mut fields = Fields::new(body);
    fields.take(VERSION_OFFSET + 4)?;
    let dim = fields.u32()?;
    let next_segment = SegmentId(fields.u64()?);
    let next_log = FileNumber(fields.u64()?);
    let next_seq = SeqNo(fields.u64()?);
    let synced_seq = SeqNo(fields.u64()?);
    let (segment_count, log_count, legacy_count) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let expected_len = segment_count
        .checked_mul(SEGMENT_BYTES)?
        .checked_add(log_count.checked_mul(LOG_BYTES)?)?
        .checked_add(legacy_count.checked_mul(LEGACY_BYTES)?)?;
    if fields.rest().len() as u64 != expected_len || legacy_count > 1 {
        return None;
    }
    let mut segments = Vec::with_capacity(usize::try_from(segment_count).ok()?);
    for _ in 0..segment_count {
        segments.push(SegmentEntry {
            id: SegmentId(fields.u64()?),
            first_seq: SeqNo(fields.u64()?),
            last_seq: SeqNo(fields.u64()?),
            bytes: fields.u64()?,
            crc: u32::try_from(fields.u64()?).ok()?,
        });
    }
    let mut logs = Vec::with_capacity(usize::try_from(log_count).ok()?);
    for _ in 0..log_count {
        logs.push(LogEntry {
            number: FileNumber(fields.u64()?),
            first_seq: SeqNo(fields.u64()?),
            last_seq: SeqNo(fields.u64()?),
            accepted_len: fields.u64()?,
        });
    }
    let legacy = match legacy_count {
        0 => None,
        _ => Some(LegacyEntry { bytes: fields.u64()?, crc: u32::try_from(fields.u64()?).ok()? }),
    };
    Some(Manifest { dim, segments, next_segment, next_log, next_seq, synced_seq, logs, legacy })
}

#[cfg(test)]
mod tests;
