//! Directories of the original implementation: `current.wal`, possibly segments, no MANIFEST.
//!
//! They are read once, into one of our segments; the old files stay as they are. The segments are
//! read first and the log after them, since the log has the commands.

use std::io::ErrorKind;

use tala_core::{Intent, IntentId, SegmentId, StorageOperation, TalaError};
use tala_wire::SegmentReader;

use super::recover::{LEGACY_LOG, Listing, Recovered, RecoveryWarning};
use crate::{
    disk::{LogSyncs, StoreDir},
    files::{read_all, read_whole},
    ids::SeqNo,
    mapping::map_file,
    segment::{LegacyEntry, Manifest, epoch_ns, segment_name, write_segment},
    wal::{WalEntry, read_entries},
};

/// Takes in what the directory holds, and publishes a segment and a MANIFEST of it.
///
/// # Errors
/// A file is damaged, no embedding has dimension `dim`, or the operating system refused; the
/// directory is then as it was, but for a segment file that nothing lists.
pub fn import(
    dir: &StoreDir,
    dim: usize,
    listing: &Listing,
    recovered: &mut Recovered,
) -> Result<Manifest, TalaError> {
    let legacy_log = take_in(dir, dim, listing, recovered)?;
    publish(dir, dim, listing, &legacy_log, recovered)
}

/// Takes in what the directory holds, and changes nothing. Returns the bytes of its log.
///
/// # Errors
/// A file is damaged, no embedding has dimension `dim`, or the operating system refused.
pub fn take_in(
    dir: &StoreDir,
    dim: usize,
    listing: &Listing,
    recovered: &mut Recovered,
) -> Result<Vec<u8>, TalaError> {
    let mut has_segments = false;
    for &id in &listing.segments {
        has_segments |= add_segment(dir, dim, id, recovered)?;
    }
    let path = dir.join(LEGACY_LOG);
    let bytes = read_whole(dir.disk(), &path)?;
    let log = read_entries(&bytes).map_err(|damage| damage.into_error(&path))?;
    if let Some(offset) = log.torn_at {
        let bytes = (bytes.len() as u64).saturating_sub(offset);
        let warning = RecoveryWarning::TornTail { file: path, offset, bytes };
        recovered.report.warnings.push(warning);
    }
    // Segments of another dimension were refused already.
    if !has_segments {
        check_dim(&log.entries, dim)?;
    }
    for entry in log.entries {
        let intent = with_what_segments_know(recovered, entry);
        add_intent(recovered, intent)?;
        recovered.report.from_logs += 1;
    }
    let not_searchable = recovered.index_map.rows.values().filter(|row| row.is_none()).count();
    if not_searchable > 0 {
        let warning = RecoveryWarning::NotSearchable { intents: not_searchable as u64 };
        recovered.report.warnings.push(warning);
    }
    Ok(bytes)
}

/// Whether the legacy log is still as it was imported.
///
/// # Errors
/// [`TalaError::Corrupt`] where it is not, or is missing; the operating system refused.
pub fn check_untouched(dir: &StoreDir, entry: &LegacyEntry) -> Result<(), TalaError> {
    let path = dir.join(LEGACY_LOG);
    let bytes = match read_all(dir.disk(), &path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let what = "the MANIFEST says that it was imported, but the file is missing";
            return Err(TalaError::corrupt(path, 0, what));
        }
        Err(error) => return Err(TalaError::storage(StorageOperation::Read, path, error)),
    };
    if bytes.len() as u64 == entry.bytes && crc32c::crc32c(&bytes) == entry.crc {
        return Ok(());
    }
    let offset = entry.bytes.min(bytes.len() as u64);
    let what = "it changed after it had been imported; another program still writes to it";
    Err(TalaError::corrupt(path, offset, what))
}

/// Dimension of the embeddings in a legacy directory, as its segments or else its log have it;
/// `None` where there is no embedding.
///
/// # Errors
/// A file cannot be read or is damaged.
pub fn legacy_dim(dir: &StoreDir, listing: &Listing) -> Result<Option<usize>, TalaError> {
    for &id in &listing.segments {
        let path = dir.join(segment_name(id));
        if let Some(map) = map_file(dir.disk(), &path)? {
            let reader = SegmentReader::open(map).map_err(|error| error.in_file(&path))?;
            if reader.is_legacy() {
                return Ok(Some(reader.dim()));
            }
        }
    }
    let path = dir.join(LEGACY_LOG);
    let log =
        read_entries(&read_whole(dir.disk(), &path)?).map_err(|damage| damage.into_error(&path))?;
    Ok(embedding_lens(&log.entries).next())
}

