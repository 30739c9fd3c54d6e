//! The log's writer: the one thread that decides the order of all writes.
//!
//! One round: take what is queued, give sequence numbers, append in one write, make it durable
//! (once for all of them), publish, answer. While one round waits for the disk, the mailbox fills, and
//! the next round takes all of it. Only where callers are few, and were just answered, does a round
//! wait for them, for a part of what its sync takes ([`Company`]): otherwise half of them miss each sync.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tala_core::{IntentId, StopCause, TalaError};

use super::{Encoded, LogFile, LogOp, Mark, Stamp};
use crate::{
    actor::{Actor, Fate, Flow},
    gate::Permit,
    ids::{FileNumber, IdMap, SeqNo},
    metrics::{Instruments, Timing, TrackedMutex, record_stage},
    options::Durability,
    sync::{Inbox, Patience, Received, Reply, give_way, is_broken, now_ns},
};

/// A round takes letters until it has this many bytes of records; a larger single request makes a
/// round of its own.
const ROUND_BYTES: usize = 4 << 20;
/// A round takes letters until it has this many records.
const ROUND_RECORDS: usize = 4_096;

/// How long a round waits for a caller of the last one to come back.
const COMPANY_NS: u64 = 100_000;
/// Where so many were answered, enough of them come in time for the next sync, one way or another.
const COMPANY_MAX: usize = 8;
/// After so many waits in vain, one after the other, they become no rarer: one in `1 << this`.
const COMPANY_MISSES_MAX: u32 = 6;

/// What the writer is asked for.
pub enum WalLetter {
    /// Write these operations, one after the other with nothing between them.
    Write(WriteRequest),
    /// Make everything written so far durable, whatever the durability level.
    Sync(Request),
    /// Turn the hot buffer into a segment; answered when the segment is published.
    Flush(Request),
    /// Finish.
    Close,
}

/// A request that is answered when it is done.
pub struct Request {
    /// The sender's place in the mailbox, given back when the letter is taken out; `None` for the
    /// engine's own requests.
    pub room: Option<Permit>,
    /// Answered when it is done.
    pub reply: Reply<()>,
}

/// A sender's places in the mailbox: as one request, and for the bytes that it holds.
pub type Room = [Option<Permit>; 2];

/// A request to write.
pub struct WriteRequest {
    /// What to write.
    pub ops: Vec<PreparedOp>,
    /// The sender's places in the mailbox, given back when the letter is taken out.
    pub room: Room,
    /// The sender's share of the rows that may wait to be linked; kept when they are published.
    pub lag: Option<Permit>,
    /// When it was sent.
    pub sent_ns: u64,
    /// Answered with whether the operation applied: `false` for an outcome or a removal whose
    /// intent does not exist in log order.
    pub reply: Reply<bool>,
}

/// An operation and, for engines with a log, its record as far as its sender could encode it.
pub struct PreparedOp {
    /// What to do.
    pub op: LogOp,
    /// Its record.
    pub encoded: Option<Encoded>,
}

impl PreparedOp {
    /// Bytes of log that it takes; without a log, those of the embedding, command and parents.
    pub fn log_bytes(&self) -> usize {
        self.encoded
            .as_ref()
            .map_or_else(|| self.intent_bytes(), |encoded| encoded.encoded_len() as usize)
    }

    /// Bytes of memory that it holds on its way to the log: itself, of the intent, of the record.
    pub fn held_bytes(&self) -> usize {
        size_of::<Self>()
            + self.intent_bytes()
            + self.encoded.as_ref().map_or(0, |encoded| encoded.encoded_len() as usize)
    }

    fn intent_bytes(&self) -> usize {
        let LogOp::Insert(intent) = &self.op else { return 0 };
        size_of_val(&*intent.embedding)
            + intent.raw_command.len()
            + size_of_val(&*intent.parent_ids)
    }
}

/// An operation with its place in the log, on its way to publication.
pub struct Staged {
    /// Its place.
    pub seq: SeqNo,
    /// What to do.
    pub op: LogOp,
    /// Whether readers may see the store as it is after this operation; `false` inside a batch.
    pub ends_unit: bool,
}

/// Where a log was cut, and so what the segment made of the hot buffer covers.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The last sequence number covered.
    pub last_seq: SeqNo,
    /// The last log file covered.
    pub log: FileNumber,
}

