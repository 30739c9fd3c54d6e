//! A segment.
//!
//! Input: switches (1: make the checksums match), then the segment.
//!
//! Checked: aligned or not, the bytes give the same answers; every accessor agrees with every
//! other, and with a reader of the fixed part alone; the checks of a block when it is touched and
//! of the whole agree; written again and read again, rows and changes are the same; a byte less or
//! more is refused.

use std::collections::HashSet;

use tala_core::TimeRange;
use tala_wire::{Row, SegmentReader, SegmentWriter, StoredRow, WireError};

use super::{
    format::{self, FixedRow},
    split,
};

pub fn run(bytes: &[u8]) -> bool {
    let (switches, segment) = split(bytes);
    // A vector of 8-byte words is aligned for everything in a segment.
    let mut aligned = vec![0_u64; segment.len().div_ceil(8) + 1];
    let aligned = bytes_of(&mut aligned, segment.len());
    aligned.copy_from_slice(segment);
    if switches & 1 != 0 {
        format::seal_segment(aligned);
    }
    let aligned = &*aligned;
    let shifted = [&[0], aligned].concat();
    let (first, second) = (SegmentReader::open(aligned), SegmentReader::open(&shifted[1..]));
    match (first, second) {
        (Ok(reader), Ok(shifted)) => {
            accepted(aligned, &reader, &shifted, switches & 1 == 0);
            true
        }
        (Err(error), Err(other)) => {
            assert_eq!(error, other);
            if let WireError::Damaged { offset, .. } = error {
                assert!(offset <= aligned.len() as u64, "{offset} of {}", aligned.len());
            }
            false
        }
        (first, second) => panic!("{:?} aligned, {:?} not", first.err(), second.err()),
    }
}

/// The first `len` bytes of `words`.
fn bytes_of(words: &mut [u64], len: usize) -> &mut [u8] {
    bytemuck::cast_slice_mut(words).split_at_mut(len).0
}

fn accepted(
    bytes: &[u8],
    reader: &SegmentReader<&[u8]>,
    shifted: &SegmentReader<&[u8]>,
    is_as_written: bool,
) {
    let rows: Vec<_> = reader.rows().collect();
    assert_eq!(rows.len(), reader.len() as usize);
    let all_intact = rows.iter().all(Result::is_ok);
    assert!(all_intact || reader.verify().is_err());
    for (row, shifted) in rows.iter().zip(shifted.rows()) {
        match (row, shifted) {
            (Ok(row), Ok(shifted)) => assert!(is_same(row, &shifted)),
            (row, shifted) => assert_eq!(row.as_ref().err(), shifted.err().as_ref()),
        }
    }
    let past_the_end = reader.len();
    assert!(reader.id(past_the_end).is_none() && reader.outcome(past_the_end).is_none());
    assert!(reader.row(past_the_end).is_err() && reader.parent_ids(past_the_end).is_none());
    let fixed = format::fixed_rows(bytes).expect("a segment has its fixed part");
    check_rows(bytes, reader, &rows, &fixed, is_as_written);
    check_time(reader);
    if all_intact {
        let rows: Vec<StoredRow<'_>> = rows.into_iter().flatten().collect();
        write_again(reader, &rows);
    }
    if !reader.is_legacy() {
        let len = bytes.len();
        for cut in [0, 1, 127, len / 2, len - 1] {
            assert!(SegmentReader::open(&bytes[..cut.min(len - 1)]).is_err());
        }
        assert!(SegmentReader::open([bytes, &[0]].concat()).is_err());
    }
}

