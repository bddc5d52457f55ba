//! `GET /v1/openapi.json`: the HTTP side as an OpenAPI 3.1 document. The contracts are in it as they are, since OpenAPI 3.1
//! takes JSON Schema 2020-12; what is said beside them is held against the running server by an outside tester.

use std::sync::OnceLock;

use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use weir_engine::LaneKind;
use weir_model::contract::{self, CONTRACT_FILES};
use weir_model::decide::CommandType;
use weir_model::{AggregateType, EventType};
use weir_postgres::read_models::shown::{Shown, is_flag};

use crate::models::{LIMIT_MAX, Named, ROUTES};
use crate::{APPEND_EVENTS_MAX, BODY_MAX};

/// Made once: strangers may ask for it as often as they like.
pub(crate) async fn document() -> Response {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| openapi().to_string().into());
    ([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response()
}

/// The document.
#[must_use]
pub(crate) fn openapi() -> Value {
    let mut paths = Map::new();
    for event_type in EventType::ALL {
        let command = CommandType::for_event(event_type);
        paths.insert(format!("/v1/commands/{command}"), json!({"post": command_operation(command, event_type)}));
    }
    paths.insert("/v1/streams/{stream}/events".to_owned(), json!({"post": append()}));
    paths.insert("/v1/streams/{stream}".to_owned(), json!({"get": stream()}));
    paths.insert("/v1/streams/{stream}/snapshot".to_owned(), json!({"get": snapshot(), "put": create_snapshot()}));
    paths.insert("/v1/events".to_owned(), json!({"get": events()}));
    paths.insert("/v1/lanes/{lane}".to_owned(), json!({"get": lane()}));
    paths.insert("/v1/jobs".to_owned(), json!({"get": jobs(), "post": start_job()}));
    paths.insert("/v1/jobs/{id}".to_owned(), json!({"get": job_run()}));
    for (path, shown, named) in ROUTES {
        paths.insert(path.to_owned(), json!({"get": model(shown, named)}));
    }
    paths.insert("/v1/openapi.json".to_owned(), json!({"get": plain("This document", json!({"type": "object"}))}));
    paths.insert("/livez".to_owned(), json!({"get": text("The process answers", "text/plain")}));
    paths.insert("/readyz".to_owned(), json!({"get": readyz()}));
    paths.insert("/metrics".to_owned(), json!({"get": text("Prometheus metrics", "text/plain")}));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Weir",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "Commands in, events and read models out. A body, and one event of an append, has at most {BODY_MAX} bytes, counted as they \
                 are stored: with numbers spelled out. Every refusal is a \
                 problem document (RFC 9457)."
            ),
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": problem(), "Event": event(), "Answer": answer(), "Page": page(), "Run": run()},
        },
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Responses: the good ones, and the refusals by number.
fn responses(good: &[(&str, &str, Value)], refusals: &[u16]) -> Value {
    let mut all = Map::new();
    for (status, description, schema) in good {
        all.insert(
            (*status).to_owned(),
            json!({"description": description, "content": {"application/json": {"schema": schema}}}),
        );
    }
    for status in refusals {
        let words = match status {
            400 => "The request cannot be read",
            401 => "No valid token",
            403 => "The token lacks the scope",
            404 => "There is no such thing of this tenant",
            408 => "The body did not arrive in time",
            409 => "A rule forbids it, the stream is at another version, or the job runs already",
            413 => "The body, or an event in it, is too large",
            421 => "The server is not known under this host",
            422 => "The data breaks its contract, or the key was used for another request",
            429 => "The tenant sends too many requests",
            _ => "The event store is away, or a lane is not ready",
        };
        let content = json!({"application/problem+json": {"schema": reference("Problem")}});
        all.insert(status.to_string(), json!({"description": words, "content": content}));
    }
    Value::Object(all)
}

const READING: [u16; 5] = [400, 401, 403, 429, 503];
const FINDING: [u16; 6] = [400, 401, 403, 404, 429, 503];
const WRITING: [u16; 9] = [400, 401, 403, 408, 409, 413, 422, 429, 503];

fn header(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "header", "required": false, "description": description,
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}})
}

fn caller_headers() -> Vec<Value> {
    vec![
        header("Idempotency-Key", "A repeat under the same key gets the first answer"),
        json!({"name": "Expected-Version", "in": "header", "required": false,
            "description": "What the stream must be like: any, none, exists, or its version",
            "schema": {"type": "string", "pattern": "^(any|none|exists|[0-9]{1,18})$"}}),
        header("X-Correlation-Id", "Kept in the event; made up when absent"),
        header("X-Causation-Id", "Kept in the event"),
        header("X-User-Id", "Who acts; kept in the event"),
        header("X-Source", "The service that asks; kept in the event"),
    ]
}

