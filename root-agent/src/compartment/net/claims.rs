//! What of the address space is somebody else's already: networks at devices that the caller may not name, and the routers that
//! others' routes lead through. What would take traffic from those is refused before anything is changed. Pure but for the names
//! of devices; used by whatever sets routes to networks or gives addresses to devices.

use std::fmt;
use std::net::IpAddr;

use blockhost_netlink::route::{MAIN_TABLE, PROTOCOL};
use blockhost_netlink::table::TableRoute;
use blockhost_netlink::{Address, Netlink, NetlinkError};

/// What a route or an address would take away, and the device that it is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    /// The router of a route that this agent did not make. It is nobody's to take.
    Router(IpAddr, u32),
    /// A network. Whoever may name the device may take it from there.
    Network(Address, u32),
}

/// What is to be set: to where, out of which device, and how it ranks among routes to the same network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub network: Address,
    pub device: u32,
    /// `None` for an address of the host itself, which comes before all routes.
    pub metric: Option<u32>,
}

impl Wanted {
    /// The host's own address on that device.
    pub fn own(address: IpAddr, device: u32) -> Self {
        let length = if address.is_ipv4() { 32 } else { 128 };
        Self {
            network: Address { address, length },
            device,
            metric: None,
        }
    }

    /// The network that comes with such an address of that device. Of the kernel's own routes to one network the older IPv4 one
    /// holds, and neither IPv6 one.
    pub fn network_of(own: Address, device: u32) -> Self {
        let metric = if own.address.is_ipv4() { 0 } else { 255 };
        Self {
            network: own.network(),
            device,
            metric: Some(metric),
        }
    }

    /// Whether a route that is there comes first for what both are for.
    fn comes_after(&self, to: Address, metric: u32) -> bool {
        let Some(own) = self.metric else {
            return false;
        };
        to.length > self.network.length || to.length == self.network.length && metric <= own
    }

    /// Whose traffic it would take, by the routes of its family.
    pub fn takes(&self, table: &[(u32, TableRoute)]) -> Vec<Claim> {
        let leading = || table.iter().filter(|(_, route)| route.leads());
        let main = || leading().filter(|(_, route)| route.table() == MAIN_TABLE);
        let others = |device: u32| device != self.device;
        let goes_elsewhere = |router: IpAddr| {
            main().any(|(_, route)| {
                let to = route.destination().filter(|to| to.reaches(router));
                to.is_some_and(|to| self.comes_after(to, route.metric()))
            })
        };
        let routers = leading().filter_map(|(device, route)| {
            let plain = route.protocol() != PROTOCOL && !route.is_onlink();
            let router = route.gateway().filter(|_| plain && others(*device))?;
            let taken = self.network.reaches(router) && !goes_elsewhere(router);
            taken.then_some(Claim::Router(router, *device))
        });
        let networks = main().filter_map(|(device, route)| {
            let to = route.destination().filter(|_| others(*device))?;
            // What goes through a router is a sum of networks, of which some may be here.
            let whole = to == self.network || !route.has_gateway();
            let covers = to.length <= self.network.length && to.reaches(self.network.address);
            let taken = covers && whole && !self.comes_after(to, route.metric());
            taken.then_some(Claim::Network(to, *device))
        });
        routers.chain(networks).collect()
    }
}

