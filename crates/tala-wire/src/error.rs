//! What can be wrong with the bytes of a segment.

use std::path::PathBuf;

use tala_core::TalaError;

use crate::header::VERSION_MAJOR;

/// Why the bytes of a segment were not read. This crate knows no file names;
/// [`WireError::in_file`] adds one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes are not what a writer of segments would have written.
    #[error("segment is damaged at byte {offset}: {what}")]
    Damaged {
        /// Where, in bytes from the start of the segment: the field at fault, or the first byte
        /// of the block whose checksum does not match.
        offset: u64,
        /// What is wrong there.
        what: String,
    },

    /// The segment has a newer major version than this build reads.
    #[error("segment has format version {found}, this build reads up to {supported}")]
    UnsupportedVersion {
        /// The major version found.
        found: u16,
        /// The newest major version that this build reads.
        supported: u16,
    },

    /// A row was asked for that the segment does not have; nothing is wrong with the segment.
    #[error("there is no row {row} in a segment of {rows_count} rows")]
    NoSuchRow {
        /// The row asked for, counting from 0.
        row: u32,
        /// How many rows there are.
        rows_count: u32,
    },
}

impl WireError {
    /// This error as one about `file`.
    #[must_use]
    pub fn in_file(self, file: impl Into<PathBuf>) -> TalaError {
        match self {
            Self::Damaged { offset, what } => TalaError::corrupt(file, offset, what),
            Self::UnsupportedVersion { found, supported } => TalaError::UnsupportedVersion {
                file: file.into(),
                found: u32::from(found),
                supported: u32::from(supported),
            },
            Self::NoSuchRow { .. } => {
                TalaError::InvalidInput { field: "row", reason: self.to_string() }
            }
        }
    }

    pub(crate) fn damaged(offset: usize, what: impl Into<String>) -> Self {
        Self::Damaged { offset: offset as u64, what: what.into() }
    }

    pub(crate) fn unsupported_version(found: u16) -> Self {
        Self::UnsupportedVersion { found, supported: VERSION_MAJOR }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_turns_each_case_into_its_own_error() {
        let damaged = WireError::damaged(7, "bad").in_file("s.tbf");
        assert!(
            matches!(&damaged, TalaError::Corrupt { file, offset: 7, what } if file.ends_with("s.tbf") && what == "bad")
        );
        let newer = WireError::unsupported_version(2).in_file("s.tbf");
        assert!(matches!(newer, TalaError::UnsupportedVersion { found: 2, supported: 1, .. }));
        let row = WireError::NoSuchRow { row: 3, rows_count: 3 }.in_file("s.tbf");
        assert!(matches!(row, TalaError::InvalidInput { field: "row", .. }));
    }
}
