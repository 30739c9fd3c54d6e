use proptest::prelude::*;

use super::*;

fn sample() -> Manifest {
    let segment = |id, first, last| SegmentEntry {
        id: SegmentId(id),
        first_seq: SeqNo(first),
        last_seq: SeqNo(last),
        bytes: 4096 * id,
        crc: 0xDEAD_0000 | id as u32,
    };
    let log = |number, first, last, accepted_len| LogEntry {
        number: FileNumber(number),
        first_seq: SeqNo(first),
        last_seq: SeqNo(last),
        accepted_len,
    };
    Manifest {
        dim: 384,
        // A segment made of older ones has a higher number and an earlier range.
        segments: vec![segment(4, 1, 90), segment(2, 91, 91), segment(3, 100, 200)],
        next_segment: SegmentId(5),
        next_log: FileNumber(9),
        next_seq: SeqNo(301),
        synced_seq: SeqNo(300),
        logs: vec![log(3, 201, 250, 7777), log(4, 251, 250, 0), log(8, 251, 300, 1)],
        legacy: Some(LegacyEntry { bytes: 123, crc: 456 }),
    }
}

fn decode(bytes: &[u8]) -> Result<Manifest, TalaError> {
    Manifest::decode(Path::new("dir/MANIFEST"), bytes)
}

#[test]
fn it_comes_back_as_it_was() {
    for manifest in [sample(), Manifest::new(1), Manifest { legacy: None, ..sample() }] {
        assert_eq!(decode(&manifest.encode().unwrap()).unwrap(), manifest);
    }
}

#[test]
fn the_layout_is_the_one_in_the_table() {
    let manifest = Manifest {
        segments: vec![sample().segments[0]],
        logs: vec![LogEntry { first_seq: SeqNo(91), ..sample().logs[0] }],
        ..sample()
    };
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut expected: Vec<u8> = [
        b"TALAMANI".to_vec(),
        vec![1, 0, 0, 0, 0x80, 1, 0, 0],
        words(&[5, 9, 301, 300, 1, 1, 1]),
        words(&[4, 1, 90, 16_384, 0xDEAD_0004]),
        words(&[3, 91, 250, 7777]),
        words(&[123, 456]),
    ]
    .concat();
    let crc = crc32c(&expected);
    expected.extend_from_slice(&crc.to_le_bytes());
    assert_eq!(manifest.encode().unwrap(), expected);
}

#[test]
fn every_cut_and_every_flipped_bit_is_an_error() {
    let good = sample().encode().unwrap();
    let is_corrupt = |bytes: &[u8]| matches!(decode(bytes), Err(TalaError::Corrupt { .. }));
    for len in 0..good.len() {
        assert!(is_corrupt(&good[..len]), "length {len}");
    }
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(is_corrupt(&bytes), "bit {bit}");
    }
    assert!(is_corrupt(&[&good[..], &[0]].concat()));
}

/// `good` with some bytes replaced and the checksum made to match.
fn patched(good: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = good[..good.len() - 4].to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    let crc = crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let good = sample().encode().unwrap();
    let error = decode(&patched(&good, 8, &[2])).unwrap_err();
    let TalaError::UnsupportedVersion { file, found: 2, supported: 1 } = error else {
        panic!("{error}")
    };
    assert_eq!(file, Path::new("dir/MANIFEST"));
    assert!(matches!(decode(&patched(&good, 8, &[0])), Err(TalaError::Corrupt { offset: 8, .. })));
}

#[test]
fn hostile_counts_are_refused() {
    let good = sample().encode().unwrap();
    // Two legacy entries, both there.
    let two = [&good[..good.len() - 20], &[0; 16], &[0; 16], &[0; 4]].concat();
    let error = decode(&patched(&two, 64, &[2])).unwrap_err();
    assert!(error.to_string().contains("lengths"), "{error}");
    for at in [48, 56, 64] {
        for count in [u64::MAX, u64::MAX / 40 + 2, u64::MAX / 32 + 2, 1 << 59, 4, 0] {
            let bytes = patched(&good, at, &count.to_le_bytes());
            assert!(matches!(decode(&bytes), Err(TalaError::Corrupt { .. })), "{at} {count}");
        }
    }
}

