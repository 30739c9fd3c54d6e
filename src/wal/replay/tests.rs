use proptest::prelude::*;
use tala_core::{Intent, IntentId};

use super::*;
use crate::wal::{
    record::{Encoded, Stamp},
    scan::tests::crafted,
};

const FILE: FileNumber = FileNumber(3);

/// A log under construction, with what a reader should find in it.
struct Builder {
    bytes: Vec<u8>,
    next: SeqNo,
    synced: SeqNo,
    /// Lengths and last sequence numbers at the ends of batches, in order, from the empty log on.
    ends: Vec<(usize, SeqNo)>,
}

impl Builder {
    fn new(first: u64) -> Self {
        let next = SeqNo(first);
        Self { bytes: Vec::new(), next, synced: next.previous(), ends: vec![(0, next.previous())] }
    }

    fn push(&mut self, record: &Encoded, file: FileNumber) {
        let stamp = Stamp { seq: self.next, file, synced: self.synced };
        record.stamp_into(&mut self.bytes, stamp);
        self.next = self.next.next();
    }

    /// Appends a batch of intents, and syncs it or not.
    fn batch(mut self, len: u32, syncs: bool) -> Self {
        for index in 0..len {
            let intent = intent(self.next);
            let record = Encoded::insert(&intent, BatchPlace { index, len }).unwrap();
            self.push(&record, FILE);
        }
        self.end(syncs)
    }

    fn mark(mut self, mark: Mark) -> Self {
        self.synced = self.next.previous();
        self.push(&Encoded::mark(mark).unwrap(), FILE);
        self.end(true)
    }

    fn end(mut self, syncs: bool) -> Self {
        let last = self.next.previous();
        self.ends.push((self.bytes.len(), last));
        self.synced = if syncs { last } else { self.synced };
        self
    }

    fn last(&self) -> SeqNo {
        self.next.previous()
    }
}

fn intent(seq: SeqNo) -> Intent {
    Intent {
        id: IntentId::from_bytes([seq.0 as u8; 16]),
        timestamp: seq.0,
        raw_command: format!("command {seq}"),
        embedding: vec![seq.0 as f32; 3],
        context_hash: 1,
        parent_ids: vec![IntentId::from_bytes([1; 16])],
        outcome: None,
        confidence: 1.0,
    }
}

fn expected(first: u64, synced_outside: u64) -> Expected {
    let bound = Bound::Live { synced_outside: SeqNo(synced_outside) };
    Expected { file: FILE, first_seq: SeqNo(first), bound }
}

fn accepted(len: usize, last_seq: u64) -> Expected {
    let bound = Bound::Accepted { len: len as u64, last_seq: SeqNo(last_seq) };
    Expected { file: FILE, first_seq: SeqNo(1), bound }
}

/// Checks that the intents of the log are exactly those numbered `first` to `last`.
fn assert_holds(log: &LogContents<'_>, first: u64, last: SeqNo) {
    let records: Vec<_> = log.records().map(Result::unwrap).collect();
    let seqs: Vec<_> = records.iter().map(|record| record.seq.0).collect();
    assert_eq!(seqs, (first..=last.0).collect::<Vec<_>>());
    for record in &records {
        if let LogOp::Insert(found) = &record.op {
            assert_eq!(*found, intent(record.seq));
        }
    }
    assert_eq!(log.end().last_seq, last);
}

fn three_batches(syncs: bool) -> Builder {
    Builder::new(1).batch(2, syncs).batch(1, syncs).batch(3, syncs)
}

/// The decision table once more, written as a list: whoever changes a decision changes both.
#[test]
fn every_ending_has_a_decision() {
    use Verdict::*;
    let lasts = [LastRead::Batch, LastRead::PartOfBatch, LastRead::Mark];
    let lefts = [Left::Nothing, Left::Zeros, Left::BadFrame, Left::NewerRecord];
    let proofs = [Proof::None, Proof::LaterRecord, Proof::Outside, Proof::SearchCutShort];
    let later = Damaged(Evidence::LaterRecord);
    let outside = Damaged(Evidence::Outside);
    let cut_short = Damaged(Evidence::SearchCutShort);
    let newer = [Damaged(Evidence::NewerVersion); 4];
    let after_mark = [Damaged(Evidence::AfterMark); 4];
    let table = [
        // No proof, a later record, proof from outside, search cut short.
        [Unmarked, later, outside, cut_short], // a whole batch, nothing left
        [Unmarked, later, outside, cut_short], // a whole batch, zeros
        [Torn, later, outside, cut_short],     // a whole batch, a bad frame
        newer,                                 // a whole batch, a newer record
        [Torn, later, outside, cut_short],     // part of a batch, nothing left
        [Torn, later, outside, cut_short],     // part of a batch, zeros
        [Torn, later, outside, cut_short],     // part of a batch, a bad frame
        newer,                                 // part of a batch, a newer record
        [Clean; 4],                            // a mark, nothing left
        [Clean; 4],                            // a mark, zeros
        after_mark,                            // a mark, a bad frame
        after_mark,                            // a mark, a newer record
    ];
    let mut rows = table.iter();
    for last in lasts {
        for left in lefts {
            let row = rows.next().unwrap();
            for (proof, expected) in proofs.into_iter().zip(row) {
                assert_eq!(verdict(last, left, proof), *expected, "{last:?} {left:?} {proof:?}");
            }
        }
    }
    assert!(rows.next().is_none());
}

