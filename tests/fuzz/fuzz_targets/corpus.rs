//! Writes what fuzzing begins with, made from the contracts: `corpus/decode`, `corpus/upcast`, `corpus/projection`, and the
//! names of all fields as `corpus/names.dict`. Of each contract one event with every field and one with the required ones.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use weir_model::contract::CONTRACT_FILES;
use weir_model::{EventType, wire};

/// A value that a schema allows.
fn example(schema: &Value, every_field: bool, names: &mut BTreeSet<String>) -> Value {
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    let text = |field: &str| schema[field].as_str().unwrap_or_default();
    match text("type") {
        "object" => {
            let required = |name: &String| schema["required"].as_array().is_some_and(|r| r.contains(&json!(name)));
            let properties = schema["properties"].as_object().into_iter().flatten();
            names.extend(schema["properties"].as_object().into_iter().flat_map(Map::keys).cloned());
            let chosen = properties.filter(|(name, _)| every_field || required(name));
            Value::Object(chosen.map(|(name, value)| (name.clone(), example(value, every_field, names))).collect())
        }
        "array" if schema["items"].is_object() => json!([example(&schema["items"], every_field, names)]),
        "array" => json!(["a", 1, null]),
        "boolean" => json!(true),
        "integer" => json!(7),
        "number" => json!(41.5),
        "string" if text("format") == "date-time" => json!("2024-01-15T10:30:00.000Z"),
        _ => json!("one"),
    }
}

fn document(event_type: EventType, version: &str, data: &Value) -> Value {
    let aggregate = event_type.aggregate_type();
    json!({
        "eventId": "0190b3c1-2f4e-7c3a-9d5b-1a2b3c4d5e6f", "eventType": event_type.as_str(), "version": version,
        "aggregateId": data[aggregate.id_field()], "aggregateType": aggregate.as_str(), "aggregateVersion": 1,
        "timestamp": "2024-01-15T10:30:00.000Z", "source": "corpus", "tenantId": "default", "data": data,
        "metadata": {"correlationId": "c", "causationId": "b", "userId": "u"},
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("corpus");
    for target in ["decode", "upcast", "projection"] {
        fs::create_dir_all(root.join(target))?;
    }
    let (mut names, mut all) = (BTreeSet::new(), Vec::new());
    for (choice, (event_type, version, schema)) in CONTRACT_FILES.iter().enumerate() {
        let schema: Value = serde_json::from_str(schema)?;
        for every_field in [true, false] {
            let data = example(&schema, every_field, &mut names);
            let name = format!("{event_type}-{version}-{every_field}");
            let event = document(*event_type, version, &data).to_string();
            // Fuzzing shall begin with what is accepted.
            wire::decode(&event.clone().into())?;
            fs::write(root.join("decode").join(&name), &event)?;
            fs::write(
                root.join("upcast").join(&name),
                [&[u8::try_from(choice)?], data.to_string().as_bytes()].concat(),
            )?;
            fs::write(root.join("projection").join(&name), &event)?;
            all.push(event);
        }
    }
    for (index, some) in all.chunks(5).enumerate() {
        fs::write(root.join("projection").join(format!("several-{index}")), some.join("\n"))?;
    }
    names.extend(
        document(EventType::UserRegistered, "1.0.0", &json!({})).as_object().into_iter().flat_map(Map::keys).cloned(),
    );
    let dictionary: Vec<String> = names.iter().map(|name| format!("\"\\\"{name}\\\"\"")).collect();
    fs::write(root.join("names.dict"), dictionary.join("\n"))?;
    println!("{} events of {} contracts in {}", all.len(), CONTRACT_FILES.len(), root.display());
    Ok(())
}
