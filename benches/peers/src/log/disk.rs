//! The disk's own limit: append and fdatasync, nothing else, to a file that grows and to one that
//! was filled with zeros before (whose length and blocks no sync has to write down).

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    Failure,
    stats::{Latencies, LatencySummary},
    worker,
};

/// How the worker of this module is called.
pub const NAME: &str = "disk";

/// Of the file that is filled with zeros; at its end, writing begins again at its start.
const ZEROS_BYTES: u64 = 256 << 20;

/// A request to the worker. Answered with a [`LatencySummary`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Appends {
    /// Made, and removed afterwards.
    pub file: PathBuf,
    /// In each append.
    pub bytes: usize,
    /// Whether the file has its length before.
    pub zero_filled: bool,
    /// How long.
    pub seconds: f64,
}

/// Answers the driver until it hangs up.
pub fn serve() -> Result<(), Failure> {
    worker::serve(|request: Appends| {
        let summary = append(&request);
        let removed = fs::remove_file(&request.file);
        let summary = summary?;
        removed?;
        Ok(summary)
    })
}

fn append(request: &Appends) -> Result<LatencySummary, Failure> {
    let file = File::create(&request.file)?;
    if request.zero_filled {
        let zeros = vec![0; 1 << 20];
        for offset in (0..ZEROS_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)?;
        }
    }
    file.sync_all()?;
    let bytes = vec![0xA5; request.bytes];
    let mut latencies = Latencies::new()?;
    let mut offset = 0;
    let deadline = Instant::now() + Duration::from_secs_f64(request.seconds);
    while Instant::now() < deadline {
        if request.zero_filled && offset + bytes.len() as u64 > ZEROS_BYTES {
            offset = 0;
        }
        let since = Instant::now();
        file.write_all_at(&bytes, offset)?;
        file.sync_data()?;
        latencies.record(since.elapsed());
        offset += bytes.len() as u64;
    }
    Ok(latencies.summary())
}
