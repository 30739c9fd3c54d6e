//! The storage engine of TALA.

#[allow(dead_code)]
mod distance;
#[allow(dead_code)]
mod index;
mod sync;

