//! From answers to figures: which rows are right, and how fast one is at a level of recall.

use std::collections::HashSet;

use crate::data::DataSet;

/// How much less similar than the true `k`-th a row may be and still be right: what rounding in
/// f32 leaves.
const SLACK: f64 = 1e-6;

/// What is known about the queries.
pub struct Truth {
    k: usize,
    /// Of each query's true `k`-th neighbor.
    least: Vec<f64>,
}

impl Truth {
    /// Looks at the exact similarities.
    pub fn new(data: &DataSet, k: usize) -> Self {
        Self { k, least: data.similarity_at(k) }
    }

    /// The share of the rows found for the first queries that are right, of `k` for each. Rows
    /// that are as similar as the `k`-th are as right as it is; one that is returned twice counts
    /// once.
    pub fn recall(&self, data: &DataSet, found: &[Vec<u64>]) -> f64 {
        let right: usize = found
            .iter()
            .zip(&self.least)
            .enumerate()
            .map(|(query, (rows, least))| {
                let rows: HashSet<usize> = rows
                    .iter()
                    .take(self.k)
                    .filter_map(|row| usize::try_from(*row).ok())
                    .filter(|row| *row < data.base.len())
                    .collect();
                rows.into_iter().filter(|row| data.similarity(query, *row) >= least - SLACK).count()
            })
            .sum();
        right as f64 / (self.k * found.len()).max(1) as f64
    }
}

/// A point of a sweep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// From 0 to 1.
    pub recall: f64,
    /// Queries per second.
    pub qps: f64,
}

/// Queries per second where a sweep, widest beam last, first reaches `recall`: on the logarithm of
/// the rate, between the two points around it. None where it never does; the first point's where
/// even that one is above.
pub fn qps_at(sweep: &[Point], recall: f64) -> Option<f64> {
    let above = sweep.iter().position(|point| point.recall >= recall)?;
    let high = sweep[above];
    let Some(low) = above.checked_sub(1).map(|below| sweep[below]) else {
        return Some(high.qps);
    };
    let part = (recall - low.recall) / (high.recall - low.recall);
    Some(low.qps * (high.qps / low.qps).powf(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Made, Shape, make};

    fn sweep(points: &[(f64, f64)]) -> Vec<Point> {
        points.iter().map(|&(recall, qps)| Point { recall, qps }).collect()
    }

    fn assert_close(rate: Option<f64>, expected: f64) {
        let rate = rate.unwrap();
        assert!((rate / expected - 1.0).abs() < 1e-9, "{rate}, not {expected}");
    }

    #[test]
    fn rates_are_interpolated_on_their_logarithm() {
        let sweep = sweep(&[(0.8, 10_000.0), (0.9, 4_000.0), (0.98, 1_000.0)]);
        assert_close(qps_at(&sweep, 0.7), 10_000.0);
        assert_close(qps_at(&sweep, 0.9), 4_000.0);
        assert_close(qps_at(&sweep, 0.94), 2_000.0);
        assert_eq!(qps_at(&sweep, 0.99), None);
        assert_eq!(qps_at(&[], 0.5), None);
    }

    #[test]
    fn the_first_time_counts_where_recall_falls_again() {
        let sweep = sweep(&[(0.8, 9_000.0), (0.9, 4_000.0), (0.89, 3_000.0), (0.95, 1_000.0)]);
        assert_close(qps_at(&sweep, 0.9), 4_000.0);
        assert!(qps_at(&sweep, 0.91).unwrap() < 3_000.0);
    }

    #[test]
    fn rows_as_similar_as_the_last_true_one_are_right_and_repeated_ones_count_once() {
        let dir = tempfile::tempdir().unwrap();
        let made = Made { shape: Shape::Clustered, rows: 200, queries: 3, dim: 8, seed: 5 };
        let data = DataSet::open(make(dir.path(), made).unwrap()).unwrap();
        let truth = Truth::new(&data, 10);
        let best = |query: usize| {
            let mut rows: Vec<usize> = (0..200).collect();
            rows.sort_by(|a, b| data.similarity(query, *b).total_cmp(&data.similarity(query, *a)));
            rows.into_iter().map(|row| row as u64).collect::<Vec<u64>>()
        };
        let found: Vec<Vec<u64>> = (0..3).map(|query| best(query)[..10].to_vec()).collect();
        assert_eq!(truth.recall(&data, &found), 1.0);
        let shifted: Vec<Vec<u64>> = (0..3).map(|query| best(query)[5..15].to_vec()).collect();
        assert_eq!(truth.recall(&data, &shifted), 0.5);
        let repeated: Vec<Vec<u64>> = (0..3).map(|query| vec![best(query)[0]; 10]).collect();
        assert_eq!(truth.recall(&data, &repeated), 0.1);
        // One query of two: what was not asked for does not count, what does not exist is wrong.
        assert_eq!(truth.recall(&data, &[best(0)[..5].to_vec(), vec![u64::MAX, 200]]), 0.25);
    }
}
