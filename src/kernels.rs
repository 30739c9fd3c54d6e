//! Vectors of one byte to the component: how they are made of f32, and their dot products.
//!
//! A *code* is what is stored: `[u8]`, each component biased by 128 (stored = component + 128),
//! padded with 128, a component of 0, to a multiple of 64 bytes. A [`Probe`] is a code made ready
//! to be multiplied with many others. Products are sums of integers and exact: every instruction
//! set gives the same result, bit for bit.
//!
//! [`quantize`] makes components of a vector of f32 and says how far they are from it.
//!
//! The instructions are chosen when a probe is made, so a product costs one predictable branch.
//! Models and miri see the portable code, which is also the oracle of the tests.
//!
//! This room knows nothing of rows, graphs or distances.

#![allow(unsafe_code)]

use std::fmt;

#[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
mod neon;
mod portable;
mod quantize;
#[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
mod x86;

pub use quantize::{Quantized, quantize};

/// Codes are padded to multiples of this: a cache line, and the widest vector there is.
pub const BLOCK_BYTES: usize = 64;

/// What is added to a component to store it.
const BIAS: i32 = 128;

/// A block of a stored code.
type CodeBlock = [u8; BLOCK_BYTES];

/// Signed components, where loading them never straddles two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct ProbeBlock([i8; BLOCK_BYTES]);

/// The instructions that products are computed with. One that this processor does not have cannot
/// be named: all values come from [`Path::available`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path(Instructions);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Instructions {
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    Avx512Vnni,
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    AvxVnni,
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    Avx2,
    #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
    Neon,
    Portable,
}

impl Instructions {
    /// Best first.
    const ALL: &[Self] = &[
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Self::Avx512Vnni,
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Self::AvxVnni,
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Self::Avx2,
        #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
        Self::Neon,
        Self::Portable,
    ];

    /// Whether this processor has every feature that the functions of this path enable. The answers
    /// are remembered by the standard library: asking again is a load and a test.
    fn are_supported(self) -> bool {
        match self {
            #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
            Self::Avx512Vnni => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
            Self::AvxVnni => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni")
            }
            #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Self::Portable => true,
        }
    }
}

impl Path {
    /// The paths of this processor, the best one first, the portable one last.
    pub fn available() -> impl Iterator<Item = Self> {
        Instructions::ALL.iter().copied().filter(|path| path.are_supported()).map(Self)
    }

    /// The best path of this processor.
    fn best() -> Self {
        Self::available().next().unwrap_or(Self(Instructions::Portable))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
            Instructions::Avx512Vnni => "avx512-vnni",
            #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
            Instructions::AvxVnni => "avx-vnni",
            #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
            Instructions::Avx2 => "avx2",
            #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
            Instructions::Neon => "neon",
            Instructions::Portable => "portable",
        })
    }
}

/// One side of many products: the signed components of a code. It keeps its memory, so that
/// setting it again allocates nothing unless the code is longer than any before.
#[derive(Clone, Debug)]
pub struct Probe {
    blocks: Vec<ProbeBlock>,
    /// `-128` times the sum of the components: what is left to add when all of them were multiplied
    /// with stored bytes in place of components.
    correction: i32,
    path: Path,
}

impl Default for Probe {
    fn default() -> Self {
        Self::new()
    }
}

impl Probe {
    /// A probe without components, for the best instructions of this processor.
    pub fn new() -> Self {
        Self::with_path(Path::best())
    }

    /// A probe without components, for these instructions.
    pub fn with_path(path: Path) -> Self {
        Self { blocks: Vec::new(), correction: 0, path }
    }

    /// Takes these components, padded with 0 to a multiple of [`BLOCK_BYTES`].
    pub fn set_signed(&mut self, values: &[i8]) {
        self.set(values, |value| value);
    }

    /// Takes the components of a stored code, padded like those of [`Probe::set_signed`].
    pub fn set_code(&mut self, code: &[u8]) {
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        if self.path.0 == Instructions::Avx512Vnni
            && let (code, []) = code.as_chunks()
        {
            self.blocks.resize(code.len(), ProbeBlock([0; BLOCK_BYTES]));
            // SAFETY: a `Path` comes from `Path::available`, so the processor has the features.
            self.correction = unsafe { x86::sign_avx512vnni(code, &mut self.blocks) };
            return;
        }
        // Taking 128 away modulo 256 flips the highest bit.
        self.set(code, |byte| (byte ^ 0x80) as i8);
    }

    /// Number of components, padding included: a multiple of [`BLOCK_BYTES`].
    #[cfg(test)]
    fn len(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
    }

