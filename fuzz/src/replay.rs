//! `replay_wal`, which reads the log of any program of the family.
//!
//! Input: switches (1: make checksums match; 2: make trailers whole too), then the file.
//!
//! Checked against a reader of the fixed frame alone, which skips what it does not know:
//! - On a file without a whole record of ours, `replay_wal` takes a record only where it has no
//!   tail, so the two agree up to the first frame with one, or the first that is none. What is
//!   left there is room prepared ahead (zeros), damage (a whole record follows), or torn.
//! - Where there is a whole record of ours, the intents are those of the part that counts, and the
//!   fixed-frame reader finds the same in that part, but for those without an embedding, which it
//!   cannot tell from outcomes, removals and marks.
//! - The file itself is read as its bytes are (one in 64, as that takes the disk).

use std::io::ErrorKind;

use tala_store::{
    WalEntry, replay_wal,
    rooms::{LogDamage, replay_entries},
};

use super::{
    format::{self, Frame, NoRecord, Record, Verdict},
    split,
};

pub fn run(bytes: &[u8]) -> bool {
    let (switches, file) = split(bytes);
    let mut file = file.to_vec();
    if switches & 3 != 0 {
        format::seal_log(&mut file, switches & 2 != 0);
    }
    let found = replay_entries(&file);
    if let Err(damage) = &found {
        assert!(damage.range.start <= damage.range.end, "{damage:?}");
        assert!(damage.range.start <= file.len() as u64, "{damage:?}");
    }
    let is_accepted = matches!(&found, Ok((entries, _)) if !entries.is_empty());
    if crc32c::crc32c(&file).is_multiple_of(64) {
        by_path(&file, &found);
    }
    if Record::at(&file, 0) == Err(NoRecord::Newer) {
        assert!(found.is_err(), "a newer program wrote this");
        return false;
    }
    match format::records_anywhere(&file, 0, None).first() {
        None => without_tails(&file, found),
        Some(first) => with_tails(&file, first, found),
    }
    is_accepted
}

fn without_tails(file: &[u8], found: Result<(Vec<WalEntry>, Option<u64>), LogDamage>) {
    let is_text = |frame: &Frame<'_>| std::str::from_utf8(frame.command).is_ok();
    let known: Vec<Frame<'_>> =
        format::frames(file).take_while(|frame| !frame.has_tail() && is_text(frame)).collect();
    let at = known.last().map_or(0, Frame::end);
    let is_whole =
        |frame: Frame<'_>| !frame.has_tail() && !frame.embedding.is_empty() && is_text(&frame);
    let goes_on = || (at + 1..file.len()).any(|at| Frame::at(file, at).is_some_and(is_whole));
    match found {
        Ok((entries, torn_at)) => {
            assert_same(&entries, &known);
            if file[at..].iter().all(|byte| *byte == 0) {
                assert_eq!(torn_at, None);
            } else {
                assert_eq!(torn_at, Some(at as u64));
                assert!(!goes_on(), "a whole record follows the torn one at {at}");
            }
        }
        Err(damage) if damage.is_cut_short => {}
        Err(damage) => {
            assert_eq!(damage.range.start, at as u64);
            assert!(goes_on(), "no whole record follows {damage:?}");
        }
    }
}

fn with_tails(
    file: &[u8],
    first: &Record<'_>,
    found: Result<(Vec<WalEntry>, Option<u64>), LogDamage>,
) {
    let is_known = first.frame.at == 0 && first.file != 0;
    let first_seq = if is_known { first.seq } else { 1 };
    let (kept, _, verdict) = format::judge(file, first.file, first_seq, 0);
    match found {
        Ok((entries, torn_at)) => {
            let is_torn = matches!(verdict, Verdict::Torn(at) if torn_at == Some(at as u64));
            let is_whole =
                matches!(verdict, Verdict::Clean | Verdict::Unmarked) && torn_at.is_none();
            assert!(is_torn || is_whole, "torn at {torn_at:?} where {verdict:?} is due");
            let (_, with_embedding): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|entry| entry.embedding.is_empty());
            let frames: Vec<_> =
                format::frames(&file[..kept]).filter(|frame| !frame.embedding.is_empty()).collect();
            assert_same(&with_embedding, &frames);
        }
        Err(damage) if damage.is_cut_short => {}
        Err(damage) => assert_eq!(verdict, Verdict::Damaged(damage.range.start as usize)),
    }
}

fn assert_same(entries: &[WalEntry], frames: &[Frame<'_>]) {
    assert_eq!(entries.len(), frames.len());
    for (entry, frame) in entries.iter().zip(frames) {
        let embedding: Vec<u8> =
            entry.embedding.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(entry.id, frame.id);
        assert_eq!(entry.timestamp, frame.timestamp);
        assert_eq!(embedding, frame.embedding);
        assert_eq!(entry.raw_command.as_bytes(), frame.command);
    }
}

fn by_path(file: &[u8], found: &Result<(Vec<WalEntry>, Option<u64>), LogDamage>) {
    let dir = tempfile::tempdir().expect("a directory for the file");
    let path = dir.path().join("log");
    std::fs::write(&path, file).expect("the file");
    match (replay_wal(&path), found) {
        (Ok(entries), Ok((expected, _))) => {
            let bits = |entries: &[WalEntry]| -> Vec<u32> {
                entries.iter().flat_map(|e| e.embedding.iter().map(|x| x.to_bits())).collect()
            };
            assert_eq!(entries.len(), expected.len());
            assert_eq!(bits(&entries), bits(expected));
        }
        (Err(error), Err(_)) => assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}"),
        (by_path, _) => panic!("{by_path:?} from the file, {found:?} from its bytes"),
    }
}
