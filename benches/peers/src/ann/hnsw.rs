//! `hnsw_rs`: a Rust crate with its SIMD on (feature `simdeez_f`, AVX2), over rows of unit length
//! by `DistDot`, which its documentation recommends there. Its `insert` is an insert by one thread,
//! its `parallel_insert` one by as many as its thread pool has. At level 0 it links a new node to up
//! to 2 `M` others, where the paper has `M`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use hnsw_rs::prelude::{DistDot, Distance, Hnsw, Neighbour};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{
    competitor::{Competitor, Job},
    protocol::Opened,
    vectors::Vectors,
};
use crate::{Failure, machine::version_of};

/// As many as the crate allows; levels are drawn far below.
const LAYERS_MAX: usize = 16;

/// `DistDot`, counted. Its own index is made with it, so that the one that is timed pays nothing.
struct Counted(Arc<AtomicU64>);

impl Distance<f32> for Counted {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        self.0.fetch_add(1, Relaxed);
        DistDot.eval(a, b)
    }
}

/// The competitor.
pub struct HnswRs {
    base: Vectors,
    queries: Vectors,
    m: usize,
    ef_construction: usize,
    rows: usize,
    index: Option<Hnsw<'static, f32, DistDot>>,
    /// Of the same rows, made when distances are first to be counted.
    counted: Option<(Hnsw<'static, f32, Counted>, Arc<AtomicU64>)>,
    pool: Option<ThreadPool>,
}

impl HnswRs {
    fn index(&self) -> Result<&Hnsw<'static, f32, DistDot>, Failure> {
        Ok(self.index.as_ref().ok_or("there is no index")?)
    }

    fn make<D: Distance<f32> + Send + Sync>(&self, distance: D) -> Hnsw<'static, f32, D> {
        Hnsw::new(self.m, self.rows, LAYERS_MAX, self.ef_construction, distance)
    }

    fn insert_into<D: Distance<f32> + Send + Sync>(
        &self,
        index: &Hnsw<'static, f32, D>,
        from: usize,
        to: usize,
    ) {
        let rows = (from..to).map(|row| (self.base.row(row), row));
        match &self.pool {
            None => rows.for_each(|row| index.insert_slice(row)),
            Some(pool) => {
                let rows: Vec<_> = rows.collect();
                pool.install(|| index.parallel_insert_slice(&rows));
            }
        }
    }
}

impl Competitor for HnswRs {
    type Found = Vec<Neighbour>;

    fn open(job: &Job<'_>) -> Result<Self, Failure> {
        Ok(Self {
            base: Vectors::of_unit_length(&job.folder.join("base.f32"), job.dim)?,
            queries: Vectors::of_unit_length(&job.folder.join("queries.f32"), job.dim)?,
            m: job.m,
            ef_construction: job.ef_construction,
            rows: job.rows,
            index: None,
            counted: None,
            pool: None,
        })
    }

    fn opened(&self) -> Opened {
        Opened {
            version: format!("{}, {}", version_of("hnsw_rs"), version_of("anndists")),
            how: "feature simdeez_f (AVX2 by run-time detection), DistDot on rows of unit length, \
                  16 layers at most, capacity given; parallel_insert where threads are many; its \
                  set_searching_mode changes nothing in this version and is not called; \
                  distances are counted in a second, untimed index of the same rows"
                .to_owned(),
            incremental: true,
            counts_visits: true,
            reports_bytes: false,
            has_ef: true,
            links_later: false,
        }
    }

    fn base(&self) -> &Vectors {
        &self.base
    }

    fn queries(&self) -> &Vectors {
        &self.queries
    }

    fn reset(&mut self, threads: usize) -> Result<(), Failure> {
        self.index = None;
        self.counted = None;
        self.pool = match threads {
            1 => None,
            _ => Some(ThreadPoolBuilder::new().num_threads(threads).build()?),
        };
        self.index = Some(self.make(DistDot));
        Ok(())
    }

    fn insert(&self, from: usize, to: usize) -> Result<(), Failure> {
        self.insert_into(self.index()?, from, to);
        Ok(())
    }

    fn search(&self, query: &[f32], ef: usize, k: usize) -> Result<Self::Found, Failure> {
        Ok(self.index()?.search(query, k, ef))
    }

    fn rows_of(found: Self::Found) -> Vec<u64> {
        found.into_iter().map(|neighbor| neighbor.d_id as u64).collect()
    }

    fn visits(&mut self, ef: usize, k: usize) -> Result<f64, Failure> {
        if self.counted.is_none() {
            let counter = Arc::<AtomicU64>::default();
            let index = self.make(Counted(Arc::clone(&counter)));
            self.insert_into(&index, 0, self.rows);
            self.counted = Some((index, counter));
        }
        let (index, counter) = self.counted.as_ref().ok_or("nothing to count by")?;
        let before = counter.load(Relaxed);
        for query in 0..self.queries.len() {
            index.search(self.queries.row(query), k, ef);
        }
        Ok((counter.load(Relaxed) - before) as f64 / self.queries.len() as f64)
    }

    fn add(&self, _first_number: usize, _rows: &[f32], _wait: bool) -> Result<(), Failure> {
        Err("its documentation: \"it is not possible to do parallel insertion and parallel \
             searching simultaneously in different threads\""
            .into())
    }
}
