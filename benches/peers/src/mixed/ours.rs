//! Our own engine, through its public interface.

use std::path::Path;

use tala_core::{Intent, IntentId, IntentStore, Outcome, TimeRange};
use tala_store::{Query, StorageEngine};

use super::service::{EF, K, Service, key_of};
use crate::Failure;

/// The engine with its default options.
pub struct Ours(StorageEngine);

impl Ours {
    /// An empty store in `dir`.
    pub fn open(dim: usize, dir: &Path) -> Result<Self, Failure> {
        Ok(Self(StorageEngine::options(dim).ef_search(EF).open(dir)?))
    }
}

impl Service for Ours {
    fn how(&self) -> String {
        "default options: durability Sync; new rows are linked by a thread of the engine and \
         scanned exactly until then"
            .to_owned()
    }

    fn load(&self, intents: Vec<Intent>) -> Result<(), Failure> {
        self.0.insert_batch(intents)?;
        Ok(())
    }

    fn settle(&self) -> Result<(), Failure> {
        Ok(self.0.wait_indexed()?)
    }

    fn insert(&self, intent: Intent) -> Result<(), Failure> {
        self.0.insert(intent)?;
        Ok(())
    }

    fn search(&self, embedding: &[f32]) -> Result<Vec<u64>, Failure> {
        let found = self.0.search(Query::new(embedding, K))?;
        Ok(found.into_iter().map(|(id, _)| key_of(id)).collect())
    }

    fn get(&self, id: IntentId) -> Result<Option<Intent>, Failure> {
        Ok(self.0.get(id)?)
    }

    fn range(&self, range: TimeRange) -> Result<Vec<Intent>, Failure> {
        Ok(self.0.query_temporal(range)?)
    }

    fn outcome(&self, id: IntentId, outcome: Outcome) -> Result<(), Failure> {
        Ok(self.0.attach_outcome(id, outcome)?)
    }

    fn len(&self) -> Result<u64, Failure> {
        Ok(self.0.len() as u64)
    }
}
