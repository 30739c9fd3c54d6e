//! A record store and an index side by side, as a user would join them: the record first, durably,
//! then the index, on the caller's thread. usearch is safe for adding and searching at once, so no
//! lock is put around it.

use tala_core::{Intent, IntentId, Outcome, TimeRange};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use super::service::{EF, K, RecordStore, Service, THREADS_MAX, key_of};
use crate::Failure;

/// Records in `R`, embeddings in usearch.
pub struct Glued<R> {
    records: R,
    index: Index,
}

impl<R: RecordStore> Glued<R> {
    /// An empty store with room for so many rows.
    pub fn open(records: R, dim: usize, rows_max: usize) -> Result<Self, Failure> {
        let index = Index::new(&IndexOptions {
            dimensions: dim,
            metric: MetricKind::Cos,
            // Half the bytes of f32, and faster; the recall is printed when the rows are loaded.
            quantization: ScalarKind::F16,
            connectivity: 16,
            expansion_add: 200,
            expansion_search: EF,
            multi: false,
        })?;
        index.reserve_capacity_and_threads(rows_max, THREADS_MAX)?;
        Ok(Self { records, index })
    }
}

impl<R: RecordStore> Service for Glued<R> {
    fn how(&self) -> String {
        format!(
            "{}; usearch f16, M = 16, ef_construction = 200, ef = {EF}, added to by the caller",
            self.records.how()
        )
    }

    fn load(&self, intents: Vec<Intent>) -> Result<(), Failure> {
        self.records.load(&intents)?;
        for intent in &intents {
            self.index.add(key_of(intent.id), &intent.embedding)?;
        }
        Ok(())
    }

    fn settle(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn insert(&self, intent: Intent) -> Result<(), Failure> {
        self.records.insert(&intent)?;
        self.index.add(key_of(intent.id), &intent.embedding)?;
        Ok(())
    }

    fn search(&self, embedding: &[f32]) -> Result<Vec<u64>, Failure> {
        Ok(self.index.search(embedding, K)?.keys)
    }

    fn get(&self, id: IntentId) -> Result<Option<Intent>, Failure> {
        self.records.get(id)
    }

    fn range(&self, range: TimeRange) -> Result<Vec<Intent>, Failure> {
        self.records.range(range)
    }

    fn outcome(&self, id: IntentId, outcome: Outcome) -> Result<(), Failure> {
        self.records.outcome(id, outcome)
    }

    fn len(&self) -> Result<u64, Failure> {
        let records = self.records.len()?;
        match self.index.size() as u64 == records {
            true => Ok(records),
            false => Err(format!("{} in the index, {records} records", self.index.size()).into()),
        }
    }
}
