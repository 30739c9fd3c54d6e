//! A disk in memory that remembers what a power cut would leave, and fails when it is told to.

// Each test program uses a part of this room.
#![allow(dead_code)]

mod volume;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    fs::TryLockError,
    io::{self, ErrorKind},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tala_store::rooms::{Disk, DiskFile, EntryKind, Mapping, RoomAhead};

pub use self::volume::{Change, Entry, Lost, Op, Volume};

/// What is asked of a disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Create,
    Open,
    OpenDir,
    MakeDir,
    Rename,
    Remove,
    List,
    Look,
    Read,
    Map,
    Write,
    SetLen,
    Sync,
    SyncDir,
    DropCached,
    Lock,
    Unlock,
}

/// How an operation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// With this error of the operating system, and nothing done.
    Errno(i32),
    /// A write puts down half of its bytes and says so; it is what follows that fails with this.
    Short(i32),
    /// A write puts down half of its bytes and says so; what follows goes well.
    ShortOnly,
    /// A sync fails with EIO, and the pages are gone.
    Sync(Lost),
}

/// EIO.
pub const EIO: i32 = 5;
/// EINTR.
pub const EINTR: i32 = 4;
/// EACCES.
pub const EACCES: i32 = 13;
/// EMFILE.
pub const EMFILE: i32 = 24;
/// ENOSPC.
pub const ENOSPC: i32 = 28;
/// Links that lead round in a circle.
pub const ELOOP: i32 = 40;
/// Memory does not hold it.
pub const ENOMEM: i32 = 12;

/// When a fault happens.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// At the operation with this number, from 0; or, where it is for one kind, at the first of that
    /// kind from there on, of a file whose name ends so: threads do not always come in the same order.
    at: usize,
    only: Option<(Kind, &'static str)>,
    /// How many of that kind go well before.
    skipped: usize,
    fault: Fault,
    /// Whether every later operation of its kind fails as well.
    lasts: bool,
}

/// What has happened, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The disk was changed.
    Op(Op),
    /// The user of the store came to a new point of what it does.
    Mark(Mark),
}

/// A point of what the user of a store does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// The step with this number begins.
    Begun(usize),
    /// It was acknowledged.
    Done(usize),
}

struct State {
    volume: Volume,
    /// Who holds the lock of a file: a handle alone, or several.
    locks: BTreeMap<usize, (bool, Vec<u64>)>,
    handles: u64,
    events: Vec<Event>,
    /// Kinds and paths of all that was asked for, in order.
    asked: Vec<(Kind, PathBuf)>,
    /// What the disk was to begin to write of some file, in order.
    begun: Vec<Range<u64>>,
    plan: Option<Plan>,
    /// Operations of this kind are said to be done and are not.
    forgotten: Option<Kind>,
    /// The numbers of the operations that failed.
    failed: Vec<usize>,
    watcher: Option<Watcher>,
}

/// Called with what is asked for.
type Watcher = Arc<dyn Fn(Kind, &Path) + Send + Sync>;

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("volume", &self.volume).finish_non_exhaustive()
    }
}

/// A disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

impl SimDisk {
    /// A disk with an empty directory `/`.
    pub fn new() -> Self {
        Self::of(Volume::new(RoomAhead::USUAL))
    }

    /// The same, on which logs are prepared as soon as there is anything in them, and reused: the
    /// room that they get on other disks is more than small stores ever ask for.
    pub fn with_prepared_logs() -> Self {
        Self::of(Volume::new(RoomAhead {
            from_bytes: 200,
            step_bytes: 256,
            first_bytes: 512,
            largest_bytes: 1_024,
        }))
    }

