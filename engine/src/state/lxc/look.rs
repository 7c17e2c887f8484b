//! What there is of containers: the manager's list and configuration, the host's devices, the switch's ports, put together.

use std::collections::{BTreeMap, BTreeSet};

use blockhost_netlink::Link;
use blockhost_proto::action::{OvsList, PctConfig, PctList};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::Vmid;
use serde_json::Value;

use super::{
    Found, FoundBridge, FoundInterface, FoundPort, is_marked, managed_name, promised_name,
};
use crate::state::host::{Host, HostError, read};
use crate::state::kind::Scope;

/// Looks.
pub(super) fn look(
    host: &mut dyn Host,
    scope: Scope<'_>,
) -> Result<BTreeMap<String, Found>, HostError> {
    let list = read(host, PctList {})?;
    let mut containers = BTreeMap::new();
    for row in list.as_array().into_iter().flatten() {
        let Some(vmid) = row["vmid"]
            .as_u64()
            .and_then(|vmid| Vmid::try_from(vmid).ok())
            .filter(|vmid| scope.holds(&vmid.to_string()))
        else {
            continue;
        };
        let config = match read(host, PctConfig { vmid }) {
            Ok(config) => config,
            // Gone between the list and the look.
            Err(error) if error.code() == Some(ErrorCode::NotFound) => continue,
            Err(error) => return Err(error),
        };
        let status = row["status"].as_str().unwrap_or("unknown").to_owned();
        containers.insert(vmid, (status, config));
    }
    if containers.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut links = Links::of(host.links()?);
    // The list waits for a container that is being started; devices that were looked at before are not there yet.
    let lacks = |vmid: &Vmid, config: &Value| {
        nets(config).any(|(index, _)| {
            let names = [promised_name(*vmid, index), managed_name(*vmid, index)];
            names.iter().all(|name| links.find(name).is_none())
        })
    };
    let late = containers
        .iter()
        .any(|(vmid, (status, config))| status == "running" && lacks(vmid, config));
    if late {
        links = Links::of(host.links_now()?);
    }
    let all = containers.values().flat_map(|(_, config)| nets(config));
    let bridges: BTreeSet<String> = all.filter_map(|(_, net)| bridge_of(net)).collect();
    let switch = if bridges.iter().any(|bridge| !links.is_plain_bridge(bridge)) {
        Ports::read(host)?
    } else {
        Ports::default()
    };
    let mut of_bridges = BTreeMap::new();
    for bridge in bridges {
        let addresses = match links.find(&bridge) {
            Some(link) => host.addresses(link.index)?,
            None => Vec::new(),
        };
        let about = FoundBridge {
            on_switch: switch.bridges.contains(&bridge),
            addresses: addresses
                .iter()
                .map(|a| format!("{}/{}", a.address, a.length))
                .collect(),
            forwards: links.find(&bridge).is_some_and(|link| link.forwards),
        };
        of_bridges.insert(bridge, about);
    }
    let forwards_v6 = host.forwards_v6();
    let narrowest = links.narrowest();
    Ok(containers
        .into_iter()
        .map(|(vmid, (status, config))| {
            let found = Found {
                status,
                ours: is_marked(&config),
                options: options(&config),
                interfaces: nets(&config)
                    .map(|(index, net)| (index, interface(vmid, index, net, &links, &switch)))
                    .collect(),
                bridges: nets(&config)
                    .filter_map(|(_, net)| bridge_of(net))
                    .filter_map(|name| Some((name.clone(), of_bridges.get(&name)?.clone())))
                    .collect(),
                forwards_v6,
                narrowest: narrowest.clone(),
            };
            (vmid.to_string(), found)
        })
        .collect())
}

fn nets(config: &Value) -> impl Iterator<Item = (u8, &str)> {
    let map = config.as_object().into_iter().flatten();
    map.filter_map(|(key, value)| {
        let index: u8 = key.strip_prefix("net")?.parse().ok()?;
        Some((index, value.as_str()?))
    })
}

