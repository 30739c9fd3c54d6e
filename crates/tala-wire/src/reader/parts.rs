//! Where everything in a segment is, found and checked when the segment is opened.
//!
//! After this, no number in the columns and tables points outside of them: rows named by edges and
//! indexes exist, bounds are in order, commands are UTF-8, and every status is one.

use tala_core::Status;

use crate::{
    bloom::{BLOOM_HEAD_BYTES, BloomShape},
    directory::{
        CHANGE_BYTES, CHANGE_OUTCOME, CHANGE_REMOVAL, Directory, Kind, ODD_BYTES, OUTCOME_BYTES,
    },
    edges::{self, EDGE_BYTES},
    error::WireError,
    footer::Checksums,
    header::{HEADER_BYTES, Header},
    table::{ALIGNMENT, Table, align_up, array_at, u32_at, u64_at},
};

/// More hashes than any rate of false answers could ask for; more would only cost time.
const HASHES_MAX: u32 = 64;
/// The fewest bits of a bloom filter.
const BITS_MIN: u64 = 64;

/// The tables of the fixed part, and the whole of the embedding region.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) ids: Table,
    pub(super) timestamps: Table,
    pub(super) context_hashes: Table,
    pub(super) confidences: Table,
    pub(super) statuses: Table,
    /// One entry for each row, with its padding.
    pub(super) embeddings: Table,
    pub(super) edge_bounds: Table,
    pub(super) edges: Table,
}

impl Fixed {
    /// Finds the regions, which end at byte `limit` or before, and does not look into them.
    pub(super) fn locate(header: &Header, limit: usize) -> Result<Self, WireError> {
        let rows = header.node_count as usize;
        let edges_count = usize_at(header.edge_count, 32, "the number of edges")?;

        let start = region_start(header.node_region_offset, 48, HEADER_BYTES)?;
        let ids = Table::within(limit, start, rows, 16, "the ids")?;
        let next = |table: &Table| {
            align_up(table.end())
                .ok_or_else(|| WireError::damaged(limit, "the columns pass the segment"))
        };
        let timestamps = Table::within(limit, next(&ids)?, rows, 8, "the timestamps")?;
        let context_hashes =
            Table::within(limit, next(&timestamps)?, rows, 8, "the context hashes")?;
        let confidences = Table::within(limit, next(&context_hashes)?, rows, 4, "the confidences")?;
        let statuses = Table::within(limit, next(&confidences)?, rows, 1, "the statuses")?;

        // The header bounds the dimension, so this does not overflow.
        let stride = (header.dim as usize * 4).next_multiple_of(ALIGNMENT);
        let start = region_start(header.embed_region_offset, 56, statuses.end())?;
        let embeddings = Table::within(limit, start, rows, stride, "the embeddings")?;

        let start = region_start(header.edge_region_offset, 64, embeddings.end())?;
        let edge_bounds =
            Table::within(limit, start, rows.saturating_add(1), 8, "the bounds of edges")?;
        let edges = Table::within(limit, edge_bounds.end(), edges_count, EDGE_BYTES, "the edges")?;
        Ok(Self {
            ids,
            timestamps,
            context_hashes,
            confidences,
            statuses,
            embeddings,
            edge_bounds,
            edges,
        })
    }

    /// Checks statuses and edges.
    pub(super) fn check(&self, file: &[u8]) -> Result<(), WireError> {
        let rows = self.ids.count;
        for row in 0..rows {
            if self.status(file, row).is_none() {
                let offset = self.statuses.offset_of(row);
                return Err(WireError::damaged(offset, format!("row {row} has no known status")));
            }
        }
        let end = self.edge_bounds.check_bounds(file, "the edges")?;
        if end != self.edges.count as u64 {
            return Err(WireError::damaged(
                self.edge_bounds.offset_of(rows),
                format!("the bounds of edges end at {end}, not at {}", self.edges.count),
            ));
        }
        for edge in 0..self.edges.count {
            let decoded = self.edges.array(file, edge).and_then(edges::decode);
            if decoded.is_none_or(|edge| edge.target as usize >= rows) {
                return Err(WireError::damaged(
                    self.edges.offset_of(edge),
                    format!("edge {edge} has no known relation or ends outside of the rows"),
                ));
            }
        }
        Ok(())
    }

    pub(super) fn status(&self, file: &[u8], row: usize) -> Option<Status> {
        let [byte] = self.statuses.array(file, row)?;
        Status::from_u8(byte)
    }
}

/// The tables of our part.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) checksums: Checksums,
    pub(super) bloom_shape: BloomShape,
    pub(super) bloom_words: Table,
    pub(super) command_bounds: Table,
    pub(super) commands: Table,
    pub(super) seqs: Table,
    pub(super) outcomes: Table,
    pub(super) parent_bounds: Table,
    pub(super) parents: Table,
    pub(super) changes: Table,
    pub(super) by_id: Table,
    pub(super) by_time: Table,
    pub(super) odd_rows: Table,
    pub(super) odd_values: Table,
}

