//! From a directory to what it holds: the MANIFEST, the segments that it lists, and the logs that
//! they do not cover. Nothing here writes, but for setting an unclean log's pages straight.

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tala_core::{Intent, SegmentId, StorageOperation, TalaError};

use super::view::{IndexMap, IntentMap, TableOp, Tables};
use crate::{
    bytes::{all_zero, len_without_zeros},
    disk::{Disk, EntryKind, RoomAhead, StoreDir},
    door::check_embedding,
    entry::{Entry, Vector},
    files::{LOCK_NAME, read_whole, reread_from_disk, sync_dir},
    ids::{FileNumber, NUMBER_END, SeqNo},
    index::{Arena, ArenaWriter, Code},
    options::{EngineOptions, OpenProgress},
    segment::{
        Fold, HotBuffer, HotOp, LogEntry, MANIFEST_NAME, Manifest, OpenSegment, parse_segment_name,
    },
    sync::{Mutex, produce_ahead},
    wal::{
        Bound, Ending, Expected, LogEnd, LogOp, LogRecord, Mark, PREPARED_NAME, SPARE_NAME,
        accepted_records, holds_a_write, log_name, parse_log_name, read_log, synced_proof,
    },
};

/// The log of the original implementation.
pub const LEGACY_LOG: &str = "current.wal";

/// Name of the file that says that a directory is a repair's and not finished, as long as there is no
/// MANIFEST.
pub const UNFINISHED_NAME: &str = "REPAIR.unfinished";

/// How far the number of a live log may be from that of the first. A file beyond is nobody's: if
/// logs went on after it, theirs could be one that is not read.
const LIVE_LOGS_MAX: u64 = 1 << 32;

/// Something that opening found and dealt with, that its user may want to know of.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RecoveryWarning {
    /// A write that nobody was told of stood in part at the end of a log; it does not count.
    TornTail {
        /// The log.
        file: PathBuf,
        /// Where the part begins, in bytes from the start of the file.
        offset: u64,
        /// How many bytes of it there are.
        bytes: u64,
    },
    /// Nothing in a log could be read as a whole write, although it is not empty: a write that nobody
    /// was told of stood in it in part, or its bytes never reached the disk, or are gone. None of it
    /// counts, and the file was set aside.
    NothingCounts {
        /// The log.
        file: PathBuf,
        /// How many bytes it has.
        bytes: u64,
        /// Where it is now: under a name that is never read again, or, where renaming failed, where
        /// it was.
        kept_as: PathBuf,
    },
    /// Imported intents that a search cannot find: their embedding is not finite or has another
    /// dimension. They are there by id and by time.
    NotSearchable {
        /// How many.
        intents: u64,
    },
}

impl fmt::Display for RecoveryWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTail { file, offset, bytes } => write!(
                f,
                "{}: {bytes} bytes of an unacknowledged write at byte {offset} do not count",
                file.display()
            ),
            Self::NothingCounts { file, bytes, kept_as } => write!(
                f,
                "{}: no whole write is in its {bytes} bytes, so none of them count; kept as {}",
                file.display(),
                kept_as.display()
            ),
            Self::NotSearchable { intents } => write!(
                f,
                "{intents} imported intents have an embedding that cannot be searched; they are \
                 there by id and by time"
            ),
        }
    }
}

/// What opening a directory found and did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Intents in segments.
    pub from_segments: u64,
    /// Log records replayed.
    pub from_logs: u64,
    /// Whether the store had been closed in good order, or was new.
    pub was_clean: bool,
    /// What was dealt with.
    pub warnings: Vec<RecoveryWarning>,
}

impl RecoveryReport {
    pub(super) const fn nothing() -> Self {
        Self { from_segments: 0, from_logs: 0, was_clean: true, warnings: Vec::new() }
    }
}

/// The files of a directory that are ours by name.
#[derive(Debug, Default)]
pub struct Listing {
    /// Numbers of the log files.
    pub logs: BTreeSet<FileNumber>,
    /// Numbers of the segment files.
    pub segments: BTreeSet<SegmentId>,
    /// Files that were being written when a process ended.
    pub temporary: Vec<PathBuf>,
    /// Logs of which nothing counted; see [`set_aside`].
    pub set_aside: Vec<PathBuf>,
    /// Whether the original implementation's log is there.
    pub has_legacy_log: bool,
    /// Everything else, such as a directory or a file whose name is not ours.
    pub foreign: Vec<PathBuf>,
    /// Whether a repair wrote into this directory and was interrupted.
    pub is_unfinished: bool,
}

