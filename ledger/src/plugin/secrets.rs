//! What must not be written: the history is for ever and for everybody who may read it. Keys that name secrets, and
//! texts that can only be secret keys. A net with holes, as every list is; the first rule is that callers send none.

use serde_json::{Map, Value};

/// A key with one of these in it names a secret.
const PARTS: [&str; 16] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "privatekey",
    "privkey",
    "mnemonic",
    "seedphrase",
    "presharedkey",
    "apikey",
    "accesskey",
    "accesstoken",
    "credential",
    "authorization",
    "bearer",
    "cookie",
];
/// A key that is exactly one of these names a secret.
const WHOLE: [&str; 7] = ["token", "seed", "psk", "pin", "otp", "pass", "pwd"];
/// A text with one of these in it is a secret, whatever its key.
const TEXTS: [&str; 3] = ["PRIVATE KEY-----", "AGE-SECRET-KEY-1", "PRIVATE KEY BLOCK"];
/// What stands instead of a secret that was taken out.
const REDACTED: &str = "[redacted]";

/// Does this key name a secret? `token_id` does not, `session_token` does.
#[must_use]
pub fn is_secret_key(key: &str) -> bool {
    let plain: String = key
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    WHOLE.contains(&plain.as_str())
        || plain.ends_with("token")
        || PARTS.iter().any(|part| plain.contains(part))
}

/// The path of the first secret.
pub(super) fn find(map: &Map<String, Value>) -> Option<String> {
    map.iter().find_map(|(key, value)| {
        if is_secret(key, value) {
            return Some(key.escape_debug().to_string());
        }
        find_in(value).map(|rest| format!("{}{rest}", key.escape_debug()))
    })
}

fn find_in(value: &Value) -> Option<String> {
    match value {
        Value::Object(map) => find(map).map(|path| format!(".{path}")),
        Value::Array(items) => items.iter().enumerate().find_map(|(at, item)| {
            if is_secret("", item) {
                return Some(format!("[{at}]"));
            }
            find_in(item).map(|rest| format!("[{at}]{rest}"))
        }),
        _ => None,
    }
}

/// Takes secrets out, for data that was written elsewhere long ago; says how many.
pub fn redact(map: &mut Map<String, Value>) -> usize {
    let mut count = 0;
    for (key, value) in map.iter_mut() {
        if is_secret(key, value) {
            *value = REDACTED.into();
            count += 1;
        } else {
            count += redact_in(value);
        }
    }
    count
}

fn redact_in(value: &mut Value) -> usize {
    match value {
        Value::Object(map) => redact(map),
        Value::Array(items) => items
            .iter_mut()
            .map(|item| {
                if is_secret("", item) {
                    *item = REDACTED.into();
                    1
                } else {
                    redact_in(item)
                }
            })
            .sum(),
        _ => 0,
    }
}

/// That something is set, or is not, is no secret; nor is what was taken out already.
fn is_secret(key: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => false,
        Value::String(text) if text == REDACTED || text.is_empty() => false,
        Value::String(text) if TEXTS.iter().any(|mark| text.contains(mark)) => true,
        _ => is_secret_key(key),
    }
}
