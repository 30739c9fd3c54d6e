//! What the files of a damaged store say, and what they no longer say.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use tala_core::{Intent, IntentId, SegmentId, StorageOperation, TalaError};
use tala_wire::{Change, Salvage, SegmentReader};

use super::{
    Loss, RepairReport,
    merge::{Event, What},
};
use crate::{
    disk::StoreDir,
    engine::{
        import::check_untouched,
        recover::{LEGACY_LOG, Listing},
    },
    files::{is_unreadable, read_all},
    ids::{FileNumber, SeqNo},
    segment::{Manifest, SegmentEntry, segment_name},
    wal::{
        FoundOp, FoundRecord, Mark, Salvaged, entry_at, intent_at, log_name, salvage_entries,
        salvage_log,
    },
};

/// A file that intents can be read from.
pub enum Source {
    /// A log of ours, by offset.
    Log(Vec<u8>),
    /// A log of another program, by offset.
    Entries(Vec<u8>),
    /// An intact segment, by row.
    Segment(Box<SegmentReader<Vec<u8>>>),
    /// A damaged one, by row.
    Damaged(Box<Salvage<Vec<u8>>>),
}

impl Source {
    /// The intent at a place, and the fields that it lacks. Checksums are compared again.
    pub fn intent(&self, at: usize) -> Option<(Intent, Vec<&'static str>)> {
        let whole = |intent| (intent, Vec::new());
        let row = || u32::try_from(at).ok();
        match self {
            Self::Log(bytes) => intent_at(bytes, at).map(whole),
            Self::Entries(bytes) => entry_at(bytes, at).map(|entry| {
                whole(Intent {
                    id: IntentId::from_bytes(entry.id),
                    timestamp: entry.timestamp,
                    raw_command: entry.raw_command,
                    embedding: entry.embedding,
                    context_hash: 0,
                    parent_ids: Vec::new(),
                    outcome: None,
                    confidence: 1.0,
                })
            }),
            Self::Segment(reader) => reader.row(row()?).ok().map(|row| whole(row.into_intent())),
            Self::Damaged(salvage) => {
                let found = salvage.row(row()?);
                Some((found.intent?, found.missing))
            }
        }
    }
}

/// What is known of a log before it is read.
#[derive(Clone, Copy)]
enum Standing {
    /// The MANIFEST says how far it counts.
    Listed { first: SeqNo, last: SeqNo, len: usize },
    /// It was begun after the MANIFEST was published, or there is none to say.
    Live { first: Option<SeqNo> },
    /// Segments cover it; it stands in where they are damaged.
    Retired,
}

/// A log with what is intact in it.
struct OpenLog {
    path: PathBuf,
    standing: Standing,
    bytes: Vec<u8>,
    found: Salvaged<FoundRecord>,
}

/// Reads the files of a store, and takes down what each says and lacks.
pub struct Salvager<'a> {
    dir: &'a StoreDir,
    listing: &'a Listing,
    manifest: Option<&'a Manifest>,
    report: &'a mut RepairReport,
    sources: Vec<Source>,
    events: Vec<Event>,
    /// Ranges of sequence numbers that an intact segment says everything of.
    settled: Vec<(u64, u64)>,
    /// How many segments, or intents in logs, have each dimension.
    dims: [BTreeMap<usize, u64>; 2],
    /// Segments without anything of ours: of a directory of the original implementation.
    legacy_segments: Vec<(PathBuf, Source)>,
    /// Whether the segment that a directory of the original implementation became is intact.
    is_import_intact: bool,
}

impl<'a> Salvager<'a> {
    pub fn new(
        dir: &'a StoreDir,
        listing: &'a Listing,
        manifest: Option<&'a Manifest>,
        report: &'a mut RepairReport,
    ) -> Self {
        Self {
            dir,
            listing,
            manifest,
            report,
            sources: Vec::new(),
            events: Vec::new(),
            settled: Vec::new(),
            dims: [BTreeMap::new(), BTreeMap::new()],
            legacy_segments: Vec::new(),
            is_import_intact: false,
        }
    }