impl Listing {
    /// Lists `dir`.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn of(dir: &StoreDir) -> Result<Self, TalaError> {
        let failed = |error| TalaError::storage(StorageOperation::List, dir.path(), error);
        let mut listing = Self::default();
        for name in dir.disk().list(dir.path()).map_err(failed)? {
            // Ours are all ASCII; whatever is not is not ours.
            let name = match name.into_string() {
                Ok(name) => name,
                Err(other) => {
                    listing.foreign.push(dir.join(other));
                    continue;
                }
            };
            if let Some(number) = parse_log_name(&name).filter(|number| number.0 < NUMBER_END) {
                listing.logs.insert(number);
            } else if let Some(id) = parse_segment_name(&name).filter(|id| id.0 < NUMBER_END) {
                listing.segments.insert(id);
            } else if is_temporary(&name) {
                listing.temporary.push(dir.join(name));
            } else if is_set_aside(&name) {
                listing.set_aside.push(dir.join(name));
            } else if name == UNFINISHED_NAME {
                listing.is_unfinished = true;
                listing.temporary.push(dir.join(name));
            } else if name == LEGACY_LOG {
                listing.has_legacy_log = true;
            } else if name != MANIFEST_NAME && name != LOCK_NAME {
                listing.foreign.push(dir.join(name));
            }
        }
        Ok(listing)
    }
}

impl Listing {
    /// The logs that were begun after a MANIFEST said that `first` is the first live one.
    pub fn live_logs(&self, first: FileNumber) -> impl DoubleEndedIterator<Item = FileNumber> {
        let end = FileNumber(first.0.saturating_add(LIVE_LOGS_MAX));
        self.logs.range(first..end).copied()
    }
}

/// What is added to the name of a log of which nothing counts.
const ASIDE_SUFFIX: &str = ".torn";

fn is_set_aside(name: &str) -> bool {
    name.strip_suffix(ASIDE_SUFFIX).is_some_and(|name| parse_log_name(name).is_some())
}

/// Whether a log is as it was prepared. Zeros of another length are bytes that are gone, which are
/// worth a warning.
fn is_unused(bytes: &[u8], room: RoomAhead) -> bool {
    room.is_prepared_len(bytes.len() as u64) && all_zero(bytes)
}

/// Clears away the log `number`, which the MANIFEST neither lists nor calls live. One that is empty,
/// or as it was prepared, or that segments cover is removed. One with bytes but without a whole write was never in a
/// segment, and may be all that is left of something, so it is renamed; and so is one of which this
/// open found that nothing counts, although its writes may be whole (those of another store).
/// Whatever fails is tried again by the next open.
pub fn set_aside(
    dir: &StoreDir,
    number: FileNumber,
    nothing_counts: bool,
) -> Option<RecoveryWarning> {
    let name = log_name(number);
    let file = dir.join(&name);
    let bytes = read_whole(dir.disk(), &file).ok()?;
    let is_empty = bytes.is_empty() || is_unused(&bytes, dir.disk().room_ahead());
    if is_empty || (!nothing_counts && holds_a_write(&bytes, number)) {
        let _ = dir.disk().remove(&file);
        return None;
    }
    let aside = dir.join(name + ASIDE_SUFFIX);
    // Renaming would replace what somebody put there.
    let found = dir.disk().kind(&aside);
    let is_free = found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let is_renamed = is_free && dir.disk().rename(&file, &aside).is_ok();
    let kept_as = if is_renamed { aside } else { file.clone() };
    Some(RecoveryWarning::NothingCounts { file, bytes: bytes.len() as u64, kept_as })
}

/// What a directory without a MANIFEST is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unlisted {
    /// No store.
    Nothing,
    /// A store of the original implementation.
    Legacy,
    /// A store that lost its MANIFEST.
    Damaged,
}

