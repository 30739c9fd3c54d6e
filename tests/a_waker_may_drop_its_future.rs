//! An executor that is being shut down drops a task when it is woken. The log's writer once woke
//! tasks while it held the lock of their answer, which dropping the future takes as well: the writer
//! waited for itself, and everyone for it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Wake, Waker},
    time::Duration,
};

use tala_core::{Intent, IntentId, IntentStore, TalaError};
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

fn intent(number: u8) -> Intent {
    Intent {
        id: IntentId::from_bytes([number; 16]),
        timestamp: 0,
        raw_command: String::new(),
        embedding: vec![1.0],
        context_hash: 0,
        parent_ids: Vec::new(),
        outcome: None,
        confidence: 1.0,
    }
}

#[test]
fn a_waker_may_drop_its_future() {
    let dir = tempfile::tempdir().unwrap();
    let engine = StorageEngine::open(1, dir.path(), 10).unwrap();
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