    /// A disk of this medium, just switched on.
    pub fn of(volume: Volume) -> Self {
        let state = State {
            volume,
            locks: BTreeMap::new(),
            handles: 0,
            events: Vec::new(),
            asked: Vec::new(),
            begun: Vec::new(),
            plan: None,
            forgotten: None,
            failed: Vec::new(),
            watcher: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the operation number `at`, counted from 0 and from now, fail; and, if it `lasts`, every
    /// later one of its kind until [`heal`](Self::heal).
    pub fn fail(&self, at: usize, fault: Fault, lasts: bool) {
        let mut state = self.state();
        let at = state.asked.len() + at;
        state.plan = Some(Plan { at, only: None, skipped: 0, fault, lasts });
        state.failed.clear();
    }

    /// Has the operation of this kind fail that has this number among them, from 0 and from now; and, if
    /// it `lasts`, every later one.
    pub fn fail_nth(&self, kind: Kind, number: usize, fault: Fault, lasts: bool) {
        let mut state = self.state();
        let (at, only) = (state.asked.len(), Some((kind, "")));
        state.plan = Some(Plan { at, only, skipped: number, fault, lasts });
        state.failed.clear();
    }

    /// Has the first operation of this kind fail of a file whose name ends so.
    pub fn fail_first_of(&self, kind: Kind, name_end: &'static str, fault: Fault) {
        let mut state = self.state();
        let (at, only) = (state.asked.len(), Some((kind, name_end)));
        state.plan = Some(Plan { at, only, skipped: 0, fault, lasts: false });
        state.failed.clear();
    }

    /// Has the first write fail that is not before operation number `at`, counted from 0 and from now.
    pub fn fail_write(&self, at: usize, fault: Fault) {
        let mut state = self.state();
        let at = state.asked.len() + at;
        let only = Some((Kind::Write, ""));
        state.plan = Some(Plan { at, only, skipped: 0, fault, lasts: false });
        state.failed.clear();
    }

    /// Has the next opening fail of a file whose name ends so.
    pub fn fail_open_of(&self, name_end: &'static str, errno: i32) {
        let mut state = self.state();
        let (at, fault) = (state.asked.len(), Fault::Errno(errno));
        let only = Some((Kind::Open, name_end));
        state.plan = Some(Plan { at, only, skipped: 0, fault, lasts: false });
        state.failed.clear();
    }

    /// Has the next sync fail of a file whose name ends so.
    pub fn fail_sync_of(&self, name_end: &'static str) {
        let mut state = self.state();
        let at = state.asked.len();
        let only = Some((Kind::Sync, name_end));
        let fault = Fault::Errno(EIO);
        state.plan = Some(Plan { at, only, skipped: 0, fault, lasts: false });
        state.failed.clear();
    }

    /// From now on says that operations of this kind are done, and does not do them: to see that what is
    /// built upon this disk notices where one is missing.
    pub fn forget(&self, kind: Kind) {
        self.state().forgotten = Some(kind);
    }

    /// Has `watcher` called before each write, sync and removal, on the thread that asks for it. It may
    /// keep that thread waiting.
    pub fn watch(&self, watcher: impl Fn(Kind, &Path) + Send + Sync + 'static) {
        self.state().watcher = Some(Arc::new(watcher));
    }

    fn tell(&self, kind: Kind, path: &Path) {
        let watcher = self.state().watcher.clone();
        if let Some(watcher) = watcher {
            watcher(kind, path);
        }
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.state().plan = None;
    }

    /// What failed, in order.
    pub fn failed(&self) -> Vec<(Kind, PathBuf)> {
        let state = self.state();
        state.failed.iter().map(|at| state.asked[*at].clone()).collect()
    }

    /// What was asked for so far.
    pub fn asked(&self) -> Vec<(Kind, PathBuf)> {
        self.state().asked.clone()
    }

    /// What was asked for last of a file whose name ends so.
    pub fn last_asked_of(&self, name_end: &str) -> Option<Kind> {
        let state = self.state();
        let is_meant = |path: &Path| path.to_string_lossy().ends_with(name_end);
        state.asked.iter().rev().find(|(_, path)| is_meant(path)).map(|(kind, _)| *kind)
    }

    /// How many files whose name ended so got another one.
    pub fn renamed_count(&self, name_end: &str) -> usize {
        let state = self.state();
        let is_meant = |event: &&Event| match event {
            Event::Op(Op::Rename(from, _)) => from.to_string_lossy().ends_with(name_end),
            _ => false,
        };
        state.events.iter().filter(is_meant).count()
    }

    /// Writes down that a step has begun or is done.
    pub fn mark(&self, mark: Mark) {
        self.state().events.push(Event::Mark(mark));
    }

    /// What the disk was to begin to write, of whichever file, in order.
    pub fn begun(&self) -> Vec<Range<u64>> {
        self.state().begun.clone()
    }

    /// What has happened so far.
    pub fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }

    /// The medium as it is now.
    pub fn volume(&self) -> Volume {
        self.state().volume.clone()
    }

    /// Puts a file there, durably.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let dir = path.parent().unwrap().to_owned();
        let missing: Vec<PathBuf> = dir
            .ancestors()
            .take_while(|dir| state.volume.entry(dir).is_none())
            .map(Path::to_owned)
            .collect();
        for dir in missing.into_iter().rev() {
            state.volume.apply(&Op::MakeDir(dir.clone()));
            state.volume.apply(&Op::SyncDir(dir.parent().unwrap().to_owned()));
        }
        state.volume.apply(&Op::Create(path.to_owned()));
        let Some(Entry::File(file)) = state.volume.entry(path) else { unreachable!() };
        let change = Change::Write { offset: 0, bytes: bytes.to_vec() };
        for op in [Op::Change(file, change), Op::Sync(file), Op::SyncDir(dir)] {
            state.volume.apply(&op);
        }
    }

