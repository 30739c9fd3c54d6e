//! Medians, spreads and latencies.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// The middle value, or the mean of the two middle ones; none of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// How far apart the rounds are: (largest - smallest) / median; 0 of fewer than two.
pub fn spread(values: &[f64]) -> f64 {
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match median(values) {
        Some(middle) if middle != 0.0 => (largest - smallest) / middle,
        _ => 0.0,
    }
}

/// Latencies of one measurement, 1 ns to 100 s at three digits.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    /// Never with these bounds; the histogram checks them.
    pub fn new() -> Result<Self, Failure> {
        Ok(Self(Histogram::new_with_bounds(1, 100_000_000_000, 3)?))
    }

    /// Counts one; what lasts longer than 100 s counts as 100 s.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds all of `other`.
    ///
    /// # Errors
    /// Never with equal bounds; the histogram checks them.
    pub fn add(&mut self, other: &Self) -> Result<(), Failure> {
        self.0.add(&other.0)?;
        Ok(())
    }

    /// The figures that are reported.
    pub fn summary(&self) -> LatencySummary {
        let quantile = |q| self.0.value_at_quantile(q) as f64 / 1e3;
        LatencySummary {
            count: self.0.len(),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: self.0.max() as f64 / 1e3,
        }
    }

    /// (share, microseconds): so many of all took no longer. From half of them towards all.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        const SHARES: [f64; 13] =
            [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999];
        // A share that fewer than two measurements lie beyond says nothing.
        let is_known = |share: &f64| (1.0 - share) * self.0.len() as f64 >= 2.0;
        SHARES
            .into_iter()
            .filter(is_known)
            .map(|share| (share, self.0.value_at_quantile(share) as f64 / 1e3))
            .collect()
    }
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// How many were measured.
    pub count: u64,
    /// Half are not longer.
    pub p50_us: f64,
    /// 99 of 100 are not longer.
    pub p99_us: f64,
    /// 999 of 1,000 are not longer.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(median(&[9.0, 1.0, 4.0, 6.0]), Some(5.0));
    }

    #[test]
    fn the_spread_is_relative_to_the_median() {
        assert_eq!(spread(&[]), 0.0);
        assert_eq!(spread(&[5.0]), 0.0);
        assert_eq!(spread(&[8.0, 10.0, 12.0]), 0.4);
    }
}
