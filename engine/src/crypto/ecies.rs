//! To the server, and admin commands: ECIES over secp256k1. Bytes: ephemeral public key uncompressed[65], iv[12],
//! ciphertext, tag[16]. AES-256-GCM under HKDF-SHA256(x coordinate of the ECDH point, salt 32 zeros, no info).

use super::keys::{PrivateKey, PublicKey};
use super::{CryptoError, NONCE_LEN, TAG_LEN, random_bytes};
use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

const POINT_LEN: usize = 65;

/// Encrypts so that only the holder of the private key of `to` can read it.
///
/// # Errors
/// [`CryptoError::Random`].
pub fn encrypt(to: &PublicKey, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let ephemeral = PrivateKey::generate()?;
    Ok(encrypt_with(to, plaintext, &ephemeral, random_bytes()?))
}

fn encrypt_with(
    to: &PublicKey,
    plaintext: &[u8],
    ephemeral: &PrivateKey,
    iv: [u8; NONCE_LEN],
) -> Vec<u8> {
    let key = derive_key(ephemeral, to);
    let sealed = Aes256Gcm::new((&*key).into())
        .encrypt(Nonce::from_slice(&iv), plaintext)
        .expect("AES-GCM refuses only texts of 64 GiB");
    [
        ephemeral.public_key().uncompressed().as_slice(),
        &iv,
        &sealed,
    ]
    .concat()
}

/// Decrypts what [`encrypt`] made.
///
/// # Errors
/// [`CryptoError::TooShort`], [`CryptoError::BadPublicKey`] for the ephemeral key, [`CryptoError::NotAuthentic`].
pub fn decrypt(with: &PrivateKey, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let least = POINT_LEN + NONCE_LEN + TAG_LEN;
    if bytes.len() < least {
        return Err(CryptoError::TooShort {
            got: bytes.len(),
            least,
        });
    }
    let (point, rest) = bytes.split_at(POINT_LEN);
    let (iv, sealed) = rest.split_at(NONCE_LEN);
    let ephemeral = PublicKey::from_uncompressed("the ephemeral key", point)?;
    let key = derive_key(with, &ephemeral);
    Aes256Gcm::new((&*key).into())
        .decrypt(Nonce::from_slice(iv), sealed)
        .map(Zeroizing::new)
        .map_err(|_| CryptoError::NotAuthentic)
}

fn derive_key(private: &PrivateKey, public: &PublicKey) -> Zeroizing<[u8; 32]> {
    let x = private.shared_x(public);
    let mut key = Zeroizing::new([0; 32]);
    // The salt is written out although it is HKDF's default: it is part of the format.
    Hkdf::<Sha256>::new(Some(&[0; 32]), x.as_slice())
        .expand(&[], key.as_mut_slice())
        .expect("32 bytes are within what HKDF-SHA256 can give");
    key
}

#[cfg(test)]
mod tests {
    use super::super::decode_hex;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_point_off_the_curve_compressed_or_infinite_is_refused() {
        let key = PrivateKey::generate().unwrap();
        let good = encrypt(&key.public_key(), b"text").unwrap();
        for first in [0, 2, 3, 5, 6, 7, 0xff] {
            let mut bad = good.clone();
            bad[0] = first;
            assert!(
                matches!(decrypt(&key, &bad), Err(CryptoError::BadPublicKey { .. })),
                "{first}"
            );
        }
        let mut off_curve = good.clone();
        off_curve[64] ^= 1;
        assert!(matches!(
            decrypt(&key, &off_curve),
            Err(CryptoError::BadPublicKey { .. })
        ));
        let mut zeros = good;
        zeros[1..65].fill(0);
        assert!(matches!(
            decrypt(&key, &zeros),
            Err(CryptoError::BadPublicKey { .. })
        ));
    }

    #[test]
    fn another_servers_key_cannot_read_it() {
        let sealed = encrypt(&PrivateKey::generate().unwrap().public_key(), b"text").unwrap();
        let other = PrivateKey::generate().unwrap();
        assert_eq!(
            decrypt(&other, &sealed).unwrap_err(),
            CryptoError::NotAuthentic
        );
    }

    /// Made with an independent implementation (Python's `cryptography`).
    #[test]
    fn the_bytes_are_those_of_other_implementations() {
        let vector: serde_json::Value = serde_json::from_str(include_str!("vectors.json")).unwrap();
        let v = &vector["ecies"];
        let text = |name: &str| v[name].as_str().unwrap().to_owned();
        let server = PrivateKey::from_hex(&text("private_key")).unwrap();
        assert_eq!(server.public_key().to_hex(), text("public_key"));
        let ephemeral = PrivateKey::from_hex(&text("ephemeral_private_key")).unwrap();
        let iv: [u8; NONCE_LEN] = decode_hex("it", &text("iv"))
            .unwrap()
            .as_slice()
            .try_into()
            .unwrap();
        let made = encrypt_with(
            &server.public_key(),
            text("plaintext").as_bytes(),
            &ephemeral,
            iv,
        );
        assert_eq!(format!("0x{}", hex::encode(made)), text("ciphertext"));
        let back = decrypt(&server, &decode_hex("it", &text("ciphertext")).unwrap()).unwrap();
        assert_eq!(back.as_slice(), text("plaintext").as_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_was_encrypted_decrypts(text: Vec<u8>) {
            let key = PrivateKey::generate().unwrap();
            let sealed = encrypt(&key.public_key(), &text).unwrap();
            let back = decrypt(&key, &sealed).unwrap();
            prop_assert_eq!(back.as_slice(), text.as_slice());
        }

        #[test]
        fn no_bytes_make_decryption_panic(bytes: Vec<u8>) {
            let _ = decrypt(&PrivateKey::generate().unwrap(), &bytes);
        }
    }
}