impl Listing {
    /// What this is the listing of, if there is no MANIFEST.
    pub fn without_manifest(&self) -> Unlisted {
        if self.is_unfinished {
            return Unlisted::Damaged;
        }
        match (self.logs.is_empty(), self.has_legacy_log, self.segments.is_empty()) {
            // Logs of ours mean that an import was done, so its MANIFEST is lost.
            (false, ..) | (true, false, false) => Unlisted::Damaged,
            (true, true, _) => Unlisted::Legacy,
            (true, false, true) => Unlisted::Nothing,
        }
    }
}

/// The error of a store that lost its MANIFEST.
pub fn manifest_is_lost(dir: &Path) -> TalaError {
    let what = "it is missing, but there are files of a store, or of a repair that was interrupted";
    TalaError::corrupt(dir.join(MANIFEST_NAME), 0, what)
}

/// Whether a file of this name is one of ours that was never finished, or is kept for its blocks.
fn is_temporary(name: &str) -> bool {
    let is_log_to_be = [PREPARED_NAME, SPARE_NAME].contains(&name);
    is_log_to_be
        || name.strip_suffix(".tmp").is_some_and(|name| {
            name == MANIFEST_NAME
                || name == UNFINISHED_NAME
                || parse_segment_name(name).is_some()
                || parse_log_name(name).is_some()
        })
}

/// A log of which it is known what counts.
pub struct JudgedLog {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether it was begun after the MANIFEST was published.
    pub is_live: bool,
    /// How it ends.
    pub end: LogEnd,
    expected: Expected,
}

impl JudgedLog {
    /// # Errors
    /// [`TalaError::Corrupt`] where records are missing that had been synced.
    fn new(dir: &StoreDir, bytes: Vec<u8>, expected: Expected) -> Result<Self, TalaError> {
        let path = dir.join(log_name(expected.file));
        let end = match read_log(&bytes, &expected) {
            Ok(contents) => contents.end(),
            Err(damage) => return Err(damage.into_error(&path)),
        };
        let is_live = matches!(expected.bound, Bound::Live { .. });
        Ok(Self { path, bytes, is_live, end, expected })
    }

    /// Judges a log of which only its number is known and that its first record has this sequence
    /// number, by what it says itself.
    ///
    /// # Errors
    /// As [`JudgedLog::new`].
    pub fn alone(
        dir: &StoreDir,
        bytes: Vec<u8>,
        file: FileNumber,
        first_seq: SeqNo,
    ) -> Result<Self, TalaError> {
        let bound = Bound::Live { synced_outside: SeqNo::ZERO };
        Self::new(dir, bytes, Expected { file, first_seq, bound })
    }

    /// How many records count, at most.
    fn records_max(&self) -> u64 {
        (self.end.last_seq.0 + 1).saturating_sub(self.expected.first_seq.0)
    }

    /// The records that count, in order, for a store whose embeddings have dimension `dim`.
    pub fn records(&self, dim: usize) -> impl Iterator<Item = Result<LogRecord, TalaError>> {
        accepted_records(&self.bytes, &self.expected, &self.end).map(move |record| {
            let record = record.map_err(|damage| damage.into_error(&self.path))?;
            match &record.op {
                LogOp::Insert(intent) if intent.embedding.len() != dim => {
                    let got = intent.embedding.len();
                    let what = format!("an embedding of dimension {got} in a store of {dim}");
                    Err(TalaError::corrupt(&self.path, record.offset, what))
                }
                _ => Ok(record),
            }
        })
    }
}

/// Reads the logs that count, in order, and judges each.
///
/// # Errors
/// A log is missing or damaged, or the operating system refused.
pub fn read_logs(
    dir: &StoreDir,
    manifest: &Manifest,
    listing: &Listing,
) -> Result<Vec<JudgedLog>, TalaError> {
    let listed = manifest.logs.iter().map(|entry| read_listed_log(dir, entry, listing));
    let mut logs = listed.collect::<Result<Vec<_>, _>>()?;
    logs.extend(read_live_logs(dir, manifest, listing)?);
    Ok(logs)
}

