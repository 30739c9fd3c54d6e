//! The edge region: which rows follow from which, as compressed sparse rows (CSR).
//!
//! | offset in the region | bytes | type | meaning |
//! |---|---|---|---|
//! | 0 | 8 x (N + 1) | u64 each | bounds: the edges of row `i` are `bounds[i]..bounds[i + 1]` |
//! | e = 8 (N + 1) + 12 j | 4 | u32 | row where edge `j` ends |
//! | e + 4 | 1 | u8 | relation: 0 causal, 1 temporal, 2 dependency, 3 retry, 4 branch |
//! | e + 5 | 4 | f32 | weight |
//! | e + 9 | 3 | | zero |
//!
//! An edge runs from parent to child. Our edges are made from `parent_ids`: relation 0, weight
//! 1.0, one for each pair of different rows of the segment of which one names the other as a
//! parent. A parent that a row names twice has one edge to it; a row that names itself has none.

use std::collections::HashMap;

use tala_core::{IntentId, RelationType};

use crate::row::{Edge, Row};

/// Bytes of an edge.
pub(crate) const EDGE_BYTES: usize = 12;

/// The edges between the rows of a segment that is being written, sorted by (parent, child).
pub(crate) struct Edges {
    pairs: Vec<(u32, u32)>,
}

impl Edges {
    /// The edges of `rows`, where `row_of` says which row has an id.
    pub(crate) fn between(rows: &[Row<'_>], row_of: &HashMap<IntentId, u32>) -> Self {
        let mut pairs = Vec::new();
        // For each row, the last child that got an edge from it: finds repeated parents in one step,
        // however long the list. No row has the number `u32::MAX`.
        let mut last_child = vec![u32::MAX; rows.len()];
        for (row, child) in rows.iter().zip(0_u32..) {
            for parent in row.parent_ids.iter().filter_map(|id| row_of.get(id)) {
                let last = last_child.get_mut(*parent as usize);
                if let Some(last) = last.filter(|last| *parent != child && **last != child) {
                    *last = child;
                    pairs.push((*parent, child));
                }
            }
        }
        pairs.sort_unstable();
        Self { pairs }
    }

    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// The `rows_count + 1` bounds.
    pub(crate) fn bounds(&self, rows_count: u32) -> impl Iterator<Item = u64> + '_ {
        let mut end = 0;
        (0..=rows_count).map(move |row| {
            while self.pairs.get(end).is_some_and(|(parent, _)| *parent < row) {
                end += 1;
            }
            end as u64
        })
    }

    /// The bytes of each edge.
    pub(crate) fn entries(&self) -> impl Iterator<Item = [u8; EDGE_BYTES]> + '_ {
        self.pairs.iter().map(|(_, child)| {
            encode(&Edge { target: *child, relation: RelationType::Causal, weight: 1.0 })
        })
    }
}

fn encode(edge: &Edge) -> [u8; EDGE_BYTES] {
    let mut bytes = [0; EDGE_BYTES];
    bytes[..4].copy_from_slice(&edge.target.to_le_bytes());
    bytes[4] = edge.relation as u8;
    bytes[5..9].copy_from_slice(&edge.weight.to_le_bytes());
    bytes
}

/// The edge in these bytes, or `None` where its relation is none.
pub(crate) fn decode(bytes: [u8; EDGE_BYTES]) -> Option<Edge> {
    let [t0, t1, t2, t3, relation, w0, w1, w2, w3, ..] = bytes;
    Some(Edge {
        target: u32::from_le_bytes([t0, t1, t2, t3]),
        relation: RelationType::from_u8(relation)?,
        weight: f32::from_le_bytes([w0, w1, w2, w3]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> IntentId {
        IntentId::from_bytes([number; 16])
    }

    fn edges(parents: &[&[IntentId]]) -> Edges {
        let rows: Vec<Row<'_>> = parents
            .iter()
            .zip(0..)
            .map(|(parent_ids, number)| Row {
                id: id(number),
                timestamp: 0,
                context_hash: 0,
                confidence: 0.0,
                embedding: &[],
                raw_command: "",
                parent_ids,
                outcome: None,
                seq: 0,
            })
            .collect();
        let row_of = rows.iter().zip(0..).map(|(row, number)| (row.id, number)).collect();
        Edges::between(&rows, &row_of)
    }

    #[test]
    fn unknown_repeated_and_self_parents_make_no_edge_of_their_own() {
        let found = edges(&[&[id(2), id(9)], &[id(0), id(2), id(0), id(1), id(2)], &[id(0)]]);
        assert_eq!(found.pairs, [(0, 1), (0, 2), (2, 0), (2, 1)]);
        assert_eq!(found.bounds(3).collect::<Vec<_>>(), [0, 2, 2, 4]);
    }

    #[test]
    fn no_rows_have_one_bound() {
        assert_eq!(edges(&[]).bounds(0).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn an_edge_has_the_bytes_of_the_format() {
        let edge = Edge { target: 0x0403_0201, relation: RelationType::Retry, weight: 1.0 };
        let bytes = [1, 2, 3, 4, 3, 0, 0, 0x80, 0x3f, 0, 0, 0];
        assert_eq!(encode(&edge), bytes);
        assert_eq!(decode(bytes), Some(edge));
        assert_eq!(decode([9; 12]), None);
    }
}
