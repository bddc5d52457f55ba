//! RFC 8785 canonical JSON, the I-JSON limits it stands on (RFC 7493), and a hash of sets of records that does not
//! depend on their order.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Object;

pub(crate) mod proof;

/// The largest integer that every JSON reader gives back unchanged (2^53 - 1, RFC 7493 section 2.2).
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

const INTEGER_MAX_DOUBLE: f64 = 9_007_199_254_740_991.0;

/// Objects and arrays within each other at most. JSON readers stop somewhere (serde_json at 128, envelope included), and
/// what was accepted must be readable everywhere.
pub const DEPTH_MAX: usize = 64;

/// The canonical text of a value within the I-JSON limits (see [`find_unrepresentable`]).
#[must_use]
pub fn text(value: &Value) -> String {
    // The only failures are non-finite numbers and I/O; neither can occur in a `Value` written to memory.
    serde_json_canonicalizer::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// [`text`] of an object.
#[must_use]
pub fn object_text(object: &Object) -> String {
    serde_json_canonicalizer::to_string(object).unwrap_or_default()
}

/// [`text`] of a string.
#[must_use]
pub fn string(text: &str) -> String {
    serde_json_canonicalizer::to_string(&text).unwrap_or_default()
}

/// What a value holds that cannot be stored or hashed the same everywhere: a U+0000, a whole number beyond 2^53 - 1, or
/// more than [`DEPTH_MAX`] levels. Gives the RFC 6901 pointer to it and the reason.
#[must_use]
pub fn find_unrepresentable(value: &Value) -> Option<(String, &'static str)> {
    find_below(value, 0)
}

fn find_below(value: &Value, depth: usize) -> Option<(String, &'static str)> {
    const NUL: &str = "holds U+0000, which databases cannot store";
    const NUL_NAME: &str = "has a field name that holds U+0000";
    const BIG: &str = "is a whole number beyond ±(2^53 - 1), which JSON readers round; send it as a string";
    const DEEP: &str = "is nested deeper than 64 levels";
    let place = |reason| Some((String::new(), reason));
    match value {
        Value::Null | Value::Bool(_) => None,
        Value::Number(n) if is_beyond(n) => place(BIG),
        Value::Number(_) => None,
        Value::String(s) if s.contains('\0') => place(NUL),
        Value::String(_) => None,
        Value::Array(_) | Value::Object(_) if depth == DEPTH_MAX => place(DEEP),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(i, item)| find_below(item, depth + 1).map(|(below, reason)| (format!("/{i}{below}"), reason))),
        Value::Object(fields) => fields.iter().find_map(|(name, item)| {
            if name.contains('\0') {
                return place(NUL_NAME);
            }
            let (below, reason) = find_below(item, depth + 1)?;
            Some((format!("/{}{below}", pointer_token(name)), reason))
        }),
    }
}

fn is_beyond(n: &serde_json::Number) -> bool {
    match (n.as_u64(), n.as_i64(), n.as_f64()) {
        (Some(n), ..) => n > INTEGER_MAX,
        (None, Some(n), _) => n.unsigned_abs() > INTEGER_MAX,
        // RFC 8785 writes whole doubles below 1e21 without an exponent: they would come back as integers.
        (None, None, Some(n)) => n.fract() == 0.0 && n.abs() > INTEGER_MAX_DOUBLE && n.abs() < 1e21,
        (None, None, None) => true,
    }
}

/// The RFC 8785 text of nested JSON.
#[must_use]
pub fn nested(text: &str) -> Cow<'_, str> {
    match text {
        "{}" | "[]" => Cow::Borrowed(text),
        _ => {
            let mut out = String::with_capacity(text.len());
            let written = Canonical { out: &mut out }.deserialize(&mut serde_json::Deserializer::from_str(text));
            // It was parsed when the contract was checked.
            Cow::Owned(if written.is_ok() { out } else { text.to_owned() })
        }
    }
}

/// Writes the canonical text of whatever it is given, without a tree: only an object's members are held, to be sorted.
struct Canonical<'a> {
    out: &'a mut String,
}

