//! C2SP signed notes and checkpoints: key names and ids, verifier keys, the note body, signing and opening a note.
//! Text formats only; where keys are kept is known by `keys`, when a head is signed by `writer`.

use crate::merkle::{Hash, hex, sha256};
use base64ct::{Base64, Encoding as _};
use ed25519_dalek::{Signature, VerifyingKey};

/// Signature type byte of Ed25519 in C2SP signed-note.
const TYPE_ED25519: u8 = 1;
/// A note larger than this is not read: checkpoints have three lines and a few signatures.
const MAX_NOTE_BYTES: usize = 64 * 1024;

/// Why a key, a note or a checkpoint is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// A key name that is empty or contains white space, `+` or control characters.
    #[error("the key name {0:?} is empty or contains a space, a plus sign or a control character")]
    Name(String),
    /// A verifier key that is not `name+hex key id+base64`.
    #[error(
        "not a verifier key ({0}); expected one line like example.org/blockhost-ledger+0a1b2c3d+AQ...="
    )]
    Vkey(&'static str),
    /// A note whose shape is wrong.
    #[error("not a signed note: {0}")]
    Shape(&'static str),
    /// The body is not origin, size, root.
    #[error("not a checkpoint: {0}")]
    Checkpoint(&'static str),
    /// No line of the note was made by the key.
    #[error(
        "the note carries no signature of the key {name}+{id:08x}; it is not from this ledger or from another key of it"
    )]
    NoSignature {
        /// The key's name.
        name: String,
        /// The key's id.
        id: u32,
    },
    /// A line claims to be made by the key and is not.
    #[error(
        "the signature of {name} does not match: the text or the signature was changed, or another key made it"
    )]
    BadSignature {
        /// The key's name.
        name: String,
    },
    /// The checkpoint is signed correctly but for another log.
    #[error("the checkpoint is of the log {found:?}, not of {expected:?}")]
    Origin {
        /// The origin line of the checkpoint.
        found: String,
        /// The key's name.
        expected: String,
    },
}

/// A public key that checkpoints are verified with, bound to a name (the origin of the log).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vkey {
    name: String,
    id: u32,
    key: VerifyingKey,
}

impl Vkey {
    /// Binds `key` to `name`.
    ///
    /// # Errors
    /// A name that C2SP signed-note does not allow.
    pub fn new(name: &str, key: VerifyingKey) -> Result<Self, NoteError> {
        if !is_key_name(name) {
            return Err(NoteError::Name(name.escape_default().take(80).collect()));
        }
        Ok(Self {
            name: name.to_owned(),
            id: key_id(name, &key),
            key,
        })
    }

    /// Reads `name+8 hex digits+base64(0x01 || key)`; surrounding white space is ignored.
    ///
    /// # Errors
    /// Any other text, another signature type, or an id that is not of this name and key (a mistyped key).
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let (name, id, key) = key_parts(text, TYPE_ED25519, "it is not an Ed25519 key")?;
        let vkey = Self::new(name, key)?;
        check_id(id, vkey.id)?;
        Ok(vkey)
    }

    /// The key's name, which is the origin of the log it signs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The C2SP key id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Are these the same key, whatever they are called?
    #[must_use]
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// The point that the key is.
    #[cfg(feature = "cli")]
    pub(crate) fn point(&self) -> curve25519_dalek::EdwardsPoint {
        self.key.to_edwards()
    }

    /// Is `signature` (raw, 64 bytes) made by this key over `body`?
    #[must_use]
    pub fn verifies(&self, body: &str, signature: &[u8; 64]) -> bool {
        self.key
            .verify_strict(body.as_bytes(), &Signature::from_bytes(signature))
            .is_ok()
    }

    /// Opens a checkpoint: finds this key's signature in the note, checks it, and reads the body.
    ///
    /// # Errors
    /// A malformed note, no signature of this key, a wrong one, or a body that is not a checkpoint of this origin.
    pub fn open(&self, note: &str) -> Result<Checkpoint, NoteError> {
        let (body, lines) = split_note(note)?;
        let mut verified = false;
        for line in lines {
            if line.name != self.name || line.id != self.id {
                continue;
            }
            let signature: &[u8; 64] =
                line.signature
                    .as_slice()
                    .try_into()
                    .map_err(|_| NoteError::BadSignature {
                        name: self.name.clone(),
                    })?;
            if !self.verifies(body, signature) {
                return Err(NoteError::BadSignature {
                    name: self.name.clone(),
                });
            }
            verified = true;
        }
        if !verified {
            return Err(NoteError::NoSignature {
                name: self.name.clone(),
                id: self.id,
            });
        }
        let checkpoint = Checkpoint::parse_body(body)?;
        if checkpoint.origin != self.name {
            return Err(NoteError::Origin {
                found: checkpoint.origin,
                expected: self.name.clone(),
            });
        }
        Ok(checkpoint)
    }
}

