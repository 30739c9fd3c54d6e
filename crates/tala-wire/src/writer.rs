//! The writer: rows and changes in, the bytes of one segment out.

use std::collections::{HashMap, hash_map::Entry};

use tala_core::{IntentId, SegmentId, TalaError};

use crate::{
    bloom::{BLOOM_HEAD_BYTES, BloomBuilder},
    directory::{
        self, CHANGE_BYTES, CHANGE_OUTCOME, CHANGE_REMOVAL, KINDS_COUNT, Kind, ODD_BYTES,
        OUTCOME_BYTES, directory_bytes,
    },
    edges::{EDGE_BYTES, Edges},
    footer,
    header::{DIM_MAX, FLAG_EMBEDDINGS, FLAG_OUTCOMES, HEADER_BYTES, Header, VERSION_MINOR},
    row::{Change, Row},
    table::ALIGNMENT,
};

/// Collects what goes into one segment, and encodes it.
///
/// Rows are borrowed until [`finish`](Self::finish), which copies each of their bytes once, into a
/// buffer of the right size.
#[derive(Debug)]
pub struct SegmentWriter<'a> {
    dim: usize,
    rows: Vec<Row<'a>>,
    row_of: HashMap<IntentId, u32>,
    changes: Vec<(u64, IntentId, Change)>,
}

impl<'a> SegmentWriter<'a> {
    /// A writer of a segment whose embeddings are `[f32; dim]`.
    ///
    /// # Errors
    /// [`TalaError::InvalidInput`] where `dim` is 0 or above [`DIM_MAX`].
    pub fn new(dim: usize) -> Result<Self, TalaError> {
        Self::with_capacity(dim, 0)
    }