/// What becomes of durable writes.
pub trait CommitSink: Send + 'static {
    /// Whether an intent exists in what was published.
    fn contains(&self, id: &IntentId) -> bool;

    /// Makes operations visible in order; empties `staged`.
    ///
    /// # Errors
    /// No row is left.
    fn publish(&mut self, staged: &mut Vec<Staged>) -> Result<(), StopCause>;

    /// Whether the hot buffer has reached its capacity in intents.
    fn is_full(&self) -> bool;

    /// Whether a segment made of the hot buffer would say nothing.
    fn says_nothing(&self) -> bool;

    /// Sends the hot buffer off to become a segment that covers everything up to `cut`, waiting
    /// while earlier ones are still being written. Answers when the segment is published.
    fn seal(&mut self, cut: Cut, reply: Option<Reply<()>>);

    /// Answers when the segments sealed so far are published.
    fn after_seals(&mut self, reply: Reply<()>);

    /// Has it written down that the log ended in good order with this sequence number.
    fn log_closed(&mut self, last_seq: SeqNo);

    /// Empties the hot buffer of an engine that has no segments.
    fn discard(&mut self);
}

/// The log as its writer sees it.
pub struct Log<F> {
    /// The open file, behind the lock that the metrics know as `wal_lock`.
    pub file: TrackedMutex<F>,
    /// Number of the open file.
    pub number: FileNumber,
    /// When a write counts as done.
    pub durability: Durability,
    /// How many bytes make the hot buffer full.
    pub bytes_max: u64,
    /// Bytes of log, in this file and older ones, that the hot buffer covers.
    pub covered_bytes: u64,
    /// Everything up to here is durable.
    pub synced: SeqNo,
    /// Since when something waits to be made durable.
    pub unsynced_since_ns: Option<u64>,
}

/// The actor.
pub struct WalActor<F, S> {
    log: Option<Log<F>>,
    sink: S,
    next: SeqNo,
    round: Round,
    company: Company,
    /// Whether the open log file is used up and a better one is there: asked at each append, where
    /// the file's lock is held anyway.
    file_is_used_up: bool,
    fate: Arc<Fate>,
    metrics: Arc<Instruments>,
}

/// What one round has taken so far. Its buffers are kept from round to round.
#[derive(Default)]
struct Round {
    bytes: Vec<u8>,
    staged: Vec<Staged>,
    /// Whether the ids touched by `staged[..existence_noted]` will exist after the round. Noted
    /// when first asked for: a round of inserts alone never does.
    exists: IdMap<bool>,
    existence_noted: usize,
    lag: Vec<Permit>,
    answers: Vec<(Reply<bool>, bool)>,
    synced: Vec<Reply<()>>,
}

impl Round {
    /// Whether the intent will exist after what is staged; `None` where that does not touch it.
    fn exists(&mut self, id: &IntentId) -> Option<bool> {
        for staged in self.staged.iter().skip(self.existence_noted) {
            match &staged.op {
                LogOp::Insert(intent) => self.exists.insert(intent.id, true),
                LogOp::Removal { id } => self.exists.insert(*id, false),
                LogOp::Outcome { .. } | LogOp::Mark(_) => None,
            };
        }
        self.existence_noted = self.staged.len();
        self.exists.get(id).copied()
    }

    /// Begins anew: what was staged is published.
    fn forget_existence(&mut self) {
        self.exists.clear();
        self.existence_noted = 0;
    }
}

/// Callers that write, are answered and write again: whether a round may expect those of the last.
#[derive(Default)]
struct Company {
    /// How many the last round answered.
    answered: usize,
    /// Waits in vain since the last one that was not.
    misses: u32,
    /// How many rounds do not wait before the next try.
    skip: u32,
}

impl Company {
    /// Whether a round of so many waits for one more.
    fn is_expected(&self, so_far: usize) -> bool {
        self.skip == 0 && self.answered <= COMPANY_MAX && so_far < self.answered
    }

    /// Takes note of whether somebody came in time.
    fn waited(&mut self, came: bool) {
        if came {
            self.misses = 0;
        } else {
            self.misses = (self.misses + 1).min(COMPANY_MISSES_MAX);
            self.skip = 1 << self.misses;
        }
    }

