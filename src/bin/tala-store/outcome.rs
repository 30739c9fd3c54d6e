//! `outcome`: attaches an outcome to an intent.

use std::{io::Write, path::PathBuf, time::Duration};

use clap::ValueEnum;
use tala_core::{IntentId, IntentStore, Outcome, Status, TalaError};
use uuid::Uuid;

use crate::{failure::Failure, get, open};

/// Attach an outcome to an intent, in place of one that it has.
///
/// Without --status the exit code says it: 0 is success, anything else is failure. On return the
/// outcome is on disk.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tala-store outcome ~/tala 1b357195-94df-4661-a629-9abda431fa46 --exit-code 2 --latency 1.5s
  tala-store outcome ~/tala 1b357195-94df-4661-a629-9abda431fa46 --status partial

Exit status: 0 attached; 1 not found or failed; 2 wrong usage.")]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["status", "exit_code"])))]
pub(crate) struct Args {
    /// Directory of the store.
    dir: PathBuf,
    /// Id of the intent, a UUID.
    id: Uuid,
    /// What came of it.
    #[arg(long)]
    status: Option<StatusArg>,
    /// The exit code; 0 where none is given.
    #[arg(long, allow_negative_numbers = true)]
    exit_code: Option<i32>,
    /// How long it took, such as 80ms or 2m10s.
    #[arg(long, default_value = "0s", value_parser = parse_latency)]
    latency: u64,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum StatusArg {
    Pending,
    Success,
    Failure,
    Partial,
}

/// Nanoseconds.
fn parse_latency(text: &str) -> Result<u64, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .and_then(|duration| u64::try_from(duration.as_nanos()).ok())
        .ok_or_else(|| "use a duration such as 80ms or 2m10s".to_owned())
}

impl Args {
    fn outcome(&self) -> Outcome {
        let status = match (self.status, self.exit_code) {
            (Some(StatusArg::Pending), _) | (None, None) => Status::Pending,
            (Some(StatusArg::Success), _) | (None, Some(0)) => Status::Success,
            (Some(StatusArg::Failure), _) | (None, Some(_)) => Status::Failure,
            (Some(StatusArg::Partial), _) => Status::Partial,
        };
        Outcome { status, latency_ns: self.latency, exit_code: self.exit_code.unwrap_or(0) }
    }
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let id = IntentId(args.id);
    let engine = open::existing(&args.dir)?;
    let attached = engine.attach_outcome(id, args.outcome());
    let intent = engine.get(id)?;
    engine.close()?;
    match attached {
        Err(TalaError::NodeNotFound(id)) => return Err(Failure::NotFound(id)),
        other => other?,
    }
    get::write(out, &intent.ok_or(Failure::NotFound(id))?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_a_duration_that_is_not_negative() {
        assert_eq!(parse_latency("80ms"), Ok(80_000_000));
        assert_eq!(parse_latency("2m10s"), Ok(130_000_000_000));
        for text in ["", "5", "-1s", "soon", "9999999999999h"] {
            assert!(parse_latency(text).is_err(), "{text}");
        }
    }
}
