//! Whether codes are good enough to walk by.
//!
//! A code is right to about a hundredth of a vector's length. Among vectors that differ by less (a
//! dense clump, few dimensions, one coordinate that dwarfs all others) a walk over codes finds
//! anybody of the clump, and ranking what it found cannot mend that. So while rows are linked, the
//! distances of codes are held against those of the vectors now and then, and where they no longer
//! tell the nearest rows from the others, the graph is walked by vectors from then on.

use super::{graph::Graph, link::GraphWriter, metric::Metric, walk::Key};
use crate::ids::RowId;

/// One row in this many is looked at.
const SAMPLED: u32 = 8;

/// Of how many candidates the distances are compared.
const COMPARED: usize = 16;

/// The neighbors of a node are chosen among so many of the nearest, mostly, and the answer of an
/// ordinary query lies among them.
const NEAR: usize = 32;

/// How many standard errors have to fit between the nearest and the last of those.
const MARGIN: f32 = 3.0;

/// So many of the last 32 rows looked at must be in doubt.
const DOUBTS_MAX: u32 = 12;

/// The last votes, one bit each: whether codes were in doubt.
#[derive(Default)]
pub(super) struct Trust {
    doubts: u32,
}

impl Trust {
    pub(super) fn vote(&mut self, doubt: Option<bool>) {
        if let Some(doubt) = doubt {
            self.doubts = self.doubts << 1 | u32::from(doubt);
        }
    }

    /// Whether walks should compare vectors.
    pub(super) fn is_lost(&self) -> bool {
        self.doubts.count_ones() >= DOUBTS_MAX
    }
}

impl<M: Metric> GraphWriter<M> {
    /// Whether codes fail to tell the nearest of `candidates`, which are sorted, from those at the
    /// end of the neighborhood; `None` where that is not looked at.
    pub(super) fn doubt(&self, row: u32, candidates: &[Key]) -> Option<bool> {
        let graph: &Graph<M> = self.graph();
        if !row.is_multiple_of(SAMPLED) || !graph.walks_codes() {
            return None;
        }
        let spread = candidates.get(NEAR - 1)?.distance() - candidates.first()?.distance();
        let vector = graph.arena().vector(RowId(row))?;
        let compared = candidates.get(..COMPARED)?;
        let errors = compared.iter().filter_map(|key| {
            let exact = M::distance(vector, graph.arena().vector(RowId(key.row()))?);
            Some((exact - key.distance()).powi(2))
        });
        let deviation = (errors.sum::<f32>() / COMPARED as f32).sqrt();
        Some(MARGIN * deviation > spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_lost_by_many_doubts_among_the_last_votes_and_not_by_few() {
        let mut trust = Trust::default();
        for vote in 0..1_000 {
            trust.vote(Some(vote % 4 == 0));
            trust.vote(None);
            assert!(!trust.is_lost());
        }
        (0..DOUBTS_MAX).for_each(|_| trust.vote(Some(true)));
        assert!(trust.is_lost());
    }
}
