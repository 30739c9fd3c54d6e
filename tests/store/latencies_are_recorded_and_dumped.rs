//! Every run is in its histogram, once; and what is dumped is read by others as it was recorded.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::Path,
    process::Command,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use crate::common::{EVER, TestDir, id, intent, outcome};
use tala_core::{IntentStore, TalaError};
use tala_store::{
    Histograms, HistogramsSnapshot, LockStats, StorageEngine, StorageMetrics, Timing,
    hdrhistogram::{
        Histogram,
        serialization::{
            Deserializer,
            interval_log::{IntervalLogIterator, LogEntry},
        },
    },
};

fn locks(metrics: &StorageMetrics) -> [(&LockStats, Timing, Timing); 5] {
    use Timing::*;
    [
        (&metrics.intents_lock, IntentsLockWait, IntentsLockHold),
        (&metrics.hnsw_lock, HnswLockWait, HnswLockHold),
        (&metrics.index_map_lock, IndexMapLockWait, IndexMapLockHold),
        (&metrics.wal_lock, WalLockWait, WalLockHold),
        (&metrics.hot_lock, HotLockWait, HotLockHold),
    ]
}

fn counts(snapshot: &HistogramsSnapshot) -> BTreeMap<&'static str, u64> {
    snapshot.iter().map(|(timing, histogram)| (timing.name(), histogram.len())).collect()
}

/// The sum of all times, as exactly as buckets say it: each is off by less than a thousandth.
fn sum_ns(histogram: &Histogram<u64>) -> f64 {
    histogram.mean() * histogram.len() as f64
}

fn is_near(value: f64, expected: f64) -> bool {
    (value - expected).abs() <= expected / 1_000.0 + 1.0
}

/// Some of everything that is timed.
fn use_everything(engine: &StorageEngine) {
    for number in 0..20 {
        engine.insert(intent(number)).unwrap();
    }
    engine.insert_batch((20..24).map(intent).collect()).unwrap();
    engine.try_insert(intent(24)).unwrap();
    engine.attach_outcome(id(1), outcome(1)).unwrap();
    assert!(engine.attach_outcome(id(99), outcome(1)).is_err());
    assert!(engine.remove(id(2)).unwrap());
    for number in 0..30 {
        engine.get(id(number)).unwrap();
    }
    for _ in 0..4 {
        engine.query_temporal(EVER).unwrap();
        engine.query_semantic(&intent(3).embedding, 2).unwrap();
    }
    assert!(engine.query_semantic(&[1.0; 3], 2).is_err());
    engine.flush().unwrap();
    engine.wait_indexed().unwrap();
}

#[test]
fn every_run_is_in_its_histogram() {
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 1_000).unwrap();
    use_everything(&engine);
    engine.close().unwrap();
    let snapshot = engine.histograms().snapshot();
    let metrics = engine.metrics();
    let expected = [
        ("insert", 22),
        ("encode", 25),
        // 22 inserts, 2 outcomes, 1 removal.
        ("queue_wait", 25),
        // What applied to nothing wrote nothing.
        ("log_write", 24),
        ("publish", 24),
        // Each of them alone, and the marks at the ends of both log files.
        ("fsync", 26),
        ("flush", 1),
        ("get", 30),
        ("temporal", 4),
        ("semantic", 4),
    ];
    let counts = counts(&snapshot);
    for (name, count) in expected {
        assert_eq!(counts[name], count, "{name}");
    }
    assert_eq!(counts["link"], metrics.hnsw_insert_count.load(Relaxed));

    // The counters of the locks are the same numbers, recorded another way.
    for (stats, wait, hold) in locks(metrics) {
        let (wait, hold) = (snapshot.get(wait), snapshot.get(hold));
        assert_eq!(wait.len(), stats.acquisitions.load(Relaxed));
        assert_eq!(hold.len(), stats.acquisitions.load(Relaxed));
        let contended = wait.len() - wait.count_between(0, 1_000);
        // A bucket holds waits of up to a thousandth more.
        assert!(contended <= stats.contentions.load(Relaxed));
        assert!(is_near(sum_ns(wait), stats.total_wait_ns.load(Relaxed) as f64));
        assert!(is_near(sum_ns(hold), stats.total_hold_ns.load(Relaxed) as f64));
        assert!(is_near(wait.max() as f64, stats.max_wait_ns.load(Relaxed) as f64));
        assert!(is_near(hold.max() as f64, stats.max_hold_ns.load(Relaxed) as f64));
    }
    // So are those of stages; a mean of rows that were drafted together is cut off to whole numbers.
    for (timing, total_ns) in [
        (Timing::Semantic, &metrics.edge_search_ns),
        (Timing::Flush, &metrics.segment_flush_ns),
        (Timing::Link, &metrics.hnsw_insert_ns),
    ] {
        let sum_ns = sum_ns(snapshot.get(timing));
        let total_ns = total_ns.load(Relaxed) as f64;
        assert!((sum_ns - total_ns).abs() <= total_ns / 1_000.0 + 64.0, "{sum_ns} {total_ns}");
    }
    let append_ns = metrics.wal_append_ns.load(Relaxed) as f64;
    let parts_ns = sum_ns(snapshot.get(Timing::LogWrite)) + sum_ns(snapshot.get(Timing::Fsync));
    assert!(parts_ns > 0.0 && append_ns > 0.0);
    // An insert is longer than what it consists of.
    let insert_ns = sum_ns(snapshot.get(Timing::Insert));
    assert!(insert_ns > sum_ns(snapshot.get(Timing::LogWrite)));
    assert!(snapshot.get(Timing::Insert).min() > snapshot.get(Timing::Fsync).min());
}

