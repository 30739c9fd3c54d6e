//! The engine's figures for monitoring: as families of samples, from which the text of Prometheus is
//! made, and what the `metrics` facade is told.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::{StorageEngine, StoreStats};
use crate::metrics::{HistogramsSnapshot, LockSnapshot, MetricsSnapshot, Timing};

/// Limits of the buckets that are told, in nanoseconds: three to the decade. The last is half of the
/// longest time that is told apart.
const LIMITS_NS: [u64; 26] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

const NS_PER_S: f64 = 1e9;

/// Names of the locks, and how each is read.
type LockOf = fn(&MetricsSnapshot) -> &LockSnapshot;
const LOCKS: [(&str, LockOf); 5] = [
    ("intents", |metrics| &metrics.intents_lock),
    ("hnsw", |metrics| &metrics.hnsw_lock),
    ("index_map", |metrics| &metrics.index_map_lock),
    ("wal", |metrics| &metrics.wal_lock),
    ("hot", |metrics| &metrics.hot_lock),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

#[derive(Clone, Copy)]
enum Value {
    Count(u64),
    Seconds(f64),
}

struct Sample {
    /// What its name has after that of its family.
    suffix: &'static str,
    labels: Vec<(&'static str, String)>,
    value: Value,
}

/// Samples that are described together.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: Vec<Sample>,
}

impl Family {
    fn single(name: &'static str, help: &'static str, kind: Kind, value: Value) -> Self {
        let sample = Sample { suffix: "", labels: Vec::new(), value };
        Self { name, help, kind, samples: vec![sample] }
    }

    fn of_locks(
        metrics: &MetricsSnapshot,
        (name, help, kind): (&'static str, &'static str, Kind),
        value: impl Fn(&LockSnapshot) -> Value,
    ) -> Self {
        let sample = |(lock, of): (&str, LockOf)| Sample {
            suffix: "",
            labels: vec![("lock", lock.to_owned())],
            value: value(of(metrics)),
        };
        Self { name, help, kind, samples: LOCKS.into_iter().map(sample).collect() }
    }

    fn of_histograms(
        histograms: &HistogramsSnapshot,
        (name, help, label): (&'static str, &'static str, &'static str),
        timings: &[(&str, Timing)],
    ) -> Self {
        let samples = timings
            .iter()
            .flat_map(|(what, timing)| histogram_samples(histograms.get(*timing), (label, what)))
            .collect();
        Self { name, help, kind: Kind::Histogram, samples }
    }
}

/// How many times were at most each limit, all of them, and their sum. A limit has times of up to a
/// thousandth more, and the sum is off by as little.
fn histogram_samples(histogram: &Histogram<u64>, label: (&'static str, &str)) -> Vec<Sample> {
    let mut counts = [0_u64; LIMITS_NS.len()];
    let mut sum_ns = 0_u128;
    for bucket in histogram.iter_recorded() {
        let (value_ns, count) = (bucket.value_iterated_to(), bucket.count_at_value());
        let least_ns = histogram.lowest_equivalent(value_ns);
        if let Some(counted) = counts.get_mut(LIMITS_NS.partition_point(|limit| *limit < least_ns))
        {
            *counted += count;
        }
        sum_ns += u128::from(histogram.median_equivalent(value_ns)) * u128::from(count);
    }
    let own = || vec![(label.0, label.1.to_owned())];
    let bucket = |limit: String, count| {
        let labels = vec![(label.0, label.1.to_owned()), ("le", limit)];
        Sample { suffix: "_bucket", labels, value: Value::Count(count) }
    };
    let mut below = 0;
    let mut samples: Vec<Sample> = LIMITS_NS
        .iter()
        .zip(counts)
        .map(|(limit_ns, count)| {
            below += count;
            bucket((*limit_ns as f64 / NS_PER_S).to_string(), below)
        })
        .collect();
    samples.push(bucket("+Inf".to_owned(), histogram.len()));
    let sum = Value::Seconds(sum_ns as f64 / NS_PER_S);
    samples.push(Sample { suffix: "_sum", labels: own(), value: sum });
    let count = Value::Count(histogram.len());
    samples.push(Sample { suffix: "_count", labels: own(), value: count });
    samples
}

fn seconds(ns: u64) -> Value {
    Value::Seconds(ns as f64 / NS_PER_S)
}

fn stages(metrics: &MetricsSnapshot) -> Vec<Family> {
    let counts = [
        ("tala_wal_append_records_total", "Records written to the log.", metrics.wal_append_count),
        ("tala_wal_entries_total", "Records appended to the log.", metrics.wal_entry_count),
        ("tala_hnsw_insert_rows_total", "Rows linked.", metrics.hnsw_insert_count),
        ("tala_hot_push_intents_total", "Intents pushed.", metrics.hot_push_count),
        ("tala_segment_flush_segments_total", "Segments made.", metrics.segment_flush_count),
        ("tala_edge_search_queries_total", "Queries by meaning.", metrics.edge_search_count),
        ("tala_hnsw_search_walks_total", "Walks of queries.", metrics.hnsw_search_count),
        (
            "tala_hnsw_search_visited_nodes_total",
            "Nodes whose distance was computed by walks of queries.",
            metrics.hnsw_search_visited,
        ),
        ("tala_flushed_bytes_total", "Bytes of segments published.", metrics.total_bytes_flushed),
        ("tala_flushed_segments_total", "Segments published.", metrics.segments_flushed_count),
    ];
    let times = [
        (
            "tala_wal_append_seconds_total",
            "Time spent writing log records and making them durable.",
            metrics.wal_append_ns,
        ),
        ("tala_hnsw_insert_seconds_total", "Time spent linking rows.", metrics.hnsw_insert_ns),
        (
            "tala_hot_push_seconds_total",
            "Time spent pushing intents into the hot buffer.",
            metrics.hot_push_ns,
        ),
        (
            "tala_segment_flush_seconds_total",
            "Time spent making segments.",
            metrics.segment_flush_ns,
        ),
        (
            "tala_edge_search_seconds_total",
            "Time spent in queries by meaning.",
            metrics.edge_search_ns,
        ),
    ];
    let count =
        |(name, help, count)| Family::single(name, help, Kind::Counter, Value::Count(count));
    let time = |(name, help, ns)| Family::single(name, help, Kind::Counter, seconds(ns));
    counts.into_iter().map(count).chain(times.into_iter().map(time)).collect()
}

fn states(metrics: &MetricsSnapshot, stats: &StoreStats) -> Vec<Family> {
    let states = [
        ("tala_hot_buffer_intents", "Intents in the hot buffer.", metrics.hot_buffer_len),
        (
            "tala_hot_buffer_capacity_intents",
            "How many intents make the hot buffer full.",
            metrics.hot_buffer_capacity,
        ),
        ("tala_intents", "Intents in the store.", stats.intents),
        ("tala_rows", "Rows in memory: intents and what they replaced.", stats.rows),
        ("tala_linked_rows", "Rows that the index builder has dealt with.", stats.linked),
        ("tala_graph_nodes", "Rows in the graph.", stats.graph_nodes),
        ("tala_graph_dead_nodes", "Rows in the graph that are replaced.", stats.graph_dead),
        ("tala_index_bytes", "Memory of the index, without the embeddings.", stats.index_bytes),
        ("tala_histogram_bytes", "Memory of the latency histograms.", stats.histogram_bytes),
        ("tala_segments", "Published segments.", stats.segments),
        ("tala_segment_bytes", "Bytes of the published segments.", stats.segment_bytes),
        ("tala_visible_seq", "The last sequence number that readers see.", stats.visible_seq),
    ];
    let state = |(name, help, value)| Family::single(name, help, Kind::Gauge, Value::Count(value));
    states.into_iter().map(state).collect()
}

fn locks(metrics: &MetricsSnapshot) -> Vec<Family> {
    use Kind::{Counter, Gauge};
    let acquisitions = ("tala_lock_acquisitions_total", "Acquisitions.", Counter);
    let contentions =
        ("tala_lock_contentions_total", "Acquisitions that waited above a microsecond.", Counter);
    let waited = ("tala_lock_waited_seconds_total", "Time spent waiting for the lock.", Counter);
    let held = ("tala_lock_held_seconds_total", "Time for which the lock was held.", Counter);
    let longest_wait = ("tala_lock_wait_max_seconds", "The longest wait.", Gauge);
    let longest_hold = ("tala_lock_hold_max_seconds", "The longest hold.", Gauge);
    vec![
        Family::of_locks(metrics, acquisitions, |lock| Value::Count(lock.acquisitions)),
        Family::of_locks(metrics, contentions, |lock| Value::Count(lock.contentions)),
        Family::of_locks(metrics, waited, |lock| seconds(lock.total_wait_ns)),
        Family::of_locks(metrics, held, |lock| seconds(lock.total_hold_ns)),
        Family::of_locks(metrics, longest_wait, |lock| seconds(lock.max_wait_ns)),
        Family::of_locks(metrics, longest_hold, |lock| seconds(lock.max_hold_ns)),
    ]
}

fn latencies(histograms: &HistogramsSnapshot) -> Vec<Family> {
    use Timing::*;
    let calls = [("insert", Insert), ("get", Get), ("temporal", Temporal), ("semantic", Semantic)];
    let stages = [QueueWait, Encode, LogWrite, Fsync, Publish, Link, Flush]
        .map(|timing| (timing.name(), timing));
    let waits = [
        ("intents", IntentsLockWait),
        ("hnsw", HnswLockWait),
        ("index_map", IndexMapLockWait),
        ("wal", WalLockWait),
        ("hot", HotLockWait),
    ];
    let holds = [
        ("intents", IntentsLockHold),
        ("hnsw", HnswLockHold),
        ("index_map", IndexMapLockHold),
        ("wal", WalLockHold),
        ("hot", HotLockHold),
    ];
    let call = ("tala_call_seconds", "How long calls took, as their callers saw it.", "call");
    let stage = ("tala_stage_seconds", "How long single runs inside the engine took.", "stage");
    let wait = ("tala_lock_wait_seconds", "How long the lock was waited for.", "lock");
    let hold = ("tala_lock_hold_seconds", "How long the lock was held.", "lock");
    vec![
        Family::of_histograms(histograms, call, &calls),
        Family::of_histograms(histograms, stage, &stages),
        Family::of_histograms(histograms, wait, &waits),
        Family::of_histograms(histograms, hold, &holds),
    ]
}

impl Value {
    fn write(self, text: &mut String) {
        // Writing to a string does not fail.
        let _ = match self {
            Self::Count(count) => writeln!(text, "{count}"),
            Self::Seconds(seconds) => writeln!(text, "{seconds}"),
        };
    }
}

/// The text exposition format 0.0.4. No help and no label here has a character to escape.
fn render(families: &[Family]) -> String {
    let mut text = String::new();
    for Family { name, help, kind, samples } in families {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
        for Sample { suffix, labels, value } in samples {
            let _ = write!(text, "{name}{suffix}");
            for (index, (label, of)) in labels.iter().enumerate() {
                let before = if index == 0 { '{' } else { ',' };
                let _ = write!(text, "{before}{label}=\"{of}\"");
            }
            text.push_str(if labels.is_empty() { " " } else { "} " });
            value.write(&mut text);
        }
    }
    text
}

impl StorageEngine {
    fn families(&self) -> Vec<Family> {
        let (metrics, stats) = (self.metrics().snapshot(), self.stats());
        let mut families = stages(&metrics);
        families.extend(states(&metrics, &stats));
        families.extend(locks(&metrics));
        if stats.histogram_bytes > 0 {
            families.extend(latencies(&self.histograms().snapshot()));
        }
        families
    }

    /// All figures as a page that Prometheus reads (text exposition format 0.0.4): counters, sizes, and
    /// histograms where they are switched on; times in seconds, sizes in bytes. To be served as
    /// `text/plain; version=0.0.4`.
    ///
    /// It takes a few milliseconds and holds nobody up.
    #[must_use]
    pub fn render_prometheus(&self) -> String {
        render(&self.families())
    }

    /// Tells the recorder of the [`metrics`](::metrics) facade what
    /// [`render_prometheus`](Self::render_prometheus) would: to be called before that recorder is read
    /// out, or every few seconds.
    ///
    /// What counts whole things is a counter there, and everything else a gauge, sums of times included,
    /// since counters of the facade are whole numbers. A histogram is the counters `.._bucket`, with a
    /// label `le`, and `.._count`, and the gauge `.._sum`.
    #[cfg(feature = "metrics")]
    pub fn publish_metrics(&self) {
        self.families().into_iter().for_each(Family::publish);
    }
}

#[cfg(feature = "metrics")]
impl Family {
    fn publish(self) {
        let Self { name, help, kind, samples } = self;
        for Sample { suffix, labels, value } in samples {
            let name = format!("{name}{suffix}");
            let labels: Vec<::metrics::Label> =
                labels.into_iter().map(|(label, of)| ::metrics::Label::new(label, of)).collect();
            match value {
                Value::Count(count) if kind != Kind::Gauge => {
                    ::metrics::describe_counter!(name.clone(), help);
                    ::metrics::counter!(name, labels).absolute(count);
                }
                Value::Count(count) => {
                    ::metrics::describe_gauge!(name.clone(), help);
                    ::metrics::gauge!(name, labels).set(count as f64);
                }
                Value::Seconds(seconds) => {
                    ::metrics::describe_gauge!(name.clone(), help);
                    ::metrics::gauge!(name, labels).set(seconds);
                }
            }
        }
    }
}
