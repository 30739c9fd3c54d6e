//! TBF, the TALA binary format for segments: immutable files that hold intents.
//!
//! This crate turns rows into the bytes of one segment ([`SegmentWriter`]) and reads them back
//! ([`SegmentReader`]). It owns no thread, no file and no clock: bytes come in and go out.
//!
//! A segment is little-endian. It is one header of 128 bytes and then regions; every region and
//! every column starts on a multiple of 64 bytes.
//!
//! | region | found by | checked by | described in |
//! |---|---|---|---|
//! | header | byte 0 | its own CRC-32C, and block 0 | [`header`] |
//! | nodes: columns of ids (16 bytes), timestamps (u64), context hashes (u64), confidences (f32), statuses (u8: 0 pending or none, 1 success, 2 failure, 3 partial), each padded to 64 | header, byte 48 | blocks, on opening | here |
//! | embeddings: N rows of `dim` f32, each padded to 64 | header, byte 56 | blocks, when first touched | here |
//! | edges | header, byte 64 | blocks, on opening | `edges` |
//! | bloom filter of the ids | header, byte 80 | blocks, on opening | [`bloom`] |
//! | string table: the commands | header, byte 72 | blocks, on opening | `directory` |
//! | table directory and its tables | header, byte 88 | blocks, on opening | `directory` |
//! | footer: the CRC-32C of every block of 64 KiB | header, byte 96; ends the segment | its own CRC-32C | `footer` |
//!
//! The first five are the *fixed part*, which other programs read and write. The others are ours:
//! a reader of the fixed part never looks at them. A *legacy segment* has the fixed part only; it
//! is read for what it has.
//!
//! ```
//! use tala_core::{Intent, IntentId, SegmentId};
//! use tala_wire::{Row, SegmentReader, SegmentWriter};
//!
//! let intent = Intent {
//!     id: IntentId::random(),
//!     timestamp: 42,
//!     raw_command: "cargo build".to_owned(),
//!     embedding: vec![0.5; 8],
//!     context_hash: 7,
//!     parent_ids: vec![],
//!     outcome: None,
//!     confidence: 0.95,
//! };
//! let mut writer = SegmentWriter::new(8)?;
//! writer.push(&Row::of(&intent, 1))?;
//! let bytes = writer.finish(SegmentId(1), 1_700_000_000_000_000_000)?;
//!
//! let reader = SegmentReader::open(bytes)?;
//! let row = reader.find(intent.id).expect("it was pushed");
//! assert_eq!(reader.row(row)?.into_intent(), intent);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Reading order of the source: [`header`], [`Row`], the writer, `directory`, `footer`, the reader.

#![forbid(unsafe_code)]

pub mod bloom;
mod directory;
mod edges;
mod error;
mod fnv;
mod footer;
pub mod header;
mod reader;
mod row;
mod table;
mod writer;

pub use error::WireError;
pub use fnv::fnv1a_64;
pub use header::{DIM_MAX, Header};
pub use reader::{Agreement, Salvage, SalvagedRow, SegmentReader};
pub use row::{Change, Edge, Row, StoredRow};
pub use writer::SegmentWriter;
