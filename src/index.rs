//! Vectors in memory and the search among them.

pub(crate) mod arena;
mod columns;
mod rows;
#[cfg(test)]
pub(crate) mod testing;
