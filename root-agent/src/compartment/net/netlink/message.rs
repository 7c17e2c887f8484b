//! Bytes of rtnetlink messages: building requests and reading answers. Every length that comes in is checked against
//! what is there; nothing here does I/O. Numbers are in host byte order, as netlink wants them.

use std::net::Ipv6Addr;

use super::{Link, RouteEntry};

const RTM_GETLINK: u16 = 18;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const NLMSG_ERROR: u16 = 2;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_IFNAME: u16 = 3;
const IFLA_EXT_MASK: u16 = 29;
/// Leave the counters out of the answer.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_VIA: u16 = 18;

const AF_INET6: u8 = 10;
const RT_TABLE_MAIN: u8 = 254;
/// "Made by boot scripts": what `ip route` writes when it is not told otherwise, so that either can undo the other.
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
/// Answer with the table's entry, not with the cached result for the one destination.
const RTM_F_FIB_MATCH: u32 = 0x2000;
/// The kernel's default metric of IPv6 routes; named on delete so that no other route matches.
const METRIC: u32 = 1024;
const IFF_UP: u32 = 1;

const HEADER: usize = 16;
const IFINFO: usize = 16;
const RTMSG: usize = 12;

/// A request under construction. The total length is written by [`Builder::done`].
pub(super) struct Builder(Vec<u8>);

impl Builder {
    pub(super) fn get_link(sequence: u32, name: &str) -> Vec<u8> {
        let mut zero_terminated = name.as_bytes().to_vec();
        zero_terminated.push(0);
        Builder::start(RTM_GETLINK, 0, sequence)
            .raw(&[0; IFINFO])
            .attribute(IFLA_IFNAME, &zero_terminated)
            .attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes())
            .done()
    }

    pub(super) fn get_route(sequence: u32, address: Ipv6Addr, device: u32) -> Vec<u8> {
        Builder::start(RTM_GETROUTE, 0, sequence)
            .host_route(0, 0, RTM_F_FIB_MATCH, address, device)
            .done()
    }

    pub(super) fn new_route(sequence: u32, address: Ipv6Addr, device: u32) -> Vec<u8> {
        Builder::start(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sequence)
            .host_route(RTPROT_BOOT, RTN_UNICAST, 0, address, device)
            .attribute(RTA_PRIORITY, &METRIC.to_ne_bytes())
            .done()
    }

    pub(super) fn del_route(sequence: u32, address: Ipv6Addr, device: u32) -> Vec<u8> {
        Builder::start(RTM_DELROUTE, 0, sequence)
            .host_route(RTPROT_BOOT, RTN_UNICAST, 0, address, device)
            .attribute(RTA_PRIORITY, &METRIC.to_ne_bytes())
            .done()
    }

    fn start(kind: u16, flags: u16, sequence: u32) -> Self {
        let flags = flags | NLM_F_REQUEST | NLM_F_ACK;
        Builder(Vec::with_capacity(128))
            .raw(&[0; 4])
            .raw(&kind.to_ne_bytes())
            .raw(&flags.to_ne_bytes())
            .raw(&sequence.to_ne_bytes())
            .raw(&[0; 4])
    }

    fn host_route(
        self,
        protocol: u8,
        kind: u8,
        flags: u32,
        address: Ipv6Addr,
        device: u32,
    ) -> Self {
        let (source_length, tos, scope) = (0, 0, 0);
        self.raw(&[
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
        .attribute(RTA_OIF, &device.to_ne_bytes())
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        // Values are names of at most 15 bytes, addresses and numbers.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self = self
            .raw(&length.to_ne_bytes())
            .raw(&kind.to_ne_bytes())
            .raw(value);
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
        self
    }

    fn done(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len())
            .unwrap_or(u32::MAX)
            .to_ne_bytes();
        if let Some(field) = self.0.get_mut(..4) {
            field.copy_from_slice(&length);
        }
        self.0
    }
}

