//! The vectors: a folder with `base.f32` and `queries.f32` (little-endian, row-major) and
//! `gt100.i32` (for each query the rows of its 100 most similar base rows by cosine, best first).
//! What is made here is written to such a folder too, so that every competitor reads the same
//! files, whatever its language.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    thread,
};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// Rows in `gt100.i32` for each query.
pub const TRUTH_LEN: usize = 100;

/// SplitMix64 (Steele, Lea and Flood 2014): small, seeded, and the same everywhere.
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is small against 2^64 and not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// From 0 up to but not including 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Normally distributed, mean 0, deviation 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.unit()).cos()) as f32
    }
}

/// Where the vectors are and what shape they have: all that a competitor is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Holds `base.f32`, `queries.f32`, `gt100.i32`.
    pub folder: PathBuf,
    /// Components of a vector.
    pub dim: usize,
}

/// Rows of f32 that a file holds.
pub struct Rows {
    map: Mmap,
    dim: usize,
}

impl Rows {
    /// Maps the file.
    ///
    /// # Errors
    /// It cannot be read, or is not made of whole rows.
    pub fn open(path: &Path, dim: usize) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(|error| failed(&error))?;
        // SAFETY: the file belongs to this benchmark, which only maps it after it is written; a
        // user who cuts it meanwhile ends the process, which loses a measurement and nothing else.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| failed(&error))?;
        if map.is_empty() || !map.len().is_multiple_of(dim * size_of::<f32>()) {
            return Err(failed(&format!("{} bytes are no rows of {dim} f32", map.len())).into());
        }
        Ok(Self { map, dim })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.len() / (self.dim * size_of::<f32>())
    }

    /// Row `index`, `[f32; dim]`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.all()[index * self.dim..][..self.dim]
    }

    /// All rows, row-major.
    pub fn all(&self) -> &[f32] {
        // SAFETY: every bit pattern is an f32, and `align_to` gives only what is aligned; a mapping
        // begins at a page, so that is all of it.
        let (before, values, after) = unsafe { self.map.align_to::<f32>() };
        debug_assert!(before.is_empty() && after.is_empty());
        values
    }
}

/// The vectors and the truth about them.
pub struct DataSet {
    /// Where it came from.
    pub source: Source,
    /// What is indexed.
    pub base: Rows,
    /// What is searched for.
    pub queries: Rows,
    /// For each query [`TRUTH_LEN`] rows of `base`, best first.
    truth: Vec<u32>,
}

impl DataSet {
    /// Opens a folder.
    ///
    /// # Errors
    /// A file is missing, or does not fit the others.
    pub fn open(source: Source) -> Result<Self, Failure> {
        let base = Rows::open(&source.folder.join("base.f32"), source.dim)?;
        let queries = Rows::open(&source.folder.join("queries.f32"), source.dim)?;
        if base.len() < TRUTH_LEN {
            return Err(format!("{} rows are fewer than {TRUTH_LEN}", base.len()).into());
        }
        let path = source.folder.join("gt100.i32");
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let (words, rest) = bytes.as_chunks::<4>();
        let truth: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        if !rest.is_empty()
            || truth.len() != queries.len() * TRUTH_LEN
            || truth.iter().any(|row| *row as usize >= base.len())
        {
            return Err(format!("{}: no truth about these vectors", path.display()).into());
        }
        Ok(Self { source, base, queries, truth })
    }

    /// Exact cosine of a query and a row, in f64; 0 where one is zero.
    pub fn similarity(&self, query: usize, row: usize) -> f64 {
        cosine(self.queries.row(query), self.base.row(row))
    }

    /// For each query the exact similarity of its true `k`-th neighbor.
    pub fn similarity_at(&self, k: usize) -> Vec<f64> {
        (0..self.queries.len())
            .map(|query| {
                let rows = &self.truth[query * TRUTH_LEN..][..k];
                // The least of them: rows that are equal to the last digit may be in any order.
                rows.iter()
                    .map(|row| self.similarity(query, *row as usize))
                    .fold(f64::INFINITY, f64::min)
            })
            .collect()
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}

/// How made vectors lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// Around one center for every 100 rows, with half the deviation of the centers.
    Clustered,
    /// Each component on its own: neighbors mean little, and every index has a hard time.
    Uniform,
}

