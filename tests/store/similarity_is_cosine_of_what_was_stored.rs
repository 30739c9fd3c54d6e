//! What a search returns: the cosine with the stored embedding, whatever its length, in the right
//! order and number; and what is stored comes back bit for bit.

use crate::common;
use crate::common::{Random, TestDir, assert_exact, assert_order, cosine, id, intent};
use tala_core::{Intent, IntentId, IntentStore};
use tala_store::{Query, StorageEngine};

fn with(number: u64, embedding: Vec<f32>) -> Intent {
    Intent { embedding, ..intent(number) }
}

fn filled(dim: usize, intents: &[Intent]) -> StorageEngine {
    let engine = StorageEngine::in_memory(dim, 1_000);
    engine.insert_batch(intents.to_vec()).unwrap();
    engine
}

#[test]
fn a_small_store_is_exact_at_every_length_of_vectors() {
    for dim in [1, 8, 33, 384] {
        let mut random = Random::new(dim as u64);
        let mut intents = Vec::new();
        for scale in [1.0, 1e-3, 1e3, 1e-30, 1e30, 3e38, 1e-38, 1e-40, 1e-44, 0.0, -0.0] {
            for _ in 0..8 {
                let vector = random.vector(dim).iter().map(|value| value * scale).collect();
                intents.push(with(intents.len() as u64, vector));
            }
        }
        let engine = filled(dim, &intents);
        let len = intents.len();
        for scale in [1.0, 1e-30, 1e30, 3e38, 1e-40, 0.0] {
            let query: Vec<f32> = random.vector(dim).iter().map(|value| value * scale).collect();
            for k in [1, 10, len, len + 1, usize::MAX] {
                let hits = engine.query_semantic(&query, k).unwrap();
                assert_exact(&hits, &intents, &query, k);
                assert_eq!(engine.search(Query::new(&query, k).ef(1)).unwrap(), hits);
            }
            assert_eq!(engine.query_semantic(&query, 0).unwrap(), []);
        }
    }
}

#[test]
fn an_empty_store_and_no_answers_asked_for() {
    let engine = StorageEngine::in_memory(8, 10);
    assert_eq!(engine.query_semantic(&[1.0; 8], 10).unwrap(), []);
    engine.insert(intent(1)).unwrap();
    assert_eq!(engine.query_semantic(&[1.0; 8], 0).unwrap(), []);
    assert_eq!(engine.search(Query::new(&[1.0; 8], 0).ef(100)).unwrap(), []);
    // A width of 0 is as good as none.
    assert_eq!(engine.search(Query::new(&[1.0; 8], 1).ef(0)).unwrap().len(), 1);
}

#[test]
fn a_vector_is_as_alike_to_itself_as_can_be_and_never_more() {
    let mut random = Random::new(3);
    for scale in [1.0, 1e-25, 1e25, 1e-41] {
        for _ in 0..50 {
            let vector: Vec<f32> = random.vector(100).iter().map(|value| value * scale).collect();
            let opposite: Vec<f32> = vector.iter().map(|value| -value).collect();
            let engine = filled(100, &[with(1, vector.clone()), with(2, opposite)]);
            let hits = engine.query_semantic(&vector, 2).unwrap();
            assert_eq!([hits[0].0, hits[1].0], [id(1), id(2)]);
            assert!((0.999_99..=1.0).contains(&hits[0].1), "{}", hits[0].1);
            assert!((-1.0..=-0.999_99).contains(&hits[1].1), "{}", hits[1].1);
        }
    }
}

#[test]
fn a_zero_vector_is_like_nothing() {
    let intents = [
        with(3, vec![0.0; 4]),
        with(1, vec![-0.0; 4]),
        with(4, vec![0.0, 0.0, -1.0, 0.0]),
        with(2, vec![0.0, 0.0, 1.0, 0.0]),
    ];
    let engine = filled(4, &intents);
    let ids = |hits: &[(IntentId, f32)]| hits.iter().map(|hit| hit.0).collect::<Vec<_>>();
    let hits = engine.query_semantic(&[0.0, 0.0, 5.0, 0.0], 4).unwrap();
    assert_eq!(ids(&hits), [2, 1, 3, 4].map(id));
    assert_eq!(hits.iter().map(|hit| hit.1).collect::<Vec<_>>(), [1.0, 0.0, 0.0, -1.0]);
    let hits = engine.query_semantic(&[0.0, -0.0, 0.0, 0.0], 4).unwrap();
    assert_eq!(ids(&hits), [1, 2, 3, 4].map(id));
    assert!(hits.iter().all(|hit| hit.1 == 0.0));
}

