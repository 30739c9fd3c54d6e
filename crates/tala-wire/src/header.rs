//! The header: 128 bytes that say what the segment holds and where its regions start.
//!
//! | offset | bytes | type | meaning | |
//! |---|---|---|---|---|
//! | 0 | 4 | bytes | magic `TALB` | fixed |
//! | 4 | 2 | u16 | minor version, 0: grows when something is added that a reader may ignore | fixed |
//! | 6 | 2 | u16 | major version, 1: grows when an older reader would misread | fixed |
//! | 8 | 8 | u64 | segment id | ours to fill |
//! | 16 | 8 | u64 | creation time, ns since the epoch | ours to fill |
//! | 24 | 8 | u64 | number of rows, `N` | fixed |
//! | 32 | 8 | u64 | number of edges, `E` | fixed |
//! | 40 | 4 | u32 | dimension of the embeddings | fixed |
//! | 44 | 1 | u8 | type of a component: 0 f32 (1 f16, 2 bf16, 3 int8 are refused) | ours to fill |
//! | 45 | 1 | u8 | compression: 0 none (1 lz4, 2 zstd are refused) | ours to fill |
//! | 46 | 2 | u16 | flags: bit 0 outcomes, 1 embeddings, 2 compacted, 3 encrypted (refused), 4 partial | ours to fill |
//! | 48 | 8 | u64 | offset of the node region | fixed |
//! | 56 | 8 | u64 | offset of the embedding region | fixed |
//! | 64 | 8 | u64 | offset of the edge region | fixed |
//! | 72 | 8 | u64 | offset of the string table | ours to fill |
//! | 80 | 8 | u64 | offset of the bloom region | fixed |
//! | 88 | 8 | u64 | offset of the table directory | ours to fill |
//! | 96 | 8 | u64 | offset of the footer | ours to fill |
//! | 104 | 4 | u32 | CRC-32C of bytes 0..104 | ours to fill |
//! | 108 | 20 | | zero, reserved; covered by the checksum of block 0 | |
//!
//! A header whose three offsets of ours are all zero belongs to a *legacy segment*: one written by
//! another program, with the fixed part only. Its CRC field may be zero, and is then not checked.

use tala_core::SegmentId;

use crate::{
    error::WireError,
    table::{array_at, u32_at, u64_at},
};

/// The first four bytes of every segment.
pub const MAGIC: [u8; 4] = *b"TALB";
/// The major version this build writes, and the newest that it reads.
pub const VERSION_MAJOR: u16 = 1;
/// The minor version this build writes. Every minor version is read.
pub const VERSION_MINOR: u16 = 0;
/// Length of the header.
pub const HEADER_BYTES: usize = 128;
/// The largest dimension of a segment.
pub const DIM_MAX: usize = 65_536;

/// Flag: at least one row has an outcome.
pub const FLAG_OUTCOMES: u16 = 1;
/// Flag: the segment has embeddings.
pub const FLAG_EMBEDDINGS: u16 = 1 << 1;
/// Flag: the segment was made of older segments.
pub const FLAG_COMPACTED: u16 = 1 << 2;
/// Flag: the segment is encrypted, which this crate does not read.
pub const FLAG_ENCRYPTED: u16 = 1 << 3;
/// Flag: the segment holds a part of what its writer had.
pub const FLAG_PARTIAL: u16 = 1 << 4;

/// Where the CRC of the header is, and how many bytes before it that CRC covers.
const CRC_OFFSET: usize = 104;

