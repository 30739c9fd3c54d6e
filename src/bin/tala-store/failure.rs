//! Why a command did not succeed, and the exit status that tells so.

use std::{
    io,
    path::{Path, PathBuf},
};

use tala_core::{IntentId, TalaError};

/// A command that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The engine refused or failed.
    #[error(transparent)]
    Store(#[from] TalaError),

    /// A command that only reads was given a directory without a store.
    #[error("there is no store in {}", .0.display())]
    NoStore(PathBuf),

    /// What was given as the directory of a store is something else.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),

    /// The intent asked for is not there.
    #[error("no intent with id {0}")]
    NotFound(IntentId),

    /// A file of the user, or a process, could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was being done, such as `read`.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// An argument that parsed but makes no sense.
    #[error("{0}")]
    Usage(String),

    /// Standard output does not take what is written to it.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),

    /// The store did not do what it promises.
    #[error("a promise was broken: {0}")]
    Promise(String),

    /// Something else went wrong, in words.
    #[error("{0}")]
    Other(String),

    /// The command has said everything itself; only the exit status is left to give.
    #[error("failed")]
    AlreadyReported,
}

impl Failure {
    /// A [`Failure::File`]: `action` on `path` was refused with `source`.
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { action, path: path.to_path_buf(), source }
    }

    /// Whether the reader of our output has gone, as in `tala-store range DIR | head`.
    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// 0 where the reader has seen all it wanted, 2 for wrong usage, 1 for everything else.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            _ if self.is_broken_pipe() => 0,
            Self::Usage(_) => 2,
            _ => 1,
        }
    }

    /// What to tell the user, unless everything has been said or nobody listens.
    pub(crate) fn message(&self) -> Option<String> {
        match self {
            Self::AlreadyReported => None,
            _ if self.is_broken_pipe() => None,
            _ => Some(self.to_string()),
        }
    }
}
