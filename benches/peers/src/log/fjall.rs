//! fjall, an LSM tree. Its README: "After writing data (`insert`, `remove` or committing a write
//! batch/transaction), you can choose to call `Database::persist`", and "By default, any operation
//! will flush to OS buffers, but not to disk". Durable is therefore `insert` and then
//! `persist(SyncData)`, which syncs what other clients wrote until then as well; it documents no
//! other group commit. All else is as it comes, LZ4 included, which does not shrink these records.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{
    payload::{KEY_BYTES, Payload},
    store::{Client, Level, Opening, Store},
};
use crate::Failure;

/// Opens the database and its one keyspace.
pub fn open(dir: &Path, opening: Opening) -> Result<Box<dyn Store>, Failure> {
    let database = Database::builder(dir).open()?;
    let keyspace = database.keyspace("records", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { database, keyspace, durable: opening.level == Level::Durable }))
}

#[derive(Clone)]
struct Fjall {
    database: Database,
    keyspace: Keyspace,
    durable: bool,
}

impl Store for Fjall {
    fn client(&self) -> Result<Box<dyn Client + '_>, Failure> {
        Ok(Box::new(self.clone()))
    }

    fn get(&self, key: &[u8; KEY_BYTES]) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.keyspace.get(key)?.map(|value| value.to_vec()))
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}

impl Client for Fjall {
    fn insert(&mut self, records: &[Payload]) -> Result<(), Failure> {
        if let [record] = records {
            self.keyspace.insert(record.key(), record.value())?;
        } else {
            let mut batch = self.database.batch();
            for record in records {
                batch.insert(&self.keyspace, record.key(), record.value());
            }
            batch.commit()?;
        }
        if self.durable {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}
