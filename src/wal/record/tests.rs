use proptest::prelude::*;
use tala_core::Status;

use super::*;

fn stamp(seq: u64) -> Stamp {
    Stamp { seq: SeqNo(seq), file: FileNumber(3), synced: SeqNo(seq - 1) }
}

fn bytes_of(record: &Encoded, stamp: Stamp) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.stamp_into(&mut bytes, stamp);
    assert_eq!(bytes.len() as u64, record.encoded_len());
    bytes
}

/// What must come back, with floats as bits: NaN is not equal to itself.
fn bits(op: &LogOp) -> String {
    let LogOp::Insert(intent) = op else { return format!("{op:?}") };
    let floats: Vec<u32> = intent.embedding.iter().map(|float| float.to_bits()).collect();
    let rest = Intent { embedding: Vec::new(), confidence: 0.0, ..intent.clone() };
    format!("{rest:?} {floats:?} {}", intent.confidence.to_bits())
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    (0_u8..4, any::<u64>(), any::<i32>()).prop_map(|(status, latency_ns, exit_code)| Outcome {
        status: Status::from_u8(status).unwrap(),
        latency_ns,
        exit_code,
    })
}

fn ids() -> impl Strategy<Value = IntentId> {
    any::<[u8; 16]>().prop_map(IntentId::from_bytes)
}

fn intents() -> impl Strategy<Value = Intent> {
    (
        (ids(), any::<u64>(), ".{0,40}", prop::collection::vec(any::<u32>(), 0..20)),
        (any::<u64>(), any::<u32>()),
        (prop::collection::vec(ids(), 0..4), prop::option::of(outcomes())),
    )
        .prop_map(
            |(
                (id, timestamp, raw_command, embedding),
                (context_hash, confidence),
                (parent_ids, outcome),
            )| Intent {
                id,
                timestamp,
                raw_command,
                embedding: embedding.into_iter().map(f32::from_bits).collect(),
                context_hash,
                parent_ids,
                outcome,
                confidence: f32::from_bits(confidence),
            },
        )
}

fn ops() -> impl Strategy<Value = LogOp> {
    prop_oneof![
        4 => intents().prop_map(LogOp::Insert),
        1 => (ids(), outcomes()).prop_map(|(id, outcome)| LogOp::Outcome { id, outcome }),
        1 => ids().prop_map(|id| LogOp::Removal { id }),
        1 => Just(LogOp::Mark(Mark::Closed)),
        1 => any::<u64>().prop_map(|next| LogOp::Mark(Mark::Rotated { next: FileNumber(next) })),
    ]
}

fn encode(op: &LogOp, place: BatchPlace) -> Encoded {
    match op {
        LogOp::Insert(intent) => Encoded::insert(intent, place),
        LogOp::Outcome { id, outcome } => Encoded::outcome(*id, *outcome, place),
        LogOp::Removal { id } => Encoded::removal(*id, place),
        LogOp::Mark(mark) => Encoded::mark(*mark),
    }
    .unwrap()
}

proptest! {
    #[test]
    fn every_record_comes_back_bit_for_bit(
        op in ops(),
        (index, after) in (0_u32..u32::MAX, 1_u32..9),
        (seq, file) in (1..u64::MAX, any::<u64>()),
        rest in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let is_mark = matches!(op, LogOp::Mark(_));
        let place = BatchPlace { index, len: index.saturating_add(after) };
        let place = if is_mark { BatchPlace::SINGLE } else { place };
        let stamp = Stamp { seq: SeqNo(seq), file: FileNumber(file), synced: SeqNo(seq / 2) };
        let mut bytes = bytes_of(&encode(&op, place), stamp);
        let record_len = bytes.len();
        bytes.extend_from_slice(&rest);
        let frame = decode_frame(&bytes).unwrap();
        prop_assert_eq!(frame.len, record_len);
        if let LogOp::Insert(intent) = &op {
            prop_assert_eq!(Encoded::insert_len(intent), record_len as u64);
        }
        prop_assert_eq!(frame.stamp, stamp);
        prop_assert_eq!(frame.place, place);
        prop_assert_eq!(bits(&frame.to_op()), bits(&op));
    }

    #[test]
    fn any_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode_frame(&bytes).is_err());
    }

    /// Random bytes never get past the checksum; these always do.
    #[test]
    fn any_tail_with_a_matching_checksum_is_parsed_without_panic(
        op in ops(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = bytes_of(&encode(&op, BatchPlace::SINGLE), stamp(9));
        let covered = bytes.len() - 4;
        let at = at.index(covered);
        bytes[at] = value;
        let crc = crc32c(&bytes[..covered]);
        bytes[covered..].copy_from_slice(&crc.to_le_bytes());
        if let Ok(frame) = decode_frame(&bytes) {
            let _ = frame.to_op();
        }
    }
}

fn sample() -> Vec<u8> {
    let intent = Intent {
        id: IntentId::from_bytes([9; 16]),
        timestamp: 77,
        raw_command: "make".to_owned(),
        embedding: vec![1.0, -0.0, f32::NAN],
        context_hash: 5,
        parent_ids: vec![IntentId::from_bytes([1; 16])],
        outcome: Some(Outcome { status: Status::Partial, latency_ns: 8, exit_code: -1 }),
        confidence: 0.5,
    };
    bytes_of(&Encoded::insert(&intent, BatchPlace { index: 2, len: 5 }).unwrap(), stamp(41))
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let good = sample();
    assert!(decode_frame(&good).is_ok());
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_frame(&bytes).is_err(), "bit {bit}");
    }
    for len in 0..good.len() {
        assert_eq!(decode_frame(&good[..len]).unwrap_err(), BadFrame::PastEnd, "length {len}");
    }
}