/// Reads a log that the MANIFEST lists.
///
/// # Errors
/// It is missing or damaged, or the operating system refused.
pub fn read_listed_log(
    dir: &StoreDir,
    entry: &LogEntry,
    listing: &Listing,
) -> Result<JudgedLog, TalaError> {
    let path = dir.join(log_name(entry.number));
    if !listing.logs.contains(&entry.number) {
        let what = "the MANIFEST lists this log, but the file is missing";
        return Err(TalaError::corrupt(path, 0, what));
    }
    let bound = Bound::Accepted { len: entry.accepted_len, last_seq: entry.last_seq };
    let expected = Expected { file: entry.number, first_seq: entry.first_seq, bound };
    JudgedLog::new(dir, read_whole(dir.disk(), &path)?, expected)
}

/// Reads the logs begun after the MANIFEST was published.
///
/// # Errors
/// The first of them that is missing or damaged, or the operating system refused.
pub fn read_live_logs(
    dir: &StoreDir,
    manifest: &Manifest,
    listing: &Listing,
) -> Result<Vec<JudgedLog>, TalaError> {
    let first = manifest.next_log;
    if first > FileNumber(0) && !listing.logs.contains(&first) {
        let what = "the MANIFEST says that this log was begun, but the file is missing";
        return Err(TalaError::corrupt(dir.join(log_name(first)), 0, what));
    }
    let numbers: Vec<FileNumber> = listing.live_logs(first).collect();
    let logs = judge_live_logs(dir, manifest, listing, &numbers, read_whole)?;
    // The mark itself may be in the page cache alone; that it was synced, the MANIFEST says.
    let is_closed = |last: &JudgedLog| {
        matches!(last.end.ending, Ending::Clean(Mark::Closed))
            && last.end.last_seq <= manifest.synced_seq
    };
    if logs.last().is_none_or(is_closed) {
        return Ok(logs);
    }
    // After an unclean end the page cache may show bytes that a failed sync never brought to the
    // disk. Make durable what can be, and believe only what then comes back from the disk.
    sync_dir(dir.disk(), dir.path())?;
    // Into the memory of the first reading: new memory takes as long as reading does.
    let mut read_before = logs.into_iter().map(|log| log.bytes);
    judge_live_logs(dir, manifest, listing, &numbers, |disk, path| {
        reread_from_disk(disk, path, read_before.next().unwrap_or_default())
    })
}

fn judge_live_logs(
    dir: &StoreDir,
    manifest: &Manifest,
    listing: &Listing,
    numbers: &[FileNumber],
    mut read: impl FnMut(&dyn Disk, &Path) -> Result<Vec<u8>, TalaError>,
) -> Result<Vec<JudgedLog>, TalaError> {
    let mut files = Vec::new();
    for &number in numbers {
        files.push((number, read(dir.disk(), &dir.join(log_name(number)))?));
    }
    // What the MANIFEST and the logs after it prove of each log, from the last one to the first.
    let mut synced_outside = manifest.synced_seq;
    let mut proofs = vec![synced_outside];
    for (number, bytes) in files.iter().skip(1).rev() {
        synced_outside = synced_outside.max(synced_proof(bytes, *number));
        proofs.push(synced_outside);
    }
    let mut first_seq = manifest.next_seq;
    let mut logs: Vec<JudgedLog> = Vec::new();
    for ((number, bytes), synced_outside) in files.into_iter().zip(proofs.into_iter().rev()) {
        let bound = Bound::Live { synced_outside };
        let log = JudgedLog::new(dir, bytes, Expected { file: number, first_seq, bound })?;
        first_seq = log.end.last_seq.next();
        if let Ending::Clean(Mark::Rotated { next }) = log.end.ending
            && !listing.logs.contains(&next)
        {
            let what = format!("log {number} goes on in this file, but it is missing");
            return Err(TalaError::corrupt(dir.join(log_name(next)), 0, what));
        }
        logs.push(log);
    }
    Ok(logs)
}

/// An intent on its way into memory, with what another thread can make of it before.
struct Ready {
    intent: Intent,
    seq: SeqNo,
    /// Of the embedding; `None` where no search may see it.
    code: Option<Code>,
}

/// What makes intents ready, on a thread of its own where there is one.
struct Preparer<'a> {
    arena: Arc<Arena>,
    spent: &'a Spent,
    /// Memory for codes.
    codes: Vec<Code>,
}

