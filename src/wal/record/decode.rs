//! From bytes to a record. Lengths are compared with what is there before anything is read, the
//! checksum before anything is given a meaning, and nothing is allocated until both hold.

use std::fmt;

use crc32c::crc32c;
use tala_core::{Intent, IntentId, Outcome, Status};

use super::{
    BatchPlace, FLAG_OUTCOME, FRAME_BYTES, ID_BYTES, KIND_CLOSED, KIND_INSERT, KIND_OUTCOME,
    KIND_REMOVAL, KIND_ROTATED, LENGTH_BYTES, LogOp, MAGIC, Mark, Stamp, TAIL_VERSION,
    TRAILER_BYTES,
};
use crate::{
    bytes::Fields,
    ids::{FileNumber, SeqNo},
};

/// The floats stored in `bytes`, bit for bit; a rest of fewer than four bytes is left out.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<4>();
    chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

/// Why the bytes at some place are not the record that should be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BadFrame {
    /// The record, or its length field, runs past the end of the file.
    PastEnd,
    /// The lengths inside do not add up.
    Lengths,
    /// There is no trailer where it should be.
    NoTrailer,
    /// The checksum does not match.
    Checksum,
    /// The checksum matches, but this build does not know the version.
    Version(u8),
    /// The checksum matches, but the fields make no sense.
    Meaning,
    /// A whole record of another log file.
    WrongFile(FileNumber),
    /// A whole record with another sequence number.
    WrongSequence(SeqNo),
    /// A whole record that does not go on with the batch before it.
    OutOfBatch,
    /// Anything at all after the record that ended the log.
    AfterMark,
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PastEnd => f.write_str("the record runs past the end"),
            Self::Lengths => f.write_str("the record's lengths do not add up"),
            Self::NoTrailer => f.write_str("the record has no trailer"),
            Self::Checksum => f.write_str("the record's checksum does not match"),
            Self::Version(found) => write!(f, "the record has version {found}"),
            Self::Meaning => f.write_str("the record's fields make no sense"),
            Self::WrongFile(found) => write!(f, "the record belongs to log file {found}"),
            Self::WrongSequence(found) => write!(f, "the record has sequence number {found}"),
            Self::OutOfBatch => f.write_str("the record does not continue its batch"),
            Self::AfterMark => f.write_str("bytes follow the mark that ended the log"),
        }
    }
}

/// The fixed frame of a record, cut into its fields. Nothing is checked but that the lengths fit.
pub(crate) struct FixedFrame<'a> {
    /// The whole record.
    pub(crate) bytes: &'a [u8],
    pub(crate) id: [u8; 16],
    pub(crate) timestamp: u64,
    /// Little-endian f32.
    pub(crate) embedding: &'a [u8],
    pub(crate) command: &'a [u8],
    /// What the payload holds after the command: the tail, or nothing.
    pub(crate) tail: &'a [u8],
}

impl<'a> FixedFrame<'a> {
    /// The frame at the front of `bytes`.
    pub(crate) fn cut(bytes: &'a [u8]) -> Result<Self, BadFrame> {
        let mut outer = Fields::new(bytes);
        let payload_len = u64::from(outer.u32().ok_or(BadFrame::PastEnd)?);
        if payload_len < FRAME_BYTES - LENGTH_BYTES {
            return Err(BadFrame::Lengths);
        }
        let mut fields = Fields::new(outer.take(payload_len).ok_or(BadFrame::PastEnd)?);
        let frame = bytes.len() - outer.rest().len();
        (|| {
            let id = fields.array()?;
            let timestamp = fields.u64()?;
            let dim = u64::from(fields.u32()?);
            let embedding = fields.take(4 * dim)?;
            let command_len = u64::from(fields.u32()?);
            let command = fields.take(command_len)?;
            let tail = fields.rest();
            Some(Self { bytes: bytes.get(..frame)?, id, timestamp, embedding, command, tail })
        })()
        .ok_or(BadFrame::Lengths)
    }
}