impl Ours {
    /// Finds and checks the tables after the fixed part. The blocks they lie in have been checked.
    pub(super) fn decode(
        file: &[u8],
        header: &Header,
        fixed: &Fixed,
        checksums: Checksums,
        limit: usize,
    ) -> Result<Self, WireError> {
        let rows = header.node_count as usize;
        let start = region_start(header.bloom_offset, 80, fixed.edges.end())?;
        let (bloom_shape, bloom_words) = decode_bloom(file, start, limit)?;

        let start = region_start(header.string_table_offset, 72, bloom_words.end())?;
        let (command_bounds, commands) = decode_lists(file, start, limit, rows, 1, "the commands")?;

        let start = region_start(header.index_offset, 88, commands.end())?;
        let directory = Directory::decode(file, start, limit)?;
        let parents = directory.find(Kind::Parents)?;
        let (parent_bounds, parents) =
            decode_lists(file, parents.start, parents.end(), rows, 16, "the parents")?;
        let odd = directory.find(Kind::OddEmbeddings)?;
        let (odd_rows, odd_values) = decode_odd(file, &odd, header)?;
        let ours = Self {
            checksums,
            bloom_shape,
            bloom_words,
            command_bounds,
            commands,
            seqs: directory.column(Kind::SequenceNumbers, rows, 8)?,
            outcomes: directory.column(Kind::Outcomes, rows, OUTCOME_BYTES)?,
            parent_bounds,
            parents,
            changes: directory.list(Kind::Changes, CHANGE_BYTES)?,
            by_id: directory.column(Kind::ById, rows, 4)?,
            by_time: directory.column(Kind::ByTime, rows, 4)?,
            odd_rows,
            odd_values,
        };
        ours.check_commands(file)?;
        ours.check_outcomes(file, fixed)?;
        ours.check_changes(file)?;
        check_order(file, &ours.by_id, "the rows by id", |row| fixed.ids.array::<16>(file, row))?;
        check_order(file, &ours.by_time, "the rows by time", |row| {
            Some((fixed.timestamps.u64(file, row)?, row))
        })?;
        Ok(ours)
    }

    fn check_commands(&self, file: &[u8]) -> Result<(), WireError> {
        for row in 0..self.command_bounds.count.saturating_sub(1) {
            let command = self
                .command_bounds
                .span(file, row)
                .and_then(|(first, end)| self.commands.entries(file, first, end))
                .and_then(|bytes| std::str::from_utf8(bytes).ok());
            if command.is_none() {
                let bound = self.command_bounds.u64(file, row).unwrap_or(0) as usize;
                let offset = self.commands.offset_of(bound);
                return Err(WireError::damaged(
                    offset,
                    format!("the command of row {row} is not UTF-8"),
                ));
            }
        }
        Ok(())
    }

