//! A reader that knows the fixed parts of the formats and nothing else reads the segments of a store
//! and its closed logs, and gets the fixed fields of every intent. The reader of segments is that of
//! `tala-wire`'s tests; that of logs is below. Both are written from the description of the formats.

use crate::fixed_part;
use std::fs;

use crate::common::{DIM, intent, outcome, version};
use tala_core::{Intent, IntentStore};
use tala_store::{Durability, StorageEngine, Wal};

/// What a fixed frame says of an intent.
#[derive(Debug, PartialEq)]
struct Frame {
    id: [u8; 16],
    timestamp: u64,
    embedding: Vec<u32>,
    command: String,
}

impl Frame {
    fn of(intent: &Intent) -> Self {
        Self {
            id: *intent.id.as_bytes(),
            timestamp: intent.timestamp,
            embedding: intent.embedding.iter().map(|value| value.to_bits()).collect(),
            command: intent.raw_command.clone(),
        }
    }
}

/// Reads a log frame by frame from byte 0, to its last byte. It knows neither tails nor zeros.
fn read_log(bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut rest = bytes;
    let u32_of = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    while !rest.is_empty() {
        assert!(rest.len() >= 4, "{} bytes after the last record", rest.len());
        let payload_len = u32_of(rest);
        assert!(payload_len >= 32, "a payload of {payload_len} bytes");
        let payload = &rest[4..4 + payload_len];
        rest = &rest[4 + payload_len..];
        let id = payload[..16].try_into().unwrap();
        let timestamp = u64::from_le_bytes(payload[16..24].try_into().unwrap());
        let dim = u32_of(&payload[24..]);
        let after = &payload[28 + 4 * dim..];
        let command = after[4..4 + u32_of(after)].to_vec();
        if dim == 0 {
            continue;
        }
        let embedding = payload[28..28 + 4 * dim]
            .chunks(4)
            .map(|value| u32::from_le_bytes(value.try_into().unwrap()))
            .collect();
        frames.push(Frame {
            id,
            timestamp,
            embedding,
            command: String::from_utf8(command).unwrap(),
        });
    }
    frames
}

#[test]
fn closed_logs_and_rotated_logs_and_segments() {
    for durability in [Durability::Sync, Durability::Os] {
        let dir = tempfile::tempdir().unwrap();
        let options = || StorageEngine::options(DIM).durability(durability);
        let engine = options().open(dir.path()).unwrap();
        let mut written: Vec<Intent> = (0..40).map(intent).collect();
        for intent in &written {
            engine.insert(intent.clone()).unwrap();
        }
        engine.attach_outcome(written[3].id, outcome(3)).unwrap();
        engine.remove(written[4].id).unwrap();
        engine.insert_batch((50..60).map(intent).collect()).unwrap();
        written.extend((50..60).map(intent));
        engine.insert(version(5, 1)).unwrap();
        written.push(version(5, 1));
        // Its name goes when its segment is there; its bytes stay under another.
        let (log, kept) = (dir.path().join("log_000001.wal"), dir.path().join("kept"));
        fs::hard_link(&log, &kept).unwrap();
        engine.flush().unwrap();
        assert!(!log.exists());
        let expected: Vec<Frame> = written.iter().map(Frame::of).collect();
        assert_eq!(read_log(&fs::read(&kept).unwrap()), expected, "the rotated log");

        engine.insert(intent(70)).unwrap();
        engine.attach_outcome(intent(70).id, outcome(1)).unwrap();
        engine.close().unwrap();
        let closed = fs::read(dir.path().join("log_000002.wal")).unwrap();
        assert_eq!(read_log(&closed), [Frame::of(&intent(70))], "the closed log");

        // Opening the store again leaves it as other programs can read it.
        let engine = options().open(dir.path()).unwrap();
        engine.insert(intent(80)).unwrap();
        engine.close().unwrap();
        let older = fs::read(dir.path().join("log_000002.wal")).unwrap();
        assert_eq!(read_log(&older), [Frame::of(&intent(70))]);

        let segment = fs::read(dir.path().join("segment_000001.tbf")).unwrap();
        let fixed = fixed_part::read(&segment);
        let mut rows = written.clone();
        rows.retain(|row| row.id != intent(4).id);
        let replaced = rows.iter().position(|row| row.id == intent(5).id).unwrap();
        rows.remove(replaced);
        assert_eq!((fixed.dim, fixed.rows.len()), (DIM, rows.len()));
        for (found, row) in fixed.rows.iter().zip(&rows) {
            let status = if row.id == intent(3).id { outcome(3).status as u8 } else { 0 };
            assert_eq!((found.id, found.timestamp), (*row.id.as_bytes(), row.timestamp));
            assert_eq!((found.context_hash, found.status), (row.context_hash, status));
            assert_eq!(found.confidence.to_bits(), row.confidence.to_bits());
            assert_eq!(found.embedding, row.embedding);
            assert!(fixed.may_contain(&found.id));
        }
        for edge in &fixed.edges {
            let (parent, child) = (&rows[edge.parent as usize], &rows[edge.child as usize]);
            assert!(child.parent_ids.contains(&parent.id) && edge.relation == 0);
        }
        assert!(!fixed.edges.is_empty());
    }
}

#[test]
fn a_log_on_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut wal = Wal::create(&path).unwrap();
    for Intent { id, timestamp, raw_command, embedding, .. } in (0..9).map(intent) {
        wal.append(id.as_bytes(), timestamp, &embedding, &raw_command).unwrap();
    }
    wal.sync().unwrap();
    drop(wal);
    let expected: Vec<Frame> = (0..9).map(|number| Frame::of(&intent(number))).collect();
    assert_eq!(read_log(&fs::read(&path).unwrap()), expected);
}
