//! A JSON Schema of the configuration file, made from `default.toml` itself: types from the defaults, descriptions from the
//! comments above them.

use serde_json::{Map, Value, json};
use toml_edit::{DocumentMut, Item, Table};

use super::DEFAULTS;

/// The schema (JSON Schema 2020-12).
pub(crate) fn schema() -> Result<Value, toml_edit::TomlError> {
    let document: DocumentMut = DEFAULTS.parse()?;
    let mut schema = table(document.as_table());
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Weir's settings".into();
    Ok(schema)
}

fn table(table: &Table) -> Value {
    let mut properties = Map::new();
    for (name, item) in table {
        let mut property = match item {
            Item::Table(inner) => self::table(inner),
            Item::Value(value) => leaf(value),
            Item::None | Item::ArrayOfTables(_) => json!({}),
        };
        let comment = table.key(name).and_then(|key| key.leaf_decor().prefix()).and_then(|prefix| prefix.as_str());
        let of_table = item.as_table().and_then(|inner| inner.decor().prefix()).and_then(|prefix| prefix.as_str());
        let words = words(of_table.or(comment).unwrap_or_default());
        if !words.is_empty() {
            property["description"] = words.into();
        }
        properties.insert(name.to_owned(), property);
    }
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn leaf(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => json!({"type": "string", "default": text.value()}),
        toml_edit::Value::Integer(n) => json!({"type": "integer", "minimum": 0, "default": n.value()}),
        toml_edit::Value::Float(n) => json!({"type": "number", "default": n.value()}),
        toml_edit::Value::Boolean(b) => json!({"type": "boolean", "default": b.value()}),
        toml_edit::Value::Array(items) => {
            let items: Vec<Value> = items.iter().map(|item| leaf(item)["default"].clone()).collect();
            json!({"type": "array", "default": items})
        }
        toml_edit::Value::InlineTable(_) => json!({"type": "object", "default": {}}),
        toml_edit::Value::Datetime(_) => json!({}),
    }
}

/// A comment without its marks. What stands above a blank line is about the section before, or the file.
fn words(prefix: &str) -> String {
    let last = prefix.rsplit("\n\n").next().unwrap_or_default();
    let lines = last.lines().filter_map(|line| line.trim().strip_prefix('#')).map(str::trim);
    lines.collect::<Vec<_>>().join(" ")
}
