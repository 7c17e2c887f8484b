//! Connections that a switch follows: the action `ct`, and what it translates. Written and read here; where it may stand is
//! judged in `action`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use super::action::{KIND, wrong};
use crate::value::{NatAddress, Object, TableId, ValueError};

/// Connection tracking.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ct {
    /// Remember the connection.
    pub commit: bool,
    /// Whose connections.
    pub zone: u16,
    /// Where to go on, with `ct_state` known.
    pub table: Option<TableId>,
    /// Translate addresses.
    pub nat: Option<Nat>,
    /// Mark of the connection.
    pub mark: Option<u32>,
}

/// Address translation of a tracked connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// `{}`: as the connection was translated when it was committed.
    Known,
    /// `{"src": range}`
    Src(NatRange),
    /// `{"dst": range}`
    Dst(NatRange),
}

/// Addresses, and ports where they are to be chosen from a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatRange {
    /// First address.
    pub first: NatAddress,
    /// Last address; the first where it is one.
    pub last: NatAddress,
    /// First and last port.
    pub ports: Option<(u16, u16)>,
}

impl Ct {
    const KEYS: [&'static str; 5] = ["commit", "zone", "table", "nat", "mark"];
    const RULE: &'static str =
        "an object of commit, zone, table, nat, mark; mark and the addresses of nat need commit";

    pub(super) fn read(value: &Value) -> Result<Self, ValueError> {
        let object = Object::read(KIND, Self::RULE, value, &Self::KEYS)?;
        let number = |key: &str, max: u64| match object.raw(key) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .filter(|number| *number <= max)
                .map(Some)
                .ok_or_else(|| ValueError::of_json(KIND, value, Self::RULE).within(key)),
        };
        let ct = Self {
            commit: object.get("commit")?.unwrap_or(false),
            zone: number("zone", u16::MAX.into())?
                .and_then(|zone| u16::try_from(zone).ok())
                .unwrap_or(0),
            table: object.get("table")?,
            nat: object.raw("nat").map(Nat::read).transpose()?,
            mark: number("mark", u32::MAX.into())?.and_then(|mark| u32::try_from(mark).ok()),
        };
        let chooses = matches!(ct.nat, Some(Nat::Src(_) | Nat::Dst(_)));
        if !ct.commit && (ct.mark.is_some() || chooses) {
            return Err(wrong("ct without commit", Self::RULE));
        }
        Ok(ct)
    }

    pub(super) fn show(&self) -> Value {
        let mut map = Map::new();
        map.insert("commit".into(), self.commit.into());
        map.insert("zone".into(), self.zone.into());
        if let Some(table) = self.table {
            map.insert("table".into(), table.get().into());
        }
        if let Some(nat) = &self.nat {
            map.insert("nat".into(), nat.show());
        }
        if let Some(mark) = self.mark {
            map.insert("mark".into(), mark.into());
        }
        Value::Object(map)
    }
}

impl Nat {
    const RULE: &'static str = "{}, or src or dst as an address or first-last of one family, optionally with ports as first-last";

    fn read(value: &Value) -> Result<Self, ValueError> {
        let object = Object::read(KIND, Self::RULE, value, &["src", "dst", "ports"])?;
        let range = |key: &str| {
            object
                .raw(key)
                .map(|value| NatRange::read(value, object.raw("ports")))
        };
        match (range("src"), range("dst")) {
            (Some(range), None) => range.map(Self::Src),
            (None, Some(range)) => range.map(Self::Dst),
            (None, None) if object.raw("ports").is_none() => Some(Self::Known),
            _ => None,
        }
        .ok_or_else(|| ValueError::of_json(KIND, value, Self::RULE).within("nat"))
    }

    fn show(&self) -> Value {
        let (key, range) = match self {
            Self::Known => return json!({}),
            Self::Src(range) => ("src", range),
            Self::Dst(range) => ("dst", range),
        };
        let mut map = Map::new();
        let addresses = if range.first == range.last {
            range.first.to_string()
        } else {
            format!("{}-{}", range.first, range.last)
        };
        map.insert(key.into(), addresses.into());
        if let Some((first, last)) = range.ports {
            map.insert("ports".into(), format!("{first}-{last}").into());
        }
        Value::Object(map)
    }
}

impl NatRange {
    fn read(addresses: &Value, ports: Option<&Value>) -> Option<Self> {
        let text = addresses.as_str()?;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (NatAddress, NatAddress) = (first.parse().ok()?, last.parse().ok()?);
        let ordered = match (first.address(), last.address()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => Ipv4Addr::cmp(&a, &b).is_le(),
            (IpAddr::V6(a), IpAddr::V6(b)) => Ipv6Addr::cmp(&a, &b).is_le(),
            _ => false,
        };
        let ports = match ports {
            None => None,
            Some(value) => {
                let (first, last) = value.as_str()?.split_once('-')?;
                let port = |text| {
                    u16::try_from(crate::value::decimal(text)?)
                        .ok()
                        .filter(|p| *p > 0)
                };
                let (first, last) = (port(first)?, port(last)?);
                Some(Some((first, last)).filter(|(first, last)| first <= last)?)
            }
        };
        ordered.then_some(Self { first, last, ports })
    }
}
