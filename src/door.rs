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
    if all_finite(embedding) {
        return Ok(());
    }
    match embedding.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        None => Ok(()),
        Some((index, value)) => Err(TalaError::InvalidInput {
            field: "embedding",
            reason: format!("component {index} is {value}"),
        }),
    }
}

/// Whether no component is NaN or infinite. Works in blocks without an early exit inside, which
/// compilers turn into vector code: every insert and every query comes by here.
fn all_finite(embedding: &[f32]) -> bool {
    embedding
        .chunks(64)
        .all(|block| block.iter().fold(true, |finite, value| finite & value.is_finite()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_component_that_is_not_finite_is_named_wherever_it_stands() {
        for len in [1, 63, 64, 65, 200] {
            let mut embedding = vec![f32::MAX; len];
            assert!(check_embedding(&embedding, len).is_ok());
            for index in (0..len).rev() {
                embedding[index] = if index % 2 == 0 { f32::NAN } else { f32::NEG_INFINITY };
                let error = check_embedding(&embedding, len).unwrap_err();
                let reason = format!("component {index} is {}", embedding[index]);
                assert!(
                    matches!(&error, TalaError::InvalidInput { reason: got, .. } if *got == reason),
                    "{error}"
                );
            }
        }
    }
}
