//! An uplink put on a bridge, and taken off it: from what is and what is wanted to a plan. Pure; called by [`super::Change`].

use std::net::IpAddr;

use blockhost_proto::Action;
use blockhost_proto::value::{InterfaceAddress, SwitchIfName, Text};
use serde_json::{Map, Value, json};

use super::plan::{Call, Condition, Expect, ExpectLink, ExpectRoute, Plan, PlanError, Step, Undo};
use crate::network::observe::{Link, Observed, Route};

/// What a new bridge has by itself.
const USUAL_MTU: u32 = 1500;
/// The kernel's number for routes that DHCP gave.
const DHCP: u8 = 16;
/// The kernel's number for routes that routers announced.
const ANNOUNCED: u8 = 9;

/// An uplink put on a bridge, or taken off it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The bridge.
    pub bridge: SwitchIfName,
    /// The device that leads out of the host.
    pub uplink: SwitchIfName,
    /// How a new bridge forwards; the switch's default where nothing is given.
    pub datapath: Option<String>,
    /// Addresses that stay on the bridge when the uplink is taken off it.
    pub keep: Vec<InterfaceAddress>,
}

fn call(name: &str, params: &Value) -> Result<Call, PlanError> {
    Action::from_parts(name, params)
        .map(Call)
        .map_err(|error| PlanError::Catalog(error.to_string()))
}

/// The addresses that move: those of the link alone stay where they are.
fn carried(link: &Link) -> Vec<String> {
    let stays = |text: &&String| {
        text.split('/')
            .next()
            .and_then(|address| address.parse::<IpAddr>().ok())
            .is_none_or(|address| match address {
                IpAddr::V4(_) => false,
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            })
    };
    let all = link.addresses.iter();
    all.filter(|text| !stays(text)).cloned().collect()
}

/// Routes that move with a device: those of its alone.
fn routes_of<'a>(observed: &'a Observed, dev: &'a str) -> impl Iterator<Item = &'a Route> {
    let only = move |route: &&Route| {
        !route.hops.is_empty()
            && route
                .hops
                .iter()
                .all(|hop| hop.link.as_deref() == Some(dev))
    };
    let of_link = |route: &&Route| route.destination.starts_with("fe80::");
    let all = observed.routes.iter().flatten();
    all.filter(only).filter(move |route| !of_link(route))
}

fn on(dev: &str, route: &Route) -> ExpectRoute {
    ExpectRoute {
        destination: route.destination.clone(),
        dev: dev.to_owned(),
        gateway: route.hops.first().and_then(|hop| hop.gateway),
        metric: route.metric,
        table: route.table,
    }
}

/// Notes about what does not come along.
fn notes(observed: &Observed, link: &Link) -> Vec<String> {
    let mut notes = Vec::new();
    let by = |protocol| routes_of(observed, &link.name).any(|route| route.protocol == protocol);
    for (protocol, from) in [(DHCP, "DHCP"), (ANNOUNCED, "router announcements")] {
        if by(protocol) {
            notes.push(format!(
                "{} has routes from {from}: what renews them has to look after the other device from now on, or they run out",
                link.name
            ));
        }
    }
    let managed = observed.network_manager.iter().flat_map(|manager| {
        let all = manager.device_list.iter();
        all.filter(|device| device.interface == link.name && device.managed)
    });
    if managed.count() > 0 {
        notes.push(format!(
            "NetworkManager manages {} and sets it up again when it starts; see docs/uplinks.md",
            link.name
        ));
    }
    notes
}

/// The whole of both, or no plan.
fn seen<'a>(
    observed: &'a Observed,
    change: &'a Uplink,
) -> Result<(&'a Link, &'a str, &'a str), PlanError> {
    let parts = ["links", "routes", "switch"];
    if let Some(problem) = observed
        .problems
        .iter()
        .find(|problem| parts.contains(&problem.part.as_str()))
    {
        return Err(PlanError::Unseen(problem.what.clone()));
    }
    if observed.switch.is_none() {
        let what = "no Open vSwitch is running, or the root agent cannot be asked about it";
        return Err(PlanError::Unseen(what.to_owned()));
    }
    let (uplink, bridge) = (change.uplink.as_str(), change.bridge.as_str());
    let link = observed
        .links
        .iter()
        .flatten()
        .find(|link| link.name == uplink)
        .ok_or_else(|| PlanError::NoDevice(uplink.to_owned()))?;
    if uplink == bridge {
        let why = "it is the bridge itself".to_owned();
        let (dev, bridge) = (uplink.to_owned(), bridge.to_owned());
        return Err(PlanError::NotFit { dev, bridge, why });
    }
    Ok((link, uplink, bridge))
}

