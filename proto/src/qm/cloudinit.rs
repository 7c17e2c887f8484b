//! What cloud-init is told: addresses, name servers, the user, snippets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::scalar::Choice;
use crate::value::{SnippetRef, Text, decimal, made_of};
use crate::value::{routable_v4, routable_v6};

/// IPv4 side of `ipconfigN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ip4Config {
    /// `ip=dhcp`
    Dhcp,
    /// `ip=A/N[,gw=G]`
    Static {
        /// Address of the guest.
        address: Ipv4Addr,
        /// Length of the prefix: 1..=32.
        prefix: u8,
        /// Gateway.
        gateway: Option<Ipv4Addr>,
    },
}

/// IPv6 side of `ipconfigN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ip6Config {
    /// `ip6=dhcp`
    Dhcp,
    /// `ip6=auto`
    Auto,
    /// `ip6=A/N[,gw6=G]`
    Static {
        /// Address of the guest: global or unique local.
        address: Ipv6Addr,
        /// Length of the prefix: 1..=128.
        prefix: u8,
        /// Gateway: global, unique local or link-local.
        gateway: Option<Ipv6Addr>,
    },
}

impl Ip4Config {
    /// Reads the values of `ip` and `gw`; the inner `None` when neither is there.
    #[expect(clippy::option_option, reason = "refused, absent, present")]
    pub(crate) fn read(ip: Option<&str>, gw: Option<&str>) -> Option<Option<Self>> {
        Some(match (ip, gw) {
            (None, None) => None,
            (Some("dhcp"), None) => Some(Self::Dhcp),
            (Some(text), gateway) => {
                let (address, prefix) = text.split_once('/')?;
                let gateway = match gateway {
                    Some(gateway) => Some(gateway.parse().ok().filter(|a| routable_v4(*a))?),
                    None => None,
                };
                let address = address.parse().ok().filter(|a| routable_v4(*a))?;
                Some(Self::Static {
                    address,
                    prefix: length(prefix, 32)?,
                    gateway,
                })
            }
            (None, Some(_)) => return None,
        })
    }

    /// `ip=...` and `gw=...`.
    pub(crate) fn parts(self) -> Vec<String> {
        match self {
            Self::Dhcp => vec!["ip=dhcp".to_owned()],
            Self::Static {
                address,
                prefix,
                gateway,
            } => std::iter::once(format!("ip={address}/{prefix}"))
                .chain(gateway.map(|g| format!("gw={g}")))
                .collect(),
        }
    }
}

impl Ip6Config {
    /// Reads the values of `ip6` and `gw6`; the inner `None` when neither is there.
    #[expect(clippy::option_option, reason = "refused, absent, present")]
    pub(crate) fn read(ip6: Option<&str>, gw6: Option<&str>) -> Option<Option<Self>> {
        Some(match (ip6, gw6) {
            (None, None) => None,
            (Some("dhcp"), None) => Some(Self::Dhcp),
            (Some("auto"), None) => Some(Self::Auto),
            (Some(text), gateway) => {
                let (address, prefix) = text.split_once('/')?;
                let gateway = match gateway {
                    Some(gateway) => Some(gateway.parse().ok().filter(|a: &Ipv6Addr| {
                        routable_v6(*a) || a.segments()[0] & 0xffc0 == 0xfe80
                    })?),
                    None => None,
                };
                let address = address.parse().ok().filter(|a| routable_v6(*a))?;
                Some(Self::Static {
                    address,
                    prefix: length(prefix, 128)?,
                    gateway,
                })
            }
            (None, Some(_)) => return None,
        })
    }

    /// `ip6=...` and `gw6=...`.
    pub(crate) fn parts(self) -> Vec<String> {
        match self {
            Self::Dhcp => vec!["ip6=dhcp".to_owned()],
            Self::Auto => vec!["ip6=auto".to_owned()],
            Self::Static {
                address,
                prefix,
                gateway,
            } => std::iter::once(format!("ip6={address}/{prefix}"))
                .chain(gateway.map(|g| format!("gw6={g}")))
                .collect(),
        }
    }
}

/// `ipconfigN`; at least one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpConfig {
    /// IPv4.
    pub ip4: Option<Ip4Config>,
    /// IPv6.
    pub ip6: Option<Ip6Config>,
}

