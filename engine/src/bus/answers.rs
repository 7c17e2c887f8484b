//! What the bus answers about the network, from what was observed: pure, in the shapes of the interface's first design.

use blockhost_proto::layout::Layout;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::network::bindings;
use crate::network::observe::{Bridge, Link, Observed, Port, Route};
use crate::network::picture::{BridgePicture, Role};

/// `GetSystemNetworkState`.
pub(super) fn system_state(observed: &Observed, dns_working: Option<bool>) -> Value {
    let bridges = observed.switch.as_ref().map(|switch| {
        let of = |bridge: &Bridge| bridge_entry(bridge, observed);
        switch.bridges.iter().map(of).collect::<Vec<_>>()
    });
    let manager = observed.network_manager.as_ref().map(|manager| {
        json!({
            "version": manager.version, "state": manager.state, "connectivity": manager.connectivity,
            "active_connections": manager.active_connections, "total_connections": manager.total_connections,
            "devices": manager.devices,
        })
    });
    json!({
        "networkmanager": manager,
        "ovs_bridges": bridges,
        "interface_bindings": interface_bindings(observed),
        "connectivity_status": connectivity(observed, dns_working),
        "problems": observed.problems,
    })
}

fn bridge_entry(bridge: &Bridge, observed: &Observed) -> Value {
    let names = |internal: bool| -> Vec<&str> {
        let ports = bridge.ports.iter();
        ports
            .filter(|port| !internal || port.kind == "internal")
            .filter_map(|port| port.name.as_deref())
            .collect()
    };
    let up = observed.link(&bridge.name).is_none_or(|own| own.up);
    json!({
        "name": bridge.name, "ports": names(false), "interfaces": names(true),
        "active": bridge.error.is_none() && up, "datapath_type": bridge.datapath_type,
    })
}

/// `GetInterfaceBindings`: the switch's ports that belong to a machine, by the name that people know.
pub(super) fn interface_bindings(observed: &Observed) -> Value {
    let mut bound = Map::new();
    for bridge in observed.switch.iter().flat_map(|switch| &switch.bridges) {
        for port in &bridge.ports {
            let (Some(vmid), Some(name)) = (port.vmid, port.name.as_deref()) else {
                continue;
            };
            let link = observed.link(name);
            let entry = json!({
                "proxmox_veth": link.map(|link| &link.name), "ovs_interface": name, "vmid": vmid,
                "bridge": bridge.name, "container": port.iface_id, "mac": port.attached_mac, "link": port.link,
            });
            bound.insert(known_as(name, vmid, link), entry);
        }
    }
    Value::Object(bound)
}

/// `vi<vmid>`, where the device is called so, or the port's own name.
fn known_as(port: &str, vmid: u32, link: Option<&Link>) -> String {
    let names = link.iter().flat_map(|link| &link.altnames);
    names
        .map(String::as_str)
        .chain([port])
        .find(|name| bindings::parse_name(name).is_some_and(|(of, _)| of.get() == vmid))
        .unwrap_or(port)
        .to_owned()
}

fn default_route(observed: &Observed) -> Option<&Route> {
    let routes = observed.routes.iter().flatten();
    routes
        .filter(|route| route.is_default() && route.table == 254)
        // Of the two families the older one first, as people expect.
        .min_by_key(|route| (route.destination.contains(':'), route.metric))
}

fn connectivity(observed: &Observed, dns_working: Option<bool>) -> Value {
    let route = default_route(observed);
    let hop = route.and_then(|route| route.hops.first());
    let uplink = hop
        .and_then(|hop| hop.link.as_deref())
        .and_then(|name| observed.link(name));
    // Who looks outside already is asked; nothing is sent anywhere to find out.
    let told = observed
        .network_manager
        .as_ref()
        .map(|manager| manager.connectivity.as_str());
    let reachable = match (told, route) {
        (Some("full"), _) => Some(true),
        (Some("none" | "portal" | "limited"), _) | (_, None) => Some(false),
        _ => None,
    };
    json!({
        "internet_reachable": reachable,
        "dns_working": dns_working,
        "default_route": hop.and_then(|hop| hop.gateway),
        "uplink": uplink.map(|link| &link.name),
        "uplink_status": uplink.map_or("none", |link| {
            if link.up && link.carrier != Some(false) { "connected" } else { "disconnected" }
        }),
    })
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    check: &'static str,
    ok: bool,
    detail: String,
}