impl<'a> Preparer<'a> {
    fn new(arena: &Arc<Arena>, spent: &'a Spent) -> Self {
        Self { arena: Arc::clone(arena), spent, codes: Vec::new() }
    }

    fn ready(&mut self, intent: Intent, seq: SeqNo) -> Ready {
        let is_searchable = check_embedding(&intent.embedding, self.arena.dim()).is_ok();
        if is_searchable && self.codes.is_empty() {
            self.codes.extend(self.spent.take_codes());
        }
        let code = is_searchable.then(|| self.arena.code_of(&intent.embedding, self.codes.pop()));
        Ready { intent, seq, code }
    }

    /// Makes what a log record wants done ready.
    fn ready_op(&mut self, op: LogOp, seq: SeqNo) -> ReadyOp {
        match op {
            LogOp::Insert(intent) => ReadyOp::Insert(self.ready(intent, seq)),
            LogOp::Outcome { id, outcome } => ReadyOp::Change(TableOp::Outcome(seq, id, outcome)),
            LogOp::Removal { id } => ReadyOp::Change(TableOp::Removal(seq, id)),
            LogOp::Mark(_) => ReadyOp::Nothing,
        }
    }
}

/// Embeddings that are in the arena and codes, on their way back to the thread that allocated them: freed
/// by the other one, they would make each thread wait for the other's allocator.
#[derive(Default)]
struct Spent(Mutex<Vec<Used>>);

/// An embedding that is in the arena, and a code whose memory is not needed any more.
type Used = (Vec<f32>, Code);

impl Spent {
    fn give_back(&self, used: Vec<Used>) {
        self.0.lock().extend(used);
    }

    /// The memory of codes; that of the embeddings is freed here.
    fn take_codes(&self) -> impl Iterator<Item = Code> {
        let used = std::mem::take(&mut *self.0.lock());
        used.into_iter().map(|(_, code)| code)
    }
}

/// What a log record wants done.
enum ReadyOp {
    Insert(Ready),
    Change(TableOp),
    Nothing,
}

/// What one thread hands to the other at once: enough for the way not to count, and few enough for
/// their vectors to stay in its cache.
const CHUNK_LEN: usize = 64;

/// The next chunk of `items`; `None` after the last.
fn in_chunks<T>(items: impl Iterator<Item = T>) -> Option<Vec<T>> {
    let chunk: Vec<T> = items.take(CHUNK_LEN).collect();
    (!chunk.is_empty()).then_some(chunk)
}

/// How many chunks are made ready ahead while so many bytes are read: none where it is over before
/// another thread has begun.
const fn chunks_ahead(bytes: u64) -> usize {
    if bytes < 1 << 20 { 0 } else { 8 }
}

/// Everything that a directory held, in memory.
pub struct Recovered {
    /// The embeddings.
    pub arena: ArenaWriter,
    /// From id to intent.
    pub intents: IntentMap,
    /// From id to row, and the time index.
    pub index_map: IndexMap,
    /// What no segment covers.
    pub hot: HotBuffer,
    /// The last sequence number used.
    pub last_seq: SeqNo,
    /// Bytes of log that no segment covers.
    pub log_bytes: u64,
    /// The logs that count from now on, with how far they count.
    pub logs: Vec<LogEntry>,
    /// Of these, the ones that are followed by zeros in their files, and how far they count.
    pub zero_tails: Vec<(FileNumber, u64)>,
    /// Logs with bytes of which nothing counts.
    pub uncounted: BTreeSet<FileNumber>,
    /// What was found.
    pub report: RecoveryReport,
}

impl Recovered {
    /// A store that holds nothing.
    ///
    /// # Errors
    /// [`TalaError::InvalidOption`].
    pub fn empty(options: &EngineOptions, arena: ArenaWriter) -> Result<Self, TalaError> {
        Ok(Self {
            arena,
            intents: IntentMap::default(),
            index_map: IndexMap::default(),
            hot: HotBuffer::try_new(options.dim, options.hot_capacity)?,
            last_seq: SeqNo::ZERO,
            log_bytes: 0,
            logs: Vec::new(),
            zero_tails: Vec::new(),
            uncounted: BTreeSet::new(),
            report: RecoveryReport::nothing(),
        })
    }

