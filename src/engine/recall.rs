//! How much of the truth searches find, measured with queries of the caller or with intents that
//! are stored.
//!
//! No lock is taken and no embedding copied: rows of the arena neither move nor go, so a sample is
//! a list of rows, and each row's embedding is a query where it stands.

use tala_core::{IntentId, TalaError};

use super::{Inner, Query, StorageEngine};
use crate::{
    door::check_embedding,
    ids::RowId,
    index::search::Answer,
    random::SplitMix64,
    sync::{atomic::Ordering, now_ns},
};

/// What [`StorageEngine::measure_recall`] measures, a builder by value.
///
/// ```
/// use tala_store::RecallOptions;
/// let options = RecallOptions::new().sample(500).k(5).efs([32, 64, 96]).seed(7);
/// ```
#[derive(Clone, PartialEq, Debug)]
#[must_use]
pub struct RecallOptions {
    queries: Option<Vec<Vec<f32>>>,
    sample: usize,
    k: usize,
    efs: Vec<usize>,
    seed: u64,
}

impl Default for RecallOptions {
    fn default() -> Self {
        Self { queries: None, sample: 200, k: 10, efs: vec![16, 32, 64, 128, 256], seed: 1 }
    }
}

impl RecallOptions {
    /// 200 queries for 10 intents each, at beam widths from 16 to 256.
    pub fn new() -> Self {
        Self::default()
    }

    /// Embeddings to measure with, each `[f32; dim]`, in place of stored intents: the truth about
    /// searches like these. They should not be in the store. The sample and its seed then play no
    /// part.
    pub fn queries(mut self, embeddings: Vec<Vec<f32>>) -> Self {
        self.queries = Some(embeddings);
        self
    }

    /// How many intents are drawn as queries, each at most once; all where there are not so many.
    /// Default 200.
    pub fn sample(mut self, intents: usize) -> Self {
        self.sample = intents;
        self
    }

    /// How many neighbors each query asks for, a query's own intent not counted: the `k` of recall@k.
    /// Default 10.
    pub fn k(mut self, neighbors: usize) -> Self {
        self.k = neighbors;
        self
    }

    /// The beam widths to measure, in this order. A search uses at least `k`, and for a stored
    /// intent `k + 1`, as one answer is the intent itself. Default 16, 32, 64, 128, 256.
    pub fn efs(mut self, candidates: impl IntoIterator<Item = usize>) -> Self {
        self.efs = candidates.into_iter().collect();
        self
    }

    /// What the sample is drawn from: the same rows and the same seed give the same sample.
    /// Default 1.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    fn check(&self) -> Result<(), TalaError> {
        let reason = "must be at least 1";
        let has_queries = self.queries.as_ref().is_none_or(|queries| !queries.is_empty());
        let rules = [
            ("queries", has_queries, "must hold an embedding"),
            ("sample", self.sample > 0, reason),
            ("k", self.k > 0, reason),
            ("efs", !self.efs.is_empty(), "must name a beam width"),
            ("efs", self.efs.iter().all(|ef| *ef > 0), reason),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((option, _, reason)) => Err(TalaError::InvalidOption { option, reason }),
            None => Ok(()),
        }
    }
}

/// What [`StorageEngine::measure_recall`] found.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct RecallReport {
    /// The `k` of recall@k.
    pub k: usize,
    /// How many queries there were; 0 where intents of a store without any were to serve.
    pub queries: u64,
    /// [`StoreStats::rows`](crate::StoreStats::rows) at the beginning.
    pub rows: u64,
    /// [`StoreStats::linked`](crate::StoreStats::linked) at the beginning. Rows from there on are
    /// scanned by every search, so a graph that is behind shows a recall better than its own, and
    /// longer searches.
    pub linked: u64,
    /// Median time of an exact query, in nanoseconds.
    pub exact_p50_ns: u64,
    /// 99th percentile of the time of an exact query, in nanoseconds.
    pub exact_p99_ns: u64,
    /// One entry for each beam width, in the order of the options; none where there is no query.
    pub at: Vec<RecallAt>,
}

