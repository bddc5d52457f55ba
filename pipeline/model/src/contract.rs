//! When an event is valid: one JSON Schema per type and version (the files in `contracts/`), compiled once, and the
//! rules a schema cannot say.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use bytestring::ByteString;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::event_type::EventType;
use crate::upcast::{UPCASTERS, Upcaster};
use crate::{Object, canonical};

pub mod door;
pub(crate) mod shape;

use shape::{Check, Shape};

macro_rules! contract_files {
    ($($event_type:ident $version:literal),+ $(,)?) => {
        &[$((
            EventType::$event_type,
            $version,
            include_str!(concat!("../contracts/", stringify!($event_type), "/", $version, ".json")),
        )),+]
    };
}

/// Every published contract: type, version, JSON Schema.
pub const CONTRACT_FILES: &[(EventType, &str, &str)] = contract_files![
    UserRegistered "1.0.0",
    UserProfileUpdated "1.0.0",
    UserDeactivated "1.0.0",
    ContentUploaded "1.0.0",
    ContentUploaded "1.2.0",
    ContentProcessingStarted "1.0.0",
    ContentProcessingCompleted "1.0.0",
    ContentProcessingCompleted "2.0.0",
    LearningSessionStarted "1.0.0",
    AssessmentCompleted "1.0.0",
    AssessmentCompleted "1.1.0",
    TaskAssigned "1.0.0",
    TaskCompleted "1.1.0",
];

/// Reports at most this many violations of one event; a hostile body has no end of them.
const VIOLATIONS_MAX: usize = 20;

/// A contract's version; `1`, `1.2` and `1.2.0` are all understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

impl FromStr for SchemaVersion {
    type Err = Violation;

    fn from_str(text: &str) -> Result<Self, Violation> {
        let bad = || {
            Violation::new("", format!("`{}` is no version such as 1.0.0", text.chars().take(40).collect::<String>()))
        };
        let mut parts = text.split('.').map(|part| {
            let plain = !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
            if plain { part.parse::<u32>().map_err(|_| bad()) } else { Err(bad()) }
        });
        let major = parts.next().unwrap_or_else(|| Err(bad()))?;
        let minor = parts.next().unwrap_or(Ok(0))?;
        let patch = parts.next().unwrap_or(Ok(0))?;
        if parts.next().is_some() { Err(bad()) } else { Ok(Self { major, minor, patch }) }
    }
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// One thing wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", if pointer.is_empty() { "the document" } else { pointer.as_str() })]
pub struct Violation {
    /// RFC 6901 pointer to the offending value, empty for the whole.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl Violation {
    /// A violation at `pointer`.
    pub fn new(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), reason: reason.into() }
    }
}

/// Event data that breaks its contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the data breaks the contract {event_type} {version}: {}", list(violations))]
pub struct ContractViolation {
    /// The contract's type.
    pub event_type: EventType,
    /// The version that was claimed.
    pub version: String,
    /// At least one, at most 20.
    pub violations: Vec<Violation>,
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Contracts that do not fit together: a build's mistake, found when it starts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractsError {
    /// A schema file that is no schema.
    #[error("the contract {event_type} {version} is no usable JSON Schema: {reason}")]
    Schema {
        /// Its type.
        event_type: EventType,
        /// Its version.
        version: String,
        /// The validator's words.
        reason: String,
    },
    /// An old version from which no chain of upcasters leads to the newest.
    #[error("no upcaster leads from {event_type} {version} to {newest}")]
    Gap {
        /// The type.
        event_type: EventType,
        /// Where the chain ends.
        version: String,
        /// Where it should end.
        newest: String,
    },
    /// Upcasters that lead in a circle.
    #[error("the upcasters of {event_type} lead from {version} back to itself")]
    Cycle {
        /// The type.
        event_type: EventType,
        /// A version on the circle.
        version: String,
    },
}

struct Contract {
    validator: jsonschema::Validator,
    shape: Option<Shape>,
    properties: Vec<String>,
    required: HashSet<String>,
}

