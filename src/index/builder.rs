//! The index builder: links the rows of the arena into the graph, in row order, and keeps the
//! share of dead rows in it small.
//!
//! New rows are not sent to it: it looks at the arena's length, and a letter only wakes it up. So
//! nothing that is committed ever waits for it.
//!
//! Rows are linked in batches, which several threads draft at once. Where a batch ends depends on
//! the number of its first row alone, so the same rows give the same graph for any number of threads.
//! A batch that is not full waits for more, and searches scan its few rows meanwhile. Three things cut
//! it short, and then the graph may be another, as good: somebody waits for its rows, somebody waits
//! for room, or no row has come for a quarter of a second. Batches are smaller where few rows may wait.

use std::{ops::Range, sync::Arc};

use tala_core::StopCause;

use super::{Arena, Graph, GraphWriter, View};
use crate::{
    actor::{Actor, Flow},
    gate::Gate,
    ids::RowId,
    metrics::{StorageMetrics, TrackedMutex, record_stage},
    sync::{
        Inbox, Patience, Reply,
        atomic::{AtomicU32, AtomicU64, Ordering},
        now_ns,
    },
};

/// What the builder is asked for.
pub enum IndexLetter {
    /// There may be new rows.
    Wake,
    /// Answer when all rows below this one are linked.
    WaitLinked(RowId, Reply<()>),
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
    /// Held while links are written; searches do not take it.
    pub hnsw_lock: TrackedMutex<()>,
    /// Each row holds a share of it from its insertion until it is linked.
    pub lag: Arc<Gate>,
    /// Counters.
    pub metrics: Arc<StorageMetrics>,
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

/// Rows of a batch, at most: enough to keep threads busy, and few beside those that are linked.
const BATCH_MAX: u32 = 64;

/// A batch is no more than this share of the rows before it: its rows do not see later ones.
const BATCH_SHARE: u32 = 32;

/// After so long without a new row, a batch that is not full is linked.
const QUIET_NS: u64 = 250_000_000;

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
        // Half of what may wait, or a full batch could never come together.
        let batch_max = u32::try_from(lag_max / 2).unwrap_or(u32::MAX);
        let last_len = shared.arena.len();
        Self {
            shared,
            writer,
            threads,
            batch_max,
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
        if next >= len {
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

    /// Links rows; those that died before their turn are passed over.
    fn link(&mut self, rows: Range<RowId>) -> Result<(), StopCause> {
        let Shared { linked, visible, hnsw_lock, lag, metrics, .. } = &*self.shared;
        let mut since_ns = now_ns();
        let horizon = visible.load(Ordering::Acquire);
        let first = rows.start;
        // The long part only reads; the lock is held while links are written.
        let drafts = self.writer.draft(rows, horizon, self.threads);
        for (draft, row) in drafts.into_iter().zip(first.0..) {
            let plan = self.writer.settle(draft).map_err(|full| StopCause::Failed(full.into()))?;
            {
                let _guard = hnsw_lock.lock();
                self.writer.apply(plan);
            }
            // Release pairs with the Acquire of a search: below the watermark, the graph has the
            // row.
            linked.store(row + 1, Ordering::Release);
            // The first row of the batch carries the time of the drafts.
            record_stage(&metrics.hnsw_insert_ns, &metrics.hnsw_insert_count, since_ns, 1);
            since_ns = now_ns();
            lag.give_back(1);
        }
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
        self.may_repair = true;
        let len = self.shared.arena.len();
        if len != self.last_len {
            self.last_len = len;
            self.quiet_at_ns = now_ns().saturating_add(QUIET_NS);
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
            IndexLetter::WaitLinked(row, reply) => {
                self.waiting.push((row, reply));
                self.answer();
            }
            IndexLetter::Close => return Ok(Flow::Stop),
        }
        Ok(Flow::Continue)
    }

    fn patience(&self) -> Patience {
        let has_new = self.shared.arena.len() != self.last_len;
        if has_new || self.may_repair || self.batch().is_some() {
            Patience::None
        } else if self.shared.linked.load(Ordering::Relaxed) < self.last_len {
            Patience::Until(self.quiet_at_ns)
        } else {
            Patience::Endless
        }
    }

    fn work(&mut self) -> Result<(), StopCause> {
        if self.shared.arena.len() != self.last_len {
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
