//! The writers' half of the facade: what is prepared on the caller's thread, where it waits for
//! room, and how it is sent to the log's writer.

use std::sync::Arc;

use tala_core::{Intent, IntentId, TalaError};

use super::Inner;
use crate::{
    door::check_intent,
    gate::{Gate, GateClosed, Permit},
    ids::RowId,
    index::IndexLetter,
    metrics::Timing,
    sync::{Answer, Stopwatch, now_ns, one_shot},
    wal::{BatchPlace, Encoded, LogOp, PreparedOp, Request, Room, WalLetter, WriteRequest},
};

/// How many rows may be in the arena before inserts are refused. Row numbers have 32 bits; what is
/// left over is for requests that are past this check and on their way.
const ROWS_MAX: usize = (u32::MAX - (1 << 26)) as usize;

/// Where callers wait for room. Always passed in this order, so that nobody who holds a share of
/// a later gate waits for an earlier one.
pub(super) struct Gates {
    /// Rows that may wait to be linked.
    pub(super) lag: Arc<Gate>,
    /// Requests on their way to the log.
    pub(super) requests: Arc<Gate>,
    /// Their bytes.
    pub(super) bytes: Arc<Gate>,
    /// Requests on their way to the index builder, which no other gate stands before.
    pub(super) waits: Arc<Gate>,
}

impl Inner {
    /// Checks an intent and encodes its record, as far as that needs no place in the log.
    pub(super) fn prepare_insert(&self, intent: Intent) -> Result<PreparedOp, TalaError> {
        check_intent(&intent, self.view.dim)?;
        self.prepare_checked(intent, BatchPlace::SINGLE)
    }

    /// [`Inner::prepare_insert`] for an intent whose values were checked.
    fn prepare_checked(&self, intent: Intent, place: BatchPlace) -> Result<PreparedOp, TalaError> {
        let rows = u64::from(self.view.index.arena.len());
        check_size("number of rows", rows, ROWS_MAX)?;
        // Before anything of that size is allocated; in memory too, where the limit is one on memory.
        let record_bytes = Encoded::insert_len(&intent);
        check_size("record_bytes_max", record_bytes, self.options.record_bytes_max)?;
        let encoded = if self.is_persistent() {
            let watch = Stopwatch::start();
            let encoded = Encoded::insert(&intent, place)?;
            self.view.metrics.record(Timing::Encode, watch.elapsed_ns());
            Some(encoded)
        } else {
            None
        };
        Ok(PreparedOp { op: LogOp::Insert(intent), encoded })
    }

    /// Checks and encodes the intents of a batch.
    pub(super) fn prepare_batch(&self, intents: Vec<Intent>) -> Result<Vec<PreparedOp>, TalaError> {
        let what = "batch";
        let len = u32::try_from(intents.len()).map_err(|_| TalaError::TooLarge {
            what,
            got: intents.len() as u64,
            max: u64::from(u32::MAX),
        })?;
        let in_batch = |position: usize| {
            move |source| TalaError::InBatch { position, source: Box::new(source) }
        };
        // All are checked before the first is encoded: encoding a batch that is refused is a waste.
        for (position, intent) in intents.iter().enumerate() {
            check_intent(intent, self.view.dim).map_err(in_batch(position))?;
        }
        let mut bytes = 0;
        let mut ops = Vec::with_capacity(intents.len());
        for (index, intent) in (0..len).zip(intents) {
            let place = BatchPlace { index, len };
            let op = self.prepare_checked(intent, place).map_err(in_batch(index as usize))?;
            bytes += op.log_bytes();
            check_size("batch_bytes_max", bytes as u64, self.options.batch_bytes_max)?;
            ops.push(op);
        }
        Ok(ops)
    }

    /// Whether there is a log.
    fn is_persistent(&self) -> bool {
        self.manifest.is_some()
    }

    /// Waits for room for these inserts.
    pub(super) fn pass(&self, ops: &[PreparedOp]) -> Result<(Room, Permit), TalaError> {
        let closed = |GateClosed| self.fate.cause();
        let lag = self.gates.lag.pass(ops.len()).map_err(closed)?;
        let requests = self.gates.requests.pass(1).map_err(closed)?;
        let bytes =
            self.gates.bytes.pass(ops.iter().map(PreparedOp::held_bytes).sum()).map_err(closed)?;
        Ok(([Some(requests), Some(bytes)], lag))
    }

    /// Room for this insert if there is some now.
    pub(super) fn try_pass(&self, op: &PreparedOp) -> Result<Option<(Room, Permit)>, TalaError> {
        let closed = |GateClosed| self.fate.cause();
        let Some(lag) = self.gates.lag.try_pass(1).map_err(closed)? else { return Ok(None) };
        let Some(requests) = self.gates.requests.try_pass(1).map_err(closed)? else {
            return Ok(None);
        };
        let Some(bytes) = self.gates.bytes.try_pass(op.held_bytes()).map_err(closed)? else {
            return Ok(None);
        };
        Ok(Some(([Some(requests), Some(bytes)], lag)))
    }

