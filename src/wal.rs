//! The write-ahead log: the ground state of every store.
//!
//! The room owns the bytes of a log record, the files that hold them, and the judgement of what a
//! log that was found on disk means. It knows nothing of segments, indexes or the engine.
//!
//! Reading order: `record` (bytes and records), `scan` (records after a damaged place), `replay`
//! (what a log file holds and how it ended), `salvage` (what is left of a damaged one), `entries`
//! (logs as other programs see them), `file` (a log on disk), `prepare` (the next one, filled with
//! zeros), `spare` (an old one that it is made of), `writer` (the actor that owns it), `standalone` (a log outside every store).

mod entries;
mod file;
mod prepare;
mod record;
mod replay;
mod salvage;
mod scan;
mod spare;
mod standalone;
mod writer;

pub use entries::{WalEntry, replay_wal};
pub use standalone::Wal;

pub use file::LogFile;
pub use record::{BatchPlace, Encoded, LogOp, Mark, Stamp};
pub use writer::{
    CommitSink, Cut, Log, PreparedOp, Request, Room, Staged, WalActor, WalLetter, WriteRequest,
};

pub(crate) use entries::read_entries;
pub(crate) use file::{DiskLog, log_name, parse_log_name};
pub(crate) use prepare::{Ahead, Fill, PREPARED_NAME};
pub(crate) use replay::{
    Bound, Ending, Expected, LogEnd, LogRecord, accepted_records, holds_a_write, read_log,
    synced_proof,
};

pub(crate) use salvage::{
    FoundOp, FoundRecord, Salvaged, entry_at, intent_at, salvage_entries, salvage_log,
};
pub(crate) use spare::{SPARE_NAME, Spare};

#[cfg(test)]
mod tests;
