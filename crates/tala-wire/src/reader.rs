//! The reader: one segment, checked when opened, read in place.

mod agreement;
mod parts;
mod salvage;

use std::borrow::Cow;

use tala_core::{IntentId, Outcome, Status, TimeRange};

use crate::{
    bloom::Bloom,
    directory::{CHANGE_BYTES, CHANGE_OUTCOME, OUTCOME_BYTES},
    edges,
    error::WireError,
    footer::Checksums,
    header::Header,
    row::{Change, Edge, StoredRow},
};
use parts::{Fixed, Legacy, OddRow, Ours};

pub use agreement::Agreement;
pub use salvage::{Salvage, SalvagedRow};

/// A segment in memory: a `Vec<u8>`, a `&[u8]` or a memory map, of which nothing is copied.
///
/// Opening checks all that is not embeddings. A 64 KiB block of embeddings is checked against its
/// checksum when one of its rows is first asked for, and damage there is the error of that call
/// and of every later one that needs the block. Rows are numbered from 0 to
/// [`len`](Self::len) - 1; the plain accessors answer `None` for a row outside of that.
///
/// The bytes must not change while the reader lives. Where they do, answers are wrong, or errors,
/// but nothing here panics.
#[derive(Debug)]
pub struct SegmentReader<B> {
    bytes: B,
    header: Header,
    fixed: Fixed,
    rest: Rest,
}

/// Where the answers come from that the fixed part does not have.
#[derive(Debug)]
enum Rest {
    Ours(Box<Ours>),
    Legacy(Legacy),
}

impl<B: AsRef<[u8]>> SegmentReader<B> {
    /// Checks header, footer, columns and tables: everything but the embeddings.
    ///
    /// # Errors
    /// [`WireError::UnsupportedVersion`] for a newer major version, else [`WireError::Damaged`]
    /// with the place: bytes are missing, too many, or not what was written.
    pub fn open(bytes: B) -> Result<Self, WireError> {
        let file = bytes.as_ref();
        let header = Header::decode(file)?;
        let (fixed, rest) = if header.is_legacy() {
            let fixed = Fixed::locate(&header, file.len())?;
            fixed.check(file)?;
            let legacy = Legacy::derive(file, &fixed, header.node_count);
            (fixed, Rest::Legacy(legacy))
        } else {
            let checksums = Checksums::decode(file, header.footer_offset)?;
            // The footer was found there, so its offset fits.
            let limit = usize::try_from(header.footer_offset).unwrap_or(file.len());
            let fixed = Fixed::locate(&header, limit)?;
            checksums.check_except(file, &(fixed.embeddings.start..fixed.embeddings.end()))?;
            fixed.check(file)?;
            let ours = Ours::decode(file, &header, &fixed, checksums, limit)?;
            (fixed, Rest::Ours(Box::new(ours)))
        };
        Ok(Self { bytes, header, fixed, rest })
    }

    /// Compares every byte of the segment with its checksum, also where that was done before. A
    /// legacy segment has no checksums, so there is nothing to compare.
    ///
    /// # Errors
    /// [`WireError::Damaged`] with the start of the first block that does not match.
    pub fn verify(&self) -> Result<(), WireError> {
        match &self.rest {
            Rest::Ours(ours) => ours.checksums.check_all(self.file()),
            Rest::Legacy(_) => Ok(()),
        }
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the segment holds the fixed part of the format only: no commands, no sequence
    /// numbers, no checksums, no changes.
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        matches!(self.rest, Rest::Legacy(_))
    }

