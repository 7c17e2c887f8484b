//! Networks in prefix notation. Host bits that are set are an error, not silently dropped.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a network such as {example}")]
pub struct NetError {
    example: &'static str,
}

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Net {
    address: Ipv4Addr,
    prefix: u8,
}

/// An IPv6 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Net {
    address: Ipv6Addr,
    prefix: u8,
}

impl Ipv4Net {
    /// The network's own address.
    #[must_use]
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Length of the prefix, 8..=30.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    const fn mask(self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }

    /// True for addresses of this network, its first and last included.
    #[must_use]
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.address.to_bits()
    }

    /// True for addresses that a machine may have: neither the first nor the last.
    #[must_use]
    pub const fn is_host(self, address: Ipv4Addr) -> bool {
        let host = address.to_bits() & !self.mask();
        self.contains(address) && host != 0 && host != !self.mask()
    }
}

impl FromStr for Ipv4Net {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        let read = || {
            let (address, prefix) = text.split_once('/')?;
            let net = Self {
                address: address.parse().ok()?,
                prefix: length(prefix)?,
            };
            ((8..=30).contains(&net.prefix) && net.contains(net.address)).then_some(net)
        };
        read().ok_or(NetError {
            example: "10.0.0.0/24 (prefix 8 to 30, no host bits)",
        })
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Ipv6Net {
    /// Length of the prefix, 16..=126.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    const fn mask(self) -> u128 {
        u128::MAX << (128 - self.prefix)
    }

    /// True for addresses of this network.
    #[must_use]
    pub const fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() & self.mask() == self.address.to_bits()
    }

    /// The address at `offset`; `None` beyond the end.
    #[must_use]
    pub const fn at(self, offset: u64) -> Option<Ipv6Addr> {
        let offset = offset as u128;
        if offset & self.mask() != 0 {
            None
        } else {
            Some(Ipv6Addr::from_bits(self.address.to_bits() | offset))
        }
    }
}

impl FromStr for Ipv6Net {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        let read = || {
            let (address, prefix) = text.split_once('/')?;
            let net = Self {
                address: address.parse().ok()?,
                prefix: length(prefix)?,
            };
            ((16..=126).contains(&net.prefix) && net.contains(net.address)).then_some(net)
        };
        read().ok_or(NetError {
            example: "fd00:1:2::/64 (prefix 16 to 126, no host bits)",
        })
    }
}

impl fmt::Display for Ipv6Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Digits only: `parse` alone would take a sign.
fn length(text: &str) -> Option<u8> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}
