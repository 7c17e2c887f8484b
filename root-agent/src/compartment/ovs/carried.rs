//! What of the host hangs on a bridge's own device, which goes with the bridge. The kernel is only asked: the socket is opened before
//! confinement, and this process has no capability to change anything by it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use blockhost_netlink::route::MAIN_TABLE;
use blockhost_netlink::{Netlink, NetlinkError};
use blockhost_proto::response::ErrorCode;

use crate::allow::Allowlists;
use crate::compartment::Failure;
use crate::compartment::net::addresses;

/// A route socket, or why there is none: then no bridge is deleted, and all else works.
#[derive(Debug)]
pub struct Carried(Result<Mutex<Netlink>, NetlinkError>);

impl Carried {
    /// Opens the socket.
    pub fn open() -> Self {
        Self(Netlink::open().map(Mutex::new))
    }

    /// Insists that the host keeps its addresses and its ways out when that device goes.
    ///
    /// # Errors
    /// `conflict` with what it would lose and what to do before.
    pub fn nothing_of_the_host(&self, bridge: &str, allow: &Allowlists) -> Result<(), Failure> {
        let unknown = |error: &NetlinkError| {
            let message = format!(
                "bridge {bridge} was not deleted: what of this host hangs on it could not be looked at: {error}"
            );
            Failure::new(ErrorCode::Failed, message)
        };
        let mut netlink = match &self.0 {
            Ok(netlink) => netlink.lock().unwrap_or_else(PoisonError::into_inner),
            Err(error) => return Err(unknown(error)),
        };
        match lost(&mut netlink, bridge, allow).map_err(|error| unknown(&error))? {
            None => Ok(()),
            Some(what) => {
                let message = format!(
                    "bridge {bridge} was not deleted: this host would lose {what} with it; move what the bridge carries to another \
                     device first (link-handover, or `blockhost net uplink detach`)"
                );
                Err(Failure::new(ErrorCode::Conflict, message))
            }
        }
    }
}

/// In words.
fn lost(
    netlink: &mut Netlink,
    bridge: &str,
    allow: &Allowlists,
) -> Result<Option<String>, NetlinkError> {
    // A bridge that the switch could not make has no device.
    let Some(link) = netlink.link(bridge)?.filter(|link| link.name == bridge) else {
        return Ok(None);
    };
    let own = addresses::of_the_host(netlink, link.index, allow)?;
    if let Some(own) = own.first() {
        return Ok(Some(format!("{}/{}", own.address, own.length)));
    }
    for any in [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ] {
        let mut table = netlink.routes_like(any)?;
        table.retain(|(_, route)| {
            route.destination().is_none() && route.leads() && route.table() == MAIN_TABLE
        });
        // A router's advertisement may have come to the bridge while it gave everything back to its uplink.
        if table.iter().any(|(device, _)| *device != link.index) {
            continue;
        }
        if let Some((_, route)) = table.first() {
            return Ok(Some(match route.gateway() {
                Some(router) => format!("its default route by {router}"),
                None => format!("its default route {}", route.shown()),
            }));
        }
    }
    Ok(None)
}
