//! Host routes, and routes to networks: replace, delete, ask. Called by the net compartment.

use std::net::{IpAddr, Ipv6Addr};

use super::link::Address;
use super::message::{Builder, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, attributes, u32_at};
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
const RTA_VIA: u16 = 18;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RT_TABLE_MAIN: u8 = 254;
/// The table of ordinary routes.
pub const MAIN_TABLE: u32 = RT_TABLE_MAIN as u32;
/// The mark of routes to networks that are made here; no routing program has this number. Host routes do not carry it: older
/// programs make and delete the same ones.
pub const PROTOCOL: u8 = 177;
/// Only at the link, without a router.
const SCOPE_LINK: u8 = 253;
/// "Made by boot scripts": what `ip route` writes when it is not told otherwise, so that either can undo the other.
pub const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
/// Answer with the table's entry, not with the cached result for the one destination.
const RTM_F_FIB_MATCH: u32 = 0x2000;
/// The kernel's default metric of IPv6 routes; named on delete so that no other route matches.
pub const METRIC: u32 = 1024;
const RTMSG: usize = 12;

/// The IPv6 route the kernel would use, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteEntry {
    /// Prefix length of the table entry, not of the question.
    pub prefix: u8,
    /// Device number, when it has one.
    pub device: Option<u32>,
    /// Whether it goes through a gateway.
    pub gateway: bool,
    /// Its place among the routes to that prefix.
    pub metric: u32,
    /// Which program or protocol made it (`RTPROT_*`).
    pub protocol: u8,
}

/// Reads what is behind the header of an `RTM_NEWROUTE`.
#[must_use]
pub fn parse_route(body: &[u8]) -> Option<RouteEntry> {
    let mut route = RouteEntry {
        prefix: *body.get(1)?,
        device: None,
        gateway: false,
        metric: 0,
        protocol: *body.get(5)?,
    };
    for (kind, value) in attributes(body.get(RTMSG..)?) {
        match kind {
            RTA_OIF => route.device = u32_at(value, 0),
            RTA_GATEWAY | RTA_VIA => route.gateway = true,
            RTA_PRIORITY => route.metric = u32_at(value, 0).unwrap_or(0),
            _ => {}
        }
    }
    Some(route)
}

fn host_route(
    request: Builder,
    (protocol, kind): (u8, u8),
    flags: u32,
    address: Ipv6Addr,
    device: u32,
) -> Builder {
    let (source_length, tos, scope) = (0, 0, 0);
    request
        .raw(&[
            AF_INET6,
            128,
            source_length,
            tos,
            RT_TABLE_MAIN,
            protocol,
            scope,
            kind,
        ])
        .raw(&flags.to_ne_bytes())
        .attribute(RTA_DST, &address.octets())
        .u32(RTA_OIF, device)
}

/// A route to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkRoute {
    /// The network.
    pub network: Address,
    /// The device that leads to it.
    pub device: u32,
    /// The router, where there is one.
    pub gateway: Option<IpAddr>,
    /// The host's address for what it sends there.
    pub source: Option<IpAddr>,
    /// Its place among the routes to that network.
    pub metric: u32,
}

/// The default route of what comes from a network of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRoute {
    /// The network's address.
    pub from: Ipv6Addr,
    /// Length of its prefix.
    pub length: u8,
    /// The device that leads out.
    pub device: u32,
}

