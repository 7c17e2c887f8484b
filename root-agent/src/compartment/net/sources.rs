//! `route-from-set` and `route-from-del`: the way out for what comes from a network of machines, such as a broker's, which the
//! host's own default route does not lead to. The host's own packets do not meet these routes; they carry the agent's mark.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use blockhost_netlink::route::{MAIN_TABLE, METRIC, PROTOCOL, SourceRoute};
use blockhost_netlink::table::TableRoute;
use blockhost_netlink::{Address, Link, Netlink, NetlinkError};
use blockhost_proto::action::{RouteFromDel, RouteFromSet};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{IfName, MachinePrefix, Text as _, WgName};
use rustix::io::Errno;

use super::devices::{self, named};
use super::wireguard;
use crate::allow::Allowlists;
use crate::compartment::{Done, Failure};
use crate::failpoint;

/// A route socket of its own.
#[derive(Debug)]
pub(super) struct Sources(Mutex<Netlink>);

impl Sources {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Netlink::open().map(|netlink| Self(Mutex::new(netlink)))
    }

    pub(super) fn set(&self, action: &RouteFromSet, allow: &Allowlists) -> Result<Done, Failure> {
        let mut netlink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, dev) = (action.from, &action.dev);
        let link = tunnel(&mut netlink, dev)?;
        let table = table(&mut netlink, from)?;
        let present = present(&table, from);
        if present.iter().any(|(_, route)| !is_ours(route)) {
            return Err(not_ours(from));
        }
        let shown = format!("what comes from {from} goes out of {dev}");
        if matches!(present[..], [(device, _)] if *device == link.index) {
            return Ok(done(format!("{shown}, as before")));
        }
        if let Some(theirs) = somebody_elses(&mut netlink, &table, from, &link, allow)? {
            let message = format!(
                "the way of what comes from {from} was not set: {theirs}, which is not yours"
            );
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        failpoint::reach("net-source-judged", from.to_string().as_bytes());
        let route = wanted(from, &link);
        let set = match present.is_empty() {
            // What came meanwhile is not replaced unseen.
            true => netlink.source_route_create(&route),
            false => netlink.source_route_replace(&route),
        };
        set.map_err(|error| match error.refusal() {
            Some(Errno::EXIST) => not_ours(from),
            Some(Errno::NETDOWN) => {
                Failure::new(ErrorCode::Failed, format!("{dev} is down; bring it up first"))
            }
            Some(Errno::INVAL) => {
                let message = "this kernel has no routes by source (CONFIG_IPV6_SUBTREES), so nothing was set".to_owned();
                Failure::new(ErrorCode::Failed, message)
            }
            _ => failed(dev, "did not get the route", &error),
        })?;
        Ok(done(shown))
    }

    pub(super) fn delete(&self, action: &RouteFromDel) -> Result<Done, Failure> {
        let mut netlink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, dev) = (action.from, &action.dev);
        let link = tunnel(&mut netlink, dev)?;
        let table = table(&mut netlink, from)?;
        let not_found = || {
            let message =
                format!("this agent has no route for what comes from {from} out of {dev}");
            Failure::new(ErrorCode::NotFound, message)
        };
        let ours = |(device, route): &&(u32, TableRoute)| *device == link.index && is_ours(route);
        if !present(&table, from).into_iter().any(|route| ours(&route)) {
            return Err(not_found());
        }
        netlink
            .source_route_delete(&wanted(from, &link))
            .map_err(|error| match error.refusal() {
                Some(Errno::SRCH) => not_found(),
                _ => failed(dev, "keeps the route", &error),
            })?;
        Ok(done(format!(
            "what comes from {from} no longer goes out of {dev}"
        )))
    }
}

/// The device of that name, if this agent made it as a tunnel.
fn tunnel(netlink: &mut Netlink, dev: &WgName) -> Result<Link, Failure> {
    let link = named(netlink, &device_name(dev)?)?;
    if wireguard::is_ours(&link) {
        return Ok(link);
    }
    let message = format!("{dev} is no tunnel of this agent; wg-setup makes one");
    Err(Failure::new(ErrorCode::Conflict, message))
}

/// Every tunnel's name is a device's.
fn device_name(dev: &WgName) -> Result<IfName, Failure> {
    IfName::read(dev.as_str()).ok_or_else(|| {
        let message = format!("{dev} is no name of a device");
        Failure::new(ErrorCode::BadParams, message)
    })
}

fn failed(dev: &WgName, what: &str, error: &NetlinkError) -> Failure {
    match device_name(dev) {
        Ok(name) => devices::failure(&name, what, error),
        Err(failure) => failure,
    }
}

fn wanted(from: MachinePrefix, link: &Link) -> SourceRoute {
    SourceRoute {
        from: from.address(),
        length: from.length(),
        device: link.index,
    }
}

fn network(from: MachinePrefix) -> Address {
    Address {
        address: IpAddr::V6(from.address()),
        length: from.length(),
    }
}

fn table(netlink: &mut Netlink, from: MachinePrefix) -> Result<Vec<(u32, TableRoute)>, Failure> {
    let table = netlink.routes_like(IpAddr::V6(from.address()));
    table.map_err(|error| {
        let message = format!("the routes of {from} could not be looked at: {error}");
        Failure::new(ErrorCode::Failed, message)
    })
}

/// Default routes of that source with the usual metric in the main table, of any kind and whoever made them.
fn present(table: &[(u32, TableRoute)], from: MachinePrefix) -> Vec<&(u32, TableRoute)> {
    let network = network(from);
    let meant = |(_, route): &&(u32, TableRoute)| {
        let place = (route.table(), route.metric());
        place == (MAIN_TABLE, METRIC) && route.is_default_from(network)
    };
    table.iter().filter(meant).collect()
}

/// Whether others than the host's machines send from there: a network at a device that the caller may not name, such as an
/// uplink, whose hosts and the host itself have addresses of it.
fn somebody_elses(
    netlink: &mut Netlink,
    table: &[(u32, TableRoute)],
    from: MachinePrefix,
    link: &Link,
    allow: &Allowlists,
) -> Result<Option<String>, Failure> {
    let own = network(from);
    for (device, route) in table {
        let at_the_device = route.leads()
            && !route.has_gateway()
            && route.from().is_none()
            && *device != link.index;
        let Some(to) = route.destination().filter(|_| at_the_device) else {
            continue;
        };
        if !to.reaches(own.address) && !own.reaches(to.address) {
            continue;
        }
        let other = netlink.link_by_index(*device).map_err(|error| {
            let message = format!(
                "the device of {} could not be looked up: {error}",
                route.shown()
            );
            Failure::new(ErrorCode::Failed, message)
        })?;
        if let Some(other) = other.filter(|other| !allow.names_way(&other.name)) {
            return Ok(Some(format!("{} is at {}", route.shown(), other.name)));
        }
    }
    Ok(None)
}

fn is_ours(route: &TableRoute) -> bool {
    route.leads() && route.protocol() == PROTOCOL
}

fn not_ours(from: MachinePrefix) -> Failure {
    let message = format!(
        "there is a default route for what comes from {from} already that this agent did not make; it was left alone"
    );
    Failure::new(ErrorCode::Conflict, message)
}

fn done(output: String) -> Done {
    Done {
        output,
        ..Done::default()
    }
}
