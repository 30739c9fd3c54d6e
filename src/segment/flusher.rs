//! The segment flusher: turns full hot buffers into published segments, and lets go of the logs
//! that they cover.
//!
//! In this order, each step durable before the next: the segment's file, the MANIFEST that lists
//! it, and only then the removal of logs. Whatever a crash leaves in between is either still
//! covered by a log or already by a listed segment.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use tala_core::{SegmentId, StopCause, TalaError};

use super::{HotBuffer, Manifest, write_segment};
use crate::{
    actor::{Actor, Flow},
    disk::{LogSyncs, StoreDir},
    entry::Embeddings,
    files::DirLock,
    ids::{FileNumber, SeqNo},
    metrics::{Instruments, Timing, record_stage},
    sync::{Inbox, Mutex, Reply, is_broken, now_ns},
    trace,
};

/// What the flusher is asked for.
pub enum FlushLetter {
    /// Publish a segment of this buffer.
    Seal {
        /// What the segment holds.
        buffer: HotBuffer,
        /// The last sequence number that the segment covers.
        last_seq: SeqNo,
        /// The last log file that the segment covers.
        log: FileNumber,
        /// Answered when the segment is published.
        reply: Option<Reply<()>>,
    },
    /// Answer when everything sealed before is published.
    After(Reply<()>),
    /// Write down that the log ended with this sequence number, durably.
    LogClosed(SeqNo),
    /// Finish.
    Close,
}

/// Where segments are published.
pub trait SegmentStore: Send + 'static {
    /// Publishes a segment, durably, and lets go of the logs that it covers. Returns the bytes of
    /// the segment; 0 where the buffer had nothing to say and none was needed.
    ///
    /// # Errors
    /// The operating system refused, or a limit of the format is exceeded.
    fn publish(
        &mut self,
        buffer: &HotBuffer,
        last_seq: SeqNo,
        log: FileNumber,
    ) -> Result<u64, TalaError>;

    /// Writes down that the log ended in good order, with a mark of this sequence number.
    ///
    /// # Errors
    /// The operating system refused.
    fn log_closed(&mut self, last_seq: SeqNo) -> Result<(), TalaError>;
}

/// The actor.
pub struct FlushActor<S> {
    store: S,
    metrics: Arc<Instruments>,
}

impl<S: SegmentStore> FlushActor<S> {
    /// A flusher into `store`.
    pub fn new(store: S, metrics: Arc<Instruments>) -> Self {
        Self { store, metrics }
    }
}

impl<S: SegmentStore> Actor for FlushActor<S> {
    const NAME: &'static str = "tala-flush";
    type Letter = FlushLetter;

    fn step(
        &mut self,
        letter: FlushLetter,
        _inbox: &Inbox<FlushLetter>,
    ) -> Result<Flow, StopCause> {
        match letter {
            FlushLetter::Seal { buffer, last_seq, log, mut reply } => {
                if is_broken("an answer before the segment") {
                    reply.take().into_iter().for_each(|reply| reply.send(()));
                }
                let _flushing = trace::flushing(last_seq.0);
                let since_ns = now_ns();
                let bytes =
                    self.store.publish(&buffer, last_seq, log).map_err(StopCause::Failed)?;
                self.metrics.backlog().flushed();
                if bytes > 0 {
                    let metrics = &self.metrics;
                    let took_ns = record_stage(
                        &metrics.segment_flush_ns,
                        &metrics.segment_flush_count,
                        since_ns,
                        1,
                    );
                    metrics.record(Timing::Flush, took_ns);
                    trace::flushed(bytes);
                    metrics.total_bytes_flushed.fetch_add(bytes, Relaxed);
                    metrics.segments_flushed_count.fetch_add(1, Relaxed);
                }
                if let Some(reply) = reply {
                    reply.send(());
                }
                Ok(Flow::Continue)
            }
            FlushLetter::After(reply) => {
                reply.send(());
                Ok(Flow::Continue)
            }
            FlushLetter::LogClosed(last_seq) => {
                self.store.log_closed(last_seq).map_err(StopCause::Failed)?;
                Ok(Flow::Continue)
            }
            FlushLetter::Close => Ok(Flow::Stop),
        }
    }
}

/// Lets go of a log that segments cover. One that stays is listed no more, and the next open removes
/// it.
pub type RetireLog = Box<dyn Fn(FileNumber) + Send>;

/// Segments as files of a directory.
pub struct DiskSegments<E> {
    dir: StoreDir,
    /// All that this room knows of logs.
    retire_log: RetireLog,
    /// Of the log, whose writer is not to wait for a segment.
    syncs: LogSyncs,
    /// The MANIFEST as last published; others only look at it.
    manifest: Arc<Mutex<Manifest>>,
    embeddings: Arc<E>,
    /// The directory stays locked while a segment may still be written.
    _lock: Arc<DirLock>,
}

impl<E: Embeddings> DiskSegments<E> {
    /// Segments in `dir`, as `manifest` lists them.
    pub fn new(
        dir: StoreDir,
        (retire_log, syncs): (RetireLog, LogSyncs),
        manifest: Arc<Mutex<Manifest>>,
        embeddings: Arc<E>,
        lock: Arc<DirLock>,
    ) -> Self {
        Self { dir, retire_log, syncs, manifest, embeddings, _lock: lock }
    }
}

impl<E: Embeddings> SegmentStore for DiskSegments<E> {
    fn publish(
        &mut self,
        buffer: &HotBuffer,
        last_seq: SeqNo,
        log: FileNumber,
    ) -> Result<u64, TalaError> {
        let mut manifest = self.manifest.lock().clone();
        let bytes = if buffer.says_nothing() {
            0
        } else {
            let covers = (manifest.covered_seq().next(), last_seq);
            let entry = write_segment(
                &self.dir,
                buffer,
                manifest.next_segment,
                covers,
                epoch_ns(),
                &*self.embeddings,
                &self.syncs,
            )?;
            manifest.next_segment = SegmentId(entry.id.0 + 1);
            manifest.segments.push(entry);
            entry.bytes
        };
        let retired = manifest.retire_logs(log, last_seq);
        if is_broken("logs removed before the manifest") {
            retired.iter().cloned().for_each(&self.retire_log);
        }
        manifest.synced_seq = manifest.synced_seq.max(last_seq);
        manifest.publish(&self.dir)?;
        *self.manifest.lock() = manifest;
        retired.into_iter().for_each(&self.retire_log);
        Ok(bytes)
    }

    fn log_closed(&mut self, last_seq: SeqNo) -> Result<(), TalaError> {
        let mut manifest = self.manifest.lock().clone();
        manifest.synced_seq = manifest.synced_seq.max(last_seq);
        manifest.publish(&self.dir)?;
        *self.manifest.lock() = manifest;
        Ok(())
    }
}

/// Now, in nanoseconds since the epoch; 0 before it.
pub(crate) fn epoch_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
