//! A [`QueryEngine`] answers like a look at every intent, small or large.

use tala_store::QueryEngine;

const DIM: usize = 12;

/// A small generator (xorshift64*, Vigna 2016), the same on every machine.
struct Random(u64);

impl Random {
    /// Uniform in `[-1, 1)`.
    fn float(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn vector(&mut self) -> Vec<f32> {
        (0..DIM).map(|_| self.float()).collect()
    }
}

fn id(number: usize) -> [u8; 16] {
    (number as u128).to_be_bytes()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum::<f64>().sqrt()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn filled(vectors: &[Vec<f32>]) -> QueryEngine {
    let mut engine = QueryEngine::new(DIM);
    for (number, vector) in vectors.iter().enumerate() {
        engine.insert(id(number), number as u64, format!("command {number}"), vector.clone());
    }
    engine
}

fn assert_hits(hits: &[([u8; 16], f32)], truth: &[(usize, f64)]) {
    assert_eq!(hits.len(), truth.len());
    for (hit, expected) in hits.iter().zip(truth) {
        assert_eq!(hit.0, id(expected.0));
        assert!((f64::from(hit.1) - expected.1).abs() < 1e-5, "{} for {}", hit.1, expected.1);
    }
}

#[test]
fn a_small_engine_is_exact_by_distance_and_by_cosine() {
    let mut random = Random(1);
    let vectors: Vec<_> = (0..300).map(|_| random.vector()).collect();
    let engine = filled(&vectors);
    for _ in 0..20 {
        let query = random.vector();
        let mut near: Vec<_> =
            vectors.iter().map(|vector| distance(vector, &query)).enumerate().collect();
        near.sort_by(|a, b| a.1.total_cmp(&b.1));
        assert_hits(&engine.search(&query, 10), &near[..10]);
        assert_hits(&engine.search(&query, usize::MAX), &near);

        let mut alike: Vec<_> =
            near[..20].iter().map(|(n, _)| (*n, cosine(&vectors[*n], &query))).collect();
        alike.sort_by(|a, b| b.1.total_cmp(&a.1));
        assert_hits(&engine.find_edge_candidates(&query, 5), &alike[..5]);
    }
    assert_eq!(engine.find_edge_candidates(&vectors[0], usize::MAX).len(), 300);
    assert!(engine.search(&vectors[0], 0).is_empty());
    assert!(engine.find_edge_candidates(&vectors[0], 0).is_empty());
}

/// 2,500 intents are past the size that is looked at one by one, so this goes through the graph.
/// Uniform vectors of 12 dimensions are easy for it; 0.98 leaves room for other seeds only.
#[test]
fn a_large_engine_finds_nearly_all_of_the_nearest() {
    let mut random = Random(2);
    let vectors: Vec<_> = (0..2_500).map(|_| random.vector()).collect();
    let engine = filled(&vectors);
    let (mut found, mut asked) = (0, 0);
    for _ in 0..100 {
        let query = random.vector();
        let mut near: Vec<_> =
            vectors.iter().map(|vector| distance(vector, &query)).enumerate().collect();
        near.sort_by(|a, b| a.1.total_cmp(&b.1));
        let hits = engine.search(&query, 10);
        assert!(hits.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        found += near[..10].iter().filter(|(n, _)| hits.iter().any(|hit| hit.0 == id(*n))).count();
        asked += 10;
    }
    assert!(found * 100 >= asked * 98, "{found} of {asked} found");
}

#[test]
fn ties_are_ordered_by_id() {
    let mut engine = QueryEngine::new(1);
    for number in [5, 3, 9, 1, 7] {
        engine.insert(id(number), 0, String::new(), vec![2.0]);
    }
    let ids: Vec<_> = engine.search(&[0.0], 3).into_iter().map(|hit| hit.0).collect();
    assert_eq!(ids, [id(1), id(3), id(5)]);
    let ids: Vec<_> = engine.find_edge_candidates(&[1.0], 5).into_iter().map(|h| h.0).collect();
    assert_eq!(ids, [id(1), id(3), id(5), id(7), id(9)]);
}

#[test]
fn the_engine_is_shared_by_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<QueryEngine>();
}
