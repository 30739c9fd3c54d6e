//! No flipped bit, missing tail or added byte goes unnoticed, and no bytes make the reader panic.

mod common;

use common::{contents, fixed_part, id, reseal, sample};
use proptest::prelude::*;
use tala_core::TimeRange;
use tala_wire::{SegmentReader, WireError};

/// Asks a reader everything there is to ask.
fn exercise(reader: &SegmentReader<&[u8]>) {
    let _ = reader.verify();
    reader.rows().for_each(|row| drop(row.map(|row| row.into_intent())));
    for row in (0..reader.len()).chain([reader.len(), u32::MAX]) {
        let _ = (reader.embedding_len(row), reader.seq(row), reader.children(row).count());
    }
    let _ = (reader.seq_range(), reader.changes().count());
    let _ = (0..=255).filter(|number| reader.contains(id(*number))).count();
    let _ = reader.range(TimeRange { start: 0, end: u64::MAX }).rev().count();
}

fn open_and_verify(bytes: &[u8]) -> Result<(), WireError> {
    SegmentReader::open(bytes)?.verify()
}

#[test]
fn every_flipped_bit_of_a_small_segment() {
    let mut bytes = sample(3, 4).encode();
    assert_eq!(open_and_verify(&bytes), Ok(()));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            // A small segment is one block, which opening checks as a whole.
            assert!(SegmentReader::open(&bytes).is_err(), "bit {bit} of byte {at}");
            bytes[at] ^= 1 << bit;
        }
    }
}

#[test]
fn every_truncation_and_every_addition() {
    let bytes = sample(3, 4).encode();
    for length in 0..bytes.len() {
        let error = SegmentReader::open(&bytes[..length]).err();
        let Some(WireError::Damaged { offset, .. }) = error else { panic!("{length}: {error:?}") };
        assert_eq!(offset, length as u64);
    }
    for added in [1, 4, 64, 70_000] {
        let longer = [&bytes[..], &vec![0; added]].concat();
        let error = SegmentReader::open(&longer).err();
        let Some(WireError::Damaged { offset, .. }) = error else { panic!("{added}: {error:?}") };
        assert_eq!(offset, bytes.len() as u64);
    }
}

