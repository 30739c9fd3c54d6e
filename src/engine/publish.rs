//! From durable to visible: the commit sink of the log's writer.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use tala_core::{IntentId, StopCause};

use super::view::{TableOp, Tables, View};
use crate::{
    entry::{Entry, Vector},
    ids::SeqNo,
    index::{ArenaWriter, IndexLetter},
    metrics::record_stage,
    segment::{FlushLetter, HotBuffer, HotOp},
    sync::{Outbox, Reply, atomic::Ordering, is_broken, now_ns, release},
    wal::{CommitSink, Cut, LogOp, Staged},
};

/// Readers wait while a slice is published, so a slice is short unless a batch is longer.
const SLICE: usize = 64;

/// Publishes what was committed, and hands full buffers on.
pub struct Publisher {
    view: Arc<View>,
    arena: ArenaWriter,
    index: Outbox<IndexLetter>,
    /// `None` in memory.
    flusher: Option<Outbox<FlushLetter>>,
    /// Kept from slice to slice for their room.
    table_ops: Vec<TableOp>,
    hot_ops: Vec<HotOp>,
    /// The last operation prepared.
    last: SeqNo,
    /// Equals `is_full` of the hot buffer, which only the publisher changes: the log's writer asks
    /// after every round, and the buffer's lock need not be taken for that.
    is_hot_full: bool,
    /// Whether somebody who follows the writes may have to be woken.
    has_fed: bool,
}

impl Publisher {
    /// A publisher into `view`, whose arena `arena` writes.
    pub fn new(
        view: Arc<View>,
        arena: ArenaWriter,
        index: Outbox<IndexLetter>,
        flusher: Option<Outbox<FlushLetter>>,
    ) -> Self {
        let is_hot_full = is_full(&view.hot.lock(), flusher.is_some());
        Self {
            view,
            arena,
            index,
            flusher,
            table_ops: Vec::new(),
            hot_ops: Vec::new(),
            last: SeqNo::default(),
            is_hot_full,
            has_fed: false,
        }
    }

    /// Takes one operation into the slice. An embedding goes into the arena at once: no reader's
    /// snapshot has its row before the visible sequence number is raised.
    fn prepare(&mut self, staged: Staged) -> Result<(), StopCause> {
        let seq = staged.seq;
        self.last = seq;
        self.table_ops.push(match staged.op {
            LogOp::Insert(mut intent) => {
                let embedding = std::mem::take(&mut intent.embedding);
                let row =
                    self.arena.push(&embedding, intent.id, seq.0).map_err(StopCause::Failed)?;
                TableOp::Insert(Entry::split(intent, seq, Vector::Row(row)))
            }
            LogOp::Outcome { id, outcome } => TableOp::Outcome(seq, id, outcome),
            LogOp::Removal { id } => TableOp::Removal(seq, id),
            LogOp::Mark(_) => return Ok(()),
        });
        Ok(())
    }

    /// Makes the slice visible as a whole.
    fn publish_slice(&mut self) {
        let view = &*self.view;
        if is_broken("rows visible before the maps") {
            view.index.visible.store(self.last.0, Ordering::Release);
        }
        let is_followed = {
            let mut index_map = view.index_map.write();
            let mut intents = view.intents.write();
            let mut tables =
                Tables { arena: &mut self.arena, intents: &mut intents, index_map: &mut index_map };
            self.hot_ops.extend(self.table_ops.drain(..).filter_map(|op| tables.apply(op)));
            // Under both locks, so that whoever saw a write in a map finds it by a search as well.
            // Release pairs with the Acquire of a search: it sees the rows and their deaths.
            view.index.visible.store(self.last.0, release("visible without an order"));
            view.feed.is_on()
        };
        if is_followed {
            view.feed.push(self.hot_ops.iter().cloned());
            self.has_fed = true;
        }
        let pushes = self.hot_ops.iter().filter(|op| matches!(op, HotOp::Push(_))).count() as u64;
        let since_ns = now_ns();
        let hot_len = {
            let mut hot = view.hot.lock();
            self.hot_ops.drain(..).for_each(|op| hot.apply(op));
            self.is_hot_full = is_full(&hot, self.flusher.is_some());
            hot.len() as u64
        };
        let metrics = &view.metrics;
        record_stage(&metrics.hot_push_ns, &metrics.hot_push_count, since_ns, pushes);
        metrics.hot_buffer_len.store(hot_len, Relaxed);
    }

