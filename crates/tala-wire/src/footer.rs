//! The footer: a checksum for every 64 KiB of the segment before it.
//!
//! | offset in the footer | bytes | type | meaning |
//! |---|---|---|---|
//! | 0 | 8 | bytes | magic `TALBFOOT` |
//! | 8 | 4 | u32 | bytes of a block, 65,536 |
//! | 12 | 4 | u32 | number of blocks, `B = ceil(footer offset / 65,536)` |
//! | 16 | 4 x B | u32 each | CRC-32C of block `i`: bytes `65,536 i` of the segment up to the next block or the footer |
//! | 16 + 4 x B | 4 | u32 | CRC-32C of the footer before this field |
//!
//! The footer starts on a multiple of 64 and its last byte is the last byte of the segment. The
//! blocks cover everything before it, header and padding included, so no byte of a segment is
//! outside of a checksum.

use std::{ops::Range, sync::atomic::AtomicU64, sync::atomic::Ordering};

use crate::{
    error::WireError,
    table::{ALIGNMENT, Table, array_at, u32_at},
};

/// Bytes under one checksum.
pub(crate) const BLOCK_BYTES: usize = 64 * 1024;

const MAGIC: [u8; 8] = *b"TALBFOOT";
const HEAD_BYTES: usize = 16;

/// Bytes of the footer of a segment that has `covered` bytes before it.
pub(crate) fn footer_bytes(covered: usize) -> usize {
    HEAD_BYTES + covered.div_ceil(BLOCK_BYTES) * 4 + 4
}

/// The checksum that the footer at byte `covered` has for a block, whether or not the rest of that
/// footer is intact.
pub(crate) fn block_crc(file: &[u8], covered: usize, block: usize) -> Option<u32> {
    u32_at(file, covered.checked_add(HEAD_BYTES)?.checked_add(block.checked_mul(4)?)?)
}

/// Appends the footer to a segment that is otherwise complete.
pub(crate) fn append_footer(segment: &mut Vec<u8>) {
    let footer = footer_of(segment);
    segment.extend_from_slice(&footer);
}

/// The footer of a segment with these bytes before it.
pub(crate) fn footer_of(covered: &[u8]) -> Vec<u8> {
    let mut footer = Vec::with_capacity(footer_bytes(covered.len()));
    footer.extend_from_slice(&MAGIC);
    footer.extend_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
    // 2^32 blocks would be 256 TiB of memory.
    let blocks_count = covered.len().div_ceil(BLOCK_BYTES);
    footer.extend_from_slice(&u32::try_from(blocks_count).unwrap_or(u32::MAX).to_le_bytes());
    for block in covered.chunks(BLOCK_BYTES) {
        footer.extend_from_slice(&crc32c::crc32c(block).to_le_bytes());
    }
    let crc = crc32c::crc32c(&footer);
    footer.extend_from_slice(&crc.to_le_bytes());
    footer
}

/// The checksums of a segment, and which of them have been compared.
#[derive(Debug)]
pub(crate) struct Checksums {
    /// Bytes under the checksums: everything before the footer.
    covered: usize,
    /// One CRC for each block.
    crcs: Table,
    /// One bit for each block, set once the block was found intact.
    intact: Box<[AtomicU64]>,
}

impl Checksums {
    /// Reads the footer at `offset`, which must end where the segment does.
    pub(crate) fn decode(file: &[u8], offset: u64) -> Result<Self, WireError> {
        let past_the_end = || {
            WireError::damaged(
                file.len(),
                format!("the segment ends before its footer, which starts at byte {offset}"),
            )
        };
        let start = usize::try_from(offset).map_err(|_| past_the_end())?;
        if start % ALIGNMENT != 0 {
            return Err(WireError::damaged(96, format!("the footer would start at byte {start}")));
        }
        let footer = file.get(start..).ok_or_else(past_the_end)?;
        // Only the file's own length decides how long the footer is.
        let expected = footer_bytes(start);
        if footer.len() < expected {
            return Err(WireError::damaged(
                file.len(),
                format!("the footer has {} of {expected} bytes", footer.len()),
            ));
        }
        if footer.len() > expected {
            return Err(WireError::damaged(
                start + expected,
                format!("{} bytes too many at the end", footer.len() - expected),
            ));
        }
        let (body, crc) = footer.split_at(expected - 4);
        if u32_at(crc, 0) != Some(crc32c::crc32c(body)) {
            return Err(WireError::damaged(start, "the footer does not match its checksum"));
        }
        let blocks_count = start.div_ceil(BLOCK_BYTES);
        if array_at(body, 0) != Some(MAGIC)
            || u32_at(body, 8).map(|bytes| bytes as usize) != Some(BLOCK_BYTES)
            || u32_at(body, 12).map(|count| count as usize) != Some(blocks_count)
        {
            return Err(WireError::damaged(start, "this is no footer of this segment"));
        }
        let crcs = Table::within(file.len(), start + HEAD_BYTES, blocks_count, 4, "footer")?;
        let words = (0..blocks_count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { covered: start, crcs, intact: words })
    }