/// A record that may be one: lengths and trailer agree, the checksum has not been computed.
pub(crate) struct Candidate<'a> {
    frame: FixedFrame<'a>,
    /// The tail without its trailer.
    body: &'a [u8],
    version: u8,
    crc: u32,
    /// As the trailer has it.
    pub(crate) stamp: Stamp,
}

impl<'a> Candidate<'a> {
    /// Looks at the front of `bytes` in constant time.
    pub(crate) fn at_front(bytes: &'a [u8]) -> Result<Self, BadFrame> {
        let frame = FixedFrame::cut(bytes)?;
        let (body, trailer) = frame
            .tail
            .split_last_chunk::<{ TRAILER_BYTES as usize }>()
            .ok_or(BadFrame::NoTrailer)?;
        let mut fields = Fields::new(trailer);
        let parts = (|| {
            let seq = SeqNo(fields.u64()?);
            let file = FileNumber(fields.u64()?);
            let synced = SeqNo(fields.u64()?);
            let tail_len = fields.u32()?;
            let magic: [u8; 3] = fields.array()?;
            Some((Stamp { seq, file, synced }, tail_len, magic, fields.u8()?, fields.u32()?))
        })();
        let (stamp, tail_len, magic, version, crc) = parts.ok_or(BadFrame::NoTrailer)?;
        if magic != MAGIC {
            return Err(BadFrame::NoTrailer);
        }
        if u64::from(tail_len) != frame.tail.len() as u64 {
            return Err(BadFrame::Lengths);
        }
        Ok(Self { frame, body, version, crc, stamp })
    }

    /// Bytes of the record, and so of the work that [`Candidate::verify`] does.
    pub(crate) fn len(&self) -> usize {
        self.frame.bytes.len()
    }

    /// Checks the checksum and then the fields.
    pub(crate) fn verify(self) -> Result<Frame<'a>, BadFrame> {
        let (covered, _) = self.frame.bytes.split_last_chunk::<4>().ok_or(BadFrame::PastEnd)?;
        if crc32c(covered) != self.crc {
            return Err(BadFrame::Checksum);
        }
        self.parse()
    }

    /// Checks the fields of a record whose checksum was found to match before.
    pub(crate) fn parse(self) -> Result<Frame<'a>, BadFrame> {
        if self.version != TAIL_VERSION {
            return Err(BadFrame::Version(self.version));
        }
        let stamp = self.stamp;
        if stamp.synced >= stamp.seq || stamp.seq.0 == u64::MAX {
            return Err(BadFrame::Meaning);
        }
        let (place, body) = parse_body(&self.frame, self.body).ok_or(BadFrame::Meaning)?;
        Ok(Frame { len: self.frame.bytes.len(), stamp, place, body })
    }
}

/// An intact record, borrowed from the log's bytes.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// Bytes that the record takes in the log.
    pub(crate) len: usize,
    pub(crate) stamp: Stamp,
    pub(crate) place: BatchPlace,
    pub(crate) body: Body<'a>,
}

/// [`LogOp`], borrowed.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    Insert(InsertView<'a>),
    Outcome { id: IntentId, outcome: Outcome },
    Removal { id: IntentId },
    Mark(Mark),
}

/// An intent, borrowed.
#[derive(Debug)]
pub(crate) struct InsertView<'a> {
    pub(crate) id: [u8; 16],
    pub(crate) timestamp: u64,
    /// Little-endian f32.
    pub(crate) embedding: &'a [u8],
    pub(crate) command: &'a str,
    context_hash: u64,
    confidence: f32,
    /// 16 bytes each.
    parent_ids: &'a [u8],
    pub(crate) outcome: Option<Outcome>,
}

