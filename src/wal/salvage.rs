//! Every intact record of a log that may be damaged anywhere.
//!
//! [`replay`](super::replay) judges a log and refuses a damaged one. What is here judges nothing: it
//! says which records are intact and what lies between them. Of a log of ours a record is intact
//! where its checksum matches; of a legacy log, which has none, where its lengths add up and its
//! command is text.

use std::ops::Range;

use tala_core::{Intent, IntentId, Outcome};

use crate::{
    bytes::all_zero,
    ids::{FileNumber, SeqNo},
    wal::{
        entries::{LegacyFrame, WalEntry, entry_of},
        record::{BatchPlace, Body, LogOp, Mark, decode_frame},
        scan::IntactFrames,
    },
};

/// An intact record, without what can be read again at its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundRecord {
    /// Where it begins in the file.
    pub(crate) at: usize,
    /// Its sequence number.
    pub(crate) seq: SeqNo,
    /// The highest sequence number that it says was synced.
    pub(crate) synced: SeqNo,
    /// Its place in its batch.
    pub(crate) place: BatchPlace,
    /// What it says.
    pub(crate) op: FoundOp,
}

/// What an intact record says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FoundOp {
    /// An intent was stored.
    Insert {
        /// Its id.
        id: IntentId,
        /// Length of its embedding.
        dim: usize,
        /// Its outcome.
        outcome: Option<Outcome>,
    },
    /// An outcome was attached.
    Outcome(IntentId, Outcome),
    /// An intent was removed.
    Removal(IntentId),
    /// The file was ended on purpose.
    Mark(Mark),
}

/// What is intact in a log, and what is not.
#[derive(Debug)]
pub(crate) struct Salvaged<T> {
    /// The intact records, in order.
    pub(crate) records: Vec<T>,
    /// The bytes that are none, in order; zeros at the end of the file are room and not listed.
    pub(crate) bad: Vec<Range<usize>>,
    /// From where on nothing was looked for, because too many places look like records.
    pub(crate) given_up_at: Option<usize>,
}

impl<T> Salvaged<T> {
    const fn new() -> Self {
        Self { records: Vec::new(), bad: Vec::new(), given_up_at: None }
    }

    /// Notes what lies between two intact records.
    fn note(&mut self, bytes: &[u8], between: Range<usize>) {
        let rest = bytes.get(between.start..).unwrap_or_default();
        let is_room = between.end == bytes.len() && all_zero(rest);
        if !between.is_empty() && !is_room {
            self.bad.push(between);
        }
    }
}

/// The intact records of log file `file`. A record whose number does not rise above those before it
/// is none of them.
pub(crate) fn salvage_log(bytes: &[u8], file: FileNumber) -> Salvaged<FoundRecord> {
    let mut found = Salvaged::new();
    let mut frames = IntactFrames::new(bytes, 0, Some(file));
    let (mut end, mut last) = (0, SeqNo::ZERO);
    for (at, frame) in frames.by_ref() {
        if frame.stamp.seq <= last {
            continue;
        }
        found.note(bytes, end..at);
        (end, last) = (at + frame.len, frame.stamp.seq);
        let op = match &frame.body {
            Body::Insert(view) => FoundOp::Insert {
                id: IntentId::from_bytes(view.id),
                dim: view.embedding.len() / 4,
                outcome: view.outcome,
            },
            Body::Outcome { id, outcome } => FoundOp::Outcome(*id, *outcome),
            Body::Removal { id } => FoundOp::Removal(*id),
            Body::Mark(mark) => FoundOp::Mark(*mark),
        };
        let stamp = frame.stamp;
        let place = frame.place;
        found.records.push(FoundRecord { at, seq: stamp.seq, synced: stamp.synced, place, op });
    }
    if frames.is_exhausted() {
        found.given_up_at = Some(end);
    }
    found.note(bytes, end..bytes.len());
    found
}

/// The intent that stands at byte `at` of a log of ours.
pub(crate) fn intent_at(bytes: &[u8], at: usize) -> Option<Intent> {
    match decode_frame(bytes.get(at..)?).ok()?.to_op() {
        LogOp::Insert(intent) => Some(intent),
        LogOp::Outcome { .. } | LogOp::Removal { .. } | LogOp::Mark(_) => None,
    }
}

/// An intact record of a log that another program may have written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundEntry {
    /// Where it begins in the file.
    pub(crate) at: usize,
    /// Its id.
    pub(crate) id: IntentId,
    /// Length of its embedding.
    pub(crate) dim: usize,
}

