//! What there is on a host, read whole: devices with their state and counters, addresses, routes. For those who look and
//! change nothing, which needs no privileges; what the agent looks up one by one is in `link` and `route`.

use std::net::IpAddr;

use super::link::{Address, Link, parse_address, parse_link};
use super::message::{Builder, NLM_F_DUMP, attribute, attributes, u16_at, u32_at, u64_at};
use super::{Netlink, NetlinkError};

const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;

const IFINFO: usize = 16;
const IFADDR: usize = 8;
const RTMSG: usize = 12;
const NEXT_HOP: usize = 8;

const IFLA_ADDRESS: u16 = 1;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_STATS64: u16 = 23;
const IFLA_CARRIER: u16 = 33;
const IFLA_LINK_NETNSID: u16 = 37;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTN_UNICAST: u8 = 1;
/// `RTN_BLACKHOLE`, `RTN_UNREACHABLE`, `RTN_PROHIBIT`, `RTN_THROW`.
const REFUSALS: std::ops::RangeInclusive<u8> = 6..=9;
const RT_TABLE_LOCAL: u32 = 255;
const RTM_F_CLONED: u32 = 0x200;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// How often a list that changed while it was read is read again.
const ATTEMPTS: usize = 8;

/// What a device can do now, in the words of RFC 2863.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperState {
    /// The driver does not say; loopback and tunnels.
    Unknown,
    /// Something of it is missing.
    NotPresent,
    /// It cannot pass packets.
    Down,
    /// What it stands on is down; a veth whose other end is down.
    LowerLayerDown,
    /// In a test.
    Testing,
    /// Waits for something outside, such as authentication.
    Dormant,
    /// It passes packets.
    Up,
}

impl OperState {
    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::NotPresent,
            2 => Self::Down,
            3 => Self::LowerLayerDown,
            4 => Self::Testing,
            5 => Self::Dormant,
            6 => Self::Up,
            _ => Self::Unknown,
        }
    }

    /// The word that `ip link` uses, in small letters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NotPresent => "notpresent",
            Self::Down => "down",
            Self::LowerLayerDown => "lowerlayerdown",
            Self::Testing => "testing",
            Self::Dormant => "dormant",
            Self::Up => "up",
        }
    }
}

/// What went through a device since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets that came in.
    pub rx_packets: u64,
    /// Packets that went out.
    pub tx_packets: u64,
    /// Bytes that came in.
    pub rx_bytes: u64,
    /// Bytes that went out.
    pub tx_bytes: u64,
    /// Broken packets that came in.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets dropped on their way in.
    pub rx_dropped: u64,
    /// Packets dropped on their way out.
    pub tx_dropped: u64,
}

/// A network device with everything that is shown of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Number, names, kind.
    pub link: Link,
    /// Hardware address, where it has one.
    pub mac: Option<[u8; 6]>,
    /// What it can do now.
    pub state: OperState,
    /// Whether there is a signal; `None` where the kernel does not say.
    pub carrier: Option<bool>,
    /// Number of the bridge or other device that it belongs to.
    pub master: Option<u32>,
    /// Number of its other end or of what it stands on, where that is in the same network namespace.
    pub lower: Option<u32>,
    /// What went through.
    pub counters: Counters,
}

/// One way of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Number of the device.
    pub device: Option<u32>,
    /// The gateway; none for what is reached directly.
    pub gateway: Option<IpAddr>,
}

/// A route of any table but the kernel's own one of local addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination; the unspecified address with length 0 for the default route.
    pub destination: Address,
    /// Where it goes; more than one where it spreads over several.
    pub hops: Vec<Hop>,
    /// Smaller is preferred.
    pub metric: u32,
    /// Number of its table; 254 is the main one.
    pub table: u32,
    /// Which program or protocol made it (`RTPROT_*`).
    pub protocol: u8,
    /// Whether it leads somewhere; one that does not (blackhole, unreachable, prohibit, throw) refuses what it is for.
    pub leads: bool,
}

impl Route {
    /// Whether it is for everything that no other route is for.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.destination.length == 0
    }
}

/// Reads what is behind the header of an `RTM_NEWLINK`, with state and counters.
#[must_use]
pub fn parse_device(body: &[u8]) -> Option<Device> {
    let link = parse_link(body)?;
    let rest = body.get(IFINFO..)?;
    let number = |kind| attribute(rest, kind).and_then(|value| u32_at(value, 0));
    let byte = |kind| attribute(rest, kind).and_then(|value| value.first().copied());
    let elsewhere = attribute(rest, IFLA_LINK_NETNSID).is_some();
    Some(Device {
        link,
        mac: attribute(rest, IFLA_ADDRESS)
            .and_then(|value| <[u8; 6]>::try_from(value).ok())
            .filter(|mac| *mac != [0; 6]),
        state: OperState::from_number(byte(IFLA_OPERSTATE).unwrap_or_default()),
        carrier: byte(IFLA_CARRIER).map(|carrier| carrier != 0),
        master: number(IFLA_MASTER).filter(|master| *master != 0),
        lower: number(IFLA_LINK).filter(|lower| *lower != 0 && !elsewhere),
        counters: attribute(rest, IFLA_STATS64)
            .and_then(parse_counters)
            .unwrap_or_default(),
    })
}

