//! Entries of the routing tables whole, with everything that the kernel says about them, so that they can be given to another
//! device as they are. Called by the net compartment when an uplink becomes a bridge's port, and before it sets a route.

use std::net::IpAddr;

use super::link::Address;
use super::message::{Builder, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, attributes, u16_at, u32_at};
use super::{Netlink, NetlinkError};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_FLOW: u16 = 11;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_PREF: u16 = 20;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_ENCAP: u16 = 22;
const RTA_EXPIRES: u16 = 23;
const RTA_NH_ID: u16 = 30;
const RTN_UNICAST: u8 = 1;
const RT_TABLE_LOCAL: u32 = 255;
/// The gateway is taken to be at the link, whatever the addresses say.
const RTNH_F_ONLINK: u32 = 4;
/// Of the clock that lifetimes of routes are told in.
const TICKS_A_SECOND: u32 = 100;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RTMSG: usize = 12;

/// The kernel's copy for one destination of an entry that was used.
const RTM_F_CLONED: u32 = 0x200;

/// An entry of a routing table with everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRoute {
    /// `RTN_*`.
    kind: u8,
    family: u8,
    length: u8,
    source_length: u8,
    tos: u8,
    table: u8,
    protocol: u8,
    scope: u8,
    flags: u32,
    /// Goes out of more than one device, or by way of a next hop that stands for itself.
    shared: bool,
    rest: Vec<(u16, Vec<u8>)>,
}

