//! Products with the vector instructions of x86-64.
//!
//! All of them multiply the signed components of the probe with what is stored, as it is stored. The
//! codes are as long as the probe or longer; what they have beyond does not count.
//!
//! The functions are safe where the processor has the features they enable, which the caller
//! answers for. Loads go through references to as many bytes as are loaded.

use std::arch::x86_64::*;

use super::{BIAS, GROUP, PlaneBlock, ProbeGroup, planes};

#[inline]
#[target_feature(enable = "avx512f")]
fn load_512(bytes: &PlaneBlock) -> __m512i {
    // SAFETY: this reads 64 bytes, those of the reference, and needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_256(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: this reads 32 bytes, those of the reference, and needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_256(bytes: &mut [u8; 32], values: __m256i) {
    // SAFETY: this writes 32 bytes, those of the reference, and needs no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), values) }
}

/// Both halves of the components of a group.
#[inline]
#[target_feature(enable = "avx512f")]
fn probe_512(ProbeGroup([first, second]): &ProbeGroup) -> [__m512i; 2] {
    [load_512(bytemuck::cast_ref(first)), load_512(bytemuck::cast_ref(second))]
}

/// The stored bytes of both halves of a group.
///
/// Putting bytes together and multiplying twice takes fewer instructions, and of those that multiply
/// half as many, than multiplying four times with nibbles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn stored_512(high: &PlaneBlock, low: &PlaneBlock) -> [__m512i; 2] {
    /// Bits of the second operand where those of the first are set, of the third elsewhere.
    const SELECT: i32 = 0xCA;
    let (high, low) = (load_512(high), load_512(low));
    let mask = _mm512_set1_epi8(0xF0_u8.cast_signed());
    // What is shifted into a byte from its neighbor is not selected.
    [
        _mm512_ternarylogic_epi32::<SELECT>(mask, _mm512_slli_epi16::<4>(high), low),
        _mm512_ternarylogic_epi32::<SELECT>(mask, high, _mm512_srli_epi16::<4>(low)),
    ]
}

/// Writes the components of `code` to `groups`, which are as many, and returns their sum.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn unpack_avx512vnni(code: &[PlaneBlock], groups: &mut [ProbeGroup]) -> i32 {
    let flip = _mm512_set1_epi8(i8::MIN);
    let ones = _mm512_set1_epi8(1);
    let mut sums = [_mm512_setzero_si512(); 2];
    let (high, low) = planes(code);
    for (ProbeGroup(halves), (high, low)) in groups.iter_mut().zip(high.iter().zip(low)) {
        let stored = stored_512(high, low);
        for ((half, stored), sum) in halves.iter_mut().zip(stored).zip(&mut sums) {
            *sum = _mm512_dpbusd_epi32(*sum, stored, ones);
            // SAFETY: this writes 64 bytes, those of the reference, and needs no alignment.
            unsafe {
                _mm512_storeu_si512(half.as_mut_ptr().cast(), _mm512_xor_si512(stored, flip));
            }
        }
    }
    // Stored bytes are 128 more than components.
    let bias = i32::try_from(groups.len() * GROUP).unwrap_or(i32::MAX).wrapping_mul(BIAS);
    _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1])).wrapping_sub(bias)
}

/// Adds the products with the bytes of a group. Two chains of additions, since one would wait for
/// itself.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn step_512(
    [first, second]: [__m512i; 2],
    probe: [__m512i; 2],
    (high, low): (&PlaneBlock, &PlaneBlock),
) -> [__m512i; 2] {
    let stored = stored_512(high, low);
    // The first factor is the unsigned one. It adds four products to each lane, without saturation.
    [
        _mm512_dpbusd_epi32(first, stored[0], probe[0]),
        _mm512_dpbusd_epi32(second, stored[1], probe[1]),
    ]
}