type Upcast = fn(&mut Object);

/// All contracts and the upcasters between them.
pub struct Contracts {
    /// The newest contract of each type, in the order of [`EventType::ALL`], for the fast way.
    newest: Vec<(ByteString, Option<Shape>)>,
    by_type: BTreeMap<EventType, BTreeMap<SchemaVersion, Contract>>,
    upcasters: BTreeMap<(EventType, SchemaVersion), (SchemaVersion, Upcast)>,
}

static STANDARD: LazyLock<Result<Contracts, ContractsError>> =
    LazyLock::new(|| Contracts::build(CONTRACT_FILES, UPCASTERS));

/// The contracts of this build; an error here is a defect of the build, and `weir` refuses to start on it.
pub fn standard() -> Result<&'static Contracts, &'static ContractsError> {
    STANDARD.as_ref()
}

/// Data as its newest contract wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The version that `data` now fulfils.
    pub version: String,
    /// Upcast, times in UTC milliseconds, optional nulls dropped, unknown fields kept.
    pub data: Object,
}

impl Contracts {
    /// Compiles the schemas and checks that every version reaches the newest of its type.
    pub fn build(files: &[(EventType, &str, &str)], upcasters: &[Upcaster]) -> Result<Self, ContractsError> {
        let mut by_type: BTreeMap<EventType, BTreeMap<SchemaVersion, Contract>> = BTreeMap::new();
        for (event_type, version, text) in files {
            let broken = |reason: String| ContractsError::Schema {
                event_type: *event_type,
                version: (*version).to_owned(),
                reason,
            };
            let parsed = version.parse().map_err(|v: Violation| broken(v.reason))?;
            by_type.entry(*event_type).or_default().insert(parsed, Contract::compile(text).map_err(broken)?);
        }
        let mut edges = BTreeMap::new();
        for upcaster in upcasters {
            let parse = |version: &str| {
                version.parse::<SchemaVersion>().map_err(|v| ContractsError::Schema {
                    event_type: upcaster.event_type,
                    version: version.to_owned(),
                    reason: v.reason,
                })
            };
            let key = (upcaster.event_type, parse(upcaster.from)?);
            edges.insert(key, (parse(upcaster.to)?, upcaster.apply));
        }
        let mut contracts = Self { newest: Vec::new(), by_type, upcasters: edges };
        contracts.check_chains()?;
        let newest = |event_type| {
            let contract = contracts.by_type.get(&event_type).and_then(|versions| versions.last_key_value());
            contract.map(|(version, contract)| (ByteString::from(version.to_string()), contract.shape.clone()))
        };
        contracts.newest = EventType::ALL.into_iter().map(|t| newest(t).unwrap_or_default()).collect();
        Ok(contracts)
    }

    fn check_chains(&self) -> Result<(), ContractsError> {
        for (&event_type, versions) in &self.by_type {
            let Some((&newest, _)) = versions.last_key_value() else { continue };
            let starts = versions
                .keys()
                .copied()
                .chain(self.upcasters.iter().filter(|((t, _), _)| *t == event_type).map(|((_, from), _)| *from));
            for start in starts {
                let (mut at, mut seen) = (start, HashSet::from([start]));
                while let Some((to, _)) = self.upcasters.get(&(event_type, at)) {
                    if !seen.insert(*to) {
                        return Err(ContractsError::Cycle { event_type, version: to.to_string() });
                    }
                    at = *to;
                }
                if at != newest {
                    let (version, newest) = (at.to_string(), newest.to_string());
                    return Err(ContractsError::Gap { event_type, version, newest });
                }
            }
        }
        Ok(())
    }

    /// The newest version of a type.
    #[must_use]
    pub fn newest(&self, event_type: EventType) -> String {
        let newest = self.by_type.get(&event_type).and_then(|versions| versions.last_key_value());
        newest.map(|(version, _)| version.to_string()).unwrap_or_default()
    }

