//! Histories of zsh with `EXTENDED_HISTORY`: `: START:ELAPSED;command`.
//!
//! Three things of `Src/hist.c` matter to who reads them. A line feed of a command has a backslash
//! before it, and the command goes on in the next line. Where a command ends in a backslash, a space
//! comes after it, which is not the command's. And bytes that mean something to zsh itself are
//! "metafied": the byte 0x83, then the byte with bit 5 flipped, whatever text that makes.
//!
//! Commands without a time are taken as zsh takes them. How long a command ran is left out: what came
//! of it is not known.

use std::collections::VecDeque;

use crate::{
    lines::{Fault, RawLine},
    source::{BadLine, Entry},
};

/// What zsh calls `Meta`.
const META: u8 = 0x83;

/// The commands of a history, put together line by line.
#[derive(Debug)]
pub(crate) struct Zsh {
    command_bytes_max: usize,
    open: Option<Open>,
}

/// A command that may go on in the next line.
#[derive(Debug)]
struct Open {
    line: u64,
    timestamp: Option<u64>,
    bytes: Vec<u8>,
    /// Why it cannot be used. Where its lines end is not known then; it goes on to the next time.
    fault: Option<Fault>,
}

impl Zsh {
    pub(crate) fn new(command_bytes_max: usize) -> Self {
        Self { command_bytes_max, open: None }
    }

    /// Takes the next line; what is complete comes after what is in `ready`.
    pub(crate) fn add(&mut self, line: RawLine, ready: &mut VecDeque<Result<Entry, BadLine>>) {
        let bytes = match line.bytes {
            Ok(bytes) => bytes,
            Err(fault) => {
                let line = self.open.take().map_or(line.number, |open| open.line);
                self.open =
                    Some(Open { line, timestamp: None, bytes: Vec::new(), fault: Some(fault) });
                return;
            }
        };
        let mut open = match self.open.take() {
            Some(open) if open.fault.is_none() => open,
            Some(spoiled) if timed(&bytes).is_none() => {
                self.open = Some(spoiled);
                return;
            }
            before => {
                ready.extend(before.and_then(Open::finish));
                let (timestamp, start) =
                    timed(&bytes).map_or((None, 0), |(at, len)| (Some(at), len));
                self.begin(line.number, timestamp, &bytes[start..], ready);
                return;
            }
        };
        if open.bytes.len() + bytes.len() >= self.command_bytes_max {
            open.fault = Some(Fault::TooLong { max: self.command_bytes_max });
            open.bytes = Vec::new();
            self.open = Some(open);
            return;
        }
        open.bytes.push(b'\n');
        self.go_on(open, &bytes, ready);
    }

    fn begin(
        &mut self,
        line: u64,
        timestamp: Option<u64>,
        bytes: &[u8],
        ready: &mut VecDeque<Result<Entry, BadLine>>,
    ) {
        self.go_on(Open { line, timestamp, bytes: Vec::new(), fault: None }, bytes, ready);
    }

    /// Adds one line's part of a command.
    fn go_on(
        &mut self,
        mut open: Open,
        bytes: &[u8],
        ready: &mut VecDeque<Result<Entry, BadLine>>,
    ) {
        if let Some(part) = bytes.strip_suffix(b"\\") {
            open.bytes.extend_from_slice(part);
            self.open = Some(open);
            return;
        }
        open.bytes.extend_from_slice(without_guard(bytes));
        ready.extend(open.finish());
    }

    /// What the end of the history completes.
    pub(crate) fn end(&mut self) -> Option<Result<Entry, BadLine>> {
        self.open.take().and_then(Open::finish)
    }
}

impl Open {
    /// The entry, or why there is none; nothing of an empty command.
    fn finish(self) -> Option<Result<Entry, BadLine>> {
        let Self { line, timestamp, bytes, fault } = self;
        let text = match fault {
            Some(fault) => Err(fault),
            None => String::from_utf8(unmetafied(&bytes)).map_err(|_| Fault::NotUtf8),
        };
        match text {
            Ok(raw_command) if raw_command.trim().is_empty() => None,
            Ok(raw_command) => Some(Ok(Entry { line, raw_command, timestamp, ..Entry::default() })),
            Err(fault) => Some(Err(BadLine { line, why: fault.to_string() })),
        }
    }
}

