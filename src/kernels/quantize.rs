//! From f32 to components of one byte, and how far that is from the original.
//!
//! Let `v` be the values, `u = v / norm`, `c` the components, `k = 127 / max|v|` and `x = k v`, so
//! that `u = a x` with `a = 1 / (k norm)` and `c` is `x` rounded. With `r = x - c`, all that is
//! wanted follows from three sums, of which none is the small difference of large ones:
//!
//! ```text
//! scale = a (x.c)/(c.c) = a (1 + d)      d = (r.c)/(c.c)
//! |u - a (1 + d) c|^2 = a^2 |r - d c|^2 = a^2 (r.r - 2 d (r.c) + d^2 (c.c))     for every d
//! ```
//!
//! The error is an upper bound, so it allows for all that is rounded:
//!
//! - `x` is off by 2^-24 of itself, which moves `a x`, of the length of `u`, by as much: that is
//!   [`ROUNDED`], with some room for what is rounded in f64 (2^-52) or vanishes below the smallest
//!   f32 (2^-150 each, where the largest is 127).
//! - `r` is exact, since `c` is the integer next to `x`, and so are the sums of squares of `c`:
//!   integers below 2^24. The lanes of the other two take [`CHUNK_BLOCKS`] blocks before they are
//!   added up in f64: a product and at most 32 sums, each rounded by 2^-24, are off by less than
//!   [`SUMMED`] of the sum of all `|r c|`, which is at most `sqrt((r.r) (c.c))`, and of `r.r`.
//! - The scale is rounded to f32 before `d` is taken from it, so the error is that of the scale
//!   that is returned. The error is rounded up to f32.

use super::BLOCK_BYTES;
#[cfg(all(target_arch = "x86_64", not(any(loom, shuttle, miri))))]
use super::{Instructions, Path};

/// How a unit vector is told by its components.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Quantized {
    /// What to multiply the components with to come nearest to the unit vector.
    pub scale: f32,
    /// Euclidean distance of the unit vector from `scale` times the components: never less than it
    /// is. It is more by 1e-7 and a part in 300,000, as a rule; where all components were rounded
    /// in the same direction, by up to a part in 200 of what rounding moved.
    pub error: f32,
}

/// The largest component.
const COMPONENT_MAX: f32 = 127.0;

/// Adding this to an f32 within 2^22 of 0 leaves no bits for a fraction: it rounds to the nearest
/// integer, to the even one of two, and the lowest byte is that integer's.
const TO_INTEGER: f32 = 1.5 * (1 << 23) as f32;

/// Between these nothing overflows and nothing that matters vanishes in f32.
const PLAIN: std::ops::RangeInclusive<f32> = 1e-15..=1e15;

const ROUNDED: f64 = 1.01 / (1 << 24) as f64;
const SUMMED: f64 = 1.0 / (1 << 18) as f64;

/// Sums are kept in this many lanes, whatever the processor, so that all get the same results.
const LANES: usize = 16;
/// Blocks after which the lanes are added up: 32 components for each lane.
const CHUNK_BLOCKS: usize = 8;

type Block = [f32; BLOCK_BYTES];
type Lanes = [f32; LANES];

/// Makes components of `values / norm`: the nearest integers to `values * (127 / max|values|)`, of
/// two as near the even one. They are in `-127..=127`, and the largest is 127 or -127. What `out`
/// has beyond `values` becomes 0; values beyond `out` do not count.
///
/// `values` are finite, and `norm` is their Euclidean norm, or what else they are to be divided by.
/// A zero vector has the scale 0 and the error 0. The same input gives the same result on every
/// processor.
pub fn quantize(values: &[f32], norm: f64, out: &mut [i8]) -> Quantized {
    #[cfg(all(target_arch = "x86_64", not(any(loom, shuttle, miri))))]
    if Path::best().0 != Instructions::Portable {
        // SAFETY: each path of x86-64 but the portable one implies AVX2, and `Path::best` gives
        // none that the processor does not have.
        return unsafe { quantize_avx2(values, norm, out) };
    }
    quantize_inline(values, norm, out)
}

/// The same code with wider vectors. There is no fused multiplication in it: results would differ.
#[cfg(all(target_arch = "x86_64", not(any(loom, shuttle, miri))))]
#[target_feature(enable = "avx2")]
fn quantize_avx2(values: &[f32], norm: f64, out: &mut [i8]) -> Quantized {
    quantize_inline(values, norm, out)
}

