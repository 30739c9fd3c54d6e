//! A store's log on disk, as each of its readers sees it.

use tala_core::{Intent, IntentId, Outcome, Status};

use super::*;
use crate::{
    bytes::Fields,
    disk::{RealDisk, StoreDir},
    files::reread_from_disk,
    ids::{FileNumber, SeqNo},
};

fn intent(number: u8) -> Intent {
    Intent {
        id: IntentId::from_bytes([number; 16]),
        timestamp: u64::from(number),
        raw_command: format!("command {number}"),
        embedding: vec![f32::from(number); 4],
        context_hash: 1,
        parent_ids: vec![IntentId::from_bytes([0; 16]); 2],
        outcome: None,
        confidence: 0.25,
    }
}

/// What a program that knows the fixed frame and nothing else takes from a log: the ids of the
/// frames that have an embedding. `None` where frames do not fill the log exactly.
fn fixed_frame_ids(bytes: &[u8]) -> Option<Vec<[u8; 16]>> {
    let mut ids = Vec::new();
    let mut log = Fields::new(bytes);
    while !log.rest().is_empty() {
        let payload_len = log.u32()?;
        let mut payload = Fields::new(log.take(payload_len.into())?);
        let id = payload.array()?;
        let _timestamp = payload.u64()?;
        let dim = payload.u32()?;
        payload.take(u64::from(dim) * 4)?;
        let command_len = payload.u32()?;
        str::from_utf8(payload.take(command_len.into())?).ok()?;
        if dim > 0 {
            ids.push(id);
        }
    }
    Some(ids)
}

#[test]
fn a_log_of_all_kinds_of_records_is_read_by_all_its_readers() {
    let outcome = Outcome { status: Status::Failure, latency_ns: 9, exit_code: 127 };
    let id = intent(1).id;
    let batch = [0, 1].map(|index| BatchPlace { index, len: 2 });
    let mark = Mark::Rotated { next: FileNumber(6) };
    let written = [
        (LogOp::Insert(intent(1)), Encoded::insert(&intent(1), BatchPlace::SINGLE)),
        (LogOp::Outcome { id, outcome }, Encoded::outcome(id, outcome, BatchPlace::SINGLE)),
        (LogOp::Insert(intent(2)), Encoded::insert(&intent(2), batch[0])),
        (LogOp::Removal { id }, Encoded::removal(id, batch[1])),
        (LogOp::Mark(mark), Encoded::mark(mark)),
    ];

    let dir = tempfile::tempdir().unwrap();
    let mut log = DiskLog::create(&StoreDir::real(dir.path()), FileNumber(5)).unwrap();
    let path = dir.path().join(log_name(FileNumber(5)));
    log.prepare(FileNumber(6)).unwrap();
    for (seq, (_, record)) in (11..).zip(&written) {
        let stamp = Stamp { seq: SeqNo(seq), file: FileNumber(5), synced: SeqNo(seq - 1) };
        let mut bytes = Vec::new();
        record.as_ref().unwrap().stamp_into(&mut bytes, stamp);
        log.append(&bytes).unwrap();
    }
    log.sync().unwrap();
    let accepted_len = path.metadata().unwrap().len();
    log.rotate(FileNumber(6)).unwrap();

    let bytes = reread_from_disk(&RealDisk, &path, Vec::new()).unwrap();
    let bound = Bound::Live { synced_outside: SeqNo::ZERO };
    let expected = Expected { file: FileNumber(5), first_seq: SeqNo(11), bound };
    let contents = read_log(&bytes, &expected).unwrap();
    let ending = Ending::Clean(mark);
    assert_eq!(contents.end(), replay::LogEnd { accepted_len, last_seq: SeqNo(15), ending });
    let found: Vec<_> = contents.records().map(|record| record.unwrap().op).collect();
    assert_eq!(found, written.map(|(op, _)| op));

    let intents = [intent(1).id, intent(2).id].map(|id| *id.as_bytes());
    assert_eq!(fixed_frame_ids(&bytes).unwrap(), intents);
    let entries = replay_wal(&path).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), intents);
    assert_eq!(entries[1].raw_command, intent(2).raw_command);
    assert_eq!(entries[1].embedding, intent(2).embedding);
}
