//! Network devices and their addresses: find, make, name, bring up, remove. Called by the net compartment and, for the
//! devices that shape a machine's traffic, by `tc`.

use std::net::IpAddr;

use rustix::io::Errno;

use super::message::{
    Builder, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, attribute, attributes, text,
    u32_at,
};
use super::{Netlink, NetlinkError};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWLINKPROP: u16 = 108;
const RTM_DELLINKPROP: u16 = 109;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
/// Settings of a device for IPv4 by their numbers, which are those of `/proc/sys/net/ipv4/conf`.
const IPV4_FORWARDING: u16 = 1;
const IPV4_RP_FILTER: u16 = 8;
/// A source is believed only where the way back to it leads out of the same device.
const STRICT: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// Leave the counters out of the answer.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
/// Usable at once: a tunnel has no neighbours that could use the same address.
const IFA_F_NODAD: u32 = 2;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;
const IFINFO: usize = 16;
const IFADDR: usize = 8;
/// The kernel's limit for alternative names.
const ALTIFNAME: usize = 127;

/// Group of devices that are made here. It is given with the device's birth, its alias only a moment later: whoever dies
/// between the two leaves a device that can still be told from those of others.
pub(crate) const GROUP: u32 = 0xb10c;

/// A network device as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its first name; requests also find links by alternative names.
    pub name: String,
    /// Its other names.
    pub alternative: Vec<String>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// What kind of device, such as `veth` or `wireguard`; none for hardware.
    pub kind: Option<String>,
    /// What an administrator or a program wrote beside it.
    pub alias: Option<String>,
    /// The group of devices that it is in.
    pub group: u32,
    /// Whether IPv4 packets that come in by it are forwarded.
    pub forwards: bool,
    /// Whether they are dropped where the way back to their source leads out of another device.
    pub strict: bool,
}

impl Link {
    /// Made here, whoever wrote what beside it since.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.group == GROUP
    }

    /// Made by [`Netlink::link_create`], which did not live to write the alias.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.group == GROUP && self.alias.is_none()
    }
}

/// An address of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix.
    pub length: u8,
}

impl Address {
    /// Its network: the same without host bits.
    #[must_use]
    pub fn network(&self) -> Self {
        let shift = |width: u32| u32::saturating_sub(width, self.length.into());
        let address = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(shift(32)).unwrap_or(0);
                IpAddr::from((v4.to_bits() & mask).to_be_bytes())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(shift(128)).unwrap_or(0);
                IpAddr::from((v6.to_bits() & mask).to_be_bytes())
            }
        };
        Self {
            address,
            length: self.length,
        }
    }

    /// Whether another address lies in this one's network.
    #[must_use]
    pub fn reaches(&self, other: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u128::from(a.to_bits()), u128::from(b.to_bits()), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let shift = u32::saturating_sub(width, self.length.into());
        // A shift by the whole width is prefix 0: everything matches.
        ours.checked_shr(shift) == theirs.checked_shr(shift)
    }
}

/// Reads what is behind the header of an `RTM_NEWLINK`.
#[must_use]
pub fn parse_link(body: &[u8]) -> Option<Link> {
    let index = u32_at(body, 4).filter(|index| *index != 0)?;
    let up = u32_at(body, 8)? & IFF_UP != 0;
    let rest = body.get(IFINFO..)?;
    let owned = |value| text(value).map(str::to_owned);
    let names = |list| {
        attributes(list)
            .filter(|(kind, _)| *kind == IFLA_ALT_IFNAME)
            .filter_map(|(_, value)| owned(value))
            .collect()
    };
    let ipv4 = attribute(rest, IFLA_AF_SPEC)
        .and_then(|spec| attribute(spec, AF_INET.into()))
        .and_then(|inet| attribute(inet, IFLA_INET_CONF))
        .unwrap_or_default();
    // Numbers begin at 1, and there is no name for those that are missing.
    let setting = |number: u16| u32_at(ipv4, (usize::from(number) - 1) * 4).unwrap_or(0);
    Some(Link {
        index,
        name: attribute(rest, IFLA_IFNAME).and_then(owned)?,
        alternative: attribute(rest, IFLA_PROP_LIST)
            .map(names)
            .unwrap_or_default(),
        up,
        mtu: attribute(rest, IFLA_MTU)
            .and_then(|value| u32_at(value, 0))
            .unwrap_or(0),
        kind: attribute(rest, IFLA_LINKINFO)
            .and_then(|info| attribute(info, IFLA_INFO_KIND))
            .and_then(owned),
        alias: attribute(rest, IFLA_IFALIAS).and_then(owned),
        group: attribute(rest, IFLA_GROUP)
            .and_then(|value| u32_at(value, 0))
            .unwrap_or(0),
        forwards: setting(IPV4_FORWARDING) != 0,
        strict: setting(IPV4_RP_FILTER) == STRICT,
    })
}