/// Puts an uplink on a bridge, which is made where it is not there, and gives the bridge all that the uplink carries.
///
/// # Errors
/// [`PlanError`].
pub fn attach(observed: &Observed, change: &Uplink) -> Result<Plan, PlanError> {
    let (link, uplink, bridge) = seen(observed, change)?;
    let not_fit = |why: String| PlanError::NotFit {
        dev: uplink.to_owned(),
        bridge: bridge.to_owned(),
        why,
    };
    let switch = observed.switch.as_ref();
    if let Some((other, _)) = switch.and_then(|switch| switch.port(uplink)) {
        return Err(if other.name == bridge {
            PlanError::Nothing(format!("{uplink} is on {bridge} already"))
        } else {
            not_fit(format!("it is on {} already", other.name))
        });
    }
    if let Some(master) = &link.master {
        return Err(not_fit(format!("it belongs to {master}")));
    }
    let Some(mac) = link.mac.clone() else {
        return Err(not_fit("it has no hardware address".to_owned()));
    };
    if !link.up {
        return Err(not_fit("it is down".to_owned()));
    }
    let mut steps = Vec::new();
    let present = observed.bridge(bridge);
    match present {
        None => {
            if observed.link(bridge).is_some() {
                return Err(not_fit(format!(
                    "a device {bridge} is there that is no bridge of the switch"
                )));
            }
            let mut options = Map::new();
            options.insert("hwaddr".into(), mac.clone().into());
            if link.mtu != USUAL_MTU {
                options.insert("mtu".into(), link.mtu.into());
            }
            if let Some(kind) = &change.datapath {
                options.insert("datapath_type".into(), kind.clone().into());
            }
            steps.push(Step {
                requires: Vec::new(),
                forward: call("ovs-add-br", &json!({"bridge": bridge, "options": options}))?,
                inverse: vec![Undo {
                    only_if: None,
                    call: call("ovs-del-br", &json!({"bridge": bridge}))?,
                }],
            });
        }
        Some(present) => {
            if let Some(error) = &present.error {
                return Err(not_fit(format!("{bridge} does not work: {error}")));
            }
        }
    }
    steps.push(Step {
        requires: Vec::new(),
        forward: call("ovs-add-port", &json!({"bridge": bridge, "port": uplink}))?,
        inverse: vec![Undo {
            only_if: None,
            call: call("ovs-del-port", &json!({"bridge": bridge, "port": uplink}))?,
        }],
    });
    let own = observed.link(bridge);
    steps.extend(handover(observed, link, own, bridge, &[])?);
    Ok(Plan {
        what: format!("attach {uplink} to {bridge}"),
        steps,
        expect: Expect {
            ports: vec![(bridge.to_owned(), uplink.to_owned())],
            no_ports: Vec::new(),
            links: moved(link, bridge, &carried(link), link.mac.clone()),
            routes: routes_of(observed, uplink)
                .map(|route| on(bridge, route))
                .collect(),
        },
        devices: vec![uplink.to_owned()],
        notes: notes(observed, link),
    })
}

/// Takes an uplink off its bridge and gives it back what the bridge carries.
///
/// # Errors
/// [`PlanError`].
pub fn detach(observed: &Observed, change: &Uplink) -> Result<Plan, PlanError> {
    let (link, uplink, bridge) = seen(observed, change)?;
    let present = observed
        .bridge(bridge)
        .ok_or_else(|| PlanError::NoBridge(bridge.to_owned()))?;
    let Some(port) = present.port(uplink) else {
        return Err(PlanError::Nothing(format!("{uplink} is not on {bridge}")));
    };
    let not_fit = |why: &str| PlanError::NotFit {
        dev: uplink.to_owned(),
        bridge: bridge.to_owned(),
        why: why.to_owned(),
    };
    if !port.ours {
        return Err(not_fit(
            "its port was not attached by the root agent, so it is not detached by it",
        ));
    }
    if port.qos {
        return Err(not_fit(
            "its port has queues or a limit, which could not be given back; remove them first (ovs-set-qos)",
        ));
    }
    let own = observed
        .link(bridge)
        .ok_or_else(|| PlanError::NoDevice(bridge.to_owned()))?;
    let keep: Vec<String> = change.keep.iter().map(ToString::to_string).collect();
    if let Some(missing) = keep.iter().find(|kept| !own.addresses.contains(kept)) {
        return Err(not_fit(&format!(
            "{bridge} has no address {missing} to keep"
        )));
    }
    let mut steps = handover(observed, own, Some(link), uplink, &keep)?;
    let mut again = Map::new();
    again.insert("bridge".into(), bridge.into());
    again.insert("port".into(), uplink.into());
    for (key, value) in [
        ("tag", port.tag.map(Value::from)),
        ("vmid", port.vmid.map(Value::from)),
        ("attached_mac", port.attached_mac.clone().map(Value::from)),
        ("iface_id", port.iface_id.clone().map(Value::from)),
    ] {
        if let Some(value) = value {
            again.insert(key.into(), value);
        }
    }
    if !port.trunks.is_empty() {
        again.insert("trunks".into(), json!(port.trunks));
    }
    steps.push(Step {
        requires: Vec::new(),
        forward: call("ovs-del-port", &json!({"bridge": bridge, "port": uplink}))?,
        inverse: vec![Undo {
            only_if: None,
            call: call("ovs-add-port", &Value::Object(again))?,
        }],
    });
    let moving: Vec<String> = carried(own)
        .into_iter()
        .filter(|address| !keep.contains(address))
        .collect();
    let stays = |route: &&Route| keep.iter().any(|kept| reaches(kept, route));
    let routes = routes_of(observed, bridge)
        .filter(|route| !stays(route))
        .map(|route| on(uplink, route))
        .collect();
    Ok(Plan {
        what: format!("detach {uplink} from {bridge}"),
        steps,
        expect: Expect {
            ports: Vec::new(),
            no_ports: vec![uplink.to_owned()],
            // Without the port the switch gives the bridge an address of its own again.
            links: moved(own, uplink, &moving, None),
            routes,
        },
        devices: vec![uplink.to_owned(), bridge.to_owned()],
        notes: notes(observed, own),
    })
}