impl TableRoute {
    /// Leads somewhere; other kinds refuse what they are for, or are for the host itself.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.kind == RTN_UNICAST
    }

    /// Goes out of more than one device as one route, or by way of a next hop that stands for itself: it cannot be moved alone.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Its gateway is taken to be at the link, whatever other routes say.
    #[must_use]
    pub fn is_onlink(&self) -> bool {
        self.flags & RTNH_F_ONLINK != 0
    }

    /// Needs another route to reach its gateway.
    #[must_use]
    pub fn has_gateway(&self) -> bool {
        self.part(RTA_GATEWAY).is_some() || self.part(RTA_VIA).is_some()
    }

    /// To a network that every device has: its own link.
    #[must_use]
    pub fn is_of_the_link(&self) -> bool {
        let link_local = |dst: &[u8]| dst.first() == Some(&0xfe) && dst.get(1) == Some(&0x80);
        self.family == AF_INET6 && self.part(RTA_DST).is_some_and(link_local)
    }

    /// The two say the same but for the device and for who made them.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let numbers = |route: &Self| {
            (
                route.family,
                route.length,
                route.source_length,
                route.tos,
                route.table(),
                route.metric(),
            )
        };
        let parts = [RTA_DST, RTA_SRC, RTA_GATEWAY, RTA_VIA];
        numbers(self) == numbers(other)
            && parts
                .iter()
                .all(|kind| self.part(*kind) == other.part(*kind))
    }

    /// What it leads to first: its gateway, or else its destination. `None` for a default route without a gateway.
    #[must_use]
    pub fn leads_to(&self) -> Option<IpAddr> {
        let gateway = self.part(RTA_GATEWAY).and_then(address_of);
        // Family, then address.
        let via = || self.part(RTA_VIA)?.get(2..).and_then(address_of);
        let destination = || self.part(RTA_DST).and_then(address_of);
        match self.has_gateway() {
            true => gateway.or_else(via),
            false => destination(),
        }
    }

    /// In words, for messages.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.part(RTA_DST).and_then(address_of) {
            Some(address) => format!("{address}/{}", self.length),
            None if self.family == AF_INET => "0.0.0.0/0".to_owned(),
            None => "::/0".to_owned(),
        }
    }

    /// Who made it (`RTPROT_*`).
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Its place among the routes to one network; 0 where none was given.
    #[must_use]
    pub fn metric(&self) -> u32 {
        self.number(RTA_PRIORITY).unwrap_or(0)
    }

    /// The table that it is in.
    #[must_use]
    pub fn table(&self) -> u32 {
        self.number(RTA_TABLE).unwrap_or(self.table.into())
    }

    /// The host's address that it asks for.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.part(RTA_PREFSRC).and_then(address_of)
    }

    /// The router that it leads through.
    #[must_use]
    pub fn gateway(&self) -> Option<IpAddr> {
        self.leads_to().filter(|_| self.has_gateway())
    }

    /// The network that it is for; `None` for a default route.
    #[must_use]
    pub fn destination(&self) -> Option<Address> {
        let address = self.part(RTA_DST).and_then(address_of)?;
        let length = self.length;
        Some(Address { address, length })
    }

    /// Whether it is the route to that network, whatever its metric and table.
    #[must_use]
    pub fn is_to(&self, network: Address) -> bool {
        // The kernel writes no destination beside a route to everything.
        let everything = || {
            let same_family = (self.family == AF_INET) == network.address.is_ipv4();
            self.length == 0 && network.length == 0 && self.part(RTA_DST).is_none() && same_family
        };
        self.source_length == 0 && (self.destination() == Some(network) || everything())
    }

    /// The network that packets have to come from for it, where it is not for all.
    #[must_use]
    pub fn from(&self) -> Option<Address> {
        let address = self.part(RTA_SRC).and_then(address_of)?;
        let length = self.source_length;
        (length > 0).then_some(Address { address, length })
    }

    /// Whether it is a default route for what comes from that network, whatever its metric and table.
    #[must_use]
    pub fn is_default_from(&self, network: Address) -> bool {
        self.length == 0 && self.from() == Some(network)
    }

    fn part(&self, wanted: u16) -> Option<&[u8]> {
        let found = self.rest.iter().find(|(kind, _)| *kind == wanted);
        found.map(|(_, value)| value.as_slice())
    }

    fn number(&self, kind: u16) -> Option<u32> {
        u32_at(self.part(kind)?, 0)
    }

    fn message(&self, request: Builder, device: u32, parts: &[u16]) -> Builder {
        let mut request = request
            .raw(&[
                self.family,
                self.length,
                self.source_length,
                self.tos,
                self.table,
                self.protocol,
                self.scope,
                self.kind,
            ])
            .raw(&(self.flags & RTNH_F_ONLINK).to_ne_bytes())
            .u32(RTA_OIF, device);
        for (kind, value) in self.rest.iter().filter(|(kind, _)| parts.contains(kind)) {
            request = request.attribute(*kind, value);
        }
        request
    }
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// Reads what is behind the header of an `RTM_NEWROUTE`: each device that it goes out of, with the route as it is there; 0
/// stands for no device. Nothing for the kernel's own of local addresses. An IPv6 route over several hops is as many routes, which only look like one; an IPv4
/// one is one.
#[must_use]
pub fn parse_table_route(body: &[u8]) -> Vec<(u32, TableRoute)> {
    let Some(
        [
            family,
            length,
            source_length,
            tos,
            table,
            protocol,
            scope,
            kind,
        ],
    ) = body.first_chunk::<8>().copied()
    else {
        return Vec::new();
    };
    let (Some(flags), Some(rest)) = (u32_at(body, 8), body.get(RTMSG..)) else {
        return Vec::new();
    };
    if flags & RTM_F_CLONED != 0 || !matches!(family, AF_INET | AF_INET6) {
        return Vec::new();
    }
    let mut route = TableRoute {
        kind,
        family,
        length,
        source_length,
        tos,
        table,
        protocol,
        scope,
        flags,
        shared: false,
        rest: Vec::new(),
    };
    let (mut device, mut several) = (None, None);
    for (kind, value) in attributes(rest) {
        match kind {
            RTA_OIF => device = u32_at(value, 0),
            RTA_NH_ID => route.shared = true,
            RTA_MULTIPATH => several = Some(hops(value)),
            // A lifetime is told in one form and set in another.
            RTA_CACHEINFO => {
                let ticks = u32_at(value, 8).filter(|ticks| family == AF_INET6 && *ticks > 0);
                if let Some(ticks) = ticks.filter(|ticks| *ticks <= i32::MAX as u32) {
                    let seconds = ticks.div_ceil(TICKS_A_SECOND);
                    route
                        .rest
                        .push((RTA_EXPIRES, seconds.to_ne_bytes().to_vec()));
                }
            }
            other => route.rest.push((other, value.to_vec())),
        }
    }
    if route.table() == RT_TABLE_LOCAL {
        return Vec::new();
    }
    let Some(several) = several else {
        return vec![(device.unwrap_or(0), route)];
    };
    let of_hop = |hop: Hop| {
        let mut one = route.clone();
        one.shared |= family == AF_INET || hop.weighted;
        one.flags |= hop.flags;
        one.rest.extend(hop.rest);
        (hop.device, one)
    };
    several.into_iter().map(of_hop).collect()
}