impl std::fmt::Display for Vkey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = vec![TYPE_ED25519];
        bytes.extend_from_slice(self.key.as_bytes());
        write!(
            f,
            "{}+{:08x}+{}",
            self.name,
            self.id,
            Base64::encode_string(&bytes)
        )
    }
}

/// What a checkpoint says: which log, how many records, which root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The identity of the log.
    pub origin: String,
    /// Number of records.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The exact text that is signed: origin, size, base64 root, each on a line.
    #[must_use]
    pub fn body(&self) -> String {
        format!(
            "{}\n{}\n{}\n",
            self.origin,
            self.size,
            Base64::encode_string(&self.root)
        )
    }

    /// Reads a body; unknown extension lines are allowed as C2SP tlog-checkpoint says.
    ///
    /// # Errors
    /// Fewer than three lines, a size with a sign or leading zeros, a root that is not 32 bytes of base64.
    pub fn parse_body(body: &str) -> Result<Self, NoteError> {
        let mut lines = body.split('\n');
        let origin = lines
            .next()
            .filter(|line| !line.is_empty())
            .ok_or(NoteError::Checkpoint("the origin is missing"))?;
        let size = parse_decimal(lines.next().unwrap_or_default())
            .ok_or(NoteError::Checkpoint("the second line is not a tree size"))?;
        let root = parse_hash(lines.next().unwrap_or_default()).ok_or(NoteError::Checkpoint(
            "the third line is not a base64 root of 32 bytes",
        ))?;
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root,
        })
    }

    /// Reads the body of a note **without** checking any signature: for showing and for comparing with what is at hand.
    ///
    /// # Errors
    /// A malformed note or body.
    pub fn parse_unverified(note: &str) -> Result<Self, NoteError> {
        Self::parse_body(split_note(note)?.0)
    }
}

/// Puts a body and one signature together as a signed note.
#[must_use]
pub fn assemble(body: &str, key: &Vkey, signature: &[u8; 64]) -> String {
    let mut bytes = key.id.to_be_bytes().to_vec();
    bytes.extend_from_slice(signature);
    format!(
        "{body}\n\u{2014} {} {}\n",
        key.name,
        Base64::encode_string(&bytes)
    )
}

/// A decimal number as C2SP writes them: ASCII digits, no sign, no leading zero.
#[must_use]
pub fn parse_decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// A hash as C2SP writes them: base64 of 32 bytes.
#[must_use]
pub fn parse_hash(text: &str) -> Option<Hash> {
    Base64::decode_vec(text).ok()?.try_into().ok()
}

/// May this be a key name (C2SP signed-note: not empty, no white space, no plus; here also no control characters)?
#[must_use]
pub fn is_key_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

fn key_id(name: &str, key: &VerifyingKey) -> u32 {
    let mut data = name.as_bytes().to_vec();
    data.push(b'\n');
    data.push(TYPE_ED25519);
    data.extend_from_slice(key.as_bytes());
    let [a, b, c, d, ..] = sha256(&data);
    u32::from_be_bytes([a, b, c, d])
}

/// One signature line of a note, not checked.
pub(crate) struct SignatureLine<'a> {
    pub name: &'a str,
    pub id: u32,
    pub signature: Vec<u8>,
    /// The whole line, without its newline.
    pub text: &'a str,
}

/// Splits a note at its last empty line and reads the signature lines.
fn split_note(note: &str) -> Result<(&str, Vec<SignatureLine<'_>>), NoteError> {
    if note.len() > MAX_NOTE_BYTES {
        return Err(NoteError::Shape("it is larger than 64 KiB"));
    }
    if note.bytes().any(|b| b < 0x20 && b != b'\n') {
        return Err(NoteError::Shape("it contains a control character"));
    }
    let at = note.rfind("\n\n").ok_or(NoteError::Shape(
        "there is no empty line before the signatures",
    ))?;
    Ok((&note[..=at], signature_lines(&note[at + 2..])?))
}

