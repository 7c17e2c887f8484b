//! Which containers get a wire, with which addresses, and which wires and ports go. Pure: from the declared networks, what the
//! manager says and what the host has, to actions of the catalog. What nothing is known about stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use blockhost_proto::action::{ContainerAttach, ContainerDetach, OvsAddPort, OvsDelPort};
use blockhost_proto::escape;
use blockhost_proto::qm::MacAddress;
use blockhost_proto::value::{
    ContainerId, DeviceAddresses, InterfaceAddress, NamespaceInode, Param as _, Pid, PortKind,
    RouteNet, SwitchIfName,
};
use serde_json::Value;

use crate::config::ContainerNetwork;
use crate::network::names;
use crate::network::observe::{Link, Switch};

/// Beginning of the names of the wires' ends on the host.
pub const PREFIX: &str = "bhc";
/// What the agent writes beside them, before the container's id.
const OWNER: &str = "blockhost:container:";
/// Addresses that are tried in a network before it counts as full.
const TRIES: u128 = 1 << 16;

/// A container with a label of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: ContainerId,
    /// What people call it.
    pub name: String,
    /// The network that its label names.
    pub network: String,
    /// The addresses that its label asks for.
    pub addresses: Option<String>,
    /// What it does.
    pub state: State,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running {
        /// Its first process.
        pid: Pid,
        /// The network namespace of that process.
        netns: NamespaceInode,
    },
    /// It does not, or not any more.
    Stopped,
    /// It runs where no wire can lead.
    Unsuitable(String),
    /// Nobody could say; what there is of it stays.
    Unknown(String),
}

/// What becomes of a container.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// It has what it should have.
    Attached,
    /// It gets it.
    Attach(Box<Work>),
    /// It gets nothing, and loses what it has.
    Not(String),
    /// Nothing is done.
    Kept(String),
}

/// How a container gets a wire and a port.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// A port of that name that is not right goes first.
    pub before: Option<OvsDelPort>,
    /// The wire; `None` where it is right already.
    pub wire: Option<ContainerAttach>,
    /// The port.
    pub port: OvsAddPort,
}

/// A container and its fate.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The container.
    pub candidate: Candidate,
    /// The end on the host.
    pub port: SwitchIfName,
    /// Addresses inside, where it has or gets some.
    pub addresses: Vec<InterfaceAddress>,
    /// Its fate.
    pub fate: Fate,
}

/// What is there and should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Takes the port from the switch.
    pub port: Option<OvsDelPort>,
    /// Takes the wire away.
    pub wire: Option<ContainerDetach>,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Containers, by id.
    pub rows: Vec<Row>,
    /// What goes.
    pub removals: Vec<Removal>,
}

/// A wire of a container as the host shows it.
struct Wire<'a> {
    link: &'a Link,
    id: ContainerId,
    addresses: Vec<InterfaceAddress>,
}

/// Plans.
#[must_use]
pub fn plan(
    networks: &BTreeMap<String, ContainerNetwork>,
    candidates: &[Candidate],
    links: &[Link],
    switch: Option<&Switch>,
) -> Plan {
    let wires: Vec<Wire<'_>> = links.iter().filter_map(wire).collect();
    let mut order: Vec<&Candidate> = candidates.iter().collect();
    let of = |candidate: &Candidate| wires.iter().find(|wire| wire.id == candidate.id);
    // Who has addresses keeps them, who asks for some comes before those who take what is free.
    order.sort_by_key(|candidate| {
        let has = of(candidate).is_some();
        (!has, candidate.addresses.is_none(), candidate.id.clone())
    });
    let mut taken: BTreeMap<String, BTreeSet<IpAddr>> = networks
        .iter()
        .map(|(name, network)| (name.clone(), not_for_containers(network, links)))
        .collect();
    let mut rows: Vec<Row> = order
        .into_iter()
        .filter_map(|candidate| {
            let port = port_of(&candidate.id)?;
            let mut row = Row {
                candidate: candidate.clone(),
                port,
                addresses: Vec::new(),
                fate: Fate::Attached,
            };
            row.fate = fate(&mut row, networks, of(candidate), &mut taken, switch);
            Some(row)
        })
        .collect();
    rows.sort_by(|a, b| a.candidate.id.cmp(&b.candidate.id));
    let stays = |id: &ContainerId| {
        rows.iter()
            .any(|row| row.candidate.id == *id && !matches!(row.fate, Fate::Not(_)))
    };
    let removals = removals(&wires, switch, stays);
    Plan { rows, removals }
}

/// What no container gets: its routers' addresses, and those of the host itself, on whatever device.
fn not_for_containers(network: &ContainerNetwork, links: &[Link]) -> BTreeSet<IpAddr> {
    let routers = [network.gateway4, network.gateway6].into_iter().flatten();
    let own = links.iter().flat_map(|link| &link.addresses);
    let own = own.filter_map(|text| text.split('/').next()?.parse().ok());
    routers.map(|hop| hop.address()).chain(own).collect()
}

