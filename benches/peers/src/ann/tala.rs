//! `tala-store`: a [`StorageEngine`] in memory through its public interface, with its default
//! options (which are `M` 16 and `ef_construction` 200), its metrics on as they always are. It does
//! more than an index does: an insert stores the whole record, found by id and by time as well.
//! Its rows are handed over by one thread and linked by as many as the build is allowed
//! (`index_threads`); its processor time has those and the log's in it.
//!
//! Built twice, with a beam as wide as everybody's and with one that is twice as wide (`-wide`): that one
//! takes about as long to build as SymphonyQG does, so that the two can be held against each other.

use std::{sync::atomic::Ordering::Relaxed, thread};

use tala_core::{Intent, IntentId};
use tala_store::{EngineOptions, Query, StorageEngine};

use super::{
    competitor::{Competitor, Job},
    protocol::Opened,
    vectors::Vectors,
};
use crate::{Failure, machine::version_of};

/// Rows of one `insert_batch`.
const BATCH: usize = 500;

/// The competitor, with a beam `WIDER` times as wide while building.
pub struct Tala<const WIDER: usize> {
    base: Vectors,
    queries: Vectors,
    dim: usize,
    m: usize,
    ef_construction: usize,
    engine: Option<StorageEngine>,
    threads: usize,
}

impl<const WIDER: usize> Tala<WIDER> {
    fn engine(&self) -> Result<&StorageEngine, Failure> {
        Ok(self.engine.as_ref().ok_or("there is no index")?)
    }

    /// Of the next engine.
    fn options(&self) -> EngineOptions {
        StorageEngine::options(self.dim)
            .m(self.m)
            .ef_construction(self.ef_construction)
            .index_threads(self.threads)
    }

    fn insert_rows(&self, from: usize, to: usize) -> Result<(), Failure> {
        let engine = self.engine()?;
        for start in (from..to).step_by(BATCH) {
            let numbers = start..to.min(start + BATCH);
            let intents = numbers.map(|number| intent(number, self.base.row(number))).collect();
            engine.insert_batch(intents)?;
        }
        Ok(())
    }
}

fn intent(number: usize, row: &[f32]) -> Intent {
    Intent {
        id: IntentId::from_bytes((number as u128).to_be_bytes()),
        timestamp: number as u64,
        raw_command: String::new(),
        embedding: row.to_vec(),
        context_hash: 0,
        parent_ids: Vec::new(),
        outcome: None,
        confidence: 1.0,
    }
}

impl<const WIDER: usize> Competitor for Tala<WIDER> {
    type Found = Vec<(IntentId, f32)>;

    fn open(job: &Job<'_>) -> Result<Self, Failure> {
        Ok(Self {
            base: Vectors::raw(&job.folder.join("base.f32"), job.dim)?,
            queries: Vectors::raw(&job.folder.join("queries.f32"), job.dim)?,
            dim: job.dim,
            m: job.m,
            ef_construction: job.ef_construction * WIDER,
            engine: None,
            threads: 1,
        })
    }

    fn opened(&self) -> Opened {
        Opened {
            version: format!("{} of this tree", version_of("tala-store")),
            how: format!(
                "in memory, public interface, default options but ef_construction {}, metrics on; \
                 insert_batch of {BATCH} rows each with its whole record, then wait_indexed; as many \
                 threads of its own link (index_threads) as insert; any vector length, not only unit \
                 length; says of itself: StoreStats::index_bytes and the f32 rows",
                self.ef_construction
            ),
            incremental: true,
            counts_visits: true,
            reports_bytes: true,
            has_ef: true,
            links_later: true,
        }
    }

    fn base(&self) -> &Vectors {
        &self.base
    }

    fn queries(&self) -> &Vectors {
        &self.queries
    }

    fn reset(&mut self, threads: usize) -> Result<(), Failure> {
        // The old one goes first, or both would hold memory at once.
        if let Some(engine) = self.engine.take() {
            engine.close()?;
        }
        self.threads = threads;
        self.engine = Some(self.options().in_memory()?);
        Ok(())
    }

    fn insert(&self, from: usize, to: usize) -> Result<(), Failure> {
        if self.threads == 1 {
            self.insert_rows(from, to)?;
        } else {
            let share = (to - from).div_ceil(self.threads).max(1);
            thread::scope(|scope| {
                let clients: Vec<_> = (from..to)
                    .step_by(share)
                    .map(|start| {
                        scope.spawn(move || self.insert_rows(start, to.min(start + share)))
                    })
                    .collect();
                clients.into_iter().try_for_each(|client| {
                    client.join().map_err(|_| "an inserting thread panicked")?
                })
            })?;
        }
        Ok(self.engine()?.wait_indexed()?)
    }

    fn reported_bytes(&self) -> Option<u64> {
        let stats = self.engine().ok()?.stats();
        Some(stats.index_bytes + stats.rows * 4 * self.dim as u64)
    }

    fn search(&self, query: &[f32], ef: usize, k: usize) -> Result<Self::Found, Failure> {
        Ok(self.engine()?.search(Query::new(query, k).ef(ef))?)
    }

    fn rows_of(found: Self::Found) -> Vec<u64> {
        found.into_iter().map(|(id, _)| u128::from_be_bytes(*id.as_bytes()) as u64).collect()
    }

    /// From the metrics that every user has.
    fn visits(&mut self, ef: usize, k: usize) -> Result<f64, Failure> {
        let metrics = self.engine()?.metrics();
        let counts = || {
            let visited = metrics.hnsw_search_visited.load(Relaxed);
            (visited, metrics.hnsw_search_count.load(Relaxed))
        };
        let before = counts();
        for query in 0..self.queries.len() {
            self.search(self.queries.row(query), ef, k)?;
        }
        let after = counts();
        if after.1 - before.1 < self.queries.len() as u64 {
            return Err("searches were answered by a scan".into());
        }
        Ok((after.0 - before.0) as f64 / (after.1 - before.1) as f64)
    }

    fn add(&self, first_number: usize, rows: &[f32], wait_linked: bool) -> Result<(), Failure> {
        let engine = self.engine()?;
        let intents = (first_number..)
            .zip(rows.chunks_exact(self.dim))
            .map(|(number, row)| intent(number, row))
            .collect();
        engine.insert_batch(intents)?;
        if wait_linked {
            engine.wait_indexed()?;
        }
        Ok(())
    }
}
