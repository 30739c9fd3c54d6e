//! Intents as JSON: what `--json` writes, one object per line.
//!
//! The field names are those that `ingest` reads (`tala_ingest`), so `range --json --embedding | ingest OTHER -` copies
//! intents bit for bit.

use std::io::{self, Write};

use serde::Serialize;
use tala_core::{Intent, Status};

use crate::when;

/// An intent on its way out.
#[derive(Serialize)]
struct IntentOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    similarity: Option<f32>,
    id: String,
    /// Nanoseconds since the epoch.
    timestamp: u64,
    /// The same for people, RFC 3339 in UTC; ignored on the way in.
    time: String,
    raw_command: &'a str,
    context_hash: u64,
    parent_ids: Vec<String>,
    outcome: Option<OutcomeOut>,
    confidence: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'a [f32]>,
}

#[derive(Serialize)]
struct OutcomeOut {
    status: &'static str,
    latency_ns: u64,
    exit_code: i32,
}

/// Writes one intent as one line.
pub(crate) fn write_intent(
    out: &mut dyn Write,
    intent: &Intent,
    similarity: Option<f32>,
    with_embedding: bool,
) -> io::Result<()> {
    write_line(
        out,
        &IntentOut {
            similarity,
            id: intent.id.to_string(),
            timestamp: intent.timestamp,
            time: when::for_programs(intent.timestamp),
            raw_command: &intent.raw_command,
            context_hash: intent.context_hash,
            parent_ids: intent.parent_ids.iter().map(ToString::to_string).collect(),
            outcome: intent.outcome.map(|outcome| OutcomeOut {
                status: status_name(outcome.status),
                latency_ns: outcome.latency_ns,
                exit_code: outcome.exit_code,
            }),
            confidence: intent.confidence,
            embedding: with_embedding.then_some(&intent.embedding),
        },
    )
}

/// Writes any value as one line of JSON.
///
/// JSON escapes the control characters of ASCII only. The others (DEL, C1) can stand in strings
/// alone, and terminals obey some of them, so they are escaped too.
pub(crate) fn write_line(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value).map_err(io::Error::other)?;
    if text.chars().any(char::is_control) {
        for c in text.chars() {
            if c.is_control() {
                write!(out, "\\u{:04x}", u32::from(c))?;
            } else {
                write!(out, "{c}")?;
            }
        }
        writeln!(out)
    } else {
        writeln!(out, "{text}")
    }
}

/// The name of a status in JSON.
pub(crate) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Pending => "pending",
        Status::Success => "success",
        Status::Failure => "failure",
        Status::Partial => "partial",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tala_core::{IntentId, Outcome};
    use tala_ingest::parse_intent;

    use super::*;

    fn written(intent: &Intent) -> String {
        let mut out = Vec::new();
        write_intent(&mut out, intent, None, true).unwrap();
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_bit_for_bit(
            command in "\\PC*|[\\x00-\\x20\\x7f-\\u{9f}a-c]*",
            bits in proptest::collection::vec(any::<u32>(), 1..20),
            timestamp: u64,
            context_hash: u64,
            exit_code: i32,
        ) {
            let embedding: Vec<f32> =
                bits.into_iter().map(f32::from_bits).filter(|x| x.is_finite()).collect();
            let intent = Intent {
                id: IntentId::random(),
                timestamp,
                raw_command: command,
                embedding,
                context_hash,
                parent_ids: vec![IntentId::random()],
                outcome: Some(Outcome { status: Status::Partial, latency_ns: timestamp, exit_code }),
                confidence: 0.1,
            };
            let line = written(&intent);
            prop_assert!(!line.trim_end_matches('\n').chars().any(char::is_control));
            let read = parse_intent(&line).unwrap();
            let bits = |floats: &[f32]| floats.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(read.id, Some(intent.id.0));
            prop_assert_eq!(read.timestamp, Some(timestamp));
            prop_assert_eq!(&read.raw_command, &intent.raw_command);
            prop_assert_eq!(bits(&read.embedding.clone().unwrap()), bits(&intent.embedding));
            prop_assert_eq!(read.context_hash, Some(context_hash));
            prop_assert_eq!(read.parent_ids(), intent.parent_ids);
            prop_assert_eq!(read.outcome.map(|outcome| outcome.outcome()), intent.outcome);
            prop_assert_eq!(read.confidence, Some(0.1));
        }
    }
}
