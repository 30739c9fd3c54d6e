//! Torn or damaged: every end that a crash can leave opens with a whole prefix that has all that was
//! synced, and damage to what was synced is refused with file, offset and range. The one limit, which
//! the documentation names: damage to the very last synced write that nothing later proves.
//!
//! `TALA_TORN_SEEDS=N` tries N choices of lost sectors for each way to lose them.

use crate::common::{DIM, EVER, Files, Random, TestDir, id, intent, is_same, outcome};
use tala_core::{Intent, IntentStore, TalaError};
use tala_store::{Durability, StorageEngine, verify};

const LOG: &str = "log_000001.wal";
const SECTOR: usize = 512;
const SYNCED: u64 = 12;
const ALL: u64 = 30;

/// A store whose log was synced after the first writes, and then written to without a sync.
struct Store {
    files: Files,
    /// Where each record ends, from the empty log on; the last ones are a batch of four.
    ends: Vec<usize>,
    /// How many records each whole prefix may have.
    units: Vec<usize>,
}

impl Store {
    fn new() -> Self {
        let dir = TestDir::in_memory();
        let options = StorageEngine::options(DIM).durability(Durability::Os);
        let engine = options.open(dir.path()).unwrap();
        let mut units = vec![0];
        for number in 0..ALL {
            if number == SYNCED {
                engine.sync().unwrap();
            }
            if number % 10 == 9 {
                engine.attach_outcome(id(number - 1), outcome(number)).unwrap();
            } else {
                engine.insert(intent(number)).unwrap();
            }
            units.push(number as usize + 1);
        }
        engine.insert_batch((100..104).map(intent).collect()).unwrap();
        units.push(ALL as usize + 4);
        let files = dir.files();
        engine.close().unwrap();
        let log = &files[LOG];
        let mut ends = vec![0];
        let mut at = 0;
        while at + 4 <= log.len() {
            let len = u32::from_le_bytes(log[at..at + 4].try_into().unwrap()) as usize;
            // Room that was prepared ahead.
            if len == 0 {
                break;
            }
            at += 4 + len;
            ends.push(at);
        }
        assert_eq!(ends.len(), ALL as usize + 5);
        let mut store = Self { files, ends, units };
        let end = *store.ends.last().unwrap();
        store.files.get_mut(LOG).unwrap().truncate(end);
        store
    }

    fn log(&self) -> &[u8] {
        &self.files[LOG]
    }

    fn synced_len(&self) -> usize {
        self.ends[SYNCED as usize]
    }

    fn with_log(&self, log: Vec<u8>) -> Files {
        let mut files = self.files.clone();
        files.insert(LOG.to_owned(), log);
        files
    }

    /// What the first `records` records say.
    fn state(&self, records: usize) -> Vec<Intent> {
        let mut rows: Vec<Intent> = Vec::new();
        for number in 0..records as u64 {
            match number {
                number if number >= ALL => rows.push(intent(100 + number - ALL)),
                number if number % 10 == 9 => {
                    rows.last_mut().unwrap().outcome = Some(outcome(number));
                }
                number => rows.push(intent(number)),
            }
        }
        rows
    }

    /// Opens with this log, and tells how many records count; it must be a whole prefix that has what
    /// was synced, and stay that when it is opened again.
    fn opened(&self, dir: &TestDir, log: Vec<u8>, what: &str) -> usize {
        dir.put(&self.with_log(log));
        assert!(verify(dir.path()).unwrap().is_ok(), "{what}");
        let mut kept = None;
        for _ in 0..2 {
            let engine = StorageEngine::open(DIM, dir.path(), 1_000);
            let engine = engine.unwrap_or_else(|error| panic!("{what}: {error}"));
            let rows = engine.query_temporal(EVER).unwrap();
            let is_state = |records: &&usize| {
                let state = self.state(**records);
                state.len() == rows.len() && state.iter().zip(&rows).all(|(a, b)| is_same(a, b))
            };
            let found =
                *self.units.iter().find(is_state).unwrap_or_else(|| panic!("{what}: no prefix"));
            assert!(found >= SYNCED as usize, "{what}: {found} records are left");
            assert!(kept.is_none_or(|kept| kept == found), "{what}");
            kept = Some(found);
        }
        kept.unwrap()
    }
}

fn seeds() -> u64 {
    let value = std::env::var("TALA_TORN_SEEDS").ok();
    value.and_then(|value| value.parse().ok()).unwrap_or(16)
}

/// What takes the place of a sector that did not reach the disk.
#[derive(Clone, Copy, Debug)]
enum Instead {
    Zeros,
    Garbage,
}