    fn check_outcomes(&self, file: &[u8], fixed: &Fixed) -> Result<(), WireError> {
        for row in 0..self.outcomes.count {
            let status = fixed.status(file, row);
            match self.outcomes.array::<OUTCOME_BYTES>(file, row).map(|bytes| bytes[12]) {
                Some(1) => {}
                Some(0) if status == Some(Status::Pending) => {}
                _ => {
                    return Err(WireError::damaged(
                        self.outcomes.offset_of(row),
                        format!("the outcome of row {row} contradicts itself"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_changes(&self, file: &[u8]) -> Result<(), WireError> {
        for index in 0..self.changes.count {
            let known = self.changes.array::<CHANGE_BYTES>(file, index).is_some_and(|bytes| {
                match bytes[36] {
                    CHANGE_OUTCOME => Status::from_u8(bytes[37]).is_some(),
                    CHANGE_REMOVAL => true,
                    _ => false,
                }
            });
            if !known {
                let offset = self.changes.offset_of(index);
                return Err(WireError::damaged(offset, format!("change {index} is none")));
            }
        }
        Ok(())
    }
}

/// What our tables would say, worked out for a legacy segment.
#[derive(Debug)]
pub(super) struct Legacy {
    /// The rows by (id, row): another program may have written an id twice.
    pub(super) by_id: Vec<u32>,
    /// The rows by (timestamp, row).
    pub(super) by_time: Vec<u32>,
    /// (child, parent) of every edge, ordered.
    pub(super) parents: Vec<(u32, u32)>,
}

impl Legacy {
    /// The fixed part has been checked, so every allocation is smaller than what it lists.
    pub(super) fn derive(file: &[u8], fixed: &Fixed, rows: u32) -> Self {
        let mut by_id: Vec<u32> = (0..rows).collect();
        by_id.sort_by_key(|row| fixed.ids.array::<16>(file, *row as usize));
        let mut by_time: Vec<u32> = (0..rows).collect();
        by_time.sort_by_key(|row| fixed.timestamps.u64(file, *row as usize));
        let mut parents = Vec::with_capacity(fixed.edges.count);
        for parent in 0..rows {
            let (first, end) = fixed.edge_bounds.span(file, parent as usize).unwrap_or((0, 0));
            for edge in first..end {
                let edge = fixed.edges.array(file, edge).and_then(edges::decode);
                parents.extend(edge.map(|edge| (edge.target, parent)));
            }
        }
        parents.sort_unstable();
        Self { by_id, by_time, parents }
    }
}

fn usize_at(value: u64, offset: usize, what: &str) -> Result<usize, WireError> {
    usize::try_from(value).map_err(|_| WireError::damaged(offset, format!("{what} is {value}")))
}

/// The start of a region, from the header field at byte `field`: on a boundary, and not before
/// `earliest`, where the region before it ends.
pub(super) fn region_start(offset: u64, field: usize, earliest: usize) -> Result<usize, WireError> {
    let start = usize_at(offset, field, "the offset of a region")?;
    if start % ALIGNMENT != 0 || start < earliest {
        return Err(WireError::damaged(field, format!("a region cannot start at byte {start}")));
    }
    Ok(start)
}

fn decode_bloom(file: &[u8], start: usize, limit: usize) -> Result<(BloomShape, Table), WireError> {
    let head = Table::within(limit, start, BLOOM_HEAD_BYTES, 1, "the bloom filter")?;
    let shape = BloomShape {
        hashes_count: u32_at(file, start).unwrap_or(0),
        bits_count: u64_at(file, start + 4).unwrap_or(0),
    };
    if !(1..=HASHES_MAX).contains(&shape.hashes_count) || shape.bits_count < BITS_MIN {
        return Err(WireError::damaged(
            start,
            format!(
                "a bloom filter with {} hashes and {} bits",
                shape.hashes_count, shape.bits_count
            ),
        ));
    }
    let words = shape.words_bytes().unwrap_or(usize::MAX);
    Ok((shape, Table::within(limit, head.end(), words, 1, "the bits of the bloom filter")?))
}

/// `rows + 1` bounds, followed by the entries that they are for.
fn decode_lists(
    file: &[u8],
    start: usize,
    limit: usize,
    rows: usize,
    width: usize,
    what: &str,
) -> Result<(Table, Table), WireError> {
    let bounds = Table::within(limit, start, rows.saturating_add(1), 8, what)?;
    let count = bounds.check_bounds(file, what)?;
    let count = usize_at(count, bounds.offset_of(rows), what)?;
    Ok((bounds, Table::within(limit, bounds.end(), count, width, what)?))
}

/// The odd embeddings: which rows have one, and the values of all of them.
pub(super) fn decode_odd(
    file: &[u8],
    region: &Table,
    header: &Header,
) -> Result<(Table, Table), WireError> {
    let limit = region.end();
    let what = "the odd embeddings";
    let head = Table::within(limit, region.start, 1, 8, what)?;
    let count = usize_at(head.u64(file, 0).unwrap_or(0), region.start, what)?;
    let rows = Table::within(limit, head.end(), count, ODD_BYTES, what)?;
    let mut previous = None;
    let mut values = 0_usize;
    for index in 0..count {
        let odd = OddRow::decode(file, &rows, index);
        let next = odd.filter(|odd| {
            odd.row < header.node_count
                && Some(odd.row) > previous
                && odd.length != header.dim as usize
                && odd.first == values
        });
        let next = next.and_then(|odd| Some((odd.row, values.checked_add(odd.length)?)));
        let Some((row, end)) = next else {
            return Err(WireError::damaged(
                rows.offset_of(index),
                format!("odd embedding {index} is out of order"),
            ));
        };
        previous = Some(row);
        values = end;
    }
    Ok((rows, Table::within(limit, rows.end(), values, 4, what)?))
}

/// An entry of the table of odd embeddings.
#[derive(Clone, Copy)]
pub(super) struct OddRow {
    pub(super) row: u32,
    /// Number of values.
    pub(super) length: usize,
    /// The first of them.
    pub(super) first: usize,
}

impl OddRow {
    pub(super) fn decode(file: &[u8], table: &Table, index: usize) -> Option<Self> {
        let entry = table.entry(file, index)?;
        Some(Self {
            row: u32_at(entry, 0)?,
            length: u32::from_le_bytes(array_at(entry, 4)?) as usize,
            first: usize::try_from(u64_at(entry, 8)?).ok()?,
        })
    }
}

/// Checks that `index` names existing rows with strictly rising keys. As it has an entry for every
/// row, it then names each row once.
fn check_order<K: PartialOrd>(
    file: &[u8],
    index: &Table,
    what: &str,
    key_of: impl Fn(usize) -> Option<K>,
) -> Result<(), WireError> {
    let mut previous = None;
    for place in 0..index.count {
        let key = index.u32(file, place).and_then(|row| key_of(row as usize));
        if key.is_none() || key <= previous {
            return Err(WireError::damaged(
                index.offset_of(place),
                format!("entry {place} of {what} is out of order"),
            ));
        }
        previous = key;
    }
    Ok(())
}
