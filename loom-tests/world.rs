//! An engine of the production rooms on a model's disk: the log's writer, the publisher, the view,
//! and a flusher where there are segments. Rows stay unlinked, since no builder runs.

use std::sync::Arc;

use tala_core::{Intent, IntentId, Outcome, Status, StopCause, TalaError, TimeRange};
use tala_store::{
    Durability, HotBuffer,
    rooms::{
        Actor, Actors, Arena, ArenaWriter, BatchPlace, CommitSink, Contents, Cut, Encoded, Fate,
        Feed, FileNumber, Flow, FlushActor, Gate, Graph, GraphParams, GraphWriter, IndexActor,
        IndexLetter, IndexMap, Instruments, IntentMap, LockRank, Log, LogOp, Permit, PreparedOp,
        Publisher, Query, Request, RowId, SeqNo, Shared, Staged, TrackedMutex, View, WalActor,
        WalLetter, WriteRequest, search, spawn,
        sync::{
            Answer, Inbox, Patience, Reply, Spin,
            atomic::{AtomicU32, AtomicU64, Ordering},
            awake_mailbox, mailbox, one_shot,
        },
    },
};

use crate::disk::{Flaw, ModelLog, ModelSegments, SharedDisk};

/// How graphs are built.
pub const PARAMS: GraphParams = GraphParams { m: 2, ef_construction: 2, seed: 1 };

/// The `number`-th intent of a model; its time is its number.
pub fn intent(number: u8) -> Intent {
    Intent {
        id: id(number),
        timestamp: number.into(),
        raw_command: String::new(),
        embedding: vec![1.0, f32::from(number)],
        context_hash: 0,
        parent_ids: Vec::new(),
        outcome: None,
        confidence: 1.0,
    }
}

/// Its id.
pub fn id(number: u8) -> IntentId {
    IntentId::from_bytes([0xA0 + number; 16])
}

/// An outcome whose parts tell that they belong together.
pub fn outcome(number: u8) -> Outcome {
    Outcome {
        status: Status::Success,
        latency_ns: u64::from_le_bytes([number; 8]),
        exit_code: number.into(),
    }
}

/// What the index of an engine consists of, without a builder.
pub fn new_index(metrics: &Arc<Instruments>) -> (Arc<Shared>, GraphWriter, ArenaWriter) {
    new_slow_index(metrics, 1_000)
}

/// [`new_index`], where at most so many rows may wait for the builder.
pub fn new_slow_index(
    metrics: &Arc<Instruments>,
    lag_max: usize,
) -> (Arc<Shared>, GraphWriter, ArenaWriter) {
    let (arena, arena_writer) = Arena::new(2);
    let graph_writer = GraphWriter::new(Arc::clone(&arena), PARAMS);
    let graph: Arc<Graph> = Arc::clone(graph_writer.graph());
    let shared = Shared {
        arena,
        graph,
        linked: AtomicU32::new(0),
        visible: AtomicU64::new(0),
        wake_at: AtomicU64::new(u64::MAX),
        hnsw_lock: TrackedMutex::new((), metrics, LockRank::Hnsw),
        lag: Gate::new(lag_max),
        metrics: Arc::clone(metrics),
    };
    (Arc::new(shared), graph_writer, arena_writer)
}

/// Who links rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Builder {
    /// Nobody: all rows stay in the tail.
    None,
    /// The production builder.
    Sound,
    /// The same, until it fails after so many steps.
    FailsAfter(u32),
}

/// How a world differs from another.
pub struct Setup {
    /// Intents that make the hot buffer full.
    pub hot_capacity: usize,
    /// Whether there are segments.
    pub has_flusher: bool,
    /// What the log or the segments do wrong.
    pub flaw: Flaw,
    /// What the sink of the log's writer does wrong.
    pub sink: SinkFlaw,
    /// Whether the log's writer goes on after a failure.
    pub is_stubborn: bool,
    /// Who links rows.
    pub builder: Builder,
    /// Rows that may wait for the builder.
    pub lag_max: usize,
    /// Full buffers that may wait for the flusher.
    pub seals_max: usize,
    /// Whether the log's writer and its callers stay awake for a moment before they sleep, as they
    /// may in an engine. It makes models large.
    pub is_awake: bool,
    /// Whether those who follow the writes are told of the end.
    pub is_followed: bool,
}

