//! An intent in one line of JSON: what the tool's `--json` writes, and what other programs write.

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value};
use tala_core::{IntentId, Outcome, Status};
use uuid::Uuid;

/// An intent on its way in: only the command must be there, fields of other names are ignored.
#[derive(Deserialize, Debug)]
pub struct IntentIn {
    /// Its identity.
    pub id: Option<Uuid>,
    /// Nanoseconds since the epoch.
    pub timestamp: Option<u64>,
    /// The command as it was typed.
    pub raw_command: String,
    /// The embedding, of whatever dimension.
    pub embedding: Option<Vec<f32>>,
    /// Hash of the context.
    pub context_hash: Option<u64>,
    parent_ids: Option<Vec<Uuid>>,
    /// What came of it.
    #[serde(default, deserialize_with = "outcome_object")]
    pub outcome: Option<OutcomeIn>,
    /// How sure the recorder is.
    pub confidence: Option<f32>,
}

/// An outcome on its way in. A status that is not given follows from the exit code.
#[derive(Deserialize, Debug)]
pub struct OutcomeIn {
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
    /// The whole outcome.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
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

/// The intent in one line of JSON.
///
/// # Errors
/// Why there is none, with the column where there is one.
pub fn parse_intent(line: &str) -> Result<IntentIn, String> {
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
    /// Parents, in order.
    #[must_use]
    pub fn parent_ids(&self) -> Vec<IntentId> {
        self.parent_ids.iter().flatten().copied().map(IntentId).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
