//! sled 0.34. Durable is `insert` and then `flush`, of which it says: "Synchronously flushes all
//! dirty IO buffers and calls fsync. If this succeeds, it is guaranteed that all previous writes
//! will be recovered if the system crashes". On Linux it calls `sync_file_range` and not fsync,
//! whose manual warns that it writes no metadata and does not empty the disk's cache, so this is
//! marked as not power-safe. Buffered is `insert` alone; a thread of sled's flushes every 500 ms.

use std::path::Path;

use sled::{Batch, Db, Mode};

use super::{
    payload::{KEY_BYTES, Payload},
    store::{Client, Level, Opening, Store},
};
use crate::Failure;

/// Opens the database in its mode "to maximize write throughput".
pub fn open(dir: &Path, opening: Opening) -> Result<Box<dyn Store>, Failure> {
    let db = sled::Config::new().path(dir).mode(Mode::HighThroughput).open()?;
    Ok(Box::new(Sled { db, durable: opening.level == Level::Durable }))
}

#[derive(Clone)]
struct Sled {
    db: Db,
    durable: bool,
}

impl Store for Sled {
    fn client(&self) -> Result<Box<dyn Client + '_>, Failure> {
        Ok(Box::new(self.clone()))
    }

    fn get(&self, key: &[u8; KEY_BYTES]) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.db.get(key)?.map(|value| value.to_vec()))
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.db.flush()?;
        Ok(())
    }
}

impl Client for Sled {
    fn insert(&mut self, records: &[Payload]) -> Result<(), Failure> {
        if let [record] = records {
            self.db.insert(record.key(), record.value())?;
        } else {
            let mut batch = Batch::default();
            for record in records {
                batch.insert(record.key(), record.value());
            }
            self.db.apply_batch(batch)?;
        }
        if self.durable {
            self.db.flush()?;
        }
        Ok(())
    }
}
