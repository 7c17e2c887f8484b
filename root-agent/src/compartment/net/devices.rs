//! `link-set`: state, MTU, addresses and forwarding of devices that are this host's own to change, and which devices those are. The
//! policy says which names; here the kernel says what is behind a name.

use std::sync::{Mutex, PoisonError};

use blockhost_netlink::{Address, Link, Netlink, NetlinkError};
use blockhost_proto::action::{LinkSet, MasqueradeSet};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{IfName, InterfaceAddress};
use rustix::io::Errno;
use serde_json::Map;

use super::addresses;
use super::wireguard;
use crate::allow::{Allowlists, alternative_of, is_machines};
use crate::compartment::{Done, Failure};
use crate::failpoint;

/// Kinds of devices that a switch or bridge is for the host. A switch in user space has a tap.
pub(super) const BRIDGES: [&str; 3] = ["bridge", "openvswitch", "tun"];

/// Route sockets of their own: devices do not wait for routes, nor for a move that a switch takes seconds for.
#[derive(Debug)]
pub(super) struct Devices {
    links: Mutex<Netlink>,
    pub(super) moves: Mutex<Netlink>,
}

/// What of a device is to be so from now on.
#[derive(Debug, Default)]
struct State {
    up: Option<bool>,
    mtu: Option<u32>,
    addresses: Option<Vec<Address>>,
    forward: Option<bool>,
}

impl Devices {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            links: Mutex::new(Netlink::open()?),
            moves: Mutex::new(Netlink::open()?),
        })
    }

    /// Another program's tunnel may have the name of one of ours; what leaves by it is not changed.
    pub(super) fn is_our_tunnel(&self, action: &MasqueradeSet) -> Result<(), Failure> {
        // What ends needs no tunnel any more.
        if action.networks.iter().next().is_none() {
            return Ok(());
        }
        let mut netlink = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let dev = action.dev.as_str();
        let there = netlink.link(dev).map_err(|error| {
            let message = format!("{dev} could not be looked up: {error}");
            Failure::new(ErrorCode::Failed, message)
        })?;
        match there.filter(|link| link.name == dev) {
            Some(link) if wireguard::is_ours(&link) => Ok(()),
            Some(_) => {
                let message = format!(
                    "{dev} is no tunnel of this agent, so what leaves by it was left alone"
                );
                Err(Failure::new(ErrorCode::Conflict, message))
            }
            None => {
                let message = format!("there is no tunnel {dev} on this host");
                Err(Failure::new(ErrorCode::NotFound, message))
            }
        }
    }

    pub(super) fn set(&self, action: &LinkSet, allow: &Allowlists) -> Result<Done, Failure> {
        let mut netlink = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = ours(&mut netlink, &action.dev, allow)?;
        let wanted = State {
            up: action.up,
            mtu: action.mtu.map(|mtu| u32::from(mtu.get())),
            addresses: action
                .addresses
                .as_ref()
                .map(|list| list.iter().map(as_address).collect()),
            forward: action.forward,
        };
        let refused = |error: &NetlinkError| failure(&action.dev, "was not changed", error);
        let before = State {
            up: wanted.up.map(|_| link.up),
            mtu: wanted.mtu.map(|_| link.mtu),
            addresses: match wanted.addresses {
                Some(_) => {
                    Some(addresses::given(&mut netlink, link.index).map_err(|e| refused(&e))?)
                }
                None => None,
            },
            forward: wanted.forward.map(|_| link.forwards),
        };
        let objection = objection(&mut netlink, &link, &wanted, &before, allow);
        if let Some(why) = objection.map_err(|error| refused(&error))? {
            let message = format!("{} was not changed: {why}", action.dev);
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        failpoint::reach("net-device-judged", action.dev.as_str().as_bytes());
        // What somebody else gives it meanwhile was not judged, so it stays.
        let judged: Vec<Address> = [&before, &wanted]
            .into_iter()
            .flat_map(|state| state.addresses.iter().flatten().copied())
            .collect();
        if let Err(error) = wanted.apply(&mut netlink, link.index, &judged) {
            let mut failure = refused(&error);
            if let Err(undo) = before.apply(&mut netlink, link.index, &judged) {
                failure.message = format!(
                    "{}; what was changed before could not be taken back either: {undo}",
                    failure.message
                );
            }
            return Err(failure);
        }
        shown(&mut netlink, &action.dev, link.index)
    }
}

impl State {
    /// Changes what differs. State first: with it a device loses or gains addresses.
    fn apply(
        &self,
        netlink: &mut Netlink,
        index: u32,
        judged: &[Address],
    ) -> Result<(), NetlinkError> {
        let gone = || NetlinkError::Refused(Errno::NODEV);
        let link = netlink.link_by_index(index)?.ok_or_else(gone)?;
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu != link.mtu) {
            netlink.link_mtu(index, mtu)?;
        }
        match self.up.filter(|up| *up != link.up) {
            Some(true) => netlink.link_up(index, None)?,
            Some(false) => netlink.link_down(index)?,
            None => {}
        }
        if let Some(wanted) = &self.addresses {
            addresses::bring_to(netlink, index, wanted, |old| judged.contains(old))?;
        }
        match self.forward {
            // A source that is not looked at could be anybody's.
            Some(true) if !link.forwards || !link.strict => netlink.link_forward(index, true, true),
            Some(false) if link.forwards => netlink.link_forward(index, false, false),
            _ => Ok(()),
        }
    }
}

