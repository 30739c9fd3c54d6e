//! What a log file holds, and what its end means. Pure; callers bring the bytes.
//!
//! A log is read up to the first place where the next record is not. What that place means is
//! decided in one table, [`verdict`]: the file was ended on purpose, or the process ended between
//! two writes, or a write was torn and nobody had been told of it, or bytes that had been synced
//! are gone. Only the last is an error. The difference between the last two is *proof*: every
//! record names the highest sequence number that had been synced when it was written, and so do
//! later logs and the MANIFEST. Records after the bad place that prove nothing of the kind are no
//! contradiction: the sectors of a write that was never synced reach the disk in any order.
//!
//! The one limit: damage that reaches from any place to the end of a log looks like a torn write, unless
//! something written later elsewhere (a later log, the MANIFEST) proves what had been synced. It may
//! be the last batch, or all of the log: see the test
//! `a_live_log_of_which_nothing_is_left_is_an_empty_one`.

use std::{fmt, path::Path};

use tala_core::TalaError;

use crate::{
    bytes::all_zero,
    ids::{FileNumber, SeqNo},
    wal::{
        record::{
            BadFrame, BatchPlace, Body, Frame, LogOp, Mark, TAIL_VERSION, decode_checked_frame,
            decode_frame,
        },
        scan::IntactFrames,
    },
};

/// What is known about a log file before it is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Number of the file; records of others do not count.
    pub(crate) file: FileNumber,
    /// Sequence number of its first record.
    pub(crate) first_seq: SeqNo,
    /// How far it is to be read.
    pub(crate) bound: Bound,
}

/// How far a log file is to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// As far as it goes.
    Live {
        /// The highest sequence number that anything outside this file (a later log, the
        /// MANIFEST) proves to have been synced; [`SeqNo::ZERO`] where nothing does.
        synced_outside: SeqNo,
    },
    /// Exactly so far, as the MANIFEST says; what stands after it was torn off long ago.
    Accepted {
        /// Length of what counts.
        len: u64,
        /// Its last sequence number.
        last_seq: SeqNo,
    },
}

/// How a log file ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogEnd {
    /// Length of the part that counts: whole records, whole batches.
    pub(crate) accepted_len: u64,
    /// The last sequence number in it; the one before the file's first where it is empty.
    pub(crate) last_seq: SeqNo,
    /// What happened there.
    pub(crate) ending: Ending,
}

/// What happened where a log file ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// It was ended on purpose.
    Clean(Mark),
    /// The process ended between two writes; nothing is lost or left over.
    Unmarked,
    /// A write that nobody was told of is there in part; it does not count.
    Torn {
        /// Where the first bad record begins. At or after `accepted_len`.
        at: u64,
        /// What is wrong there.
        why: BadFrame,
    },
    /// The MANIFEST had judged it before.
    Accepted,
}

/// Bytes that were in the log are gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Damage {
    /// Offset of the first byte of the damaged part.
    pub(crate) at: u64,
    /// Offset of the first byte after it: where the next intact record begins, or the file ends.
    pub(crate) until: u64,
    /// The sequence number that should be found at `at`.
    pub(crate) lost: SeqNo,
    /// What was found instead.
    pub(crate) why: BadFrame,
    /// How it is known not to be a torn write.
    pub(crate) evidence: Evidence,
}

/// How damage is known to be damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Evidence {
    /// An intact record further on in the file was written after the lost one was synced.
    LaterRecord,
    /// A later log or the MANIFEST says so.
    Outside,
    /// It is not: the search for later records was cut short, and the careful answer is this one.
    SearchCutShort,
    /// There are bytes after the mark that ended the file.
    AfterMark,
    /// Records of a newer version of the format.
    NewerVersion,
    /// An intact record follows in a log without checksums.
    Legacy,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, until, lost, why, evidence } = self;
        let reason = match evidence {
            Evidence::LaterRecord => "a later record proves that it was synced",
            Evidence::Outside => "a later log or the manifest proves that it was synced",
            Evidence::SearchCutShort => {
                "too many places look like records to tell if it was synced"
            }
            Evidence::AfterMark => "nothing is ever written after the mark that ends a log",
            Evidence::NewerVersion => "this build is too old for it",
            Evidence::Legacy => "an intact record follows",
        };
        write!(f, "{why} where record {lost} should be; {reason}; bytes {at}..{until} are affected")
    }
}