    /// A round ends, with so many to answer.
    fn answered(&mut self, count: usize) {
        self.answered = count;
        self.skip = self.skip.saturating_sub(1);
    }
}

impl<F: LogFile + 'static, S: CommitSink> WalActor<F, S> {
    /// A writer that goes on at `next`.
    pub fn new(
        log: Option<Log<F>>,
        sink: S,
        next: SeqNo,
        fate: Arc<Fate>,
        metrics: Arc<Instruments>,
    ) -> Self {
        let (round, company) = (Round::default(), Company::default());
        Self { log, sink, next, round, company, file_is_used_up: false, fate, metrics }
    }

    /// What belongs to this round and is there, or is so soon.
    fn next_letter(&mut self, inbox: &Inbox<WalLetter>) -> Option<WalLetter> {
        let is_synced =
            self.log.as_ref().is_some_and(|log| matches!(log.durability, Durability::Sync));
        let waits = is_synced && self.company.is_expected(self.round.answers.len());
        let mut letter = None;
        give_way(if waits { COMPANY_NS } else { 0 }, || {
            if let Received::Letter(next) = inbox.receive(Patience::None) {
                letter = Some(next);
            }
            letter.is_some()
        });
        if waits {
            self.company.waited(letter.is_some());
        }
        letter
    }

    /// Takes one request into the round.
    fn stage(&mut self, request: WriteRequest) {
        let WriteRequest { ops, room, lag, sent_ns, reply } = request;
        drop(room);
        self.metrics.record_since(Timing::QueueWait, sent_ns);
        let mut applies = true;
        let ops_count = ops.len();
        for (index, PreparedOp { op, encoded }) in ops.into_iter().enumerate() {
            if let LogOp::Outcome { id, .. } | LogOp::Removal { id } = &op {
                applies = self.round.exists(id).unwrap_or_else(|| self.sink.contains(id));
                if !applies {
                    continue;
                }
            }
            let seq = self.next;
            self.next = seq.next();
            if let (Some(log), Some(encoded)) = (&self.log, encoded) {
                let stamp = Stamp { seq, file: log.number, synced: log.synced };
                encoded.stamp_into(&mut self.round.bytes, stamp);
            }
            self.round.staged.push(Staged { seq, op, ends_unit: index + 1 == ops_count });
        }
        self.round.lag.extend(lag);
        self.round.answers.push((reply, applies));
    }

    /// Durable, then visible, then answered.
    fn commit(&mut self) -> Result<(), StopCause> {
        // A thread of ours may have died since the last round: from then on nothing is answered.
        self.fate.check().map_err(StopCause::Failed)?;
        if is_broken("an answer before the write") {
            self.round.answers.drain(..).for_each(|(reply, applies)| reply.send(applies));
        }
        self.write().map_err(StopCause::Failed)?;
        if is_broken("an answer before the publication") {
            self.round.answers.drain(..).for_each(|(reply, applies)| reply.send(applies));
        }
        let (publishes, since_ns) = (!self.round.staged.is_empty(), now_ns());
        // From its first row on it is the builder that gives the shares back, also where the rest of the
        // publication fails: nobody is let in any more then, so those of rows that never come do not matter.
        self.round.lag.drain(..).for_each(Permit::keep);
        self.sink.publish(&mut self.round.staged)?;
        if is_broken("a sync after the publication") {
            self.work()?;
        }
        if publishes {
            self.metrics.record_since(Timing::Publish, since_ns);
        }
        self.round.forget_existence();
        self.fate.check().map_err(StopCause::Failed)?;
        for (reply, applies) in self.round.answers.drain(..) {
            reply.send(applies);
        }
        for reply in self.round.synced.drain(..) {
            reply.send(());
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), TalaError> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let Round { bytes, staged, synced, .. } = &mut self.round;
        let since_ns = now_ns();
        if !staged.is_empty() {
            let mut file = log.file.lock();
            let append_ns = now_ns();
            file.append(bytes)?;
            self.metrics.record_since(Timing::LogWrite, append_ns);
            self.file_is_used_up = file.is_used_up();
            log.covered_bytes += bytes.len() as u64;
            bytes.clear();
            log.unsynced_since_ns.get_or_insert(since_ns);
        }
        let is_due = match log.durability {
            Durability::Sync => !is_broken("a sync after the publication"),
            Durability::Interval(_) => log.sync_due_ns().is_some_and(|due_ns| due_ns <= since_ns),
            Durability::Os => false,
        };
        if is_due || !synced.is_empty() {
            log.sync(self.next, &self.metrics)?;
        }
        let written = staged.len() as u64;
        if written > 0 {
            let metrics = &self.metrics;
            record_stage(&metrics.wal_append_ns, &metrics.wal_append_count, since_ns, written);
            metrics.wal_entry_count.fetch_add(written, Relaxed);
        }
        Ok(())
    }

    /// Ends the log file and goes on in the next one; the hot buffer becomes a segment.
    fn rotate(&mut self, reply: Option<Reply<()>>) -> Result<(), StopCause> {
        let Some(log) = &mut self.log else {
            self.sink.discard();
            if let Some(reply) = reply {
                reply.send(());
            }
            return Ok(());
        };
        log.sync(self.next, &self.metrics).map_err(StopCause::Failed)?;
        let number = log.number;
        let mark_seq = self.next;
        log.file.lock().sealed();
        log.go_on_in_next(mark_seq, &self.metrics).map_err(StopCause::Failed)?;
        log.covered_bytes = 0;
        let cut = Cut { last_seq: mark_seq, log: number };
        self.next = mark_seq.next();
        self.file_is_used_up = false;
        self.sink.seal(cut, reply);
        Ok(())
    }

    /// Ends the log file, which is used up, and goes on in the next one. The hot buffer stays as it
    /// is, and covers both.
    fn go_on(&mut self) -> Result<(), StopCause> {
        let Some(log) = &mut self.log else { return Ok(()) };
        log.sync(self.next, &self.metrics).map_err(StopCause::Failed)?;
        log.go_on_in_next(self.next, &self.metrics).map_err(StopCause::Failed)?;
        self.next = self.next.next();
        self.file_is_used_up = false;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.sink.is_full() || self.log.as_ref().is_some_and(Log::is_full)
    }
}