impl IpConfig {
    pub(crate) const RULE: &'static str = "[ip=dhcp|<IPv4>/<n>[,gw=<IPv4>]][,ip6=auto|dhcp|<IPv6>/<n>[,gw6=<IPv6>]], unicast addresses";

    /// Reads the option's value.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (mut ip, mut gw, mut ip6, mut gw6) = (None, None, None, None);
        for part in text.split(',') {
            let (key, value) = part.split_once('=')?;
            let slot = match key {
                "ip" => &mut ip,
                "gw" => &mut gw,
                "ip6" => &mut ip6,
                "gw6" => &mut gw6,
                _ => return None,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        let ip4 = Ip4Config::read(ip, gw)?;
        let ip6 = Ip6Config::read(ip6, gw6)?;
        (ip4.is_some() || ip6.is_some()).then_some(Self { ip4, ip6 })
    }
}

fn length(text: &str, max: u8) -> Option<u8> {
    decimal(text)
        .and_then(|n| u8::try_from(n).ok())
        .filter(|n| (1..=max).contains(n))
}

impl fmt::Display for IpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = self.ip4.map(Ip4Config::parts).unwrap_or_default();
        parts.extend(self.ip6.into_iter().flat_map(Ip6Config::parts));
        f.write_str(&parts.join(","))
    }
}

/// `nameserver`: one to four addresses separated by spaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameServers(pub Vec<IpAddr>);

impl NameServers {
    pub(crate) const RULE: &'static str = "one to four unicast addresses separated by a space";

    pub(crate) fn read(text: &str) -> Option<Self> {
        let list: Vec<IpAddr> = text
            .split(' ')
            .map(|item| {
                item.parse().ok().filter(|address| match address {
                    IpAddr::V4(a) => routable_v4(*a),
                    IpAddr::V6(a) => routable_v6(*a),
                })
            })
            .collect::<Option<_>>()?;
        (1..=4).contains(&list.len()).then_some(Self(list))
    }
}

impl fmt::Display for NameServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            &self
                .0
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        )
    }
}

/// `searchdomain`: one to six DNS names separated by spaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SearchDomains(pub Vec<String>);

impl SearchDomains {
    pub(crate) const RULE: &'static str = "one to six DNS names separated by a space";

    pub(crate) fn read(text: &str) -> Option<Self> {
        let label = |l: &str| {
            made_of(l, 1..=63, |b| b.is_ascii_alphanumeric() || b == b'-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        let list: Vec<&str> = text.split(' ').collect();
        let good = list.len() <= 6
            && list
                .iter()
                .all(|name| name.len() <= 253 && name.split('.').all(label));
        good.then(|| Self(list.into_iter().map(str::to_owned).collect()))
    }
}

impl fmt::Display for SearchDomains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// `ciuser`: a Unix user name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CiUser(String);

impl CiUser {
    pub(crate) const RULE: &'static str = "a letter or _, then up to 31 of a-z, 0-9, _ and -";

    pub(crate) fn read(text: &str) -> Option<Self> {
        let good = made_of(text, 1..=32, |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b)
        }) && (text.as_bytes()[0].is_ascii_lowercase() || text.starts_with('_'));
        good.then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CiUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `cicustom`: `user=local:snippets/a.yaml,network=...,vendor=...`, each once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CiCustom(Vec<(Choice, SnippetRef)>);

impl CiCustom {
    pub(crate) const RULE: &'static str =
        "user|network|vendor=<storage>:snippets/<file>, each at most once";
    const PARTS: &'static [&'static str] = &["network", "user", "vendor"];

    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut parts: Vec<(Choice, SnippetRef)> = Vec::new();
        for part in text.split(',') {
            let (name, snippet) = part.split_once('=')?;
            let name = Choice::read(Self::PARTS, name)?;
            if parts.iter().any(|(other, _)| *other == name) {
                return None;
            }
            parts.push((name, SnippetRef::read(snippet)?));
        }
        parts.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        Some(Self(parts))
    }

    /// The snippet for `user`, `network` or `vendor`.
    #[must_use]
    pub fn get(&self, part: &str) -> Option<&SnippetRef> {
        self.0
            .iter()
            .find(|(name, _)| name.as_str() == part)
            .map(|(_, snippet)| snippet)
    }

    /// All snippets.
    pub fn snippets(&self) -> impl Iterator<Item = &SnippetRef> {
        self.0.iter().map(|(_, snippet)| snippet)
    }
}

impl fmt::Display for CiCustom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, snippet)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={snippet}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
