//! Checking a directory without opening it for writing.

mod alone;

use std::{collections::HashSet, fmt, io, path::Path};

use tala_core::{IntentId, StorageOperation, TalaError};

use super::{
    import::{check_untouched, legacy_dim, take_in},
    open::new_index,
    recover::{
        JudgedLog, LEGACY_LOG, Listing, Recovered, Unlisted, manifest_is_lost, read_listed_log,
        read_live_logs,
    },
};
use crate::{
    disk::StoreDir,
    files::{DirLock, SharedLock, is_unreadable},
    options::EngineOptions,
    segment::{Fold, MANIFEST_NAME, Manifest, OpenSegment, segment_name},
    wal::{Ending, LogOp, log_name},
};

/// What a check of a directory found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Dimension of the embeddings; 0 where it is not known.
    pub dim: usize,
    /// Segments found intact.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Logs found intact.
    pub logs: u64,
    /// Bytes of them that count.
    pub log_bytes: u64,
    /// Records in those logs.
    pub records: u64,
    /// Blocks of segments that were compared with a checksum of their own.
    pub blocks: u64,
    /// Rows of segments that were compared with the filter and the indexes that lead to them.
    pub rows: u64,
    /// Edges that were compared with the parents that they stand for.
    pub edges: u64,
    /// Changes, in segments, to intents of older ones.
    pub changes: u64,
    /// What was checked, in sentences.
    pub checked: Vec<String>,
    /// What was not, because of damage, in sentences.
    pub unchecked: Vec<String>,
    /// Intents in the store, as far as what is intact tells.
    pub intents: u64,
    /// What is no damage, but worth knowing.
    pub warnings: Vec<String>,
    /// What is damaged; each names its file, the offset and what is wrong.
    pub damage: Vec<TalaError>,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.damage.is_empty()
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} intents; {} segments ({} bytes), {} logs ({} bytes, {} records); {} warnings, {} \
             damaged places",
            self.intents,
            self.segments,
            self.segment_bytes,
            self.logs,
            self.log_bytes,
            self.records,
            self.warnings.len(),
            self.damage.len(),
        )
    }
}

/// Checks every file of the store in `dir`: each checksum, each length, that the parts of a file agree,
/// and that the files fit together; `checked` of the report says what that was. It goes on after damage,
/// so that the report names all of it; but what stands in logs after the damaged one of those that were
/// being written, only the damaged one could tell. Without an intact MANIFEST every other file is
/// checked alone. What could not be checked, `unchecked` says.
///
/// Nothing is changed. Where the directory has a file `LOCK`, no engine can open it meanwhile; an
/// engine that has it open is not disturbed, and makes this `Locked`. A directory of the original implementation is read as opening it would, up to the
/// first damage, and not imported.
///
/// # Errors
/// - [`TalaError::Locked`]: an engine has the directory open.
/// - [`TalaError::Storage`]: there is no such directory, or no store in it
///   ([`NotFound`](io::ErrorKind::NotFound), of the directory or of its MANIFEST); or the operating
///   system refused something that says nothing of a single file, such as too many open ones.
/// - [`TalaError::InvalidOption`]: a directory of the original implementation has embeddings of a
///   dimension that no store may have.
///
/// Damage is no error; it is in the report: files that are missing, cut, changed, of a newer
/// version, that contradict each other, or that cannot be read, whatever the reason: the device, the
/// permissions, or that it is no regular file.
pub fn verify(dir: impl AsRef<Path>) -> Result<VerifyReport, TalaError> {
    verify_in(&StoreDir::real(dir.as_ref()))
}

/// See [`verify`].
///
/// # Errors
/// As [`verify`].
pub fn verify_in(dir: &StoreDir) -> Result<VerifyReport, TalaError> {
    let lock = DirLock::take_shared(dir)?;
    let mut report = VerifyReport::default();
    report.check_dir(dir)?;
    // Where there was no file to lock, an engine may have begun to write meanwhile.
    if !lock.is_held() && DirLock::take_shared(dir)?.is_held() {
        return Err(TalaError::Locked { path: dir.path().to_owned() });
    }
    if let SharedLock::Impossible(error) = lock {
        // Opening the store fails for it.
        report.damage.push(error);
    }
    Ok(report)
}

