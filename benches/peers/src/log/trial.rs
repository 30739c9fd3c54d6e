//! One measurement: a new directory, a new process, warm-up, run, close, and a second process that
//! opens the store again and looks for what was acknowledged.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    contest::{Contestant, Kind, ROCKSDB},
    rocksdb,
    store::{Closed, Level, Opening, Ran, Reopened, Request, Until},
};
use crate::{Failure, scratch::Scratch, worker::Worker};

/// Removed when dropped, whatever came in between.
struct Fresh(PathBuf);

impl Fresh {
    /// A directory that does not exist yet, after the disk has got rid of the last one.
    fn below(scratch: &Scratch) -> Result<Self, Failure> {
        scratch.settle()?;
        Ok(Self(scratch.path().join("store")))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // A contestant that failed may not have made it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Threads that insert.
    pub clients: u32,
    /// Before the clock starts.
    pub warm_up_seconds: f64,
    /// Measured.
    pub seconds: f64,
    /// Records in each insert.
    pub batch: usize,
    /// Where the time to settle counts, inserts end after so many records if not before.
    pub settled_records: u64,
}

/// What a measurement gave.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Records a second; with the time to settle where that counts.
    pub per_second: f64,
    /// The run.
    pub ran: Ran,
    /// What closing took, where it was measured.
    pub close_seconds: f64,
    /// Blocks on the disk after closing, by record that was acknowledged.
    pub bytes_per_record: f64,
    /// Acknowledged records that were looked for after opening again.
    pub checked: u64,
    /// Of those, the ones that were not there.
    pub missing: u64,
    /// What has to be said about it.
    pub remark: Option<&'static str>,
}

/// Measures inserts.
///
/// # Errors
/// The contestant is missing, or failed.
pub fn inserts(contestant: &Contestant, plan: Plan, scratch: &Scratch) -> Result<Outcome, Failure> {
    let dir = Fresh::below(scratch)?;
    if contestant.family() == ROCKSDB {
        return inserts_of_rocksdb(contestant, plan, &dir.0);
    }
    let Plan { clients, warm_up_seconds, seconds, batch, .. } = plan;
    let settle = contestant.settle;
    let run = |seconds, records_max: u64| {
        let records = settle.then_some(records_max);
        Request::Run { clients, until: Until { seconds: Some(seconds), records }, batch, settle }
    };
    let mut worker = Worker::of_this_program("log", contestant.family())?;
    let () = worker.ask(&Request::Open { dir: dir.0.clone(), opening: contestant.opening })?;
    let _: Ran = worker.ask(&run(warm_up_seconds, plan.settled_records / 10))?;
    let ran: Ran = worker.ask(&run(seconds, plan.settled_records))?;
    let closed: Closed = worker.ask(&Request::Close)?;
    drop(worker);
    let acknowledged: u64 = closed.acknowledged.iter().sum();
    let bytes_per_record = allocated_bytes(&dir.0)? as f64 / acknowledged as f64;
    let (checked, missing) = match contestant.kind {
        Kind::Bound => (0, 0),
        _ => {
            let reopened = reopen(contestant, &dir.0, contestant.opening, closed.acknowledged)?;
            (reopened.checked, reopened.missing)
        }
    };
    Ok(Outcome {
        per_second: ran.records as f64 / (ran.seconds + ran.settle_seconds),
        ran,
        close_seconds: closed.seconds,
        bytes_per_record,
        checked,
        missing,
        remark: None,
    })
}

fn inserts_of_rocksdb(contestant: &Contestant, plan: Plan, dir: &Path) -> Result<Outcome, Failure> {
    let durable = contestant.opening.level == Level::Durable;
    let report = rocksdb::insert(dir, plan.clients, plan.seconds, durable)?;
    let records = report.latency.count;
    Ok(Outcome {
        per_second: report.per_second,
        ran: Ran {
            records,
            seconds: records as f64 / report.per_second,
            settle_seconds: 0.0,
            lag: 0,
            latency: report.latency,
        },
        close_seconds: f64::NAN,
        bytes_per_record: allocated_bytes(dir)? as f64 / records as f64,
        checked: 0,
        missing: 0,
        remark: report.with_assertions.then_some(rocksdb::WITH_ASSERTIONS),
    })
}

/// What opening a store of a fixed size gave.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// From the call to the first key's value, in a new process.
    pub seconds: f64,
    /// Blocks on the disk, by record.
    pub bytes_per_record: f64,
    /// Records that were looked for.
    pub checked: u64,
    /// Of those, the ones that were not there.
    pub missing: u64,
}

/// How many records one insert of the load has.
const LOAD_BATCH: usize = 64;

/// Loads `records`, closes, and measures how long opening takes in a new process.
///
/// # Errors
/// The contestant is missing, or failed.
pub fn reopening(
    contestant: &Contestant,
    records: u64,
    scratch: &Scratch,
) -> Result<Opened, Failure> {
    let dir = Fresh::below(scratch)?;
    if contestant.family() == ROCKSDB {
        rocksdb::load(&dir.0, records)?;
        let bytes_per_record = allocated_bytes(&dir.0)? as f64 / records as f64;
        let seconds = rocksdb::reopen(&dir.0, records)?;
        let checked = records.min(2_000);
        let missing = rocksdb::missing(&dir.0, records, checked)?;
        return Ok(Opened { seconds, bytes_per_record, checked, missing });
    }
    let mut worker = Worker::of_this_program("log", contestant.family())?;
    let opening = Opening { index_before_use: false, ..contestant.opening };
    let () = worker.ask(&Request::Open { dir: dir.0.clone(), opening })?;
    let until = Until { seconds: None, records: Some(records) };
    let load = Request::Run { clients: 1, until, batch: LOAD_BATCH, settle: false };
    let _: Ran = worker.ask(&load)?;
    let closed: Closed = worker.ask(&Request::Close)?;
    drop(worker);
    let bytes_per_record = allocated_bytes(&dir.0)? as f64 / records as f64;
    let Reopened { seconds, checked, missing } =
        reopen(contestant, &dir.0, contestant.opening, closed.acknowledged)?;
    Ok(Opened { seconds, bytes_per_record, checked, missing })
}

fn reopen(
    contestant: &Contestant,
    dir: &Path,
    opening: Opening,
    acknowledged: Vec<u64>,
) -> Result<Reopened, Failure> {
    let mut worker = Worker::of_this_program("log", contestant.family())?;
    worker.ask(&Request::Reopen { dir: dir.to_owned(), opening, acknowledged })
}

/// Bytes of the blocks of every file below `dir`: as `du` counts, so that holes are not counted
/// and what is reserved is.
fn allocated_bytes(dir: &Path) -> Result<u64, Failure> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() {
            allocated_bytes(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_and_holes_are_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/file"), vec![1; 100_000]).unwrap();
        let hole = fs::File::create(dir.path().join("hole")).unwrap();
        hole.set_len(1 << 30).unwrap();
        hole.sync_all().unwrap();
        fs::File::open(dir.path().join("below/file")).unwrap().sync_all().unwrap();
        let bytes = allocated_bytes(dir.path()).unwrap();
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
    }
}