fn check_rows(
    bytes: &[u8],
    reader: &SegmentReader<&[u8]>,
    rows: &[Result<StoredRow<'_>, WireError>],
    fixed: &[FixedRow],
    is_as_written: bool,
) {
    assert_eq!(fixed.len(), rows.len());
    for ((number, row), fixed) in (0..).zip(rows).zip(fixed) {
        let id = reader.id(number).expect("there is this row");
        assert_eq!(*id.as_bytes(), fixed.id);
        assert_eq!(reader.timestamp(number), Some(fixed.timestamp));
        assert_eq!(reader.context_hash(number), Some(fixed.context_hash));
        assert_eq!(reader.confidence(number).map(f32::to_bits), Some(fixed.confidence_bits));
        let outcome = reader.outcome(number).expect("there is this row");
        assert_eq!(outcome.map_or(0, |outcome| outcome.status as u8), fixed.status);
        let children: Vec<u32> = reader.children(number).map(|edge| edge.target).collect();
        assert_eq!(children, fixed.children);
        assert!(children.iter().all(|child| *child < reader.len()));
        let found = reader.find(id);
        if reader.is_legacy() {
            assert!(found >= Some(number) && found.and_then(|row| reader.id(row)) == Some(id));
        } else if is_as_written || found.is_some() {
            // Where somebody changed the filter and its checksum, it may rule out what is there.
            assert_eq!(found, Some(number));
        }
        let Ok(row) = row else { continue };
        assert_eq!(Some(row.embedding.len()), reader.embedding_len(number));
        assert_eq!(Some(row.parent_ids.clone()), reader.parent_ids(number));
        assert_eq!(Some(row.raw_command), reader.raw_command(number));
        assert_eq!((Some(row.seq), row.outcome), (reader.seq(number), outcome));
        if row.embedding.len() == reader.dim() {
            let values: Vec<u8> = row.embedding.iter().flat_map(|x| x.to_le_bytes()).collect();
            assert_eq!(values, bytes[fixed.embedding.clone()]);
        }
    }
    let numbers = (0..reader.len()).filter_map(|row| reader.seq(row));
    let numbers = numbers.chain(reader.changes().map(|change| change.0)).filter(|seq| *seq > 0);
    let numbers: Vec<u64> = numbers.collect();
    let range = numbers.iter().min().copied().zip(numbers.iter().max().copied());
    assert_eq!(reader.seq_range(), range);
}

fn check_time(reader: &SegmentReader<&[u8]>) {
    let mut by_time: Vec<(u64, u32)> =
        (0..reader.len()).filter_map(|row| Some((reader.timestamp(row)?, row))).collect();
    by_time.sort_unstable();
    by_time.retain(|(timestamp, _)| *timestamp < u64::MAX);
    let (low, high) = match by_time[..] {
        [] => (1, 0),
        _ => (by_time[by_time.len() / 4].0, by_time[by_time.len() / 2].0),
    };
    for (start, end) in [(0, u64::MAX), (low, high), (high, low)] {
        let found: Vec<u32> = reader.range(TimeRange { start, end }).collect();
        let due = by_time.iter().filter(|(timestamp, _)| (start..end).contains(timestamp));
        assert_eq!(found, due.map(|(_, row)| *row).collect::<Vec<_>>());
    }
}

fn write_again(reader: &SegmentReader<&[u8]>, rows: &[StoredRow<'_>]) {
    // Only another program may have written an id twice.
    let ids: HashSet<_> = rows.iter().map(|row| row.id).collect();
    if ids.len() != rows.len() {
        assert!(reader.is_legacy());
        return;
    }
    let mut writer = SegmentWriter::new(reader.dim()).expect("it was read with this dimension");
    for row in rows {
        let row = Row {
            id: row.id,
            timestamp: row.timestamp,
            context_hash: row.context_hash,
            confidence: row.confidence,
            embedding: &row.embedding,
            raw_command: row.raw_command,
            parent_ids: &row.parent_ids,
            outcome: row.outcome,
            seq: row.seq,
        };
        writer.push(&row).expect("its id is there once");
    }
    for (seq, id, change) in reader.changes() {
        writer.push_change(seq, id, change);
    }
    let header = reader.header();
    let again = writer.finish(header.segment_id, header.created_at_ns).expect("it fits memory");
    let again = SegmentReader::open(again).expect("it was just written");
    again.verify().expect("it was just written");
    assert_eq!(again.len() as usize, rows.len());
    for (row, again) in rows.iter().zip(again.rows()) {
        assert!(is_same(row, &again.expect("it was just written")));
    }
    assert!(reader.changes().eq(again.changes()));
}

/// Equality by the bits of floats.
fn is_same(a: &StoredRow<'_>, b: &StoredRow<'_>) -> bool {
    let bits = |row: &StoredRow<'_>| -> Vec<u32> {
        row.embedding.iter().chain([&row.confidence]).map(|value| value.to_bits()).collect()
    };
    let rest = |row: &StoredRow<'_>| {
        (row.id, row.timestamp, row.context_hash, row.parent_ids.clone(), row.outcome, row.seq)
    };
    rest(a) == rest(b) && a.raw_command == b.raw_command && bits(a) == bits(b)
}
