//! Segments as files: writing one, checking one against the MANIFEST, and folding all of them into
//! what the store was when the last one was cut.

use tala_core::{Intent, IntentId, Outcome, SegmentId, TalaError};
use tala_wire::{Agreement, Change, SegmentReader};

use super::{HotBuffer, SegmentEntry, segment_name};
use crate::{
    disk::{LogSyncs, Mapping, StoreDir},
    entry::Embeddings,
    files::write_atomically_beside,
    ids::{IdMap, SeqNo},
    mapping::map_file,
};

/// Writes `buffer` as segment `id` of `dir`, durably, beside a log whose syncs these are.
///
/// # Errors
/// The operating system refused, or a limit of the format is exceeded.
pub fn write_segment(
    dir: &StoreDir,
    buffer: &HotBuffer,
    id: SegmentId,
    covers: (SeqNo, SeqNo),
    created_at_ns: u64,
    embeddings: &impl Embeddings,
    syncs: &LogSyncs,
) -> Result<SegmentEntry, TalaError> {
    let name = segment_name(id);
    let bytes = buffer.encode(id, created_at_ns, embeddings)?;
    write_atomically_beside(dir, &name, &bytes, syncs)?;
    let (first_seq, last_seq) = covers;
    let crc = crc32c::crc32c(&bytes);
    Ok(SegmentEntry { id, first_seq, last_seq, bytes: bytes.len() as u64, crc })
}

/// A listed segment, mapped and found to be the one that the MANIFEST lists.
pub struct OpenSegment {
    reader: SegmentReader<Mapping>,
    path: std::path::PathBuf,
}

impl OpenSegment {
    /// Opens a segment of `dir` and checks every byte of it.
    ///
    /// # Errors
    /// The file is missing, damaged, or not the one that is listed.
    pub fn open(dir: &StoreDir, dim: usize, entry: &SegmentEntry) -> Result<Self, TalaError> {
        let path = dir.join(segment_name(entry.id));
        let corrupt = |offset, what: String| Err(TalaError::corrupt(&path, offset, what));
        let Some(map) = map_file(dir.disk(), &path)? else {
            return corrupt(0, "the MANIFEST lists this segment, but the file is missing".into());
        };
        let (bytes, crc) = (map.len() as u64, crc32c::crc32c(&map));
        if bytes != entry.bytes {
            let offset = bytes.min(entry.bytes);
            let what = format!("the file has {bytes} bytes, the MANIFEST says {}", entry.bytes);
            return corrupt(offset, what);
        }
        let reader = SegmentReader::open(map).map_err(|error| error.in_file(&path))?;
        // The segment's own checksums say where the damage is, so they are asked first.
        reader.verify().map_err(|error| error.in_file(&path))?;
        if crc != entry.crc {
            return corrupt(0, "this is not the segment that the MANIFEST lists".into());
        }
        let (found, id) = (reader.dim(), reader.header().segment_id);
        if found != dim || id != entry.id {
            return corrupt(8, format!("it says it is segment {id} of dimension {found}"));
        }
        if let Some((first, last)) = reader.seq_range()
            && (first < entry.first_seq.0 || last > entry.last_seq.0)
        {
            let what = format!("sequence numbers {first} to {last} are not what the MANIFEST says");
            return corrupt(8, what);
        }
        Ok(Self { reader, path })
    }

    /// Compares what is derived in the segment with what it is derived from.
    ///
    /// # Errors
    /// Two places contradict each other.
    pub fn check_agreement(&self) -> Result<Agreement, TalaError> {
        self.reader.check_agreement().map_err(|error| error.in_file(&self.path))
    }

    /// The intent in `row`, and its place in the order of writes.
    ///
    /// # Errors
    /// The segment is damaged there.
    pub fn intent(&self, row: u32) -> Result<(Intent, SeqNo), TalaError> {
        let row = self.reader.row(row).map_err(|error| error.in_file(&self.path))?;
        let seq = SeqNo(row.seq);
        Ok((row.into_intent(), seq))
    }
}

/// Where the latest version of an intent is.
struct Place {
    segment: usize,
    row: u32,
    seq: SeqNo,
    outcome: Option<Outcome>,
}

/// The segments of a store, and which of their rows count.
#[derive(Default)]
pub struct Fold {
    segments: Vec<OpenSegment>,
    places: IdMap<Place>,
}

impl Fold {
    /// Adds the next segment, in order of their sequence ranges.
    pub fn add(&mut self, segment: OpenSegment) {
        let index = self.segments.len();
        // A change speaks of an older segment's row, or of one that a later row of this segment
        // replaced: a row of this segment has taken in what came after it. So changes go first.
        for (_, id, change) in segment.reader.changes() {
            match change {
                Change::Outcome(outcome) => {
                    if let Some(place) = self.places.get_mut(&id) {
                        place.outcome = Some(outcome);
                    }
                }
                Change::Removal => {
                    self.places.remove(&id);
                }
            }
        }
        let reader = &segment.reader;
        for row in 0..reader.len() {
            // `None` is for rows past the end, and there are none here.
            if let (Some(id), Some(seq)) = (reader.id(row), reader.seq(row)) {
                let outcome = reader.outcome(row).flatten();
                self.places.insert(id, Place { segment: index, row, seq: SeqNo(seq), outcome });
            }
        }
        self.segments.push(segment);
    }

    /// How many intents count.
    pub fn intents_count(&self) -> usize {
        self.places.len()
    }

    /// Whether each outcome that the next segment attaches belongs to an intent that is there.
    ///
    /// # Errors
    /// [`TalaError::Corrupt`]: one belongs to none.
    pub fn check_changes(&self, next: &OpenSegment) -> Result<(), TalaError> {
        let mut gone: IdMap<()> = IdMap::default();
        for (seq, id, change) in next.reader.changes() {
            match change {
                Change::Removal => drop(gone.insert(id, ())),
                Change::Outcome(_) => {
                    if gone.contains_key(&id) || !self.places.contains_key(&id) {
                        let what = format!(
                            "change {seq} attaches an outcome to intent {id}, which is not there"
                        );
                        return Err(TalaError::corrupt(&next.path, 0, what));
                    }
                }
            }
        }
        Ok(())
    }

    /// Ids of the intents that count.
    pub fn ids(&self) -> impl Iterator<Item = IntentId> {
        self.places.keys().copied()
    }

    /// The intents that count, whole, in the order in which they were inserted.
    pub fn intents(&self) -> impl Iterator<Item = Result<(Intent, SeqNo), TalaError>> {
        let mut places: Vec<&Place> = self.places.values().collect();
        places.sort_unstable_by_key(|place| place.seq);
        places.into_iter().filter_map(|place| {
            let segment = self.segments.get(place.segment)?;
            Some(segment.intent(place.row).map(|(mut intent, seq)| {
                intent.outcome = place.outcome;
                (intent, seq)
            }))
        })
    }
}
