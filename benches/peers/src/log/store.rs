//! What a store must do to take part, and what it is asked over the pipe.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::payload::{KEY_BYTES, Payload};
use crate::{Failure, stats::LatencySummary};

/// When an insert counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Before the answer the record is on the disk, by the store's own account.
    Durable,
    /// The store may answer earlier, as it does by default or in its mode for that.
    Buffered,
    /// Ours only: handed to the kernel before the answer, durable at least every 5 ms.
    Interval,
}

/// A store that is open.
pub trait Store: Send + Sync {
    /// What one client thread uses.
    fn client(&self) -> Result<Box<dyn Client + '_>, Failure>;

    /// The value of a key.
    fn get(&self, key: &[u8; KEY_BYTES]) -> Result<Option<Vec<u8>>, Failure>;

    /// Records that were acknowledged and that the store has not finished working on.
    fn lag(&self) -> u64 {
        0
    }

    /// Waits until there are none of those.
    fn settle(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Ends as the store's documentation wants it.
    fn close(self: Box<Self>) -> Result<(), Failure>;
}

/// One client of a store.
pub trait Client: Send {
    /// Inserts these records, as one where there are several and the store has a batch, and
    /// returns when they count as done.
    fn insert(&mut self, records: &[Payload]) -> Result<(), Failure>;
}

/// How a competitor opens its store in a directory.
pub type Open = fn(&Path, Opening) -> Result<Box<dyn Store>, Failure>;

/// How to open.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Opening {
    /// When an insert counts as done.
    pub level: Level,
    /// Ours only: the index may stay as far behind as it likes.
    pub index_may_lag: bool,
    /// Ours only: opening returns only when every row is in the index.
    pub index_before_use: bool,
    /// Of a store with one writer at a time: a thread of the bench inserts what all clients wait for
    /// in one transaction.
    pub is_grouped: bool,
}

/// How long clients go on: until the first of these. With none of them it would be for ever.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Until {
    /// This long.
    pub seconds: Option<f64>,
    /// Until all clients together inserted so many records, rounded up to the same for each.
    pub records: Option<u64>,
}

/// A request to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// Opens a store in a new directory. Answered with nothing.
    Open {
        /// There is nothing there.
        dir: PathBuf,
        /// How.
        opening: Opening,
    },
    /// Inserts. Answered with [`Ran`].
    Run {
        /// Threads that insert, each in a closed loop.
        clients: u32,
        /// How long.
        until: Until,
        /// Records in each insert.
        batch: usize,
        /// Whether the time until the store has settled counts too.
        settle: bool,
    },
    /// Closes the store. Answered with [`Closed`].
    Close,
    /// Opens a store that was closed, reads a key, looks for what was acknowledged, and leaves it
    /// open. Answered with [`Reopened`].
    Reopen {
        /// Where it is.
        dir: PathBuf,
        /// How.
        opening: Opening,
        /// How many records each client had acknowledged.
        acknowledged: Vec<u64>,
    },
}

/// What a run gave.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ran {
    /// Records that were acknowledged.
    pub records: u64,
    /// From the first insert's start to the last one's end.
    pub seconds: f64,
    /// What it took to settle after that.
    pub settle_seconds: f64,
    /// How many records the store was behind when the last insert had ended.
    pub lag: u64,
    /// Of the inserts.
    pub latency: LatencySummary,
}

/// What closing gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Closed {
    /// How long it took.
    pub seconds: f64,
    /// How many records each client had acknowledged since the store was opened.
    pub acknowledged: Vec<u64>,
}

/// What opening again gave.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Reopened {
    /// From the call to the first key's value.
    pub seconds: f64,
    /// Acknowledged records that were looked for.
    pub checked: u64,
    /// Of those, the ones that were not there, or not as they were given.
    pub missing: u64,
}

/// An answer to a request.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// It is done.
    Done,
    /// To [`Request::Run`].
    Ran(Ran),
    /// To [`Request::Close`].
    Closed(Closed),
    /// To [`Request::Reopen`].
    Reopened(Reopened),
}
