//! The addresses of a device from now on: what has to be given, what taken, and in which order. Tunnels, other devices and the
//! ends of wires in containers are brought to their addresses by the same steps. Which are not to be taken, and which not to be given, is judged here, too.

use std::net::IpAddr;

use blockhost_netlink::route::PROTOCOL;
use blockhost_netlink::table::TableRoute;
use blockhost_netlink::{Address, Netlink, NetlinkError};
use rustix::io::Errno;

use super::claims::{self, Wanted};
use crate::allow::Allowlists;
use crate::failpoint;

/// How often lists are read again: an address can go with another one, and somebody else may change them, too.
const ROUNDS: usize = 3;

/// What turns the addresses of a device into those wanted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// In the way of one that is to be given: IPv6 knows an address once, whatever its network.
    before: Vec<Address>,
    give: Vec<Address>,
    take: Vec<Address>,
}

fn plan(present: &[Address], wanted: &[Address], may_go: impl Fn(&Address) -> bool) -> Plan {
    let give: Vec<Address> = wanted
        .iter()
        .filter(|address| !present.contains(address))
        .copied()
        .collect();
    let in_the_way =
        |old: &Address| old.address.is_ipv6() && give.iter().any(|new| new.address == old.address);
    let goes = |old: &&Address| !wanted.contains(old) && may_go(old);
    let gone = present.iter().filter(goes).copied();
    let (before, take) = gone.partition(in_the_way);
    Plan { before, give, take }
}

/// The addresses of a device that somebody gave it: not those of the link alone, nor those that the kernel makes of what
/// routers announce.
pub(in crate::compartment) fn given(
    netlink: &mut Netlink,
    index: u32,
) -> Result<Vec<Address>, NetlinkError> {
    let own = netlink.own_addresses(index)?;
    let mut list: Vec<Address> = own
        .iter()
        .filter(|own| own.is_global() && !own.is_announced())
        .map(|own| own.address)
        .collect();
    list.sort_unstable();
    Ok(list)
}

/// Those of a device's addresses that are not its user's to take: outside the policy's networks for such addresses, as the
/// host's own are after a handover, or with the router of a route that this agent did not make.
pub(in crate::compartment) fn of_the_host(
    netlink: &mut Netlink,
    index: u32,
    allow: &Allowlists,
) -> Result<Vec<Address>, NetlinkError> {
    let mut list = given(netlink, index)?;
    let routes = netlink.table_routes(index)?;
    let others = routes.iter().filter(|route| route.protocol() != PROTOCOL);
    let routers: Vec<IpAddr> = others.filter_map(TableRoute::gateway).collect();
    list.retain(|own| {
        let leads_out = || routers.iter().any(|router| own.reaches(*router));
        !allow.names_address(own.address, own.length) || leads_out()
    });
    Ok(list)
}

/// What stands against giving a device one of these addresses, in words: it may be a router's, or it or its network may be a
/// part of one at a device that the caller may not name. What the host has already for an address of its own is nobody else's.
pub(super) fn claimed(
    netlink: &mut Netlink,
    index: u32,
    wanted: &[Address],
    allow: &Allowlists,
) -> Result<Option<String>, NetlinkError> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let present = netlink.all_addresses()?;
    let mut tables: [Option<Vec<(u32, TableRoute)>>; 2] = [None, None];
    for new in wanted {
        if present.contains(&(index, *new)) {
            continue;
        }
        let [v4, v6] = &mut tables;
        let known = if new.address.is_ipv4() { v4 } else { v6 };
        let table = match known {
            Some(table) => table,
            None => known.insert(netlink.routes_like(new.address)?),
        };
        let mut claims = match new.network() {
            // Alone it is in no network.
            alone if alone == *new => Vec::new(),
            _ => Wanted::network_of(*new, index).takes(table),
        };
        if !present.iter().any(|(_, old)| old.address == new.address) {
            claims.extend(Wanted::own(new.address, index).takes(table));
        }
        let held = claims::held(netlink, claims, |device| allow.names_device(device))?;
        if let Some(whose) = held {
            return Ok(Some(format!("{} is not given: {whose}", new.address)));
        }
    }
    Ok(None)
}

/// Brings a device to these addresses; of others only those go that `may_go` says. New ones come first: a device that keeps an address never is without one. Those that
/// stay are not touched.
pub(in crate::compartment) fn bring_to(
    netlink: &mut Netlink,
    index: u32,
    wanted: &[Address],
    may_go: impl Fn(&Address) -> bool,
) -> Result<(), NetlinkError> {
    let remove = |netlink: &mut Netlink, address| match netlink.address_remove(index, address) {
        // Secondary addresses go with the first of their network.
        Err(error) if error.refusal() == Some(Errno::ADDRNOTAVAIL) => Ok(()),
        other => other,
    };
    for _ in 0..ROUNDS {
        let plan = plan(&given(netlink, index)?, wanted, &may_go);
        if plan == Plan::default() {
            return Ok(());
        }
        for address in plan.before {
            remove(netlink, address)?;
        }
        for address in plan.give {
            netlink.address_add(index, address)?;
            failpoint::reach("net-address", b"given");
        }
        for address in plan.take {
            remove(netlink, address)?;
            failpoint::reach("net-address", b"taken");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> Address {
        let (address, length) = text.split_once('/').unwrap();
        Address {
            address: address.parse().unwrap(),
            length: length.parse().unwrap(),
        }
    }

    #[test]
    fn only_the_difference_is_planned_and_an_ipv6_address_with_another_length_goes_first() {
        let list = |texts: &[&str]| texts.iter().map(|text| address(text)).collect::<Vec<_>>();
        let present = list(&["10.0.0.1/24", "10.0.1.1/24", "fd00::1/64", "fd01::1/64"]);
        let wanted = list(&["10.0.0.1/24", "10.0.1.1/16", "fd00::1/48", "fd02::1/64"]);
        let expected = Plan {
            before: list(&["fd00::1/64"]),
            give: list(&["10.0.1.1/16", "fd00::1/48", "fd02::1/64"]),
            take: list(&["10.0.1.1/24", "fd01::1/64"]),
        };
        assert_eq!(plan(&present, &wanted, |_| true), expected);
        assert_eq!(plan(&wanted, &wanted, |_| true), Plan::default());
        assert_eq!(plan(&present, &[], |_| true).take, present);
        let stays = address("10.0.0.1/24");
        let rest = plan(&present, &[], |old| *old != stays).take;
        assert_eq!(rest, present[1..]);
    }

    proptest! {
        #[test]
        fn after_the_plan_there_is_what_was_wanted(present in sets(), wanted in sets()) {
            let Plan { before, give, take } = plan(&present, &wanted, |_| true);
            let mut now: Vec<Address> = present.iter().filter(|a| !before.contains(a)).copied().collect();
            for new in give {
                prop_assert!(!now.iter().any(|old| old.address == new.address && new.address.is_ipv6()));
                now.push(new);
            }
            now.retain(|address| !take.contains(address));
            now.sort_unstable();
            prop_assert_eq!(now, wanted);
        }
    }

    /// A few addresses of both families, each once.
    fn sets() -> impl Strategy<Value = Vec<Address>> {
        let one = (0u8..4, 24u8..27, any::<bool>()).prop_map(|(last, length, six)| {
            if six {
                address(&format!("fd00::{last}/{}", length + 32))
            } else {
                address(&format!("10.0.0.{last}/{length}"))
            }
        });
        proptest::collection::vec(one, 0..6).prop_map(|mut list| {
            list.sort_unstable();
            list.dedup_by_key(|address| address.address);
            list
        })
    }
}
