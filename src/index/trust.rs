//! How much walks have to compare.
//!
//! The high half of a code is right to about a seventh of a vector's length, a whole code to about a
//! hundredth, spread over all dimensions. Among vectors that differ by less (a dense clump, few
//! dimensions, one coordinate that dwarfs all others) a walk finds anybody of the clump, and ranking
//! what it found cannot mend that. So while rows are linked, their distances by codes are held
//! against those of the vectors now and then, and where they no longer tell the nearest rows from
//! the others, walks look at more from then on.

use super::{
    link::GraphWriter,
    metric::Metric,
    point::{Detail, Ruler},
    walk::Key,
};
use crate::ids::RowId;

/// One row in this many is looked at.
const SAMPLED: u32 = 8;

/// Of how many candidates the distances are compared, at most and at least.
const COMPARED: usize = 16;
const COMPARED_MIN: usize = 4;

/// The neighbors of a node are chosen among so many of the nearest, mostly, and the answer of an
/// ordinary query lies among them: whole codes have to tell the first from the last.
const NEAR: usize = 32;

/// The beam of an ordinary query ends at so many of the nearest: high halves have to tell the first
/// from the last.
const BEAM: usize = 64;

/// How many standard errors have to fit between the two.
const MARGIN: f32 = 3.0;

/// So many of the last 32 rows looked at must be in doubt.
const DOUBTS_MAX: u32 = 12;

/// What walks compare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Sight {
    /// The high halves of codes.
    High,
    /// Whole codes.
    Whole,
    /// Vectors.
    Vectors,
}

impl Sight {
    /// What walks over vectors of so many dimensions begin with. Short vectors take one cache line, and
    /// whole codes of middling ones two that lie together: to look at less would gain little, and few
    /// dimensions are where codes fail.
    pub(super) fn of_dim(dim: usize) -> Self {
        match dim {
            0..=16 => Self::Vectors,
            17..=128 => Self::Whole,
            _ => Self::High,
        }
    }

    pub(super) fn bits(self) -> u32 {
        self as u32
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        [Self::High, Self::Whole]
            .into_iter()
            .find(|sight| sight.bits() == bits)
            .unwrap_or(Self::Vectors)
    }

    /// How much of codes that is; `None` for vectors.
    pub(super) fn detail(self) -> Option<Detail> {
        match self {
            Self::High => Some(Detail::High),
            Self::Whole => Some(Detail::Whole),
            Self::Vectors => None,
        }
    }
}

/// What does not tell the neighbors of a row apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Doubt {
    pub(super) of_high: bool,
    pub(super) of_whole: bool,
}

/// The last votes, one bit each: whether there was a doubt.
pub(super) struct Trust {
    sight: Sight,
    doubts_of_high: u32,
    doubts_of_whole: u32,
}

impl Trust {
    pub(super) fn new(sight: Sight) -> Self {
        Self { sight, doubts_of_high: 0, doubts_of_whole: 0 }
    }

    pub(super) fn vote(&mut self, doubt: Option<Doubt>) {
        let Some(doubt) = doubt else { return };
        self.doubts_of_high = self.doubts_of_high << 1 | u32::from(doubt.of_high);
        self.doubts_of_whole = self.doubts_of_whole << 1 | u32::from(doubt.of_whole);
        if self.doubts_of_whole.count_ones() >= DOUBTS_MAX {
            self.sight = Sight::Vectors;
        } else if self.doubts_of_high.count_ones() >= DOUBTS_MAX {
            self.sight = self.sight.max(Sight::Whole);
        }
    }

    /// What walks should compare. It never becomes less: part of the graph may need it.
    pub(super) fn sight(&self) -> Sight {
        self.sight
    }
}

impl<M: Metric> GraphWriter<M> {
    /// What fails to tell the nearest of `candidates`, which are sorted, from later ones; `None` where
    /// that is not looked at.
    pub(super) fn doubt(
        &self,
        row: u32,
        ruler: &Ruler<'_, M>,
        candidates: &[Key],
    ) -> Option<Doubt> {
        let graph = &**self.graph();
        if !row.is_multiple_of(SAMPLED) || graph.sight() == Sight::Vectors {
            return None;
        }
        let compared = candidates.get(..COMPARED.min(candidates.len()))?;
        if compared.len() < COMPARED_MIN {
            return None;
        }
        let vector = graph.arena().vector(RowId(row))?;
        let rows: Vec<u32> = compared.iter().map(|key| key.row()).collect();
        let mut by_high = Vec::with_capacity(COMPARED);
        ruler.keys_in(&rows, Detail::High, &mut by_high);
        let deviation = |keys: &[Key]| {
            let errors = keys.iter().filter_map(|key| {
                let exact = M::distance(vector, graph.arena().vector(RowId(key.row()))?);
                Some((exact - key.distance()).powi(2))
            });
            (errors.sum::<f32>() / keys.len().max(1) as f32).sqrt()
        };
        let spread = |count: usize| {
            let last = candidates.get(count - 1).or(candidates.last());
            last.zip(compared.first())
                .map_or(0.0, |(last, first)| last.distance() - first.distance())
        };
        Some(Doubt {
            of_high: MARGIN * deviation(&by_high) > spread(BEAM),
            of_whole: MARGIN * deviation(compared) > spread(NEAR),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_look_at_more_after_many_doubts_among_the_last_votes_and_not_after_few() {
        let doubt = |of_high, of_whole| Some(Doubt { of_high, of_whole });
        let mut trust = Trust::new(Sight::of_dim(384));
        for vote in 0..1_000 {
            trust.vote(doubt(vote % 4 == 0, vote % 4 == 1));
            trust.vote(None);
            assert_eq!(trust.sight(), Sight::High);
        }
        (0..DOUBTS_MAX).for_each(|_| trust.vote(doubt(true, false)));
        assert_eq!(trust.sight(), Sight::Whole);
        (0..DOUBTS_MAX).for_each(|_| trust.vote(doubt(true, true)));
        assert_eq!(trust.sight(), Sight::Vectors);
        (0..100).for_each(|_| trust.vote(doubt(true, false)));
        assert_eq!(trust.sight(), Sight::Vectors, "a graph keeps what it needed once");
        for sight in [Sight::High, Sight::Whole, Sight::Vectors] {
            assert_eq!(Sight::from_bits(sight.bits()), sight);
        }
    }
}