impl VerifyReport {
    fn check_dir(&mut self, dir: &StoreDir) -> Result<(), TalaError> {
        let listing = Listing::of(dir)?;
        match self.note(dir, Manifest::load(dir))? {
            Some(Some(manifest)) => self.check_store(dir, &manifest, &listing),
            Some(None) => match listing.without_manifest() {
                Unlisted::Nothing => {
                    let error = io::Error::new(io::ErrorKind::NotFound, "there is no store here");
                    let path = dir.join(MANIFEST_NAME);
                    Err(TalaError::storage(StorageOperation::Open, path, error))
                }
                Unlisted::Legacy => {
                    let checked = self.check_legacy(dir, &listing);
                    self.note(dir, checked).map(drop)
                }
                Unlisted::Damaged => {
                    self.note::<()>(dir, Err(manifest_is_lost(dir.path())))?;
                    self.check_alone(dir, &listing)
                }
            },
            None => self.check_alone(dir, &listing),
        }
    }

    fn check_store(
        &mut self,
        dir: &StoreDir,
        manifest: &Manifest,
        listing: &Listing,
    ) -> Result<(), TalaError> {
        self.dim = manifest.dim as usize;
        if let Some(legacy) = &manifest.legacy {
            self.note(dir, check_untouched(dir, legacy))?;
        }
        let mut fold = Fold::default();
        for entry in &manifest.segments {
            if let Some(segment) = self.note(dir, OpenSegment::open(dir, self.dim, entry))? {
                self.segments += 1;
                self.segment_bytes += entry.bytes;
                if let Some(agreed) = self.note(dir, segment.check_agreement())? {
                    self.blocks += agreed.blocks;
                    self.rows += agreed.rows;
                    self.edges += agreed.edges;
                    self.changes += agreed.changes;
                }
                if self.damage.is_empty() {
                    let known = fold.check_changes(&segment);
                    self.note(dir, known)?;
                }
                fold.add(segment);
            }
        }
        self.note(dir, manifest.check_arithmetic(&dir.join(MANIFEST_NAME)))?;
        for intent in fold.intents() {
            self.note(dir, intent)?;
        }
        let mut ids: HashSet<IntentId> = fold.ids().collect();
        for entry in &manifest.logs {
            if let Some(log) = self.note(dir, read_listed_log(dir, entry, listing))? {
                let checked = self.check_log(&log, &mut ids);
                self.note(dir, checked)?;
            }
        }
        let live = self.note(dir, read_live_logs(dir, manifest, listing))?;
        let has_live = live.is_some();
        for log in live.unwrap_or_default() {
            let checked = self.check_log(&log, &mut ids);
            self.note(dir, checked)?;
        }
        self.note_strays(dir, manifest, listing);
        for path in &listing.set_aside {
            let what = "a log without a whole write, set aside when the store was opened";
            self.warnings.push(format!("{}: {what}", path.display()));
        }
        self.intents = ids.len() as u64;
        self.say_what_was_checked(manifest);
        if !has_live {
            let what = "the other logs that were being written, as only the damaged one could tell what \
                        stands in them";
            self.unchecked.push(what.to_owned());
        }
        if !self.is_ok() {
            let what = "after the first damage, whether the intents are there that changes, outcomes \
                        and removals name";
            self.unchecked.push(what.to_owned());
        }
        Ok(())
    }

    /// Files that do not count, and are in nobody's way.
    fn note_strays(&mut self, dir: &StoreDir, manifest: &Manifest, listing: &Listing) {
        let mut warn = |path: &Path, what: &str| {
            self.warnings.push(format!("{}: {what}", path.display()));
        };
        for path in &listing.temporary {
            warn(path, "left by an interrupted write");
        }
        for id in &listing.segments {
            let is_listed = manifest.segments.iter().any(|entry| entry.id == *id);
            // Those of a directory that was imported stay.
            let first = manifest.segments.first();
            let is_imported =
                manifest.legacy.is_some() && first.is_some_and(|first| *id < first.id);
            if !is_listed && !is_imported {
                warn(&dir.join(segment_name(*id)), "the MANIFEST does not list this segment");
            }
        }
        for number in &listing.logs {
            let path = dir.join(log_name(*number));
            let is_live = listing.live_logs(manifest.next_log).any(|live| live == *number);
            if *number < manifest.next_log && manifest.log(*number).is_none() {
                warn(&path, "segments hold what was in this log; the next opening removes it");
            } else if *number >= manifest.next_log && !is_live {
                warn(&path, "its number is too far from those of other logs to be one of them");
            }
        }
        if listing.has_legacy_log && manifest.legacy.is_none() {
            warn(&dir.join(LEGACY_LOG), "it was never imported, and is not read");
        }
        for path in &listing.foreign {
            warn(path, "this is no file of a store");
        }
    }

