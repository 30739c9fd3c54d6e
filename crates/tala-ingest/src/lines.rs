//! Lines of bytes that nobody vouches for: bounded in length, checked to be UTF-8.

use std::io::{self, BufRead};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// One line, without its end.
#[derive(Debug)]
pub struct Line {
    /// Counting from 1.
    pub number: u64,
    /// The text, or why it cannot be used.
    pub text: Result<String, Fault>,
}

/// One line as it is, without its end.
#[derive(Debug)]
pub(crate) struct RawLine {
    /// Counting from 1.
    pub(crate) number: u64,
    /// The bytes, or why they cannot be used.
    pub(crate) bytes: Result<Vec<u8>, Fault>,
}

/// Why a line cannot be used.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Its bytes are no text.
    #[error("not UTF-8")]
    NotUtf8,
    /// It is longer than what is taken.
    #[error("longer than {max} bytes")]
    TooLong {
        /// The bytes of the longest line that is taken.
        max: usize,
    },
}

/// The lines of a reader. Memory is bounded by the longest line taken; longer ones are skipped.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    line_bytes_max: usize,
    line_count: u64,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `reader`; those above `line_bytes_max` bytes are skipped.
    pub fn new(reader: R, line_bytes_max: usize) -> Self {
        Self { reader, line_bytes_max, line_count: 0 }
    }

    /// The next line; `None` at the end. The last line needs no line feed.
    ///
    /// # Errors
    /// What the reader says.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        let line = self.next_raw()?;
        Ok(line.map(|RawLine { number, bytes }| {
            let decoded = |bytes| String::from_utf8(bytes).map_err(|_| Fault::NotUtf8);
            Line { number, text: bytes.and_then(decoded) }
        }))
    }

    /// [`Lines::next_line`] for bytes that are no text yet.
    pub(crate) fn next_raw(&mut self) -> io::Result<Option<RawLine>> {
        let mut bytes = Vec::new();
        let mut is_too_long = false;
        let mut is_started = false;
        loop {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if buffer.is_empty() {
                break;
            }
            is_started = true;
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            is_too_long |= bytes.len() + part.len() > self.line_bytes_max;
            if is_too_long {
                bytes = Vec::new();
            } else {
                bytes.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !is_started {
            return Ok(None);
        }
        self.line_count += 1;
        let bytes = if is_too_long {
            Err(Fault::TooLong { max: self.line_bytes_max })
        } else {
            Ok(self.without_marks(bytes))
        };
        Ok(Some(RawLine { number: self.line_count, bytes }))
    }

    /// Without the carriage return and the byte order mark that some systems add.
    fn without_marks(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
        if self.line_count == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn splits_bounds_and_checks() {
        let bytes: &[u8] = b"\xef\xbb\xbfone\r\n\n\xffthree\nfour is too long\nfive is it";
        for capacity in [1, 3, 100] {
            let mut lines = Lines::new(BufReader::with_capacity(capacity, bytes), 10);
            let mut all = Vec::new();
            while let Some(line) = lines.next_line().unwrap() {
                all.push((line.number, line.text));
            }
            assert_eq!(
                all,
                [
                    (1, Ok("one".to_owned())),
                    (2, Ok(String::new())),
                    (3, Err(Fault::NotUtf8)),
                    (4, Err(Fault::TooLong { max: 10 })),
                    (5, Ok("five is it".to_owned())),
                ]
            );
        }
    }
}
