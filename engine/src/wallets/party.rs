//! Who pays or is paid: a name from the address book, or an address.

use crate::chain::Address;
use blockhost_proto::value::WalletName;
use std::fmt;
use std::str::FromStr;

/// Roles that have a meaning for the host: they are entered once and stay.
pub const ROLES: [&str; 5] = ["admin", "server", "hot", "dev", "broker"];

/// Why a text names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartyError {
    /// Looks like an address and is none.
    #[error("{text:?} is not an address: 0x and 40 hexadecimal digits")]
    NoAddress {
        /// The text, cut.
        text: String,
    },
    /// An address with a typing error.
    #[error("{text:?} has a wrong checksum: a digit is mistyped")]
    Checksum {
        /// The text.
        text: String,
    },
    /// Neither a name nor an address.
    #[error("{text:?} is neither an address nor a name of the address book: {reason}")]
    Name {
        /// The text, cut.
        text: String,
        /// The rule for names.
        reason: String,
    },
}

/// Somebody with a wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Party {
    /// A name of the address book.
    Name(WalletName),
    /// An address.
    Address(Address),
}

impl FromStr for Party {
    type Err = PartyError;

    fn from_str(text: &str) -> Result<Self, PartyError> {
        if text.starts_with("0x") {
            return address(text).map(Self::Address);
        }
        text.parse::<WalletName>()
            .map(Self::Name)
            .map_err(|e| PartyError::Name {
                text: cut(text),
                reason: e.to_string(),
            })
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name.as_str()),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// An address in any case; one in mixed case has to have the right checksum, because a digit typed wrong must not send
/// money or events astray.
///
/// # Errors
/// [`PartyError::NoAddress`], [`PartyError::Checksum`].
pub fn address(text: &str) -> Result<Address, PartyError> {
    let wrong = || PartyError::NoAddress { text: cut(text) };
    let digits = text.strip_prefix("0x").ok_or_else(wrong)?;
    let address: Address = text.parse().map_err(|_| wrong())?;
    let mixed = digits.bytes().any(|b| b.is_ascii_lowercase())
        && digits.bytes().any(|b| b.is_ascii_uppercase());
    if mixed && address.to_checksum(None) != text {
        return Err(PartyError::Checksum {
            text: text.to_owned(),
        });
    }
    Ok(address)
}

/// What is longer than an address may be a private key by mistake; it is not shown.
fn cut(text: &str) -> String {
    if text.chars().count() > 42 {
        let start: String = text.chars().take(8).collect();
        format!("{start}...")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_address_is_refused_and_a_private_key_is_not_shown() {
        let good = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
        assert_eq!(good.parse::<Party>().unwrap().to_string(), good, "as it is");
        assert_eq!(
            good.to_ascii_lowercase()
                .parse::<Party>()
                .unwrap()
                .to_string(),
            good,
            "without a checksum"
        );
        assert!(matches!(
            "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92265".parse::<Party>(),
            Err(PartyError::Checksum { .. })
        ));
        let key = format!("0x{}", "5d".repeat(32));
        let error = key.parse::<Party>().unwrap_err().to_string();
        assert!(!error.contains(&key), "{error}");
        for bad in ["", "0x", "0xzz", "Admin", "-x", "a b", "ADMIN", "admin\n"] {
            assert!(bad.parse::<Party>().is_err(), "{bad:?}");
        }
        assert!(matches!("hot".parse::<Party>(), Ok(Party::Name(_))));
    }
}