#[test]
fn an_insert_that_is_awaited_is_recorded_once() {
    let engine = StorageEngine::in_memory(8, 10);
    pollster::block_on(engine.insert_async(intent(1))).unwrap();
    drop(engine.insert_async(intent(2)));
    assert!(pollster::block_on(engine.insert_async(intent(3))).is_ok());
    let counts = counts(&engine.histograms().snapshot());
    assert_eq!((counts["insert"], counts["queue_wait"], counts["encode"]), (2, 2, 0));
}

#[test]
fn what_happened_between_two_snapshots_is_their_difference() {
    let engine = StorageEngine::in_memory(8, 10);
    engine.insert(intent(1)).unwrap();
    (0..5).for_each(|_| drop(engine.get(id(1)).unwrap()));
    let before = engine.histograms().snapshot();
    (0..7).for_each(|_| drop(engine.get(id(1)).unwrap()));
    let after = engine.histograms().snapshot();
    let between = after.since(&before);
    assert_eq!(between.get(Timing::Get).len(), 7);
    assert_eq!(between.get(Timing::Insert).len(), 0);
    assert_eq!((between.begin(), between.end()), (before.end(), after.end()));
    let mut sum = before.get(Timing::Get).clone();
    sum.add(between.get(Timing::Get)).unwrap();
    assert!(sum == *after.get(Timing::Get));
    // The wrong way round there is nothing, and no panic.
    assert_eq!(before.since(&after).get(Timing::Get).len(), 0);
}

#[test]
fn without_histograms_counters_go_on() {
    let engine = StorageEngine::options(8).histograms(false).in_memory().unwrap();
    engine.insert(intent(1)).unwrap();
    assert!(counts(&engine.histograms().snapshot()).values().all(|count| *count == 0));
    assert!(engine.metrics().intents_lock.acquisitions.load(Relaxed) > 0);
    assert_eq!(engine.stats().histogram_bytes, 0);
    let recording = StorageEngine::in_memory(8, 10).stats().histogram_bytes;
    let processors = std::thread::available_parallelism().unwrap().get();
    let of_a_stripe = recording / processors.next_power_of_two().min(4) as u64;
    assert!((2_000_000..=4_700_000).contains(&of_a_stripe), "{recording} bytes");
    let dir = TestDir::new();
    let options = || StorageEngine::options(8);
    for wrong in [
        options().histograms(false).report_histograms(dir.path().join("a"), Duration::from_secs(1)),
        options().report_histograms(dir.path().join("a"), Duration::ZERO),
    ] {
        let refused = wrong.in_memory().unwrap_err();
        let option = "report_histograms";
        assert!(matches!(refused, TalaError::InvalidOption { option: told, .. } if told == option));
    }
}

