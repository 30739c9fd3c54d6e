//! What every TALA program agrees on: the [`Intent`], its identity, its outcome, the errors a
//! store answers with, and the [`IntentStore`] contract.
//!
//! This crate owns no thread and no file. Everything here is plain data.
//!
//! Reading order: [`Intent`] and its parts, then [`IntentStore`], then [`TalaError`].

mod error;
mod intent;
mod store;

pub use error::{StopCause, StorageOperation, TalaError};
pub use intent::{Intent, IntentId, Outcome, RelationType, SegmentId, Status, TimeRange};
pub use store::IntentStore;
