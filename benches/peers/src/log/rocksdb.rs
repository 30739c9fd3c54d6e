//! RocksDB, through the `db_bench` that Debian's package `rocksdb-tools` installs: its own keys
//! and values of the same sizes, its own clock, no warm-up, no compression, all else as it comes
//! (`--sync=1` shares an fdatasync among its waiting threads; `--sync=0` leaves the log to the
//! kernel).

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use super::payload::{KEY_BYTES, RECORD_BYTES};
use crate::{Failure, stats::LatencySummary};

/// What is said when it is missing.
pub const MISSING: &str = "not installed: apt-get install rocksdb-tools";

const PROGRAM: &str = "db_bench";

/// What is said when it was compiled as Debian does.
pub const WITH_ASSERTIONS: &str =
    "this db_bench was compiled with assertions, and says that it is slower for that";

/// Its version and what is to be said about how it was compiled, if it is installed.
pub fn version() -> Option<String> {
    let output = Command::new(PROGRAM).arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().next()?.trim().replace("db_bench version", "RocksDB"))
}

/// What a run gave.
#[derive(Debug, PartialEq)]
pub struct Report {
    /// Inserts a second, by all threads.
    pub per_second: f64,
    /// Of one insert.
    pub latency: LatencySummary,
    /// Whether it was compiled with assertions, which slow it down.
    pub with_assertions: bool,
}

/// Inserts for `seconds` from `clients` threads into a new database in `dir`.
pub fn insert(dir: &Path, clients: u32, seconds: f64, durable: bool) -> Result<Report, Failure> {
    let mut command = command("fillrandom", dir, 100_000_000);
    command.args([
        format!("--threads={clients}"),
        format!("--duration={}", seconds.ceil().max(1.0)),
        "--ops_between_duration_checks=1".to_owned(),
        format!("--sync={}", u8::from(durable)),
        "--histogram=1".to_owned(),
    ]);
    parse(&run(command)?)
}

/// Loads `records` of different keys, buffered, one at a time.
pub fn load(dir: &Path, records: u64) -> Result<(), Failure> {
    let mut command = command("filluniquerandom", dir, records);
    command.arg("--sync=0");
    run(command).map(drop)
}

/// Opens what [`load`] made and reads one key: the seconds that the whole process took.
pub fn reopen(dir: &Path, records: u64) -> Result<f64, Failure> {
    let mut command = command("readrandom", dir, records);
    command.args(["--use_existing_db=1", "--reads=1"]);
    let since = Instant::now();
    run(command)?;
    Ok(since.elapsed().as_secs_f64())
}

/// Of `reads` keys of what [`load`] made, how many are not there.
pub fn missing(dir: &Path, records: u64, reads: u64) -> Result<u64, Failure> {
    let mut command = command("readrandom", dir, records);
    command.args(["--use_existing_db=1".to_owned(), format!("--reads={reads}")]);
    let output = run(command)?;
    let found = found(&output).ok_or("its count of found keys is not understood")?;
    Ok(reads.saturating_sub(found))
}

fn command(benchmark: &str, dir: &Path, records: u64) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args([
        format!("--benchmarks={benchmark}"),
        format!("--db={}", dir.display()),
        format!("--num={records}"),
        format!("--key_size={KEY_BYTES}"),
        format!("--value_size={}", RECORD_BYTES - KEY_BYTES),
        "--compression_type=none".to_owned(),
        "--disable_wal=0".to_owned(),
    ]);
    command
}

fn run(mut command: Command) -> Result<String, Failure> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{PROGRAM} failed ({}): {text}", output.status).into())
    }
}

/// Of "(1999 of 2000 found)" the first.
fn found(output: &str) -> Option<u64> {
    let (_, count) = output.split_once(" found)")?.0.rsplit_once('(')?;
    count.split_once(" of ")?.0.parse().ok()
}

fn parse(output: &str) -> Result<Report, Failure> {
    let after =
        |label: &str| output.split_once(label)?.1.split_whitespace().next()?.parse::<f64>().ok();
    let report = || {
        Some(Report {
            per_second: after(" micros/op ")?,
            latency: LatencySummary {
                count: after("\nCount: ")? as u64,
                p50_us: after(" P50: ")?,
                p99_us: after(" P99: ")?,
                p999_us: after(" P99.9: ")?,
                max_us: after(" Max: ")?,
            },
            with_assertions: output.contains("Assertions are enabled"),
        })
    };
    report().ok_or_else(|| format!("{PROGRAM} printed something else: {output}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Keys:       16 bytes each (+ 0 bytes user-defined timestamp)
Read rate: 0 ops/second
WARNING: Assertions are enabled; benchmarks unnecessarily slow
DB path: [/scratch/db]
fillrandom   :    3065.042 micros/op 1173 ops/sec 3.405 seconds 3996 operations;    1.8 MB/s
Microseconds per write:
Count: 3996 Average: 3074.0128  StdDev: 8542.28
Min: 125  Median: 523.1635  Max: 87533
Percentiles: P50: 523.16 P75: 819.93 P99: 49533.71 P99.9: 73651.35 P99.99: 87533.00
------------------------------------------------------
(     110,     170 ]      111   2.778%   2.778% #
";

    #[test]
    fn its_report_is_understood() {
        let latency = LatencySummary {
            count: 3_996,
            p50_us: 523.16,
            p99_us: 49_533.71,
            p999_us: 73_651.35,
            max_us: 87_533.0,
        };
        let expected = Report { per_second: 1_173.0, latency, with_assertions: true };
        assert_eq!(parse(OUTPUT).unwrap(), expected);
        assert_eq!(
            found("Keys: 16 (+ 0 bytes)\nreadrandom : 2 ops (1999 of 2000 found)"),
            Some(1_999)
        );
        assert!(parse("fillrandom : 1 micros/op 1173 ops/sec").is_err());
    }
}