/// Reads what is behind the header of an `RTM_NEWADDR`: the device's number and the address.
#[must_use]
pub fn parse_address(body: &[u8]) -> Option<(u32, Address)> {
    let (family, length) = (*body.first()?, *body.get(1)?);
    let index = u32_at(body, 4)?;
    let rest = body.get(IFADDR..)?;
    // Behind a point-to-point device IFA_ADDRESS is the other end.
    let value = attribute(rest, IFA_LOCAL).or_else(|| attribute(rest, IFA_ADDRESS))?;
    let address = match family {
        AF_INET => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
        AF_INET6 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
        _ => return None,
    };
    Some((index, Address { address, length }))
}

fn header(index: u32, flags: u32, change: u32) -> [u8; IFINFO] {
    let mut bytes = [0; IFINFO];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&change.to_ne_bytes());
    bytes
}

impl Netlink {
    /// Looks a device up by name or alternative name; `None` when there is none.
    ///
    /// # Errors
    /// Any [`NetlinkError`] but "no such device".
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        // A first name has at most 15 bytes; a longer one can only be an alternative.
        let kind = if name.len() > 15 {
            IFLA_ALT_IFNAME
        } else {
            IFLA_IFNAME
        };
        self.find_link(
            Builder::request(RTM_GETLINK, 0)
                .raw(&header(0, 0, 0))
                .text(kind, name)
                .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS),
        )
    }

    /// Looks a device up by number.
    ///
    /// # Errors
    /// Any [`NetlinkError`] but "no such device".
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, NetlinkError> {
        self.find_link(
            Builder::request(RTM_GETLINK, 0)
                .raw(&header(index, 0, 0))
                .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS),
        )
    }

    fn find_link(&mut self, request: Builder) -> Result<Option<Link>, NetlinkError> {
        match self.ask(request) {
            Ok(Some(answer)) => parse_link(&answer)
                .map(Some)
                .ok_or(NetlinkError::Malformed("a link without index or name")),
            Ok(None) => Err(NetlinkError::Malformed("no link in the answer")),
            Err(error) if error.refusal() == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every device.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let request = Builder::request(RTM_GETLINK, NLM_F_DUMP)
            .raw(&header(0, 0, 0))
            .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let mut links = Vec::new();
        self.dump(request, |body| links.extend(parse_link(body)))?;
        Ok(links)
    }

    /// Makes a device of a kind that needs no other data (`wireguard`, `ifb`), with an alias that says whose it is.
    ///
    /// # Errors
    /// `EEXIST` where the name is taken, `EOPNOTSUPP` where the kernel has no such kind.
    pub fn link_create(&mut self, name: &str, kind: &str, alias: &str) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL)
            .raw(&header(0, 0, 0))
            .text(IFLA_IFNAME, name)
            .u32(IFLA_GROUP, GROUP)
            .nest(IFLA_LINKINFO, Builder::inside().text(IFLA_INFO_KIND, kind));
        self.ask(request)?;
        let index = self.link(name)?.map_or(0, |link| link.index);
        self.link_alias(index, alias)
    }

    /// Writes the text beside a device.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn link_alias(&mut self, index: u32, alias: &str) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_NEWLINK, 0)
            .raw(&header(index, 0, 0))
            // Without the zero: the kernel counts it as a part of the text.
            .attribute(IFLA_IFALIAS, alias.as_bytes());
        self.ask(request).map(drop)
    }

    /// Brings a device up, with an MTU where one is given.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn link_up(&mut self, index: u32, mtu: Option<u32>) -> Result<(), NetlinkError> {
        let mut request = Builder::request(RTM_NEWLINK, 0).raw(&header(index, IFF_UP, IFF_UP));
        if let Some(mtu) = mtu {
            request = request.u32(IFLA_MTU, mtu);
        }
        self.ask(request).map(drop)
    }

    /// Takes a device down. Its IPv6 addresses go with that.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn link_down(&mut self, index: u32) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_NEWLINK, 0).raw(&header(index, 0, IFF_UP));
        self.ask(request).map(drop)
    }

    /// Gives a device another MTU.
    ///
    /// # Errors
    /// `EINVAL` where the device cannot have it.
    pub fn link_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_NEWLINK, 0)
            .raw(&header(index, 0, 0))
            .u32(IFLA_MTU, mtu);
        self.ask(request).map(drop)
    }

    /// Has IPv4 packets that come in by a device forwarded, with `strict` only those whose way back leads out of it; or
    /// forwarded no more. Without `strict` what is believed of sources stays as it is.
    ///
    /// # Errors
    /// `EAFNOSUPPORT` where the device has no IPv4.
    pub fn link_forward(&mut self, index: u32, on: bool, strict: bool) -> Result<(), NetlinkError> {
        let mut settings = Builder::inside();
        if strict {
            settings = settings.u32(IPV4_RP_FILTER, STRICT);
        }
        let settings = settings.u32(IPV4_FORWARDING, on.into());
        let inet = Builder::inside().nest(IFLA_INET_CONF, settings);
        let request = Builder::request(RTM_NEWLINK, 0)
            .raw(&header(index, 0, 0))
            .nest(IFLA_AF_SPEC, Builder::inside().nest(AF_INET.into(), inet));
        self.ask(request).map(drop)
    }

    /// Removes a device.
    ///
    /// # Errors
    /// `ENODEV` where there is none, `EOPNOTSUPP` for hardware.
    pub fn link_delete(&mut self, index: u32) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_DELLINK, 0).raw(&header(index, 0, 0));
        self.ask(request).map(drop)
    }

    /// Adds an alternative name.
    ///
    /// # Errors
    /// `EEXIST` where any device has the name.
    pub fn altname_add(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        self.altname(RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL, index, name)
    }

    /// Removes an alternative name.
    ///
    /// # Errors
    /// `ENOENT` where the device does not have it.
    pub fn altname_remove(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        self.altname(RTM_DELLINKPROP, 0, index, name)
    }

    fn altname(
        &mut self,
        kind: u16,
        flags: u16,
        index: u32,
        name: &str,
    ) -> Result<(), NetlinkError> {
        if name.is_empty() || name.len() > ALTIFNAME {
            return Err(NetlinkError::Refused(Errno::INVAL));
        }
        let request = Builder::request(kind, flags)
            .raw(&header(index, 0, 0))
            .nest(
                IFLA_PROP_LIST,
                Builder::inside().text(IFLA_ALT_IFNAME, name),
            );
        self.ask(request).map(drop)
    }

    /// The addresses of a device, link-local ones left out: the kernel's own.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Address>, NetlinkError> {
        let request = || Builder::request(RTM_GETADDR, NLM_F_DUMP).raw(&[0; IFADDR]);
        let mut list: Vec<Address> = self
            .whole_list(request, parse_address)?
            .into_iter()
            .filter(|(of, _)| *of == index)
            .map(|(_, address)| address)
            .filter(|a| !matches!(a.address, IpAddr::V6(v6) if v6.is_unicast_link_local()))
            .collect();
        list.sort_unstable();
        Ok(list)
    }

    /// Gives a device an address; the same again changes nothing.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn address_add(&mut self, index: u32, address: Address) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
        self.ask(with_address(request, index, address)).map(drop)
    }

    /// Takes an address from a device.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` where it does not have it.
    pub fn address_remove(&mut self, index: u32, address: Address) -> Result<(), NetlinkError> {
        let request = Builder::request(RTM_DELADDR, 0);
        self.ask(with_address(request, index, address)).map(drop)
    }
}

fn with_address(request: Builder, index: u32, Address { address, length }: Address) -> Builder {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
    let (flags, scope) = (0, 0);
    let request = request
        .raw(&[family, length, flags, scope])
        .raw(&index.to_ne_bytes())
        .attribute(IFA_LOCAL, &octets)
        .attribute(IFA_ADDRESS, &octets);
    if address.is_ipv6() {
        request.u32(IFA_FLAGS, IFA_F_NODAD)
    } else {
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_network_is_its_address_without_host_bits() {
        for (address, length, network) in [
            ("10.1.2.3", 24, "10.1.2.0"),
            ("10.1.2.3", 32, "10.1.2.3"),
            ("10.1.2.3", 0, "0.0.0.0"),
            ("fd00::1:2", 64, "fd00::"),
            ("fd00::1:2", 128, "fd00::1:2"),
            ("fd00::1:2", 0, "::"),
        ] {
            let address = address.parse().unwrap();
            let own = Address { address, length };
            assert_eq!(own.network().address, network.parse::<IpAddr>().unwrap());
            assert!(own.network().reaches(address));
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_link(&bytes);
            let _ = parse_address(&bytes);
            let _ = super::super::route::parse_route(&bytes);
        }
    }
}
