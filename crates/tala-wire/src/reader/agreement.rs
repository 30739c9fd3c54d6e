//! Whether the parts of a segment agree: what a reader derives its answers from, against what it
//! was derived from. Right checksums say that the bytes are those that were written; this says that
//! what was written makes sense.

use std::collections::HashMap;

use tala_core::{IntentId, RelationType};

use super::{Rest, SegmentReader};
use crate::{
    bloom::{Bloom, BloomShape},
    edges::EDGE_BYTES,
    error::WireError,
    header::FLAG_OUTCOMES,
};

/// What [`SegmentReader::check_agreement`] has compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Agreement {
    /// Blocks under a checksum of their own.
    pub blocks: u64,
    /// Rows: in the bloom filter, found by id, found by time, numbered in order.
    pub rows: u64,
    /// Edges, each with the parent that it stands for.
    pub edges: u64,
    /// Changes, numbered in order.
    pub changes: u64,
}

impl<B: AsRef<[u8]>> SegmentReader<B> {
    /// Compares what is derived with what it is derived from: the edges with the parents, the bloom
    /// filter and the indexes with the rows, the sequence numbers with the order of rows and of
    /// changes, the flags with the outcomes. Of a legacy segment, whose edges are all that is known
    /// of parents, there is nothing to compare.
    ///
    /// # Errors
    /// [`WireError::Damaged`] with the first place that contradicts another.
    pub fn check_agreement(&self) -> Result<Agreement, WireError> {
        let Rest::Ours(ours) = &self.rest else { return Ok(Agreement::default()) };
        self.check_edges()?;
        let flagged = self.header.flags & FLAG_OUTCOMES != 0;
        let mut has_outcome = false;
        let words = ours.bloom_words.entries(self.file(), 0, ours.bloom_words.count);
        let bloom = Bloom::new(ours.bloom_shape, words.unwrap_or_default());
        let bloom_at = ours.bloom_words.start;
        if ours.bloom_shape != BloomShape::for_items(self.len()) {
            let what = "the bloom filter has another shape than its rows ask for";
            return Err(WireError::damaged(bloom_at, what));
        }
        let mut previous = 0;
        for row in 0..self.len() {
            let id = self.id(row).unwrap_or(IntentId::from_bytes([0; 16]));
            if !bloom.may_contain(id.as_bytes()) {
                let what = format!("the bloom filter denies the id of row {row}");
                return Err(WireError::damaged(bloom_at, what));
            }
            if self.find(id) != Some(row) {
                let what = format!("row {row} is not found by its id");
                return Err(WireError::damaged(ours.by_id.start, what));
            }
            let seq = self.seq(row).unwrap_or_default();
            // A segment made outside of a store may have no numbers at all.
            if seq != 0 && seq <= previous {
                let what =
                    format!("the sequence number of row {row} does not follow the one before");
                return Err(WireError::damaged(ours.seqs.offset_of(row as usize), what));
            }
            previous = previous.max(seq);
            has_outcome |= self.outcome(row).flatten().is_some();
        }
        if has_outcome != flagged {
            return Err(WireError::damaged(46, "the flag of outcomes contradicts the rows"));
        }
        let mut previous = 0;
        let mut changes = 0;
        for (seq, ..) in self.changes() {
            if seq < previous {
                let at = ours.changes.offset_of(changes);
                let what = format!("change {changes} does not follow the one before");
                return Err(WireError::damaged(at, what));
            }
            previous = seq;
            changes += 1;
        }
        Ok(Agreement {
            blocks: ours.checksums.blocks_count() as u64,
            rows: u64::from(self.len()),
            edges: self.fixed.edges.count as u64,
            changes: changes as u64,
        })
    }

    /// The edges are those that the lists of parents make, in order.
    fn check_edges(&self) -> Result<(), WireError> {
        let mut row_of = HashMap::new();
        for row in 0..self.len() {
            row_of.extend(self.id(row).map(|id| (id, row)));
        }
        let mut expected = Vec::new();
        for child in 0..self.len() {
            let parents = self.parent_ids(child).unwrap_or_default();
            let mut rows: Vec<u32> =
                parents.iter().filter_map(|id| row_of.get(id).copied()).collect();
            rows.sort_unstable();
            rows.dedup();
            rows.retain(|parent| *parent != child);
            expected.extend(rows.into_iter().map(|parent| (parent, child)));
        }
        expected.sort_unstable();
        let mut expected = expected.into_iter();
        for parent in 0..self.len() {
            for (edge, place) in self.children(parent).zip(0..) {
                let is_ours = edge.relation == RelationType::Causal && edge.weight == 1.0;
                if !is_ours || expected.next() != Some((parent, edge.target)) {
                    let (first, _) =
                        self.fixed.edge_bounds.span(self.file(), parent as usize).unwrap_or((0, 0));
                    let at = self.fixed.edges.start + EDGE_BYTES * (first + place);
                    let what = format!("an edge from row {parent} stands for no parent");
                    return Err(WireError::damaged(at, what));
                }
            }
        }
        match expected.next() {
            None => Ok(()),
            Some((parent, child)) => Err(WireError::damaged(
                self.fixed.edge_bounds.offset_of(parent as usize),
                format!("the edge from row {parent} to row {child} is missing"),
            )),
        }
    }
}
