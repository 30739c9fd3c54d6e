//! The formats once more, read from their tables and by nothing of the store's own code: what the
//! targets hold the store's readers against, and how bytes that were tampered with get checksums
//! that match again.

use std::ops::Range;

/// The bytes of `range`, or `None` where there are not so many.
fn part(bytes: &[u8], start: usize, len: usize) -> Option<&[u8]> {
    bytes.get(start..start.checked_add(len)?)
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(part(bytes, at, 4)?.try_into().ok()?))
}

pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(part(bytes, at, 8)?.try_into().ok()?))
}

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// The fixed frame of a log record: what every program of the family reads.
#[derive(Clone, PartialEq, Debug)]
pub struct Frame<'a> {
    pub at: usize,
    /// Bytes of the whole record.
    pub len: usize,
    pub id: &'a [u8],
    pub timestamp: u64,
    pub embedding: &'a [u8],
    pub command: &'a [u8],
    /// Where the tail begins; the end of the record where it has none.
    pub tail_at: usize,
}

impl<'a> Frame<'a> {
    /// The frame at offset `at`.
    pub fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let payload = part(bytes, at + 4, u32_at(bytes, at)? as usize)?;
        let dim_bytes = (u32_at(payload, 24)? as usize).checked_mul(4)?;
        let embedding = part(payload, 28, dim_bytes)?;
        let command_len = u32_at(payload, 28 + dim_bytes)? as usize;
        let command = part(payload, 32 + dim_bytes, command_len)?;
        Some(Self {
            at,
            len: 4 + payload.len(),
            id: part(payload, 0, 16)?,
            timestamp: u64_at(payload, 16)?,
            embedding,
            command,
            tail_at: at + 36 + dim_bytes + command_len,
        })
    }

    pub fn end(&self) -> usize {
        self.at + self.len
    }

    pub fn has_tail(&self) -> bool {
        self.tail_at < self.end()
    }
}

/// The frames from the front of a log on, up to the first place where there is none.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let frame = Frame::at(bytes, at)?;
        at = frame.end();
        Some(frame)
    })
}

/// A whole record of ours: frame, tail and trailer, with a checksum that matches.
#[derive(Clone, PartialEq, Debug)]
pub struct Record<'a> {
    pub frame: Frame<'a>,
    pub kind: u8,
    pub place: u32,
    pub places: u32,
    pub seq: u64,
    pub file: u64,
    pub synced: u64,
}

/// Why there is no record of ours at some place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoRecord {
    /// There is one, of a later version.
    Newer,
    Bad,
}

impl<'a> Record<'a> {
    pub fn at(bytes: &'a [u8], at: usize) -> Result<Self, NoRecord> {
        let bad = || NoRecord::Bad;
        let frame = Frame::at(bytes, at).ok_or_else(bad)?;
        let tail = bytes.get(frame.tail_at..frame.end()).ok_or_else(bad)?;
        let trailer_at = tail.len().checked_sub(36).ok_or_else(bad)?;
        let trailer = &tail[trailer_at..];
        let lengths_agree = u32_at(trailer, 24) == Some(tail.len() as u32);
        if trailer[28..31] != [0xF5, b'T', b'W'] || !lengths_agree {
            return Err(NoRecord::Bad);
        }
        let covered = &bytes[at..frame.end() - 4];
        if u32_at(trailer, 32) != Some(crc32c::crc32c(covered)) {
            return Err(NoRecord::Bad);
        }
        if trailer[31] != 1 {
            return Err(NoRecord::Newer);
        }
        let number = |at| u64_at(trailer, at).unwrap_or_default();
        let (seq, file, synced) = (number(0), number(8), number(16));
        let body = &tail[..trailer_at];
        let (kind, flags) = (*body.first().ok_or_else(bad)?, *body.get(1).ok_or_else(bad)?);
        let place = u32_at(body, 2).ok_or_else(bad)?;
        let places = u32_at(body, 6).ok_or_else(bad)?;
        let rest = body.get(10..).ok_or_else(bad)?;
        let outcome_bytes = match flags {
            0 => 0,
            1 => 13,
            _ => return Err(NoRecord::Bad),
        };
        let outcome_is_known = flags == 0
            || rest.len().checked_sub(13).and_then(|at| rest.get(at)).is_some_and(|byte| *byte < 4);
        let is_alone =
            frame.timestamp == 0 && frame.embedding.is_empty() && frame.command.is_empty();
        let is_mark_place = (place, places) == (0, 1) && frame.id == [0; 16];
        let body_is_right = match kind {
            1 => {
                let parents = u32_at(rest, 12).ok_or_else(bad)? as usize;
                rest.len() == 16 + 16 * parents + outcome_bytes
                    && std::str::from_utf8(frame.command).is_ok()
            }
            2 => flags == 1 && rest.len() == 13 && is_alone,
            3 => flags == 0 && rest.is_empty() && is_alone,
            4 => flags == 0 && rest.is_empty() && is_alone && is_mark_place,
            5 => flags == 0 && rest.len() == 8 && is_alone && is_mark_place,
            _ => false,
        };
        let makes_sense =
            body_is_right && outcome_is_known && place < places && synced < seq && seq != u64::MAX;
        if makes_sense {
            Ok(Self { frame, kind, place, places, seq, file, synced })
        } else {
            Err(NoRecord::Bad)
        }
    }

