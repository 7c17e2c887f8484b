//! `container-attach` and `container-detach`: lays a wire, brings both of its ends to what is wanted, removes it. What is to
//! be done is decided in [`super::plan`]. Everything is done through two netlink sockets, one of each namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use blockhost_netlink::route::{MAIN_TABLE, NetworkRoute, PROTOCOL};
use blockhost_netlink::wire::Wire;
use blockhost_netlink::{Address, Netlink, NetlinkError};
use blockhost_proto::action::{ContainerAttach, ContainerDetach};
use blockhost_proto::qm::MacAddress;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{ContainerId, InterfaceAddress, Metric, NextHop};
use rustix::io::Errno;
use serde_json::Map;

use super::enter::Inside;
use super::plan::{End, Plan, Taken, may_remove, plan};
use crate::compartment::net::addresses;
use crate::compartment::{Done, Failure};
use crate::failpoint;

/// What is written beside both ends, before the container's id.
const OWNER: &str = "blockhost:container:";

/// The kernel's limit for it, bytes.
const MAX_BESIDE: usize = 255;

/// The host's side.
#[derive(Debug)]
pub(super) struct Wires(Mutex<Netlink>);

/// Where something went wrong: beside a word for the sentence, whose network it was.
#[derive(Debug)]
struct Trouble(&'static str, NetlinkError);

impl Wires {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Netlink::open().map(|netlink| Self(Mutex::new(netlink)))
    }

    pub(super) fn attach(
        &self,
        action: &ContainerAttach,
        mut inside: Inside,
    ) -> Result<Done, Failure> {
        let mut host = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = owner(&action.container);
        let unlooked = |error| failure(action, "was not attached", &Trouble("look", error));
        let outer = end(&mut host, action.port.as_str()).map_err(unlooked)?;
        let inner = end(&mut inside.netlink, action.interface.as_str()).map_err(unlooked)?;
        let new = match plan(outer.as_ref(), inner.as_ref(), &owner) {
            Plan::Keep => false,
            Plan::Make => true,
            Plan::Replace => {
                let index = outer.map_or(0, |end| end.index);
                host.link_delete(index).map_err(|error| {
                    failure(
                        action,
                        "was not attached anew",
                        &Trouble("remove what was left of it", error),
                    )
                })?;
                failpoint::reach("attach", b"removed");
                true
            }
            Plan::Refuse(taken) => return Err(refusal(action, &taken)),
        };
        if new {
            make(&mut host, &inside, action).map_err(|error| match error.refusal() {
                Some(Errno::EXIST) => {
                    let message = format!(
                        "{} or {} was taken by another device just now; nothing was done",
                        action.port, action.interface
                    );
                    Failure::new(ErrorCode::Conflict, message)
                }
                _ => failure(action, "was not attached", &Trouble("make the wire", error)),
            })?;
            failpoint::reach("attach", b"made");
        }
        let settled = settle(&mut host, &mut inside.netlink, action);
        match settled {
            Ok(mac) => {
                let mut extra = Map::new();
                extra.insert("mac".to_owned(), mac.to_string().into());
                extra.insert("new".to_owned(), new.into());
                let state = if new { "attached" } else { "as wanted" };
                Ok(Done {
                    output: format!("{} is {state} by {}", action.interface, action.port),
                    extra,
                })
            }
            Err(trouble) => {
                let mut failure = failure(action, "was not attached", &trouble);
                if new && let Err(undo) = remove(&mut host, action.port.as_str()) {
                    failure.message = format!(
                        "{}; the wire that was made for it could not be removed either: {undo}",
                        failure.message
                    );
                }
                Err(failure)
            }
        }
    }

    pub(super) fn detach(&self, action: &ContainerDetach) -> Result<Done, Failure> {
        let mut host = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let port = action.port.as_str();
        let failed = |error: NetlinkError| {
            let message = format!("{port} was not detached: {error}");
            Failure::new(ErrorCode::Failed, message)
        };
        let Some(found) = end(&mut host, port).map_err(failed)? else {
            let message = format!("there is no wire {port}");
            return Err(Failure::new(ErrorCode::NotFound, message));
        };
        if let Err(taken) = may_remove(&found, &owner(&action.container)) {
            let whose = match taken {
                Taken::ByContainer => "is that of another container",
                Taken::ByOthers | Taken::Inside => "was not made by this agent",
            };
            let message = format!("{port} {whose}; it was left alone");
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        remove(&mut host, port).map_err(failed)?;
        Ok(Done {
            output: format!("{port} and its other end are gone"),
            ..Done::default()
        })
    }
}

fn owner(container: &ContainerId) -> String {
    format!("{OWNER}{container}")
}

/// What is written beside both ends: whose they are, then in which namespace and with which addresses, so that whoever only
/// looks at the host can tell whether this is what is wanted. Addresses that do not fit are left out.
fn beside(action: &ContainerAttach) -> String {
    let mut text = format!("{} {}", owner(&action.container), action.netns);
    for address in action.addresses.iter() {
        let word = format!(" {address}");
        if text.len() + word.len() > MAX_BESIDE {
            break;
        }
        text.push_str(&word);
    }
    text
}

/// The device of that name. One that only has it as an alternative name counts as well: the name is taken.
fn end(netlink: &mut Netlink, name: &str) -> Result<Option<End>, NetlinkError> {
    let Some(link) = netlink.link(name)? else {
        return Ok(None);
    };
    let other = match netlink.other_end(link.index) {
        Err(error) if error.refusal() == Some(Errno::NODEV) => return Ok(None),
        other => other?,
    };
    Ok(Some(End {
        index: link.index,
        ours: link.is_ours() && link.name == name && other.is_some(),
        other,
        alias: link.alias,
    }))
}

fn make(host: &mut Netlink, inside: &Inside, action: &ContainerAttach) -> Result<(), NetlinkError> {
    host.wire_create(&Wire {
        name: action.port.as_str(),
        namespace: inside.namespace.as_fd(),
        there: action.interface.as_str(),
        hardware: action.mac.map(MacAddress::bytes),
        mtu: action.mtu.map(|mtu| u32::from(mtu.get())),
    })
}

/// The wire goes with either of its ends.
fn remove(host: &mut Netlink, port: &str) -> Result<(), NetlinkError> {
    let Some(link) = host.link(port)? else {
        return Ok(());
    };
    match host.link_delete(link.index) {
        // With its container, just now.
        Err(error) if error.refusal() == Some(Errno::NODEV) => Ok(()),
        other => other,
    }
}

/// Brings both ends to what is wanted; what is so already is not touched.
fn settle(
    host: &mut Netlink,
    inside: &mut Netlink,
    action: &ContainerAttach,
) -> Result<MacAddress, Trouble> {
    let at = |what| move |error| Trouble(what, error);
    let gone = || NetlinkError::Refused(Errno::NODEV);
    let there = inside
        .link(action.interface.as_str())
        .and_then(|link| link.ok_or_else(gone))
        .map_err(at("find its end"))?;
    let mtu = action.mtu.map(|mtu| u32::from(mtu.get()));
    if let Some(mac) = action.mac {
        let port = inside.port(there.index).map_err(at("read its end"))?;
        if port.hardware != mac.bytes() {
            inside
                .set_hardware(there.index, &mac.bytes())
                .map_err(at("give it its hardware address"))?;
        }
    }
    if let Some(mtu) = mtu.filter(|mtu| *mtu != there.mtu) {
        inside
            .link_mtu(there.index, mtu)
            .map_err(at("give it its MTU"))?;
    }
    if !there.up {
        inside
            .link_up(there.index, None)
            .map_err(at("bring it up"))?;
    }
    failpoint::reach("attach", b"up");
    let wanted: Vec<Address> = action.addresses.iter().map(as_address).collect();
    addresses::bring_to(inside, there.index, &wanted, |_| true)
        .map_err(at("give it its addresses"))?;
    for (router, everything) in [
        (action.gateway4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        (action.gateway6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    ] {
        route(inside, there.index, everything, router).map_err(at("give it its router"))?;
    }
    failpoint::reach("attach", b"addressed");
    let here = host
        .link(action.port.as_str())
        .and_then(|link| link.ok_or_else(gone))
        .map_err(at("find the host's end"))?;
    if let Some(mtu) = mtu.filter(|mtu| *mtu != here.mtu) {
        host.link_mtu(here.index, mtu)
            .map_err(at("give the host's end its MTU"))?;
    }
    if !here.up {
        host.link_up(here.index, None)
            .map_err(at("bring the host's end up"))?;
    }
    // Last, and the host's at the very end: what has it is finished.
    let beside = beside(action);
    for (netlink, link) in [(&mut *inside, &there), (host, &here)] {
        if link.alias.as_deref() != Some(beside.as_str()) {
            netlink
                .link_alias(link.index, &beside)
                .map_err(at("mark it"))?;
        }
    }
    let port = inside.port(there.index).map_err(at("read its end"))?;
    let bytes: Option<[u8; 6]> = port.hardware.try_into().ok();
    bytes.and_then(MacAddress::new).ok_or(Trouble(
        "read its end",
        NetlinkError::Malformed("no hardware address"),
    ))
}

fn as_address(address: InterfaceAddress) -> Address {
    Address {
        address: address.address(),
        length: address.length(),
    }
}

/// Sets or removes the default route of ours; one that somebody else made stays, and is preferred where its metric is lower.
fn route(
    inside: &mut Netlink,
    device: u32,
    everything: IpAddr,
    router: Option<NextHop>,
) -> Result<(), NetlinkError> {
    let network = Address {
        address: everything,
        length: 0,
    };
    let metric = Metric::USUAL.get();
    let mut present = inside.routes_like(everything)?;
    present.retain(|(_, route)| {
        route.is_to(network) && route.table() == MAIN_TABLE && route.metric() == metric
    });
    let mut ours = None;
    for (of, route) in &present {
        if route.protocol() != PROTOCOL {
            // With this metric it would be replaced.
            if router.is_some() {
                return Err(NetlinkError::Refused(Errno::EXIST));
            }
        } else if *of == device {
            ours = Some(route.gateway());
        }
    }
    let as_route = |gateway| NetworkRoute {
        network,
        device,
        gateway,
        source: None,
        metric,
    };
    match (router.map(NextHop::address), ours) {
        (wanted @ Some(_), Some(present)) if wanted == present => Ok(()),
        (wanted @ Some(_), _) => inside.network_route_replace(&as_route(wanted)),
        (None, Some(present)) => inside.network_route_delete(&as_route(present)),
        (None, None) => Ok(()),
    }
}

fn refusal(action: &ContainerAttach, taken: &Taken) -> Failure {
    let message = match taken {
        Taken::ByOthers => format!(
            "the host has a device {} that this agent did not make; it was left alone: choose another name",
            action.port
        ),
        Taken::ByContainer => format!(
            "{} is the wire of another container; it was left alone: choose another name, or detach it first",
            action.port
        ),
        Taken::Inside => format!(
            "the container has an interface {} of its own; it was left alone: choose another name",
            action.interface
        ),
    };
    Failure::new(ErrorCode::Conflict, message)
}

fn failure(action: &ContainerAttach, what: &str, Trouble(step, error): &Trouble) -> Failure {
    let why = match error.refusal() {
        Some(Errno::ACCESS) => {
            "IPv6 is disabled in the container (sysctl net.ipv6.conf.all.disable_ipv6)".to_owned()
        }
        Some(Errno::EXIST) => {
            "the container has a default route of its own with the same metric".to_owned()
        }
        Some(Errno::NODEV) => "the container ended meanwhile".to_owned(),
        _ => error.to_string(),
    };
    let message = format!(
        "container {:.12} {what}, could not {step}: {why}",
        action.container.as_str()
    );
    Failure::new(ErrorCode::Failed, message)
}