fn parse_counters(bytes: &[u8]) -> Option<Counters> {
    let at = |place: usize| u64_at(bytes, place * 8);
    Some(Counters {
        rx_packets: at(0)?,
        tx_packets: at(1)?,
        rx_bytes: at(2)?,
        tx_bytes: at(3)?,
        rx_errors: at(4)?,
        tx_errors: at(5)?,
        rx_dropped: at(6)?,
        tx_dropped: at(7)?,
    })
}

/// Reads what is behind the header of an `RTM_NEWROUTE` of a list; `None` for what is not a route to somewhere else.
#[must_use]
pub fn parse_route(body: &[u8]) -> Option<Route> {
    let family = u16::from(*body.first()?);
    let length = *body.get(1)?;
    let (table, protocol, kind) = (*body.get(4)?, *body.get(5)?, *body.get(7)?);
    let leads = kind == RTN_UNICAST;
    if !(leads || REFUSALS.contains(&kind)) || u32_at(body, 8)? & RTM_F_CLONED != 0 {
        return None;
    }
    let rest = body.get(RTMSG..)?;
    let number = |kind| attribute(rest, kind).and_then(|value| u32_at(value, 0));
    let address = match attribute(rest, RTA_DST) {
        Some(value) => ip(family, value)?,
        None if length == 0 => unspecified(family)?,
        None => return None,
    };
    if length > if address.is_ipv4() { 32 } else { 128 } {
        return None;
    }
    let hops = match attribute(rest, RTA_MULTIPATH) {
        Some(list) => next_hops(family, list),
        None => vec![Hop {
            device: number(RTA_OIF),
            gateway: gateway(family, rest),
        }],
    };
    let table = number(RTA_TABLE).unwrap_or(u32::from(table));
    (table != RT_TABLE_LOCAL).then_some(Route {
        destination: Address { address, length },
        hops,
        metric: number(RTA_PRIORITY).unwrap_or_default(),
        table,
        protocol,
        leads,
    })
}

/// `struct rtnexthop`: length, flags, weight, device, then attributes. Ends where a length leads outside.
fn next_hops(family: u16, mut list: &[u8]) -> Vec<Hop> {
    let mut hops = Vec::new();
    while let (Some(length), Some(device)) = (u16_at(list, 0), u32_at(list, 4)) {
        let length = usize::from(length);
        let Some(inside) = list.get(NEXT_HOP..length) else {
            break;
        };
        hops.push(Hop {
            device: Some(device).filter(|device| *device != 0),
            gateway: gateway(family, inside),
        });
        list = list.get((length + 3) & !3..).unwrap_or_default();
    }
    hops
}

fn gateway(family: u16, attributes_of: &[u8]) -> Option<IpAddr> {
    attributes(attributes_of).find_map(|(kind, value)| match kind {
        RTA_GATEWAY => ip(family, value),
        // Family in two bytes, then the address: a gateway of the other family.
        RTA_VIA => ip(u16_at(value, 0)?, value.get(2..)?),
        _ => None,
    })
}

fn ip(family: u16, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        AF_INET6 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

fn unspecified(family: u16) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::from([0; 4])),
        AF_INET6 => Some(IpAddr::from([0; 16])),
        _ => None,
    }
}

impl Netlink {
    /// Every device with its state and counters, by number.
    ///
    /// # Errors
    /// [`NetlinkError`]; [`NetlinkError::Changing`] where it never stands still for one reading.
    pub fn devices(&mut self) -> Result<Vec<Device>, NetlinkError> {
        let request = || Builder::request(RTM_GETLINK, NLM_F_DUMP).raw(&[0; IFINFO]);
        let mut devices = self.whole_list(request, parse_device)?;
        devices.sort_unstable_by_key(|device| device.link.index);
        Ok(devices)
    }

    /// Every address with the number of its device, link-local ones too.
    ///
    /// # Errors
    /// As [`Netlink::devices`].
    pub fn all_addresses(&mut self) -> Result<Vec<(u32, Address)>, NetlinkError> {
        let request = || Builder::request(RTM_GETADDR, NLM_F_DUMP).raw(&[0; IFADDR]);
        let mut addresses = self.whole_list(request, parse_address)?;
        addresses.sort_unstable();
        Ok(addresses)
    }

