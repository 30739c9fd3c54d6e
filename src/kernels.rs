//! Vectors of one byte to the component: how they are made of f32, and their dot products.
//!
//! A *code* is what is stored: `[u8]`, one byte to the component, in two halves. It is padded with
//! components of 0 to whole *groups* of [`GROUP`] components. Of each component the biased value
//! `u = component + 128`, in `1..=255` or also 0, is stored as two nibbles: its high one `u >> 4` in the
//! first half of the code, the *high plane*, and its low one `u & 15` in the second half, the *low
//! plane*. A group has 64 bytes of each plane:
//!
//! | bits of byte `j` of group `g` | nibble of component |
//! |---|---|
//! | 0 to 3 | `128 g + j` |
//! | 4 to 7 | `128 g + 64 + j` |
//!
//! So who reads nothing but high planes reads half of the memory, and gets the *coarse* product.
//!
//! A [`Probe`] is a code made ready to be multiplied with many others. Products are sums of integers
//! and exact: every instruction set gives the same result, bit for bit.
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

/// Codes are padded to multiples of this many components, and as many bytes.
pub const GROUP: usize = 2 * BLOCK_BYTES;

/// A cache line, and the widest vector there is: what a group has of each plane.
const BLOCK_BYTES: usize = 64;

/// What is added to a component to store it.
const BIAS: i32 = 128;

/// Twice what a nibble of the high plane is raised by to be in the middle of what it stands for:
/// of `16 H + L - 128`, the middle is `16 H + 7.5 - 128`.
const MIDDLE_TWICE: i32 = 241;

/// What a group has of a plane.
type PlaneBlock = [u8; BLOCK_BYTES];

/// The signed components of a group, where loading them never straddles two cache lines. The first
/// half belongs to the low nibbles of a plane, the second to the high ones.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct ProbeGroup([[i8; BLOCK_BYTES]; 2]);

impl ProbeGroup {
    const ZERO: Self = Self([[0; BLOCK_BYTES]; 2]);
}

/// Bytes of the code of `dim` components: the next multiple of [`GROUP`].
pub const fn code_bytes(dim: usize) -> usize {
    dim.next_multiple_of(GROUP)
}

/// Writes the code of these components. What `code` has room for beyond them becomes 0; components
/// beyond `code` do not count, and what `code` has past its last whole group stays as it is.
pub fn pack(signed: &[i8], code: &mut [u8]) {
    let plane_bytes = code.len() / GROUP * BLOCK_BYTES;
    let (high, low) = code.split_at_mut(plane_bytes);
    let planes = high.as_chunks_mut().0.iter_mut().zip(low.as_chunks_mut().0);
    let mut rest = signed;
    for (high, low) in planes {
        let (values, others) = rest.split_at(rest.len().min(GROUP));
        rest = others;
        let mut group = ProbeGroup::ZERO;
        let components = group.0.as_flattened_mut();
        components[..values.len()].copy_from_slice(values);
        pack_group(&group, high, low);
    }
}

fn pack_group(
    ProbeGroup([first, second]): &ProbeGroup,
    high: &mut PlaneBlock,
    low: &mut PlaneBlock,
) {
    for j in 0..BLOCK_BYTES {
        let [first, second] = [bias(first[j]), bias(second[j])];
        high[j] = first >> 4 | second & 0xF0;
        low[j] = first & 0x0F | second << 4;
    }
}

/// Adding 128 modulo 256 flips the highest bit.
fn bias(component: i8) -> u8 {
    component.cast_unsigned() ^ 0x80
}

/// Both planes of a code, the high one first.
#[inline(always)]
fn planes(code: &[PlaneBlock]) -> (&[PlaneBlock], &[PlaneBlock]) {
    code.split_at(code.len() / 2)
}

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
    groups: Vec<ProbeGroup>,
    /// The sum of the components.
    sum: i32,
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
        Self { groups: Vec::new(), sum: 0, path }
    }

    /// Takes these components, padded with 0 to a multiple of [`GROUP`].
    pub fn set_signed(&mut self, values: &[i8]) {
        self.groups.clear();
        self.groups.extend(values.chunks(GROUP).map(|values| {
            let mut group = ProbeGroup::ZERO;
            let components = group.0.as_flattened_mut();
            components[..values.len()].copy_from_slice(values);
            group
        }));
        self.sum = portable::sum(&self.groups);
    }

    /// Takes the components of a stored code, of its whole groups.
    pub fn set_code(&mut self, code: &[u8]) {
        let code = whole_groups(code);
        self.groups.resize(code.len() / 2, ProbeGroup::ZERO);
        self.sum = match self.path.0 {
            // SAFETY: a `Path` comes from `Path::available`, so the processor has the features.
            #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
            Instructions::Avx512Vnni => unsafe { x86::unpack_avx512vnni(code, &mut self.groups) },
            // SAFETY: as above; both have AVX2.
            #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
            Instructions::AvxVnni | Instructions::Avx2 => unsafe {
                x86::unpack_avx2(code, &mut self.groups)
            },
            _ => {
                portable::unpack(code, &mut self.groups);
                portable::sum(&self.groups)
            }
        };
    }

    /// Number of components, padding included: a multiple of [`GROUP`].
    #[cfg(test)]
    fn len(&self) -> usize {
        self.groups.len() * GROUP
    }
}

