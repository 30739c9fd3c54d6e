//! The sample session, and any number of intents made of it.

use tala_core::Intent;
use tala_ingest::Source;
use tala_store::EngineOptions;

use crate::{embed::embed, failure::Failure, ids};

/// A day of work in JSON Lines: a build, a deployment, an incident.
const SESSION: &str = include_str!("../../../../assets/demo-session.jsonl");

/// The time between two repetitions of the session, in nanoseconds: a week.
const REPETITION_NS: u64 = 7 * 24 * 3_600 * 1_000_000_000;

/// The intents of the sample session, with embeddings of `dim` dimensions.
pub(crate) fn intents(dim: usize) -> Result<Vec<Intent>, Failure> {
    let broken = |why: String| Failure::Other(format!("the sample session is broken: {why}"));
    let mut source = Source::new(SESSION.as_bytes(), EngineOptions::RECORD_BYTES_MAX)?;
    let mut intents = Vec::new();
    while let Some(entry) = source.next_entry()? {
        let entry = entry.map_err(|bad| broken(format!("line {}: {}", bad.line, bad.why)))?;
        let timestamp =
            entry.timestamp.ok_or_else(|| broken(format!("line {}: no timestamp", entry.line)))?;
        intents.push(Intent {
            id: entry.id.unwrap_or_else(|| ids::derive(&entry.raw_command, Some(timestamp), 0)),
            timestamp,
            embedding: embed(&entry.raw_command, dim),
            raw_command: entry.raw_command,
            context_hash: entry.context_hash,
            parent_ids: entry.parent_ids,
            outcome: entry.outcome,
            confidence: entry.confidence.unwrap_or(1.0),
        });
    }
    if intents.is_empty() {
        return Err(broken("it is empty".to_owned()));
    }
    Ok(intents)
}

/// The intent of this number in the endless repetition of `session`, which is not empty. The same
/// number gives the same intent in every process; none has the id of one in `session`.
pub(crate) fn numbered(session: &[Intent], number: u64) -> Intent {
    let count = session.len() as u64;
    let mut intent = session[(number % count) as usize].clone();
    let repetition = number / count + 1;
    intent.timestamp = intent.timestamp.saturating_add(REPETITION_NS.saturating_mul(repetition));
    intent.id = ids::derive(&intent.raw_command, Some(intent.timestamp), 0);
    intent.parent_ids = Vec::new();
    intent
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_session_is_whole() {
        let session = intents(16).unwrap();
        assert!(session.len() >= 300);
        assert!(session.is_sorted_by_key(|intent| intent.timestamp));
        let ids: HashSet<_> = session.iter().map(|intent| intent.id).collect();
        assert_eq!(ids.len(), session.len());
        let mut parents = session.iter().flat_map(|intent| &intent.parent_ids);
        assert!(parents.all(|parent| ids.contains(parent)));
        let known = session.iter().filter(|intent| intent.outcome.is_some()).count();
        assert!(0 < known && known < session.len());
    }

    #[test]
    fn numbered_intents_differ_and_repeat() {
        let session = intents(16).unwrap();
        let mut ids: HashSet<_> = session.iter().map(|intent| intent.id).collect();
        for number in 0..2_000 {
            let intent = numbered(&session, number);
            assert!(ids.insert(intent.id), "{number}");
            assert_eq!(intent, numbered(&session, number));
        }
    }
}
