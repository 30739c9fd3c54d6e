//! Products with the vector instructions of aarch64, with what is stored as it is stored.
//!
//! The functions are safe where the processor has NEON, which the caller answers for. Loads go
//! through references to as many bytes as are loaded.

use std::arch::aarch64::*;

use super::{PlaneBlock, ProbeGroup, planes};

#[target_feature(enable = "neon")]
pub(super) fn dot(groups: &[ProbeGroup], code: &[PlaneBlock]) -> i32 {
    let (high, low) = planes(code);
    let (mut highs, mut lows) = ([vdupq_n_s32(0); 2], [vdupq_n_s32(0); 2]);
    for (group, (high, low)) in groups.iter().zip(high.iter().zip(low)) {
        highs = step(highs, group, high);
        lows = step(lows, group, low);
    }
    vaddvq_s32(whole(highs, lows))
}

#[target_feature(enable = "neon")]
pub(super) fn dots4(
    groups: &[ProbeGroup],
    row_a: &[PlaneBlock],
    row_b: &[PlaneBlock],
    row_c: &[PlaneBlock],
    row_d: &[PlaneBlock],
) -> [i32; 4] {
    let (mut highs, mut lows) = ([[vdupq_n_s32(0); 2]; 4], [[vdupq_n_s32(0); 2]; 4]);
    let [row_a, row_b, row_c, row_d] = [row_a, row_b, row_c, row_d].map(|row| {
        let (high, low) = planes(row);
        high.iter().zip(low)
    });
    let groups = groups.iter().zip(row_a).zip(row_b).zip(row_c).zip(row_d);
    for ((((group, code_a), code_b), code_c), code_d) in groups {
        let codes = [code_a, code_b, code_c, code_d];
        for ((highs, lows), (high, low)) in highs.iter_mut().zip(&mut lows).zip(codes) {
            *highs = step(*highs, group, high);
            *lows = step(*lows, group, low);
        }
    }
    add_lanes([
        whole(highs[0], lows[0]),
        whole(highs[1], lows[1]),
        whole(highs[2], lows[2]),
        whole(highs[3], lows[3]),
    ])
}

#[target_feature(enable = "neon")]
pub(super) fn coarse(groups: &[ProbeGroup], plane: &[PlaneBlock]) -> i32 {
    let mut sums = [vdupq_n_s32(0); 2];
    for (group, high) in groups.iter().zip(plane) {
        sums = step(sums, group, high);
    }
    vaddvq_s32(times_16(sums))
}

#[target_feature(enable = "neon")]
pub(super) fn coarse4(
    groups: &[ProbeGroup],
    row_a: &[PlaneBlock],
    row_b: &[PlaneBlock],
    row_c: &[PlaneBlock],
    row_d: &[PlaneBlock],
) -> [i32; 4] {
    let mut sums = [[vdupq_n_s32(0); 2]; 4];
    let groups = groups.iter().zip(row_a).zip(row_b).zip(row_c).zip(row_d);
    for ((((group, high_a), high_b), high_c), high_d) in groups {
        for (sums, high) in sums.iter_mut().zip([high_a, high_b, high_c, high_d]) {
            *sums = step(*sums, group, high);
        }
    }
    let [a, b, c, d] = sums;
    add_lanes([times_16(a), times_16(b), times_16(c), times_16(d)])
}

/// Adds the products with the nibbles of a block of a plane. Those of two are within
/// 2 * 15 * 128 < 2^12 of 0 and fit an i16; each lane of the sums takes two of these.
#[inline]
#[target_feature(enable = "neon")]
fn step(
    [mut even, mut odd]: [int32x4_t; 2],
    ProbeGroup([first, second]): &ProbeGroup,
    block: &PlaneBlock,
) -> [int32x4_t; 2] {
    let first: &[[u8; 16]; 4] = bytemuck::cast_ref(first);
    let second: &[[u8; 16]; 4] = bytemuck::cast_ref(second);
    let block: &[[u8; 16]; 4] = bytemuck::cast_ref(block);
    for ((first, second), bytes) in first.iter().zip(second).zip(block) {
        let (first, second) = (load_signed(first), load_signed(second));
        let bytes = load(bytes);
        let low = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(0x0F)));
        let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes));
        let products = vmull_s8(vget_low_s8(first), vget_low_s8(low));
        even = vpadalq_s16(even, vmlal_s8(products, vget_low_s8(second), vget_low_s8(high)));
        let products = vmull_high_s8(first, low);
        odd = vpadalq_s16(odd, vmlal_high_s8(products, second, high));
    }
    [even, odd]
}

#[inline]
#[target_feature(enable = "neon")]
fn times_16([even, odd]: [int32x4_t; 2]) -> int32x4_t {
    vshlq_n_s32::<4>(vaddq_s32(even, odd))
}

/// 16 times the sums of the high plane, and those of the low one.
#[inline]
#[target_feature(enable = "neon")]
fn whole(highs: [int32x4_t; 2], [even, odd]: [int32x4_t; 2]) -> int32x4_t {
    vaddq_s32(times_16(highs), vaddq_s32(even, odd))
}

/// The sum of the lanes of each.
#[inline]
#[target_feature(enable = "neon")]
fn add_lanes([a, b, c, d]: [int32x4_t; 4]) -> [i32; 4] {
    let lanes = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
    [
        vgetq_lane_s32::<0>(lanes),
        vgetq_lane_s32::<1>(lanes),
        vgetq_lane_s32::<2>(lanes),
        vgetq_lane_s32::<3>(lanes),
    ]
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: this reads 16 bytes, those of the reference, and needs no alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_signed(bytes: &[u8; 16]) -> int8x16_t {
    vreinterpretq_s8_u8(load(bytes))
}
