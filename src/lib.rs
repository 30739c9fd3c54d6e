//! The storage engine of TALA: a write-ahead log for durability, a hot buffer that becomes
//! immutable TBF segments, an HNSW index for search by meaning, and maps for look-ups by id and by
//! time. See `ARCHITECTURE.md` for how it works inside.
//!
//! [`StorageEngine`] is the engine: open it, clone the handle into as many threads as you like,
//! and use it through [`tala_core::IntentStore`] and its own methods. [`EngineOptions`] has every
//! limit and choice. [`StorageMetrics`] tells what it does.
//!
//! ```
//! use tala_core::{Intent, IntentId, IntentStore, Outcome, Status, TimeRange};
//! use tala_store::StorageEngine;
//!
//! let engine = StorageEngine::in_memory(8, 1000);
//!
//! let intent = Intent {
//!     id: IntentId::random(),
//!     timestamp: 42,
//!     raw_command: "cargo build".to_string(),
//!     embedding: vec![0.1; 8],
//!     context_hash: 7,
//!     parent_ids: vec![],
//!     outcome: None,
//!     confidence: 0.95,
//! };
//!
//! let id = engine.insert(intent).unwrap();
//! let retrieved = engine.get(id).unwrap().unwrap();
//! assert_eq!(retrieved.raw_command, "cargo build");
//!
//! // Attach an outcome
//! engine.attach_outcome(id, Outcome {
//!     status: Status::Success,
//!     latency_ns: 1000,
//!     exit_code: 0,
//! }).unwrap();
//!
//! // Temporal query
//! let results = engine.query_temporal(TimeRange { start: 0, end: 100 }).unwrap();
//! assert_eq!(results.len(), 1);
//! ```
//!
//! The parts are public too, for those who need one alone: [`Wal`] and [`replay_wal`],
//! [`HotBuffer`], [`QueryEngine`].

// In reading order: what is shared, the rooms, the facade.
mod bytes;
mod disk;
mod door;
mod entry;
mod files;
mod ids;
mod mapping;
mod options;
mod random;
mod trace;

mod sync;

mod actor;
mod gate;

mod metrics;

mod distance;
mod index;
mod kernels;
mod segment;
mod wal;

mod engine;
mod query_engine;

#[cfg(any(loom, shuttle, feature = "internals"))]
#[doc(hidden)]
pub mod rooms;

pub use engine::{
    CommittedWrite, Delivery, Health, IncompleteIntent, Iter, Loss, Query, RecallAt, RecallOptions,
    RecallReport, RecoveryReport, RecoveryWarning, RepairReport, Resource, Shortage, StorageEngine,
    StoreStats, Subscription, VerifyReport, repair, stored_dim, verify,
};
pub use hdrhistogram;
pub use ids::SeqNo;
pub use metrics::{
    Histograms, HistogramsSnapshot, LockSnapshot, LockStats, MetricsSnapshot, StorageMetrics,
    Timing,
};
pub use options::{Durability, EngineOptions, OpenProgress};
pub use query_engine::QueryEngine;
pub use segment::HotBuffer;
pub use wal::{Wal, WalEntry, replay_wal};

/// The README's example, compiled as a user would compile it.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The guide's example, the same way.
#[cfg(doctest)]
#[doc = include_str!("../docs/choosing-index-parameters.md")]
struct ChoosingIndexParameters;