    /// Takes in what the segments hold.
    ///
    /// # Errors
    /// A segment is missing or damaged.
    pub fn add_segments(
        &mut self,
        dir: &StoreDir,
        manifest: &Manifest,
        options: &EngineOptions,
    ) -> Result<(), TalaError> {
        let mut fold = Fold::default();
        // These are what the MANIFEST says, and no file was compared with them yet.
        let total =
            manifest.segments.iter().fold(0, |total: u64, entry| total.saturating_add(entry.bytes));
        let mut done = 0;
        for entry in &manifest.segments {
            options.report(OpenProgress::Segments { done, total });
            fold.add(OpenSegment::open(dir, options.dim, entry)?);
            done += entry.bytes;
        }
        self.intents.reserve(fold.intents_count());
        self.index_map.rows.reserve(fold.intents_count());
        self.arena.make_room_for(u32::try_from(fold.intents_count()).unwrap_or(0));
        let spent = Spent::default();
        let mut preparer = Preparer::new(self.arena.arena(), &spent);
        let mut intents = fold.intents();
        let ready = || {
            in_chunks(intents.by_ref().map(|intent| {
                let (intent, seq) = intent?;
                Ok::<_, TalaError>(preparer.ready(intent, seq))
            }))
        };
        produce_ahead(chunks_ahead(total), ready, |chunk| {
            let mut used = Vec::with_capacity(chunk.len());
            for ready in chunk {
                // Segments hold what the hot buffer need not.
                let _ = self.take_in(ready?, &mut used)?;
                self.report.from_segments += 1;
            }
            spent.give_back(used);
            Ok::<(), TalaError>(())
        })?;
        if total > 0 {
            options.report(OpenProgress::Segments { done, total });
        }
        self.last_seq = manifest.covered_seq();
        Ok(())
    }

    /// Takes in what the logs hold.
    ///
    /// # Errors
    /// A log is damaged.
    pub fn add_logs(
        &mut self,
        logs: &[JudgedLog],
        options: &EngineOptions,
    ) -> Result<(), TalaError> {
        let total = logs.iter().map(|log| log.bytes.len() as u64).sum();
        // Outcomes and removals have no vector: there are so many at most.
        let vector_bytes = (options.dim.max(1) * size_of::<f32>()) as u64;
        let vectors = |log: &JudgedLog| log.records_max().min(log.end.accepted_len / vector_bytes);
        let vectors = logs.iter().map(vectors).sum::<u64>();
        self.arena.make_room_for(u32::try_from(vectors).unwrap_or(0));
        let mut done = 0;
        for log in logs {
            options.report(OpenProgress::Logs { done, total });
            self.add_log(log, options)?;
            done += log.bytes.len() as u64;
        }
        if total > 0 {
            options.report(OpenProgress::Logs { done, total });
        }
        Ok(())
    }

    fn add_log(&mut self, log: &JudgedLog, options: &EngineOptions) -> Result<(), TalaError> {
        let end = log.end;
        let room = options.disk.room_ahead();
        // Of a log of which nothing counts, the one who sets it aside tells.
        if let Ending::Torn { at, .. } = end.ending
            && end.accepted_len > 0
        {
            // Room that was prepared after it is no part of it.
            let len = log.bytes.len() as u64;
            let is_prepared = room.is_prepared_len(len);
            let end = if is_prepared { len_without_zeros(&log.bytes) as u64 } else { len };
            let bytes = end.saturating_sub(at);
            let warning = RecoveryWarning::TornTail { file: log.path.clone(), offset: at, bytes };
            self.report.warnings.push(warning);
        }
        let rest = log.bytes.get(end.accepted_len as usize..).unwrap_or_default();
        let is_zero_tail = all_zero(rest);
        if end.accepted_len == 0 && !log.bytes.is_empty() && !is_unused(&log.bytes, room) {
            self.uncounted.insert(log.expected.file);
        }
        if log.is_live {
            self.report.was_clean = matches!(end.ending, Ending::Clean(_));
        }
        let count = log.records_max() as usize;
        self.intents.reserve(count);
        self.index_map.rows.reserve(count);
        self.hot.reserve(count);
        let spent = Spent::default();
        let mut preparer = Preparer::new(self.arena.arena(), &spent);
        let mut records = log.records(options.dim);
        let ready = || {
            in_chunks(records.by_ref().map(|record| {
                let LogRecord { seq, op, .. } = record?;
                Ok::<_, TalaError>(preparer.ready_op(op, seq))
            }))
        };
        let mut has_writes = false;
        produce_ahead(chunks_ahead(end.accepted_len), ready, |chunk| {
            let mut used = Vec::with_capacity(chunk.len());
            for op in chunk {
                let op = match op? {
                    ReadyOp::Insert(ready) => Some(self.take_in(ready, &mut used)?),
                    ReadyOp::Change(op) => self.tables().apply(op),
                    ReadyOp::Nothing => continue,
                };
                has_writes = true;
                self.report.from_logs += 1;
                if let Some(op) = op {
                    self.hot.apply(op);
                }
            }
            spent.give_back(used);
            Ok::<(), TalaError>(())
        })?;
        self.last_seq = self.last_seq.max(end.last_seq);
        if has_writes {
            self.log_bytes += end.accepted_len;
            let Expected { file: number, first_seq, .. } = log.expected;
            let (last_seq, accepted_len) = (end.last_seq, end.accepted_len);
            self.logs.push(LogEntry { number, first_seq, last_seq, accepted_len });
            if is_zero_tail && !rest.is_empty() {
                self.zero_tails.push((number, accepted_len));
            }
        }
        Ok(())
    }

