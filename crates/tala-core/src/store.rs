//! The contract of a store of intents.

use crate::{Intent, IntentId, Outcome, TalaError, TimeRange};

/// A store of intents that many threads share.
pub trait IntentStore: Send + Sync {
    /// Stores an intent and returns its id. An intent whose id exists replaces the older one; a
    /// replacement without an outcome keeps the outcome that was attached.
    ///
    /// # Errors
    /// The embedding has another dimension or is not finite, a limit is exceeded, or the store
    /// cannot take writes (any more).
    fn insert(&self, intent: Intent) -> Result<IntentId, TalaError>;

    /// The intent with this id, or `None`.
    ///
    /// # Errors
    /// The store was closed.
    fn get(&self, id: IntentId) -> Result<Option<Intent>, TalaError>;

    /// The `k` intents most similar to `embedding` by cosine, best first, as
    /// `(id, cosine similarity in [-1, 1])`. Ties are ordered by id.
    ///
    /// # Errors
    /// The embedding has another dimension or is not finite, or the store was closed.
    fn query_semantic(
        &self,
        embedding: &[f32],
        k: usize,
    ) -> Result<Vec<(IntentId, f32)>, TalaError>;

    /// All intents with `start <= timestamp < end`, by timestamp, then by order of insertion.
    ///
    /// # Errors
    /// The store was closed.
    fn query_temporal(&self, range: TimeRange) -> Result<Vec<Intent>, TalaError>;

    /// Attaches an outcome to an intent; the last one attached wins.
    ///
    /// # Errors
    /// [`TalaError::NodeNotFound`] where there is no such intent, or the store cannot take writes
    /// (any more).
    fn attach_outcome(&self, id: IntentId, outcome: Outcome) -> Result<(), TalaError>;
}
