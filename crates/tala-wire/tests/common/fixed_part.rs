//! Another program's view of the format: writes and reads the fixed part of a segment and knows
//! nothing else. Written from the description of the format alone, with no code of the crate.
//!
//! A legacy segment, as made by [`legacy_segment`], has all fields beyond the fixed part zero.

// Each test program uses a part of this file.
#![allow(dead_code)]

#[derive(Clone, Debug, PartialEq)]
pub struct FixedRow {
    pub id: [u8; 16],
    pub timestamp: u64,
    pub context_hash: u64,
    pub confidence: f32,
    pub status: u8,
    pub embedding: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FixedEdge {
    pub parent: u32,
    pub child: u32,
    pub relation: u8,
    pub weight: f32,
}

#[derive(Debug)]
pub struct FixedSegment {
    pub dim: usize,
    pub rows: Vec<FixedRow>,
    pub edges: Vec<FixedEdge>,
    pub hashes_count: u32,
    pub bits_count: u64,
    words: Vec<u64>,
}

pub fn fnv(bytes: &[u8]) -> u64 {
    let mut hash: u64 = 14_695_981_039_346_656_037;
    for byte in bytes {
        hash ^= u64::from(*byte);
        hash = hash.wrapping_mul(1_099_511_628_211);
    }
    hash
}

pub fn bloom_shape(items: usize) -> (u32, u64) {
    if items == 0 {
        return (1, 64);
    }
    let n = items as f64;
    let bits = (-n * 0.01_f64.ln() / (2_f64.ln() * 2_f64.ln())).ceil().max(64.0);
    ((bits / n * 2_f64.ln()).ceil().max(1.0) as u32, bits as u64)
}

fn bits_of(id: &[u8; 16], hashes_count: u32, bits_count: u64) -> Vec<u64> {
    let h1 = fnv(id);
    let h2 = fnv(&h1.to_le_bytes()).wrapping_add(1);
    (0..u64::from(hashes_count)).map(|i| h1.wrapping_add(i.wrapping_mul(h2)) % bits_count).collect()
}

fn pad(out: &mut Vec<u8>) -> u64 {
    while !out.len().is_multiple_of(64) {
        out.push(0);
    }
    out.len() as u64
}

/// A legacy segment. `edges` must be sorted by parent, and embeddings `dim` long.
pub fn legacy_segment(dim: usize, rows: &[FixedRow], edges: &[FixedEdge]) -> Vec<u8> {
    let mut out = vec![0; 128];
    let node = pad(&mut out);
    rows.iter().for_each(|row| out.extend(row.id));
    pad(&mut out);
    rows.iter().for_each(|row| out.extend(row.timestamp.to_le_bytes()));
    pad(&mut out);
    rows.iter().for_each(|row| out.extend(row.context_hash.to_le_bytes()));
    pad(&mut out);
    rows.iter().for_each(|row| out.extend(row.confidence.to_le_bytes()));
    pad(&mut out);
    rows.iter().for_each(|row| out.push(row.status));

    let embed = pad(&mut out);
    for row in rows {
        assert_eq!(row.embedding.len(), dim);
        row.embedding.iter().for_each(|value| out.extend(value.to_le_bytes()));
        pad(&mut out);
    }

    let edge = pad(&mut out);
    for row in 0..=rows.len() {
        let before = edges.iter().filter(|edge| (edge.parent as usize) < row).count();
        out.extend((before as u64).to_le_bytes());
    }
    for edge in edges {
        out.extend(edge.child.to_le_bytes());
        out.push(edge.relation);
        out.extend(edge.weight.to_le_bytes());
        out.extend([0; 3]);
    }

    let bloom = pad(&mut out);
    let (hashes_count, bits_count) = bloom_shape(rows.len());
    let mut words = vec![0_u64; bits_count.div_ceil(64) as usize];
    for row in rows {
        for bit in bits_of(&row.id, hashes_count, bits_count) {
            words[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }
    out.extend(hashes_count.to_le_bytes());
    out.extend(bits_count.to_le_bytes());
    words.iter().for_each(|word| out.extend(word.to_le_bytes()));

    out[..4].copy_from_slice(b"TALB");
    out[6] = 1;
    out[24..32].copy_from_slice(&(rows.len() as u64).to_le_bytes());
    out[32..40].copy_from_slice(&(edges.len() as u64).to_le_bytes());
    out[40..44].copy_from_slice(&(dim as u32).to_le_bytes());
    for (at, offset) in [(48, node), (56, embed), (64, edge), (80, bloom)] {
        out[at..at + 8].copy_from_slice(&offset.to_le_bytes());
    }
    out
}

fn take<const N: usize>(bytes: &[u8], at: u64) -> [u8; N] {
    bytes[at as usize..at as usize + N].try_into().unwrap()
}

fn u32_at(bytes: &[u8], at: u64) -> u32 {
    u32::from_le_bytes(take(bytes, at))
}

fn u64_at(bytes: &[u8], at: u64) -> u64 {
    u64::from_le_bytes(take(bytes, at))
}

/// Reads the fixed part of an intact segment.
pub fn read(bytes: &[u8]) -> FixedSegment {
    let up = |offset: u64| offset.div_ceil(64) * 64;
    assert_eq!(&bytes[..4], b"TALB");
    assert_eq!(u16::from_le_bytes(take(bytes, 4)), 0);
    assert_eq!(u16::from_le_bytes(take(bytes, 6)), 1);
    let count = u64_at(bytes, 24);
    let edges_count = u64_at(bytes, 32);
    let dim = u64::from(u32_at(bytes, 40));
    let regions = [48, 56, 64, 80].map(|at| u64_at(bytes, at));
    assert!(regions.iter().all(|offset| offset % 64 == 0 && *offset >= 128));
    let [ids, embeddings, edge_region, bloom] = regions;

    let timestamps = up(ids + 16 * count);
    let context_hashes = up(timestamps + 8 * count);
    let confidences = up(context_hashes + 8 * count);
    let statuses = up(confidences + 4 * count);
    let stride = up(4 * dim);
    let rows = (0..count)
        .map(|row| FixedRow {
            id: take(bytes, ids + 16 * row),
            timestamp: u64_at(bytes, timestamps + 8 * row),
            context_hash: u64_at(bytes, context_hashes + 8 * row),
            confidence: f32::from_bits(u32_at(bytes, confidences + 4 * row)),
            status: bytes[(statuses + row) as usize],
            embedding: (0..dim)
                .map(|i| f32::from_bits(u32_at(bytes, embeddings + stride * row + 4 * i)))
                .collect(),
        })
        .collect();

    let mut edges = Vec::new();
    for parent in 0..count {
        let (first, end) = (edge_region + 8 * parent, edge_region + 8 * parent + 8);
        for j in u64_at(bytes, first)..u64_at(bytes, end) {
            let at = edge_region + 8 * (count + 1) + 12 * j;
            edges.push(FixedEdge {
                parent: parent as u32,
                child: u32_at(bytes, at),
                relation: bytes[at as usize + 4],
                weight: f32::from_bits(u32_at(bytes, at + 5)),
            });
        }
    }
    assert_eq!(edges.len() as u64, edges_count);

    let bits_count = u64_at(bytes, bloom + 4);
    FixedSegment {
        dim: dim as usize,
        rows,
        edges,
        hashes_count: u32_at(bytes, bloom),
        bits_count,
        words: (0..bits_count.div_ceil(64)).map(|i| u64_at(bytes, bloom + 12 + 8 * i)).collect(),
    }
}

impl FixedSegment {
    pub fn may_contain(&self, id: &[u8; 16]) -> bool {
        let mut bits = bits_of(id, self.hashes_count, self.bits_count).into_iter();
        bits.all(|bit| self.words[(bit / 64) as usize] >> (bit % 64) & 1 == 1)
    }
}
