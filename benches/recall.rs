//! How many of the true nearest neighbors does a search find, and how fast, at each beam width?
//!
//! `cargo bench --bench recall -- [FOLDER]`. The folder holds `base.f32` and `queries.f32` (rows of
//! 384 little-endian f32) and `gt100.i32` (for each query the 100 most similar rows by cosine,
//! best first). Without a folder the bench makes 10,000 clustered vectors of its own, seeded.
//! Everything goes through the public interface, once as it is and once with each vector scaled by
//! its own random factor between 0.01 and 100. The process fails when recall@10 at the default
//! beam width is below 0.95.

use std::{error::Error, fs, path::Path, time::Instant};

use tala_core::{Intent, IntentId};
use tala_store::{Query, StorageEngine};

const DIM: usize = 384;
const K: usize = 10;
const RECALL_MIN: f64 = 0.95;

/// SplitMix64: small, seeded, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Between -1 and 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}

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
    let mut random = Random(7);
    let centers: Vec<Vec<f32>> =
        (0..200).map(|_| (0..DIM).map(|_| random.float()).collect()).collect();
    let mut point = || -> Vec<f32> {
        let center = &centers[(random.next() % 200) as usize];
        center.iter().map(|value| value + 0.6 * random.float()).collect()
    };
    let base: Vec<Vec<f32>> = (0..10_000).map(|_| point()).collect();
    let queries: Vec<Vec<f32>> = (0..200).map(|_| point()).collect();
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
