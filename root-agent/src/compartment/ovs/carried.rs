//! What of the host hangs on devices that go with a bridge or a port: the bridge's own, and internal ones. The kernel is only asked: the socket is opened before
//! confinement, and this process has no capability to change anything by it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use blockhost_netlink::route::MAIN_TABLE;
use blockhost_netlink::{Device, Link, Netlink, NetlinkError};
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

    /// Insists that the host keeps its addresses and its ways out when these devices go. `goes` is what they go with: "port vi100".
    ///
    /// # Errors
    /// `conflict` with what it would lose and what to do before.
    pub fn nothing_of_the_host(
        &self,
        goes: &str,
        devices: &[&str],
        allow: &Allowlists,
    ) -> Result<(), Failure> {
        self.judge(goes, |netlink| {
            let going = going(netlink, devices)?;
            match own_address(netlink, &going, allow)? {
                None => way_out(netlink, &going),
                found => Ok(found),
            }
        })
    }

    /// Insists that the host has a way out beside the one over this device of a bridge, whose uplink goes and leaves it these; one of
    /// them is enough that is up and has carrier.
    ///
    /// # Errors
    /// `conflict` with the way out that it would lose and what to do before.
    pub fn another_way_out(
        &self,
        goes: &str,
        device: &str,
        left: &[String],
    ) -> Result<(), Failure> {
        self.judge(goes, |netlink| {
            let leads = |device: &Device| {
                let link = &device.link;
                left.contains(&link.name) && link.up && device.carrier == Some(true)
            };
            if !left.is_empty() && netlink.devices()?.iter().any(leads) {
                return Ok(None);
            }
            let going = going(netlink, &[device])?;
            way_out(netlink, &going)
        })
    }

    /// Whether the kernel has a device with one of these names; not, where it cannot be asked.
    pub fn is_one_there<'a>(&self, names: impl Iterator<Item = &'a String>) -> bool {
        let names: Vec<&String> = names.collect();
        let Ok(netlink) = &self.0 else { return false };
        if names.is_empty() {
            return false;
        }
        let mut netlink = netlink.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = netlink.devices().unwrap_or_default();
        devices
            .iter()
            .any(|device| names.contains(&&device.link.name))
    }

    fn judge(
        &self,
        goes: &str,
        lost: impl FnOnce(&mut Netlink) -> Result<Option<(String, String)>, NetlinkError>,
    ) -> Result<(), Failure> {
        let unknown = |error: &NetlinkError| {
            let message = format!(
                "{goes} was not deleted: what of this host hangs on it could not be looked at: {error}"
            );
            Failure::new(ErrorCode::Failed, message)
        };
        let mut netlink = match &self.0 {
            Ok(netlink) => netlink.lock().unwrap_or_else(PoisonError::into_inner),
            Err(error) => return Err(unknown(error)),
        };
        match lost(&mut netlink).map_err(|error| unknown(&error))? {
            None => Ok(()),
            Some((device, what)) => {
                let message = format!(
                    "{goes} was not deleted: this host would lose {what} of {device} with it; move what {device} carries to another \
                     device first (link-handover, or `blockhost net uplink detach`)"
                );
                Err(Failure::new(ErrorCode::Conflict, message))
            }
        }
    }
}

/// These devices, and those that the kernel takes away with them.
fn with_what_stands_on_them(mut going: Vec<Link>, all: &[Device]) -> Vec<Link> {
    loop {
        let goes = |index: u32| going.iter().any(|link| link.index == index);
        let stands = |device: &&Device| {
            let kind = device.link.kind.as_deref();
            matches!(kind, Some("vlan" | "macvlan" | "macvtap" | "ipvlan"))
                && device.lower.is_some_and(goes)
                && !goes(device.link.index)
        };
        let more: Vec<Link> = all
            .iter()
            .filter(stands)
            .map(|one| one.link.clone())
            .collect();
        if more.is_empty() {
            return going;
        }
        going.extend(more);
    }
}

/// These devices with what stands on them; none for a bridge that the switch could not make.
fn going(netlink: &mut Netlink, devices: &[&str]) -> Result<Vec<Link>, NetlinkError> {
    let all = netlink.devices()?;
    let links = all.iter().map(|device| &device.link);
    let going: Vec<Link> = links
        .filter(|link| devices.contains(&link.name.as_str()))
        .cloned()
        .collect();
    Ok(with_what_stands_on_them(going, &all))
}

/// The first address of the host on them: of which device what, in words.
fn own_address(
    netlink: &mut Netlink,
    going: &[Link],
    allow: &Allowlists,
) -> Result<Option<(String, String)>, NetlinkError> {
    for link in going {
        let own = addresses::of_the_host(netlink, link.index, allow)?;
        if let Some(own) = own.first() {
            let address = format!("{}/{}", own.address, own.length);
            return Ok(Some((link.name.clone(), address)));
        }
    }
    Ok(None)
}

/// A way out of the host that leads over them and no other device: by which one what, in words.
fn way_out(
    netlink: &mut Netlink,
    going: &[Link],
) -> Result<Option<(String, String)>, NetlinkError> {
    if going.is_empty() {
        return Ok(None);
    }
    for any in [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ] {
        let mut table = netlink.routes_like(any)?;
        table.retain(|(_, route)| {
            route.destination().is_none() && route.leads() && route.table() == MAIN_TABLE
        });
        let goes = |device: u32| going.iter().find(|link| link.index == device);
        // A router's advertisement may have come to the bridge while it gave everything back to its uplink.
        if table.iter().any(|(device, _)| goes(*device).is_none()) {
            continue;
        }
        let found = table.first().map(|(device, route)| (goes(*device), route));
        if let Some((Some(link), route)) = found {
            let way = match route.gateway() {
                Some(router) => format!("the default route by {router}"),
                None => format!("the default route {}", route.shown()),
            };
            return Ok(Some((link.name.clone(), way)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockhost_netlink::survey::{Counters, OperState};

    fn device(index: u32, kind: Option<&str>, lower: Option<u32>) -> Device {
        Device {
            link: Link {
                index,
                name: format!("d{index}"),
                alternative: Vec::new(),
                up: true,
                mtu: 1500,
                kind: kind.map(str::to_owned),
                alias: None,
                group: 0,
                forwards: false,
                strict: false,
            },
            mac: None,
            state: OperState::Up,
            carrier: Some(true),
            master: None,
            lower,
            counters: Counters::default(),
        }
    }

    #[test]
    fn a_vlan_of_a_bridge_goes_with_it_and_so_does_what_stands_on_that_but_no_other_end_of_a_pair()
    {
        let all = [
            device(1, None, None),
            device(2, Some("vlan"), Some(1)),
            device(3, Some("macvlan"), Some(2)),
            device(4, Some("veth"), Some(1)),
            device(5, Some("vlan"), Some(4)),
            device(6, Some("vlan"), None),
        ];
        let going = with_what_stands_on_them(vec![all[0].link.clone()], &all);
        let numbers: Vec<u32> = going.iter().map(|link| link.index).collect();
        assert_eq!(numbers, [1, 2, 3]);
    }
}
