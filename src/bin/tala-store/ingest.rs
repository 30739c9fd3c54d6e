//! `ingest`: histories and JSON Lines into a store, each command once.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use indicatif::ProgressBar;
use tala_core::{Intent, IntentId, IntentStore, TalaError};
use tala_ingest::{BadLine, Entry, Source};
use tala_store::{Durability, EngineOptions, StorageEngine};

use crate::{embed::embed, failure::Failure, ids::Ids, open, tell};

/// The dimension of a new store where none is asked for.
const DIM_DEFAULT: usize = 384;
/// A batch is written when it has this many intents,
const BATCH_INTENTS_MAX: usize = 512;
/// or this many bytes, of which the last intent may exceed them by its own length.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// So many bad lines are named; the rest is counted.
const BAD_LINES_NAMED_MAX: usize = 20;

/// Store shell histories and JSON Lines, each command once.
///
/// Takes histories of bash (with or without `#epoch` lines), of zsh (with `EXTENDED_HISTORY`) and of
/// fish, and JSON Lines with the fields `id`, `timestamp` (ns since the epoch), `raw_command`, `embedding`, `context_hash`, `parent_ids`,
/// `outcome` {`status`, `latency_ns`, `exit_code`} and `confidence`, of which only `raw_command`
/// must be there. They are told apart by their content.
///
/// Ingesting the same source again adds nothing: an intent without an id gets one made of its
/// command, its time if the source has one, and how often the source has named it before; ids that
/// are in the store already are skipped. Commands without a time get the time of ingestion.
///
/// A line that cannot be used is named on standard error and does not stop the others; the exit
/// status is then 1.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tala-store ingest ~/tala ~/.bash_history
  zcat old.jsonl.gz | tala-store ingest ~/tala -
  tala-store range ~/tala --json --embedding | tala-store ingest ~/copy

Exit status: 0 every line is stored; 1 a line or file could not be used, or writing failed.")]
pub(crate) struct Args {
    /// Directory of the store; created where there is none.
    dir: PathBuf,
    /// Files to read, `-` for standard input, which is also read where none is named.
    files: Vec<PathBuf>,
    /// Dimension of the embeddings: the store's, or 384 for a new store.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    dim: Option<u32>,
    /// When a write counts as done: `sync` on disk; `os` with the kernel; `interval:DURATION` with
    /// the kernel, and on disk at least that often.
    #[arg(long, default_value = "sync", value_parser = parse_durability)]
    durability: Durability,
}

fn parse_durability(text: &str) -> Result<Durability, String> {
    match text {
        "sync" => Ok(Durability::Sync),
        "os" => Ok(Durability::Os),
        _ => text
            .strip_prefix("interval:")
            .and_then(|duration| duration.parse::<jiff::SignedDuration>().ok())
            .and_then(|duration| Duration::try_from(duration).ok())
            .filter(|duration| !duration.is_zero())
            .map(Durability::Interval)
            .ok_or_else(|| "use sync, os, or interval:DURATION such as interval:50ms".to_owned()),
    }
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let stored = open::dim_of(&args.dir)?;
    let dim = args.dim.map(|dim| dim as usize).or(stored).unwrap_or(DIM_DEFAULT);
    // Nothing is searched here, so nothing waits for the search graph: neither opening a large
    // store nor an insert that is far ahead of it. The next engine builds it anyway.
    let options = StorageEngine::options(dim)
        .durability(args.durability)
        .link_on_open(false)
        .index_lag_max(usize::MAX);
    let engine = open::with_progress(options, &args.dir)?;
    let bar = open::bar("ingesting");

    let started = Instant::now();
    let stdin = [PathBuf::from("-")];
    let files = if args.files.is_empty() { &stdin } else { args.files.as_slice() };
    let mut ingest = Ingest::new(&engine);
    let done = files.iter().try_for_each(|file| ingest.file(file, &bar));
    let done = done.and_then(|()| engine.close().map_err(Failure::from));
    bar.finish_and_clear();
    // Where no file could be read there is nothing to report but that, which was said.
    if ingest.unread_count == 0 || ingest.has_seen_lines() {
        ingest.report(out, started.elapsed())?;
    }
    done?;
    if ingest.bad_count > 0 || ingest.unread_count > 0 {
        out.flush()?;
        return Err(Failure::AlreadyReported);
    }
    Ok(())
}

