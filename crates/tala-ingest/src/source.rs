//! Where intents come from: a history of bash, zsh or fish, or JSON Lines, told apart by what they
//! hold.
//!
//! A source is read as a stream. What cannot be used is named with its line and does not stop what
//! comes after it.

use std::{
    collections::VecDeque,
    io::{self, BufReader, Chain, Cursor, Read},
};

use tala_core::{IntentId, Outcome};

use crate::{
    fish::{self, Fish},
    json,
    lines::{Fault, Line, Lines, RawLine},
    zsh::{self, Zsh},
};

/// How much of a source is looked at to tell its format.
const SAMPLE_BYTES: u64 = 64 * 1024;
/// How many lines of that sample have a say.
const SAMPLE_LINES: usize = 64;
/// Nothing takes more than six times the bytes in JSON that it takes in a record (a control
/// character, `\u0001`, does), so a line of JSON may have so many times the bytes of a record.
const JSON_BYTES_FACTOR: usize = 6;

/// One command of a source, with what the source says about it.
#[derive(Debug, Default, PartialEq)]
pub struct Entry {
    /// The line it starts on, counting from 1.
    pub line: u64,
    /// The command as it was typed.
    pub raw_command: String,
    /// Its identity.
    pub id: Option<IntentId>,
    /// Nanoseconds since the epoch.
    pub timestamp: Option<u64>,
    /// The embedding, of whatever dimension.
    pub embedding: Option<Vec<f32>>,
    /// Hash of the context, 0 where there is none.
    pub context_hash: u64,
    /// Parents, in order.
    pub parent_ids: Vec<IntentId>,
    /// What came of it.
    pub outcome: Option<Outcome>,
    /// How sure the recorder is.
    pub confidence: Option<f32>,
}

/// A line that holds no intent, and why.
#[derive(Debug, PartialEq)]
pub struct BadLine {
    /// The line, counting from 1.
    pub line: u64,
    /// Why there is no intent in it.
    pub why: String,
}

/// The entries of one source, in order.
///
/// Reading takes up to three times the longest line of memory: six times `record_bytes_max` where
/// the source is JSON, and `record_bytes_max` in a history.
#[derive(Debug)]
pub struct Source<R: Read> {
    lines: Lines<BufReader<Chain<Cursor<Vec<u8>>, R>>>,
    format: Format,
    /// The time of the last `#epoch` line, nanoseconds since the epoch.
    epoch_ns: Option<u64>,
    /// The command that is being put together from the lines after an `#epoch` line.
    command: Option<Command>,
    /// The longest command that is taken from a history, of one line or several.
    command_bytes_max: usize,
    zsh: Zsh,
    fish: Fish,
    /// What the last line of a history of zsh or fish completed.
    ready: VecDeque<Result<Entry, BadLine>>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Format {
    BashHistory,
    ZshHistory,
    FishHistory,
    JsonLines,
}

/// A command of a history with times: all lines up to the next `#epoch` line.
#[derive(Debug)]
struct Command {
    line: u64,
    text: String,
    /// The first line that cannot be used spoils the whole command.
    spoiled: Option<BadLine>,
}

impl<R: Read> Source<R> {
    /// Reads enough of `reader` to tell its format. What no record of `record_bytes_max` bytes
    /// could hold is a bad line.
    ///
    /// # Errors
    /// What the reader says.
    pub fn new(mut reader: R, record_bytes_max: usize) -> io::Result<Self> {
        let mut sample = Vec::new();
        reader.by_ref().take(SAMPLE_BYTES).read_to_end(&mut sample)?;
        let format = recognise(&sample);
        let whole = BufReader::with_capacity(64 * 1024, Cursor::new(sample).chain(reader));
        let line_bytes_max = match format {
            Format::BashHistory | Format::ZshHistory | Format::FishHistory => record_bytes_max,
            Format::JsonLines => record_bytes_max.saturating_mul(JSON_BYTES_FACTOR),
        };
        let lines = Lines::new(whole, line_bytes_max);
        let command_bytes_max = record_bytes_max;
        Ok(Self {
            lines,
            format,
            epoch_ns: None,
            command: None,
            command_bytes_max,
            zsh: Zsh::new(command_bytes_max),
            fish: Fish::default(),
            ready: VecDeque::new(),
        })
    }

    /// The next entry or bad line; `None` at the end.
    ///
    /// # Errors
    /// What the reader says.
    pub fn next_entry(&mut self) -> io::Result<Option<Result<Entry, BadLine>>> {
        match self.format {
            Format::JsonLines => self.next_json(),
            Format::BashHistory => self.next_command(),
            Format::ZshHistory => self.next_of_zsh(),
            Format::FishHistory => self.next_of_fish(),
        }
    }

    fn next_of_zsh(&mut self) -> io::Result<Option<Result<Entry, BadLine>>> {
        while self.ready.is_empty() {
            match self.lines.next_raw()? {
                Some(line) => self.zsh.add(line, &mut self.ready),
                None => return Ok(self.zsh.end()),
            }
        }
        Ok(self.ready.pop_front())
    }

