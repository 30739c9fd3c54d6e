//! What is on a medium, twice: as programs see it, and as it is after the power was cut.
//!
//! As harsh as a file system may be. Of what was not synced, a cut leaves every part or none, in any
//! order: a write wholly, in any of its 512-byte sectors, torn inside one, or not; a change of length
//! or not, and a longer file whose bytes never came; each name that was made, changed or removed
//! without a sync of its directory, whether its file was synced or not. A rename alone is atomic.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use tala_store::rooms::RoomAhead;

use crate::common::Random;

/// The part of a write that a medium writes at once, if it does.
const SECTOR: usize = 512;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Entry {
    Dir,
    /// The number of the file.
    File(usize),
}

type Names = BTreeMap<PathBuf, Entry>;

/// A change of a file's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => put(file, *offset, bytes),
            Self::SetLen(len) => {
                file.truncate(*len);
                lengthen(file, *len);
            }
        }
    }
}

/// Fills up to this length with zeros; faster than one after the other.
fn lengthen(file: &mut Vec<u8>, len: usize) {
    file.extend_from_slice(&vec![0; len.saturating_sub(file.len())]);
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    lengthen(file, end);
    file[offset..end].copy_from_slice(bytes);
}

/// A change of names, which is there after a cut as a whole or not at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Naming {
    Add { path: PathBuf, entry: Entry },
    Move { from: PathBuf, to: PathBuf, entry: Entry },
    Drop { path: PathBuf, entry: Entry },
}

impl Naming {
    fn apply(&self, names: &mut Names) {
        let drop = |names: &mut Names, path: &Path, entry: Entry| {
            if names.get(path) == Some(&entry) {
                names.remove(path);
            }
        };
        match self {
            Self::Add { path, entry } => drop_in(names, path, *entry),
            Self::Move { from, to, entry } => {
                drop(names, from, *entry);
                drop_in(names, to, *entry);
            }
            Self::Drop { path, entry } => drop(names, path, *entry),
        }
    }

    fn dir(&self) -> &Path {
        let (Self::Add { path, .. } | Self::Move { to: path, .. } | Self::Drop { path, .. }) = self;
        path.parent().expect("a name is in a directory")
    }
}

fn drop_in(names: &mut Names, path: &Path, entry: Entry) {
    names.insert(path.to_owned(), entry);
}

/// Bytes that are copied when one of those who share them changes them, and hashed once.
#[derive(Clone, Default, Debug)]
struct Bytes(Arc<(Vec<u8>, OnceLock<u64>)>);

impl Bytes {
    fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new((bytes, OnceLock::new())))
    }

    fn as_slice(&self) -> &[u8] {
        &self.0.0
    }

    fn change(&mut self, change: &Change) {
        let (bytes, hash) = Arc::make_mut(&mut self.0);
        change.apply(bytes);
        hash.take();
    }

    fn hash(&self) -> u64 {
        let (bytes, hash) = &*self.0;
        *hash.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            hasher.finish()
        })
    }
}

/// The bytes of a file.
#[derive(Clone, Default, Debug)]
struct Inode {
    live: Bytes,
    durable: Bytes,
    /// What `live` has and `durable` has not, in order; but for what a failed sync lost.
    unsynced: Vec<Change>,
}

/// What becomes of the bytes of a file whose sync fails. Linux marks its pages clean in any case:
/// programs go on to see them, and the next sync has nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// None of them came to the medium.
    All,
    /// Every other one came.
    Half,
    /// All of them came.
    Nothing,
}

/// A change of a volume: what is recorded, and applied again to see what a cut there leaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Create(PathBuf),
    MakeDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    /// Removes a directory with all that is in it, as another program may.
    RemoveDir(PathBuf),
    Change(usize, Change),
    Sync(usize),
    FailedSync(usize, Lost),
    SyncDir(PathBuf),
    DropCached(usize),
}

/// A medium.
#[derive(Clone, Debug)]
pub struct Volume {
    files: Vec<Inode>,
    live: Names,
    durable: Names,
    unsynced: Vec<Naming>,
    room_ahead: RoomAhead,
}

