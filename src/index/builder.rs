//! The index builder: links the rows of the arena into the graph, in row order, and keeps the
//! share of dead rows in it small.
//!
//! New rows are not sent to it: it looks at the arena's length, and a letter only wakes it up. So
//! nothing that is committed ever waits for it. It says at how many rows it wants to be woken
//! ([`Shared::wants_wake`]), so that what it has no use for yet wakes nobody.
//!
//! Where rows come faster than they can be linked, it leaves the processors to those who write until
//! half of the rows wait that may ([`Pace`]): the lag would grow all the same, and there would be
//! fewer rows to show for it. From then on, and for whoever waits, it links at full speed.
//!
//! Rows are linked in batches, which several threads draft at once. Where a batch ends depends on
//! the number of its first row alone, so the same rows give the same graph for any number of threads.
//! A batch that is not full waits for more, and searches scan its few rows meanwhile. Three things cut
//! it short, and then the graph may be another, as good: somebody waits for its rows, somebody waits
//! for room, or no row has come for a quarter of a second or two. Batches are smaller where few rows may wait.

use std::{ops::Range, sync::Arc};

use tala_core::StopCause;

use super::{Arena, Graph, GraphWriter, View};
use crate::{
    actor::{Actor, Flow},
    gate::{Gate, Permit},
    ids::RowId,
    metrics::{Instruments, Timing, TrackedMutex, record_stage},
    sync::{
        Inbox, Outbox, Patience, Reply,
        atomic::{AtomicU32, AtomicU64, Ordering},
        is_broken, now_ns, release,
    },
};

/// What the builder is asked for.
pub enum IndexLetter {
    /// There may be new rows.
    Wake,
    /// Answer when all rows below this one are linked.
    WaitLinked {
        /// The row.
        row: RowId,
        /// The sender's place in the mailbox, given back when the letter is taken out.
        room: Permit,
        /// Answered when it is done.
        reply: Reply<()>,
    },
    /// Finish, whatever is still to be linked.
    Close,
}

/// What the builder shares with readers and inserters.
pub struct Shared {
    /// The rows.
    pub arena: Arc<Arena>,
    /// The graph over them.
    pub graph: Arc<Graph>,
    /// Rows below this are in the graph, the rest is the tail; raised by the builder alone.
    pub linked: AtomicU32,
    /// Everything up to this sequence number may be seen; raised by the log's writer alone.
    pub visible: AtomicU64,
    /// At how many rows the builder wants to be woken; `u64::MAX` while it does not sleep.
    pub wake_at: AtomicU64,
    /// Held while links are written; searches do not take it.
    pub hnsw_lock: TrackedMutex<()>,
    /// Each row holds a share of it from its insertion until it is linked.
    pub lag: Arc<Gate>,
    /// Counters.
    pub metrics: Arc<Instruments>,
}

impl Shared {
    /// What a search that begins now is answered from.
    ///
    /// The loads are in this order: a row that the builder passed over as dead is then not in the
    /// snapshot, and every row of the snapshot is below the end. What is linked meanwhile is found
    /// once, by the scan.
    pub fn view(&self) -> View {
        View {
            linked: RowId(self.linked.load(Ordering::Acquire)),
            snapshot: self.visible.load(Ordering::Acquire),
            rows_end: RowId(self.arena.len()),
        }
    }
}

