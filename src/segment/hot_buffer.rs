//! The hot buffer: what was committed since the last segment was cut (a memtable).

use std::collections::HashMap;

use tala_core::{Intent, IntentId, Outcome, SegmentId, Status, TalaError};
use tala_wire::{Change, Row, SegmentWriter};

use crate::{
    entry::{Embeddings, Entry, NoArena, Vector},
    ids::SeqNo,
};

/// A committed operation, as the hot buffer takes it.
#[derive(Debug)]
pub enum HotOp {
    /// An intent, in place of the one with its id if there is one.
    Push(Entry),
    /// An outcome of an intent, here or in an older segment.
    Outcome(SeqNo, IntentId, Outcome),
    /// The removal of an intent, here or in an older segment.
    Removal(SeqNo, IntentId),
}

/// In-memory accumulator of intents that becomes one TBF segment.
///
/// Each id is in it once: pushing an id again replaces the intent pushed before.
#[derive(Debug)]
pub struct HotBuffer {
    dim: usize,
    capacity: usize,
    /// In order of insertion; a replaced or removed intent leaves a hole.
    slots: Vec<Option<Entry>>,
    by_id: HashMap<IntentId, usize>,
    /// What happened to intents that lie in older segments, in order of commit.
    changes: Vec<(SeqNo, IntentId, Change)>,
}

impl HotBuffer {
    /// A buffer for embeddings of `dim` dimensions that is full at `capacity` intents.
    ///
    /// # Panics
    /// Where [`HotBuffer::try_new`] gives an error.
    #[must_use]
    pub fn new(dim: usize, capacity: usize) -> Self {
        match Self::try_new(dim, capacity) {
            Ok(buffer) => buffer,
            Err(error) => panic!("{error}"),
        }
    }

    /// A buffer for embeddings of `dim` dimensions that is full at `capacity` intents.
    ///
    /// # Errors
    /// [`TalaError::InvalidOption`] when `dim` is 0 or above 65,536, or `capacity` is 0.
    pub fn try_new(dim: usize, capacity: usize) -> Result<Self, TalaError> {
        let invalid = |option, reason| Err(TalaError::InvalidOption { option, reason });
        if !(1..=65_536).contains(&dim) {
            return invalid("dim", "must be between 1 and 65,536");
        }
        if capacity == 0 {
            return invalid("capacity", "must be at least 1");
        }
        Ok(Self { dim, capacity, slots: Vec::new(), by_id: HashMap::new(), changes: Vec::new() })
    }

    /// Pushes an intent; returns `true` when the buffer has reached its capacity and should be
    /// flushed.
    ///
    /// `timestamp` is in nanoseconds since the epoch, `status` a [`Status`] as a byte, `embedding`
    /// `[f32; dim]`. `parent_indices` name earlier pushes since the last flush, counting from 0.
    ///
    /// # Panics
    /// Where [`HotBuffer::try_push`] gives an error.
    #[expect(clippy::too_many_arguments, reason = "the published interface")]
    pub fn push(
        &mut self,
        id: [u8; 16],
        timestamp: u64,
        context_hash: u64,
        confidence: f32,
        status: u8,
        embedding: Vec<f32>,
        parent_indices: Vec<usize>,
    ) -> bool {
        let pushed = self.try_push(
            id,
            timestamp,
            context_hash,
            confidence,
            status,
            embedding,
            parent_indices,
        );
        match pushed {
            Ok(is_full) => is_full,
            Err(error) => panic!("{error}"),
        }
    }