/// Recall and time at one beam width.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct RecallAt {
    /// The beam width.
    pub ef: usize,
    /// Recall@k, the mean over all queries, from 0 to 1. A query that has no neighbor to find, as
    /// in a store of one intent, misses none and counts as 1.
    pub recall: f64,
    /// Recall@k of the query that found the least.
    pub worst: f64,
    /// Median time of a search, in nanoseconds.
    pub p50_ns: u64,
    /// 99th percentile of the time of a search, in nanoseconds.
    pub p99_ns: u64,
    /// How many of the searches walked the graph. The others compared every intent, as they do in
    /// a store below `exact_below`, and where the beam width reaches half of the store.
    pub walks: u64,
}

impl RecallReport {
    /// The narrowest beam width measured that has at least this recall, if any has.
    #[must_use]
    pub fn ef_for(&self, recall: f64) -> Option<usize> {
        self.at.iter().filter(|at| at.recall >= recall).map(|at| at.ef).min()
    }
}

impl StorageEngine {
    /// Measures how many of the true nearest neighbors searches find, and how long they take, at
    /// several beam widths.
    ///
    /// The truth comes from exact queries ([`Query::exact`]), and an answer is right when its
    /// similarity is not below that of the true `k`-th.
    ///
    /// The queries are those of [`RecallOptions::queries`]. Without them intents of the store, drawn
    /// at random, serve as queries: each asks for the neighbors of its own embedding, itself left
    /// out. **Such a query is easier than a new one**, because the graph links each intent to its
    /// neighbors already. What it shows is whether the graph holds together and how beam widths
    /// compare; the recall of new queries is lower, a little where embeddings lie in clusters and
    /// very much where they do not.
    ///
    /// It runs on the caller's thread, one search after the other, and holds no lock; it looks at
    /// every row once for each query, and the searches count in [`StorageEngine::metrics`]. Measure
    /// while nothing is written: what comes or goes between the truth and a search blurs the recall,
    /// and a busy machine the times. After [`StorageEngine::wait_indexed`] it is the graph alone
    /// that is measured.
    ///
    /// ```no_run
    /// use tala_store::{RecallOptions, StorageEngine};
    ///
    /// let engine = StorageEngine::options(384).open("tala")?;
    /// let report = engine.measure_recall(&RecallOptions::new())?;
    /// for at in &report.at {
    ///     println!("ef {}: recall@{} {:.3}, {} ns", at.ef, report.k, at.recall, at.p50_ns);
    /// }
    /// println!("0.95 takes an ef of {:?}", report.ef_for(0.95));
    /// # Ok::<(), tala_core::TalaError>(())
    /// ```
    ///
    /// # Errors
    /// [`TalaError::InvalidOption`] where the sample, `k` or a beam width is 0, or there is no beam
    /// width or no query in a list; as for [`StorageEngine::search`] where it refuses a query;
    /// [`TalaError::Stopped`] when the engine is closed, meanwhile too.
    pub fn measure_recall(&self, options: &RecallOptions) -> Result<RecallReport, TalaError> {
        options.check()?;
        let inner = self.inner()?;
        inner.check_readable()?;
        inner.measure_recall(options)
    }
}

/// A query, and what is true of its neighbors.
#[derive(Clone, Copy)]
struct Truth<'a> {
    /// The stored intent that serves as the query.
    id: Option<IntentId>,
    embedding: &'a [f32],
    /// How many neighbors there are to find: `k`, or all where there are fewer.
    count: usize,
    /// The similarity of the last of them.
    least: f32,
}

impl Truth<'_> {
    /// The share of the neighbors that is among `hits`.
    fn recall(&self, hits: &[(IntentId, f32)]) -> f64 {
        if self.count == 0 {
            return 1.0;
        }
        let right =
            others(hits, self.id, self.count).filter(|similarity| *similarity >= self.least);
        right.count() as f64 / self.count as f64
    }
}

