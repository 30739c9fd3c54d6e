//! Reading fields from hostile bytes: every read says how much it needs and may be refused.

/// Little-endian fields, taken from the front of a byte string one after the other.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Starts at the first of `bytes`.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been taken yet.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes, or `None` where fewer are left. Takes a `u64` so that a product of
    /// two counts from disk reaches this check without wrapping.
    pub(crate) fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(count).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    /// The next `N` bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    /// The next byte.
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    /// The next `u32`.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next `i32`.
    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    /// The next `u64`.
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `f32`, bit for bit.
    pub(crate) fn f32(&mut self) -> Option<f32> {
        self.array().map(f32::from_le_bytes)
    }
}

/// Whether every byte is zero. Works in blocks without an early exit inside, which compilers
/// turn into vector code: a log may end in megabytes of zeros.
pub(crate) fn all_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|block| block.iter().fold(0, |seen, byte| seen | byte) == 0)
}

/// Length of `bytes` up to and with the last one that is not zero.
pub(crate) fn len_without_zeros(bytes: &[u8]) -> usize {
    const BLOCK: usize = 4096;
    let mut len = bytes.len();
    while let Some(block) = bytes.get(len.saturating_sub(BLOCK)..len)
        && !block.is_empty()
    {
        if !all_zero(block) {
            let zeros = block.iter().rev().take_while(|byte| **byte == 0).count();
            return len - zeros;
        }
        len -= block.len();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_in_order_and_never_past_the_end() {
        let mut fields = Fields::new(&[1, 2, 0, 0, 0, 9]);
        assert_eq!(fields.u8(), Some(1));
        assert_eq!(fields.u32(), Some(2));
        assert_eq!(fields.u32(), None);
        assert_eq!(fields.take(u64::MAX), None);
        assert_eq!(fields.rest(), [9]);
    }

    #[test]
    fn one_bit_makes_a_block_not_zero() {
        let mut bytes = vec![0; 10_000];
        assert!(all_zero(&bytes) && all_zero(&[]));
        bytes[9_999] = 128;
        assert!(!all_zero(&bytes));
    }

    #[test]
    fn zeros_at_the_end_do_not_count_and_others_do() {
        assert_eq!((len_without_zeros(&[]), len_without_zeros(&[0; 9_000])), (0, 0));
        for at in [0, 1, 807, 808, 809, 4_903, 4_904, 4_905, 8_999] {
            let mut bytes = vec![0; 9_000];
            bytes[at] = 1;
            assert_eq!(len_without_zeros(&bytes), at + 1);
        }
    }
}