#[test]
fn an_empty_file_is_an_empty_log() {
    let log = read_log(&[], &expected(7, 6)).unwrap();
    assert_holds(&log, 7, SeqNo(6));
    assert_eq!(log.end().ending, Ending::Unmarked);
    assert_eq!(read_log(&[], &expected(7, 7)).unwrap_err().evidence, Evidence::Outside);
}

#[test]
fn a_log_cut_anywhere_holds_its_whole_batches() {
    for (builder, zeros) in [(three_batches(true), 0), (three_batches(false), 100)] {
        for len in 0..=builder.bytes.len() {
            let mut bytes = builder.bytes[..len].to_vec();
            bytes.resize(len + zeros, 0);
            let log = read_log(&bytes, &expected(1, 0)).unwrap();
            let (end_len, last) = *builder.ends.iter().rfind(|(end, _)| *end <= len).unwrap();
            assert_holds(&log, 1, last);
            assert_eq!(log.end().accepted_len, end_len as u64);
            let is_whole = matches!(log.end().ending, Ending::Unmarked);
            // The last bytes of a record may be zeros themselves.
            assert!(is_whole == (end_len == len) || zeros > 0, "length {len}");
        }
    }
}

#[test]
fn a_log_cut_below_what_was_proven_is_damaged() {
    let builder = three_batches(true);
    let proven = builder.last().0;
    for len in 0..builder.bytes.len() {
        let damage = read_log(&builder.bytes[..len], &expected(1, proven)).unwrap_err();
        assert_eq!(damage.evidence, Evidence::Outside, "length {len}");
    }
    assert!(read_log(&builder.bytes, &expected(1, proven)).is_ok());
}

#[test]
fn every_flipped_bit_of_a_synced_log_is_noticed() {
    let builder = three_batches(true);
    let last_batch = builder.ends[2];
    for bit in 0..builder.bytes.len() * 8 {
        let mut bytes = builder.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match read_log(&bytes, &expected(1, 0)) {
            Ok(log) => {
                assert!(bit / 8 >= last_batch.0, "bit {bit} passed for torn");
                assert_holds(&log, 1, last_batch.1);
                assert!(matches!(log.end().ending, Ending::Torn { .. }), "bit {bit}");
            }
            Err(damage) => {
                assert_eq!(damage.evidence, Evidence::LaterRecord);
                assert!(damage.at <= bit as u64 / 8 && bit as u64 / 8 < damage.until, "bit {bit}");
            }
        }
    }
}

#[test]
fn a_mark_protects_the_last_batch() {
    let marks = [Mark::Closed, Mark::Rotated { next: FileNumber(4) }];
    for mark in marks {
        let builder = three_batches(true).mark(mark);
        let marked_at = builder.ends[3].0;
        let log = read_log(&builder.bytes, &expected(1, 99)).unwrap();
        assert_holds(&log, 1, SeqNo(7));
        assert_eq!(log.end().ending, Ending::Clean(mark));
        for bit in 0..marked_at * 8 {
            let mut bytes = builder.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read_log(&bytes, &expected(1, 0)).is_err(), "bit {bit}");
        }
        let zeros = [&builder.bytes[..], &[0; 50]].concat();
        assert_eq!(read_log(&zeros, &expected(1, 0)).unwrap().end(), log.end());
        let more = [&builder.bytes[..], &[1]].concat();
        let damage = read_log(&more, &expected(1, 0)).unwrap_err();
        assert_eq!(damage.evidence, Evidence::AfterMark);
        assert_eq!(damage.at, builder.bytes.len() as u64);
    }
}

