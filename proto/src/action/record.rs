//! What the ledger keeps of a request: canonical parameters, secrets replaced by salted digests, long values by plain
//! ones, so that a record always fits its leaf and never holds what it must not.

use std::hash::{BuildHasher, Hasher, RandomState};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::Action;
use crate::escape;

/// Bytes of the salt in front of a secret.
pub const SALT_BYTES: usize = 16;
/// Texts longer than this stand in the ledger as digest and beginning.
const MAX_TEXT: usize = 4096;
/// Metadata longer than this as JSON is replaced, value by value, by digests.
const MAX_METADATA: usize = 32_768;

impl Action {
    /// The parameters for the ledger, with a fresh salt for secrets.
    #[must_use]
    pub fn ledger_metadata(&self) -> Map<String, Value> {
        self.ledger_metadata_with(&fresh_salt())
    }

    /// The parameters for the ledger. A secret becomes `{"secret_sha256": ..., "salt": ...}`, the SHA-256 of salt and
    /// text, so that whoever knows the secret can show later that this was it.
    #[must_use]
    pub fn ledger_metadata_with(&self, salt: &[u8; SALT_BYTES]) -> Map<String, Value> {
        let secrets = self.secrets();
        let mut map = Map::new();
        for (key, value) in self.encode() {
            let kept = if secrets.contains(&key.as_str()) {
                secret(&value, salt)
            } else {
                fitting(value)
            };
            map.insert(key, kept);
        }
        if Value::Object(map.clone()).to_string().len() > MAX_METADATA {
            for value in map.values_mut() {
                if value.to_string().len() > 256 {
                    *value = digest(&value.to_string(), "sha256");
                }
            }
        }
        map
    }

    /// The `category` of its ledger records: an event's own, else the catalog's.
    #[must_use]
    pub fn ledger_category(&self) -> String {
        match self {
            Self::LedgerAppend(event) => event.category.to_string(),
            Self::LedgerBlob(event) => event.category.to_string(),
            _ => self.spec().category.to_owned(),
        }
    }
}

fn secret(value: &Value, salt: &[u8; SALT_BYTES]) -> Value {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    let hash = Sha256::new()
        .chain_update(salt)
        .chain_update(text.as_bytes())
        .finalize();
    json!({"secret_sha256": escape::hex(&hash), "salt": escape::hex(salt)})
}

fn digest(text: &str, name: &str) -> Value {
    json!({name: escape::hex(&Sha256::digest(text.as_bytes())), "bytes": text.len()})
}

/// U+007F has no place in the ledger's canonical JSON, and a text has a length limit.
fn fitting(value: Value) -> Value {
    match value {
        Value::String(text) if text.len() > MAX_TEXT => {
            let mut cut = digest(&text, "sha256");
            cut["begins"] = Value::String(escape::shown_up_to(&text, 256));
            cut
        }
        Value::String(text) if text.contains('\u{7f}') => {
            Value::String(text.replace('\u{7f}', "\\u{7f}"))
        }
        Value::Array(items) => items.into_iter().map(fitting).collect(),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, item)| (key, fitting(item)))
            .collect(),
        other => other,
    }
}

/// Randomness from the standard library's hash keys, which the kernel seeds: a salt need only be new, not secret.
fn fresh_salt() -> [u8; SALT_BYTES] {
    let mut salt = [0; SALT_BYTES];
    for half in salt.chunks_mut(8) {
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_be_bytes());
    }
    salt
}
