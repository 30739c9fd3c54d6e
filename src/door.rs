//! What is refused at the door: input that no part of the engine behind it should have to meet.

use tala_core::{Intent, TalaError};

/// Checks an embedding against the dimension of the store.
///
/// # Errors
/// [`TalaError::DimensionMismatch`], or [`TalaError::InvalidInput`] where a component is NaN or
/// infinite.
pub(crate) fn check_embedding(embedding: &[f32], dim: usize) -> Result<(), TalaError> {
    if embedding.len() != dim {
        return Err(TalaError::DimensionMismatch { expected: dim, got: embedding.len() });
    }
    match embedding.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(TalaError::InvalidInput {
            field: "embedding",
            reason: format!("component {index} is {}", embedding[index]),
        }),
    }
}

/// Checks everything of an intent that has to be finite or of the right length.
///
/// # Errors
/// As for [`check_embedding`]; also where the confidence is NaN or infinite.
pub(crate) fn check_intent(intent: &Intent, dim: usize) -> Result<(), TalaError> {
    check_embedding(&intent.embedding, dim)?;
    if !intent.confidence.is_finite() {
        return Err(TalaError::InvalidInput {
            field: "confidence",
            reason: format!("it is {}", intent.confidence),
        });
    }
    Ok(())
}