/// What to make.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// How they lie.
    pub shape: Shape,
    /// Of the base.
    pub rows: usize,
    /// Of the same kind, none of them in the base.
    pub queries: usize,
    /// Components.
    pub dim: usize,
    /// The same seed makes the same vectors.
    pub seed: u64,
}

/// Makes vectors in a folder of their own below `dir`; finds what an earlier call made.
///
/// # Errors
/// The files cannot be written.
pub fn make(dir: &Path, made: Made) -> Result<Source, Failure> {
    let Made { shape, rows, queries, dim, seed } = made;
    let shape_name = format!("{shape:?}").to_lowercase();
    let folder = dir.join(format!("{shape_name}-{rows}x{dim}-{queries}-{seed}"));
    let source = Source { folder: folder.clone(), dim };
    if folder.join("gt100.i32").exists() {
        return Ok(source);
    }
    fs::create_dir_all(&folder)?;
    let mut random = Random::new(seed);
    let centers: Vec<f32> = match shape {
        Shape::Clustered => (0..rows.div_ceil(100) * dim).map(|_| random.normal()).collect(),
        Shape::Uniform => Vec::new(),
    };
    let center_count = centers.len() / dim;
    let mut write = |name: &str, count: usize| -> Result<(), Failure> {
        let mut file = BufWriter::new(File::create(folder.join(name))?);
        let mut row = vec![0.0; dim];
        for _ in 0..count {
            match shape {
                Shape::Clustered => {
                    let center = &centers[random.below(center_count) * dim..][..dim];
                    for (value, center) in row.iter_mut().zip(center) {
                        *value = center + 0.5 * random.normal();
                    }
                }
                Shape::Uniform => row.fill_with(|| random.unit() as f32 * 2.0 - 1.0),
            }
            let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            for value in &row {
                file.write_all(&(value / norm).to_le_bytes())?;
            }
        }
        file.flush()?;
        Ok(())
    };
    write("base.f32", rows)?;
    write("queries.f32", queries)?;
    write_truth(&source)?;
    Ok(source)
}

/// Takes the first rows and queries of a folder into one of its own below `dir`, with the truth
/// about them; finds what an earlier call took.
///
/// # Errors
/// The folder has fewer, or a file cannot be read or written.
pub fn cut(dir: &Path, from: &Source, rows: usize, queries: usize) -> Result<Source, Failure> {
    let name = from.folder.file_name().map_or("data".into(), |name| name.to_string_lossy());
    let folder = dir.join(format!("{name}-first-{rows}x{}-{queries}", from.dim));
    let source = Source { folder: folder.clone(), dim: from.dim };
    fs::create_dir_all(&folder)?;
    let mut is_there = folder.join("gt100.i32").exists();
    for (name, count) in [("base.f32", rows), ("queries.f32", queries)] {
        let all = Rows::open(&from.folder.join(name), from.dim)?;
        if all.len() < count {
            return Err(format!("{name} has {} rows, not {count}", all.len()).into());
        }
        let bytes = &all.map[..count * from.dim * size_of::<f32>()];
        // Another folder of the same name may have been cut before.
        if fs::read(folder.join(name)).is_ok_and(|there| there == bytes) {
            continue;
        }
        is_there = false;
        fs::write(folder.join(name), bytes)?;
    }
    if is_there {
        return Ok(source);
    }
    write_truth(&source)?;
    Ok(source)
}

/// Writes `gt100.i32` to a folder that has the vectors.
fn write_truth(source: &Source) -> Result<(), Failure> {
    let base = Rows::open(&source.folder.join("base.f32"), source.dim)?;
    let queries = Rows::open(&source.folder.join("queries.f32"), source.dim)?;
    if base.len() < TRUTH_LEN {
        return Err(format!("{} rows are fewer than {TRUTH_LEN}", base.len()).into());
    }
    let truth: Vec<u8> =
        exact(&base, &queries, TRUTH_LEN).into_iter().flat_map(u32::to_le_bytes).collect();
    // Renamed when it is whole: its presence says that the folder is finished.
    let unfinished = source.folder.join("gt100.i32.part");
    fs::write(&unfinished, truth)?;
    fs::rename(&unfinished, source.folder.join("gt100.i32"))?;
    Ok(())
}