#[test]
fn every_end_that_a_crash_can_leave_opens() {
    let store = Store::new();
    let dir = TestDir::in_memory();
    let (log, synced) = (store.log().to_vec(), store.synced_len());
    let mut ends = 0;
    // Cut anywhere, and cut with zeros after it.
    for (index, len) in (synced..=log.len()).step_by(13).enumerate() {
        let whole = *store.units.iter().rfind(|records| store.ends[**records] <= len).unwrap();
        let mut cut = log[..len].to_vec();
        if index % 3 == 1 {
            cut.resize(len + 1 + index * 37 % 9_000, 0);
        }
        assert_eq!(store.opened(&dir, cut, &format!("cut to {len}")), whole);
        ends += 1;
    }
    // Any sectors of what was not synced are not there, or hold something else.
    for seed in 0..seeds() {
        for instead in [Instead::Zeros, Instead::Garbage] {
            let mut random = Random::new(seed + 1);
            let mut torn = log.clone();
            let odds = 1 + random.bits() % 4;
            for sector in synced / SECTOR..log.len().div_ceil(SECTOR) {
                if random.bits() % 4 < odds {
                    let bytes =
                        (sector * SECTOR).max(synced)..((sector + 1) * SECTOR).min(log.len());
                    for byte in &mut torn[bytes] {
                        *byte = match instead {
                            Instead::Zeros => 0,
                            Instead::Garbage => random.bits() as u8,
                        };
                    }
                }
            }
            let intact = log.iter().zip(&torn).take_while(|(a, b)| a == b).count();
            let kept = store.opened(&dir, torn, &format!("{instead:?}, seed {seed}"));
            let whole = *store.units.iter().rfind(|it| store.ends[**it] <= intact).unwrap();
            // A byte may happen to be what was there, never otherwise.
            assert!(kept >= whole, "{instead:?}, seed {seed}: {kept} of {whole}");
            ends += 1;
        }
    }
    // Garbage after the end, which may begin like a record.
    for seed in 0..seeds() {
        let mut random = Random::new(seed + 77);
        let mut longer = log.clone();
        if seed % 2 == 0 {
            longer.extend((random.bits() as u32 % 3_000).to_le_bytes());
        }
        longer.extend((0..random.bits() % 3_000).map(|_| random.bits() as u8));
        let all = *store.units.last().unwrap();
        assert_eq!(store.opened(&dir, longer, &format!("garbage, seed {seed}")), all);
        ends += 1;
    }
    println!("{ends} torn ends opened");
}

#[test]
fn every_damage_to_what_was_synced_is_refused() {
    let store = Store::new();
    let dir = TestDir::in_memory();
    let (log, synced) = (store.log().to_vec(), store.synced_len());
    let mut refused = 0;
    let mut refuse = |log: Vec<u8>, record: usize, what: &str| {
        let files = store.with_log(log);
        dir.put(&files);
        let at = store.ends[record] as u64;
        for error in [
            StorageEngine::open(DIM, dir.path(), 1_000).err().unwrap_or_else(|| panic!("{what}")),
            verify(dir.path()).unwrap().damage.remove(0),
        ] {
            match &error {
                TalaError::Corrupt { file, offset, what: says } => {
                    assert!(file.ends_with(LOG) && *offset == at, "{what}: {error}");
                    assert!(says.contains(&format!("bytes {at}..")), "{what}: {error}");
                }
                other => panic!("{what}: {other}"),
            }
        }
        let mut left = dir.files();
        left.remove("LOCK");
        let mut before = files;
        before.remove("LOCK");
        assert!(left == before, "{what}: something changed");
        refused += 1;
    };
    for at in (0..synced).step_by(11) {
        let record = store.ends.iter().rposition(|end| *end <= at).unwrap();
        let mut damaged = log.clone();
        damaged[at] ^= 1 << (at % 8);
        refuse(damaged, record, &format!("byte {at}"));
    }
    for sector in 0..synced / SECTOR {
        for byte in [0, 0xFF] {
            let mut damaged = log.clone();
            damaged[sector * SECTOR..(sector + 1) * SECTOR].fill(byte);
            let record = store.ends.iter().rposition(|end| *end <= sector * SECTOR).unwrap();
            refuse(damaged, record, &format!("sector {sector}"));
        }
    }
    // Also where nothing of what came after the sync is left, but for the last write before it.
    let before_last = store.ends[SYNCED as usize - 1];
    println!(
        "{refused} damaged logs refused; the last write before the sync begins at {before_last}"
    );
    dir.put(&store.files);
}

/// The limit, as documented: of the last synced write, with nothing after it.
#[test]
fn damage_to_the_last_write_that_nothing_proves_passes_for_torn() {
    let dir = TestDir::in_memory();
    let engine = StorageEngine::open(DIM, dir.path(), 1_000).unwrap();
    for number in 0..4 {
        engine.insert(intent(number)).unwrap();
    }
    let killed = dir.files();
    engine.close().unwrap();
    let closed = dir.files();
    let record = |log: &[u8], from: usize| {
        from + 4 + u32::from_le_bytes(log[from..from + 4].try_into().unwrap()) as usize
    };
    let last = (0..3).fold(0, |at, _| record(&killed[LOG], at));
    let flipped = |files: &Files| {
        let mut files = files.clone();
        files.get_mut(LOG).unwrap()[last + 40] ^= 1;
        files
    };
    dir.put(&flipped(&killed));
    let engine = StorageEngine::open(DIM, dir.path(), 1_000).unwrap();
    assert_eq!((engine.len(), engine.recovery().warnings.len()), (3, 1));
    drop(engine);
    // A store that was closed has proven it.
    dir.put(&flipped(&closed));
    assert!(StorageEngine::open(DIM, dir.path(), 1_000).is_err());
    dir.put(&closed);
}
