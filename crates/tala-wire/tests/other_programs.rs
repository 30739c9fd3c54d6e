//! Programs that know the fixed part only read our segments, and we read theirs.

mod common;

use common::fixed_part::{self, FixedEdge, FixedRow, bloom_shape, legacy_segment};
use common::{contents, id, sample};
use proptest::prelude::*;
use tala_core::{Outcome, RelationType, Status, TimeRange};
use tala_wire::{SegmentReader, WireError};

proptest! {
    #[test]
    fn a_reader_of_the_fixed_part_reads_our_segments(contents in contents()) {
        let fixed = fixed_part::read(&contents.encode());
        prop_assert_eq!(fixed.dim, contents.dim);
        prop_assert_eq!(fixed.rows.len(), contents.rows.len());
        prop_assert_eq!((fixed.hashes_count, fixed.bits_count), bloom_shape(contents.rows.len()));
        for (row, (intent, _)) in fixed.rows.iter().zip(&contents.rows) {
            prop_assert_eq!(&row.id, intent.id.as_bytes());
            prop_assert_eq!(row.timestamp, intent.timestamp);
            prop_assert_eq!(row.context_hash, intent.context_hash);
            prop_assert_eq!(row.confidence.to_bits(), intent.confidence.to_bits());
            prop_assert_eq!(row.status, intent.outcome.map_or(0, |outcome| outcome.status as u8));
            let odd = intent.embedding.len() != contents.dim;
            let expected = if odd { vec![0.0; contents.dim] } else { intent.embedding.clone() };
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&row.embedding), bits(&expected));
            prop_assert!(fixed.may_contain(&row.id));
        }
        for edge in &fixed.edges {
            prop_assert_eq!((edge.relation, edge.weight), (0, 1.0));
            let parent = contents.rows[edge.parent as usize].0.id;
            prop_assert!(contents.rows[edge.child as usize].0.parent_ids.contains(&parent));
        }
    }
}

fn rows() -> Vec<FixedRow> {
    (0..4)
        .map(|number: u8| FixedRow {
            id: *id(number).as_bytes(),
            timestamp: [30, 10, 30, 20][usize::from(number)],
            context_hash: 77 + u64::from(number),
            confidence: 0.5,
            status: number,
            embedding: vec![f32::from(number) - 1.5; 20],
        })
        .collect()
}

fn edge(parent: u32, child: u32, relation: u8) -> FixedEdge {
    FixedEdge { parent, child, relation, weight: 0.25 }
}

#[test]
fn a_legacy_segment_gives_what_it_has() {
    let rows = rows();
    let bytes = legacy_segment(20, &rows, &[edge(0, 3, 3), edge(0, 1, 0), edge(2, 1, 4)]);
    let reader = SegmentReader::open(bytes).unwrap();
    assert!(reader.is_legacy());
    assert_eq!(reader.verify(), Ok(()));
    assert_eq!((reader.dim(), reader.len(), reader.header().edge_count), (20, 4, 3));
    assert_eq!(reader.changes().count(), 0);
    assert_eq!(reader.seq_range(), None);
    for (row, expected) in reader.rows().zip(&rows) {
        let row = row.unwrap();
        assert_eq!(row.id.as_bytes(), &expected.id);
        assert_eq!((row.timestamp, row.context_hash), (expected.timestamp, expected.context_hash));
        assert_eq!(row.confidence, expected.confidence);
        assert_eq!(*row.embedding, expected.embedding);
        assert_eq!((row.raw_command, row.seq), ("", 0));
        let status = Status::from_u8(expected.status).unwrap();
        let outcome = Outcome { status, latency_ns: 0, exit_code: 0 };
        assert_eq!(row.outcome, (expected.status != 0).then_some(outcome));
    }
    let parents: Vec<_> = (0..4).map(|row| reader.parent_ids(row).unwrap()).collect();
    assert_eq!(parents, [vec![], vec![id(0), id(2)], vec![], vec![id(0)]]);
    let edges: Vec<_> = reader.children(0).map(|e| (e.target, e.relation, e.weight)).collect();
    assert_eq!(edges, [(3, RelationType::Retry, 0.25), (1, RelationType::Causal, 0.25)]);
    assert_eq!(reader.find(id(2)), Some(2));
    assert_eq!(reader.find(id(9)), None);
    let range = |start, end| reader.range(TimeRange { start, end }).collect::<Vec<_>>();
    assert_eq!(range(0, 31), [1, 3, 0, 2]);
    assert_eq!(range(10, 30), [1, 3]);
    assert_eq!(range(30, 10), []);
}

#[test]
fn the_last_row_with_an_id_counts_in_a_legacy_segment() {
    let mut rows = rows();
    rows[1].id = rows[3].id;
    let reader = SegmentReader::open(legacy_segment(20, &rows, &[])).unwrap();
    assert_eq!(reader.find(id(3)), Some(3));
    assert_eq!(reader.find(id(1)), None);
}

#[test]
fn a_legacy_segment_without_rows_is_empty() {
    let reader = SegmentReader::open(legacy_segment(20, &[], &[])).unwrap();
    assert!(reader.is_empty() && reader.is_legacy());
}

#[test]
fn a_legacy_segment_that_names_what_is_not_there_is_refused() {
    let refused =
        |bytes: &[u8]| matches!(SegmentReader::open(bytes), Err(WireError::Damaged { .. }));
    assert!(refused(&legacy_segment(20, &rows(), &[edge(0, 4, 0)])));
    assert!(refused(&legacy_segment(20, &rows(), &[edge(0, 1, 5)])));
    let mut unknown_status = rows();
    unknown_status[2].status = 4;
    assert!(refused(&legacy_segment(20, &unknown_status, &[])));
    let bytes = legacy_segment(20, &rows(), &[edge(0, 1, 0)]);
    let edges_end = u64::from_le_bytes(bytes[64..72].try_into().unwrap()) as usize + 40 + 12;
    for length in 0..edges_end {
        assert!(refused(&bytes[..length]), "{length}");
    }
}

#[test]
fn one_of_our_segments_does_not_pass_for_a_legacy_one() {
    let intact = sample(3, 4).encode();
    for at in [72, 88, 96] {
        let mut bytes = intact.clone();
        bytes[at..at + 8].fill(0);
        common::reseal(&mut bytes);
        assert!(SegmentReader::open(&bytes).is_err(), "{at}");
    }
}
