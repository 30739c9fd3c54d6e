//! Histograms as files that other programs read: interval logs and percentile texts, both of the
//! formats of HdrHistogram. Times are in nanoseconds in the first and in microseconds in the second.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, Tag},
    },
};
use tala_core::{StorageOperation, TalaError};

use super::{HistogramsSnapshot, Instruments};
use crate::{
    disk::{Disk, RealDisk, StoreDir},
    files::{failed, write_atomically},
};

/// What the readers of interval logs expect above the intervals.
const LEGEND: &str =
    "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";
/// How many points of a percentile text halve the distance to 100%.
const TICKS_PER_HALF: u32 = 5;
const NS_PER_US: f64 = 1_000.0;

/// The latency histograms of an engine: a handle that stays valid after the engine has ended.
///
/// Reading them never holds up who records, and takes some milliseconds.
///
/// ```
/// # use tala_core::{IntentId, IntentStore};
/// # use tala_store::{StorageEngine, Timing};
/// # let engine = StorageEngine::in_memory(8, 1000);
/// engine.get(IntentId::random())?;
/// let snapshot = engine.histograms().snapshot();
/// let gets = snapshot.get(Timing::Get);
/// assert_eq!(gets.len(), 1);
/// println!("p99: {} ns", gets.value_at_quantile(0.99));
/// # Ok::<(), tala_core::TalaError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Histograms {
    instruments: Arc<Instruments>,
}

impl Histograms {
    pub(crate) fn of(instruments: &Arc<Instruments>) -> Self {
        Self { instruments: Arc::clone(instruments) }
    }

    /// What was recorded since the engine was opened. Where histograms are switched off
    /// ([`EngineOptions::histograms`](crate::EngineOptions::histograms)), all are empty.
    #[must_use]
    pub fn snapshot(&self) -> HistogramsSnapshot {
        self.instruments.histograms()
    }

    /// Why the reporter ([`EngineOptions::report_histograms`](crate::EngineOptions::report_histograms))
    /// could not write when it last tried; `None` where it could, or has not tried yet.
    #[must_use]
    pub fn report_error(&self) -> Option<Arc<TalaError>> {
        self.instruments.report_error.lock().clone()
    }

    /// Writes everything recorded since the engine was opened into the file `path`, in place of what
    /// it held, as one interval of an HdrHistogram interval log (V2, deflated) with one tag for each
    /// [`Timing`](crate::Timing). For one interval after the other in one file see
    /// [`EngineOptions::report_histograms`](crate::EngineOptions::report_histograms).
    ///
    /// # Errors
    /// [`TalaError::Storage`]: what the operating system refused. The file is as before then, or
    /// complete.
    pub fn write_hlog(&self, path: impl AsRef<Path>) -> Result<(), TalaError> {
        let snapshot = self.snapshot();
        let mut bytes = header(snapshot.begin());
        append_interval(&snapshot, &mut bytes)?;
        replace(path.as_ref(), &bytes)
    }

    /// Writes everything recorded since the engine was opened into the directory `dir`, which is
    /// created if need be: for each [`Timing`](crate::Timing) a file such as `log_write.hgrm` with
    /// the four columns of HdrHistogram's plotter, in microseconds.
    ///
    /// # Errors
    /// [`TalaError::Storage`]: what the operating system refused. Each file is as before then, or
    /// complete.
    pub fn write_hgrm(&self, dir: impl AsRef<Path>) -> Result<(), TalaError> {
        let dir = StoreDir::real(dir.as_ref());
        match dir.disk().create_dir(dir.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(TalaError::storage(StorageOperation::Create, dir.path(), error));
            }
            _ => {}
        }
        for (timing, histogram) in self.snapshot().iter() {
            let name = format!("{}.hgrm", timing.name());
            write_atomically(&dir, &name, percentiles(histogram).as_bytes())?;
        }
        Ok(())
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), TalaError> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        let reason = format!("{} does not end with the name of a file", path.display());
        TalaError::InvalidInput { field: "path", reason }
    })?;
    let parent = path.parent().unwrap_or(Path::new(""));
    write_atomically(&StoreDir::real(parent), name, bytes)
}

/// An interval log that grows.
#[derive(Debug)]
pub(crate) struct IntervalLog {
    path: PathBuf,
    /// What the intervals written so far hold together.
    written: Option<HistogramsSnapshot>,
}

