//! Right checksums over bytes that make no sense: opening takes what it can use, and
//! `check_agreement` finds what contradicts.

mod common;

use common::{contents, reseal, sample};
use proptest::prelude::*;
use tala_wire::{Salvage, SegmentReader, WireError};

proptest! {
    #[test]
    fn what_the_writer_wrote_agrees(contents in contents()) {
        let mut contents = contents;
        // A store numbers its rows and changes in order.
        for (row, seq) in contents.rows.iter_mut().zip(1..) {
            row.1 = seq;
        }
        contents.changes.sort_by_key(|change| change.0);
        let bytes = contents.encode();
        let agreed = SegmentReader::open(&bytes[..]).unwrap().check_agreement().unwrap();
        prop_assert_eq!(agreed.rows, contents.rows.len() as u64);
        prop_assert_eq!(agreed.changes, contents.changes.len() as u64);
        prop_assert!(agreed.blocks >= 1);
    }

    /// A salvage gives what a reader gives, where nothing is damaged.
    #[test]
    fn a_salvage_of_an_intact_segment_is_the_segment(contents in contents()) {
        let bytes = contents.encode();
        let reader = SegmentReader::open(&bytes[..]).unwrap();
        let salvage = Salvage::of(&bytes[..], None).unwrap();
        prop_assert!(salvage.damaged().is_empty());
        let rows: Vec<_> = salvage.rows().collect();
        prop_assert_eq!(rows.len(), reader.len() as usize);
        for (salvaged, row) in rows.into_iter().zip(reader.rows()) {
            let row = row.unwrap();
            prop_assert_eq!((salvaged.id, salvaged.seq), (Some(row.id), Some(row.seq)));
            prop_assert_eq!(&salvaged.missing, &Vec::<&str>::new());
            let expected = row.into_intent();
            // An intent with neither an embedding nor a command is not worth the name.
            let Some(found) = salvaged.intent else { continue };
            let bits = |values: &[f32]| values.iter().map(|it| it.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&found.embedding), bits(&expected.embedding));
            prop_assert_eq!(found.confidence.to_bits(), expected.confidence.to_bits());
            prop_assert_eq!((found.raw_command, found.parent_ids, found.outcome),
                (expected.raw_command, expected.parent_ids, expected.outcome));
        }
        prop_assert_eq!(salvage.changes().collect::<Vec<_>>(), reader.changes().collect::<Vec<_>>());
    }

    #[test]
    fn a_salvage_of_any_bytes_never_panics(
        contents in contents(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
        length in any::<proptest::sample::Index>(),
        reseals in any::<bool>(),
    ) {
        let mut bytes = contents.encode();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if reseals {
            reseal(&mut bytes);
        }
        for bytes in [&bytes[..], &bytes[..length.index(bytes.len())]] {
            if let Ok(salvage) = Salvage::of(bytes, None) {
                prop_assert!(salvage.rows().count() <= bytes.len() / 16);
                prop_assert!(salvage.changes().count() <= bytes.len() / 40);
                let _ = (salvage.damaged(), salvage.changes_count());
            }
        }
    }
}

#[test]
fn what_contradicts_is_named_with_its_place() {
    let bytes = sample(3, 4).encode();
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let directory = u64_at(88);
    let table = |kind: usize| u64_at(directory + 8 + 24 * (kind - 1) + 8);
    let edges = u64_at(64) + 40;
    let bloom = u64_at(80);
    let agrees = |bytes: &[u8]| SegmentReader::open(bytes).unwrap().check_agreement();
    assert!(agrees(&bytes).is_ok());
    let places = [
        ("an edge to another row", edges, 2, edges),
        ("another relation", edges + 4, 3, edges),
        ("another weight", edges + 7, 0, edges),
        ("no bits in the filter", bloom + 12, 0, bloom + 12),
        ("another number of hashes", bloom, 2, bloom + 12),
        ("a sequence number again", table(1) + 8, 10, table(1) + 8),
        ("no flag of outcomes", 46, 2, 46),
        ("a change that is not in order", table(4) + 40, 1, table(4) + 40),
        ("another parent", table(3) + 40 + 48, 0x77, edges),
    ];
    for (what, at, value, expected) in places {
        let mut hostile = bytes.clone();
        assert_ne!(hostile[at], value, "{what}");
        hostile[at] = value;
        if what.starts_with("no bits") {
            hostile[at..at + 8].fill(0);
        }
        reseal(&mut hostile);
        match agrees(&hostile) {
            Err(WireError::Damaged { offset, .. }) => assert_eq!(offset, expected as u64, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}
