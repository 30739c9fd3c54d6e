//! SQLite as its documentation advises for many readers and one writer: WAL, `synchronous = FULL`
//! (durable when a commit returns), one connection that writes, some that read, prepared statements.

use std::{path::Path, sync::Mutex, sync::PoisonError, time::Duration};

use rusqlite::{Connection, OptionalExtension, Row, params};
use tala_core::{Intent, IntentId, Outcome, Status, TimeRange};

use super::service::RecordStore;
use crate::Failure;

/// Connections that only read; more callers than that wait for one another.
const READERS: usize = 8;

/// One table, an index by time.
pub struct Sqlite {
    writer: Mutex<Connection>,
    readers: crossbeam_channel::Receiver<Connection>,
    back: crossbeam_channel::Sender<Connection>,
}

impl Sqlite {
    /// A new database in `dir`.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join("intents.sqlite");
        let connect = || -> Result<Connection, Failure> {
            let connection = Connection::open(&path)?;
            connection.busy_timeout(Duration::from_secs(60))?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            Ok(connection)
        };
        let writer = connect()?;
        writer.execute_batch(
            "CREATE TABLE intents (id BLOB PRIMARY KEY, time INTEGER, command TEXT, \
             embedding BLOB, context INTEGER, confidence REAL, status INTEGER, \
             latency INTEGER, exit_code INTEGER);
             CREATE INDEX by_time ON intents (time);",
        )?;
        let (back, readers) = crossbeam_channel::bounded(READERS);
        for _ in 0..READERS {
            back.try_send(connect()?).map_err(|_| "no room for a connection")?;
        }
        Ok(Self { writer: Mutex::new(writer), readers, back })
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(work(&mut writer)?)
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let connection = self.readers.recv()?;
        let result = work(&connection);
        // The other end lives as long as `self`, and there is room for every connection.
        let _ = self.back.send(connection);
        Ok(result?)
    }
}

const INSERT: &str = "INSERT INTO intents (id, time, command, embedding, context, confidence) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const COLUMNS: &str = "SELECT id, time, command, embedding, context, confidence, status, latency, exit_code \
     FROM intents";

fn insert(connection: &Connection, intent: &Intent) -> rusqlite::Result<()> {
    let embedding: Vec<u8> = intent.embedding.iter().flat_map(|v| v.to_le_bytes()).collect();
    connection.prepare_cached(INSERT)?.execute(params![
        intent.id.as_bytes(),
        intent.timestamp.cast_signed(),
        intent.raw_command,
        embedding,
        intent.context_hash.cast_signed(),
        intent.confidence,
    ])?;
    Ok(())
}

fn intent_of(row: &Row<'_>) -> rusqlite::Result<Intent> {
    let embedding = row.get_ref(3)?.as_blob()?;
    let (words, _) = embedding.as_chunks::<4>();
    let status: Option<u8> = row.get(6)?;
    let outcome = match status {
        None => None,
        Some(status) => Some(Outcome {
            status: if status == 0 { Status::Success } else { Status::Failure },
            latency_ns: row.get::<_, i64>(7)?.cast_unsigned(),
            exit_code: row.get(8)?,
        }),
    };
    Ok(Intent {
        id: IntentId::from_bytes(row.get(0)?),
        timestamp: row.get::<_, i64>(1)?.cast_unsigned(),
        raw_command: row.get(2)?,
        embedding: words.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        context_hash: row.get::<_, i64>(4)?.cast_unsigned(),
        parent_ids: Vec::new(),
        outcome,
        confidence: row.get(5)?,
    })
}

impl RecordStore for Sqlite {
    fn how(&self) -> String {
        format!(
            "SQLite {}, WAL, synchronous = FULL, one writing connection and {READERS} reading ones, \
             an index by time",
            rusqlite::version()
        )
    }

    fn load(&self, intents: &[Intent]) -> Result<(), Failure> {
        self.write(|connection| {
            let transaction = connection.transaction()?;
            for intent in intents {
                insert(&transaction, intent)?;
            }
            transaction.commit()
        })
    }

    fn insert(&self, intent: &Intent) -> Result<(), Failure> {
        self.write(|connection| insert(connection, intent))
    }

    fn get(&self, id: IntentId) -> Result<Option<Intent>, Failure> {
        self.read(|connection| {
            connection
                .prepare_cached(&format!("{COLUMNS} WHERE id = ?1"))?
                .query_row([id.as_bytes()], intent_of)
                .optional()
        })
    }

    fn range(&self, range: TimeRange) -> Result<Vec<Intent>, Failure> {
        self.read(|connection| {
            connection
                .prepare_cached(&format!("{COLUMNS} WHERE time >= ?1 AND time < ?2 ORDER BY time"))?
                .query_map([range.start.cast_signed(), range.end.cast_signed()], intent_of)?
                .collect()
        })
    }

    fn outcome(&self, id: IntentId, outcome: Outcome) -> Result<(), Failure> {
        let status = u8::from(outcome.status != Status::Success);
        let changed = self.write(|connection| {
            connection
                .prepare_cached(
                    "UPDATE intents SET status = ?2, latency = ?3, exit_code = ?4 WHERE id = ?1",
                )?
                .execute(params![
                    id.as_bytes(),
                    status,
                    outcome.latency_ns.cast_signed(),
                    outcome.exit_code
                ])
        })?;
        if changed == 1 { Ok(()) } else { Err(format!("{changed} intents of that id").into()) }
    }

    fn len(&self) -> Result<u64, Failure> {
        self.read(|connection| {
            connection.query_row("SELECT count(*) FROM intents", [], |row| row.get::<_, i64>(0))
        })
        .map(i64::cast_unsigned)
    }
}
