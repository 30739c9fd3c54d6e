//! What the graph measures by.

use crate::distance::{self, Vector};

/// A distance between finite vectors: never negative, never NaN.
pub trait Metric: Send + Sync + 'static {
    /// Whether the distance of two vectors is that of their directions, which is what codes are of.
    const HAS_CODES: bool;

    /// By how much the distances of two twins to any third vector can differ, at most.
    const TWIN_SLACK: f32;

    /// The distance between `a` and `b`.
    fn distance(a: Vector<'_>, b: Vector<'_>) -> f32;

    /// What answers are ranked by, smallest first: in the order of `distance`, and as exact as f32
    /// allows over its whole range.
    fn cost(a: Vector<'_>, b: Vector<'_>) -> f32;

    /// The distance of two vectors whose cost this is, give or take rounding.
    fn distance_of(cost: f32) -> f32;

    /// Whether nothing is gained by telling two rows at this distance apart during a walk.
    fn are_twins(distance: f32) -> bool;

    /// Whether `vector` is at the same distance from everything, so that a graph cannot place it.
    fn is_placeless(vector: Vector<'_>) -> bool;
}

/// Cosine distance, `1 - similarity`: the distance of the normalised vectors, in `[0, 2]`.
pub struct Cosine;

impl Metric for Cosine {
    const HAS_CODES: bool = true;
    const TWIN_SLACK: f32 = 2e-6;

    fn distance(a: Vector<'_>, b: Vector<'_>) -> f32 {
        distance::cosine_distance(a, b)
    }

    /// The similarity, negated: `1 - similarity` would round small similarities away.
    fn cost(a: Vector<'_>, b: Vector<'_>) -> f32 {
        -distance::similarity(a, b)
    }

    fn distance_of(cost: f32) -> f32 {
        1.0 + cost
    }

    /// Within an angle of 1e-6: the same direction at another scale, give or take rounding.
    fn are_twins(distance: f32) -> bool {
        distance <= 0.5e-12
    }

    fn is_placeless(vector: Vector<'_>) -> bool {
        vector.is_zero()
    }
}

/// Euclidean distance of the raw vectors.
pub struct Euclidean;

impl Metric for Euclidean {
    const HAS_CODES: bool = false;
    const TWIN_SLACK: f32 = 0.0;

    fn distance(a: Vector<'_>, b: Vector<'_>) -> f32 {
        distance::euclidean(a.values(), b.values())
    }

    fn cost(a: Vector<'_>, b: Vector<'_>) -> f32 {
        Self::distance(a, b)
    }

    fn distance_of(cost: f32) -> f32 {
        cost
    }

    fn are_twins(distance: f32) -> bool {
        distance == 0.0
    }

    fn is_placeless(_: Vector<'_>) -> bool {
        false
    }
}
