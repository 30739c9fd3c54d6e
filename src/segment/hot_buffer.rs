//! The hot buffer: what was committed since the last segment was cut (a memtable).

use tala_core::{Intent, IntentId, Outcome, SegmentId, Status, TalaError};
use tala_wire::{Change, Row, SegmentWriter};

use crate::{
    entry::{Embeddings, Entry, NoArena, Vector},
    ids::{IdMap, SeqNo},
    sync::is_broken,
};

/// A committed operation, as the hot buffer takes it. Cheap to clone.
#[derive(Clone, Debug)]
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
    /// In order of insertion.
    slots: Vec<Slot>,
    by_id: IdMap<usize>,
    /// What happened to intents that lie in older segments, in order of commit.
    changes: Vec<(SeqNo, IntentId, Change)>,
}

/// What is left of a push.
#[derive(Debug)]
enum Slot {
    /// The intent.
    Held(Entry),
    /// The id of an intent that was replaced or removed: later pushes may name it as a parent by
    /// the number of this push. It takes no more room than the hole that it fills.
    Gone(IntentId),
}

impl Slot {
    fn id(&self) -> IntentId {
        match self {
            Self::Held(entry) => entry.body.id,
            Self::Gone(id) => *id,
        }
    }

    fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Held(entry) => Some(entry),
            Self::Gone(_) => None,
        }
    }
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
        Ok(Self { dim, capacity, slots: Vec::new(), by_id: IdMap::default(), changes: Vec::new() })
    }

    /// Pushes an intent; returns `true` when the buffer has reached its capacity and should be
    /// flushed.
    ///
    /// `timestamp` is in nanoseconds since the epoch, `status` a [`Status`] as a byte, `embedding`
    /// `[f32; dim]`. `parent_indices` name earlier pushes since the last flush, counting from 0; one
    /// that was replaced since names the intent that has its id now.
    ///
    /// Every push is remembered until the next flush, so an id that is pushed again and again
    /// takes up to 24 bytes each time, although the buffer never gets full of it.
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
                Some(slot) => Ok(slot.id()),
                None => Err(invalid("parent_indices", format!("no intent was pushed as {index}"))),
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
    ///
    /// # Panics
    /// Where [`HotBuffer::try_flush`] gives an error: there is no memory for the segment.
    pub fn flush(&mut self) -> Vec<u8> {
        match self.try_flush() {
            Ok(segment) => segment,
            Err(error) => panic!("{error}"),
        }
    }

    /// [`HotBuffer::flush`] that reports a lack of memory.
    ///
    /// # Errors
    /// [`TalaError::TooLarge`] when there is no memory for the segment beside what is buffered, or
    /// 2^32 - 1 intents or more are buffered. The buffer is then as it was before.
    pub fn try_flush(&mut self) -> Result<Vec<u8>, TalaError> {
        let segment = self.encode(SegmentId(0), 0, &NoArena)?;
        drop(self.take());
        Ok(segment)
    }

    /// Whether the buffer has reached its capacity.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Whether a segment made of this buffer would say nothing.
    pub(crate) fn says_nothing(&self) -> bool {
        self.is_empty() && self.changes.is_empty()
    }

    /// How many operations it remembers: intents, what others left of them, and changes.
    pub(crate) fn ops_count(&self) -> usize {
        self.slots.len() + self.changes.len()
    }

    /// How many intents make it full.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes room for so many more intents, though for no more than make it full.
    pub(crate) fn reserve(&mut self, intents: usize) {
        let intents = intents.min(self.capacity.saturating_sub(self.len()));
        self.slots.reserve(intents);
        self.by_id.reserve(intents);
    }

    /// Pushes a whole intent; one with the same id is replaced.
    fn push_entry(&mut self, entry: Entry) {
        let id = entry.body.id;
        if let Some(old) = self.by_id.insert(id, self.slots.len()) {
            self.slots[old] = Slot::Gone(id);
        }
        self.slots.push(Slot::Held(entry));
    }

    /// Takes a committed operation in.
    pub(crate) fn apply(&mut self, op: HotOp) {
        match op {
            HotOp::Push(entry) => self.push_entry(entry),
            HotOp::Outcome(seq, id, outcome) => {
                let slot = self.by_id.get(&id).map(|&index| &mut self.slots[index]);
                match slot {
                    Some(Slot::Held(entry)) => entry.outcome = Some(outcome),
                    _ if is_broken("the outcome of an intent that is being flushed") => {}
                    _ => self.changes.push((seq, id, Change::Outcome(outcome))),
                }
            }
            HotOp::Removal(seq, id) => {
                if let Some(index) = self.by_id.remove(&id) {
                    self.slots[index] = Slot::Gone(id);
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
            by_id: IdMap::default(),
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
        for entry in self.slots.iter().filter_map(Slot::entry) {
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

#[cfg(test)]
mod tests {
    use tala_wire::SegmentReader;

    use super::*;

    fn push(buffer: &mut HotBuffer, id: u8, parents: &[usize]) -> Result<bool, TalaError> {
        buffer.try_push([id; 16], 5, 6, 0.5, 0, vec![1.0, 2.0], parents.to_vec())
    }

    fn parents(buffer: &HotBuffer, id: u8) -> Vec<u8> {
        let index = buffer.by_id[&IntentId::from_bytes([id; 16])];
        let Slot::Held(entry) = &buffer.slots[index] else { panic!("{id} is not held") };
        entry.body.parent_ids.iter().map(|parent| parent.as_bytes()[0]).collect()
    }

    #[test]
    fn a_parent_that_was_replaced_is_still_a_parent() {
        let mut buffer = HotBuffer::new(2, 10);
        push(&mut buffer, 1, &[]).unwrap();
        push(&mut buffer, 2, &[0]).unwrap();
        push(&mut buffer, 1, &[]).unwrap();
        push(&mut buffer, 3, &[0, 1, 2]).unwrap();
        assert_eq!(parents(&buffer, 3), [1, 2, 1]);
        let error = push(&mut buffer, 4, &[4]).unwrap_err().to_string();
        assert!(error.contains("no intent was pushed as 4"), "{error}");
        assert_eq!(buffer.len(), 3);
    }

    /// A buffer that no segment can be made of. What stands for the lack of memory, which cannot be
    /// had on demand, is a dimension that `try_new` refuses.
    fn stuck() -> HotBuffer {
        let mut buffer = HotBuffer::new(2, 10);
        push(&mut buffer, 1, &[]).unwrap();
        HotBuffer { dim: 0, ..buffer }
    }

    #[test]
    fn a_flush_that_fails_loses_nothing() {
        let mut buffer = stuck();
        assert!(buffer.try_flush().is_err());
        assert_eq!(buffer.len(), 1);
        buffer.dim = 2;
        let segment = buffer.try_flush().unwrap();
        assert_eq!(SegmentReader::open(&segment).unwrap().len(), 1);
        assert!(buffer.is_empty() && buffer.slots.is_empty());
    }

    #[test]
    #[should_panic(expected = "invalid dim: 0 is not in 1..=65536")]
    fn a_flush_that_cannot_tell_panics() {
        stuck().flush();
    }

    #[test]
    fn a_push_is_remembered_in_as_many_bytes_as_its_doc_says() {
        assert_eq!(size_of::<Slot>(), size_of::<Option<Entry>>());
        assert!(size_of::<Slot>() <= 24);
    }
}
