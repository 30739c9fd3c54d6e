//! Bytes made of other bytes: what an ordinary test has in place of libFuzzer. It knows nothing of
//! formats but that numbers in them have 1, 2, 4 or 8 bytes, and that small ones, round ones and
//! those near a length are the ones that matter.

use fastrand::Rng;

/// No input is longer.
const BYTES_MAX: usize = 8_192;

/// A changed copy of one of `seeds`, which is not empty.
pub fn mutated(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[rng.usize(..seeds.len())].clone();
    // Half of the inputs are one change away from a seed, a few are far away.
    let changes = 1 << rng.u32(0..6).saturating_sub(2);
    for _ in 0..changes {
        change(rng, &mut bytes, seeds);
    }
    // The first byte holds the switches, which choose what is tried.
    if rng.bool()
        && let Some(first) = bytes.first_mut()
    {
        *first ^= 1 << rng.u32(0..8);
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let len = bytes.len();
    if len == 0 {
        bytes.push(rng.u8(..));
        return;
    }
    let at = rng.usize(..len);
    match rng.u32(0..12) {
        0..3 => bytes[at] ^= 1 << rng.u32(0..8),
        3 => bytes[at] = rng.u8(..),
        4..7 => number(rng, bytes, at),
        7 => bytes.truncate(at),
        8 => bytes.extend(std::iter::repeat_n(rng.u8(..) * u8::from(rng.bool()), rng.usize(1..80))),
        9 => {
            let end = (at + rng.usize(1..100)).min(len);
            bytes.drain(at..end);
        }
        10 => {
            // A part of this input or another, put in or written over what is there.
            let other =
                if rng.bool() { bytes.clone() } else { seeds[rng.usize(..seeds.len())].clone() };
            if other.is_empty() {
                return;
            }
            let from = rng.usize(..other.len());
            let part = &other[from..(from + rng.usize(1..200)).min(other.len())];
            let end = if rng.bool() { at } else { (at + part.len()).min(len) };
            bytes.splice(at..end, part.iter().copied());
        }
        _ => {
            let end = (at + rng.usize(1..40)).min(len);
            bytes[at..end].fill(if rng.bool() { 0 } else { rng.u8(..) });
        }
    }
}

fn number(rng: &mut Rng, bytes: &mut [u8], at: usize) {
    let width = 1 << rng.u32(0..4);
    // Fields begin at multiples of 4 more often than not.
    let at = if rng.bool() { at / 4 * 4 } else { at };
    let len = bytes.len() as u64;
    let Some(place) = bytes.get_mut(at..at + width) else { return };
    let mut old = [0; 8];
    old[..width].copy_from_slice(place);
    let old = u64::from_le_bytes(old);
    let new = match rng.u32(0..6) {
        0 => old.wrapping_add(rng.u64(1..20)),
        1 => old.wrapping_sub(rng.u64(1..20)),
        2 => (1_u64 << rng.u32(0..64)).wrapping_sub(rng.u64(0..2)),
        3 => len.wrapping_add(rng.u64(0..8)).wrapping_sub(4),
        4 => rng.u64(0..100),
        _ => u64::MAX.wrapping_sub(rng.u64(0..3)),
    };
    place.copy_from_slice(&new.to_le_bytes()[..width]);
}
