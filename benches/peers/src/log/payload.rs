//! The records: 1,600 bytes each, made from their number alone, so that what a store gives back
//! can be compared with what it was given without keeping a copy.

use std::sync::LazyLock;

use crate::data::Random;

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;
/// Bytes of a key and its value.
pub const RECORD_BYTES: usize = 1_600;
/// Components of the embedding in a record.
pub const DIM: usize = 384;

const VALUE_BYTES: usize = RECORD_BYTES - KEY_BYTES;
const TIME_BYTES: usize = 8;
const EMBEDDING_BYTES: usize = DIM * size_of::<f32>();
const COMMAND_BYTES: usize = VALUE_BYTES - TIME_BYTES - EMBEDDING_BYTES;

/// Around how many points the embeddings lie.
const CENTERS: usize = 256;

static CENTER_VALUES: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let mut random = Random::new(1);
    (0..CENTERS * DIM).map(|_| random.unit() as f32 * 2.0 - 1.0).collect()
});

/// Which record of a run: who inserted it, and its how many-th it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// From 0.
    pub client: u32,
    /// From 0, below 2^40.
    pub sequence: u64,
}

/// A key and its value. The value is a time (8 bytes), an embedding (384 f32) that is one of 256
/// centers and noise, and a command (40 bytes of text); all little-endian. Hardly compressible.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload([u8; RECORD_BYTES]);

impl Payload {
    /// The record of this number. Different numbers have different keys, in no order.
    pub fn of(number: Number) -> Self {
        let mut payload = Self([0; RECORD_BYTES]);
        payload.fill(number);
        payload
    }

    /// Becomes the record of this number.
    pub fn fill(&mut self, number: Number) {
        let seed = u64::from(number.client) << 40 | number.sequence;
        let mut random = Random::new(seed);
        let (key, value) = self.0.split_at_mut(KEY_BYTES);
        let (time, value) = value.split_at_mut(TIME_BYTES);
        let (embedding, command) = value.split_at_mut(EMBEDDING_BYTES);
        // The first output is a bijection of the seed, which makes the keys unique.
        key[..8].copy_from_slice(&random.next().to_le_bytes());
        key[8..].copy_from_slice(&random.next().to_le_bytes());
        time.copy_from_slice(&(1_700_000_000_000_000_000 + number.sequence * 1_000).to_le_bytes());
        let center = &CENTER_VALUES[random.below(CENTERS) * DIM..][..DIM];
        // Two components of 32 random bits each from one draw.
        for (pair, center) in embedding.chunks_exact_mut(8).zip(center.chunks_exact(2)) {
            let bits = random.next();
            let noise = |bits: u32| bits as f32 / u32::MAX as f32 - 0.5;
            pair[..4].copy_from_slice(&(center[0] + noise(bits as u32)).to_le_bytes());
            pair[4..].copy_from_slice(&(center[1] + noise((bits >> 32) as u32)).to_le_bytes());
        }
        const TEXT: &[u8; COMMAND_BYTES - 16] = b"cargo test --seed 0x    ";
        command[..TEXT.len()].copy_from_slice(TEXT);
        for (index, digit) in command[TEXT.len()..].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(seed >> (60 - 4 * index) & 15) as usize];
        }
    }

    /// Key and value.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Unique among the records of a run.
    pub fn key(&self) -> &[u8; KEY_BYTES] {
        self.0.first_chunk().expect("a record is longer than its key")
    }

    /// All the rest.
    pub fn value(&self) -> &[u8] {
        &self.0[KEY_BYTES..]
    }

    /// The time in the value.
    pub fn time(&self) -> u64 {
        let bytes = self.value().first_chunk().expect("a value is longer than its time");
        u64::from_le_bytes(*bytes)
    }

    /// The embedding in the value, `[f32; DIM]`.
    pub fn embedding(&self) -> Vec<f32> {
        let (components, _) = self.value()[TIME_BYTES..][..EMBEDDING_BYTES].as_chunks::<4>();
        components.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// The command in the value.
    pub fn command(&self) -> String {
        let text = &self.value()[TIME_BYTES + EMBEDDING_BYTES..];
        String::from_utf8_lossy(text).into_owned()
    }
}

/// The value that a time, an embedding and a command make, as [`Payload::value`] has it.
pub fn value_of(time: u64, embedding: &[f32], command: &str) -> Vec<u8> {
    let mut value = Vec::with_capacity(VALUE_BYTES);
    value.extend(time.to_le_bytes());
    value.extend(embedding.iter().flat_map(|component| component.to_le_bytes()));
    value.extend(command.as_bytes());
    value
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_parts_of_a_value_make_it_again() {
        let payload = Payload::of(Number { client: 3, sequence: 77 });
        let again = value_of(payload.time(), &payload.embedding(), &payload.command());
        assert_eq!(again, payload.value());
        assert!(payload.embedding().iter().all(|value| value.abs() <= 1.5));
        assert!(payload.command().ends_with("000003000000004d"), "{}", payload.command());
    }

    #[test]
    fn keys_differ_and_come_back() {
        let numbers =
            || (0..8).flat_map(|client| (0..500).map(move |sequence| Number { client, sequence }));
        let keys: Vec<_> = numbers().map(|number| *Payload::of(number).key()).collect();
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
        let again: Vec<_> = numbers().map(|number| *Payload::of(number).key()).collect();
        assert_eq!(keys, again);
    }
}