impl Volume {
    /// An empty one, on which logs get so much room ahead.
    pub fn new(room_ahead: RoomAhead) -> Self {
        let root = Names::from([(PathBuf::from("/"), Entry::Dir)]);
        let (files, unsynced) = (Vec::new(), Vec::new());
        Self { files, live: root.clone(), durable: root, unsynced, room_ahead }
    }

    /// How much room logs on it get ahead.
    pub fn room_ahead(&self) -> RoomAhead {
        self.room_ahead
    }

    /// What stands under a name.
    pub fn entry(&self, path: &Path) -> Option<Entry> {
        self.live.get(path).copied()
    }

    /// A name of this file.
    pub fn name_of(&self, file: usize) -> Option<&Path> {
        let is_its = |(_, entry): &(&PathBuf, &Entry)| **entry == Entry::File(file);
        self.live.iter().find(is_its).map(|(path, _)| path.as_path())
    }

    /// The bytes of a file as programs see them.
    pub fn bytes(&self, file: usize) -> &[u8] {
        self.files[file].live.as_slice()
    }

    /// Names in a directory.
    pub fn names(&self, dir: &Path) -> impl Iterator<Item = &Path> {
        self.live.keys().map(PathBuf::as_path).filter(move |path| path.parent() == Some(dir))
    }

    /// Applies a change that is possible.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(path) => {
                let entry = Entry::File(self.files.len());
                self.files.push(Inode::default());
                self.name(Naming::Add { path: path.clone(), entry });
            }
            Op::MakeDir(path) => self.name(Naming::Add { path: path.clone(), entry: Entry::Dir }),
            Op::Rename(from, to) => {
                let entry = self.live[from];
                self.name(Naming::Move { from: from.clone(), to: to.clone(), entry });
            }
            Op::Remove(path) => {
                self.name(Naming::Drop { path: path.clone(), entry: self.live[path] });
            }
            Op::RemoveDir(dir) => {
                let inside: Vec<PathBuf> =
                    self.live.keys().filter(|path| path.starts_with(dir)).cloned().collect();
                for path in inside.into_iter().rev() {
                    let entry = self.live[&path];
                    self.name(Naming::Drop { path, entry });
                }
            }
            Op::Change(file, change) => {
                let file = &mut self.files[*file];
                file.live.change(change);
                file.unsynced.push(change.clone());
            }
            Op::Sync(file) => {
                let file = &mut self.files[*file];
                file.unsynced.drain(..).for_each(|change| file.durable.change(&change));
            }
            Op::FailedSync(file, lost) => {
                let file = &mut self.files[*file];
                for (index, change) in file.unsynced.drain(..).enumerate() {
                    let came = match lost {
                        Lost::All => false,
                        Lost::Half => index % 2 == 0,
                        Lost::Nothing => true,
                    };
                    if came {
                        file.durable.change(&change);
                    }
                }
            }
            Op::SyncDir(dir) => {
                let (synced, kept) = std::mem::take(&mut self.unsynced)
                    .into_iter()
                    .partition(|naming| naming.dir() == dir);
                self.unsynced = kept;
                let synced: Vec<Naming> = synced;
                synced.iter().for_each(|naming| naming.apply(&mut self.durable));
            }
            Op::DropCached(file) => {
                let file = &mut self.files[*file];
                file.live.clone_from(&file.durable);
                file.unsynced.iter().for_each(|change| file.live.change(change));
            }
        }
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.live);
        self.unsynced.push(naming);
    }

    /// The medium after the end of all programs: `choice` 0 is a kill, which leaves what programs
    /// saw, synced or not. With every other one the power was cut and came back: 1 leaves nothing that
    /// was not synced, and each of the rest its own part of it.
    pub fn cut(&self, choice: u64, seed: u64) -> Self {
        if choice == 0 {
            return self.clone();
        }
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(choice));
        // From almost nothing to almost all, so that whatever hangs together is tried apart.
        let odds = random.bits() % 9;
        let mut survives = |random: &mut Random| match choice {
            1 => false,
            _ => random.bits() % 10 <= odds,
        };
        let mut names = self.durable.clone();
        for naming in &self.unsynced {
            if survives(&mut random) {
                naming.apply(&mut names);
            }
        }
        let mut files = Vec::new();
        for file in &self.files {
            let bytes = match choice {
                1 => file.durable.clone(),
                _ => file.cut(&mut random, &mut survives),
            };
            files.push(Inode { live: bytes.clone(), durable: bytes, unsynced: Vec::new() });
        }
        // A directory of which the name is gone takes along what was in it.
        let whole: Names = names
            .iter()
            .filter(|(path, _)| path.ancestors().all(|above| names.contains_key(above)))
            .map(|(path, entry)| (path.clone(), *entry))
            .collect();
        let (unsynced, room_ahead) = (Vec::new(), self.room_ahead);
        Self { files, live: whole.clone(), durable: whole, unsynced, room_ahead }
    }

    /// A number that is the same for media that programs cannot tell apart.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, entry) in self.live.iter().chain(&self.durable) {
            path.hash(&mut hasher);
            match entry {
                Entry::Dir => 0_u8.hash(&mut hasher),
                Entry::File(file) => {
                    let Inode { live, durable, .. } = &self.files[*file];
                    (live.hash(), durable.hash()).hash(&mut hasher);
                }
            }
        }
        hasher.finish()
    }

    /// What is there, for whoever has to find out what went wrong.
    pub fn describe(&self) -> String {
        let lines = self.live.iter().map(|(path, entry)| match entry {
            Entry::Dir => format!("{}/\n", path.display()),
            Entry::File(file) => {
                let bytes = self.bytes(*file);
                let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
                format!("{}: {} bytes, {zeros} zeros at its end\n", path.display(), bytes.len())
            }
        });
        lines.collect()
    }
}

