//! Section `containers` of `network.yaml`: whose containers get a wire, and into which networks.

use blockhost_proto::value::{IfName, Mtu, NextHop, RouteNet, SwitchIfName, VlanTag};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Longest name of a network, bytes.
const MAX_NAME: usize = 64;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainersSection {
    /// Socket of Docker, Podman or what else speaks Docker's language; absolute. Whoever may speak to it is as good as root.
    #[serde(deserialize_with = "absolute")]
    pub socket: PathBuf,
    /// Networks by the names that containers' labels have.
    #[serde(deserialize_with = "named")]
    pub networks: BTreeMap<String, ContainerNetwork>,
}

/// A network that containers can be in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct ContainerNetwork {
    /// The switch's bridge.
    pub bridge: SwitchIfName,
    /// Where IPv4 addresses are taken from.
    pub ipv4: Option<RouteNet>,
    /// Router for everything else of IPv4.
    pub gateway4: Option<NextHop>,
    /// Where IPv6 addresses are taken from.
    pub ipv6: Option<RouteNet>,
    /// Router for everything else of IPv6.
    pub gateway6: Option<NextHop>,
    /// MTU of both ends.
    pub mtu: Option<Mtu>,
    /// VLAN on the switch.
    pub tag: Option<VlanTag>,
    /// Name of the interface in the container.
    pub interface: IfName,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    bridge: SwitchIfName,
    ipv4: Option<RouteNet>,
    gateway4: Option<NextHop>,
    ipv6: Option<RouteNet>,
    gateway6: Option<NextHop>,
    mtu: Option<Mtu>,
    tag: Option<VlanTag>,
    interface: Option<IfName>,
}

impl TryFrom<Raw> for ContainerNetwork {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        if raw.ipv4.is_none() && raw.ipv6.is_none() {
            return Err("a network needs ipv4, ipv6 or both".to_owned());
        }
        if raw
            .ipv4
            .is_some_and(|net| net.address().is_ipv6() || net.length() > 30)
        {
            return Err("ipv4 must be an IPv4 network of at most 30 bits".to_owned());
        }
        if raw
            .ipv6
            .is_some_and(|net| net.address().is_ipv4() || net.length() > 120)
        {
            return Err("ipv6 must be an IPv6 network of at most 120 bits".to_owned());
        }
        for (key, router, net) in [
            ("gateway4", raw.gateway4, raw.ipv4),
            ("gateway6", raw.gateway6, raw.ipv6),
        ] {
            let Some(router) = router.map(NextHop::address) else {
                continue;
            };
            let Some(net) = net else {
                return Err(format!(
                    "{key} is of a family that the network does not have"
                ));
            };
            let of_the_link = matches!(router, IpAddr::V6(v6) if v6.is_unicast_link_local())
                && net.address().is_ipv6();
            if !of_the_link && !net.contains(router) {
                return Err(format!("{key} {router} is not in {net}"));
            }
        }
        Ok(Self {
            bridge: raw.bridge,
            ipv4: raw.ipv4,
            gateway4: raw.gateway4,
            ipv6: raw.ipv6,
            gateway6: raw.gateway6,
            mtu: raw.mtu,
            tag: raw.tag,
            interface: match raw.interface {
                Some(name) => name,
                None => "bh0".parse().map_err(|error| format!("{error}"))?,
            },
        })
    }
}

fn absolute<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(serde::de::Error::custom("it must be an absolute path"))
    }
}

fn named<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<String, ContainerNetwork>, D::Error> {
    let networks = BTreeMap::<String, ContainerNetwork>::deserialize(from)?;
    let good = |name: &String| {
        (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
    };
    match networks.keys().find(|name| !good(name)) {
        None => Ok(networks),
        Some(_) => Err(serde::de::Error::custom(
            "a network's name has 1 to 64 printable characters without spaces",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ContainersSection, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_network_is_read_with_its_families_and_its_interface_has_a_name() {
        let text = "socket: /run/podman/podman.sock\nnetworks:\n  mesh: {bridge: ovsbr1, ipv4: 10.101.0.0/24, gateway4: 10.101.0.1, \
            ipv6: 'fd0a:101::/64', gateway6: 'fe80::1', mtu: 1420, tag: 7}\n";
        let section = read(text).unwrap();
        let mesh = &section.networks["mesh"];
        assert_eq!(mesh.bridge.as_str(), "ovsbr1");
        assert_eq!(mesh.interface.as_str(), "bh0");
        assert_eq!(mesh.mtu.map(Mtu::get), Some(1420));
    }

    #[test]
    fn what_makes_no_network_is_refused() {
        for wrong in [
            "{bridge: b}",
            "{ipv4: 10.0.0.0/24}",
            "{bridge: b, ipv4: 10.0.0.0/31}",
            "{bridge: b, ipv4: 10.0.0.1/24}",
            "{bridge: b, ipv4: 'fd00::/64'}",
            "{bridge: b, ipv6: 'fd00::/121'}",
            "{bridge: b, ipv4: 10.0.0.0/24, gateway4: 10.0.1.1}",
            "{bridge: b, ipv4: 10.0.0.0/24, gateway6: 'fe80::1'}",
            "{bridge: b, ipv4: 10.0.0.0/24, gateway4: 'fe80::1'}",
            "{bridge: ../b, ipv4: 10.0.0.0/24}",
            "{bridge: b, ipv4: 10.0.0.0/24, vlan: 7}",
            "{bridge: b, ipv4: 10.0.0.0/24, mtu: 68}",
        ] {
            let text = format!("socket: /run/x.sock\nnetworks:\n  mesh: {wrong}\n");
            assert!(read(&text).is_err(), "{wrong}");
        }
        let good = "{bridge: b, ipv4: 10.0.0.0/24}";
        assert!(read(&format!("socket: /run/x.sock\nnetworks:\n  mesh: {good}\n")).is_ok());
        assert!(read(&format!("socket: x.sock\nnetworks:\n  mesh: {good}\n")).is_err());
        assert!(
            read(&format!(
                "socket: /run/x.sock\nnetworks:\n  'a b': {good}\n"
            ))
            .is_err()
        );
        assert!(read("socket: /run/x.sock\n").is_err());
    }
}
