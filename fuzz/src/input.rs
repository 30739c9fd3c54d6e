//! What `tala-store ingest` reads: histories of bash, zsh and fish, and JSON Lines.
//!
//! Input: switches (bits 0 to 2: how the bytes arrive; 8: commands are bounded to a few bytes), then
//! the source.
//!
//! Checked: however the bytes arrive, the entries are the same; lines are numbered in rising order
//! and exist; a history without times is its lines; no command is empty or longer than allowed; an
//! entry written as JSON, or as zsh and fish write their histories, is read back as it was.

use std::io::{self, BufReader, Read};

use serde_json::json;
use tala_core::Status;
use tala_ingest::{BadLine, Entry, Fault, Lines, Source};

use super::split;

const COMMAND_BYTES_MAX: usize = 1 << 20;
const COMMAND_BYTES_FEW: usize = 40;

/// Gives its bytes in parts of a fixed size, as a pipe may.
struct Parts<'a>(&'a [u8], usize);

impl Read for Parts<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.1.min(into.len()).min(self.0.len());
        let (part, rest) = self.0.split_at(len);
        into[..len].copy_from_slice(part);
        self.0 = rest;
        Ok(len)
    }
}

fn read(reader: impl Read, command_bytes_max: usize) -> Vec<Result<Entry, BadLine>> {
    let mut source = Source::new(reader, command_bytes_max).expect("memory does not fail");
    std::iter::from_fn(|| source.next_entry().expect("memory does not fail")).collect()
}

/// The lines of a text of which so many bytes are in memory at a time.
fn lines(text: &[u8], buffer_bytes: usize, line_bytes_max: usize) -> Vec<Result<String, Fault>> {
    let mut lines = Lines::new(BufReader::with_capacity(buffer_bytes, text), line_bytes_max);
    std::iter::from_fn(|| lines.next_line().expect("memory does not fail"))
        .map(|line| line.text)
        .collect()
}

pub fn run(bytes: &[u8]) -> bool {
    let (switches, text) = split(bytes);
    let max = if switches & 8 == 0 { COMMAND_BYTES_MAX } else { COMMAND_BYTES_FEW };
    let part_bytes = [1, 2, 3, 5, 17, 100, 4096, 65_537][usize::from(switches & 7)];
    let found = read(text, max);
    assert_eq!(found, read(Parts(text, part_bytes), max));
    assert_eq!(lines(text, part_bytes, max), lines(text, text.len() + 1, max));

    let mut previous = 0;
    let is_json = text.contains(&b'{');
    for entry in &found {
        let line = entry.as_ref().map_or_else(|bad| bad.line, |entry| entry.line);
        assert!(line > previous, "line {line} after {previous}");
        previous = line;
        let Ok(entry) = entry else { continue };
        // The fields of an object may be longer and empty: what is stored is the store's business.
        if !is_json {
            assert!(!entry.raw_command.trim().is_empty(), "line {line} has no command");
            assert!(entry.raw_command.len() <= max, "line {line} is too long");
        }
        as_json(entry);
        as_history(entry);
    }
    let line_count = text.split(|byte| *byte == b'\n').count() as u64;
    assert!(previous <= line_count, "line {previous} of {line_count}");
    let has = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    if !is_json && !text.contains(&b'#') && !has(b": ") && !has(b"- cmd:") {
        plain_history(text, &found, max);
    }
    found.iter().all(Result::is_ok)
}

