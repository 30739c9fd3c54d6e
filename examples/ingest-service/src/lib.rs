//! What the service says and understands: JSON of intents and of questions, errors as HTTP has them,
//! and signals. And the load generator, in [`load`].

pub mod load;

use std::{future::Future, io};

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tala_core::{Intent, IntentId, Outcome, TalaError};
use tala_ingest::OutcomeIn;
use tokio::signal::unix::{SignalKind, signal};

/// A question by meaning.
#[derive(Deserialize, Debug)]
pub struct Search {
    /// As many numbers as the store's embeddings have.
    pub embedding: Vec<f32>,
    /// How many answers at most.
    pub k: usize,
}

/// A question by time.
#[derive(Clone, Copy, Deserialize, Debug)]
pub struct Range {
    /// In nanoseconds since the epoch.
    pub start: u64,
    /// The same, exclusive.
    pub end: u64,
}

/// An answer that is none.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    why: String,
}

impl Refused {
    /// There is no room now, for this reason.
    pub fn busy(why: &impl ToString) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, why: why.to_string() }
    }

    fn bad(why: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, why }
    }
}

impl From<TalaError> for Refused {
    fn from(error: TalaError) -> Self {
        let status = match error {
            TalaError::NodeNotFound(_) => StatusCode::NOT_FOUND,
            TalaError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            TalaError::DimensionMismatch { .. }
            | TalaError::InvalidInput { .. }
            | TalaError::InBatch { .. } => StatusCode::BAD_REQUEST,
            TalaError::Busy { .. } | TalaError::Stopped { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, why: error.to_string() }
    }
}

impl From<tokio::task::JoinError> for Refused {
    fn from(error: tokio::task::JoinError) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, why: error.to_string() }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let is_busy = self.status == StatusCode::SERVICE_UNAVAILABLE;
        let retry = is_busy.then_some([(header::RETRY_AFTER, "1")]);
        let body = Json(json!({ "error": self.why }));
        match retry {
            Some(headers) => (self.status, headers, body).into_response(),
            None => (self.status, body).into_response(),
        }
    }
}

/// The intents of a batch in JSON Lines; an id that is not given is drawn at random.
///
/// # Errors
/// The first line that is none, by its number.
pub fn intents_of(lines: &str) -> Result<Vec<Intent>, Refused> {
    let lines = (1..).zip(lines.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let bad = |why: String| Refused::bad(format!("line {number}: {why}"));
            let intent = tala_ingest::parse_intent(line).map_err(bad)?;
            let embedding =
                intent.embedding.clone().ok_or_else(|| bad("no embedding".to_owned()))?;
            Ok(Intent {
                id: intent.id.map_or_else(IntentId::random, IntentId),
                timestamp: intent.timestamp.ok_or_else(|| bad("no timestamp".to_owned()))?,
                embedding,
                context_hash: intent.context_hash.unwrap_or(0),
                parent_ids: intent.parent_ids(),
                outcome: intent.outcome.as_ref().map(OutcomeIn::outcome),
                confidence: intent.confidence.unwrap_or(1.0),
                raw_command: intent.raw_command,
            })
        })
        .collect()
}

/// An outcome in JSON.
///
/// # Errors
/// It is none.
pub fn outcome_of(body: &str) -> Result<Outcome, Refused> {
    let outcome: OutcomeIn =
        serde_json::from_str(body).map_err(|error| Refused::bad(error.to_string()))?;
    Ok(outcome.outcome())
}

/// An intent as JSON.
#[must_use]
pub fn intent_json(intent: &Intent) -> Value {
    json!({
        "id": intent.id.to_string(),
        "timestamp": intent.timestamp,
        "raw_command": intent.raw_command,
        "embedding": intent.embedding,
        "context_hash": intent.context_hash,
        "parent_ids": intent.parent_ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "outcome": intent.outcome.map(|outcome| json!({
            "status": format!("{:?}", outcome.status).to_lowercase(),
            "latency_ns": outcome.latency_ns,
            "exit_code": outcome.exit_code,
        })),
        "confidence": intent.confidence,
    })
}

/// Resolves when the process is told to end, by SIGTERM or SIGINT. From the call on neither ends it.
///
/// # Errors
/// The operating system does not pass them on.
pub fn told_to_end() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    })
}
