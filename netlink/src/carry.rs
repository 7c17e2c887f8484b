//! What a device carries: how it is connected, and its addresses whole, with everything that the kernel says about them, so
//! that they can be given to another device as they are; its routes are in `table`. Called by the net compartment when an
//! uplink becomes a bridge's port.

use super::link::{Address, parse_address};
use super::message::{
    Builder, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, attribute, attributes, text, u16_at, u32_at,
};
use super::{Netlink, NetlinkError};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;

const IFLA_ADDRESS: u16 = 1;
const IFLA_MASTER: u16 = 10;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_PROTO: u16 = 11;
/// Flags that somebody chose; the others are the kernel's account of the address.
const IFA_F_CHOSEN: u32 = 0x10 | 0x100 | 0x200 | 0x400;
/// Usable at once: the address was in use on this network a moment ago, by this host.
const IFA_F_NODAD: u32 = 2;
/// Made by the kernel from a router's announcement.
const IFAPROT_KERNEL_RA: u8 = 2;
/// Made by the kernel for the link alone.
const IFAPROT_KERNEL_LL: u8 = 3;
/// Only for the link that the device is at.
const SCOPE_LINK: u8 = 253;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFINFO: usize = 16;
const IFADDR: usize = 8;

/// How a device is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// What kind of link layer (`ARPHRD_*`): 1 is Ethernet.
    pub layer: u16,
    /// Its hardware address.
    pub hardware: Vec<u8>,
    /// The bridge or switch that it is a port of.
    pub master: Option<u32>,
}

/// An address of a device with everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address and its network's length.
    pub address: Address,
    /// How far it is valid (`RT_SCOPE_*`).
    scope: u8,
    /// `IFA_F_*`.
    flags: u32,
    /// Who made it (`IFAPROT_*`); 0 where nobody said.
    protocol: u8,
    /// A name beside it, which begins with the device's.
    label: Option<String>,
    /// What is passed on as it is.
    rest: Vec<(u16, Vec<u8>)>,
}

impl OwnAddress {
    /// Made by the kernel for the link, from the hardware address: each device has its own.
    #[must_use]
    pub fn is_automatic(&self) -> bool {
        self.protocol == IFAPROT_KERNEL_LL
    }

    /// Made by the kernel from what a router announces, and made again with its next announcement.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.protocol == IFAPROT_KERNEL_RA
    }

    /// Valid beyond the link.
    #[must_use]
    pub fn is_global(&self) -> bool {
        self.scope < SCOPE_LINK
    }
}

/// Reads what is behind the header of an `RTM_NEWLINK`.
#[must_use]
pub fn parse_port(body: &[u8]) -> Option<Port> {
    let rest = body.get(IFINFO..)?;
    let number = |kind| attribute(rest, kind).and_then(|value| u32_at(value, 0));
    Some(Port {
        layer: u16_at(body, 2)?,
        hardware: attribute(rest, IFLA_ADDRESS).unwrap_or_default().to_vec(),
        master: number(IFLA_MASTER).filter(|index| *index != 0),
    })
}

/// Reads what is behind the header of an `RTM_NEWADDR`: the device's number and the address.
#[must_use]
pub fn parse_own_address(body: &[u8]) -> Option<(u32, OwnAddress)> {
    const KEPT: [u16; 5] = [
        IFA_ADDRESS,
        IFA_LOCAL,
        IFA_BROADCAST,
        IFA_CACHEINFO,
        IFA_RT_PRIORITY,
    ];
    let (device, address) = parse_address(body)?;
    let (old_flags, scope) = (u32::from(*body.get(2)?), *body.get(3)?);
    let rest = body.get(IFADDR..)?;
    let kept = |(kind, value): (u16, &[u8])| (kind, value.to_vec());
    let own = OwnAddress {
        address,
        scope,
        flags: attribute(rest, IFA_FLAGS)
            .and_then(|value| u32_at(value, 0))
            .unwrap_or(old_flags),
        protocol: attribute(rest, IFA_PROTO)
            .and_then(|value| value.first().copied())
            .unwrap_or(0),
        label: attribute(rest, IFA_LABEL).and_then(text).map(str::to_owned),
        rest: attributes(rest)
            .filter(|(kind, _)| KEPT.contains(kind))
            .map(kept)
            .collect(),
    };
    Some((device, own))
}

