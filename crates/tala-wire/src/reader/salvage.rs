//! What is left of a damaged segment: every row of which the bytes match their checksums.
//!
//! [`SegmentReader`](super::SegmentReader) takes a segment whole or not at all. This reader needs
//! an intact header only. The header says where the regions are; the checksums of the blocks say
//! which bytes may be believed, whether or not the rest of the footer is intact; and a field is
//! given out only where every byte that leads to it lies in blocks that match.

use std::ops::Range;

use tala_core::{Intent, IntentId, Outcome, Status};

use super::{
    decode_change,
    parts::{Fixed, OddRow, decode_odd, region_start},
};
use crate::{
    directory::{CHANGE_BYTES, Directory, Kind, OUTCOME_BYTES},
    error::WireError,
    footer::{BLOCK_BYTES, block_crc, footer_of},
    header::Header,
    row::Change,
    table::Table,
};

/// A segment of which some bytes are damaged or missing.
///
/// A legacy segment has no checksums: of one, what bytes are there are taken as they are.
#[derive(Debug)]
pub struct Salvage<B> {
    bytes: B,
    header: Header,
    intact: Intact,
    fixed: Fixed,
    rest: Left,
}

/// What is known of one row.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct SalvagedRow {
    /// Its number in the segment, from 0.
    pub row: u32,
    /// Its id, where that is intact.
    pub id: Option<IntentId>,
    /// Its sequence number, where that is intact; 0 where it has none.
    pub seq: Option<u64>,
    /// The intent, where its id and timestamp are intact and its embedding or its command is.
    pub intent: Option<Intent>,
    /// The fields of `intent` that are damaged. They are empty there: no embedding, no command, no
    /// parents, no outcome, 0.
    pub missing: Vec<&'static str>,
}

/// Which bytes may be believed.
#[derive(Debug)]
struct Intact {
    /// One for each block; `None` in a legacy segment, which has no checksums.
    blocks: Option<Vec<bool>>,
    /// Nothing at or after this byte is covered.
    covered: usize,
}

impl Intact {
    fn holds(&self, bytes: Range<usize>) -> bool {
        if bytes.start > bytes.end || bytes.end > self.covered {
            return false;
        }
        let Some(blocks) = &self.blocks else { return true };
        let mut touched = bytes.start / BLOCK_BYTES..bytes.end.div_ceil(BLOCK_BYTES);
        bytes.is_empty() || touched.all(|block| blocks.get(block) == Some(&true))
    }
}

/// The tables beyond the fixed part that can be found.
#[derive(Debug, Default)]
struct Left {
    command_bounds: Option<Table>,
    seqs: Option<Table>,
    outcomes: Option<Table>,
    parents: Option<(Table, Table)>,
    changes: Option<Table>,
    odd: Option<(Table, Table)>,
}

impl<B: AsRef<[u8]>> Salvage<B> {
    /// Looks for what is left. `known` is the length and the CRC-32C that the whole segment had, from
    /// wherever it was written down: if only the footer is damaged, it proves the rest.
    ///
    /// # Errors
    /// [`WireError`]: the header is damaged, or of a newer version, so nothing else can be found.
    pub fn of(bytes: B, known: Option<(u64, u32)>) -> Result<Self, WireError> {
        let file = bytes.as_ref();
        let header = Header::decode(file)?;
        let (intact, limit) = if header.is_legacy() {
            // The regions may lie past the end of a file that was cut.
            (Intact { blocks: None, covered: file.len() }, usize::MAX / 2)
        } else {
            let limit = usize::try_from(header.footer_offset).unwrap_or(usize::MAX / 2);
            (Intact { blocks: Some(judge(file, limit, known)), covered: limit }, limit)
        };
        let fixed = Fixed::locate(&header, limit)?;
        let mut salvage = Self { bytes, header, intact, fixed, rest: Left::default() };
        if !salvage.is_legacy() {
            salvage.rest = salvage.locate_rest(limit);
        }
        Ok(salvage)
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the segment holds the fixed part of the format only.
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        self.header.is_legacy()
    }

    /// The byte ranges that do not match their checksums or are missing, in order. Empty where only
    /// the footer is damaged, and of a legacy segment.
    #[must_use]
    pub fn damaged(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let blocks = self.intact.blocks.iter().flatten().zip(0_u64..);
        for (_, block) in blocks.filter(|(is_intact, _)| !**is_intact) {
            let start = block * BLOCK_BYTES as u64;
            let end = (start + BLOCK_BYTES as u64).min(self.intact.covered as u64);
            match ranges.last_mut().filter(|last| last.end == start) {
                Some(last) => last.end = end,
                None => ranges.push(start..end),
            }
        }
        ranges
    }

