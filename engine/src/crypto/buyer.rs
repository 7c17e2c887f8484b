//! To the buyer: AES-256-GCM under `keccak256(signature)`, where the signature is the wallet's own over the public
//! secret, so that the buyer makes the key again by signing again. Bytes: nonce[12], ciphertext, tag[16].

use super::{CryptoError, NONCE_LEN, TAG_LEN, decode_hex, keccak256, random_bytes};
use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The key that a wallet signature stands for.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct BuyerKey([u8; 32]);

impl std::fmt::Debug for BuyerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BuyerKey(..)")
    }
}

impl BuyerKey {
    /// The key derived from the bytes of a signature (65 of them, from a wallet).
    ///
    /// # Errors
    /// [`CryptoError::EmptySignature`].
    pub fn from_signature(signature: &[u8]) -> Result<Self, CryptoError> {
        if signature.is_empty() {
            return Err(CryptoError::EmptySignature);
        }
        Ok(Self(keccak256(signature)))
    }

    /// Encrypts under a fresh nonce.
    ///
    /// # Errors
    /// [`CryptoError::Random`].
    pub fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        Ok(self.encrypt_with_nonce(plaintext, random_bytes()?))
    }

    fn encrypt_with_nonce(&self, plaintext: &[u8], nonce: [u8; NONCE_LEN]) -> Vec<u8> {
        let sealed = Aes256Gcm::new((&self.0).into())
            .encrypt(Nonce::from_slice(&nonce), plaintext)
            .expect("AES-GCM refuses only texts of 64 GiB");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Decrypts what [`encrypt`](Self::encrypt) made.
    ///
    /// # Errors
    /// [`CryptoError::TooShort`], [`CryptoError::NotAuthentic`].
    pub fn decrypt(&self, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let least = NONCE_LEN + TAG_LEN;
        let Some((nonce, sealed)) = bytes
            .split_at_checked(NONCE_LEN)
            .filter(|(_, rest)| rest.len() >= TAG_LEN)
        else {
            return Err(CryptoError::TooShort {
                got: bytes.len(),
                least,
            });
        };
        Aes256Gcm::new((&self.0).into())
            .decrypt(Nonce::from_slice(nonce), sealed)
            .map(Zeroizing::new)
            .map_err(|_| CryptoError::NotAuthentic)
    }
}

/// [`BuyerKey::encrypt`] from and to hexadecimal: `0x` in front of the result.
///
/// # Errors
/// Those of the parts.
pub fn encrypt_hex(signature: &str, plaintext: &[u8]) -> Result<String, CryptoError> {
    let key = BuyerKey::from_signature(&decode_hex("the signature", signature)?)?;
    Ok(format!("0x{}", hex::encode(key.encrypt(plaintext)?)))
}

/// [`BuyerKey::decrypt`] from hexadecimal.
///
/// # Errors
/// Those of the parts.
pub fn decrypt_hex(signature: &str, ciphertext: &str) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let key = BuyerKey::from_signature(&decode_hex("the signature", signature)?)?;
    key.decrypt(&decode_hex("the ciphertext", ciphertext)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIGNATURE: [u8; 65] = [0x11; 65];

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let key = BuyerKey::from_signature(&SIGNATURE).unwrap();
        let sealed = key.encrypt(b"{}").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.decrypt(&bad).unwrap_err(), CryptoError::NotAuthentic);
        }
        for length in 0..sealed.len() {
            assert!(key.decrypt(&sealed[..length]).is_err());
        }
    }

    #[test]
    fn an_empty_signature_is_no_key() {
        assert_eq!(
            encrypt_hex("0x", b"x").unwrap_err(),
            CryptoError::EmptySignature
        );
    }

    /// Made with an independent implementation (Python's `cryptography`, Keccak of the npm package `js-sha3`).
    #[test]
    fn the_bytes_are_those_of_other_implementations() {
        let vector: serde_json::Value = serde_json::from_str(include_str!("vectors.json")).unwrap();
        let v = &vector["buyer"];
        let text = |name: &str| v[name].as_str().unwrap().to_owned();
        let key = BuyerKey::from_signature(&decode_hex("it", &text("signature")).unwrap()).unwrap();
        let nonce: [u8; NONCE_LEN] = decode_hex("it", &text("nonce"))
            .unwrap()
            .as_slice()
            .try_into()
            .unwrap();
        let made = key.encrypt_with_nonce(text("plaintext").as_bytes(), nonce);
        assert_eq!(format!("0x{}", hex::encode(made)), text("ciphertext"));
        let back = decrypt_hex(&text("signature"), &text("ciphertext")).unwrap();
        assert_eq!(back.as_slice(), text("plaintext").as_bytes());
    }

    proptest! {
        #[test]
        fn what_was_encrypted_decrypts_and_only_with_its_signature(text: Vec<u8>, signature in prop::array::uniform32(any::<u8>())) {
            let key = BuyerKey::from_signature(&signature).unwrap();
            let sealed = key.encrypt(&text).unwrap();
            let back = key.decrypt(&sealed).unwrap();
            prop_assert_eq!(back.as_slice(), text.as_slice());
            let mut other = signature;
            other[0] ^= 1;
            prop_assert!(BuyerKey::from_signature(&other).unwrap().decrypt(&sealed).is_err());
        }

        #[test]
        fn no_bytes_make_decryption_panic(bytes: Vec<u8>) {
            let _ = BuyerKey::from_signature(&SIGNATURE).unwrap().decrypt(&bytes);
        }
    }
}
