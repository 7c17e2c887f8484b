//! `netN` of a container: `name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=dhcp,tag=7`.

use std::fmt;

use crate::qm::{Ip4Config, Ip6Config, MacAddress, flag, number, rate, thousandths};
use crate::value::{IfName, Text};

/// One interface of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerNet {
    /// Its name inside the container.
    pub name: IfName,
    /// Bridge that it is attached to.
    pub bridge: IfName,
    /// Hardware address; the backend chooses one where it is missing.
    pub mac: Option<MacAddress>,
    /// IPv4.
    pub ip4: Option<Ip4Config>,
    /// IPv6.
    pub ip6: Option<Ip6Config>,
    /// Whether the backend's firewall looks at it.
    pub firewall: Option<bool>,
    /// VLAN: 1..=4094.
    pub tag: Option<u16>,
    /// Limit in kilobytes per second; printed in MB/s (`rate=12.5`).
    pub rate_kbps: Option<u32>,
    /// MTU: 576..=65520.
    pub mtu: Option<u16>,
}

impl ContainerNet {
    pub(super) const RULE: &'static str = "name=<interface>,bridge=<name>[,hwaddr=MAC][,ip=dhcp|<IPv4>/<n>][,gw=<IPv4>][,ip6=auto|dhcp|<IPv6>/<n>][,gw6=<IPv6>][,firewall=0|1][,tag=1..4094][,rate=<MB/s>][,mtu=576..65520]";

    /// Reads the option's value.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (mut name, mut bridge, mut mac) = (None, None, None);
        let (mut ip, mut gw, mut ip6, mut gw6) = (None, None, None, None);
        let (mut firewall, mut tag, mut rate_kbps, mut mtu) = (None, None, None, None);
        for part in text.split(',') {
            let (key, value) = part.split_once('=')?;
            let seen = match key {
                "name" => name.replace(interface(value)?).is_some(),
                "bridge" => bridge.replace(IfName::read(value)?).is_some(),
                "hwaddr" => mac.replace(MacAddress::read(value)?).is_some(),
                "ip" => ip.replace(value).is_some(),
                "gw" => gw.replace(value).is_some(),
                "ip6" => ip6.replace(value).is_some(),
                "gw6" => gw6.replace(value).is_some(),
                "firewall" => firewall.replace(flag(value)?).is_some(),
                "tag" => tag.replace(number(value, 1..=4094)?).is_some(),
                "rate" => rate_kbps.replace(rate(value)?).is_some(),
                "mtu" => mtu.replace(number(value, 576..=65520)?).is_some(),
                _ => return None,
            };
            if seen {
                return None;
            }
        }
        Some(Self {
            name: name?,
            bridge: bridge?,
            mac,
            ip4: Ip4Config::read(ip, gw)?,
            ip6: Ip6Config::read(ip6, gw6)?,
            firewall,
            tag,
            rate_kbps,
            mtu,
        })
    }
}

/// The name inside the container; `lo` is there already.
fn interface(text: &str) -> Option<IfName> {
    IfName::read(text).filter(|name| name.as_str() != "lo")
}

impl fmt::Display for ContainerNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "name={},bridge={}", self.name, self.bridge)?;
        if let Some(firewall) = self.firewall {
            write!(f, ",firewall={}", u8::from(firewall))?;
        }
        if let Some(mac) = self.mac {
            write!(f, ",hwaddr={mac}")?;
        }
        let ip4 = self.ip4.into_iter().flat_map(Ip4Config::parts);
        for part in ip4.chain(self.ip6.into_iter().flat_map(Ip6Config::parts)) {
            write!(f, ",{part}")?;
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