#[test]
fn nothing_follows_a_mark_not_even_the_next_record() {
    let builder = Builder::new(1).batch(1, true).mark(Mark::Closed).batch(1, true);
    let damage = read_log(&builder.bytes, &expected(1, 0)).unwrap_err();
    let found = (damage.evidence, damage.at, damage.until);
    let marked_at = builder.ends[2].0 as u64;
    assert_eq!(found, (Evidence::AfterMark, marked_at, marked_at));
}

#[test]
fn later_records_that_prove_nothing_leave_a_torn_end() {
    // One synced batch, then three written and never synced; of those, sectors reached the disk
    // in any order.
    let builder = Builder::new(1).batch(1, true).batch(2, false).batch(1, false).batch(1, false);
    let (synced_len, synced_last) = builder.ends[1];
    let mut bytes = builder.bytes.clone();
    bytes[synced_len + 40] ^= 1;
    let log = read_log(&bytes, &expected(1, 0)).unwrap();
    assert_holds(&log, 1, synced_last);
    let torn = Ending::Torn { at: synced_len as u64, why: BadFrame::Checksum };
    assert_eq!(log.end().ending, torn);
    // The same bytes are damage where anything else says that record 2 had been synced.
    assert_eq!(read_log(&bytes, &expected(1, 2)).unwrap_err().evidence, Evidence::Outside);
    assert!(read_log(&bytes, &expected(1, 1)).is_ok());
}

#[test]
fn the_whole_of_a_batch_is_cut_and_any_of_it_proven_is_damage() {
    let builder = Builder::new(1).batch(1, true).batch(3, true);
    let (kept_len, kept_last) = builder.ends[1];
    let bytes = &builder.bytes[..builder.bytes.len() - 1];
    let log = read_log(bytes, &expected(1, 1)).unwrap();
    assert_holds(&log, 1, kept_last);
    assert_eq!(log.end().accepted_len, kept_len as u64);
    let damage = read_log(bytes, &expected(1, 2)).unwrap_err();
    assert_eq!((damage.evidence, damage.lost), (Evidence::Outside, SeqNo(4)));
}

#[test]
fn a_missing_record_is_noticed_where_it_should_be() {
    let builder = Builder::new(1).batch(1, true).batch(1, true).batch(1, true);
    let (from, to) = (builder.ends[1].0, builder.ends[2].0);
    let bytes = [&builder.bytes[..from], &builder.bytes[to..]].concat();
    let damage = read_log(&bytes, &expected(1, 0)).unwrap_err();
    assert_eq!((damage.at, damage.until, damage.lost), (from as u64, from as u64, SeqNo(2)));
    assert_eq!(damage.why, BadFrame::WrongSequence(SeqNo(3)));
    let error = damage.into_error(Path::new("log")).to_string();
    assert!(error.starts_with(&format!("log is damaged at byte {from}: ")), "{error}");
    // Never synced, the same gap is a torn end.
    let builder = Builder::new(1).batch(1, false).batch(1, false).batch(1, false);
    let bytes = [&builder.bytes[..from], &builder.bytes[to..]].concat();
    assert_holds(&read_log(&bytes, &expected(1, 0)).unwrap(), 1, SeqNo(1));
}

#[test]
fn records_of_another_file_do_not_count() {
    let mut builder = Builder::new(1).batch(1, true);
    let record = Encoded::insert(&intent(SeqNo(2)), BatchPlace::SINGLE).unwrap();
    builder.push(&record, FileNumber(2));
    builder.synced = SeqNo(2);
    builder.push(&record, FileNumber(2));
    let log = read_log(&builder.bytes, &expected(1, 0)).unwrap();
    assert_holds(&log, 1, SeqNo(1));
    let why = BadFrame::WrongFile(FileNumber(2));
    assert_eq!(log.end().ending, Ending::Torn { at: log.end().accepted_len, why });
}

#[test]
fn records_out_of_their_batch_do_not_count() {
    let places = [(0, 2), (0, 1), (1, 2)].map(|(index, len)| BatchPlace { index, len });
    for (second, kept) in [(places[1], 0), (BatchPlace { index: 1, len: 3 }, 0), (places[2], 2)] {
        let mut builder = Builder::new(1);
        builder.push(&Encoded::insert(&intent(SeqNo(1)), places[0]).unwrap(), FILE);
        builder.push(&Encoded::insert(&intent(SeqNo(2)), second).unwrap(), FILE);
        assert_holds(&read_log(&builder.bytes, &expected(1, 0)).unwrap(), 1, SeqNo(kept));
    }
    // A batch does not change its length on the way.
    let mut builder = Builder::new(1);
    let first = BatchPlace { index: 0, len: 3 };
    builder.push(&Encoded::insert(&intent(SeqNo(1)), first).unwrap(), FILE);
    builder.push(&Encoded::insert(&intent(SeqNo(2)), places[2]).unwrap(), FILE);
    assert_holds(&read_log(&builder.bytes, &expected(1, 0)).unwrap(), 1, SeqNo(0));
    // Nor does it begin with its second record.
    let mut builder = Builder::new(1);
    builder.push(&Encoded::insert(&intent(SeqNo(1)), places[2]).unwrap(), FILE);
    assert_holds(&read_log(&builder.bytes, &expected(1, 0)).unwrap(), 1, SeqNo(0));
}

