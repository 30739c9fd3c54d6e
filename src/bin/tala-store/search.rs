//! `search`: the intents most similar to a text or a vector.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use tala_core::{IntentStore, TalaError};
use tala_store::Query;

use crate::{embed::embed, failure::Failure, ingest::EMBEDDING_NOTE, json, open, render, tell};

/// A vector file longer than this is no embedding.
const VECTOR_BYTES_MAX: u64 = 16 << 20;

/// Find what is most similar in meaning, best first.
///
/// Without a vector, the text is embedded as `ingest` does for commands without an embedding. A
/// store whose embeddings come from a model wants a vector of the same model.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tala-store search ~/tala 'roll back the api deployment'
  tala-store search ~/tala --vector query.json -k 3 --json
  my-model 'disk is full' | tala-store search ~/tala --vector -")]
pub(crate) struct Args {
    /// Directory of the store.
    dir: PathBuf,
    /// What to search for.
    #[arg(required_unless_present = "vector", conflicts_with = "vector")]
    text: Option<String>,
    /// File with the embedding to search for, `-` for standard input: a JSON array, or raw
    /// little-endian 32-bit floats.
    #[arg(long, value_name = "FILE")]
    vector: Option<PathBuf>,
    /// How many to find.
    #[arg(short, default_value_t = 10)]
    k: usize,
    /// How many candidates the search keeps in view: more is slower and finds more. The store's
    /// own choice where it is not given.
    #[arg(long)]
    ef: Option<usize>,
    /// Write one JSON object per line.
    #[arg(long)]
    json: bool,
    /// With --json, write the embeddings too.
    #[arg(long, requires = "json")]
    embedding: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let engine = open::existing(&args.dir)?;
    let embedding = match (&args.vector, &args.text) {
        (Some(path), _) => vector(path, engine.dim())?,
        (None, Some(text)) => {
            tell(EMBEDDING_NOTE);
            embed(text, engine.dim())
        }
        (None, None) => return Err(Failure::Usage("search for what?".to_owned())),
    };
    let mut query = Query::new(&embedding, args.k);
    if let Some(ef) = args.ef {
        query = query.ef(ef);
    }
    let mut found = Vec::new();
    for (id, similarity) in engine.search(query)? {
        // Nobody else writes: the directory is locked by this process.
        let intent = engine.get(id)?.ok_or(Failure::NotFound(id))?;
        found.push((Some(similarity), intent));
    }
    engine.close()?;
    if args.json {
        for (similarity, intent) in &found {
            json::write_intent(out, intent, *similarity, args.embedding)?;
        }
    } else {
        render::write_intents(out, &found, render::IdColumn::Shown, render::terminal_width())?;
    }
    Ok(())
}

/// The embedding in a file.
fn vector(path: &Path, dim: usize) -> Result<Vec<f32>, Failure> {
    let mut bytes = Vec::new();
    let is_stdin = path == Path::new("-");
    let read = if is_stdin {
        std::io::stdin().lock().take(VECTOR_BYTES_MAX).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(VECTOR_BYTES_MAX).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::file("read", path, error))?;
    let vector = parse_vector(&bytes, dim).map_err(|why| {
        let name = if is_stdin { "(standard input)".into() } else { path.to_string_lossy() };
        Failure::Other(format!("{name} holds no vector: {why}"))
    })?;
    if vector.len() != dim {
        return Err(TalaError::DimensionMismatch { expected: dim, got: vector.len() }.into());
    }
    Ok(vector)
}

/// A JSON array of any length, or `dim` raw floats. What is text throughout was not meant as raw
/// floats, even where its length is right; other bytes may begin with a bracket by chance.
fn parse_vector(bytes: &[u8], dim: usize) -> Result<Vec<f32>, String> {
    let is_text = bytes.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    match serde_json::from_slice(bytes) {
        Ok(vector) => return Ok(vector),
        Err(error) if is_text && bytes.trim_ascii_start().starts_with(b"[") => {
            return Err(error.to_string());
        }
        Err(_) => {}
    }
    let (floats, rest) = bytes.as_chunks::<4>();
    if is_text || floats.len() != dim || !rest.is_empty() {
        return Err(format!(
            "neither a JSON array of numbers nor {dim} raw 32-bit floats, which are {} bytes",
            4 * dim
        ));
    }
    Ok(floats.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_json_or_raw() {
        assert_eq!(parse_vector(b" [1, -2.5, 0]\n", 2), Ok(vec![1.0, -2.5, 0.0]));
        let raw: Vec<u8> = [1.0_f32, -2.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(parse_vector(&raw, 2), Ok(vec![1.0, -2.5]));
        // A float whose first byte is that of a bracket.
        let bracket = f32::from_le_bytes([b'[', 0x80, 0x80, 0x3f]);
        assert_eq!(parse_vector(&bracket.to_le_bytes(), 1), Ok(vec![bracket]));
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [&b""[..], b"[1, 2", b"[1, \"x\"]", b"abcd", b"\x00\x01\x02\x03\x04", &[0; 8]]
        {
            assert!(parse_vector(bytes, 1).is_err(), "{bytes:?}");
        }
    }
}