    fn tables(&mut self) -> Tables<'_> {
        Tables {
            arena: &mut self.arena,
            intents: &mut self.intents,
            index_map: &mut self.index_map,
        }
    }

    /// Puts an intent into the maps, and its embedding into the arena unless no search may see it.
    ///
    /// # Errors
    /// No row is left.
    pub fn insert(&mut self, intent: Intent, seq: SeqNo) -> Result<HotOp, TalaError> {
        let ready = Preparer::new(self.arena.arena(), &Spent::default()).ready(intent, seq);
        self.take_in(ready, &mut Vec::new())
    }

    fn take_in(&mut self, ready: Ready, used: &mut Vec<Used>) -> Result<HotOp, TalaError> {
        let Ready { mut intent, seq, code } = ready;
        let embedding = std::mem::take(&mut intent.embedding);
        let vector = match code {
            Some(code) => {
                let (row, code) = self.arena.push_coded(&embedding, code, intent.id, seq.0)?;
                used.push((embedding, code));
                Vector::Row(row)
            }
            None => Vector::Own(embedding.into_boxed_slice()),
        };
        let entry = Entry::split(intent, seq, vector);
        Ok(self.tables().insert(entry))
    }
}

/// Creates `dir` if it is not there, and makes the creation durable.
///
/// # Errors
/// The operating system refused, or something that is not a directory is in the way.
pub fn ensure_dir(disk: &dyn Disk, dir: &Path) -> Result<(), TalaError> {
    match disk.kind(dir) {
        Ok(EntryKind::Dir) => return Ok(()),
        Ok(_) => {
            let error = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(TalaError::storage(StorageOperation::Open, dir, error));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(TalaError::storage(StorageOperation::Open, dir, error)),
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if parent != dir {
        ensure_dir(disk, parent)?;
    }
    match disk.create_dir(dir) {
        Ok(()) => sync_dir(disk, parent),
        // Another process made it at the same moment; or this is a link that leads nowhere.
        Err(_) if matches!(disk.kind(dir), Ok(EntryKind::Dir)) => Ok(()),
        Err(error) => Err(TalaError::storage(StorageOperation::Create, dir, error)),
    }
}

/// Makes durable that `dir` is there, before the first store in it is: one who made it may have been
/// killed before it was, and then a power cut would take the store along. Where a directory above it
/// may not be read, or its file system has no such thing, whoever made `dir` has to answer for that.
///
/// # Errors
/// The operating system refused for any other reason.
pub fn settle_dir(disk: &dyn Disk, dir: &Path) -> Result<(), TalaError> {
    let may_be_skipped = |source: &io::Error| {
        use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
        matches!(source.kind(), InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported)
    };
    for above in dir.ancestors().skip(1) {
        match sync_dir(disk, above) {
            Err(TalaError::Storage { source, .. }) if may_be_skipped(&source) => {}
            synced => synced?,
        }
    }
    Ok(())
}
