//! The replay of a log of a store.
//!
//! Input: switches (1: make checksums match; 2: make trailers whole too; 4: the MANIFEST accepted
//! the log), file number, number of the first record, number synced outside or accepted last, two
//! bytes of accepted length, then the log.
//!
//! Checked: what is accepted is whole, in order, and encodes to the bytes it was read from; cutting
//! after it, or going on with zeros, changes nothing; the MANIFEST's way of reading gives the same
//! records; a second reader, written from the format's tables, comes to the same verdict.

use tala_store::rooms::{
    Encoded, FileNumber, LogBound, LogEnding, LogOp, LogRead, SeqNo, Stamp, replay_log,
};

use super::format::{self, Verdict};

/// What stands before the log in an input.
const HEAD_BYTES: usize = 6;

pub fn run(bytes: &[u8]) -> bool {
    let Some((head, log)) = bytes.split_at_checked(HEAD_BYTES) else { return false };
    let mut log = log.to_vec();
    if head[0] & 3 != 0 {
        format::seal_log(&mut log, head[0] & 2 != 0);
    }
    let (file, first) = (FileNumber(head[1].into()), SeqNo(u64::from(head[2]).max(1)));
    let outside = SeqNo(head[3].into());
    if head[0] & 4 == 0 {
        live(&log, file, first, outside)
    } else {
        let len = u64::from(u16::from_le_bytes([head[4], head[5]]));
        accepted(&log, file, first, len, outside)
    }
}

fn live(log: &[u8], file: FileNumber, first: SeqNo, outside: SeqNo) -> bool {
    let bound = LogBound::Live(outside);
    let (kept, kept_next, verdict) = format::judge(log, file.0, first.0, outside.0);
    let read = match replay_log(log, file, first, bound) {
        Ok(read) => read,
        Err(damage) => {
            let at = damage.range.start as usize;
            assert!(damage.range.start <= damage.range.end && at <= log.len(), "{damage:?}");
            let agreed = verdict == Verdict::Damaged(at);
            assert!(agreed || damage.is_cut_short, "{damage:?} where {verdict:?} is due");
            return false;
        }
    };
    let found = match read.ending {
        LogEnding::Clean(_) => Verdict::Clean,
        LogEnding::Unmarked => Verdict::Unmarked,
        LogEnding::Torn(at) => Verdict::Torn(at as usize),
        LogEnding::Accepted => panic!("nobody had accepted it"),
    };
    assert_eq!(found, verdict);
    assert_eq!(read.accepted_len, kept as u64);
    assert_eq!(read.last_seq.0, kept_next - 1);
    check_records(log, file, first, &read);

    // What stands after it has no say in what is accepted.
    let cut = replay_log(&log[..kept], file, first, bound).expect("it was accepted");
    let ending = match read.ending {
        LogEnding::Torn(_) => LogEnding::Unmarked,
        other => other,
    };
    assert_same(log, file, first, &cut, &read, ending);
    if read.ending == ending {
        let zeros = [&log[..kept], &[0; 100]].concat();
        let roomy = replay_log(&zeros, file, first, bound).expect("it was accepted");
        assert_same(log, file, first, &roomy, &read, ending);
    }
    // The MANIFEST reads it to the same end.
    let by_manifest = LogBound::Accepted(read.accepted_len, read.last_seq);
    let again = replay_log(log, file, first, by_manifest).expect("it was accepted");
    assert_same(log, file, first, &again, &read, LogEnding::Accepted);
    // And with one byte or one record more it is not what the MANIFEST says.
    let longer = LogBound::Accepted(read.accepted_len + 1, read.last_seq);
    assert!(replay_log(log, file, first, longer).is_err());
    let later = LogBound::Accepted(read.accepted_len, read.last_seq.next());
    assert!(replay_log(log, file, first, later).is_err());
    kept > 0
}

fn accepted(log: &[u8], file: FileNumber, first: SeqNo, len: u64, last: SeqNo) -> bool {
    match replay_log(log, file, first, LogBound::Accepted(len, last)) {
        Ok(read) => {
            assert_eq!((read.accepted_len, read.last_seq), (len, last));
            assert_eq!(read.ending, LogEnding::Accepted);
            check_records(log, file, first, &read);
            len > 0
        }
        Err(damage) => {
            assert!(damage.range.start <= damage.range.end, "{damage:?}");
            assert!(damage.range.start <= log.len() as u64, "{damage:?}");
            false
        }
    }
}

/// Another way of reading `log` gave the records of `read`, whose bytes were checked, and this ending.
fn assert_same(
    log: &[u8],
    file: FileNumber,
    first: SeqNo,
    other: &LogRead,
    read: &LogRead,
    ending: LogEnding,
) {
    assert_eq!(other.ending, ending);
    assert_eq!((other.accepted_len, other.last_seq), (read.accepted_len, read.last_seq));
    assert_eq!(other.records.len(), read.records.len());
    check_records(log, file, first, other);
}

/// Whole records, one after the other, that encode to what they were read from.
fn check_records(log: &[u8], file: FileNumber, first: SeqNo, read: &LogRead) {
    let (mut at, mut seq) = (0, first);
    for (offset, found, place, op) in &read.records {
        assert_eq!((*offset as usize, *found), (at, seq));
        let encoded = match op {
            LogOp::Insert(intent) => Encoded::insert(intent, *place),
            LogOp::Outcome { id, outcome } => Encoded::outcome(*id, *outcome, *place),
            LogOp::Removal { id } => Encoded::removal(*id, *place),
            LogOp::Mark(mark) => Encoded::mark(*mark),
        };
        let encoded = encoded.expect("it was read from no more bytes than it takes");
        let end = at + encoded.encoded_len() as usize;
        // All but what was synced then, which nobody who reads a record is told.
        let synced = SeqNo(format::u64_at(log, end - 20).expect("a record has a trailer"));
        let mut again = Vec::new();
        encoded.stamp_into(&mut again, Stamp { seq, file, synced });
        assert_eq!(again, log[at..end]);
        (at, seq) = (end, seq.next());
    }
    assert_eq!(at as u64, read.accepted_len);
    assert_eq!(seq.previous(), read.last_seq);
}
