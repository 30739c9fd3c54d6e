//! Repair: every intact record of a damaged store, in a new one.
//!
//! The old directory is read and never written to. What its files say is taken apart into events
//! (`salvage`), which are put in order by their sequence numbers and folded as opening folds them
//! (`merge`). What comes out goes into segments of the new directory, and its MANIFEST last, so that
//! a new directory that was not finished is no store.

mod merge;
mod salvage;

use std::{
    fmt, io,
    path::{Component, Path, PathBuf},
};

use tala_core::{Intent, IntentId, SegmentId, StorageOperation, TalaError};

use self::{merge::Merged, salvage::Salvager};
use super::recover::{Listing, UNFINISHED_NAME, Unlisted, ensure_dir, settle_dir};
use crate::{
    disk::{EntryKind, LogSyncs, StoreDir},
    entry::{Entry, NoArena, Vector},
    files::{DirLock, LOCK_NAME, SharedLock, failed, is_unreadable, sync_dir, write_atomically},
    ids::SeqNo,
    segment::{HotBuffer, HotOp, MANIFEST_NAME, Manifest, epoch_ns, segment_name, write_segment},
};

/// Intents in a segment of the new store.
const SEGMENT_INTENTS: usize = 10_000;
/// Bytes of embeddings and commands after which a segment of the new store is full.
const SEGMENT_BYTES: usize = 64 << 20;

/// Something that the old store held and the new one does not.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Loss {
    /// The file.
    pub file: PathBuf,
    /// Where it was in the file: the first byte.
    pub from: u64,
    /// The first byte after it; equal to `from` where bytes are gone without a trace.
    pub until: u64,
    /// How many records or rows cannot be read there, where numbers tell. They may still be in the new
    /// store, from another file.
    pub records: Option<u64>,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, from, until, records, what } = self;
        write!(f, "{}: bytes {from}..{until}, ", file.display())?;
        match records {
            Some(records) => write!(f, "{records} records: {what}"),
            None => write!(f, "an unknown number of records: {what}"),
        }
    }
}

/// An intent of which only a part is intact. The new store has it with what is left.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct IncompleteIntent {
    /// Which one.
    pub id: IntentId,
    /// The fields that are empty in the new store because they were damaged. Without its embedding an
    /// intent is there by id and time, but no search finds it.
    pub missing: Vec<&'static str>,
}

/// What a repair found and made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Dimension of the embeddings.
    pub dim: usize,
    /// Intents in the new store.
    pub intents: u64,
    /// Segments in the new store.
    pub segments: u64,
    /// Segment files of the old directory that were read.
    pub segments_read: u64,
    /// Log files of the old directory that were read.
    pub logs_read: u64,
    /// What is damaged or missing, by file and byte range.
    pub lost: Vec<Loss>,
    /// Intents of which only a part is intact.
    pub incomplete: Vec<IncompleteIntent>,
    /// Intents whose id is all that is left of them.
    pub lost_intents: Vec<IntentId>,
    /// Intents whose newest version is lost; the new store has an older one.
    pub older_versions: Vec<IntentId>,
    /// Intents that nothing is left of but an outcome, which went with them.
    pub outcomes_without_intent: u64,
    /// Batches of which some records are lost; the others are in the new store.
    pub partial_batches: u64,
    /// What else one should know of the new store: what cannot be decided from what is left.
    pub doubts: Vec<String>,
}

impl RepairReport {
    /// Whether nothing is known to be lost.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty()
            && self.incomplete.is_empty()
            && self.lost_intents.is_empty()
            && self.older_versions.is_empty()
            && self.outcomes_without_intent == 0
            && self.partial_batches == 0
    }
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} intents salvaged from {} segments and {} logs; {} lost or damaged places, {} \
             incomplete intents, {} lost by name, {} older versions, {} doubts",
            self.intents,
            self.segments_read,
            self.logs_read,
            self.lost.len(),
            self.incomplete.len(),
            self.lost_intents.len(),
            self.older_versions.len(),
            self.doubts.len(),
        )
    }
}

