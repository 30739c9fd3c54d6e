//! TBF.