impl<'de> DeserializeSeed<'de> for Canonical<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Canonical<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.out.push_str("null");
        Ok(())
    }

    fn visit_bool<E: Error>(self, b: bool) -> Result<(), E> {
        self.out.push_str(if b { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<(), E> {
        self.out.push_str(&n.to_string());
        Ok(())
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<(), E> {
        self.out.push_str(&n.to_string());
        Ok(())
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<(), E> {
        self.out.push_str(ryu_js::Buffer::new().format(n));
        Ok(())
    }

    /// Borrowed: it had no escapes, and needs none.
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        self.out.push('"');
        self.out.push_str(text);
        self.out.push('"');
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.out.push_str(&string(text));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.out.push('[');
        let mut end = self.out.len();
        while items.next_element_seed(Canonical { out: self.out })?.is_some() {
            end = self.out.len();
            self.out.push(',');
        }
        // Without the comma behind the last one.
        self.out.truncate(end);
        self.out.push(']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // All values one after the other, and where each ends.
        let (mut values, mut members) = (String::new(), Vec::<(Cow<'de, str>, usize, usize)>::new());
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            let start = values.len();
            map.next_value_seed(Canonical { out: &mut values })?;
            members.push((name, start, values.len()));
        }
        // A stable sort leaves equal names in their order, and the last one counts.
        members.sort_by(|a, b| utf16_order(&a.0, &b.0));
        self.out.push('{');
        let mut is_first = true;
        for (index, (name, start, end)) in members.iter().enumerate() {
            if members.get(index + 1).is_some_and(|next| next.0 == *name) {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                self.out.push(',');
            }
            match name {
                Cow::Borrowed(name) => {
                    self.out.push('"');
                    self.out.push_str(name);
                    self.out.push('"');
                }
                Cow::Owned(name) => self.out.push_str(&string(name)),
            }
            self.out.push(':');
            self.out.push_str(&values[*start..*end]);
        }
        self.out.push('}');
        Ok(())
    }
}

/// RFC 8785 section 3.2.3 sorts names by UTF-16 code units; below U+D800 that is the order of the bytes.
pub(crate) fn utf16_order(a: &str, b: &str) -> std::cmp::Ordering {
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

/// A name, copied only where it had escapes.
pub(crate) struct Name<'de>(pub(crate) Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        json.deserialize_str(Read)
    }
}

/// A field name as a token of an RFC 6901 pointer.
#[must_use]
pub fn pointer_token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Count and hash of a multiset of records: SHA-256 of each, summed modulo 2^128 (the additive multiset hash of Clarke
/// et al., "Incremental Multiset Hash Functions", ASIACRYPT 2003). Equal sets in any order give equal hashes; it is a
/// check against faults, not against someone who may choose the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetHash {
    count: u64,
    sum: u128,
}

impl SetHash {
    /// Takes one record in; `parts` are length-prefixed, so that ("ab","c") and ("a","bc") differ.
    pub fn add(&mut self, parts: &[&[u8]]) {
        let mut hasher = Sha256::new();
        for part in parts {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            hasher.update(length.to_le_bytes());
            hasher.update(part);
        }
        let digest = hasher.finalize();
        let mut low = [0; 16];
        low.copy_from_slice(&digest[..16]);
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(low));
        self.count += 1;
    }

    /// Takes another set in.
    pub fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Records taken in.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn canonical_form_sorts_keys_and_writes_numbers_as_ecmascript_does() {
        let value: Value =
            serde_json::from_str(r#"{"b":1.0,"a":[1e21,-0.0,0.1,5e-324],"é":"\u000f\n"}"#).expect("json");
        assert_eq!(text(&value), "{\"a\":[1e+21,0,0.1,5e-324],\"b\":1,\"é\":\"\\u000f\\n\"}");
    }

    #[test]
    fn what_cannot_be_kept_is_found_with_its_place() {
        assert_eq!(
            find_unrepresentable(&json!({"a": [1, {"b/c": "x\u{0}"}]})).map(|f| f.0).as_deref(),
            Some("/a/1/b~1c")
        );
        assert_eq!(find_unrepresentable(&json!({"n": 9_007_199_254_740_992_u64})).map(|f| f.0).as_deref(), Some("/n"));
        assert_eq!(find_unrepresentable(&json!([1e16])).map(|f| f.0).as_deref(), Some("/0"));
        assert_eq!(find_unrepresentable(&json!([1e15, 1e21, 0.5, -1e300])), None);
        let deep = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(find_unrepresentable(&deep(DEPTH_MAX)), None);
        assert!(find_unrepresentable(&deep(DEPTH_MAX + 1)).is_some());
        assert_eq!(find_unrepresentable(&json!({"n": -9_007_199_254_740_991_i64, "s": "ok"})), None);
    }

    #[test]
    fn the_set_hash_sees_every_change_but_not_the_order() {
        let hash = |records: &[&[&[u8]]]| {
            let mut set = SetHash::default();
            records.iter().for_each(|parts| set.add(parts));
            set
        };
        assert_eq!(hash(&[&[b"a", b"b"], &[b"c"]]), hash(&[&[b"c"], &[b"a", b"b"]]));
        assert_ne!(hash(&[&[b"ab", b"c"]]), hash(&[&[b"a", b"bc"]]));
        assert_ne!(hash(&[&[b"a"]]), hash(&[&[b"a"], &[b"a"]]));
    }
}