    fn next_of_fish(&mut self) -> io::Result<Option<Result<Entry, BadLine>>> {
        while self.ready.is_empty() {
            match self.lines.next_line()? {
                Some(line) => self.fish.add(line, &mut self.ready),
                None => return Ok(self.fish.end()),
            }
        }
        Ok(self.ready.pop_front())
    }

    fn next_json(&mut self) -> io::Result<Option<Result<Entry, BadLine>>> {
        while let Some(Line { number, text }) = self.lines.next_line()? {
            match text {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => return Ok(Some(json_entry(number, &text))),
                Err(fault) => return Ok(Some(Err(bad(number, &fault)))),
            }
        }
        Ok(None)
    }

    fn next_command(&mut self) -> io::Result<Option<Result<Entry, BadLine>>> {
        while let Some(line) = self.lines.next_line()? {
            if let Some(epoch_ns) = line.text.as_ref().ok().and_then(|text| epoch_ns(text)) {
                let finished = self.finish_command();
                self.epoch_ns = Some(epoch_ns);
                if finished.is_some() {
                    return Ok(finished);
                }
            } else if self.epoch_ns.is_some() {
                self.add_to_command(line);
            } else {
                match line.text {
                    Ok(text) if text.trim().is_empty() => {}
                    Ok(raw_command) => {
                        let entry = Entry { line: line.number, raw_command, ..Entry::default() };
                        return Ok(Some(Ok(entry)));
                    }
                    Err(fault) => return Ok(Some(Err(bad(line.number, &fault)))),
                }
            }
        }
        Ok(self.finish_command())
    }

    fn add_to_command(&mut self, line: Line) {
        let Some(command) = &mut self.command else {
            let (text, spoiled) = match line.text {
                Ok(text) => (text, None),
                Err(fault) => (String::new(), Some(bad(line.number, &fault))),
            };
            self.command = Some(Command { line: line.number, text, spoiled });
            return;
        };
        if command.spoiled.is_some() {
            return;
        }
        let fault = match line.text {
            Ok(text) if command.text.len() + text.len() < self.command_bytes_max => {
                command.text.push('\n');
                command.text.push_str(&text);
                return;
            }
            Ok(_) => Fault::TooLong { max: self.command_bytes_max },
            Err(fault) => fault,
        };
        command.spoiled = Some(bad(line.number, &fault));
        command.text = String::new();
    }

    fn finish_command(&mut self) -> Option<Result<Entry, BadLine>> {
        let Command { line, mut text, spoiled } = self.command.take()?;
        if let Some(bad_line) = spoiled {
            return Some(Err(bad_line));
        }
        text.truncate(text.trim_end_matches('\n').len());
        if text.trim().is_empty() {
            return None;
        }
        let timestamp = self.epoch_ns;
        Some(Ok(Entry { line, raw_command: text, timestamp, ..Entry::default() }))
    }
}

/// What the first lines look like. A history that begins as its shell begins an entry with a time is
/// one of that shell, whatever its commands hold. JSON Lines are where at least half of the lines
/// begin like an object with a field, which no command does; a history of zsh is also where at least
/// half of the lines that begin a command have a time: older commands may have none.
fn recognise(sample: &[u8]) -> Format {
    let mut lines = Lines::new(sample, SAMPLE_BYTES as usize);
    let (mut count, mut objects) = (0, 0);
    let (mut commands, mut timed) = (0, 0);
    let mut goes_on = false;
    while let Ok(Some(RawLine { bytes, .. })) = lines.next_raw() {
        let bytes = bytes.unwrap_or_default();
        let is_timed = zsh::timed(&bytes).is_some();
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        if count == 0 {
            let begun = [
                (epoch_ns(text).is_some(), Format::BashHistory),
                (is_timed, Format::ZshHistory),
                (fish::begins_entry(text), Format::FishHistory),
            ];
            if let Some((_, format)) = begun.into_iter().find(|(is_begun, _)| *is_begun) {
                return format;
            }
        }
        timed += usize::from(is_timed);
        commands += usize::from(!goes_on && !bytes.trim_ascii().is_empty());
        goes_on = bytes.ends_with(b"\\");
        if text.trim().is_empty() {
            continue;
        }
        count += 1;
        let rest = text.trim_start().strip_prefix('{').map(str::trim_start);
        objects += usize::from(rest.is_some_and(|rest| rest.starts_with(['"', '}'])));
        if count == SAMPLE_LINES {
            break;
        }
    }
    if objects > 0 && objects * 2 >= count {
        Format::JsonLines
    } else if timed > 0 && timed * 2 >= commands {
        Format::ZshHistory
    } else {
        Format::BashHistory
    }
}

/// The time in a line such as `#1700000000`, in nanoseconds; `None` for any other line.
fn epoch_ns(line: &str) -> Option<u64> {
    let digits = line.strip_prefix('#')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1_000_000_000)
}