    /// Components of an embedding, except for rows of another length.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.header.dim as usize
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.header.node_count
    }

    /// Whether there are no rows; there may still be changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.header.node_count == 0
    }

    /// The bytes that the segment was opened on.
    #[must_use]
    pub fn bytes(&self) -> &B {
        &self.bytes
    }

    /// The id of a row.
    #[must_use]
    pub fn id(&self, row: u32) -> Option<IntentId> {
        self.fixed.ids.array(self.file(), row as usize).map(IntentId::from_bytes)
    }

    /// The timestamp of a row, in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn timestamp(&self, row: u32) -> Option<u64> {
        self.fixed.timestamps.u64(self.file(), row as usize)
    }

    /// The context hash of a row.
    #[must_use]
    pub fn context_hash(&self, row: u32) -> Option<u64> {
        self.fixed.context_hashes.u64(self.file(), row as usize)
    }

    /// The confidence of a row, bit for bit.
    #[must_use]
    pub fn confidence(&self, row: u32) -> Option<f32> {
        self.fixed.confidences.array(self.file(), row as usize).map(f32::from_le_bytes)
    }

    /// The sequence number of a row, or 0 where it has none.
    #[must_use]
    pub fn seq(&self, row: u32) -> Option<u64> {
        match &self.rest {
            Rest::Ours(ours) => ours.seqs.u64(self.file(), row as usize),
            Rest::Legacy(_) => (row < self.len()).then_some(0),
        }
    }

    /// The outcome of a row; the inner `None` is a row without one.
    #[must_use]
    pub fn outcome(&self, row: u32) -> Option<Option<Outcome>> {
        let status = self.fixed.status(self.file(), row as usize)?;
        let Rest::Ours(ours) = &self.rest else {
            let known = status != Status::Pending;
            return Some(known.then_some(Outcome { status, latency_ns: 0, exit_code: 0 }));
        };
        let bytes: [u8; OUTCOME_BYTES] = ours.outcomes.array(self.file(), row as usize)?;
        let [l0, l1, l2, l3, l4, l5, l6, l7, e0, e1, e2, e3, present, ..] = bytes;
        Some((present == 1).then_some(Outcome {
            status,
            latency_ns: u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]),
            exit_code: i32::from_le_bytes([e0, e1, e2, e3]),
        }))
    }

    /// The command of a row; empty in a legacy segment.
    #[must_use]
    pub fn raw_command(&self, row: u32) -> Option<&str> {
        match &self.rest {
            Rest::Ours(ours) => {
                let (first, end) = ours.command_bounds.span(self.file(), row as usize)?;
                let bytes = ours.commands.entries(self.file(), first, end)?;
                std::str::from_utf8(bytes).ok()
            }
            Rest::Legacy(_) => (row < self.len()).then_some(""),
        }
    }

    /// The parents of a row, in order; in a legacy segment the rows with an edge to it, in row
    /// order.
    #[must_use]
    pub fn parent_ids(&self, row: u32) -> Option<Vec<IntentId>> {
        match &self.rest {
            Rest::Ours(ours) => {
                let (first, end) = ours.parent_bounds.span(self.file(), row as usize)?;
                let bytes = ours.parents.entries(self.file(), first, end)?;
                let (ids, _) = bytes.as_chunks::<16>();
                Some(ids.iter().copied().map(IntentId::from_bytes).collect())
            }
            Rest::Legacy(legacy) => {
                if row >= self.len() {
                    return None;
                }
                let first = legacy.parents.partition_point(|(child, _)| *child < row);
                let of_row =
                    legacy.parents.iter().skip(first).take_while(|(child, _)| *child == row);
                of_row.map(|(_, parent)| self.id(*parent)).collect()
            }
        }
    }

    /// The embedding of a row, in its true length and bit for bit. Borrowed where the bytes are
    /// aligned for `f32`, as in a memory map.
    ///
    /// # Errors
    /// [`WireError::Damaged`] where a block that holds the row does not match its checksum, and
    /// [`WireError::NoSuchRow`].
    pub fn embedding(&self, row: u32) -> Result<Cow<'_, [f32]>, WireError> {
        let no_such_row = || WireError::NoSuchRow { row, rows_count: self.len() };
        let file = self.file();
        let Some(region) = self.fixed.embeddings.entry(file, row as usize) else {
            return Err(no_such_row());
        };
        if let Rest::Ours(ours) = &self.rest {
            if let Some(odd) = self.odd_row(ours, row) {
                let end = odd.first.saturating_add(odd.length);
                let values = ours.odd_values.entries(file, odd.first, end);
                return values.map(floats).ok_or_else(no_such_row);
            }
            let start = self.fixed.embeddings.offset_of(row as usize);
            ours.checksums.check_once(file, start..start + region.len())?;
        }
        region.get(..self.dim() * 4).map(floats).ok_or_else(no_such_row)
    }

    /// The length of the embedding of a row, without touching the embedding.
    #[must_use]
    pub fn embedding_len(&self, row: u32) -> Option<usize> {
        if row >= self.len() {
            return None;
        }
        let odd = match &self.rest {
            Rest::Ours(ours) => self.odd_row(ours, row),
            Rest::Legacy(_) => None,
        };
        Some(odd.map_or(self.dim(), |odd| odd.length))
    }

    /// All that the segment knows of a row.
    ///
    /// # Errors
    /// As [`embedding`](Self::embedding).
    pub fn row(&self, row: u32) -> Result<StoredRow<'_>, WireError> {
        let embedding = self.embedding(row)?;
        let fields = || {
            Some(StoredRow {
                id: self.id(row)?,
                timestamp: self.timestamp(row)?,
                context_hash: self.context_hash(row)?,
                confidence: self.confidence(row)?,
                embedding,
                raw_command: self.raw_command(row)?,
                parent_ids: self.parent_ids(row)?,
                outcome: self.outcome(row)?,
                seq: self.seq(row)?,
            })
        };
        fields().ok_or(WireError::NoSuchRow { row, rows_count: self.len() })
    }

    /// Every row, in order. A row with a damaged embedding is an error in its place; the rows
    /// after it follow.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Result<StoredRow<'_>, WireError>> {
        // `Range<u32>` has no exact size where a `usize` may be narrower; the rows are in memory.
        (0..self.len() as usize).map(|row| self.row(row as u32))
    }

    /// The changes to intents of older segments, in the order in which they were written:
    /// sequence number, intent, change.
    pub fn changes(&self) -> impl Iterator<Item = (u64, IntentId, Change)> {
        let changes = match &self.rest {
            Rest::Ours(ours) => Some(ours.changes),
            Rest::Legacy(_) => None,
        };
        changes.into_iter().flat_map(move |changes| {
            (0..changes.count)
                .filter_map(move |index| decode_change(changes.array(self.file(), index)?))
        })
    }

    /// The lowest and the highest sequence number of rows and changes, those of 0 left out; `None`
    /// where there is none.
    #[must_use]
    pub fn seq_range(&self) -> Option<(u64, u64)> {
        let of_rows = (0..self.len()).filter_map(|row| self.seq(row));
        of_rows.chain(self.changes().map(|(seq, ..)| seq)).filter(|seq| *seq != 0).fold(
            None,
            |range, seq| {
                let (low, high) = range.unwrap_or((seq, seq));
                Some((low.min(seq), high.max(seq)))
            },
        )
    }

    /// Whether a row has this id.
    #[must_use]
    pub fn contains(&self, id: IntentId) -> bool {
        self.find(id).is_some()
    }

    /// The row with this id. Where a legacy segment has several, the last one.
    #[must_use]
    pub fn find(&self, id: IntentId) -> Option<u32> {
        // A legacy filter is under no checksum: a flipped bit in it would hide a row.
        if let Rest::Ours(ours) = &self.rest {
            let words = ours.bloom_words.entries(self.file(), 0, ours.bloom_words.count)?;
            if !Bloom::new(ours.bloom_shape, words).may_contain(id.as_bytes()) {
                return None;
            }
        }
        let at = |place| match &self.rest {
            Rest::Ours(ours) => ours.by_id.u32(self.file(), place as usize),
            Rest::Legacy(legacy) => legacy.by_id.get(place as usize).copied(),
        };
        let not_above = |place| at(place).and_then(|row| self.id(row)).is_some_and(|it| it <= id);
        let last = at(partition_point(self.len(), not_above).checked_sub(1)?)?;
        (self.id(last) == Some(id)).then_some(last)
    }

    /// The rows with a timestamp in `range`, ordered by (timestamp, row).
    pub fn range(&self, range: TimeRange) -> impl DoubleEndedIterator<Item = u32> {
        let before = |bound: u64| {
            let is_before = |place| {
                let row = self.row_by_time(place);
                row.and_then(|row| self.timestamp(row)).is_some_and(|it| it < bound)
            };
            partition_point(self.len(), is_before)
        };
        // The bounds of an inverted range come out inverted, so that it is empty.
        (before(range.start)..before(range.end)).filter_map(|place| self.row_by_time(place))
    }

    /// The edges that start at `row`; none where there is no such row.
    pub fn children(&self, row: u32) -> impl Iterator<Item = Edge> {
        let (first, end) = self.fixed.edge_bounds.span(self.file(), row as usize).unwrap_or((0, 0));
        let edges = self.fixed.edges;
        (first..end.min(edges.count))
            .filter_map(move |index| edges::decode(edges.array(self.file(), index)?))
    }

    fn file(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    fn row_by_time(&self, place: u32) -> Option<u32> {
        match &self.rest {
            Rest::Ours(ours) => ours.by_time.u32(self.file(), place as usize),
            Rest::Legacy(legacy) => legacy.by_time.get(place as usize).copied(),
        }
    }

    fn odd_row(&self, ours: &Ours, row: u32) -> Option<OddRow> {
        let at = |index| OddRow::decode(self.file(), &ours.odd_rows, index as usize);
        // There are no more of them than rows.
        let count = ours.odd_rows.count as u32;
        let place = partition_point(count, |index| at(index).is_some_and(|odd| odd.row < row));
        at(place).filter(|odd| odd.row == row)
    }
}