/// The blocks of the planes of a code, one and the same number of each.
#[inline(always)]
fn whole_groups(code: &[u8]) -> &[PlaneBlock] {
    let (blocks, _) = code.as_chunks();
    &blocks[..blocks.len() / 2 * 2]
}

// All paths compute two sums, of products with what is stored as it is stored:
//
//     whole  = sum of probe[i] * (16 H[i] + L[i])
//     coarse = sum of probe[i] * 16 H[i]
//
// of which the products that are wanted follow:
//
//     whole - 128 * sum of probe[i]  =  sum of probe[i] * (16 H[i] + L[i] - 128)
//     2 coarse - 241 * sum of probe[i]  =  2 * sum of probe[i] * (16 H[i] + 7.5 - 128)
//
// How large they get: a component is within 128 = 2^7 of 0, that of the stored byte 0 too, so 65,536
// = 2^16 products of two of them are within 2^30 of 0. `2 (16 H + 7.5 - 128)` is within 241 of 0, so
// 2^16 products of it are within 241 * 2^23 < 2^31. Both fit an i32. What is computed on the way may
// leave i32, but it is only added, subtracted and multiplied modulo 2^32: so the results are exact
// modulo 2^32, and as they fit, exact. Past 65,536 components results may wrap, on every path alike.

/// The product of the components, of the sum of products with stored bytes.
#[inline(always)]
fn without_bias(whole: i32, probe_sum: i32) -> i32 {
    whole.wrapping_sub(probe_sum.wrapping_mul(BIAS))
}

/// The coarse product, of the sum of products with high nibbles. It is rounded once, to f32: half of
/// an integer in f32 is exact.
#[inline(always)]
fn in_the_middle(coarse: i32, probe_sum: i32) -> f32 {
    let twice = coarse.wrapping_mul(2).wrapping_sub(probe_sum.wrapping_mul(MIDDLE_TWICE));
    0.5 * twice as f32
}

/// The dot product of the components: the sum of `probe[i] * component[i]`.
///
/// It runs over the components that both have, in whole groups: what `code` has past its last
/// multiple of [`GROUP`] bytes does not count. Exact for up to 65,536 components.
#[inline]
pub fn dot(probe: &Probe, code: &[u8]) -> i32 {
    let code = whole_groups(code);
    let groups = probe.groups.as_slice();
    if code.len() / 2 < groups.len() {
        let groups = &groups[..code.len() / 2];
        return without_bias(portable::dot(groups, code), portable::sum(groups));
    }
    let whole = match probe.path.0 {
        // SAFETY: a `Path` comes from `Path::available`, so the processor has the features.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx512Vnni => unsafe { x86::dot_avx512vnni(groups, code) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::AvxVnni => unsafe { x86::avxvnni::dot(groups, code) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx2 => unsafe { x86::avx2::dot(groups, code) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
        Instructions::Neon => unsafe { neon::dot(groups, code) },
        Instructions::Portable => portable::dot(groups, code),
    };
    without_bias(whole, probe.sum)
}

