//! Tunnels: names, keys, endpoints and peers. Keys compare and print as WireGuard's own base64; secret ones do not print.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};

use super::net::{host_bits, routable_v4, routable_v6};
use super::{Keepalive, List, Object, Param, Text, ValueError, made_of, text_newtype, text_value};

/// Name of a tunnel: an interface name that is a plain file name too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WgName(String);

/// 32 bytes, written as 44 characters of base64. `{:?}` does not show them: it may be a shared secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WgKey([u8; 32]);

/// Where a peer listens: address and port, never a name, so that no lookup happens with privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WgEndpoint(SocketAddr);

/// A network that packets of a peer may come from and that is sent to it: any length, no host bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllowedIp {
    address: IpAddr,
    length: u8,
}

/// The networks of one peer: at most 512, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowedIps(Vec<AllowedIp>);

/// The second, symmetric key of a pair of peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preshared {
    /// `generate`: made by the agent the first time, kept from then on, answered in `preshared_keys`.
    Generate,
    /// The key that the other side made.
    Given(WgKey),
    /// `kept`: the key that this peer was given, or that was made for it, when its key was set last. Tells nobody what it is.
    Kept,
}

/// One peer of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgPeer {
    /// Its public key.
    pub public_key: WgKey,
    /// Where to reach it; a peer without one is waited for.
    pub endpoint: Option<WgEndpoint>,
    /// Its networks.
    pub allowed_ips: AllowedIps,
    /// Seconds between keepalive packets; none where it is missing.
    pub keepalive: Option<Keepalive>,
    /// The shared key; none where it is missing.
    pub preshared: Option<Preshared>,
}

/// All peers of a tunnel: at most 4096, no two with one key, no two with one network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WgPeers(Vec<WgPeer>);

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl Text for WgName {
    const KIND: &'static str = "tunnel name";
    const RULE: &'static str = "a letter a-z, then up to 14 of a-z, 0-9, _ and -";
    fn read(text: &str) -> Option<Self> {
        let good = made_of(text, 1..=15, |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b)
        }) && text.as_bytes()[0].is_ascii_lowercase();
        good.then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,14}$"})
    }
}

impl WgKey {
    /// A key of these bytes; `None` for all zeros, which WireGuard takes for "no key".
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Option<Self> {
        (bytes != [0; 32]).then_some(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for WgKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WgKey(..)")
    }
}

impl fmt::Display for WgKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(44);
        for chunk in self.0.chunks(3) {
            let mut bits = 0u32;
            for at in 0..3 {
                bits = bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0));
            }
            for at in 0..=chunk.len() {
                let six = (bits >> (18 - 6 * at)) & 63;
                text.push(char::from(BASE64[six as usize]));
            }
        }
        text.push('=');
        f.write_str(&text)
    }
}

impl Text for WgKey {
    const KIND: &'static str = "WireGuard key";
    const RULE: &'static str = "32 bytes in base64 (44 characters ending with =), not all zero";
    const QUOTED: bool = false;
    fn read(text: &str) -> Option<Self> {
        let digits = text.strip_suffix('=').filter(|d| d.len() == 43)?;
        let mut bytes = [0u8; 32];
        let (mut bits, mut held, mut at) = (0u32, 0u32, 0usize);
        for digit in digits.bytes() {
            let six = BASE64.iter().position(|b| *b == digit)?;
            bits = (bits << 6 | u32::try_from(six).ok()?) & 0xffff;
            held += 6;
            if held >= 8 {
                held -= 8;
                *bytes.get_mut(at)? = (bits >> held).to_le_bytes()[0];
                at += 1;
            }
        }
        // The last digit carries two bits that belong to no byte: one key has one text.
        (at == 32 && bits & ((1 << held) - 1) == 0)
            .then_some(bytes)
            .and_then(Self::new)
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[A-Za-z0-9+/]{43}=$"})
    }
}

impl WgEndpoint {
    /// Address and port.
    #[must_use]
    pub const fn socket(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for WgEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Text for WgEndpoint {
    const KIND: &'static str = "endpoint";
    const RULE: &'static str =
        "address:port or [IPv6 address]:port, unicast, no name, no zone, port 1 to 65535";
    fn read(text: &str) -> Option<Self> {
        let (_, port) = text.rsplit_once(':')?;
        super::decimal(port)?;
        let socket: SocketAddr = text.parse().ok()?;
        let unicast = match socket.ip() {
            IpAddr::V4(v4) => routable_v4(v4) && !v4.is_broadcast(),
            IpAddr::V6(v6) => routable_v6(v6),
        };
        (unicast && socket.port() != 0 && !text.contains('%')).then_some(Self(socket))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^([0-9.]{7,15}|\\[[0-9A-Fa-f:.]{2,45}\\]):[1-9][0-9]{0,4}$"})
    }
}

impl AllowedIp {
    /// The network's address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Length of its prefix in bits.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.length
    }
}

impl fmt::Display for AllowedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Text for AllowedIp {
    const KIND: &'static str = "allowed network";
    const RULE: &'static str =
        "an address with its prefix length and without host bits, not v4-mapped";
    fn read(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let length = u8::try_from(super::decimal(length)?).ok()?;
        let (bits, width) = match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let mapped = width == 128 && bits >> 32 == 0xffff;
        (length <= width && !mapped && host_bits(bits, width - length) == 0)
            .then_some(Self { address, length })
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9A-Fa-f:.]{2,45}/[0-9]{1,3}$"})
    }
}

