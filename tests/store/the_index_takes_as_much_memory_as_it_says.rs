//! What `StoreStats::index_bytes` says of an ordinary store.

use crate::common::{Random, intent};
use tala_core::Intent;
use tala_store::StorageEngine;

/// Rows of 384 components, linked with the `m` that is the default: a code of a byte to the
/// component, 32 links of 4 bytes, an id, a birth and a death, and little more.
#[test]
fn a_linked_row_takes_its_code_its_links_and_its_id() {
    const DIM: usize = 384;
    const ROWS: u64 = 5_000;
    let engine =
        StorageEngine::options(DIM).ef_construction(24).index_threads(2).in_memory().unwrap();
    assert_eq!(engine.stats().index_bytes, 0, "of no rows");
    let mut random = Random::new(81);
    let intents = (0..ROWS)
        .map(|number| Intent { embedding: random.vector(DIM), ..intent(number) })
        .collect();
    engine.insert_batch(intents).unwrap();
    engine.wait_indexed().unwrap();
    let per_row = engine.stats().index_bytes / ROWS;
    assert!((384..=650).contains(&per_row), "{per_row} bytes to the row");
}
