//! What a question is told: parameters with their kinds and defaults, and values as literals of each dialect.

use std::collections::BTreeMap;

use weir_model::Timestamp;

/// What a parameter's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number.
    Integer,
    /// A date or a time, UTC.
    Time,
}

/// Something that a question can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What its value is.
    pub kind: Kind,
    /// What holds when nothing is said; `None` where something must be said.
    pub default: Option<String>,
    /// For people.
    pub about: String,
}

/// Whose SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// History's.
    DataFusion,
    /// ClickHouse's.
    ClickHouse,
    /// The read models'.
    Postgres,
}

/// Parameters that most questions have: name, kind, default, words. Times that events can have lie between these two.
const COMMON: [(&str, Kind, &str, &str); 3] = [
    ("tenant", Kind::Text, "", "One tenant; empty for all"),
    ("from", Kind::Time, "1970-01-01", "Events that happened at this time or later"),
    ("to", Kind::Time, "2199-12-31T23:59:59.999Z", "Events that happened before this time"),
];

impl Parameter {
    /// One that most questions have.
    pub(crate) fn common(name: &str) -> Option<Self> {
        let (name, kind, default, about) = COMMON.iter().find(|(common, ..)| *common == name)?;
        Some(Self {
            name: (*name).to_owned(),
            kind: *kind,
            default: Some((*default).to_owned()),
            about: (*about).to_owned(),
        })
    }

    /// `NAME KIND DEFAULT WORDS…`; the default `-` means that a value is needed, `''` the empty text.
    pub(crate) fn read(line: &str) -> Result<Self, String> {
        let mut words = line.splitn(4, ' ');
        let mut next = || words.next().ok_or_else(|| format!("`{line}` is no `NAME KIND DEFAULT WORDS`"));
        let (name, kind, default, about) = (next()?.to_owned(), next()?, next()?, next()?.to_owned());
        let kind = match kind {
            "text" => Kind::Text,
            "integer" => Kind::Integer,
            "time" => Kind::Time,
            other => return Err(format!("a parameter is text, integer or time, not {other}")),
        };
        let default = match default {
            "-" => None,
            "''" => Some(String::new()),
            value => Some(value.to_owned()),
        };
        let parameter = Self { name, kind, default, about };
        if let Some(default) = &parameter.default {
            parameter.value(default)?;
        }
        Ok(parameter)
    }

    fn value(&self, text: &str) -> Result<Value, String> {
        match self.kind {
            Kind::Text => Ok(Value::Text(text.to_owned())),
            Kind::Integer => {
                text.parse().map(Value::Integer).map_err(|_| format!("{}: `{text}` is no whole number", self.name))
            }
            Kind::Time => moment(text).map(Value::Time).map_err(|error| format!("{}: {error}", self.name)),
        }
    }
}

/// What can be said, for people.
pub(crate) fn usage(parameters: &[Parameter]) -> String {
    let one = |parameter: &Parameter| match (&parameter.default, parameter.kind) {
        (None, _) => format!("{}=… (needed)", parameter.name),
        (Some(default), Kind::Integer) => format!("{}={default}", parameter.name),
        (Some(_), _) => format!("{}=…", parameter.name),
    };
    parameters.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// A time as RFC 3339, or a date, which is its midnight UTC.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    let whole = if text.len() == "2024-01-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    whole.parse().map_err(|error| format!("{error}; write 2024-01-31 or 2024-01-31T10:00:00Z"))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Text(String),
    Integer(i64),
    Time(Timestamp),
}

/// A value for each parameter of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments(BTreeMap<String, Value>);

impl Arguments {
    /// Out of `NAME=VALUE` words; what is not said has its default.
    pub(crate) fn read(question: &str, parameters: &[Parameter], words: &[String]) -> Result<Self, String> {
        let mut said = BTreeMap::new();
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("`{word}`: write NAME=VALUE"))?;
            if !parameters.iter().any(|parameter| parameter.name == name) {
                return Err(format!("{question} knows no {name}; it takes {}", usage(parameters)));
            }
            said.insert(name, value);
        }
        let mut values = BTreeMap::new();
        for parameter in parameters {
            let text = said.get(parameter.name.as_str()).copied().or(parameter.default.as_deref());
            let text = text
                .ok_or_else(|| format!("{question} needs {}=…: {}", parameter.name, parameter.about.to_lowercase()))?;
            values.insert(parameter.name.clone(), parameter.value(text)?);
        }
        Ok(Self(values))
    }

    /// A value as a literal that can hold nothing but itself.
    pub(crate) fn literal(&self, name: &str, dialect: Dialect) -> String {
        match (self.0.get(name), dialect) {
            // A head declares what its SQL names.
            (None, _) => "NULL".to_owned(),
            (Some(Value::Integer(number)), _) => number.to_string(),
            (Some(Value::Text(text)), Dialect::ClickHouse) => {
                format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
            }
            (Some(Value::Text(text)), Dialect::DataFusion | Dialect::Postgres) => {
                format!("'{}'", text.replace('\'', "''"))
            }
            (Some(Value::Time(at)), Dialect::ClickHouse) => {
                format!("toDateTime64('{}', 3, 'UTC')", at.to_string().replace('T', " ").trim_end_matches('Z'))
            }
            (Some(Value::Time(at)), Dialect::DataFusion) => format!("TIMESTAMP '{at}'"),
            (Some(Value::Time(at)), Dialect::Postgres) => format!("timestamptz '{at}'"),
        }
    }
}
