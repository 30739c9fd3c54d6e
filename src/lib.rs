//! The storage engine of TALA.
