//! Settings of IP as the kernel tells them by netlink (`RTM_GETNETCONF`, linux/netconf.h): the switches that also stand in
//! `/proc/sys/net/ipv{4,6}/conf`, for services that do not see that directory. Only looked at here.

use super::message::{Builder, NLM_F_DUMP, attribute, u32_at};
use super::{Netlink, NetlinkError};

const RTM_GETNETCONF: u16 = 82;
/// The family and its padding.
const NETCONFMSG: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;
const NETCONFA_PROXY_NEIGH: u16 = 5;
/// In the place of a device's number: all of them (-1). What is for devices to come has -2.
const ALL: u32 = u32::MAX;
const DEFAULT: u32 = u32::MAX - 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What settings are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All devices at once.
    All,
    /// The device of that number.
    Device(u32),
}

/// The switches of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Netconf {
    /// What they are of.
    pub scope: Scope,
    /// Packets are forwarded.
    pub forwards: bool,
    /// Neighbour solicitations (ARP requests) for others are answered.
    pub proxies: bool,
    /// `rp_filter`: 0, 1 (strict) or 2 (loose). IPv6 has none: 0.
    pub source_check: u32,
}

/// Reads what is behind the header of an `RTM_NEWNETCONF`; nothing for devices to come.
#[must_use]
pub fn parse_netconf(body: &[u8]) -> Option<Netconf> {
    let rest = body.get(NETCONFMSG..)?;
    let number = |kind: u16| attribute(rest, kind).and_then(|value| u32_at(value, 0));
    let scope = match number(NETCONFA_IFINDEX)? {
        ALL => Scope::All,
        DEFAULT => return None,
        index => Scope::Device(index),
    };
    let is_on = |kind: u16| number(kind).is_some_and(|value| value != 0);
    Some(Netconf {
        scope,
        forwards: is_on(NETCONFA_FORWARDING),
        proxies: is_on(NETCONFA_PROXY_NEIGH),
        source_check: number(NETCONFA_RP_FILTER).unwrap_or(0),
    })
}

impl Netlink {
    /// The switches of IPv4, of all devices at once and of each.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn netconf_v4(&mut self) -> Result<Vec<Netconf>, NetlinkError> {
        self.netconf(AF_INET)
    }

    /// The switches of IPv6; none on a host without it.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn netconf_v6(&mut self) -> Result<Vec<Netconf>, NetlinkError> {
        self.netconf(AF_INET6)
    }

    fn netconf(&mut self, family: u8) -> Result<Vec<Netconf>, NetlinkError> {
        let mut header = [0; NETCONFMSG];
        header[0] = family;
        let request = || Builder::request(RTM_GETNETCONF, NLM_F_DUMP).raw(&header);
        self.whole_list(request, parse_netconf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel tells is what stands in its files, where those are seen.
    #[test]
    fn the_kernels_answer_is_what_its_files_say() {
        let mut netlink = Netlink::open().expect("a socket");
        let file = |family: &str, device: &str, key: &str| {
            std::fs::read_to_string(format!("/proc/sys/net/{family}/conf/{device}/{key}")).ok()
        };
        let is_on = |text: Option<String>| text.map(|text| text.trim() != "0");
        for (family, list) in [
            ("ipv4", netlink.netconf_v4().expect("an answer")),
            ("ipv6", netlink.netconf_v6().expect("an answer")),
        ] {
            let Some(forwards) = is_on(file(family, "all", "forwarding")) else {
                assert!(list.is_empty(), "{family} is not there");
                continue;
            };
            let all = list.iter().find(|one| one.scope == Scope::All);
            assert_eq!(all.expect("all devices").forwards, forwards, "{family}");
            let lo = netlink.link("lo").expect("an answer").expect("lo");
            let own = list.iter().find(|one| one.scope == Scope::Device(lo.index));
            let own = own.expect("the loopback");
            assert_eq!(Some(own.forwards), is_on(file(family, "lo", "forwarding")));
            let proxy = if family == "ipv4" {
                "proxy_arp"
            } else {
                "proxy_ndp"
            };
            assert_eq!(Some(own.proxies), is_on(file(family, "lo", proxy)));
            if family == "ipv4" {
                let check = file(family, "lo", "rp_filter").expect("a file");
                assert_eq!(own.source_check.to_string(), check.trim());
            }
        }
    }

    #[test]
    fn what_is_cut_or_for_devices_to_come_is_nothing() {
        let whole = |index: u32| {
            Builder::inside()
                .raw(&[AF_INET6, 0, 0, 0])
                .u32(NETCONFA_IFINDEX, index)
                .u32(NETCONFA_FORWARDING, 1)
                .done_inside()
        };
        assert_eq!(
            parse_netconf(&whole(7)),
            Some(Netconf {
                scope: Scope::Device(7),
                forwards: true,
                proxies: false,
                source_check: 0
            })
        );
        assert_eq!(parse_netconf(&whole(DEFAULT)), None);
        for length in 0..12 {
            assert_eq!(parse_netconf(&whole(7)[..length]), None, "{length}");
        }
    }
}
