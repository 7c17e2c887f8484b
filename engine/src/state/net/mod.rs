//! Bridges of the switch with their ports, and the host's addresses on them. A bridge and each of its ports are resources of
//! their own: `ovsbr0`, `ovsbr0/eth1`. The section is in `section`, what has to be done in `plan`; looking is here.

mod plan;
mod section;

use std::collections::BTreeMap;

use blockhost_netlink::Link;
use blockhost_proto::action::OvsList;
use blockhost_proto::value::{
    DatapathType, FailMode, InterfaceAddress, Mtu, PortKind, SwitchIfName, Trunks, VlanTag,
};
use serde::Serialize;
use serde_json::Value;

use super::change::{Planned, ResourceRef};
use super::fields::{Fields, Wrong};
use super::host::{Host, HostError, read};
use super::kind::{Entry, Kind, Scope};
use super::lxc::owner_of;

/// A bridge or a port as the document has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A bridge.
    Bridge(Bridge),
    /// A port.
    Port(Port),
}

/// A bridge as the document has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: SwitchIfName,
    /// What forwards its packets.
    pub datapath: Option<DatapathType>,
    /// What it does without flows.
    pub fail_mode: Option<FailMode>,
    /// MTU of the host's own device on it.
    pub mtu: Option<Mtu>,
    /// All of the host's addresses on it; what the document does not say stays as it is.
    pub addresses: Option<Vec<InterfaceAddress>>,
    /// The device that leads out of the host by it: what that carries becomes the bridge's.
    pub uplink: Option<SwitchIfName>,
}

/// A port as the document has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The bridge.
    pub bridge: SwitchIfName,
    /// The device.
    pub name: SwitchIfName,
    /// Whether the switch makes the device.
    pub kind: PortKind,
    /// Its VLAN.
    pub tag: Option<VlanTag>,
    /// VLANs that it carries tagged.
    pub trunks: Option<Trunks>,
}

/// A bridge or a port as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Found {
    /// A bridge.
    Bridge(FoundBridge),
    /// A port.
    Port(FoundPort),
    /// A device that is no port of the switch.
    Device(FoundDevice),
}

/// A bridge as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundBridge {
    /// Made through the agent.
    pub ours: bool,
    /// What forwards its packets.
    pub datapath: String,
    /// What it does without flows.
    pub fail_mode: String,
    /// Of the host's own device on it.
    pub mtu: Option<u32>,
    /// Whether that device is up.
    pub up: bool,
    /// The host's addresses on it.
    pub addresses: Vec<String>,
    /// Its ports, but for its own and those of containers.
    pub ports: Vec<String>,
    /// Ports of containers and machines.
    pub machines: Vec<String>,
}

/// A port as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundPort {
    /// Attached through the agent.
    pub ours: bool,
    /// The bridge that it is on, which may be another than wanted.
    pub bridge: String,
    /// `internal`, `system`, or another of the switch's kinds.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its VLAN.
    pub tag: Option<u64>,
    /// VLANs that it carries tagged.
    pub trunks: Vec<u64>,
    /// What the switch minds.
    pub error: Option<String>,
    /// Whether the host may be reached by it: its bridge has addresses of the host, and it is no machine's.
    #[serde(skip)]
    pub leads_here: bool,
}

/// A device that could become a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundDevice {
    /// The host's addresses on it, that would be lost.
    pub addresses: Vec<String>,
}

/// Bridges and ports.
#[derive(Debug, Clone, Copy)]
pub struct Net;

/// Addresses of the link alone come and go with it.
fn is_of_the_link(address: &blockhost_netlink::Address) -> bool {
    match address.address {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn addresses(host: &mut dyn Host, link: Option<&Link>) -> Result<Vec<String>, HostError> {
    let Some(link) = link else {
        return Ok(Vec::new());
    };
    let mut list: Vec<String> = host
        .addresses(link.index)?
        .iter()
        .filter(|address| !is_of_the_link(address))
        .map(|address| format!("{}/{}", address.address, address.length))
        .collect();
    list.sort();
    Ok(list)
}

fn named<'a>(links: &'a [Link], name: &str) -> Option<&'a Link> {
    links
        .iter()
        .find(|link| link.name == name || link.alternative.iter().any(|other| other == name))
}

impl Kind for Net {
    const NAME: &'static str = "net";
    const HANDOVER: &'static str =
        "delete it with the tool that made it, or leave it out of the document";
    const DELETED_LAST: bool = true;
    type Wanted = Wanted;
    type Found = Found;

    fn read(&self, section: Fields<'_>) -> Result<BTreeMap<String, Wanted>, Wrong> {
        section::read(section)
    }

