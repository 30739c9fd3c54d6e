//! How the engine is, for those who ask with every request: a few relaxed loads, no lock.

use std::{fmt, sync::Arc};

use tala_core::{StopCause, TalaError};

use super::{Gates, Inner, StorageEngine, closed, open::FLUSH_MAILBOX};
use crate::{gate::Gate, sync::atomic::Ordering};

/// Sealed buffers that nobody waits for: one that is being written, and those in the mailbox.
const SEALED_BUFFERS_MAX: usize = 1 + FLUSH_MAILBOX;

/// How an engine is, see [`StorageEngine::health`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Health {
    /// It takes reads and writes, nobody waits for room, and its threads keep up.
    Running,
    /// It takes reads and writes, but is short of something that makes inserts wait
    /// ([`Shortage::makes_inserts_wait`]), or makes their syncs slow.
    Degraded(Shortage),
    /// It takes no writes until the directory is opened again. Reads go on.
    Failed {
        /// Name of the thread that ended first.
        actor: &'static str,
        /// Why.
        cause: Arc<StopCause>,
    },
    /// It was closed on purpose and takes no call any more.
    Closed,
}

/// What an engine has too little of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Shortage {
    /// What is short.
    pub what: Resource,
    /// How much of it is taken: requests, bytes, rows, buffers or logs.
    pub used: u64,
    /// From where on it is short. An option of [`EngineOptions`](crate::EngineOptions) where
    /// [`Resource`] names one.
    pub limit: u64,
    /// Callers that wait for it now.
    pub waiting: u64,
}

impl Shortage {
    /// Whether inserts wait until it is over, so that a service may rather turn them away.
    #[must_use]
    pub fn makes_inserts_wait(&self) -> bool {
        match self.what {
            Resource::Requests
            | Resource::RequestBytes
            | Resource::UnlinkedRows
            | Resource::SealedBuffers => true,
            Resource::PreparedLogs => false,
        }
    }
}

/// What inserts need, and wait for or do without where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Resource {
    /// Requests on their way to the log, `mailbox_capacity`: more come than the disk takes.
    Requests,
    /// Their bytes, `mailbox_bytes_max`: the same.
    RequestBytes,
    /// Rows that wait to be linked, `index_lag_max`: more come than the index builder links.
    UnlinkedRows,
    /// Full hot buffers that are not published as segments yet: more are filled than the disk takes
    /// segments. The log's writer waits until the next of them is taken up, and with it everybody
    /// whose request it has not answered; [`queue_depth`](StorageEngine::queue_depth) has most of
    /// them.
    SealedBuffers,
    /// Files that are prepared for logs to come: a log was needed before its file was ready, so it
    /// grows, and syncs take longer. Told until a file is ready; for good where none can be made.
    PreparedLogs,
}

impl Health {
    /// Whether writes are taken, if need be after a wait for room.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        matches!(self, Self::Running | Self::Degraded(_))
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Degraded(shortage) => write!(f, "degraded: {shortage}"),
            Self::Failed { actor, cause } => write!(f, "failed: {actor} stopped: {cause}"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, used, limit, waiting } = self;
        let reason = match what {
            Resource::Requests => "requests wait for the log",
            Resource::RequestBytes => "bytes of requests wait for the log",
            Resource::UnlinkedRows => "rows wait to be linked",
            Resource::SealedBuffers => "full buffers wait to be segments",
            Resource::PreparedLogs => {
                return write!(f, "{used} logs begun before their file was ready");
            }
        };
        write!(f, "{used} {reason} where {limit} may; {waiting} callers wait for room")
    }
}

impl StorageEngine {
    /// Requests on their way to the log: let in, and not taken up by its writer yet. At most
    /// `mailbox_capacity`; callers that wait for room are not counted. Costs a relaxed load, and the
    /// number may be a moment old.
    #[must_use]
    pub fn queue_depth(&self) -> u64 {
        self.state.as_ref().map_or(0, |inner| inner.gates.requests.used() as u64)
    }

    /// Bytes of memory that those requests hold. At most `mailbox_bytes_max`, but for a single
    /// larger request. Costs a relaxed load, and the number may be a moment old.
    #[must_use]
    pub fn queue_bytes(&self) -> u64 {
        self.state.as_ref().map_or(0, |inner| inner.gates.bytes.used() as u64)
    }

    /// Rows that are visible and not linked into the graph yet: what every search scans. Costs two
    /// loads, and the number may be a moment old.
    #[must_use]
    pub fn index_lag(&self) -> u64 {
        self.state.as_ref().map_or(0, |inner| {
            let index = &inner.view.index;
            // In this order: a row that is linked is among the rows.
            let linked = index.linked.load(Ordering::Acquire);
            u64::from(index.arena.len().saturating_sub(linked))
        })
    }

    /// Whether the engine runs, runs short of something, or has ended, and why. Cheap enough to be
    /// asked with every request: ten loads, none of which waits for anybody, and no lock while the
    /// engine runs. Of several shortages the one is told that inserts come to last, as it holds up
    /// the others; that of prepared logs only where there is no other.
    ///
    /// An engine whose options were bad has failed.
    #[must_use]
    pub fn health(&self) -> Health {
        match &self.state {
            Ok(inner) => inner.health(),
            Err(bad) => {
                Health::Failed { actor: "engine", cause: Arc::new(StopCause::Failed(bad.error())) }
            }
        }
    }
}

impl Inner {
    fn health(&self) -> Health {
        if let Err(error) = self.check_open() {
            return Health::of_end(error);
        }
        self.held_up()
            .or_else(|| self.short_of_room())
            .or_else(|| self.short_of_logs())
            .map_or(Health::Running, Health::Degraded)
    }

    /// Whether the log's writer waits for the flusher.
    fn held_up(&self) -> Option<Shortage> {
        let buffers_count = self.view.metrics.backlog().held_up_by()?;
        let Gates { requests, .. } = &self.gates;
        Some(Shortage {
            what: Resource::SealedBuffers,
            used: buffers_count,
            limit: SEALED_BUFFERS_MAX as u64,
            waiting: (requests.used() + requests.waiting_count()) as u64,
        })
    }

    /// Whether callers wait at a gate, or the next one would.
    fn short_of_room(&self) -> Option<Shortage> {
        let limits = [
            (Resource::RequestBytes, &self.gates.bytes, self.options.mailbox_bytes_max),
            (Resource::Requests, &self.gates.requests, self.options.mailbox_capacity),
            (Resource::UnlinkedRows, &self.gates.lag, self.options.index_lag_max),
        ];
        limits.into_iter().find_map(|(what, gate, limit)| Shortage::at(what, gate, limit))
    }

    /// Whether a log was begun without a file that had been prepared for it.
    fn short_of_logs(&self) -> Option<Shortage> {
        let used = self.view.metrics.backlog().late_logs();
        let what = Resource::PreparedLogs;
        (used > 0).then_some(Shortage { what, used, limit: 0, waiting: 0 })
    }
}

impl Health {
    fn of_end(error: TalaError) -> Self {
        let TalaError::Stopped { actor, cause } = error else { return Self::of_end(closed()) };
        if matches!(*cause, StopCause::Closed) {
            Self::Closed
        } else {
            Self::Failed { actor, cause }
        }
    }
}

impl Shortage {
    /// What is short at this gate, if anything is.
    fn at(what: Resource, gate: &Gate, limit: usize) -> Option<Self> {
        let (used, waiting) = (gate.used(), gate.waiting_count());
        (used >= limit || waiting > 0).then_some(Self {
            what,
            used: used as u64,
            limit: limit as u64,
            waiting: waiting as u64,
        })
    }
}
