//! The three kinds of numbers that must never be mistaken for each other, and maps by id.

use std::{collections::HashMap, fmt};

use tala_core::IntentId;

/// A map by id.
///
/// Ids are any 16 bytes that a caller chooses, so the hash is keyed at random. Every write looks
/// into three such maps, so it is a fast one, of two multiplications for an id. It withstands ids
/// that happen to be regular, or were chosen to collide elsewhere; it does not claim to withstand
/// somebody who measures this process for long in order to learn the key.
pub type IdMap<V> = HashMap<IntentId, V, foldhash::fast::RandomState>;

/// No number that a store counts on from is as high as this or higher, whoever wrote it down: the next
/// ones must not run out.
pub(crate) const NUMBER_END: u64 = 1 << 63;

/// Place of a write in the one order of all writes of a store; the first is 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct SeqNo(pub u64);

impl SeqNo {
    /// Before the first write: "nothing yet".
    pub const ZERO: Self = Self(0);
    /// The first write.
    pub const FIRST: Self = Self(1);

    /// The place right after this one. Readers refuse the last number there is, and no store lives
    /// long enough to count that far, so saturation is never seen.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The place right before this one, or [`SeqNo::ZERO`].
    #[must_use]
    pub const fn previous(self) -> Self {
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
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct FileNumber(pub u64);

impl FileNumber {
    /// The number right after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for FileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Place of a vector in the arena, which is also its node in the graph: rows are numbered from 0
/// in the order in which they were committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RowId(pub u32);