/// Without times and objects every line is a command.
fn plain_history(text: &[u8], found: &[Result<Entry, BadLine>], max: usize) {
    let mut found = found.iter();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let command = match std::str::from_utf8(line) {
            Ok(line) if line.len() <= max => {
                let line = line.strip_suffix('\r').unwrap_or(line);
                let line =
                    if number == 1 { line.strip_prefix('\u{feff}') } else { None }.unwrap_or(line);
                if line.trim().is_empty() {
                    continue;
                }
                Some(line)
            }
            _ => None,
        };
        let entry = found.next().expect("every line that is not empty is an entry, or bad");
        match (entry, command) {
            (Ok(entry), Some(command)) => {
                let due =
                    Entry { line: number, raw_command: command.to_owned(), ..Entry::default() };
                assert_eq!(*entry, due);
            }
            (Err(bad), None) => assert_eq!(bad.line, number),
            (found, due) => panic!("{found:?} where {due:?} is due"),
        }
    }
    assert_eq!(found.next(), None);
}

/// A command between two others, as the shells write it that escape what it holds.
fn as_history(entry: &Entry) {
    // Nothing is kept of an empty command, nor a carriage return at the end of a line.
    if entry.raw_command.trim().is_empty() || entry.raw_command.ends_with('\r') {
        return;
    }
    let seconds = entry.timestamp.unwrap_or(0) / 1_000_000_000;
    let zsh = [b": 1:0;first\n".to_vec(), zsh_entry(seconds, &entry.raw_command)];
    let fish = [b"- cmd: first\n  when: 1\n".to_vec(), fish_entry(seconds, &entry.raw_command)];
    for (mut history, last) in
        [(zsh.concat(), &b": 2:0;last\n"[..]), (fish.concat(), b"- cmd: last\n  when: 2\n")]
    {
        history.extend(last);
        let found: Vec<_> = read(&history[..], COMMAND_BYTES_MAX)
            .into_iter()
            .map(|found| found.map(|found| (found.raw_command, found.timestamp)))
            .collect();
        let at = |seconds: u64| Some(seconds * 1_000_000_000);
        let due = [
            Ok(("first".to_owned(), at(1))),
            Ok((entry.raw_command.clone(), at(seconds))),
            Ok(("last".to_owned(), at(2))),
        ];
        assert_eq!(found, due);
    }
}

fn zsh_entry(seconds: u64, command: &str) -> Vec<u8> {
    let mut out = format!(": {seconds}:0;").into_bytes();
    for &byte in command.as_bytes() {
        match byte {
            b'\n' => out.extend(b"\\\n"),
            0 | 0x83..=0xa2 => out.extend([0x83, byte ^ 32]),
            _ => out.push(byte),
        }
    }
    let guard: &[u8] = if command.trim_end_matches(' ').ends_with('\\') { b" \n" } else { b"\n" };
    out.extend(guard);
    out
}

fn fish_entry(seconds: u64, command: &str) -> Vec<u8> {
    let escaped = command.replace('\\', "\\\\").replace('\n', "\\n");
    format!("- cmd: {escaped}\n  when: {seconds}\n  paths:\n    - /tmp\n").into_bytes()
}

fn as_json(entry: &Entry) {
    let floats = entry.embedding.iter().flatten().chain(&entry.confidence);
    if floats.into_iter().any(|value| !value.is_finite()) {
        return; // JSON has no such number.
    }
    let status = |status| match status {
        Status::Pending => "pending",
        Status::Success => "success",
        Status::Failure => "failure",
        Status::Partial => "partial",
    };
    let line = json!({
        "raw_command": entry.raw_command,
        "id": entry.id.map(|id| id.to_string()),
        "timestamp": entry.timestamp,
        "embedding": entry.embedding,
        "context_hash": entry.context_hash,
        "parent_ids": entry.parent_ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "outcome": entry.outcome.map(|outcome| json!({
            "status": status(outcome.status),
            "latency_ns": outcome.latency_ns,
            "exit_code": outcome.exit_code,
        })),
        "confidence": entry.confidence,
    })
    .to_string();
    let mut found = read(line.as_bytes(), COMMAND_BYTES_MAX);
    let Some(Ok(mut again)) = found.pop().filter(|_| found.is_empty()) else {
        panic!("{line} is not one entry")
    };
    again.line = entry.line;
    assert_eq!(again, *entry);
}
