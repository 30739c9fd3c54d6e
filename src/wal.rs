//! The write-ahead log: the ground state of every store.
//!
//! The room owns the bytes of a log record, the files that hold them, and the judgement of what a
//! log that was found on disk means. It knows nothing of segments, indexes or the engine.
//!
//! Reading order: `record` (bytes and records), `scan` (records after a damaged place), `replay`
//! (what a log file holds and how it ended), `entries` (logs as other programs see them), `file`
//! (a log on disk), `standalone` (a log outside every store).

mod entries;
mod file;
mod record;
mod replay;
mod scan;
mod standalone;

pub use entries::{WalEntry, replay_wal};
pub use standalone::Wal;

pub(crate) use entries::{LegacyLog, read_legacy};
pub(crate) use file::{DiskLog, LogFile, NullLog, log_name, parse_log_name};
pub(crate) use record::{BadFrame, BatchPlace, Encoded, LogOp, Mark, Stamp};
pub(crate) use replay::{
    Bound, Damage, Ending, Expected, LogContents, LogEnd, LogRecord, read_log, synced_proof,
};
pub(crate) use scan::IntactFrames;

#[cfg(test)]
mod tests;