impl Setup {
    /// A world where nothing goes wrong and nothing is flushed.
    pub fn sound() -> Self {
        Self {
            hot_capacity: 8,
            has_flusher: false,
            flaw: Flaw::None,
            sink: SinkFlaw::None,
            is_stubborn: false,
            builder: Builder::None,
            lag_max: 1_000,
            seals_max: 1,
            is_awake: false,
            is_followed: false,
        }
    }
}

/// An engine without its facade, with a flusher and an index builder where the setup asks for them. It
/// ends as an engine does, closed or dropped.
pub struct World {
    pub view: Arc<View>,
    pub fate: Arc<Fate>,
    pub disk: Arc<SharedDisk>,
    spin: Option<Spin>,
    actors: Actors,
    has_builder: bool,
    _no_builder: Option<Inbox<IndexLetter>>,
}

impl World {
    pub fn new(setup: &Setup) -> Self {
        Self::with_slow_segments(setup, None)
    }

    /// A world whose threads have come to where they wait for letters, when it is made quietly: a model
    /// that begins there has a fraction of the executions, and how threads begin is part of others.
    pub fn settled(setup: &Setup) -> Self {
        let world = Self::new(setup);
        // This waits for the log's writer, which was started last, and meanwhile every thread goes as
        // far as it can.
        world.sync().expect("no thread has failed yet");
        world
    }

    /// A world where a word in `words` has to be there for each segment.
    pub fn with_slow_segments(setup: &Setup, words: Option<Inbox<()>>) -> Self {
        let metrics = Arc::new(Instruments::default());
        let disk = Arc::new(SharedDisk::default());
        let (view, graph_writer, arena_writer) =
            new_view(&metrics, setup.hot_capacity, setup.lag_max);
        let arena = Arc::clone(&view.index.arena);
        let mut fate = Fate::new(vec![Arc::clone(&view.index.lag)]);
        if setup.is_followed {
            let feed = Arc::clone(&view.feed);
            fate = fate.on_end(move || feed.end());
        }
        let fate = Arc::new(fate);
        let (index_outbox, inbox) = mailbox(1);
        let builder = IndexActor::new(Arc::clone(&view.index), graph_writer, 1, setup.lag_max);
        let (mut index, mut no_builder) = (None, None);
        match setup.builder {
            Builder::None => no_builder = Some(inbox),
            Builder::Sound => {
                index = Some(spawn(builder, (index_outbox.clone(), inbox), &fate).unwrap());
            }
            Builder::FailsAfter(steps) => {
                let dying = Dying { actor: builder, steps };
                index = Some(spawn(dying, (index_outbox.clone(), inbox), &fate).unwrap());
            }
        }
        let (mut flusher, mut flush_outbox) = (None, None);
        if setup.has_flusher {
            let store = ModelSegments { disk: Arc::clone(&disk), arena, flaw: setup.flaw, words };
            let letters = mailbox(setup.seals_max);
            flush_outbox = Some(letters.0.clone());
            let actor = FlushActor::new(store, Arc::clone(&metrics));
            flusher = Some(spawn(actor, letters, &fate).unwrap());
        }
        let file = ModelLog::new(Arc::clone(&disk), setup.flaw);
        let log = Log {
            file: TrackedMutex::new(file, &metrics, LockRank::Wal),
            number: FileNumber(1),
            durability: Durability::Sync,
            bytes_max: u64::MAX,
            covered_bytes: 0,
            synced: SeqNo::ZERO,
            unsynced_since_ns: None,
        };
        let publisher = Publisher::new(Arc::clone(&view), arena_writer, index_outbox, flush_outbox);
        let sink = ModelSink { publisher, flaw: setup.sink };
        let wal = WalActor::new(Some(log), sink, SeqNo::FIRST, Arc::clone(&fate), metrics);
        let wal = if setup.is_stubborn {
            spawn(Stubborn(wal), mailbox(4), &fate).unwrap()
        } else {
            let letters = if setup.is_awake { awake_mailbox(4) } else { mailbox(4) };
            spawn(wal, letters, &fate).unwrap()
        };
        let spin = setup.is_awake.then(Spin::for_callers);
        let has_builder = index.is_some();
        let actors = Actors::without_files(wal, flusher, index);
        Self { view, fate, disk, spin, actors, has_builder, _no_builder: no_builder }
    }

    /// What `insert` does once it is let in.
    pub fn insert(&self, number: u8) -> Result<(), TalaError> {
        self.put(intent(number))
    }

    /// [`World::insert`] of any intent.
    pub fn put(&self, intent: Intent) -> Result<(), TalaError> {
        let encoded = Encoded::insert(&intent, BatchPlace::SINGLE)?;
        let lag = if self.has_builder {
            Some(self.view.index.lag.pass(1).map_err(|_| self.fate.cause())?)
        } else {
            None
        };
        self.write(LogOp::Insert(intent), encoded, lag)
    }