/// The `k` rows that are most similar to each query by cosine, best first, by brute force
/// on all processors, added up in f64.
fn exact(base: &Rows, queries: &Rows, k: usize) -> Vec<u32> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let norms: Vec<f64> =
        base.all().chunks_exact(base.dim).map(|row| dot_in_blocks(row, row).sqrt()).collect();
    let norms = norms.as_slice();
    let indices: Vec<usize> = (0..queries.len()).collect();
    let share = indices.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = indices
            .chunks(share)
            .map(|share| {
                scope.spawn(move || {
                    share
                        .iter()
                        .flat_map(|query| nearest(base, norms, queries.row(*query), k))
                        .collect::<Vec<u32>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("adding up finite numbers does not panic"))
            .collect()
    })
}

fn nearest(base: &Rows, norms: &[f64], query: &[f32], k: usize) -> Vec<u32> {
    let mut scored: Vec<(f64, u32)> = (0..)
        .zip(base.all().chunks_exact(query.len()))
        .zip(norms)
        .map(|((row, values), norm)| {
            let dot = dot_in_blocks(query, values);
            (if *norm == 0.0 { 0.0 } else { -dot / norm }, row)
        })
        .collect();
    let by_score = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    scored.select_nth_unstable_by(k - 1, by_score);
    scored.truncate(k);
    scored.sort_unstable_by(by_score);
    scored.into_iter().map(|(_, row)| row).collect()
}

fn dot_in_blocks(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 16];
    let (a_blocks, a_rest) = a.as_chunks::<16>();
    let (b_blocks, b_rest) = b.as_chunks::<16>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for ((lane, x), y) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f64::from(*x) * f64::from(*y);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_vectors_are_the_same_each_time_and_their_truth_is_exact() {
        for shape in [Shape::Clustered, Shape::Uniform] {
            let made = Made { shape, rows: 500, queries: 5, dim: 19, seed: 3 };
            let first = tempfile::tempdir().unwrap();
            let second = tempfile::tempdir().unwrap();
            let source = make(first.path(), made).unwrap();
            let again = make(second.path(), made).unwrap();
            for name in ["base.f32", "queries.f32", "gt100.i32"] {
                let bytes = fs::read(source.folder.join(name)).unwrap();
                assert_eq!(bytes, fs::read(again.folder.join(name)).unwrap(), "{name}");
            }
            let data = DataSet::open(source).unwrap();
            for (query, least) in data.similarity_at(10).into_iter().enumerate() {
                let better = (0..500).filter(|row| data.similarity(query, *row) > least).count();
                assert_eq!(better, 9);
            }
        }
    }

    #[test]
    fn a_cut_folder_has_the_first_rows_and_its_own_truth() {
        let dir = tempfile::tempdir().unwrap();
        let made = Made { shape: Shape::Clustered, rows: 300, queries: 6, dim: 9, seed: 2 };
        let whole = make(dir.path(), made).unwrap();
        // Lengths other than 1 change the inner products, and must not change the truth.
        let scaled: Vec<u8> = Rows::open(&whole.folder.join("base.f32"), 9)
            .unwrap()
            .all()
            .chunks(9)
            .zip(1..)
            .flat_map(|(row, by)| row.iter().map(move |value| value * (by % 7 + 1) as f32))
            .flat_map(f32::to_le_bytes)
            .collect();
        fs::write(whole.folder.join("base.f32"), scaled).unwrap();
        let cut = DataSet::open(cut(dir.path(), &whole, 150, 4).unwrap()).unwrap();
        assert_eq!((cut.base.len(), cut.queries.len()), (150, 4));
        for (query, least) in cut.similarity_at(10).into_iter().enumerate() {
            assert_eq!((0..150).filter(|row| cut.similarity(query, *row) > least).count(), 9);
        }
        assert!(super::cut(dir.path(), &whole, 301, 4).is_err());
    }

    #[test]
    fn files_of_another_shape_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let made = Made { shape: Shape::Uniform, rows: 200, queries: 3, dim: 8, seed: 1 };
        let source = make(dir.path(), made).unwrap();
        assert!(DataSet::open(Source { dim: 7, ..source.clone() }).is_err());
        fs::write(source.folder.join("gt100.i32"), [0; 40]).unwrap();
        assert!(DataSet::open(source).is_err());
    }
}