impl Inode {
    fn cut(&self, random: &mut Random, survives: &mut impl FnMut(&mut Random) -> bool) -> Bytes {
        let mut changes: Vec<&Change> = self.unsynced.iter().collect();
        if random.bits().is_multiple_of(4) {
            // What is not synced reaches the medium in any order.
            for last in (1..changes.len()).rev() {
                changes.swap(last, (random.bits() % (last as u64 + 1)) as usize);
            }
        }
        let live_len = self.live.as_slice().len();
        if changes.is_empty() && self.durable.as_slice().len() >= live_len {
            return self.durable.clone();
        }
        let mut bytes = self.durable.as_slice().to_vec();
        for change in changes {
            match change {
                Change::SetLen(_) if !survives(random) => {}
                Change::SetLen(_) => change.apply(&mut bytes),
                Change::Write { offset, bytes: written } => {
                    write_in_part(&mut bytes, *offset, written, random, survives);
                }
            }
        }
        // The length is known and the bytes never came.
        if bytes.len() < live_len && random.bits().is_multiple_of(4) {
            let more = random.bits() as usize % (live_len - bytes.len() + 1);
            let len = bytes.len() + more;
            lengthen(&mut bytes, len);
        }
        Bytes::of(bytes)
    }
}

fn write_in_part(
    file: &mut Vec<u8>,
    offset: usize,
    written: &[u8],
    random: &mut Random,
    survives: &mut impl FnMut(&mut Random) -> bool,
) {
    if random.bits().is_multiple_of(3) {
        if survives(random) {
            put(file, offset, written);
        }
        return;
    }
    let mut at = 0;
    while at < written.len() {
        // Sectors begin where the file's do, not where the write does.
        let end = (at + SECTOR - (offset + at) % SECTOR).min(written.len());
        let sector = &written[at..end];
        if survives(random) {
            match random.bits() % 8 {
                0 => put(file, offset + at, &sector[..random.bits() as usize % sector.len()]),
                1 => {
                    let from = random.bits() as usize % sector.len();
                    put(file, offset + at + from, &sector[from..]);
                }
                _ => put(file, offset + at, sector),
            }
        }
        at = end;
    }
}
