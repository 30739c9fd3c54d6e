//! What goes into a segment and what comes back.

use std::borrow::Cow;

use tala_core::{Intent, IntentId, Outcome, RelationType};

/// An intent on its way into a segment. Nothing is owned, so that a writer copies every byte once.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Row<'a> {
    /// Identity; once in a segment at most.
    pub id: IntentId,
    /// Nanoseconds since the Unix epoch.
    pub timestamp: u64,
    /// Hash of the context.
    pub context_hash: u64,
    /// How sure the recorder is; kept bit for bit.
    pub confidence: f32,
    /// The embedding, kept bit for bit. Its length is normally the segment's dimension; any other
    /// length is kept too (see [`SegmentWriter::push`](crate::SegmentWriter::push)).
    pub embedding: &'a [f32],
    /// The command as it was typed.
    pub raw_command: &'a str,
    /// Every parent, in order: unknown ones, repeated ones and the row itself included.
    pub parent_ids: &'a [IntentId],
    /// What came of it, once known.
    pub outcome: Option<Outcome>,
    /// Sequence number in the log; 0 where there is none.
    pub seq: u64,
}

impl<'a> Row<'a> {
    /// `intent` as a row, with this sequence number.
    #[must_use]
    pub fn of(intent: &'a Intent, seq: u64) -> Self {
        Self {
            id: intent.id,
            timestamp: intent.timestamp,
            context_hash: intent.context_hash,
            confidence: intent.confidence,
            embedding: &intent.embedding,
            raw_command: &intent.raw_command,
            parent_ids: &intent.parent_ids,
            outcome: intent.outcome,
            seq,
        }
    }
}

/// An intent as it came out of a segment.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredRow<'a> {
    /// Identity.
    pub id: IntentId,
    /// Nanoseconds since the Unix epoch.
    pub timestamp: u64,
    /// Hash of the context.
    pub context_hash: u64,
    /// How sure the recorder is.
    pub confidence: f32,
    /// The embedding in its true length; borrowed where the bytes are aligned for `f32`.
    pub embedding: Cow<'a, [f32]>,
    /// The command; empty in a legacy segment.
    pub raw_command: &'a str,
    /// Every parent, in order. In a legacy segment: the rows with an edge to this one, in row
    /// order.
    pub parent_ids: Vec<IntentId>,
    /// What came of it. In a legacy segment: the status where it is not 0, with latency 0 and exit
    /// code 0.
    pub outcome: Option<Outcome>,
    /// Sequence number in the log; 0 where there is none, as in a legacy segment.
    pub seq: u64,
}

impl StoredRow<'_> {
    /// The intent that this row holds.
    #[must_use]
    pub fn into_intent(self) -> Intent {
        Intent {
            id: self.id,
            timestamp: self.timestamp,
            raw_command: self.raw_command.to_owned(),
            embedding: self.embedding.into_owned(),
            context_hash: self.context_hash,
            parent_ids: self.parent_ids,
            outcome: self.outcome,
            confidence: self.confidence,
        }
    }
}

/// What happened to an intent that an older segment holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// This outcome was attached to it.
    Outcome(Outcome),
    /// It was removed.
    Removal,
}

/// An edge of a segment, seen from the row where it starts (the parent).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Edge {
    /// The row where it ends (the child).
    pub target: u32,
    /// How the child relates to the parent.
    pub relation: RelationType,
    /// Strength of the relation; 1.0 for edges made from parents.
    pub weight: f32,
}
