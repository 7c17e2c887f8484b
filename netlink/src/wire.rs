//! Virtual wires with one end in another network namespace. The end there is made there: it has never been a device of this
//! one, so that nobody who watches for new devices can take it for one. Called by the attach compartment.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::link::GROUP;
use super::message::{Builder, NLM_F_CREATE, NLM_F_EXCL, attribute, attributes, text, u32_at};
use super::{Netlink, NetlinkError};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFINFO: usize = 16;

/// A wire to make.
#[derive(Debug)]
pub struct Wire<'a> {
    /// Name of the end here.
    pub name: &'a str,
    /// The other namespace.
    pub namespace: BorrowedFd<'a>,
    /// Name of the end there.
    pub there: &'a str,
    /// Hardware address of the end there.
    pub hardware: Option<[u8; 6]>,
    /// MTU of both ends.
    pub mtu: Option<u32>,
}

/// The number of the other end of a wire, in the namespace where that is.
#[must_use]
pub fn parse_other_end(body: &[u8]) -> Option<u32> {
    let rest = body.get(IFINFO..)?;
    let info = attribute(rest, IFLA_LINKINFO)?;
    let mut kinds = attributes(info).filter(|(kind, _)| *kind == IFLA_INFO_KIND);
    let is_wire = kinds.any(|(_, value)| text(value) == Some("veth"));
    let other = attribute(rest, IFLA_LINK).and_then(|value| u32_at(value, 0));
    other.filter(|index| is_wire && *index != 0)
}

impl Netlink {
    /// Makes a wire; both ends are marked as ours from their birth.
    ///
    /// # Errors
    /// `EEXIST` where either name is taken in its namespace.
    pub fn wire_create(&mut self, wire: &Wire<'_>) -> Result<(), NetlinkError> {
        let namespace = u32::try_from(wire.namespace.as_raw_fd())
            .map_err(|_| NetlinkError::Malformed("a negative descriptor"))?;
        let end = |mut end: Builder, name: &str| {
            end = end.text(IFLA_IFNAME, name).u32(IFLA_GROUP, GROUP);
            match wire.mtu {
                Some(mtu) => end.u32(IFLA_MTU, mtu),
                None => end,
            }
        };
        let mut there =
            end(Builder::inside().raw(&[0; IFINFO]), wire.there).u32(IFLA_NET_NS_FD, namespace);
        if let Some(hardware) = &wire.hardware {
            there = there.attribute(IFLA_ADDRESS, hardware);
        }
        let request = Builder::request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL).raw(&[0; IFINFO]);
        let data = Builder::inside().nest(VETH_INFO_PEER, there);
        let info = Builder::inside()
            .text(IFLA_INFO_KIND, "veth")
            .nest(IFLA_INFO_DATA, data);
        self.ask(end(request, wire.name).nest(IFLA_LINKINFO, info))
            .map(drop)
    }

    /// The number of the other end of a wire; `None` where the device is no wire, or has lost its other end.
    ///
    /// # Errors
    /// `ENODEV` where there is no such device.
    pub fn other_end(&mut self, index: u32) -> Result<Option<u32>, NetlinkError> {
        let mut header = [0; IFINFO];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let request = Builder::request(RTM_GETLINK, 0)
            .raw(&header)
            .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let answer = self
            .ask(request)?
            .ok_or(NetlinkError::Malformed("no link in the answer"))?;
        Ok(parse_other_end(&answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_wire_has_another_end() {
        let link = |kind: &str, other: u32| {
            Builder::inside()
                .raw(&[0; IFINFO])
                .u32(IFLA_LINK, other)
                .nest(IFLA_LINKINFO, Builder::inside().text(IFLA_INFO_KIND, kind))
                .done_inside()
        };
        assert_eq!(parse_other_end(&link("veth", 7)), Some(7));
        assert_eq!(parse_other_end(&link("veth", 0)), None);
        assert_eq!(parse_other_end(&link("vlan", 7)), None);
        assert_eq!(parse_other_end(&[0; IFINFO]), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_other_end(&bytes);
        }
    }
}
