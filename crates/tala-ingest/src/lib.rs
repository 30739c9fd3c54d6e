//! What `tala-store ingest` reads: histories of bash, zsh and fish, and intents as JSON Lines.
//!
//! The tool's own crate, so that its parsers can be tried on their own: bytes come in, entries and
//! the reasons why there is none come out. It owns no thread, no file and no clock, and knows
//! nothing of stores.
//!
//! Reading order: `lines` (bounded lines of any bytes), `json` (an intent in a line of JSON),
//! `zsh`, `fish` (their histories), [`Source`] (what a whole source holds).
#![forbid(unsafe_code)]

mod fish;
mod json;
mod lines;
mod source;
mod zsh;

pub use json::{IntentIn, OutcomeIn, parse_intent};
pub use lines::{Fault, Line, Lines};
pub use source::{BadLine, Entry, Source};