    /// Every row, in order, with what is left of it. Rows that would lie past the end of the file are
    /// left out.
    pub fn rows(&self) -> impl Iterator<Item = SalvagedRow> {
        let there = self.file().len().saturating_sub(self.fixed.ids.start) / 16;
        // There are at most `u32::MAX` rows.
        (0..self.fixed.ids.count.min(there)).map(|row| self.row(row as u32))
    }

    /// What is left of one row.
    #[must_use]
    pub fn row(&self, row: u32) -> SalvagedRow {
        let mut missing = Vec::new();
        let index = row as usize;
        let id = self.array(&self.fixed.ids, index).map(IntentId::from_bytes);
        let seq = match &self.rest.seqs {
            Some(seqs) => self.array(seqs, index).map(u64::from_le_bytes),
            None => self.is_legacy().then_some(0),
        };
        let timestamp = self.array(&self.fixed.timestamps, index).map(u64::from_le_bytes);
        let embedding = self.embedding(row);
        let command = if self.is_legacy() { Some("") } else { self.command(index) };
        let mut or_missing = |name, is_there: bool| {
            if !is_there {
                missing.push(name);
            }
        };
        let context_hash = self.array(&self.fixed.context_hashes, index).map(u64::from_le_bytes);
        or_missing("context_hash", context_hash.is_some());
        let confidence = self.array(&self.fixed.confidences, index).map(f32::from_le_bytes);
        or_missing("confidence", confidence.is_some());
        or_missing("embedding", embedding.is_some());
        or_missing("raw_command", command.is_some());
        let parent_ids = self.parent_ids(index);
        or_missing("parent_ids", parent_ids.is_some());
        let outcome = self.outcome(index);
        or_missing("outcome", outcome.is_some());
        let is_worth_it = embedding.is_some() || command.is_some_and(|command| !command.is_empty());
        let intent = match (id, timestamp) {
            (Some(id), Some(timestamp)) if is_worth_it => Some(Intent {
                id,
                timestamp,
                raw_command: command.unwrap_or_default().to_owned(),
                embedding: embedding.unwrap_or_default(),
                context_hash: context_hash.unwrap_or_default(),
                parent_ids: parent_ids.unwrap_or_default(),
                outcome: outcome.flatten(),
                confidence: confidence.unwrap_or_default(),
            }),
            _ => None,
        };
        SalvagedRow { row, id, seq, intent, missing }
    }

    /// The intact changes, in order: sequence number, intent, change.
    pub fn changes(&self) -> impl Iterator<Item = (u64, IntentId, Change)> {
        let table = self.rest.changes;
        table.into_iter().flat_map(move |table| {
            let there = self.file().len().saturating_sub(table.start) / CHANGE_BYTES;
            (0..table.count.min(there))
                .filter_map(move |index| decode_change(self.array(&table, index)?))
        })
    }

    /// How many changes there were, where the place that says so is intact.
    #[must_use]
    pub fn changes_count(&self) -> Option<u64> {
        self.rest.changes.map(|table| table.count as u64)
    }