    /// Sends the flusher a letter, waiting for room in its mailbox, and says so meanwhile.
    fn tell_flusher(&self, letter: FlushLetter) {
        let Some(flusher) = &self.flusher else { return };
        if let Err(letter) = flusher.try_send(letter) {
            // A flusher that ended drops its letters, and with them the replies.
            self.view.metrics.backlog().hold_up_writer(|| drop(flusher.send(letter)));
        }
    }

    fn take_hot(&mut self) -> HotBuffer {
        let mut hot = self.view.hot.lock();
        debug_assert_eq!(self.is_hot_full, is_full(&hot, self.flusher.is_some()));
        self.is_hot_full = false;
        self.view.metrics.hot_buffer_len.store(0, Relaxed);
        hot.take()
    }
}

/// Whether `hot` has to be emptied before it takes more.
fn is_full(hot: &HotBuffer, has_segments: bool) -> bool {
    // Without a log no bytes of log bound what replacements, outcomes and removals leave in it.
    hot.is_full() || !has_segments && hot.ops_count() >= hot.capacity()
}

impl CommitSink for Publisher {
    fn contains(&self, id: &IntentId) -> bool {
        self.view.index_map.read().rows.contains_key(id)
    }

    fn publish(&mut self, staged: &mut Vec<Staged>) -> Result<(), StopCause> {
        if staged.is_empty() {
            return Ok(());
        }
        if is_broken("a round from its end") {
            staged.reverse();
        }
        let mut slice_len = 0;
        for staged in staged.drain(..) {
            let ends_unit = staged.ends_unit;
            self.prepare(staged)?;
            slice_len += 1;
            if slice_len >= SLICE && ends_unit {
                self.publish_slice();
                slice_len = 0;
            }
        }
        if slice_len > 0 {
            self.publish_slice();
        }
        if std::mem::take(&mut self.has_fed) {
            self.view.feed.wake_all();
        }
        // The builder looks for new rows after each letter, so where there is one it needs no other.
        if self.view.index.wants_wake() {
            self.index.send_if_empty(IndexLetter::Wake);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.is_hot_full
    }

    fn says_nothing(&self) -> bool {
        self.view.hot.lock().says_nothing()
    }

    fn seal(&mut self, cut: Cut, reply: Option<Reply<()>>) {
        if self.flusher.is_none() {
            return;
        }
        let buffer = self.take_hot();
        self.view.metrics.backlog().sealed();
        self.tell_flusher(FlushLetter::Seal {
            buffer,
            last_seq: cut.last_seq,
            log: cut.log,
            reply,
        });
    }

    fn after_seals(&mut self, reply: Reply<()>) {
        match &self.flusher {
            Some(_) => self.tell_flusher(FlushLetter::After(reply)),
            None => reply.send(()),
        }
    }

    fn log_closed(&mut self, last_seq: SeqNo) {
        if let Some(flusher) = &self.flusher {
            drop(flusher.send(FlushLetter::LogClosed(last_seq)));
        }
    }

    fn discard(&mut self) {
        drop(self.take_hot());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use tala_core::{Intent, IntentId, IntentStore, Outcome, Status};

    use crate::StorageEngine;

    /// Outcomes and replacements of one intent do not fill a buffer by the number of its intents.
    /// Without a log, nothing else emptied it, and it grew for ever.
    #[test]
    fn without_a_log_the_hot_buffer_is_bounded_whatever_is_written() {
        const CAPACITY: usize = 10;
        let engine = StorageEngine::in_memory(1, CAPACITY);
        let intent = Intent {
            id: IntentId::from_bytes([1; 16]),
            timestamp: 0,
            raw_command: String::new(),
            embedding: vec![1.0],
            context_hash: 0,
            parent_ids: Vec::new(),
            outcome: None,
            confidence: 1.0,
        };
        let ops_count = || engine.inner().unwrap().view.hot.lock().ops_count();
        for _ in 0..3 * CAPACITY {
            engine.insert(intent.clone()).unwrap();
            assert!(ops_count() <= CAPACITY);
        }
        let outcome = Outcome { status: Status::Success, latency_ns: 1, exit_code: 0 };
        for _ in 0..3 * CAPACITY {
            engine.attach_outcome(intent.id, outcome).unwrap();
            assert!(ops_count() <= CAPACITY);
        }
    }
}
