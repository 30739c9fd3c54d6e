//! The table directory: where the tables are that the fixed part of the format does not know.
//!
//! | offset in the directory | bytes | type | meaning |
//! |---|---|---|---|
//! | 0 | 4 | u32 | number of entries, `T` |
//! | 4 | 4 | u32 | zero |
//! | 8 + 24 i | 4 | u32 | kind of table `i`; kinds rise, so each is there once |
//! | 12 + 24 i | 4 | u32 | zero |
//! | 16 + 24 i | 8 | u64 | offset of the table from the start of the segment, a multiple of 64 |
//! | 24 + 24 i | 8 | u64 | bytes of the table |
//!
//! A reader passes over kinds that it does not know: adding one raises the minor version only. A
//! change that an older reader must not pass over raises the major version. All of the kinds below
//! are present in every segment, empty or not. `N` is the number of rows.
//!
//! | kind | table | contents |
//! |---|---|---|
//! | 1 | sequence numbers | N x u64, 0 where a row has none |
//! | 2 | outcomes | N x 16: latency_ns (u64), exit_code (i32), present (u8: 0 or 1), 3 zero bytes; the status is in the fixed status column, and 0 there for a row without an outcome |
//! | 3 | parents | N + 1 bounds (u64), then the ids (16 bytes each); those of row `i` are `bounds[i]..bounds[i + 1]`, in order |
//! | 4 | changes | 40 each, in order: seq (u64), id (16), latency_ns (u64), exit_code (i32), change (u8: 0 outcome, 1 removal), status (u8), 2 zero bytes; a removal has latency, exit code and status 0 |
//! | 5 | rows by id | N x u32: the rows in ascending order of their id bytes |
//! | 6 | rows by time | N x u32: the rows in ascending order of (timestamp, row) |
//! | 7 | odd embeddings | count (u64); count x 16: row (u32, ascending), length (u32), first value (u64); then the values (f32). For rows whose embedding is not `dim` long; in the embedding region such a row is zero |
//!
//! The string table has its own offset in the header: N + 1 bounds (u64), then UTF-8; the command
//! of row `i` is bytes `bounds[i]..bounds[i + 1]` after the bounds.
//!
//! All of it is checked by the block checksums when a segment is opened.

use crate::{
    error::WireError,
    table::{ALIGNMENT, Table, u32_at, u64_at},
};

/// What a table holds; the discriminant is its kind on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Kind {
    SequenceNumbers = 1,
    Outcomes = 2,
    Parents = 3,
    Changes = 4,
    ById = 5,
    ByTime = 6,
    OddEmbeddings = 7,
}

/// How many kinds there are.
pub(crate) const KINDS_COUNT: usize = 7;
/// Bytes of an outcome.
pub(crate) const OUTCOME_BYTES: usize = 16;
/// Bytes of a change.
pub(crate) const CHANGE_BYTES: usize = 40;
/// In a change: an outcome was attached.
pub(crate) const CHANGE_OUTCOME: u8 = 0;
/// In a change: the intent was removed.
pub(crate) const CHANGE_REMOVAL: u8 = 1;
/// Bytes of an entry of the table of odd embeddings.
pub(crate) const ODD_BYTES: usize = 16;

const HEAD_BYTES: usize = 8;
const ENTRY_BYTES: usize = 24;

/// Bytes of a directory of `entries_count` tables.
pub(crate) const fn directory_bytes(entries_count: usize) -> usize {
    HEAD_BYTES + ENTRY_BYTES * entries_count
}

/// The bytes of the directory of these tables: kind, offset, bytes.
pub(crate) fn encode(tables: &[(Kind, usize, usize)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(directory_bytes(tables.len()));
    bytes.extend_from_slice(&(tables.len() as u64).to_le_bytes());
    for (kind, offset, length) in tables {
        bytes.extend_from_slice(&u64::from(*kind as u32).to_le_bytes());
        bytes.extend_from_slice(&(*offset as u64).to_le_bytes());
        bytes.extend_from_slice(&(*length as u64).to_le_bytes());
    }
    bytes
}

/// The directory of a segment whose blocks have been checked.
pub(crate) struct Directory<'b> {
    file: &'b [u8],
    entries: Table,
    limit: usize,
}

