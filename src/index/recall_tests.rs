//! Recall on a data set of one's own, when there is one.
//!
//! `TALA_RECALL_DATA=folder cargo test --release recall_of_a_data_set -- --nocapture`, where the
//! folder holds `base.f32` and `queries.f32` (rows of 384 little-endian f32) and `gt100.i32` (for
//! each query the 100 most similar rows by cosine, best first).

use crate::ids::RowId;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    graph::GraphParams,
    metric::Cosine,
    search::{self, Query},
    testing::{Random, World, id},
};

const DIM: usize = 384;

fn words<T>(path: &Path, word: impl Fn([u8; 4]) -> T) -> Vec<T> {
    let bytes = fs::read(path).unwrap();
    bytes.chunks_exact(4).map(|chunk| word(chunk.try_into().unwrap())).collect()
}

fn measure(folder: &Path, scaled: bool) {
    let base = words(&folder.join("base.f32"), f32::from_le_bytes);
    let queries = words(&folder.join("queries.f32"), f32::from_le_bytes);
    let truth = words(&folder.join("gt100.i32"), i32::from_le_bytes);
    let mut random = Random::new(5);
    let mut world =
        World::<Cosine>::new(DIM, GraphParams { m: 16, ef_construction: 200, seed: 42 });
    for (number, row) in base.chunks_exact(DIM).enumerate() {
        let scale = if scaled { 10_f32.powf(2.0 * random.float()) } else { 1.0 };
        let row: Vec<f32> = row.iter().map(|value| value * scale).collect();
        world.push(&row, number as u64, None);
    }
    let start = Instant::now();
    let (mut planning, mut longest_apply) = (Duration::ZERO, Duration::ZERO);
    for row in 0..world.arena.len() {
        let start = Instant::now();
        let plan = world.graph.plan(RowId(row), world.seq).unwrap();
        planning += start.elapsed();
        let start = Instant::now();
        world.graph.apply(plan);
        longest_apply = longest_apply.max(start.elapsed());
    }
    let rate = f64::from(world.arena.len()) / start.elapsed().as_secs_f64();
    println!("scaled {scaled}: {rate:.0} rows linked/s, planning {planning:?}");
    println!("longest apply {longest_apply:?}, {:?}", world.graph.graph().stats());
    for ef in [16, 32, 64, 128] {
        let (mut found, mut visited) = (0, 0);
        let start = Instant::now();
        for (number, vector) in queries.chunks_exact(DIM).enumerate() {
            let query = Query { vector, k: 10, ef, exact_below: 0 };
            let answer = search::search(world.graph.graph(), query, world.view());
            let truth = &truth[number * 100..number * 100 + 10];
            let is_true = |hit: &(_, f32)| truth.iter().any(|row| id(*row as u64) == hit.0);
            found += answer.hits.iter().filter(|hit| is_true(hit)).count();
            visited += answer.visited;
        }
        let count = queries.len() / DIM;
        let recall = found as f64 / (10 * count) as f64;
        let rate = count as f64 / start.elapsed().as_secs_f64();
        println!(
            "ef {ef}: recall@10 {recall:.4}, visited {}, {rate:.0} queries/s",
            visited / count
        );
        assert!(ef < 64 || recall >= 0.95, "recall {recall} at ef {ef}");
    }
}

#[test]
fn recall_of_a_data_set() {
    let Some(folder) = std::env::var_os("TALA_RECALL_DATA") else {
        println!("TALA_RECALL_DATA is not set: nothing was measured");
        return;
    };
    measure(Path::new(&folder), false);
    measure(Path::new(&folder), true);
}
