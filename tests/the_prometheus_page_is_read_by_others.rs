//! The page that Prometheus reads, read by a parser that is not ours, and held against the engine's own
//! numbers. A program of its own, as a recorder of the `metrics` facade is that of its process.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{EVER, TestDir, id, intent};
use prometheus_parse::{Scrape, Value};
use tala_core::IntentStore;
use tala_store::{StorageEngine, Timing};

fn used(dir: &TestDir) -> StorageEngine {
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    for number in 0..25 {
        engine.insert(intent(number)).unwrap();
        engine.get(id(number)).unwrap();
    }
    engine.query_temporal(EVER).unwrap();
    engine.query_semantic(&intent(3).embedding, 2).unwrap();
    engine.flush().unwrap();
    engine.wait_indexed().unwrap();
    engine
}

fn parse(page: &str) -> Scrape {
    Scrape::parse(page.lines().map(|line| Ok(line.to_owned()))).unwrap()
}

/// A family's histograms by their label.
fn histograms(page: &Scrape, name: &str) -> BTreeMap<String, Vec<(f64, f64)>> {
    page.samples
        .iter()
        .filter(|sample| sample.metric == name)
        .map(|sample| {
            let Value::Histogram(counts) = &sample.value else { panic!("{sample:?}") };
            let label = sample.labels.values().next().unwrap().to_owned();
            (label, counts.iter().map(|count| (count.less_than, count.count)).collect())
        })
        .collect()
}

/// The only sample of a name, or that of a lock.
fn single(page: &Scrape, name: &str, lock: Option<&str>) -> f64 {
    let mut found = page
        .samples
        .iter()
        .filter(|sample| sample.metric == name && sample.labels.get("lock") == lock);
    let sample = found.next().unwrap_or_else(|| panic!("{name} is missing"));
    assert!(found.next().is_none(), "{name} is there twice");
    match sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
        ref other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn counters_and_sizes_are_those_of_the_engine() {
    let dir = TestDir::new();
    let engine = used(&dir);
    let page = parse(&engine.render_prometheus());
    let (metrics, stats) = (engine.metrics().snapshot(), engine.stats());
    for (name, expected) in [
        ("tala_wal_entries_total", 25),
        ("tala_wal_append_records_total", 25),
        ("tala_hnsw_insert_rows_total", metrics.hnsw_insert_count),
        ("tala_flushed_segments_total", 3),
        ("tala_flushed_bytes_total", stats.segment_bytes),
        ("tala_segment_bytes", stats.segment_bytes),
        ("tala_intents", 25),
        ("tala_linked_rows", 25),
        ("tala_edge_search_queries_total", 1),
        ("tala_hot_buffer_capacity_intents", 10),
        ("tala_histogram_bytes", stats.histogram_bytes),
    ] {
        assert_eq!(single(&page, name, None), expected as f64, "{name}");
    }
    for (name, expected_ns) in [
        ("tala_wal_append_seconds_total", metrics.wal_append_ns),
        ("tala_segment_flush_seconds_total", metrics.segment_flush_ns),
    ] {
        let seconds = single(&page, name, None);
        assert!((seconds - expected_ns as f64 / 1e9).abs() < 1e-12, "{name}: {seconds}");
    }
    let acquisitions = single(&page, "tala_lock_acquisitions_total", Some("wal"));
    assert_eq!(acquisitions, metrics.wal_lock.acquisitions as f64);
    let held_s = single(&page, "tala_lock_held_seconds_total", Some("hot"));
    assert!((held_s - metrics.hot_lock.total_hold_ns as f64 / 1e9).abs() < 1e-12);
}

#[test]
fn histograms_are_cumulative_and_end_with_their_count() {
    let dir = TestDir::new();
    let engine = used(&dir);
    // In this order: a page takes locks itself, before it reads the histograms.
    let text = engine.render_prometheus();
    let snapshot = engine.histograms().snapshot();
    let page = parse(&text);
    let mut families_count = 0;
    for (family, label, timing) in [
        ("tala_call_seconds", "insert", Timing::Insert),
        ("tala_call_seconds", "get", Timing::Get),
        ("tala_stage_seconds", "fsync", Timing::Fsync),
        ("tala_stage_seconds", "link", Timing::Link),
        ("tala_lock_wait_seconds", "intents", Timing::IntentsLockWait),
        ("tala_lock_hold_seconds", "wal", Timing::WalLockHold),
    ] {
        let expected = snapshot.get(timing);
        let family_histograms = histograms(&page, family);
        families_count += usize::from(label == "insert") * family_histograms.len();
        let counts = &family_histograms[label];
        assert_eq!(counts.len(), 27, "{label}");
        assert!(counts.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{counts:?}");
        assert_eq!(*counts.last().unwrap(), (f64::INFINITY, expected.len() as f64), "{label}");
        for (limit_s, count) in &counts[..26] {
            let limit_ns = (limit_s * 1e9).round() as u64;
            assert_eq!(*count, expected.count_between(0, limit_ns) as f64, "{label} {limit_s}");
        }
        let line = |suffix: &str| {
            let begin = format!("{family}_{suffix}{{");
            let of = format!("\"{label}\"}} ");
            let found = text.lines().find(|line| line.starts_with(&begin) && line.contains(&of));
            found.unwrap().rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
        };
        assert_eq!(line("count"), expected.len() as f64);
        let sum_s = expected.mean() * expected.len() as f64 / 1e9;
        assert!((line("sum") - sum_s).abs() <= sum_s * 1e-9, "{label}");
    }
    assert_eq!(families_count, 4, "insert, get, temporal, semantic");
}

#[test]
fn every_family_is_described_once_and_named_by_the_conventions() {
    let engine = StorageEngine::in_memory(8, 10);
    engine.insert(intent(1)).unwrap();
    let text = engine.render_prometheus();
    assert!(text.ends_with('\n'));
    let (mut described, mut typed) = (BTreeSet::new(), BTreeMap::new());
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(described.insert(name.to_owned()), "{name} twice");
            assert!(help.ends_with('.') && !help.contains('\\'), "{help}");
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current, "the type follows the help");
            typed.insert(name.to_owned(), kind.to_owned());
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let suffixes = ["_bucket", "_sum", "_count"];
            let family = match typed[&current].as_str() {
                "histogram" => {
                    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap()
                }
                _ => name,
            };
            assert_eq!(family, current, "samples stand together");
        }
    }
    assert_eq!(described.len(), typed.len());
    for (name, kind) in typed {
        let is_total = name.ends_with("_total");
        assert_eq!(is_total, kind == "counter", "{name} is a {kind}");
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{name}");
        assert!(!name.contains("_ns") && !name.contains("_ms"), "{name}");
    }
    // Without histograms the page has the rest.
    let engine = StorageEngine::options(8).histograms(false).in_memory().unwrap();
    let without = engine.render_prometheus();
    assert!(!without.contains("_bucket") && without.contains("tala_lock_held_seconds_total"));
    assert_eq!(parse(&without).samples.len(), 10 + 5 + 12 + 6 * 5);
}