/// Reads signature lines, each with its newline; at least one, and no more than a note has room for.
pub(crate) fn signature_lines(text: &str) -> Result<Vec<SignatureLine<'_>>, NoteError> {
    if text.len() > MAX_NOTE_BYTES {
        return Err(NoteError::Shape("it is larger than 64 KiB"));
    }
    let rest = text
        .strip_suffix('\n')
        .ok_or(NoteError::Shape("it does not end with a newline"))?;
    let mut lines = Vec::new();
    for text in rest.split('\n') {
        let line = text.strip_prefix("\u{2014} ").ok_or(NoteError::Shape(
            "a signature line does not begin with a dash",
        ))?;
        let (name, encoded) = line
            .split_once(' ')
            .ok_or(NoteError::Shape("a signature line has no signature"))?;
        let bytes = Base64::decode_vec(encoded)
            .map_err(|_| NoteError::Shape("a signature is not base64"))?;
        let Some((id, signature)) = bytes.split_first_chunk::<4>() else {
            return Err(NoteError::Shape("a signature is shorter than its key id"));
        };
        if !is_key_name(name) || signature.is_empty() {
            return Err(NoteError::Shape(
                "a signature line has no name or no signature",
            ));
        }
        lines.push(SignatureLine {
            name,
            id: u32::from_be_bytes(*id),
            signature: signature.to_vec(),
            text,
        });
    }
    Ok(lines)
}

/// The body of a note and its signature lines as they stand, nothing of it checked.
///
/// # Errors
/// Text that is no note.
pub fn parts(note: &str) -> Result<(&str, &str), NoteError> {
    let (body, _) = split_note(note)?;
    Ok((body, &note[body.len() + 1..]))
}

/// The note with those signatures alone that these keys made of it, one each: lines of others are whatever their writer wished.
/// `None` where none of them signed it.
#[must_use]
pub fn signed_by(note: &str, keys: &[Vkey]) -> Option<String> {
    let (body, lines) = split_note(note).ok()?;
    let mut kept = format!("{body}\n");
    let without = kept.len();
    for key in keys {
        let made = |line: &&SignatureLine<'_>| {
            let signature: Result<&[u8; 64], _> = line.signature.as_slice().try_into();
            line.name == key.name
                && line.id == key.id
                && signature.is_ok_and(|signature| key.verifies(body, signature))
        };
        if let Some(line) = lines.iter().find(made) {
            kept.push_str(line.text);
            kept.push('\n');
        }
    }
    (kept.len() > without).then_some(kept)
}

/// The keys in a file of verifier keys, one a line, the first key of the log first. Empty lines are passed over.
///
/// # Errors
/// A line that is no key; keys of different logs.
pub fn parse_vkeys(text: &str) -> Result<Vec<Vkey>, NoteError> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let keys = lines.map(Vkey::parse).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = keys.first() else {
        return Err(NoteError::Vkey("there is none"));
    };
    if keys.iter().any(|key| key.name != first.name) {
        return Err(NoteError::Vkey("the lines are keys of different logs"));
    }
    Ok(keys)
}

/// Opens a checkpoint with the newest of a log's `keys` (oldest first) that signed it, and says which: its place in `keys`.
/// Which sizes a key may sign is in the ledger (see `epochs`); without it the caller has to judge the place.
///
/// # Errors
/// None of them signed it, or one did that it does not match; see [`Vkey::open`].
pub fn open_with(keys: &[Vkey], note: &str) -> Result<(usize, Checkpoint), NoteError> {
    let mut result = Err(NoteError::Vkey("there is none"));
    for (place, key) in keys.iter().enumerate().rev() {
        result = key.open(note).map(|checkpoint| (place, checkpoint));
        if !matches!(result, Err(NoteError::NoSignature { .. })) {
            break;
        }
    }
    result
}

/// `name+id` for messages.
#[must_use]
pub fn short_name(key: &Vkey) -> String {
    format!("{}+{}", key.name, hex(&key.id.to_be_bytes()))
}

/// The name, the id and the key of a `NAME+ID+BASE64` text whose key is of the type `kind`; `other` says what it is not.
pub(crate) fn key_parts<'a>(
    text: &'a str,
    kind: u8,
    other: &'static str,
) -> Result<(&'a str, &'a str, VerifyingKey), NoteError> {
    // Base64 may contain `+`, names and ids may not: split from the left.
    let mut parts = text.trim().splitn(3, '+');
    let (Some(name), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::Vkey("it does not have three parts"));
    };
    let bytes =
        Base64::decode_vec(encoded).map_err(|_| NoteError::Vkey("the third part is not base64"))?;
    let Some((_, key)) = bytes.split_first().filter(|(found, _)| **found == kind) else {
        return Err(NoteError::Vkey(other));
    };
    let key: [u8; 32] = key
        .try_into()
        .map_err(|_| NoteError::Vkey("the key is not 32 bytes long"))?;
    let key = VerifyingKey::from_bytes(&key)
        .map_err(|_| NoteError::Vkey("the key is not a curve point"))?;
    Ok((name, id, key))
}

/// Is the id that was written the one of the name and key?
pub(crate) fn check_id(written: &str, computed: u32) -> Result<(), NoteError> {
    if format!("{computed:08x}") != written.to_ascii_lowercase() {
        return Err(NoteError::Vkey(
            "its id does not belong to its name and key: mistyped?",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
