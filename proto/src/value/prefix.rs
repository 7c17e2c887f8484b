//! Addresses with prefixes, as matches of a flow, as an interface's own, and as the two ends of a translation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::net::{host_bits, routable_v4, routable_v6};
use super::{List, Text, ValueError, decimal, text_value};

/// An IPv4 network or address to compare packets with, of any kind: also `0.0.0.0/32`, broadcast and multicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4Prefix {
    address: Ipv4Addr,
    length: u8,
}

/// An IPv6 network or address to compare packets with, of any kind but v4-mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv6Prefix {
    address: Ipv6Addr,
    length: u8,
}

/// The address of an interface with the length of its network: IPv4 /8 to /32, IPv6 /16 to /128, unicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddress {
    address: IpAddr,
    length: u8,
}

/// The addresses of one interface: 1 to 16, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddresses(Vec<InterfaceAddress>);

/// The addresses of a device that may also have none: at most 64, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceAddresses(Vec<InterfaceAddress>);

/// One unicast address of either family, without a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatAddress(IpAddr);

/// A network that a route leads to: IPv4 /8 to /32, IPv6 /16 to /128, unicast, without host bits. Never a default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteNet(InterfaceAddress);

/// Networks of one kind: at most 64, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteNets(Vec<RouteNet>);

/// The router that a route leads through: a unicast address, for IPv6 also a link-local one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop(IpAddr);

/// Splits `address/length`; without a length the whole width is meant.
fn split(text: &str, width: u8) -> Option<(&str, u8)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, u8::try_from(decimal(length)?).ok()?),
        None => (text, width),
    };
    (length <= width).then_some((address, length))
}

fn unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => routable_v4(v4) && !v4.is_broadcast(),
        IpAddr::V6(v6) => routable_v6(v6),
    }
}

macro_rules! match_prefix {
    ($Name:ident, $Addr:ty, $width:literal, $repr:ty, $kind:literal, $rule:literal, $pattern:literal) => {
        impl $Name {
            /// The network's address.
            #[must_use]
            pub const fn address(self) -> $Addr {
                self.address
            }

            /// Length of the prefix in bits.
            #[must_use]
            pub const fn length(self) -> u8 {
                self.length
            }

            /// The mask, as a number.
            #[must_use]
            pub fn mask(self) -> $repr {
                <$repr>::MAX
                    .checked_shl(u32::from($width - self.length))
                    .unwrap_or(0)
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.length == $width {
                    write!(f, "{}", self.address)
                } else {
                    write!(f, "{}/{}", self.address, self.length)
                }
            }
        }

        impl Text for $Name {
            const KIND: &'static str = $kind;
            const RULE: &'static str = $rule;
            fn read(text: &str) -> Option<Self> {
                let (address, length) = split(text, $width)?;
                let address: $Addr = address.parse().ok()?;
                let bits = u128::from(<$repr>::from(address));
                let mapped = $width == 128 && bits >> 32 == 0xffff;
                (!mapped && length > 0 && host_bits(bits, $width - length) == 0)
                    .then_some(Self { address, length })
            }
            fn text_schema() -> Value {
                json!({"type": "string", "pattern": $pattern})
            }
        }
    };
}

match_prefix!(
    Ipv4Prefix,
    Ipv4Addr,
    32,
    u32,
    "IPv4 prefix",
    "an IPv4 address, or a network of 1 to 32 bits without host bits",
    "^[0-9.]{7,15}(/[1-9][0-9]?)?$"
);
match_prefix!(
    Ipv6Prefix,
    Ipv6Addr,
    128,
    u128,
    "IPv6 prefix",
    "an IPv6 address, or a network of 1 to 128 bits without host bits, not v4-mapped",
    "^[0-9A-Fa-f:.]{2,45}(/[1-9][0-9]{0,2})?$"
);

impl InterfaceAddress {
    /// The address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Length of its network's prefix in bits.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether another address lies in its network.
    #[must_use]
    pub fn reaches(self, other: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u128::from(a.to_bits()), u128::from(b.to_bits()), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        host_bits(ours ^ theirs, width - self.length) == ours ^ theirs
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Text for InterfaceAddress {
    const KIND: &'static str = "interface address";
    const RULE: &'static str =
        "a unicast address with its prefix length: IPv4 /8 to /32, IPv6 /16 to /128";
    fn read(text: &str) -> Option<Self> {
        let (address, _) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let (width, shortest) = if address.is_ipv4() {
            (32, 8)
        } else {
            (128, 16)
        };
        let (_, length) = split(text, width)?;
        (unicast(address) && length >= shortest).then_some(Self { address, length })
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9A-Fa-f:.]{2,45}/[1-9][0-9]{0,2}$"})
    }
}

impl InterfaceAddresses {
    /// The addresses, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = InterfaceAddress> + '_ {
        self.0.iter().copied()
    }
}

