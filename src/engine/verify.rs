//! Checking a directory without opening it for writing.

use std::{collections::HashSet, fmt, io, path::Path};

use tala_core::{IntentId, TalaError};

use super::{
    import::check_untouched,
    recover::{JudgedLog, Listing, read_logs},
};
use crate::{
    files::DirLock,
    segment::{Fold, MANIFEST_NAME, Manifest, OpenSegment},
    wal::{Ending, LogOp},
};

/// What a check of a directory found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Dimension of the embeddings; 0 where no MANIFEST could be read.
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

/// Checks every file of the store in `dir`: each checksum, each length, and that the files fit
/// together. It goes on after damage, so that the report names all of it.
///
/// The directory is locked meanwhile, so an engine that has it open is not disturbed.
///
/// # Errors
/// There is no store in `dir`, another engine has it open, or the operating system refused
/// something. Damage is no error; it is in the report.
pub fn verify(dir: impl AsRef<Path>) -> Result<VerifyReport, TalaError> {
    let dir = dir.as_ref();
    let listing = Listing::of(dir)?;
    let _lock = lock_if_writable(dir)?;
    let mut report = VerifyReport::default();
    let manifest = match Manifest::load(dir) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => {
            let what = if listing.has_legacy_log && listing.logs.is_empty() {
                "there is none; this directory of the original implementation is imported by opening it"
            } else {
                "there is none, so this is not a store"
            };
            report.damage.push(TalaError::corrupt(dir.join(MANIFEST_NAME), 0, what));
            return Ok(report);
        }
        Err(error) => return report.with_damage(error),
    };
    report.dim = manifest.dim as usize;
    if let Some(legacy) = &manifest.legacy {
        report.note(check_untouched(dir, legacy))?;
    }
    let mut fold = Fold::default();
    for entry in &manifest.segments {
        if let Some(segment) = report.note(OpenSegment::open(dir, report.dim, entry))? {
            report.segments += 1;
            report.segment_bytes += entry.bytes;
            fold.add(segment);
        }
    }
    let mut ids: HashSet<IntentId> = fold.ids().collect();
    if let Some(logs) = report.note(read_logs(dir, &manifest, &listing))? {
        for log in &logs {
            let checked = report.check_log(log, &mut ids);
            report.note(checked)?;
        }
    }
    for path in &listing.temporary {
        report.warnings.push(format!("{}: left by an interrupted write", path.display()));
    }
    report.intents = ids.len() as u64;
    Ok(report)
}

impl VerifyReport {
    fn with_damage(mut self, error: TalaError) -> Result<Self, TalaError> {
        self.note::<()>(Err(error))?;
        Ok(self)
    }

    /// Takes damage down; other errors end the check.
    fn note<T>(&mut self, result: Result<T, TalaError>) -> Result<Option<T>, TalaError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ (TalaError::Corrupt { .. } | TalaError::UnsupportedVersion { .. })) => {
                self.damage.push(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn check_log(&mut self, log: &JudgedLog, ids: &mut HashSet<IntentId>) -> Result<(), TalaError> {
        if let Ending::Torn { at, .. } = log.end.ending {
            let warning = format!(
                "{}: an unacknowledged write begins at byte {at} and does not count",
                log.path.display()
            );
            self.warnings.push(warning);
        }
        for record in log.records(self.dim) {
            let record = record?;
            self.records += 1;
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

/// The lock of the directory; `None` where nothing can be written, so that nothing can be locked
/// and nothing will change either.
fn lock_if_writable(dir: &Path) -> Result<Option<DirLock>, TalaError> {
    match DirLock::take(dir) {
        Ok(lock) => Ok(Some(lock)),
        Err(TalaError::Storage { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