/// One run of ingestion: the batch being filled, and what became of every line so far.
struct Ingest<'a> {
    engine: &'a StorageEngine,
    batch: Vec<Pending>,
    batch_bytes: usize,
    batch_ids: HashSet<IntentId>,
    /// Time of the last intent that got the time of ingestion, so that the next is later.
    last_now_ns: u64,
    stored_count: u64,
    skipped_count: u64,
    bad_count: u64,
    unread_count: u64,
    is_embedding_told: bool,
}

/// An intent of the batch and where it came from.
struct Pending {
    intent: Intent,
    file: String,
    line: u64,
}

impl<'a> Ingest<'a> {
    fn has_seen_lines(&self) -> bool {
        self.stored_count + self.skipped_count + self.bad_count > 0
    }

    fn new(engine: &'a StorageEngine) -> Self {
        Self {
            engine,
            batch: Vec::new(),
            batch_bytes: 0,
            batch_ids: HashSet::new(),
            last_now_ns: 0,
            stored_count: 0,
            skipped_count: 0,
            bad_count: 0,
            unread_count: 0,
            is_embedding_told: false,
        }
    }

    /// Ingests one file. A file that cannot be read is reported and does not stop the others; an
    /// error is the store's.
    fn file(&mut self, path: &Path, bar: &ProgressBar) -> Result<(), Failure> {
        let unread = match open_input(path) {
            Ok((reader, length)) => {
                bar.set_position(0);
                bar.set_length(length);
                let name = if path == Path::new("-") {
                    "(standard input)".to_owned()
                } else {
                    path.display().to_string()
                };
                // Two layers of errors: the store's end the run, the file's only this file.
                self.entries(bar.wrap_read(reader), &name, bar)?
            }
            Err(error) => Err(error),
        };
        if let Err(error) = unread {
            self.unread_count += 1;
            let failure = Failure::file("read", path, error);
            bar.suspend(|| tell(&format!("tala-store: {failure}")));
        }
        Ok(())
    }

    fn entries<R: Read>(
        &mut self,
        reader: R,
        name: &str,
        bar: &ProgressBar,
    ) -> Result<io::Result<()>, Failure> {
        let mut source = match Source::new(reader, EngineOptions::RECORD_BYTES_MAX) {
            Ok(source) => source,
            Err(error) => return Ok(Err(error)),
        };
        let mut ids = Ids::default();
        let end = loop {
            match source.next_entry() {
                Ok(None) => break Ok(()),
                Ok(Some(Ok(entry))) => self.entry(entry, name, &mut ids, bar)?,
                Ok(Some(Err(bad_line))) => self.bad_line(name, &bad_line, bar),
                Err(error) => break Err(error),
            }
        };
        self.write_batch(bar)?;
        Ok(end)
    }

    fn entry(
        &mut self,
        entry: Entry,
        name: &str,
        ids: &mut Ids,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let line = entry.line;
        let id = entry.id.unwrap_or_else(|| ids.next(&entry.raw_command, entry.timestamp));
        if self.batch_ids.contains(&id) || self.engine.get(id)?.is_some() {
            self.skipped_count += 1;
            return Ok(());
        }
        match self.intent(id, entry, bar) {
            Ok(intent) => {
                self.batch_bytes += intent.raw_command.len()
                    + size_of_val(intent.embedding.as_slice())
                    + size_of_val(intent.parent_ids.as_slice());
                self.batch_ids.insert(id);
                self.batch.push(Pending { intent, file: name.to_owned(), line });
                if self.batch.len() >= BATCH_INTENTS_MAX || self.batch_bytes >= BATCH_BYTES_MAX {
                    self.write_batch(bar)?;
                }
            }
            Err(why) => self.bad_line(name, &BadLine { line, why: why.to_string() }, bar),
        }
        Ok(())
    }

    /// The intent of an entry, whole and checked, or why the store would refuse it.
    fn intent(
        &mut self,
        id: IntentId,
        entry: Entry,
        bar: &ProgressBar,
    ) -> Result<Intent, TalaError> {
        let dim = self.engine.dim();
        let embedding = match entry.embedding {
            Some(given) if given.len() != dim => {
                return Err(TalaError::DimensionMismatch { expected: dim, got: given.len() });
            }
            Some(given) => given,
            None => {
                if !self.is_embedding_told {
                    self.is_embedding_told = true;
                    bar.suspend(|| tell(EMBEDDING_NOTE));
                }
                embed(&entry.raw_command, dim)
            }
        };
        let confidence = entry.confidence.unwrap_or(1.0);
        for (field, is_finite) in [
            ("embedding", embedding.iter().all(|x| x.is_finite())),
            ("confidence", confidence.is_finite()),
        ] {
            if !is_finite {
                let reason = "not finite as a 32-bit number".to_owned();
                return Err(TalaError::InvalidInput { field, reason });
            }
        }
        Ok(Intent {
            id,
            timestamp: entry.timestamp.unwrap_or_else(|| self.now_ns()),
            raw_command: entry.raw_command,
            embedding,
            context_hash: entry.context_hash,
            parent_ids: entry.parent_ids,
            outcome: entry.outcome,
            confidence,
        })
    }