fn json_entry(line: u64, text: &str) -> Result<Entry, BadLine> {
    let intent = json::parse_intent(text).map_err(|why| BadLine { line, why })?;
    Ok(Entry {
        line,
        id: intent.id.map(IntentId),
        timestamp: intent.timestamp,
        context_hash: intent.context_hash.unwrap_or(0),
        parent_ids: intent.parent_ids(),
        outcome: intent.outcome.as_ref().map(json::OutcomeIn::outcome),
        confidence: intent.confidence,
        embedding: intent.embedding,
        raw_command: intent.raw_command,
    })
}

fn bad(line: u64, fault: &Fault) -> BadLine {
    BadLine { line, why: fault.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD_BYTES_MAX: usize = 1 << 20;

    fn read(bytes: &[u8]) -> Vec<Result<Entry, BadLine>> {
        let mut source = Source::new(bytes, RECORD_BYTES_MAX).unwrap();
        std::iter::from_fn(|| source.next_entry().unwrap()).collect()
    }

    /// Line, command and time in seconds of each entry.
    fn commands(text: &str) -> Vec<(u64, String, Option<u64>)> {
        read(text.as_bytes())
            .into_iter()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.line, entry.raw_command, entry.timestamp.map(|ns| ns / 1_000_000_000))
            })
            .collect()
    }

    #[test]
    fn a_plain_history_has_one_command_per_line() {
        assert_eq!(
            commands("ls\n\n# a comment\n#12a\r\n  cd src"),
            [
                (1, "ls".into(), None),
                (3, "# a comment".into(), None),
                (4, "#12a".into(), None),
                (5, "  cd src".into(), None)
            ]
        );
    }

    #[test]
    fn a_history_with_times_has_commands_of_several_lines() {
        assert_eq!(
            commands("old\n#100\nfor i in 1 2\ndo\n\n  echo $i\ndone\n#200\n#300\nls\n\n"),
            [
                (1, "old".into(), None),
                (3, "for i in 1 2\ndo\n\n  echo $i\ndone".into(), Some(100)),
                (10, "ls".into(), Some(300)),
            ]
        );
    }

    #[test]
    fn a_number_no_clock_can_show_is_a_command() {
        assert_eq!(
            commands("#99999999999999999999\n"),
            [(1, "#99999999999999999999".into(), None)]
        );
    }

    #[test]
    fn formats_are_told_apart_by_content() {
        assert_eq!(recognise(b"{ echo hi; }\nls\n"), Format::BashHistory);
        assert_eq!(recognise(b"#100\n{\"a\": 1}\n"), Format::BashHistory);
        assert_eq!(recognise(b"ls\ncat <<EOF\n{\"a\": 1}\nEOF\n"), Format::BashHistory);
        assert_eq!(recognise(b""), Format::BashHistory);
        assert_eq!(recognise(b"\xef\xbb\xbf\n { \"raw_command\": \"ls\"}\n"), Format::JsonLines);
        assert_eq!(recognise(b"no json\n{\"raw_command\": \"ls\"}\n"), Format::JsonLines);
        assert_eq!(recognise(b"{}\n"), Format::JsonLines);
        assert_eq!(recognise(b"\n: 100:0;{\"a\": 1}\n{\"b\": 1}\n"), Format::ZshHistory);
        assert_eq!(recognise(b"ls\n: 100:0;for\\\n do\\\n done\n"), Format::ZshHistory);
        assert_eq!(recognise(b"ls\ncat\n: 100:0;true\n"), Format::BashHistory);
        assert_eq!(recognise(b"#100\n: 100:0;true\n"), Format::BashHistory);
        assert_eq!(recognise(b": 100;true\n:100:0;true\n"), Format::BashHistory);
        assert_eq!(recognise(b"- cmd: {\"a\": 1}\n  when: 1\n"), Format::FishHistory);
        assert_eq!(recognise(b"- cmd:ls\n"), Format::BashHistory);
        assert_eq!(recognise(b"\xff garbage\n{\"raw_command\": \"ls\"}\n"), Format::JsonLines);
    }

    #[test]
    fn a_bad_line_does_not_stop_the_rest() {
        let entries = read(b"{\"raw_command\": \"a\"}\n{\"raw_c\n\xff\n\n{\"raw_command\": \"b\"}");
        let lines: Vec<_> = entries
            .iter()
            .map(|entry| entry.as_ref().map(|e| e.line).map_err(|bad| bad.line))
            .collect();
        assert_eq!(lines, [Ok(1), Err(2), Err(3), Ok(5)]);

        let entries = read(b"#100\necho a\n\xff\necho b\n#200\nls\n");
        assert_eq!(entries[0].as_ref().unwrap_err().line, 3);
        assert_eq!(entries[1].as_ref().unwrap().raw_command, "ls");
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn a_command_of_many_lines_is_bounded() {
        let mut text = b"#100\n".to_vec();
        for _ in 0..RECORD_BYTES_MAX / 1000 + 2 {
            text.extend([b'x'; 999]);
            text.push(b'\n');
        }
        text.extend(b"#200\nls\n");
        let entries = read(&text);
        assert!(entries[0].as_ref().unwrap_err().why.contains("longer"));
        assert_eq!(entries[1].as_ref().unwrap().raw_command, "ls");
    }
}
