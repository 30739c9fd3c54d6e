//! Every distance and similarity, and the only file that names simsimd.
//!
//! simsimd adds up in f32. That is exact enough while squared norms stay well inside the range of
//! f32, and wrong where they leave it: `1e-25` squared is 0 and `1e25` squared is infinite. So the
//! SIMD result is used only inside [`SQUARE_MIN`]`..=`[`SQUARE_MAX`], and everything else takes the
//! scalar path in f64, where no finite f32 vector can overflow or vanish.

use simsimd::SpatialSimilarity;

/// Smallest squared norm or squared distance for which f32 sums are trusted.
///
/// A product of two components that underflows loses at most 2^-149; against 2^-100 that is
/// 2^-49, far below the precision of f32 even after adding up thousands of them.
const SQUARE_MIN: f32 = f32::from_bits((127 - 100) << 23);
/// Largest squared norm or squared distance for which f32 sums are trusted. By Cauchy and Schwarz
/// no partial sum of a dot product of two such vectors exceeds it.
const SQUARE_MAX: f32 = f32::from_bits((127 + 100) << 23);

/// A vector and its squared norm, which is computed once.
#[derive(Clone, Copy, Debug)]
pub struct Vector<'a> {
    values: &'a [f32],
    /// 0 for a zero vector, NaN where f32 cannot be trusted with it, else the f32 squared norm.
    squared_norm: f32,
}

impl<'a> Vector<'a> {
    /// A vector whose norm is not known yet.
    pub fn new(values: &'a [f32]) -> Self {
        Self { values, squared_norm: squared_norm(values) }
    }

    /// A vector with the norm that [`Vector::squared_norm`] gave for the same values.
    pub fn with_norm(values: &'a [f32], squared_norm: f32) -> Self {
        Self { values, squared_norm }
    }

    /// The components.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// The number to store beside the values and to give back to [`Vector::with_norm`].
    pub fn squared_norm(&self) -> f32 {
        self.squared_norm
    }

    /// The norm, exact to f32 for any finite vector.
    pub fn norm(&self) -> f64 {
        if self.squared_norm.is_nan() {
            norm_scalar(*self)
        } else {
            f64::from(self.squared_norm).sqrt()
        }
    }

    /// Whether every component is +0 or -0.
    pub fn is_zero(&self) -> bool {
        self.squared_norm == 0.0
    }
}

/// The squared norm as [`Vector`] keeps it.
fn squared_norm(values: &[f32]) -> f32 {
    let square = dot(values, values) as f32;
    if (SQUARE_MIN..=SQUARE_MAX).contains(&square) {
        square
    } else if values.iter().all(|value| *value == 0.0) {
        0.0
    } else {
        f32::NAN
    }
}

/// Cosine of the angle between two finite vectors of the same dimension, in `[-1, 1]`; 0 where one
/// of them is zero. Every similarity that is returned to a caller comes from here.
pub(crate) fn similarity(a: Vector<'_>, b: Vector<'_>) -> f32 {
    if a.is_zero() || b.is_zero() {
        return 0.0;
    }
    // Two f32 multiply exactly in f64, so a vector's similarity with itself is exactly 1: the dot
    // product goes through f32 because the norms did.
    let squares = f64::from(a.squared_norm) * f64::from(b.squared_norm);
    let cosine = if squares.is_nan() {
        similarity_scalar(a.values, b.values)
    } else {
        f64::from(dot(a.values, b.values) as f32) / squares.sqrt()
    };
    // Adding 0 turns -0 into 0, so that equal similarities have equal bits.
    cosine.clamp(-1.0, 1.0) as f32 + 0.0
}

/// Euclidean distance (the root, not the square) of two finite vectors of the same dimension.
/// A distance beyond the largest f32 is infinite.
pub(crate) fn euclidean(a: &[f32], b: &[f32]) -> f32 {
    let square = f32::l2sq(a, b).unwrap_or(f64::NAN);
    if (f64::from(SQUARE_MIN)..=f64::from(SQUARE_MAX)).contains(&square) {
        square.sqrt() as f32
    } else {
        euclidean_scalar(a, b) as f32
    }
}

/// Distance below which one minus the similarity is more rounding error than distance.
const COSINE_DISTANCE_ROUNDED: f32 = 1e-5;

/// Cosine distance, `1 - similarity`, in `[0, 2]`: exact for near directions as well.
///
/// One minus an f32 near 1 comes in steps of 6e-8, so the rows of a dense clump would seem to be all
/// at the same place, and a graph of them falls apart. For such the distance is computed from the
/// difference of the normalised vectors: half its square.
pub(crate) fn cosine_distance(a: Vector<'_>, b: Vector<'_>) -> f32 {
    let distance = 1.0 - similarity(a, b);
    if distance > COSINE_DISTANCE_ROUNDED {
        return distance;
    }
    // Near directions have a similarity, so neither vector is zero.
    let (scale_a, scale_b) = (1.0 / norm_scalar(a), 1.0 / norm_scalar(b));
    let differences = a
        .values
        .iter()
        .zip(b.values)
        .map(|(x, y)| f64::from(*x) * scale_a - f64::from(*y) * scale_b);
    (differences.map(|difference| difference * difference).sum::<f64>() / 2.0) as f32
}

/// The norm, exact to f64: differences of normalised vectors need more than the f32 sum.
fn norm_scalar(vector: Vector<'_>) -> f64 {
    dot_scalar(vector.values, vector.values).sqrt()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    // `None` means unequal lengths, which no caller has; the scalar twin then uses what both have.
    f32::dot(a, b).unwrap_or_else(|| dot_scalar(a, b))
}

