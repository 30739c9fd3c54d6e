//! One log record: bytes to meaning and back. Pure; no file, no clock.
//!
//! # Layout
//!
//! All numbers are little-endian. `d` is the embedding's dimension, `c` the command's length, `p`
//! the number of parents. Records stand back to back from byte 0 of a file, without a file header.
//!
//! **Fixed frame**, shared with every TALA program. A reader of the frame alone takes these fields
//! and then skips to the end of the payload; it skips frames whose `embed_dim` is 0.
//!
//! | offset | bytes | type | meaning |
//! |---|---|---|---|
//! | 0 | 4 | u32 | `payload_len`: bytes that follow this field |
//! | 4 | 16 | bytes | id; zero in a mark |
//! | 20 | 8 | u64 | timestamp, ns since the epoch; zero unless an insert |
//! | 28 | 4 | u32 | `embed_dim` = d; zero unless an insert |
//! | 32 | 4 d | f32 | embedding |
//! | 32 + 4 d | 4 | u32 | `cmd_len` = c; zero unless an insert |
//! | 36 + 4 d | c | UTF-8 | command |
//!
//! **Tail**, ours, still inside the payload. Offsets count from its first byte, 36 + 4 d + c.
//!
//! | offset | bytes | type | meaning |
//! |---|---|---|---|
//! | 0 | 1 | u8 | kind: 1 insert, 2 outcome, 3 removal, 4 closed, 5 rotated |
//! | 1 | 1 | u8 | flags: bit 0 an outcome follows; all others 0 |
//! | 2 | 4 | u32 | place in the batch, from 0 |
//! | 6 | 4 | u32 | records in the batch, at least 1; marks stand alone |
//! | 10 | 8 | u64 | insert: context hash; rotated: number of the next log file |
//! | 18 | 4 | f32 | insert: confidence |
//! | 22 | 4 | u32 | insert: number of parents = p |
//! | 26 | 16 p | bytes | insert: parent ids in order |
//! | next | 13 | u8, u64, i32 | where flag bit 0 is set: status, latency in ns, exit code |
//! | next | 36 | | trailer |
//!
//! **Trailer**, the last 36 bytes of the payload. Its last 12 bytes keep their meaning in every
//! later version, and a later version of the tail comes with a later version of the MANIFEST, so
//! that an older build does not get as far as judging such a log.
//!
//! | offset | bytes | type | meaning |
//! |---|---|---|---|
//! | 0 | 8 | u64 | sequence number, from 1 |
//! | 8 | 8 | u64 | number of the log file this record was written to |
//! | 16 | 8 | u64 | highest sequence number that was synced when this record was written |
//! | 24 | 4 | u32 | length of the tail, trailer included |
//! | 28 | 3 | bytes | magic `F5 54 57`; F5 occurs in no UTF-8 text |
//! | 31 | 1 | u8 | version of the tail: 1 |
//! | 32 | 4 | u32 | CRC-32C of every byte of the record before this one, `payload_len` included |
//!
//! The tail of an insert is 62 bytes without parents and outcome. No tail has a length that is a
//! power of two (62 + 16 p, 75 + 16 p, 59, 46 and 54 are none), so that no single flipped bit of a
//! length cuts the tail off a record and leaves a valid frame without one; and a length that makes
//! the tail a part of the command makes the command no UTF-8.
//!
//! Everything but the sequence number, file and synced number is known before the record has its
//! place in the log. So [`Encoded`] is made, and most of its CRC computed, on the thread of the
//! caller, and the one thread that orders the log only adds the trailer.

mod decode;

use crc32c::{crc32c, crc32c_append};
use tala_core::{Intent, IntentId, Outcome, TalaError};

use crate::ids::{FileNumber, SeqNo};

pub(crate) use decode::{
    BadFrame, Body, Candidate, FixedFrame, Frame, decode_checked_frame, decode_frame, floats,
};

/// The version of the tail that this build writes, and the newest that it reads.
pub(crate) const TAIL_VERSION: u8 = 1;
/// Bytes of the fixed frame apart from embedding and command, `payload_len` included.
const FRAME_BYTES: u64 = 36;
/// Bytes of `payload_len` itself.
const LENGTH_BYTES: u64 = 4;
const TAIL_HEAD_BYTES: u64 = 10;
const INSERT_BYTES: u64 = 16;
const OUTCOME_BYTES: u64 = 13;
const TRAILER_BYTES: u64 = 36;
const ID_BYTES: u64 = 16;
const MAGIC: [u8; 3] = [0xF5, b'T', b'W'];

const KIND_INSERT: u8 = 1;
const KIND_OUTCOME: u8 = 2;
const KIND_REMOVAL: u8 = 3;
const KIND_CLOSED: u8 = 4;
const KIND_ROTATED: u8 = 5;
const FLAG_OUTCOME: u8 = 1;

/// The fewest bytes that a record with a tail takes.
pub(crate) const RECORD_BYTES_MIN: u64 = FRAME_BYTES + TAIL_HEAD_BYTES + TRAILER_BYTES;