/// Four times [`dot`] in one pass, over the components that the probe and all four codes have. It
/// costs less than four passes: the probe is read once, and lanes are added up together.
#[inline]
pub fn dots4(probe: &Probe, codes: [&[u8]; 4]) -> [i32; 4] {
    let [a, b, c, d] = codes;
    let (a, b, c, d) = (whole_groups(a), whole_groups(b), whole_groups(c), whole_groups(d));
    let groups = probe.groups.as_slice();
    let len = a.len().min(b.len()).min(c.len()).min(d.len()) / 2;
    if len < groups.len() {
        let groups = &groups[..len];
        let sum = portable::sum(groups);
        return [a, b, c, d].map(|code| without_bias(portable::dot(groups, code), sum));
    }
    let wholes = match probe.path.0 {
        // SAFETY: a `Path` comes from `Path::available`, so the processor has the features.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx512Vnni => unsafe { x86::dots4_avx512vnni(groups, a, b, c, d) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::AvxVnni => unsafe { x86::avxvnni::dots4(groups, a, b, c, d) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx2 => unsafe { x86::avx2::dots4(groups, a, b, c, d) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
        Instructions::Neon => unsafe { neon::dots4(groups, a, b, c, d) },
        Instructions::Portable => [a, b, c, d].map(|code| portable::dot(groups, code)),
    };
    wholes.map(|whole| without_bias(whole, probe.sum))
}

/// The dot product where of each component of a code only the high nibble is known, and the middle
/// of what it may be stands for it: the sum of `probe[i] * (16 * high[i] + 7.5 - 128)`.
///
/// `high_plane` is the first half of a code; its rest is not read. It runs over the components that
/// both have, in whole groups: blocks of 64 bytes. For up to 65,536 components it is the f32 that is
/// nearest to the sum.
#[inline]
pub fn coarse(probe: &Probe, high_plane: &[u8]) -> f32 {
    let (plane, _) = high_plane.as_chunks();
    let groups = probe.groups.as_slice();
    if plane.len() < groups.len() {
        let groups = &groups[..plane.len()];
        return in_the_middle(portable::coarse(groups, plane), portable::sum(groups));
    }
    let coarse = match probe.path.0 {
        // SAFETY: a `Path` comes from `Path::available`, so the processor has the features.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx512Vnni => unsafe { x86::coarse_avx512vnni(groups, plane) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::AvxVnni => unsafe { x86::avxvnni::coarse(groups, plane) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx2 => unsafe { x86::avx2::coarse(groups, plane) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
        Instructions::Neon => unsafe { neon::coarse(groups, plane) },
        Instructions::Portable => portable::coarse(groups, plane),
    };
    in_the_middle(coarse, probe.sum)
}

/// Four times [`coarse`] in one pass, over the components that the probe and all four planes have.
#[inline]
pub fn coarse4(probe: &Probe, high_planes: [&[u8]; 4]) -> [f32; 4] {
    let [a, b, c, d] = high_planes;
    let (a, b, c, d) = (a.as_chunks().0, b.as_chunks().0, c.as_chunks().0, d.as_chunks().0);
    let groups = probe.groups.as_slice();
    let len = a.len().min(b.len()).min(c.len()).min(d.len());
    if len < groups.len() {
        let groups = &groups[..len];
        let sum = portable::sum(groups);
        return [a, b, c, d].map(|plane| in_the_middle(portable::coarse(groups, plane), sum));
    }
    let coarse = match probe.path.0 {
        // SAFETY: a `Path` comes from `Path::available`, so the processor has the features.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx512Vnni => unsafe { x86::coarse4_avx512vnni(groups, a, b, c, d) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::AvxVnni => unsafe { x86::avxvnni::coarse4(groups, a, b, c, d) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx2 => unsafe { x86::avx2::coarse4(groups, a, b, c, d) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
        Instructions::Neon => unsafe { neon::coarse4(groups, a, b, c, d) },
        Instructions::Portable => [a, b, c, d].map(|plane| portable::coarse(groups, plane)),
    };
    coarse.map(|coarse| in_the_middle(coarse, probe.sum))
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

/// [`prefetch`] of whole cache lines: `lines` begins where one does.
#[inline]
pub fn prefetch_lines(lines: &[u8]) {
    let lines = lines.get(..PREFETCH_LINES_MAX * BLOCK_BYTES).unwrap_or(lines);
    // By three, which is what many codes have: 384 components, of which half is read.
    let (threes, rest) = lines.as_chunks::<{ 3 * BLOCK_BYTES }>();
    for three in threes {
        for line in 0..3 {
            prefetch_line(three.as_ptr().wrapping_add(line * BLOCK_BYTES));
        }
    }
    for line in rest.as_chunks::<BLOCK_BYTES>().0 {
        prefetch_line(line.as_ptr());
    }
}

/// [`prefetch`] of the cache line that `value` begins in.
#[inline]
pub fn prefetch_start<T>(value: &T) {
    prefetch_line(std::ptr::from_ref(value).cast());
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