    /// The newest version of a type, and its shape.
    pub(crate) fn fast(&self, event_type: EventType) -> Option<(&ByteString, &Shape)> {
        let (version, shape) = self.newest.get(event_type.index())?;
        Some((version, shape.as_ref()?))
    }

    fn property(&self, event_type: EventType, name: &str) -> Option<&shape::Property> {
        self.fast(event_type)?.1.properties.iter().find(|property| property.name == name)
    }

    /// The column of a field, if the newest contract of the type names it.
    pub(crate) fn column(&self, event_type: EventType, name: &str) -> u8 {
        self.property(event_type, name).map_or(crate::columns::NO_COLUMN, |property| property.column)
    }

    /// Whether the newest contract of the type knows the field for a time.
    pub(crate) fn is_time(&self, event_type: EventType, name: &str) -> bool {
        self.property(event_type, name).is_some_and(|property| property.check == Check::Time)
    }

    /// The fields that the newest contract of a type names.
    #[must_use]
    pub fn fields(&self, event_type: EventType) -> &[String] {
        let newest = self.by_type.get(&event_type).and_then(|versions| versions.last_key_value());
        newest.map(|(_, contract)| contract.properties.as_slice()).unwrap_or_default()
    }

    /// Checks `data` against the contract of its version and lifts it to the newest one.
    pub fn accept(&self, event_type: EventType, version: &str, data: Object) -> Result<Accepted, ContractViolation> {
        self.accept_inner(event_type, version, data).map_err(|mut violations| {
            violations.truncate(VIOLATIONS_MAX);
            ContractViolation { event_type, version: version.chars().take(40).collect(), violations }
        })
    }

    fn accept_inner(&self, event_type: EventType, version: &str, mut data: Object) -> Result<Accepted, Vec<Violation>> {
        let one = |violation| vec![violation];
        let claimed: SchemaVersion = version.parse().map_err(one)?;
        let (written, contract) = self.choose(event_type, claimed).map_err(one)?;
        contract.drop_optional_nulls(&mut data);
        let value = Value::Object(data);
        if let Some((pointer, reason)) = canonical::find_unrepresentable(&value) {
            return Err(one(Violation::new(pointer, reason)));
        }
        contract.check(&value)?;
        let Value::Object(mut data) = value else { return Err(one(Violation::new("", "is no JSON object"))) };
        check_beyond_schema(&mut data).map_err(one)?;
        let mut reached = written;
        while let Some((to, apply)) = self.upcasters.get(&(event_type, reached)) {
            apply(&mut data);
            reached = *to;
        }
        if reached != written
            && let Some(newer) = self.by_type.get(&event_type).and_then(|versions| versions.get(&reached))
        {
            // Fields that were unknown to the older contract may be known to the newer one, and wrong by it.
            let value = Value::Object(data);
            newer.check(&value)?;
            let Value::Object(lifted) = value else { return Err(one(Violation::new("", "is no JSON object"))) };
            data = lifted;
        }
        // A newer minor version keeps its own number: what it adds is among the unknown fields, and still there.
        Ok(Accepted { version: reached.max(claimed).to_string(), data })
    }

    /// The contract to check by: the newest that is not newer than the claim; of the same major version if there is one.
    fn choose(&self, event_type: EventType, claimed: SchemaVersion) -> Result<(SchemaVersion, &Contract), Violation> {
        let versions = self.by_type.get(&event_type);
        let newest = versions.and_then(|v| v.last_key_value()).map(|(v, _)| *v);
        let (Some(versions), Some(newest)) = (versions, newest) else {
            return Err(Violation::new("", format!("there is no contract for {event_type}")));
        };
        if claimed.major > newest.major {
            let reason =
                format!("version {claimed} is newer than {newest}, the newest that this build reads; upgrade weir");
            return Err(Violation::new("", reason));
        }
        let same_major = || versions.iter().filter(|(v, _)| v.major == claimed.major);
        let found = same_major().rev().find(|(v, _)| **v <= claimed).or_else(|| same_major().next());
        let known = || versions.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (version, contract) =
            found.ok_or_else(|| Violation::new("", format!("version {claimed} is unknown; known are {}", known())))?;
        Ok((*version, contract))
    }
}

