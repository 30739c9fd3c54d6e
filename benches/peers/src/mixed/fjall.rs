//! fjall with three keyspaces: intents by id, ids by time, outcomes by id. What belongs together is
//! one batch, committed, and then persisted with `PersistMode::SyncData`.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, UserKey};
use tala_core::{Intent, IntentId, Outcome, Status, TimeRange};

use super::service::RecordStore;
use crate::Failure;

/// The three keyspaces of one database.
pub struct Fjall {
    database: Database,
    intents: Keyspace,
    by_time: Keyspace,
    outcomes: Keyspace,
    dim: usize,
}

impl Fjall {
    /// A new database in `dir`.
    pub fn open(dir: &Path, dim: usize) -> Result<Self, Failure> {
        let database = Database::builder(dir).open()?;
        let keyspace = |name| database.keyspace(name, KeyspaceCreateOptions::default);
        let (intents, by_time, outcomes) =
            (keyspace("intents")?, keyspace("by_time")?, keyspace("outcomes")?);
        Ok(Self { database, intents, by_time, outcomes, dim })
    }

    /// Applied, then durable: the sync is outside the lock of the journal, so that it serves all
    /// that were applied before it.
    fn commit(&self, batch: OwnedWriteBatch) -> Result<(), Failure> {
        batch.commit()?;
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn write(&self, intents: &[Intent]) -> Result<(), Failure> {
        let mut batch = self.database.batch();
        for intent in intents {
            let id = intent.id.as_bytes();
            batch.insert(&self.intents, &id[..], encode(intent));
            let time_and_id = [&intent.timestamp.to_be_bytes()[..], &id[..]].concat();
            batch.insert(&self.by_time, time_and_id, &[][..]);
        }
        self.commit(batch)
    }
}

/// time u64, context u64, confidence f32, embedding, command.
fn encode(intent: &Intent) -> Vec<u8> {
    let embedding = intent.embedding.iter().flat_map(|value| value.to_le_bytes());
    let mut bytes = Vec::with_capacity(20 + 4 * intent.embedding.len() + intent.raw_command.len());
    bytes.extend(intent.timestamp.to_le_bytes());
    bytes.extend(intent.context_hash.to_le_bytes());
    bytes.extend(intent.confidence.to_le_bytes());
    bytes.extend(embedding);
    bytes.extend(intent.raw_command.as_bytes());
    bytes
}

fn decode(id: IntentId, dim: usize, bytes: &[u8], outcome: Option<&[u8]>) -> Option<Intent> {
    let (time, rest) = bytes.split_first_chunk()?;
    let (context, rest) = rest.split_first_chunk()?;
    let (confidence, rest) = rest.split_first_chunk()?;
    let (embedding, command) = rest.split_at_checked(4 * dim)?;
    let (words, _) = embedding.as_chunks::<4>();
    Some(Intent {
        id,
        timestamp: u64::from_le_bytes(*time),
        raw_command: String::from_utf8(command.to_vec()).ok()?,
        embedding: words.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        context_hash: u64::from_le_bytes(*context),
        parent_ids: Vec::new(),
        outcome: match outcome {
            Some(bytes) => Some(decode_outcome(bytes)?),
            None => None,
        },
        confidence: f32::from_le_bytes(*confidence),
    })
}

fn decode_outcome(bytes: &[u8]) -> Option<Outcome> {
    let (status, rest) = bytes.split_first()?;
    let (latency, rest) = rest.split_first_chunk()?;
    Some(Outcome {
        status: if *status == 0 { Status::Success } else { Status::Failure },
        latency_ns: u64::from_le_bytes(*latency),
        exit_code: i32::from_le_bytes(*rest.first_chunk()?),
    })
}

impl RecordStore for Fjall {
    fn how(&self) -> String {
        "fjall, a batch over three keyspaces, committed, then persist(SyncData)".to_owned()
    }

    fn load(&self, intents: &[Intent]) -> Result<(), Failure> {
        self.write(intents)
    }

    fn insert(&self, intent: &Intent) -> Result<(), Failure> {
        self.write(std::slice::from_ref(intent))
    }

    fn get(&self, id: IntentId) -> Result<Option<Intent>, Failure> {
        let Some(bytes) = self.intents.get(id.as_bytes())? else { return Ok(None) };
        let outcome = self.outcomes.get(id.as_bytes())?;
        let intent = decode(id, self.dim, &bytes, outcome.as_deref());
        Ok(Some(intent.ok_or("a record that was not written so")?))
    }

    fn range(&self, range: TimeRange) -> Result<Vec<Intent>, Failure> {
        let mut intents = Vec::new();
        for item in self.by_time.range(range.start.to_be_bytes()..range.end.to_be_bytes()) {
            let key: UserKey = item.key()?;
            let id = key.last_chunk().ok_or("a key without an id")?;
            intents.extend(self.get(IntentId::from_bytes(*id))?);
        }
        Ok(intents)
    }

    fn outcome(&self, id: IntentId, outcome: Outcome) -> Result<(), Failure> {
        if !self.intents.contains_key(id.as_bytes())? {
            return Err("no intent of that id".into());
        }
        let mut bytes = vec![u8::from(outcome.status != Status::Success)];
        bytes.extend(outcome.latency_ns.to_le_bytes());
        bytes.extend(outcome.exit_code.to_le_bytes());
        let mut batch = self.database.batch();
        batch.insert(&self.outcomes, &id.as_bytes()[..], bytes);
        self.commit(batch)
    }

    fn len(&self) -> Result<u64, Failure> {
        Ok(self.intents.len()? as u64)
    }
}