/// One of several next hops.
struct Hop {
    device: u32,
    flags: u32,
    /// Takes more of the traffic than others.
    weighted: bool,
    rest: Vec<(u16, Vec<u8>)>,
}

/// Several next hops: each a header with its length, and attributes.
fn hops(mut rest: &[u8]) -> Vec<Hop> {
    const HEADER: usize = 8;
    let mut list = Vec::new();
    while let (Some(length), Some(device)) = (u16_at(rest, 0), u32_at(rest, 4)) {
        let own = rest.get(HEADER..usize::from(length)).unwrap_or_default();
        list.push(Hop {
            device,
            flags: rest.get(2).copied().map_or(0, u32::from),
            weighted: rest.get(3).is_some_and(|weight| *weight != 0),
            rest: attributes(own)
                .map(|(kind, value)| (kind, value.to_vec()))
                .collect(),
        });
        let next = usize::from(length).max(HEADER).next_multiple_of(4);
        rest = rest.get(next..).unwrap_or_default();
    }
    list
}

impl Netlink {
    /// The ordinary routes of all tables but the kernel's own that go out of a device, the first hop's before those that need
    /// it.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn table_routes(&mut self, index: u32) -> Result<Vec<TableRoute>, NetlinkError> {
        let mut list = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let routes = self.routes_of(family)?.into_iter();
            list.extend(
                routes
                    .filter(|(of, route)| *of == index && route.leads())
                    .map(|(_, route)| route),
            );
        }
        list.sort_by_key(TableRoute::has_gateway);
        Ok(list)
    }

    /// All routes of the address's family but the kernel's own of local addresses, with the devices they go out of (0: none).
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn routes_like(&mut self, address: IpAddr) -> Result<Vec<(u32, TableRoute)>, NetlinkError> {
        self.routes_of(if address.is_ipv4() { AF_INET } else { AF_INET6 })
    }

    /// All of one family, whole: what is decided by it must not miss one because others changed meanwhile.
    fn routes_of(&mut self, family: u8) -> Result<Vec<(u32, TableRoute)>, NetlinkError> {
        let mut header = [0; RTMSG];
        header[0] = family;
        let request = || Builder::request(RTM_GETROUTE, NLM_F_DUMP).raw(&header);
        let lists = self.whole_list(request, |body| Some(parse_table_route(body)))?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// Makes a route go out of a device, beside one like it that goes out of another.
    ///
    /// # Errors
    /// `EEXIST` where it is there already, `ENETUNREACH` where the device does not reach the gateway.
    pub fn give_route(&mut self, route: &TableRoute, index: u32) -> Result<(), NetlinkError> {
        const PARTS: [u16; 13] = [
            RTA_DST,
            RTA_SRC,
            RTA_GATEWAY,
            RTA_PRIORITY,
            RTA_PREFSRC,
            RTA_METRICS,
            RTA_FLOW,
            RTA_TABLE,
            RTA_VIA,
            RTA_PREF,
            RTA_ENCAP_TYPE,
            RTA_ENCAP,
            RTA_EXPIRES,
        ];
        let request = Builder::request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND);
        self.ask(route.message(request, index, &PARTS)).map(drop)
    }

    /// Deletes such a route of a device.
    ///
    /// # Errors
    /// `ESRCH` where it is not there.
    pub fn take_route(&mut self, route: &TableRoute, index: u32) -> Result<(), NetlinkError> {
        const PARTS: [u16; 6] = [
            RTA_DST,
            RTA_SRC,
            RTA_GATEWAY,
            RTA_PRIORITY,
            RTA_TABLE,
            RTA_VIA,
        ];
        let request = Builder::request(RTM_DELROUTE, 0);
        self.ask(route.message(request, index, &PARTS)).map(drop)
    }
}

#[cfg(test)]
mod tests;
