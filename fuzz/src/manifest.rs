//! The MANIFEST.
//!
//! Input: switches (1: make the checksum match), then the MANIFEST.
//!
//! Checked: what is accepted encodes to the same bytes; every byte less or more is refused; what is
//! refused is refused at a place of the file.

use tala_core::TalaError;
use tala_store::rooms::rewrite_manifest;

use super::{format, split};

/// Bytes before the first list: a file that is shorter is refused where they should end.
const HEADER_BYTES: u64 = 72;

pub fn run(bytes: &[u8]) -> bool {
    let (switches, manifest) = split(bytes);
    let mut manifest = manifest.to_vec();
    if switches & 1 != 0 {
        format::seal_manifest(&mut manifest);
    }
    match rewrite_manifest(&manifest) {
        Ok(again) => {
            assert_eq!(again, manifest);
            let len = manifest.len();
            for cut in [0, 1, len / 2, len - 4, len - 1] {
                assert!(rewrite_manifest(&manifest[..cut]).is_err(), "{cut} of {len} bytes");
            }
            // Also where the part has a checksum that matches.
            let mut shorter = manifest[..len - 8].to_vec();
            format::seal_manifest(&mut shorter);
            assert!(rewrite_manifest(&shorter).is_err());
            let longer = [&manifest[..], &[0]].concat();
            assert!(rewrite_manifest(&longer).is_err());
            true
        }
        Err(TalaError::Corrupt { offset, .. }) => {
            let end = HEADER_BYTES.max(manifest.len() as u64);
            assert!(offset <= end, "byte {offset} of {end}");
            false
        }
        Err(TalaError::UnsupportedVersion { found, .. }) => {
            assert!(found > 1);
            false
        }
        Err(other) => panic!("{other}"),
    }
}
