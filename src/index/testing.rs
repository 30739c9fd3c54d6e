//! What the tests of this room share: seeded data.

/// A small generator (xorshift64*, Vigna 2016), the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 32) as usize % end
    }

    /// Uniform in `[-1, 1)`.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.float()).collect()
    }

    /// `count` vectors around `centers` random centers: dense clumps far from each other, which is
    /// what embeddings of commands look like, and hard for a graph.
    pub(crate) fn clustered(&mut self, count: usize, dim: usize, centers: usize) -> Vec<Vec<f32>> {
        let centers: Vec<Vec<f32>> = (0..centers).map(|_| self.vector(dim)).collect();
        (0..count)
            .map(|_| {
                let center = &centers[self.below(centers.len())];
                center.iter().map(|value| value + 0.4 * self.float()).collect()
            })
            .collect()
    }
}
