//! Embeddings for text that came without one: feature hashing of words and character n-grams.
//!
//! Signed hashing after Weinberger, Dasgupta, Langford, Smola and Attenberg 2009: a feature is
//! added at component `h(feature) mod dim` with a sign taken from another bit of the hash, so that
//! collisions cancel out on average. It finds texts that share words or spellings. It knows no
//! meaning: a trained model finds more, and its embeddings can be given to `ingest` as they are.
//!
//! What is stored today is compared with what is asked in ten years, so the mapping never changes:
//! it uses its own hash function, folds the case of ASCII letters only (the tables of Unicode
//! grow), and sums in the order of the text. A test pins its result to the bit.

use std::collections::HashSet;

/// Weight of a whole word.
const WORD_WEIGHT: f32 = 1.0;
/// Weight of a part of a word, such as `Server` in `HttpServer`.
const PART_WEIGHT: f32 = 0.7;
/// Weight of all character n-grams of a word together, as the length of their vector.
const GRAMS_WEIGHT: f32 = 1.0;
/// A shorter word weighs less, in proportion: `the`, `-n` and `cd` say little.
const FULL_WEIGHT_LENGTH: usize = 8;
/// What stands beyond so many bytes is not looked at: a command can be as long as a disk image, and
/// the words of all of it would take more memory than it does itself.
const TEXT_BYTES_MAX: usize = 8 << 20;
/// Lengths of the character n-grams, counted with the two marks around the word.
const GRAM_LENGTHS: [usize; 2] = [3, 4];

/// Keeps words and n-grams apart: the same letters are different features. A part of a word is a
/// word, so that `server` finds `HttpServer`.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Word = 1,
    Gram = 2,
}

/// The embedding of `text`: `[f32; dim]` of length 1, or all zero where `text` has no word.
///
/// `dim` is at least 1.
pub(crate) fn embed(text: &str, dim: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f32; dim];
    let mut seen = HashSet::new();
    let beginning = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    for word in words(beginning) {
        let folded = word.to_ascii_lowercase();
        // Each word counts once: a text that repeats itself means no more than one that does not.
        if !seen.insert(folded.clone()) {
            continue;
        }
        let length = folded.chars().count().min(FULL_WEIGHT_LENGTH);
        let weight = length as f32 / FULL_WEIGHT_LENGTH as f32;
        add(&mut sum, Kind::Word, folded.as_bytes(), weight * WORD_WEIGHT);
        for part in parts(word) {
            if part.len() < word.len() {
                let part = part.to_ascii_lowercase();
                add(&mut sum, Kind::Word, part.as_bytes(), weight * PART_WEIGHT);
            }
        }
        let marked = format!("<{folded}>");
        let grams_count = grams(&marked).count();
        for gram in grams(&marked) {
            let share = GRAMS_WEIGHT / (grams_count as f32).sqrt();
            add(&mut sum, Kind::Gram, gram.as_bytes(), weight * share);
        }
    }
    normalise(&mut sum);
    sum
}

/// The words of `text`: what stands between ASCII characters that are no letter and no digit.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

/// The parts of a camelCase word, one part for a plain word: `parseHTTPRequest` has `parse`,
/// `HTTP` and `Request`.
fn parts(word: &str) -> impl Iterator<Item = &str> {
    // ASCII letters alone have a case here, and no byte of another character looks like one.
    let bytes = word.as_bytes();
    let starts_part = |&at: &usize| {
        let (left, right, next) = (bytes[at - 1], bytes[at], bytes.get(at + 1));
        let rises = left.is_ascii_lowercase() && right.is_ascii_uppercase();
        let acronym_ends = left.is_ascii_uppercase()
            && right.is_ascii_uppercase()
            && next.is_some_and(|byte| byte.is_ascii_lowercase());
        rises || acronym_ends
    };
    let ends = (1..bytes.len()).filter(starts_part).chain([bytes.len()]);
    ends.scan(0, |start, end| word.get(std::mem::replace(start, end)..end))
}

/// The n-grams of a word between two marks, so that its beginning and end count as such.
fn grams(marked: &str) -> impl Iterator<Item = &str> {
    let bounds = || marked.char_indices().map(|(at, _)| at).chain([marked.len()]);
    GRAM_LENGTHS.iter().flat_map(move |&length| {
        bounds().zip(bounds().skip(length)).filter_map(|(start, end)| marked.get(start..end))
    })
}