    fn show(&self, wanted: &Wanted) -> Value {
        section::show(wanted)
    }

    fn revive(&self, _id: &str, shown: &Value) -> Option<Wanted> {
        section::revive(shown)
    }

    fn look(
        &self,
        host: &mut dyn Host,
        scope: Scope<'_>,
    ) -> Result<BTreeMap<String, Found>, HostError> {
        let everything = OvsList {
            bridge: None,
            flows: false,
            owner: None,
        };
        let list = read(host, everything)?;
        let links = host.links()?;
        let mut found = BTreeMap::new();
        let mut by_port = BTreeMap::new();
        for bridge in list["bridges"].as_array().into_iter().flatten() {
            let text = |key: &str| bridge[key].as_str().unwrap_or_default().to_owned();
            let name = text("name");
            let device = named(&links, &name);
            let own = addresses(host, device)?;
            let (mut ports, mut machines) = (Vec::new(), Vec::new());
            for port in bridge["ports"].as_array().into_iter().flatten() {
                let Some(port_name) = port["name"].as_str().filter(|port| *port != name) else {
                    continue;
                };
                let mut about = found_port(&name, port);
                if owner_of(port_name).is_none() && port["vmid"].is_null() {
                    about.leads_here = !own.is_empty();
                    ports.push(port_name.to_owned());
                } else {
                    machines.push(port_name.to_owned());
                }
                by_port.insert(port_name.to_owned(), about);
            }
            if matches!(scope, Scope::Everything) {
                for port in &ports {
                    if let Some(there) = by_port.get(port) {
                        found.insert(format!("{name}/{port}"), Found::Port(there.clone()));
                    }
                }
            }
            if scope.holds(&name) {
                let about = FoundBridge {
                    ours: bridge["ours"] == true,
                    datapath: text("datapath_type"),
                    fail_mode: text("fail_mode"),
                    mtu: device.map(|link| link.mtu),
                    up: device.is_some_and(|link| link.up),
                    addresses: own,
                    ports,
                    machines,
                };
                found.insert(name, Found::Bridge(about));
            }
        }
        if let Scope::These(ids) = scope {
            for id in ids {
                // A port is looked for wherever it is: on another bridge it is in the way.
                let Some((_, port)) = id.split_once('/') else {
                    continue;
                };
                if let Some(there) = by_port.get(port) {
                    found.insert(id.clone(), Found::Port(there.clone()));
                } else if let Some(link) = named(&links, port) {
                    let about = FoundDevice {
                        addresses: addresses(host, Some(link))?,
                    };
                    found.insert(id.clone(), Found::Device(about));
                }
            }
        }
        Ok(found)
    }

    fn plan(
        &self,
        _id: &str,
        wanted: &Wanted,
        found: Option<&Found>,
        _before: Option<&Entry>,
    ) -> Planned {
        match wanted {
            Wanted::Bridge(bridge) => plan::bridge(bridge, found),
            Wanted::Port(port) => plan::port(port, found),
        }
    }

    fn plan_delete(&self, id: &str, found: &Found, _before: &Entry) -> Planned {
        plan::delete(id, found)
    }

    fn needs(&self, _id: &str, wanted: &Wanted) -> Vec<ResourceRef> {
        match wanted {
            Wanted::Bridge(_) => Vec::new(),
            Wanted::Port(port) => vec![ResourceRef::new("net", port.bridge.as_str())],
        }
    }

    fn is_there(&self, found: &Found) -> bool {
        !matches!(found, Found::Device(_))
    }

    fn in_use(&self, found: &Found) -> Option<String> {
        let Found::Bridge(bridge) = found else {
            return None;
        };
        let left: Vec<&str> = bridge
            .ports
            .iter()
            .chain(&bridge.machines)
            .map(String::as_str)
            .collect();
        (!left.is_empty()).then(|| format!("it still carries {}", left.join(", ")))
    }

    fn complaints(&self, _wanted: &Wanted, found: &Found) -> Vec<String> {
        match found {
            Found::Port(FoundPort {
                error: Some(error), ..
            }) => vec![format!("the switch cannot use it: {error}")],
            _ => Vec::new(),
        }
    }
}

fn found_port(bridge: &str, port: &Value) -> FoundPort {
    let error = port["error"].as_str().filter(|text| !text.is_empty());
    FoundPort {
        ours: port["ours"] == true,
        bridge: bridge.to_owned(),
        kind: port["type"].as_str().unwrap_or("system").to_owned(),
        tag: port["tag"].as_u64(),
        trunks: port["trunks"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect(),
        error: error.map(str::to_owned),
        leads_here: false,
    }
}
