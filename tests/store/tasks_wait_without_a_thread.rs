//! The engine's futures belong to no runtime, hold up none, and may be dropped at any point.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use crate::common::{DIM, Model, Random, TestDir, id, intent, outcome, version};
use crate::slow_disk::SlowDisk;
use tala_core::{Intent, IntentStore, TalaError};
use tala_store::StorageEngine;

/// An executor in its barest form: one future, one thread, a channel that wakes it.
fn bare<F: Future>(future: F) -> F::Output {
    struct Bell(mpsc::Sender<()>);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }
    let (sender, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(Bell(sender)));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        woken.recv_timeout(Duration::from_secs(60)).expect("a future was not woken");
    }
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn multi_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_time().build().unwrap()
}

/// Every call once, with what it promises.
async fn every_call(engine: StorageEngine) -> Model {
    let mut model = Model::default();
    for number in 0..5 {
        assert_eq!(engine.insert_async(intent(number)).await.unwrap(), id(number));
        model.insert(intent(number));
    }
    let batch: Vec<_> = (3..40).map(|number| version(number, 1)).collect();
    let ids = engine.insert_batch_async(batch.clone()).await.unwrap();
    assert_eq!(ids, (3..40).map(id).collect::<Vec<_>>());
    batch.into_iter().for_each(|intent| model.insert(intent));
    assert!(engine.insert_batch_async(Vec::new()).await.unwrap().is_empty());

    engine.attach_outcome_async(id(1), outcome(1)).await.unwrap();
    model.attach(id(1), outcome(1));
    let missing = engine.attach_outcome_async(id(99), outcome(1)).await.unwrap_err();
    assert!(matches!(missing, TalaError::NodeNotFound(missing) if missing == id(99)));
    assert!(engine.remove_async(id(2)).await.unwrap());
    assert!(!engine.remove_async(id(2)).await.unwrap());
    model.remove(id(2));

    engine.sync_async().await.unwrap();
    engine.flush_async().await.unwrap();
    assert_eq!((engine.stats().segments, engine.stats().hot_len), (1, 0));
    engine.wait_indexed_async().await.unwrap();
    assert_eq!((engine.stats().linked, engine.index_lag()), (engine.stats().rows, 0));

    let mut bad = intent(5);
    bad.embedding.pop();
    let refused = engine.insert_batch_async(vec![intent(50), bad]).await.unwrap_err();
    assert!(matches!(refused, TalaError::InBatch { position: 1, .. }));
    model
}

#[test]
fn every_call_is_a_future_of_any_runtime() {
    let runtimes: [(&str, &dyn Fn(StorageEngine) -> Model); 4] = [
        ("tokio, one thread", &|engine| current_thread().block_on(every_call(engine))),
        ("tokio, three threads", &|engine| {
            let runtime = multi_thread();
            runtime.block_on(runtime.spawn(every_call(engine))).unwrap()
        }),
        ("pollster", &|engine| pollster::block_on(every_call(engine))),
        ("bare", &|engine| bare(every_call(engine))),
    ];
    for (name, run) in runtimes {
        let dir = TestDir::new();
        let engine = StorageEngine::open(DIM, dir.path(), 1_000).unwrap();
        let model = run(engine.clone());
        model.check(&engine);
        engine.close().unwrap();
        model.check(&StorageEngine::open(DIM, dir.path(), 1_000).unwrap());
        println!("{name}: right");
    }
}

#[test]
fn waiting_for_the_index_waits_for_it() {
    const WIDE: usize = 128;
    // Linking is made slow, so that it is not over by the time of the call.
    let engine = StorageEngine::options(WIDE).m(64).ef_construction(1_000).in_memory().unwrap();
    let mut random = Random::new(1);
    let rows: Vec<_> = (0..600)
        .map(|number| Intent { embedding: random.vector(WIDE), ..intent(number) })
        .collect();
    current_thread().block_on(async {
        engine.insert_batch_async(rows).await.unwrap();
        assert!(engine.index_lag() > 0, "the index is too fast for this test");
        engine.wait_indexed_async().await.unwrap();
        assert_eq!(engine.index_lag(), 0);
    });
}

