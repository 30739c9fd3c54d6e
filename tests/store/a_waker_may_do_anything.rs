//! What a waker may do on the thread that wakes it: anything that does not wait for the engine.
//!
//! An executor that is being shut down drops a task when it is woken. The log's writer once woke
//! tasks while it held the lock of their answer, which dropping the future takes as well: the writer
//! waited for itself, and everyone for it. It did so as well when a waker closed the engine.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Wake, Waker},
    time::Duration,
};

use crate::common::{DIM, intent};
use tala_core::{IntentId, IntentStore, TalaError};
use tala_store::StorageEngine;

type Insert = Pin<Box<dyn Future<Output = Result<IntentId, TalaError>> + Send>>;

/// Holds the future that it wakes, and drops it instead of polling it.
struct Dropper(Mutex<Option<Insert>>);

impl Wake for Dropper {
    fn wake(self: Arc<Self>) {
        let insert = self.0.lock().unwrap().take();
        drop(insert);
    }
}

/// Closes the engine when it is woken, on the thread that wakes it.
struct Closer(Mutex<Option<StorageEngine>>, mpsc::Sender<Result<(), TalaError>>);

impl Wake for Closer {
    fn wake(self: Arc<Self>) {
        if let Some(engine) = self.0.lock().unwrap().take() {
            // More often than the mailbox of the log's writer has room for.
            let closed = (0..8).try_for_each(|_| engine.close());
            let _ = self.1.send(closed);
        }
    }
}

#[test]
fn a_waker_may_close_the_engine_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = StorageEngine::options(DIM).mailbox_capacity(1).open(dir.path()).unwrap();
    let (sender, closed) = mpsc::channel();
    let closer = Arc::new(Closer(Mutex::new(None), sender));
    let waker = Waker::from(Arc::clone(&closer));
    let mut context = Context::from_waker(&waker);
    {
        // Held until a future waits, so that it is another thread that wakes it.
        let mut place = closer.0.lock().unwrap();
        let mut insert: Insert = Box::pin(engine.insert_async(intent(1)));
        while insert.as_mut().poll(&mut context).is_ready() {
            insert = Box::pin(engine.insert_async(intent(1)));
        }
        *place = Some(engine.clone());
    }
    closed.recv_timeout(Duration::from_secs(60)).expect("the writer waits for itself").unwrap();
    // Whoever closes it elsewhere waits for the end as ever.
    engine.close().unwrap();
    assert!(engine.insert(intent(2)).unwrap_err().is_closed());
    assert_eq!(StorageEngine::open(DIM, dir.path(), 10).unwrap().len(), 1);
}

#[test]
fn a_waker_may_drop_its_future() {
    let dir = tempfile::tempdir().unwrap();
    let engine = StorageEngine::open(DIM, dir.path(), 10).unwrap();
    let dropper = Arc::new(Dropper(Mutex::new(None)));
    let waker = Waker::from(Arc::clone(&dropper));
    {
        // Held until the future is in its place, so that the waker finds it there.
        let mut place = dropper.0.lock().unwrap();
        let mut insert: Insert = Box::pin(engine.insert_async(intent(1)));
        let _ = insert.as_mut().poll(&mut Context::from_waker(&waker));
        *place = Some(insert);
    }
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(engine.insert(intent(2)).map(|_| engine.len())));
    let len = receiver.recv_timeout(Duration::from_secs(60)).expect("the writer hangs");
    assert_eq!(len.unwrap(), 2);
}

/// Panics when it is woken.
struct Panicker(mpsc::Sender<()>);

impl Wake for Panicker {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
        panic!("a waker that panics, on purpose");
    }
}

#[test]
fn a_waker_may_panic() {
    let engine = StorageEngine::in_memory(DIM, 10);
    let (sender, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(Panicker(sender)));
    let mut context = Context::from_waker(&waker);
    let mut insert: Insert = Box::pin(engine.insert_async(intent(1)));
    while insert.as_mut().poll(&mut context).is_ready() {
        insert = Box::pin(engine.insert_async(intent(1)));
    }
    woken.recv_timeout(Duration::from_secs(60)).expect("nobody woke it");
    engine.insert(intent(2)).unwrap();
    assert_eq!(engine.len(), 2);
}
