//! How many of the true nearest neighbors does a search find, and how fast, at each beam width?
//!
//! `cargo bench --bench recall -- [FOLDER]`. The folder holds `base.f32` and `queries.f32` (rows of
//! 384 little-endian f32) and `gt100.i32` (for each query the 100 most similar rows by cosine,
//! best first). Without a folder the bench makes 10,000 clustered vectors of its own, seeded (3,000
//! with `--quick`).
//! Everything goes through the public interface, once as it is and once with each vector scaled by
//! its own random factor between 0.01 and 100. The process fails when recall@10 at the default
//! beam width is below 0.95.

mod common;

use std::{error::Error, fs, path::Path, time::Instant};

use common::{Clusters, DIM, Random, sized};
use tala_core::{Intent, IntentId};
use tala_store::{Query, StorageEngine};

const K: usize = 10;
const RECALL_MIN: f64 = 0.95;

struct DataSet {
    base: Vec<Vec<f32>>,
    queries: Vec<Vec<f32>>,
    /// For each query its `K` most similar rows.
    truth: Vec<Vec<u32>>,
}

fn rows(path: &Path) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (words, _) = bytes.as_chunks::<4>();
    Ok(words
        .chunks_exact(DIM)
        .map(|row| row.iter().copied().map(f32::from_le_bytes).collect())
        .collect())
}

fn load(folder: &Path) -> Result<DataSet, Box<dyn Error>> {
    let bytes = fs::read(folder.join("gt100.i32"))?;
    let (words, _) = bytes.as_chunks::<4>();
    let truth = words
        .chunks_exact(100)
        .map(|row| row[..K].iter().copied().map(u32::from_le_bytes).collect())
        .collect();
    Ok(DataSet {
        base: rows(&folder.join("base.f32"))?,
        queries: rows(&folder.join("queries.f32"))?,
        truth,
    })
}

fn make() -> DataSet {
    let mut clusters = Clusters::new(7);
    let base = clusters.points(sized(10_000, 3_000));
    let queries = clusters.points(200);
    let truth = queries.iter().map(|query| nearest(&base, query)).collect();
    DataSet { base, queries, truth }
}

/// The truth by brute force in f64.
fn nearest(base: &[Vec<f32>], query: &[f32]) -> Vec<u32> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let mut scored: Vec<(f64, u32)> = (0..)
        .zip(base)
        .map(|(row, vector)| (dot(vector, query) / dot(vector, vector).sqrt(), row))
        .map(|(score, row)| (-score, row))
        .collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    scored[..K].iter().map(|(_, row)| *row).collect()
}

/// Small ids in the order of the rows.
fn id_of(row: u32) -> IntentId {
    IntentId::from_bytes(u128::from(row).to_be_bytes())
}

fn measure(data: &DataSet, scaled: bool) -> Result<f64, Box<dyn Error>> {
    let mut random = Random(11);
    let engine = StorageEngine::options(DIM).exact_below(0).in_memory()?;
    let intents: Vec<Intent> = (0..)
        .zip(&data.base)
        .map(|(row, vector)| {
            let scale = if scaled { 10_f32.powf(2.0 * random.float()) } else { 1.0 };
            Intent {
                id: id_of(row),
                timestamp: u64::from(row),
                raw_command: String::new(),
                embedding: vector.iter().map(|value| value * scale).collect(),
                context_hash: 0,
                parent_ids: Vec::new(),
                outcome: None,
                confidence: 1.0,
            }
        })
        .collect();
    let start = Instant::now();
    for chunk in intents.chunks(1_000) {
        engine.insert_batch(chunk.to_vec())?;
    }
    engine.wait_indexed()?;
    let rate = data.base.len() as f64 / start.elapsed().as_secs_f64();
    println!("scaled: {scaled}; {rate:.0} rows inserted and linked per second");
    let mut at_default = 0.0;
    for ef in [10, 16, 32, 64, 128, 256] {
        let start = Instant::now();
        let mut found = 0;
        for (query, truth) in data.queries.iter().zip(&data.truth) {
            let hits = engine.search(Query::new(query, K).ef(ef))?;
            found +=
                hits.iter().filter(|(id, _)| truth.iter().any(|row| id_of(*row) == *id)).count();
        }
        let recall = found as f64 / (K * data.queries.len()) as f64;
        let rate = data.queries.len() as f64 / start.elapsed().as_secs_f64();
        println!("  ef {ef:>3}: recall@{K} {recall:.4}, {rate:>7.0} queries/s");
        if ef == 64 {
            at_default = recall;
        }
    }
    Ok(at_default)
}

fn main() -> Result<(), Box<dyn Error>> {
    // cargo passes flags such as --bench; whatever is not a flag is the folder.
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let data = match &folder {
        Some(folder) => load(Path::new(folder))?,
        None => make(),
    };
    println!("{} rows, {} queries, dimension {DIM}", data.base.len(), data.queries.len());
    for scaled in [false, true] {
        let recall = measure(&data, scaled)?;
        if recall < RECALL_MIN {
            return Err(format!(
                "recall@{K} at the default beam width is {recall:.4}, below {RECALL_MIN}"
            )
            .into());
        }
    }
    Ok(())
}
