use super::*;
use crate::wal::record::{BatchPlace, Encoded, InsertFields, Stamp};

fn entries_in(bytes: &[u8]) -> Result<Vec<WalEntry>, Damage> {
    read_entries(bytes).map(|log| log.entries)
}

fn legacy_record(number: u8) -> Vec<u8> {
    let command = format!("command {number}");
    [
        &(32 + 8 + command.len() as u32).to_le_bytes()[..],
        &[number; 16],
        &u64::from(number).to_le_bytes(),
        &2_u32.to_le_bytes(),
        &f32::from(number).to_le_bytes(),
        &f32::NAN.to_le_bytes(),
        &(command.len() as u32).to_le_bytes(),
        command.as_bytes(),
    ]
    .concat()
}

fn legacy_log(numbers: std::ops::RangeInclusive<u8>) -> Vec<u8> {
    numbers.flat_map(legacy_record).collect()
}

fn own_record(number: u8, file: u64, synced: u64) -> Vec<u8> {
    let fields = InsertFields {
        id: &[number; 16],
        timestamp: u64::from(number),
        embedding: &[f32::from(number), f32::NAN],
        command: &format!("command {number}"),
        context_hash: 0,
        confidence: 1.0,
        parent_ids: &[],
        outcome: None,
    };
    let mut bytes = Vec::new();
    let seq = SeqNo(u64::from(number));
    let stamp = Stamp { seq, file: FileNumber(file), synced: SeqNo(synced) };
    Encoded::insert_fields(fields, BatchPlace::SINGLE).unwrap().stamp_into(&mut bytes, stamp);
    bytes
}

#[track_caller]
fn assert_are(entries: &[WalEntry], numbers: std::ops::RangeInclusive<u8>) {
    let found: Vec<_> = entries
        .iter()
        .map(|entry| {
            let bits: Vec<_> = entry.embedding.iter().map(|float| float.to_bits()).collect();
            (entry.id, entry.timestamp, bits, entry.raw_command.clone())
        })
        .collect();
    let expected: Vec<_> = numbers
        .map(|number| {
            let bits = vec![f32::from(number).to_bits(), f32::NAN.to_bits()];
            ([number; 16], u64::from(number), bits, format!("command {number}"))
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_legacy_log_cut_anywhere_holds_its_whole_records() {
    let bytes = legacy_log(1..=3);
    let record_len = legacy_record(1).len();
    for len in 0..=bytes.len() {
        let log = read_legacy(&bytes[..len]).unwrap();
        let whole = len / record_len;
        assert_are(&log.entries, 1..=whole as u8);
        let torn_at = (len % record_len != 0).then_some((whole * record_len) as u64);
        assert_eq!(log.torn_at, torn_at, "length {len}");
        assert_are(&entries_in(&bytes[..len]).unwrap(), 1..=whole as u8);
    }
}

#[test]
fn zeros_after_a_legacy_log_are_its_end() {
    let bytes = [legacy_log(1..=2), vec![0; 5000]].concat();
    let log = read_legacy(&bytes).unwrap();
    assert_are(&log.entries, 1..=2);
    assert_eq!(log.torn_at, None);
}

#[test]
fn zeros_in_a_torn_record_do_not_pass_for_a_later_one() {
    // The length of an empty record, and then the zeros that make one.
    let torn = [&1000_u32.to_le_bytes()[..], &[7; 60], &32_u32.to_le_bytes(), &[0; 60]].concat();
    let log = read_legacy(&[legacy_log(1..=2), torn].concat()).unwrap();
    assert_are(&log.entries, 1..=2);
    assert_eq!(log.torn_at, Some(legacy_log(1..=2).len() as u64));
}

#[test]
fn a_legacy_record_that_an_intact_one_follows_is_damage() {
    let record_len = legacy_record(1).len();
    // The lengths of the second of three records: payload, dimension, command.
    for field in [0, 28, 40] {
        for bit in 0..32 {
            let mut bytes = legacy_log(1..=3);
            bytes[record_len + field + bit / 8] ^= 1 << (bit % 8);
            let damage = read_legacy(&bytes).unwrap_err();
            let found = (damage.at, damage.until, damage.evidence);
            let expected = (record_len as u64, 2 * record_len as u64, Evidence::Legacy);
            assert_eq!(found, expected, "field {field}, bit {bit}");
            assert!(entries_in(&bytes).is_err());
        }
    }
}

#[test]
fn a_record_with_a_tail_is_never_read_as_one_without() {
    let good = own_record(1, 0, 0);
    assert_are(&entries_in(&good).unwrap(), 1..=1);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(entries_in(&bytes).unwrap_or_default(), [], "bit {bit}");
    }
    // Nor does a legacy record count in a log with tails.
    let mixed = [own_record(1, 0, 0), legacy_record(2)].concat();
    assert_are(&entries_in(&mixed).unwrap(), 1..=1);
    let mixed = [legacy_record(1), own_record(2, 0, 1)].concat();
    assert_eq!(entries_in(&mixed).unwrap_err().at, 0);
}

#[test]
fn a_log_of_a_store_begins_anywhere_but_not_after_a_lost_record() {
    let log: Vec<u8> = [own_record(5, 2, 4), own_record(6, 2, 5), own_record(7, 2, 6)].concat();
    assert_are(&entries_in(&log).unwrap(), 5..=7);
    let mut bytes = log.clone();
    bytes[50] ^= 1;
    assert_eq!(entries_in(&bytes).unwrap_err().evidence, Evidence::LaterRecord);
}

#[test]
fn a_first_record_that_was_synced_is_missed() {
    let log = [own_record(2, 0, 1), own_record(3, 0, 2)].concat();
    let damage = entries_in(&log).unwrap_err();
    assert_eq!((damage.at, damage.lost), (0, SeqNo(1)));
}

#[test]
fn a_log_of_a_newer_version_is_refused() {
    let mut bytes = own_record(1, 0, 0);
    let covered = bytes.len() - 4;
    bytes[covered - 1] = 2;
    let crc = crc32c::crc32c(&bytes[..covered]);
    bytes[covered..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(entries_in(&bytes).unwrap_err().evidence, Evidence::NewerVersion);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(0_u8.., 0..400)) {
        let _ = entries_in(&bytes);
        let _ = read_legacy(&[legacy_log(1..=2), bytes].concat());
    }
}