impl Damage {
    /// Whether this is damage only because nobody looked to the end.
    #[cfg(all(feature = "internals", not(any(loom, shuttle))))]
    pub(crate) fn is_cut_short(&self) -> bool {
        self.evidence == Evidence::SearchCutShort
    }

    /// The error that refuses `file`.
    pub(crate) fn into_error(self, file: &Path) -> TalaError {
        match self.why {
            BadFrame::Version(found) => TalaError::UnsupportedVersion {
                file: file.to_owned(),
                found: u32::from(found),
                supported: u32::from(TAIL_VERSION),
            },
            _ => TalaError::corrupt(file, self.at, self.to_string()),
        }
    }
}

/// What was read last before the place where reading stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LastRead {
    /// A whole batch, or nothing at all.
    Batch,
    /// Some records of a batch, not all.
    PartOfBatch,
    /// The mark that ends a file.
    Mark,
}

/// What is left in the file from that place on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    Nothing,
    /// Room prepared ahead of the end.
    Zeros,
    /// Bytes that are not the next record.
    BadFrame,
    /// An intact record of a version that this build does not know.
    NewerRecord,
}

/// What proves that the first sequence number that would not be kept had been synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Proof {
    None,
    LaterRecord,
    Outside,
    SearchCutShort,
}

/// What the end of a log means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Clean,
    Unmarked,
    Torn,
    Damaged(Evidence),
}

/// How a log may end, and what each ending means.
const fn verdict(last: LastRead, left: Left, proof: Proof) -> Verdict {
    match (last, left, proof) {
        // A mark ends its file whatever later logs prove; they go on with the next number.
        (LastRead::Mark, Left::Nothing | Left::Zeros, _) => Verdict::Clean,
        (LastRead::Mark, Left::BadFrame | Left::NewerRecord, _) => {
            Verdict::Damaged(Evidence::AfterMark)
        }
        // Calling a newer record torn would throw away what a newer program wrote.
        (_, Left::NewerRecord, _) => Verdict::Damaged(Evidence::NewerVersion),
        (_, _, Proof::Outside) => Verdict::Damaged(Evidence::Outside),
        (_, _, Proof::LaterRecord) => Verdict::Damaged(Evidence::LaterRecord),
        (_, _, Proof::SearchCutShort) => Verdict::Damaged(Evidence::SearchCutShort),
        (LastRead::Batch, Left::Nothing | Left::Zeros, Proof::None) => Verdict::Unmarked,
        (LastRead::Batch, Left::BadFrame, Proof::None) => Verdict::Torn,
        (LastRead::PartOfBatch, _, Proof::None) => Verdict::Torn,
    }
}

/// The part of a log file that counts.
#[derive(Debug)]
pub(crate) struct LogContents<'a> {
    bytes: &'a [u8],
    first_seq: SeqNo,
    end: LogEnd,
}

impl<'a> LogContents<'a> {
    /// How the file ended.
    pub(crate) const fn end(&self) -> LogEnd {
        self.end
    }

    /// Its records in order, marks included.
    pub(crate) fn records(&self) -> Records<'a> {
        let (bytes, next_seq) = (self.bytes, self.first_seq);
        Records { bytes, at: 0, next_seq, is_unchanged: false }
    }
}

/// One record of a log, owned.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct LogRecord {
    /// Where it begins in the file.
    pub(crate) offset: u64,
    /// Its sequence number.
    pub(crate) seq: SeqNo,
    /// Its place in its batch.
    pub(crate) place: BatchPlace,
    /// What it says.
    pub(crate) op: LogOp,
}

/// Iterator over the records that count. The bytes were judged before. Unless it is known that
/// nobody wrote to them since, their checksums are checked again on the way: they may be a mapped
/// file.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    next_seq: SeqNo,
    is_unchanged: bool,
}

impl<'a> Records<'a> {
    /// The next record without a copy of its fields, and its offset.
    fn next_frame(&mut self) -> Option<Result<(usize, Frame<'a>), Damage>> {
        let at = self.at;
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let decoded =
            if self.is_unchanged { decode_checked_frame(rest) } else { decode_frame(rest) };
        match decoded {
            Ok(frame) => {
                self.at = at + frame.len;
                self.next_seq = frame.stamp.seq.next();
                Some(Ok((at, frame)))
            }
            Err(why) => {
                self.at = self.bytes.len();
                Some(Err(Damage {
                    at: at as u64,
                    until: self.bytes.len() as u64,
                    lost: self.next_seq,
                    why,
                    evidence: Evidence::LaterRecord,
                }))
            }
        }
    }

