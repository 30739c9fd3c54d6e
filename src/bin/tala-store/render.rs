//! Text for people: tables that fit the terminal, and history that cannot harm it.
//!
//! A command in a history may hold escape sequences that move the cursor, rename the window or
//! hide text. Everything that comes from a store or a file goes through [`escape`] on its way to a
//! person.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

use console::{Alignment, measure_text_width, pad_str, style, truncate_str};
use jiff::tz::TimeZone;
use tala_core::{Intent, Outcome, Status};

use crate::when;

/// Columns between two cells.
const GAP: usize = 2;
/// The elastic column is never squeezed below this, even if lines then exceed the terminal.
const ELASTIC_WIDTH_MIN: usize = 12;
/// From this width on an id has room beside the command; below, it goes on a line of its own.
const WIDE: usize = 120;

/// `text` with everything that is not plain printable text written as an escape.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            '\r' => escaped.push_str("\\r"),
            c if is_unsafe(c) => {
                // Writing to a `String` cannot fail.
                let _ = match u32::from(c) {
                    code @ 0..=0xff => write!(escaped, "\\x{code:02x}"),
                    code => write!(escaped, "\\u{{{code:x}}}"),
                };
            }
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Control characters, and the invisible ones that reorder, join or hide what stands around them.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            u32::from(c),
            0x00ad | 0x061c | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff
                | 0xfff9..=0xfffb | 0xe0000..=0xe007f
        )
}

/// The width of standard output in columns; `None` where it is not a terminal and nothing needs
/// to be elided.
pub(crate) fn terminal_width() -> Option<usize> {
    let (_, columns) = console::Term::stdout().size_checked()?;
    Some(usize::from(columns))
}

/// One column of a [`Table`].
pub(crate) struct Column {
    title: &'static str,
    alignment: Alignment,
}

impl Column {
    pub(crate) const fn left(title: &'static str) -> Self {
        Self { title, alignment: Alignment::Left }
    }

    pub(crate) const fn right(title: &'static str) -> Self {
        Self { title, alignment: Alignment::Right }
    }
}

/// A table; the elastic column gives way where the terminal is too narrow.
pub(crate) struct Table {
    columns: Vec<Column>,
    elastic_index: usize,
    rows: Vec<Row>,
}

struct Row {
    /// One text for each column, already escaped, possibly with colours.
    cells: Vec<String>,
    /// A line of its own below the elastic cell.
    below: Option<String>,
}

impl Table {
    pub(crate) fn new(columns: Vec<Column>, elastic_index: usize) -> Self {
        Self { columns, elastic_index, rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, cells: Vec<String>, below: Option<String>) {
        self.rows.push(Row { cells, below });
    }

    /// Writes the table, each line at most `width` columns wide where a width is given.
    pub(crate) fn write(&self, out: &mut dyn Write, width: Option<usize>) -> io::Result<()> {
        let widths = self.widths(width);
        let titles: Vec<String> =
            self.columns.iter().map(|column| style(column.title).bold().to_string()).collect();
        self.write_line(out, &titles, &widths)?;
        let indent: usize = widths.iter().take(self.elastic_index).map(|width| width + GAP).sum();
        for row in &self.rows {
            self.write_line(out, &row.cells, &widths)?;
            if let Some(below) = &row.below {
                writeln!(out, "{:indent$}{}", "", style(below).dim())?;
            }
        }
        Ok(())
    }

    /// The width of each column: that of its widest cell, the elastic one cut to what is left.
    fn widths(&self, width: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> =
            self.columns.iter().map(|column| measure_text_width(column.title)).collect();
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(&row.cells) {
                *widest = (*widest).max(measure_text_width(cell));
            }
        }
        if let Some(width) = width {
            let fixed: usize = widths.iter().sum::<usize>() + GAP * (widths.len() - 1)
                - widths[self.elastic_index];
            let left = width.saturating_sub(fixed).max(ELASTIC_WIDTH_MIN);
            widths[self.elastic_index] = widths[self.elastic_index].min(left);
        }
        widths
    }

