//! What a broker gives a host: a prefix for its machines, their gateway, and where the broker's tunnel ends.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

use super::net::{host_bits, parse_v6, routable_v4, routable_v6};
use super::{Text, decimal, made_of, text_newtype, text_value};

/// The network that machines draw their IPv6 addresses from: /32 to /120, global unicast or unique local.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachinePrefix {
    address: Ipv6Addr,
    length: u8,
}

/// The router of a network's machines: one of its addresses, or a link-local one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayIpv6(Ipv6Addr);

/// Where a broker listens: a host's name or address, and the port. The agent looks nothing up: it only keeps it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerEndpoint(String);

/// fe80::/10, without the address that is all zeros behind it.
fn link_local(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local() && host_bits(u128::from(address), 118) != 0
}

impl MachinePrefix {
    /// The network's address.
    #[must_use]
    pub const fn address(self) -> Ipv6Addr {
        self.address
    }

    /// Length of the prefix in bits.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(self, address: Ipv6Addr) -> bool {
        let differs = u128::from(self.address) ^ u128::from(address);
        differs >> (128 - self.length) == 0
    }
}

impl fmt::Display for MachinePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Text for MachinePrefix {
    const KIND: &'static str = "prefix of machines";
    const RULE: &'static str = "an IPv6 network of 32 to 120 bits without host bits, global unicast (2000::/3) or unique local (fc00::/7)";
    fn read(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address = parse_v6(address).filter(|address| routable_v6(*address))?;
        let length = u8::try_from(decimal(length)?).ok()?;
        ((32..=120).contains(&length) && host_bits(u128::from(address), 128 - length) == 0)
            .then_some(Self { address, length })
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9A-Fa-f:.]{2,45}/(3[2-9]|[4-9][0-9]|1[01][0-9]|120)$"})
    }
}

impl GatewayIpv6 {
    /// The address.
    #[must_use]
    pub const fn address(self) -> Ipv6Addr {
        self.0
    }

    /// Whether machines of that network can have it for their router.
    #[must_use]
    pub fn serves(self, prefix: MachinePrefix) -> bool {
        link_local(self.0) || prefix.contains(self.0)
    }
}

impl fmt::Display for GatewayIpv6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Text for GatewayIpv6 {
    const KIND: &'static str = "IPv6 gateway";
    const RULE: &'static str =
        "one IPv6 address without prefix: global unicast, unique local or link-local";
    fn read(text: &str) -> Option<Self> {
        parse_v6(text)
            .filter(|address| routable_v6(*address) || link_local(*address))
            .map(Self)
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9A-Fa-f:.]{2,45}$"})
    }
}

impl Text for BrokerEndpoint {
    const KIND: &'static str = "broker endpoint";
    const RULE: &'static str = "name:port, address:port or [IPv6 address]:port; names in lower case, addresses unicast, port 1 to 65535";
    fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = decimal(port).and_then(|port| u16::try_from(port).ok());
        let port = port.filter(|port| *port != 0)?;
        if let Ok(socket) = text.parse::<SocketAddr>() {
            let unicast = match socket.ip() {
                IpAddr::V4(v4) => routable_v4(v4) && !v4.is_broadcast(),
                IpAddr::V6(v6) => routable_v6(v6),
            };
            return (unicast && !text.contains('%')).then(|| Self(socket.to_string()));
        }
        is_host_name(host).then(|| Self(format!("{host}:{port}")))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^([a-z0-9.-]{1,253}|\\[[0-9A-Fa-f:.]{2,45}\\]):[1-9][0-9]{0,4}$"})
    }
}

/// A name of the DNS in lower case; the last label is no number, or it would be an address that is none.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        made_of(label, 1..=63, |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
        }) && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

text_newtype!(BrokerEndpoint);
text_value!(MachinePrefix, GatewayIpv6);