/// The time of a line `: START:ELAPSED;command` in nanoseconds, and where the command begins.
pub(crate) fn timed(line: &[u8]) -> Option<(u64, usize)> {
    let rest = line.strip_prefix(b": ")?;
    let (start, rest) = digits(rest)?;
    let (_, rest) = digits(rest.strip_prefix(b":")?)?;
    let command = rest.strip_prefix(b";")?;
    let seconds = std::str::from_utf8(start).ok()?.parse::<u64>().ok()?;
    Some((seconds.checked_mul(1_000_000_000)?, line.len() - command.len()))
}

fn digits(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (len > 0).then(|| bytes.split_at(len))
}

/// The line without the space that keeps a backslash at its end from going on in the next line.
fn without_guard(line: &[u8]) -> &[u8] {
    let spaces = line.iter().rev().take_while(|byte| **byte == b' ').count();
    let text = &line[..line.len() - spaces];
    if spaces > 0 && text.ends_with(b"\\") { &line[..line.len() - 1] } else { line }
}

fn unmetafied(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut bytes = bytes.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, bytes.as_slice().first()) {
            (META, Some(next)) => {
                out.push(next ^ 32);
                bytes.next();
            }
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    /// Line, command and seconds of each entry.
    fn commands(history: &[u8]) -> Vec<(u64, String, Option<u64>)> {
        let mut source = Source::new(history, 1 << 20).unwrap();
        std::iter::from_fn(|| source.next_entry().unwrap())
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.line, entry.raw_command, entry.timestamp.map(|ns| ns / 1_000_000_000))
            })
            .collect()
    }

    /// As zsh writes it (`Src/hist.c`, `savehistfile`, and `metafy`).
    fn written(start: u64, command: &str) -> Vec<u8> {
        let mut out = format!(": {start}:3;").into_bytes();
        for &byte in command.as_bytes() {
            match byte {
                b'\n' => out.extend(b"\\\n"),
                0 | 0x83..=0xa2 => out.extend([META, byte ^ 32]),
                _ => out.push(byte),
            }
        }
        if command.ends_with('\\') || command.trim_end_matches(' ').ends_with('\\') {
            out.push(b' ');
        }
        out.push(b'\n');
        out
    }

    #[test]
    fn what_zsh_writes_is_read_back() {
        let all = [
            "ls -l",
            "for i in 1 2\ndo\n\n  echo $i\ndone",
            "echo ü ß 漢字 🦀 \u{83} \0",
            "echo \\\\",
            "printf 'a\\\nb' \\",
            "echo \\ ",
            ": 5:6;true",
            "trailing spaces   ",
        ];
        let mut history = Vec::new();
        let mut due = Vec::new();
        let mut line = 1;
        for (start, command) in (100..).zip(all) {
            history.extend(written(start, command));
            due.push((line, command.to_owned(), Some(start)));
            line += 1 + command.matches('\n').count() as u64;
        }
        assert_eq!(commands(&history), due);
    }

    #[test]
    fn commands_without_a_time_are_taken_and_empty_ones_are_not() {
        let history = b": 100:0;ls\npwd\n\n: 200:0;\n: 300:0;a\\\nb\n: 99999999999999999999:0;x\n";
        assert_eq!(
            commands(history),
            [
                (1, "ls".into(), Some(100)),
                (2, "pwd".into(), None),
                (5, "a\nb".into(), Some(300)),
                (7, ": 99999999999999999999:0;x".into(), None),
            ]
        );
        assert_eq!(commands(b": 100:0;cut\\\noff\\"), [(1, "cut\noff".into(), Some(100))]);
    }

    #[test]
    fn what_cannot_be_used_is_named_and_ends_with_the_next_time() {
        let long = [b'x'; 50];
        let history = [
            &b": 100:0;\xff\n: 200:0;"[..],
            &long,
            b"\\\nof it\n: 300:0;many\\\n",
            &long[..30],
            b"\\\nlines\n: 400:0;ls\n",
        ]
        .concat();
        let mut source = Source::new(&history[..], 40).unwrap();
        let found: Vec<_> = std::iter::from_fn(|| source.next_entry().unwrap())
            .map(|entry| entry.map(|entry| entry.raw_command).map_err(|bad| (bad.line, bad.why)))
            .collect();
        let too_long = || "longer than 40 bytes".to_owned();
        assert_eq!(
            found,
            [
                Err((1, "not UTF-8".to_owned())),
                Err((2, too_long())),
                Err((4, too_long())),
                Ok("ls".to_owned())
            ]
        );
    }
}
