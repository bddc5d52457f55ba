//! RFC 8785 canonical JSON, the I-JSON limits it stands on (RFC 7493), and a hash of sets of records that does not
//! depend on their order.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Object;

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
