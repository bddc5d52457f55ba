//! `weir sql` without a query: a prompt with history, completion, timing and `\d`.

use std::io::{BufRead, IsTerminal};
use std::time::Instant;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper};
use weir_engine::BoxError;
use weir_history::HistoryRoot;
use weir_query::{Dialect, History};

use super::super::questions;
use super::to_rows;
use crate::data_dir::DataDir;
use crate::output::{Format, complain};

const HELP: &str = "\
Statements end with `;` and may take several lines. Tab completes tables, columns and words.
  \\d          tables and views        \\d NAME    columns of one
  \\ask        questions               \\ask NAME  one of them, as `weir ask` does; NAME=VALUE tells it more
  \\timing     show how long each took, or not
  \\?          this                    \\q         the end, as Ctrl-D";

const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "LIMIT",
    "JOIN",
    "LEFT JOIN",
    "HAVING",
    "DISTINCT",
    "BETWEEN",
    "IS NULL",
    "IS NOT NULL",
    "count(*)",
    "avg(",
    "sum(",
    "min(",
    "max(",
    "date_trunc(",
    "json_get_str(",
    "json_get_int(",
    "json_get_float(",
];

/// What the prompt knows to complete.
struct Names {
    names: Vec<String>,
}

impl Completer for Names {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..at).unwrap_or_default();
        let start = before.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |n| n + 1);
        let word = before.get(start..).unwrap_or_default().to_lowercase();
        let fits = |name: &&String| !word.is_empty() && name.to_lowercase().starts_with(&word);
        Ok((start, self.names.iter().filter(fits).cloned().collect()))
    }
}

impl Validator for Names {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input().trim();
        let whole = input.is_empty() || input.starts_with('\\') || input.ends_with(';');
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Names {
    type Hint = String;
}
impl Highlighter for Names {}
impl Helper for Names {}

/// A prompt over one history.
pub(super) struct Prompt {
    pub(super) root: HistoryRoot,
    pub(super) memory_max: usize,
    pub(super) format: Format,
    pub(super) timing: bool,
}

impl Prompt {
    /// Reads statements until the end: at a terminal with all comforts, else line by line.
    pub(super) async fn run(&mut self, dir: &DataDir) -> Result<(), BoxError> {
        if std::io::stdin().is_terminal() { self.interactive(dir).await } else { self.piped().await }
    }

    async fn interactive(&mut self, dir: &DataDir) -> Result<(), BoxError> {
        let mut editor: Editor<Names, FileHistory> = Editor::new()?;
        editor.set_helper(Some(Names { names: self.names().await? }));
        let kept = dir.join("sql_history");
        if let Err(error) = editor.load_history(&kept) {
            tracing::debug!(%error, "no earlier statements");
        }
        complain("\\? for help, \\q for the end");
        loop {
            // Waiting for a person is no work for the threads that everything runs on.
            match tokio::task::block_in_place(|| editor.readline("weir> ")) {
                Ok(input) => {
                    editor.add_history_entry(input.trim())?;
                    if !self.take(&input).await {
                        break;
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(editor.save_history(&kept)?)
    }

    /// For scripts; the first statement that fails ends it.
    async fn piped(&mut self) -> Result<(), BoxError> {
        let mut statement = String::new();
        for line in std::io::stdin().lock().lines() {
            let line = line?;
            statement.push_str(&line);
            statement.push('\n');
            if line.trim_end().ends_with(';') || statement.trim_start().starts_with('\\') {
                self.answer(&std::mem::take(&mut statement)).await?;
            }
        }
        self.answer(&statement).await.map(|_| ())
    }

    /// An error is said, and the prompt goes on; `false` at the end.
    async fn take(&mut self, input: &str) -> bool {
        self.answer(input).await.unwrap_or_else(|error| {
            complain(&format!("error: {error}"));
            true
        })
    }

    async fn answer(&mut self, input: &str) -> Result<bool, BoxError> {
        let input = input.trim().trim_end_matches(';').trim();
        let (command, argument) = input.split_once(char::is_whitespace).unwrap_or((input, ""));
        match command {
            "" => {}
            "\\q" => return Ok(false),
            "\\?" => complain(HELP),
            "\\timing" => {
                self.timing = !self.timing;
                complain(if self.timing { "timing is on" } else { "timing is off" });
            }
            "\\ask" if argument.is_empty() => questions::list()?.print(self.format)?,
            "\\ask" => self.query(&asked(argument)?).await?,
            "\\d" if argument.is_empty() => self.query(&tables()).await?,
            "\\d" => self.query(&columns_of(argument.trim())).await?,
            _ if command.starts_with('\\') => {
                return Err(format!("there is no {command}; \\? shows what there is").into());
            }
            _ => self.query(input).await?,
        }
        Ok(true)
    }

    async fn query(&self, sql: &str) -> Result<(), BoxError> {
        let started = Instant::now();
        // Opened again each time: a prompt sees what was committed since the last statement.
        let (schema, batches) = self.open().await?.sql(sql).await?;
        let taken = started.elapsed();
        let rows = to_rows(&schema, &batches)?;
        let count = rows.rows.len();
        rows.print(self.format)?;
        if self.timing {
            complain(&format!("{count} rows, {:.3} s", taken.as_secs_f64()));
        }
        Ok(())
    }

    async fn open(&self) -> Result<History, BoxError> {
        Ok(History::open(&self.root, self.memory_max).await?)
    }

    async fn names(&self) -> Result<Vec<String>, BoxError> {
        let mut names: Vec<String> = WORDS.iter().map(|word| (*word).to_owned()).collect();
        let sql = "SELECT DISTINCT name FROM (SELECT table_name AS name FROM information_schema.columns WHERE table_schema = 'public' \
                   UNION ALL SELECT column_name FROM information_schema.columns WHERE table_schema = 'public') n ORDER BY name";
        let (schema, batches) = self.open().await?.sql(sql).await?;
        names.extend(
            to_rows(&schema, &batches)?.rows.into_iter().filter_map(|row| Some(row.first()?.as_str()?.to_owned())),
        );
        Ok(names)
    }
}

/// A question's SQL.
fn asked(words: &str) -> Result<String, BoxError> {
    let mut words = words.split_whitespace().map(str::to_owned);
    let question = questions::find(&words.next().unwrap_or_default())?;
    let arguments = question.arguments(&words.collect::<Vec<_>>())?;
    let sql = question.statement(Dialect::DataFusion, &arguments);
    Ok(sql.ok_or_else(|| format!("history cannot answer {}", question.name))?)
}

fn tables() -> String {
    "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_type, table_name".to_owned()
}

fn columns_of(table: &str) -> String {
    format!(
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_schema = 'public' \
         AND table_name = '{}' ORDER BY ordinal_position",
        table.to_lowercase().replace('\'', "''")
    )
}