/// The intact records of a log with or without tails.
pub(crate) fn salvage_entries(bytes: &[u8]) -> Salvaged<FoundEntry> {
    let mut frames = IntactFrames::new(bytes, 0, None);
    match frames.next() {
        Some((_, frame)) => {
            let ours = salvage_log(bytes, frame.stamp.file);
            let entries = ours.records.iter().filter_map(|record| match record.op {
                FoundOp::Insert { id, dim, .. } => Some(FoundEntry { at: record.at, id, dim }),
                _ => None,
            });
            let records = entries.collect();
            Salvaged { records, bad: ours.bad, given_up_at: ours.given_up_at }
        }
        None => salvage_legacy(bytes),
    }
}

fn salvage_legacy(bytes: &[u8]) -> Salvaged<FoundEntry> {
    let mut found = Salvaged::new();
    // Validated text for each byte of the file, as when looking for later records.
    let mut budget_bytes = (bytes.len() as u64).saturating_mul(4);
    let (mut at, mut end) = (0, 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let frame = LegacyFrame::at_front(rest).ok();
        // After a bad place, a frame without an embedding is too easily made by chance.
        let frame = frame.filter(|frame| at == end || !frame.embedding().is_empty());
        let entry = frame.and_then(|frame| {
            budget_bytes = budget_bytes.saturating_sub(frame.command().len() as u64);
            str::from_utf8(frame.command()).ok()?;
            Some((FoundEntry { at, id: frame.id(), dim: frame.embedding().len() / 4 }, frame.len()))
        });
        match entry {
            Some((entry, len)) => {
                found.note(bytes, end..at);
                found.records.push(entry);
                at += len;
                end = at;
            }
            None if budget_bytes == 0 => {
                found.given_up_at = Some(at);
                break;
            }
            None => at += 1,
        }
    }
    found.note(bytes, end..bytes.len());
    found
}

/// The entry that stands at byte `at` of a log with or without tails.
pub(crate) fn entry_at(bytes: &[u8], at: usize) -> Option<WalEntry> {
    let rest = bytes.get(at..)?;
    match decode_frame(rest) {
        Ok(frame) => entry_of(frame),
        Err(_) => LegacyFrame::at_front(rest).ok()?.into_entry().ok().map(|(entry, _)| entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::record::{Encoded, Stamp};

    fn removal(seq: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let id = IntentId::from_bytes([7; 16]);
        let stamp = Stamp { seq: SeqNo(seq), file: FileNumber(2), synced: SeqNo(seq - 1) };
        Encoded::removal(id, BatchPlace::SINGLE).unwrap().stamp_into(&mut bytes, stamp);
        bytes
    }

    fn bad<T>(found: &Salvaged<T>) -> Vec<(usize, usize)> {
        found.bad.iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn what_lies_between_intact_records_is_named() {
        let len = removal(1).len();
        let mut bytes = [removal(1), removal(2), removal(3), vec![0; 9]].concat();
        bytes[len + 3] ^= 1;
        let found = salvage_log(&bytes, FileNumber(2));
        let seqs: Vec<_> = found.records.iter().map(|record| record.seq.0).collect();
        assert_eq!((seqs, bad(&found)), (vec![1, 3], vec![(len, 2 * len)]));
        // Zeros at the end are room; other bytes are not.
        bytes.push(1);
        let ranges = [(len, 2 * len), (3 * len, 3 * len + 10)];
        assert_eq!(bad(&salvage_log(&bytes, FileNumber(2))), ranges);
        assert_eq!(bad(&salvage_log(&bytes, FileNumber(3))), [(0, bytes.len())]);
    }

    #[test]
    fn an_older_number_is_not_believed() {
        let bytes = [removal(5), removal(3), removal(6)].concat();
        let found = salvage_log(&bytes, FileNumber(2));
        let seqs: Vec<_> = found.records.iter().map(|record| record.seq.0).collect();
        let len = removal(1).len();
        assert_eq!((seqs, bad(&found)), (vec![5, 6], vec![(len, 2 * len)]));
    }

    fn legacy(id: u8) -> Vec<u8> {
        let mut payload = vec![id; 16];
        payload.extend(7_u64.to_le_bytes());
        payload.extend(1_u32.to_le_bytes());
        payload.extend(1_f32.to_le_bytes());
        payload.extend(2_u32.to_le_bytes());
        payload.extend(b"ls");
        [&(payload.len() as u32).to_le_bytes(), payload.as_slice()].concat()
    }

    #[test]
    fn a_legacy_log_is_read_on_after_a_bad_place() {
        let len = legacy(1).len();
        let mut bytes = [legacy(1), legacy(2), legacy(3)].concat();
        bytes[len] ^= 4;
        let found = salvage_entries(&bytes);
        let ids: Vec<_> = found.records.iter().map(|entry| entry.id.as_bytes()[0]).collect();
        assert_eq!((ids, bad(&found)), (vec![1, 3], vec![(len, 2 * len)]));
        assert_eq!(entry_at(&bytes, 2 * len).unwrap().raw_command, "ls");
        assert_eq!(entry_at(&bytes, len), None);
    }
}