/// What a record says happened.
#[derive(Clone, PartialEq, Debug)]
pub enum LogOp {
    /// An intent was stored; one with the same id is replaced.
    Insert(Intent),
    /// An outcome was attached.
    Outcome {
        /// To this intent.
        id: IntentId,
        /// The outcome.
        outcome: Outcome,
    },
    /// An intent was removed.
    Removal {
        /// This one.
        id: IntentId,
    },
    /// The file ends here on purpose.
    Mark(Mark),
}

/// The last record of a file that was ended on purpose. It is written after everything before it
/// was synced, and so proves that what stands before it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// The store was closed.
    Closed,
    /// The log went on in another file.
    Rotated {
        /// That file; it existed when the mark was written.
        next: FileNumber,
    },
}

/// Place of a record in its batch, which is in the log whole or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchPlace {
    /// From 0, below `len`.
    pub index: u32,
    /// Records in the batch, at least 1.
    pub len: u32,
}

impl BatchPlace {
    /// A record on its own.
    pub const SINGLE: Self = Self { index: 0, len: 1 };

    /// Whether the batch is complete with this record.
    pub const fn is_last(self) -> bool {
        self.index.saturating_add(1) == self.len
    }
}

/// What a record gets when it gets its place in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Its sequence number.
    pub seq: SeqNo,
    /// The file that it is written to.
    pub file: FileNumber,
    /// The highest sequence number known to be synced now; below `seq`.
    pub synced: SeqNo,
}

/// A record complete but for its stamp.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// From `payload_len` up to the trailer.
    bytes: Vec<u8>,
    /// CRC-32C of `bytes`.
    crc: u32,
    tail_len: u32,
}

/// The fields of an insert, borrowed from wherever they are.
#[derive(Clone, Copy)]
pub(crate) struct InsertFields<'a> {
    pub(crate) id: &'a [u8; 16],
    pub(crate) timestamp: u64,
    pub(crate) embedding: &'a [f32],
    pub(crate) command: &'a str,
    pub(crate) context_hash: u64,
    pub(crate) confidence: f32,
    pub(crate) parent_ids: &'a [IntentId],
    pub(crate) outcome: Option<Outcome>,
}

impl Encoded {
    /// The record that stores `intent`.
    ///
    /// # Errors
    /// [`TalaError::TooLarge`] where the record's length does not fit its field.
    pub fn insert(intent: &Intent, place: BatchPlace) -> Result<Self, TalaError> {
        let Intent {
            id,
            timestamp,
            raw_command,
            embedding,
            context_hash,
            parent_ids,
            outcome,
            confidence,
        } = intent;
        Self::insert_fields(
            InsertFields {
                id: id.as_bytes(),
                timestamp: *timestamp,
                embedding,
                command: raw_command,
                context_hash: *context_hash,
                confidence: *confidence,
                parent_ids,
                outcome: *outcome,
            },
            place,
        )
    }

    /// The record that stores an intent with these fields.
    ///
    /// # Errors
    /// As [`Encoded::insert`].
    pub(crate) fn insert_fields(
        fields: InsertFields<'_>,
        place: BatchPlace,
    ) -> Result<Self, TalaError> {
        let parents = fields.parent_ids.len() as u64;
        let outcome_bytes = if fields.outcome.is_some() { OUTCOME_BYTES } else { 0 };
        let extra = INSERT_BYTES + ID_BYTES * parents + outcome_bytes;
        let mut record = Self::begin(&fields, KIND_INSERT, place, extra)?;
        record.bytes.extend_from_slice(&fields.context_hash.to_le_bytes());
        record.bytes.extend_from_slice(&fields.confidence.to_le_bytes());
        record.bytes.extend_from_slice(&fitting(parents)?.to_le_bytes());
        for parent in fields.parent_ids {
            record.bytes.extend_from_slice(parent.as_bytes());
        }
        if let Some(outcome) = fields.outcome {
            record.push_outcome(outcome);
        }
        Ok(record.sealed())
    }

    /// Bytes of the record that stores `intent`, without making it.
    pub fn insert_len(intent: &Intent) -> u64 {
        let outcome_bytes = if intent.outcome.is_some() { OUTCOME_BYTES } else { 0 };
        FRAME_BYTES
            + 4 * intent.embedding.len() as u64
            + intent.raw_command.len() as u64
            + TAIL_HEAD_BYTES
            + INSERT_BYTES
            + ID_BYTES * intent.parent_ids.len() as u64
            + outcome_bytes
            + TRAILER_BYTES
    }

    /// The record that attaches `outcome` to the intent `id`.
    ///
    /// # Errors
    /// None in practice: the record has a fixed length.
    pub fn outcome(id: IntentId, outcome: Outcome, place: BatchPlace) -> Result<Self, TalaError> {
        let fields = InsertFields { outcome: Some(outcome), ..no_fields(id.as_bytes()) };
        let mut record = Self::begin(&fields, KIND_OUTCOME, place, OUTCOME_BYTES)?;
        record.push_outcome(outcome);
        Ok(record.sealed())
    }