    /// What `attach_outcome` does once it is let in.
    pub fn attach(&self, id: IntentId, outcome: Outcome) -> Result<(), TalaError> {
        let encoded = Encoded::outcome(id, outcome, BatchPlace::SINGLE)?;
        self.write(LogOp::Outcome { id, outcome }, encoded, None)
    }

    fn ask(&self, op: LogOp, encoded: Encoded, lag: Option<Permit>) -> Answer<bool> {
        let op = PreparedOp { op, encoded: Some(encoded) };
        let (reply, answer) = one_shot();
        let request = WriteRequest { ops: vec![op], room: [None, None], lag, sent_ns: 0, reply };
        self.actors.send_wal(WalLetter::Write(request));
        answer
    }

    fn write(&self, op: LogOp, encoded: Encoded, lag: Option<Permit>) -> Result<(), TalaError> {
        let answer = self.ask(op, encoded, lag);
        let answer = match &self.spin {
            Some(spin) => answer.wait_awake(spin),
            None => answer.wait(),
        };
        answer.map(drop).ok_or_else(|| self.fate.cause())
    }

    /// What `insert_async` does once it is let in, up to where it waits.
    pub fn send_insert(&self, number: u8) -> Answer<bool> {
        let intent = intent(number);
        let encoded = Encoded::insert(&intent, BatchPlace::SINGLE).unwrap();
        self.ask(LogOp::Insert(intent), encoded, None)
    }

    /// What it does from there on.
    pub fn answered(&self, answer: Answer<bool>) -> Result<(), TalaError> {
        answer.wait().map(drop).ok_or_else(|| self.fate.cause())
    }

    /// What a caller of `insert_async` leaves behind that is dropped before it is answered.
    pub fn insert_and_leave(&self, number: u8) {
        drop(self.send_insert(number));
    }

    /// What `close` does once it has raised its flag.
    pub fn close(&self) {
        self.actors.close(true, &self.fate).expect("no thread failed");
    }

    /// The first step of a close alone.
    pub fn close_log(&self) {
        self.actors.close_log();
    }

    /// What `wait_indexed` does.
    pub fn wait_indexed(&self) -> Result<(), TalaError> {
        let (reply, answer) = one_shot();
        let row = RowId(self.view.index.arena.len());
        let room = Gate::new(1).pass(1).map_err(|_| self.fate.cause())?;
        self.actors.send_index(IndexLetter::WaitLinked { row, room, reply });
        answer.wait().ok_or_else(|| self.fate.cause())
    }

    /// What `sync` does once it is let in.
    fn sync(&self) -> Result<(), TalaError> {
        let (reply, answer) = one_shot();
        self.actors.send_wal(WalLetter::Sync(Request { room: None, reply }));
        answer.wait().ok_or_else(|| self.fate.cause())
    }

    /// What `flush` does once it is let in.
    pub fn flush(&self) -> Result<(), TalaError> {
        let (reply, answer) = one_shot();
        self.actors.send_wal(WalLetter::Flush(Request { room: None, reply }));
        answer.wait().ok_or_else(|| self.fate.cause())
    }

    /// The ids that a search finds now.
    pub fn search(&self) -> Vec<IntentId> {
        find(&self.view, &[1.0, 0.0]).iter().map(|hit| hit.0).collect()
    }

    /// The ids that the time index has now, by time.
    pub fn range(&self) -> Vec<IntentId> {
        self.view.range(EVER).iter().map(|intent| intent.id).collect()
    }

    /// Whether `get` finds this intent now.
    pub fn has(&self, number: u8) -> bool {
        self.view.get(&id(number)).is_some()
    }

    /// Where the record of this intent is in the log, if a crash would leave it there.
    pub fn durable_place(&self, number: u8) -> Option<usize> {
        self.disk.lock().durable_place(&id(number))
    }

    /// The sequence number of an intent that is there.
    pub fn seq(&self, number: u8) -> u64 {
        self.view.intents.read().get(&id(number)).expect("it is there").body.seq.0
    }

    /// The last sequence number that readers see.
    pub fn visible(&self) -> u64 {
        self.view.index.visible.load(Ordering::Acquire)
    }
}

/// All of a model's time.
pub const EVER: TimeRange = TimeRange { start: 0, end: 1_000 };

