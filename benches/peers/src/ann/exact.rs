//! `exact`: every row is compared with the query. No index, no memory of its own, nothing missed:
//! what the others are faster than, and a check that the truth is true. simsimd multiplies the
//! mapped rows; a row is then a candidate or not by one comparison.

use std::collections::BinaryHeap;

use simsimd::SpatialSimilarity;

use super::{
    competitor::{Competitor, Job},
    protocol::Opened,
    vectors::Vectors,
};
use crate::{Failure, machine::version_of};

/// The competitor.
pub struct Exact {
    base: Vectors,
    queries: Vectors,
}

/// A row and its distance; the furthest on top of a heap.
#[derive(PartialEq)]
pub struct Hit {
    distance: f64,
    row: u64,
}

impl Eq for Hit {}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Hit {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.distance.total_cmp(&other.distance).then(self.row.cmp(&other.row))
    }
}

impl Competitor for Exact {
    type Found = BinaryHeap<Hit>;

    fn open(job: &Job<'_>) -> Result<Self, Failure> {
        Ok(Self {
            base: Vectors::of_unit_length(&job.folder.join("base.f32"), job.dim)?,
            queries: Vectors::of_unit_length(&job.folder.join("queries.f32"), job.dim)?,
        })
    }

    fn opened(&self) -> Opened {
        Opened {
            version: format!("exact scan, {}", version_of("simsimd")),
            how: format!(
                "every row of the mapped file is compared, by simsimd's f32 inner product ({})",
                simd_of_simsimd()
            ),
            incremental: true,
            counts_visits: true,
            reports_bytes: false,
            has_ef: false,
            links_later: false,
        }
    }

    fn base(&self) -> &Vectors {
        &self.base
    }

    fn queries(&self) -> &Vectors {
        &self.queries
    }

    fn reset(&mut self, _threads: usize) -> Result<(), Failure> {
        Ok(())
    }

    fn insert(&self, _from: usize, _to: usize) -> Result<(), Failure> {
        Ok(())
    }

    fn search(&self, query: &[f32], _ef: usize, k: usize) -> Result<Self::Found, Failure> {
        let mut best = BinaryHeap::with_capacity(k + 1);
        let mut worst = f64::INFINITY;
        for index in 0..self.base.len() {
            let distance = 1.0 - dot(self.base.row(index), query);
            if distance < worst || best.len() < k {
                best.push(Hit { distance, row: index as u64 });
                if best.len() > k {
                    best.pop();
                }
                if best.len() == k {
                    worst = best.peek().map_or(f64::INFINITY, |hit| hit.distance);
                }
            }
        }
        Ok(best)
    }

    fn rows_of(found: Self::Found) -> Vec<u64> {
        found.into_sorted_vec().into_iter().map(|hit| hit.row).collect()
    }

    fn visits(&mut self, _ef: usize, _k: usize) -> Result<f64, Failure> {
        Ok(self.base.len() as f64)
    }

    fn add(&self, _first_number: usize, _rows: &[f32], _wait: bool) -> Result<(), Failure> {
        Err("there is no index to insert into".into())
    }
}

/// Inner product of vectors of one length; 0 of others, which there are none of.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    f32::dot(a, b).unwrap_or_default()
}

/// The widest extension that simsimd found. Asking also makes it choose its kernels.
pub fn simd_of_simsimd() -> &'static str {
    use simsimd::capabilities as has;
    if has::uses_sapphire() {
        "AVX-512 with FP16"
    } else if has::uses_genoa() {
        "AVX-512 with BF16"
    } else if has::uses_ice() {
        "AVX-512 with VNNI"
    } else if has::uses_skylake() {
        "AVX-512"
    } else if has::uses_haswell() {
        "AVX2"
    } else if has::uses_neon() {
        "NEON"
    } else {
        "no SIMD"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_and_equal_ones_by_number() {
        let row = |angle: f32| [angle.cos(), angle.sin()];
        let values: Vec<f32> = [0.3, 0.1, 0.9, 0.1, 0.0].into_iter().flat_map(row).collect();
        let exact = Exact {
            base: Vectors::Scaled { values, dim: 2 },
            queries: Vectors::Scaled { values: Vec::new(), dim: 2 },
        };
        let rows = |k| Exact::rows_of(exact.search(&[1.0, 0.0], 0, k).unwrap());
        assert_eq!(rows(3), [4, 1, 3]);
        assert_eq!(rows(2), [4, 1]);
        assert_eq!(rows(9), [4, 1, 3, 0, 2]);
    }
}