/// The similarities of the `k` best hits that are not the intent `id` itself.
fn others(hits: &[(IntentId, f32)], id: Option<IntentId>, k: usize) -> impl Iterator<Item = f32> {
    hits.iter().filter(move |hit| Some(hit.0) != id).map(|hit| hit.1).take(k)
}

impl Inner {
    fn measure_recall(&self, options: &RecallOptions) -> Result<RecallReport, TalaError> {
        let index = &*self.view.index;
        let linked = u64::from(index.linked.load(Ordering::Acquire));
        let rows = u64::from(index.arena.len());
        let queries: Vec<(Option<IntentId>, &[f32])> = match &options.queries {
            Some(queries) => queries.iter().map(|query| (None, query.as_slice())).collect(),
            None => self.draw(options),
        };
        for (_, embedding) in &queries {
            check_embedding(embedding, self.view.dim)?;
        }
        // One more where an intent is its own nearest neighbor.
        let k = options.k.saturating_add(usize::from(options.queries.is_none()));

        let mut truths = Vec::new();
        let mut exact = Times::default();
        for (id, embedding) in queries {
            let answer = self.timed(Query::new(embedding, k).exact(), &mut exact)?;
            let (count, least) = others(&answer.hits, id, options.k)
                .fold((0, f32::NEG_INFINITY), |(count, _), similarity| (count + 1, similarity));
            truths.push(Truth { id, embedding, count, least });
        }

        let mut at = Vec::new();
        if !truths.is_empty() {
            // Exact queries leave rows in the caches that walks have no use for. So the first beam
            // width has a round ahead that does not count.
            if let Some(ef) = options.efs.first() {
                self.measure_at(*ef, k, &truths)?;
            }
            for ef in &options.efs {
                at.push(self.measure_at(*ef, k, &truths)?);
            }
        }
        let queries = truths.len() as u64;
        let (exact_p50_ns, exact_p99_ns) = exact.percentiles();
        Ok(RecallReport { k: options.k, queries, rows, linked, exact_p50_ns, exact_p99_ns, at })
    }

    /// The sample: a reservoir (Vitter 1985, algorithm R) over all rows that are visible.
    fn draw(&self, options: &RecallOptions) -> Vec<(Option<IntentId>, &[f32])> {
        let shared = &*self.view.index;
        let view = shared.view();
        let visible = (0..view.rows_end.0)
            .map(RowId)
            .filter(|row| shared.arena.is_visible(*row, view.snapshot));
        sample(visible, options.sample, options.seed)
            .into_iter()
            .filter_map(|row| Some((Some(shared.arena.id(row)?), shared.arena.row(row)?)))
            .collect()
    }

