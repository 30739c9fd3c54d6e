//! Finding intact records without knowing where they begin: what stands after a damaged place.
//!
//! The work is bounded whatever the bytes are: a place is tried only if its lengths and trailer
//! agree, which takes constant time, and the checksums computed cover at most four times the
//! bytes. Crafted bytes can point many lengths at one trailer; ordinary ones never come near.

use crate::{
    bytes::len_without_zeros,
    ids::FileNumber,
    wal::record::{Candidate, Frame, RECORD_BYTES_MIN},
};

/// Checksummed bytes allowed for each byte of the log.
const BUDGET_FACTOR: u64 = 4;

/// Bytes of the checksum at the end of a record, after a version that is not zero.
const CHECKSUM_BYTES: usize = 4;

/// The intact records in some bytes, at any offset, in order, none inside another.
pub(crate) struct IntactFrames<'a> {
    bytes: &'a [u8],
    at: usize,
    file: Option<FileNumber>,
    budget_bytes: u64,
    exhausted: bool,
}

impl<'a> IntactFrames<'a> {
    /// Looks from offset `from` on for records of the log file `file`, or of any.
    pub(crate) fn new(bytes: &'a [u8], from: usize, file: Option<FileNumber>) -> Self {
        let budget_bytes = (bytes.len() as u64).saturating_mul(BUDGET_FACTOR);
        // A log may end in megabytes of zeros. Of a record, only the checksum may end in some.
        let end = len_without_zeros(bytes).saturating_add(CHECKSUM_BYTES);
        let bytes = bytes.get(..end).unwrap_or(bytes);
        Self { bytes, at: from, file, budget_bytes, exhausted: false }
    }

    /// Whether the search ended early because the budget was spent. What it did not look at may
    /// hold records, so callers take the careful side.
    pub(crate) const fn is_exhausted(&self) -> bool {
        self.exhausted
    }
}

impl<'a> Iterator for IntactFrames<'a> {
    /// Offset and record.
    type Item = (usize, Frame<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.exhausted {
            let at = self.at;
            let rest = self.bytes.get(at..)?;
            if (rest.len() as u64) < RECORD_BYTES_MIN {
                return None;
            }
            self.at = at + 1;
            let Ok(candidate) = Candidate::at_front(rest) else { continue };
            if self.file.is_some_and(|file| file != candidate.stamp.file) {
                continue;
            }
            let cost = candidate.len() as u64;
            let Some(budget_left) = self.budget_bytes.checked_sub(cost) else {
                self.exhausted = true;
                break;
            };
            self.budget_bytes = budget_left;
            if let Ok(frame) = candidate.verify() {
                self.at = at + frame.len;
                return Some((at, frame));
            }
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        ids::SeqNo,
        wal::record::{BatchPlace, Encoded, InsertFields, Mark, Stamp, floats},
    };
    use tala_core::IntentId;

    fn removal(seq: u64, file: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let id = IntentId::from_bytes([7; 16]);
        let stamp = Stamp { seq: SeqNo(seq), file: FileNumber(file), synced: SeqNo(seq - 1) };
        Encoded::removal(id, BatchPlace::SINGLE).unwrap().stamp_into(&mut bytes, stamp);
        bytes
    }

    #[test]
    fn records_are_found_at_any_offset_and_only_those_of_the_file() {
        let bytes =
            [&[1, 2, 3][..], &removal(4, 9), &[0; 5], &removal(5, 8), &removal(6, 9)].concat();
        let found = |file| {
            IntactFrames::new(&bytes, 0, file)
                .map(|(at, frame)| (at, frame.stamp.seq.0))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(None), [(3, 4), (90, 5), (172, 6)]);
        assert_eq!(found(Some(FileNumber(9))), [(3, 4), (172, 6)]);
    }

    #[test]
    fn a_record_inside_another_is_not_found() {
        // An embedding is any bytes, also those of a record.
        let mut inner = removal(9, 1);
        inner.resize(inner.len().next_multiple_of(4), 0);
        let fields = InsertFields {
            id: &[1; 16],
            timestamp: 0,
            embedding: &floats(&inner),
            command: "",
            context_hash: 0,
            confidence: 0.0,
            parent_ids: &[],
            outcome: None,
        };
        let mut bytes = Vec::new();
        let stamp = Stamp { seq: SeqNo(1), file: FileNumber(1), synced: SeqNo(0) };
        let outer = Encoded::insert_fields(fields, BatchPlace::SINGLE).unwrap();
        outer.stamp_into(&mut bytes, stamp);
        let found =
            |bytes: &[u8]| IntactFrames::new(bytes, 0, None).map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(found(&bytes), [0]);
        // Where the outer record is damaged it is found, which errs on the careful side.
        bytes[5] ^= 1;
        assert_eq!(found(&bytes), [32]);
    }

    /// Bytes in which many frames have lengths that add up and one trailer in common, and none
    /// has a matching checksum. Frames begin 36 bytes apart; the command of each reaches from
    /// there to the tail.
    pub(crate) fn crafted(file: FileNumber) -> Vec<u8> {
        const FRAMES: usize = 64;
        const COMMAND_BYTES: usize = 50_000;
        let mut mark = Vec::new();
        let stamp = Stamp { seq: SeqNo(1), file, synced: SeqNo(0) };
        Encoded::mark(Mark::Closed).unwrap().stamp_into(&mut mark, stamp);
        let tail = &mark[36..];
        let mut bytes = Vec::new();
        for index in 0..FRAMES {
            let command_len = COMMAND_BYTES - 36 * index;
            bytes.extend_from_slice(&((32 + command_len + tail.len()) as u32).to_le_bytes());
            bytes.extend_from_slice(&[0; 28]);
            bytes.extend_from_slice(&(command_len as u32).to_le_bytes());
        }
        bytes.resize(36 + COMMAND_BYTES, b'x');
        bytes.extend_from_slice(&tail[..tail.len() - 4]);
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    #[test]
    fn the_budget_ends_the_search_of_crafted_bytes() {
        let bytes = crafted(FileNumber(1));
        let mut scan = IntactFrames::new(&bytes, 0, None);
        assert!(scan.next().is_none());
        assert!(scan.is_exhausted());
        let mut scan = IntactFrames::new(&bytes, 0, Some(FileNumber(2)));
        assert!(scan.next().is_none());
        assert!(!scan.is_exhausted());
    }
}
