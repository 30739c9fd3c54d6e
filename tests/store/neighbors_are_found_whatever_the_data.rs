//! Recall and similarities on data that is hard for a graph, for codes of one byte to the component,
//! or for arithmetic in f32. With `TALA_TEST_LARGE=1` the stores are ten times as large.

use std::sync::atomic::Ordering::Relaxed;

use crate::common::{Random, assert_order, cosine, intent};
use tala_core::{Intent, IntentStore};
use tala_store::StorageEngine;

const K: usize = 10;

/// What the engine promises on embeddings.
const RECALL_MIN: f64 = 0.95;

/// As good as the last of the true answers: f32 tells no better.
const TIE: f64 = 1e-6;

/// How far a similarity may be from that of the same vectors in f64.
const ERROR_MAX: f64 = 2e-6;

/// How many times as many rows as by default.
fn times() -> usize {
    if std::env::var_os("TALA_TEST_LARGE").is_some() { 10 } else { 1 }
}

/// `count` vectors around random centers, as embeddings lie.
fn clustered(random: &mut Random, count: usize, dim: usize, centers: usize) -> Vec<Vec<f32>> {
    let centers: Vec<Vec<f32>> = (0..centers).map(|_| random.vector(dim)).collect();
    (0..count).map(|number| moved(random, &centers[number * 7 % centers.len()], 0.4)).collect()
}

/// A vector beside `vector`: each component is off by up to `by`.
fn moved(random: &mut Random, vector: &[f32], by: f32) -> Vec<f32> {
    vector.iter().map(|value| value + by * random.float()).collect()
}

/// Some of `rows` themselves, and what lies beside others, as near as rows of a cluster.
fn queries(random: &mut Random, rows: &[Vec<f32>], count: usize) -> Vec<Vec<f32>> {
    (0..count)
        .map(|number| {
            let row = &rows[number * 997 % rows.len()];
            if number % 4 == 0 { row.clone() } else { moved(random, row, 0.3) }
        })
        .collect()
}

fn linked(rows: &[Vec<f32>]) -> StorageEngine {
    let engine =
        StorageEngine::options(rows[0].len()).exact_below(0).index_threads(2).in_memory().unwrap();
    let intents = rows
        .iter()
        .zip(0..)
        .map(|(embedding, number)| Intent { embedding: embedding.clone(), ..intent(number) })
        .collect();
    engine.insert_batch(intents).unwrap();
    engine.wait_indexed().unwrap();
    assert_eq!(engine.stats().linked, rows.len() as u64);
    engine
}

/// Asks for the [`K`] nearest to each query, by a walk. Checks order and similarities and returns
/// the share of right answers. Row `n` has the id `n`.
fn recall(engine: &StorageEngine, rows: &[Vec<f32>], queries: &[Vec<f32>]) -> f64 {
    let walks = || engine.metrics().hnsw_search_count.load(Relaxed);
    let before = walks();
    let mut right = 0;
    for query in queries {
        let own: Vec<f64> = rows.iter().map(|row| cosine(row, query)).collect();
        let mut best = own.clone();
        let (_, worst, _) = best.select_nth_unstable_by(K - 1, |a, b| b.total_cmp(a));
        let hits = engine.query_semantic(query, K).unwrap();
        assert_eq!(hits.len(), K);
        assert_order(&hits);
        for (hit, similarity) in hits {
            let bytes = u128::from_be_bytes(*hit.as_bytes());
            let own = own[usize::try_from(bytes).unwrap()];
            let error = (f64::from(similarity) - own).abs();
            assert!(error <= ERROR_MAX, "{hit} is {own} alike, not {similarity}");
            right += usize::from(own >= *worst - TIE);
        }
    }
    assert_eq!(walks() - before, queries.len() as u64, "not every query walked the graph");
    right as f64 / (K * queries.len()) as f64
}

/// Checks the recall of `queries` in a store of `rows`.
fn assert_found(what: &str, rows: &[Vec<f32>], queries: &[Vec<f32>]) {
    let share = recall(&linked(rows), rows, queries);
    assert!(share >= RECALL_MIN, "{what}: recall {share}");
}

#[test]
fn in_every_dimension() {
    for (dim, count) in [
        (1, 1_000),
        (2, 2_000),
        (3, 2_000),
        (7, 2_000),
        (16, 2_000),
        (65, 2_000),
        (384, 1_500),
        (1_000, 800),
        (4_096, 400),
    ] {
        let mut random = Random::new(dim as u64);
        let rows = clustered(&mut random, count * times(), dim, 30);
        let queries = queries(&mut random, &rows, 40);
        assert_found(&format!("dimension {dim}"), &rows, &queries);
    }
}