    /// Removes a directory with all that is in it.
    pub fn remove_dir(&self, path: &Path) {
        self.state().apply(Op::RemoveDir(path.to_owned()));
    }

    /// The bytes of a file as programs see them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        match state.volume.entry(path)? {
            Entry::File(file) => Some(state.volume.bytes(file).to_vec()),
            Entry::Dir => None,
        }
    }

    fn handle(&self, state: &mut State, path: &Path, target: Entry) -> Box<dyn DiskFile> {
        state.handles += 1;
        Box::new(Handle {
            disk: self.clone(),
            path: path.to_owned(),
            target,
            number: state.handles,
        })
    }
}

impl State {
    fn apply(&mut self, op: Op) {
        self.volume.apply(&op);
        self.events.push(Event::Op(op));
    }

    fn apply_unless_forgotten(&mut self, kind: Kind, op: Op) {
        if self.forgotten != Some(kind) {
            self.apply(op);
        }
    }

    /// Takes down what is asked for. `Some` is how it is to fail.
    fn ask(&mut self, kind: Kind, path: &Path) -> Option<Fault> {
        let number = self.asked.len();
        self.asked.push((kind, path.to_owned()));
        let plan = self.plan?;
        let first = self.failed.first().copied();
        let again = plan.lasts && first.is_some_and(|first| self.asked[first].0 == kind);
        // What follows a write in part is the rest of it, which meets the error.
        let rest = matches!(plan.fault, Fault::Short(_))
            && kind == Kind::Write
            && self.failed.len() == 1
            && first.is_some_and(|first| self.asked[first].1 == path);
        let is_due = match plan.only {
            None => number == plan.at,
            Some((only, name_end)) => {
                let is_meant = only == kind && path.to_string_lossy().ends_with(name_end);
                let counts = number >= plan.at && is_meant && self.failed.is_empty();
                if counts && plan.skipped > 0 {
                    self.plan = Some(Plan { skipped: plan.skipped - 1, ..plan });
                }
                counts && plan.skipped == 0
            }
        };
        let fault = match plan.fault {
            fault if is_due => fault,
            Fault::Short(errno) if rest || again => Fault::Errno(errno),
            fault if again => fault,
            _ => return None,
        };
        self.failed.push(number);
        Some(fault)
    }

