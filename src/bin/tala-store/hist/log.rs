//! Interval logs of HdrHistogram, read whole.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer,
        interval_log::{IntervalLogHistogram, IntervalLogIterator, LogEntry},
    },
};

use crate::failure::Failure;

/// What lies so much before the start of its log is no time since the epoch but one since that start.
const RELATIVE_BELOW_S: f64 = 365.0 * 24.0 * 3_600.0;

/// A log, its intervals by tag.
pub(super) struct Log {
    /// In the order in which they first came.
    pub(super) tags: Vec<Tag>,
}

/// What a log has under one tag.
#[derive(Clone)]
pub(super) struct Tag {
    pub(super) name: String,
    /// All intervals together.
    pub(super) sum: Histogram<u64>,
    /// In the order of the log.
    pub(super) intervals: Vec<Interval>,
}

/// One interval of a tag, in numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    /// When it began, in seconds since the epoch.
    pub(super) begin_s: f64,
    pub(super) length_s: f64,
    pub(super) count: u64,
    pub(super) p50_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) max_ns: u64,
}

impl Log {
    /// Reads a log.
    ///
    /// # Errors
    /// It cannot be read, or is no interval log.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = fs::read(path).map_err(|error| Failure::file("read", path, error))?;
        Self::parse(&bytes).map_err(|reason| {
            let place = path.display();
            Failure::Other(format!("{place} is not an interval log of HdrHistogram: {reason}"))
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (mut start_s, mut base_s) = (None, None);
        let mut log = Self { tags: Vec::new() };
        for entry in IntervalLogIterator::new(bytes) {
            match entry.map_err(|error| format!("{error:?}"))? {
                LogEntry::StartTime(start) => start_s = Some(start.as_secs_f64()),
                LogEntry::BaseTime(base) => base_s = Some(base.as_secs_f64()),
                LogEntry::Interval(interval) => {
                    let stamp_s = interval.start_timestamp().as_secs_f64();
                    let start_s = *start_s.get_or_insert(stamp_s);
                    let base_s = base_s.unwrap_or(if stamp_s < start_s - RELATIVE_BELOW_S {
                        start_s
                    } else {
                        0.0
                    });
                    log.add(&interval, base_s + stamp_s)?;
                }
            }
        }
        Ok(log)
    }

    fn add(&mut self, interval: &IntervalLogHistogram<'_>, begin_s: f64) -> Result<(), String> {
        let name = interval.tag().map_or("(no tag)", |tag| tag.as_str());
        let encoded = STANDARD
            .decode(interval.encoded_histogram())
            .map_err(|error| format!("an interval of {name}: {error}"))?;
        let mut histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut &encoded[..])
            .map_err(|error| format!("an interval of {name}: {error}"))?;
        histogram.auto(true);
        let numbers = Interval {
            begin_s,
            length_s: interval.duration().as_secs_f64(),
            count: histogram.len(),
            p50_ns: histogram.value_at_quantile(0.5),
            p99_ns: histogram.value_at_quantile(0.99),
            max_ns: histogram.max(),
        };
        match self.tags.iter_mut().find(|tag| tag.name == name) {
            Some(tag) => {
                tag.sum.add(&histogram).map_err(|error| format!("{name}: {error}"))?;
                tag.intervals.push(numbers);
            }
            None => self.tags.push(Tag {
                name: name.to_owned(),
                sum: histogram,
                intervals: vec![numbers],
            }),
        }
        Ok(())
    }

    /// How many intervals the tag with most has.
    pub(super) fn intervals_count(&self) -> usize {
        self.tags.iter().map(|tag| tag.intervals.len()).max().unwrap_or(0)
    }

    /// How long those of a tag are together.
    pub(super) fn seconds(&self) -> f64 {
        let of_tag = |tag: &Tag| tag.intervals.iter().map(|interval| interval.length_s).sum();
        self.tags.iter().map(of_tag).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first line of a log as other programs write it.
    #[test]
    fn times_since_the_start_of_a_log_and_since_the_epoch_come_to_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let engine = tala_store::StorageEngine::in_memory(2, 10);
        let path = dir.path().join("log");
        engine.histograms().write_hlog(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let line = text.lines().find(|line| line.starts_with("Tag=get,")).unwrap();
        let (_, rest) = line.split_once(',').unwrap();
        let (_, rest) = rest.split_once(',').unwrap();
        for (header, stamp, expected) in [
            (
                "#[StartTime: 1800000000.000 (seconds since epoch)]\n",
                "1800000001.5",
                1_800_000_001.5,
            ),
            ("#[StartTime: 1800000000.000 (seconds since epoch)]\n", "1.5", 1_800_000_001.5),
            ("#[BaseTime: 1800000000.000 (seconds since epoch)]\n", "1.5", 1_800_000_001.5),
            ("", "1.5", 1.5),
        ] {
            let log = Log::parse(format!("{header}{stamp},{rest}\n").as_bytes()).unwrap();
            assert_eq!(log.tags[0].intervals[0].begin_s, expected, "{header}");
            assert_eq!(log.tags[0].name, "(no tag)");
        }
        assert_eq!(Log::read(&path).unwrap().tags.len(), 21);
    }

    #[test]
    fn what_is_no_log_is_refused_in_words() {
        for text in ["no log\n", "Tag=a,1.0,1.0,1.0,!!!\n", "Tag=a,1.0,1.0,1.0,AAAA\n"] {
            assert!(Log::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
