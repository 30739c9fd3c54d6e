//! What the fuzz targets need: everything that reads bytes from a disk, without the disk.

use tala_core::TalaError;

pub use crate::wal::{LogOp, Mark};
use crate::{
    ids::{FileNumber, SeqNo},
    segment::{MANIFEST_NAME, Manifest},
    wal::{
        BatchPlace, Bound, Ending, Expected, WalEntry, accepted_records, log_name, read_entries,
        read_log,
    },
};

/// How far a log is read: the bound that its reader is given.
#[derive(Clone, Copy, Debug)]
pub enum LogBound {
    /// As far as it goes, with what is known from outside to have been synced.
    Live(SeqNo),
    /// Exactly so many bytes, the last record having this number.
    Accepted(u64, SeqNo),
}

/// A log of which it is known what counts.
#[derive(Clone, PartialEq, Debug)]
pub struct LogRead {
    /// Bytes that count.
    pub accepted_len: u64,
    /// The last sequence number in them.
    pub last_seq: SeqNo,
    /// How it ended.
    pub ending: LogEnding,
    /// Offset, number, place and meaning of each record.
    pub records: Vec<(u64, SeqNo, BatchPlace, LogOp)>,
}

/// How a log ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogEnding {
    /// By this mark.
    Clean(Mark),
    /// Between two writes.
    Unmarked,
    /// In the middle of a write, at this offset.
    Torn(u64),
    /// Where the MANIFEST says.
    Accepted,
}

/// A log that is refused.
#[derive(Debug)]
pub struct LogDamage {
    /// The damaged part.
    pub range: std::ops::Range<u64>,
    /// Whether the search for proof was given up, so that it may be no damage after all.
    pub is_cut_short: bool,
    /// As its user sees it.
    pub error: TalaError,
}

/// Reads log `file`, whose first record should have the number `first_seq`.
///
/// # Errors
/// The log is damaged.
pub fn replay_log(
    bytes: &[u8],
    file: FileNumber,
    first_seq: SeqNo,
    bound: LogBound,
) -> Result<LogRead, LogDamage> {
    let bound = match bound {
        LogBound::Live(synced_outside) => Bound::Live { synced_outside },
        LogBound::Accepted(len, last_seq) => Bound::Accepted { len, last_seq },
    };
    let expected = Expected { file, first_seq, bound };
    let path = std::path::PathBuf::from(log_name(file));
    macro_rules! refused {
        ($damage:expr) => {{
            let damage = $damage;
            LogDamage {
                range: damage.at..damage.until,
                is_cut_short: damage.is_cut_short(),
                error: damage.into_error(&path),
            }
        }};
    }
    let contents = read_log(bytes, &expected).map_err(|damage| refused!(damage))?;
    let end = contents.end();
    let ending = match end.ending {
        Ending::Clean(mark) => LogEnding::Clean(mark),
        Ending::Unmarked => LogEnding::Unmarked,
        Ending::Torn { at, .. } => LogEnding::Torn(at),
        Ending::Accepted => LogEnding::Accepted,
    };
    let mut records = Vec::new();
    for record in accepted_records(bytes, &expected, &end) {
        let record = record.map_err(|damage| refused!(damage))?;
        records.push((record.offset, record.seq, record.place, record.op));
    }
    Ok(LogRead { accepted_len: end.accepted_len, last_seq: end.last_seq, ending, records })
}

/// The intents of the log with these bytes as [`replay_wal`](crate::replay_wal) gives them, and
/// where a torn record begins.
///
/// # Errors
/// The log is damaged.
pub fn replay_entries(bytes: &[u8]) -> Result<(Vec<WalEntry>, Option<u64>), LogDamage> {
    match read_entries(bytes) {
        Ok(log) => Ok((log.entries, log.torn_at)),
        Err(damage) => Err(LogDamage {
            range: damage.at..damage.until,
            is_cut_short: damage.is_cut_short(),
            error: damage.into_error("log".as_ref()),
        }),
    }
}

/// Reads a MANIFEST and writes it again.
///
/// # Errors
/// It is damaged, or of a newer version; or what was read cannot be written, which is a fault.
pub fn rewrite_manifest(bytes: &[u8]) -> Result<Vec<u8>, TalaError> {
    Manifest::decode(MANIFEST_NAME.as_ref(), bytes)?.encode()
}
