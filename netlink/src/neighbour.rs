//! Neighbours: who on the same wire has answered, and how long ago; and the addresses that this host answers for though they
//! are others'. The first is only looked at, the second changed by the net compartment.

use std::net::IpAddr;
use std::time::Duration;

use super::message::{Builder, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, attribute, u16_at, u32_at};
use super::route::PROTOCOL;
use super::{Netlink, NetlinkError};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const NDMSG: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_CACHEINFO: u16 = 3;
const NDA_PROTOCOL: u16 = 12;
/// It is answered for in the name of another.
const NTF_PROXY: u8 = 0x08;
const NUD_PERMANENT: u16 = 0x80;

const NUD_REACHABLE: u16 = 0x02;
const NUD_STALE: u16 = 0x04;
const NUD_DELAY: u16 = 0x08;
const NUD_PROBE: u16 = 0x10;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The kernel counts these times in hundredths of a second, on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// A neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Number of the device that it is behind.
    pub device: u32,
    /// Its address.
    pub address: IpAddr,
    /// How long ago it was last heard of; `None` where it does not answer, or never had to.
    pub confirmed: Option<Duration>,
}

/// An address that this host answers for on a wire though it has it on no device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proxy {
    /// Number of the device that it is answered on.
    pub device: u32,
    /// The address.
    pub address: IpAddr,
    /// Whether the agent set it.
    pub ours: bool,
}

/// Reads what is behind the header of an `RTM_NEWNEIGH` that is about a proxy.
#[must_use]
pub fn parse_proxy(body: &[u8]) -> Option<Proxy> {
    let (family, flags) = (*body.first()?, *body.get(10)?);
    let device = u32_at(body, 4)?;
    let rest = body.get(NDMSG..)?;
    let address = address_of(family, attribute(rest, NDA_DST)?)?;
    let protocol = attribute(rest, NDA_PROTOCOL).and_then(|value| value.first().copied());
    (flags & NTF_PROXY != 0).then_some(Proxy {
        device,
        address,
        ours: protocol == Some(PROTOCOL),
    })
}

fn address_of(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        AF_INET6 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

/// Reads what is behind the header of an `RTM_NEWNEIGH`.
#[must_use]
pub fn parse_neighbour(body: &[u8]) -> Option<Neighbour> {
    let family = *body.first()?;
    let (device, state) = (u32_at(body, 4)?, u16_at(body, 8)?);
    let rest = body.get(NDMSG..)?;
    let address = address_of(family, attribute(rest, NDA_DST)?)?;
    let heard = state & (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE) != 0
        && attribute(rest, NDA_LLADDR).is_some();
    let confirmed = attribute(rest, NDA_CACHEINFO)
        .and_then(|info| u32_at(info, 0))
        .filter(|_| heard)
        .map(|ticks| TICK.saturating_mul(ticks));
    Some(Neighbour {
        device,
        address,
        confirmed,
    })
}

impl Netlink {
    /// Every neighbour of both families.
    ///
    /// # Errors
    /// As [`Netlink::devices`].
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, NetlinkError> {
        let request = || Builder::request(RTM_GETNEIGH, NLM_F_DUMP).raw(&[0; NDMSG]);
        self.whole_list(request, parse_neighbour)
    }

    /// Every address that this host answers for in the name of others.
    ///
    /// # Errors
    /// As [`Netlink::devices`].
    pub fn proxies(&mut self) -> Result<Vec<Proxy>, NetlinkError> {
        let mut header = [0; NDMSG];
        header[10] = NTF_PROXY;
        let request = || Builder::request(RTM_GETNEIGH, NLM_F_DUMP).raw(&header);
        self.whole_list(request, parse_proxy)
    }

    /// Answers for an address on a device; the same again changes nothing.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn proxy_add(&mut self, device: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
        let request = about(request, device, address).attribute(NDA_PROTOCOL, &[PROTOCOL]);
        self.ask(request).map(drop)
    }

    /// Answers for it no more.
    ///
    /// # Errors
    /// `ENOENT` where it was not answered for.
    pub fn proxy_remove(&mut self, device: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let request = about(Builder::request(RTM_DELNEIGH, 0), device, address);
        self.ask(request).map(drop)
    }
}

fn about(request: Builder, device: u32, address: IpAddr) -> Builder {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    };
    request
        .raw(&[family, 0, 0, 0])
        .raw(&device.to_ne_bytes())
        .raw(&NUD_PERMANENT.to_ne_bytes())
        .raw(&[NTF_PROXY, 0])
        .attribute(NDA_DST, &octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(state: u16, ticks: u32) -> Vec<u8> {
        let mut bytes = vec![AF_INET, 0, 0, 0];
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(state.to_ne_bytes());
        bytes.extend([0, 1]);
        let info: Vec<u8> = [ticks, 0, 0, 0]
            .iter()
            .flat_map(|n| n.to_ne_bytes())
            .collect();
        bytes.extend(
            Builder::inside()
                .attribute(NDA_DST, &[192, 0, 2, 1])
                .attribute(NDA_LLADDR, &[2, 0, 0, 0, 0, 1])
                .attribute(NDA_CACHEINFO, &info)
                .done_inside(),
        );
        bytes
    }

    #[test]
    fn one_that_answered_says_when_and_one_that_does_not_never_did() {
        let heard = parse_neighbour(&entry(NUD_REACHABLE, 150)).expect("a neighbour");
        assert_eq!(
            (heard.device, heard.confirmed),
            (7, Some(Duration::from_millis(1500)))
        );
        let failed = parse_neighbour(&entry(0x20, 150)).expect("a neighbour");
        assert_eq!(failed.confirmed, None);
    }

    #[test]
    fn this_hosts_neighbours_can_be_read_without_privileges() {
        Netlink::open()
            .expect("a socket")
            .neighbours()
            .expect("a list");
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_neighbour(&bytes);
            let _ = parse_proxy(&bytes);
        }
    }
}
