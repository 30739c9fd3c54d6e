//! How much room a log gets ahead of what is written to it.

/// From which length on logs have the next one filled with zeros, and how long those files are; see
/// `wal::prepare`. What pays is a matter of the disk, so the disk says it. Opening a store tells by
/// these lengths whether zeros at the end of a log are such room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoomAhead {
    /// A log this long has the next one prepared: a store that hardly writes needs none.
    pub from_bytes: u64,
    /// Files that are prepared are as long as a multiple of this.
    pub step_bytes: u64,
    /// The first file that is prepared.
    pub first_bytes: u64,
    /// The largest.
    pub largest_bytes: u64,
}

impl RoomAhead {
    /// On the disks of operating systems.
    pub const USUAL: Self = Self {
        from_bytes: 256 << 10,
        step_bytes: 1 << 20,
        first_bytes: 4 << 20,
        largest_bytes: 16 << 20,
    };

    /// Whether a log file of this length may have been prepared, so that zeros at its end are room. All
    /// of one that is nothing else may be: its process ended before its first write.
    pub(crate) const fn is_prepared_len(self, len: u64) -> bool {
        len >= self.first_bytes && len.is_multiple_of(self.step_bytes)
    }

    /// The length of a file that is prepared for so many bytes.
    pub(crate) fn file_bytes(self, bytes: u64) -> u64 {
        let steps = bytes.div_ceil(self.step_bytes);
        steps.saturating_mul(self.step_bytes).clamp(self.first_bytes, self.largest_bytes)
    }
}
