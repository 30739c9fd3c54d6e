//! SQLite, bundled with rusqlite, in WAL mode, a connection for each client and the statement
//! prepared once. Durable is `synchronous = FULL`; its documentation on `NORMAL`, the buffered
//! one: "A transaction committed in WAL mode with synchronous=NORMAL might roll back following a
//! power loss or system crash", and "The synchronous=NORMAL setting is a good choice for most
//! applications running in WAL mode". An ordinary table with a unique index, since "WITHOUT ROWID
//! tables work best when individual rows are not too large". It has one writer at a time; who
//! finds another one at work sleeps and looks again, up to the busy timeout.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{
    payload::{KEY_BYTES, Payload},
    store::{Client, Level, Opening, Store},
};
use crate::Failure;

const INSERT: &str = "INSERT INTO records (key, value) VALUES (?1, ?2)";
const SELECT: &str = "SELECT value FROM records WHERE key = ?1";
const CREATE: &str =
    "CREATE TABLE IF NOT EXISTS records (key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL)";

/// Opens the database file in `dir`.
pub fn open(dir: &Path, opening: Opening) -> Result<Box<dyn Store>, Failure> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join("records.sqlite");
    let connection = connect(&path, opening.level)?;
    connection.execute(CREATE, [])?;
    let reader = Mutex::new(connection);
    Ok(Box::new(Sqlite { path, opening, reader }))
}

fn connect(path: &Path, level: Level) -> Result<Connection, Failure> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match level {
        Level::Durable => "FULL",
        Level::Buffered | Level::Interval => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    Ok(connection)
}

struct Sqlite {
    path: PathBuf,
    opening: Opening,
    reader: Mutex<Connection>,
}

impl Store for Sqlite {
    fn client(&self) -> Result<Box<dyn Client + '_>, Failure> {
        let connection = connect(&self.path, self.opening.level)?;
        Ok(Box::new(SqliteClient(connection)))
    }

    fn get(&self, key: &[u8; KEY_BYTES]) -> Result<Option<Vec<u8>>, Failure> {
        let connection = self.reader.lock().map_err(|_| "a reader panicked")?;
        let mut select = connection.prepare_cached(SELECT)?;
        Ok(select.query_row([key], |row| row.get(0)).optional()?)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        let connection = self.reader.into_inner().map_err(|_| "a reader panicked")?;
        connection.close().map_err(|(_, error)| error.into())
    }
}

struct SqliteClient(Connection);

impl Client for SqliteClient {
    fn insert(&mut self, records: &[Payload]) -> Result<(), Failure> {
        let connection = &mut self.0;
        if let [record] = records {
            connection.prepare_cached(INSERT)?.execute(params![record.key(), record.value()])?;
            return Ok(());
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for record in records {
                insert.execute(params![record.key(), record.value()])?;
            }
        }
        Ok(transaction.commit()?)
    }
}