fn stream_parameter() -> Value {
    let types = AggregateType::ALL.map(AggregateType::as_str).join("|");
    json!({"name": "stream", "in": "path", "required": true, "description": "AggregateType-aggregateId",
        "schema": {"type": "string", "pattern": format!("^({types})-[A-Za-z0-9_]{{1,200}}(/[A-Za-z0-9_]{{1,50}})?$")}})
}

fn query(name: &str, description: &str, min: i64, max: i64) -> Value {
    json!({"name": name, "in": "query", "required": false, "description": description,
        "schema": {"type": "integer", "minimum": min, "maximum": max}})
}

/// A contract as a part of this document.
fn contract_of(event_type: EventType) -> Value {
    let newest = contract::standard().map(|contracts| contracts.newest(event_type)).unwrap_or_default();
    let text = CONTRACT_FILES.iter().find(|(t, version, _)| *t == event_type && *version == newest);
    let mut schema: Value = text.and_then(|(.., text)| serde_json::from_str(text).ok()).unwrap_or_default();
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("$schema");
        schema.remove("$id");
    }
    schema
}

fn command_operation(command: CommandType, event_type: EventType) -> Value {
    let mut schema = contract_of(event_type);
    // Filled in when it is left out.
    if let Some(required) = schema["required"].as_array_mut() {
        required.retain(|field| field != "timestamp");
    }
    json!({
        "operationId": command.as_str(),
        "summary": format!("Asks for {event_type}"),
        "security": [{"token": []}],
        "parameters": caller_headers(),
        "requestBody": {"required": true, "content": {"application/json": {"schema": schema}}},
        "responses": responses(&[("200", "Stored before", reference("Answer")), ("201", "Stored", reference("Answer"))], &WRITING),
    })
}

fn append() -> Value {
    let event = json!({"type": "object", "required": ["eventType", "data"], "additionalProperties": false, "properties": {
        "eventType": {"enum": EventType::ALL.map(EventType::as_str)}, "version": {"type": ["string", "null"]}, "data": {"type": "object"}}});
    let body = json!({"type": "object", "required": ["events"], "additionalProperties": false,
        "properties": {"events": {"type": "array", "minItems": 1, "maxItems": APPEND_EVENTS_MAX, "items": event}}});
    let mut parameters = caller_headers();
    parameters.push(stream_parameter());
    json!({
        "operationId": "appendEvents",
        "summary": "Appends events that a service decided on for itself: contracts are checked, rules are not",
        "security": [{"token": []}],
        "parameters": parameters,
        "requestBody": {"required": true, "content": {"application/json": {"schema": body}}},
        "responses": responses(&[("200", "Stored before", reference("Answer")), ("201", "Stored", reference("Answer"))], &WRITING),
    })
}

fn stream() -> Value {
    json!({
        "operationId": "readStream",
        "summary": "A stream's events in order",
        "security": [{"token": []}],
        "parameters": [stream_parameter(), query("after_version", "Events after this version", 0, i64::MAX), query("limit", "At most so many", 1, 1000)],
        "responses": responses(&[("200", "A page", reference("Page"))], &FINDING),
    })
}

fn events() -> Value {
    let of_type = json!({"name": "type", "in": "query", "required": false, "schema": {"enum": EventType::ALL.map(EventType::as_str)}});
    json!({
        "operationId": "readEvents",
        "summary": "The tenant's events in position order",
        "security": [{"token": []}],
        "parameters": [query("after", "Events after this position", 0, i64::MAX), of_type, query("limit", "At most so many", 1, 1000)],
        "responses": responses(&[("200", "A page", reference("Page"))], &READING),
    })
}

fn snapshot() -> Value {
    let schema = json!({"type": "object", "required": ["version", "stateVersion", "data"],
        "properties": {"version": {"type": "integer"}, "stateVersion": {"type": "integer"}}});
    json!({
        "operationId": "readSnapshot",
        "summary": "The newest snapshot of a stream",
        "security": [{"token": []}],
        "parameters": [stream_parameter()],
        "responses": responses(&[("200", "A snapshot", schema)], &FINDING),
    })
}