/// Adds the products with the nibbles of a group, of which the second are 16 times too large.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn coarse_step_512(
    [first, second]: [__m512i; 2],
    probe: [__m512i; 2],
    high: &PlaneBlock,
) -> [__m512i; 2] {
    let high = load_512(high);
    let (low_bits, high_bits) = (_mm512_set1_epi8(0x0F), _mm512_set1_epi8(0xF0_u8.cast_signed()));
    [
        _mm512_dpbusd_epi32(first, _mm512_and_si512(high, low_bits), probe[0]),
        _mm512_dpbusd_epi32(second, _mm512_and_si512(high, high_bits), probe[1]),
    ]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn dot_avx512vnni(groups: &[ProbeGroup], code: &[PlaneBlock]) -> i32 {
    let (high, low) = planes(code);
    let mut sums = [_mm512_setzero_si512(); 2];
    for (group, code) in groups.iter().zip(high.iter().zip(low)) {
        sums = step_512(sums, probe_512(group), code);
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn dots4_avx512vnni(
    groups: &[ProbeGroup],
    row_a: &[PlaneBlock],
    row_b: &[PlaneBlock],
    row_c: &[PlaneBlock],
    row_d: &[PlaneBlock],
) -> [i32; 4] {
    let zero = [_mm512_setzero_si512(); 2];
    let (mut a, mut b, mut c, mut d) = (zero, zero, zero, zero);
    let [row_a, row_b, row_c, row_d] = [row_a, row_b, row_c, row_d].map(|row| {
        let (high, low) = planes(row);
        high.iter().zip(low)
    });
    let groups = groups.iter().zip(row_a).zip(row_b).zip(row_c).zip(row_d);
    for ((((group, code_a), code_b), code_c), code_d) in groups {
        let probe = probe_512(group);
        a = step_512(a, probe, code_a);
        b = step_512(b, probe, code_b);
        c = step_512(c, probe, code_c);
        d = step_512(d, probe, code_d);
    }
    add_lanes_512([
        _mm512_add_epi32(a[0], a[1]),
        _mm512_add_epi32(b[0], b[1]),
        _mm512_add_epi32(c[0], c[1]),
        _mm512_add_epi32(d[0], d[1]),
    ])
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn coarse_avx512vnni(groups: &[ProbeGroup], plane: &[PlaneBlock]) -> i32 {
    let mut sums = [_mm512_setzero_si512(); 2];
    for (group, high) in groups.iter().zip(plane) {
        sums = coarse_step_512(sums, probe_512(group), high);
    }
    _mm512_reduce_add_epi32(times_16_and_once(sums))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn coarse4_avx512vnni(
    groups: &[ProbeGroup],
    row_a: &[PlaneBlock],
    row_b: &[PlaneBlock],
    row_c: &[PlaneBlock],
    row_d: &[PlaneBlock],
) -> [i32; 4] {
    let zero = [_mm512_setzero_si512(); 2];
    let (mut a, mut b, mut c, mut d) = (zero, zero, zero, zero);
    let groups = groups.iter().zip(row_a).zip(row_b).zip(row_c).zip(row_d);
    for ((((group, high_a), high_b), high_c), high_d) in groups {
        let probe = probe_512(group);
        a = coarse_step_512(a, probe, high_a);
        b = coarse_step_512(b, probe, high_b);
        c = coarse_step_512(c, probe, high_c);
        d = coarse_step_512(d, probe, high_d);
    }
    add_lanes_512([
        times_16_and_once(a),
        times_16_and_once(b),
        times_16_and_once(c),
        times_16_and_once(d),
    ])
}

#[inline]
#[target_feature(enable = "avx512f")]
fn times_16_and_once([first, second]: [__m512i; 2]) -> __m512i {
    _mm512_add_epi32(_mm512_slli_epi32::<4>(first), second)
}

/// The sum of the lanes of each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn add_lanes_512([a, b, c, d]: [__m512i; 4]) -> [i32; 4] {
    // Interleaving and adding halves the lanes of two sums at once: after two rounds each 128 bits
    // have one lane of every sum.
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let abcd = _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64::<1>(abcd));
    lanes_of_four(abcd)
}

/// The sums of both halves: of each four lanes the first belong together, and so on.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes_of_four(abcd: __m256i) -> [i32; 4] {
    let low = _mm256_castsi256_si128(abcd);
    bytemuck::cast(_mm_add_epi32(low, _mm256_extracti128_si256::<1>(abcd)))
}

/// The sum of the lanes of each.
#[inline]
#[target_feature(enable = "avx2")]
fn add_lanes_256([a, b, c, d]: [__m256i; 4]) -> [i32; 4] {
    let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    lanes_of_four(_mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd)))
}

/// The components that belong to the half `half` of the bytes of a block: one vector to the low
/// nibbles and one to the high ones.
#[inline]
#[target_feature(enable = "avx2")]
fn probe_256(ProbeGroup([first, second]): &ProbeGroup, half: usize) -> [__m256i; 2] {
    let (first, second): (&[[u8; 32]; 2], &[[u8; 32]; 2]) =
        (bytemuck::cast_ref(first), bytemuck::cast_ref(second));
    [load_256(&first[half]), load_256(&second[half])]
}

#[inline]
#[target_feature(enable = "avx2")]
fn half_256(block: &PlaneBlock, half: usize) -> __m256i {
    let halves: &[[u8; 32]; 2] = bytemuck::cast_ref(block);
    load_256(&halves[half])
}

/// The low nibbles and the high ones.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles_256(plane: __m256i) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(0x0F);
    [_mm256_and_si256(plane, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(plane), mask)]
}

