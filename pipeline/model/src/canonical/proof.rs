//! Whether JSON text is in RFC 8785 form already, told without making that form. Most of what weir reads was written so.

use memchr::memchr2;

use super::DEPTH_MAX;

/// Digits of a decimal number that a double gives back whatever they are (C's `DBL_DIG`). Two such numbers are two doubles, so of all
/// the decimals that mean a double, one of so few digits is the shortest, which is the one that ECMAScript writes.
const DIGITS_MAX: usize = 15;

/// Zeros behind the point before the first digit: ECMAScript writes smaller numbers with an exponent (ECMA-262, Number::toString).
const ZEROS_MAX: usize = 5;

/// The length of the canonical object that `text` begins with, and how many members it has; `None` if it is not canonical, or if that is
/// not plain to see: names beyond ASCII, numbers of many digits. The object itself must be JSON.
pub(crate) fn canonical_object(text: &str) -> Option<(usize, usize)> {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0, depth: 0 };
    let members = scan.object()?;
    Some((scan.at, members))
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Scan<'a> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn deeper(&mut self) -> Option<()> {
        self.depth += 1;
        (self.depth <= DEPTH_MAX).then_some(())
    }

    /// What follows an item: `true` for another one, `false` for the end.
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        match self.next()? {
            b',' => Some(true),
            byte if byte == end => Some(false),
            _ => None,
        }
    }

    /// Names in order, each once; section 3.2.3 sorts by UTF-16 units, which for ASCII is by bytes.
    fn object(&mut self) -> Option<usize> {
        self.take(b'{')?;
        self.deeper()?;
        let (mut members, mut last) = (0, None::<&[u8]>);
        if self.peek()? == b'}' {
            self.at += 1;
        } else {
            loop {
                let name = self.name()?;
                if last.is_some_and(|last| last >= name) {
                    return None;
                }
                last = Some(name);
                self.take(b':')?;
                self.value()?;
                members += 1;
                if !self.goes_on(b'}')? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Some(members)
    }

    fn array(&mut self) -> Option<()> {
        self.take(b'[')?;
        self.deeper()?;
        if self.peek()? == b']' {
            self.at += 1;
        } else {
            loop {
                self.value()?;
                if !self.goes_on(b']')? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Some(())
    }

    fn value(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string(),
            b'{' => self.object().map(|_| ()),
            b'[' => self.array(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let end = self.at + word.len();
        let found = self.bytes.get(self.at..end)? == word;
        self.at = end;
        found.then_some(())
    }

    /// A name of ASCII that has no escapes.
    fn name(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let rest = &self.bytes[self.at..];
        let end = memchr2(b'"', b'\\', rest)?;
        let name = &rest[..end];
        self.at += end;
        self.take(b'"')?;
        name.is_ascii().then_some(name)
    }

    /// Section 3.2.2.2: only what must be escaped is, by its short form if it has one, otherwise by small hexadecimal digits.
    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            self.at += memchr2(b'"', b'\\', &self.bytes[self.at..])?;
            if self.next()? == b'"' {
                return Some(());
            }
            match self.next()? {
                b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    let digits = self.bytes.get(self.at..self.at + 4)?;
                    let is_control = digits.starts_with(b"00") && matches!(digits[2], b'0' | b'1');
                    let is_short = digits[2] == b'0' && matches!(digits[3], b'8' | b'9' | b'a' | b'c' | b'd');
                    if !is_control || is_short || !matches!(digits[3], b'0'..=b'9' | b'a'..=b'f') {
                        return None;
                    }
                    self.at += 4;
                }
                _ => return None,
            }
        }
    }

    fn digits(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        &rest[..count]
    }

    /// Section 3.2.2.3, of numbers without an exponent.
    fn number(&mut self) -> Option<()> {
        let is_negative = self.peek()? == b'-';
        self.at += usize::from(is_negative);
        let whole = self.digits();
        let is_zero = whole == b"0";
        if whole.is_empty() || whole[0] == b'0' && !is_zero {
            return None;
        }
        let mut significant = if is_zero { 0 } else { whole.len() };
        if self.peek() == Some(b'.') {
            self.at += 1;
            let part = self.digits();
            let zeros = if is_zero { part.iter().take_while(|digit| **digit == b'0').count() } else { 0 };
            significant += part.len() - zeros;
            if zeros > ZEROS_MAX || part.last().is_none_or(|digit| *digit == b'0') {
                return None;
            }
        } else if is_zero && is_negative {
            return None;
        }
        (significant <= DIGITS_MAX && !matches!(self.peek(), Some(b'e' | b'E'))).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::text;
    use super::*;
    use crate::wire::samples;

    fn proven(json: &str) -> bool {
        canonical_object(json).is_some_and(|(length, _)| length == json.len())
    }

    #[test]
    fn what_is_canonical_is_seen_to_be() {
        for (event_type, data) in samples::all() {
            let json = text(&data);
            let members = data.as_object().map(|object| object.len());
            assert_eq!(canonical_object(&format!("{json},")), members.map(|n| (json.len(), n)), "{event_type}");
        }
        for json in [
            "{}",
            r#"{"a":[],"b":{},"c":[1,-1,0,0.5,-0.000001,123456789012345,0.123456789012345,true,false,null]}"#,
            "{\"a\":\"\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\u{7f}\u{e9}\u{1f393}/\"}",
        ] {
            assert!(proven(json), "{json}");
            assert_eq!(text(&serde_json::from_str(json).expect("json")), json);
        }
    }

    #[test]
    fn what_is_not_canonical_is_not_taken_for_it() {
        for value in [
            " 1",
            "1.0",
            "-0",
            "-0.0",
            "0.10",
            "1e5",
            "1E5",
            "1e+21",
            "0.0000001",
            "1234567890123456",
            "1.234567890123456",
            "[1, 2]",
            "[1 ,2]",
            r#""\/""#,
            r#""\u0041""#,
            r#""\u000A""#,
            r#""\u000a""#,
            r#""\u001F""#,
            r#""\u007f""#,
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a": 1}"#,
            r#"{ "a":1}"#,
        ] {
            let json = format!("{{\"x\":{value}}}");
            serde_json::from_str::<Value>(&json).expect("json");
            assert!(!proven(&json), "{json}");
        }
        for json in [r#"{"\u0061":1}"#, "{\"\u{e9}\":1}", r#"{"a":1"#, "{", "", "[]"] {
            assert!(!proven(json), "{json}");
        }
        let deep = |levels| format!("{{\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(proven(&deep(DEPTH_MAX - 1)) && !proven(&deep(DEPTH_MAX)));
    }

    fn any_json() -> impl Strategy<Value = String> {
        let number = prop_oneof![
            any::<f64>().prop_filter("JSON has no others", |n| n.is_finite()).prop_map(|n| n.to_string()),
            any::<i64>().prop_map(|n| n.to_string()),
            r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,2})?",
        ];
        let escape = r#"\\(["\\/bfnrt]|u00[0-9a-fA-F]{2})"#;
        let string =
            prop::collection::vec(prop_oneof![escape, r#"[^"\\\x00-\x1f]"#], 0..6).prop_map(|parts| parts.concat());
        let leaf = prop_oneof![number, string.prop_map(|text| format!("\"{text}\"")), Just("null".to_owned())];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec((r"[a-cA-Z\u{e9}]{0,2}", inner), 0..4).prop_map(|members| {
                    let members: Vec<_> =
                        members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn whatever_is_proven_is_its_own_canonical_text(value in any_json()) {
            let json = format!("{{\"x\":{value}}}");
            let read = serde_json::from_str::<Value>(&json);
            if let (true, Ok(read)) = (proven(&json), read) {
                prop_assert_eq!(text(&read), json);
            }
        }
    }
}
