//! Who is damaged: how each takes its records, falls, and is opened again.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::image::Image;
use crate::{
    Failure,
    log::{
        contest::{self, Contestant, Kind},
        store::{Ran, Reopened, Request, Until},
    },
    scratch::Scratch,
    worker::{Silence, Worker},
};

/// Bytes of RocksDB's log that belong to its last write for sure: a record is longer.
const ROCKSDB_LAST_BYTES: usize = 1_600;
const ROCKSDB: &str = "rocksdb";

/// One who is damaged.
pub struct Subject {
    name: &'static str,
}

/// All of them, ours first.
pub const SUBJECTS: &[Subject] = &[
    Subject { name: "tala-store" },
    Subject { name: "fjall" },
    Subject { name: "redb" },
    Subject { name: "sqlite" },
    Subject { name: ROCKSDB },
    Subject { name: "sled" },
    Subject { name: "okaywal" },
];

/// What a killed process left.
pub struct Fallen {
    /// With every record.
    pub after: Image,
    /// Before the last one was inserted.
    pub before: Image,
    /// The file that a write goes to.
    pub log: PathBuf,
    /// The offsets that all but the last write wrote to.
    pub written: Vec<usize>,
    /// The offsets that the last write wrote to.
    pub last: Vec<usize>,
    /// Records in `after`.
    pub records: u64,
}

impl Fallen {
    fn of(empty: &Image, before: Image, after: Image, records: u64) -> Result<Self, Failure> {
        // Where the last write went: a store may have begun another log since the first.
        let log = after.most_changed(&before).ok_or("it left no files")?;
        let last = after.changed(&before, &log);
        let written: Vec<usize> = after
            .changed(empty, &log)
            .into_iter()
            .filter(|at| last.binary_search(at).is_err())
            .collect();
        if written.is_empty() || last.is_empty() {
            return Err("its writes left no trace in the file that the last one went to".into());
        }
        Ok(Self { after, before, log, written, last, records })
    }

    /// First and one past the last offset of the last write.
    pub fn last_range(&self) -> (usize, usize) {
        (self.last[0], self.last[self.last.len() - 1] + 1)
    }

    /// What was found out, for the notes.
    pub fn describe(&self, name: &str) -> String {
        let (first, end) = self.last_range();
        format!(
            "{name}: the log is {}, {} bytes, of which {} records wrote {}; the last write is {} to \
             {}",
            self.log.display(),
            self.after.file(&self.log).len(),
            self.records - 1,
            self.written.len(),
            first,
            end,
        )
    }
}

/// What opening gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// So many of the records looked for are not there, or not as they were given.
    Opened {
        /// Of those looked for.
        missing: u64,
    },
    /// It said that something is wrong.
    Refused(String),
    /// The process ended without an answer.
    Died,
    /// It did not answer in time.
    Hung,
}

impl Subject {
    /// In the results and tables.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether its promises are ours.
    pub fn is_ours(&self) -> bool {
        self.contestant().is_some_and(|contestant| contestant.kind == Kind::Ours)
    }

    fn contestant(&self) -> Option<&'static Contestant> {
        contest::DURABLE.iter().find(|contestant| contestant.family() == self.name)
    }

    /// Inserts `records` one by one, durably, and is killed.
    ///
    /// # Errors
    /// It is missing, or failed.
    pub fn fall(&self, scratch: &Scratch, records: u64) -> Result<Fallen, Failure> {
        let dir = scratch.path().join("store");
        // What the last one left.
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        if self.name == ROCKSDB {
            return fall_of_rocksdb(&dir, records);
        }
        let contestant = self.contestant().ok_or("no such store")?;
        let mut worker = Worker::of_this_program("log", self.name)?;
        let run = |records| {
            let until = Until { seconds: None, records: Some(records) };
            Request::Run { clients: 1, until, batch: 1, settle: false }
        };
        let () = worker.ask(&Request::Open { dir: dir.clone(), opening: contestant.opening })?;
        let empty = Image::read(&dir)?;
        let _: Ran = worker.ask(&run(records - 1))?;
        let before = Image::read(&dir)?;
        let _: Ran = worker.ask(&run(1))?;
        // It is killed when it is dropped.
        drop(worker);
        Fallen::of(&empty, before, Image::read(&dir)?, records)
    }

    /// Opens `dir` and looks for the first `due` records.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn open(&self, dir: &Path, due: u64, patience: Duration) -> Result<Answer, Failure> {
        if self.name == ROCKSDB {
            return open_rocksdb(dir, due, patience);
        }
        let contestant = self.contestant().ok_or("no such store")?;
        let mut worker = Worker::quiet("log", self.name)?;
        let request = Request::Reopen {
            dir: dir.to_owned(),
            opening: contestant.opening,
            acknowledged: vec![due],
        };
        Ok(match worker.ask_within::<Reopened>(&request, patience) {
            Ok(Ok(reopened)) => Answer::Opened { missing: reopened.missing },
            Ok(Err(refused)) => Answer::Refused(refused),
            Err(Silence::Died) => Answer::Died,
            Err(Silence::Hung) => Answer::Hung,
        })
    }
}

fn fall_of_rocksdb(dir: &Path, records: u64) -> Result<Fallen, Failure> {
    let load = |records: u64| -> Result<Image, Failure> {
        let status = Command::new("db_bench")
            .args(["--benchmarks=filluniquerandom", "--sync=1", "--disable_wal=0"])
            .args(["--key_size=16", "--value_size=1584", "--compression_type=none"])
            .arg(format!("--num={records}"))
            .arg(format!("--db={}", dir.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|_| crate::log::rocksdb::MISSING)?;
        if status.success() { Image::read(dir) } else { Err("db_bench failed".into()) }
    };
    let after = load(records)?;
    // Its log grows, and its end is the last write's.
    let log = after.most_changed(&Image::default()).ok_or("it left no files")?;
    if log.extension().is_none_or(|extension| extension != "log") {
        return Err(format!("its largest file is {}", log.display()).into());
    }
    let len = after.file(&log).len();
    let first = len.saturating_sub(ROCKSDB_LAST_BYTES);
    let mut before = after.clone();
    before.cut(&log, first);
    Ok(Fallen {
        after,
        before,
        log,
        // What is between is of the last write, or of the one before.
        written: (0..len.saturating_sub(2 * ROCKSDB_LAST_BYTES)).collect(),
        last: (first..len).collect(),
        records,
    })
}

/// RocksDB by its tool, which counts keys: what is there, or is not, as a number.
fn open_rocksdb(dir: &Path, due: u64, patience: Duration) -> Result<Answer, Failure> {
    let mut command = Command::new("timeout");
    command
        .arg(format!("{}", patience.as_secs().max(1)))
        .args(["ldb", &format!("--db={}", dir.display()), "scan", "--no_value", "--hex"])
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = command.output().map_err(|_| crate::log::rocksdb::MISSING)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().filter(|line| line.starts_with("0x")).count() as u64;
    Ok(match output.status.code() {
        Some(0) if text.lines().any(|line| line.starts_with("Failed")) => {
            Answer::Refused(text.into_owned())
        }
        Some(0) => Answer::Opened { missing: due.saturating_sub(found) },
        Some(124) => Answer::Hung,
        Some(_) => Answer::Refused(text.into_owned()),
        None => Answer::Died,
    })
}
