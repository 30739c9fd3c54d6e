//! Products in plain code: for processors without better, and the oracle of the others.
//!
//! Codes may be longer than the probe, and then what they have beyond does not count; a shorter one
//! ends the product.

use super::{BLOCK_BYTES, PlaneBlock, ProbeGroup, planes};

/// The sum of the components.
pub(super) fn sum(groups: &[ProbeGroup]) -> i32 {
    // A group's sum is within 128 * 128 = 2^14 of 0.
    let sum_of_group =
        |group: &ProbeGroup| group.0.as_flattened().iter().map(|v| i16::from(*v)).sum::<i16>();
    groups.iter().map(|group| i32::from(sum_of_group(group))).fold(0, i32::wrapping_add)
}

/// Writes the components of a code of as many groups.
pub(super) fn unpack(code: &[PlaneBlock], groups: &mut [ProbeGroup]) {
    let (high, low) = planes(code);
    for (ProbeGroup([first, second]), (high, low)) in groups.iter_mut().zip(high.iter().zip(low)) {
        for j in 0..BLOCK_BYTES {
            // Taking 128 away modulo 256 flips the highest bit.
            first[j] = ((high[j] << 4 | low[j] & 0x0F) ^ 0x80).cast_signed();
            second[j] = ((high[j] & 0xF0 | low[j] >> 4) ^ 0x80).cast_signed();
        }
    }
}

/// The sum of the products with stored bytes.
pub(super) fn dot(groups: &[ProbeGroup], code: &[PlaneBlock]) -> i32 {
    let (high, low) = planes(code);
    coarse(groups, high).wrapping_add(by_nibbles(groups, low))
}

/// The sum of the products with 16 times the nibbles of the high plane.
pub(super) fn coarse(groups: &[ProbeGroup], high_plane: &[PlaneBlock]) -> i32 {
    by_nibbles(groups, high_plane).wrapping_mul(16)
}

fn by_nibbles(groups: &[ProbeGroup], plane: &[PlaneBlock]) -> i32 {
    let groups = groups.iter().zip(plane);
    groups.map(|(group, block)| by_nibbles_of_group(group, block)).fold(0, i32::wrapping_add)
}

/// Within 128 * 128 * 15 < 2^18 of 0. All factors fit an i16, for which there are instructions that
/// multiply and add pairs.
fn by_nibbles_of_group(ProbeGroup([first, second]): &ProbeGroup, block: &PlaneBlock) -> i32 {
    let product =
        |component: i8, nibble: u8| i32::from(i16::from(component)) * i32::from(i16::from(nibble));
    let components = first.iter().zip(second).zip(block);
    components.map(|((a, b), byte)| product(*a, byte & 0x0F) + product(*b, byte >> 4)).sum()
}
