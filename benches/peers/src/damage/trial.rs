//! One trial: a copy, damaged in one place, and opened.

use std::time::Duration;

use super::{
    image::Tamper,
    subject::{Answer, Fallen, Subject},
};
use crate::{Failure, scratch::Scratch};

/// Opens a copy of `fallen` that was damaged by `tamper`, and looks for the first `due` records.
///
/// # Errors
/// The copy cannot be made, or no process be started.
pub fn open(
    subject: &Subject,
    fallen: &Fallen,
    tamper: &Tamper,
    due: u64,
    scratch: &Scratch,
    patience: Duration,
) -> Result<Answer, Failure> {
    let dir = scratch.path().join("copy");
    let Fallen { after, before, log, last, .. } = fallen;
    after.tampered(before, log, tamper, last).write(&dir)?;
    subject.open(&dir, due, patience)
}