    pub fn is_mark(&self) -> bool {
        self.kind == 4 || self.kind == 5
    }
}

/// The whole records from offset `from` on, wherever they begin, none inside another.
pub fn records_anywhere(bytes: &[u8], from: usize, file: Option<u64>) -> Vec<Record<'_>> {
    let (mut found, mut at) = (Vec::new(), from);
    while at < bytes.len() {
        match Record::at(bytes, at) {
            Ok(record) if file.is_none_or(|file| file == record.file) => {
                at = record.frame.end();
                found.push(record);
            }
            _ => at += 1,
        }
    }
    found
}

/// What a log is, in the plainest words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Clean,
    Unmarked,
    Torn(usize),
    Damaged(usize),
}

/// What counts of log `file`, the number after the last that counts, and how the log ended.
pub fn judge(bytes: &[u8], file: u64, first: u64, synced_outside: u64) -> (usize, u64, Verdict) {
    let (mut at, mut next) = (0, first);
    let (mut kept, mut kept_next) = (0, first);
    let mut before: Option<Record<'_>> = None;
    let mut is_newer = false;
    let mut is_marked = false;
    while !is_marked {
        let record = match Record::at(bytes, at) {
            Ok(record) => record,
            Err(why) => {
                is_newer = why == NoRecord::Newer;
                break;
            }
        };
        let continues = match &before {
            Some(before) => record.place == before.place + 1 && record.places == before.places,
            None => record.place == 0,
        };
        if record.file != file || record.seq != next || !continues {
            break;
        }
        at = record.frame.end();
        next = record.seq + 1;
        is_marked = record.is_mark();
        let is_last = record.place + 1 == record.places;
        before = if is_last { None } else { Some(record) };
        if is_last {
            (kept, kept_next) = (at, next);
        }
    }
    let rest = &bytes[at..];
    let is_rest_empty = rest.iter().all(|byte| *byte == 0);
    let is_proven = || {
        let later = records_anywhere(bytes, at, Some(file));
        later.iter().any(|record| record.synced >= kept_next)
    };
    let verdict = if is_marked {
        if is_rest_empty { Verdict::Clean } else { Verdict::Damaged(at) }
    } else if (is_newer && !is_rest_empty)
        || synced_outside >= kept_next
        || (!is_rest_empty && is_proven())
    {
        Verdict::Damaged(at)
    } else if !is_rest_empty || kept_next != next {
        Verdict::Torn(at)
    } else {
        Verdict::Unmarked
    };
    (kept, kept_next, verdict)
}