    /// As [`new`](Self::new), with room for `rows` rows.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_capacity(dim: usize, rows: usize) -> Result<Self, TalaError> {
        if dim == 0 || dim > DIM_MAX {
            return Err(TalaError::InvalidInput {
                field: "dim",
                reason: format!("{dim} is not in 1..={DIM_MAX}"),
            });
        }
        Ok(Self {
            dim,
            rows: Vec::with_capacity(rows),
            row_of: HashMap::with_capacity(rows),
            changes: Vec::new(),
        })
    }

    /// Adds a row and returns its number; rows are numbered from 0 in the order of the calls.
    ///
    /// An embedding that is not `dim` long, such as an empty one, is kept beside the embedding
    /// region, where a reader of the fixed part sees zeros. The values are not looked at.
    ///
    /// # Errors
    /// [`TalaError::InvalidInput`] where the segment has a row with this id, and
    /// [`TalaError::TooLarge`] where it has `u32::MAX` rows, or an embedding of another length
    /// than `dim` has more than `u32::MAX` components. The writer is then as it was before.
    pub fn push(&mut self, row: &Row<'a>) -> Result<u32, TalaError> {
        let too_large =
            |what, got: usize| TalaError::TooLarge { what, got: got as u64, max: u32::MAX.into() };
        let number = u32::try_from(self.rows.len())
            .ok()
            .filter(|number| *number < u32::MAX)
            .ok_or_else(|| too_large("segment rows", self.rows.len()))?;
        if u32::try_from(row.embedding.len()).is_err() {
            return Err(too_large("embedding", row.embedding.len()));
        }
        match self.row_of.entry(row.id) {
            Entry::Occupied(_) => {
                return Err(TalaError::InvalidInput {
                    field: "id",
                    reason: format!("the segment has a row with id {}", row.id),
                });
            }
            Entry::Vacant(place) => place.insert(number),
        };
        self.rows.push(*row);
        Ok(number)
    }

    /// Adds what happened, at sequence number `seq`, to an intent of an older segment. Changes
    /// are kept in the order of the calls.
    pub fn push_change(&mut self, seq: u64, id: IntentId, change: Change) {
        self.changes.push((seq, id, change));
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is neither a row nor a change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.changes.is_empty()
    }

    /// The bytes of the segment. `created_at_ns` counts nanoseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`TalaError::TooLarge`] where the segment does not fit into memory.
    pub fn finish(self, segment_id: SegmentId, created_at_ns: u64) -> Result<Vec<u8>, TalaError> {
        // `push` refuses the row that would pass `u32::MAX`.
        let node_count = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        let edges = Edges::between(&self.rows, &self.row_of);
        let mut bloom = BloomBuilder::for_items(node_count);
        self.rows.iter().for_each(|row| bloom.insert(row.id.as_bytes()));

        let mut out = Output::with_capacity(self.bytes_max(&edges, &bloom))?;
        out.put(&[0; HEADER_BYTES]);
        let node_region_offset = self.put_columns(&mut out);
        let embed_region_offset = self.put_embeddings(&mut out);

        let edge_region_offset = out.align();
        edges.bounds(node_count).for_each(|bound| out.put(&bound.to_le_bytes()));
        edges.entries().for_each(|entry| out.put(&entry));

        let bloom_offset = out.align();
        out.put(&bloom.shape().hashes_count.to_le_bytes());
        out.put(&bloom.shape().bits_count.to_le_bytes());
        out.put(bloom.words());

        let string_table_offset = out.align();
        out.put_bounds(self.rows.iter().map(|row| row.raw_command.len()));
        self.rows.iter().for_each(|row| out.put(row.raw_command.as_bytes()));

        let index_offset = self.put_tables(&mut out);
        let footer_offset = out.align();

        let outcomes = self.rows.iter().any(|row| row.outcome.is_some());
        let header = Header {
            version_minor: VERSION_MINOR,
            segment_id,
            created_at_ns,
            node_count,
            edge_count: edges.len() as u64,
            // At most `DIM_MAX`, as `with_capacity` has checked.
            dim: self.dim as u32,
            dtype: 0,
            compression: 0,
            flags: FLAG_EMBEDDINGS | if outcomes { FLAG_OUTCOMES } else { 0 },
            node_region_offset: node_region_offset as u64,
            embed_region_offset: embed_region_offset as u64,
            edge_region_offset: edge_region_offset as u64,
            string_table_offset: string_table_offset as u64,
            bloom_offset: bloom_offset as u64,
            index_offset: index_offset as u64,
            footer_offset: footer_offset as u64,
        };
        let mut segment = out.0;
        segment[..HEADER_BYTES].copy_from_slice(&header.encode());
        footer::append_footer(&mut segment);
        Ok(segment)
    }

    /// An upper bound of the length of the segment, at most a few hundred bytes too high, so that
    /// the output never moves. Saturates, and is then refused as too large.
    fn bytes_max(&self, edges: &Edges, bloom: &BloomBuilder) -> usize {
        let rows = self.rows.len();
        let per_row = 16 + 8 + 8 + 4 + 1 // columns
            + self.stride()
            + 8 + 8 + 8 // bounds of edges, commands, parents
            + 8 + OUTCOME_BYTES + 4 + 4; // tables of fixed width
        let of_row = |row: &Row<'_>| {
            let odd = if row.embedding.len() == self.dim {
                0
            } else {
                ODD_BYTES + size_of_val(row.embedding)
            };
            row.raw_command.len() + row.parent_ids.len() * 16 + odd
        };
        // Columns, regions, tables, and the footer: each may need padding before it.
        let paddings = 5 + 4 + KINDS_COUNT + 2;
        let covered = [
            HEADER_BYTES + directory_bytes(KINDS_COUNT) + BLOOM_HEAD_BYTES + 4 * 8,
            paddings * ALIGNMENT,
            rows.saturating_mul(per_row),
            edges.len().saturating_mul(EDGE_BYTES),
            bloom.words().len(),
            self.changes.len().saturating_mul(CHANGE_BYTES),
        ]
        .into_iter()
        .chain(self.rows.iter().map(of_row))
        .fold(0, usize::saturating_add);
        covered.saturating_add(footer::footer_bytes(covered))
    }

    /// Bytes of a row of the embedding region.
    fn stride(&self) -> usize {
        (self.dim * 4).next_multiple_of(ALIGNMENT)
    }

    /// The node region. Returns its offset, like the functions below.
    fn put_columns(&self, out: &mut Output) -> usize {
        let start = out.align();
        self.rows.iter().for_each(|row| out.put(row.id.as_bytes()));
        out.align();
        self.rows.iter().for_each(|row| out.put(&row.timestamp.to_le_bytes()));
        out.align();
        self.rows.iter().for_each(|row| out.put(&row.context_hash.to_le_bytes()));
        out.align();
        self.rows.iter().for_each(|row| out.put(&row.confidence.to_le_bytes()));
        out.align();
        for row in &self.rows {
            out.put(&[row.outcome.map_or(0, |outcome| outcome.status as u8)]);
        }
        start
    }

    fn put_embeddings(&self, out: &mut Output) -> usize {
        let start = out.align();
        for row in &self.rows {
            if row.embedding.len() == self.dim {
                out.put_f32s(row.embedding);
                out.align();
            } else {
                out.zeros(self.stride());
            }
        }
        start
    }

    /// The table directory and its tables.
    fn put_tables(&self, out: &mut Output) -> usize {
        let start = out.align();
        out.zeros(directory_bytes(KINDS_COUNT));
        let mut tables = Vec::with_capacity(KINDS_COUNT);
        let mut table = |kind, put: &dyn Fn(&mut Output)| {
            let start = out.align();
            put(out);
            tables.push((kind, start, out.0.len() - start));
        };
        table(Kind::SequenceNumbers, &|out| {
            self.rows.iter().for_each(|row| out.put(&row.seq.to_le_bytes()));
        });
        table(Kind::Outcomes, &|out| {
            for row in &self.rows {
                let outcome = row.outcome.as_ref();
                out.put(&outcome.map_or(0, |outcome| outcome.latency_ns).to_le_bytes());
                out.put(&outcome.map_or(0, |outcome| outcome.exit_code).to_le_bytes());
                out.put(&[u8::from(outcome.is_some()), 0, 0, 0]);
            }
        });
        table(Kind::Parents, &|out| {
            out.put_bounds(self.rows.iter().map(|row| row.parent_ids.len()));
            for parent in self.rows.iter().flat_map(|row| row.parent_ids) {
                out.put(parent.as_bytes());
            }
        });
        table(Kind::Changes, &|out| {
            self.changes.iter().for_each(|change| out.put(&encode_change(change)));
        });
        table(Kind::ById, &|out| out.put_rows_by(&self.rows, |row| row.id));
        table(Kind::ByTime, &|out| out.put_rows_by(&self.rows, |row| row.timestamp));
        table(Kind::OddEmbeddings, &|out| self.put_odd_embeddings(out));
        let directory = directory::encode(&tables);
        // The place for it was made above, from the same number of tables.
        out.0[start..start + directory.len()].copy_from_slice(&directory);
        start
    }

    fn put_odd_embeddings(&self, out: &mut Output) {
        let odd = || {
            let numbered = self.rows.iter().zip(0_u32..);
            numbered.filter(|(row, _)| row.embedding.len() != self.dim)
        };
        out.put(&(odd().count() as u64).to_le_bytes());
        let mut first = 0_u64;
        for (row, number) in odd() {
            // `push` refuses longer embeddings.
            let length = u32::try_from(row.embedding.len()).unwrap_or(u32::MAX);
            out.put(&number.to_le_bytes());
            out.put(&length.to_le_bytes());
            out.put(&first.to_le_bytes());
            first += u64::from(length);
        }
        odd().for_each(|(row, _)| out.put_f32s(row.embedding));
    }
}