/// `ValidateBridgeConnectivity`: what has to be so for packets to pass, one check a line.
pub(super) fn validate(picture: &BridgePicture, observed: &Observed) -> Value {
    let mut checks = Vec::new();
    let mut check = |check, ok, detail: String| checks.push(Check { check, ok, detail });
    check(
        "bridge",
        picture.error.is_none(),
        picture
            .error
            .clone()
            .unwrap_or_else(|| "the switch has it".to_owned()),
    );
    check(
        "device",
        picture.up == Some(true),
        match picture.up {
            Some(true) => "its own device is up",
            Some(false) => "its own device is down: the host cannot talk through it",
            None => "its own device is not there",
        }
        .to_owned(),
    );
    let bad: Vec<&str> = picture
        .ports
        .iter()
        .filter(|port| port.state == "missing" || port.error.is_some())
        .map(|port| port.name.as_str())
        .collect();
    check(
        "ports",
        bad.is_empty(),
        if bad.is_empty() {
            format!("{} ports, each with its device", picture.ports.len())
        } else {
            format!("without a working device: {}", bad.join(", "))
        },
    );
    let down: Vec<&str> = picture
        .ports
        .iter()
        .filter(|port| port.state == "down" && port.role != Role::Internal)
        .map(|port| port.name.as_str())
        .collect();
    check(
        "links",
        down.is_empty(),
        if down.is_empty() {
            "every link is up".to_owned()
        } else {
            format!("no link: {}", down.join(", "))
        },
    );
    let leads_out = picture
        .ports
        .iter()
        .any(|port| matches!(port.role, Role::Uplink | Role::Tunnel) && port.state == "up");
    let routed = !picture.addresses.is_empty();
    check(
        "way out",
        leads_out || routed,
        match (leads_out, routed) {
            (true, _) => "an uplink or tunnel is up",
            (false, true) => "no uplink; the host has an address on it and can route",
            (false, false) => "no uplink, and the host has no address on it",
        }
        .to_owned(),
    );
    let route = default_route(observed);
    check(
        "default route",
        route.is_some(),
        route.map_or_else(
            || "the host has none".to_owned(),
            |route| {
                let hop = route.hops.first();
                let gateway = hop.and_then(|hop| hop.gateway);
                gateway.map_or_else(
                    || "without a gateway".to_owned(),
                    |gateway| format!("through {gateway}"),
                )
            },
        ),
    );
    json!({"bridge": picture.name, "valid": checks.iter().all(|check| check.ok), "checks": checks})
}

/// `ListPorts`: bridge, port, OpenFlow number (-1 where the device is missing), machine (0 for none).
pub(super) fn ports(observed: &Observed) -> Vec<(String, String, i64, u32)> {
    let bridges = observed.switch.iter().flat_map(|switch| &switch.bridges);
    let of = |bridge: &Bridge, port: &Port| {
        let name = plain(port.name.as_deref()?);
        Some((
            plain(&bridge.name),
            name,
            port.ofport.unwrap_or(-1),
            port.vmid.unwrap_or(0),
        ))
    };
    bridges
        .flat_map(|bridge| bridge.ports.iter().filter_map(move |port| of(bridge, port)))
        .collect()
}

/// A text that may stand in a string of the bus, which has no NUL.
fn plain(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Where a binding's link is, for answers.
pub(super) fn binding_answer(
    layout: &Layout,
    binding: &bindings::Binding,
    ofport: Option<u64>,
) -> Value {
    let name = binding.name();
    let place = bindings::directory(layout).join(format!("vm-{}", binding.vmid));
    json!({
        "interface": name, "proxmox_veth": binding.device.as_str(), "ovs_interface": binding.device.as_str(),
        "vmid": binding.vmid.get(), "container": binding.container.as_str(), "bridge": binding.bridge.as_str(),
        "ofport": ofport, "created": binding.created, "file": place.join(format!("{name}.conf")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::picture::{picture, tests::sample};

    #[test]
    fn the_state_has_the_shape_that_was_promised() {
        let mut observed = sample("web-1");
        if let Some(links) = &mut observed.links {
            links[3].altnames.push("vi100".to_owned());
        }
        let state = system_state(&observed, Some(true));
        assert_eq!(state["networkmanager"], Value::Null);
        assert_eq!(state["ovs_bridges"][0]["name"], "ovsbr0");
        assert_eq!(state["ovs_bridges"][0]["active"], true);
        assert_eq!(
            state["ovs_bridges"][0]["ports"],
            json!(["ovsbr0", "veth100i0", "eth0", "web-1"])
        );
        let bound = &state["interface_bindings"]["vi100"];
        assert_eq!(bound["proxmox_veth"], "veth100i0");
        assert_eq!(
            (bound["vmid"].as_u64(), bound["bridge"].as_str()),
            (Some(100), Some("ovsbr0"))
        );
        let connectivity = &state["connectivity_status"];
        assert_eq!(connectivity["default_route"], "192.0.2.254");
        assert_eq!(connectivity["uplink_status"], "connected");
        assert_eq!(
            connectivity["internet_reachable"],
            Value::Null,
            "nobody was asked"
        );
        assert_eq!(connectivity["dns_working"], true);
    }

    #[test]
    fn without_a_switch_the_bridges_are_null_and_without_a_route_nothing_is_reachable() {
        let state = system_state(&Observed::default(), None);
        assert_eq!(state["ovs_bridges"], Value::Null);
        assert_eq!(state["connectivity_status"]["internet_reachable"], false);
        assert_eq!(state["connectivity_status"]["uplink_status"], "none");
    }

    #[test]
    fn a_bridge_is_valid_only_when_every_check_is() {
        let observed = sample("web-1");
        let shown = picture(&observed);
        let mut bridge = shown.bridge("ovsbr0").expect("there").clone();
        let answer = validate(&bridge, &observed);
        assert_eq!(answer["valid"], false, "one port has no device");
        bridge.ports.retain(|port| port.state != "missing");
        assert_eq!(validate(&bridge, &observed)["valid"], true);
        bridge.up = Some(false);
        assert_eq!(validate(&bridge, &observed)["valid"], false);
        bridge.up = Some(true);
        bridge.ports.retain(|port| port.role != Role::Uplink);
        bridge.addresses.clear();
        assert_eq!(validate(&bridge, &observed)["valid"], false, "no way out");
    }
}
