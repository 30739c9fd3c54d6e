//! The one error type of every TALA store: a variant for each thing the caller may do differently.

use std::{fmt, io, path::PathBuf, sync::Arc};

use crate::{Intent, IntentId, SegmentId};

/// What was being done to a file or directory when the operating system refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum StorageOperation {
    /// Creating a file or directory.
    Create,
    /// Opening a file or directory.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making durable (fsync, fdatasync).
    Sync,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
    /// Listing a directory.
    List,
    /// Locking a directory.
    Lock,
    /// Mapping a file into memory.
    Map,
    /// Starting a thread.
    Spawn,
}

impl fmt::Display for StorageOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::List => "list",
            Self::Lock => "lock",
            Self::Map => "map",
            Self::Spawn => "start thread",
        })
    }
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TalaError {
    /// There is no such segment.
    #[error("segment {0} not found")]
    SegmentNotFound(SegmentId),

    /// A segment's bytes are not a valid segment.
    #[error("segment corrupted: {0}")]
    SegmentCorrupted(String),

    /// There is no intent with this id.
    #[error("no intent with id {0}")]
    NodeNotFound(IntentId),

    /// An embedding, or a whole directory, has another dimension than the store.
    #[error("dimension mismatch: expected {expected}, got {got}")]
    DimensionMismatch {
        /// The dimension of the store.
        expected: usize,
        /// The dimension that was offered.
        got: usize,
    },

    /// An I/O error without a path; the engine's own failures are [`TalaError::Storage`].
    #[error("i/o error: {0}")]
    Io(#[from] io::Error),

    /// The operating system refused an operation on a file or directory.
    #[error("cannot {operation} {}: {source}", path.display())]
    Storage {
        /// What was being done.
        operation: StorageOperation,
        /// To which file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: Arc<io::Error>,
    },

    /// A file holds bytes that were not written there, or has lost some that were.
    #[error("{} is damaged at byte {offset}: {what}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes from its start.
        offset: u64,
        /// What is wrong there.
        what: String,
    },

    /// A file was written by a newer version of the format than this build reads.
    #[error("{} has format version {found}, this build reads up to {supported}", file.display())]
    UnsupportedVersion {
        /// The file.
        file: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },

    /// Another engine, in this or another process, has the directory open.
    #[error("{} is in use by another engine", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },

    /// The engine no longer takes this call: it was closed, or one of its threads ended.
    #[error("{actor} stopped: {cause}")]
    Stopped {
        /// Name of the thread that ended first, or `engine` after a close.
        actor: &'static str,
        /// Why.
        cause: Arc<StopCause>,
    },

    /// There is no room now; the intent comes back untouched.
    #[error("no room for another intent now")]
    Busy {
        /// The intent that was offered.
        intent: Box<Intent>,
    },

    /// Something exceeds a limit.
    #[error("too large: {got} is more than {max} ({what})")]
    TooLarge {
        /// What exceeds the limit; names the option that sets it where there is one.
        what: &'static str,
        /// The size offered.
        got: u64,
        /// The limit.
        max: u64,
    },

    /// An argument that no store would take, such as an embedding with a NaN.
    #[error("invalid {field}: {reason}")]
    InvalidInput {
        /// Which argument or field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },

    /// An option with a value it cannot have.
    #[error("invalid option {option}: {reason}")]
    InvalidOption {
        /// Name of the option.
        option: &'static str,
        /// What is wrong with its value.
        reason: &'static str,
    },

    /// One intent of a batch was refused; nothing of the batch was stored.
    #[error("intent {position} of the batch: {source}")]
    InBatch {
        /// Position in the batch, counting from 0.
        position: usize,
        /// Why it was refused.
        #[source]
        source: Box<TalaError>,
    },
}

/// Why an engine, or one of its threads, ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopCause {
    /// `close` was called, or the last handle was dropped.
    #[error("the engine was closed")]
    Closed,
    /// An operation failed in a way that forbids going on until the directory is opened again.
    #[error("{0}")]
    Failed(#[source] TalaError),
    /// A thread of the engine panicked; the panic's message.
    #[error("panicked: {0}")]
    Panicked(String),
}

impl TalaError {
    /// Whether `self` is [`TalaError::Stopped`] because the engine was closed on purpose.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Stopped { cause, .. } if matches!(**cause, StopCause::Closed))
    }

    /// A [`TalaError::Storage`]: `operation` on `path` was refused with `source`.
    #[must_use]
    pub fn storage(
        operation: StorageOperation,
        path: impl Into<PathBuf>,
        source: io::Error,
    ) -> Self {
        Self::Storage { operation, path: path.into(), source: Arc::new(source) }
    }

    /// A [`TalaError::Corrupt`]: `file` is wrong at `offset`.
    #[must_use]
    pub fn corrupt(file: impl Into<PathBuf>, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.into(), offset, what: what.into() }
    }
}