/// One message of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// Splits a datagram; yields one `None` and ends where a length field leads outside of it.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Option<Message<'_>>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let taken = take_message(rest);
        rest = taken.as_ref().map_or(&[], |(_, rest)| rest);
        Some(taken.map(|(message, _)| message))
    })
}

fn take_message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER..length)?;
    let message = Message {
        kind: u16_at(bytes, 4)?,
        sequence: u32_at(bytes, 8)?,
        body,
    };
    Some((message, bytes.get(align(length)..).unwrap_or_default()))
}

/// `None`: not an acknowledgement. `Some(None)`: one that is cut. `Some(Some(n))`: error number n, 0 for success.
pub(super) fn acknowledgement(kind: u16, body: &[u8]) -> Option<Option<i32>> {
    (kind == NLMSG_ERROR).then(|| {
        u32_at(body, 0)
            .and_then(|code| code.cast_signed().checked_neg())
            .filter(|code| *code >= 0)
    })
}

pub(super) fn parse_link(body: &[u8]) -> Option<Link> {
    let index = u32_at(body, 4)?;
    let up = u32_at(body, 8)? & IFF_UP != 0;
    let (_, name) = attributes(body.get(IFINFO..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    let name = std::str::from_utf8(name.strip_suffix(&[0])?)
        .ok()?
        .to_owned();
    (index != 0).then_some(Link { index, name, up })
}

pub(super) fn parse_route(body: &[u8]) -> Option<RouteEntry> {
    let mut route = RouteEntry {
        prefix: *body.get(1)?,
        device: None,
        gateway: false,
        protocol: *body.get(5)?,
    };
    for (kind, value) in attributes(body.get(RTMSG..)?) {
        match kind {
            RTA_OIF => route.device = u32_at(value, 0),
            RTA_GATEWAY | RTA_VIA => route.gateway = true,
            _ => {}
        }
    }
    Some(route)
}

/// Attributes as (kind, value); ends silently where a length leads outside: what was read before stays true.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Flag bits of the kind: nested, network byte order.
    const KIND: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & KIND;
        let value = rest.get(4..length)?;
        rest = rest.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_field_that_leads_outside_ends_the_reading() {
        let good = Builder::get_link(7, "eth0");
        for claimed in [0u32, 15, u32::try_from(good.len()).unwrap() + 1, u32::MAX] {
            let mut bytes = good.clone();
            bytes[..4].copy_from_slice(&claimed.to_ne_bytes());
            assert_eq!(
                messages(&bytes).collect::<Vec<_>>(),
                [None],
                "claimed length {claimed}"
            );
        }
    }

    #[test]
    fn an_attribute_of_length_zero_does_not_loop() {
        assert_eq!(attributes(&[0, 0, 1, 0, 0, 0, 1, 0]).count(), 0);
    }

    #[test]
    fn a_positive_or_extreme_error_number_is_not_taken_for_success() {
        for code in [1i32, i32::MAX, i32::MIN] {
            assert_eq!(
                acknowledgement(NLMSG_ERROR, &code.to_ne_bytes()),
                Some(None),
                "{code}"
            );
        }
        assert_eq!(acknowledgement(NLMSG_ERROR, &[0, 0]), Some(None));
        assert_eq!(
            acknowledgement(NLMSG_ERROR, &(-19i32).to_ne_bytes()),
            Some(Some(19))
        );
    }

    #[test]
    fn requests_are_whole_messages_of_their_own_length() {
        let address = "fd77::1".parse().unwrap();
        for bytes in [
            Builder::get_link(1, "vmbr0"),
            Builder::new_route(2, address, 3),
            Builder::del_route(2, address, 3),
        ] {
            assert_eq!(u32_at(&bytes, 0).unwrap() as usize, bytes.len());
            assert_eq!(messages(&bytes).flatten().count(), 1);
        }
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_reader_panic_or_read_outside(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for message in messages(&bytes).flatten() {
                prop_assert!(message.body.len() <= bytes.len());
                let _ = acknowledgement(message.kind, message.body);
            }
            let _ = parse_link(&bytes);
            let _ = parse_route(&bytes);
        }
    }
}