    fn say_what_was_checked(&mut self, manifest: &Manifest) {
        let Self { segments, blocks, rows, edges, changes, logs, records, .. } = self;
        self.checked = vec![
            format!(
                "MANIFEST: its checksum, its numbers against each other, {} segments and {} logs \
                 that it lists",
                manifest.segments.len(),
                manifest.logs.len()
            ),
            format!(
                "{segments} segments: length and checksum of the whole and of {blocks} blocks; \
                 {rows} rows by bloom filter, id, time and sequence number; {edges} edges by \
                 parents; {changes} changes by what they change"
            ),
            format!(
                "{logs} logs: checksum, place and sequence number of {records} records, whole \
                 batches, marks and how each log ends against the MANIFEST and later logs; \
                 outcomes and removals by the intents that they name"
            ),
        ];
    }

    fn check_legacy(&mut self, dir: &StoreDir, listing: &Listing) -> Result<(), TalaError> {
        let dim = legacy_dim(dir, listing)?;
        // Where no embedding tells, any dimension will do.
        let options = EngineOptions::new(dim.unwrap_or(1));
        options.check()?;
        let (_, _, arena) = new_index(&options);
        let mut recovered = Recovered::empty(&options, arena)?;
        let log_bytes = take_in(dir, options.dim, listing, &mut recovered)?.len() as u64;
        *self = Self {
            dim: dim.unwrap_or_default(),
            segments: listing.segments.len() as u64,
            logs: 1,
            log_bytes,
            records: recovered.report.from_logs,
            intents: recovered.intents.len() as u64,
            ..Self::default()
        };
        let path = dir.join(MANIFEST_NAME);
        let what =
            "there is none yet; opening this directory of the original implementation imports it";
        self.warnings.push(format!("{}: {what}", path.display()));
        self.warnings.extend(recovered.report.warnings.iter().map(ToString::to_string));
        Ok(())
    }

    /// Takes down damage, and files that cannot be read; other errors end the check.
    fn note<T>(
        &mut self,
        dir: &StoreDir,
        result: Result<T, TalaError>,
    ) -> Result<Option<T>, TalaError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(TalaError::Storage { operation, path, source })
                if path != dir.path() && is_unreadable(dir.disk(), &path, &source) =>
            {
                self.damage.push(TalaError::Storage { operation, path, source });
                Ok(None)
            }
            Err(error @ (TalaError::Corrupt { .. } | TalaError::UnsupportedVersion { .. })) => {
                self.damage.push(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn check_log(&mut self, log: &JudgedLog, ids: &mut HashSet<IntentId>) -> Result<(), TalaError> {
        let (path, len) = (log.path.display(), log.bytes.len());
        if log.end.accepted_len == 0 && len > 0 {
            self.warnings.push(format!("{path}: no whole write is in its {len} bytes"));
        } else if let Ending::Torn { at, .. } = log.end.ending {
            let warning =
                format!("{path}: an unacknowledged write begins at byte {at} and does not count");
            self.warnings.push(warning);
        }
        for record in log.records(self.dim) {
            let record = record?;
            self.records += 1;
            if let LogOp::Outcome { id, .. } | LogOp::Removal { id } = &record.op
                && !ids.contains(id)
                && self.damage.is_empty()
            {
                let what = format!("a record speaks of intent {id}, which is not there");
                return Err(TalaError::corrupt(&log.path, record.offset, what));
            }
            match record.op {
                LogOp::Insert(intent) => {
                    ids.insert(intent.id);
                }
                LogOp::Removal { id } => {
                    ids.remove(&id);
                }
                LogOp::Outcome { .. } | LogOp::Mark(_) => {}
            }
        }
        self.logs += 1;
        self.log_bytes += log.end.accepted_len;
        Ok(())
    }
}