impl Shared {
    /// Whether the builder is to be woken, now that the rows are there that were just published. It
    /// is told so once for each time that it asks.
    ///
    /// The exchanges on `wake_at` are all read-modify-writes, so they have one order: a builder whose
    /// request comes before this finds it here, and one whose request comes after sees the rows.
    pub fn wants_wake(&self) -> bool {
        let wake_at = self.wake_at.fetch_add(0, Ordering::AcqRel);
        u64::from(self.arena.len()) >= wake_at
            && self
                .wake_at
                .compare_exchange(wake_at, u64::MAX, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// Asks to be woken at so many rows; whether they are there already.
    pub fn ask_for_wake(&self, rows: u64) -> bool {
        self.wake_at.swap(rows, Ordering::AcqRel);
        u64::from(self.arena.len()) >= rows
    }

    /// From now on has the builder woken when somebody begins to wait for room among the rows that may
    /// be unlinked: that is to wait for rows to be linked, and the builder may wait for a full batch.
    pub fn wake_for_room(&self, builder: Outbox<IndexLetter>) {
        if !is_broken("a wait for room that wakes nobody") {
            self.lag.on_wait(move || builder.send_if_empty(IndexLetter::Wake));
        }
    }
}

/// Rows of a batch, at most: enough to keep threads busy, and few beside those that are linked.
const BATCH_MAX: u32 = 64;

/// A batch is no more than this share of the rows before it: its rows do not see later ones.
/// (In a model with few rows there are batches as well.)
const BATCH_SHARE: u32 = if cfg!(loom) { 2 } else { 32 };

/// After so long without a new row, a batch that is not full is linked.
const QUIET_NS: u64 = 250_000_000;

/// How often the builder looks how fast rows come.
const PACE_NS: u64 = 5_000_000;

/// Rows come in a burst where so many come in the time that it takes to link one.
const BURST_ROWS: f64 = 2.0;

/// How fast rows come beside how fast they are linked.
#[derive(Debug, Default)]
struct Pace {
    /// What linking a row took of late, waiting for a processor included.
    link_ns: f64,
    /// When and at how many rows it was last looked.
    looked_ns: u64,
    looked_len: u32,
    /// Whether more came until then than could be linked.
    is_burst: bool,
}

impl Pace {
    /// Takes note of a batch that was linked.
    fn linked(&mut self, rows: u32, took_ns: u64) {
        let now = took_ns as f64 / f64::from(rows.max(1));
        self.link_ns = if self.link_ns == 0.0 { now } else { (3.0 * self.link_ns + now) / 4.0 };
    }

    /// Looks how many rows came, if it is time to.
    fn look(&mut self, now_ns: u64, len: u32) {
        let since_ns = now_ns.saturating_sub(self.looked_ns);
        if since_ns < PACE_NS {
            return;
        }
        let came = f64::from(len.saturating_sub(self.looked_len));
        self.is_burst = came * self.link_ns > BURST_ROWS * since_ns as f64;
        (self.looked_ns, self.looked_len) = (now_ns, len);
    }
}

/// The end of the batch that begins with row `next`, or that `next` lies in.
fn batch_end(next: u32, batch_max: u32) -> u32 {
    let size = (next / BATCH_SHARE).clamp(1, batch_max.clamp(1, BATCH_MAX));
    // A power of two, so that the batches of one size end where those of the next begin.
    let size = 1 << size.ilog2();
    (next / size + 1).saturating_mul(size)
}

/// The actor.
pub struct IndexActor {
    shared: Arc<Shared>,
    writer: GraphWriter,
    threads: usize,
    /// Rows of a batch, at most.
    batch_max: u32,
    /// So many rows may wait before it links at full speed whatever else goes on.
    deferred_max: u32,
    pace: Pace,
    /// Whether rows may have died since a repair was last found not to be due.
    may_repair: bool,
    /// The arena's length when last looked at, and when a batch that is not full is given up on.
    last_len: u32,
    quiet_at_ns: u64,
    /// Callers that wait for the watermark to pass a row.
    waiting: Vec<(RowId, Reply<()>)>,
}

impl IndexActor {
    /// A builder of the graph that `writer` writes, on so many threads. No more than `lag_max` rows
    /// ever wait for it.
    pub fn new(shared: Arc<Shared>, writer: GraphWriter, threads: usize, lag_max: usize) -> Self {
        // Half of what may wait, or a full batch could never come together. And as many may be left
        // waiting in a burst.
        let batch_max = u32::try_from(lag_max / 2).unwrap_or(u32::MAX);
        let last_len = shared.arena.len();
        let pace = Pace { looked_len: last_len, ..Pace::default() };
        Self {
            shared,
            writer,
            threads,
            batch_max,
            deferred_max: batch_max,
            pace,
            may_repair: false,
            last_len,
            quiet_at_ns: 0,
            waiting: Vec::new(),
        }
    }

    /// The rows that are due now.
    fn batch(&self) -> Option<Range<RowId>> {
        let next = self.shared.linked.load(Ordering::Relaxed);
        let len = self.shared.arena.len();
        if next >= len || self.defers(len - next) {
            return None;
        }
        let full = batch_end(next, self.batch_max);
        let end = if full <= len {
            full
        } else if self.shared.lag.is_waited_for()
            || (len == self.last_len && now_ns() >= self.quiet_at_ns)
        {
            len
        } else {
            // Those who wait for a row wait for no later one.
            self.waiting.iter().map(|(row, _)| row.0.min(len)).max()?
        };
        (end > next).then_some(RowId(next)..RowId(end))
    }

    /// Whether so many rows are left waiting, as more come than could be linked.
    fn defers(&self, waiting_rows: u32) -> bool {
        self.pace.is_burst
            && waiting_rows < self.deferred_max
            && self.waiting.is_empty()
            && !self.shared.lag.is_waited_for()
    }

    /// Links rows; those that died before their turn are passed over.
    fn link(&mut self, rows: Range<RowId>) -> Result<(), StopCause> {
        let Shared { linked, visible, hnsw_lock, lag, metrics, .. } = &*self.shared;
        let mut since_ns = now_ns();
        let horizon = visible.load(Ordering::Acquire);
        let (first, end) = (rows.start, rows.end);
        let begun_ns = since_ns;
        // The long part only reads; the lock is held while links are written.
        let drafts = self.writer.draft(rows, horizon, self.threads);
        let mut drafts_ns = now_ns().saturating_sub(begun_ns);
        let share_ns = drafts_ns / u64::from((end.0 - first.0).max(1));
        for (draft, row) in drafts.into_iter().zip(first.0..) {
            let plan = self.writer.settle(draft).map_err(|full| StopCause::Failed(full.into()))?;
            if is_broken("the watermark before the links") {
                linked.store(row + 1, Ordering::Release);
            }
            {
                let _guard = hnsw_lock.lock();
                self.writer.apply(plan);
            }
            // Release pairs with the Acquire of a search: below the watermark, the graph has the
            // row.
            linked.store(row + 1, release("the watermark without an order"));
            // In the sum the first row of the batch carries the time of the drafts, and in the
            // histogram each carries its share.
            let took_ns =
                record_stage(&metrics.hnsw_insert_ns, &metrics.hnsw_insert_count, since_ns, 1);
            metrics.record(Timing::Link, took_ns.saturating_sub(drafts_ns) + share_ns);
            drafts_ns = 0;
            since_ns = now_ns();
            lag.give_back(1);
        }
        self.pace.linked(end.0 - first.0, since_ns.saturating_sub(begun_ns));
        self.may_repair = true;
        Ok(())
    }

    /// Takes one step of replacing links to dead rows.
    fn repair(&mut self) {
        let horizon = self.shared.visible.load(Ordering::Acquire);
        match self.writer.plan_repair(horizon) {
            Some(plan) => {
                let _guard = self.shared.hnsw_lock.lock();
                self.writer.apply(plan);
            }
            None => self.may_repair = false,
        }
    }

    /// Looks for new rows and for what they replaced.
    fn look(&mut self) {
        let len = self.shared.arena.len();
        let now_ns = now_ns();
        self.pace.look(now_ns, len);
        // In a burst the dead wait as well.
        self.may_repair = !self.pace.is_burst;
        if len != self.last_len {
            self.last_len = len;
            self.quiet_at_ns = now_ns.saturating_add(QUIET_NS);
        }
    }

    /// Answers those whose rows are all linked.
    fn answer(&mut self) {
        if self.waiting.is_empty() || self.may_repair {
            return;
        }
        let linked = self.shared.linked.load(Ordering::Relaxed);
        for (_, reply) in self.waiting.extract_if(.., |(row, _)| row.0 <= linked) {
            reply.send(());
        }
    }
}

impl Actor for IndexActor {
    const NAME: &'static str = "tala-hnsw";
    type Letter = IndexLetter;

    fn step(
        &mut self,
        letter: IndexLetter,
        _inbox: &Inbox<IndexLetter>,
    ) -> Result<Flow, StopCause> {
        // Whatever the letter, there may be new rows: where the mailbox is full, a wake is not sent.
        self.look();
        match letter {
            IndexLetter::Wake => {}
            IndexLetter::WaitLinked { row, room, reply } => {
                drop(room);
                self.waiting.push((row, reply));
                self.answer();
            }
            IndexLetter::Close => return Ok(Flow::Stop),
        }
        Ok(Flow::Continue)
    }

    fn patience(&self) -> Patience {
        if self.may_repair || self.batch().is_some() {
            return Patience::None;
        }
        let linked = self.shared.linked.load(Ordering::Relaxed);
        let (wake_at, patience) = if linked >= self.last_len {
            (u64::from(linked) + 1, Patience::Endless)
        } else if self.pace.is_burst {
            let next_look_ns = self.pace.looked_ns.saturating_add(PACE_NS);
            (u64::from(linked) + u64::from(self.deferred_max), Patience::Until(next_look_ns))
        } else {
            (batch_end(linked, self.batch_max).into(), Patience::Until(self.quiet_at_ns))
        };
        if self.shared.ask_for_wake(wake_at) { Patience::None } else { patience }
    }

    fn work(&mut self) -> Result<(), StopCause> {
        if self.shared.arena.len() != self.last_len || self.pace.is_burst {
            self.look();
        }
        if self.may_repair {
            self.repair();
        } else if let Some(rows) = self.batch() {
            self.link(rows)?;
        }
        self.answer();
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_more_than_could_be_linked_and_ends_with_it() {
        let mut pace = Pace::default();
        pace.look(PACE_NS, 1_000);
        assert!(!pace.is_burst, "nothing is known of linking yet");
        pace.linked(64, 64 * 100_000);
        let mut now_ns = PACE_NS;
        // In 5 ms 50 rows can be linked.
        for (came, is_burst) in [(90, false), (110, true), (1_000, true), (90, false), (0, false)] {
            let len = pace.looked_len + came;
            now_ns += PACE_NS / 2;
            pace.look(now_ns, len);
            now_ns += PACE_NS / 2;
            pace.look(now_ns, len);
            assert_eq!(pace.is_burst, is_burst, "{came} rows came");
        }
    }

    #[test]
    fn batches_grow_with_the_rows_before_them_and_end_where_the_next_begins() {
        for batch_max in [0, 1, 5, 64, u32::MAX] {
            let mut next = 0;
            while next < 10_000 {
                let end = batch_end(next, batch_max);
                let len = end - next;
                assert!(end > next && len <= BATCH_MAX.min(batch_max.max(1)));
                assert!(len == 1 || len * BATCH_SHARE <= next, "{len} rows after {next}");
                // A batch that was cut short ends where it would have.
                (next..end).for_each(|row| assert_eq!(batch_end(row, batch_max), end));
                next = end;
            }
        }
        assert_eq!(batch_end(4_096, 64), 4_160);
        assert_eq!(batch_end(u32::MAX, 64), u32::MAX);
    }
}
