//! Host routes of machines: `ip6-route-add` and `ip6-route-del` in terms of the kernel's route table.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{HostIpv6, IfName};
use rustix::io::Errno;

use super::claims::{self, Wanted};
use crate::allow::Allowlists;
use crate::compartment::{Done, Failure};
use blockhost_netlink::route::{MAIN_TABLE, METRIC, RTPROT_BOOT};
use blockhost_netlink::table::TableRoute;
use blockhost_netlink::{Address, Link, Netlink, NetlinkError};

/// The route socket, opened before confinement; requests take tens of microseconds, so one lock is enough.
#[derive(Debug)]
pub(super) struct Routes(Mutex<Netlink>);

impl Routes {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Netlink::open().map(|netlink| Routes(Mutex::new(netlink)))
    }

    pub(super) fn add(
        &self,
        address: HostIpv6,
        dev: &IfName,
        allow: &Allowlists,
    ) -> Result<Done, Failure> {
        let mut netlink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = find(&mut netlink, dev)?;
        refuse_others(&mut netlink, address, &link, allow)?;
        refuse_routers(&mut netlink, address, &link)?;
        netlink
            .host_route_replace(address.address(), link.index)
            .map_err(|error| failure("made", address, &link, &error))?;
        Ok(Done {
            output: format!("{address} goes out of {dev}"),
            ..Done::default()
        })
    }

    pub(super) fn delete(&self, address: HostIpv6, dev: &IfName) -> Result<Done, Failure> {
        let mut netlink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = find(&mut netlink, dev)?;
        // The kernel would also delete a route through a gateway that an administrator made to the same address.
        let through_gateway = netlink
            .route_match(address.address(), link.index)
            .is_ok_and(|route| {
                route.prefix == 128 && route.device == Some(link.index) && route.gateway
            });
        if through_gateway {
            let message = format!(
                "the route to {address} on {dev} goes through a gateway, so this agent did not make it; it was left alone"
            );
            return Err(Failure::new(ErrorCode::NotFound, message));
        }
        netlink
            .host_route_delete(address.address(), link.index)
            .map_err(|error| failure("deleted", address, &link, &error))?;
        Ok(Done {
            output: format!("{address} no longer goes out of {dev}"),
            ..Done::default()
        })
    }
}

/// What goes through a gateway, was made by a routing program or goes out of a device that the caller may not name is not
/// replaced, nor put behind ours.
fn refuse_others(
    netlink: &mut Netlink,
    address: HostIpv6,
    link: &Link,
    allow: &Allowlists,
) -> Result<(), Failure> {
    let failed = |error: &NetlinkError| failure("made", address, link, error);
    let refused = |out_of: &str| {
        let message = format!(
            "there is a route to {address}{out_of} already that is not yours to replace; it was left alone"
        );
        Err(Failure::new(ErrorCode::Conflict, message))
    };
    let there = match netlink.route_match(address.address(), 0) {
        Ok(there) if there.prefix == 128 && there.metric >= METRIC => there,
        Ok(_) => return Ok(()),
        Err(error) if error.refusal() == Some(Errno::NETUNREACH) => return Ok(()),
        // One refuses it: to this address, or to a network around it.
        Err(error) if error.refusal().is_some() => {
            let alone = refuses_alone(netlink, address).map_err(|error| failed(&error))?;
            return if alone { refused("") } else { Ok(()) };
        }
        Err(error) => return Err(failed(&error)),
    };
    let made_here = !there.gateway && there.protocol == RTPROT_BOOT;
    let device = match there.device.filter(|device| *device != link.index) {
        Some(device) => netlink.link_by_index(device).map_err(|e| failed(&e))?,
        None => None,
    };
    let theirs = |other: &Link| !allow.names_route_device(&other.name);
    if made_here && !device.as_ref().is_some_and(theirs) {
        return Ok(());
    }
    let at = device.map_or_else(|| link.name.clone(), |device| device.name);
    refused(&format!(" out of {at}"))
}

/// Whoever leads the host's routes on is reached where it is: by this route nothing would get there any more.
fn refuse_routers(netlink: &mut Netlink, address: HostIpv6, link: &Link) -> Result<(), Failure> {
    let failed = |error: &NetlinkError| failure("made", address, link, error);
    let host = IpAddr::V6(address.address());
    let table = netlink.routes_like(host).map_err(|e| failed(&e))?;
    let wanted = Wanted {
        network: Address {
            address: host,
            length: 128,
        },
        device: link.index,
        metric: Some(METRIC),
    };
    // Of networks single addresses are machines': what is theirs is taken from the network around it.
    let held = claims::held(netlink, wanted.takes(&table), |_| true).map_err(|e| failed(&e))?;
    match held {
        None => Ok(()),
        Some(whose) => {
            let message = format!("the route to {address} was not made: {whose}");
            Err(Failure::new(ErrorCode::Conflict, message))
        }
    }
}

/// Whether a route to the address alone says that there is no way to it.
fn refuses_alone(netlink: &mut Netlink, address: HostIpv6) -> Result<bool, NetlinkError> {
    let address = IpAddr::V6(address.address());
    let table = netlink.routes_like(address)?;
    let alone = Address {
        address,
        length: 128,
    };
    let refuses = |(_, route): &(u32, TableRoute)| {
        let in_the_way = route.table() == MAIN_TABLE && route.metric() >= METRIC;
        in_the_way && !route.leads() && route.is_to(alone)
    };
    Ok(table.iter().any(refuses))
}

fn find(netlink: &mut Netlink, dev: &IfName) -> Result<Link, Failure> {
    let absent = || {
        Failure::new(
            ErrorCode::NotFound,
            format!("there is no network device {dev} on this host"),
        )
    };
    let link = netlink
        .link(dev.as_str())
        .map_err(|error| {
            Failure::new(
                ErrorCode::Failed,
                format!("the device {dev} could not be looked up: {error}"),
            )
        })?
        .ok_or_else(absent)?;
    // An alternative name is not what the allowlist means by a device.
    if link.name == dev.as_str() {
        Ok(link)
    } else {
        Err(absent())
    }
}

fn failure(done: &str, address: HostIpv6, link: &Link, error: &NetlinkError) -> Failure {
    let dev = &link.name;
    let (code, why) = match error.refusal() {
        Some(Errno::SRCH | Errno::NOENT) => (
            ErrorCode::NotFound,
            format!("there is no such route on {dev}"),
        ),
        // Which of the two the kernel says about a device that is down depends on its kind.
        Some(Errno::NETDOWN | Errno::NODEV) if !link.up => (
            ErrorCode::Failed,
            format!("{dev} is down; bring it up first"),
        ),
        Some(Errno::NODEV) => (ErrorCode::NotFound, format!("the device {dev} vanished")),
        Some(Errno::NETDOWN) => (
            ErrorCode::Failed,
            format!("{dev} is down; bring it up first"),
        ),
        Some(Errno::ACCESS) => (
            ErrorCode::Failed,
            format!(
                "IPv6 is disabled on {dev}; enable it by sysctl net.ipv6.conf.{dev}.disable_ipv6=0"
            ),
        ),
        Some(Errno::AFNOSUPPORT | Errno::OPNOTSUPP) => {
            (ErrorCode::Failed, "this kernel has no IPv6".to_owned())
        }
        Some(Errno::PERM) => (
            ErrorCode::Failed,
            "the agent lacks CAP_NET_ADMIN in this network namespace".to_owned(),
        ),
        _ => (ErrorCode::Failed, error.to_string()),
    };
    Failure::new(
        code,
        format!("the route to {address} was not {done}: {why}"),
    )
}
