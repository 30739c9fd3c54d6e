//! A log file as every TALA program sees it: a list of intents, with or without our tails.
//!
//! A *legacy* log has no tails, and so no checksums, sequence numbers or traces of what was
//! synced. Where it goes wrong, all there is to go by is whether an intact record follows: if so
//! it is damage, otherwise a torn end.

use std::{io, path::Path};

use tala_core::IntentId;

use crate::{
    bytes::all_zero,
    disk::RealDisk,
    files::read_all,
    ids::{FileNumber, SeqNo},
    wal::{
        record::{BadFrame, Body, FixedFrame, Frame, decode_frame, floats},
        replay::{Bound, Damage, Ending, Evidence, Expected, read_log},
        scan::IntactFrames,
    },
};

/// UTF-8 validation allowed for each byte of a legacy log while looking for later records.
const BUDGET_FACTOR: u64 = 4;

/// One intent of a log file.
#[derive(Clone, PartialEq, Debug)]
pub struct WalEntry {
    /// Identity.
    pub id: [u8; 16],
    /// Nanoseconds since the Unix epoch.
    pub timestamp: u64,
    /// The embedding, bit for bit as it was written.
    pub embedding: Vec<f32>,
    /// The command as it was typed.
    pub raw_command: String,
}

/// Reads all intents of the log file at `path`, in order: of a log written by [`Wal`], of one
/// that belongs to a store, or of one written without checksums by older programs. Outcomes and
/// removals in the log are skipped. Of a log that ends in a torn write, what stands before it.
///
/// [`Wal`]: crate::Wal
///
/// # Errors
/// What the operating system says, such as [`io::ErrorKind::NotFound`]; and
/// [`io::ErrorKind::InvalidData`], with the offset in its text, for a log that is damaged.
pub fn replay_wal(path: impl AsRef<Path>) -> io::Result<Vec<WalEntry>> {
    let path = path.as_ref();
    let bytes = read_all(&RealDisk, path)?;
    read_entries(&bytes)
        .map(|log| log.entries)
        .map_err(|damage| io::Error::new(io::ErrorKind::InvalidData, damage.into_error(path)))
}

/// Reads the intents of a log, with or without tails, whoever wrote it.
///
/// # Errors
/// [`Damage`] where records are missing that had been written whole.
pub(crate) fn read_entries(bytes: &[u8]) -> Result<Entries, Damage> {
    if let Err(why @ BadFrame::Version(_)) = decode_frame(bytes) {
        return Err(damage_at(0, bytes.len(), why, Evidence::NewerVersion));
    }
    let mut frames = IntactFrames::new(bytes, 0, None);
    match frames.next() {
        Some((at, frame)) => {
            // The number of a file's first record is known where the record is there, and in a
            // log on its own. Where neither holds, the lowest is the careful guess: then any proof
            // that something was synced counts against the file.
            let file = frame.stamp.file;
            let known = at == 0 && file != FileNumber(0);
            let first_seq = if known { frame.stamp.seq } else { SeqNo::FIRST };
            let bound = Bound::Live { synced_outside: SeqNo::ZERO };
            let log = read_log(bytes, &Expected { file, first_seq, bound })?;
            let entries = log.records().frames();
            let entries = entries.filter_map(|frame| frame.map(entry_of).transpose());
            let torn_at = match log.end().ending {
                Ending::Torn { at, .. } => Some(at),
                _ => None,
            };
            Ok(Entries { entries: entries.collect::<Result<_, _>>()?, torn_at })
        }
        None if frames.is_exhausted() => {
            Err(damage_at(0, bytes.len(), BadFrame::Checksum, Evidence::SearchCutShort))
        }
        None => read_legacy(bytes),
    }
}

pub(crate) fn entry_of(frame: Frame<'_>) -> Option<WalEntry> {
    match frame.body {
        Body::Insert(view) => Some(WalEntry {
            id: view.id,
            timestamp: view.timestamp,
            embedding: floats(view.embedding),
            raw_command: view.command.to_owned(),
        }),
        Body::Outcome { .. } | Body::Removal { .. } | Body::Mark(_) => None,
    }
}