impl Frame<'_> {
    /// The record's content, owned.
    pub(crate) fn to_op(&self) -> LogOp {
        match &self.body {
            Body::Insert(view) => LogOp::Insert(view.to_intent()),
            Body::Outcome { id, outcome } => LogOp::Outcome { id: *id, outcome: *outcome },
            Body::Removal { id } => LogOp::Removal { id: *id },
            Body::Mark(mark) => LogOp::Mark(*mark),
        }
    }
}

impl InsertView<'_> {
    fn to_intent(&self) -> Intent {
        let (parents, _) = self.parent_ids.as_chunks::<16>();
        Intent {
            id: IntentId::from_bytes(self.id),
            timestamp: self.timestamp,
            raw_command: self.command.to_owned(),
            embedding: floats(self.embedding),
            context_hash: self.context_hash,
            parent_ids: parents.iter().map(|id| IntentId::from_bytes(*id)).collect(),
            outcome: self.outcome,
            confidence: self.confidence,
        }
    }
}

/// The intact record at the front of `bytes`.
///
/// # Errors
/// Why there is none.
pub(crate) fn decode_frame(bytes: &[u8]) -> Result<Frame<'_>, BadFrame> {
    Candidate::at_front(bytes)?.verify()
}

/// [`decode_frame`] of bytes of which it is known that their checksum matches.
///
/// # Errors
/// As for [`decode_frame`], but for the checksum.
pub(crate) fn decode_checked_frame(bytes: &[u8]) -> Result<Frame<'_>, BadFrame> {
    Candidate::at_front(bytes)?.parse()
}

/// The meaning of a record whose checksum matches; `None` where it has none.
fn parse_body<'a>(frame: &FixedFrame<'a>, body: &'a [u8]) -> Option<(BatchPlace, Body<'a>)> {
    let mut fields = Fields::new(body);
    let kind = fields.u8()?;
    let flags = fields.u8()?;
    let place = BatchPlace { index: fields.u32()?, len: fields.u32()? };
    let id = IntentId::from_bytes(frame.id);
    let body = match kind {
        KIND_INSERT => {
            let context_hash = fields.u64()?;
            let confidence = fields.f32()?;
            let parent_count = u64::from(fields.u32()?);
            let parent_ids = fields.take(ID_BYTES * parent_count)?;
            let outcome = match flags {
                0 => None,
                FLAG_OUTCOME => Some(parse_outcome(&mut fields)?),
                _ => return None,
            };
            Body::Insert(InsertView {
                id: frame.id,
                timestamp: frame.timestamp,
                embedding: frame.embedding,
                command: str::from_utf8(frame.command).ok()?,
                context_hash,
                confidence,
                parent_ids,
                outcome,
            })
        }
        KIND_OUTCOME if flags == FLAG_OUTCOME => {
            Body::Outcome { id, outcome: parse_outcome(&mut fields)? }
        }
        KIND_REMOVAL if flags == 0 => Body::Removal { id },
        KIND_CLOSED if flags == 0 => Body::Mark(Mark::Closed),
        KIND_ROTATED if flags == 0 => Body::Mark(Mark::Rotated { next: FileNumber(fields.u64()?) }),
        _ => return None,
    };
    let is_insert = matches!(body, Body::Insert(_));
    let is_mark = matches!(body, Body::Mark(_));
    let sound = fields.rest().is_empty()
        && place.index < place.len
        && (is_insert || is_bare(frame))
        && (!is_mark || place == BatchPlace::SINGLE && frame.id == [0; 16]);
    sound.then_some((place, body))
}

/// Whether the fixed frame says nothing but an id, as that of every record but an insert.
fn is_bare(frame: &FixedFrame<'_>) -> bool {
    frame.timestamp == 0 && frame.embedding.is_empty() && frame.command.is_empty()
}

fn parse_outcome(fields: &mut Fields<'_>) -> Option<Outcome> {
    Some(Outcome {
        status: Status::from_u8(fields.u8()?)?,
        latency_ns: fields.u64()?,
        exit_code: fields.i32()?,
    })
}
