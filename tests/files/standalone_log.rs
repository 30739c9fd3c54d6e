//! The public log: what is appended is read again, whoever reads it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
};

use tala_store::{Wal, WalEntry, replay_wal};

fn entry(number: u8) -> WalEntry {
    WalEntry {
        id: [number; 16],
        timestamp: u64::from(number) << 56,
        embedding: vec![f32::from(number), -0.0, f32::INFINITY],
        raw_command: "päth ".repeat(usize::from(number)),
    }
}

fn append(wal: &mut Wal, number: u8) {
    let WalEntry { id, timestamp, embedding, raw_command } = entry(number);
    wal.append(&id, timestamp, &embedding, &raw_command).unwrap();
}

/// Writes a log of entries 1 to `count`, syncing after each; returns the length after each.
fn write_log(path: &Path, count: u8) -> Vec<usize> {
    let mut wal = Wal::create(path).unwrap();
    let lengths = (1..=count).map(|number| {
        append(&mut wal, number);
        wal.sync().unwrap();
        fs::metadata(path).unwrap().len() as usize
    });
    lengths.collect()
}

/// Reads a log as a program does that knows the fixed part of a record and nothing else.
fn fixed_frame_reader(mut bytes: &[u8]) -> Vec<WalEntry> {
    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(count);
        *bytes = rest;
        taken
    }
    fn number(bytes: &mut &[u8]) -> usize {
        u32::from_le_bytes(take(bytes, 4).try_into().unwrap()) as usize
    }
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let payload_len = number(&mut bytes);
        let mut payload = take(&mut bytes, payload_len);
        let id = take(&mut payload, 16).try_into().unwrap();
        let timestamp = u64::from_le_bytes(take(&mut payload, 8).try_into().unwrap());
        let dim = number(&mut payload);
        let embedding = take(&mut payload, 4 * dim)
            .chunks(4)
            .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()))
            .collect();
        let command_len = number(&mut payload);
        let raw_command = String::from_utf8(take(&mut payload, command_len).to_vec()).unwrap();
        if dim > 0 {
            entries.push(WalEntry { id, timestamp, embedding, raw_command });
        }
    }
    entries
}

#[test]
fn what_is_appended_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut wal = Wal::create(&path).unwrap();
    assert_eq!((wal.entry_count(), wal.path()), (0, path.as_path()));
    assert_eq!(replay_wal(&path).unwrap(), []);
    for number in 1..=3 {
        append(&mut wal, number);
    }
    wal.sync().unwrap();
    assert_eq!(wal.entry_count(), 3);
    assert_eq!(replay_wal(&path).unwrap(), [entry(1), entry(2), entry(3)]);
    append(&mut wal, 4);
    drop(wal);
    assert_eq!(replay_wal(&path).unwrap().last(), Some(&entry(4)));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn entries_may_be_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut wal = Wal::create(&path).unwrap();
    wal.append(&[0; 16], 0, &[], "").unwrap();
    wal.sync().unwrap();
    let empty =
        WalEntry { id: [0; 16], timestamp: 0, embedding: vec![], raw_command: String::new() };
    assert_eq!(replay_wal(&path).unwrap(), [empty]);
}

#[test]
fn a_reader_of_the_fixed_frame_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    write_log(&path, 3);
    assert_eq!(fixed_frame_reader(&fs::read(&path).unwrap()), [entry(1), entry(2), entry(3)]);
}

#[test]
fn an_existing_file_is_refused_and_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, b"precious").unwrap();
    assert_eq!(Wal::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_missing_file_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let error = replay_wal(dir.path().join("missing")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_log_cut_anywhere_is_read_up_to_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let lengths = write_log(&path, 3);
    let file = File::options().write(true).open(&path).unwrap();
    for len in (0..=lengths[2]).rev() {
        file.set_len(len as u64).unwrap();
        let whole = lengths.iter().filter(|end| **end <= len).count();
        let expected: Vec<_> = (1..=whole as u8).map(entry).collect();
        assert_eq!(replay_wal(&path).unwrap(), expected, "length {len}");
    }
}

#[test]
fn every_flipped_bit_of_a_synced_log_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let lengths = write_log(&path, 3);
    let bytes = fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    for bit in 0..bytes.len() * 8 {
        let (at, byte) = (bit / 8, bytes[bit / 8]);
        file.write_all_at(&[byte ^ (1 << (bit % 8))], at as u64).unwrap();
        let replayed = replay_wal(&path);
        file.write_all_at(&[byte], at as u64).unwrap();
        match replayed {
            // The last entry synced cannot be told from one being written when the power failed.
            Ok(entries) => {
                assert!(at >= lengths[1], "bit {bit} passed for torn");
                assert_eq!(entries, [entry(1), entry(2)]);
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                let start = *lengths.iter().rfind(|end| **end <= at).unwrap_or(&0);
                assert!(error.to_string().contains(&format!("at byte {start}:")), "{error}");
            }
        }
    }
}

#[test]
fn a_log_without_tails_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut bytes = Vec::new();
    for number in 1..=2 {
        let WalEntry { id, timestamp, embedding, raw_command } = entry(number);
        let payload = [
            &id[..],
            &timestamp.to_le_bytes(),
            &(embedding.len() as u32).to_le_bytes(),
            &embedding.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<_>>(),
            &(raw_command.len() as u32).to_le_bytes(),
            raw_command.as_bytes(),
        ]
        .concat();
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&payload);
    }
    fs::write(&path, &bytes).unwrap();
    assert_eq!(replay_wal(&path).unwrap(), [entry(1), entry(2)]);
    assert_eq!(fixed_frame_reader(&bytes), [entry(1), entry(2)]);
}