#[test]
fn ties_are_ordered_by_id() {
    let numbers = [5, 3, 9, 1, 7, u64::MAX, 1 << 40];
    let intents: Vec<_> = numbers.iter().map(|number| with(*number, vec![2.0, 1.0])).collect();
    let engine = filled(2, &intents);
    let found: Vec<_> =
        engine.query_semantic(&[1.0, 0.5], 5).unwrap().into_iter().map(|hit| hit.0).collect();
    assert_eq!(found, [1, 3, 5, 7, 9].map(id));
}

/// Through the graph. The threshold leaves room for other seeds only: uniform vectors of this
/// dimension are easy for it.
#[test]
fn a_large_store_finds_nearly_all_and_a_wide_search_finds_all() {
    const ROWS: u64 = 3_000;
    let dim = 16;
    let mut random = Random::new(5);
    let intents: Vec<_> = (0..ROWS).map(|number| with(number, random.vector(dim))).collect();
    let engine = StorageEngine::options(dim).exact_below(0).in_memory().unwrap();
    engine.insert_batch(intents.clone()).unwrap();
    engine.wait_indexed().unwrap();
    let (mut found, mut asked) = (0, 0);
    for _ in 0..50 {
        let query = random.vector(dim);
        let hits = engine.query_semantic(&query, 10).unwrap();
        assert_eq!(hits.len(), 10);
        assert_order(&hits);
        let mut truth: Vec<_> =
            intents.iter().map(|intent| (cosine(&intent.embedding, &query), intent.id)).collect();
        truth.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (similarity, best) in &truth[..10] {
            if let Some(hit) = hits.iter().find(|hit| hit.0 == *best) {
                assert!((f64::from(hit.1) - similarity).abs() < 1e-5);
                found += 1;
            }
            asked += 1;
        }
        // Half of the store is asked for, so every row is looked at.
        let wide = engine.search(Query::new(&query, 10).ef(ROWS as usize / 2)).unwrap();
        assert_exact(&wide, &intents, &query, 10);
        let all = engine.query_semantic(&query, usize::MAX).unwrap();
        assert_exact(&all, &intents, &query, usize::MAX);
    }
    assert!(found * 100 >= asked * 95, "{found} of {asked} found");
}

/// Among 3,000 rows of which none is linked yet, or some, the nearest is found.
#[test]
fn what_the_graph_does_not_know_yet_is_found() {
    let mut random = Random::new(6);
    let engine =
        StorageEngine::options(64).exact_below(0).ef_construction(500).in_memory().unwrap();
    let intents: Vec<_> = (0..3_000).map(|number| with(number, random.vector(64))).collect();
    engine.insert_batch(intents.clone()).unwrap();
    let linked = engine.stats().linked;
    assert!(linked < 3_000, "the index is too fast for this test");
    for intent in intents.iter().rev().take(100) {
        assert_eq!(engine.query_semantic(&intent.embedding, 1).unwrap()[0].0, intent.id);
    }
}

#[test]
fn embeddings_come_back_bit_for_bit() {
    let dir = TestDir::new();
    let embedding = vec![
        -0.0,
        0.0,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        -f32::from_bits(0x007F_FFFF),
        f32::MAX,
        f32::MIN,
        1.0 + f32::EPSILON,
    ];
    let stored = with(1, embedding);
    let is_there = |engine: &StorageEngine| {
        let found = engine.get(id(1)).unwrap().unwrap();
        assert!(common::is_same(&found, &stored), "{found:?}");
        assert!(common::is_same(&engine.query_temporal(common::EVER).unwrap()[0], &stored));
    };
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    engine.insert(stored.clone()).unwrap();
    is_there(&engine);
    engine.close().unwrap();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    is_there(&engine);
    engine.flush().unwrap();
    engine.close().unwrap();
    is_there(&StorageEngine::open(8, dir.path(), 10).unwrap());
}