/// The header of a segment, checked. The `_offset` fields count from the start of the segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Minor version of the format.
    pub version_minor: u16,
    /// Number of the segment.
    pub segment_id: SegmentId,
    /// When it was made, in nanoseconds since the Unix epoch.
    pub created_at_ns: u64,
    /// How many rows it has.
    pub node_count: u32,
    /// How many edges it has.
    pub edge_count: u64,
    /// Components of an embedding, `1..=65_536`.
    pub dim: u32,
    /// Type of a component; 0, which is f32.
    pub dtype: u8,
    /// Compression; 0, which is none.
    pub compression: u8,
    /// The `FLAG_` bits.
    pub flags: u16,
    /// The columns.
    pub node_region_offset: u64,
    /// The embeddings.
    pub embed_region_offset: u64,
    /// The edges.
    pub edge_region_offset: u64,
    /// The commands; 0 in a legacy segment.
    pub string_table_offset: u64,
    /// The bloom filter.
    pub bloom_offset: u64,
    /// The table directory; 0 in a legacy segment.
    pub index_offset: u64,
    /// The footer; 0 in a legacy segment.
    pub footer_offset: u64,
}

impl Header {
    /// Whether the segment holds the fixed part only.
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        self.string_table_offset == 0 && self.index_offset == 0 && self.footer_offset == 0
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut rest = bytes.as_mut_slice();
        let mut put = |field: &[u8]| {
            // The fields are 104 bytes together, so there is always room.
            if let Some(place) = rest.split_off_mut(..field.len()) {
                place.copy_from_slice(field);
            }
        };
        put(&MAGIC);
        put(&self.version_minor.to_le_bytes());
        put(&VERSION_MAJOR.to_le_bytes());
        put(&self.segment_id.0.to_le_bytes());
        put(&self.created_at_ns.to_le_bytes());
        put(&u64::from(self.node_count).to_le_bytes());
        put(&self.edge_count.to_le_bytes());
        put(&self.dim.to_le_bytes());
        put(&[self.dtype, self.compression]);
        put(&self.flags.to_le_bytes());
        for offset in [
            self.node_region_offset,
            self.embed_region_offset,
            self.edge_region_offset,
            self.string_table_offset,
            self.bloom_offset,
            self.index_offset,
            self.footer_offset,
        ] {
            put(&offset.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..CRC_OFFSET]);
        bytes[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the front of `file`.
    ///
    /// # Errors
    /// The bytes are no header, are damaged, or belong to a segment that this build cannot read.
    pub fn decode(file: &[u8]) -> Result<Self, WireError> {
        let bytes: [u8; HEADER_BYTES] = array_at(file, 0).ok_or_else(|| {
            WireError::damaged(file.len(), "the segment ends inside its header".to_owned())
        })?;
        // Every offset below is inside the 128 bytes, so no default is ever taken.
        let u16_at = |at| array_at(&bytes, at).map_or(0, u16::from_le_bytes);
        let u64_at = |at| u64_at(&bytes, at).unwrap_or(0);

        if bytes[..4] != MAGIC {
            return Err(WireError::damaged(0, "this is no TBF segment (no `TALB`)"));
        }
        // A newer version may have another header, so this comes before the checksum.
        match u16_at(6) {
            VERSION_MAJOR => {}
            0 => return Err(WireError::damaged(6, "major version 0")),
            newer => return Err(WireError::unsupported_version(newer)),
        }
        let legacy = [72, 88, 96].iter().all(|at| u64_at(*at) == 0);
        let stored_crc = u32_at(&bytes, CRC_OFFSET).unwrap_or(0);
        let crc = crc32c::crc32c(&bytes[..CRC_OFFSET]);
        if stored_crc != crc && !(legacy && stored_crc == 0) {
            return Err(WireError::damaged(
                CRC_OFFSET,
                format!("the header's checksum is {crc:#010x}, not {stored_crc:#010x}"),
            ));
        }

        let node_count = u32::try_from(u64_at(24))
            .map_err(|_| WireError::damaged(24, format!("{} rows", u64_at(24))))?;
        let dim = u32_at(&bytes, 40).unwrap_or(0);
        if dim == 0 || dim as usize > DIM_MAX {
            return Err(WireError::damaged(40, format!("dimension {dim}")));
        }
        let (dtype, compression, flags) = (bytes[44], bytes[45], u16_at(46));
        if dtype != 0 {
            return Err(WireError::damaged(44, format!("embeddings of type {dtype}, not f32")));
        }
        if compression != 0 {
            return Err(WireError::damaged(45, format!("compression {compression}, not none")));
        }
        if flags & FLAG_ENCRYPTED != 0 {
            return Err(WireError::damaged(46, "the segment is encrypted"));
        }
        Ok(Self {
            version_minor: u16_at(4),
            segment_id: SegmentId(u64_at(8)),
            created_at_ns: u64_at(16),
            node_count,
            edge_count: u64_at(32),
            dim,
            dtype,
            compression,
            flags,
            node_region_offset: u64_at(48),
            embed_region_offset: u64_at(56),
            edge_region_offset: u64_at(64),
            string_table_offset: u64_at(72),
            bloom_offset: u64_at(80),
            index_offset: u64_at(88),
            footer_offset: u64_at(96),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            version_minor: 0,
            segment_id: SegmentId(3),
            created_at_ns: 4,
            node_count: 5,
            edge_count: 6,
            dim: 7,
            dtype: 0,
            compression: 0,
            flags: FLAG_EMBEDDINGS,
            node_region_offset: 128,
            embed_region_offset: 192,
            edge_region_offset: 256,
            string_table_offset: 320,
            bloom_offset: 384,
            index_offset: 448,
            footer_offset: 512,
        }
    }

    /// `header()` with `change` made to its bytes and the checksum made right again.
    fn resealed(change: impl FnOnce(&mut [u8; HEADER_BYTES])) -> [u8; HEADER_BYTES] {
        let mut bytes = header().encode();
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes[..CRC_OFFSET]);
        bytes[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn offset_of(bytes: &[u8]) -> Option<u64> {
        match Header::decode(bytes) {
            Err(WireError::Damaged { offset, .. }) => Some(offset),
            _ => None,
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn a_newer_major_version_is_told_apart_from_damage() {
        let bytes = resealed(|bytes| bytes[6] = 2);
        let newer = WireError::UnsupportedVersion { found: 2, supported: 1 };
        assert_eq!(Header::decode(&bytes), Err(newer.clone()));
        // Whatever its checksum is: a newer version may keep it elsewhere.
        let mut bytes = header().encode();
        bytes[6] = 2;
        assert_eq!(Header::decode(&bytes), Err(newer));
        assert_eq!(offset_of(&resealed(|bytes| bytes[6] = 0)), Some(6));
    }

    #[test]
    fn a_newer_minor_version_is_read() {
        let bytes = resealed(|bytes| bytes[4] = 9);
        assert_eq!(Header::decode(&bytes).unwrap().version_minor, 9);
    }

    #[test]
    fn what_this_build_cannot_read_is_refused_at_its_field() {
        assert_eq!(offset_of(&[]), Some(0));
        assert_eq!(offset_of(&header().encode()[..127]), Some(127));
        assert_eq!(offset_of(&resealed(|bytes| bytes[0] = b'X')), Some(0));
        assert_eq!(offset_of(&resealed(|bytes| bytes[28] = 1)), Some(24));
        assert_eq!(offset_of(&resealed(|bytes| bytes[40] = 0)), Some(40));
        assert_eq!(offset_of(&resealed(|bytes| bytes[43] = 1)), Some(40));
        assert_eq!(offset_of(&resealed(|bytes| bytes[44] = 1)), Some(44));
        assert_eq!(offset_of(&resealed(|bytes| bytes[45] = 2)), Some(45));
        assert_eq!(offset_of(&resealed(|bytes| bytes[46] |= 8)), Some(46));
        let mut bytes = header().encode();
        bytes[16] ^= 1;
        assert_eq!(offset_of(&bytes), Some(104));
    }

    #[test]
    fn only_a_legacy_header_may_go_without_a_checksum() {
        let mut bytes = header().encode();
        bytes[CRC_OFFSET..CRC_OFFSET + 4].fill(0);
        assert_eq!(offset_of(&bytes), Some(104));
        for at in [72, 88, 96] {
            bytes[at..at + 8].fill(0);
        }
        assert!(Header::decode(&bytes).unwrap().is_legacy());
        bytes[CRC_OFFSET] = 1;
        assert_eq!(offset_of(&bytes), Some(104));
    }
}
