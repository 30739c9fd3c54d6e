//! Products in plain code: for processors without better, and the oracle of the others.

use super::{BIAS, CodeBlock, ProbeBlock};

pub(super) fn dot(probe: &[ProbeBlock], code: &[CodeBlock]) -> i32 {
    let blocks = probe.iter().zip(code).map(|(probe, code)| dot_block(probe, code));
    blocks.fold(0, i32::wrapping_add)
}

pub(super) fn dots4(
    probe: &[ProbeBlock],
    a: &[CodeBlock],
    b: &[CodeBlock],
    c: &[CodeBlock],
    d: &[CodeBlock],
) -> [i32; 4] {
    let codes = [a, b, c, d];
    let len = codes.iter().fold(probe.len(), |len, code| len.min(code.len()));
    codes.map(|code| dot(&probe[..len], code))
}

/// Within 64 * 2^14 = 2^20 of 0. All factors fit an i16, for which there are instructions that
/// multiply and add pairs.
fn dot_block(probe: &ProbeBlock, code: &CodeBlock) -> i32 {
    let products = probe.0.iter().zip(code).map(|(component, byte)| {
        i32::from(i16::from(*component)) * i32::from(i16::from(*byte) - BIAS as i16)
    });
    products.sum()
}
