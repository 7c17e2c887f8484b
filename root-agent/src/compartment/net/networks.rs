//! `route-set` and `route-del`: routes to networks, such as those of containers behind a tunnel. They carry the agent's own
//! mark in the kernel's table, so that nothing that somebody else made is replaced or deleted.

use std::sync::{Mutex, PoisonError};

use blockhost_netlink::route::{MAIN_TABLE, NetworkRoute, PROTOCOL};
use blockhost_netlink::table::TableRoute;
use blockhost_netlink::{Address, Netlink, NetlinkError};
use blockhost_proto::action::{RouteDel, RouteSet};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{Metric, RouteNet};
use rustix::io::Errno;

use super::claims::{self, Wanted};
use super::devices::{self, named};
use crate::allow::Allowlists;
use crate::compartment::{Done, Failure};
use crate::failpoint;

/// A route socket of its own: a look at a long table does not hold up other routes.
#[derive(Debug)]
pub(super) struct Networks(Mutex<Netlink>);

impl Networks {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Netlink::open().map(|netlink| Self(Mutex::new(netlink)))
    }

    pub(super) fn set(&self, action: &RouteSet, allow: &Allowlists) -> Result<Done, Failure> {
        let mut netlink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = named(&mut netlink, &action.dev)?;
        let wanted = NetworkRoute {
            network: network(action.dest),
            device: link.index,
            gateway: action.via.map(|via| via.address()),
            source: action.src.map(|src| src.address()),
            metric: action.metric.get(),
        };
        let table = table(&mut netlink, action.dest)?;
        let present = present(&table, action.dest, action.metric);
        // Also one that only refuses, or is for the host itself.
        let foreign = |(_, route): &&(u32, TableRoute)| !route.leads() || !is_ours(route);
        if present.iter().any(foreign) {
            return Err(not_ours(action));
        }
        for (device, _) in present.iter().filter(|(of, _)| *of != link.index) {
            let other = netlink
                .link_by_index(*device)
                .map_err(|error| devices::failure(&action.dev, "did not get the route", &error))?;
            let Some(other) = other.filter(|other| !allow.names_route(action.dest, &other.name))
            else {
                continue;
            };
            let message = format!(
                "the route to {} with metric {} goes out of {}, which is not yours to take it from: choose another metric",
                action.dest, action.metric, other.name
            );
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        let through = wanted
            .gateway
            .map_or_else(String::new, |via| format!(" through {via}"));
        let shown = format!("{} goes out of {}{through}", action.dest, action.dev);
        let same = |(device, route): &(u32, TableRoute)| {
            *device == wanted.device
                && route.gateway() == wanted.gateway
                && route.source() == wanted.source
        };
        if present.len() == 1 && present.iter().all(|route| same(route)) {
            return Ok(done(format!("{shown}, as before")));
        }
        let claims = Wanted {
            network: wanted.network,
            device: wanted.device,
            metric: Some(wanted.metric),
        }
        .takes(&table);
        // Addresses of a pool are given to machines one by one, also where the uplink's own network is the pool.
        let may_name =
            |device: &str| allow.is_public(action.dest) || allow.names_route(action.dest, device);
        let held = claims::held(&mut netlink, claims, may_name);
        if let Some(whose) = held.map_err(|error| not_looked_at(action.dest, &error))? {
            let message = format!("the route to {} was not set: {whose}", action.dest);
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        failpoint::reach("net-route-judged", action.dest.to_string().as_bytes());
        let set = match present.is_empty() {
            // What came meanwhile is not replaced unseen.
            true => netlink.network_route_create(&wanted),
            false => netlink.network_route_replace(&wanted),
        };
        set.map_err(|error| match error.refusal() {
            Some(Errno::EXIST) => not_ours(action),
            Some(Errno::NETUNREACH | Errno::HOSTUNREACH) => {
                let message = format!(
                    "the route to {} was not set: {} does not reach its router{through}",
                    action.dest, action.dev
                );
                Failure::new(ErrorCode::Failed, message)
            }
            Some(Errno::NETDOWN) => {
                let message = format!("{} is down; bring it up first", action.dev);
                Failure::new(ErrorCode::Failed, message)
            }
            _ => devices::failure(&action.dev, "did not get the route", &error),
        })?;
        Ok(done(shown))
    }

    pub(super) fn delete(&self, action: &RouteDel) -> Result<Done, Failure> {
        let mut netlink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = named(&mut netlink, &action.dev)?;
        let table = table(&mut netlink, action.dest)?;
        let present = present(&table, action.dest, action.metric);
        let ours = |(device, route): &&&(u32, TableRoute)| {
            *device == link.index && route.leads() && is_ours(route)
        };
        let not_found = || {
            let message = format!(
                "this agent has no route to {} with metric {} out of {}",
                action.dest, action.metric, action.dev
            );
            Failure::new(ErrorCode::NotFound, message)
        };
        let (_, found) = present.iter().find(ours).ok_or_else(not_found)?;
        let route = NetworkRoute {
            network: network(action.dest),
            device: link.index,
            gateway: found.gateway(),
            source: found.source(),
            metric: action.metric.get(),
        };
        netlink
            .network_route_delete(&route)
            .map_err(|error| match error.refusal() {
                Some(Errno::SRCH) => not_found(),
                _ => devices::failure(&action.dev, "keeps the route", &error),
            })?;
        Ok(done(format!(
            "{} no longer goes out of {}",
            action.dest, action.dev
        )))
    }

    /// Deletes the agent's own routes to a network, whatever they go out of; whether there was one.
    pub(super) fn delete_wherever(&self, dest: RouteNet, metric: Metric) -> Result<bool, Failure> {
        let mut netlink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let table = table(&mut netlink, dest)?;
        let mut any = false;
        for (device, found) in present(&table, dest, metric) {
            if !found.leads() || !is_ours(found) {
                continue;
            }
            let route = NetworkRoute {
                network: network(dest),
                device: *device,
                gateway: found.gateway(),
                source: found.source(),
                metric: metric.get(),
            };
            match netlink.network_route_delete(&route) {
                Err(error) if error.refusal() != Some(Errno::SRCH) => {
                    let message = format!("the route to {dest} was not deleted: {error}");
                    return Err(Failure::new(ErrorCode::Failed, message));
                }
                _ => any = true,
            }
        }
        Ok(any)
    }
}

fn is_ours(route: &TableRoute) -> bool {
    route.protocol() == PROTOCOL
}

fn not_ours(action: &RouteSet) -> Failure {
    let message = format!(
        "there is a route to {} with metric {} already that this agent did not make; it was left alone: choose another metric",
        action.dest, action.metric
    );
    Failure::new(ErrorCode::Conflict, message)
}

/// All routes of the network's family, as they are in this moment.
fn table(netlink: &mut Netlink, dest: RouteNet) -> Result<Vec<(u32, TableRoute)>, Failure> {
    let table = netlink.routes_like(dest.address());
    table.map_err(|error| not_looked_at(dest, &error))
}

fn not_looked_at(dest: RouteNet, error: &NetlinkError) -> Failure {
    let message = format!("the routes to {dest} could not be looked at: {error}");
    Failure::new(ErrorCode::Failed, message)
}

/// The routes to the network with that metric in the main table, of any kind and whoever made them.
fn present(table: &[(u32, TableRoute)], dest: RouteNet, metric: Metric) -> Vec<&(u32, TableRoute)> {
    let network = network(dest);
    let meant = |(_, route): &&(u32, TableRoute)| {
        let place = (route.table(), route.metric());
        place == (MAIN_TABLE, metric.get()) && route.is_to(network)
    };
    table.iter().filter(meant).collect()
}

fn network(dest: RouteNet) -> Address {
    Address {
        address: dest.address(),
        length: dest.length(),
    }
}

fn done(output: String) -> Done {
    Done {
        output,
        ..Done::default()
    }
}
