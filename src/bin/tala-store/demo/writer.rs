//! The second process of the demo: inserts until it is killed, and reports every acknowledgement.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use tala_core::{IntentId, IntentStore};
use tala_store::StorageEngine;
use uuid::Uuid;

use super::{DIM, options, session};
use crate::failure::Failure;

/// So many threads insert at the same time.
pub(crate) const CALLERS: usize = 4;
/// If nobody kills it, the process ends by itself after so many inserts.
const INSERTS_MAX: u64 = 1_000_000;

/// Insert until killed, and print number and id of every acknowledged intent.
#[derive(clap::Args)]
pub(crate) struct Args {
    dir: PathBuf,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    // The callers below write to standard output themselves, line by line.
    out.flush()?;
    let session = session::intents(DIM)?;
    let engine = options().open(&args.dir)?;
    let next = AtomicU64::new(0);
    let insert_all = |engine: &StorageEngine| -> Result<(), Failure> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= INSERTS_MAX {
                return Ok(());
            }
            let id = engine.insert(session::numbered(&session, number))?;
            // One write for the whole line, so that a kill cannot cut it in two; it fails when the
            // reader has gone, and then there is nobody left to insert for.
            io::stdout().write_all(acknowledgement(number, id).as_bytes())?;
        }
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(|| insert_all(&engine))).collect();
        callers.into_iter().try_for_each(|caller| {
            caller.join().unwrap_or_else(|_| Err(Failure::Other("a caller panicked".to_owned())))
        })
    })?;
    engine.close()?;
    Ok(())
}

fn acknowledgement(number: u64, id: IntentId) -> String {
    format!("{number} {id}\n")
}

/// Number and id in one line of the pipe; `None` for a line that is no acknowledgement.
pub(crate) fn parse_acknowledgement(line: &str) -> Option<(u64, IntentId)> {
    let (number, id) = line.split_once(' ')?;
    Some((number.parse().ok()?, IntentId(Uuid::parse_str(id).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_read_as_written() {
        let id = IntentId::from_bytes([7; 16]);
        assert_eq!(parse_acknowledgement(acknowledgement(12, id).trim_end()), Some((12, id)));
        assert_eq!(parse_acknowledgement("12 0707"), None);
        assert_eq!(parse_acknowledgement(""), None);
    }
}
