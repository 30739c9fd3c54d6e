//! What a service needs of its store.

use tala_core::{Intent, IntentId, Outcome, TimeRange};

use crate::Failure;

/// Similar intents that a search asks for.
pub const K: usize = 10;
/// Beam width of every competitor's graph search.
pub const EF: usize = 64;
/// Callers that may be in an index at once; an index that must know is told this.
pub const THREADS_MAX: usize = 64;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Durable, found by id, by time and by meaning when it is answered.
    Insert,
    /// The [`K`] most similar.
    Search,
    /// One intent by its id.
    Lookup,
    /// All intents in a span of time.
    Range,
    /// Durable when it is answered.
    Outcome,
}

/// All kinds, in the order of the tables.
pub const KINDS: [Kind; 5] = [Kind::Insert, Kind::Search, Kind::Lookup, Kind::Range, Kind::Outcome];

impl Kind {
    /// As tables and files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Search => "search",
            Self::Lookup => "lookup",
            Self::Range => "range",
            Self::Outcome => "outcome",
        }
    }
}

/// A number for an id: ids are random, so their first 8 bytes are different too.
pub fn key_of(id: IntentId) -> u64 {
    let bytes = id.as_bytes();
    bytes.iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte))
}

/// A store of intents that many threads use at once.
pub trait Service: Send + Sync {
    /// How the competitor is used, in a sentence.
    fn how(&self) -> String;
    /// Stores many before the day begins.
    fn load(&self, intents: Vec<Intent>) -> Result<(), Failure>;
    /// Returns when everything loaded can be searched as fast as it ever will.
    fn settle(&self) -> Result<(), Failure>;
    /// Durable, and found in every way when it returns.
    fn insert(&self, intent: Intent) -> Result<(), Failure>;
    /// The [`key_of`] each that was found, at most [`K`].
    fn search(&self, embedding: &[f32]) -> Result<Vec<u64>, Failure>;
    /// The whole intent.
    fn get(&self, id: IntentId) -> Result<Option<Intent>, Failure>;
    /// Whole intents, by time.
    fn range(&self, range: TimeRange) -> Result<Vec<Intent>, Failure>;
    /// Durable when it returns.
    fn outcome(&self, id: IntentId, outcome: Outcome) -> Result<(), Failure>;
    /// Intents stored.
    fn len(&self) -> Result<u64, Failure>;
}

/// The half of a [`Service`] that keeps records and knows nothing of meaning.
pub trait RecordStore: Send + Sync {
    /// How it is used, in a sentence.
    fn how(&self) -> String;
    /// Stores many at once.
    fn load(&self, intents: &[Intent]) -> Result<(), Failure>;
    /// Durable when it returns.
    fn insert(&self, intent: &Intent) -> Result<(), Failure>;
    /// The whole intent.
    fn get(&self, id: IntentId) -> Result<Option<Intent>, Failure>;
    /// Whole intents, by time.
    fn range(&self, range: TimeRange) -> Result<Vec<Intent>, Failure>;
    /// Durable when it returns.
    fn outcome(&self, id: IntentId, outcome: Outcome) -> Result<(), Failure>;
    /// Intents stored.
    fn len(&self) -> Result<u64, Failure>;
}
