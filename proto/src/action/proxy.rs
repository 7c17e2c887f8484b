//! `proxy-*`: answering on a wire for public addresses that lead elsewhere. The net compartment speaks netlink for them.

use super::{ResourceKey, action};
use crate::value::{IfName, NatAddress};

fn keys(address: NatAddress) -> Vec<ResourceKey> {
    let width = if address.address().is_ipv4() { 32 } else { 128 };
    vec![
        ResourceKey::named(format!("proxy:{address}")),
        ResourceKey::named(format!("route:{address}/{width}")),
    ]
}

action! {
    /// Answers ARP requests or neighbour solicitations for a public address on the uplink, and sets the route to it, so that
    /// what comes for it comes here and goes on, with `nat-map` to a private address. IPv4 packets that come in by the uplink
    /// are forwarded from then on; for IPv6 the host has to forward and to have `proxy_ndp` on, which Linux lets no netlink
    /// request do. What somebody else set is a `conflict` and stays.
    ProxySet = "proxy-set", family "proxy", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 10, read_only false, ledger "net" / "network" / "apply",
    {
        /// The public address, of a pool of this host.
        address: NatAddress,
        /// The device where others ask for it: an uplink of the policy.
        dev: IfName,
        /// The device that leads to who has it, another one.
        behind: IfName,
    }
    check |a| {
        if a.dev == a.behind {
            let what = format!("dev and behind must be two devices, not {} twice", a.dev);
            return Err(super::ParamError::Together { what });
        }
        Ok(())
    },
    resources |a| keys(a.address),
    resource |a| format!("proxy:{}", a.address),
    example r#"{"address": "203.0.113.7", "dev": "eth0", "behind": "ovsbr0"}"#,
}

action! {
    /// Answers for the address no more and takes its route away; `not_found` where `proxy-set` did not set it on this device.
    ProxyDel = "proxy-del", family "proxy", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 10, read_only false, ledger "net" / "network" / "delete",
    {
        /// The public address.
        address: NatAddress,
        /// The device where it is answered for.
        dev: IfName,
    }
    resources |a| keys(a.address),
    resource |a| format!("proxy:{}", a.address),
    example r#"{"address": "203.0.113.7", "dev": "eth0"}"#,
}