    /// [`HotBuffer::push`] that reports bad input.
    ///
    /// # Errors
    /// [`TalaError::DimensionMismatch`], or [`TalaError::InvalidInput`] for an embedding or
    /// confidence that is not finite, an unknown status, or a parent that was not pushed before.
    #[expect(clippy::too_many_arguments, reason = "the published interface")]
    pub fn try_push(
        &mut self,
        id: [u8; 16],
        timestamp: u64,
        context_hash: u64,
        confidence: f32,
        status: u8,
        embedding: Vec<f32>,
        parent_indices: Vec<usize>,
    ) -> Result<bool, TalaError> {
        let invalid = |field, reason: String| TalaError::InvalidInput { field, reason };
        let status = Status::from_u8(status)
            .ok_or_else(|| invalid("status", format!("{status} is not a status")))?;
        let parent_ids = parent_indices
            .into_iter()
            .map(|index| match self.slots.get(index) {
                Some(Some(entry)) => Ok(entry.body.id),
                _ => Err(invalid("parent_indices", format!("no intent was pushed as {index}"))),
            })
            .collect::<Result<_, _>>()?;
        let mut intent = Intent {
            id: IntentId::from_bytes(id),
            timestamp,
            raw_command: String::new(),
            embedding,
            context_hash,
            parent_ids,
            outcome: (status != Status::Pending).then_some(Outcome {
                status,
                latency_ns: 0,
                exit_code: 0,
            }),
            confidence,
        };
        crate::door::check_intent(&intent, self.dim)?;
        let vector = Vector::Own(std::mem::take(&mut intent.embedding).into_boxed_slice());
        let seq = SeqNo(self.slots.len() as u64 + 1);
        self.push_entry(Entry::split(intent, seq, vector));
        Ok(self.is_full())
    }

    /// Number of intents buffered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether no intent is buffered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Turns everything buffered into the bytes of one TBF segment and clears the buffer.
    pub fn flush(&mut self) -> Vec<u8> {
        let slots = std::mem::take(&mut self.slots);
        let changes = std::mem::take(&mut self.changes);
        self.by_id.clear();
        let full = Self { slots, changes, by_id: HashMap::new(), ..*self };
        full.encode(SegmentId(0), 0, &NoArena)
            .expect("each push checked its dimension and replaced an equal id, and fewer than 2^32 intents fit memory")
    }

    /// Whether the buffer has reached its capacity.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Whether a segment made of this buffer would say nothing.
    pub(crate) fn says_nothing(&self) -> bool {
        self.is_empty() && self.changes.is_empty()
    }

    /// How many operations it remembers: intents, the holes that others left, and changes.
    pub(crate) fn ops_count(&self) -> usize {
        self.slots.len() + self.changes.len()
    }

    /// How many intents make it full.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Pushes a whole intent; one with the same id is replaced.
    fn push_entry(&mut self, entry: Entry) {
        if let Some(old) = self.by_id.insert(entry.body.id, self.slots.len()) {
            self.slots[old] = None;
        }
        self.slots.push(Some(entry));
    }

    /// Takes a committed operation in.
    pub(crate) fn apply(&mut self, op: HotOp) {
        match op {
            HotOp::Push(entry) => self.push_entry(entry),
            HotOp::Outcome(seq, id, outcome) => {
                let slot = self.by_id.get(&id).and_then(|&index| self.slots[index].as_mut());
                match slot {
                    Some(entry) => entry.outcome = Some(outcome),
                    None => self.changes.push((seq, id, Change::Outcome(outcome))),
                }
            }
            HotOp::Removal(seq, id) => {
                if let Some(index) = self.by_id.remove(&id) {
                    self.slots[index] = None;
                }
                // An older segment may hold the id as well.
                self.changes.push((seq, id, Change::Removal));
            }
        }
    }

    /// Everything buffered, leaving an empty buffer of the same shape behind.
    pub(crate) fn take(&mut self) -> Self {
        let fresh = Self {
            dim: self.dim,
            capacity: self.capacity,
            slots: Vec::new(),
            by_id: HashMap::new(),
            changes: Vec::new(),
        };
        std::mem::replace(self, fresh)
    }

    /// The bytes of the segment that holds everything buffered.
    ///
    /// # Errors
    /// An embedding is not where its entry says, or a limit of the format is exceeded.
    pub(crate) fn encode(
        &self,
        id: SegmentId,
        created_at_ns: u64,
        embeddings: &impl Embeddings,
    ) -> Result<Vec<u8>, TalaError> {
        let mut writer = SegmentWriter::with_capacity(self.dim, self.len())?;
        for entry in self.slots.iter().flatten() {
            let body = &*entry.body;
            writer.push(&Row {
                id: body.id,
                timestamp: body.timestamp,
                context_hash: body.context_hash,
                confidence: body.confidence,
                embedding: embeddings.of(entry),
                raw_command: &body.raw_command,
                parent_ids: &body.parent_ids,
                outcome: entry.outcome,
                seq: body.seq.0,
            })?;
        }
        for (seq, id, change) in &self.changes {
            writer.push_change(seq.0, *id, *change);
        }
        writer.finish(id, created_at_ns)
    }
}