impl AllowedIps {
    /// The networks, sorted.
    pub fn iter(&self) -> impl Iterator<Item = AllowedIp> + '_ {
        self.0.iter().copied()
    }
}

impl List for AllowedIps {
    const KIND: &'static str = "list of allowed networks";
    const RULE: &'static str = "at most 512 networks, each once";
    const MAX: usize = 512;
    type Item = AllowedIp;
    fn from_items(items: Vec<AllowedIp>) -> Result<Self, ValueError> {
        super::object::each_once::<Self>(items).map(Self)
    }
    fn items(&self) -> &[AllowedIp] {
        &self.0
    }
}

impl fmt::Display for Preshared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generate => f.write_str("generate"),
            Self::Given(key) => fmt::Display::fmt(key, f),
            Self::Kept => f.write_str("kept"),
        }
    }
}

impl Text for Preshared {
    const KIND: &'static str = "preshared key";
    const RULE: &'static str = "generate, kept, or 32 bytes in base64";
    const QUOTED: bool = false;
    fn read(text: &str) -> Option<Self> {
        match text {
            "generate" => Some(Self::Generate),
            "kept" => Some(Self::Kept),
            other => WgKey::read(other).map(Self::Given),
        }
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^(generate|kept|[A-Za-z0-9+/]{43}=)$"})
    }
}

impl WgPeer {
    const KIND: &'static str = "peer";
    const KEYS: [&'static str; 5] = [
        "public_key",
        "endpoint",
        "allowed_ips",
        "keepalive",
        "preshared",
    ];
    const RULE: &'static str =
        "an object with public_key, allowed_ips and optionally endpoint, keepalive, preshared";
}

impl Param for WgPeer {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        let object = Object::read(Self::KIND, Self::RULE, value, &Self::KEYS)?;
        Ok(Self {
            public_key: object.need("public_key")?,
            endpoint: object.get("endpoint")?,
            allowed_ips: object.need("allowed_ips")?,
            keepalive: object.get("keepalive")?,
            preshared: object.get("preshared")?,
        })
    }
    fn to_json(&self) -> Option<Value> {
        let values = [
            self.public_key.to_json(),
            self.endpoint.to_json(),
            self.allowed_ips.to_json(),
            self.keepalive.to_json(),
            self.preshared.to_json(),
        ];
        let map: Map<String, Value> = Self::KEYS
            .iter()
            .zip(values)
            .filter_map(|(key, value)| Some(((*key).to_owned(), value?)))
            .collect();
        Some(Value::Object(map))
    }
    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "public_key": WgKey::schema(),
                "endpoint": WgEndpoint::schema(),
                "allowed_ips": AllowedIps::schema(),
                "keepalive": Keepalive::schema(),
                "preshared": Preshared::schema(),
            },
            "required": ["public_key", "allowed_ips"],
            "additionalProperties": false,
        })
    }
}

impl WgPeers {
    /// The peers, by public key.
    pub fn iter(&self) -> impl Iterator<Item = &WgPeer> {
        self.0.iter()
    }

    /// True when a peer's shared key stands in the request.
    #[must_use]
    pub fn holds_secret(&self) -> bool {
        self.iter()
            .any(|peer| matches!(peer.preshared, Some(Preshared::Given(_))))
    }
}

impl List for WgPeers {
    const KIND: &'static str = "list of peers";
    const RULE: &'static str = "at most 4096 peers, no key and no network twice";
    const MAX: usize = 4096;
    type Item = WgPeer;
    fn from_items(mut items: Vec<WgPeer>) -> Result<Self, ValueError> {
        items.sort_by_key(|peer| peer.public_key);
        if let Some(pair) = items
            .windows(2)
            .find(|pair| pair[0].public_key == pair[1].public_key)
        {
            let given = pair[0].public_key.to_string();
            return Err(ValueError::new(Self::KIND, &given, Self::RULE));
        }
        // The kernel would silently move such a network from the one to the other.
        let mut networks: Vec<AllowedIp> =
            items.iter().flat_map(|p| p.allowed_ips.iter()).collect();
        networks.sort_unstable();
        if let Some(pair) = networks.windows(2).find(|pair| pair[0] == pair[1]) {
            let given = pair[0].to_string();
            return Err(ValueError::new(Self::KIND, &given, Self::RULE));
        }
        Ok(Self(items))
    }
    fn items(&self) -> &[WgPeer] {
        &self.0
    }
}

text_newtype!(WgName);
text_value!(WgKey, WgEndpoint, AllowedIp, Preshared);