/// The name of the end on the host: it is the same in every life of the container.
fn port_of(id: &ContainerId) -> Option<SwitchIfName> {
    let name = names::derived(PREFIX, &[id.as_str()]).ok()?;
    name.as_str().parse().ok()
}

/// The hardware address inside is the same in every life, too: neighbours remember it for longer than a restart takes.
fn mac_of(id: &ContainerId) -> Option<MacAddress> {
    let byte = |at: usize| u8::from_str_radix(id.as_str().get(at..at + 2)?, 16).ok();
    // Locally administered, one device's.
    MacAddress::new([2, byte(0)?, byte(2)?, byte(4)?, byte(6)?, byte(8)?])
}

fn wire(link: &Link) -> Option<Wire<'_>> {
    let mut words = link.alias.as_deref()?.split(' ');
    let id = words.next()?.strip_prefix(OWNER)?.parse().ok()?;
    let _namespace = words.next();
    Some(Wire {
        link,
        id,
        addresses: words.filter_map(|word| word.parse().ok()).collect(),
    })
}

fn fate(
    row: &mut Row,
    networks: &BTreeMap<String, ContainerNetwork>,
    wire: Option<&Wire<'_>>,
    taken: &mut BTreeMap<String, BTreeSet<IpAddr>>,
    switch: Option<&Switch>,
) -> Fate {
    let candidate = &row.candidate;
    let (pid, netns) = match &candidate.state {
        State::Running { pid, netns } => (*pid, *netns),
        State::Stopped => return Fate::Not("it does not run".to_owned()),
        State::Unsuitable(why) => return Fate::Not(why.clone()),
        State::Unknown(why) => {
            // Its addresses are not for others meanwhile.
            if let Some(wire) = wire {
                row.addresses.clone_from(&wire.addresses);
                let used = taken.entry(candidate.network.clone()).or_default();
                used.extend(wire.addresses.iter().map(|address| address.address()));
            }
            return Fate::Kept(why.clone());
        }
    };
    let Some(network) = networks.get(&candidate.network) else {
        return Fate::Not(format!(
            "its network {} is not in network.yaml",
            escape::shown_up_to(&candidate.network, 64)
        ));
    };
    let bridge = match switch {
        None => return Fate::Kept("the switch does not answer".to_owned()),
        Some(switch) => switch.bridge(network.bridge.as_str()),
    };
    if bridge.is_none() {
        return Fate::Not(format!("there is no bridge {}", network.bridge));
    }
    let used = taken.entry(candidate.network.clone()).or_default();
    let has = wire.map_or(&[][..], |wire| &wire.addresses);
    let addresses = match addresses(candidate, network, has, used) {
        Ok(addresses) => addresses,
        Err(why) => return Fate::Not(why),
    };
    used.extend(addresses.iter().map(|address| address.address()));
    row.addresses.clone_from(&addresses);
    let Some(wanted) = listed(&addresses) else {
        return Fate::Not("its addresses make no list".to_owned());
    };
    let attach = ContainerAttach {
        container: candidate.id.clone(),
        pid,
        netns,
        port: row.port.clone(),
        interface: network.interface.clone(),
        mac: mac_of(&candidate.id),
        mtu: network.mtu,
        addresses: wanted,
        gateway4: network.gateway4,
        gateway6: network.gateway6,
    };
    let right_wire = wire.is_some_and(|wire| {
        wire.link.name == row.port.as_str()
            && wire.link.up
            && network
                .mtu
                .is_none_or(|mtu| u32::from(mtu.get()) == wire.link.mtu)
            && wire.link.alias.as_deref() == Some(beside(&attach).as_str())
    });
    let there = switch.and_then(|switch| switch.port(row.port.as_str()));
    let right_port = there.is_some_and(|(bridge, port)| {
        bridge.name == network.bridge.as_str()
            && port.ours
            && port.error.is_none()
            && port.tag == network.tag.map(|tag| i64::from(tag.get()))
            && port.iface_id.as_deref() == Some(candidate.id.as_str())
    });
    if right_wire && right_port {
        return Fate::Attached;
    }
    let before = there.and_then(|(bridge, _)| {
        Some(OvsDelPort {
            bridge: bridge.name.parse().ok()?,
            port: row.port.clone(),
        })
    });
    let Ok(iface_id) = candidate.id.as_str().parse() else {
        return Fate::Not("its id is no name for a port".to_owned());
    };
    Fate::Attach(Box::new(Work {
        before,
        wire: (!right_wire).then_some(attach),
        port: OvsAddPort {
            bridge: network.bridge.clone(),
            port: row.port.clone(),
            tag: network.tag,
            trunks: None,
            vmid: None,
            kind: PortKind::System,
            attached_mac: mac_of(&candidate.id),
            iface_id: Some(iface_id),
        },
    }))
}

/// What the agent writes beside a wire like that.
fn beside(attach: &ContainerAttach) -> String {
    let addresses = attach.addresses.iter().map(|address| format!(" {address}"));
    let addresses: String = addresses.collect();
    format!("{OWNER}{} {}{addresses}", attach.container, attach.netns)
}

fn listed(addresses: &[InterfaceAddress]) -> Option<DeviceAddresses> {
    let texts: Vec<Value> = addresses.iter().map(|a| a.to_string().into()).collect();
    DeviceAddresses::from_json(&Value::Array(texts)).ok()
}

