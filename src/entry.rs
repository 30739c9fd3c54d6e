//! An intent as the maps, the time index and the hot buffer share it.

use std::sync::Arc;

use tala_core::{Intent, IntentId, Outcome};

use crate::ids::{RowId, SeqNo};

/// Everything of an intent that never changes, but for its embedding, which is a row of the arena.
#[derive(Debug)]
pub struct Body {
    /// Identity.
    pub id: IntentId,
    /// Nanoseconds since the epoch.
    pub timestamp: u64,
    /// The command.
    pub raw_command: Box<str>,
    /// Hash of the context.
    pub context_hash: u64,
    /// Parents, in order.
    pub parent_ids: Box<[IntentId]>,
    /// How sure the recorder is.
    pub confidence: f32,
    /// Where it stands in the log.
    pub seq: SeqNo,
    /// Where its embedding is.
    pub vector: Vector,
}

/// Where an embedding is kept.
#[derive(Debug)]
pub enum Vector {
    /// In the arena, from where it is searched.
    Row(RowId),
    /// Here: a vector that is not searched, because no arena holds it (a public `HotBuffer`) or
    /// because it has another length than the store's (an imported directory).
    Own(Box<[f32]>),
}

impl Vector {
    /// The row of the arena, for a vector that is searched.
    pub fn row(&self) -> Option<RowId> {
        match self {
            Self::Row(row) => Some(*row),
            Self::Own(_) => None,
        }
    }
}

/// A body with the outcome that is attached to it now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What never changes.
    pub body: Arc<Body>,
    /// The last outcome attached.
    pub outcome: Option<Outcome>,
}

impl Entry {
    /// Takes an intent apart: the entry, and the embedding, which belongs at `row`.
    pub fn split(intent: Intent, seq: SeqNo, vector: Vector) -> Self {
        let body = Body {
            id: intent.id,
            timestamp: intent.timestamp,
            raw_command: intent.raw_command.into_boxed_str(),
            context_hash: intent.context_hash,
            parent_ids: intent.parent_ids.into_boxed_slice(),
            confidence: intent.confidence,
            seq,
            vector,
        };
        Self { body: Arc::new(body), outcome: intent.outcome }
    }

    /// The whole intent again, given its embedding.
    pub fn to_intent(&self, embedding: &[f32]) -> Intent {
        let body = &*self.body;
        Intent {
            id: body.id,
            timestamp: body.timestamp,
            raw_command: body.raw_command.to_string(),
            embedding: embedding.to_vec(),
            context_hash: body.context_hash,
            parent_ids: body.parent_ids.to_vec(),
            outcome: self.outcome,
            confidence: body.confidence,
        }
    }
}

/// Whoever can say which embedding an entry has.
pub trait Embeddings: Send + Sync + 'static {
    /// The embedding that is kept in this row of the arena; empty for a row that does not exist.
    fn row(&self, row: RowId) -> &[f32];

    /// The embedding of an entry.
    fn of<'a>(&'a self, entry: &'a Entry) -> &'a [f32] {
        match &entry.body.vector {
            Vector::Row(row) => self.row(*row),
            Vector::Own(values) => values,
        }
    }
}

/// For entries that carry their embeddings themselves.
#[derive(Debug)]
pub struct NoArena;

impl Embeddings for NoArena {
    fn row(&self, _row: RowId) -> &[f32] {
        &[]
    }
}
