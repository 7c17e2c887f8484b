//! What names a ledger's head and where on a chain it was anchored: hashes in hexadecimal, and the path of a proof.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{List, Text, ValueError, made_of, text_newtype};

/// A SHA-256 hash: 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Hex(String);

/// Hash of a transaction on an EVM chain: 0x and 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxHash(String);

/// The hashes of a proof in a Merkle tree: at most 64, more than any tree that fits into the world has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HashPath(Vec<Sha256Hex>);

text_newtype!(Sha256Hex, TxHash);

fn lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

impl Sha256Hex {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(crate::escape::hex(&Sha256::digest(bytes)))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(self.0.as_bytes().chunks(2)) {
            *byte = digits
                .iter()
                .filter_map(|digit| char::from(*digit).to_digit(16))
                .fold(0, |sum, digit| sum << 4 | u8::try_from(digit).unwrap_or(0));
        }
        bytes
    }
}

impl Text for Sha256Hex {
    const KIND: &'static str = "hash";
    const RULE: &'static str = "64 hexadecimal digits in lower case";
    fn read(text: &str) -> Option<Self> {
        made_of(text, 64..=64, lower_hex).then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9a-f]{64}$"})
    }
}

impl Text for TxHash {
    const KIND: &'static str = "transaction hash";
    const RULE: &'static str = "0x and 64 hexadecimal digits in lower case";
    fn read(text: &str) -> Option<Self> {
        let good = text
            .strip_prefix("0x")
            .is_some_and(|digits| made_of(digits, 64..=64, lower_hex));
        good.then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^0x[0-9a-f]{64}$"})
    }
}

impl HashPath {
    /// The hashes, in the order of the proof.
    #[must_use]
    pub fn hashes(&self) -> Vec<[u8; 32]> {
        self.0.iter().map(Sha256Hex::bytes).collect()
    }
}

impl List for HashPath {
    const KIND: &'static str = "proof";
    const RULE: &'static str = "at most 64 hashes";
    const MAX: usize = 64;
    type Item = Sha256Hex;
    fn from_items(items: Vec<Sha256Hex>) -> Result<Self, ValueError> {
        Ok(Self(items))
    }
    fn items(&self) -> &[Sha256Hex] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_hash_are_those_of_its_digits() {
        let text = format!("00ff1a{}", "9c".repeat(29));
        let bytes = Sha256Hex::read(&text).expect("valid").bytes();
        assert_eq!(crate::escape::hex(&bytes), text);
    }
}
