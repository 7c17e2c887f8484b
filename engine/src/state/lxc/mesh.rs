//! The routed mode, `netmaker`: the host is the container's gateway and takes its packets into the mesh that it is in. Here
//! only the facts on this host are looked at: an address on the bridge that is the container's gateway, and forwarding. The
//! mesh's own networks, SNAT, MTU and the way back are the planner's that joins the mesh.

use blockhost_proto::qm::{Ip4Config, Ip6Config};

use super::{Found, Interface};

/// What is missing on the host for this interface to be routed; empty when all is there.
pub(super) fn missing(interface: &Interface, found: &Found) -> Vec<String> {
    let bridge = interface.bridge.as_str();
    let name = &interface.net.name;
    let none = Vec::new();
    let about = found.bridges.get(bridge);
    let own = about.map_or(&none, |about| &about.addresses);
    let has = |address: &str| own.iter().any(|a| a.split('/').next() == Some(address));
    let mut missing = Vec::new();
    if own.is_empty() {
        missing.push(format!("{name} is routed, but the host has no address on {bridge}; give it one in the section net"));
    }
    for (gateway, family) in gateways(interface) {
        if !own.is_empty() && !has(&gateway) {
            missing.push(format!(
                "{name} is routed by {gateway}, which is no address of the host on {bridge}"
            ));
        }
        let (v4, v6) = found.forwards;
        if (family == 4 && !v4) || (family == 6 && !v6) {
            missing.push(format!(
                "{name} is routed, but this host does not forward IPv{family}"
            ));
        }
    }
    missing
}

/// The gateways that the document gives it, with their family.
fn gateways(interface: &Interface) -> Vec<(String, u8)> {
    let mut gateways = Vec::new();
    if let Some(Ip4Config::Static {
        gateway: Some(gateway),
        ..
    }) = &interface.net.ip4
    {
        gateways.push((gateway.to_string(), 4));
    }
    if let Some(Ip6Config::Static {
        gateway: Some(gateway),
        ..
    }) = &interface.net.ip6
    {
        gateways.push((gateway.to_string(), 6));
    }
    gateways
}