/// The first of them that holds against a caller who may name the devices that `may_name` says, in words.
pub(super) fn held(
    netlink: &mut Netlink,
    claims: Vec<Claim>,
    may_name: impl Fn(&str) -> bool,
) -> Result<Option<String>, NetlinkError> {
    for claim in claims {
        let (Claim::Router(_, device) | Claim::Network(_, device)) = claim;
        let Some(link) = netlink.link_by_index(device)? else {
            continue;
        };
        if matches!(claim, Claim::Router(..)) || !may_name(&link.name) {
            return Ok(Some(format!("{claim} {}", link.name)));
        }
    }
    Ok(None)
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router(router, _) => {
                write!(f, "{router} is the router of somebody else's route, at")
            }
            Self::Network(network, _) => write!(
                f,
                "{}/{} is at a device that is not yours,",
                network.address, network.length
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPLINK: u32 = 2;
    const BRIDGE: u32 = 7;

    fn address(text: &str) -> Address {
        let (address, length) = text.split_once('/').expect("a length");
        Address {
            address: address.parse().expect("an address"),
            length: length.parse().expect("a length"),
        }
    }

    /// As the kernel tells it: destination (empty for a default route), gateway (or none), metric, protocol.
    fn route(device: u32, to: &str, gateway: &str, metric: u32, protocol: u8) -> (u32, TableRoute) {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let attribute = |kind: u16, value: &[u8]| {
            let length = u16::try_from(value.len() + 4).expect("short");
            [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
        };
        let to = (!to.is_empty()).then(|| address(to));
        let v4 = to.is_none_or(|to| to.address.is_ipv4());
        let length = to.map_or(0, |to| to.length);
        let mut body = vec![if v4 { 2 } else { 10 }, length, 0, 0, 254, protocol, 0, 1];
        body.extend([0; 4]);
        body.extend(to.iter().flat_map(|to| attribute(1, &octets(to.address))));
        body.extend(attribute(4, &device.to_ne_bytes()));
        if !gateway.is_empty() {
            body.extend(attribute(5, &octets(gateway.parse().expect("an address"))));
        }
        body.extend(attribute(6, &metric.to_ne_bytes()));
        let mut routes = blockhost_netlink::table::parse_table_route(&body);
        assert_eq!(routes.len(), 1);
        routes.remove(0)
    }

    fn host() -> Vec<(u32, TableRoute)> {
        vec![
            route(UPLINK, "", "192.168.1.1", 0, 3),
            route(UPLINK, "192.168.1.0/24", "", 0, 2),
            route(UPLINK, "10.0.0.0/8", "192.168.1.254", 0, 4),
            route(BRIDGE, "10.77.0.0/24", "", 0, 2),
        ]
    }

    #[test]
    fn a_part_of_a_network_at_another_device_is_taken_and_one_around_it_is_not() {
        let router = Claim::Router("192.168.1.1".parse().expect("an address"), UPLINK);
        let network = Claim::Network(address("192.168.1.0/24"), UPLINK);
        for (to, metric, taken) in [
            (
                "192.168.1.0/25",
                1024,
                vec![router.clone(), network.clone()],
            ),
            ("192.168.1.1/32", 1024, vec![router, network.clone()]),
            ("192.168.1.9/32", 1024, vec![network]),
            // The kernel's own is before it.
            ("192.168.1.0/24", 1, vec![]),
            ("192.168.0.0/16", 1, vec![]),
            // Networks behind a router are many.
            ("10.90.0.0/24", 1, vec![]),
            ("10.0.0.0/8", 1, vec![]),
            ("172.16.0.0/12", 1, vec![]),
        ] {
            let wanted = Wanted {
                network: address(to),
                device: BRIDGE,
                metric: Some(metric),
            };
            assert_eq!(wanted.takes(&host()), taken, "{to}");
            let there = Wanted {
                device: UPLINK,
                ..wanted
            };
            assert!(
                there
                    .takes(&host())
                    .iter()
                    .all(|claim| matches!(claim, Claim::Network(_, BRIDGE))),
                "from itself: {to}"
            );
        }
    }

    #[test]
    fn a_lower_metric_takes_the_whole_network_whoever_made_the_route() {
        for (gateway, protocol) in [("", 4), ("fd00::9", 4), ("fd00::9", 177), ("", 177)] {
            let table = [route(UPLINK, "fd90::/64", gateway, 1024, protocol)];
            for (metric, taken) in [(1, 1), (1023, 1), (1024, 0), (2000, 0)] {
                let wanted = Wanted {
                    network: address("fd90::/64"),
                    device: BRIDGE,
                    metric: Some(metric),
                };
                assert_eq!(wanted.takes(&table).len(), taken, "{gateway} {metric}");
            }
        }
    }

    #[test]
    fn an_own_address_comes_before_every_route_to_it() {
        let table = [
            route(UPLINK, "", "172.31.1.1", 0, 3),
            route(UPLINK, "172.31.1.1/32", "", 0, 3),
        ];
        let own = |text: &str| Wanted::own(text.parse().expect("an address"), BRIDGE);
        assert_eq!(own("172.31.1.1").takes(&table).len(), 2);
        assert!(own("172.31.1.2").takes(&table).is_empty());
        assert_eq!(own("192.168.1.77").takes(&host()).len(), 1);
        assert!(own("10.77.0.5").takes(&host()).is_empty());
    }
}
