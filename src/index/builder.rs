//! The index builder: links the rows of the arena into the graph, in row order, and keeps the
//! share of dead rows in it small.
//!
//! New rows are not sent to it: it looks at the arena's length, and a letter only wakes it up. So
//! nothing that is committed ever waits for it.

use std::sync::Arc;

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

/// The actor.
pub struct IndexActor {
    shared: Arc<Shared>,
    writer: GraphWriter,
    /// Whether rows may have died since a repair was last found not to be due.
    may_repair: bool,
    /// Callers that wait for the watermark to pass a row.
    waiting: Vec<(RowId, Reply<()>)>,
}

impl IndexActor {
    /// A builder of the graph that `writer` writes.
    pub fn new(shared: Arc<Shared>, writer: GraphWriter) -> Self {
        Self { shared, writer, may_repair: false, waiting: Vec::new() }
    }

    fn next_row(&self) -> Option<RowId> {
        let next = self.shared.linked.load(Ordering::Relaxed);
        (next < self.shared.arena.len()).then_some(RowId(next))
    }

    /// Links one row; one that died before its turn is passed over.
    fn link(&mut self, row: RowId) -> Result<(), StopCause> {
        let Shared { linked, visible, hnsw_lock, lag, metrics, .. } = &*self.shared;
        let since_ns = now_ns();
        let horizon = visible.load(Ordering::Acquire);
        // The long part only reads; the lock is held while links are written.
        let plan = self.writer.plan(row, horizon).map_err(|full| StopCause::Failed(full.into()))?;
        {
            let _guard = hnsw_lock.lock();
            self.writer.apply(plan);
        }
        // Release pairs with the Acquire of a search: below the watermark, the graph has the row.
        linked.store(row.0 + 1, Ordering::Release);
        record_stage(&metrics.hnsw_insert_ns, &metrics.hnsw_insert_count, since_ns, 1);
        lag.give_back(1);
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
        match letter {
            IndexLetter::Wake => self.may_repair = true,
            IndexLetter::WaitLinked(row, reply) => {
                self.waiting.push((row, reply));
                self.answer();
            }
            IndexLetter::Close => return Ok(Flow::Stop),
        }
        Ok(Flow::Continue)
    }

    fn patience(&self) -> Patience {
        if self.next_row().is_some() || self.may_repair {
            Patience::None
        } else {
            Patience::Endless
        }
    }

    fn work(&mut self) -> Result<(), StopCause> {
        if self.may_repair {
            self.repair();
        } else if let Some(row) = self.next_row() {
            self.link(row)?;
        }
        self.answer();
        Ok(())
    }
}
