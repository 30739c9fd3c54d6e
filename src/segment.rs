//! Segments: what was committed becomes an immutable file, and the log that held it goes.
//!
//! The room owns the hot buffer, the segment files and the MANIFEST that says which of them count.
//! It knows nothing of log records, of the index, or of who commits.
//!
//! Reading order: `hot_buffer` (what is not in a segment yet), `manifest` (which files count),
//! `published` (segments as files), `flusher` (the actor that makes them).

mod flusher;
mod hot_buffer;
mod manifest;
mod published;

#[cfg(any(loom, shuttle))]
pub use flusher::SegmentStore;
pub(crate) use flusher::{DiskSegments, epoch_ns};
pub use flusher::{FlushActor, FlushLetter};
pub use hot_buffer::HotBuffer;
pub use hot_buffer::HotOp;
pub(crate) use manifest::{
    LegacyEntry, LogEntry, MANIFEST_NAME, Manifest, SegmentEntry, parse_segment_name, segment_name,
};
pub(crate) use published::{Fold, OpenSegment, write_segment};