#[test]
fn an_accepted_log_is_read_exactly_as_far_as_accepted() {
    let builder = three_batches(true);
    let (len, last) = builder.ends[2];
    let good = accepted(len, last.0);
    // What stands after the accepted part does not matter, whatever it is.
    for after in [&builder.bytes[len..], &[0; 20], b"anything", b""] {
        let bytes = [&builder.bytes[..len], after].concat();
        let log = read_log(&bytes, &good).unwrap();
        assert_holds(&log, 1, last);
        assert_eq!(log.end().ending, Ending::Accepted);
        assert_eq!(log.end().accepted_len, len as u64);
    }
    // Inside it, nothing may be wrong.
    for bit in 0..len * 8 {
        let mut bytes = builder.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let damage = read_log(&bytes, &good).unwrap_err();
        assert_eq!(damage.evidence, Evidence::Outside);
        assert!(damage.until <= len as u64, "bit {bit}");
    }
    for cut in 0..len {
        assert!(read_log(&builder.bytes[..cut], &good).is_err(), "length {cut}");
    }
    for wrong in [accepted(len, last.0 + 1), accepted(len - 1, last.0), accepted(len + 1, last.0)] {
        assert!(read_log(&builder.bytes, &wrong).is_err(), "{wrong:?}");
    }
    // An empty part of a file that is all torn.
    let log = read_log(b"torn", &accepted(0, 0)).unwrap();
    assert_holds(&log, 1, SeqNo(0));
}

#[test]
fn a_newer_record_is_never_called_torn() {
    let mut builder = Builder::new(1).batch(1, false).batch(1, false);
    let covered = builder.bytes.len() - 4;
    builder.bytes[covered - 1] = 2;
    let at = builder.ends[1].0;
    let crc = crc32c::crc32c(&builder.bytes[at..covered]);
    builder.bytes[covered..].copy_from_slice(&crc.to_le_bytes());
    let damage = read_log(&builder.bytes, &expected(1, 0)).unwrap_err();
    assert_eq!(damage.evidence, Evidence::NewerVersion);
    let error = damage.into_error(Path::new("log"));
    assert!(matches!(error, TalaError::UnsupportedVersion { found: 2, supported: 1, .. }));
}

#[test]
fn a_log_tells_what_was_synced_before_it() {
    let builder = three_batches(true);
    assert_eq!(synced_proof(&builder.bytes, FILE), SeqNo(3));
    assert_eq!(synced_proof(&builder.bytes, FileNumber(9)), SeqNo::ZERO);
    assert_eq!(synced_proof(&[], FILE), SeqNo::ZERO);
    // The first record of a file is enough, and so is any other.
    let later = Builder::new(8).batch(1, false).batch(1, false);
    assert_eq!(synced_proof(&later.bytes, FILE), SeqNo(7));
    let mut bytes = later.bytes.clone();
    bytes[10] ^= 1;
    assert_eq!(synced_proof(&bytes, FILE), SeqNo(7));
}

#[test]
fn a_search_that_is_cut_short_takes_the_careful_side() {
    let bytes = crafted(FILE);
    assert_eq!(read_log(&bytes, &expected(1, 0)).unwrap_err().evidence, Evidence::SearchCutShort);
    assert_eq!(synced_proof(&bytes, FILE), SeqNo(u64::MAX));
}

proptest! {
    #[test]
    fn any_bytes_in_any_place_are_read_without_panic(
        noise in prop::collection::vec(any::<u8>(), 0..80),
        at in any::<prop::sample::Index>(),
        bound_len in any::<prop::sample::Index>(),
    ) {
        let mut bytes = three_batches(true).bytes;
        let at = at.index(bytes.len());
        let end = (at + noise.len()).min(bytes.len());
        bytes.splice(at..end, noise);
        let _ = synced_proof(&bytes, FILE);
        let bound_len = bound_len.index(bytes.len());
        for expected in [expected(1, 0), accepted(bound_len, 3)] {
            if let Ok(log) = read_log(&bytes, &expected) {
                prop_assert!(log.records().all(|record| record.is_ok()));
            }
        }
    }
}
