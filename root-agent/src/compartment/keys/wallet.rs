//! A private key on secp256k1: made from the kernel's randomness, written as 64 hexadecimal digits, read back.
//! Every copy of it in memory is wiped.

use blockhost_proto::value::EthAddress;
use k256::SecretKey;
use k256::elliptic_curve::sec1::ToEncodedPoint;
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

/// Bytes of a private key.
const KEY: usize = 32;

/// A private key and nothing else.
pub(super) struct Wallet(SecretKey);

impl Wallet {
    /// A new key.
    ///
    /// # Errors
    /// The kernel's, when it has no randomness to give.
    pub(super) fn generate() -> Result<Self, std::io::Error> {
        loop {
            let mut bytes = Zeroizing::new([0u8; KEY]);
            let mut filled = 0;
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                filled += getrandom(rest, GetRandomFlags::empty())?;
            }
            // Zero and numbers beyond the group's order are not keys; about one in 2^127 tries meets one.
            if let Ok(key) = SecretKey::from_slice(bytes.as_slice()) {
                return Ok(Wallet(key));
            }
        }
    }

    /// Reads what [`Wallet::to_hex`] wrote; one line feed at the end and a `0x` in front are tolerated, as other
    /// programs write them. `None` for anything else.
    pub(super) fn from_hex(text: &[u8]) -> Option<Self> {
        let digits = text.strip_suffix(b"\n").unwrap_or(text);
        let digits = digits.strip_prefix(b"0x").unwrap_or(digits);
        let mut bytes = Zeroizing::new([0u8; KEY]);
        if digits.len() != 2 * KEY {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        SecretKey::from_slice(bytes.as_slice()).ok().map(Wallet)
    }

    /// 64 lower-case hexadecimal digits, without prefix or line feed.
    pub(super) fn to_hex(&self) -> Zeroizing<Vec<u8>> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bytes = Zeroizing::new(self.0.to_bytes());
        // Reserved in one piece: a vector that grows leaves unwiped copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(2 * KEY));
        for byte in bytes.iter() {
            for nibble in [byte >> 4, byte & 15] {
                text.extend(DIGITS.get(usize::from(nibble)));
            }
        }
        text
    }

    /// The account's address.
    pub(super) fn address(&self) -> Option<EthAddress> {
        let point = self.0.public_key().to_encoded_point(false);
        let coordinates = <&[u8; 64]>::try_from(point.as_bytes().get(1..)?).ok()?;
        Some(EthAddress::of_public_key(coordinates))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_key_has_its_known_address() {
        // The first account of the well-known development mnemonic of anvil and hardhat.
        let wallet =
            Wallet::from_hex(b"ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
                .unwrap();
        assert_eq!(
            wallet.address().unwrap().to_string(),
            "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
        );
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let zero = "0".repeat(64);
        let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
        for text in [
            "",
            "0x",
            &zero,
            order,
            &"1".repeat(63),
            &"1".repeat(65),
            &format!("{}g", "1".repeat(63)),
            &format!("{}\n\n", "1".repeat(64)),
        ] {
            assert!(Wallet::from_hex(text.as_bytes()).is_none(), "{text:?}");
        }
    }

    #[test]
    fn two_wallets_differ_and_come_back_from_their_text() {
        let (one, two) = (Wallet::generate().unwrap(), Wallet::generate().unwrap());
        assert_ne!(one.to_hex(), two.to_hex());
        assert_eq!(one.to_hex().len(), 64);
        assert_eq!(
            Wallet::from_hex(&one.to_hex()).unwrap().address(),
            one.address()
        );
    }
}
