//! The two encryptions that other programs read and write too, byte for byte: access details to the buyer
//! ([`buyer`]) and secrets to this server ([`ecies`]). Keys are wiped when dropped. No I/O here but the kernel's
//! random numbers.

pub mod buyer;
pub mod ecies;
pub mod keys;

use sha3::{Digest, Keccak256};
use zeroize::Zeroizing;

/// Length of a wallet signature: r, s and v.
pub const SIGNATURE_LEN: usize = 65;
/// Length of an AES-GCM nonce.
pub const NONCE_LEN: usize = 12;
/// Length of an AES-GCM tag.
pub const TAG_LEN: usize = 16;

/// Why something could not be encrypted, decrypted or read as a key. Never says anything about secret bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// Not hexadecimal.
    #[error("{what} is not hexadecimal: {reason}")]
    NotHex {
        /// Which input.
        what: &'static str,
        /// What the decoder minded.
        reason: String,
    },
    /// Too short to hold nonce and tag.
    #[error("the ciphertext is {got} bytes long, at least {least} are needed")]
    TooShort {
        /// Its length.
        got: usize,
        /// The shortest that can be valid.
        least: usize,
    },
    /// Wrong key, or changed bytes: the two cannot be told apart.
    #[error("decryption failed: wrong key, or the ciphertext was changed")]
    NotAuthentic,
    /// Not a private key of secp256k1.
    #[error(
        "not a secp256k1 private key: 32 bytes in hexadecimal, neither 0 nor beyond the group order"
    )]
    BadPrivateKey,
    /// Not a point of secp256k1.
    #[error("{what} is not an uncompressed secp256k1 point (65 bytes, 04 first)")]
    BadPublicKey {
        /// Which point.
        what: &'static str,
    },
    /// An empty signature derives a key that everybody knows.
    #[error("the signature is empty")]
    EmptySignature,
    /// What came out is not text.
    #[error("the decrypted bytes are not UTF-8 text")]
    NotText,
    /// The kernel gave no random numbers.
    #[error("no random numbers from the kernel: {0}")]
    Random(String),
}

/// Decodes hexadecimal with or without `0x`, ignoring white space around it.
///
/// # Errors
/// [`CryptoError::NotHex`], naming `what`.
pub fn decode_hex(what: &'static str, text: &str) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let digits = text.trim();
    let digits = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
        .unwrap_or(digits);
    hex::decode(digits)
        .map(Zeroizing::new)
        .map_err(|e| CryptoError::NotHex {
            what,
            reason: e.to_string(),
        })
}

/// Keccak-256, the hash of Ethereum (not NIST's SHA3-256).
#[must_use]
pub fn keccak256(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

fn random_bytes<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| CryptoError::Random(e.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_that_is_odd_or_not_hex_is_refused() {
        for bad in ["0x0", "0xzz", "00 11", "0x0x00"] {
            assert!(
                matches!(decode_hex("it", bad), Err(CryptoError::NotHex { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn keccak_is_the_one_of_ethereum() {
        assert_eq!(
            hex::encode(keccak256(b"")),
            "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
        );
    }
}