/// Adds one feature at its component, with its sign.
fn add(sum: &mut [f32], kind: Kind, feature: &[u8], weight: f32) {
    let hash = hash(kind, feature);
    let signed = if hash & 1 == 0 { weight } else { -weight };
    let component = (hash >> 1) % sum.len() as u64;
    sum[component as usize] += signed;
}

/// FNV-1a of 64 bits over the kind and the bytes, then the finaliser of MurmurHash3, since the low
/// bits of FNV alone are too regular for a sign and a remainder.
fn hash(kind: Kind, bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in std::iter::once(&(kind as u8)).chain(bytes) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Scales to length 1; a zero vector stays zero.
fn normalise(vector: &mut [f32]) {
    let squares: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    if squares > 0.0 {
        let length = squares.sqrt();
        for x in vector {
            *x = (f64::from(*x) / length) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn similarity(a: &str, b: &str) -> f32 {
        embed(a, 384).iter().zip(embed(b, 384)).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn has_length_one_in_any_dimension() {
        for dim in [1, 2, 7, 384, 4096] {
            let vector = embed("kubectl rollout status deploy/api", dim);
            assert_eq!(vector.len(), dim);
            let length: f32 = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            // Dimension 1 may cancel out; every other one has room for what is left.
            assert!(dim == 1 || (length - 1.0).abs() < 1e-5, "dim {dim}: length {length}");
        }
    }

    #[test]
    fn text_without_words_is_zero() {
        assert_eq!(embed("", 8), vec![0.0; 8]);
        assert_eq!(embed(" ./-- \n", 8), vec![0.0; 8]);
    }

    #[test]
    fn case_and_punctuation_do_not_matter() {
        assert_eq!(embed("Cargo BUILD --release", 64), embed("cargo build; (release)", 64));
    }

    #[test]
    fn splits_camel_case_and_paths() {
        let parts = |word| parts(word).collect::<Vec<_>>();
        assert_eq!(parts("parseHTTPRequest"), ["parse", "HTTP", "Request"]);
        assert_eq!(parts("plain"), ["plain"]);
        assert_eq!(parts("größeÄ"), ["größeÄ"], "only ASCII letters have a case");
        assert_eq!(parts("größeAÄb"), ["größe", "AÄb"]);
        assert_eq!(words("/var/log/nginx.err").collect::<Vec<_>>(), ["var", "log", "nginx", "err"]);
        assert!(similarity("HttpServer", "server") > 0.3);
    }

    #[test]
    fn n_grams_are_of_characters() {
        assert_eq!(grams("<a>").collect::<Vec<_>>(), ["<a>"]);
        assert_eq!(grams("<öß>").collect::<Vec<_>>(), ["<öß", "öß>", "<öß>"]);
    }

    #[test]
    fn what_stands_far_behind_is_not_looked_at() {
        let long = "build ".repeat(TEXT_BYTES_MAX / 6);
        assert_eq!(embed(&format!("{long}xü test"), 8), embed(&format!("{long}xü"), 8));
        assert_ne!(embed(&long, 8), embed(&format!("test {long}"), 8));
    }

    #[test]
    fn shared_words_and_spellings_are_similar() {
        let near =
            similarity("kubectl rollout undo deploy/api", "kubectl rollout status deploy/api");
        let spelling = similarity("kubectl rollouts", "kubctl rollout");
        let far = similarity("kubectl rollout undo deploy/api", "gcc -O2 main.c");
        assert!(near > 0.5, "{near}");
        assert!(spelling > 0.25, "{spelling}");
        assert!(far.abs() < 0.15, "{far}");
    }

    #[test]
    fn never_changes() {
        // CRC-32C of the little-endian bits. If this fails, embeddings stored by older builds no
        // longer match: undo the change instead of updating the numbers.
        let crc = |text, dim| {
            let bytes: Vec<u8> = embed(text, dim).iter().flat_map(|x| x.to_le_bytes()).collect();
            crc32c::crc32c(&bytes)
        };
        assert_eq!(crc("git commit -m 'Fix parseHTTPRequest'", 384), 33_866_289);
        assert_eq!(crc("größe=3 ./lauf.sh", 100), 3_107_444_953);
    }
}