/// The histograms of a log by tag, its intervals added up, and how many intervals there are.
fn read_log(path: &Path) -> BTreeMap<String, (Histogram<u64>, usize)> {
    use base64::Engine as _;
    let bytes = fs::read(path).unwrap();
    let mut sums = BTreeMap::new();
    let mut deserializer = Deserializer::new();
    for entry in IntervalLogIterator::new(&bytes) {
        let LogEntry::Interval(interval) = entry.unwrap() else { continue };
        let encoded = interval.encoded_histogram();
        let encoded = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
        let histogram: Histogram<u64> = deserializer.deserialize(&mut &encoded[..]).unwrap();
        let tag = interval.tag().unwrap().as_str().to_owned();
        let empty = || (Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap(), 0);
        let (sum, intervals) = sums.entry(tag).or_insert_with(empty);
        sum.add(histogram).unwrap();
        *intervals += 1;
    }
    sums
}

/// Adds up what logs say together with what they are to say.
fn check_log(path: &Path, expected: &[HistogramsSnapshot]) -> usize {
    let read = read_log(path);
    assert_eq!(read.len(), Timing::ALL.len());
    let mut intervals_count = 0;
    for timing in Timing::ALL {
        let (sum, intervals) = &read[timing.name()];
        let mut wanted = expected[0].get(timing).clone();
        expected[1..].iter().for_each(|more| wanted.add(more.get(timing)).unwrap());
        assert!(*sum == wanted, "{}: {} and {}", timing.name(), sum.len(), wanted.len());
        intervals_count = *intervals;
    }
    intervals_count
}

fn used(dir: &Path) -> Histograms {
    let engine = StorageEngine::open(8, dir.join("store"), 1_000).unwrap();
    use_everything(&engine);
    engine.close().unwrap();
    engine.histograms()
}

#[test]
fn an_interval_log_is_read_back_as_it_was_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let histograms = used(dir.path());
    let path = dir.path().join("dump.hlog");
    fs::write(&path, "what was there before").unwrap();
    histograms.write_hlog(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("#[Histogram log format version 1.3]\n"));
    assert_eq!(text.lines().filter(|line| line.starts_with("Tag=")).count(), 21);
    assert_eq!(check_log(&path, &[histograms.snapshot()]), 1);
    assert!(histograms.write_hlog(dir.path().join("nowhere").join("dump.hlog")).is_err());
    assert!(matches!(histograms.write_hlog("/"), Err(TalaError::InvalidInput { .. })));
}

/// Reports until there are `intervals` of them in the file.
fn wait_for_intervals(path: &Path, intervals: usize) {
    let end = Instant::now() + Duration::from_secs(30);
    let line = "Tag=insert,";
    while fs::read_to_string(path).unwrap_or_default().matches(line).count() < intervals {
        assert!(Instant::now() < end, "no report came");
        std::thread::yield_now();
    }
}

#[test]
fn a_reporter_appends_intervals_and_ends_with_its_engine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.hlog");
    let open = || {
        let options = StorageEngine::options(8);
        options.report_histograms(&path, Duration::from_millis(5)).in_memory().unwrap()
    };
    let engine = open();
    use_everything(&engine);
    wait_for_intervals(&path, 2);
    use_everything(&engine);
    wait_for_intervals(&path, 4);
    engine.get(id(3)).unwrap();
    assert!(engine.histograms().report_error().is_none());
    engine.close().unwrap();
    // With the last report everything is in it.
    let first = engine.histograms().snapshot();
    assert!(check_log(&path, std::slice::from_ref(&first)) >= 5);
    let len = fs::metadata(&path).unwrap().len();

    // A process that died while it wrote left half a line: the next engine goes on after the
    // last whole one.
    let mut torn = fs::read(&path).unwrap();
    torn.extend_from_slice(b"Tag=insert,1.0,2.0,3.0,HISTF");
    fs::write(&path, torn).unwrap();
    let engine = open();
    engine.get(id(1)).unwrap();
    let handle = engine.histograms();
    // Dropped, not closed: it ends with the last handle of the engine as well.
    drop(engine);
    check_log(&path, &[first, handle.snapshot()]);
    assert!(fs::metadata(&path).unwrap().len() > len);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("#[StartTime").count(), 1, "one header");
}

