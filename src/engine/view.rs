//! What readers read: the arena, the graph, the maps, and up to where they may look.
//!
//! The log's writer is the only one that changes any of it, but for the graph, which belongs to
//! the index builder. Readers come in two kinds. Look-ups by id and by time take the lock of their
//! map, under which the writer changes both maps and the visible sequence number together.
//! Searches take no lock: each row says since when it is there and since when it is gone, and a
//! search looks at the rows that its snapshot of the visible sequence number has.

use std::{
    collections::{BTreeMap, hash_map},
    sync::Arc,
};

use tala_core::{Intent, IntentId, Outcome, TimeRange};

use super::feed::{Feed, Subscription};
use crate::{
    entry::{Embeddings, Entry},
    ids::{IdMap, RowId, SeqNo},
    index::{Arena, ArenaWriter, Shared},
    metrics::{Instruments, LockRank, TrackedMutex, TrackedRwLock},
    segment::{HotBuffer, HotOp},
    sync::{atomic::Ordering, is_broken},
};

impl Embeddings for Arena {
    fn row(&self, row: RowId) -> &[f32] {
        self.row(row).unwrap_or_default()
    }
}

/// From id to intent.
pub type IntentMap = IdMap<Entry>;

/// From id to row, and the time index.
#[derive(Debug, Default)]
pub struct IndexMap {
    /// The row of each intent; `None` for one that is not searched.
    pub rows: IdMap<Option<RowId>>,
    /// By timestamp, then by order of insertion.
    pub time: BTreeMap<(u64, SeqNo), Entry>,
}

/// The readers' side of an engine.
pub struct View {
    /// Dimension of every embedding that is searched.
    pub dim: usize,
    /// The embeddings, the graph, and up to where each may be used.
    pub index: Arc<Shared>,
    /// From id to intent.
    pub intents: TrackedRwLock<IntentMap>,
    /// From id to row, and the time index.
    pub index_map: TrackedRwLock<IndexMap>,
    /// What is not in a segment yet.
    pub hot: TrackedMutex<HotBuffer>,
    /// What was published of late, for those who follow it.
    pub feed: Arc<Feed>,
    /// Counters.
    pub metrics: Arc<Instruments>,
}

/// The tables that a write changes together.
pub struct Tables<'a> {
    /// The embeddings, whose rows are born and die.
    pub arena: &'a mut ArenaWriter,
    /// From id to intent.
    pub intents: &'a mut IntentMap,
    /// From id to row, and the time index.
    pub index_map: &'a mut IndexMap,
}

/// An operation whose embedding, if it has one, is in the arena already.
pub enum TableOp {
    /// Puts an intent in, in place of the one with its id if there is one.
    Insert(Entry),
    /// Attaches an outcome.
    Outcome(SeqNo, IntentId, Outcome),
    /// Removes an intent.
    Removal(SeqNo, IntentId),
}