#[test]
fn contradictions_are_refused_on_the_way_in_and_out() {
    let good = sample().encode().unwrap();
    // Offset of a field, a value, offset of the entry that is named.
    let cases: [(usize, u64, u64); 20] = [
        (16, 0, 16),       // no next segment
        (24, 0, 24),       // no next log
        (32, 0, 32),       // no next sequence number
        (16, 1 << 63, 16), // numbers that run out
        (24, 1 << 63, 24),
        (32, u64::MAX, 32),
        (32, 300, 256),  // a log reaches the next sequence number
        (72, 5, 72),     // a segment number that is not taken yet
        (72, 0, 72),     // segment numbers begin at 1
        (112, 4, 112),   // the same segment twice
        (80, 0, 72),     // sequence numbers begin at 1
        (88, 0, 72),     // a range that ends before it begins
        (120, 90, 112),  // ranges that overlap
        (168, 301, 152), // a segment reaches the next sequence number
        (192, 0, 192),   // log numbers begin at 1
        (224, 3, 224),   // the same log twice
        (256, 9, 256),   // a log number that is not taken yet
        (264, 250, 256), // ranges of logs that overlap
        (248, 1, 224),   // an empty log with bytes
        (200, 200, 192), // a log that segments cover
    ];
    for (at, value, named) in cases {
        let error = decode(&patched(&good, at, &value.to_le_bytes())).unwrap_err();
        assert!(
            matches!(error, TalaError::Corrupt { offset, .. } if offset == named),
            "{at} {value}: {error}"
        );
    }
    let dimensionless = Manifest { dim: 0, ..sample() };
    assert!(matches!(dimensionless.encode(), Err(TalaError::InvalidInput { .. })));
    let dir = tempfile::tempdir().unwrap();
    assert!(dimensionless.publish(&StoreDir::real(dir.path())).is_err());
    assert_eq!(Manifest::load(&StoreDir::real(dir.path())).unwrap(), None);
}

#[test]
fn what_is_published_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Manifest::load(&StoreDir::real(dir.path())).unwrap(), None);
    Manifest::new(8).publish(&StoreDir::real(dir.path())).unwrap();
    sample().publish(&StoreDir::real(dir.path())).unwrap();
    assert_eq!(Manifest::load(&StoreDir::real(dir.path())).unwrap(), Some(sample()));
    assert_eq!(sample().log(FileNumber(8)), Some(&sample().logs[2]));
    assert_eq!(sample().log(FileNumber(5)), None);
    std::fs::write(dir.path().join(MANIFEST_NAME), b"").unwrap();
    assert!(matches!(Manifest::load(&StoreDir::real(dir.path())), Err(TalaError::Corrupt { .. })));
}

#[test]
fn names_and_numbers_are_one_to_one() {
    assert_eq!(segment_name(SegmentId(1)), "segment_000001.tbf");
    assert_eq!(parse_segment_name("segment_1234567.tbf"), Some(SegmentId(1_234_567)));
    for name in ["segment_1.tbf", "segment_0000001.tbf", "segment_000001.tbf.tmp", "MANIFEST"] {
        assert_eq!(parse_segment_name(name), None, "{name}");
    }
}

proptest! {
    #[test]
    fn any_body_with_a_matching_checksum_is_read_without_panic(
        at in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 1..16),
    ) {
        let good = sample().encode().unwrap();
        let at = at.index(good.len() - 4 - noise.len());
        if let Ok(manifest) = decode(&patched(&good, at, &noise)) {
            prop_assert_eq!(decode(&manifest.encode().unwrap()).unwrap(), manifest);
        }
    }
}
