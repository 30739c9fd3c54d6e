//! The files of `seeds`, made anew: small inputs of every kind that the formats know. The ordinary
//! test sees to it that the files are these; with `TALA_FUZZ_SEEDS=1` it writes them.

use tala_core::{Intent, IntentId, Outcome, SegmentId, Status};
use tala_store::rooms::{BatchPlace, Encoded, FileNumber, Mark, SeqNo, Stamp};
use tala_wire::{Change, Row, SegmentWriter};

use super::{directory, format};

/// Files by name.
type Seeds = Vec<(&'static str, Vec<u8>)>;

/// Components of every embedding here but the odd ones.
const DIM: usize = 4;

fn id(number: u8) -> IntentId {
    IntentId::from_bytes([number; 16])
}

fn outcome(number: u8) -> Outcome {
    Outcome { status: Status::Failure, latency_ns: 1 << number, exit_code: -i32::from(number) }
}

/// An intent of which every field says which one it is.
fn intent(number: u8) -> Intent {
    Intent {
        id: id(number),
        timestamp: 1_000 + u64::from(number),
        raw_command: format!("befehl ü {number}"),
        embedding: (0..DIM).map(|at| f32::from(number) + at as f32).collect(),
        context_hash: u64::from(number) << 40,
        parent_ids: (0..number % 3).map(|parent| id(number - parent)).collect(),
        outcome: number.is_multiple_of(4).then(|| outcome(number)),
        confidence: 0.5,
    }
}

/// A log of a store, as its writer makes it.
struct Log {
    bytes: Vec<u8>,
    file: u64,
    next: u64,
    synced: u64,
}

impl Log {
    fn new(file: u64, first: u64) -> Self {
        Self { bytes: Vec::new(), file, next: first, synced: first - 1 }
    }

    fn add(mut self, record: Encoded) -> Self {
        let (seq, file) = (SeqNo(self.next), FileNumber(self.file));
        record.stamp_into(&mut self.bytes, Stamp { seq, file, synced: SeqNo(self.synced) });
        self.next += 1;
        self
    }

    fn insert(self, number: u8) -> Self {
        self.add(Encoded::insert(&intent(number), BatchPlace::SINGLE).expect("it is short"))
    }

    fn batch(mut self, numbers: std::ops::Range<u8>) -> Self {
        let len = numbers.len() as u32;
        for (index, number) in (0..len).zip(numbers) {
            let place = BatchPlace { index, len };
            self = self.add(Encoded::insert(&intent(number), place).expect("it is short"));
        }
        self
    }

    fn outcome(self, number: u8) -> Self {
        let place = BatchPlace::SINGLE;
        self.add(Encoded::outcome(id(number), outcome(number), place).expect("it is short"))
    }

    fn removal(self, number: u8) -> Self {
        self.add(Encoded::removal(id(number), BatchPlace::SINGLE).expect("it is short"))
    }

    fn mark(mut self, mark: Mark) -> Self {
        self = self.sync();
        self.add(Encoded::mark(mark).expect("it is short"))
    }

    fn sync(mut self) -> Self {
        self.synced = self.next - 1;
        self
    }
}

fn mixed(file: u64, first: u64) -> Log {
    Log::new(file, first).insert(1).sync().batch(2..5).outcome(3).sync().removal(2).insert(8)
}

pub fn logs() -> Seeds {
    let input = |head: [u8; 6], log: &[u8]| [&head, log].concat();
    let open = mixed(3, 7);
    let closed = mixed(3, 7).mark(Mark::Closed);
    let rotated = Log::new(3, 7).insert(1).mark(Mark::Rotated { next: FileNumber(4) });
    let room = [&rotated.bytes[..], &[0; 64]].concat();
    let torn = &open.bytes[..open.bytes.len() - 30];
    let len = (open.bytes.len() as u16).to_le_bytes();
    let mut damaged = open.bytes.clone();
    damaged[150] ^= 1;
    let batch = Log::new(3, 7).insert(1).batch(2..6);
    let part_of_batch = &batch.bytes[..batch.bytes.len() * 3 / 5];
    vec![
        ("accepted", input([4, 3, 7, open.next as u8 - 1, len[0], len[1]], &open.bytes)),
        ("closed", input([1, 3, 7, 6, 0, 0], &closed.bytes)),
        ("damaged", input([0, 3, 7, 6, 0, 0], &damaged)),
        ("empty", input([0, 3, 7, 6, 0, 0], &[])),
        ("open", input([2, 3, 7, 6, 0, 0], &open.bytes)),
        ("part-of-a-batch", input([1, 3, 7, 6, 0, 0], part_of_batch)),
        ("rotated-with-room", input([1, 3, 7, 6, 0, 0], &room)),
        ("torn", input([1, 3, 7, 6, 0, 0], torn)),
    ]
}

/// A record without a tail, as older programs write them.
fn legacy_record(intent: &Intent) -> Vec<u8> {
    let embedding: Vec<u8> = intent.embedding.iter().flat_map(|x| x.to_le_bytes()).collect();
    let command = intent.raw_command.as_bytes();
    let payload = [
        &intent.id.as_bytes()[..],
        &intent.timestamp.to_le_bytes(),
        &(intent.embedding.len() as u32).to_le_bytes(),
        &embedding,
        &(command.len() as u32).to_le_bytes(),
        command,
    ]
    .concat();
    [&(payload.len() as u32).to_le_bytes()[..], &payload].concat()
}

fn legacy_log() -> Vec<u8> {
    (1..6).flat_map(|number| legacy_record(&intent(number))).collect()
}

pub fn files() -> Seeds {
    let input = |switches: u8, file: &[u8]| [&[switches], file].concat();
    let legacy = legacy_log();
    let mut damaged = legacy.clone();
    damaged[100] ^= 0x40;
    let mut without_embedding = intent(1);
    without_embedding.embedding.clear();
    let odd = [&legacy_record(&without_embedding)[..], &legacy[..200]].concat();
    let standalone = Log::new(0, 1).insert(1).insert(2).sync().insert(4);
    let mut lost = standalone.bytes.clone();
    lost[20] ^= 1;
    vec![
        ("closed", input(1, &mixed(3, 7).mark(Mark::Closed).bytes)),
        ("legacy", input(0, &legacy)),
        ("legacy-damaged", input(0, &damaged)),
        ("legacy-odd", input(0, &odd)),
        ("legacy-torn", input(0, &legacy[..legacy.len() - 7])),
        ("legacy-with-room", input(0, &[&legacy[..], &[0; 40]].concat())),
        ("standalone", input(2, &standalone.bytes)),
        ("standalone-damaged", input(0, &lost)),
        ("standalone-torn", input(1, &standalone.bytes[..standalone.bytes.len() - 40])),
        ("tail-after-legacy", input(1, &[&legacy[..150], &standalone.bytes].concat())),
    ]
}

/// A segment of these intents and changes, their numbers from `first` on.
fn segment(intents: &[Intent], changes: &[(IntentId, Change)], first: u64) -> Vec<u8> {
    let mut writer = SegmentWriter::new(DIM).expect("a small dimension");
    let mut seq = first;
    for intent in intents {
        writer.push(&Row::of(intent, seq)).expect("each id once");
        seq += 1;
    }
    for (id, change) in changes {
        writer.push_change(seq, *id, *change);
        seq += 1;
    }
    writer.finish(SegmentId(1), 1_700_000_000_000_000_000).expect("it fits memory")
}

/// The fixed part of a segment, as another program might have written it.
fn legacy_segment(segment: &[u8]) -> Vec<u8> {
    let ours = format::u64_at(segment, 72).expect("a segment has a header") as usize;
    let mut bytes = segment[..ours].to_vec();
    for at in [72, 88, 96] {
        format::put(&mut bytes, at, &[0; 8]);
    }
    format::put(&mut bytes, 104, &[0; 4]);
    bytes
}

fn whole_segment() -> Vec<u8> {
    let intents: Vec<Intent> = (1..6).map(intent).collect();
    let changes = [(id(77), Change::Outcome(outcome(3))), (id(78), Change::Removal)];
    segment(&intents, &changes, 1)
}

pub fn segments() -> Seeds {
    let input = |switches: u8, segment: &[u8]| [&[switches], segment].concat();
    let whole = whole_segment();
    let mut odd: Vec<Intent> = (1..4).map(intent).collect();
    odd[1].embedding = vec![f32::NAN; 3];
    odd[2].embedding.clear();
    odd[2].timestamp = u64::MAX;
    vec![
        ("changes-only", input(1, &segment(&[], &[(id(1), Change::Removal)], 9))),
        ("legacy", input(0, &legacy_segment(&whole))),
        ("odd", input(1, &segment(&odd, &[], 3))),
        ("whole", input(0, &whole)),
        ("whole-sealed", input(1, &segment(&[intent(1), intent(2)], &[], 5))),
    ]
}

/// A MANIFEST: dimension, the six numbers of its header, segments, logs, and the legacy log.
fn manifest(
    next: [u64; 4],
    segments: &[[u64; 5]],
    logs: &[[u64; 4]],
    legacy: Option<[u64; 2]>,
) -> Vec<u8> {
    let mut bytes = b"TALAMANI".to_vec();
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend((DIM as u32).to_le_bytes());
    let counts = [segments.len() as u64, logs.len() as u64, legacy.iter().len() as u64];
    let numbers = next.iter().chain(&counts).chain(segments.iter().flatten());
    for number in numbers.chain(logs.iter().flatten()).chain(legacy.iter().flatten()) {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([0; 4]);
    format::seal_manifest(&mut bytes);
    bytes
}

fn listed(segment: &[u8], first: u64, last: u64) -> [u64; 5] {
    [1, first, last, segment.len() as u64, u64::from(crc32c::crc32c(segment))]
}

pub fn manifests() -> Seeds {
    let input = |bytes: Vec<u8>| [&[1], &bytes[..]].concat();
    let segments = [[3, 1, 9, 400, 77], [1, 10, 12, 500, 78], [2, 20, 20, 600, 79]];
    let logs = [[2, 21, 25, 900], [5, 26, 25, 0], [6, 26, 40, 1_000]];
    vec![
        ("empty", input(manifest([1, 0, 1, 0], &[], &[], None))),
        ("imported", input(manifest([4, 1, 13, 12], &segments[..2], &[], Some([500, 9])))),
        ("whole", input(manifest([4, 7, 41, 40], &segments, &logs, None))),
    ]
}

pub fn directories() -> Seeds {
    let stored = segment(&(1..4).map(intent).collect::<Vec<_>>(), &[], 1);
    let entry = listed(&stored, 1, 3);
    let first = Log::new(1, 4).insert(3).batch(4..6).mark(Mark::Rotated { next: FileNumber(2) });
    let second = Log::new(2, first.next).outcome(4).removal(1).insert(7);
    let closed = Log::new(2, first.next).outcome(4).insert(7).mark(Mark::Closed);
    let torn = &second.bytes[..second.bytes.len() - 20];
    let live = manifest([2, 1, 4, 4], &[entry], &[], None);
    let clean = manifest([2, 1, 4, closed.next - 1], &[entry], &[], None);
    let listed_log = [1, 4, first.next - 1, first.bytes.len() as u64];
    let accepted = manifest([2, 2, first.next, 4], &[entry], &[listed_log], None);
    let legacy = legacy_log();
    let imported_entry = listed(&stored, 1, 3);
    let was_imported = [legacy.len() as u64, u64::from(crc32c::crc32c(&legacy))];
    let imported = manifest([2, 1, 4, 0], &[imported_entry], &[], Some(was_imported));
    let after_import = Log::new(1, 4).insert(9);
    vec![
        ("accepted", directory::pack(1, [&accepted, &stored, &first.bytes, &second.bytes, &[]])),
        ("closed", directory::pack(0, [&clean, &stored, &first.bytes, &closed.bytes, &[]])),
        ("imported", directory::pack(3, [&imported, &stored, &after_import.bytes, &[], &legacy])),
        ("legacy", directory::pack(2, [&[], &legacy_segment(&stored), &[], &[], &legacy])),
        ("live", directory::pack(1, [&live, &stored, &first.bytes, &second.bytes, &[]])),
        ("torn", directory::pack(0, [&live, &stored, &first.bytes, torn, &[]])),
    ]
}

pub fn inputs() -> Seeds {
    let input = |switches: u8, text: &str| [&[switches], text.as_bytes()].concat();
    let json = "{\"raw_command\":\"ls -l\",\"timestamp\":5,\"embedding\":[0.5,-1e3,2],\
        \"context_hash\":18446744073709551615,\"confidence\":0.25,\
        \"id\":\"01010101-0101-0101-0101-010101010101\",\
        \"parent_ids\":[\"02020202-0202-0202-0202-020202020202\"],\
        \"outcome\":{\"status\":\"partial\",\"latency_ns\":7,\"exit_code\":-2}}\n\
        {\"raw_command\":\"make\",\"outcome\":{\"exit_code\":1},\"unknown\":[{}]}\n\n\
        {\"raw_command\":7}\n{\"raw_command\":\"\\u00fc\\n\",\"id\":null}";
    let zsh = [
        &[9][..],
        b": 1700000000:0;ls -l\npwd\n: 1700000001:7;for i\\\ndo\\\ndone\n",
        b": 1700000002:0;echo \xc3\x83\xbc \xf0\x83\xbf\xa6\x83\xa0\n: 1700000003:0;a \\ \n",
        b": 1700000004:0;a command that is longer than it may be\\\n goes on\n: 5:0;\n: 6:0;\xff\n",
    ]
    .concat();
    vec![
        (
            "fish",
            input(
                2,
                "- cmd: ls\n  when: 1700000000\n- cmd: for i\\n echo \\\\ü\\nend\n  when: 1700000001\n  \
                 paths:\n    - src\n- cmd:\n  when: x\nodd\n- cmd: b\\t\n",
            ),
        ),
        ("history", input(0, "\u{feff}ls\r\ncd /tmp\n\n  make -j 2 \ngit log\n")),
        (
            "history-bounded",
            input(10, "ls\nan argument after an argument after an argument\n#1\na\nb\n"),
        ),
        (
            "history-with-times",
            input(3, "old\n#100\nfor i in 1 2\ndo\n\n echo $i\ndone\n#200\n#300\nls\n"),
        ),
        ("json-lines", input(4, json)),
        ("mixed", input(5, "{ echo hi; }\nls\n{\"raw_command\": \"x\"}\n")),
        ("zsh", zsh),
    ]
}
