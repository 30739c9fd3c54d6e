//! Segments, and the MANIFEST that says which of them count.

mod manifest;

pub(crate) use manifest::{
    LegacyEntry, LogEntry, MANIFEST_NAME, Manifest, SegmentEntry, parse_segment_name, segment_name,
};
