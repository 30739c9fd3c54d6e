//! How long every kind of operation took.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    failure::Failure,
    render::{self, Column, Table},
};

/// The kinds of operations, as the table names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Insert,
    TryInsert,
    Async,
    Batch,
    Outcome,
    Remove,
    Get,
    Range,
    RangeAll,
    Search,
    SearchAll,
    Sync,
    Flush,
}

impl Kind {
    pub(super) const NAMES: [&'static str; 13] = [
        "insert",
        "try_insert",
        "insert_async",
        "insert_batch",
        "attach_outcome",
        "remove",
        "get",
        "range",
        "range, all",
        "search",
        "search, exact",
        "sync",
        "flush",
    ];
}

/// No call is slower than a histogram can tell: ten minutes, in nanoseconds.
const CALL_NS_MAX: u64 = 600_000_000_000;

/// A histogram for each kind; a thread has its own.
pub(super) struct Latencies(Vec<Histogram<u64>>);

impl Latencies {
    pub(super) fn new() -> Result<Self, Failure> {
        let histogram = || Histogram::new_with_bounds(1, CALL_NS_MAX, 3);
        let all: Result<Vec<_>, _> = Kind::NAMES.iter().map(|_| histogram()).collect();
        Ok(Self(all.map_err(|error| Failure::Other(error.to_string()))?))
    }

    pub(super) fn record(&mut self, kind: Kind, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0[kind as usize].saturating_record(ns.max(1));
    }

    pub(super) fn add(&mut self, other: &Self) -> Result<(), Failure> {
        for (all, more) in self.0.iter_mut().zip(&other.0) {
            all.add(more).map_err(|error| Failure::Other(error.to_string()))?;
        }
        Ok(())
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(Histogram::len).sum()
    }

    pub(super) fn lines(&self, seconds: f64) -> Vec<Line> {
        let line = |(operation, histogram): (&&'static str, &Histogram<u64>)| Line {
            operation,
            count: histogram.len(),
            per_second: histogram.len() as f64 / seconds,
            p50_ns: histogram.value_at_quantile(0.5),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
        };
        Kind::NAMES.iter().zip(&self.0).map(line).collect()
    }
}

/// A line of the table.
#[derive(Serialize, Debug)]
pub(super) struct Line {
    operation: &'static str,
    count: u64,
    per_second: f64,
    p50_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
}

pub(super) fn table(lines: &[Line]) -> Table {
    let mut columns = vec![Column::left("operation")];
    columns.extend(["count", "a second", "p50", "p99", "p99.9", "max"].map(Column::right));
    let mut table = Table::new(columns, 0);
    for line in lines {
        let mut cells = vec![
            line.operation.to_owned(),
            line.count.to_string(),
            format!("{:.0}", line.per_second),
        ];
        cells.extend([line.p50_ns, line.p99_ns, line.p999_ns, line.max_ns].map(render::duration));
        table.push(cells, None);
    }
    table
}
