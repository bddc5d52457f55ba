//! A question's file: a head of `-- key: value` lines (name, title, what it asks, parameters, columns), SQL that history and ClickHouse both
//! take, and, after the line `-- on: read-models`, SQL over the read models where they can answer.

use crate::arguments::{Arguments, Dialect, Parameter, usage};

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// text, integer, number, time, date, flag.
    pub kind: String,
    /// Such as percent, seconds, bytes; empty where the name says it, as for counts.
    pub unit: String,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its file's name.
    pub name: &'static str,
    /// For a heading.
    pub title: String,
    /// What it asks, in sentences.
    pub about: String,
    /// What it can be told.
    pub parameters: Vec<Parameter>,
    /// Of its answer, in order.
    pub columns: Vec<Column>,
    /// For history and ClickHouse; parameters stand as `$name`.
    pub sql: &'static str,
    /// For the read models.
    pub read_models_sql: Option<&'static str>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sql/queries/{file}.sql: {reason}")]
pub struct HeadError {
    file: &'static str,
    reason: String,
}

const READ_MODELS: &str = "\n-- on: read-models\n";
const KINDS: [&str; 6] = ["text", "integer", "number", "time", "date", "flag"];

impl Question {
    /// Reads a file.
    pub fn read(name: &'static str, text: &'static str) -> Result<Self, HeadError> {
        let fail = |reason: String| HeadError { file: name, reason };
        let (text, read_models_sql) = match text.split_once(READ_MODELS) {
            Some((text, sql)) => (text, Some(sql.trim_end())),
            None => (text, None),
        };
        let head: usize = text.split_inclusive('\n').take_while(|line| line.starts_with("--")).map(str::len).sum();
        let mut question = Self {
            name,
            title: String::new(),
            about: String::new(),
            parameters: Vec::new(),
            columns: Vec::new(),
            sql: text[head..].trim_end(),
            read_models_sql,
        };
        for line in text[..head].lines() {
            let line = line.trim_start_matches('-');
            if let Some(more) = line.strip_prefix("   ") {
                question.about = format!("{} {more}", question.about);
                continue;
            }
            let (key, value) =
                line.trim().split_once(": ").ok_or_else(|| fail(format!("`{line}` is no `key: value`")))?;
            question.take(key, value).map_err(fail)?;
        }
        question.check().map_err(fail)?;
        Ok(question)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "question" if value == self.name => {}
            "question" => return Err(format!("it calls itself {value}")),
            "title" => value.clone_into(&mut self.title),
            "about" => value.clone_into(&mut self.about),
            "parameters" => {
                for name in value.split(", ") {
                    self.parameters.push(Parameter::common(name).ok_or_else(|| format!("{name} is declared nowhere"))?);
                }
            }
            "parameter" => self.parameters.push(Parameter::read(value)?),
            "column" => {
                let mut words = value.splitn(3, ' ').map(str::to_owned);
                let mut next = || words.next().unwrap_or_default();
                let column = Column { name: next(), kind: next(), unit: next() };
                if !KINDS.contains(&column.kind.as_str()) {
                    return Err(format!("the column {} is none of {}", column.name, KINDS.join(", ")));
                }
                self.columns.push(column);
            }
            other => return Err(format!("there is no `{other}:` in a head")),
        }
        Ok(())
    }

    /// Whole, and its SQL knows just the parameters that the head declares.
    fn check(&self) -> Result<(), String> {
        if self.title.is_empty() || self.about.is_empty() || self.columns.is_empty() || self.sql.is_empty() {
            return Err("title, about, a column and SQL are needed".to_owned());
        }
        for sql in [Some(self.sql), self.read_models_sql].into_iter().flatten() {
            let used = names(sql);
            for parameter in &self.parameters {
                if !used.contains(&parameter.name.as_str()) {
                    return Err(format!("the parameter {} is used nowhere", parameter.name));
                }
            }
            if let Some(unknown) = used.iter().find(|name| !self.parameters.iter().any(|p| p.name == **name)) {
                return Err(format!("the parameter {unknown} is not declared"));
            }
        }
        Ok(())
    }

    /// The question with its arguments in it, as `dialect` takes it; `None` where it cannot be asked there.
    #[must_use]
    pub fn statement(&self, dialect: Dialect, arguments: &Arguments) -> Option<String> {
        let sql = match dialect {
            Dialect::Postgres => self.read_models_sql?,
            Dialect::DataFusion | Dialect::ClickHouse => self.sql,
        };
        let mut statement = String::with_capacity(sql.len());
        let mut rest = sql;
        while let Some((before, after)) = rest.split_once('$') {
            statement.push_str(before);
            let name = first_name(after);
            statement.push_str(&arguments.literal(name, dialect));
            rest = &after[name.len()..];
        }
        statement.push_str(rest);
        Some(statement)
    }

    /// Values out of `NAME=VALUE` words; what is not said has its default.
    pub fn arguments(&self, words: &[String]) -> Result<Arguments, String> {
        Arguments::read(self.name, &self.parameters, words)
    }

    /// What can be said to it, for people.
    #[must_use]
    pub fn usage(&self) -> String {
        usage(&self.parameters)
    }
}

fn first_name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Parameters that a statement names.
fn names(sql: &str) -> Vec<&str> {
    sql.split('$').skip(1).map(first_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "-- question: q\n-- title: T\n-- about: One.\n--   Two.\n-- parameters: tenant\n\
        -- parameter: days integer 14 Days of it\n-- parameter: user text - Who\n-- column: n integer days\n\
        SELECT $days AS n FROM t WHERE tenant = $tenant AND u = $user\n-- on: read-models\nSELECT $days, $user, $tenant\n";

    fn read(text: &str) -> Result<Question, String> {
        Question::read("q", Box::leak(text.to_owned().into_boxed_str())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_head_says_title_words_parameters_and_columns() {
        let question = read(FILE).unwrap();
        assert_eq!((question.title.as_str(), question.about.as_str()), ("T", "One. Two."));
        assert_eq!(question.usage(), "tenant=… days=14 user=… (needed)");
        assert_eq!(question.columns[0].unit, "days");
        let arguments = question.arguments(&["user=O'Hara\\".to_owned(), "days=3".to_owned()]).unwrap();
        let statement = |dialect| question.statement(dialect, &arguments).unwrap();
        assert_eq!(statement(Dialect::DataFusion), "SELECT 3 AS n FROM t WHERE tenant = '' AND u = 'O''Hara\\'");
        assert_eq!(statement(Dialect::ClickHouse), "SELECT 3 AS n FROM t WHERE tenant = '' AND u = 'O\\'Hara\\\\'");
        assert_eq!(statement(Dialect::Postgres), "SELECT 3, 'O''Hara\\', ''");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (from, to, words) in [
            ("question: q", "question: other", "it calls itself other"),
            ("parameters: tenant", "parameters: tenants", "tenants is declared nowhere"),
            ("n integer days", "n whole", "the column n is none of"),
            ("-- title: T\n", "", "title, about"),
            ("$days AS n", "$dayz AS n", "the parameter days is used nowhere"),
            ("SELECT $days, $user", "SELECT $days, $user, $more", "the parameter more is not declared"),
            ("days integer 14", "days integer many", "`many` is no whole number"),
            ("-- column", "-- colum", "there is no `colum:`"),
        ] {
            let error = read(&FILE.replace(from, to)).unwrap_err();
            assert!(error.starts_with("sql/queries/q.sql: ") && error.contains(words), "{error}");
        }
    }
}
