//! The bloom region: a filter that says "certainly not here" for most ids a segment does not hold.
//!
//! | offset | bytes | type | meaning |
//! |---|---|---|---|
//! | 0 | 4 | u32 | number of hashes |
//! | 4 | 8 | u64 | number of bits |
//! | 12 | 8 x ceil(bits / 64) | u64 each | the bits; bit `i` is bit `i mod 64` of word `i / 64` |
//!
//! Little-endian, so bit `i` is also bit `i mod 8` of byte `i / 8` after the 12. Checked by the
//! segment's block checksums.

use crate::fnv::fnv1a_64;

/// The rate of false "perhaps" answers that [`BloomShape::for_items`] is made for.
pub const FALSE_POSITIVE_RATE: f64 = 0.01;

/// Bytes before the words: the two numbers of the shape.
pub(crate) const BLOOM_HEAD_BYTES: usize = 12;

/// The two numbers that say where the bits of a key are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BloomShape {
    /// How many bits are set for a key; at least 1.
    pub hashes_count: u32,
    /// How many bits there are; at least 1.
    pub bits_count: u64,
}

impl BloomShape {
    /// The shape for `items_count` keys at [`FALSE_POSITIVE_RATE`]:
    /// `bits = max(64, ceil(-n ln p / (ln 2)^2))`, `hashes = max(1, ceil(bits / n * ln 2))`, and
    /// 64 bits with 1 hash for no keys.
    #[must_use]
    pub fn for_items(items_count: u32) -> Self {
        if items_count == 0 {
            return Self { hashes_count: 1, bits_count: 64 };
        }
        let ln_2 = std::f64::consts::LN_2;
        let items = f64::from(items_count);
        let bits = (-items * FALSE_POSITIVE_RATE.ln() / (ln_2 * ln_2)).ceil().max(64.0);
        // At most 45 (64 bits for one key) and about 42 billion: both casts are exact.
        let hashes_count = (bits / items * ln_2).ceil().max(1.0) as u32;
        Self { hashes_count, bits_count: bits as u64 }
    }

    /// Bytes of the words that hold the bits; `None` where that does not fit `usize`.
    #[must_use]
    pub fn words_bytes(&self) -> Option<usize> {
        usize::try_from(self.bits_count.div_ceil(64)).ok()?.checked_mul(8)
    }

    /// The bits of `key`: double hashing, `(h1 + i * h2) mod bits` with `h1 = FNV-1a-64(key)` and
    /// `h2 = FNV-1a-64(h1 as 8 little-endian bytes) + 1`, all wrapping.
    pub fn positions(self, key: &[u8; 16]) -> impl Iterator<Item = u64> + use<> {
        let h1 = fnv1a_64(key);
        let h2 = fnv1a_64(&h1.to_le_bytes()).wrapping_add(1);
        let bits_count = self.bits_count.max(1);
        (0..u64::from(self.hashes_count))
            .map(move |i| h1.wrapping_add(i.wrapping_mul(h2)) % bits_count)
    }
}

/// A filter being filled.
#[derive(Clone, Debug)]
pub struct BloomBuilder {
    shape: BloomShape,
    words: Vec<u8>,
}

impl BloomBuilder {
    /// An empty filter for `items_count` keys.
    #[must_use]
    pub fn for_items(items_count: u32) -> Self {
        let shape = BloomShape::for_items(items_count);
        // At most 5.2 GB for 2^32 - 1 keys; where that does not fit `usize`, neither do the keys.
        Self { shape, words: vec![0; shape.words_bytes().unwrap_or(0)] }
    }

    /// Adds `key`.
    pub fn insert(&mut self, key: &[u8; 16]) {
        for position in self.shape.positions(key) {
            let byte = usize::try_from(position / 8).ok().and_then(|at| self.words.get_mut(at));
            if let Some(byte) = byte {
                *byte |= 1 << (position % 8);
            }
        }
    }

    /// The shape of the filter.
    #[must_use]
    pub fn shape(&self) -> BloomShape {
        self.shape
    }

    /// The words, as they stand in a segment.
    #[must_use]
    pub fn words(&self) -> &[u8] {
        &self.words
    }
}

/// A filter to ask, on the words of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Bloom<'a> {
    shape: BloomShape,
    words: &'a [u8],
}

impl<'a> Bloom<'a> {
    /// The filter of this shape on these words.
    #[must_use]
    pub fn new(shape: BloomShape, words: &'a [u8]) -> Self {
        Self { shape, words }
    }

    /// `false`: the key was never inserted. `true`: perhaps it was.
    #[must_use]
    pub fn may_contain(&self, key: &[u8; 16]) -> bool {
        self.shape.positions(key).all(|position| {
            usize::try_from(position / 8)
                .ok()
                .and_then(|at| self.words.get(at))
                // A missing word can prove nothing, so it must not say "certainly not".
                .is_none_or(|byte| byte & (1 << (position % 8)) != 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&fnv1a_64(&number.to_le_bytes()).to_le_bytes());
        key[8..].copy_from_slice(&number.to_le_bytes());
        key
    }

    #[test]
    fn the_shape_follows_the_formulas() {
        let shape = |hashes_count, bits_count| BloomShape { hashes_count, bits_count };
        assert_eq!(BloomShape::for_items(0), shape(1, 64));
        // One key would need 10 bits; the minimum of 64 then asks for ceil(64 ln 2) hashes.
        assert_eq!(BloomShape::for_items(1), shape(45, 64));
        // ceil(9.58505838 n) bits and ceil(6.64...) hashes.
        assert_eq!(BloomShape::for_items(100), shape(7, 959));
        assert_eq!(BloomShape::for_items(10_000), shape(7, 95_851));
        assert_eq!(BloomShape::for_items(10_000).words_bytes(), Some(1_498 * 8));
    }

    #[test]
    fn the_bits_of_a_key_are_those_of_the_format() {
        let shape = BloomShape { hashes_count: 3, bits_count: 1_000_003 };
        // Worked out with a program of another language.
        assert_eq!(fnv1a_64(&[0; 16]), 0x8820_1fb9_60ff_6465);
        assert_eq!(shape.positions(&[0; 16]).collect::<Vec<_>>(), [372_422, 816_693, 910_277]);
    }

    #[test]
    fn no_inserted_key_is_denied_and_few_others_are_allowed() {
        let mut builder = BloomBuilder::for_items(2_000);
        (0..2_000).for_each(|number| builder.insert(&key(number)));
        let bloom = Bloom::new(builder.shape(), builder.words());
        assert!((0..2_000).all(|number| bloom.may_contain(&key(number))));
        let wrong = (2_000..22_000).filter(|number| bloom.may_contain(&key(*number))).count();
        // The rate is 1%; 20,000 tries have a deviation of 14 around 200.
        assert!(wrong < 300, "{wrong} of 20,000");
    }
}