    /// All queries at one beam width.
    fn measure_at(&self, ef: usize, k: usize, truths: &[Truth<'_>]) -> Result<RecallAt, TalaError> {
        let mut times = Times::default();
        let (mut sum, mut worst, mut walks) = (0.0, 1.0_f64, 0);
        for truth in truths {
            let answer = self.timed(Query::new(truth.embedding, k).ef(ef), &mut times)?;
            let recall = truth.recall(&answer.hits);
            sum += recall;
            worst = worst.min(recall);
            walks += u64::from(answer.is_walked);
        }
        let (p50_ns, p99_ns) = times.percentiles();
        let recall = sum / truths.len() as f64;
        Ok(RecallAt { ef, recall, worst, p50_ns, p99_ns, walks })
    }

    /// Answers a query whose embedding was checked, unless the engine is closed.
    fn timed(&self, query: Query<'_>, times: &mut Times) -> Result<Answer, TalaError> {
        self.check_readable()?;
        let since_ns = now_ns();
        let answer = self.answer(query);
        times.0.push(now_ns().saturating_sub(since_ns));
        Ok(answer)
    }
}

/// `count` of the rows, each as likely as any other and none twice; all where there are fewer.
fn sample(rows: impl Iterator<Item = RowId>, count: usize, seed: u64) -> Vec<RowId> {
    let mut random = SplitMix64(seed);
    let mut drawn = Vec::new();
    for (seen, row) in (0_u64..).zip(rows) {
        if drawn.len() < count {
            drawn.push(row);
            continue;
        }
        let place = usize::try_from(random.below(seen + 1)).unwrap_or(usize::MAX);
        if let Some(place) = drawn.get_mut(place) {
            *place = row;
        }
    }
    drawn
}

/// Times in nanoseconds, in no order.
#[derive(Default)]
struct Times(Vec<u64>);

impl Times {
    /// The median and the 99th percentile, each one of the times (nearest rank); 0 without any.
    fn percentiles(mut self) -> (u64, u64) {
        self.0.sort_unstable();
        let at = |percent: usize| {
            let rank = self.0.len().saturating_mul(percent).div_ceil(100);
            self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        (at(50), at(99))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn rows(count: u32) -> impl Iterator<Item = RowId> {
        (0..count).map(RowId)
    }

    fn id(number: u8) -> IntentId {
        IntentId::from_bytes([number; 16])
    }

    #[test]
    fn a_sample_has_no_row_twice_and_all_rows_where_there_are_few() {
        for (rows_count, count) in [(0, 5), (3, 5), (5, 5), (6, 5), (1_000, 5), (1_000, 999)] {
            for seed in 0..20 {
                let mut drawn = sample(rows(rows_count), count, seed);
                drawn.sort();
                drawn.dedup();
                assert_eq!(drawn.len(), count.min(rows_count as usize));
                assert!(drawn.iter().all(|row| row.0 < rows_count));
            }
        }
    }

    #[test]
    fn the_seed_decides_the_sample_and_no_row_is_preferred() {
        assert_eq!(sample(rows(500), 20, 3), sample(rows(500), 20, 3));
        assert_ne!(sample(rows(500), 20, 3), sample(rows(500), 20, 4));
        // Each of 40 rows is expected in 1,000 of 4,000 samples of 10, with a deviation of 27.
        let mut counts = [0_u32; 40];
        for seed in 0..4_000 {
            for row in sample(rows(40), 10, seed) {
                counts[row.0 as usize] += 1;
            }
        }
        assert!(counts.iter().all(|count| (850..=1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn right_is_what_is_as_similar_as_the_true_last_and_not_the_intent_itself() {
        let truth = Truth { id: Some(id(9)), embedding: &[], count: 3, least: 0.5 };
        let hits = [(id(9), 1.0), (id(1), 0.9), (id(2), 0.5), (id(3), 0.5), (id(4), 0.5)];
        assert_eq!(truth.recall(&hits), 1.0);
        assert_eq!(truth.recall(&hits[1..]), 1.0);
        assert_eq!(truth.recall(&hits[..3]), 2.0 / 3.0);
        assert_eq!(truth.recall(&[(id(9), 1.0), (id(1), 0.9), (id(2), 0.49)]), 1.0 / 3.0);
        assert_eq!(truth.recall(&[]), 0.0);
        // With a query from elsewhere there is nothing to leave out.
        assert_eq!(Truth { id: None, ..truth }.recall(&hits), 1.0);
        assert_eq!(Truth { id: None, ..truth }.recall(&hits[..2]), 2.0 / 3.0);
        assert_eq!(Truth { count: 0, ..truth }.recall(&[]), 1.0);
    }

    #[test]
    fn percentiles_are_times_that_were_taken() {
        assert_eq!(Times::default().percentiles(), (0, 0));
        assert_eq!(Times(vec![7]).percentiles(), (7, 7));
        assert_eq!(Times(vec![3, 1]).percentiles(), (1, 3));
        assert_eq!(Times((1..=200).rev().collect()).percentiles(), (100, 198));
    }
}