#[cfg(feature = "metrics")]
mod facade {
    use std::sync::{Arc, Mutex};

    use metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder,
        SharedString, Unit,
    };

    use super::*;

    #[derive(Default, Clone)]
    struct Told(Arc<Mutex<BTreeMap<String, f64>>>);

    struct Cell(Told, String);

    impl Cell {
        fn set(&self, value: f64) {
            self.0.0.lock().unwrap().insert(self.1.clone(), value);
        }
    }

    impl CounterFn for Cell {
        fn increment(&self, _: u64) {
            unreachable!("counters are set to what they are");
        }
        fn absolute(&self, value: u64) {
            self.set(value as f64);
        }
    }

    impl GaugeFn for Cell {
        fn increment(&self, _: f64) {
            unreachable!("gauges are set to what they are");
        }
        fn decrement(&self, _: f64) {
            unreachable!("gauges are set to what they are");
        }
        fn set(&self, value: f64) {
            self.set(value);
        }
    }

    impl Recorder for Told {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(Arc::new(Cell(self.clone(), name(key))))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(Arc::new(Cell(self.clone(), name(key))))
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            unreachable!("histograms are told as counters of buckets");
        }
    }

    /// As a page has it.
    fn name(key: &Key) -> String {
        let labels: Vec<String> =
            key.labels().map(|label| format!("{}=\"{}\"", label.key(), label.value())).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        format!("{}{labels}", key.name())
    }

    #[test]
    fn the_facade_is_told_what_the_page_says() {
        let dir = TestDir::new();
        let engine = used(&dir);
        engine.sync().unwrap();
        let told = Told::default();
        metrics::with_local_recorder(&told, || engine.publish_metrics());
        let page = engine.render_prometheus();
        let told = told.0.lock().unwrap();
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(lines.clone().count(), told.len());
        for line in lines {
            let (name, value) = line.rsplit_once(' ').unwrap();
            // A page is itself a reading: locks that it takes count.
            let value: f64 = value.parse().unwrap();
            let known = told.get(name).unwrap_or_else(|| panic!("{name} was not told"));
            assert!(name.contains("intents") || *known == value, "{name}: {known} and {value}");
        }
    }
}
