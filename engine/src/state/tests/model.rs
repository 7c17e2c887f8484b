//! A model of the agent and of what it acts upon, for tests of plans and of their execution: what each action does and
//! refuses, as the catalog and the agent's own tests say. That it is like the real one is shown by the end-to-end tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blockhost_netlink::route::{MAIN_TABLE, PROTOCOL};
use blockhost_netlink::survey::Hop;
use blockhost_netlink::{Address, Link, Route};
use blockhost_proto::action::Action;
use blockhost_proto::client::{CallError, Reply};
use blockhost_proto::flow::FlowSet;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::Param;
use serde_json::{Map, Value, json};

use crate::network::confirm::{self, ChangeError};
use crate::state::change::Careful;
use crate::state::host::{Host, HostError};

/// What goes wrong, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The action fails and does nothing.
    Fails,
    /// The connection breaks before it is done.
    LostBefore,
    /// The connection breaks after it was done.
    LostAfter,
    /// Our own process is killed before it.
    KilledBefore,
    /// Our own process is killed after it.
    KilledAfter,
    /// The agent is gone from here on.
    Gone,
}

pub const FAULTS: [Fault; 6] = [
    Fault::Fails,
    Fault::LostBefore,
    Fault::LostAfter,
    Fault::KilledBefore,
    Fault::KilledAfter,
    Fault::Gone,
];

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Port {
    pub ours: bool,
    pub kind: String,
    pub tag: Option<u64>,
    pub trunks: Vec<u64>,
    pub vmid: Option<u64>,
    pub mac: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bridge {
    pub ours: bool,
    pub fail_mode: String,
    pub ports: BTreeMap<String, Port>,
    pub flows: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub config: BTreeMap<String, String>,
    pub running: bool,
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Things {
    pub containers: BTreeMap<u64, Container>,
    pub bridges: BTreeMap<String, Bridge>,
    pub devices: BTreeSet<String>,
    /// Managed name to promised name.
    pub altnames: BTreeMap<String, String>,
    pub tunnels: BTreeMap<String, Value>,
    pub pairs: BTreeSet<(String, String, String)>,
    pub addresses: BTreeMap<String, Vec<String>>,
    /// Devices that forward what comes in by them.
    pub forwarding: BTreeSet<String>,
    /// Networks and the devices that lead to them.
    pub routes: BTreeSet<(String, String)>,
    /// Addresses that are answered for, on which device.
    pub proxies: BTreeSet<(String, String)>,
    /// Networks that leave by a tunnel as the host's.
    pub masquerades: BTreeMap<String, Vec<String>>,
    pub no_ipv6: bool,
}

#[derive(Debug, Default)]
pub struct Model {
    pub things: Things,
    /// Mutating actions since the last look.
    pub done: Vec<String>,
    pub events: Vec<Value>,
    /// After how many more mutating actions something goes wrong.
    pub fault: Option<(usize, Fault)>,
    pub gone: bool,
    /// What was asked that changes nothing.
    pub looks: Vec<Action>,
    /// Containers' devices have the manager's names and need another.
    pub proxmox: bool,
    /// Changes of flows are watched over.
    pub watch_flows: bool,
    /// How many changes were watched over.
    pub watched: usize,
    /// Shared keys as the agent keeps them, by tunnel and peer; a start of the machine does not take them.
    kept: BTreeMap<(String, String), Value>,
}

type Answer = Result<Reply, CallError>;

fn refuse(code: ErrorCode, message: &str) -> CallError {
    CallError::Refused {
        code,
        message: message.to_owned(),
    }
}

fn lost() -> CallError {
    CallError::Protocol {
        what: "lost".to_owned(),
    }
}

fn said(value: Value) -> Answer {
    Ok(Reply {
        output: value.to_string(),
        receipt: None,
        extra: Map::new(),
    })
}

impl Model {
    pub fn take_done(&mut self) -> Vec<String> {
        std::mem::take(&mut self.done)
    }

    fn host_end(&self, vmid: u64, index: u64) -> String {
        if self.proxmox {
            format!("veth{vmid}i{index}")
        } else if index == 0 {
            format!("vi{vmid}")
        } else {
            format!("vi{vmid}_{index}")
        }
    }

    /// Devices of running containers.
    fn host_ends(&self) -> Vec<String> {
        let running = self.things.containers.iter().filter(|(_, c)| c.running);
        running
            .flat_map(|(vmid, container)| {
                let nets = container
                    .config
                    .keys()
                    .filter_map(|k| k.strip_prefix("net"));
                let indices = nets.filter_map(|n| n.parse::<u64>().ok());
                indices.map(|index| self.host_end(*vmid, index))
            })
            .collect()
    }

    fn names(&self) -> BTreeSet<String> {
        let mut names = self.things.devices.clone();
        names.extend(self.things.bridges.keys().cloned());
        names.extend(self.things.tunnels.keys().cloned());
        names.extend(self.host_ends());
        for bridge in self.things.bridges.values() {
            let internal = bridge
                .ports
                .iter()
                .filter(|(_, port)| port.kind == "internal");
            names.extend(internal.map(|(name, _)| name.clone()));
        }
        names
    }

    fn device_is_gone(&mut self, name: &str) {
        self.things.addresses.remove(name);
        self.things.forwarding.remove(name);
        self.things.routes.retain(|(_, device)| device != name);
    }

    fn look(&self, action: &Action) -> Option<Answer> {
        let params = action.params();
        let text = |key: &str| params[key].as_str().unwrap_or_default().to_owned();
        Some(match action.name() {
            "pct-list" => said(
                self.things
                    .containers
                    .iter()
                    .map(|(vmid, c)| {
                        let status = if c.running { "running" } else { "stopped" };
                        json!({"vmid": vmid, "name": c.config["hostname"], "status": status, "lock": null})
                    })
                    .collect(),
            ),
            "pct-config" => match self.things.containers.get(&number(&params, "vmid")) {
                Some(container) => said(json!(container.config)),
                None => Err(refuse(ErrorCode::NotFound, "there is no container")),
            },
            "ovs-list" => {
                let names = self.names();
                let bridges = self.things.bridges.iter();
                let wanted = bridges.filter(|(name, _)| {
                    params["bridge"].as_str().is_none_or(|only| only == name.as_str())
                });
                let list: Vec<Value> = wanted
                    .map(|(name, bridge)| show_bridge(name, bridge, &names))
                    .collect();
                if params["bridge"].is_string() && list.is_empty() {
                    return Some(Err(refuse(ErrorCode::NotFound, "there is no bridge")));
                }
                said(json!({ "bridges": list }))
            }
            "wg-show" => match self.things.tunnels.get(&text("name")) {
                Some(Value::Null) => Err(refuse(ErrorCode::Conflict, "not ours")),
                Some(tunnel) => said(show_tunnel(tunnel)),
                None => Err(refuse(ErrorCode::NotFound, "there is no tunnel")),
            },
            "nat-list" => said(
                self.things
                    .pairs
                    .iter()
                    .map(|(public, private, comment)| {
                        json!({"public": public, "private": private, "comment": comment, "whole": true})
                    })
                    .collect(),
            ),
            "masquerade-list" => {
                let all = self.things.masquerades.iter();
                said(
                    all.flat_map(|(dev, list)| list.iter().map(move |network| (dev, network)))
                        .map(|(dev, network)| json!({"dev": dev, "network": network, "whole": true}))
                        .collect(),
                )
            }
            _ => return None,
        })
    }

    fn act(&mut self, action: &Action) -> Answer {
        let params = action.params();
        let text = |key: &str| params[key].as_str().unwrap_or_default().to_owned();
        let vmid = number(&params, "vmid");
        let conflict = |what: &str| Err(refuse(ErrorCode::Conflict, what));
        let missing = |what: &str| Err(refuse(ErrorCode::NotFound, what));
        match action.name() {
            "pct-create" => {
                if self.things.containers.contains_key(&vmid) {
                    return conflict("it exists");
                }
                let mut config: BTreeMap<String, String> = params["options"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| (key.clone(), plain(value)))
                    .collect();
                let rootfs = config.remove("rootfs").expect("the catalog wants one");
                let (storage, size) = rootfs.split_once(':').expect("the catalog's form");
                config.insert(
                    "rootfs".into(),
                    format!("{storage}:{vmid}/disk.raw,size={size}G"),
                );
                config.insert("hostname".into(), text("hostname"));
                complete_nets(vmid, &mut config);
                let running = false;
                self.things
                    .containers
                    .insert(vmid, Container { config, running });
            }
            "pct-set" => {
                let Some(container) = self.things.containers.get_mut(&vmid) else {
                    return missing("there is no container");
                };
                for (key, value) in params["options"].as_object().into_iter().flatten() {
                    container.config.insert(key.clone(), plain(value));
                }
                complete_nets(vmid, &mut container.config);
            }
            "pct-start" | "pct-stop" | "pct-shutdown" => {
                let Some(container) = self.things.containers.get_mut(&vmid) else {
                    return missing("there is no container");
                };
                container.running = action.name() == "pct-start";
                if !container.running {
                    self.things
                        .altnames
                        .retain(|managed, _| !managed.starts_with(&format!("veth{vmid}i")));
                }
            }
            "pct-destroy" => match self.things.containers.get(&vmid) {
                None => return missing("there is no container"),
                Some(container) if container.running => return conflict("it runs"),
                Some(_) => {
                    self.things.containers.remove(&vmid);
                }
            },
            "veth-rename" => {
                let index = params["index"].as_u64().unwrap_or(0);
                let managed = self.host_end(vmid, index);
                if !self.host_ends().contains(&managed) {
                    return missing("there is no device");
                }
                let name = if index == 0 {
                    format!("vi{vmid}")
                } else {
                    format!("vi{vmid}_{index}")
                };
                if managed != name {
                    self.things.altnames.insert(managed, name);
                }
            }
            "ovs-add-br" => {
                let name = text("bridge");
                let mode = params["options"]["fail_mode"].as_str().map(str::to_owned);
                if self.things.devices.contains(&name) {
                    return conflict("the name is taken");
                }
                match self.things.bridges.get_mut(&name) {
                    Some(bridge) if !bridge.ours => return conflict("not ours"),
                    Some(bridge) => bridge.fail_mode = mode.unwrap_or(bridge.fail_mode.clone()),
                    None => {
                        let bridge = Bridge {
                            ours: true,
                            fail_mode: mode.unwrap_or_else(|| "standalone".into()),
                            ..Bridge::default()
                        };
                        self.things.bridges.insert(name, bridge);
                    }
                }
            }
            "ovs-del-br" => match self.things.bridges.get(&text("bridge")) {
                None => return missing("there is no bridge"),
                Some(bridge) if !bridge.ours => {
                    return Err(refuse(ErrorCode::Forbidden, "not ours"));
                }
                Some(_) => {
                    self.things.bridges.remove(&text("bridge"));
                    self.device_is_gone(&text("bridge"));
                }
            },
            "ovs-add-port" => {
                let (name, on) = (text("port"), text("bridge"));
                let internal = params["kind"] == "internal";
                if !internal && !self.names().contains(&name) {
                    return Err(refuse(ErrorCode::Failed, "no such device"));
                }
                for (other, bridge) in &self.things.bridges {
                    if bridge
                        .ports
                        .get(&name)
                        .is_some_and(|port| *other != on || !port.ours)
                    {
                        return conflict("the port is taken");
                    }
                }
                let Some(bridge) = self.things.bridges.get_mut(&on) else {
                    return missing("there is no bridge");
                };
                let port = Port {
                    ours: true,
                    kind: if internal { "internal" } else { "system" }.into(),
                    tag: params["tag"].as_u64(),
                    trunks: params["trunks"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_u64)
                        .collect(),
                    vmid: params["vmid"].as_u64(),
                    mac: params["attached_mac"].as_str().map(str::to_lowercase),
                };
                bridge.ports.insert(name, port);
            }
            "ovs-del-port" => {
                let Some(bridge) = self.things.bridges.get_mut(&text("bridge")) else {
                    return missing("there is no bridge");
                };
                match bridge.ports.get(&text("port")) {
                    None => return missing("there is no port"),
                    Some(port) if !port.ours => {
                        return Err(refuse(ErrorCode::Forbidden, "not ours"));
                    }
                    Some(_) => {
                        bridge.ports.remove(&text("port"));
                    }
                }
            }
            "ovs-set-flows" => {
                let (names, on) = (self.names(), text("bridge"));
                let Some(bridge) = self.things.bridges.get_mut(&on) else {
                    return missing("there is no bridge");
                };
                let flows = FlowSet::from_json(&params["flows"]).expect("the catalog's form");
                let lost = |port: &&blockhost_proto::value::SwitchIfName| {
                    let name = port.as_str();
                    let known = name == on || bridge.ports.contains_key(name);
                    !known || !names.contains(name)
                };
                if let Some(port) = flows.port_names().into_iter().find(lost) {
                    let what = format!("the bridge has no port {port} that works");
                    return Err(refuse(ErrorCode::Failed, &what));
                }
                if params["flows"].as_array().is_some_and(Vec::is_empty) {
                    bridge.flows.remove(&text("owner"));
                } else {
                    bridge.flows.insert(text("owner"), params["flows"].clone());
                }
            }
            "wg-setup" => {
                if self.things.tunnels.get(&text("name")) == Some(&Value::Null) {
                    return conflict("not ours");
                }
                let tunnel = self
                    .things
                    .tunnels
                    .entry(text("name"))
                    .or_insert_with(|| json!({"peers": []}));
                tunnel["addresses"] = params["addresses"].clone();
                if let Some(port) = params["listen_port"].as_u64() {
                    tunnel["listen_port"] = port.into();
                }
                tunnel["mtu"] = params["mtu"].as_u64().unwrap_or(1420).into();
            }
            "wg-set-peers" => match self.things.tunnels.get_mut(&text("name")) {
                Some(tunnel) if !tunnel.is_null() => {
                    let mut peers = params["peers"].clone();
                    for peer in peers.as_array_mut().into_iter().flatten() {
                        let place = (text("name"), plain(&peer["public_key"]));
                        match peer["preshared"].as_str() {
                            Some("kept") => match self.kept.get(&place) {
                                Some(key) => peer["preshared"] = key.clone(),
                                None => return missing("no shared key is kept"),
                            },
                            Some(_) => {
                                self.kept.insert(place, peer["preshared"].clone());
                            }
                            None => {
                                self.kept.remove(&place);
                            }
                        }
                    }
                    tunnel["peers"] = peers;
                }
                _ => return missing("there is no tunnel"),
            },
            "wg-teardown" => {
                if self.things.tunnels.remove(&text("name")).is_none() {
                    return missing("there is no tunnel");
                }
                self.device_is_gone(&text("name"));
                self.kept.retain(|(tunnel, _), _| *tunnel != text("name"));
            }
            "nat-map" => {
                let pair = (text("public"), text("private"), text("comment"));
                let taken = |other: &&(String, String, String)| {
                    **other != pair && (other.0 == pair.0 || other.1 == pair.1)
                };
                if self.things.pairs.iter().any(|other| taken(&other)) {
                    return conflict("an address of it is mapped already");
                }
                self.things.pairs.insert(pair);
            }
            "nat-unmap" => {
                let pair = (text("public"), text("private"), text("comment"));
                if !self.things.pairs.remove(&pair) {
                    return missing("there is no such pair");
                }
            }
            "link-set" => {
                if !self.names().contains(&text("dev")) {
                    return missing("there is no device");
                }
                if let Some(list) = params["addresses"].as_array() {
                    let list: Vec<String> = list.iter().map(plain).collect();
                    self.things.addresses.insert(text("dev"), list);
                }
                match params["forward"].as_bool() {
                    Some(true) => {
                        self.things.forwarding.insert(text("dev"));
                    }
                    Some(false) => {
                        self.things.forwarding.remove(&text("dev"));
                    }
                    None => {}
                }
            }
            "proxy-set" => {
                let known = self.names();
                if !known.contains(&text("dev")) || !known.contains(&text("behind")) {
                    return missing("there is no device");
                }
                self.things.proxies.insert((text("address"), text("dev")));
            }
            "proxy-del" => {
                let proxy = (text("address"), text("dev"));
                if !self.things.proxies.remove(&proxy) {
                    return missing("it is not answered for");
                }
            }
            "sysctl-set" => self.things.no_ipv6 = params["on"] == false,
            "masquerade-set" => {
                let list: Vec<String> = params["networks"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(plain)
                    .collect();
                if list.is_empty() {
                    self.things.masquerades.remove(&text("dev"));
                } else if !self.things.tunnels.contains_key(&text("dev")) {
                    return missing("there is no tunnel");
                } else {
                    self.things.masquerades.insert(text("dev"), list);
                }
            }
            "route-set" => {
                if !self.names().contains(&text("dev")) {
                    return missing("there is no device");
                }
                let dest = text("dest");
                self.things.routes.retain(|(other, _)| *other != dest);
                self.things.routes.insert((dest, text("dev")));
            }
            "route-del" => {
                if !self.things.routes.remove(&(text("dest"), text("dev"))) {
                    return missing("there is no such route");
                }
            }
            "ledger-append" => self.events.push(params),
            other => panic!("the model knows no {other}"),
        }
        said(Value::Null)
    }
}

fn number(params: &Value, key: &str) -> u64 {
    params[key].as_u64().unwrap_or_default()
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// As a manager does: a hardware address for every interface, and its own words.
fn complete_nets(vmid: u64, config: &mut BTreeMap<String, String>) {
    for (key, net) in config.iter_mut().filter(|(key, _)| key.starts_with("net")) {
        if !net.contains("hwaddr=") {
            let index: u64 = key[3..].parse().expect("an index");
            net.push_str(&format!(
                ",hwaddr=02:00:00:00:{index:02X}:{:02X}",
                vmid % 256
            ));
        }
        if !net.contains("type=veth") {
            net.push_str(",type=veth");
        }
    }
}

fn show_bridge(name: &str, bridge: &Bridge, names: &BTreeSet<String>) -> Value {
    let own = (
        name.to_owned(),
        Port {
            ours: bridge.ours,
            kind: "internal".into(),
            ..Port::default()
        },
    );
    let ports = bridge
        .ports
        .iter()
        .map(|(n, p)| (n.clone(), p.clone()))
        .chain([own]);
    let ports: Vec<Value> = ports
        .map(|(name, port)| {
            let there = names.contains(&name);
            json!({
                "name": name, "ours": port.ours, "type": port.kind, "tag": port.tag, "trunks": port.trunks,
                "vmid": port.vmid, "attached_mac": port.mac, "ofport": if there { 1 } else { -1 },
                "link": if there { "up" } else { "down" },
                "error": (!there).then_some("could not open network device"), "counters": {"rx_packets": 1},
            })
        })
        .collect();
    let owners: Vec<Value> = bridge
        .flows
        .iter()
        .map(|(owner, flows)| {
            let set = FlowSet::from_json(flows).expect("the catalog's form");
            let asked = set.fingerprint(|_| Some(1)).expect("numbers");
            json!({"owner": owner, "flows": set.len(), "as_set": true, "asked": asked.as_str()})
        })
        .collect();
    json!({
        "name": name, "ours": bridge.ours, "datapath_type": "system", "fail_mode": bridge.fail_mode,
        "ports": ports, "owners": owners, "meters": [],
    })
}

fn show_tunnel(tunnel: &Value) -> Value {
    let mut shown = tunnel.clone();
    shown["up"] = true.into();
    shown["listen_port"] = tunnel["listen_port"].as_u64().unwrap_or(51820).into();
    for peer in shown["peers"].as_array_mut().into_iter().flatten() {
        peer["preshared"] = peer.get("preshared").is_some().into();
    }
    shown
}

impl Host for Model {
    fn call(&mut self, action: &Action) -> Result<Reply, CallError> {
        if self.gone {
            return Err(CallError::Connect {
                path: "/run/x".into(),
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        if let Some(answer) = self.look(action) {
            self.looks.push(action.clone());
            return answer;
        }
        let name = action.name();
        if name != "ledger-append" {
            self.done.push(name.to_owned());
            let due = match &mut self.fault {
                Some((0, fault)) => {
                    let fault = *fault;
                    self.fault = None;
                    Some(fault)
                }
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            };
            match due {
                None => {}
                Some(Fault::Fails) => return Err(refuse(ErrorCode::Failed, "injected")),
                Some(Fault::LostBefore) => return Err(lost()),
                Some(Fault::LostAfter) => {
                    let _ = self.act(action);
                    return Err(lost());
                }
                Some(Fault::KilledBefore) => std::panic::panic_any(Killed),
                Some(Fault::KilledAfter) => {
                    let _ = self.act(action);
                    std::panic::panic_any(Killed);
                }
                Some(Fault::Gone) => {
                    self.gone = true;
                    return self.call(action);
                }
            }
        }
        self.act(action)
    }

    fn links(&mut self) -> Result<Vec<Link>, HostError> {
        let names = self.names();
        Ok(names
            .into_iter()
            .zip(1..)
            .map(|(name, index)| Link {
                index,
                alternative: self
                    .things
                    .altnames
                    .get(&name)
                    .cloned()
                    .into_iter()
                    .collect(),
                up: true,
                mtu: 1500,
                kind: None,
                alias: self
                    .things
                    .tunnels
                    .get(&name)
                    .map(|_| "blockhost: tunnel".to_owned()),
                group: 0,
                forwards: self.things.forwarding.contains(&name),
                strict: self.things.forwarding.contains(&name),
                name,
            })
            .collect())
    }

    fn addresses(&mut self, index: u32) -> Result<Vec<Address>, HostError> {
        let at = usize::try_from(index).expect("small") - 1;
        let name = self.names().into_iter().nth(at).expect("a device");
        let of_tunnel = || {
            let tunnel = self.things.tunnels.get(&name)?["addresses"].as_array()?;
            Some(tunnel.iter().map(plain).collect())
        };
        let given = self.things.addresses.get(&name).cloned();
        let list: Vec<String> = given.or_else(of_tunnel).unwrap_or_default();
        Ok(list.iter().map(|text| network_of(text)).collect())
    }

    fn routes(&mut self) -> Result<Vec<Route>, HostError> {
        let names: Vec<String> = self.names().into_iter().collect();
        let routes = self.things.routes.iter().map(|(network, device)| {
            let at = names.iter().position(|name| name == device);
            let number = at.and_then(|at| u32::try_from(at + 1).ok());
            Route {
                destination: network_of(network),
                hops: vec![Hop {
                    device: number,
                    gateway: None,
                }],
                metric: 1024,
                table: MAIN_TABLE,
                protocol: PROTOCOL,
                leads: true,
            }
        });
        Ok(routes.collect())
    }

    fn proxies(&mut self) -> Result<Vec<(String, std::net::IpAddr)>, HostError> {
        let all = self.things.proxies.iter();
        Ok(all
            .map(|(address, device)| (device.clone(), address.parse().expect("an address")))
            .collect())
    }

    fn watches_over(&mut self, careful: &Careful) -> bool {
        match careful {
            Careful::Flows(_) | Careful::FirstFlows(_) => self.watch_flows,
            _ => true,
        }
    }

    fn carefully(&mut self, change: &confirm::Change) -> Result<confirm::Report, ChangeError> {
        self.watched += 1;
        // Killed, refused or not: whoever made it, it happens whole or not at all. That it does is tested with the real one.
        let plan = match change {
            confirm::Change::Reshape(reshape) => reshape.steps.clone(),
            other => panic!("the model has no uplinks: {other:?}"),
        };
        let mut report = confirm::Report::of(&format!("{change:?}"));
        let before = self.things.clone();
        for step in plan {
            if let Err(error) = self.call(&step.forward.0) {
                self.things = before;
                report.reason = Some(error.to_string());
                return Ok(report);
            }
        }
        report.outcome = confirm::Outcome::Confirmed;
        Ok(report)
    }

    fn forwards_v6(&mut self) -> bool {
        !self.things.no_ipv6
    }

    fn is_loose(&mut self) -> bool {
        false
    }

    fn pause(&mut self, _time: Duration) {}
}

fn network_of(text: &str) -> Address {
    let (address, length) = text.split_once('/').expect("with a length");
    Address {
        address: address.parse().expect("an address"),
        length: length.parse().expect("a length"),
    }
}

/// What a process that is killed leaves with.
pub struct Killed;

/// Whether the catalog of this build has an action.
pub fn has(action: &str) -> bool {
    blockhost_proto::catalog::find(action).is_some()
}

/// An option's text, for documents that are made up.
pub fn mac(last: u8) -> String {
    blockhost_proto::qm::MacAddress::new([2, 0, 0, 0, 1, last])
        .and_then(|mac| mac.to_json())
        .and_then(|mac| mac.as_str().map(str::to_owned))
        .expect("a text")
}