impl IntervalLog {
    /// The log in the file `path`, which is created, or has intervals of earlier engines in it. Its
    /// first interval begins at `begin`: readers pass over what is before the start of a log.
    ///
    /// # Errors
    /// [`TalaError::Storage`].
    pub(crate) fn open(path: &Path, begin: SystemTime) -> Result<Self, TalaError> {
        append(path, &header(begin), &[])?;
        Ok(Self { path: path.to_owned(), written: None })
    }

    /// Appends what was recorded since the last interval.
    ///
    /// # Errors
    /// [`TalaError::Storage`]. What was not written is in the next interval.
    pub(crate) fn append(&mut self, snapshot: HistogramsSnapshot) -> Result<(), TalaError> {
        let interval = match &self.written {
            Some(written) => snapshot.since(written),
            None => snapshot.clone(),
        };
        let mut bytes = Vec::new();
        append_interval(&interval, &mut bytes)?;
        append(&self.path, &header(interval.begin()), &bytes)?;
        self.written = Some(snapshot);
        Ok(())
    }
}

/// Appends lines to a file after its last whole line; a new file gets a header first.
fn append(path: &Path, header: &[u8], lines: &[u8]) -> Result<(), TalaError> {
    let file = RealDisk.open_or_create(path).map_err(failed(StorageOperation::Open, path))?;
    let write_failed = |error| TalaError::storage(StorageOperation::Write, path, error);
    // A map, not a read: of a long file only the end is looked at. It is gone before the write.
    let end = match file.byte_len().map_err(failed(StorageOperation::Read, path))? {
        0 => 0,
        _ => {
            let bytes = file.map().map_err(failed(StorageOperation::Read, path))?;
            bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
        }
    };
    let text = if end == 0 { [header, lines].concat() } else { lines.to_vec() };
    file.set_len(end as u64).map_err(write_failed)?;
    file.write_all_at(&text, end as u64).map_err(write_failed)
}

/// What stands above the intervals. Their times are absolute: so intervals of a later process may
/// follow, whose header would say something else.
fn header(start: SystemTime) -> Vec<u8> {
    let start = since_epoch(start).as_secs_f64();
    format!(
        "#[Histogram log format version 1.3]\n\
         #[tala-store: times in nanoseconds; one tag for each kind of run]\n\
         #[StartTime: {start:.3} (seconds since epoch)]\n\
         {LEGEND}"
    )
    .into_bytes()
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// One line for each histogram, the empty ones included.
fn append_interval(snapshot: &HistogramsSnapshot, bytes: &mut Vec<u8>) -> Result<(), TalaError> {
    let encode_failed = |reason: String| TalaError::InvalidInput { field: "histogram", reason };
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .begin_log_with(bytes, &mut serializer)
        .map_err(|error| encode_failed(error.to_string()))?;
    let begin = since_epoch(snapshot.begin());
    let length = snapshot.end().duration_since(snapshot.begin()).unwrap_or_default();
    for (timing, histogram) in snapshot.iter() {
        writer
            .write_histogram(histogram, begin, length, Tag::new(timing.name()))
            .map_err(|error| encode_failed(error.to_string()))?;
    }
    Ok(())
}

/// The text that HdrHistogram's programs call `.hgrm`.
fn percentiles(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    for point in histogram.iter_quantiles(TICKS_PER_HALF) {
        count += point.count_since_last_iteration();
        let value = histogram.highest_equivalent(point.value_iterated_to()) as f64 / NS_PER_US;
        let quantile = point.quantile_iterated_to();
        // Writing to a string does not fail.
        let _ = if quantile < 1.0 {
            let times = 1.0 / (1.0 - quantile);
            writeln!(text, "{value:12.3} {quantile:14.12} {count:10} {times:14.2}")
        } else {
            writeln!(text, "{value:12.3} {quantile:14.12} {count:10}")
        };
    }
    let (mean, deviation) = (histogram.mean() / NS_PER_US, histogram.stdev() / NS_PER_US);
    let (max, total) = (histogram.max() as f64 / NS_PER_US, histogram.len());
    let (buckets, sub_buckets) = (histogram.buckets(), 2_048);
    let _ = write!(
        text,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]\n\
         #[Max     = {max:12.3}, Total count    = {total:12}]\n\
         #[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]\n"
    );
    text
}