    /// Room for this insert if there is some until `deadline_ns`.
    pub(super) fn pass_until(
        &self,
        op: &PreparedOp,
        deadline_ns: u64,
    ) -> Result<Option<(Room, Permit)>, TalaError> {
        let closed = |GateClosed| self.fate.cause();
        let Gates { lag, requests, bytes, .. } = &self.gates;
        let Some(lag) = lag.pass_until(1, deadline_ns).map_err(closed)? else { return Ok(None) };
        let Some(requests) = requests.pass_until(1, deadline_ns).map_err(closed)? else {
            return Ok(None);
        };
        let Some(bytes) = bytes.pass_until(op.held_bytes(), deadline_ns).map_err(closed)? else {
            return Ok(None);
        };
        Ok(Some(([Some(requests), Some(bytes)], lag)))
    }

    /// Writes an insert that was let in, whose caller came at `since_ns`; gives the intent of one that
    /// was not back.
    pub(super) fn write_or_give_back(
        &self,
        op: PreparedOp,
        permits: Option<(Room, Permit)>,
        since_ns: u64,
    ) -> Result<IntentId, TalaError> {
        let LogOp::Insert(intent) = &op.op else { unreachable!("an insert was prepared") };
        let id = intent.id;
        if let Some((room, lag)) = permits {
            self.write(vec![op], room, Some(lag))?;
            self.view.metrics.record_since(Timing::Insert, since_ns);
            return Ok(id);
        }
        let LogOp::Insert(intent) = op.op else { unreachable!("as above") };
        Err(TalaError::Busy { intent: Box::new(intent) })
    }

    /// [`Inner::pass`] for a task.
    pub(super) async fn pass_async(
        &self,
        ops: &[PreparedOp],
    ) -> Result<(Room, Permit), GateClosed> {
        let lag = self.gates.lag.pass_async(ops.len()).await?;
        let requests = self.gates.requests.pass_async(1).await?;
        let bytes =
            self.gates.bytes.pass_async(ops.iter().map(PreparedOp::held_bytes).sum()).await?;
        Ok(([Some(requests), Some(bytes)], lag))
    }

    /// Sends a request to the log's writer. Its gates were passed, so there is room for it.
    pub(super) fn send(
        &self,
        ops: Vec<PreparedOp>,
        room: Room,
        lag: Option<Permit>,
    ) -> Answer<bool> {
        let (reply, answer) = one_shot();
        let sent_ns = now_ns();
        self.actors.send_wal(WalLetter::Write(WriteRequest { ops, room, lag, sent_ns, reply }));
        answer
    }

    /// Writes, and returns whether the operation applied.
    pub(super) fn write(
        &self,
        ops: Vec<PreparedOp>,
        room: Room,
        lag: Option<Permit>,
    ) -> Result<bool, TalaError> {
        self.send(ops, room, lag).wait_awake(&self.spin).ok_or_else(|| self.fate.cause())
    }

    /// Writes an outcome or a removal, which the index's lag does not hold up.
    pub(super) fn write_change(&self, op: LogOp) -> Result<bool, TalaError> {
        self.check_open()?;
        let op = self.prepare_change(op)?;
        let requests = self.gates.requests.pass(1).map_err(|GateClosed| self.fate.cause())?;
        self.write(vec![op], [Some(requests), None], None)
    }

    /// Encodes the record of an outcome or a removal.
    pub(super) fn prepare_change(&self, op: LogOp) -> Result<PreparedOp, TalaError> {
        let encoded = match &op {
            LogOp::Outcome { id, outcome } => Encoded::outcome(*id, *outcome, BatchPlace::SINGLE)?,
            LogOp::Removal { id } => Encoded::removal(*id, BatchPlace::SINGLE)?,
            LogOp::Insert(_) | LogOp::Mark(_) => unreachable!("inserts are prepared elsewhere"),
        };
        Ok(PreparedOp { op, encoded: self.is_persistent().then_some(encoded) })
    }

    /// Asks the log's writer for something that is answered with "done".
    pub(super) fn ask_wal(
        &self,
        letter: impl FnOnce(Request) -> WalLetter,
    ) -> Result<(), TalaError> {
        self.check_open()?;
        let room = self.gates.requests.pass(1).map_err(|GateClosed| self.fate.cause())?;
        self.send_request(letter, room).wait().ok_or_else(|| self.fate.cause())
    }

    /// Sends such a request. Its gate was passed, so there is room for it.
    pub(super) fn send_request(
        &self,
        letter: impl FnOnce(Request) -> WalLetter,
        room: Permit,
    ) -> Answer<()> {
        let (reply, answer) = one_shot();
        self.actors.send_wal(letter(Request { room: Some(room), reply }));
        answer
    }

    /// Waits until the rows below `row` are linked.
    pub(super) fn wait_linked(&self, row: RowId) -> Result<(), TalaError> {
        let room = self.gates.waits.pass(1).map_err(|GateClosed| self.fate.cause())?;
        self.ask_linked(row, room).wait().ok_or_else(|| self.fate.cause())
    }

    /// Has it answered when the rows below `row` are linked. Its gate was passed, so there is room for
    /// the request.
    pub(super) fn ask_linked(&self, row: RowId, room: Permit) -> Answer<()> {
        let (reply, answer) = one_shot();
        self.actors.send_index(IndexLetter::WaitLinked { row, room, reply });
        answer
    }
}

fn check_size(what: &'static str, got: u64, max: usize) -> Result<(), TalaError> {
    let max = max as u64;
    if got > max { Err(TalaError::TooLarge { what, got, max }) } else { Ok(()) }
}
