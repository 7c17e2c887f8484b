//! secp256k1 keys as the host keeps them: 64 hexadecimal digits in a file, public keys uncompressed.

use super::{CryptoError, decode_hex, keccak256};
use k256::elliptic_curve::sec1::ToEncodedPoint;
use k256::elliptic_curve::zeroize::Zeroize;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest key file that is read; a key is 64 digits.
const MAX_KEY_FILE: u64 = 4096;

/// A private key; wiped when dropped, never printed.
pub struct PrivateKey(k256::SecretKey);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// Why a key file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It could not be read.
    #[error("cannot read the key file {path}: {source}", path = .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds no key.
    #[error("the key file {path} does not hold a key: {source}", path = .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: CryptoError,
    },
}

impl PrivateKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`CryptoError::Random`].
    pub fn generate() -> Result<Self, CryptoError> {
        loop {
            let bytes = Zeroizing::new(super::random_bytes::<32>()?);
            // Fails once in 2^128: zero or beyond the order.
            if let Ok(key) = k256::SecretKey::from_slice(bytes.as_slice()) {
                return Ok(Self(key));
            }
        }
    }

    /// From 32 bytes in hexadecimal, `0x` optional.
    ///
    /// # Errors
    /// [`CryptoError::NotHex`], [`CryptoError::BadPrivateKey`].
    pub fn from_hex(text: &str) -> Result<Self, CryptoError> {
        Self::from_bytes(&decode_hex("the private key", text)?)
    }

    /// From 32 bytes.
    ///
    /// # Errors
    /// [`CryptoError::BadPrivateKey`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptoError> {
        // `from_slice` of the library also takes 24 bytes and more, padded.
        if bytes.len() != 32 {
            return Err(CryptoError::BadPrivateKey);
        }
        k256::SecretKey::from_slice(bytes)
            .map(Self)
            .map_err(|_| CryptoError::BadPrivateKey)
    }

    /// From a file with the key in hexadecimal.
    ///
    /// # Errors
    /// [`KeyFileError`], naming the file.
    pub fn from_file(path: &Path) -> Result<Self, KeyFileError> {
        let text = read_secret_file(path)?;
        Self::from_hex(&text).map_err(|source| KeyFileError::Content {
            path: path.to_owned(),
            source,
        })
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        let mut bytes = self.0.to_bytes();
        let text = Zeroizing::new(hex::encode(bytes));
        bytes.zeroize();
        text
    }

    /// The 32 bytes, for a signer.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    /// The public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.public_key())
    }

    pub(super) fn shared_x(&self, public: &PublicKey) -> Zeroizing<[u8; 32]> {
        let shared = k256::ecdh::diffie_hellman(self.0.to_nonzero_scalar(), public.0.as_affine());
        Zeroizing::new((*shared.raw_secret_bytes()).into())
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(k256::PublicKey);

impl PublicKey {
    /// From the uncompressed point in hexadecimal, `0x` optional.
    ///
    /// # Errors
    /// [`CryptoError::NotHex`], [`CryptoError::BadPublicKey`].
    pub fn from_hex(text: &str) -> Result<Self, CryptoError> {
        Self::from_uncompressed("the public key", &decode_hex("the public key", text)?)
    }

    pub(super) fn from_uncompressed(what: &'static str, bytes: &[u8]) -> Result<Self, CryptoError> {
        if bytes.len() != 65 || bytes[0] != 4 {
            return Err(CryptoError::BadPublicKey { what });
        }
        k256::PublicKey::from_sec1_bytes(bytes)
            .map(Self)
            .map_err(|_| CryptoError::BadPublicKey { what })
    }

    /// The uncompressed point: 04, x, y.
    #[must_use]
    pub fn uncompressed(&self) -> [u8; 65] {
        self.0
            .to_encoded_point(false)
            .as_bytes()
            .try_into()
            .expect("an uncompressed point has 65 bytes")
    }

    /// The uncompressed point in hexadecimal, without `0x`.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.uncompressed())
    }

    /// The address of the account, in EIP-55's mixed case.
    #[must_use]
    pub fn address(&self) -> alloy::primitives::Address {
        let hash = keccak256(&self.uncompressed()[1..]);
        alloy::primitives::Address::from_slice(&hash[12..])
    }
}

/// Reads a small secret file as text.
///
/// # Errors
/// [`KeyFileError::Read`], also for a file that is not text or far too long.
pub fn read_secret_file(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    use std::io::Read;
    let fail = |source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(fail)?;
    file.take(MAX_KEY_FILE)
        .read_to_string(&mut text)
        .map_err(fail)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_the_group_order_and_wrong_lengths_are_no_keys() {
        let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
        for bad in [
            "00".repeat(32).as_str(),
            order,
            "01",
            &"01".repeat(24),
            &"01".repeat(33),
            "",
        ] {
            assert_eq!(
                PrivateKey::from_hex(bad).unwrap_err(),
                CryptoError::BadPrivateKey,
                "{bad}"
            );
        }
    }

    #[test]
    fn debug_output_does_not_show_the_key() {
        assert_eq!(
            format!("{:?}", PrivateKey::from_hex(&"01".repeat(32)).unwrap()),
            "PrivateKey(..)"
        );
    }

    #[test]
    fn the_first_account_of_every_local_chain_has_its_known_address() {
        let key = PrivateKey::from_hex(
            "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
        )
        .unwrap();
        assert_eq!(
            key.public_key().address().to_string(),
            "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
        );
    }

    #[test]
    fn a_key_survives_its_hex_form() {
        let key = PrivateKey::generate().unwrap();
        assert_eq!(
            PrivateKey::from_hex(&key.to_hex()).unwrap().public_key(),
            key.public_key()
        );
    }
}