#[inline(always)]
fn quantize_inline(values: &[f32], norm: f64, out: &mut [i8]) -> Quantized {
    let len = values.len().min(out.len());
    let values = &values[..len];
    let (out, padding) = out.split_at_mut(len);
    padding.fill(0);
    let max = max_abs(values);
    if max == 0.0 {
        out.fill(0);
        Quantized { scale: 0.0, error: 0.0 }
    } else if PLAIN.contains(&max) {
        let multiplier = COMPONENT_MAX / max;
        sums(values, out, |block| block.map(|value| value * multiplier))
            .quantized(f64::from(multiplier) * norm)
    } else {
        // A power of two near the maximum: dividing by it rounds nothing, and the rest is as above.
        let unit = f64::from(max).to_bits() >> 52 << 52;
        let unit = f64::from_bits(unit);
        let multiplier = COMPONENT_MAX / (f64::from(max) / unit) as f32;
        let unit_inverse = 1.0 / unit;
        sums(values, out, |block| {
            block.map(|value| (f64::from(value) * unit_inverse) as f32 * multiplier)
        })
        .quantized(f64::from(multiplier) * (norm * unit_inverse))
    }
}

#[inline(always)]
fn max_abs(values: &[f32]) -> f32 {
    let larger = |max: f32, value: f32| if value > max { value } else { max };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes: Lanes = [0.0; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], chunk[lane].abs());
        }
    }
    lanes.into_iter().chain(rest.iter().map(|value| value.abs())).fold(0.0, larger)
}

/// The sums of the products of residuals and components.
#[derive(Default)]
struct Sums {
    residual_residual: f64,
    residual_component: f64,
    component_component: f64,
}

/// Writes the components of all values, which `scaled` brings to `-127..=127`.
#[inline(always)]
fn sums(values: &[f32], out: &mut [i8], scaled: impl Fn(&Block) -> Block) -> Sums {
    let mut sums = Sums::default();
    let (blocks, rest) = values.as_chunks::<BLOCK_BYTES>();
    let (out_blocks, out_rest) = out.as_chunks_mut::<BLOCK_BYTES>();
    for (blocks, out) in blocks.chunks(CHUNK_BLOCKS).zip(out_blocks.chunks_mut(CHUNK_BLOCKS)) {
        let mut lanes = SumLanes::new();
        for (block, out) in blocks.iter().zip(out) {
            lanes.add(&scaled(block), out);
        }
        lanes.flush(&mut sums);
    }
    if !rest.is_empty() {
        // Zeros add nothing to any sum.
        let mut block: Block = [0.0; BLOCK_BYTES];
        block[..rest.len()].copy_from_slice(rest);
        let mut components = [0; BLOCK_BYTES];
        let mut lanes = SumLanes::new();
        lanes.add(&scaled(&block), &mut components);
        lanes.flush(&mut sums);
        out_rest.copy_from_slice(&components[..out_rest.len()]);
    }
    sums
}

struct SumLanes {
    residual_residual: Lanes,
    residual_component: Lanes,
    component_component: Lanes,
}

impl SumLanes {
    #[inline(always)]
    fn new() -> Self {
        let zeros = [0.0; LANES];
        Self { residual_residual: zeros, residual_component: zeros, component_component: zeros }
    }

    #[inline(always)]
    fn add(&mut self, scaled: &Block, out: &mut [i8; BLOCK_BYTES]) {
        for start in (0..BLOCK_BYTES).step_by(LANES) {
            for lane in 0..LANES {
                let x = scaled[start + lane];
                let shifted = x + TO_INTEGER;
                out[start + lane] = shifted.to_bits() as i8;
                let component = shifted - TO_INTEGER;
                let residual = x - component;
                self.residual_residual[lane] += residual * residual;
                self.residual_component[lane] += residual * component;
                self.component_component[lane] += component * component;
            }
        }
    }

    #[inline(always)]
    fn flush(self, into: &mut Sums) {
        into.residual_residual += in_f64(self.residual_residual);
        into.residual_component += in_f64(self.residual_component);
        into.component_component += in_f64(self.component_component);
    }
}

