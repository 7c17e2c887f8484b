//! `netN`: `virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,tag=7,rate=12.5,mtu=1500`.

use std::fmt;

use super::scalar::flag;
use crate::value::{IfName, Text, decimal};

/// Model of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetModel {
    /// `virtio`
    Virtio,
    /// `e1000`
    E1000,
    /// `e1000e`
    E1000e,
    /// `rtl8139`
    Rtl8139,
    /// `vmxnet3`
    Vmxnet3,
}

impl NetModel {
    const ALL: [Self; 5] = [
        Self::Virtio,
        Self::E1000,
        Self::E1000e,
        Self::Rtl8139,
        Self::Vmxnet3,
    ];

    /// As it stands in the option.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::E1000 => "e1000",
            Self::E1000e => "e1000e",
            Self::Rtl8139 => "rtl8139",
            Self::Vmxnet3 => "vmxnet3",
        }
    }
}

/// A unicast hardware address, printed in upper case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// The six bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// An address of these bytes; `None` for a multicast or all-zero one.
    #[must_use]
    pub fn new(bytes: [u8; 6]) -> Option<Self> {
        (bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
    }

    /// Reads `BC:24:11:00:00:01`, in any case.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(bytes).and_then(Self::new)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{g:02X}")
    }
}

impl Text for MacAddress {
    const KIND: &'static str = "hardware address";
    const RULE: &'static str = "six bytes as BC:24:11:00:00:01, unicast, not all zero";
    fn read(text: &str) -> Option<Self> {
        Self::read(text)
    }
    fn text_schema() -> serde_json::Value {
        serde_json::json!({"type": "string", "pattern": "^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$"})
    }
}

crate::value::text_value!(MacAddress);

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NetDevice {
    /// Model.
    pub model: NetModel,
    /// Hardware address; the backend chooses one where it is missing.
    pub mac: Option<MacAddress>,
    /// Bridge that it is attached to.
    pub bridge: IfName,
    /// Whether the backend's firewall looks at it.
    pub firewall: Option<bool>,
    /// VLAN: 1..=4094.
    pub tag: Option<u16>,
    /// Limit in kilobytes per second; printed in MB/s (`rate=12.5`).
    pub rate_kbps: Option<u32>,
    /// MTU: 576..=65520, or 1 for that of the bridge.
    pub mtu: Option<u16>,
}

impl NetDevice {
    pub(crate) const RULE: &'static str =
        "<model>[=MAC],bridge=<name>[,firewall=0|1][,tag=1..4094][,rate=<MB/s>][,mtu=1|576..65520]";

    /// Reads the option's value.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let first = parts.next()?;
        let (model, mac) = match first.split_once('=') {
            Some((model, mac)) => (model, Some(MacAddress::read(mac)?)),
            None => (first, None),
        };
        let model = NetModel::ALL.into_iter().find(|m| m.as_str() == model)?;
        let (mut bridge, mut firewall, mut tag, mut rate_kbps, mut mtu) =
            (None, None, None, None, None);
        for part in parts {
            let (key, value) = part.split_once('=')?;
            let seen = match key {
                "bridge" => bridge.replace(IfName::read(value)?).is_some(),
                "firewall" => firewall.replace(flag(value)?).is_some(),
                "tag" => tag.replace(number(value, 1..=4094)?).is_some(),
                "rate" => rate_kbps.replace(rate(value)?).is_some(),
                "mtu" => mtu
                    .replace(number(value, 576..=65520).or((value == "1").then_some(1))?)
                    .is_some(),
                _ => return None,
            };
            if seen {
                return None;
            }
        }
        Some(Self {
            model,
            mac,
            bridge: bridge?,
            firewall,
            tag,
            rate_kbps,
            mtu,
        })
    }
}

pub(crate) fn number(text: &str, range: std::ops::RangeInclusive<u16>) -> Option<u16> {
    decimal(text)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| range.contains(n))
}

/// MB/s with up to three decimals, as kB/s; more than 0, at most 10 GB/s.
pub(crate) fn rate(text: &str) -> Option<u32> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (text, "0"),
    };
    if fraction.is_empty() || fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
    let total = decimal(whole).filter(|n| *n <= 10_000)? * 1000 + thousandths;
    u32::try_from(total)
        .ok()
        .filter(|n| (1..=10_000_000).contains(n))
}

/// `12500` -> `12.5`.
pub(crate) fn thousandths(number: u32) -> String {
    let fraction = format!("{:03}", number % 1000);
    match fraction.trim_end_matches('0') {
        "" => (number / 1000).to_string(),
        fraction => format!("{}.{fraction}", number / 1000),
    }
}

impl fmt::Display for NetDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model.as_str())?;
        if let Some(mac) = self.mac {
            write!(f, "={mac}")?;
        }
        write!(f, ",bridge={}", self.bridge)?;
        if let Some(firewall) = self.firewall {
            write!(f, ",firewall={}", u8::from(firewall))?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, ",mtu={mtu}")?;
        }
        if let Some(rate) = self.rate_kbps {
            write!(f, ",rate={}", thousandths(rate))?;
        }
        if let Some(tag) = self.tag {
            write!(f, ",tag={tag}")?;
        }
        Ok(())
    }
}
