//! Addresses and protocols. Only what a host may route or match: never loopback, link-local, multicast or mapped ones.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::{Text, decimal, text_value};

/// One IPv6 host address, written with its `/128`: global unicast (2000::/3) or unique local (fc00::/7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostIpv6(Ipv6Addr);

/// Transport protocol of a firewall rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum L4Proto {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
}

/// Where packets come from: an address, or a prefix without host bits, of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceNet {
    address: IpAddr,
    prefix: u8,
}

/// Global unicast or unique local.
pub(crate) fn routable_v6(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    first & 0xe000 == 0x2000 || first & 0xfe00 == 0xfc00
}

/// Neither unspecified, loopback, link-local, multicast nor reserved.
pub(crate) fn routable_v4(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first < 224 && !address.is_loopback() && !address.is_link_local()
}

/// What std parses, without zone and in ASCII (std refuses both, and leading zeros in IPv4).
pub(crate) fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    text.parse().ok()
}

impl HostIpv6 {
    /// The address without its prefix length.
    #[must_use]
    pub const fn address(self) -> Ipv6Addr {
        self.0
    }
}

impl TryFrom<Ipv6Addr> for HostIpv6 {
    type Error = super::ValueError;
    fn try_from(address: Ipv6Addr) -> Result<Self, Self::Error> {
        if routable_v6(address) {
            Ok(Self(address))
        } else {
            Err(super::ValueError::new(
                Self::KIND,
                &address.to_string(),
                Self::RULE,
            ))
        }
    }
}

impl fmt::Display for HostIpv6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/128", self.0)
    }
}

impl Text for HostIpv6 {
    const KIND: &'static str = "host address";
    const RULE: &'static str =
        "an IPv6 address with /128, global unicast (2000::/3) or unique local (fc00::/7)";
    fn read(text: &str) -> Option<Self> {
        parse_v6(text.strip_suffix("/128")?)
            .filter(|a| routable_v6(*a))
            .map(Self)
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9A-Fa-f:.]{2,45}/128$"})
    }
}

impl L4Proto {
    /// `tcp` or `udp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for L4Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Text for L4Proto {
    const KIND: &'static str = "protocol";
    const RULE: &'static str = "tcp or udp";
    fn read(text: &str) -> Option<Self> {
        match text {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }
    fn text_schema() -> Value {
        json!({"type": "string", "enum": ["tcp", "udp"]})
    }
}

impl SourceNet {
    /// The (network) address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Length of the prefix: 32 or 128 for a single address.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// True for IPv6.
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        self.address.is_ipv6()
    }

    /// Whether an address lies in it; one of the other family does not.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u8| {
            let dropped = u32::from(width - self.prefix);
            a.checked_shr(dropped) == b.checked_shr(dropped)
        };
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                same(u32::from(net).into(), u32::from(address).into(), 32)
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => same(net.into(), address.into(), 128),
            _ => false,
        }
    }
}

impl fmt::Display for SourceNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Text for SourceNet {
    const KIND: &'static str = "source";
    const RULE: &'static str =
        "an IPv4 or IPv6 address or prefix without host bits, unicast, not v4-mapped";
    fn read(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(u8::try_from(decimal(prefix)?).ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(width);
        if prefix > width {
            return None;
        }
        // `::/0` and `0.0.0.0/0` choose a family; every other source is a real unicast network.
        let everything = prefix == 0 && address.is_unspecified();
        let unicast = match address {
            IpAddr::V4(a) => {
                routable_v4(a) && host_bits(u128::from(u32::from(a)), 32 - prefix) == 0
            }
            IpAddr::V6(a) => {
                let link_local = a.segments()[0] & 0xffc0 == 0xfe80;
                (routable_v6(a) || link_local) && host_bits(u128::from(a), 128 - prefix) == 0
            }
        };
        (everything || unicast).then_some(Self { address, prefix })
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?$"})
    }
}

pub(super) fn host_bits(address: u128, count: u8) -> u128 {
    1u128
        .checked_shl(u32::from(count))
        .map_or(address, |limit| address & (limit - 1))
}

text_value!(HostIpv6, L4Proto, SourceNet);
