//! `usearch`: a C++ library behind a Rust crate, in four ways. Its own kernels (NumKong) are its
//! default feature and choose themselves by the processor. Rows are at unit length, so that the
//! inner product is the cosine. Room for all rows is made before the clock starts, as its
//! documentation advises.
//!
//! - `usearch-f32`: as cargo builds it. NumKong adds products of f32 up in f64.
//! - `usearch-f32-fast`: its metric replaced by simsimd's f32 inner product, through
//!   `change_metric`, which its documentation offers for that.
//! - `usearch-f16`, `usearch-i8`: its own narrower codes and kernels; answers are ranked by the
//!   codes, as usearch does not keep the rows.
//! - `usearch-i8-cos`: the same 8 bits by their cosine. A code's length is not exactly that of its
//!   row, so the two metrics differ: this one finds a little more, the other one is faster.

use std::{
    marker::PhantomData,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use simsimd::SpatialSimilarity;
use usearch::{Index, IndexOptions, MetricKind, ScalarKind, VectorType, ffi::Matches};

use super::{
    competitor::{Competitor, Job},
    exact::simd_of_simsimd,
    protocol::Opened,
    vectors::Vectors,
};
use crate::Failure;

/// Counts calls of a metric.
type Counter = Arc<AtomicU64>;

/// One way to use it.
pub trait Kind: Send + Sync {
    /// In which it keeps rows.
    const CODE: ScalarKind;
    /// By which it compares them.
    const METRIC: MetricKind;
    /// Whether its own kernel is replaced.
    const IS_REPLACED: bool;

    /// Replaces the metric by simsimd's of the same meaning, counted or not.
    fn replace_metric(index: &mut Index, dim: usize, counter: Option<Counter>);
}

/// f32 as it comes.
pub struct F32;
/// f32 with another's kernel.
pub struct F32Fast;
/// Half precision.
pub struct F16;
/// 8 bits.
pub struct I8;
/// 8 bits, compared by the cosine of the codes.
pub struct I8Cos;

impl Kind for F32 {
    const CODE: ScalarKind = ScalarKind::F32;
    const METRIC: MetricKind = MetricKind::IP;
    const IS_REPLACED: bool = false;

    fn replace_metric(index: &mut Index, dim: usize, counter: Option<Counter>) {
        replace(index, dim, counter, |a: &[f32], b| 1.0 - f32::dot(a, b).unwrap_or_default());
    }
}

impl Kind for F32Fast {
    const CODE: ScalarKind = F32::CODE;
    const METRIC: MetricKind = F32::METRIC;
    const IS_REPLACED: bool = true;

    fn replace_metric(index: &mut Index, dim: usize, counter: Option<Counter>) {
        F32::replace_metric(index, dim, counter);
    }
}

impl Kind for F16 {
    const CODE: ScalarKind = ScalarKind::F16;
    const METRIC: MetricKind = MetricKind::IP;
    const IS_REPLACED: bool = false;

    fn replace_metric(index: &mut Index, dim: usize, counter: Option<Counter>) {
        replace(index, dim, counter, |a: &[usearch::f16], b| {
            1.0 - simsimd::f16::dot(halves(a), halves(b)).unwrap_or_default()
        });
    }
}

impl Kind for I8 {
    const CODE: ScalarKind = ScalarKind::I8;
    const METRIC: MetricKind = MetricKind::IP;
    const IS_REPLACED: bool = false;

    fn replace_metric(index: &mut Index, dim: usize, counter: Option<Counter>) {
        replace(index, dim, counter, |a: &[i8], b| 1.0 - i8::dot(a, b).unwrap_or_default());
    }
}

impl Kind for I8Cos {
    const CODE: ScalarKind = ScalarKind::I8;
    const METRIC: MetricKind = MetricKind::Cos;
    const IS_REPLACED: bool = false;

    fn replace_metric(index: &mut Index, dim: usize, counter: Option<Counter>) {
        replace(index, dim, counter, |a: &[i8], b| i8::cosine(a, b).unwrap_or_default());
    }
}

/// The same bits under the name that simsimd has for them.
fn halves(values: &[usearch::f16]) -> &[simsimd::f16] {
    // SAFETY: both types are one 16-bit integer that holds the bits of an IEEE 754 half; the
    // lengths are in elements of the same size.
    unsafe { slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

fn replace<T: VectorType + 'static>(
    index: &mut Index,
    dim: usize,
    counter: Option<Counter>,
    metric: impl Fn(&[T], &[T]) -> f64 + Send + Sync + 'static,
) {
    let distance = move |a: *const T, b: *const T| {
        // SAFETY: usearch calls its metric with two vectors of the index's own dimension and code,
        // which is what the index was made with; both live as long as the call.
        let (a, b) = unsafe { (slice::from_raw_parts(a, dim), slice::from_raw_parts(b, dim)) };
        metric(a, b) as f32
    };
    match counter {
        None => index.change_metric::<T>(Box::new(distance)),
        Some(counter) => index.change_metric::<T>(Box::new(move |a, b| {
            counter.fetch_add(1, Relaxed);
            distance(a, b)
        })),
    }
}

/// The competitor, in one of its ways.
pub struct Usearch<K> {
    base: Vectors,
    queries: Vectors,
    options: IndexOptions,
    /// That the index is made with room for.
    rows: usize,
    index: Option<Index>,
    threads: usize,
    kind: PhantomData<K>,
}

impl<K: Kind> Usearch<K> {
    fn index(&self) -> Result<&Index, Failure> {
        Ok(self.index.as_ref().ok_or("there is no index")?)
    }

    fn make(&self) -> Result<Index, Failure> {
        let mut index = Index::new(&self.options)?;
        if K::IS_REPLACED {
            K::replace_metric(&mut index, self.options.dimensions, None);
        }
        Ok(index)
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

impl<K: Kind> Competitor for Usearch<K> {
    type Found = Matches;

    fn open(job: &Job<'_>) -> Result<Self, Failure> {
        Ok(Self {
            base: Vectors::of_unit_length(&job.folder.join("base.f32"), job.dim)?,
            queries: Vectors::of_unit_length(&job.folder.join("queries.f32"), job.dim)?,
            options: IndexOptions {
                dimensions: job.dim,
                metric: K::METRIC,
                quantization: K::CODE,
                connectivity: job.m,
                expansion_add: job.ef_construction,
                expansion_search: 0,
                multi: false,
            },
            rows: job.rows,
            index: None,
            threads: 1,
            kind: PhantomData,
        })
    }

    fn opened(&self) -> Opened {
        let kernel = if K::IS_REPLACED {
            format!("metric replaced by simsimd's f32 inner product ({})", simd_of_simsimd())
        } else {
            let chosen = Index::new(&self.options)
                .map_or_else(|error| error.to_string(), |index| index.hardware_acceleration());
            format!("its own kernels (NumKong), which chose {chosen}")
        };
        Opened {
            version: format!("usearch {}", usearch::version()),
            how: format!(
                "{:?} codes, {:?} on rows of unit length, {kernel}; C++ at -O3 -ffast-math without \
                 -march; room reserved before",
                K::CODE,
                K::METRIC,
            ),
            incremental: true,
            counts_visits: true,
            reports_bytes: true,
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
        let index = self.make()?;
        index.reserve_capacity_and_threads(self.rows, threads.max(cores()))?;
        self.index = Some(index);
        self.threads = threads;
        Ok(())
    }

    fn insert(&self, from: usize, to: usize) -> Result<(), Failure> {
        let index = self.index()?;
        let next = AtomicUsize::new(from);
        let insert = || -> Result<(), Failure> {
            loop {
                let row = next.fetch_add(1, Relaxed);
                if row >= to {
                    return Ok(());
                }
                index.add(row as u64, self.base.row(row))?;
            }
        };
        if self.threads == 1 {
            return insert();
        }
        thread::scope(|scope| {
            let clients: Vec<_> = (0..self.threads).map(|_| scope.spawn(insert)).collect();
            clients
                .into_iter()
                .try_for_each(|client| client.join().map_err(|_| "an inserting thread panicked")?)
        })
    }

    fn reported_bytes(&self) -> Option<u64> {
        self.index.as_ref().map(|index| index.memory_usage() as u64)
    }

    fn aim(&self, ef: usize) {
        if let Some(index) = &self.index {
            index.change_expansion_search(ef);
        }
    }

    fn search(&self, query: &[f32], _ef: usize, k: usize) -> Result<Self::Found, Failure> {
        Ok(self.index()?.search(query, k)?)
    }

    fn rows_of(found: Self::Found) -> Vec<u64> {
        found.keys
    }

    /// With a metric that counts; the one that was measured is put back.
    fn visits(&mut self, ef: usize, k: usize) -> Result<f64, Failure> {
        self.aim(ef);
        let dim = self.options.dimensions;
        let counter = Counter::default();
        let index = self.index.as_mut().ok_or("there is no index")?;
        K::replace_metric(index, dim, Some(Arc::clone(&counter)));
        for query in 0..self.queries.len() {
            index.search(self.queries.row(query), k)?;
        }
        if K::IS_REPLACED {
            K::replace_metric(index, dim, None);
        } else {
            index.change_metric_kind(K::METRIC)?;
        }
        Ok(counter.load(Relaxed) as f64 / self.queries.len() as f64)
    }

    fn reserve(&self, more: usize) -> Result<(), Failure> {
        let index = self.index()?;
        Ok(index.reserve_capacity_and_threads(index.size() + more, self.threads.max(cores()))?)
    }

    fn add(&self, first_number: usize, rows: &[f32], _wait: bool) -> Result<(), Failure> {
        let index = self.index()?;
        for (number, row) in (first_number..).zip(rows.chunks_exact(self.options.dimensions)) {
            index.add(number as u64, row)?;
        }
        Ok(())
    }
}
