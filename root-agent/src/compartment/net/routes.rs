//! Host routes of machines: `ip6-route-add` and `ip6-route-del` in terms of the kernel's route table.

use std::sync::{Mutex, PoisonError};

use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{HostIpv6, IfName};
use rustix::io::Errno;

use crate::compartment::{Done, Failure};
use blockhost_netlink::{Link, Netlink, NetlinkError};

/// The route socket, opened before confinement; requests take tens of microseconds, so one lock is enough.
#[derive(Debug)]
pub(super) struct Routes(Mutex<Netlink>);

impl Routes {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Netlink::open().map(|netlink| Routes(Mutex::new(netlink)))
    }

    pub(super) fn add(&self, address: HostIpv6, dev: &IfName) -> Result<Done, Failure> {
        let mut netlink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = find(&mut netlink, dev)?;
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