fn create_snapshot() -> Value {
    let body = json!({"type": "object", "required": ["version", "data"], "additionalProperties": false, "properties": {
        "version": {"type": "integer", "minimum": 1, "maximum": i64::MAX}, "stateVersion": {"type": ["integer", "null"]}, "data": {}}});
    let mut responses = responses(&[], &[400, 401, 403, 404, 408, 413, 422, 429, 503]);
    responses["204"] = json!({"description": "Kept, unless a newer one was"});
    json!({
        "operationId": "createSnapshot",
        "summary": "Keeps a snapshot of a stream that exists",
        "security": [{"token": []}],
        "parameters": [stream_parameter()],
        "requestBody": {"required": true, "content": {"application/json": {"schema": body}}},
        "responses": responses,
    })
}

fn lane() -> Value {
    let schema = json!({"type": "object", "required": ["lane", "reached"],
        "properties": {"lane": {"type": "string"}, "reached": {"type": "boolean"}}});
    json!({
        "operationId": "waitForLane",
        "summary": "Answers once the lane has applied one of the tenant's own events, or when the time is over",
        "security": [{"token": []}],
        "parameters": [
            {"name": "lane", "in": "path", "required": true, "schema": {"enum": LaneKind::NAMES}},
            query("wait_for", "The event's position", 0, i64::MAX),
            query("timeout_ms", "Wait so long at most", 0, 30_000),
        ],
        "responses": responses(&[("200", "Whether the lane is there", schema)], &FINDING),
    })
}

fn jobs() -> Value {
    let run = json!({"oneOf": [{"type": "null"}, reference("Run")]});
    let text = json!({"type": ["string", "null"]});
    let item = json!({"type": "object", "required": ["job", "schedule", "timeZone", "dueAt", "paused", "running", "last"], "properties": {
        "job": {"type": "string"}, "schedule": {"type": "string"}, "timeZone": {"type": "string"}, "dueAt": text, "paused": text,
        "running": run, "last": run}});
    let list =
        json!({"type": "object", "required": ["items"], "properties": {"items": {"type": "array", "items": item}}});
    json!({
        "operationId": "listJobs",
        "summary": "Every job: its schedule, what runs, how it went last; for admins",
        "security": [{"token": []}],
        "responses": responses(&[("200", "The jobs", list)], &[401, 403, 429, 503]),
    })
}

fn start_job() -> Value {
    let body = json!({"type": "object", "required": ["job"], "additionalProperties": false, "properties": {
        "job": {"type": "string", "description": "As on the command line: verify, compact-history, backfill-clickhouse …"},
        "arguments": {"type": "object", "description": "As `weir jobs show` has them for a run of the command line"},
        "runKey": {"type": ["string", "null"], "minLength": 1, "maxLength": 255,
            "description": "A second request with the same key is the first: it runs nothing"}}});
    json!({
        "operationId": "startJob",
        "summary": "Begins a run of a job, which goes on in this process; for admins",
        "security": [{"token": []}],
        "requestBody": {"required": true, "content": {"application/json": {"schema": body}}},
        "responses": responses(
            &[("200", "The run that the key was used for", reference("Run")), ("202", "The run, begun", reference("Run"))],
            &[400, 401, 403, 408, 409, 413, 422, 429, 503],
        ),
    })
}

fn job_run() -> Value {
    json!({
        "operationId": "readRun",
        "summary": "One run of a job: how far it is, or how it went; for admins",
        "security": [{"token": []}],
        "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "integer", "minimum": 1, "maximum": i64::MAX}}],
        "responses": responses(&[("200", "The run", reference("Run"))], &[400, 401, 403, 404, 429, 503]),
    })
}

fn run() -> Value {
    let (text, count) = (json!({"type": ["string", "null"]}), json!({"type": "integer"}));
    let properties = json!({
        "id": count, "job": {"type": "string"}, "dueAt": text, "attempt": count, "owner": {"type": "string"}, "arguments": {"type": "object"},
        "runKey": text, "startedAt": {"type": "string"}, "endedAt": text, "outcome": text, "detail": {"type": "string"}, "done": count,
        "total": {"type": ["integer", "null"]}, "unit": {"type": "string"}, "rows": count, "bytes": count, "log": {"type": "string"}});
    let names: Vec<String> = properties.as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default();
    json!({"type": "object", "required": names, "properties": properties})
}