/// Gives every record of a log a checksum that matches; with `and_shape` also the length and the
/// magic of its trailer.
pub fn seal_log(bytes: &mut [u8], and_shape: bool) {
    let mut at = 0;
    while let Some(frame) = Frame::at(bytes, at) {
        let (end, tail_len) = (frame.end(), frame.end() - frame.tail_at);
        if tail_len >= 36 {
            if and_shape {
                put(bytes, end - 12, &(tail_len as u32).to_le_bytes());
                put(bytes, end - 8, &[0xF5, b'T', b'W']);
            }
            let crc = crc32c::crc32c(&bytes[at..end - 4]);
            put(bytes, end - 4, &crc.to_le_bytes());
        }
        at = end;
    }
}

/// Gives a MANIFEST a checksum that matches.
pub fn seal_manifest(bytes: &mut [u8]) {
    if let Some(at) = bytes.len().checked_sub(4) {
        let crc = crc32c::crc32c(&bytes[..at]);
        put(bytes, at, &crc.to_le_bytes());
    }
}

/// Gives a segment checksums that match: of its header, of its blocks, of its footer.
pub fn seal_segment(bytes: &mut [u8]) {
    const BLOCK_BYTES: usize = 65_536;
    if bytes.len() < 128 {
        return;
    }
    let crc = crc32c::crc32c(&bytes[..104]);
    put(bytes, 104, &crc.to_le_bytes());
    let footer = u64_at(bytes, 96).and_then(|at| usize::try_from(at).ok()).unwrap_or(usize::MAX);
    if footer == 0 || footer > bytes.len() {
        return;
    }
    for block in 0..footer.div_ceil(BLOCK_BYTES) {
        let crc =
            crc32c::crc32c(&bytes[block * BLOCK_BYTES..footer.min((block + 1) * BLOCK_BYTES)]);
        put(bytes, footer + 16 + 4 * block, &crc.to_le_bytes());
    }
    if bytes.len() >= footer + 4 {
        let end = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[footer..end]);
        put(bytes, end, &crc.to_le_bytes());
    }
}

/// A row of a segment as a reader of the fixed part has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FixedRow {
    pub id: [u8; 16],
    pub timestamp: u64,
    pub context_hash: u64,
    pub confidence_bits: u32,
    pub status: u8,
    pub embedding: Range<usize>,
    /// Rows that edges lead to.
    pub children: Vec<u32>,
}

/// The rows of a segment, by its header and the rules of the fixed part alone.
pub fn fixed_rows(bytes: &[u8]) -> Option<Vec<FixedRow>> {
    let offset = |at| usize::try_from(u64_at(bytes, at)?).ok();
    let rows = offset(24)?;
    let dim = u32_at(bytes, 40)? as usize;
    let stride = (dim * 4).next_multiple_of(64);
    let mut at = offset(48)?;
    let mut column = |width: usize| {
        let start = at;
        at = (start + rows * width).next_multiple_of(64);
        start
    };
    let [ids, timestamps, hashes, confidences, statuses] = [16, 8, 8, 4, 1].map(&mut column);
    let (embeddings, bounds) = (offset(56)?, offset(64)?);
    let edges = bounds + 8 * (rows + 1);
    let mut all = Vec::new();
    for row in 0..rows {
        let first = embeddings + row * stride;
        let (edge, edge_end) = (offset(bounds + 8 * row)?, offset(bounds + 8 * (row + 1))?);
        all.push(FixedRow {
            id: part(bytes, ids + 16 * row, 16)?.try_into().ok()?,
            timestamp: u64_at(bytes, timestamps + 8 * row)?,
            context_hash: u64_at(bytes, hashes + 8 * row)?,
            confidence_bits: u32_at(bytes, confidences + 4 * row)?,
            status: *bytes.get(statuses + row)?,
            embedding: first..first + 4 * dim,
            children: (edge..edge_end)
                .map(|edge| u32_at(bytes, edges + 12 * edge))
                .collect::<Option<_>>()?,
        });
    }
    Some(all)
}