/// The bytes of one record, written out by hand from the table: logs on disk stay readable only
/// as long as this test stands unchanged.
#[test]
fn the_layout_is_the_one_in_the_table() {
    #[rustfmt::skip]
    let mut expected = [
        // Of 143 bytes in all, the first four do not count.
        &[139, 0, 0, 0][..],
        &[9; 16], &[77, 0, 0, 0, 0, 0, 0, 0],
        &[3, 0, 0, 0], &[0, 0, 0x80, 0x3F], &[0, 0, 0, 0x80], &[0, 0, 0xC0, 0x7F],
        &[4, 0, 0, 0], b"make",
        // The tail.
        &[1, 1], &[2, 0, 0, 0], &[5, 0, 0, 0],
        &[5, 0, 0, 0, 0, 0, 0, 0], &[0, 0, 0, 0x3F], &[1, 0, 0, 0], &[1; 16],
        &[3, 8, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF],
        // The trailer.
        &[41, 0, 0, 0, 0, 0, 0, 0], &[3, 0, 0, 0, 0, 0, 0, 0], &[40, 0, 0, 0, 0, 0, 0, 0],
        &[62 + 16 + 13, 0, 0, 0], &[0xF5, b'T', b'W', 1],
    ].concat();
    let crc = crc32c(&expected);
    expected.extend_from_slice(&crc.to_le_bytes());
    assert_eq!(sample(), expected);
}

#[test]
fn no_tail_length_is_a_power_of_two() {
    let id = IntentId::from_bytes([1; 16]);
    let outcome = Outcome { status: Status::Success, latency_ns: 0, exit_code: 0 };
    let place = BatchPlace::SINGLE;
    let mut records = vec![
        Encoded::outcome(id, outcome, place).unwrap(),
        Encoded::removal(id, place).unwrap(),
        Encoded::mark(Mark::Closed).unwrap(),
        Encoded::mark(Mark::Rotated { next: FileNumber(2) }).unwrap(),
    ];
    for parents in 0..200 {
        for outcome in [None, Some(outcome)] {
            let parent_ids = &vec![id; parents];
            let fields = InsertFields { parent_ids, outcome, ..no_fields(id.as_bytes()) };
            records.push(Encoded::insert_fields(fields, place).unwrap());
        }
    }
    for record in records {
        assert!(!record.tail_len.is_power_of_two(), "{}", record.tail_len);
        assert_eq!(u64::from(record.tail_len), record.encoded_len() - 36);
    }
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut bytes = sample();
    let covered = bytes.len() - 4;
    bytes[covered - 1] = 2;
    assert_eq!(decode_frame(&bytes).unwrap_err(), BadFrame::Checksum);
    let crc = crc32c(&bytes[..covered]);
    bytes[covered..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(decode_frame(&bytes).unwrap_err(), BadFrame::Version(2));
}

#[test]
fn fields_that_contradict_each_other_have_no_meaning() {
    let removal = Encoded::removal(IntentId::from_bytes([1; 16]), BatchPlace::SINGLE).unwrap();
    let good = bytes_of(&removal, stamp(9));
    let tail = 36;
    // Offset, value: an unknown kind, an unknown flag, an empty batch, a place outside the batch,
    // more synced than written.
    let bad = [(tail, 0), (tail, 9), (tail + 1, 2), (tail + 6, 0), (tail + 2, 1), (tail + 26, 9)];
    for (at, value) in bad {
        let mut bytes = good.clone();
        bytes[at] = value;
        let covered = bytes.len() - 4;
        let crc = crc32c(&bytes[..covered]);
        bytes[covered..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode_frame(&bytes).unwrap_err(), BadFrame::Meaning, "{at} = {value}");
    }
    // The length of the tail, in the trailer.
    let mut bytes = good.clone();
    let covered = bytes.len() - 4;
    bytes[covered - 8] += 1;
    let crc = crc32c(&bytes[..covered]);
    bytes[covered..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(decode_frame(&bytes).unwrap_err(), BadFrame::Lengths);

    let last = Stamp { seq: SeqNo(u64::MAX), ..stamp(9) };
    assert_eq!(decode_frame(&bytes_of(&removal, last)).unwrap_err(), BadFrame::Meaning);
    // A change with a command, with a time, with more bytes than it has fields; a mark in a batch,
    // and one with an id.
    let fields = no_fields(&[1; 16]);
    let named = InsertFields { command: "x", ..fields };
    let timed = InsertFields { timestamp: 1, ..fields };
    let place = BatchPlace { index: 0, len: 2 };
    for (fields, kind, place, extra) in [
        (named, KIND_REMOVAL, BatchPlace::SINGLE, 0),
        (timed, KIND_REMOVAL, BatchPlace::SINGLE, 0),
        (fields, KIND_REMOVAL, BatchPlace::SINGLE, 1),
        (no_fields(&[0; 16]), KIND_CLOSED, place, 0),
        (fields, KIND_CLOSED, BatchPlace::SINGLE, 0),
    ] {
        let mut record = Encoded::begin(&fields, kind, place, extra).unwrap();
        record.bytes.extend(std::iter::repeat_n(0, extra as usize));
        let bytes = bytes_of(&record.sealed(), stamp(9));
        assert_eq!(decode_frame(&bytes).unwrap_err(), BadFrame::Meaning, "{kind} {place:?}");
    }
}
