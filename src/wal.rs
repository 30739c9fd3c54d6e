//! The write-ahead log: the ground state of every store.
//!
//! The room owns the bytes of a log record, the files that hold them, and the judgement of what a
//! log that was found on disk means. It knows nothing of segments, indexes or the engine.
//!
//! Reading order: `record` (bytes and records).

mod record;

pub(crate) use record::{BadFrame, BatchPlace, Encoded, LogOp, Mark, Stamp};