    fn set<T: Copy>(&mut self, values: &[T], signed: impl Fn(T) -> i8) {
        let (whole, rest) = values.as_chunks::<BLOCK_BYTES>();
        self.blocks.clear();
        self.blocks.extend(whole.iter().map(|block| ProbeBlock(block.map(&signed))));
        if !rest.is_empty() {
            let mut block = [0; BLOCK_BYTES];
            for (component, value) in block.iter_mut().zip(rest) {
                *component = signed(*value);
            }
            self.blocks.push(ProbeBlock(block));
        }
        // A block's sum is within 64 * 128 = 2^13 of 0.
        let block_sum = |block: &ProbeBlock| block.0.iter().map(|v| i16::from(*v)).sum::<i16>();
        let sum = self.blocks.iter().map(|block| i32::from(block_sum(block)));
        self.correction = sum.fold(0, i32::wrapping_add).wrapping_mul(-BIAS);
    }
}

// How large sums get: a component, also that of the stored byte 0, is within 128 = 2^7 of 0, so a
// product is within 2^14, and 65,536 = 2^16 of them are within 2^30: the result fits an i32.
//
// Multiplying with stored bytes gives partial sums within 255 * 128 * 2^16 < 2^31, and the
// correction is within 128 * 128 * 2^16 = 2^30. Their sum may leave i32 on the way, but all
// additions wrap: they are exact modulo 2^32, and so is the result, which fits. Past 65,536
// components results may wrap, on every path alike.

/// The dot product of the components: the sum of `probe[i] * (code[i] - 128)`.
///
/// It runs over the components that both have, in whole blocks: what `code` has past its last
/// multiple of [`BLOCK_BYTES`] does not count. Exact for up to 65,536 components.
#[inline]
pub fn dot(probe: &Probe, code: &[u8]) -> i32 {
    let (code, _) = code.as_chunks();
    if code.len() < probe.blocks.len() {
        // The correction is that of the whole probe.
        return portable::dot(&probe.blocks, code);
    }
    match probe.path.0 {
        // SAFETY: a `Path` comes from `Path::available`, so the processor has the features.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx512Vnni => unsafe {
            x86::dot_avx512vnni(&probe.blocks, probe.correction, code)
        },
        // SAFETY: as above.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::AvxVnni => unsafe { x86::dot_avxvnni(&probe.blocks, probe.correction, code) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx2 => unsafe { x86::dot_avx2(&probe.blocks, probe.correction, code) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
        Instructions::Neon => unsafe { neon::dot(&probe.blocks, code) },
        Instructions::Portable => portable::dot(&probe.blocks, code),
    }
}

/// Four times [`dot`] in one pass, over the components that the probe and all four codes have. It
/// costs less than four passes: the probe is read once, and lanes are added up together.
#[inline]
pub fn dots4(probe: &Probe, codes: [&[u8]; 4]) -> [i32; 4] {
    let [a, b, c, d] = codes;
    let (a, b, c, d) = (a.as_chunks().0, b.as_chunks().0, c.as_chunks().0, d.as_chunks().0);
    let blocks = probe.blocks.as_slice();
    let len = blocks.len();
    if a.len() < len || b.len() < len || c.len() < len || d.len() < len {
        // The correction is that of the whole probe.
        return portable::dots4(blocks, a, b, c, d);
    }
    match probe.path.0 {
        // SAFETY: a `Path` comes from `Path::available`, so the processor has the features.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx512Vnni => unsafe {
            x86::dots4_avx512vnni(blocks, probe.correction, a, b, c, d)
        },
        // SAFETY: as above.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::AvxVnni => unsafe {
            x86::dots4_avxvnni(blocks, probe.correction, a, b, c, d)
        },
        // SAFETY: as above.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx2 => unsafe { x86::dots4_avx2(blocks, probe.correction, a, b, c, d) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
        Instructions::Neon => unsafe { neon::dots4(blocks, a, b, c, d) },
        Instructions::Portable => portable::dots4(blocks, a, b, c, d),
    }
}

/// Most lines that one [`prefetch`] asks for: processors keep track of few more at a time.
const PREFETCH_LINES_MAX: usize = 16;

/// Asks for the cache lines of `values`, the first 16 at most, to be brought near. Nothing else
/// happens, and where there is no such instruction nothing at all.
#[inline]
pub fn prefetch<T>(values: &[T]) {
    let start = values.as_ptr().cast::<u8>();
    let skew = start.addr() % BLOCK_BYTES;
    let line_count = (skew + size_of_val(values)).div_ceil(BLOCK_BYTES).min(PREFETCH_LINES_MAX);
    let first_line = start.wrapping_sub(skew);
    for line in 0..line_count {
        prefetch_line(first_line.wrapping_add(line * BLOCK_BYTES));
    }
}

#[inline(always)]
fn prefetch_line(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    // SAFETY: SSE is in every x86-64, and a prefetch of any address, a bad one included, only
    // touches caches.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
    // SAFETY: PRFM is in every aarch64, only touches caches whatever the address, and changes
    // neither flags nor memory.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{address}]",
            address = in(reg) address,
            options(nostack, preserves_flags, readonly),
        );
    }
    #[cfg(any(loom, miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = address;
}

#[cfg(test)]
mod tests;
