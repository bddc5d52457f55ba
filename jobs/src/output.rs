//! What commands print: tables for people, JSON and CSV for programs.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use serde_json::{Map, Value};

/// How a command prints its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// An array of objects.
    Json,
    /// With a header line.
    Csv,
}

/// Whether cells that a spreadsheet would run are made plain text (`--csv-safe`).
static CSV_SAFE: AtomicBool = AtomicBool::new(false);

/// From here on CSV is for spreadsheets.
pub(crate) fn make_csv_safe() {
    CSV_SAFE.store(true, Ordering::Relaxed);
}

/// Rows of equal columns.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Value>>,
}

impl Listing {
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|c| (*c).to_owned()).collect(), rows: Vec::new() }
    }

    pub(crate) fn print(&self, format: Format) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match format {
            Format::Table => writeln!(out, "{}", self.table()),
            Format::Json => {
                let objects: Vec<Value> = self
                    .rows
                    .iter()
                    .map(|row| self.columns.iter().cloned().zip(row.iter().cloned()).collect::<Map<_, _>>().into())
                    .collect();
                writeln!(out, "{}", serde_json::to_string_pretty(&objects)?)
            }
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(out);
                csv.write_record(&self.columns)?;
                for row in &self.rows {
                    csv.write_record(row.iter().map(cell))?;
                }
                csv.flush()
            }
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        table.set_header(&self.columns);
        for row in &self.rows {
            table.add_row(row.iter().map(|value| visible(&plain(value)).into_owned()));
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            if self.rows.iter().all(|row| row.get(index).is_some_and(|v| v.is_number() || v.is_null())) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A cell of CSV: lines and tabs stay, since it is quoted; what would steer a terminal does not.
fn cell(value: &Value) -> String {
    let text = plain(value);
    let text = escaped(&text, |c| is_steering(c) && !['\n', '\t'].contains(&c)).into_owned();
    let runs = text.starts_with(['=', '+', '-', '@', '\t']) && !value.is_number();
    if runs && CSV_SAFE.load(Ordering::Relaxed) { format!("'{text}") } else { text }
}

/// Characters that move a cursor, colour, hide, or turn text around on a screen, instead of standing there.
fn is_steering(c: char) -> bool {
    // Controls, and the marks of bidirectional text (Unicode annex 9).
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// A text on one line of a screen, from any source: what would steer the terminal is spelled out.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_steering)
}

/// Whether a name is what it looks like: no space around it, and nothing that steers a screen.
pub(crate) fn is_plain_name(name: &str) -> bool {
    name.trim() == name && !name.contains(is_steering)
}

/// A line of data.
pub(crate) fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// A line for people, beside the data.
pub(crate) fn complain(line: &str) {
    // There is no one to tell when stderr is closed.
    drop(writeln!(io::stderr().lock(), "{}", escaped(line, |c| is_steering(c) && c != '\n')));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_a_client_named_steers_a_terminal_or_a_spreadsheet() {
        assert_eq!(visible("\u{1b}]0;mine\u{7}\r\nä€"), "\\u{1b}]0;mine\\u{7}\\r\\nä€");
        assert_eq!(visible("a\u{202e}b"), "a\\u{202e}b");
        assert!(matches!(visible("plain text"), Cow::Borrowed(_)));
        assert_eq!(cell(&json!("two\nlines\u{1b}[2J")), "two\nlines\\u{1b}[2J");
        for (name, is_plain) in [("Schule Süd", true), (" acme", false), ("acme\n", false), ("ac\u{202e}me", false)] {
            assert_eq!(is_plain_name(name), is_plain, "{name:?}");
        }
        assert_eq!(cell(&json!("=1+1")), "=1+1");
        make_csv_safe();
        assert_eq!(
            (cell(&json!("=1+1")), cell(&json!(-5)), cell(&json!("-x"))),
            ("'=1+1".into(), "-5".into(), "'-x".into())
        );
    }
}