fn options(config: &Value) -> BTreeMap<String, String> {
    let map = config.as_object().into_iter().flatten();
    map.filter(|(key, _)| {
        let is_net = key
            .strip_prefix("net")
            .is_some_and(|rest| rest.parse::<u8>().is_ok());
        // A digest changes by itself; tags are looked at for our mark.
        !is_net && !["digest", "tags"].contains(&key.as_str())
    })
    .map(|(key, value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        (key.clone(), text)
    })
    .collect()
}

fn bridge_of(net: &str) -> Option<String> {
    let parts = net.split(',');
    let mut bridges = parts.filter_map(|part| part.strip_prefix("bridge="));
    bridges.next().map(str::to_owned)
}

fn interface(vmid: Vmid, index: u8, net: &str, links: &Links, switch: &Ports) -> FoundInterface {
    let promised = promised_name(vmid, index);
    let managed = managed_name(vmid, index);
    let by_promise = links.find(&promised);
    let host_end = links.find(&managed).or(by_promise);
    // With the manager's firewall the switch sees the outer end of a pair of its own.
    let outer = format!("fwln{vmid}o{index}");
    let mut names = vec![promised.as_str(), managed.as_str(), outer.as_str()];
    names.extend(host_end.map(|link| link.name.as_str()));
    let port = names.iter().find_map(|name| switch.ports.get(*name));
    FoundInterface {
        net: net.to_owned(),
        host_end: host_end.map(|link| link.name.clone()),
        mtu: host_end.map(|link| link.mtu),
        named: by_promise.is_some(),
        port: port.cloned(),
    }
}

/// The host's devices by all their names.
struct Links {
    links: Vec<Link>,
    by_name: BTreeMap<String, usize>,
}

impl Links {
    fn of(links: Vec<Link>) -> Self {
        let mut by_name = BTreeMap::new();
        for (at, link) in links.iter().enumerate() {
            by_name.insert(link.name.clone(), at);
            for name in &link.alternative {
                by_name.insert(name.clone(), at);
            }
        }
        Self { links, by_name }
    }

    fn find(&self, name: &str) -> Option<&Link> {
        self.links.get(*self.by_name.get(name)?)
    }

    /// The tunnel with the smallest MTU of those that the host forwards from.
    fn narrowest(&self) -> Option<(String, u32)> {
        let tunnels = self.links.iter().filter(|link| {
            link.forwards && link.alias.as_deref() == Some(crate::state::wireguard::ALIAS)
        });
        let narrowest = tunnels.min_by_key(|link| link.mtu)?;
        Some((narrowest.name.clone(), narrowest.mtu))
    }

    fn is_plain_bridge(&self, name: &str) -> bool {
        self.find(name)
            .is_some_and(|link| link.kind.as_deref() == Some("bridge"))
    }
}

/// The switch's bridges and ports.
#[derive(Default)]
struct Ports {
    bridges: BTreeSet<String>,
    ports: BTreeMap<String, FoundPort>,
}

impl Ports {
    fn read(host: &mut dyn Host) -> Result<Self, HostError> {
        let everything = OvsList {
            bridge: None,
            flows: false,
            owner: None,
        };
        let list = read(host, everything)?;
        let mut this = Self::default();
        for bridge in list["bridges"].as_array().into_iter().flatten() {
            let Some(name) = bridge["name"].as_str() else {
                continue;
            };
            this.bridges.insert(name.to_owned());
            for port in bridge["ports"].as_array().into_iter().flatten() {
                if let Some(port) = found_port(name, port) {
                    this.ports.insert(port.name.clone(), port);
                }
            }
        }
        Ok(this)
    }
}

fn found_port(bridge: &str, port: &Value) -> Option<FoundPort> {
    let error = port["error"].as_str().filter(|text| !text.is_empty());
    Some(FoundPort {
        name: port["name"].as_str()?.to_owned(),
        bridge: bridge.to_owned(),
        ours: port["ours"] == true,
        tag: port["tag"].as_u64().and_then(|tag| u16::try_from(tag).ok()),
        attached_mac: port["attached_mac"].as_str().map(str::to_uppercase),
        works: error.is_none() && port["ofport"].as_i64().is_some_and(|number| number > 0),
        link_up: port["link"] == "up",
        error: error.map(str::to_owned),
        heard: port["counters"]["rx_packets"]
            .as_u64()
            .is_some_and(|n| n > 0),
    })
}
