//! The two counters that the log, the segments and the MANIFEST share.

use std::fmt;

/// Position of a record in the history of a store. The first record has number 1; 0 stands
/// before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub(crate) struct SeqNo(pub u64);

impl SeqNo {
    /// The number before the first record: "nothing yet".
    pub(crate) const ZERO: Self = Self(0);
    /// The number of the first record.
    pub(crate) const FIRST: Self = Self(1);

    /// The number after this one. Readers refuse records numbered `u64::MAX`, and no store lives
    /// long enough to get there by counting, so saturation is never seen.
    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number before this one, or [`SeqNo::ZERO`].
    pub(crate) const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for SeqNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a log file; grows, and is never used twice in a directory. 0 is a log on its own,
/// outside every store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct FileNumber(pub u64);

impl FileNumber {
    /// The number after this one.
    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for FileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