impl<F: LogFile> Log<F> {
    /// Makes everything before `next` durable, if anything waits for it.
    fn sync(&mut self, next: SeqNo, metrics: &Instruments) -> Result<(), TalaError> {
        if self.unsynced_since_ns.is_some() {
            sync_file(&mut *self.file.lock(), metrics)?;
            self.unsynced_since_ns = None;
        }
        self.synced = SeqNo(next.0 - 1);
        Ok(())
    }

    /// Ends the file with a durable mark; everything before it has been synced.
    fn end_with(&mut self, seq: SeqNo, mark: Mark, metrics: &Instruments) -> Result<(), TalaError> {
        let mut bytes = Vec::new();
        let stamp = Stamp { seq, file: self.number, synced: self.synced };
        Encoded::mark(mark)?.stamp_into(&mut bytes, stamp);
        let mut file = self.file.lock();
        file.append(&bytes)?;
        file.cut()?;
        sync_file(&mut *file, metrics)
    }

    /// Ends the file and goes on in the next one, which exists before the mark says so.
    fn go_on_in_next(&mut self, mark_seq: SeqNo, metrics: &Instruments) -> Result<(), TalaError> {
        let next = self.number.next();
        self.file.lock().prepare(next)?;
        self.end_with(mark_seq, Mark::Rotated { next }, metrics)?;
        self.file.lock().rotate(next)?;
        self.synced = mark_seq;
        self.number = next;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.covered_bytes >= self.bytes_max
    }

    /// When what waits to be made durable has to be.
    fn sync_due_ns(&self) -> Option<u64> {
        match (self.durability, self.unsynced_since_ns) {
            (Durability::Interval(interval), Some(since_ns)) => {
                Some(since_ns.saturating_add(nanoseconds(interval)))
            }
            _ => None,
        }
    }
}