impl SourceRoute {
    fn message(&self, request: Builder) -> Builder {
        let (length, tos, scope, flags) = (0, 0, 0, 0_u32);
        request
            .raw(&[
                AF_INET6,
                length,
                self.length,
                tos,
                RT_TABLE_MAIN,
                PROTOCOL,
                scope,
                RTN_UNICAST,
            ])
            .raw(&flags.to_ne_bytes())
            .attribute(RTA_SRC, &self.from.octets())
            .u32(RTA_OIF, self.device)
            .u32(RTA_PRIORITY, METRIC)
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

impl NetworkRoute {
    fn message(&self, request: Builder) -> Builder {
        let v4 = self.network.address.is_ipv4();
        let family = if v4 { AF_INET } else { AF_INET6 };
        // IPv6 has no scopes of routes.
        let scope = if v4 && self.gateway.is_none() {
            SCOPE_LINK
        } else {
            0
        };
        let (source_length, tos, flags) = (0, 0, 0_u32);
        let mut request = request
            .raw(&[
                family,
                self.network.length,
                source_length,
                tos,
                RT_TABLE_MAIN,
                PROTOCOL,
                scope,
                RTN_UNICAST,
            ])
            .raw(&flags.to_ne_bytes())
            .attribute(RTA_DST, &octets(self.network.address))
            .u32(RTA_OIF, self.device)
            .u32(RTA_PRIORITY, self.metric);
        for (kind, address) in [(RTA_GATEWAY, self.gateway), (RTA_PREFSRC, self.source)] {
            if let Some(address) = address {
                request = request.attribute(kind, &octets(address));
            }
        }
        request
    }
}

impl Netlink {
    /// Sets a route, in place of one to the same network with the same metric.
    ///
    /// # Errors
    /// `ENETUNREACH` where the device does not reach the gateway, `EINVAL` for a source that the host does not have.
    pub fn network_route_replace(&mut self, route: &NetworkRoute) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
        self.ask(route.message(request)).map(drop)
    }

    /// Sets a route where none is to the same network with the same metric.
    ///
    /// # Errors
    /// `EEXIST` where there is one, otherwise as [`Netlink::network_route_replace`].
    pub fn network_route_create(&mut self, route: &NetworkRoute) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
        self.ask(route.message(request)).map(drop)
    }

    /// Deletes a route that [`Netlink::network_route_replace`] made, and no other.
    ///
    /// # Errors
    /// `ESRCH` where there is no such route.
    pub fn network_route_delete(&mut self, route: &NetworkRoute) -> Result<(), NetlinkError> {
        self.ask(route.message(Builder::request(RTM_DELROUTE, 0)))
            .map(drop)
    }

    /// Sets a source's default route where it has none with the usual metric.
    ///
    /// # Errors
    /// `EEXIST` where it has one, `EINVAL` where the kernel has no routes by source (`CONFIG_IPV6_SUBTREES`).
    pub fn source_route_create(&mut self, route: &SourceRoute) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
        self.ask(route.message(request)).map(drop)
    }

    /// Sets a source's default route in place of the one that it has with the usual metric.
    ///
    /// # Errors
    /// As [`Netlink::source_route_create`], but for `EEXIST`.
    pub fn source_route_replace(&mut self, route: &SourceRoute) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
        self.ask(route.message(request)).map(drop)
    }

    /// Deletes a route that [`Netlink::source_route_create`] made, and no other.
    ///
    /// # Errors
    /// `ESRCH` where there is no such route.
    pub fn source_route_delete(&mut self, route: &SourceRoute) -> Result<(), NetlinkError> {
        self.ask(route.message(Builder::request(RTM_DELROUTE, 0)))
            .map(drop)
    }

    /// The entry of the main table that traffic to `address` out of `device` (0: any) would use.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with `ENETUNREACH` when there is none.
    pub fn route_match(
        &mut self,
        address: Ipv6Addr,
        device: u32,
    ) -> Result<RouteEntry, NetlinkError> {
        let request = Builder::request(RTM_GETROUTE, 0);
        let request = host_route(request, (0, 0), RTM_F_FIB_MATCH, address, device);
        let answer = self
            .ask(request)?
            .ok_or(NetlinkError::Malformed("no route in the answer"))?;
        parse_route(&answer).ok_or(NetlinkError::Malformed("a route without header"))
    }

    /// Makes `address`/128 go out of `device`, whatever it did before. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the kernel's reason (`ENODEV`, `ENETDOWN`, `EACCES`: IPv6 is off there).
    pub fn host_route_replace(
        &mut self,
        address: Ipv6Addr,
        device: u32,
    ) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
        let request = host_route(request, (RTPROT_BOOT, RTN_UNICAST), 0, address, device);
        self.ask(request.u32(RTA_PRIORITY, METRIC)).map(drop)
    }

    /// Deletes the route that [`Netlink::host_route_replace`] makes, and no other: same address, prefix length 128,
    /// device, table, protocol and metric.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with `ESRCH` when there is no such route.
    pub fn host_route_delete(
        &mut self,
        address: Ipv6Addr,
        device: u32,
    ) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_DELROUTE, 0);
        let request = host_route(request, (RTPROT_BOOT, RTN_UNICAST), 0, address, device);
        self.ask(request.u32(RTA_PRIORITY, METRIC)).map(drop)
    }
}
