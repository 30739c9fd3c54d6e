//! The rooms from inside, for this repository alone: the models of `loom-tests` and `shuttle-tests`
//! (in builds with `--cfg loom` and `--cfg shuttle`), the benches, the fuzz targets and some
//! tests (with the feature `internals`) reach what is not public by this door. It promises nothing: what it shows
//! changes with any commit.

use std::{path::Path, sync::Arc};

use tala_core::TalaError;

use crate::{VerifyReport, disk::StoreDir, engine::verify_in};
pub use crate::{
    disk::{Disk, DiskFile, EntryKind, Mapping, RoomAhead},
    ids::{FileNumber, SeqNo},
    metrics::{Instruments, LockRank, Timing, TrackedMutex},
    wal::{BatchPlace, Encoded, LogFile},
};

#[cfg(any(loom, shuttle))]
pub use models::*;
#[cfg(all(feature = "internals", not(any(loom, shuttle))))]
mod hostile;
#[cfg(all(feature = "internals", not(any(loom, shuttle))))]
pub use {hostile::*, parts::*};

/// The store in `dir` on `disk`, checked as [`verify`](crate::verify) does.
///
/// # Errors
/// As `verify`.
pub fn verify_on(disk: Arc<dyn Disk>, dir: &Path) -> Result<VerifyReport, TalaError> {
    verify_in(&StoreDir::new(disk, dir))
}

/// What only the models need: the actors and all that they work on.
#[cfg(any(loom, shuttle))]
mod models {
    use tala_core::{SegmentId, TalaError};

    pub use crate::{
        actor::{Actor, Ending, Fate, Flow, Handle, spawn},
        engine::models::{
            Actors, CommittedWrite, Contents, Delivery, Feed, IndexMap, IntentMap, Publisher,
            Subscription, View,
        },
        entry::{Embeddings, Entry, Vector},
        gate::{Gate, GateClosed, Passing, Permit},
        ids::RowId,
        index::{
            Arena, ArenaWriter, Graph, GraphParams, GraphWriter, IndexActor, IndexLetter, Query,
            Shared, search,
        },
        segment::{FlushActor, FlushLetter, HotBuffer, SegmentStore},
        wal::{
            CommitSink, Cut, Log, LogOp, PreparedOp, Request, Staged, WalActor, WalLetter,
            WriteRequest,
        },
    };

    /// The level on which the graph has a row at most.
    #[must_use]
    pub fn row_level(row: u32, params: GraphParams) -> usize {
        crate::index::level_of(row, params)
    }

    /// What the rooms run on.
    pub mod sync {
        pub use crate::sync::*;
    }

    /// The bytes of the segment that holds everything in `buffer`.
    ///
    /// # Errors
    /// An embedding is not where its entry says.
    pub fn encode_segment(
        buffer: &HotBuffer,
        embeddings: &impl Embeddings,
    ) -> Result<Vec<u8>, TalaError> {
        buffer.encode(SegmentId(1), 0, embeddings)
    }
}

/// What only the benches and the tests need: parts that are measured alone, and a switch for programs
/// with many engines at once.
#[cfg(all(feature = "internals", not(any(loom, shuttle))))]
mod parts {
    use std::{path::Path, sync::Arc};

    use tala_core::TalaError;

    use super::{Disk, FileNumber, LogFile};
    pub use crate::{
        disk::RealDisk,
        distance::Vector,
        index::metric::{Cosine, Euclidean, Metric},
        kernels::{
            Path as KernelPath, Probe, Quantized, coarse, coarse4, code_bytes, dot, dots4, pack,
            prefetch, quantize,
        },
        metrics::TrackedRwLock,
        sync::stay_awake_never,
        wal::Stamp,
    };
    use crate::{disk::StoreDir, engine::repair_in, mapping, wal::DiskLog};

    /// The log file `number` of the store in `dir`, as the log's writer has it.
    ///
    /// # Errors
    /// The operating system refused, or there is such a file.
    pub fn create_log(dir: &Path, number: FileNumber) -> Result<impl LogFile + use<>, TalaError> {
        DiskLog::create(&StoreDir::real(dir), number)
    }

    /// The store in `dir` on `disk`, repaired into `to` as [`repair`](crate::repair) does.
    ///
    /// # Errors
    /// As `repair`.
    pub fn repair_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        to: &Path,
    ) -> Result<crate::RepairReport, TalaError> {
        repair_in(&StoreDir::new(Arc::clone(&disk), dir), &StoreDir::new(disk, to))
    }

    /// The file in memory as opening a store has its segments; `None` where there is none.
    ///
    /// # Errors
    /// The operating system refused, or this is no regular file.
    pub fn map_file(path: &Path) -> Result<Option<impl AsRef<[u8]> + use<>>, TalaError> {
        mapping::map_file(&RealDisk, path)
    }
}
