//! What a customer and a server tell each other in secret: the signature that goes to the server's key, and the access details
//! that come back under it. Written from the formats' description and not from the product's code, which it checks.

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use alloy::primitives::{FixedBytes, keccak256};
use hkdf::Hkdf;
use k256::PublicKey;
use k256::elliptic_curve::sec1::ToEncodedPoint;
use sha2::Sha256;

use super::{Access, ChainError, refused};

/// Encrypts to the server: ephemeral key (65) | iv (12) | ciphertext | tag (16), AES-256-GCM, key by HKDF-SHA256 of the
/// x coordinate with 32 zero bytes of salt.
///
/// # Errors
/// [`ChainError::Unexpected`] for a public key that is none.
pub fn encrypt_to_server(public_key: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, ChainError> {
    let server = PublicKey::from_sec1_bytes(public_key).map_err(|_| {
        ChainError::Unexpected("the server's public key is no point of the curve".to_owned())
    })?;
    let ephemeral = crate::world::config::random_key();
    let shared = k256::ecdh::diffie_hellman(ephemeral.to_nonzero_scalar(), server.as_affine());
    let mut key = [0_u8; 32];
    Hkdf::<Sha256>::new(Some(&[0; 32]), shared.raw_secret_bytes())
        .expand(&[], &mut key)
        .map_err(|_| ChainError::Unexpected("32 bytes are too long for HKDF".to_owned()))?;
    let mut iv = [0_u8; 12];
    getrandom::fill(&mut iv).map_err(|error| refused("drawing an iv", error))?;
    let sealed = Aes256Gcm::new(&key.into())
        .encrypt(&Nonce::from(iv), plaintext)
        .map_err(|_| ChainError::Unexpected("encryption failed".to_owned()))?;
    let point = ephemeral.public_key().to_encoded_point(false);
    Ok([point.as_bytes(), &iv, &sealed].concat())
}

/// Decrypts what the NFT carries: nonce (12) | ciphertext | tag (16) under keccak256 of the signature.
///
/// # Errors
/// [`ChainError::Unexpected`] when it is not for this signature or has another shape.
pub fn decrypt_access(signature: &[u8; 65], data: &[u8]) -> Result<Access, ChainError> {
    let wrong =
        |what: &str| ChainError::Unexpected(format!("the access details of the NFT {what}"));
    if data.len() < 28 {
        return Err(wrong("are too short"));
    }
    let (nonce, sealed) = data.split_at(12);
    let nonce: [u8; 12] = nonce.try_into().map_err(|_| wrong("are too short"))?;
    let key: FixedBytes<32> = keccak256(signature);
    let plain = Aes256Gcm::new(&key.0.into())
        .decrypt(&Nonce::from(nonce), sealed)
        .map_err(|_| wrong("do not decrypt with the customer's signature"))?;
    let value: serde_json::Value =
        serde_json::from_slice(&plain).map_err(|error| wrong(&format!("are no JSON: {error}")))?;
    let text = |key: &str| {
        value[key]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| wrong(&format!("have no {key}")))
    };
    let port = value["port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .ok_or_else(|| wrong("have no port"))?;
    Ok(Access {
        hostname: text("hostname")?,
        port,
        username: text("username")?,
    })
}