    /// Checks all blocks but those that lie inside `later` with every byte.
    pub(crate) fn check_except(&self, file: &[u8], later: &Range<usize>) -> Result<(), WireError> {
        for block in 0..self.crcs.count {
            let bytes = self.range_of(block);
            if bytes.start < later.start || later.end < bytes.end {
                self.check_block(file, block)?;
            }
        }
        Ok(())
    }

    /// Checks the blocks that hold `bytes`, except for those found intact before.
    pub(crate) fn check_once(&self, file: &[u8], bytes: Range<usize>) -> Result<(), WireError> {
        if bytes.is_empty() {
            return Ok(());
        }
        for block in bytes.start / BLOCK_BYTES..bytes.end.div_ceil(BLOCK_BYTES) {
            // Relaxed: the bit says something of bytes that do not change; it publishes no memory.
            let known = self
                .intact
                .get(block / 64)
                .is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (block % 64)) != 0);
            if !known {
                self.check_block(file, block)?;
            }
        }
        Ok(())
    }

    /// How many blocks there are.
    pub(crate) fn blocks_count(&self) -> usize {
        self.crcs.count
    }

    /// Checks every block, found intact before or not.
    pub(crate) fn check_all(&self, file: &[u8]) -> Result<(), WireError> {
        (0..self.crcs.count).try_for_each(|block| self.check_block(file, block))
    }

    fn range_of(&self, block: usize) -> Range<usize> {
        let start = block.saturating_mul(BLOCK_BYTES);
        start..self.covered.min(start.saturating_add(BLOCK_BYTES))
    }

    fn check_block(&self, file: &[u8], block: usize) -> Result<(), WireError> {
        let range = self.range_of(block);
        let crc = file.get(range.clone()).map(crc32c::crc32c);
        if crc.is_none() || crc != self.crcs.u32(file, block) {
            return Err(WireError::damaged(
                range.start,
                format!("bytes {}..{} do not match their checksum", range.start, range.end),
            ));
        }
        if let Some(word) = self.intact.get(block / 64) {
            // Relaxed, as in `check_once`. Two threads may both do the work, with the same result.
            word.fetch_or(1 << (block % 64), Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(covered: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..covered).map(|at| (at % 251) as u8).collect();
        append_footer(&mut bytes);
        bytes
    }

    #[test]
    fn every_block_is_under_its_own_checksum() {
        for covered in [0, 64, BLOCK_BYTES, BLOCK_BYTES + 64, 70 * BLOCK_BYTES] {
            let mut bytes = segment(covered);
            assert_eq!(bytes.len(), covered + footer_bytes(covered));
            let sums = Checksums::decode(&bytes, covered as u64).unwrap();
            assert_eq!(sums.check_all(&bytes), Ok(()));
            for block in 0..covered.div_ceil(BLOCK_BYTES) {
                let last = covered.min((block + 1) * BLOCK_BYTES) - 1;
                bytes[last] ^= 1;
                let offset = (block * BLOCK_BYTES) as u64;
                assert!(
                    matches!(sums.check_all(&bytes), Err(WireError::Damaged { offset: o, .. }) if o == offset)
                );
                bytes[last] ^= 1;
            }
        }
    }

    #[test]
    fn a_block_that_is_checked_later_is_checked_when_it_is_touched() {
        let covered = 4 * BLOCK_BYTES;
        let mut bytes = segment(covered);
        // Blocks 1 and 2 lie inside; block 3 only in part.
        let later = BLOCK_BYTES - 64..3 * BLOCK_BYTES + 64;
        bytes[2 * BLOCK_BYTES] ^= 1;
        let sums = Checksums::decode(&bytes, covered as u64).unwrap();
        assert_eq!(sums.check_except(&bytes, &later), Ok(()));
        assert_eq!(sums.check_once(&bytes, BLOCK_BYTES..2 * BLOCK_BYTES), Ok(()));
        let touched = 2 * BLOCK_BYTES - 1..2 * BLOCK_BYTES + 1;
        // Damage is not remembered as seen: it is reported every time.
        for _ in 0..2 {
            assert!(sums.check_once(&bytes, touched.clone()).is_err());
        }
        bytes[2 * BLOCK_BYTES] ^= 1;
        bytes[3 * BLOCK_BYTES] ^= 1;
        assert!(sums.check_except(&bytes, &later).is_err());
    }

    #[test]
    fn a_footer_that_does_not_end_the_segment_is_refused_where_it_goes_wrong() {
        let bytes = segment(128);
        let offset = |bytes: &[u8], at| match Checksums::decode(bytes, at) {
            Err(WireError::Damaged { offset, .. }) => Some(offset),
            _ => None,
        };
        assert_eq!(offset(&bytes, 128), None);
        assert_eq!(offset(&bytes, 64), Some(88));
        assert_eq!(offset(&bytes, 65), Some(96));
        assert_eq!(offset(&bytes, 1 << 40), Some(152));
        assert_eq!(offset(&bytes, u64::MAX - 63), Some(152));
        assert_eq!(offset(&bytes[..151], 128), Some(151));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(offset(&longer, 128), Some(152));
    }
}
