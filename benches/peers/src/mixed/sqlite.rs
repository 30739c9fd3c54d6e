//! SQLite as its documentation advises for many readers and one writer: WAL, `synchronous = FULL`
//! (durable when a commit returns), one connection that writes, some that read, prepared statements.
//! The writing one belongs to a thread that commits whatever waits in one transaction, as users who
//! have many writers do, so that callers share a sync.

use std::{path::Path, thread, time::Duration};

use crossbeam_channel::{Receiver, Sender};

use rusqlite::{Connection, OptionalExtension, Row, params};
use tala_core::{Intent, IntentId, Outcome, Status, TimeRange};

use super::service::RecordStore;
use crate::Failure;

/// Connections that only read; more callers than that wait for one another.
const READERS: usize = 8;
/// Writes that share a transaction.
const GROUP_MAX: usize = 1_024;

/// Something to write, and where to say how it went.
type Write = (Change, Sender<Result<(), String>>);

enum Change {
    Insert(Vec<Intent>),
    Outcome(IntentId, Outcome),
}

/// One table, an index by time.
pub struct Sqlite {
    writer: Sender<Write>,
    readers: Receiver<Connection>,
    back: Sender<Connection>,
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
        let (sender, writes) = crossbeam_channel::bounded(GROUP_MAX);
        thread::spawn(move || write_groups(writer, &writes));
        Ok(Self { writer: sender, readers, back })
    }

    fn write(&self, change: Change) -> Result<(), Failure> {
        let (sender, answer) = crossbeam_channel::bounded(1);
        self.writer.send((change, sender)).map_err(|_| "the writer has ended")?;
        Ok(answer.recv()??)
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let connection = self.readers.recv()?;
        let result = work(&connection);
        // The other end lives as long as `self`, and there is room for every connection.
        let _ = self.back.send(connection);
        Ok(result?)
    }
}

/// Commits what waits, until nobody can send any more.
fn write_groups(mut connection: Connection, writes: &Receiver<Write>) {
    while let Ok(first) = writes.recv() {
        let group: Vec<Write> =
            std::iter::once(first).chain(writes.try_iter()).take(GROUP_MAX).collect();
        let results = commit(&mut connection, &group);
        for (number, (_, answer)) in group.iter().enumerate() {
            let result = match &results {
                Ok(results) => results[number].clone(),
                Err(error) => Err(error.to_string()),
            };
            // Who asked may have gone.
            let _ = answer.send(result);
        }
    }
}

/// Applies each change of a group, and commits those that could be.
fn commit(
    connection: &mut Connection,
    group: &[Write],
) -> rusqlite::Result<Vec<Result<(), String>>> {
    let transaction = connection.transaction()?;
    let results = group
        .iter()
        .map(|(change, _)| apply(&transaction, change).map_err(|error| error.to_string()))
        .collect();
    transaction.commit()?;
    Ok(results)
}

fn apply(connection: &Connection, change: &Change) -> Result<(), Failure> {
    match change {
        Change::Insert(intents) => {
            for intent in intents {
                insert(connection, intent)?;
            }
        }
        Change::Outcome(id, outcome) => {
            let status = u8::from(outcome.status != Status::Success);
            let changed = connection.prepare_cached(OUTCOME)?.execute(params![
                id.as_bytes(),
                status,
                outcome.latency_ns.cast_signed(),
                outcome.exit_code
            ])?;
            if changed != 1 {
                return Err(format!("{changed} intents of that id").into());
            }
        }
    }
    Ok(())
}

const OUTCOME: &str = "UPDATE intents SET status = ?2, latency = ?3, exit_code = ?4 WHERE id = ?1";
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
            "SQLite {}, WAL, synchronous = FULL, a thread that commits what waits in one transaction, \
             {READERS} reading connections, an index by time",
            rusqlite::version()
        )
    }

    fn load(&self, intents: &[Intent]) -> Result<(), Failure> {
        self.write(Change::Insert(intents.to_vec()))
    }

    fn insert(&self, intent: &Intent) -> Result<(), Failure> {
        self.write(Change::Insert(vec![intent.clone()]))
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
        self.write(Change::Outcome(id, outcome))
    }

    fn len(&self) -> Result<u64, Failure> {
        self.read(|connection| {
            connection.query_row("SELECT count(*) FROM intents", [], |row| row.get::<_, i64>(0))
        })
        .map(i64::cast_unsigned)
    }
}