    /// The record that removes the intent `id`.
    ///
    /// # Errors
    /// As [`Encoded::outcome`].
    pub fn removal(id: IntentId, place: BatchPlace) -> Result<Self, TalaError> {
        Ok(Self::begin(&no_fields(id.as_bytes()), KIND_REMOVAL, place, 0)?.sealed())
    }

    /// The record that ends a file.
    ///
    /// # Errors
    /// As [`Encoded::outcome`].
    pub fn mark(mark: Mark) -> Result<Self, TalaError> {
        let fields = no_fields(&[0; 16]);
        let record = match mark {
            Mark::Closed => Self::begin(&fields, KIND_CLOSED, BatchPlace::SINGLE, 0)?,
            Mark::Rotated { next } => {
                let mut record = Self::begin(&fields, KIND_ROTATED, BatchPlace::SINGLE, 8)?;
                record.bytes.extend_from_slice(&next.0.to_le_bytes());
                record
            }
        };
        Ok(record.sealed())
    }

    /// Bytes that the record takes in the log.
    pub fn encoded_len(&self) -> u64 {
        self.bytes.len() as u64 + TRAILER_BYTES
    }

    /// Appends the whole record to `out`.
    pub fn stamp_into(&self, out: &mut Vec<u8>, stamp: Stamp) {
        debug_assert!(stamp.synced < stamp.seq, "a record cannot be synced before it is written");
        let start = out.len() + self.bytes.len();
        out.reserve(self.bytes.len() + TRAILER_BYTES as usize);
        out.extend_from_slice(&self.bytes);
        out.extend_from_slice(&stamp.seq.0.to_le_bytes());
        out.extend_from_slice(&stamp.file.0.to_le_bytes());
        out.extend_from_slice(&stamp.synced.0.to_le_bytes());
        out.extend_from_slice(&self.tail_len.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out.push(TAIL_VERSION);
        let crc = crc32c_append(self.crc, &out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// The fixed frame and the head of the tail; `extra` bytes will follow before the trailer.
    fn begin(
        fields: &InsertFields<'_>,
        kind: u8,
        place: BatchPlace,
        extra: u64,
    ) -> Result<Self, TalaError> {
        debug_assert!(place.index < place.len, "a batch has no place {place:?}");
        let dim = fields.embedding.len() as u64;
        let command_len = fields.command.len() as u64;
        let tail_len = TAIL_HEAD_BYTES + extra + TRAILER_BYTES;
        let record_len = FRAME_BYTES + 4 * dim + command_len + tail_len;
        let payload_len = fitting(record_len - LENGTH_BYTES)?;
        // The payload's length fits, so that of each part does.
        let mut bytes = Vec::with_capacity((record_len - TRAILER_BYTES) as usize);
        bytes.extend_from_slice(&payload_len.to_le_bytes());
        bytes.extend_from_slice(fields.id);
        bytes.extend_from_slice(&fields.timestamp.to_le_bytes());
        bytes.extend_from_slice(&fitting(dim)?.to_le_bytes());
        extend_with_floats(&mut bytes, fields.embedding);
        bytes.extend_from_slice(&fitting(command_len)?.to_le_bytes());
        bytes.extend_from_slice(fields.command.as_bytes());
        bytes.push(kind);
        bytes.push(if fields.outcome.is_some() { FLAG_OUTCOME } else { 0 });
        bytes.extend_from_slice(&place.index.to_le_bytes());
        bytes.extend_from_slice(&place.len.to_le_bytes());
        Ok(Self { bytes, crc: 0, tail_len: fitting(tail_len)? })
    }

    fn push_outcome(&mut self, outcome: Outcome) {
        self.bytes.push(outcome.status as u8);
        self.bytes.extend_from_slice(&outcome.latency_ns.to_le_bytes());
        self.bytes.extend_from_slice(&outcome.exit_code.to_le_bytes());
    }

    fn sealed(mut self) -> Self {
        self.crc = crc32c(&self.bytes);
        self
    }
}

/// What records other than inserts put into the fixed frame.
fn no_fields(id: &[u8; 16]) -> InsertFields<'_> {
    InsertFields {
        id,
        timestamp: 0,
        embedding: &[],
        command: "",
        context_hash: 0,
        confidence: 0.0,
        parent_ids: &[],
        outcome: None,
    }
}

fn fitting(len: u64) -> Result<u32, TalaError> {
    u32::try_from(len).map_err(|_| TalaError::TooLarge {
        what: "log record",
        got: len,
        max: u64::from(u32::MAX),
    })
}

fn extend_with_floats(bytes: &mut Vec<u8>, floats: &[f32]) {
    if cfg!(target_endian = "little") {
        bytes.extend_from_slice(bytemuck::cast_slice(floats));
    } else {
        bytes.extend(floats.iter().flat_map(|float| float.to_le_bytes()));
    }
}

#[cfg(test)]
mod tests;
