//! Ranges of ports, machine numbers and addresses as the policy file writes them.

use std::fmt;
use std::net::IpAddr;

use blockhost_proto::value::{HostSetting, Text as _};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `first-last` ports, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// Machine numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmidRange {
    /// First vmid.
    pub first: u32,
    /// Last vmid.
    pub last: u32,
}

/// Machine numbers: one range or several, `{first: 100, last: 199}` or a list of those.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vmids(Vec<VmidRange>);

/// An address prefix such as `fd77:b10c::/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    /// Network address.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub length: u8,
}

/// A setting of the host by the catalog's name, such as `ipv6-forwarding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Setting(pub HostSetting);

impl TryFrom<String> for Setting {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let rule = HostSetting::RULE;
        HostSetting::read(&text).map(Self).ok_or_else(|| {
            format!(
                "\"{}\" is none of {rule}",
                blockhost_proto::escape::shown(&text)
            )
        })
    }
}

impl From<Setting> for String {
    fn from(setting: Setting) -> Self {
        setting.0.as_str().to_owned()
    }
}

impl Vmids {
    /// One range.
    pub fn range(first: u32, last: u32) -> Self {
        Self(vec![VmidRange { first, last }])
    }

    /// The ranges.
    pub fn ranges(&self) -> &[VmidRange] {
        &self.0
    }

    /// No machine at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the machine is in one of the ranges.
    pub fn contains(&self, vmid: u32) -> bool {
        self.0
            .iter()
            .any(|range| (range.first..=range.last).contains(&vmid))
    }
}

impl fmt::Display for Vmids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}-{}", range.first, range.last)?;
        }
        Ok(())
    }
}

impl Serialize for Vmids {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

// By hand and not as an untagged enum, so that an error names the key that is wrong.
impl<'de> Deserialize<'de> for Vmids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ranges;
        impl<'de> Visitor<'de> for Ranges {
            type Value = Vmids;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`{first: 100, last: 199}` or a list of such ranges")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vmids, A::Error> {
                let range = VmidRange::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Vmids(vec![range]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vmids, A::Error> {
                let mut ranges = Vec::new();
                while let Some(range) = list.next_element()? {
                    ranges.push(range);
                }
                Ok(Vmids(ranges))
            }
        }
        deserializer.deserialize_any(Ranges)
    }
}

/// Digits only: `str::parse` would take a sign.
fn digits(text: &str) -> Option<u16> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

impl TryFrom<String> for PortRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        match (digits(first.trim()), digits(last.trim())) {
            (Some(first), Some(last)) if first > 0 && first <= last => Ok(Self { first, last }),
            _ => Err(format!(
                "`{}` is no port range; write `22` or `1000-2000`",
                text.escape_default()
            )),
        }
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        format!("{}-{}", range.first, range.last)
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let error = || {
            format!(
                "`{}` is no prefix; write it like `fd77:b10c::/64`",
                text.escape_default()
            )
        };
        let (address, length) = text.split_once('/').ok_or_else(error)?;
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let length = digits(length)
            .and_then(|n| u8::try_from(n).ok())
            .ok_or_else(error)?;
        if length > if address.is_ipv4() { 32 } else { 128 } {
            return Err(error());
        }
        Ok(Self { address, length })
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        format!("{}/{}", prefix.address, prefix.length)
    }
}

impl Prefix {
    /// Whether the address lies in the prefix.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u128::from(a.to_bits()), u128::from(b.to_bits()), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let shift = width - u32::from(self.length);
        // A shift by the whole width is prefix 0: everything matches.
        ours.checked_shr(shift) == theirs.checked_shr(shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_port_ranges_are_refused() {
        for text in [
            "", "0", "+80", "80-", "-80", "90-80", "65536", "80,90", "eighty",
        ] {
            assert!(PortRange::try_from(text.to_owned()).is_err(), "{text}");
        }
        assert_eq!(
            PortRange::try_from("22".to_owned()),
            Ok(PortRange {
                first: 22,
                last: 22
            })
        );
    }

    #[test]
    fn a_prefix_holds_its_addresses_and_no_others() {
        let prefix = Prefix::try_from("fd77:b10c::/64".to_owned()).expect("a prefix");
        assert!(prefix.contains("fd77:b10c::1".parse().expect("address")));
        assert!(!prefix.contains("fd77:b10d::1".parse().expect("address")));
        assert!(!prefix.contains("10.0.0.1".parse().expect("address")));
        let all = Prefix::try_from("::/0".to_owned()).expect("a prefix");
        assert!(all.contains("2001:db8::1".parse().expect("address")));
        let read = |text: &str| Prefix::try_from(text.to_owned());
        for text in ["10.0.0.1/32", "0.0.0.0/0", "fd00::1/128"] {
            assert_eq!(read(text).map(String::from), Ok(text.to_owned()));
        }
        for text in [
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0.0/256",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "10.0.0.0",
            "/8",
            "",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