#[test]
fn a_report_that_cannot_be_written_is_told_and_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.hlog");
    let options = || StorageEngine::options(8);
    let nowhere = options().report_histograms(dir.path().join("no/where"), Duration::from_secs(1));
    assert!(matches!(nowhere.in_memory(), Err(TalaError::Storage { .. })));

    let every = Duration::from_millis(1);
    let engine = options().report_histograms(&path, every).in_memory().unwrap();
    // The reporter may make it again in between.
    while fs::create_dir(&path).is_err() {
        let _ = fs::remove_file(&path);
    }
    engine.get(id(1)).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while engine.histograms().report_error().is_none() {
        assert!(Instant::now() < end, "no failure was told");
        std::thread::yield_now();
    }
    engine.insert(intent(1)).unwrap();
    while fs::remove_dir(&path).is_err() {}
    wait_for_intervals(&path, 1);
    engine.close().unwrap();
    assert!(engine.histograms().report_error().is_none());
    let read = read_log(&path);
    assert_eq!((read["get"].0.len(), read["insert"].0.len()), (1, 1));
}

#[test]
fn percentile_texts_have_four_columns_and_the_same_values() {
    let dir = tempfile::tempdir().unwrap();
    let histograms = used(dir.path());
    for _ in 0..2 {
        histograms.write_hgrm(dir.path().join("hgrm")).unwrap();
    }
    for (timing, histogram) in histograms.snapshot().iter() {
        let path = dir.path().join("hgrm").join(format!("{}.hgrm", timing.name()));
        let text = fs::read_to_string(path).unwrap();
        let mut lines = text.lines();
        let header: Vec<_> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(header, ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
        assert_eq!(lines.next(), Some(""));
        let mut last = (0.0, 0.0, 0.0);
        for line in lines.clone().take_while(|line| !line.starts_with('#')) {
            let columns: Vec<f64> =
                line.split_whitespace().map(|column| column.parse().unwrap()).collect();
            let (value, quantile, count) = (columns[0], columns[1], columns[2]);
            assert!(value >= last.0 && quantile >= last.1 && count >= last.2, "{line}");
            let value_ns = (value * 1_000.0).round() as u64;
            assert_eq!(count as u64, histogram.count_between(0, value_ns), "{line}");
            if quantile < 1.0 {
                let times = 1.0 / (1.0 - quantile);
                assert!((columns[3] - times).abs() <= 0.01, "{line}");
            } else {
                assert_eq!(columns.len(), 3);
            }
            last = (value, quantile, count);
        }
        assert_eq!(last.2 as u64, histogram.len());
        let total: u64 = text.rsplit_once("Total count    =").unwrap().1[..13]
            .trim()
            .trim_end_matches(']')
            .parse()
            .unwrap();
        assert_eq!(total, histogram.len());
    }
}

/// Says it even where the output of tests that pass is not shown.
fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// `scripts/read_hlog.py` with the Python that `TALA_PYTHON` names; `None`, and a word about it, where
/// there is none or it lacks the package.
fn read_by_python(path: &Path) -> Option<serde_json::Value> {
    let python = std::env::var("TALA_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/read_hlog.py");
    let output = match Command::new(&python).arg(script).arg(path).output() {
        Ok(output) => output,
        Err(error) => {
            say(&format!("not checked by another implementation: {python}: {error}"));
            return None;
        }
    };
    let told = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(3) {
        say(&format!("not checked by another implementation: {told}"));
        return None;
    }
    assert!(output.status.success(), "{told}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn another_implementation_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.hlog");
    let options = StorageEngine::options(8);
    let engine = options.report_histograms(&path, Duration::from_millis(5)).in_memory().unwrap();
    use_everything(&engine);
    wait_for_intervals(&path, 2);
    use_everything(&engine);
    engine.close().unwrap();
    let Some(read) = read_by_python(&path) else { return };
    assert_eq!(read.as_object().unwrap().len(), Timing::ALL.len());
    for (timing, histogram) in engine.histograms().snapshot().iter() {
        let told = &read[timing.name()];
        assert!(told["intervals"].as_u64().unwrap() >= 3);
        let buckets: Vec<[u64; 2]> = histogram
            .iter_recorded()
            .map(|bucket| {
                let least = histogram.lowest_equivalent(bucket.value_iterated_to());
                [least, bucket.count_at_value()]
            })
            .collect();
        assert_eq!(told["buckets"], serde_json::json!(buckets), "{}", timing.name());
        assert_eq!(told["count"], histogram.len());
        // Other percentiles may be a rank apart: each rounds ranks in its own way.
        assert_eq!(told["percentiles"]["100"], histogram.max(), "{}", timing.name());
    }
    println!("the package hdrhistogram of PyPI read all {} tags alike", Timing::ALL.len());
}