impl<'b> Directory<'b> {
    /// The directory at byte `start`; it and all its tables end at byte `limit` or before.
    pub(crate) fn decode(file: &'b [u8], start: usize, limit: usize) -> Result<Self, WireError> {
        let count = u32_at(file, start).unwrap_or(0) as usize;
        let entries_start = start.saturating_add(HEAD_BYTES);
        let entries =
            Table::within(limit, entries_start, count, ENTRY_BYTES, "the table directory")?;
        let mut previous = 0;
        for index in 0..count {
            let at = entries.offset_of(index);
            let kind = u32_at(file, at).unwrap_or(0);
            if kind <= previous {
                return Err(WireError::damaged(at, "the table directory is out of order"));
            }
            previous = kind;
        }
        Ok(Self { file, entries, limit })
    }

    /// The bytes of the directory itself.
    pub(crate) fn range(&self) -> std::ops::Range<usize> {
        self.entries.start.saturating_sub(HEAD_BYTES)..self.entries.end()
    }

    /// Where the table of this kind is, as one table of single bytes.
    pub(crate) fn find(&self, kind: Kind) -> Result<Table, WireError> {
        for index in 0..self.entries.count {
            let at = self.entries.offset_of(index);
            if u32_at(self.file, at) != Some(kind as u32) {
                continue;
            }
            let number = |at| u64_at(self.file, at).and_then(|n| usize::try_from(n).ok());
            let (Some(start), Some(bytes)) = (number(at + 8), number(at + 16)) else {
                return Err(WireError::damaged(at + 8, format!("{kind:?} passes the segment")));
            };
            if start % ALIGNMENT != 0 || start < self.entries.end() {
                return Err(WireError::damaged(at + 8, format!("{kind:?} starts at {start}")));
            }
            return Table::within(self.limit, start, bytes, 1, &format!("{kind:?}"));
        }
        Err(WireError::damaged(self.entries.start, format!("there is no table {kind:?}")))
    }

    /// The table of this kind, which has `count` entries of `width` bytes.
    pub(crate) fn column(
        &self,
        kind: Kind,
        count: usize,
        width: usize,
    ) -> Result<Table, WireError> {
        let found = self.find(kind)?;
        if count.checked_mul(width) != Some(found.count) {
            return Err(WireError::damaged(
                found.start,
                format!("{kind:?} has {} bytes, not {count} times {width}", found.count),
            ));
        }
        Table::within(found.end(), found.start, count, width, &format!("{kind:?}"))
    }

    /// The table of this kind as entries of `width` bytes, however many there are.
    pub(crate) fn list(&self, kind: Kind, width: usize) -> Result<Table, WireError> {
        let bytes = self.find(kind)?.count;
        self.column(kind, bytes / width, width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset<T>(result: Result<T, WireError>) -> Option<u64> {
        match result {
            Err(WireError::Damaged { offset, .. }) => Some(offset),
            _ => None,
        }
    }

    #[test]
    fn tables_are_found_by_their_kind_and_unknown_ones_are_passed_over() {
        let mut file = encode(&[(Kind::Changes, 64, 80), (Kind::ById, 192, 8)]);
        file.resize(200, 0);
        let directory = Directory::decode(&file, 0, 200).unwrap();
        assert_eq!(directory.list(Kind::Changes, 40).unwrap().count, 2);
        assert_eq!(directory.column(Kind::ById, 2, 4).unwrap().end(), 200);
        assert_eq!(offset(directory.column(Kind::ById, 3, 4)), Some(192));
        assert_eq!(offset(directory.column(Kind::ById, usize::MAX, 4)), Some(192));
        assert_eq!(offset(directory.list(Kind::Changes, 64)), Some(64));
        assert_eq!(offset(directory.find(Kind::ByTime)), Some(8));
        file[32] = 99;
        let directory = Directory::decode(&file, 0, 200).unwrap();
        assert!(directory.find(Kind::Changes).is_ok());
        assert!(directory.find(Kind::ById).is_err());
    }

    #[test]
    fn a_directory_that_makes_no_sense_is_refused() {
        let file = encode(&[(Kind::ById, 64, 8), (Kind::ById, 128, 8)]);
        assert_eq!(offset(Directory::decode(&file, 0, file.len())), Some(32));
        let file = encode(&[(Kind::ById, 64, 8)]);
        assert!(Directory::decode(&file, 0, 31).is_err());
        assert!(Directory::decode(&[255; 64], 0, 64).is_err());
        assert!(Directory::decode(&file, usize::MAX, 64).is_err());
        for (start, bytes) in [(65, 0), (0, 8), (64, 1), (usize::MAX - 63, 64)] {
            let file = encode(&[(Kind::ById, start, bytes)]);
            let directory = Directory::decode(&file, 0, 64).unwrap();
            assert!(directory.find(Kind::ById).is_err(), "{start} {bytes}");
        }
    }
}