/// The sum, by halves: one addition after the other would be most of the time of a short vector.
#[inline(always)]
fn in_f64(lanes: Lanes) -> f64 {
    let mut sums = lanes.map(f64::from);
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

impl Sums {
    /// `divisor` is what the scaled values have to be divided by to give the unit vector.
    fn quantized(self, divisor: f64) -> Quantized {
        let Self { residual_residual: rr, residual_component: rc, component_component: cc } = self;
        let unscale = 1.0 / divisor;
        // The largest component is 127, so `cc` is not 0.
        let scale = (unscale * (1.0 + rc / cc)) as f32;
        let deviation = f64::from(scale) * divisor - 1.0;
        let square = rr - 2.0 * deviation * rc + deviation * deviation * cc;
        let square_summed = SUMMED * (rr + 2.0 * deviation.abs() * (rr * cc).sqrt());
        let error = (square.max(0.0) + square_summed).sqrt() + ROUNDED * (rr.sqrt() + cc.sqrt());
        Quantized { scale, error: ((unscale * error) as f32).next_up() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::index::testing::Random;

    fn norm(values: &[f32]) -> f64 {
        values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
    }

    /// The distance from the unit vector in f64, which loses nothing that f32 can show.
    fn distance(values: &[f32], norm: f64, scale: f64, components: &[i8]) -> f64 {
        let differences = values
            .iter()
            .zip(components)
            .map(|(value, component)| f64::from(*value) / norm - scale * f64::from(*component));
        differences.map(|difference| difference * difference).sum::<f64>().sqrt()
    }

    /// All that is promised about the components, the scale and the error of finite values.
    fn check(values: &[f32]) {
        let norm = norm(values);
        let mut components = vec![55; values.len() + 3];
        let quantized = quantize(values, norm, &mut components);
        let mut again = vec![-55; values.len() + 3];
        assert_eq!(quantize_inline(values, norm, &mut again), quantized);
        assert_eq!(again, components, "two paths, two results");

        let (components, padding) = components.split_at(values.len());
        assert_eq!(padding, [0; 3]);
        if values.iter().all(|value| *value == 0.0) {
            assert_eq!(quantized, Quantized { scale: 0.0, error: 0.0 });
            assert!(components.iter().all(|component| *component == 0));
            return;
        }
        assert_eq!(components.iter().map(|c| c.unsigned_abs()).max(), Some(127));
        let max = values.iter().fold(0.0, |max: f64, value| max.max(f64::from(value.abs())));
        for (value, component) in values.iter().zip(components) {
            let exact = f64::from(*value) * (127.0 / max);
            // x is rounded twice before it is rounded to an integer.
            assert!((exact - f64::from(*component)).abs() <= 0.5 + 127.0 * 1.2e-7, "{exact}");
        }

        let distance_at = |scale| distance(values, norm, scale, components);
        let true_error = distance_at(f64::from(quantized.scale));
        let error = f64::from(quantized.error);
        assert!(error >= true_error, "{error} is below {true_error}");
        let moved = distance(values, norm, max / (127.0 * norm), components);
        // The sums may be off by as much as is allowed for, to either side.
        let limit = true_error.hypot((6.0 * SUMMED).sqrt() * moved) * (1.0 + 1e-6) + 1e-7;
        assert!(error <= limit, "{error} is far above {true_error}");
        for other in [1.0 - 1e-3, 1.0 + 1e-3] {
            let other = distance_at(f64::from(quantized.scale) * other);
            assert!(other > true_error, "the scale is not the best one");
        }
    }

    #[test]
    fn errors_bound_what_was_lost_at_every_scale_and_dimension() {
        let mut random = Random::new(31);
        for dim in (1..=140).chain([384, 511, 512, 513, 1_000, 4_096, 65_536]) {
            for scale in [1.0, 1e-42, 1e-37, 9e-16, 2e-15, 1e-3, 1e14, 2e15, 3e38] {
                let mut values: Vec<f32> = random.vector(dim);
                values.iter_mut().for_each(|value| *value *= scale);
                check(&values);
                // One that dwarfs the others.
                values[dim / 2] = 3e38;
                check(&values);
            }
            if cfg!(miri) && dim > 140 {
                break;
            }
        }
    }

    #[test]
    fn errors_bound_what_was_lost_where_residuals_all_point_one_way() {
        // Residuals along the components: the sums nearly cancel.
        for (rest, dim) in
            [(1.4, 384), (1.4, 65_536), (100.4, 384), (100.4, 65_536), (0.499, 4_096), (1e-40, 99)]
        {
            let mut values = vec![rest; dim];
            values[0] = 127.0;
            check(&values);
            values[1] = -127.0;
            check(&values);
        }
        check(&vec![f32::MAX; 1_000]);
        check(&[f32::from_bits(1); 70]);
        check(&[1.0]);
        check(&[]);
        check(&[0.0, -0.0, 0.0]);
    }

    #[test]
    fn ties_go_to_the_even_component() {
        let values = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 125.5, 126.5, 3.49, -3.51];
        let mut components = [1; 11];
        let quantized = quantize(&values, norm(&values), &mut components);
        assert_eq!(components, [127, 0, 2, 2, 0, -2, -2, 126, 126, 3, -4]);
        assert!((f64::from(quantized.scale) * norm(&values) - 1.0).abs() < 0.01);
    }

    #[test]
    fn lengths_that_differ_are_met_in_the_middle() {
        let mut components = [9; 4];
        quantize(&[1.0, -1.0], 2_f64.sqrt(), &mut components);
        assert_eq!(components, [127, -127, 0, 0]);
        let mut components = [9; 1];
        quantize(&[1.0, 50.0], 1.0, &mut components);
        assert_eq!(components, [127]);
        assert_eq!(quantize(&[1.0], 1.0, &mut []), Quantized { scale: 0.0, error: 0.0 });
    }

    /// Every finite f32: tiny ones, huge ones and zeros are as likely as others.
    fn any_finite() -> impl Strategy<Value = f32> {
        any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |value| value.is_finite())
    }

    proptest! {
        #[test]
        fn errors_bound_what_was_lost_for_any_bits(values in vec(any_finite(), 0..200)) {
            check(&values);
        }

        #[test]
        fn errors_bound_what_was_lost_for_integers(
            values in vec((-300..300).prop_map(|value| value as f32 / 2.0), 0..200),
        ) {
            check(&values);
        }
    }
}
