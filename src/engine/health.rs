//! How the engine is, for those who ask with every request: a few relaxed loads, no lock.

use std::{fmt, sync::Arc};

use tala_core::{StopCause, TalaError};

use super::{Inner, StorageEngine, closed};
use crate::{gate::Gate, sync::atomic::Ordering};

/// How an engine is, see [`StorageEngine::health`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Health {
    /// It takes reads and writes, and nobody waits for room.
    Running,
    /// It takes reads and writes, but inserts have to wait for room, and `try_insert` is refused.
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
    /// How much of it is taken: requests, bytes or rows.
    pub used: u64,
    /// The limit, which an option of [`EngineOptions`](crate::EngineOptions) sets.
    pub limit: u64,
    /// Callers that wait for it now.
    pub waiting: u64,
}

/// What inserts take a share of, and wait for where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Resource {
    /// Requests on their way to the log, `mailbox_capacity`: more come than the disk takes.
    Requests,
    /// Their bytes, `mailbox_bytes_max`: the same.
    RequestBytes,
    /// Rows that wait to be linked, `index_lag_max`: more come than the index builder links.
    UnlinkedRows,
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
    /// asked with every request: a few relaxed loads, and no lock while the engine runs. Of several
    /// shortages the one is told that inserts come to last, as it holds up the others.
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
        let limits = [
            (Resource::RequestBytes, &self.gates.bytes, self.options.mailbox_bytes_max),
            (Resource::Requests, &self.gates.requests, self.options.mailbox_capacity),
            (Resource::UnlinkedRows, &self.gates.lag, self.options.index_lag_max),
        ];
        limits
            .into_iter()
            .find_map(|(what, gate, limit)| Shortage::at(what, gate, limit))
            .map_or(Health::Running, Health::Degraded)
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