    fn write_line(
        &self,
        out: &mut dyn Write,
        cells: &[String],
        widths: &[usize],
    ) -> io::Result<()> {
        let mut line = String::new();
        for (index, ((cell, column), &width)) in
            cells.iter().zip(&self.columns).zip(widths).enumerate()
        {
            if index > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let cell = truncate_str(cell, width, "…");
            line.push_str(&pad_str(&cell, width, column.alignment, None));
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// Whether a table of intents shows their ids.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum IdColumn {
    Shown,
    Hidden,
}

/// Writes intents as a table, with their similarity where they have one.
pub(crate) fn write_intents(
    out: &mut dyn Write,
    intents: &[(Option<f32>, Intent)],
    id_column: IdColumn,
    width: Option<usize>,
) -> io::Result<()> {
    if intents.is_empty() {
        return Ok(());
    }
    let zone = TimeZone::system();
    let with_similarity = intents.iter().any(|(similarity, _)| similarity.is_some());
    let is_id_shown = id_column == IdColumn::Shown;
    let id_has_room = is_id_shown && width.is_none_or(|width| width >= WIDE);

    let mut columns = Vec::new();
    if with_similarity {
        columns.push(Column::right("match"));
    }
    columns.extend([Column::left("time"), Column::left("outcome")]);
    let command_index = columns.len();
    columns.push(Column::left("command"));
    if id_has_room {
        // The id comes before the command, so that the ids stand in one straight column.
        columns.insert(command_index, Column::left("id"));
    }
    let elastic_index = columns.len() - 1;
    let mut table = Table::new(columns, elastic_index);
    for (similarity, intent) in intents {
        let mut cells = Vec::new();
        if with_similarity {
            cells.push(similarity.map_or_else(String::new, |value| format!("{value:.3}")));
        }
        cells.push(when::for_people(intent.timestamp, &zone));
        cells.push(outcome_cell(intent.outcome));
        let id = intent.id.to_string();
        if id_has_room {
            cells.push(style(&id).dim().to_string());
        }
        let below = (is_id_shown && !id_has_room).then_some(id);
        cells.push(escape(&intent.raw_command).into_owned());
        table.push(cells, below);
    }
    table.write(out, width)
}

/// An outcome in a word: `ok`, `exit 137`, `partial`, or `-` where none is known.
pub(crate) fn outcome_cell(outcome: Option<Outcome>) -> String {
    match outcome {
        None => style("-").dim().to_string(),
        Some(outcome) => match outcome.status {
            Status::Success => style("ok").green().to_string(),
            Status::Failure => style(format!("exit {}", outcome.exit_code)).red().to_string(),
            Status::Partial => style("partial").yellow().to_string(),
            Status::Pending => "pending".to_owned(),
        },
    }
}

/// A number of bytes in the unit that leaves one to four digits.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// A duration in the unit that leaves one to three digits before the point.
pub(crate) fn duration(ns: u64) -> String {
    let value = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_history_is_shown_as_text() {
        assert_eq!(escape("ls -la größe 日本"), "ls -la größe 日本");
        assert_eq!(escape("a\n\tb\r"), "a\\n\\tb\\r");
        assert_eq!(escape("\x1b]0;title\x07"), "\\x1b]0;title\\x07");
        assert_eq!(escape("\u{9b}31m"), "\\x9b31m");
        assert_eq!(escape("a\u{202e}b\u{200b}c"), "a\\u{202e}b\\u{200b}c");
    }

    #[test]
    fn a_table_fits_its_width_and_says_where_it_cut() {
        let mut table = Table::new(vec![Column::right("n"), Column::left("command")], 1);
        table.push(vec!["1".into(), "short".into()], None);
        table.push(vec!["22".into(), "日本語 and a long command line".into()], Some("id".into()));
        for width in [16, 20, 30] {
            let mut out = Vec::new();
            table.write(&mut out, Some(width)).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(text.lines().all(|line| measure_text_width(line) <= width), "{width}\n{text}");
            assert!(text.contains('…') && text.contains(" 1  short"), "{text}");
        }
        let mut out = Vec::new();
        table.write(&mut out, None).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("22  日本語 and a long command line"));
    }

    #[test]
    fn durations_have_a_unit_that_fits() {
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_500), "1.5 us");
        assert_eq!(duration(2_340_000), "2.34 ms");
        assert_eq!(duration(61_000_000_000), "61.00 s");
    }
}