    /// The same records without copies of their fields.
    pub(crate) fn frames(mut self) -> impl Iterator<Item = Result<Frame<'a>, Damage>> {
        std::iter::from_fn(move || self.next_frame().map(|item| item.map(|(_, frame)| frame)))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<LogRecord, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_frame().map(|item| {
            item.map(|(at, frame)| LogRecord {
                offset: at as u64,
                seq: frame.stamp.seq,
                place: frame.place,
                op: frame.to_op(),
            })
        })
    }
}

/// Reads the log file whose bytes these are, and judges its end.
///
/// # Errors
/// [`Damage`] where records are missing that had been synced.
pub(crate) fn read_log<'a>(
    bytes: &'a [u8],
    expected: &Expected,
) -> Result<LogContents<'a>, Damage> {
    let (end, kept) = match expected.bound {
        Bound::Live { synced_outside } => judge_live(bytes, expected, synced_outside)?,
        Bound::Accepted { len, last_seq } => judge_accepted(bytes, expected, len, last_seq)?,
    };
    Ok(LogContents { bytes: kept, first_seq: expected.first_seq, end })
}

/// The records of a log that was read before and found to end like this, without judging it again:
/// nobody wrote to its bytes since.
pub(crate) fn accepted_records<'a>(
    bytes: &'a [u8],
    expected: &Expected,
    end: &LogEnd,
) -> Records<'a> {
    let kept = usize::try_from(end.accepted_len).ok().and_then(|len| bytes.get(..len));
    let bytes = kept.unwrap_or(bytes);
    Records { bytes, at: 0, next_seq: expected.first_seq, is_unchanged: true }
}

/// Whether log file `file`, of which nothing else is known, begins with a whole write or a mark.
pub(crate) fn holds_a_write(bytes: &[u8], file: FileNumber) -> bool {
    let Ok(first) = decode_frame(bytes) else { return false };
    let bound = Bound::Live { synced_outside: SeqNo::ZERO };
    let expected = Expected { file, first_seq: first.stamp.seq, bound };
    !Walk::over(bytes, &expected).kept.is_empty()
}

/// The highest sequence number that the intact records of log file `file` prove to have been
/// synced: what a log says about the logs before it. [`SeqNo::ZERO`] where it says nothing;
/// `u64::MAX`, so that nothing passes for torn, where the search had to be cut short.
pub(crate) fn synced_proof(bytes: &[u8], file: FileNumber) -> SeqNo {
    let mut frames = IntactFrames::new(bytes, 0, Some(file));
    let highest = frames.by_ref().map(|(_, frame)| frame.stamp.synced).max();
    if frames.is_exhausted() { SeqNo(u64::MAX) } else { highest.unwrap_or_default() }
}

fn judge_live<'a>(
    bytes: &'a [u8],
    expected: &Expected,
    synced_outside: SeqNo,
) -> Result<(LogEnd, &'a [u8]), Damage> {
    let walk = Walk::over(bytes, expected);
    let found = Found::after(bytes, expected.file, &walk, synced_outside);
    let ending = match (verdict(walk.last_read(), found.left, found.proof), walk.mark) {
        (Verdict::Clean, Some(mark)) => Ending::Clean(mark),
        (Verdict::Clean | Verdict::Unmarked, _) => Ending::Unmarked,
        (Verdict::Torn, _) => Ending::Torn { at: walk.at as u64, why: walk.why },
        (Verdict::Damaged(evidence), _) => {
            return Err(Damage {
                at: walk.at as u64,
                until: found.next_intact.unwrap_or(bytes.len()) as u64,
                lost: walk.next_seq,
                why: walk.why,
                evidence,
            });
        }
    };
    Ok((walk.end(ending), walk.kept))
}

fn judge_accepted<'a>(
    bytes: &'a [u8],
    expected: &Expected,
    len: u64,
    last_seq: SeqNo,
) -> Result<(LogEnd, &'a [u8]), Damage> {
    let within = usize::try_from(len).ok().and_then(|len| bytes.get(..len));
    let walk = Walk::over(within.unwrap_or(bytes), expected);
    let end = walk.end(Ending::Accepted);
    if within.is_some() && end.accepted_len == len && end.last_seq == last_seq {
        return Ok((end, walk.kept));
    }
    // The MANIFEST accepted this part whole, so nothing in it can be torn.
    let later = IntactFrames::new(within.unwrap_or(bytes), walk.at, Some(expected.file)).next();
    Err(Damage {
        at: walk.at as u64,
        until: later.map_or(len, |(at, _)| at as u64),
        lost: walk.next_seq,
        why: walk.why,
        evidence: Evidence::Outside,
    })
}