/// The intents of a log.
#[derive(Debug)]
pub(crate) struct Entries {
    /// Its intents in order.
    pub(crate) entries: Vec<WalEntry>,
    /// Where a torn record begins, if the log ends in one.
    pub(crate) torn_at: Option<u64>,
}

/// Reads a log without tails.
///
/// # Errors
/// [`Damage`] where an intact record stands after one that is not.
fn read_legacy(bytes: &[u8]) -> Result<Entries, Damage> {
    let mut entries = Vec::new();
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        match LegacyFrame::at_front(rest).and_then(LegacyFrame::into_entry) {
            Ok((entry, len)) => {
                entries.push(entry);
                at += len;
            }
            Err(_) if all_zero(rest) => return Ok(Entries { entries, torn_at: None }),
            Err(why) => {
                return match later_legacy_record(bytes, at + 1) {
                    None => Ok(Entries { entries, torn_at: Some(at as u64) }),
                    Some((until, evidence)) => Err(Damage {
                        lost: SeqNo(entries.len() as u64 + 1),
                        ..damage_at(at, until, why, evidence)
                    }),
                };
            }
        }
    }
}

/// Offset of the first intact record with an embedding from `from` on, or of the place where
/// looking for it was given up. A record here has no checksum, but two lengths that must add up
/// to a third and a text: chance does not make one.
fn later_legacy_record(bytes: &[u8], from: usize) -> Option<(usize, Evidence)> {
    let mut budget_bytes = (bytes.len() as u64).saturating_mul(BUDGET_FACTOR);
    for at in from..bytes.len() {
        let Ok(frame) = LegacyFrame::at_front(bytes.get(at..)?) else { continue };
        if frame.0.embedding.is_empty() {
            continue;
        }
        let cost = frame.0.command.len() as u64;
        let Some(budget_left) = budget_bytes.checked_sub(cost) else {
            return Some((at, Evidence::SearchCutShort));
        };
        budget_bytes = budget_left;
        if str::from_utf8(frame.0.command).is_ok() {
            return Some((at, Evidence::Legacy));
        }
    }
    None
}

/// A frame whose payload ends with its command.
pub(crate) struct LegacyFrame<'a>(FixedFrame<'a>);

impl<'a> LegacyFrame<'a> {
    pub(crate) fn at_front(bytes: &'a [u8]) -> Result<Self, BadFrame> {
        let frame = FixedFrame::cut(bytes)?;
        if frame.tail.is_empty() { Ok(Self(frame)) } else { Err(BadFrame::Lengths) }
    }

    pub(crate) fn id(&self) -> IntentId {
        IntentId::from_bytes(self.0.id)
    }

    /// Little-endian f32.
    pub(crate) const fn embedding(&self) -> &'a [u8] {
        self.0.embedding
    }

    pub(crate) const fn command(&self) -> &'a [u8] {
        self.0.command
    }

    /// Bytes of the record.
    pub(crate) const fn len(&self) -> usize {
        self.0.bytes.len()
    }

    /// The intent and the length of its record.
    pub(crate) fn into_entry(self) -> Result<(WalEntry, usize), BadFrame> {
        let Self(frame) = self;
        let raw_command = str::from_utf8(frame.command).map_err(|_| BadFrame::Meaning)?.to_owned();
        let embedding = floats(frame.embedding);
        let entry = WalEntry { id: frame.id, timestamp: frame.timestamp, embedding, raw_command };
        Ok((entry, frame.bytes.len()))
    }
}

fn damage_at(at: usize, until: usize, why: BadFrame, evidence: Evidence) -> Damage {
    Damage { at: at as u64, until: until as u64, lost: SeqNo::FIRST, why, evidence }
}

#[cfg(test)]
mod tests;