    /// Every route of both families and all tables, but for the kernel's own of local addresses, multicast and the like.
    ///
    /// # Errors
    /// As [`Netlink::devices`].
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let request = || Builder::request(RTM_GETROUTE, NLM_F_DUMP).raw(&[0; RTMSG]);
        let mut routes = self.whole_list(request, parse_route)?;
        routes.sort_by_key(|route| (route.table, route.destination, route.metric));
        Ok(routes)
    }

    pub(crate) fn whole_list<T>(
        &mut self,
        request: impl Fn() -> Builder,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..ATTEMPTS {
            let mut list = Vec::new();
            self.dump(request(), |body| list.extend(parse(body)))?;
            if !self.interrupted {
                return Ok(list);
            }
        }
        Err(NetlinkError::Changing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(head: [u8; 8], rest: Builder) -> Vec<u8> {
        let mut bytes = head.to_vec();
        bytes.extend([0; 4]);
        bytes.extend(rest.done_inside());
        bytes
    }

    const V4: [u8; 8] = [2, 0, 0, 0, 254, 4, 0, 1];

    #[test]
    fn a_default_route_has_a_gateway_and_a_device() {
        let body = route(
            V4,
            Builder::inside()
                .attribute(RTA_GATEWAY, &[192, 0, 2, 1])
                .u32(RTA_OIF, 2)
                .u32(RTA_PRIORITY, 100),
        );
        let route = parse_route(&body).unwrap();
        assert!(route.is_default());
        assert_eq!((route.metric, route.table, route.protocol), (100, 254, 4));
        let gateway = Some("192.0.2.1".parse().unwrap());
        assert_eq!(
            route.hops,
            [Hop {
                device: Some(2),
                gateway
            }]
        );
    }

    #[test]
    fn an_ipv4_route_over_an_ipv6_gateway_and_one_over_two_devices_are_understood() {
        let mut via = AF_INET6.to_ne_bytes().to_vec();
        via.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let body = route(V4, Builder::inside().attribute(RTA_VIA, &via));
        let hop = parse_route(&body).unwrap().hops[0];
        assert_eq!(hop.gateway, Some("fe80::1".parse().unwrap()));

        let one = |device: u32, last: u8| {
            let inside = Builder::inside()
                .attribute(RTA_GATEWAY, &[192, 0, 2, last])
                .done_inside();
            let length = u16::try_from(NEXT_HOP + inside.len()).unwrap();
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend([0, 0]);
            bytes.extend(device.to_ne_bytes());
            bytes.extend(inside);
            bytes
        };
        let both = [one(2, 1), one(3, 2)].concat();
        let body = route(V4, Builder::inside().attribute(RTA_MULTIPATH, &both));
        let hops = parse_route(&body).unwrap().hops;
        assert_eq!(
            hops.iter().map(|hop| hop.device).collect::<Vec<_>>(),
            [Some(2), Some(3)]
        );
    }

    #[test]
    fn local_cached_and_impossible_routes_are_left_out() {
        let local = [2, 32, 0, 0, 255, 2, 254, 2];
        let to = || Builder::inside().attribute(RTA_DST, &[192, 0, 2, 1]);
        assert_eq!(parse_route(&route(local, to())), None);
        // A destination of 33 bits, one without an address, one of the wrong family.
        assert_eq!(parse_route(&route([2, 33, 0, 0, 254, 4, 0, 1], to())), None);
        assert_eq!(
            parse_route(&route([2, 24, 0, 0, 254, 4, 0, 1], Builder::inside())),
            None
        );
        assert_eq!(
            parse_route(&route([10, 24, 0, 0, 254, 4, 0, 1], to())),
            None
        );
    }

    #[test]
    fn a_next_hop_of_length_zero_does_not_loop() {
        assert_eq!(next_hops(AF_INET, &[0; 64]), []);
        assert_eq!(next_hops(AF_INET, &[7, 0, 0, 0, 1, 0, 0, 0]), []);
    }

    #[test]
    fn this_hosts_devices_addresses_and_routes_can_be_read_without_privileges() {
        let mut netlink = Netlink::open().unwrap();
        let devices = netlink.devices().unwrap();
        let loopback = devices.iter().find(|device| device.link.name == "lo");
        let loopback = loopback.expect("every namespace has a loopback");
        assert_eq!((loopback.link.index, loopback.mac), (1, None));
        for (index, _) in netlink.all_addresses().unwrap() {
            assert!(devices.iter().any(|device| device.link.index == index));
        }
        for route in netlink.routes().unwrap() {
            assert_ne!(route.table, RT_TABLE_LOCAL);
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_device(&bytes);
            let _ = parse_route(&bytes);
            let _ = next_hops(AF_INET6, &bytes);
        }
    }
}
