//! Grafana's part, as its documentation and that of the data sources say it: what variables and macros become, and what an answer looks like.

use std::collections::BTreeMap;
use std::path::PathBuf;

use reqwest::Client;
use serde_json::{Map, Value, json};

use crate::{ClickHouse, root};

/// The time that every panel is asked for: everything there is.
pub const FROM: &str = "2012-01-01T00:00:00Z";
/// Its end.
pub const TO: &str = "2035-01-01T00:00:00Z";

/// What stands for all values of a variable, where the dashboard says so (`allValue`).
pub const ALL: &str = "'*'";

/// Values of variables.
pub type Variables = BTreeMap<&'static str, String>;

/// `encodeURIComponent`, and what it leaves: `!'()*`.
fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The query as it is sent.
#[must_use]
pub fn expand(query: &str, variables: &Variables) -> String {
    expand_in(query, variables, (FROM, TO))
}

/// [`expand`] for a time of its own.
#[must_use]
pub fn expand_in(query: &str, variables: &Variables, (from, to): (&str, &str)) -> String {
    let mut sent = query.to_owned();
    for (name, value) in variables {
        // A dashboard's word for all is put in as it stands, but where it is encoded.
        let quoted = if value == ALL { value.clone() } else { format!("'{}'", value.replace('\'', "''")) };
        sent = sent.replace(&format!("${{{name}:sqlstring}}"), &quoted);
        sent = sent.replace(&format!("${{{name}:percentencode}}"), &percent_encoded(value));
        sent = sent.replace(&format!("${{{name}}}"), value).replace(&format!("\"${name}\""), &format!("\"{value}\""));
    }
    let seconds = |time: &str| time.parse::<weir_model::Timestamp>().unwrap().as_millis() / 1000;
    for (name, value) in [
        ("$__timeFrom()", format!("'{from}'")),
        ("$__timeTo()", format!("'{to}'")),
        ("$__fromTime", format!("toDateTime({})", seconds(from))),
        ("$__toTime", format!("toDateTime({})", seconds(to))),
        ("$__rate_interval", "1m".to_owned()),
    ] {
        sent = sent.replace(name, &value);
    }
    assert!(!sent.contains('$'), "a variable or a macro that is not known: {sent}");
    sent
}

/// Rows of Postgres, as a user that may only read.
pub async fn postgres(client: &tokio_postgres::Client, sql: &str) -> Result<Vec<Value>, String> {
    let rows = client.query(&format!("SELECT to_jsonb(frame) FROM (\n{sql}\n) frame"), &[]).await;
    let rows = rows.map_err(|error| format!("{error}: {error:?}"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Rows of ClickHouse, as a user that may only read and within limits; and how many rows the server read for them.
pub async fn clickhouse(server: &ClickHouse, sql: &str) -> Result<(Vec<Value>, u64), String> {
    let request = Client::new()
        .post(server.url())
        .query(&[("database", "weir"), ("wait_end_of_query", "1")])
        .header("X-ClickHouse-User", "dashboards")
        .header("X-ClickHouse-Key", crate::clickhouse::DASHBOARDS_PASSWORD)
        .body(format!("{sql}\nFORMAT JSONEachRow"));
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let is_well = answer.status().is_success();
    let summary = answer.headers().get("X-ClickHouse-Summary").and_then(|summary| summary.to_str().ok());
    let summary: Value = serde_json::from_str(summary.unwrap_or("{}")).unwrap();
    let text = answer.text().await.map_err(|error| error.to_string())?;
    if !is_well {
        return Err(text);
    }
    let read = summary["read_rows"].as_str().and_then(|rows| rows.parse().ok()).unwrap_or(0);
    Ok((text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), read))
}

/// Every dashboard, by its uid.
#[must_use]
pub fn pages() -> Vec<(String, Value)> {
    let files = std::fs::read_dir(root().join("dashboards/grafana/dashboards")).unwrap();
    let read = |path: PathBuf| -> Value { serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap() };
    let mut pages: Vec<(String, Value)> = files
        .map(|file| read(file.unwrap().path()))
        .map(|page| (page["uid"].as_str().unwrap().to_owned(), page))
        .collect();
    pages.sort_by(|a, b| a.0.cmp(&b.0));
    pages
}

/// A value in the form of a question's answer: times as milliseconds, numbers as doubles.
#[must_use]
pub fn normal(kind: &str, value: &Value) -> Value {
    match (kind, value) {
        (_, Value::Null) => Value::Null,
        ("time", Value::String(text)) => {
            let text = text.replace(' ', "T").replace("+00:00", "Z");
            let text = if text.ends_with('Z') { text } else { format!("{text}Z") };
            json!(text.parse::<weir_model::Timestamp>().unwrap().as_millis())
        }
        ("integer" | "number", Value::String(text)) => json!(text.parse::<f64>().unwrap()),
        ("integer" | "number", number) => json!(number.as_f64()),
        // What DISTINCT gives ClickHouse's booleans back as.
        ("flag", Value::Number(number)) => json!(number.as_f64() == Some(1.0)),
        (_, value) => value.clone(),
    }
}

/// An answer's values by name.
#[must_use]
pub fn named(question: &weir_query::Question, row: &[Value]) -> Map<String, Value> {
    let of = |(column, value): (&weir_query::Column, &Value)| (column.name.clone(), normal(&column.kind, value));
    question.columns.iter().zip(row).map(of).collect()
}