impl Contract {
    fn compile(text: &str) -> Result<Self, String> {
        let schema: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let validator = jsonschema::validator_for(&schema).map_err(|e| e.to_string())?;
        let names = |value: Option<&Value>| -> Vec<String> {
            let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let properties = schema.get("properties").and_then(Value::as_object);
        Ok(Self {
            validator,
            shape: Shape::compile(&schema),
            properties: properties.map(|p| p.keys().cloned().collect()).unwrap_or_default(),
            required: names(schema.get("required")).into_iter().collect(),
        })
    }

    fn check(&self, value: &Value) -> Result<(), Vec<Violation>> {
        // To say yes is much quicker than to collect what is wrong.
        if self.validator.is_valid(value) {
            return Ok(());
        }
        let violations: Vec<_> =
            self.validator.iter_errors(value).take(VIOLATIONS_MAX).map(|e| violation(&e)).collect();
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }

    /// Many serialisers write `null` for "absent"; a required null stays and is reported.
    fn drop_optional_nulls(&self, data: &mut Object) {
        for name in &self.properties {
            if !self.required.contains(name) && data.get(name).is_some_and(Value::is_null) {
                data.remove(name);
            }
        }
    }
}

/// A schema's complaint; one about a missing field points to where the field should be.
fn violation(error: &jsonschema::ValidationError<'_>) -> Violation {
    let mut pointer = error.instance_path().as_str().to_owned();
    if let jsonschema::error::ValidationErrorKind::Required { property } = error.kind()
        && let Some(name) = property.as_str()
    {
        pointer = format!("{pointer}/{}", canonical::pointer_token(name));
    }
    Violation::new(pointer, error.masked().to_string())
}

/// Rules over several fields, and times, which are put into their one form here.
fn check_beyond_schema(data: &mut Object) -> Result<(), Violation> {
    for field in ["timestamp", "deadline"] {
        if let Some(Value::String(text)) = data.get_mut(field) {
            let at: Timestamp = text.parse().map_err(|e| Violation::new(format!("/{field}"), format!("{e}")))?;
            *text = at.to_string();
        }
    }
    let number = |field: &str| data.get(field).and_then(Value::as_f64);
    if let (Some(score), Some(max)) = (number("score"), number("maxScore"))
        && score > max
    {
        return Err(Violation::new("/score", format!("{score} is more than maxScore, {max}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples;

    fn contracts() -> &'static Contracts {
        standard().expect("the contracts of this build fit together")
    }

    fn accept(event_type: EventType, version: &str, data: Value) -> Result<Accepted, ContractViolation> {
        let Value::Object(data) = data else { panic!("an object") };
        contracts().accept(event_type, version, data)
    }

    #[test]
    fn every_sample_is_accepted_unchanged() {
        for (event_type, data) in samples::all() {
            let accepted = accept(event_type, &contracts().newest(event_type), data.clone());
            assert_eq!(accepted.map(|a| Value::Object(a.data)), Ok(data), "{event_type}");
        }
    }

    #[test]
    fn each_required_field_is_missed_by_name() {
        for (event_type, data) in samples::all() {
            let versions = &contracts().by_type[&event_type];
            let (version, contract) = versions.last_key_value().expect("a version");
            assert!(contract.required.contains("timestamp"), "{event_type}");
            for field in &contract.required {
                let mut data = data.clone();
                data.as_object_mut().expect("object").remove(field);
                let refusal = accept(event_type, &version.to_string(), data).expect_err(field).to_string();
                assert!(refusal.contains(&format!("\"{field}\"")), "{event_type}.{field}: {refusal}");
            }
        }
    }

    #[test]
    fn each_field_of_a_wrong_type_is_named_by_pointer() {
        for (event_type, data) in samples::all() {
            for field in contracts().fields(event_type) {
                let mut data = data.clone();
                let wrong = if data[field].is_string() { Value::from(7) } else { Value::from("seven") };
                data[field] = wrong;
                let refusal = accept(event_type, &contracts().newest(event_type), data).expect_err(field);
                assert_eq!(refusal.violations[0].pointer, format!("/{field}"), "{event_type}");
            }
        }
    }

    #[test]
    fn negative_durations_scores_beyond_the_maximum_and_nul_are_violations() {
        let cases = [
            (EventType::AssessmentCompleted, "score", Value::from(101)),
            (EventType::AssessmentCompleted, "score", Value::from(-1)),
            (EventType::AssessmentCompleted, "timeSpent", Value::from(-0.5)),
            (EventType::AssessmentCompleted, "maxScore", Value::from(0)),
            (EventType::TaskCompleted, "executionTime", Value::from(-1)),
            (EventType::TaskAssigned, "priority", Value::from("urgent")),
            (EventType::TaskAssigned, "deadline", Value::from("2200-01-01T00:00:00Z")),
            (EventType::UserRegistered, "email", Value::from("a\u{0}b")),
            (EventType::UserRegistered, "timestamp", Value::from("1969-01-01T00:00:00Z")),
            (EventType::ContentUploaded, "fileSize", Value::from(1.5)),
            (EventType::ContentUploaded, "fileSize", Value::from(1_u64 << 53)),
        ];
        for (event_type, field, value) in cases {
            let mut data = samples::one(event_type);
            data[field] = value.clone();
            let refusal = accept(event_type, &contracts().newest(event_type), data).expect_err(field);
            assert_eq!(refusal.violations[0].pointer, format!("/{field}"), "{value}");
        }
    }

    #[test]
    fn unknown_fields_are_kept_and_optional_nulls_dropped() {
        let mut data = samples::one(EventType::AssessmentCompleted);
        data["banked"] = Value::Bool(true);
        data["note"] = Value::Null;
        data["analytics"] = Value::Null;
        let data = accept(EventType::AssessmentCompleted, "1.1.0", data).expect("valid").data;
        assert_eq!(
            (data.get("banked"), data.get("note"), data.get("analytics")),
            (Some(&Value::Bool(true)), Some(&Value::Null), None)
        );
    }

    #[test]
    fn a_newer_minor_version_decodes_and_a_newer_major_does_not() {
        let data = samples::one(EventType::LearningSessionStarted);
        for (version, expected) in [("1", "1.0.0"), ("1.0", "1.0.0"), ("1.7.3", "1.7.3")] {
            let accepted = accept(EventType::LearningSessionStarted, version, data.clone()).expect(version);
            assert_eq!(accepted.version, expected);
        }
        for version in ["2.0.0", "0.9.0", "", "one", "1.2.3.4", "-1", "99999999999", "1..2"] {
            assert!(accept(EventType::LearningSessionStarted, version, data.clone()).is_err(), "{version:?}");
        }
    }

    #[test]
    fn a_gap_and_a_cycle_among_upcasters_fail_at_start() {
        let none: &[Upcaster] = &[];
        assert!(matches!(Contracts::build(CONTRACT_FILES, none), Err(ContractsError::Gap { .. })));
        let nothing: fn(&mut Object) = |_| {};
        let edge = |from, to| Upcaster { event_type: EventType::ContentUploaded, from, to, apply: nothing };
        let files = &[CONTRACT_FILES[3], CONTRACT_FILES[4]];
        assert!(Contracts::build(files, &[edge("1.0.0", "1.2.0")]).is_ok());
        let circle = Contracts::build(files, &[edge("1.0.0", "1.1.0"), edge("1.1.0", "1.0.0")]);
        assert!(matches!(circle, Err(ContractsError::Cycle { .. })));
        assert!(matches!(Contracts::build(files, &[edge("1.0.0", "1.1.0")]), Err(ContractsError::Gap { .. })));
    }
}
