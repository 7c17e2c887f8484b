//! Neighbours: who on the same wire has answered, and how long ago. For those who look; nothing is changed here.

use std::net::IpAddr;
use std::time::Duration;

use super::message::{Builder, NLM_F_DUMP, attribute, u16_at, u32_at};
use super::{Netlink, NetlinkError};

const RTM_GETNEIGH: u16 = 30;
const NDMSG: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_CACHEINFO: u16 = 3;

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

/// Reads what is behind the header of an `RTM_NEWNEIGH`.
#[must_use]
pub fn parse_neighbour(body: &[u8]) -> Option<Neighbour> {
    let family = *body.first()?;
    let (device, state) = (u32_at(body, 4)?, u16_at(body, 8)?);
    let rest = body.get(NDMSG..)?;
    let value = attribute(rest, NDA_DST)?;
    let address = match family {
        AF_INET => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
        AF_INET6 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
        _ => return None,
    };
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
        }
    }
}