#[test]
fn when_every_vector_has_a_scale_of_its_own() {
    let mut random = Random::new(31);
    let mut rows = clustered(&mut random, 2_000 * times(), 48, 40);
    let mut queries = queries(&mut random, &rows, 60);
    for vector in rows.iter_mut().chain(&mut queries) {
        let scale = 10_f32.powf(20.0 * random.float());
        vector.iter_mut().for_each(|value| *value *= scale);
    }
    assert_found("scales from 1e-20 to 1e20", &rows, &queries);
}

#[test]
fn beside_ten_thousand_equal_vectors_and_zeros() {
    let mut random = Random::new(32);
    let others = clustered(&mut random, 2_000, 16, 40);
    let same = random.vector(16);
    let mut rows = Vec::new();
    for other in &others {
        rows.extend([&same, &same, other, &same, &same, &same].map(Vec::clone));
        if rows.len() % 120 == 0 {
            rows.push(vec![0.0; 16]);
        }
    }
    let engine = linked(&rows);
    let near = queries(&mut random, &others, 60);
    let share = recall(&engine, &rows, &near);
    assert!(share >= RECALL_MIN, "recall {share} beside equal vectors");
    let at_same = recall(&engine, &rows, &[same.clone(), moved(&mut random, &same, 0.05)]);
    assert_eq!(at_same, 1.0, "ten thousand rows are the right answer");
    // All other rows are less like this query than the zeros, which are at a right angle.
    let far: Vec<f32> = same.iter().map(|value| -value).collect();
    assert!(recall(&engine, &rows, &[far]) >= RECALL_MIN);
}

#[test]
fn when_zeros_are_nearest() {
    let mut random = Random::new(33);
    // Every row but the zeros points away from every query.
    let mut rows = clustered(&mut random, 1_500, 24, 20);
    rows.iter_mut().flatten().for_each(|value| *value = -value.abs() - 0.01);
    (0..K).for_each(|number| rows[number * 100 + 3] = vec![0.0; 24]);
    let queries: Vec<Vec<f32>> = (0..20)
        .map(|_| random.vector(24).iter().map(|value| value.abs() + 0.01).collect())
        .collect();
    assert_eq!(recall(&linked(&rows), &rows, &queries), 1.0);
}

/// A store whose coordinate 5 is `outlier(number)` where that is something.
fn with_outliers(what: &str, mut outlier: impl FnMut(&mut Random, usize) -> Option<f32>) {
    let mut random = Random::new(34);
    let mut rows = clustered(&mut random, 2_000 * times(), 64, 40);
    for (number, row) in rows.iter_mut().enumerate() {
        row[5] = outlier(&mut random, number).unwrap_or(row[5]);
    }
    let queries = queries(&mut random, &rows, 60);
    assert_found(what, &rows, &queries);
}

#[test]
fn when_one_coordinate_is_the_same_and_large_in_every_row() {
    with_outliers("100 in every row", |_, _| Some(100.0));
}

#[test]
fn when_one_coordinate_dwarfs_all_others_with_either_sign() {
    with_outliers("1,000 or -1,000", |random, _| Some(1_000_f32.copysign(random.float())));
}

#[test]
fn when_one_coordinate_is_large_in_few_rows() {
    with_outliers("1,000 in 1 % of rows", |_, number| (number % 100 == 0).then_some(1_000.0));
}

#[test]
fn among_near_duplicates() {
    let mut random = Random::new(35);
    let centers: Vec<Vec<f32>> = (0..20).map(|_| random.vector(64)).collect();
    let rows: Vec<Vec<f32>> = (0..3_000 * times())
        .map(|number| {
            centers[number % 20].iter().map(|value| value * (1.0 + 1e-4 * random.float())).collect()
        })
        .collect();
    let engine = linked(&rows);
    let near = queries(&mut random, &rows, 60);
    let share = recall(&engine, &rows, &near);
    assert!(share >= RECALL_MIN, "recall {share} among near-duplicates");
    let share = recall(&engine, &rows, &centers);
    assert!(share >= RECALL_MIN, "recall {share} at the centers");
}

/// Nobody promises that neighbors which are hardly nearer than the rest are found; what is found is
/// what it is said to be.
#[test]
fn noise_is_answered_with_true_similarities() {
    let mut random = Random::new(36);
    let rows: Vec<Vec<f32>> = (0..3_000 * times()).map(|_| random.vector(64)).collect();
    let queries: Vec<Vec<f32>> = (0..60).map(|_| random.vector(64)).collect();
    // Whatever the share is: similarities and their order are checked on the way to it.
    let _ = recall(&linked(&rows), &rows, &queries);
}
