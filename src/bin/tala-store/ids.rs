//! Identities for commands that came without one.

use std::collections::HashMap;

use tala_core::IntentId;
use uuid::Uuid;

/// The namespace of all ids made here; a random (version 4) UUID that never changes, or old
/// histories would be stored a second time.
const NAMESPACE: Uuid = Uuid::from_u128(0x1b35_7195_94df_4661_a629_9abd_a431_fa46);

/// The id of the `occurrence`-th (from 0) time that `raw_command` was given at `timestamp`.
pub(crate) fn derive(raw_command: &str, timestamp: Option<u64>, occurrence: u32) -> IntentId {
    // Fixed-size fields first and the command last: no two inputs give the same bytes.
    let mut name = Vec::with_capacity(raw_command.len() + 13);
    name.push(u8::from(timestamp.is_some()));
    name.extend(timestamp.unwrap_or(0).to_le_bytes());
    name.extend(occurrence.to_le_bytes());
    name.extend(raw_command.as_bytes());
    IntentId(Uuid::new_v5(&NAMESPACE, &name))
}

/// Counts how often a source has named the same command at the same time, and makes the ids.
///
/// One counter per source: the ids then depend on nothing but that source's content, neither on
/// what was ingested before nor on which sources are named together. It holds 20 bytes for each
/// different command, far less than the engine does for the same row.
#[derive(Default)]
pub(crate) struct Ids {
    /// Under the id of its first occurrence, how often a command has been seen.
    seen: HashMap<IntentId, u32>,
}

impl Ids {
    /// The id of the next occurrence.
    pub(crate) fn next(&mut self, raw_command: &str, timestamp: Option<u64>) -> IntentId {
        let first = derive(raw_command, timestamp, 0);
        let count = self.seen.entry(first).or_insert(0);
        let occurrence = *count;
        *count = count.saturating_add(1);
        if occurrence == 0 { first } else { derive(raw_command, timestamp, occurrence) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_command_time_and_occurrence_only() {
        let (mut one, mut other) = (Ids::default(), Ids::default());
        let ids = [one.next("ls", None), one.next("ls", None), one.next("ls", Some(0))];
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        other.next("pwd", None);
        assert_eq!(other.next("ls", Some(0)), ids[2]);
        assert_eq!(other.next("ls", None), ids[0]);
        assert_eq!(other.next("ls", None), ids[1]);
    }

    #[test]
    fn ids_never_change() {
        assert_eq!(
            derive("ls -la", Some(1_700_000_000_000_000_000), 0).to_string(),
            "434c81bf-53b6-5c28-a888-1231108773bc"
        );
    }
}
