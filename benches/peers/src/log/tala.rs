//! Ours: an intent for each record, made of its embedding, its command and its time; the key is
//! the intent's id. Making the intent from the record's bytes is inside the measured time.

use std::{path::Path, time::Duration};

use tala_core::{Intent, IntentId, IntentStore};
use tala_store::{Durability, StorageEngine};

use super::{
    payload::{DIM, KEY_BYTES, Payload, value_of},
    store::{Client, Level, Opening, Store},
};
use crate::Failure;

/// Rows that a sustained run may be ahead of the index: so few that the door is soon at its pace.
const SUSTAINED_LAG_MAX: usize = 1_000;

/// Opens the engine with its defaults, but for what `opening` says.
pub fn open(dir: &Path, opening: Opening) -> Result<Box<dyn Store>, Failure> {
    let durability = match opening.level {
        Level::Durable => Durability::Sync,
        Level::Interval => Durability::Interval(Duration::from_millis(5)),
        Level::Buffered => Durability::Os,
    };
    let mut options =
        StorageEngine::options(DIM).durability(durability).link_on_open(opening.index_before_use);
    let lag_max = if opening.index_may_lag { usize::MAX >> 1 } else { SUSTAINED_LAG_MAX };
    options = options.index_lag_max(lag_max);
    Ok(Box::new(Tala(options.open(dir)?)))
}

struct Tala(StorageEngine);

impl Store for Tala {
    fn client(&self) -> Result<Box<dyn Client + '_>, Failure> {
        Ok(Box::new(TalaClient(self.0.clone())))
    }

    fn get(&self, key: &[u8; KEY_BYTES]) -> Result<Option<Vec<u8>>, Failure> {
        let intent = self.0.get(IntentId::from_bytes(*key))?;
        Ok(intent.map(|intent| value_of(intent.timestamp, &intent.embedding, &intent.raw_command)))
    }

    fn lag(&self) -> u64 {
        let stats = self.0.stats();
        stats.rows.saturating_sub(stats.linked)
    }

    fn settle(&self) -> Result<(), Failure> {
        Ok(self.0.wait_indexed()?)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.0.close()?)
    }
}

struct TalaClient(StorageEngine);

impl Client for TalaClient {
    fn insert(&mut self, records: &[Payload]) -> Result<(), Failure> {
        match records {
            [record] => {
                self.0.insert(intent(record))?;
            }
            _ => {
                self.0.insert_batch(records.iter().map(intent).collect())?;
            }
        }
        Ok(())
    }
}

fn intent(record: &Payload) -> Intent {
    Intent {
        id: IntentId::from_bytes(*record.key()),
        timestamp: record.time(),
        raw_command: record.command(),
        embedding: record.embedding(),
        context_hash: 0,
        parent_ids: Vec::new(),
        outcome: None,
        confidence: 1.0,
    }
}
