//! The facade for tasks: calls as futures of no particular runtime.
//!
//! Each does nothing before it is first polled, waits at the same gates as its blocking twin, and
//! sends the same one letter. So dropping one is safe at any point: before the letter nothing has
//! happened, and after it the letter has all that it needs.
//!
//! They stand in line at the gates, as threads do. One whose turn has come and that is neither polled
//! again nor dropped keeps everyone behind it waiting, threads as well.
//!
//! Wakers are called on the engine's threads, so a task that is polled right there must not make a
//! call that waits for the engine, such as `insert` or `flush`.

use std::{future::Future, sync::Arc};

use tala_core::{Intent, IntentId, Outcome, TalaError};

use super::{Inner, StorageEngine};
use crate::{
    gate::GateClosed,
    ids::RowId,
    metrics::Timing,
    sync::{Answer, now_ns},
    wal::{LogOp, PreparedOp, Request, WalLetter},
};

impl StorageEngine {
    /// `insert` as a future of no particular runtime. It does nothing before it is first polled.
    /// Dropping it is safe: the intent is then stored whole or not at all. It holds a handle of
    /// the engine.
    ///
    /// Its waker is called on one of the engine's threads, so a task that is polled right there
    /// must not make a call that waits for the engine, such as `insert` or `flush`.
    ///
    /// Once polled it stands in line with all other writers. So keep polling it or drop it: while it
    /// is woken and left alone, whoever stands behind it waits, blocking callers among them.
    pub fn insert_async(
        &self,
        intent: Intent,
    ) -> impl Future<Output = Result<IntentId, TalaError>> + Send + 'static + use<> {
        let engine = self.clone();
        async move {
            let inner = engine.inner()?;
            inner.check_open()?;
            let since_ns = now_ns();
            let id = intent.id;
            let ops = vec![inner.prepare_insert(intent)?];
            inner.write_async(ops).await?;
            inner.view.metrics.record_since(Timing::Insert, since_ns);
            Ok(id)
        }
    }

    /// [`insert_batch`](StorageEngine::insert_batch) as a future, which may be dropped like one of
    /// [`insert_async`](StorageEngine::insert_async): the batch is then stored whole or not at all.
    /// The first poll encodes the batch, some microseconds an intent; a runtime that is held up by
    /// that wants smaller batches.
    pub fn insert_batch_async(
        &self,
        intents: Vec<Intent>,
    ) -> impl Future<Output = Result<Vec<IntentId>, TalaError>> + Send + 'static + use<> {
        let engine = self.clone();
        async move {
            let inner = engine.inner()?;
            inner.check_open()?;
            let ids: Vec<IntentId> = intents.iter().map(|intent| intent.id).collect();
            if ids.is_empty() {
                return Ok(ids);
            }
            let since_ns = now_ns();
            let ops = inner.prepare_batch(intents)?;
            inner.write_async(ops).await?;
            inner.view.metrics.record_since(Timing::Insert, since_ns);
            Ok(ids)
        }
    }

    /// `attach_outcome` as a future, which may be dropped like one of
    /// [`insert_async`](StorageEngine::insert_async): the outcome is then attached or not.
    pub fn attach_outcome_async(
        &self,
        id: IntentId,
        outcome: Outcome,
    ) -> impl Future<Output = Result<(), TalaError>> + Send + 'static + use<> {
        let engine = self.clone();
        async move {
            let applies =
                engine.inner()?.write_change_async(LogOp::Outcome { id, outcome }).await?;
            if applies { Ok(()) } else { Err(TalaError::NodeNotFound(id)) }
        }
    }

    /// [`remove`](StorageEngine::remove) as a future, which may be dropped like one of
    /// [`insert_async`](StorageEngine::insert_async): the intent is then removed or not.
    pub fn remove_async(
        &self,
        id: IntentId,
    ) -> impl Future<Output = Result<bool, TalaError>> + Send + 'static + use<> {
        let engine = self.clone();
        async move { engine.inner()?.write_change_async(LogOp::Removal { id }).await }
    }

    /// [`sync`](StorageEngine::sync) as a future. Dropping it takes nothing back.
    pub fn sync_async(
        &self,
    ) -> impl Future<Output = Result<(), TalaError>> + Send + 'static + use<> {
        let engine = self.clone();
        async move { engine.inner()?.ask_wal_async(WalLetter::Sync).await }
    }

    /// [`flush`](StorageEngine::flush) as a future. Dropping it takes nothing back.
    pub fn flush_async(
        &self,
    ) -> impl Future<Output = Result<(), TalaError>> + Send + 'static + use<> {
        let engine = self.clone();
        async move { engine.inner()?.ask_wal_async(WalLetter::Flush).await }
    }

    /// [`wait_indexed`](StorageEngine::wait_indexed) as a future: it is done when the graph holds
    /// every intent that was acknowledged before it was first polled.
    pub fn wait_indexed_async(
        &self,
    ) -> impl Future<Output = Result<(), TalaError>> + Send + 'static + use<> {
        let engine = self.clone();
        async move {
            let inner = engine.inner()?;
            inner.check_open()?;
            let row = RowId(inner.view.index.arena.len());
            match inner.gates.waits.pass_async(1).await {
                Ok(room) => inner.answered(inner.ask_linked(row, room)).await,
                Err(GateClosed) => Err(inner.fate.cause_async().await),
            }
        }
    }
}

impl Inner {
    /// Writes inserts, waiting for room and for the commit as a task.
    async fn write_async(self: &Arc<Self>, ops: Vec<PreparedOp>) -> Result<bool, TalaError> {
        match self.pass_async(&ops).await {
            Ok((room, lag)) => self.answered(self.send(ops, room, Some(lag))).await,
            Err(GateClosed) => Err(self.fate.cause_async().await),
        }
    }

    /// [`Inner::write_change`] for a task.
    async fn write_change_async(self: &Arc<Self>, op: LogOp) -> Result<bool, TalaError> {
        self.check_open()?;
        let op = self.prepare_change(op)?;
        match self.gates.requests.pass_async(1).await {
            Ok(room) => self.answered(self.send(vec![op], [Some(room), None], None)).await,
            Err(GateClosed) => Err(self.fate.cause_async().await),
        }
    }

    /// [`Inner::ask_wal`] for a task.
    async fn ask_wal_async(
        self: &Arc<Self>,
        letter: impl FnOnce(Request) -> WalLetter,
    ) -> Result<(), TalaError> {
        self.check_open()?;
        match self.gates.requests.pass_async(1).await {
            Ok(room) => self.answered(self.send_request(letter, room)).await,
            Err(GateClosed) => Err(self.fate.cause_async().await),
        }
    }

    /// The answer, or why there is none.
    async fn answered<T>(&self, answer: Answer<T>) -> Result<T, TalaError> {
        match answer.wait_async().await {
            Some(answer) => Ok(answer),
            None => Err(self.fate.cause_async().await),
        }
    }
}