    fn file(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    fn locate_rest(&self, limit: usize) -> Left {
        let rows = self.fixed.ids.count;
        let bounds_at = |start| Table::within(limit, start, rows.saturating_add(1), 8, "").ok();
        let after = self.fixed.edges.end();
        let command_bounds = region_start(self.header.string_table_offset, 72, after).ok();
        let command_bounds = command_bounds.and_then(bounds_at);
        let mut left = Left { command_bounds, ..Left::default() };
        let start = region_start(self.header.index_offset, 88, after).ok();
        let directory = start.and_then(|start| Directory::decode(self.file(), start, limit).ok());
        let Some(directory) = directory.filter(|it| self.intact.holds(it.range())) else {
            return left;
        };
        left.seqs = directory.column(Kind::SequenceNumbers, rows, 8).ok();
        left.outcomes = directory.column(Kind::Outcomes, rows, OUTCOME_BYTES).ok();
        left.changes = directory.list(Kind::Changes, CHANGE_BYTES).ok();
        left.parents = directory.find(Kind::Parents).ok().and_then(|region| {
            let bounds = bounds_at(region.start)?;
            let bytes = region.end().checked_sub(bounds.end())?;
            let ids = Table::within(limit, bounds.end(), bytes / 16, 16, "").ok()?;
            Some((bounds, ids))
        });
        left.odd = directory.find(Kind::OddEmbeddings).ok().and_then(|region| {
            let tables = decode_odd(self.file(), &region, &self.header).ok()?;
            self.intact.holds(region.start..tables.0.end()).then_some(tables)
        });
        left
    }

    /// The bytes of entries `first..end`, where they are intact.
    fn entries(&self, table: &Table, first: usize, end: usize) -> Option<&[u8]> {
        let bytes = table.entries(self.file(), first, end)?;
        let start = table.offset_of(first);
        self.intact.holds(start..start + bytes.len()).then_some(bytes)
    }

    fn array<const N: usize>(&self, table: &Table, index: usize) -> Option<[u8; N]> {
        self.entries(table, index, index.checked_add(1)?)?.first_chunk().copied()
    }

    fn span(&self, bounds: &Table, index: usize) -> Option<(usize, usize)> {
        let bound = |index| {
            let bound = u64::from_le_bytes(self.array(bounds, index)?);
            usize::try_from(bound).ok()
        };
        Some((bound(index)?, bound(index.checked_add(1)?)?))
    }

    fn command(&self, row: usize) -> Option<&str> {
        let bounds = self.rest.command_bounds.as_ref()?;
        let (first, end) = self.span(bounds, row)?;
        let start = bounds.end();
        let range = start.checked_add(first)?..start.checked_add(end)?;
        let bytes = self.intact.holds(range.clone()).then(|| self.file().get(range))??;
        std::str::from_utf8(bytes).ok()
    }

    fn parent_ids(&self, row: usize) -> Option<Vec<IntentId>> {
        let (bounds, ids) = self.rest.parents.as_ref()?;
        let (first, end) = self.span(bounds, row)?;
        let (ids, _) = self.entries(ids, first, end)?.as_chunks::<16>();
        Some(ids.iter().copied().map(IntentId::from_bytes).collect())
    }

    fn outcome(&self, row: usize) -> Option<Option<Outcome>> {
        let [byte] = self.array(&self.fixed.statuses, row)?;
        let status = Status::from_u8(byte)?;
        if self.is_legacy() {
            let known = status != Status::Pending;
            return Some(known.then_some(Outcome { status, latency_ns: 0, exit_code: 0 }));
        }
        let bytes: [u8; OUTCOME_BYTES] = self.array(self.rest.outcomes.as_ref()?, row)?;
        let (latency, rest) = bytes.split_first_chunk::<8>()?;
        let (exit, rest) = rest.split_first_chunk::<4>()?;
        let outcome = Outcome {
            status,
            latency_ns: u64::from_le_bytes(*latency),
            exit_code: i32::from_le_bytes(*exit),
        };
        Some((rest.first() == Some(&1)).then_some(outcome))
    }

    fn embedding(&self, row: u32) -> Option<Vec<f32>> {
        let region = self.entries(&self.fixed.embeddings, row as usize, row as usize + 1);
        match &self.rest.odd {
            Some((rows, values)) => {
                let mut odd =
                    (0..rows.count).filter_map(|index| OddRow::decode(self.file(), rows, index));
                if let Some(odd) = odd.find(|odd| odd.row == row) {
                    let end = odd.first.checked_add(odd.length)?;
                    return self.entries(values, odd.first, end).map(floats);
                }
            }
            // A row that is zero may be one whose embedding is elsewhere, where nobody can say.
            None if !self.is_legacy() && region?.iter().all(|byte| *byte == 0) => return None,
            None => {}
        }
        region?.get(..self.header.dim as usize * 4).map(floats)
    }
}

/// Which blocks of the first `covered` bytes match their checksums.
fn judge(file: &[u8], covered: usize, known: Option<(u64, u32)>) -> Vec<bool> {
    let body = file.get(..covered);
    let is_proven = known.zip(body).is_some_and(|((len, crc), body)| {
        let footer = footer_of(body);
        let whole = crc32c::crc32c_append(crc32c::crc32c(body), &footer);
        len == (body.len() + footer.len()) as u64 && crc == whole
    });
    // As many blocks as there are bytes for, whatever the header says.
    (0..covered.min(file.len()).div_ceil(BLOCK_BYTES))
        .map(|block| {
            let start = block * BLOCK_BYTES;
            let bytes = file.get(start..covered.min(start.saturating_add(BLOCK_BYTES)));
            let crc = bytes.map(crc32c::crc32c);
            is_proven || (crc.is_some() && crc == block_crc(file, covered, block))
        })
        .collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<4>();
    values.iter().copied().map(f32::from_le_bytes).collect()
}