#[test]
fn a_flipped_bit_among_embeddings_is_found_when_its_block_is_touched() {
    // A row is 80,000 bytes, so that rows and blocks of 65,536 do not line up.
    let dim = 20_000;
    let mut bytes = sample(dim, 6).encode();
    let intact = SegmentReader::open(&bytes[..]).unwrap();
    let header = *intact.header();
    let first = header.embed_region_offset as usize;
    let end = header.edge_region_offset as usize;
    let mut found_late = 0;
    for at in (0..bytes.len()).step_by(9_973) {
        bytes[at] ^= 0x10;
        assert!(open_and_verify(&bytes).is_err(), "byte {at}");
        if let Ok(reader) = SegmentReader::open(&bytes[..]) {
            found_late += 1;
            assert!((first..end).contains(&at));
            let block = at / 65_536 * 65_536;
            for row in 0..reader.len() {
                let start = first + 80_000 * row as usize;
                let touched = start < block + 65_536 && block < start + 80_000;
                // Row 1 of the sample is kept elsewhere, as it has another length.
                let fails = touched && row != 1;
                for _ in 0..2 {
                    match reader.embedding(row) {
                        Ok(_) => assert!(!fails, "row {row}, byte {at}"),
                        Err(WireError::Damaged { offset, .. }) => {
                            assert!(fails, "row {row}, byte {at}");
                            assert_eq!(offset, block as u64);
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        }
        bytes[at] ^= 0x10;
    }
    assert!(found_late > 20, "{found_late}");
}

#[test]
fn hostile_counts_under_right_checksums_are_refused() {
    let bytes = sample(3, 4).encode();
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let directory = u64_at(88);
    let table = |kind: usize| u64_at(directory + 8 + 24 * (kind - 1) + 8);
    let places = [
        ("rows", 24),
        ("edges", 32),
        ("node region", 48),
        ("embedding region", 56),
        ("edge region", 64),
        ("string table", 72),
        ("bloom", 80),
        ("directory", 88),
        ("footer", 96),
        ("last bound of edges", u64_at(64) + 32),
        ("bits of the bloom filter", u64_at(80) + 4),
        ("last bound of commands", u64_at(72) + 32),
        ("number of tables", directory),
        ("length of the changes", directory + 8 + 24 * 3 + 16),
        ("last bound of parents", table(3) + 32),
        ("rows by id", table(5)),
        ("rows by time", table(6)),
        ("number of odd embeddings", table(7)),
        ("odd row and length", table(7) + 8),
        ("first odd value", table(7) + 16),
    ];
    for (name, at) in places {
        for value in
            [5, 1 << 20, u64::from(u32::MAX), 1 << 40, u64::MAX / 16, u64::MAX - 63, u64::MAX]
        {
            let mut hostile = bytes.clone();
            hostile[at..at + 8].copy_from_slice(&value.to_le_bytes());
            reseal(&mut hostile);
            assert!(SegmentReader::open(&hostile).is_err(), "{name} = {value}");
        }
    }
}

#[test]
fn regions_that_overlap_are_refused_at_their_field() {
    let bytes = sample(3, 4).encode();
    let directory = u64::from_le_bytes(bytes[88..96].try_into().unwrap()) as usize;
    let changes = directory + 8 + 24 * 3 + 8;
    // Each of them in the place of the columns, which is a region's right place otherwise.
    for at in [56, 64, 72, 80, 88, changes] {
        let mut hostile = bytes.clone();
        hostile[at..at + 8].copy_from_slice(&128_u64.to_le_bytes());
        reseal(&mut hostile);
        match SegmentReader::open(&hostile) {
            Err(WireError::Damaged { offset, .. }) => assert_eq!(offset, at as u64),
            other => panic!("{at}: {other:?}"),
        }
    }
}

#[test]
fn tables_that_contradict_each_other_are_refused_where_they_do() {
    let bytes = sample(3, 4).encode();
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let directory = u64_at(88);
    let table = |kind: usize| u64_at(directory + 8 + 24 * (kind - 1) + 8);
    let statuses = u64_at(48) + 64 + 64 + 64 + 64;
    let edges = u64_at(64) + 40;
    let commands = u64_at(72) + 40;
    let places = [
        // (what, byte, new value, where the error points)
        ("an unknown status", statuses, 4, statuses),
        ("a status without an outcome", statuses + 1, 2, table(2) + 16),
        ("an outcome that is neither there nor not", table(2) + 12, 2, table(2)),
        ("an edge out of the rows", edges, 4, edges),
        ("an unknown relation", edges + 4, 5, edges),
        ("a command that is not UTF-8", commands, 0xFF, commands),
        ("no hashes", u64_at(80), 0, u64_at(80)),
        ("too many hashes", u64_at(80), 65, u64_at(80)),
        ("an unknown change", table(4) + 36, 2, table(4)),
        ("a change to an unknown status", table(4) + 37, 4, table(4)),
        ("a row twice in the order of ids", table(5) + 4, 0, table(5) + 4),
        ("a row out of the rows", table(6), 4, table(6)),
        ("an odd embedding that is not odd", table(7) + 12, 3, table(7) + 8),
        ("a missing table", directory + 8, 99, directory + 32),
    ];
    for (what, at, value, expected) in places {
        let mut hostile = bytes.clone();
        assert_ne!(hostile[at], value, "{what}");
        hostile[at] = value;
        reseal(&mut hostile);
        match SegmentReader::open(&hostile) {
            Err(WireError::Damaged { offset, .. }) => assert_eq!(offset, expected as u64, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        assert!(SegmentReader::open(&bytes[..]).is_err());
        if bytes.len() >= 8 {
            bytes[..8].copy_from_slice(b"TALB\0\0\x01\0");
            prop_assert!(SegmentReader::open(&bytes[..]).is_err());
        }
    }

    #[test]
    fn changed_bytes_under_right_checksums_never_panic(
        contents in contents(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = contents.encode();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        reseal(&mut bytes);
        if let Ok(reader) = SegmentReader::open(&bytes[..]) {
            exercise(&reader);
        }
    }

    #[test]
    fn changed_bytes_of_a_legacy_segment_never_panic(
        rows in 0..6_u8,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        length in any::<proptest::sample::Index>(),
    ) {
        let rows: Vec<_> = (0..rows)
            .map(|number| fixed_part::FixedRow {
                id: *id(number).as_bytes(),
                timestamp: number.into(),
                context_hash: 1,
                confidence: 1.0,
                status: number % 4,
                embedding: vec![1.0; 5],
            })
            .collect();
        let edge = fixed_part::FixedEdge { parent: 0, child: 1, relation: 4, weight: 0.5 };
        let edges = if rows.len() > 1 { &[edge][..] } else { &[] };
        let mut bytes = fixed_part::legacy_segment(5, &rows, edges);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for bytes in [&bytes[..], &bytes[..length.index(bytes.len())]] {
            if let Ok(reader) = SegmentReader::open(bytes) {
                exercise(&reader);
            }
        }
    }
}