    /// What was found.
    pub fn finish(self) -> (Vec<Source>, Vec<Event>) {
        (self.sources, self.events)
    }

    /// The dimension of the store: of the MANIFEST, or of most segments, or of most intents.
    pub fn dim(&self) -> Option<usize> {
        let most = |dims: &BTreeMap<usize, u64>| {
            dims.iter().max_by_key(|(_, count)| **count).map(|(dim, _)| *dim)
        };
        let said = self.manifest.map(|manifest| manifest.dim as usize);
        said.or_else(|| self.dims.iter().find_map(most))
    }

    /// Reads every segment: those that the MANIFEST lists in its order, then the others.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn take_segments(&mut self) -> Result<(), TalaError> {
        let listed: &[SegmentEntry] = self.manifest.map_or(&[], |manifest| &manifest.segments);
        for entry in listed {
            self.take_segment(entry.id, Some(entry))?;
        }
        for &id in &self.listing.segments {
            if listed.iter().all(|entry| entry.id != id) {
                self.take_segment(id, None)?;
            }
        }
        Ok(())
    }

    fn take_segment(
        &mut self,
        id: SegmentId,
        entry: Option<&SegmentEntry>,
    ) -> Result<(), TalaError> {
        let path = self.dir.join(segment_name(id));
        let covered = entry.map(|entry| entry.last_seq.0 - entry.first_seq.0 + 1);
        let len = entry.map_or(0, |entry| entry.bytes);
        let Some(bytes) = self.read(&path, entry.map(|_| (len, covered)))? else { return Ok(()) };
        let len = bytes.len() as u64;
        let error = match SegmentReader::open(&bytes[..]).and_then(|reader| reader.verify()) {
            Ok(()) => match SegmentReader::open(bytes) {
                Ok(reader) => {
                    self.take_intact_segment(path, reader, entry);
                    return Ok(());
                }
                // It was opened a moment ago.
                Err(_) => return Ok(()),
            },
            Err(error) => error,
        };
        self.report.segments_read += 1;
        match Salvage::of(bytes, entry.map(|entry| (entry.bytes, entry.crc))) {
            Ok(salvage) => self.take_damaged_segment(path, salvage, entry, &error.to_string()),
            Err(error) => self.lose(&path, 0..len, covered, error.to_string()),
        }
        Ok(())
    }

    fn take_intact_segment(
        &mut self,
        path: PathBuf,
        reader: SegmentReader<Vec<u8>>,
        entry: Option<&SegmentEntry>,
    ) {
        self.report.segments_read += 1;
        if reader.is_legacy() && entry.is_none() {
            self.legacy_segments.push((path, Source::Segment(Box::new(reader))));
            return;
        }
        let bytes = reader.bytes();
        let is_listed_one = entry.is_none_or(|entry| {
            (entry.bytes, entry.crc) == (bytes.len() as u64, crc32c::crc32c(bytes))
        });
        if !is_listed_one {
            let what = "the segment is intact, but not the one that the MANIFEST lists; what it \
                        holds was taken as if it were";
            self.lose(&path, 0..bytes.len() as u64, None, what.to_owned());
        }
        let own = reader.seq_range();
        let covers = match entry {
            Some(entry) if is_listed_one => Some((entry.first_seq.0, entry.last_seq.0)),
            // Nothing is known of the numbers before the first and after the last.
            _ => own,
        };
        let cut = covers.map_or(0, |(_, last)| last);
        let source = self.sources.len();
        // What a listed segment covers, another file need not be believed for.
        let is_foreign = entry.is_none() && self.manifest.is_some();
        for row in 0..reader.len() {
            let (Some(id), Some(seq)) = (reader.id(row), reader.seq(row)) else { continue };
            if is_foreign && self.is_settled(seq) {
                continue;
            }
            let outcome = reader.outcome(row).flatten();
            let spot = (source, row as usize);
            let put = What::Put { spot, outcome: None, is_whole: true, is_bare: false };
            self.events.push(Event { seq, id, what: put });
            let what = What::Settled { put_seq: seq, outcome };
            self.events.push(Event { seq: cut.max(seq), id, what });
        }
        for (seq, id, change) in reader.changes() {
            if !(is_foreign && self.is_settled(seq)) {
                self.events.push(Event { seq, id, what: what_of(change) });
            }
        }
        if is_listed_one {
            self.settled.extend(covers);
        }
        self.is_import_intact |= is_listed_one && covers.is_some_and(|(first, _)| first == 1);
        *self.dims[0].entry(reader.dim()).or_default() += 1;
        self.sources.push(Source::Segment(Box::new(reader)));
    }

    fn take_damaged_segment(
        &mut self,
        path: PathBuf,
        salvage: Salvage<Vec<u8>>,
        entry: Option<&SegmentEntry>,
        error: &str,
    ) {
        if salvage.is_legacy() && entry.is_none() {
            let rows = salvage.rows().filter(|row| row.intent.is_some()).count() as u64;
            let lost = u64::from(salvage.header().node_count).saturating_sub(rows);
            let what = format!("{error}; a segment of another program has no checksums");
            self.lose(&path, 0..u64::MAX, Some(lost), what);
            self.legacy_segments.push((path, Source::Damaged(Box::new(salvage))));
            return;
        }
        let source = self.sources.len();
        // Numbers that cannot be read count as the last of the segment: its rows are the last
        // versions of their intents in it.
        let before = self.events.iter().map(|event| event.seq).max().unwrap_or_default();
        let known = salvage.rows().filter_map(|row| row.seq).max();
        let cut = entry.map_or(known.unwrap_or(before), |entry| entry.last_seq.0);
        let mut whole_rows = 0;
        for row in salvage.rows() {
            let Some(id) = row.id else { continue };
            let seq = row.seq.unwrap_or(cut);
            let is_whole = row.missing.is_empty();
            let Some(intent) = row.intent else {
                self.events.push(Event { seq, id, what: What::Unreadable });
                continue;
            };
            whole_rows += u64::from(is_whole);
            let spot = (source, row.row as usize);
            let put = What::Put { spot, outcome: None, is_whole, is_bare: false };
            self.events.push(Event { seq, id, what: put });
            if !row.missing.contains(&"outcome") {
                let what = What::Settled { put_seq: seq, outcome: intent.outcome };
                self.events.push(Event { seq: cut.max(seq), id, what });
            }
        }
        let mut changes = 0;
        for (seq, id, change) in salvage.changes() {
            changes += 1;
            self.events.push(Event { seq, id, what: what_of(change) });
        }
        let rows_lost = u64::from(salvage.header().node_count).saturating_sub(whole_rows);
        let changes_lost = salvage.changes_count().map(|count| count.saturating_sub(changes));
        let mut lost = changes_lost.map(|changes| changes + rows_lost);
        let damaged = salvage.damaged();
        if damaged.is_empty() {
            let footer = salvage.header().footer_offset;
            self.lose(&path, footer..u64::MAX, lost, error.to_owned());
        }
        for range in damaged {
            let what = format!("bytes {}..{} do not match their checksum", range.start, range.end);
            // The first range stands for the whole file.
            let what = if lost == Some(0) { what } else { format!("{what}: {error}") };
            self.lose(&path, range, lost, what);
            lost = Some(0);
        }
        *self.dims[0].entry(salvage.header().dim as usize).or_default() += 1;
        self.sources.push(Source::Damaged(Box::new(salvage)));
    }

    /// Reads every log of ours.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn take_logs(&mut self) -> Result<(), TalaError> {
        let mut logs = Vec::new();
        if let Some(manifest) = self.manifest {
            for entry in &manifest.logs {
                if !self.listing.logs.contains(&entry.number) {
                    let count = entry.last_seq.next().0 - entry.first_seq.0;
                    let what = "the MANIFEST lists this log, but the file is missing".to_owned();
                    let path = self.dir.join(log_name(entry.number));
                    self.lose(&path, 0..entry.accepted_len, Some(count), what);
                }
            }
            let first = manifest.next_log;
            if first > FileNumber(0) && !self.listing.logs.contains(&first) {
                let count = (manifest.synced_seq.next().0).saturating_sub(manifest.next_seq.0);
                let what = "the MANIFEST says that this log was begun, but the file is missing";
                let count = Some(count).filter(|count| *count > 0);
                self.lose(&self.dir.join(log_name(first)), 0..0, count, what.to_owned());
            }
        }
        for &number in &self.listing.logs {
            let path = self.dir.join(log_name(number));
            let Some(bytes) = self.read(&path, Some((0, None)))? else { continue };
            self.report.logs_read += 1;
            let standing = self.standing(number, bytes.len());
            let found = salvage_log(&bytes, number);
            logs.push((number, OpenLog { path, standing, bytes, found }));
        }
        let said = self.manifest.map_or(0, |manifest| manifest.synced_seq.0);
        let firsts: Vec<(FileNumber, u64)> = logs
            .iter()
            .filter_map(|(number, log)| Some((*number, log.found.records.first()?.seq.0)))
            .collect();
        let synced =
            logs.iter().flat_map(|(_, log)| &log.found.records).map(|record| record.synced.0);
        let proven = synced.max().unwrap_or_default().max(said);
        for (number, mut log) in logs {
            // What its records say was synced was there whenever a later log of this store was begun.
            let own_proof =
                log.found.records.iter().map(|it| it.synced.0).max().unwrap_or_default();
            let (strays, later): (Vec<_>, Vec<_>) =
                firsts.iter().filter(|(it, _)| *it > number).partition(|it| it.1 <= own_proof);
            for (stray, first) in strays {
                let what = format!(
                    "{}: it begins with number {first}, but log {number} says that {own_proof} had \
                     been synced before; one of the two is of another store, and both were read",
                    self.dir.join(log_name(stray)).display()
                );
                self.report.doubts.push(what);
            }
            let later = later.iter().map(|(_, first)| *first).min();
            self.keep_what_counts(&mut log, later);
            self.note_losses(&log, later, proven);
            if let Some(FoundRecord { op: FoundOp::Mark(Mark::Rotated { next }), .. }) =
                log.found.records.last()
                && matches!(log.standing, Standing::Live { .. })
                && self.listing.logs.iter().all(|other| other <= &number)
                && !self.is_settled(log.found.records.last().map_or(0, |record| record.seq.0))
            {
                let what = format!("log {number} goes on in this file, but it is missing");
                self.lose(&self.dir.join(log_name(*next)), 0..0, None, what);
            }
            self.take_log(log, later.is_some(), proven);
        }
        Ok(())
    }

    fn standing(&self, number: FileNumber, file_len: usize) -> Standing {
        let Some(manifest) = self.manifest else { return Standing::Live { first: None } };
        if let Some(entry) = manifest.log(number) {
            let len = usize::try_from(entry.accepted_len).unwrap_or(file_len);
            return Standing::Listed { first: entry.first_seq, last: entry.last_seq, len };
        }
        match number.cmp(&manifest.next_log) {
            std::cmp::Ordering::Less => Standing::Retired,
            std::cmp::Ordering::Equal => Standing::Live { first: Some(manifest.next_seq) },
            std::cmp::Ordering::Greater => Standing::Live { first: None },
        }
    }

    /// Leaves out what never counted: what the MANIFEST cut off, and what stands after the place from
    /// where a later log went on with the same numbers.
    fn keep_what_counts(&mut self, log: &mut OpenLog, later: Option<u64>) {
        let covered = self.manifest.map_or(0, |manifest| manifest.covered_seq().0);
        let known_first = match log.standing {
            Standing::Listed { first, .. } | Standing::Live { first: Some(first) } => first.0,
            Standing::Live { first: None } | Standing::Retired => 0,
        };
        let standing = log.standing;
        let mut repeated = 0_u64;
        log.found.records.retain(|record| {
            let seq = record.seq.0;
            let is_repeated = later.is_some_and(|later| seq >= later);
            let counts = match standing {
                Standing::Listed { last, len, .. } => record.at < len && seq <= last.0,
                Standing::Live { .. } => !is_repeated,
                Standing::Retired => seq <= covered && !is_repeated,
            };
            let is_live = matches!(standing, Standing::Live { .. });
            repeated += u64::from(is_live && is_repeated && seq >= known_first);
            counts && seq >= known_first
        });
        if let Some(later) = later
            && repeated > 0
        {
            let what = format!(
                "{}: {repeated} records stand from number {later} on, where a later log goes on; \
                 nobody can have been told of them, and they were left out",
                log.path.display()
            );
            self.report.doubts.push(what);
        }
        if let Standing::Listed { len, .. } = standing {
            let there = log.bytes.len();
            log.found.bad.retain(|bad| bad.start < len);
            if let Some(last) = log.found.bad.last_mut() {
                last.end = last.end.min(len);
            }
            // Zeros at the end are room in a log that goes on, and damage in one that counts so far.
            let end = log.found.bad.last().map_or(0, |bad| bad.end);
            let last_record = log.found.records.last().map_or(0, |record| record.at);
            if there < len && end < there.max(last_record) {
                log.found.bad.push(there..len);
            }
        }
    }

    /// Takes down what lies between the records that count.
    fn note_losses(&mut self, log: &OpenLog, later: Option<u64>, proven: u64) {
        let records = &log.found.records;
        let (first, last) = match log.standing {
            Standing::Listed { first, last, .. } => (Some(first.0), Some(last.0)),
            Standing::Live { first } => (first.map(|first| first.0), later.map(|seq| seq - 1)),
            Standing::Retired => return,
        };
        let is_last = later.is_none() && matches!(log.standing, Standing::Live { .. });
        // Without a log after it, only what is proven to have been synced is known to have been there.
        let last = last.or((is_last && proven > 0).then_some(proven));
        let ends_marked =
            records.last().is_some_and(|record| matches!(record.op, FoundOp::Mark(_)));
        let before = |at: usize| {
            let earlier = records.partition_point(|record| record.at < at).checked_sub(1);
            earlier
                .and_then(|index| records.get(index))
                .map(|record| record.seq.0)
                .or(first.map(|first| first.saturating_sub(1)))
        };
        let mut told = false;
        for bad in &log.found.bad {
            let after = records.get(records.partition_point(|record| record.at < bad.end));
            let until = after.map(|record| record.seq.0).or(last.map(|last| last + 1));
            let count = until
                .zip(before(bad.start))
                .map(|(until, before)| until.saturating_sub(before).saturating_sub(1));
            let is_torn = is_last && after.is_none() && !ends_marked && count.unwrap_or(0) == 0;
            let range = bad.start as u64..bad.end as u64;
            if is_torn {
                let what = format!(
                    "{}: bytes {}..{} are no whole record; nothing says whether they were a write \
                     that nobody had been told of",
                    log.path.display(),
                    range.start,
                    range.end
                );
                self.report.doubts.push(what);
                continue;
            }
            told |= after.is_none();
            let what = match count {
                Some(0) if ends_marked && after.is_none() => "bytes follow the mark that ended it",
                _ => "no intact record is there",
            };
            self.lose(&log.path, range, count, what.to_owned());
        }
        // Gone without a trace at the end.
        let end =
            records.last().map(|record| record.seq.0).or(first.map(|it| it.saturating_sub(1)));
        if let (Some(end), Some(last)) = (end, last)
            && end < last
            && !told
            && !ends_marked
            && !self.is_settled(last)
        {
            let at = log.bytes.len() as u64;
            let what = "records that were synced are missing at its end".to_owned();
            self.lose(&log.path, at..at, Some(last - end), what);
        }
        if let Some(at) = log.found.given_up_at {
            let what = "too many places look like records to look at all of them".to_owned();
            self.lose(&log.path, at as u64..log.bytes.len() as u64, None, what);
        }
    }

    fn take_log(&mut self, log: OpenLog, has_later: bool, proven: u64) {
        let OpenLog { path, standing, bytes, found } = log;
        let source = self.sources.len();
        let mut batches: BTreeMap<u64, u32> = BTreeMap::new();
        let batch_of =
            |record: &FoundRecord| record.seq.0.saturating_sub(record.place.index.into());
        for record in found.records.iter().filter(|record| record.place.len > 1) {
            *batches.entry(batch_of(record)).or_default() += 1;
        }
        let first_bad = found.bad.first().map_or(usize::MAX, |bad| bad.start);
        let (mut partial, mut unproven) = (Vec::new(), 0_u64);
        for record in &found.records {
            let seq = record.seq.0;
            if self.is_settled(seq) {
                continue;
            }
            let is_told = has_later || !matches!(standing, Standing::Live { .. }) || seq <= proven;
            let batch = batch_of(record);
            if batches.get(&batch).is_some_and(|there| *there < record.place.len) {
                // Nobody was told of a batch of which nothing is proven, and it is not there in part.
                if !is_told && batch > proven {
                    if partial.last() != Some(&batch) {
                        let what = format!(
                            "{}: a batch of {} records from number {batch} on is there in part, and \
                             nothing says that anybody had been told of it; it was left out",
                            path.display(),
                            record.place.len
                        );
                        self.report.doubts.push(what);
                        partial.push(batch);
                    }
                    continue;
                }
                if partial.last() != Some(&batch) {
                    self.report.partial_batches += 1;
                    partial.push(batch);
                }
            } else if !is_told && record.at > first_bad {
                unproven += 1;
            }
            let (id, what) = match record.op {
                FoundOp::Insert { id, dim, outcome } => {
                    *self.dims[1].entry(dim).or_default() += 1;
                    let spot = (source, record.at);
                    (id, What::Put { spot, outcome, is_whole: true, is_bare: false })
                }
                FoundOp::Outcome(id, outcome) => (id, What::Outcome(outcome)),
                FoundOp::Removal(id) => (id, What::Removal),
                FoundOp::Mark(_) => continue,
            };
            self.events.push(Event { seq, id, what });
        }
        if unproven > 0 {
            let what = format!(
                "{}: {unproven} records stand after a bad place, and nothing says whether they had \
                 been made durable; they are in the new store",
                path.display()
            );
            self.report.doubts.push(what);
        }
        self.sources.push(Source::Log(bytes));
    }

    /// Reads what a directory of the original implementation holds, unless the segment that it became
    /// is intact.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn take_legacy(&mut self) -> Result<(), TalaError> {
        let imported = self.manifest.and_then(|manifest| manifest.legacy.as_ref());
        if let Some(entry) = imported {
            match check_untouched(self.dir, entry) {
                Ok(()) => {}
                Err(TalaError::Corrupt { file, offset, what }) => {
                    self.lose(&file, offset..entry.bytes.max(offset), Some(0), what);
                }
                Err(error) => return Err(error),
            }
        }
        // A store of ours that never imported anything does not begin to when it is repaired.
        let has_none = self.manifest.is_some_and(|manifest| manifest.legacy.is_none());
        if has_none || self.is_import_intact {
            return Ok(());
        }
        let had_segments = !self.legacy_segments.is_empty();
        // Older than every number, in the order in which they are imported.
        for (_, source) in std::mem::take(&mut self.legacy_segments) {
            let index = self.sources.len();
            let rows: Vec<(usize, IntentId, What)> = match &source {
                Source::Segment(reader) => {
                    *self.dims[0].entry(reader.dim()).or_default() += 1;
                    (0..reader.len())
                        .filter_map(|row| {
                            let outcome = reader.outcome(row)?;
                            let spot = (index, row as usize);
                            let put = What::Put { spot, outcome, is_whole: true, is_bare: false };
                            Some((row as usize, reader.id(row)?, put))
                        })
                        .collect()
                }
                Source::Damaged(salvage) => {
                    *self.dims[0].entry(salvage.header().dim as usize).or_default() += 1;
                    salvage
                        .rows()
                        .filter_map(|row| {
                            let spot = (index, row.row as usize);
                            let outcome = row.intent?.outcome;
                            let is_whole = row.missing.is_empty();
                            let put = What::Put { spot, outcome, is_whole, is_bare: false };
                            Some((row.row as usize, row.id?, put))
                        })
                        .collect()
                }
                Source::Log(_) | Source::Entries(_) => Vec::new(),
            };
            self.events.extend(rows.into_iter().map(|(_, id, what)| Event { seq: 0, id, what }));
            self.sources.push(source);
        }
        let path = self.dir.join(LEGACY_LOG);
        if !self.listing.has_legacy_log {
            // Where there is a MANIFEST, the loss is told by now.
            if self.manifest.is_none() && had_segments {
                self.lose(&path, 0..0, None, "the file is missing".to_owned());
            }
            return Ok(());
        }
        let Some(bytes) = self.read(&path, Some((0, None)))? else { return Ok(()) };
        self.report.logs_read += 1;
        let found = salvage_entries(&bytes);
        let source = self.sources.len();
        for entry in &found.records {
            let spot = (source, entry.at);
            let what = What::Put { spot, outcome: None, is_whole: true, is_bare: true };
            self.events.push(Event { seq: 0, id: entry.id, what });
            *self.dims[1].entry(entry.dim).or_default() += 1;
        }
        for bad in found.bad {
            let range = bad.start as u64..bad.end as u64;
            if bad.end == bytes.len() {
                let what = format!(
                    "{}: bytes {}..{} are no whole record; nothing says whether there was one",
                    path.display(),
                    bad.start,
                    bad.end
                );
                self.report.doubts.push(what);
            } else {
                self.lose(&path, range, None, "no intact record is there".to_owned());
            }
        }
        if let Some(at) = found.given_up_at {
            let what = "too many places look like records to look at all of them".to_owned();
            self.lose(&path, at as u64..bytes.len() as u64, None, what);
        }
        self.sources.push(Source::Entries(bytes));
        Ok(())
    }

    fn is_settled(&self, seq: u64) -> bool {
        self.settled.iter().any(|(first, last)| (*first..=*last).contains(&seq))
    }

    /// The bytes of a file; `None`, and a loss of `expected` bytes and records, where it is missing or
    /// the device cannot read it.
    fn read(
        &mut self,
        path: &Path,
        expected: Option<(u64, Option<u64>)>,
    ) -> Result<Option<Vec<u8>>, TalaError> {
        let error = match read_all(self.dir.disk(), path) {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) => error,
        };
        let what = match error.kind() {
            std::io::ErrorKind::NotFound => "the file is missing".to_owned(),
            _ if is_unreadable(self.dir.disk(), path, &error) => error.to_string(),
            _ => return Err(TalaError::storage(StorageOperation::Read, path, error)),
        };
        let (len, records) = expected.unwrap_or_default();
        self.lose(path, 0..len, records, what);
        Ok(None)
    }

    fn lose(&mut self, path: &Path, bytes: Range<u64>, records: Option<u64>, what: String) {
        let file_len = || {
            let file = self.dir.disk().open(path).and_then(|file| file.byte_len());
            file.unwrap_or(bytes.start)
        };
        let until = if bytes.end == u64::MAX { file_len().max(bytes.start) } else { bytes.end };
        let file = path.to_owned();
        self.report.lost.push(Loss { file, from: bytes.start, until, records, what });
    }
}

fn what_of(change: Change) -> What {
    match change {
        Change::Outcome(outcome) => What::Outcome(outcome),
        Change::Removal => What::Removal,
    }
}
