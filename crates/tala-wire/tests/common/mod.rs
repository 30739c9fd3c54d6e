//! What the test programs share: arbitrary segments.

// Each test program uses a part of this file.
#![allow(dead_code)]

pub mod fixed_part;

use proptest::{collection::vec, option, prelude::*};
use tala_core::{Intent, IntentId, Outcome, SegmentId, Status};
use tala_wire::{Change, Row, SegmentWriter};

/// What a segment is made of, owned.
#[derive(Clone, Debug)]
pub struct Contents {
    pub dim: usize,
    pub rows: Vec<(Intent, u64)>,
    pub changes: Vec<(u64, IntentId, Change)>,
}

impl Contents {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = SegmentWriter::with_capacity(self.dim, self.rows.len()).unwrap();
        for (number, (intent, seq)) in self.rows.iter().enumerate() {
            assert_eq!(writer.push(&Row::of(intent, *seq)).unwrap() as usize, number);
        }
        for (seq, id, change) in &self.changes {
            writer.push_change(*seq, *id, *change);
        }
        writer.finish(SegmentId(7), 1_234).unwrap()
    }
}

/// An id from a small pool, so that rows often name each other.
pub fn id(number: u8) -> IntentId {
    let mut bytes = [0xAB; 16];
    bytes[3] = number;
    bytes[15] = number.wrapping_mul(91);
    IntentId::from_bytes(bytes)
}

pub fn outcome() -> impl Strategy<Value = Outcome> {
    (0..4_u8, any::<u64>(), any::<i32>()).prop_map(|(status, latency_ns, exit_code)| Outcome {
        status: Status::from_u8(status).unwrap(),
        latency_ns,
        exit_code,
    })
}

/// Any bits at all: NaNs with payloads, infinities, subnormals.
fn bits() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits)
}

fn embedding(dim: usize) -> impl Strategy<Value = Vec<f32>> {
    prop_oneof![4 => vec(bits(), dim), 1 => vec(bits(), 0..2 * dim + 2)]
}

fn intent(number: u8, dim: usize) -> impl Strategy<Value = Intent> {
    let command = prop_oneof![Just(String::new()), "\\PC{0,12}"];
    let small = (prop_oneof![0..5_u64, any::<u64>()], any::<u64>(), bits());
    (small, command, embedding(dim), vec((0..20_u8).prop_map(id), 0..5), option::of(outcome()))
        .prop_map(
            move |(
                (timestamp, context_hash, confidence),
                raw_command,
                embedding,
                parent_ids,
                outcome,
            )| {
                Intent {
                    id: id(number),
                    timestamp,
                    raw_command,
                    embedding,
                    context_hash,
                    parent_ids,
                    outcome,
                    confidence,
                }
            },
        )
}

/// Up to 12 rows with different ids, and up to 4 changes.
pub fn contents() -> impl Strategy<Value = Contents> {
    let change = prop_oneof![Just(Change::Removal), outcome().prop_map(Change::Outcome)];
    let changes = vec((0..9_u64, any::<u8>().prop_map(id), change), 0..4);
    let numbers =
        proptest::sample::subsequence((0..16_u8).collect::<Vec<_>>(), 0..12).prop_shuffle();
    (1..20_usize, numbers, changes).prop_flat_map(|(dim, numbers, changes)| {
        let rows: Vec<_> = numbers
            .into_iter()
            .map(|number| (intent(number, dim), prop_oneof![0..9_u64, any::<u64>()]))
            .collect();
        rows.prop_map(move |rows| Contents { dim, rows, changes: changes.clone() })
    })
}

/// A small segment with one of everything: edges, outcomes, odd embeddings, changes.
pub fn sample(dim: usize, rows: u8) -> Contents {
    let outcome = Outcome { status: Status::Failure, latency_ns: 5_000, exit_code: -2 };
    let intent = |number: u8| Intent {
        id: id(number),
        timestamp: 1_000 + u64::from(number % 3),
        raw_command: format!("make target-{number}"),
        embedding: vec![f32::from(number) + 0.5; if number == 1 { 2 } else { dim }],
        context_hash: u64::from(number) << 40,
        parent_ids: vec![id(number.wrapping_sub(1)), id(number), id(200)],
        outcome: number.is_multiple_of(2).then_some(outcome),
        confidence: 0.25 * f32::from(number),
    };
    Contents {
        dim,
        rows: (0..rows).map(|number| (intent(number), 10 + u64::from(number))).collect(),
        changes: vec![(8, id(250), Change::Outcome(outcome)), (9, id(251), Change::Removal)],
    }
}

/// Makes every checksum of a segment right again, where there is a footer to be found.
pub fn reseal(bytes: &mut [u8]) {
    let Some(field) = bytes.get(96..104) else { return };
    let footer = u64::from_le_bytes(field.try_into().unwrap());
    if bytes.len() < 128 {
        return;
    }
    let crc = crc32c::crc32c(&bytes[..104]);
    bytes[104..108].copy_from_slice(&crc.to_le_bytes());
    let Some(footer) = usize::try_from(footer).ok().filter(|at| *at < bytes.len()) else { return };
    let blocks = footer.div_ceil(65_536);
    if bytes.len() != footer + 20 + 4 * blocks {
        return;
    }
    for block in 0..blocks {
        let crc = crc32c::crc32c(&bytes[block * 65_536..footer.min((block + 1) * 65_536)]);
        let at = footer + 16 + 4 * block;
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
    let last = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[footer..last]);
    bytes[last..].copy_from_slice(&crc.to_le_bytes());
}
