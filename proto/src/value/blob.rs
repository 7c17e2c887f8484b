//! Confidential payloads of the ledger: an encrypted file as base64. Only the form of the
//! file is looked at, so that nothing plain gets beside the ledger by mistake; nobody here can decrypt it.

use serde_json::{Value, json};

use super::{Sha256Hex, Text, text_value};
use crate::qm::base64;

/// A file in the format `age-encryption.org/v1`, at most 40960 bytes, in standard base64 with padding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AgeFile {
    bytes: Vec<u8>,
    text: String,
}

text_value!(AgeFile);

impl AgeFile {
    /// Largest file, in bytes.
    pub const MAX_BYTES: usize = 40_960;

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What names it.
    #[must_use]
    pub fn hash(&self) -> Sha256Hex {
        Sha256Hex::of(&self.bytes)
    }
}

impl std::fmt::Display for AgeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Text for AgeFile {
    const KIND: &'static str = "encrypted file";
    const RULE: &'static str =
        "a file in the format age-encryption.org/v1 of at most 40960 bytes, in base64";
    // What was sent plain by mistake is not repeated in messages.
    const QUOTED: bool = false;
    fn read(text: &str) -> Option<Self> {
        if text.len() > Self::MAX_BYTES.div_ceil(3) * 4 {
            return None;
        }
        let bytes = base64(text)?;
        (bytes.len() <= Self::MAX_BYTES && is_age_file(&bytes)).then(|| Self {
            bytes,
            text: text.to_owned(),
        })
    }
    fn text_schema() -> Value {
        json!({"type": "string", "maxLength": 54_616,
               "pattern": "^YWdlLWVuY3J5cHRpb24ub3JnL3YxC[A-Za-z0-9+/]+={0,2}$"})
    }
}

/// Whether these bytes have the form of an age file: the version line, at least one stanza, the line with the header's
/// MAC, and behind it no less than a nonce and one tag. A file whose first line alone was put before a plain one has not.
#[must_use]
pub fn is_age_file(bytes: &[u8]) -> bool {
    /// Nonce of the payload, and the tag of its last chunk.
    const LEAST_PAYLOAD: usize = 16 + 16;
    const MOST_LINES: usize = 1024;
    let Some(mut rest) = bytes.strip_prefix(b"age-encryption.org/v1\n") else {
        return false;
    };
    let (mut stanzas, mut in_body) = (0, false);
    for _ in 0..MOST_LINES {
        // No line of a header is longer than some arguments; what has no end nearby is not one.
        let window = &rest[..rest.len().min(1024)];
        let Some(end) = window.iter().position(|b| *b == b'\n') else {
            return false;
        };
        let (line, tail) = (&rest[..end], &rest[end + 1..]);
        rest = tail;
        if in_body {
            // A body is lines of 64 and one that is shorter.
            if line.len() > 64 || !line.iter().all(|b| is_base64(*b)) {
                return false;
            }
            in_body = line.len() == 64;
        } else if let Some(arguments) = line.strip_prefix(b"-> ") {
            let good = arguments
                .split(|b| *b == b' ')
                .all(|word| !word.is_empty() && word.iter().all(u8::is_ascii_graphic));
            if !good {
                return false;
            }
            stanzas += 1;
            in_body = true;
        } else {
            return stanzas > 0
                && line
                    .strip_prefix(b"--- ")
                    .is_some_and(|mac| mac.len() == 43 && mac.iter().all(|b| is_base64(*b)))
                && rest.len() >= LEAST_PAYLOAD;
        }
    }
    false
}

const fn is_base64(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'+' || b == b'/'
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "q83vq83vq83vq83vq83vq83vq83vq83vq83vq83vq80";

    fn file(header: &str, payload: usize) -> Vec<u8> {
        [header.as_bytes(), &vec![0xa5; payload]].concat()
    }

    fn good() -> String {
        format!("age-encryption.org/v1\n-> X25519 {BODY}\n{BODY}\n--- {BODY}\n")
    }

    #[test]
    fn the_form_of_an_age_file_is_taken_with_any_recipients() {
        let long = "A".repeat(64);
        for header in [
            good(),
            format!(
                "age-encryption.org/v1\n-> ssh-rsa abc\n{long}\n{long}\nAA\n-> x-grease a %\n\n--- {BODY}\n"
            ),
        ] {
            assert!(is_age_file(&file(&header, 32)), "{header}");
            assert!(!is_age_file(&file(&header, 31)), "no payload: {header}");
        }
    }

    #[test]
    fn what_only_looks_like_one_from_afar_is_refused() {
        let mac = format!("--- {BODY}\n");
        for header in [
            String::new(),
            "age-encryption.org/v1\n".to_owned(),
            "age-encryption.org/v1\npassword: hunter2\nand some more lines of plain text\n"
                .to_owned(),
            format!("age-encryption.org/v1\n{mac}"),
            format!("age-encryption.org/v2\n-> X25519 {BODY}\n{BODY}\n{mac}"),
            format!("age-encryption.org/v1\r\n-> X25519 {BODY}\r\n{BODY}\r\n--- {BODY}\r\n"),
            format!("age-encryption.org/v1\n-> \n{BODY}\n{mac}"),
            format!("age-encryption.org/v1\n-> X25519  {BODY}\n{BODY}\n{mac}"),
            format!("age-encryption.org/v1\n-> X25519 {BODY}\n{BODY}=\n{mac}"),
            format!(
                "age-encryption.org/v1\n-> X25519 {BODY}\n{}\n{mac}",
                "A".repeat(64)
            ),
            format!(
                "age-encryption.org/v1\n-> X25519 {BODY}\n{}\n{mac}",
                "A".repeat(65)
            ),
            format!("age-encryption.org/v1\n-> X25519 {BODY}\n{BODY}\n--- short\n"),
            format!(
                "-----BEGIN AGE ENCRYPTED FILE-----\n{BODY}\n-----END AGE ENCRYPTED FILE-----\n"
            ),
            format!("age-encryption.org/v1\n{}{mac}", "-> a b\n\n".repeat(600)),
        ] {
            assert!(!is_age_file(&file(&header, 100)), "{header}");
        }
    }

    #[test]
    fn what_was_sent_plain_by_mistake_is_not_repeated_in_the_error() {
        let error = "cGFzc3dvcmQ6IGh1bnRlcjI="
            .parse::<AgeFile>()
            .expect_err("plain");
        assert!(!error.to_string().contains("cGFz"), "{error}");
    }
}
