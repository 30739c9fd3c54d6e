//! Answers at once: what is measured then is the load itself.

use tala_core::{Intent, IntentId, Outcome, TimeRange};

use super::service::{K, Service};
use crate::Failure;

/// Stores nothing.
pub struct Nothing;

impl Service for Nothing {
    fn how(&self) -> String {
        "answers at once and stores nothing: the cost of the load itself".to_owned()
    }

    fn load(&self, _: Vec<Intent>) -> Result<(), Failure> {
        Ok(())
    }

    fn settle(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn insert(&self, _: Intent) -> Result<(), Failure> {
        Ok(())
    }

    fn search(&self, _: &[f32]) -> Result<usize, Failure> {
        Ok(K)
    }

    fn get(&self, _: IntentId) -> Result<Option<Intent>, Failure> {
        Ok(None)
    }

    fn range(&self, _: TimeRange) -> Result<Vec<Intent>, Failure> {
        Ok(Vec::new())
    }

    fn outcome(&self, _: IntentId, _: Outcome) -> Result<(), Failure> {
        Ok(())
    }

    fn len(&self) -> Result<u64, Failure> {
        Ok(0)
    }
}
