//! redb, a copy-on-write B-tree. A transaction for each insert: "Defaults to
//! `Durability::Immediate`", whose commits "are guaranteed to be persistent as soon as
//! `WriteTransaction::commit` returns"; buffered is `Durability::None`, and a commit with
//! `Immediate` at the end makes it stay. It has one writer at a time and no group commit: clients
//! wait in `begin_write`.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::{
    payload::{KEY_BYTES, Payload},
    store::{Client, Level, Opening, Store},
};
use crate::Failure;

const RECORDS: TableDefinition<'_, &[u8; KEY_BYTES], &[u8]> = TableDefinition::new("records");

/// Opens the database file in `dir`.
pub fn open(dir: &Path, opening: Opening) -> Result<Box<dyn Store>, Failure> {
    std::fs::create_dir_all(dir)?;
    let database = Database::create(dir.join("records.redb"))?;
    let durability = match opening.level {
        Level::Durable => Durability::Immediate,
        Level::Buffered | Level::Interval => Durability::None,
    };
    Ok(Box::new(Redb { database, durability }))
}

struct Redb {
    database: Database,
    durability: Durability,
}

impl Store for Redb {
    fn client(&self) -> Result<Box<dyn Client + '_>, Failure> {
        Ok(Box::new(RedbClient(self)))
    }

    fn get(&self, key: &[u8; KEY_BYTES]) -> Result<Option<Vec<u8>>, Failure> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.database.begin_write()?.commit()?)
    }
}

struct RedbClient<'a>(&'a Redb);

impl Client for RedbClient<'_> {
    fn insert(&mut self, records: &[Payload]) -> Result<(), Failure> {
        let mut transaction = self.0.database.begin_write()?;
        transaction.set_durability(self.0.durability)?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for record in records {
                table.insert(record.key(), record.value())?;
            }
        }
        Ok(transaction.commit()?)
    }
}
