//! Histories of fish: `- cmd: command`, and below it, indented, `when: SECONDS` and `paths:`.
//!
//! It looks like YAML and is not: of a command only backslashes and line feeds are escaped, as `\\`
//! and `\n`, and nothing is quoted (`src/history`, `escape_yaml_fish_2_0`). Fields other than `when`
//! are passed over.

use std::collections::VecDeque;

use crate::{
    lines::Line,
    source::{BadLine, Entry},
};

/// How an entry begins.
const COMMAND: &str = "- cmd:";

/// The commands of a history, put together line by line.
#[derive(Debug, Default)]
pub(crate) struct Fish {
    open: Option<Result<Entry, BadLine>>,
}

/// Whether an entry begins with this line.
pub(crate) fn begins_entry(line: &str) -> bool {
    line.strip_prefix(COMMAND).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

impl Fish {
    /// Takes the next line; what is complete comes after what is in `ready`.
    pub(crate) fn add(&mut self, line: Line, ready: &mut VecDeque<Result<Entry, BadLine>>) {
        let number = line.number;
        match line.text {
            Ok(text) if begins_entry(&text) => {
                ready.extend(self.end());
                let command = &text[COMMAND.len()..];
                let raw_command = unescaped(command.strip_prefix(' ').unwrap_or(command));
                self.open = Some(Ok(Entry { line: number, raw_command, ..Entry::default() }));
            }
            Ok(text) if text.starts_with(' ') || text.is_empty() => {
                if let (Some(Ok(entry)), Some(when)) = (&mut self.open, when_ns(&text)) {
                    entry.timestamp = Some(when);
                }
            }
            Ok(_) => {
                ready.extend(self.end());
                let why = "not an entry of a fish history".to_owned();
                ready.push_back(Err(BadLine { line: number, why }));
            }
            // Perhaps of the entry before, perhaps of one of its own: either is worth a word.
            Err(fault) => {
                ready.extend(self.end());
                self.open = Some(Err(BadLine { line: number, why: fault.to_string() }));
            }
        }
    }

    /// What the end of the history, or of an entry, completes; nothing of an empty command.
    pub(crate) fn end(&mut self) -> Option<Result<Entry, BadLine>> {
        self.open
            .take()
            .filter(|entry| !matches!(entry, Ok(entry) if entry.raw_command.trim().is_empty()))
    }
}

/// The time in a line such as `  when: 1700000000`, in nanoseconds.
fn when_ns(line: &str) -> Option<u64> {
    let seconds = line.trim().strip_prefix("when:")?.trim_start();
    if !seconds.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)
}

/// `\\` and `\n` as what they stand for; any other backslash as it is.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match (char, chars.peek()) {
            ('\\', Some('\\')) => {
                chars.next();
                out.push('\\');
            }
            ('\\', Some('n')) => {
                chars.next();
                out.push('\n');
            }
            _ => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    fn read(history: &str) -> Vec<Result<Entry, BadLine>> {
        let mut source = Source::new(history.as_bytes(), 1 << 20).unwrap();
        std::iter::from_fn(|| source.next_entry().unwrap()).collect()
    }

    /// As fish writes it, with paths that look like what they are not.
    fn written(when: u64, command: &str) -> String {
        let escaped = command.replace('\\', "\\\\").replace('\n', "\\n");
        format!("- cmd: {escaped}\n  when: {when}\n  paths:\n    - /tmp/when: 5\n    - cmd: ls\n")
    }

    #[test]
    fn what_fish_writes_is_read_back() {
        let all = [
            "ls -l",
            "for i in 1 2\n\n  echo $i\nend",
            "echo \\n '\\\\' ü 漢字 🦀",
            " - cmd: nested: yes",
            "trailing \\",
            "when: 7",
        ];
        let history: String =
            (100..).zip(all).map(|(when, command)| written(when, command)).collect();
        let found = read(&history);
        assert_eq!(found.len(), all.len());
        for (at, (found, command)) in (0..).zip(found.into_iter().zip(all)) {
            let due = Entry {
                line: 5 * at + 1,
                raw_command: command.to_owned(),
                timestamp: Some((100 + at) * 1_000_000_000),
                ..Entry::default()
            };
            assert_eq!(found, Ok(due));
        }
    }

    #[test]
    fn odd_entries_lose_nothing_but_what_is_odd() {
        let history = "- cmd: a\\tb\\\n  when: soon\n- cmd:\n  when: 5\nnonsense\n- cmd: b\n  when: 99999999999999999999\n\n  when: 6\n";
        let found: Vec<_> = read(history)
            .into_iter()
            .map(|entry| {
                entry
                    .map(|entry| (entry.line, entry.raw_command, entry.timestamp))
                    .map_err(|bad| (bad.line, bad.why))
            })
            .collect();
        assert_eq!(
            found,
            [
                Ok((1, "a\\tb\\".to_owned(), None)),
                Err((5, "not an entry of a fish history".to_owned())),
                Ok((6, "b".to_owned(), Some(6_000_000_000))),
            ]
        );
    }
}