impl<F: LogFile + 'static, S: CommitSink> Actor for WalActor<F, S> {
    const NAME: &'static str = "tala-wal";
    type Letter = WalLetter;

    fn step(&mut self, first: WalLetter, inbox: &Inbox<WalLetter>) -> Result<Flow, StopCause> {
        let mut flush = None;
        let mut flow = Flow::Continue;
        let mut letter = Some(first);
        if is_broken("a write that overtakes")
            && let Received::Letter(WalLetter::Write(next)) = inbox.receive(Patience::None)
        {
            self.stage(next);
        }
        while let Some(taken) = letter.take() {
            match taken {
                WalLetter::Write(request) => self.stage(request),
                WalLetter::Sync(Request { room, reply }) => {
                    drop(room);
                    self.round.synced.push(reply);
                }
                // These two act on what the round leaves behind, so they end it.
                WalLetter::Flush(Request { room, reply }) => {
                    drop(room);
                    flush = Some(reply);
                    break;
                }
                WalLetter::Close => {
                    flow = Flow::Stop;
                    break;
                }
            }
            if self.round.bytes.len() >= ROUND_BYTES || self.round.staged.len() >= ROUND_RECORDS {
                break;
            }
            letter = self.next_letter(inbox);
        }
        self.company.answered(self.round.answers.len());
        self.commit()?;
        match flush {
            // With nothing to say there is still an earlier segment to wait for.
            Some(reply) if self.sink.says_nothing() => self.sink.after_seals(reply),
            Some(reply) => self.rotate(Some(reply))?,
            None if self.is_full() => self.rotate(None)?,
            None if self.file_is_used_up => self.go_on()?,
            None => {}
        }
        Ok(flow)
    }

    fn patience(&self) -> Patience {
        self.log.as_ref().and_then(Log::sync_due_ns).map_or(Patience::Endless, Patience::Until)
    }

    fn work(&mut self) -> Result<(), StopCause> {
        let next = self.next;
        let Some(log) = &mut self.log else { return Ok(()) };
        log.sync(next, &self.metrics).map_err(StopCause::Failed)
    }

    fn finish(&mut self) -> Result<(), StopCause> {
        let next = self.next;
        let Some(log) = &mut self.log else { return Ok(()) };
        log.sync(next, &self.metrics).map_err(StopCause::Failed)?;
        log.end_with(next, Mark::Closed, &self.metrics).map_err(StopCause::Failed)?;
        self.sink.log_closed(next);
        Ok(())
    }
}

/// Syncs a log file, and records how long that took.
fn sync_file(file: &mut impl LogFile, metrics: &Instruments) -> Result<(), TalaError> {
    let since_ns = now_ns();
    file.sync()?;
    metrics.record_since(Timing::Fsync, since_ns);
    Ok(())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use tala_core::Intent;

    use super::*;

    fn id(number: u8) -> IntentId {
        IntentId::from_bytes([number; 16])
    }

    fn insert(number: u8) -> LogOp {
        LogOp::Insert(Intent {
            id: id(number),
            timestamp: 0,
            raw_command: String::new(),
            embedding: Vec::new(),
            context_hash: 0,
            parent_ids: Vec::new(),
            outcome: None,
            confidence: 1.0,
        })
    }

    #[test]
    fn callers_that_stay_away_are_waited_for_ever_more_rarely() {
        let mut company = Company::default();
        assert!(!company.is_expected(0), "nobody was there");
        company.answered(4);
        assert!(company.is_expected(3) && !company.is_expected(4));
        let mut waits = 0;
        for _ in 0..6_400 {
            if company.is_expected(1) {
                company.waited(false);
                waits += 1;
            }
            company.answered(2);
        }
        assert!((90..=110).contains(&waits), "{waits} waits");
        company.skip = 0;
        company.waited(true);
        company.answered(2);
        assert!(company.is_expected(1));
        company.answered(COMPANY_MAX + 1);
        assert!(!company.is_expected(1));
    }

    fn stage(round: &mut Round, op: LogOp) {
        round.staged.push(Staged { seq: SeqNo::FIRST, op, ends_unit: true });
    }

    #[test]
    fn what_is_staged_last_decides_whether_an_intent_exists() {
        let mut round = Round::default();
        stage(&mut round, insert(1));
        assert_eq!((round.exists(&id(1)), round.exists(&id(2))), (Some(true), None));
        stage(&mut round, LogOp::Removal { id: id(1) });
        stage(&mut round, insert(2));
        assert_eq!((round.exists(&id(1)), round.exists(&id(2))), (Some(false), Some(true)));
        stage(&mut round, insert(1));
        assert_eq!(round.exists(&id(1)), Some(true));

        round.staged.clear();
        round.forget_existence();
        stage(&mut round, insert(3));
        assert_eq!((round.exists(&id(1)), round.exists(&id(3))), (None, Some(true)));
    }
}