/// What stands against a change, in words: the host would lose an address of its own, or the way out by it, or somebody else
/// one of theirs.
fn objection(
    netlink: &mut Netlink,
    link: &Link,
    wanted: &State,
    before: &State,
    allow: &Allowlists,
) -> Result<Option<String>, NetlinkError> {
    let goes_down = link.up && wanted.up == Some(false);
    let lists = wanted.addresses.as_ref().zip(before.addresses.as_ref());
    let is_lost = |own: &Address| {
        goes_down || lists.is_some_and(|(new, old)| old.contains(own) && !new.contains(own))
    };
    if goes_down || lists.is_some_and(|(_, old)| old.iter().any(is_lost)) {
        let kept = addresses::of_the_host(netlink, link.index, allow)?;
        if let Some(own) = kept.iter().find(|own| is_lost(own)) {
            return Ok(Some(format!(
                "it would lose {}/{}, which is not of the policy's allow.link_addresses or leads to a router of somebody else's route; the host may be reached by that",
                own.address, own.length
            )));
        }
    }
    let new: Vec<Address> = match lists {
        Some((new, old)) => new.iter().filter(|a| !old.contains(a)).copied().collect(),
        None => Vec::new(),
    };
    addresses::claimed(netlink, link.index, &new, allow)
}

fn as_address(address: InterfaceAddress) -> Address {
    Address {
        address: address.address(),
        length: address.length(),
    }
}

/// The device of that name; also by its alternative name where that is one that [`super::veth`] gives.
pub(super) fn named(netlink: &mut Netlink, dev: &IfName) -> Result<Link, Failure> {
    let found = netlink
        .link(dev.as_str())
        .map_err(|error| failure(dev, "could not be looked up", &error))?;
    // Any other alternative name is not what the allowlist means by a device.
    let meant = |link: &Link| {
        link.name == dev.as_str() || alternative_of(dev.as_str()).as_ref() == Some(&link.name)
    };
    found.filter(meant).ok_or_else(|| {
        let message = format!("there is no network device {dev} on this host");
        Failure::new(ErrorCode::NotFound, message)
    })
}

/// The same, if it is of a kind that is changed here. Hardware and other programs' tunnels are not.
fn ours(netlink: &mut Netlink, dev: &IfName, allow: &Allowlists) -> Result<Link, Failure> {
    let link = named(netlink, dev)?;
    let kind = link.kind.as_deref().unwrap_or("hardware");
    let mine = match kind {
        "wireguard" => wireguard::is_ours(&link),
        // A daemon's tunnel is a `tun` like a switch's own interface; only what is named as a bridge is taken for one.
        "tun" => allow.names_bridge(dev.as_str()) || wireguard::is_ours(&link),
        // Other programs' bridges and pairs begin with the same letters as ours: `vi*` also stands for libvirt's virbr0.
        "veth" => is_machines(dev.as_str()) || allow.names_by_hand(dev.as_str()),
        kind if BRIDGES.contains(&kind) => {
            allow.names_bridge(dev.as_str()) || allow.names_by_hand(dev.as_str())
        }
        _ => false,
    };
    if mine {
        return Ok(link);
    }
    let message = format!(
        "{dev} ({kind}) is neither a bridge, a switch, a machine's interface nor a tunnel of this agent; it was left alone"
    );
    Err(Failure::new(ErrorCode::Conflict, message))
}

/// What a device is now, read back.
fn shown(netlink: &mut Netlink, dev: &IfName, index: u32) -> Result<Done, Failure> {
    let unread = |error: &NetlinkError| failure(dev, "was changed, but cannot be read back", error);
    let link = netlink
        .link_by_index(index)
        .map_err(|error| unread(&error))?
        .ok_or_else(|| unread(&NetlinkError::Refused(Errno::NODEV)))?;
    let addresses = listed(netlink, index).map_err(|error| unread(&error))?;
    let state = if link.up { "up" } else { "down" };
    let forwards = if link.forwards { ", forwards IPv4" } else { "" };
    let list = if addresses.is_empty() {
        "no addresses".to_owned()
    } else {
        addresses.join(", ")
    };
    let mut extra = Map::new();
    extra.insert("up".into(), link.up.into());
    extra.insert("mtu".into(), link.mtu.into());
    extra.insert("addresses".into(), addresses.into());
    extra.insert("forward".into(), link.forwards.into());
    Ok(Done {
        output: format!("{dev} is {state}, MTU {}, {list}{forwards}", link.mtu),
        extra,
    })
}

/// A device's addresses as texts.
pub(super) fn listed(netlink: &mut Netlink, index: u32) -> Result<Vec<String>, NetlinkError> {
    let own = netlink.own_addresses(index)?;
    let mut list: Vec<Address> = own
        .iter()
        .filter(|own| own.is_global())
        .map(|own| own.address)
        .collect();
    list.sort_unstable();
    let shown = |a: &Address| format!("{}/{}", a.address, a.length);
    Ok(list.iter().map(shown).collect())
}

pub(super) fn failure(dev: &IfName, what: &str, error: &NetlinkError) -> Failure {
    let why = match error.refusal() {
        Some(Errno::NODEV) => {
            let message = format!("the device {dev} vanished");
            return Failure::new(ErrorCode::NotFound, message);
        }
        Some(Errno::ACCESS) => format!(
            "IPv6 is disabled on it; enable it by sysctl net.ipv6.conf.{dev}.disable_ipv6=0"
        ),
        Some(Errno::INVAL) => "the kernel takes that for invalid on such a device".to_owned(),
        Some(Errno::BUSY) => "it has to be down for that".to_owned(),
        Some(Errno::PERM) => "the agent lacks CAP_NET_ADMIN in this network namespace".to_owned(),
        _ => error.to_string(),
    };
    Failure::new(ErrorCode::Failed, format!("{dev} {what}: {why}"))
}