/// Refuses a dimension that no embedding has: it is a mistake, and an import is for good.
fn check_dim(entries: &[WalEntry], dim: usize) -> Result<(), TalaError> {
    let mut lens = embedding_lens(entries);
    match lens.next() {
        Some(expected) if expected != dim && lens.all(|len| len != dim) => {
            Err(TalaError::DimensionMismatch { expected, got: dim })
        }
        _ => Ok(()),
    }
}

/// Dimensions of the embeddings in a legacy log, as they come; an empty one is none.
fn embedding_lens(entries: &[WalEntry]) -> impl Iterator<Item = usize> {
    entries.iter().map(|entry| entry.embedding.len()).filter(|len| *len > 0)
}

/// Takes in a segment of the original; `false` where this is none.
fn add_segment(
    dir: &StoreDir,
    dim: usize,
    id: SegmentId,
    recovered: &mut Recovered,
) -> Result<bool, TalaError> {
    let path = dir.join(segment_name(id));
    let Some(map) = map_file(dir.disk(), &path)? else { return Ok(false) };
    let reader = SegmentReader::open(map).map_err(|error| error.in_file(&path))?;
    if !reader.is_legacy() {
        // Left over from an import that was interrupted before its MANIFEST was published.
        return Ok(false);
    }
    if reader.dim() != dim {
        return Err(TalaError::DimensionMismatch { expected: reader.dim(), got: dim });
    }
    for row in reader.rows() {
        let intent = row.map_err(|error| error.in_file(&path))?.into_intent();
        add_intent(recovered, intent)?;
        recovered.report.from_segments += 1;
    }
    Ok(true)
}

fn add_intent(recovered: &mut Recovered, intent: Intent) -> Result<(), TalaError> {
    let seq = recovered.last_seq.next();
    let op = recovered.insert(intent, seq)?;
    recovered.hot.apply(op);
    recovered.last_seq = seq;
    Ok(())
}

/// The log has the command; what else is known of the intent, only a segment may have.
fn with_what_segments_know(recovered: &Recovered, entry: WalEntry) -> Intent {
    let id = IntentId::from_bytes(entry.id);
    let known = recovered.intents.get(&id);
    Intent {
        id,
        timestamp: entry.timestamp,
        raw_command: entry.raw_command,
        embedding: entry.embedding,
        context_hash: known.map_or(0, |known| known.body.context_hash),
        parent_ids: known.map_or_else(Vec::new, |known| known.body.parent_ids.to_vec()),
        outcome: None,
        confidence: known.map_or(1.0, |known| known.body.confidence),
    }
}

fn publish(
    dir: &StoreDir,
    dim: usize,
    listing: &Listing,
    legacy_log: &[u8],
    recovered: &mut Recovered,
) -> Result<Manifest, TalaError> {
    let mut manifest = Manifest::new(dim as u32);
    let id = SegmentId(listing.segments.last().map_or(0, |id| id.0) + 1);
    // A segment covers at least one sequence number, so an empty import takes one as well.
    recovered.last_seq = recovered.last_seq.max(SeqNo::FIRST);
    let covers = (SeqNo::FIRST, recovered.last_seq);
    let buffer = recovered.hot.take();
    let arena = recovered.arena.arena();
    manifest.segments.push(write_segment(
        dir,
        &buffer,
        id,
        covers,
        epoch_ns(),
        &**arena,
        &LogSyncs::default(),
    )?);
    manifest.next_segment = SegmentId(id.0 + 1);
    manifest.next_seq = recovered.last_seq.next();
    manifest.synced_seq = recovered.last_seq;
    manifest.legacy =
        Some(LegacyEntry { bytes: legacy_log.len() as u64, crc: crc32c::crc32c(legacy_log) });
    manifest.publish(dir)?;
    Ok(manifest)
}