fn encode_change((seq, id, change): &(u64, IntentId, Change)) -> [u8; CHANGE_BYTES] {
    let mut bytes = [0; CHANGE_BYTES];
    bytes[..8].copy_from_slice(&seq.to_le_bytes());
    bytes[8..24].copy_from_slice(id.as_bytes());
    match change {
        Change::Outcome(outcome) => {
            bytes[24..32].copy_from_slice(&outcome.latency_ns.to_le_bytes());
            bytes[32..36].copy_from_slice(&outcome.exit_code.to_le_bytes());
            bytes[36] = CHANGE_OUTCOME;
            bytes[37] = outcome.status as u8;
        }
        Change::Removal => bytes[36] = CHANGE_REMOVAL,
    }
    bytes
}

/// The segment so far.
struct Output(Vec<u8>);

impl Output {
    fn with_capacity(bytes: usize) -> Result<Self, TalaError> {
        let mut out = Vec::new();
        out.try_reserve_exact(bytes).map_err(|_| TalaError::TooLarge {
            what: "segment",
            got: bytes as u64,
            max: isize::MAX as u64,
        })?;
        Ok(Self(out))
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    /// Pads with zeros to the next multiple of [`ALIGNMENT`], and returns the length.
    fn align(&mut self) -> usize {
        let aligned = self.0.len().next_multiple_of(ALIGNMENT);
        self.0.resize(aligned, 0);
        aligned
    }

    fn put_f32s(&mut self, values: &[f32]) {
        if cfg!(target_endian = "little") {
            self.put(bytemuck::cast_slice(values));
        } else {
            values.iter().for_each(|value| self.put(&value.to_le_bytes()));
        }
    }

    /// Where each of the parts starts when they are laid end to end, and where the last one ends.
    fn put_bounds(&mut self, lengths: impl Iterator<Item = usize>) {
        let mut bound = 0_u64;
        self.put(&bound.to_le_bytes());
        for length in lengths {
            bound += length as u64;
            self.put(&bound.to_le_bytes());
        }
    }

    /// The numbers of the rows, ordered by (key, number).
    fn put_rows_by<K: Ord>(&mut self, rows: &[Row<'_>], key: impl Fn(&Row<'_>) -> K) {
        let mut keys: Vec<(K, u32)> = rows.iter().map(key).zip(0..).collect();
        keys.sort_unstable();
        keys.iter().for_each(|(_, number)| self.put(&number.to_le_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u8, embedding: &[f32]) -> Row<'_> {
        Row {
            id: IntentId::from_bytes([number; 16]),
            timestamp: 0,
            context_hash: 0,
            confidence: 0.0,
            embedding,
            raw_command: "",
            parent_ids: &[],
            outcome: None,
            seq: 0,
        }
    }

    #[test]
    fn a_repeated_id_is_refused_and_changes_nothing() {
        let mut writer = SegmentWriter::new(1).unwrap();
        assert_eq!(writer.push(&row(1, &[1.0])).unwrap(), 0);
        assert!(matches!(
            writer.push(&row(1, &[2.0])),
            Err(TalaError::InvalidInput { field: "id", .. })
        ));
        assert_eq!(writer.push(&row(2, &[2.0])).unwrap(), 1);
        assert_eq!(writer.len(), 2);
    }

    #[test]
    fn a_dimension_that_no_segment_has_is_refused() {
        for dim in [0, DIM_MAX + 1, usize::MAX] {
            assert!(SegmentWriter::new(dim).is_err());
        }
        assert!(SegmentWriter::new(DIM_MAX).unwrap().is_empty());
    }

    #[test]
    fn the_output_is_sized_up_front() {
        let parents = [IntentId::from_bytes([0; 16]); 5];
        let values = [1.0; 40];
        for (dim, rows) in [(1, 0), (1, 1), (17, 100), (33, 250)] {
            let mut writer = SegmentWriter::new(dim).unwrap();
            for number in 0..rows {
                let embedding = &values[..if number % 3 == 0 { 40 } else { dim }];
                let parent_ids = &parents[..usize::from(number % 6)];
                let row = Row { raw_command: "abc", parent_ids, ..row(number, embedding) };
                writer.push(&row).unwrap();
                writer.push_change(1, row.id, Change::Removal);
            }
            let edges = Edges::between(&writer.rows, &writer.row_of);
            let bloom = BloomBuilder::for_items(u32::from(rows));
            let bytes_max = writer.bytes_max(&edges, &bloom);
            let bytes = writer.finish(SegmentId(1), 0).unwrap();
            assert!(bytes.len() <= bytes_max, "{} > {bytes_max}", bytes.len());
            assert!(bytes_max - bytes.len() < 1_500, "{} << {bytes_max}", bytes.len());
            assert_eq!(bytes.capacity(), bytes_max);
        }
    }
}
