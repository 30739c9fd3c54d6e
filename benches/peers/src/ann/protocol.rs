//! What the driver asks a competitor, and what it answers. `worker.rs` tells how it travels.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::stats::LatencySummary;

/// Everything that a competitor may be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// Load the vectors and say who you are. There is no index yet.
    Open {
        /// Holds `base.f32` and `queries.f32`.
        folder: PathBuf,
        /// Components of a vector.
        dim: usize,
        /// Neighbors of a node above the lowest level.
        m: usize,
        /// Beam width while building.
        ef_construction: usize,
        /// Of the base.
        rows: usize,
        /// For whatever is drawn.
        seed: u64,
    },
    /// How much memory do you hold?
    Memory,
    /// Drop the index; make an empty one, to be built by that many threads.
    Reset {
        /// At least 1.
        threads: usize,
    },
    /// Index the rows `[from, to)` of the base under their numbers.
    Insert {
        /// The first.
        from: usize,
        /// One past the last.
        to: usize,
    },
    /// Search for the queries `[from, to)`.
    Search {
        /// Beam width.
        ef: usize,
        /// Rows per answer.
        k: usize,
        /// The first query.
        from: usize,
        /// One past the last.
        to: usize,
        /// Thread t takes the queries t, t + `threads`, ... of them.
        threads: usize,
        /// By the competitor's own call for many queries; else one query per call.
        batched: bool,
        /// How often over all of them.
        repeat: usize,
        /// So many other queries, those before `from` or else the last ones, are searched for
        /// first, outside the measurement and by every thread: caches are cold after another's
        /// turn.
        warm_up: usize,
        /// Whether the answer tells what was found.
        answers: bool,
    },
    /// Distances computed per query, in an untimed pass over all queries.
    Visits {
        /// Beam width.
        ef: usize,
        /// Rows per answer.
        k: usize,
    },
    /// One thread searches and takes the time of every call, another inserts new rows or does not.
    Beside {
        /// Beam width.
        ef: usize,
        /// Rows per answer.
        k: usize,
        /// How long.
        seconds: f64,
        /// Whether the other thread inserts.
        write: bool,
        /// Whether it waits until its rows are in the index; only for those that insert first and
        /// index later, all others wait anyhow.
        #[serde(default = "yes")]
        wait_linked: bool,
    },
}

fn yes() -> bool {
    true
}

/// Answers [`Request::Open`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Name and version of what was built.
    pub version: String,
    /// How it is used, in a sentence.
    pub how: String,
    /// Whether rows can be added to what is there; else one insert has them all.
    pub incremental: bool,
    /// Whether [`Request::Visits`] can be answered.
    pub counts_visits: bool,
    /// Whether `reported_bytes` is ever there.
    pub reports_bytes: bool,
    /// Whether the beam width means anything.
    #[serde(default = "yes")]
    pub has_ef: bool,
    /// Whether rows are found as soon as they are inserted, and indexed later.
    #[serde(default)]
    pub links_later: bool,
}

/// Answers [`Request::Memory`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryAnswer {
    /// Resident and backed by no file.
    pub anonymous_bytes: u64,
    /// What the index says about itself.
    pub reported_bytes: Option<u64>,
}

/// Answers [`Request::Reset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Answers [`Request::Insert`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inserted {
    /// Until all rows were in the index.
    pub seconds: f64,
    /// Processor time of all threads meanwhile, those of the competitor's own included.
    pub cpu_s: f64,
}

/// Answers [`Request::Search`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Searched {
    /// Of all passes.
    pub seconds: f64,
    /// Processor time of all threads meanwhile.
    pub cpu_s: f64,
    /// For each query the rows found by the last pass, best first; nothing unless asked for.
    pub found: Vec<Vec<u64>>,
}

/// Answers [`Request::Visits`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Visited {
    /// Distances computed per query.
    pub mean: f64,
}

/// Answers [`Request::Beside`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Besides {
    /// Of every search.
    pub latency: LatencySummary,
    /// Searches by the one thread.
    pub searches_per_s: f64,
    /// Rows inserted by the other.
    pub inserted_per_s: f64,
}

/// Any of the answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Request::Open`].
    Opened(Opened),
    /// To [`Request::Memory`].
    Memory(MemoryAnswer),
    /// To [`Request::Reset`].
    Done(Done),
    /// To [`Request::Insert`].
    Inserted(Inserted),
    /// To [`Request::Search`].
    Searched(Searched),
    /// To [`Request::Visits`].
    Visited(Visited),
    /// To [`Request::Beside`].
    Besides(Besides),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_one_flat_object_as_other_languages_expect_them() {
        let request = Request::Insert { from: 0, to: 2_000 };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(text, r#"{"do":"insert","from":0,"to":2000}"#);
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        assert_eq!(serde_json::to_string(&Request::Memory).unwrap(), r#"{"do":"memory"}"#);
    }

    #[test]
    fn what_an_answer_may_leave_out_has_its_usual_meaning() {
        let opened: Opened = serde_json::from_str(
            r#"{"version":"x 1","how":"so","incremental":false,"counts_visits":false,"reports_bytes":true}"#,
        )
        .unwrap();
        assert!(opened.has_ef && !opened.links_later);
    }
}
