//! Products with the vector instructions of x86-64.
//!
//! All of them multiply the signed components of the probe with the stored bytes as they are, which
//! is `128 * probe[i]` too much for each, and begin with the correction in one lane. So codes must
//! be as long as the probe; what they have beyond does not count.
//!
//! The functions are safe where the processor has the features they enable, which the caller
//! answers for. Loads go through references to as many bytes as are loaded.

use std::arch::x86_64::*;

use super::{BIAS, BLOCK_BYTES, CodeBlock, ProbeBlock};

#[inline]
#[target_feature(enable = "avx512f")]
fn load_512(bytes: &CodeBlock) -> __m512i {
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
fn load_128(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: this reads 16 bytes, those of the reference, and needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn step_512(sum: __m512i, probe: &ProbeBlock, code: &CodeBlock) -> __m512i {
    // The first factor is the unsigned one. It adds four products to each lane, without saturation.
    _mm512_dpbusd_epi32(sum, load_512(code), load_512(bytemuck::cast_ref(&probe.0)))
}

/// Writes the signed form of `code` to `signed`, which is as long, and returns its correction:
/// `-128` times the sum of the components.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn sign_avx512vnni(code: &[CodeBlock], signed: &mut [ProbeBlock]) -> i32 {
    let flip = _mm512_set1_epi8(i8::MIN);
    let ones = _mm512_set1_epi8(1);
    let mut sum = _mm512_setzero_si512();
    for (code, ProbeBlock(signed)) in code.iter().zip(signed) {
        let stored = load_512(code);
        sum = _mm512_dpbusd_epi32(sum, stored, ones);
        // SAFETY: this writes 64 bytes, those of the reference, and needs no alignment.
        unsafe {
            _mm512_storeu_si512(signed.as_mut_ptr().cast(), _mm512_xor_si512(stored, flip));
        }
    }
    // Stored bytes are 128 more than components.
    let bias = i32::try_from(code.len() * BLOCK_BYTES).unwrap_or(i32::MAX).wrapping_mul(BIAS);
    _mm512_reduce_add_epi32(sum).wrapping_sub(bias).wrapping_mul(-BIAS)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn dot_avx512vnni(probe: &[ProbeBlock], correction: i32, code: &[CodeBlock]) -> i32 {
    let code = code.get(..probe.len()).unwrap_or(code);
    let ((probe, probe_rest), (code, code_rest)) = (probe.as_chunks(), code.as_chunks());
    // Two chains of additions, since one would wait for itself.
    let mut even = _mm512_zextsi128_si512(_mm_cvtsi32_si128(correction));
    let mut odd = _mm512_setzero_si512();
    for ([probe_even, probe_odd], [code_even, code_odd]) in probe.iter().zip(code) {
        even = step_512(even, probe_even, code_even);
        odd = step_512(odd, probe_odd, code_odd);
    }
    if let ([probe], [code]) = (probe_rest, code_rest) {
        even = step_512(even, probe, code);
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(even, odd))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn dots4_avx512vnni(
    probe: &[ProbeBlock],
    correction: i32,
    row_a: &[CodeBlock],
    row_b: &[CodeBlock],
    row_c: &[CodeBlock],
    row_d: &[CodeBlock],
) -> [i32; 4] {
    let start = _mm512_zextsi128_si512(_mm_cvtsi32_si128(correction));
    let (mut a, mut b, mut c, mut d) = (start, start, start, start);
    let blocks = probe.iter().zip(row_a).zip(row_b).zip(row_c).zip(row_d);
    for ((((probe, code_a), code_b), code_c), code_d) in blocks {
        a = step_512(a, probe, code_a);
        b = step_512(b, probe, code_b);
        c = step_512(c, probe, code_c);
        d = step_512(d, probe, code_d);
    }
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

/// Products with vectors of 256 bits, of which `$step` multiplies and adds one.
macro_rules! products_256 {
    ($features:literal, $step:ident, $dot:ident, $dots4:ident) => {
        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn $dot(
            probe: &[ProbeBlock],
            correction: i32,
            code: &[CodeBlock],
        ) -> i32 {
            let mut low = _mm256_zextsi128_si256(_mm_cvtsi32_si128(correction));
            let mut high = _mm256_setzero_si256();
            for (probe, code) in probe.iter().zip(code) {
                let probe: &[[u8; 32]; 2] = bytemuck::cast_ref(&probe.0);
                let code: &[[u8; 32]; 2] = bytemuck::cast_ref(code);
                low = $step(low, &probe[0], &code[0]);
                high = $step(high, &probe[1], &code[1]);
            }
            let zero = _mm256_setzero_si256();
            let [sum, ..] = add_lanes([_mm256_add_epi32(low, high), zero, zero, zero]);
            sum
        }

        #[target_feature(enable = $features)]
        pub(in crate::kernels) fn $dots4(
            probe: &[ProbeBlock],
            correction: i32,
            row_a: &[CodeBlock],
            row_b: &[CodeBlock],
            row_c: &[CodeBlock],
            row_d: &[CodeBlock],
        ) -> [i32; 4] {
            let mut low = [_mm256_zextsi128_si256(_mm_cvtsi32_si128(correction)); 4];
            let mut high = [_mm256_setzero_si256(); 4];
            let blocks = probe.iter().zip(row_a).zip(row_b).zip(row_c).zip(row_d);
            for ((((probe, code_a), code_b), code_c), code_d) in blocks {
                let probe: &[[u8; 32]; 2] = bytemuck::cast_ref(&probe.0);
                for (row, code) in [code_a, code_b, code_c, code_d].into_iter().enumerate() {
                    let code: &[[u8; 32]; 2] = bytemuck::cast_ref(code);
                    low[row] = $step(low[row], &probe[0], &code[0]);
                    high[row] = $step(high[row], &probe[1], &code[1]);
                }
            }
            add_lanes([
                _mm256_add_epi32(low[0], high[0]),
                _mm256_add_epi32(low[1], high[1]),
                _mm256_add_epi32(low[2], high[2]),
                _mm256_add_epi32(low[3], high[3]),
            ])
        }
    };
}

/// The sum of the lanes of each.
#[inline]
#[target_feature(enable = "avx2")]
fn add_lanes([a, b, c, d]: [__m256i; 4]) -> [i32; 4] {
    let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    lanes_of_four(_mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd)))
}

#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn step_avxvnni(sum: __m256i, probe: &[u8; 32], code: &[u8; 32]) -> __m256i {
    _mm256_dpbusd_avx_epi32(sum, load_256(code), load_256(probe))
}

/// The instruction for bytes saturates where it adds two products, so bytes are widened first.
#[inline]
#[target_feature(enable = "avx2")]
fn step_avx2(sum: __m256i, probe: &[u8; 32], code: &[u8; 32]) -> __m256i {
    let probe: &[[u8; 16]; 2] = bytemuck::cast_ref(probe);
    let code: &[[u8; 16]; 2] = bytemuck::cast_ref(code);
    let low = _mm256_madd_epi16(
        _mm256_cvtepi8_epi16(load_128(&probe[0])),
        _mm256_cvtepu8_epi16(load_128(&code[0])),
    );
    let high = _mm256_madd_epi16(
        _mm256_cvtepi8_epi16(load_128(&probe[1])),
        _mm256_cvtepu8_epi16(load_128(&code[1])),
    );
    _mm256_add_epi32(sum, _mm256_add_epi32(low, high))
}

products_256!("avx2,avxvnni", step_avxvnni, dot_avxvnni, dots4_avxvnni);
products_256!("avx2", step_avx2, dot_avx2, dots4_avx2);

/// What AVX-VNNI computes, by the twin of its instruction in AVX-512: no processor is sure to have
/// both, and this way either of them tests the code around it.
#[cfg(test)]
pub(super) mod twin {
    use super::*;

    #[inline]
    #[target_feature(enable = "avx2,avx512vl,avx512vnni")]
    fn step_vl(sum: __m256i, probe: &[u8; 32], code: &[u8; 32]) -> __m256i {
        _mm256_dpbusd_epi32(sum, load_256(code), load_256(probe))
    }

    products_256!("avx2,avx512vl,avx512vnni", step_vl, dot_vl, dots4_vl);
}
