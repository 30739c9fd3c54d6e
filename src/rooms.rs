//! The rooms as the models of `loom-tests` reach them. Only a build with `--cfg loom` has this.

use tala_core::{SegmentId, TalaError};

pub use crate::{
    actor::{Actor, Ending, Fate, Flow, Handle, spawn},
    engine::models::{Contents, IndexMap, IntentMap, Publisher, View},
    entry::{Embeddings, Entry, Vector},
    gate::{Gate, GateClosed, Passing, Permit},
    ids::{FileNumber, RowId, SeqNo},
    index::{
        Arena, ArenaWriter, Graph, GraphParams, GraphWriter, IndexActor, IndexLetter, Query,
        Shared, search,
    },
    metrics::{LockRank, StorageMetrics, TrackedMutex},
    segment::{FlushActor, FlushLetter, HotBuffer, SegmentStore},
    wal::{
        BatchPlace, CommitSink, Cut, Encoded, Log, LogFile, LogOp, PreparedOp, Request, Staged,
        WalActor, WalLetter, WriteRequest,
    },
};

/// What the rooms run on.
pub mod sync {
    pub use crate::sync::*;
}

/// The bytes of the segment that holds everything in `buffer`.
///
/// # Errors
/// An embedding is not where its entry says.
pub fn encode_segment(
    buffer: &HotBuffer,
    embeddings: &impl Embeddings,
) -> Result<Vec<u8>, TalaError> {
    buffer.encode(SegmentId(1), 0, embeddings)
}
