//! Decoding what was encoded gives every field of every row and every change, bit for bit.

mod common;

use std::{borrow::Cow, collections::BTreeSet};

use common::{Contents, contents, id, sample};
use proptest::prelude::*;
use tala_core::{Intent, RelationType, SegmentId, TimeRange};
use tala_wire::{SegmentReader, WireError};

/// Equality of every bit; `PartialEq` of floats knows neither NaN nor the sign of zero.
fn same(a: &Intent, b: &Intent) -> bool {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let rest = |intent: &Intent| Intent { embedding: vec![], confidence: 0.0, ..intent.clone() };
    rest(a) == rest(b)
        && a.confidence.to_bits() == b.confidence.to_bits()
        && bits(&a.embedding) == bits(&b.embedding)
}

fn check<B: AsRef<[u8]>>(contents: &Contents, reader: &SegmentReader<B>) {
    let header = reader.header();
    assert_eq!((header.segment_id, header.created_at_ns), (SegmentId(7), 1_234));
    assert_eq!((reader.dim(), reader.len() as usize), (contents.dim, contents.rows.len()));
    assert!(!reader.is_legacy());
    assert_eq!(reader.verify(), Ok(()));
    assert!(reader.changes().eq(contents.changes.iter().copied()));

    assert_eq!(reader.rows().len(), contents.rows.len());
    for (number, (row, (intent, seq))) in (0..).zip(reader.rows().zip(&contents.rows)) {
        let row = row.unwrap();
        assert_eq!(row.seq, *seq);
        assert_eq!(reader.embedding_len(number), Some(intent.embedding.len()));
        assert_eq!(reader.find(intent.id), Some(number));
        let stored = row.into_intent();
        assert!(same(&stored, intent), "{stored:?} is not {intent:?}");
    }
    for number in 0..=255 {
        let known = contents.rows.iter().any(|(intent, _)| intent.id == id(number));
        assert_eq!(reader.contains(id(number)), known);
    }
    let past = reader.len();
    assert_eq!(reader.id(past), None);
    assert_eq!(reader.parent_ids(past), None);
    assert_eq!(reader.outcome(past), None);
    assert_eq!(reader.raw_command(past), None);
    assert_eq!(reader.children(past).count(), 0);
    assert!(matches!(reader.row(past), Err(WireError::NoSuchRow { .. })));
    assert!(matches!(reader.embedding(u32::MAX), Err(WireError::NoSuchRow { .. })));

    let row_of = |id| contents.rows.iter().position(|(intent, _)| intent.id == id);
    let mut edges = BTreeSet::new();
    for (child, (intent, _)) in contents.rows.iter().enumerate() {
        for parent in intent.parent_ids.iter().filter_map(|id| row_of(*id)) {
            if parent != child {
                edges.insert((parent as u32, child as u32));
            }
        }
    }
    let mut stored = Vec::new();
    for parent in 0..reader.len() {
        for edge in reader.children(parent) {
            assert_eq!((edge.relation, edge.weight), (RelationType::Causal, 1.0));
            stored.push((parent, edge.target));
        }
    }
    assert_eq!(header.edge_count, stored.len() as u64);
    assert!(stored.into_iter().eq(edges));

    let rows = contents.rows.iter().map(|(_, seq)| *seq);
    let seqs = rows.chain(contents.changes.iter().map(|(seq, ..)| *seq)).filter(|seq| *seq != 0);
    let seqs: Vec<u64> = seqs.collect();
    let range = seqs.iter().min().copied().zip(seqs.iter().max().copied());
    assert_eq!(reader.seq_range(), range);
}

fn check_range<B: AsRef<[u8]>>(contents: &Contents, reader: &SegmentReader<B>, range: TimeRange) {
    let mut expected: Vec<(u64, u32)> = (0..)
        .zip(&contents.rows)
        .map(|(row, (intent, _))| (intent.timestamp, row))
        .filter(|(timestamp, _)| (range.start..range.end).contains(timestamp))
        .collect();
    expected.sort_unstable();
    assert!(reader.range(range).eq(expected.into_iter().map(|(_, row)| row)), "{range:?}");
}

proptest! {
    #[test]
    fn from_aligned_and_from_unaligned_bytes(contents in contents(), shift in 0..5_usize) {
        let bytes = contents.encode();
        check(&contents, &SegmentReader::open(&bytes).unwrap());
        let shifted = [&[0; 5][..shift], &bytes].concat();
        check(&contents, &SegmentReader::open(&shifted[shift..]).unwrap());
    }

    #[test]
    fn any_span_of_time(contents in contents(), near in 0..6_u64, far in 0..6_u64, any in any::<u64>()) {
        let bytes = contents.encode();
        let reader = SegmentReader::open(&bytes).unwrap();
        for (start, end) in [(near, far), (near, any), (any, near), (0, u64::MAX), (any, any)] {
            check_range(&contents, &reader, TimeRange { start, end });
        }
    }
}

#[test]
fn a_segment_of_changes_only() {
    let contents = sample(8, 0);
    let bytes = contents.encode();
    let reader = SegmentReader::open(bytes).unwrap();
    assert!(reader.is_empty());
    check(&contents, &reader);
    assert_eq!(reader.seq_range(), Some((8, 9)));
}

#[test]
fn a_segment_of_nothing() {
    let contents = Contents { dim: 1, rows: vec![], changes: vec![] };
    let reader = SegmentReader::open(contents.encode()).unwrap();
    check(&contents, &reader);
    assert_eq!(reader.seq_range(), None);
}

#[test]
fn many_threads_read_one_segment() {
    // Three blocks of embeddings, which the threads check at the same time.
    let contents = sample(1_000, 48);
    let reader = SegmentReader::open(contents.encode()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| check(&contents, &reader));
        }
    });
}

#[test]
fn the_largest_dimension() {
    let contents = sample(tala_wire::DIM_MAX, 3);
    check(&contents, &SegmentReader::open(contents.encode()).unwrap());
}

#[test]
fn aligned_embeddings_are_not_copied() {
    let bytes = sample(16, 3).encode();
    // Of four neighbouring places in one buffer, one is aligned for `f32`.
    let mut buffer = vec![0; bytes.len() + 3];
    let mut borrowed = 0;
    for shift in 0..4 {
        let place = &mut buffer[shift..shift + bytes.len()];
        place.copy_from_slice(&bytes);
        let reader = SegmentReader::open(place).unwrap();
        borrowed += usize::from(matches!(reader.embedding(0).unwrap(), Cow::Borrowed(_)));
    }
    assert_eq!(borrowed, 1);
}