fn device_header(index: u32) -> [u8; IFINFO] {
    let mut bytes = [0; IFINFO];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes
}

impl Netlink {
    /// How a device is connected.
    ///
    /// # Errors
    /// `ENODEV` where there is no such device.
    pub fn port(&mut self, index: u32) -> Result<Port, NetlinkError> {
        let request = Builder::request(RTM_GETLINK, 0)
            .raw(&device_header(index))
            .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let answer = self
            .ask(request)?
            .ok_or(NetlinkError::Malformed("no link in the answer"))?;
        parse_port(&answer).ok_or(NetlinkError::Malformed("a link without header"))
    }

    /// Gives a device another hardware address.
    ///
    /// # Errors
    /// `EBUSY` where the device has to be down for it.
    pub fn set_hardware(&mut self, index: u32, address: &[u8]) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_NEWLINK, 0)
            .raw(&device_header(index))
            .attribute(IFLA_ADDRESS, address);
        self.ask(request).map(drop)
    }

    /// The addresses of a device in the kernel's order, which is the order in which they are chosen.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn own_addresses(&mut self, index: u32) -> Result<Vec<OwnAddress>, NetlinkError> {
        let request = || Builder::request(RTM_GETADDR, NLM_F_DUMP).raw(&[0; IFADDR]);
        let all = self.whole_list(request, parse_own_address)?;
        let of_it = all.into_iter().filter(|(of, _)| *of == index);
        Ok(of_it.map(|(_, address)| address).collect())
    }

    /// Gives a device an address as it is on another; `names` are those of the other device and of this one. The same again
    /// changes nothing.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn give_address(
        &mut self,
        own: &OwnAddress,
        index: u32,
        names: (&str, &str),
    ) -> Result<(), NetlinkError> {
        let family = if own.address.address.is_ipv4() {
            AF_INET
        } else {
            AF_INET6
        };
        let mut request = Builder::request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE)
            .raw(&[family, own.address.length, 0, own.scope])
            .raw(&index.to_ne_bytes());
        for (kind, value) in &own.rest {
            request = request.attribute(*kind, value);
        }
        let no_probe = if family == AF_INET6 { IFA_F_NODAD } else { 0 };
        request = request.u32(IFA_FLAGS, own.flags & IFA_F_CHOSEN | no_probe);
        if own.protocol != 0 {
            request = request.attribute(IFA_PROTO, &[own.protocol]);
        }
        if let Some(label) = own.label.as_deref().and_then(|l| relabelled(l, names)) {
            request = request.text(IFA_LABEL, &label);
        }
        self.ask(request).map(drop)
    }

    /// Takes such an address from a device.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` where it does not have it.
    pub fn take_address(&mut self, own: &OwnAddress, index: u32) -> Result<(), NetlinkError> {
        self.address_remove(index, own.address)
    }
}

/// The label on the other device, where it can have it: labels begin with their device's name.
fn relabelled(label: &str, (from, to): (&str, &str)) -> Option<String> {
    const LONGEST: usize = 15;
    let rest = label.strip_prefix(from)?;
    let label = format!("{to}{rest}");
    (rest.starts_with(':') && label.len() <= LONGEST).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_label_follows_its_device_and_is_left_out_where_it_would_be_too_long_or_anothers() {
        for (label, to, expected) in [
            ("eth0:1", "br0", Some("br0:1")),
            ("eth0", "br0", None),
            ("eth01:1", "br0", None),
            ("other:1", "br0", None),
            ("eth0:1", "a-long-bridge1", None),
        ] {
            let found = relabelled(label, ("eth0", to));
            assert_eq!(found.as_deref(), expected, "{label}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_port(&bytes);
            let _ = parse_own_address(&bytes);
        }
    }
}
