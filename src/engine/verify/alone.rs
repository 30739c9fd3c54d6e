//! Checking files of which no MANIFEST says what they should be: each by what it says itself.

use std::collections::HashSet;

use tala_core::{IntentId, SegmentId, TalaError};
use tala_wire::{Agreement, SegmentReader};

use super::VerifyReport;
use crate::{
    bytes::all_zero,
    disk::StoreDir,
    engine::recover::{JudgedLog, LEGACY_LOG, Listing},
    files::read_whole,
    ids::FileNumber,
    mapping::map_file,
    segment::segment_name,
    wal::{FoundOp, log_name, read_entries, salvage_log},
};

/// What an intact segment says of itself.
struct AloneSegment {
    dim: usize,
    bytes: u64,
    agreed: Agreement,
}

impl VerifyReport {
    /// Checks every segment and log alone.
    pub(super) fn check_alone(
        &mut self,
        dir: &StoreDir,
        listing: &Listing,
    ) -> Result<(), TalaError> {
        for &id in &listing.segments {
            if let Some(segment) = self.note(dir, check_segment(dir, id))? {
                self.dim = if self.dim == 0 { segment.dim } else { self.dim };
                self.segments += 1;
                self.segment_bytes += segment.bytes;
                self.blocks += segment.agreed.blocks;
                self.rows += segment.agreed.rows;
                self.edges += segment.agreed.edges;
                self.changes += segment.agreed.changes;
            }
        }
        let mut ids = HashSet::new();
        for &number in &listing.logs {
            let checked = self.check_log_alone(dir, number, &mut ids);
            self.note(dir, checked)?;
        }
        if listing.has_legacy_log {
            let path = dir.join(LEGACY_LOG);
            let read = read_whole(dir.disk(), &path).and_then(|bytes| {
                read_entries(&bytes).map(drop).map_err(|damage| damage.into_error(&path))
            });
            self.note(dir, read)?;
        }
        let Self { segments, blocks, rows, logs, records, .. } = self;
        self.checked = vec![
            format!(
                "{segments} segments, each alone: checksum of the whole and of {blocks} blocks; {rows} \
                 rows by bloom filter, id, time and sequence number"
            ),
            format!(
                "{logs} logs, each alone: checksum, place and sequence number of {records} records, and \
                 what later records of the same log prove"
            ),
        ];
        let what = "which of these files count, whether others are missing, whether they fit together \
                    and how many intents there are, as only an intact MANIFEST says so";
        self.unchecked.push(what.to_owned());
        Ok(())
    }

    fn check_log_alone(
        &mut self,
        dir: &StoreDir,
        number: FileNumber,
        ids: &mut HashSet<IntentId>,
    ) -> Result<(), TalaError> {
        let path = dir.join(log_name(number));
        let bytes = read_whole(dir.disk(), &path)?;
        let found = salvage_log(&bytes, number);
        let Some(first) = found.records.first() else {
            if !all_zero(&bytes) {
                let (path, len) = (path.display(), bytes.len());
                self.warnings.push(format!("{path}: no whole write is in its {len} bytes"));
            }
            return Ok(());
        };
        if let Some(bad) = found.bad.first().filter(|bad| bad.end <= first.at) {
            let bytes = format!("no intact record is in bytes {}..{}", bad.start, bad.end);
            let synced = found.records.iter().map(|record| record.synced).max();
            if synced >= Some(first.seq.previous()) {
                let what = format!("{bytes}; a later record proves that there was one");
                return Err(TalaError::corrupt(&path, bad.start as u64, what));
            }
            self.warnings.push(format!("{}: {bytes}, and no record proves one", path.display()));
            return Ok(());
        }
        let first_seq = first.seq;
        let dims = found.records.iter().filter_map(|record| match record.op {
            FoundOp::Insert { dim, .. } => Some(dim),
            _ => None,
        });
        if self.dim == 0 {
            self.dim = dims.take(1).sum();
        }
        let log = JudgedLog::alone(dir, bytes, number, first_seq)?;
        self.check_log(&log, ids)
    }
}

/// Checks every byte of a segment.
///
/// # Errors
/// It is damaged, or the operating system refused.
fn check_segment(dir: &StoreDir, id: SegmentId) -> Result<AloneSegment, TalaError> {
    let path = dir.join(segment_name(id));
    let Some(map) = map_file(dir.disk(), &path)? else {
        // It was listed a moment ago.
        return Err(TalaError::corrupt(path, 0, "the file is missing"));
    };
    let bytes = map.len() as u64;
    let check = || {
        let reader = SegmentReader::open(map)?;
        reader.verify()?;
        // Those of the original implementation derive nothing that could be compared.
        let agreed =
            if reader.is_legacy() { Agreement::default() } else { reader.check_agreement()? };
        Ok(AloneSegment { dim: reader.dim(), bytes, agreed })
    };
    check().map_err(|error: tala_wire::WireError| error.in_file(&path))
}