    /// The time of ingestion, later than any it has given before.
    fn now_ns(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.last_now_ns = later(now_ns, self.last_now_ns);
        self.last_now_ns
    }

    /// Stores the batch. An intent that the store refuses is a bad line, and the others are tried
    /// again without it.
    fn write_batch(&mut self, bar: &ProgressBar) -> Result<(), Failure> {
        let mut batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        self.batch_ids.clear();
        while !batch.is_empty() {
            let intents = batch.iter().map(|pending| pending.intent.clone()).collect();
            let (position, why) = match self.engine.insert_batch(intents) {
                Ok(ids) => {
                    self.stored_count += ids.len() as u64;
                    break;
                }
                Err(TalaError::InBatch { position, source }) if position < batch.len() => {
                    (position, *source)
                }
                // A single intent above the size of a whole batch.
                Err(why @ TalaError::TooLarge { .. }) => (largest(&batch), why),
                Err(other) => return Err(other.into()),
            };
            let Pending { file, line, .. } = batch.remove(position);
            self.bad_line(&file, &BadLine { line, why: why.to_string() }, bar);
        }
        Ok(())
    }

    fn bad_line(&mut self, file: &str, bad_line: &BadLine, bar: &ProgressBar) {
        self.bad_count += 1;
        if self.bad_count <= BAD_LINES_NAMED_MAX as u64 {
            bar.suspend(|| tell(&format!("{file}:{}: {}", bad_line.line, bad_line.why)));
        }
    }

    /// The one line of result, and how many bad lines were not named.
    fn report(&self, out: &mut dyn Write, elapsed: Duration) -> io::Result<()> {
        if let Some(more) = self.bad_count.checked_sub(BAD_LINES_NAMED_MAX as u64 + 1) {
            tell(&format!("... and {} more bad lines", more + 1));
        }
        let seconds = elapsed.as_secs_f64();
        write!(
            out,
            "stored {}, already there {}, bad lines {} in {seconds:.2} s",
            self.stored_count, self.skipped_count, self.bad_count
        )?;
        if self.stored_count > 0 {
            write!(out, " ({:.0} stored/s)", self.stored_count as f64 / seconds.max(1e-9))?;
        }
        writeln!(out)
    }
}

/// `now_ns`, or just after `last_ns` where the clock has not moved on or was set back.
fn later(now_ns: u64, last_ns: u64) -> u64 {
    now_ns.max(last_ns.saturating_add(1))
}

/// Said once, wherever the tool makes an embedding itself.
pub(crate) const EMBEDDING_NOTE: &str = "note: no embedding given; using hashed words and \
    character n-grams, which find similar words; a real model finds similar meaning";

/// The position of the largest intent.
fn largest(batch: &[Pending]) -> usize {
    let bytes = |pending: &Pending| {
        pending.intent.raw_command.len() + size_of_val(pending.intent.parent_ids.as_slice())
    };
    (0..batch.len()).max_by_key(|&index| bytes(&batch[index])).unwrap_or(0)
}

/// The input and its length in bytes, 0 where it cannot be known.
fn open_input(path: &Path) -> io::Result<(Box<dyn Read>, u64)> {
    if path == Path::new("-") {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            tell("reading standard input; Ctrl-D ends it");
        }
        return Ok((Box::new(stdin.lock()), 0));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok((Box::new(file), metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_ingestion_rise_whatever_the_clock_does() {
        assert_eq!(later(100, 0), 100);
        assert_eq!(later(100, 100), 101);
        assert_eq!(later(50, 101), 102);
        assert_eq!(later(50, u64::MAX), u64::MAX);
    }

    #[test]
    fn durability_is_one_of_three() {
        assert_eq!(parse_durability("sync"), Ok(Durability::Sync));
        assert_eq!(parse_durability("os"), Ok(Durability::Os));
        let interval = Durability::Interval(Duration::from_millis(50));
        assert_eq!(parse_durability("interval:50ms"), Ok(interval));
        for text in ["", "fsync", "interval", "interval:", "interval:-1s", "interval:0s", "50ms"] {
            assert!(parse_durability(text).is_err(), "{text}");
        }
    }
}