/// Salvages every intact record of the store in `dir` into a new store in `to`, which then opens, and
/// reports what was lost.
///
/// A record is intact where a checksum that covers all of it matches; the formats of other programs,
/// which have no checksums, are taken as far as they add up. Of each intent the last write counts,
/// by sequence number, wherever it was found: in logs, also after damaged places; in segments, listed
/// or not, row by row; in a directory of the original implementation. A lost MANIFEST is made up for
/// by what the other files say themselves. What follows from a write that was lost does not:
/// if it removed an intent, the intent is back. The report says so.
///
/// `dir` is not written to in any way, and no engine may have it open meanwhile. `to` must not exist,
/// or be empty, and not lie in `dir`. Its MANIFEST is written last: where a repair was interrupted,
/// opening `to` fails, and it can be removed. One that returns an error clears away what it had written,
/// as far as the disk lets it, but for a sign by which opening `to` fails, if it came so far, and takes `to`
/// again when the reason is gone. Takes as much memory as the store has bytes, and a segment more.
///
/// # Errors
/// - [`TalaError::Locked`]: an engine has `dir` or `to` open.
/// - [`TalaError::InvalidInput`]: `to` is not empty, or lies in `dir`.
/// - [`TalaError::UnsupportedVersion`]: the store was written by a newer version; nothing says that it
///   is damaged.
/// - [`TalaError::Corrupt`]: nothing is left that says what dimension embeddings have.
/// - [`TalaError::Storage`]: there is no store in `dir`, or the operating system refused something.
pub fn repair(dir: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<RepairReport, TalaError> {
    let (dir, to) = (dir.as_ref(), to.as_ref());
    check_apart(dir, to)?;
    repair_in(&StoreDir::real(dir), &StoreDir::real(to))
}

/// [`repair`] on any disk.
pub fn repair_in(dir: &StoreDir, to: &StoreDir) -> Result<RepairReport, TalaError> {
    let lock = DirLock::take_shared(dir)?;
    let listing = Listing::of(dir)?;
    check_empty(to)?;
    let mut report = RepairReport::default();
    let manifest = read_manifest(dir, &listing, &mut report)?;
    let mut salvager = Salvager::new(dir, &listing, manifest.as_ref(), &mut report);
    salvager.take_segments()?;
    salvager.take_logs()?;
    salvager.take_legacy()?;
    let Some(dim) = salvager.dim() else {
        let what = "nothing that is left says what dimension the embeddings have";
        return Err(TalaError::corrupt(dir.join(MANIFEST_NAME), 0, what));
    };
    let (sources, events) = salvager.finish();
    let merged = Merged::of(events);
    if !lock.is_held() && DirLock::take_shared(dir)?.is_held() {
        return Err(TalaError::Locked { path: dir.path().to_owned() });
    }
    report.dim = dim;
    report.lost_intents = merged.lost_intents();
    report.older_versions = merged.older_versions();
    report.outcomes_without_intent = merged.outcomes_without_intent();
    write_store(to, &merged, &sources, &mut report)?;
    report.add_doubts();
    if let SharedLock::Impossible(error) = lock {
        let what = "nobody can hold such a lock, so nothing kept the store from being read";
        report.doubts.push(format!("{error}; {what}"));
    }
    for path in &listing.set_aside {
        // It was refused once because nothing in it counted, which is for a reader to judge.
        let what = "a log that was set aside when the store was opened; it was not read";
        report.doubts.push(format!("{}: {what}", path.display()));
    }
    Ok(report)
}

/// The MANIFEST, or `None` where what it says has to be found out from the other files.
fn read_manifest(
    dir: &StoreDir,
    listing: &Listing,
    report: &mut RepairReport,
) -> Result<Option<Manifest>, TalaError> {
    let path = dir.join(MANIFEST_NAME);
    let what = match Manifest::load(dir) {
        Ok(Some(manifest)) => return Ok(Some(manifest)),
        Ok(None) => match listing.without_manifest() {
            Unlisted::Nothing => {
                let error = io::Error::new(io::ErrorKind::NotFound, "there is no store here");
                return Err(TalaError::storage(StorageOperation::Open, path, error));
            }
            Unlisted::Legacy => return Ok(None),
            Unlisted::Damaged => "it is missing".to_owned(),
        },
        Err(TalaError::Corrupt { what, .. }) => what,
        // As with every other file.
        Err(TalaError::Storage { source, .. }) if is_unreadable(dir.disk(), &path, &source) => {
            source.to_string()
        }
        Err(error) => return Err(error),
    };
    let until = dir.disk().open(&path).and_then(|file| file.byte_len()).unwrap_or_default();
    let (records, what) = if listing.is_unfinished {
        let what = "a repair into this directory was interrupted; what it had not written yet is in the \
                    store that it read";
        (None, what.to_owned())
    } else {
        (Some(0), format!("{what}; what it said was found out from the other files"))
    };
    report.lost.push(Loss { file: path, from: 0, until, records, what });
    Ok(None)
}

/// Refuses a target that lies in the old directory: making it would write there.
fn check_apart(dir: &Path, to: &Path) -> Result<(), TalaError> {
    let real_dir = dir.canonicalize().map_err(failed(StorageOperation::Open, dir))?;
    let absolute = std::path::absolute(to).map_err(failed(StorageOperation::Open, to))?;
    // The nearest part of the path that is there.
    let nearest = absolute.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    let missing = nearest.as_ref().and_then(|(part, _)| absolute.strip_prefix(part).ok());
    // Where `..` leads can be told of what is there alone.
    if missing.is_some_and(|rest| rest.components().any(|part| part == Component::ParentDir)) {
        let reason = format!("{} leads back out of a directory that is not there", to.display());
        return Err(TalaError::InvalidInput { field: "to", reason });
    }
    if nearest.is_some_and(|(_, real_to)| real_to.starts_with(&real_dir)) {
        let reason = format!("{} lies in {}", to.display(), dir.display());
        return Err(TalaError::InvalidInput { field: "to", reason });
    }
    Ok(())
}

/// Refuses a target that holds something, other than what a repair that failed leaves of itself.
fn check_empty(to: &StoreDir) -> Result<(), TalaError> {
    let refused = failed(StorageOperation::List, to.path());
    match to.disk().kind(to.path()) {
        Ok(EntryKind::Dir) => {}
        Ok(_) => return Err(refused(io::ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
    }
    let unfinished = format!("{UNFINISHED_NAME}.tmp");
    let left = [LOCK_NAME, UNFINISHED_NAME, unfinished.as_str()];
    let names = to.disk().list(to.path()).map_err(refused)?;
    if names.iter().all(|name| left.iter().any(|left| name == left)) {
        return Ok(());
    }
    let reason = format!("{} is not empty", to.path().display());
    Err(TalaError::InvalidInput { field: "to", reason })
}

/// Writes what was salvaged as a store that has never been opened: segments, and then the MANIFEST.
fn write_store(
    to: &StoreDir,
    merged: &Merged,
    sources: &[salvage::Source],
    report: &mut RepairReport,
) -> Result<(), TalaError> {
    ensure_dir(to.disk(), to.path())?;
    settle_dir(to.disk(), to.path())?;
    let _lock = DirLock::take(to)?;
    // While the old store was read, somebody else may have made one here.
    check_empty(to)?;
    // Until the MANIFEST is there, this says that the directory is no empty store.
    write_atomically(to, UNFINISHED_NAME, b"")?;
    let mut manifest = Manifest::new(report.dim as u32);
    let written = write_segments(to, merged, sources, (report, &mut manifest))
        .and_then(|()| manifest.publish(to));
    if written.is_err() {
        clear_away(to, &manifest);
        return written;
    }
    report.segments = manifest.segments.len() as u64;
    // Beside a MANIFEST it says nothing. Where it stays, the first opening removes it.
    let _ = to.disk().remove(&to.join(UNFINISHED_NAME));
    Ok(())
}

fn write_segments(
    to: &StoreDir,
    merged: &Merged,
    sources: &[salvage::Source],
    (report, manifest): (&mut RepairReport, &mut Manifest),
) -> Result<(), TalaError> {
    let mut buffer = HotBuffer::try_new(report.dim, SEGMENT_INTENTS)?;
    let mut bytes = 0;
    for place in merged.in_order() {
        let salvaged = sources.get(place.source).and_then(|source| source.intent(place.at));
        // It was there when it was found.
        let Some((mut intent, missing)) = salvaged else { continue };
        intent.outcome = place.outcome;
        let beneath = place.beneath.and_then(|(source, at)| sources.get(source)?.intent(at));
        if let Some((known, _)) = beneath {
            let Intent { context_hash, parent_ids, confidence, .. } = known;
            intent = Intent { context_hash, parent_ids, confidence, ..intent };
        }
        if !missing.is_empty() {
            report.incomplete.push(IncompleteIntent { id: intent.id, missing });
        }
        bytes += size_of_val(&*intent.embedding) + intent.raw_command.len();
        let vector = Vector::Own(std::mem::take(&mut intent.embedding).into_boxed_slice());
        report.intents += 1;
        buffer.apply(HotOp::Push(Entry::split(intent, SeqNo(report.intents), vector)));
        if buffer.is_full() || bytes >= SEGMENT_BYTES {
            write_buffer(to, manifest, &mut buffer, report.intents)?;
            bytes = 0;
        }
    }
    if !buffer.is_empty() {
        write_buffer(to, manifest, &mut buffer, report.intents)?;
    }
    Ok(())
}

/// Removes what a repair that failed had written, as far as it can be removed; what stays has to be removed
/// by hand before the next try. The sign that it is unfinished stays in any case.
fn clear_away(to: &StoreDir, manifest: &Manifest) {
    let disk = to.disk();
    // The last step may have failed when the MANIFEST had its name. As long as that is there, or may come
    // back, so must be what it lists.
    let is_gone = match disk.remove(&to.join(MANIFEST_NAME)) {
        Ok(()) => sync_dir(disk, to.path()).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !is_gone {
        return;
    }
    // The last of these may have failed when it had its name, too.
    let segments = (1..=manifest.next_segment.0).map(|id| segment_name(SegmentId(id)));
    for name in segments.chain([MANIFEST_NAME.to_owned()]) {
        let _ = disk.remove(&to.join(&name));
        let _ = disk.remove(&to.join(format!("{name}.tmp")));
    }
}

fn write_buffer(
    to: &StoreDir,
    manifest: &mut Manifest,
    buffer: &mut HotBuffer,
    last_seq: u64,
) -> Result<(), TalaError> {
    let covers = (manifest.covered_seq().next(), SeqNo(last_seq));
    let id = manifest.next_segment;
    let full = buffer.take();
    manifest.segments.push(write_segment(
        to,
        &full,
        id,
        covers,
        epoch_ns(),
        &NoArena,
        &LogSyncs::default(),
    )?);
    manifest.next_segment = SegmentId(id.0 + 1);
    manifest.next_seq = covers.1.next();
    manifest.synced_seq = covers.1;
    Ok(())
}

impl RepairReport {
    fn add_doubts(&mut self) {
        if self.lost.iter().any(|loss| loss.records != Some(0)) {
            let what = "writes were lost: an intent that one of them removed is back, and one that \
                        it replaced or gave an outcome is as it was before";
            self.doubts.push(what.to_owned());
        }
    }
}
