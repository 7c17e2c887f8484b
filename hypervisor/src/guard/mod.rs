//! What a guest may send where its interface hangs in a Linux bridge: with its own hardware address, from its own addresses,
//! about itself (ARP, neighbour discovery), as nobody's router and nobody's DHCP server. The same as the flows say of a
//! switch's ports. Called where interfaces are plugged in, for those with `firewall=1`.
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "test-guest"))]
pub mod frames;
mod program;
mod rules;

use std::net::{Ipv4Addr, Ipv6Addr};

use blockhost_netlink::guard::{self, Instruction};
use blockhost_netlink::{Netlink, NetlinkError};
use blockhost_proto::qm::{Ip4Config, Ip6Config, MacAddress};

use crate::error::{Error, Result};

/// What a guest has of one family's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has<A> {
    /// Nobody here knows: it asks others for one, or the configuration says nothing at all.
    Unknown,
    /// This one. In IPv6 also the link-local one that its hardware address makes.
    One(A),
    /// None: the configuration gives it some of the other family.
    None,
}

/// What one interface may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    mac: MacAddress,
    v4: Has<Ipv4Addr>,
    v6: Has<Ipv6Addr>,
}

impl Guard {
    /// For an interface with this hardware address and these addresses. Without addresses in the configuration it is held
    /// to its hardware address alone.
    #[must_use]
    pub fn new(mac: MacAddress, ip4: Option<Ip4Config>, ip6: Option<Ip6Config>) -> Self {
        let silent = ip4.is_none() && ip6.is_none();
        Self {
            mac,
            v4: match ip4 {
                Some(Ip4Config::Static { address, .. }) => Has::One(address),
                Some(Ip4Config::Dhcp) => Has::Unknown,
                None if silent => Has::Unknown,
                None => Has::None,
            },
            v6: match ip6 {
                Some(Ip6Config::Static { address, .. }) => Has::One(address),
                Some(Ip6Config::Dhcp | Ip6Config::Auto) => Has::Unknown,
                None if silent => Has::Unknown,
                None => Has::None,
            },
        }
    }

    /// The program that says so; `None` where the rules do not fit one.
    #[must_use]
    pub fn program(&self) -> Option<Vec<Instruction>> {
        program::compile(&self.rules())
    }

    /// Puts it in force on a device that has just been made and is not up. It is part of the device and goes with it.
    ///
    /// # Errors
    /// [`Error::Environment`]; the device must not be switched on then.
    pub fn put_in_force(&self, device: &str) -> Result<()> {
        let failed = |e: String| {
            Error::Environment(format!(
                "'{device}' cannot be held to its own addresses: {e}; the kernel needs sch_ingress and cls_bpf (modprobe), or else say firewall=0"
            ))
        };
        let program = self.program();
        let program = program.ok_or_else(|| failed("the rules do not fit a program".to_owned()))?;
        let set = || guard::guard(&mut Netlink::open()?, device, &program);
        set().map_err(|e: NetlinkError| failed(e.to_string()))
    }
}
