//! Products with the vector instructions of aarch64.
//!
//! The functions are safe where the processor has NEON, which the caller answers for. Loads go
//! through references to as many bytes as are loaded.

use std::arch::aarch64::*;

use super::{CodeBlock, ProbeBlock};

#[target_feature(enable = "neon")]
pub(super) fn dot(probe: &[ProbeBlock], code: &[CodeBlock]) -> i32 {
    let mut sums = [vdupq_n_s32(0); 2];
    for (probe, code) in probe.iter().zip(code) {
        sums = step(sums, probe, code);
    }
    vaddvq_s32(vaddq_s32(sums[0], sums[1]))
}

#[target_feature(enable = "neon")]
pub(super) fn dots4(
    probe: &[ProbeBlock],
    row_a: &[CodeBlock],
    row_b: &[CodeBlock],
    row_c: &[CodeBlock],
    row_d: &[CodeBlock],
) -> [i32; 4] {
    let mut sums = [[vdupq_n_s32(0); 2]; 4];
    let blocks = probe.iter().zip(row_a).zip(row_b).zip(row_c).zip(row_d);
    for ((((probe, code_a), code_b), code_c), code_d) in blocks {
        for (sum, code) in sums.iter_mut().zip([code_a, code_b, code_c, code_d]) {
            *sum = step(*sum, probe, code);
        }
    }
    let [a, b, c, d] = sums.map(|[low, high]| vaddq_s32(low, high));
    let lanes = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
    [
        vgetq_lane_s32::<0>(lanes),
        vgetq_lane_s32::<1>(lanes),
        vgetq_lane_s32::<2>(lanes),
        vgetq_lane_s32::<3>(lanes),
    ]
}

/// Products of two components are within 2^14 of 0 and fit an i16; each lane of the sums takes two.
#[inline]
#[target_feature(enable = "neon")]
fn step(
    [mut low, mut high]: [int32x4_t; 2],
    probe: &ProbeBlock,
    code: &CodeBlock,
) -> [int32x4_t; 2] {
    let probe: &[[u8; 16]; 4] = bytemuck::cast_ref(&probe.0);
    let code: &[[u8; 16]; 4] = bytemuck::cast_ref(code);
    let bias = vdupq_n_u8(0x80);
    for (probe, code) in probe.iter().zip(code) {
        let probe = vreinterpretq_s8_u8(load(probe));
        // Taking 128 away modulo 256 flips the highest bit.
        let code = vreinterpretq_s8_u8(veorq_u8(load(code), bias));
        low = vpadalq_s16(low, vmull_s8(vget_low_s8(probe), vget_low_s8(code)));
        high = vpadalq_s16(high, vmull_high_s8(probe, code));
    }
    [low, high]
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: this reads 16 bytes, those of the reference, and needs no alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}