/// The first of `0..count` for which `is_before` is false, where it is never true again after.
fn partition_point(count: u32, is_before: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// Little-endian `f32` values, in place where the bytes are aligned.
fn floats(bytes: &[u8]) -> Cow<'_, [f32]> {
    if cfg!(target_endian = "little")
        && let Ok(values) = bytemuck::try_cast_slice(bytes)
    {
        return Cow::Borrowed(values);
    }
    let (values, _) = bytes.as_chunks::<4>();
    Cow::Owned(values.iter().copied().map(f32::from_le_bytes).collect())
}

/// The change in these bytes, which have been checked on opening.
fn decode_change(bytes: [u8; CHANGE_BYTES]) -> Option<(u64, IntentId, Change)> {
    let (seq, rest) = bytes.split_first_chunk::<8>()?;
    let (id, rest) = rest.split_first_chunk::<16>()?;
    let (latency, rest) = rest.split_first_chunk::<8>()?;
    let (exit, rest) = rest.split_first_chunk::<4>()?;
    let change = match *rest.first_chunk::<2>()? {
        [CHANGE_OUTCOME, status] => Change::Outcome(Outcome {
            status: Status::from_u8(status)?,
            latency_ns: u64::from_le_bytes(*latency),
            exit_code: i32::from_le_bytes(*exit),
        }),
        _ => Change::Removal,
    };
    Some((u64::from_le_bytes(*seq), IntentId::from_bytes(*id), change))
}