/// One address for each family that the network has.
fn addresses(
    candidate: &Candidate,
    network: &ContainerNetwork,
    has: &[InterfaceAddress],
    used: &BTreeSet<IpAddr>,
) -> Result<Vec<InterfaceAddress>, String> {
    let mut asked: Vec<IpAddr> = Vec::new();
    for word in candidate.addresses.iter().flat_map(|text| text.split(',')) {
        let address: IpAddr = word.trim().parse().map_err(|_| {
            format!(
                "its label asks for {}, which is no address",
                escape::shown_up_to(word, 64)
            )
        })?;
        asked.push(address);
    }
    let mut chosen = Vec::new();
    for net in [network.ipv4, network.ipv6].into_iter().flatten() {
        let at = asked.iter().position(|address| net.contains(*address));
        let address = if let Some(at) = at {
            let address = asked.remove(at);
            if used.contains(&address) {
                return Err(format!("its label asks for {address}, which is taken"));
            }
            address
        } else if let Some(own) = has
            .iter()
            .map(|own| own.address())
            .find(|own| net.contains(*own) && !used.contains(own))
        {
            own
        } else {
            free(&candidate.id, net, used).ok_or_else(|| format!("{net} has no free address"))?
        };
        let text = format!("{address}/{}", net.length());
        let address = text
            .parse()
            .map_err(|_| format!("{text} is no address for an interface"))?;
        if !is_host(net, address) {
            return Err(format!("{text} is not an address of a host"));
        }
        chosen.push(address);
    }
    match asked.first() {
        Some(left) => Err(format!(
            "its label asks for {left}, which is in no network of {}",
            escape::shown_up_to(&candidate.network, 64)
        )),
        None => Ok(chosen),
    }
}

/// Neither the network's own address nor, for IPv4, that of all.
fn is_host(net: RouteNet, address: InterfaceAddress) -> bool {
    let (bits, size) = match address.address() {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 1_u128 << (32 - net.length())),
        IpAddr::V6(v6) => (v6.to_bits(), 1_u128 << (128 - net.length())),
    };
    let offset = bits % size;
    offset != 0 && (net.address().is_ipv6() || offset != size - 1)
}

/// The first free address from a place on that the container's id says: the same container finds the same one again.
fn free(id: &ContainerId, net: RouteNet, used: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let start = id.as_str().get(..16)?;
    let start = u128::from(u64::from_str_radix(start, 16).ok()?);
    let (base, hosts) = match net.address() {
        // Without the network's own address and that of all.
        IpAddr::V4(v4) => (
            u128::from(v4.to_bits()),
            (1_u128 << (32 - net.length())) - 2,
        ),
        IpAddr::V6(v6) => (v6.to_bits(), (1_u128 << (128 - net.length())) - 1),
    };
    let at = |offset: u128| {
        let bits = base + 1 + offset;
        match net.address() {
            IpAddr::V4(_) => u32::try_from(bits).map_or(Ipv4Addr::UNSPECIFIED.into(), |bits| {
                IpAddr::V4(Ipv4Addr::from_bits(bits))
            }),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    };
    (0..hosts.min(TRIES))
        .map(|step| at((start % hosts + step) % hosts))
        .find(|address| !used.contains(address))
}

fn removals(
    wires: &[Wire<'_>],
    switch: Option<&Switch>,
    stays: impl Fn(&ContainerId) -> bool,
) -> Vec<Removal> {
    let mut list = Vec::new();
    let ports = || {
        let bridges = switch.into_iter().flat_map(|switch| &switch.bridges);
        bridges.flat_map(|bridge| bridge.ports.iter().map(move |port| (bridge, port)))
    };
    let on_switch = |name: &str| {
        let (bridge, _) = ports().find(|(_, port)| port.name.as_deref() == Some(name))?;
        Some(OvsDelPort {
            bridge: bridge.name.parse().ok()?,
            port: name.parse().ok()?,
        })
    };
    for wire in wires {
        let name = wire.link.name.as_str();
        let right = port_of(&wire.id).is_some_and(|port| port.as_str() == name);
        if right && stays(&wire.id) {
            continue;
        }
        let Ok(port) = name.parse() else { continue };
        list.push(Removal {
            port: on_switch(name),
            wire: Some(ContainerDetach {
                container: wire.id.clone(),
                port,
            }),
        });
    }
    // Ports whose wire went with its container.
    for (bridge, port) in ports().filter(|(_, port)| port.ours) {
        let Some(name) = port.name.as_deref().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        let id = port.iface_id.as_deref().and_then(|id| id.parse().ok());
        let Some(id): Option<ContainerId> = id else {
            continue;
        };
        let known = wires.iter().any(|wire| wire.link.name == name);
        if known || stays(&id) {
            continue;
        }
        if let (Ok(bridge), Ok(port)) = (bridge.name.parse(), name.parse()) {
            list.push(Removal {
                port: Some(OvsDelPort { bridge, port }),
                wire: None,
            });
        }
    }
    list
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
