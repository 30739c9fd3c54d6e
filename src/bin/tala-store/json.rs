//! Intents as JSON: what `--json` writes, one object per line, and what `ingest` reads.
//!
//! The field names are the same both ways, so `range --json --embedding | ingest OTHER -` copies
//! intents bit for bit.

use std::io::{self, Write};

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::{Map, Value};
use tala_core::{Intent, IntentId, Outcome, Status};
use uuid::Uuid;

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

/// An intent on its way in: only the command must be there, fields of other names are ignored.
#[derive(Deserialize, Debug)]
pub(crate) struct IntentIn {
    pub(crate) id: Option<Uuid>,
    /// Nanoseconds since the epoch.
    pub(crate) timestamp: Option<u64>,
    pub(crate) raw_command: String,
    pub(crate) embedding: Option<Vec<f32>>,
    pub(crate) context_hash: Option<u64>,
    pub(crate) parent_ids: Option<Vec<Uuid>>,
    #[serde(default, deserialize_with = "outcome_object")]
    pub(crate) outcome: Option<OutcomeIn>,
    pub(crate) confidence: Option<f32>,
}

/// An outcome on its way in. A status that is not given follows from the exit code.
#[derive(Deserialize, Debug)]
pub(crate) struct OutcomeIn {
    status: Option<StatusIn>,
    latency_ns: Option<u64>,
    exit_code: Option<i32>,
}

#[derive(Deserialize, Clone, Copy, Debug)]
#[serde(rename_all = "lowercase")]
enum StatusIn {
    Pending,
    Success,
    Failure,
    Partial,
}

impl OutcomeIn {
    pub(crate) fn outcome(&self) -> Outcome {
        let status = match (self.status, self.exit_code) {
            (Some(StatusIn::Pending), _) | (None, None) => Status::Pending,
            (Some(StatusIn::Success), _) | (None, Some(0)) => Status::Success,
            (Some(StatusIn::Failure), _) | (None, Some(_)) => Status::Failure,
            (Some(StatusIn::Partial), _) => Status::Partial,
        };
        Outcome {
            status,
            latency_ns: self.latency_ns.unwrap_or(0),
            exit_code: self.exit_code.unwrap_or(0),
        }
    }
}

/// An outcome from an object alone: a derived struct would take an array of its fields too.
fn outcome_object<'de, D: Deserializer<'de>>(json: D) -> Result<Option<OutcomeIn>, D::Error> {
    let object = Option::<Map<String, Value>>::deserialize(json)?;
    object.map(|object| OutcomeIn::deserialize(object).map_err(D::Error::custom)).transpose()
}

/// The intent in one line of JSON, or why there is none.
pub(crate) fn parse_intent(line: &str) -> Result<IntentIn, String> {
    // A derived struct would take an array of its fields too, in an order that nobody promised.
    if !line.trim_start().starts_with('{') {
        return Err("not a JSON object".to_owned());
    }
    serde_json::from_str(line).map_err(|error| {
        // The parser sees one line at a time, so its line number would mislead.
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        match text.strip_suffix(&place) {
            Some(what) => format!("{what} (column {})", error.column()),
            None => text,
        }
    })
}

impl IntentIn {
    pub(crate) fn parent_ids(&self) -> Vec<IntentId> {
        self.parent_ids.iter().flatten().copied().map(IntentId).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[test]
    fn errors_name_the_column_and_no_line() {
        let error = parse_intent(r#"{"raw_command": "ls", "timestamp": "noon"}"#).unwrap_err();
        assert!(error.contains("column") && !error.contains("line"), "{error}");
        assert!(parse_intent("{}").unwrap_err().contains("raw_command"));
        assert!(parse_intent(r#"{"raw_command": 3}"#).is_err());
    }

    #[test]
    fn a_missing_status_follows_from_the_exit_code() {
        let status = |json: &str| serde_json::from_str::<OutcomeIn>(json).unwrap().outcome().status;
        assert_eq!(status(r#"{"exit_code": 0}"#), Status::Success);
        assert_eq!(status(r#"{"exit_code": 2}"#), Status::Failure);
        assert_eq!(status(r#"{"exit_code": 2, "status": "partial"}"#), Status::Partial);
        assert_eq!(status("{}"), Status::Pending);
    }
}
