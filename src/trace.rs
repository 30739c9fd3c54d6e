//! Spans and events of what an engine does seldom: opening, recovery, flushes, its end by a fault. With
//! the feature `tracing`; without it they are empty. They name directories and numbers, and never what a
//! store holds.

#[cfg(feature = "tracing")]
pub(crate) use on::*;

#[cfg(not(feature = "tracing"))]
pub(crate) use off::*;

#[cfg(feature = "tracing")]
mod on {
    use std::{fmt::Display, path::Path};

    use tracing::{error, info, info_span, span::EnteredSpan};

    /// The directory is being opened until this is dropped.
    pub(crate) fn opening(dir: &Path) -> EnteredSpan {
        info_span!("open", dir = %dir.display()).entered()
    }

    /// What the directory holds is being read until this is dropped.
    pub(crate) fn recovering() -> EnteredSpan {
        info_span!("recovery").entered()
    }

    /// It was read.
    pub(crate) fn recovered(intents: usize, last_seq: u64, warnings: usize) {
        info!(intents, last_seq, warnings, "recovered");
    }

    /// A hot buffer becomes a segment until this is dropped.
    pub(crate) fn flushing(last_seq: u64) -> EnteredSpan {
        info_span!("flush", last_seq).entered()
    }

    /// It did.
    pub(crate) fn flushed(bytes: u64) {
        info!(bytes, "flushed");
    }

    /// A thread of the engine ended by a fault.
    pub(crate) fn failed(actor: &'static str, cause: &dyn Display) {
        error!(actor, %cause, "failed");
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use std::{fmt::Display, path::Path};

    /// Where a span would be.
    pub(crate) struct Nothing;

    pub(crate) fn opening(_: &Path) -> Nothing {
        Nothing
    }
    pub(crate) fn recovering() -> Nothing {
        Nothing
    }
    pub(crate) fn recovered(_: usize, _: u64, _: usize) {}
    pub(crate) fn flushing(_: u64) -> Nothing {
        Nothing
    }
    pub(crate) fn flushed(_: u64) {}
    pub(crate) fn failed(_: &'static str, _: &dyn Display) {}
}