impl Tables<'_> {
    /// Applies an operation and says what the hot buffer has to know of it: `None` for an outcome
    /// or a removal of an intent that is not there.
    pub fn apply(&mut self, op: TableOp) -> Option<HotOp> {
        match op {
            TableOp::Insert(entry) => Some(self.insert(entry)),
            TableOp::Outcome(seq, id, outcome) => self.attach_outcome(seq, id, outcome),
            TableOp::Removal(seq, id) => self.remove(seq, id),
        }
    }

    /// A replacement without an outcome keeps the one that is attached.
    pub fn insert(&mut self, mut entry: Entry) -> HotOp {
        let (id, seq) = (entry.body.id, entry.body.seq);
        let replaced = match self.intents.entry(id) {
            hash_map::Entry::Occupied(mut slot) => {
                entry.outcome = entry.outcome.or(slot.get().outcome);
                Some(slot.insert(entry.clone()))
            }
            hash_map::Entry::Vacant(slot) => {
                slot.insert(entry.clone());
                None
            }
        };
        if let Some(old) = replaced {
            self.index_map.time.remove(&(old.body.timestamp, old.body.seq));
            self.kill(old.body.vector.row(), seq);
        }
        self.index_map.rows.insert(id, entry.body.vector.row());
        self.index_map.time.insert((entry.body.timestamp, seq), entry.clone());
        HotOp::Push(entry)
    }

    fn attach_outcome(&mut self, seq: SeqNo, id: IntentId, outcome: Outcome) -> Option<HotOp> {
        let entry = self.intents.get_mut(&id)?;
        entry.outcome = Some(outcome);
        let place = (entry.body.timestamp, entry.body.seq);
        self.index_map.time.get_mut(&place)?.outcome = Some(outcome);
        Some(HotOp::Outcome(seq, id, outcome))
    }

    fn remove(&mut self, seq: SeqNo, id: IntentId) -> Option<HotOp> {
        let entry = self.intents.remove(&id)?;
        self.index_map.rows.remove(&id);
        self.index_map.time.remove(&(entry.body.timestamp, entry.body.seq));
        self.kill(entry.body.vector.row(), seq);
        Some(HotOp::Removal(seq, id))
    }

    fn kill(&mut self, row: Option<RowId>, seq: SeqNo) {
        if let Some(row) = row {
            self.arena.kill(row, seq.0);
        }
    }
}

/// The maps that a view starts with.
#[derive(Debug)]
pub struct Contents {
    /// From id to intent.
    pub intents: IntentMap,
    /// From id to row, and the time index.
    pub index_map: IndexMap,
    /// What is not in a segment yet.
    pub hot: HotBuffer,
}

impl View {
    /// A view of these contents.
    pub fn new(
        dim: usize,
        index: Arc<Shared>,
        contents: Contents,
        feed: Arc<Feed>,
        metrics: Arc<Instruments>,
    ) -> Self {
        let Contents { intents, index_map, hot } = contents;
        Self {
            dim,
            index,
            intents: TrackedRwLock::new(intents, &metrics, LockRank::Intents),
            index_map: TrackedRwLock::new(index_map, &metrics, LockRank::IndexMap),
            hot: TrackedMutex::new(hot, &metrics, LockRank::Hot),
            feed,
            metrics,
        }
    }

    /// The intent with this id.
    pub fn get(&self, id: &IntentId) -> Option<Intent> {
        let entry = self.intents.read().get(id).cloned()?;
        Some(self.to_intent(&entry))
    }

    /// The intents of a time range, by timestamp, then by order of insertion.
    pub fn range(&self, range: TimeRange) -> Vec<Intent> {
        if range.start >= range.end {
            return Vec::new();
        }
        // Only references are copied under the lock; the intents are put together after it.
        let bounds = (range.start, SeqNo(0))..(range.end, SeqNo(0));
        let entries: Vec<Entry> =
            self.index_map.read().time.range(bounds).map(|(_, entry)| entry.clone()).collect();
        entries.iter().map(|entry| self.to_intent(entry)).collect()
    }

    /// All intents of one moment, and the last write before it.
    pub fn snapshot(&self) -> (Vec<Entry>, SeqNo) {
        // Only references are copied under the lock, as for a range.
        let index_map = self.index_map.read();
        (index_map.time.values().cloned().collect(), self.visible())
    }

    /// Follows the committed writes from the place `from` on; from now on they are kept.
    pub fn follow(&self, from: SeqNo) -> Subscription {
        {
            let _no_commit = (!is_broken("kept without the lock")).then(|| self.index_map.read());
            self.feed.turn_on(self.visible());
        }
        Subscription::new(Arc::clone(&self.feed), Arc::clone(&self.index.arena), from)
    }

    /// The last write that is visible; under the lock of the index map, which commits raise it under.
    fn visible(&self) -> SeqNo {
        SeqNo(self.index.visible.load(Ordering::Acquire))
    }

    fn to_intent(&self, entry: &Entry) -> Intent {
        entry.to_intent(self.index.arena.of(entry))
    }

    /// Number of intents.
    pub fn len(&self) -> usize {
        self.intents.read().len()
    }
}
