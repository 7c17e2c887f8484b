//! `proxy-set` and `proxy-del`: public addresses that this host answers for on a wire though it has them on no device. The
//! kernel answers for IPv4 only where the route to the address leads out of another device, so the route belongs to it.

use std::sync::{Mutex, PoisonError};

use blockhost_netlink::neighbour::Proxy;
use blockhost_netlink::{Netlink, NetlinkError};
use blockhost_proto::action::{ProxyDel, ProxySet, RouteSet};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{Metric, NatAddress, RouteNet, Text as _};
use rustix::io::Errno;

use super::devices::{self, named};
use super::networks::Networks;
use super::settings::Settings;
use crate::allow::Allowlists;
use crate::compartment::{Done, Failure};

/// A route socket of its own.
#[derive(Debug)]
pub(super) struct Proxies(Mutex<Netlink>);

impl Proxies {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Netlink::open().map(|netlink| Self(Mutex::new(netlink)))
    }

    pub(super) fn set(
        &self,
        action: &ProxySet,
        networks: &Networks,
        settings: &Settings,
        allow: &Allowlists,
    ) -> Result<Done, Failure> {
        let (address, dev) = (action.address.address(), &action.dev);
        let refused = |error: &NetlinkError| devices::failure(dev, "does not answer", error);
        let mut netlink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = named(&mut netlink, dev)?;
        let there = netlink.proxies().map_err(|error| refused(&error))?;
        let present = there
            .iter()
            .find(|proxy| (proxy.device, proxy.address) == (link.index, address));
        if present.is_some_and(|proxy| !proxy.ours) {
            let message = format!(
                "{dev} answers for {address} already, and this agent did not make it so; it was left alone"
            );
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        if address.is_ipv6() {
            settings.answer_for_ipv6(&link)?;
        }
        let route = RouteSet {
            dest: alone(action.address)?,
            dev: action.behind.clone(),
            via: None,
            src: None,
            metric: Metric::USUAL,
        };
        networks.set(&route, allow)?;
        if address.is_ipv4() && !link.forwards {
            // What is believed of sources stays: hosts with two uplinks get answers by the other one.
            let forwarded = netlink.link_forward(link.index, true, false);
            forwarded.map_err(|error| refused(&error))?;
        }
        if present.is_none() {
            let added = netlink.proxy_add(link.index, address);
            added.map_err(|error| refused(&error))?;
        }
        Ok(done(format!(
            "{address} is answered for on {dev} and goes out of {}",
            action.behind
        )))
    }

    pub(super) fn delete(&self, action: &ProxyDel, networks: &Networks) -> Result<Done, Failure> {
        let (address, dev) = (action.address.address(), &action.dev);
        let refused = |error: &NetlinkError| devices::failure(dev, "goes on answering", error);
        let mut netlink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = named(&mut netlink, dev)?;
        let there = netlink.proxies().map_err(|error| refused(&error))?;
        let ours =
            |proxy: &&Proxy| proxy.ours && (proxy.device, proxy.address) == (link.index, address);
        let found = there.iter().any(|proxy| ours(&proxy));
        if found {
            match netlink.proxy_remove(link.index, address) {
                Err(error) if error.refusal() == Some(Errno::NOENT) => {}
                removed => removed.map_err(|error| refused(&error))?,
            }
        }
        // Where only the route is there a request was interrupted, and is completed now.
        let led = networks.delete_wherever(alone(action.address)?, Metric::USUAL)?;
        if !found && !led {
            let message = format!("this agent does not answer for {address} on {dev}");
            return Err(Failure::new(ErrorCode::NotFound, message));
        }
        Ok(done(format!(
            "{address} is no longer answered for on {dev}"
        )))
    }
}

/// The network of one address.
fn alone(address: NatAddress) -> Result<RouteNet, Failure> {
    let width = if address.address().is_ipv4() { 32 } else { 128 };
    RouteNet::read(&format!("{address}/{width}")).ok_or_else(|| {
        let message = format!("{address} is no address that a route can lead to");
        Failure::new(ErrorCode::BadParams, message)
    })
}

fn done(output: String) -> Done {
    Done {
        output,
        ..Done::default()
    }
}