fn dot_scalar(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// [`similarity`] of two non-zero vectors in f64 throughout; also the oracle of its tests.
fn similarity_scalar(a: &[f32], b: &[f32]) -> f64 {
    dot_scalar(a, b) / (dot_scalar(a, a).sqrt() * dot_scalar(b, b).sqrt())
}

/// [`euclidean`] in f64 throughout; also the oracle of its tests.
fn euclidean_scalar(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::Random;

    fn dimensions() -> impl Iterator<Item = usize> {
        (1..=130).chain([384, 1000, 4096])
    }

    #[test]
    fn similarity_agrees_with_the_scalar_twin_at_every_scale() {
        let mut random = Random::new(1);
        for dim in dimensions() {
            for (scale_a, scale_b) in [
                (1.0, 1.0),
                (1e-30, 1.0),
                (1e30, 1e-30),
                (1e-22, 1e-22),
                (1e18, 1e19),
                (1e-42, 3.0),
            ] {
                let a: Vec<f32> = random.vector(dim).iter().map(|v| v * scale_a).collect();
                let b: Vec<f32> = random.vector(dim).iter().map(|v| v * scale_b).collect();
                let (a, b) = (Vector::new(&a), Vector::new(&b));
                if a.is_zero() || b.is_zero() {
                    continue;
                }
                let expected = similarity_scalar(a.values, b.values);
                let got = f64::from(similarity(a, b));
                assert!((got - expected).abs() < 2e-6, "dim {dim}: {got} for {expected}");
                assert_eq!(similarity(a, b).to_bits(), similarity(b, a).to_bits());
            }
        }
    }

    #[test]
    fn a_vector_is_like_itself_and_unlike_its_opposite() {
        let mut random = Random::new(2);
        for dim in dimensions() {
            for scale in [1.0, 1e-25, 1e25, 1e-38] {
                let a: Vec<f32> = random.vector(dim).iter().map(|v| v * scale).collect();
                let opposite: Vec<f32> = a.iter().map(|v| -v).collect();
                let (a, opposite) = (Vector::new(&a), Vector::new(&opposite));
                assert_eq!(similarity(a, a), 1.0, "dim {dim}, scale {scale}");
                assert_eq!(similarity(a, opposite), -1.0, "dim {dim}, scale {scale}");
            }
        }
    }

    #[test]
    fn scaling_does_not_matter() {
        let mut random = Random::new(3);
        let (a, b) = (random.vector(384), random.vector(384));
        let expected = similarity(Vector::new(&a), Vector::new(&b));
        for scale in [1e-30_f32, 1e-18, 1e-3, 7.0, 1e15, 1e30] {
            let scaled: Vec<f32> = a.iter().map(|v| v * scale).collect();
            let got = similarity(Vector::new(&scaled), Vector::new(&b));
            assert!((got - expected).abs() < 1e-6, "scale {scale}: {got} for {expected}");
            let distance = cosine_distance(Vector::new(&scaled), Vector::new(&a));
            assert!(distance < 1e-13, "scale {scale}: {distance} from itself");
        }
    }

    #[test]
    fn cosine_distance_tells_near_directions_apart() {
        // At an angle of t from (1, 0) the distance is t^2 / 2 to within a twelfth of t^4 / 2.
        let a = [1.0, 0.0];
        for angle in [1e-6_f32, 1e-5, 1e-4, 1e-3, 4e-3, 5e-3, 1e-2] {
            let b = [7.0 * angle.cos(), 7.0 * angle.sin()];
            let got = cosine_distance(Vector::new(&a), Vector::new(&b));
            let expected = angle * angle / 2.0;
            // Above the threshold the rounding of the similarity is what is left.
            assert!(
                (got - expected).abs() < 1e-4 * expected + if angle > 4e-3 { 1e-7 } else { 0.0 }
            );
        }
    }

    #[test]
    fn a_zero_vector_is_like_nothing_and_a_tiny_one_is_not_zero() {
        let zero = [0.0, -0.0, 0.0];
        let tiny = [f32::from_bits(1), 0.0, 0.0];
        let zero = Vector::new(&zero);
        let tiny = Vector::new(&tiny);
        assert!(zero.is_zero() && !tiny.is_zero());
        assert_eq!(similarity(zero, zero), 0.0);
        assert_eq!(similarity(zero, tiny), 0.0);
        assert_eq!(similarity(tiny, Vector::new(&[1.0, 0.0, 0.0])), 1.0);
        assert_eq!(similarity(tiny, Vector::new(&[0.0, 1.0, 0.0])), 0.0);
    }

    #[test]
    fn euclidean_agrees_with_the_scalar_twin_at_every_scale() {
        let mut random = Random::new(4);
        for dim in dimensions() {
            for scale in [1.0, 1e-30, 1e-20, 1e19, 1e30] {
                let a: Vec<f32> = random.vector(dim).iter().map(|v| v * scale).collect();
                let b: Vec<f32> = random.vector(dim).iter().map(|v| v * scale).collect();
                let expected = euclidean_scalar(&a, &b);
                let got = f64::from(euclidean(&a, &b));
                assert!((got - expected).abs() <= 2e-6 * expected, "dim {dim}: {got}, {expected}");
                assert_eq!(euclidean(&a, &a), 0.0);
            }
        }
    }

    #[test]
    fn a_distance_beyond_f32_is_infinite_and_the_smallest_one_is_not_zero() {
        assert_eq!(euclidean(&[f32::MAX], &[-f32::MAX]), f32::INFINITY);
        assert_eq!(euclidean(&[f32::MAX], &[0.0]), f32::MAX);
        assert_eq!(euclidean(&[f32::from_bits(1)], &[0.0]), f32::from_bits(1));
    }
}