/// What [`Shown`] shows, one or a list of it.
fn model(shown: Shown, named: Named) -> Value {
    let properties: Map<String, Value> = shown
        .fields()
        .map(|(name, is_time)| (name, if is_time { json!({"type": ["string", "null"]}) } else { json!({}) }))
        .collect();
    let names: Vec<&String> = properties.keys().collect();
    let one = json!({"type": "object", "required": names, "properties": properties});
    let mut parameters = vec![
        query("wait_for", "Answer once the read models hold this position of one of your own events", 0, i64::MAX),
        query("timeout_ms", "Wait so long at most", 0, 30_000),
    ];
    if named != Named::All {
        parameters.push(json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string", "pattern": "^[A-Za-z0-9_]{1,200}$"}}));
    }
    if named == Named::One {
        return json!({
            "summary": format!("One {} as the read model has it", shown.name),
            "security": [{"token": []}],
            "parameters": parameters,
            "responses": responses(&[("200", "The row", one)], &FINDING),
        });
    }
    parameters.push(query("limit", "At most so many", 1, LIMIT_MAX));
    parameters
        .push(json!({"name": "cursor", "in": "query", "required": false, "description": "`next` of the page before",
        "schema": {"type": "string", "pattern": "^[!-~]*$"}}));
    for (name, column) in shown.filters {
        let schema = if is_flag(column) {
            json!({"enum": ["true", "false"]})
        } else {
            json!({"type": "string", "pattern": "^[!-~]*$"})
        };
        parameters.push(json!({"name": name, "in": "query", "required": false, "description": "Only with this value", "schema": schema}));
    }
    let page = json!({"type": "object", "required": ["items", "next"],
        "properties": {"items": {"type": "array", "items": one}, "next": {"type": ["string", "null"]}}});
    json!({
        "summary": format!("A page of every {} as the read model has it", shown.name),
        "security": [{"token": []}],
        "parameters": parameters,
        "responses": responses(&[("200", "A page", page)], &FINDING),
    })
}

fn readyz() -> Value {
    let schema = json!({"type": "object", "required": ["ready", "lanes", "publisher", "commands", "sql"], "properties": {
        "ready": {"type": "boolean"}, "lanes": {"type": "object"}, "publisher": {"type": ["object", "null"]},
        "commands": {"type": ["object", "null"]}, "sql": {"type": ["object", "null"]}}});
    let answer = json!({"application/json": {"schema": schema}});
    let mut answers = responses(&[], &[401, 403, 421, 429]);
    answers["200"] = json!({"description": "Ready", "content": answer});
    answers["503"] = json!({"description": "Not ready, and which part is not", "content": answer});
    json!({
        "operationId": "readiness",
        "summary": "Every lane of this process, its publisher and its command side are at work and advancing",
        "description": "Needs no token; with one of scope `admin` each part says how far it is and what it waits for.",
        "security": [{}, {"token": []}],
        "responses": answers,
    })
}

fn plain(summary: &str, schema: Value) -> Value {
    json!({"summary": summary, "responses": responses(&[("200", summary, schema)], &[421])})
}

fn text(summary: &str, content_type: &str) -> Value {
    let mut responses = responses(&[], &[421]);
    responses["200"] = json!({"description": summary, "content": {content_type: {"schema": {"type": "string"}}}});
    json!({"summary": summary, "responses": responses})
}

fn problem() -> Value {
    json!({"type": "object", "required": ["type", "title", "status", "detail"], "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"},
        "actualVersion": {"type": "integer"}, "scope": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object", "required": ["pointer", "detail"]}}}})
}

fn event() -> Value {
    let strings = [
        "eventId",
        "tenant",
        "stream",
        "aggregateId",
        "aggregateType",
        "eventType",
        "schemaVersion",
        "source",
        "timestamp",
        "recordedAt",
    ];
    let mut properties: Map<String, Value> =
        strings.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
    properties.insert("position".to_owned(), json!({"type": "integer", "minimum": 1}));
    properties.insert("version".to_owned(), json!({"type": "integer", "minimum": 1}));
    properties.insert("data".to_owned(), json!({"type": "object"}));
    properties.insert("metadata".to_owned(), json!({"type": "object"}));
    let required: Vec<&String> = properties.keys().collect();
    json!({"type": "object", "required": required, "properties": properties})
}

fn page() -> Value {
    json!({"type": "object", "required": ["events", "more"],
        "properties": {"events": {"type": "array", "items": reference("Event")}, "more": {"type": "boolean"}}})
}

fn answer() -> Value {
    json!({"type": "object", "required": ["stream", "aggregateId", "aggregateType", "tenantId", "version", "firstPosition", "position", "recordedAt", "repeated", "correlationId"],
        "properties": {"stream": {"type": "string"}, "aggregateId": {"type": "string"}, "aggregateType": {"type": "string"},
            "tenantId": {"type": "string"}, "version": {"type": "integer", "minimum": 1},
            "firstPosition": {"type": "integer", "minimum": 1}, "position": {"type": "integer", "minimum": 1},
            "recordedAt": {"type": "string"}, "repeated": {"type": "boolean"}, "correlationId": {"type": "string"}}})
}
