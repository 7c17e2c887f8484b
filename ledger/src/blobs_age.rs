//! Encrypting and decrypting confidential payloads with `age`, for whoever owns them. The root agent does not have this
//! module: it keeps ciphertext and cannot read it. Called by `blockhost ledger blob` and by services of the product.

use std::io::{Read as _, Write as _};

/// Largest plaintext that is encrypted or taken out, in bytes.
pub const MAX_PLAIN_BYTES: usize = 1 << 20;
/// Most recipients of one payload; each adds about 100 bytes.
const MAX_RECIPIENTS: usize = 32;

/// Why a payload was not encrypted or decrypted. Secrets are never quoted.
#[derive(Debug, thiserror::Error)]
pub enum AgeError {
    /// A line of the recipients' file.
    #[error("line {line} of the recipients is no age recipient (age1...): {why}")]
    Recipient {
        /// From 1.
        line: usize,
        /// What age says.
        why: &'static str,
    },
    /// A line of the identity file.
    #[error("line {line} of the identities is no age identity (AGE-SECRET-KEY-1...): {why}")]
    Identity {
        /// From 1.
        line: usize,
        /// What age says.
        why: &'static str,
    },
    /// An empty list.
    #[error("there is none; write one a line, as `age-keygen` prints them")]
    Nobody,
    /// A list that is too long.
    #[error("there are more than {MAX_RECIPIENTS} recipients")]
    TooMany,
    /// More than a payload may be.
    #[error("it is larger than {MAX_PLAIN_BYTES} bytes")]
    Size,
    /// Encryption failed.
    #[error("cannot encrypt: {0}")]
    Encrypt(String),
    /// Another key, or bytes that were changed.
    #[error("cannot decrypt: {0}")]
    Decrypt(String),
}

/// Lines that say something, with their number from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| (index + 1, line))
}

/// Encrypts to every recipient of the list (`age1...`, one a line, `#` begins a comment). The format is that of the
/// program `age`, not armored.
///
/// # Errors
/// See [`AgeError`].
pub fn encrypt(recipients: &str, plain: &[u8]) -> Result<Vec<u8>, AgeError> {
    if plain.len() > MAX_PLAIN_BYTES {
        return Err(AgeError::Size);
    }
    let mut list = Vec::new();
    for (line, text) in lines(recipients) {
        let recipient = text.parse::<age::x25519::Recipient>();
        list.push(recipient.map_err(|why| AgeError::Recipient { line, why })?);
    }
    match list.len() {
        0 => return Err(AgeError::Nobody),
        1..=MAX_RECIPIENTS => {}
        _ => return Err(AgeError::TooMany),
    }
    let to = list.iter().map(|one| one as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(to)
        .map_err(|error| AgeError::Encrypt(error.to_string()))?;
    let mut bytes = Vec::new();
    let written = encryptor.wrap_output(&mut bytes).and_then(|mut output| {
        output.write_all(plain)?;
        output.finish().map(drop)
    });
    written.map_err(|error| AgeError::Encrypt(error.to_string()))?;
    Ok(bytes)
}

/// Decrypts with the first identity of the list (`AGE-SECRET-KEY-1...`, one a line) that fits.
///
/// # Errors
/// See [`AgeError`].
pub fn decrypt(identities: &str, bytes: &[u8]) -> Result<Vec<u8>, AgeError> {
    let mut list = Vec::new();
    for (line, text) in lines(identities) {
        let identity = text.parse::<age::x25519::Identity>();
        list.push(identity.map_err(|why| AgeError::Identity { line, why })?);
    }
    if list.is_empty() {
        return Err(AgeError::Nobody);
    }
    let failed = |error: age::DecryptError| AgeError::Decrypt(error.to_string());
    let decryptor = age::Decryptor::new(bytes).map_err(failed)?;
    let keys = list.iter().map(|one| one as &dyn age::Identity);
    let reader = decryptor.decrypt(keys).map_err(failed)?;
    let mut plain = Vec::new();
    reader
        .take(MAX_PLAIN_BYTES as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|error| AgeError::Decrypt(error.to_string()))?;
    if plain.len() > MAX_PLAIN_BYTES {
        return Err(AgeError::Size);
    }
    Ok(plain)
}
