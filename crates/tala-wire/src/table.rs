//! Little-endian access to bytes that may be hostile: nothing here panics, whatever the bytes and
//! the numbers in them are.

use crate::error::WireError;

/// Every region and every column of a segment starts on a multiple of this many bytes.
pub(crate) const ALIGNMENT: usize = 64;

/// The `N` bytes at `offset`, or `None` where they do not all exist.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// The `u32` at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

/// The `u64` at `offset`.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

/// `value` rounded up to a multiple of [`ALIGNMENT`], or `None` on overflow.
pub(crate) fn align_up(value: usize) -> Option<usize> {
    value.checked_next_multiple_of(ALIGNMENT)
}

/// `count` entries of `width` bytes each, back to back from byte `start` of a segment.
///
/// A table is made by [`Table::within`] only, so it lies inside the bytes that it was made for.
/// The accessors check again, since they are given the bytes anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Table {
    pub(crate) start: usize,
    pub(crate) count: usize,
    width: usize,
}

impl Table {
    /// A table that ends at byte `limit` or before.
    pub(crate) fn within(
        limit: usize,
        start: usize,
        count: usize,
        width: usize,
        what: &str,
    ) -> Result<Self, WireError> {
        count
            .checked_mul(width)
            .and_then(|bytes| bytes.checked_add(start))
            .filter(|end| *end <= limit)
            .map(|_| Self { start, count, width })
            .ok_or_else(|| {
                WireError::damaged(
                    start.min(limit),
                    format!("{what} ({count} entries of {width} bytes from byte {start}) passes byte {limit}"),
                )
            })
    }

    /// First byte after the table.
    pub(crate) fn end(&self) -> usize {
        // Not above the limit of `within`, so neither operation overflows.
        self.start + self.count * self.width
    }

    /// Where entry `index` starts.
    pub(crate) fn offset_of(&self, index: usize) -> usize {
        self.start.saturating_add(index.saturating_mul(self.width))
    }

    /// The bytes of entry `index`.
    pub(crate) fn entry<'b>(&self, bytes: &'b [u8], index: usize) -> Option<&'b [u8]> {
        self.entries(bytes, index, index.checked_add(1)?)
    }

    /// The bytes of entries `first..end`.
    pub(crate) fn entries<'b>(
        &self,
        bytes: &'b [u8],
        first: usize,
        end: usize,
    ) -> Option<&'b [u8]> {
        if first > end || end > self.count {
            return None;
        }
        bytes.get(self.offset_of(first)..self.offset_of(end))
    }

    /// Entry `index` as an array of its width.
    pub(crate) fn array<const N: usize>(&self, bytes: &[u8], index: usize) -> Option<[u8; N]> {
        array_at(self.entry(bytes, index)?, 0)
    }

    /// Entry `index` of a table of `u32`.
    pub(crate) fn u32(&self, bytes: &[u8], index: usize) -> Option<u32> {
        self.array(bytes, index).map(u32::from_le_bytes)
    }

    /// Entry `index` of a table of `u64`.
    pub(crate) fn u64(&self, bytes: &[u8], index: usize) -> Option<u64> {
        self.array(bytes, index).map(u64::from_le_bytes)
    }

    /// Entry `index` of a table of bounds, and the one after it: the span of row `index` in the
    /// table that the bounds are for.
    pub(crate) fn span(&self, bytes: &[u8], index: usize) -> Option<(usize, usize)> {
        let first = usize::try_from(self.u64(bytes, index)?).ok()?;
        let end = usize::try_from(self.u64(bytes, index.checked_add(1)?)?).ok()?;
        Some((first, end))
    }

    /// Checks that the table holds bounds: they start at 0 and never fall. Returns the last one.
    pub(crate) fn check_bounds(&self, bytes: &[u8], what: &str) -> Result<u64, WireError> {
        let mut previous = 0;
        for index in 0..self.count {
            let bound = self.u64(bytes, index);
            match bound {
                Some(bound) if bound >= previous && (index > 0 || bound == 0) => previous = bound,
                _ => {
                    return Err(WireError::damaged(
                        self.offset_of(index),
                        format!("bound {index} of {what} is out of order"),
                    ));
                }
            }
        }
        Ok(previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_passes_the_limit_is_refused_whatever_its_numbers() {
        assert!(Table::within(100, 4, 12, 8, "t").is_ok());
        assert!(Table::within(100, 5, 12, 8, "t").is_err());
        assert!(Table::within(100, 4, usize::MAX, 8, "t").is_err());
        assert!(Table::within(100, usize::MAX, 1, 1, "t").is_err());
        assert_eq!(Table::within(10, 10, 0, 8, "t").unwrap().end(), 10);
    }

    #[test]
    fn entries_outside_the_table_do_not_exist() {
        let bytes = [1, 0, 0, 0, 2, 0, 0, 0, 9, 9];
        let table = Table::within(8, 0, 2, 4, "t").unwrap();
        assert_eq!(table.u32(&bytes, 1), Some(2));
        assert_eq!(table.u32(&bytes, 2), None);
        assert_eq!(table.entries(&bytes, 0, 2).unwrap().len(), 8);
        assert_eq!(table.entries(&bytes, 1, 0), None);
        assert_eq!(table.u32(&bytes[..6], 1), None);
        assert_eq!(table.entry(&bytes, usize::MAX), None);
    }

    #[test]
    fn bounds_start_at_zero_and_never_fall() {
        let check = |bounds: &[u64]| {
            let bytes: Vec<u8> = bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect();
            let table = Table::within(bytes.len(), 0, bounds.len(), 8, "t").unwrap();
            table.check_bounds(&bytes, "t")
        };
        assert_eq!(check(&[0, 2, 2, 5]), Ok(5));
        assert!(matches!(check(&[1, 2]), Err(WireError::Damaged { offset: 0, .. })));
        assert!(matches!(check(&[0, 3, 2]), Err(WireError::Damaged { offset: 16, .. })));
    }
}