/// Writes the components of `code` to `groups`, which are as many, and returns their sum.
#[target_feature(enable = "avx2")]
pub(super) fn unpack_avx2(code: &[PlaneBlock], groups: &mut [ProbeGroup]) -> i32 {
    let (flip, ones) = (_mm256_set1_epi8(i8::MIN), _mm256_set1_epi8(1));
    let mut sum = _mm256_setzero_si256();
    let (high, low) = planes(code);
    for (ProbeGroup([first, second]), (high, low)) in groups.iter_mut().zip(high.iter().zip(low)) {
        let (first, second): (&mut [[u8; 32]; 2], &mut [[u8; 32]; 2]) =
            (bytemuck::cast_mut(first), bytemuck::cast_mut(second));
        for (half, out) in first.iter_mut().zip(second).enumerate() {
            let [low_first, low_second] = nibbles_256(half_256(low, half));
            let [high_first, high_second] = high_nibbles_in_place(half_256(high, half));
            // Taking 128 away modulo 256 flips the highest bit.
            let first = _mm256_xor_si256(_mm256_or_si256(high_first, low_first), flip);
            let second = _mm256_xor_si256(_mm256_or_si256(high_second, low_second), flip);
            store_256(out.0, first);
            store_256(out.1, second);
            // Two pairs of components in each i16: within 512 of 0.
            let pairs = _mm256_add_epi16(
                _mm256_maddubs_epi16(ones, first),
                _mm256_maddubs_epi16(ones, second),
            );
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
    }
    let zero = _mm256_setzero_si256();
    add_lanes_256([sum, zero, zero, zero])[0]
}

/// Products with vectors of 256 bits. `$step` adds the products with the bytes of a block of both
/// planes, `$coarse_step` those with 16 times the nibbles of a block of the high plane.
macro_rules! products_256 {
    ($name:ident, $features:literal, $step:path, $coarse_step:path) => {
        pub(in crate::kernels) mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            pub(in crate::kernels) fn dot(groups: &[ProbeGroup], code: &[PlaneBlock]) -> i32 {
                let zero = _mm256_setzero_si256();
                let mut sums = [zero; 2];
                let (high, low) = planes(code);
                for (group, code) in groups.iter().zip(high.iter().zip(low)) {
                    sums = $step(sums, group, code);
                }
                add_lanes_256([_mm256_add_epi32(sums[0], sums[1]), zero, zero, zero])[0]
            }

            #[target_feature(enable = $features)]
            pub(in crate::kernels) fn dots4(
                groups: &[ProbeGroup],
                row_a: &[PlaneBlock],
                row_b: &[PlaneBlock],
                row_c: &[PlaneBlock],
                row_d: &[PlaneBlock],
            ) -> [i32; 4] {
                let mut sums = [[_mm256_setzero_si256(); 2]; 4];
                let [row_a, row_b, row_c, row_d] = [row_a, row_b, row_c, row_d].map(|row| {
                    let (high, low) = planes(row);
                    high.iter().zip(low)
                });
                let groups = groups.iter().zip(row_a).zip(row_b).zip(row_c).zip(row_d);
                for ((((group, code_a), code_b), code_c), code_d) in groups {
                    for (sums, code) in sums.iter_mut().zip([code_a, code_b, code_c, code_d]) {
                        *sums = $step(*sums, group, code);
                    }
                }
                let [a, b, c, d] = sums;
                add_lanes_256([
                    _mm256_add_epi32(a[0], a[1]),
                    _mm256_add_epi32(b[0], b[1]),
                    _mm256_add_epi32(c[0], c[1]),
                    _mm256_add_epi32(d[0], d[1]),
                ])
            }

            #[target_feature(enable = $features)]
            pub(in crate::kernels) fn coarse(groups: &[ProbeGroup], plane: &[PlaneBlock]) -> i32 {
                let zero = _mm256_setzero_si256();
                let mut sums = [zero; 2];
                for (group, high) in groups.iter().zip(plane) {
                    sums = $coarse_step(sums, group, high);
                }
                add_lanes_256([_mm256_add_epi32(sums[0], sums[1]), zero, zero, zero])[0]
            }

            #[target_feature(enable = $features)]
            pub(in crate::kernels) fn coarse4(
                groups: &[ProbeGroup],
                row_a: &[PlaneBlock],
                row_b: &[PlaneBlock],
                row_c: &[PlaneBlock],
                row_d: &[PlaneBlock],
            ) -> [i32; 4] {
                let mut sums = [[_mm256_setzero_si256(); 2]; 4];
                let groups = groups.iter().zip(row_a).zip(row_b).zip(row_c).zip(row_d);
                for ((((group, high_a), high_b), high_c), high_d) in groups {
                    for (sums, high) in sums.iter_mut().zip([high_a, high_b, high_c, high_d]) {
                        *sums = $coarse_step(*sums, group, high);
                    }
                }
                let [a, b, c, d] = sums;
                add_lanes_256([
                    _mm256_add_epi32(a[0], a[1]),
                    _mm256_add_epi32(b[0], b[1]),
                    _mm256_add_epi32(c[0], c[1]),
                    _mm256_add_epi32(d[0], d[1]),
                ])
            }
        }
    };
}