/// What any number of tasks do on an engine that has room for two.
fn crowd(runtime: &tokio::runtime::Runtime) {
    const TASKS: u64 = 60;
    const EACH: u64 = 10;
    let dir = TestDir::new();
    let engine = StorageEngine::options(DIM)
        .mailbox_capacity(2)
        .mailbox_bytes_max(1)
        .index_lag_max(7)
        .open(dir.path())
        .unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let engine = engine.clone();
            runtime.spawn(async move {
                for number in (task * EACH..(task + 1) * EACH).step_by(2) {
                    engine.insert_async(intent(number)).await?;
                    engine.insert_batch_async(vec![intent(number + 1)]).await?;
                    engine.attach_outcome_async(id(number), outcome(number)).await?;
                    engine.wait_indexed_async().await?;
                }
                engine.sync_async().await
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap().unwrap();
    }
    let found: Vec<_> = (0..TASKS * EACH).map(|number| engine.get(id(number)).unwrap()).collect();
    for (number, found) in (0..).zip(found) {
        let expected = (number % 2 == 0).then(|| outcome(number));
        assert_eq!(found.unwrap().outcome, expected);
    }
    assert_eq!((engine.queue_depth(), engine.queue_bytes(), engine.index_lag()), (0, 0, 0));
}

#[test]
fn tasks_in_a_crowd_are_all_served() {
    crowd(&current_thread());
    crowd(&multi_thread());
}

#[test]
fn a_disk_that_hangs_holds_up_no_other_task() {
    let disk = SlowDisk::default();
    let dir = TestDir::new();
    let options = StorageEngine::options(DIM).disk(Arc::new(disk.clone()));
    let engine = options.mailbox_capacity(4).open(dir.path()).unwrap();
    engine.insert(intent(0)).unwrap();
    let held = disk.hold();
    let runtime = current_thread();
    let is_over = Arc::new(AtomicBool::new(false));
    // One thread for all of them: were it held up, nobody could let the disk go on.
    let tasks: Vec<_> = (1..40)
        .map(|number| {
            let (engine, is_over) = (engine.clone(), Arc::clone(&is_over));
            runtime.spawn(async move {
                match number % 4 {
                    0 => drop(engine.insert_async(intent(number)).await?),
                    1 => drop(engine.insert_batch_async(vec![intent(number); 2]).await?),
                    2 => engine.attach_outcome_async(id(0), outcome(number)).await?,
                    _ => engine.flush_async().await?,
                }
                assert!(is_over.load(Ordering::SeqCst), "answered before it was durable");
                Ok::<(), TalaError>(())
            })
        })
        .collect();
    runtime.block_on(async {
        // Reads and the index go on, and so does the clock of the runtime.
        while engine.queue_depth() < 4 {
            tokio::task::yield_now().await;
        }
        assert_eq!(engine.get(id(0)).unwrap().unwrap().id, id(0));
        engine.wait_indexed_async().await.unwrap();
        let late = tokio::time::timeout(Duration::from_millis(20), engine.sync_async()).await;
        assert!(late.is_err(), "nothing can be durable now");
        assert!(tasks.iter().all(|task| !task.is_finished()));
        is_over.store(true, Ordering::SeqCst);
        drop(held);
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    });
    engine.close().unwrap();
    let engine = StorageEngine::open(DIM, dir.path(), 1_000).unwrap();
    for number in (1..40).filter(|number| number % 4 < 2) {
        assert!(engine.get(id(number)).unwrap().is_some(), "{number} is gone");
    }
}

type Call = Pin<Box<dyn Future<Output = Result<(), TalaError>> + Send>>;

/// Kinds of futures.
const KINDS: u64 = 6;

/// Future number `number`, of every kind in turn, and the ids that are there together or not at all.
fn call(engine: &StorageEngine, number: u64) -> (Call, Vec<u64>) {
    let ids: Vec<u64> = (1_000 * number..1_000 * number + 5).collect();
    let batch = ids.iter().map(|number| intent(*number)).collect();
    let one = intent(ids[0]);
    let engine = engine.clone();
    match number % KINDS {
        0 => (Box::pin(async move { engine.insert_batch_async(batch).await.map(drop) }), ids),
        1 => (Box::pin(async move { engine.insert_async(one).await.map(drop) }), vec![ids[0]]),
        2 => (Box::pin(engine.attach_outcome_async(id(0), outcome(number))), Vec::new()),
        3 => (Box::pin(engine.sync_async()), Vec::new()),
        4 => (Box::pin(engine.flush_async()), Vec::new()),
        _ => (Box::pin(engine.wait_indexed_async()), Vec::new()),
    }
}

#[test]
fn a_future_that_is_dropped_leaves_all_or_nothing_and_takes_no_room_along() {
    const CALLS: u64 = 120;
    let disk = SlowDisk::default();
    let dir = TestDir::new();
    let options = StorageEngine::options(DIM).disk(Arc::new(disk.clone()));
    // Room for some of them, so that some are dropped at the gates and some on their way.
    let engine = options.mailbox_capacity(20).open(dir.path()).unwrap();
    engine.insert(intent(0)).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let mut groups = Vec::new();
    let mut kept = Vec::new();
    let held = disk.hold();
    for number in 1..=CALLS {
        let (mut call, ids) = call(&engine, number);
        groups.push(ids);
        // Never polled, polled once, polled again; in the last third, kept until the disk goes on.
        // Each kind meets each of them: while it was the number alone that decided, no batch was
        // ever polled.
        let mut polls = 0..number / KINDS % 3;
        // What waits for the index may have nothing to wait for, and must not be polled again then.
        let is_done = polls.any(|_| call.as_mut().poll(&mut context).is_ready());
        if !is_done && number > CALLS * 2 / 3 {
            kept.push(call);
        }
    }
    assert_eq!(engine.queue_depth(), 20, "the mailbox should be full");
    drop(held);
    // Half of them are seen to their end, the others are dropped on their way to it. It goes by their
    // order at the gates: what is let in next waits for a poll, and all behind it wait with it.
    for (number, mut call) in kept.into_iter().enumerate() {
        while call.as_mut().poll(&mut context).is_pending() && number % 2 == 0 {
            std::thread::yield_now();
        }
    }
    engine.sync().unwrap();
    let check = |engine: &StorageEngine| -> Vec<bool> {
        let is_there = |number: &u64| engine.get(id(*number)).unwrap().is_some();
        let wholes = groups.iter().filter(|ids| !ids.is_empty()).map(|ids| {
            let count = ids.iter().filter(|number| is_there(number)).count();
            assert!(count == 0 || count == ids.len(), "{count} of {ids:?}");
            count > 0
        });
        wholes.collect()
    };
    let before = check(&engine);
    assert!(before.contains(&true) && before.contains(&false));
    // Nothing of those futures holds a place.
    for number in 0..100 {
        assert!(engine.try_insert(intent(1_000_000 + number)).is_ok(), "room was taken along");
    }
    assert_eq!((engine.queue_depth(), engine.queue_bytes()), (0, 0));
    engine.close().unwrap();
    assert_eq!(check(&StorageEngine::open(DIM, dir.path(), 1_000).unwrap()), before);
}

#[test]
fn tasks_that_wait_are_answered_when_the_engine_ends() {
    let disk = SlowDisk::default();
    let dir = TestDir::new();
    let options = StorageEngine::options(DIM).disk(Arc::new(disk.clone()));
    let engine = options.mailbox_capacity(3).open(dir.path()).unwrap();
    let runtime = multi_thread();
    let held = disk.hold();
    let tasks: Vec<_> = (1..60).map(|number| runtime.spawn(call(&engine, number).0)).collect();
    while engine.queue_depth() < 3 {
        std::thread::yield_now();
    }
    let closing = {
        let engine = engine.clone();
        std::thread::spawn(move || engine.close())
    };
    // Writes that were let in are finished; the others are told.
    while !matches!(engine.health(), tala_store::Health::Closed) {
        std::thread::yield_now();
    }
    drop(held);
    closing.join().unwrap().unwrap();
    let mut refused = 0;
    for task in tasks {
        if let Err(error) = runtime.block_on(task).unwrap() {
            assert!(error.is_closed() || matches!(error, TalaError::NodeNotFound(_)), "{error}");
            refused += u32::from(error.is_closed());
        }
    }
    assert!(refused > 0, "nobody was waiting at the gates");
}
