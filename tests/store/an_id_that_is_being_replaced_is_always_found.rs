//! A search sees the old version of an intent or the new one, never neither.

use std::sync::atomic::{AtomicBool, Ordering};

use tala_core::{Intent, IntentId, IntentStore};
use tala_store::{Query, StorageEngine};

const DIM: usize = 160;
const ROWS: u16 = 1_500;
const REPLACEMENTS: usize = 3_000;

/// A vector of its own for each number.
fn embedding(number: u16) -> Vec<f32> {
    let mut state = u64::from(number) * 2 + 1;
    (0..DIM)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn intent(number: u16) -> Intent {
    Intent {
        id: IntentId::from_bytes(u128::from(number).to_be_bytes()),
        timestamp: u64::from(number),
        raw_command: "make".to_owned(),
        embedding: embedding(number),
        context_hash: 0,
        parent_ids: Vec::new(),
        outcome: None,
        confidence: 1.0,
    }
}

#[test]
fn an_id_that_is_being_replaced_is_always_found() {
    let engine = StorageEngine::options(DIM).exact_below(0).in_memory().unwrap();
    engine.insert_batch((0..ROWS).map(intent).collect()).unwrap();
    engine.wait_indexed().unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for replacement in 0..REPLACEMENTS {
                engine.insert(intent(7)).unwrap();
                if replacement % 16 == 0 {
                    engine.wait_indexed().unwrap();
                }
            }
            is_done.store(true, Ordering::Release);
        });
        let wanted = intent(7);
        let mut searches = 0;
        while !is_done.load(Ordering::Acquire) {
            let hits = engine.search(Query::new(&wanted.embedding, 1)).unwrap();
            assert_eq!(hits, [(wanted.id, 1.0)], "search {searches}");
            searches += 1;
        }
        assert!(searches > 100, "{searches} searches beside {REPLACEMENTS} replacements");
    });
}