/// What a search near `vector` finds now: everything, nearest first.
pub fn find(view: &View, vector: &[f32]) -> Vec<(IntentId, f32)> {
    let query = Query { vector, k: 8, ef: 8, exact_below: 100 };
    search(&view.index.graph, query, view.index.view()).hits
}

/// What readers of an empty engine read, and those who write to it.
pub fn new_view(
    metrics: &Arc<Instruments>,
    hot_capacity: usize,
    lag_max: usize,
) -> (Arc<View>, GraphWriter, ArenaWriter) {
    let (shared, graph_writer, arena_writer) = new_slow_index(metrics, lag_max);
    let contents = Contents {
        intents: IntentMap::default(),
        index_map: IndexMap::default(),
        hot: HotBuffer::new(2, hot_capacity),
    };
    let feed = Arc::new(Feed::new(4, 1 << 20));
    let view = Arc::new(View::new(2, shared, contents, feed, Arc::clone(metrics)));
    (view, graph_writer, arena_writer)
}

/// What a sink does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SinkFlaw {
    /// Nothing.
    None,
    /// Does not wait for the segments on their way.
    ForgetsSeals,
    /// Has no room for rows.
    RefusesRows,
    /// Loses the right to answer a flush without giving it up.
    LeaksReplies,
    /// Seals buffers that have nothing to say.
    SealsNothing,
}

/// The production sink, or one that does not keep its word.
struct ModelSink {
    publisher: Publisher,
    flaw: SinkFlaw,
}

impl CommitSink for ModelSink {
    fn contains(&self, id: &IntentId) -> bool {
        self.publisher.contains(id)
    }

    fn publish(&mut self, staged: &mut Vec<Staged>) -> Result<(), StopCause> {
        if self.flaw == SinkFlaw::RefusesRows && !staged.is_empty() {
            let error = TalaError::TooLarge { what: "number of rows", got: 1, max: 0 };
            return Err(StopCause::Failed(error));
        }
        self.publisher.publish(staged)
    }

    fn is_full(&self) -> bool {
        self.publisher.is_full()
    }

    fn says_nothing(&self) -> bool {
        self.flaw != SinkFlaw::SealsNothing && self.publisher.says_nothing()
    }

    fn seal(&mut self, cut: Cut, reply: Option<Reply<()>>) {
        if self.flaw == SinkFlaw::LeaksReplies {
            std::mem::forget(reply);
            self.publisher.seal(cut, None);
        } else {
            self.publisher.seal(cut, reply);
        }
    }

    fn log_closed(&mut self, last_seq: SeqNo) {
        self.publisher.log_closed(last_seq);
    }

    fn after_seals(&mut self, reply: Reply<()>) {
        if self.flaw == SinkFlaw::ForgetsSeals {
            reply.send(());
        } else {
            self.publisher.after_seals(reply);
        }
    }

    fn discard(&mut self) {
        self.publisher.discard();
    }
}

/// A builder that fails.
struct Dying {
    actor: IndexActor,
    /// Steps before that.
    steps: u32,
}

impl Dying {
    fn live_on(&mut self) -> Result<(), StopCause> {
        let no_room = || TalaError::TooLarge { what: "number of rows", got: 1, max: 0 };
        self.steps = self.steps.checked_sub(1).ok_or_else(|| StopCause::Failed(no_room()))?;
        Ok(())
    }
}

impl Actor for Dying {
    const NAME: &'static str = IndexActor::NAME;
    type Letter = IndexLetter;

    fn step(&mut self, letter: IndexLetter, inbox: &Inbox<IndexLetter>) -> Result<Flow, StopCause> {
        self.live_on()?;
        self.actor.step(letter, inbox)
    }

    fn patience(&self) -> Patience {
        self.actor.patience()
    }

    fn work(&mut self) -> Result<(), StopCause> {
        self.live_on()?;
        self.actor.work()
    }
}

/// An actor that takes a failure for something that passes.
struct Stubborn<A>(A);

impl<A: Actor> Actor for Stubborn<A> {
    const NAME: &'static str = A::NAME;
    type Letter = A::Letter;

    fn step(&mut self, letter: A::Letter, inbox: &Inbox<A::Letter>) -> Result<Flow, StopCause> {
        Ok(self.0.step(letter, inbox).unwrap_or(Flow::Continue))
    }

    fn patience(&self) -> Patience {
        self.0.patience()
    }

    fn work(&mut self) -> Result<(), StopCause> {
        self.0.work()
    }

    fn finish(&mut self) -> Result<(), StopCause> {
        self.0.finish()
    }
}
