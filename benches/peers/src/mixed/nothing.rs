//! Answers at once: what is measured then is the load itself.

use std::sync::atomic::{AtomicU64, Ordering};

use tala_core::{Intent, IntentId, Outcome, TimeRange};

use super::service::{K, Service};
use crate::Failure;

/// Keeps nothing but a count.
#[derive(Default)]
pub struct Nothing(AtomicU64);

/// As good as any.
fn some_intent(id: IntentId) -> Intent {
    Intent {
        id,
        timestamp: 0,
        raw_command: String::new(),
        embedding: Vec::new(),
        context_hash: 0,
        parent_ids: Vec::new(),
        outcome: None,
        confidence: 1.0,
    }
}

impl Service for Nothing {
    fn how(&self) -> String {
        "answers at once and stores nothing: the cost of the load itself".to_owned()
    }

    fn load(&self, intents: Vec<Intent>) -> Result<(), Failure> {
        self.0.fetch_add(intents.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn settle(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn insert(&self, _: Intent) -> Result<(), Failure> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn search(&self, _: &[f32]) -> Result<Vec<u64>, Failure> {
        Ok(vec![0; K])
    }

    fn get(&self, id: IntentId) -> Result<Option<Intent>, Failure> {
        Ok(Some(some_intent(id)))
    }

    fn range(&self, _: TimeRange) -> Result<Vec<Intent>, Failure> {
        Ok(vec![some_intent(IntentId::from_bytes([0; 16]))])
    }

    fn outcome(&self, _: IntentId, _: Outcome) -> Result<(), Failure> {
        Ok(())
    }

    fn len(&self) -> Result<u64, Failure> {
        Ok(self.0.load(Ordering::Relaxed))
    }
}
