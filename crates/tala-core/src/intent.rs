//! The intent and its parts.

use std::fmt;

use uuid::Uuid;

/// Identity of an intent. Any 16 bytes are a valid identity; ordering is by those bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct IntentId(pub Uuid);

impl IntentId {
    /// A new random (version 4) identity.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The 16 bytes of the identity, in the order in which they are stored on disk.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The identity made of these 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl From<[u8; 16]> for IntentId {
    fn from(bytes: [u8; 16]) -> Self {
        Self::from_bytes(bytes)
    }
}

impl fmt::Display for IntentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Status {
    /// Not known yet.
    #[default]
    Pending = 0,
    /// It did what was intended.
    Success = 1,
    /// It did not.
    Failure = 2,
    /// Some of it was done.
    Partial = 3,
}

impl Status {
    /// The status stored as `byte`, or `None` for a byte that no status has.
    #[must_use]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Pending),
            1 => Some(Self::Success),
            2 => Some(Self::Failure),
            3 => Some(Self::Partial),
            _ => None,
        }
    }
}

/// What came of an intent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// How long it took, in nanoseconds.
    pub latency_ns: u64,
    /// The exit code of the process.
    pub exit_code: i32,
}

/// What someone tried to do on a machine.
#[derive(Clone, PartialEq, Debug)]
pub struct Intent {
    /// Identity. Storing an intent whose identity exists replaces the older one.
    pub id: IntentId,
    /// When, in nanoseconds since the Unix epoch.
    pub timestamp: u64,
    /// The command as it was typed.
    pub raw_command: String,
    /// The embedding of its meaning: `[f32; dim]`, finite, not necessarily normalised.
    pub embedding: Vec<f32>,
    /// Hash of the context in which it was typed (directory, host, session).
    pub context_hash: u64,
    /// What it follows from, in order. Unknown and repeated ids are kept as given.
    pub parent_ids: Vec<IntentId>,
    /// What came of it, once known.
    pub outcome: Option<Outcome>,
    /// How sure the recorder is of this intent; finite.
    pub confidence: f32,
}

/// A span of time in nanoseconds since the Unix epoch: `start <= t < end`.
///
/// A range with `end <= start` is empty. A timestamp of `u64::MAX` lies in no range.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimeRange {
    /// First nanosecond inside.
    pub start: u64,
    /// First nanosecond after.
    pub end: u64,
}

/// How a child intent relates to its parent, as stored on an edge of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum RelationType {
    /// The parent caused the child.
    Causal = 0,
    /// The child came after the parent.
    Temporal = 1,
    /// The child needs the parent.
    Dependency = 2,
    /// The child tries the parent again.
    Retry = 3,
    /// The child is an alternative to the parent.
    Branch = 4,
}

impl RelationType {
    /// The relation stored as `byte`, or `None` for a byte that no relation has.
    #[must_use]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Causal),
            1 => Some(Self::Temporal),
            2 => Some(Self::Dependency),
            3 => Some(Self::Retry),
            4 => Some(Self::Branch),
            _ => None,
        }
    }
}

/// Number of a segment file; grows, and is never used twice in a directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}
