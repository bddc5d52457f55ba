//! Values that stand elsewhere: `${file:PATH}` and `${env:NAME}`, anywhere within a text, as Kafka's own configuration has them.
//! Secrets then stand neither in a file of settings nor in a command line, and are never shown.

use super::error::SettingsError;

/// The text with its references replaced; `None` when it has none.
pub(super) fn resolve(key: &str, text: &str) -> Result<Option<String>, SettingsError> {
    let mut resolved = String::new();
    let (mut rest, mut found) = (text, false);
    while let Some(start) = rest.find("${") {
        let (before, after) = rest.split_at(start);
        let Some(end) = after.find('}') else { break };
        let (reference, following) = after.split_at(end + 1);
        resolved.push_str(before);
        match value(&reference[2..end]) {
            Some(Ok(value)) => {
                found = true;
                resolved.push_str(&value);
            }
            Some(Err(reason)) => {
                return Err(SettingsError::Reference { key: key.to_owned(), reference: reference.to_owned(), reason });
            }
            // Somebody else's.
            None => resolved.push_str(reference),
        }
        rest = following;
    }
    resolved.push_str(rest);
    Ok(found.then_some(resolved))
}

fn value(reference: &str) -> Option<Result<String, String>> {
    match reference.split_once(':')? {
        // Editors end files with a line's end, which is part of no password.
        ("file", path) => Some(match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => Err(error.to_string()),
        }),
        ("env", name) => Some(std::env::var(name).map_err(|error| error.to_string())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_anywhere_and_missing_ones_are_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("password");
        std::fs::write(&path, "hush\n").expect("written");
        let text = format!("postgres://me:${{file:{}}}@host/${{else:x}}", path.display());
        let resolved = resolve("postgres.url", &text).expect("there");
        assert_eq!(resolved.as_deref(), Some("postgres://me:hush@host/${else:x}"));
        assert_eq!(resolve("k", "plain $ {text}").expect("no reference"), None);
        let refusal = resolve("postgres.url", "${file:/nonexistent}").expect_err("missing").to_string();
        assert!(refusal.contains("postgres.url") && refusal.contains("${file:/nonexistent}"), "{refusal}");
        assert!(resolve("k", "${env:WEIR_NO_SUCH_VARIABLE}").is_err());
    }
}