/// An address that stands in the list twice, with whatever lengths.
fn twice(items: &[InterfaceAddress]) -> Option<InterfaceAddress> {
    let before = |at: usize, item: &InterfaceAddress| {
        items[..at]
            .iter()
            .any(|other| other.address == item.address)
    };
    let mut all = items.iter().enumerate();
    all.find(|(at, item)| before(*at, item))
        .map(|(_, item)| *item)
}

impl List for InterfaceAddresses {
    const KIND: &'static str = "list of interface addresses";
    const RULE: &'static str = "1 to 16 addresses with prefix, each once";
    const MAX: usize = 16;
    type Item = InterfaceAddress;
    fn from_items(items: Vec<InterfaceAddress>) -> Result<Self, ValueError> {
        match (items.first(), twice(&items)) {
            (Some(_), None) => Ok(Self(items)),
            (_, Some(item)) => Err(ValueError::new(Self::KIND, &item.to_string(), Self::RULE)),
            (None, None) => Err(ValueError::new(Self::KIND, "[]", Self::RULE)),
        }
    }
    fn items(&self) -> &[InterfaceAddress] {
        &self.0
    }
}

impl DeviceAddresses {
    /// The addresses, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = InterfaceAddress> + '_ {
        self.0.iter().copied()
    }
}

impl List for DeviceAddresses {
    const KIND: &'static str = "list of a device's addresses";
    const RULE: &'static str = "at most 64 addresses with prefix, each once";
    const MAX: usize = 64;
    type Item = InterfaceAddress;
    fn from_items(items: Vec<InterfaceAddress>) -> Result<Self, ValueError> {
        match twice(&items) {
            None => Ok(Self(items)),
            Some(item) => Err(ValueError::new(Self::KIND, &item.to_string(), Self::RULE)),
        }
    }
    fn items(&self) -> &[InterfaceAddress] {
        &self.0
    }
}

impl NatAddress {
    /// The address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.0
    }
}

impl fmt::Display for NatAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Text for NatAddress {
    const KIND: &'static str = "address";
    const RULE: &'static str =
        "one unicast IPv4 or IPv6 address without prefix, not loopback, link-local or v4-mapped";
    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|a| unicast(*a)).map(Self)
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9A-Fa-f:.]{2,45}$"})
    }
}

impl RouteNet {
    /// The network's address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.0.address
    }

    /// Length of its prefix in bits.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.0.length
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.reaches(address)
    }
}

impl fmt::Display for RouteNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Text for RouteNet {
    const KIND: &'static str = "route's network";
    const RULE: &'static str =
        "a unicast network without host bits: IPv4 /8 to /32, IPv6 /16 to /128";
    fn read(text: &str) -> Option<Self> {
        let network = InterfaceAddress::read(text)?;
        let (bits, width) = match network.address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        (host_bits(bits, width - network.length) == 0).then_some(Self(network))
    }
    fn text_schema() -> Value {
        InterfaceAddress::text_schema()
    }
}

impl RouteNets {
    /// The networks, sorted.
    pub fn iter(&self) -> impl Iterator<Item = RouteNet> + '_ {
        self.0.iter().copied()
    }
}

impl List for RouteNets {
    const KIND: &'static str = "list of networks";
    const RULE: &'static str = "at most 64 networks, each once";
    const MAX: usize = 64;
    type Item = RouteNet;
    fn from_items(items: Vec<RouteNet>) -> Result<Self, ValueError> {
        super::object::each_once::<Self>(items).map(Self)
    }
    fn items(&self) -> &[RouteNet] {
        &self.0
    }
}

impl NextHop {
    /// The address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.0
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Text for NextHop {
    const KIND: &'static str = "router's address";
    const RULE: &'static str =
        "one unicast address without prefix, for IPv6 also a link-local one, not v4-mapped";
    fn read(text: &str) -> Option<Self> {
        let link_local = |a: &IpAddr| matches!(a, IpAddr::V6(v6) if v6.is_unicast_link_local());
        text.parse()
            .ok()
            .filter(|address| unicast(*address) || link_local(address))
            .map(Self)
    }
    fn text_schema() -> Value {
        NatAddress::text_schema()
    }
}

text_value!(
    Ipv4Prefix,
    Ipv6Prefix,
    InterfaceAddress,
    NatAddress,
    RouteNet,
    NextHop
);