/// The records from the start of a file up to the first place where the next one is not.
struct Walk<'a> {
    /// Where reading stopped.
    at: usize,
    /// The sequence number that should be found there.
    next_seq: SeqNo,
    /// Why nothing more was read.
    why: BadFrame,
    /// The whole batches that were read.
    kept: &'a [u8],
    /// The sequence number after `kept`; below `next_seq` where a batch is incomplete.
    kept_next_seq: SeqNo,
    mark: Option<Mark>,
}

impl<'a> Walk<'a> {
    fn over(bytes: &'a [u8], expected: &Expected) -> Self {
        let first = expected.first_seq;
        let mut walk = Self {
            at: 0,
            next_seq: first,
            why: BadFrame::PastEnd,
            kept: &[],
            kept_next_seq: first,
            mark: None,
        };
        let mut previous = None;
        while walk.mark.is_none() {
            let frame = match next_frame(bytes, &walk, expected.file, previous) {
                Ok(frame) => frame,
                Err(why) => {
                    walk.why = why;
                    break;
                }
            };
            walk.at += frame.len;
            walk.next_seq = frame.stamp.seq.next();
            previous = Some(frame.place);
            if frame.place.is_last() {
                previous = None;
                walk.kept = bytes.get(..walk.at).unwrap_or(bytes);
                walk.kept_next_seq = walk.next_seq;
            }
            if let Body::Mark(mark) = frame.body {
                walk.mark = Some(mark);
                walk.why = BadFrame::AfterMark;
            }
        }
        walk
    }

    fn last_read(&self) -> LastRead {
        match self.mark {
            Some(_) => LastRead::Mark,
            None if self.next_seq == self.kept_next_seq => LastRead::Batch,
            None => LastRead::PartOfBatch,
        }
    }

    fn end(&self, ending: Ending) -> LogEnd {
        let last_seq = self.kept_next_seq.previous();
        LogEnd { accepted_len: self.kept.len() as u64, last_seq, ending }
    }
}

/// The record that should be next; `previous` is the place of the one before it in an open batch.
fn next_frame<'a>(
    bytes: &'a [u8],
    walk: &Walk<'_>,
    file: FileNumber,
    previous: Option<BatchPlace>,
) -> Result<Frame<'a>, BadFrame> {
    let frame = decode_frame(bytes.get(walk.at..).unwrap_or_default())?;
    if frame.stamp.file != file {
        return Err(BadFrame::WrongFile(frame.stamp.file));
    }
    if frame.stamp.seq != walk.next_seq {
        return Err(BadFrame::WrongSequence(frame.stamp.seq));
    }
    let continues = match previous {
        None => frame.place.index == 0,
        Some(before) => {
            frame.place == BatchPlace { index: before.index.saturating_add(1), len: before.len }
        }
    };
    if continues { Ok(frame) } else { Err(BadFrame::OutOfBatch) }
}

/// What stands after the place where reading stopped.
struct Found {
    left: Left,
    proof: Proof,
    /// Offset of the first intact record there.
    next_intact: Option<usize>,
}

impl Found {
    fn after(bytes: &[u8], file: FileNumber, walk: &Walk<'_>, synced_outside: SeqNo) -> Self {
        let rest = bytes.get(walk.at..).unwrap_or_default();
        let left = match walk.why {
            _ if rest.is_empty() => Left::Nothing,
            _ if all_zero(rest) => Left::Zeros,
            BadFrame::Version(_) => Left::NewerRecord,
            _ => Left::BadFrame,
        };
        let mut found = Self { left, proof: Proof::None, next_intact: None };
        if left == Left::BadFrame {
            // Everything after `kept` would be cut, so proof of any of it counts. The search
            // includes the bad place itself: a gap shows as an intact record with a later number.
            let mut later = IntactFrames::new(bytes, walk.at, Some(file));
            for (at, frame) in later.by_ref() {
                found.next_intact.get_or_insert(at);
                if frame.stamp.synced >= walk.kept_next_seq {
                    found.proof = Proof::LaterRecord;
                    break;
                }
            }
            if later.is_exhausted() {
                found.proof = Proof::SearchCutShort;
            }
        }
        if synced_outside >= walk.kept_next_seq {
            found.proof = Proof::Outside;
        }
        found
    }
}

#[cfg(test)]
mod tests;