    /// As [`State::ask`], for what either is done or not.
    fn ask_simple(&mut self, kind: Kind, path: &Path) -> io::Result<()> {
        match self.ask(kind, path) {
            None | Some(Fault::ShortOnly) => Ok(()),
            Some(Fault::Errno(errno) | Fault::Short(errno)) => {
                Err(io::Error::from_raw_os_error(errno))
            }
            Some(Fault::Sync(_)) => Err(io::Error::from_raw_os_error(EIO)),
        }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.volume.entry(path) {
            Some(Entry::File(file)) => Ok(file),
            Some(Entry::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent().and_then(|dir| self.volume.entry(dir)) {
            Some(Entry::Dir) => Ok(()),
            Some(Entry::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn create(&mut self, path: &Path) -> io::Result<usize> {
        self.check_parent(path)?;
        if self.volume.entry(path).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.apply(Op::Create(path.to_owned()));
        self.file(path)
    }
}

impl Disk for SimDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = &mut *self.state();
        state.ask_simple(Kind::Create, path)?;
        let file = state.create(path)?;
        Ok(self.handle(state, path, Entry::File(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = &mut *self.state();
        state.ask_simple(Kind::Open, path)?;
        let file = state.file(path)?;
        Ok(self.handle(state, path, Entry::File(file)))
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = &mut *self.state();
        state.ask_simple(Kind::Create, path)?;
        let file = match state.file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => state.create(path)?,
            found => found?,
        };
        Ok(self.handle(state, path, Entry::File(file)))
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = &mut *self.state();
        state.ask_simple(Kind::OpenDir, path)?;
        match state.volume.entry(path) {
            Some(Entry::Dir) => Ok(self.handle(state, path, Entry::Dir)),
            Some(Entry::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.state();
        state.ask_simple(Kind::MakeDir, path)?;
        state.check_parent(path)?;
        if state.volume.entry(path).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.apply(Op::MakeDir(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.state();
        state.ask_simple(Kind::Rename, to)?;
        state.file(from)?;
        state.check_parent(to)?;
        assert_eq!(from.parent(), to.parent(), "a rename stays in its directory");
        if state.volume.entry(to) == Some(Entry::Dir) {
            return Err(ErrorKind::IsADirectory.into());
        }
        state.apply(Op::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.tell(Kind::Remove, path);
        let state = &mut *self.state();
        state.ask_simple(Kind::Remove, path)?;
        state.file(path)?;
        state.apply(Op::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let state = &mut *self.state();
        state.ask_simple(Kind::List, path)?;
        match state.volume.entry(path) {
            Some(Entry::Dir) => {
                let names = state.volume.names(path);
                Ok(names.filter_map(|path| path.file_name()).map(OsString::from).collect())
            }
            Some(Entry::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn kind(&self, path: &Path) -> io::Result<EntryKind> {
        let state = &mut *self.state();
        state.ask_simple(Kind::Look, path)?;
        match state.volume.entry(path) {
            Some(Entry::Dir) => Ok(EntryKind::Dir),
            Some(Entry::File(_)) => Ok(EntryKind::File),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn room_ahead(&self) -> RoomAhead {
        self.state().volume.room_ahead()
    }
}

/// An open file or directory.
#[derive(Debug)]
struct Handle {
    disk: SimDisk,
    path: PathBuf,
    target: Entry,
    number: u64,
}

impl Handle {
    /// What it is called now: renaming a file that is open is nothing to who has it.
    fn name(&self, state: &State) -> PathBuf {
        let name = self.file().ok().and_then(|file| state.volume.name_of(file));
        name.unwrap_or(&self.path).to_owned()
    }

    fn ask(&self, state: &mut State, kind: Kind) -> Option<Fault> {
        let name = self.name(state);
        state.ask(kind, &name)
    }

    fn ask_simple(&self, state: &mut State, kind: Kind) -> io::Result<()> {
        let name = self.name(state);
        state.ask_simple(kind, &name)
    }

    fn tell(&self, kind: Kind) {
        let name = self.name(&self.disk.state());
        self.disk.tell(kind, &name);
    }

    fn file(&self) -> io::Result<usize> {
        match self.target {
            Entry::File(file) => Ok(file),
            Entry::Dir => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn read(&self, kind: Kind) -> io::Result<Vec<u8>> {
        let state = &mut *self.disk.state();
        self.ask_simple(state, kind)?;
        Ok(state.volume.bytes(self.file()?).to_vec())
    }

    fn sync(&self) -> io::Result<()> {
        let kind = if self.target == Entry::Dir { Kind::SyncDir } else { Kind::Sync };
        self.tell(kind);
        let state = &mut *self.disk.state();
        match self.target {
            Entry::Dir => {
                self.ask_simple(state, Kind::SyncDir)?;
                state.apply_unless_forgotten(Kind::SyncDir, Op::SyncDir(self.path.clone()));
            }
            Entry::File(file) => match self.ask(state, Kind::Sync) {
                None | Some(Fault::ShortOnly) => {
                    state.apply_unless_forgotten(Kind::Sync, Op::Sync(file));
                }
                Some(Fault::Sync(lost)) => {
                    state.apply(Op::FailedSync(file, lost));
                    return Err(io::Error::from_raw_os_error(EIO));
                }
                Some(Fault::Errno(errno) | Fault::Short(errno)) => {
                    return Err(io::Error::from_raw_os_error(errno));
                }
            },
        }
        Ok(())
    }

    fn lock(&self, alone: bool) -> Result<(), TryLockError> {
        let state = &mut *self.disk.state();
        self.ask_simple(state, Kind::Lock).map_err(TryLockError::Error)?;
        let file = self.file().map_err(TryLockError::Error)?;
        let (held_alone, holders) = state.locks.entry(file).or_default();
        if !holders.is_empty() && (alone || *held_alone) {
            return Err(TryLockError::WouldBlock);
        }
        *held_alone = alone;
        holders.push(self.number);
        Ok(())
    }
}

impl DiskFile for Handle {
    fn byte_len(&self) -> io::Result<u64> {
        let state = &mut *self.disk.state();
        self.ask_simple(state, Kind::Look)?;
        Ok(state.volume.bytes(self.file()?).len() as u64)
    }

    fn read_whole(&self) -> io::Result<Vec<u8>> {
        self.read(Kind::Read)
    }

    fn map(&self) -> io::Result<Mapping> {
        self.read(Kind::Map).map(Mapping::Copied)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.tell(Kind::Write);
        let state = &mut *self.disk.state();
        let written = match self.ask(state, Kind::Write) {
            Some(Fault::Errno(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Sync(_)) => return Err(io::Error::from_raw_os_error(EIO)),
            Some(Fault::Short(_) | Fault::ShortOnly) => &bytes[..bytes.len().div_ceil(2)],
            None => bytes,
        };
        let offset = usize::try_from(offset).unwrap();
        let change = Change::Write { offset, bytes: written.to_vec() };
        state.apply(Op::Change(self.file()?, change));
        Ok(written.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let state = &mut *self.disk.state();
        self.ask_simple(state, Kind::SetLen)?;
        let change = Change::SetLen(usize::try_from(len).unwrap());
        state.apply(Op::Change(self.file()?, change));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    /// What survives a cut does not depend on it.
    fn begin_write_back(&self, offset: u64, len: u64) {
        self.disk.state().begun.push(offset..offset + len);
    }

    fn drop_cached(&self) -> io::Result<()> {
        let state = &mut *self.disk.state();
        self.ask_simple(state, Kind::DropCached)?;
        state.apply_unless_forgotten(Kind::DropCached, Op::DropCached(self.file()?));
        Ok(())
    }

    fn try_lock(&self) -> Result<(), TryLockError> {
        self.lock(true)
    }

    fn try_lock_shared(&self) -> Result<(), TryLockError> {
        self.lock(false)
    }

    fn unlock(&self) -> io::Result<()> {
        let state = &mut *self.disk.state();
        self.ask_simple(state, Kind::Unlock)?;
        state.release(self.target, self.number);
        Ok(())
    }
}

impl State {
    fn release(&mut self, target: Entry, handle: u64) {
        if let Entry::File(file) = target
            && let Some((_, holders)) = self.locks.get_mut(&file)
        {
            holders.retain(|holder| *holder != handle);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.state().release(self.target, self.number);
    }
}
