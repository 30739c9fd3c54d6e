//! The vectors as a competitor holds them.

use std::path::Path;

use crate::{
    Failure,
    data::{Random, Rows},
};

/// Lengths further from 1 than this are not of unit length. It is what f32 leaves, and some
/// competitors refuse a cosine above 1.000002.
const UNIT_SLACK: f64 = 5e-7;

/// Rows of f32, row-major: mapped as they are, or copied at unit length.
pub enum Vectors {
    /// The file itself.
    Mapped(Rows),
    /// Scaled, in memory.
    Scaled {
        /// Row-major.
        values: Vec<f32>,
        /// Components of a row.
        dim: usize,
    },
}

impl Vectors {
    /// The rows as the file has them.
    ///
    /// # Errors
    /// The file cannot be read, or is not made of whole rows.
    pub fn raw(path: &Path, dim: usize) -> Result<Self, Failure> {
        Ok(Self::Mapped(Rows::open(path, dim)?))
    }

    /// The rows at unit length, for those who multiply only; copied where the file has others.
    ///
    /// # Errors
    /// As for [`Vectors::raw`].
    pub fn of_unit_length(path: &Path, dim: usize) -> Result<Self, Failure> {
        let rows = Rows::open(path, dim)?;
        if rows.all().chunks_exact(dim).all(|row| (norm(row) - 1.0).abs() < UNIT_SLACK) {
            return Ok(Self::Mapped(rows));
        }
        let mut values = rows.all().to_vec();
        values.chunks_exact_mut(dim).for_each(normalise);
        Ok(Self::Scaled { values, dim })
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Mapped(rows) => rows.len(),
            Self::Scaled { values, dim } => values.len() / dim,
        }
    }

    /// Row `index`, `[f32; dim]`.
    pub fn row(&self, index: usize) -> &[f32] {
        match self {
            Self::Mapped(rows) => rows.row(index),
            Self::Scaled { values, dim } => &values[index * dim..][..*dim],
        }
    }
}

fn norm(row: &[f32]) -> f64 {
    row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

/// To unit length; zero stays zero.
pub fn normalise(row: &mut [f32]) {
    let norm = norm(row);
    if norm > 0.0 {
        for value in row {
            *value = (f64::from(*value) / norm) as f32;
        }
    }
}

/// Makes rows that no index has seen: rows of the base with noise, at unit length. The noise is
/// drawn beforehand, so that making a row costs next to nothing beside inserting it.
pub struct Noise {
    random: Random,
    dim: usize,
    values: Vec<f32>,
}

impl Noise {
    const VECTORS: usize = 256;

    /// The same seed makes the same rows. The noise is 0.2 of a row's length.
    pub fn new(dim: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let scale = 0.2 / (dim as f32).sqrt();
        let values = (0..Self::VECTORS * dim).map(|_| scale * random.normal()).collect();
        Self { random, dim, values }
    }

    /// Writes a new row to `row`, `[f32; dim]`.
    pub fn make(&mut self, base: &Vectors, row: &mut [f32]) {
        let noise = self.random.below(Self::VECTORS);
        let noise = &self.values[noise * self.dim..][..self.dim];
        row.copy_from_slice(base.row(self.random.below(base.len())));
        normalise(row);
        for (value, noise) in row.iter_mut().zip(noise) {
            *value += noise;
        }
        normalise(row);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file_of(values: &[f32]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn only_other_lengths_are_scaled() {
        let unit = file_of(&[0.6, 0.8, 1.0, 0.0]);
        assert!(matches!(Vectors::of_unit_length(unit.path(), 2).unwrap(), Vectors::Mapped(_)));
        let other = file_of(&[0.6, 0.8, 3.0, 4.0, 0.0, 0.0]);
        let scaled = Vectors::of_unit_length(other.path(), 2).unwrap();
        assert!(matches!(scaled, Vectors::Scaled { .. }));
        assert_eq!(scaled.len(), 3);
        assert_eq!(
            (scaled.row(0), scaled.row(1), scaled.row(2)),
            (&[0.6, 0.8][..], &[0.6, 0.8][..], &[0.0; 2][..])
        );
        assert_eq!(Vectors::raw(other.path(), 2).unwrap().row(1), [3.0, 4.0]);
    }

    #[test]
    fn new_rows_are_near_the_base_and_not_in_it() {
        let base = Vectors::Scaled { values: vec![1.0, 0.0, 0.0, 0.0], dim: 4 };
        let mut noise = Noise::new(4, 1);
        let mut row = [0.0; 4];
        for _ in 0..20 {
            noise.make(&base, &mut row);
            assert!((norm(&row) - 1.0).abs() < 1e-6);
            assert!(row[0] > 0.5 && row[0] < 1.0, "{row:?}");
        }
    }
}