/// Steps by `$dpbusd`: it adds four products to each lane, without saturation. Its first factor is the
/// unsigned one.
macro_rules! steps_by_dpbusd {
    ($features:literal, $dpbusd:path, $step:ident, $coarse_step:ident) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn $step(
            mut sums: [__m256i; 2],
            group: &ProbeGroup,
            (high, low): (&PlaneBlock, &PlaneBlock),
        ) -> [__m256i; 2] {
            for (half, sum) in sums.iter_mut().enumerate() {
                let probe = probe_256(group, half);
                let [low_first, low_second] = nibbles_256(half_256(low, half));
                let [high_first, high_second] = high_nibbles_in_place(half_256(high, half));
                *sum = $dpbusd(*sum, _mm256_or_si256(high_first, low_first), probe[0]);
                *sum = $dpbusd(*sum, _mm256_or_si256(high_second, low_second), probe[1]);
            }
            sums
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn $coarse_step(
            mut sums: [__m256i; 2],
            group: &ProbeGroup,
            high: &PlaneBlock,
        ) -> [__m256i; 2] {
            for (half, sum) in sums.iter_mut().enumerate() {
                let probe = probe_256(group, half);
                let [first, second] = high_nibbles_in_place(half_256(high, half));
                *sum = $dpbusd($dpbusd(*sum, first, probe[0]), second, probe[1]);
            }
            sums
        }
    };
}

/// 16 times the low nibbles, and 16 times the high ones.
#[inline]
#[target_feature(enable = "avx2")]
fn high_nibbles_in_place(plane: __m256i) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(0xF0_u8.cast_signed());
    [_mm256_and_si256(_mm256_slli_epi16::<4>(plane), mask), _mm256_and_si256(plane, mask)]
}

/// The sums of products with the nibbles of a block, eight of them in each i16: they are within
/// 8 * 15 * 128 < 2^14 of 0. So nothing saturates in the instruction that adds pairs of products of
/// bytes, nor overflows where such pairs are added up.
#[inline]
#[target_feature(enable = "avx2")]
fn eights_avx2(group: &ProbeGroup, block: &PlaneBlock) -> __m256i {
    let fours = |half: usize| {
        let probe = probe_256(group, half);
        let [first, second] = nibbles_256(half_256(block, half));
        _mm256_add_epi16(
            _mm256_maddubs_epi16(first, probe[0]),
            _mm256_maddubs_epi16(second, probe[1]),
        )
    };
    _mm256_add_epi16(fours(0), fours(1))
}

#[inline]
#[target_feature(enable = "avx2")]
fn step_avx2(
    sums: [__m256i; 2],
    group: &ProbeGroup,
    (high, low): (&PlaneBlock, &PlaneBlock),
) -> [__m256i; 2] {
    let [sum_high, sum_low] = coarse_step_avx2(sums, group, high);
    let low = _mm256_madd_epi16(eights_avx2(group, low), _mm256_set1_epi16(1));
    [sum_high, _mm256_add_epi32(sum_low, low)]
}

/// Only the first sum is used: adding up in i16 leaves so little to do that one chain is enough.
#[inline]
#[target_feature(enable = "avx2")]
fn coarse_step_avx2(
    [sum, other]: [__m256i; 2],
    group: &ProbeGroup,
    high: &PlaneBlock,
) -> [__m256i; 2] {
    let high = _mm256_madd_epi16(eights_avx2(group, high), _mm256_set1_epi16(16));
    [_mm256_add_epi32(sum, high), other]
}

steps_by_dpbusd!("avx2,avxvnni", _mm256_dpbusd_avx_epi32, step_avxvnni, coarse_step_avxvnni);
products_256!(avxvnni, "avx2,avxvnni", step_avxvnni, coarse_step_avxvnni);
products_256!(avx2, "avx2", step_avx2, coarse_step_avx2);

/// What AVX-VNNI computes, by the twin of its instruction in AVX-512: no processor is sure to have
/// both, and this way either of them tests the code around it.
#[cfg(test)]
pub(super) mod twin {
    use super::*;

    steps_by_dpbusd!("avx2,avx512vl,avx512vnni", _mm256_dpbusd_epi32, step_vl, coarse_step_vl);
    products_256!(vl, "avx2,avx512vl,avx512vnni", step_vl, coarse_step_vl);
}