/// Whether a route leads into the network of a kept address, by its gateway or its destination.
fn reaches(kept: &str, route: &Route) -> bool {
    let Some(kept) = InterfaceAddress::read(kept) else {
        return false;
    };
    let destination = || {
        let (address, length) = route.destination.split_once('/')?;
        // The default routes are in nobody's network.
        (length != "0").then(|| address.parse().ok())?
    };
    let gateway = route.hops.first().and_then(|hop| hop.gateway);
    gateway
        .or_else(destination)
        .is_some_and(|to| within(kept.address(), kept.length(), to))
}

pub(super) fn within(network: IpAddr, length: u8, address: IpAddr) -> bool {
    let (a, b, width) = match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let shift = u32::saturating_sub(width, length.into());
    a.checked_shr(shift) == b.checked_shr(shift)
}

fn moved(from: &Link, to: &str, addresses: &[String], left: Option<String>) -> Vec<ExpectLink> {
    vec![
        ExpectLink {
            dev: to.to_owned(),
            mac: from.mac.clone(),
            addresses: addresses.to_vec(),
            no_addresses: Vec::new(),
        },
        ExpectLink {
            dev: from.name.clone(),
            mac: left,
            addresses: Vec::new(),
            no_addresses: addresses.to_vec(),
        },
    ]
}

/// Everything that `from` carries goes to `to`; back goes all but what `to` had before.
fn handover(
    observed: &Observed,
    from: &Link,
    to: Option<&Link>,
    name: &str,
    keep: &[String],
) -> Result<Vec<Step>, PlanError> {
    let moving: Vec<String> = carried(from)
        .into_iter()
        .filter(|address| !keep.contains(address))
        .collect();
    if moving.is_empty() && routes_of(observed, &from.name).next().is_none() {
        return Ok(Vec::new());
    }
    let shared = observed.routes.iter().flatten().find(|route| {
        let links = || route.hops.iter().map(|hop| hop.link.as_deref());
        links().any(|link| link == Some(&*from.name))
            && links().any(|link| link != Some(&*from.name))
    });
    if let Some(route) = shared {
        return Err(PlanError::NotFit {
            dev: from.name.clone(),
            bridge: name.to_owned(),
            why: format!(
                "the route to {} goes out of several devices; replace it by a plain one first",
                route.destination
            ),
        });
    }
    let had = to.map(carried).unwrap_or_default();
    if let Some(both) = had.iter().find(|address| moving.contains(address)) {
        return Err(PlanError::NotFit {
            dev: from.name.clone(),
            bridge: name.to_owned(),
            why: format!("both have the address {both}"),
        });
    }
    let with = |from: &str, to: &str, keep: &[String]| {
        let mut params = json!({"from": from, "to": to});
        if !keep.is_empty() {
            params["keep"] = json!(keep);
        }
        call("link-handover", &params)
    };
    let mut inverse = vec![Undo {
        only_if: Some(Condition::Carries {
            dev: name.to_owned(),
            mac: from.mac.clone(),
            addresses: moving,
        }),
        call: with(name, &from.name, &had)?,
    }];
    if to.is_some_and(|to| !to.up) {
        inverse.push(Undo {
            only_if: None,
            call: call("link-set", &json!({"dev": name, "up": false}))?,
        });
    }
    // The switch gives a bridge the address of its first port where nobody said otherwise. Where it does not, the
    // network outside would have to learn a new one, and what is taken back would not be what was there.
    let requires = from.mac.iter().map(|mac| Condition::Hardware {
        dev: name.to_owned(),
        mac: mac.clone(),
    });
    Ok(vec![Step {
        requires: requires.collect(),
        forward: with(&from.name, name, keep)?,
        inverse,
    }])
}

#[cfg(test)]
#[path = "uplink_tests.rs"]
mod tests;
