//! Writing much without making the log wait for long.
//!
//! A sync waits for whatever else the disk has been given, whoever it is from: behind the sixteen
//! megabytes of a segment, tens of milliseconds. So what is large is written a piece at a time, the
//! disk is asked to begin with each piece at once, and between two of them there is time for the syncs
//! of the log. Where the log is not being synced nobody rests.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::DiskFile;
use crate::sync::rest;

/// What is written at once: what a sync of the log may have to wait behind.
const PIECE_BYTES: usize = 256 << 10;
/// A rest is as long as so many syncs of the log.
const REST_SYNCS: u64 = 2;
/// And no longer than this: then the disk is so slow, or so busy, that it makes no difference.
const REST_MAX_NS: u64 = 4_000_000;

/// What is known of the syncs of a log, by its writer's account. Order is given by nothing here: an old
/// value makes a piece come earlier or later.
#[derive(Clone, Default, Debug)]
pub(crate) struct LogSyncs(Arc<Account>);

#[derive(Default, Debug)]
struct Account {
    begun: AtomicU64,
    ended: AtomicU64,
    /// How long one takes, averaged over the last few.
    took_ns: AtomicU64,
}

impl LogSyncs {
    /// Takes note that one begins. There is one writer of a log.
    pub(crate) fn begin(&self) {
        let begun = &self.0.begun;
        begun.store(begun.load(Relaxed) + 1, Relaxed);
    }

    /// Takes note that it took so long.
    pub(crate) fn end(&self, took_ns: u64) {
        let Account { begun, ended, took_ns: average } = &*self.0;
        let before = average.load(Relaxed);
        let after = if before == 0 { took_ns } else { before - before / 8 + took_ns / 8 };
        average.store(after, Relaxed);
        ended.store(begun.load(Relaxed), Relaxed);
    }
}

/// The rests of somebody who writes beside a log.
#[derive(Debug)]
pub(crate) struct Rests<'a> {
    syncs: &'a LogSyncs,
    seen: u64,
}

impl<'a> Rests<'a> {
    /// Of somebody who has written nothing yet.
    pub(crate) fn beside(syncs: &'a LogSyncs) -> Self {
        Self { syncs, seen: syncs.0.begun.load(Relaxed) }
    }

    /// How long to leave the disk to the log, after a piece; `None` where the log was not synced since
    /// the piece before, and is not being synced now.
    pub(crate) fn after_piece(&mut self) -> Option<Duration> {
        let Account { begun, ended, took_ns } = &*self.syncs.0;
        let before = std::mem::replace(&mut self.seen, begun.load(Relaxed));
        let is_quiet = self.seen == before && self.seen == ended.load(Relaxed);
        let rest_ns = took_ns.load(Relaxed).saturating_mul(REST_SYNCS).min(REST_MAX_NS);
        (!is_quiet).then(|| Duration::from_nanos(rest_ns))
    }
}

/// Writes all of `bytes` at the beginning of `file`, gently. Makes nothing durable.
///
/// # Errors
/// As [`DiskFile::write_all_at`].
pub(crate) fn write_gently(file: &dyn DiskFile, bytes: &[u8], syncs: &LogSyncs) -> io::Result<()> {
    let mut rests = Rests::beside(syncs);
    for (index, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
        let at = (index * PIECE_BYTES) as u64;
        file.write_all_at(piece, at)?;
        // Of the last one, the sync that comes next takes care.
        if piece.len() == PIECE_BYTES {
            file.begin_write_back(at, piece.len() as u64);
            rests.after_piece().into_iter().for_each(rest);
        }
    }
    Ok(())
}

/// Writes `len` zeros at `offset`, one piece at most; returns how many.
///
/// # Errors
/// As [`DiskFile::write_zeros`].
pub(crate) fn write_piece_of_zeros(file: &dyn DiskFile, offset: u64, len: u64) -> io::Result<u64> {
    let len = len.min(PIECE_BYTES as u64);
    file.write_zeros(offset, len)?;
    file.begin_write_back(offset, len);
    Ok(len)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::disk::{Disk, RealDisk};

    #[test]
    fn whoever_writes_beside_a_log_rests_while_it_is_synced_and_only_then() {
        let syncs = LogSyncs::default();
        let sync = |took_ns| {
            syncs.begin();
            syncs.end(took_ns);
        };
        sync(1_000);
        let mut rests = Rests::beside(&syncs);
        let two_syncs = Some(Duration::from_micros(2));
        assert_eq!(rests.after_piece(), None);
        sync(1_000);
        assert_eq!(rests.after_piece(), two_syncs);
        assert_eq!(rests.after_piece(), None);
        syncs.begin();
        assert_eq!(rests.after_piece(), two_syncs);
        assert_eq!(rests.after_piece(), two_syncs, "it waits, perhaps for this very piece");
        syncs.end(1_000);
        assert_eq!(rests.after_piece(), None);
        (0..64).for_each(|_| sync(u64::from(u32::MAX)));
        assert_eq!(rests.after_piece(), Some(Duration::from_nanos(REST_MAX_NS)));
    }

    #[test]
    fn all_of_it_is_written_whatever_the_length() {
        let dir = tempfile::tempdir().unwrap();
        let syncs = LogSyncs::default();
        for len in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 3] {
            let path = dir.path().join(len.to_string());
            let file = RealDisk.create_new(&path).unwrap();
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            write_gently(&*file, &bytes, &syncs).unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes, "{len}");
        }
    }
}
