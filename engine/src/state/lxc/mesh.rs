//! The routed mode, `netmaker`: the host is the container's gateway and takes its packets into the mesh. What the host does for
//! that is the section `mesh`'s; here is looked at whether it fits the container.

use std::net::IpAddr;

use blockhost_netlink::Address;
use blockhost_proto::qm::{Ip4Config, Ip6Config};

use super::{Found, Interface, Mode};
use crate::state::mesh::NO_IPV6;

/// MTU of an interface that nothing is said about.
const USUAL_MTU: u32 = 1500;

/// An address of a container and its gateway.
struct Own {
    address: IpAddr,
    gateway: Option<IpAddr>,
}

/// The MTU that an interface should have: what the document says; else, where it is routed and about to be started, no more than
/// the narrowest tunnel carries. One that runs would not get it before its next start. `None` leaves it to the manager.
pub(super) fn mtu(interface: &Interface, there: Option<u16>, found: &Found) -> Option<u16> {
    let fits = |carries: u32| there.map_or(USUAL_MTU, u32::from) <= carries;
    let narrow = match (&found.narrowest, interface.mode) {
        (Some((_, carries)), Mode::Netmaker) if !found.is_running() && !fits(*carries) => {
            u16::try_from(*carries).ok()
        }
        _ => None,
    };
    interface.net.mtu.or(narrow).or(there)
}

/// What is missing on the host for this interface to be routed; empty when all is there.
pub(super) fn missing(interface: &Interface, now: Option<u32>, found: &Found) -> Vec<String> {
    let bridge = interface.bridge.as_str();
    let name = &interface.net.name;
    let about = found.bridges.get(bridge);
    let host: Vec<Address> = about
        .iter()
        .flat_map(|about| &about.addresses)
        .filter_map(|text| parse(text))
        .collect();
    let mut missing = Vec::new();
    if host.is_empty() {
        missing.push(format!("{name} is routed, but the host has no address on {bridge}; give it one in the section net"));
    }
    for Own { address, gateway } in addresses(interface) {
        if !host.is_empty() && !host.iter().any(|own| own.reaches(address)) {
            missing.push(format!(
                "the way back to {address} is missing: it is in no network of the host's addresses on {bridge}"
            ));
        }
        match gateway {
            None => missing.push(format!(
                "{name} has no gateway for {address}, so it reaches nothing beyond {bridge}"
            )),
            Some(gateway) if !host.is_empty() && !host.iter().any(|own| own.address == gateway) => {
                missing.push(format!(
                    "{name} is routed by {gateway}, which is no address of the host on {bridge}"
                ));
            }
            Some(_) => {}
        }
        if address.is_ipv4() && !about.is_some_and(|about| about.forwards) {
            missing.push(format!(
                "{name} is routed, but this host does not forward what comes in by {bridge}; name it in the section mesh"
            ));
        }
        if address.is_ipv6() && !found.forwards_v6 {
            missing.push(format!("{name} is routed, but {NO_IPV6}"));
        }
    }
    if let (Some(mtu), Some((tunnel, narrow))) = (now, &found.narrowest)
        && mtu > *narrow
    {
        let what = match interface.net.mtu {
            Some(own) if u32::from(own) <= *narrow => "its next start spares that".to_owned(),
            _ => format!("`mtu: {narrow}` spares that, from its next start on"),
        };
        missing.push(format!(
            "{name} sends packets of up to {mtu} bytes and {tunnel} carries {narrow}: larger ones are sent twice, after the host \
             has said so; {what}"
        ));
    }
    missing
}

fn parse(text: &str) -> Option<Address> {
    let (address, length) = text.split_once('/')?;
    Some(Address {
        address: address.parse().ok()?,
        length: length.parse().ok()?,
    })
}

/// The addresses that the document gives it, with their gateways.
fn addresses(interface: &Interface) -> Vec<Own> {
    let mut list = Vec::new();
    if let Some(Ip4Config::Static {
        address, gateway, ..
    }) = interface.net.ip4
    {
        list.push(Own {
            address: address.into(),
            gateway: gateway.map(Into::into),
        });
    }
    if let Some(Ip6Config::Static {
        address, gateway, ..
    }) = interface.net.ip6
    {
        list.push(Own {
            address: address.into(),
            gateway: gateway.map(Into::into),
        });
    }
    list
}
