//! `ip6-route-*`: host routes to machines. The net compartment speaks netlink for them.

use super::{ResourceKey, action};
use crate::value::{HostIpv6, IfName};

action! {
    /// Sets the route to one address, replacing another; the same again is a success.
    Ip6RouteAdd = "ip6-route-add", family "ip6-route", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 5, read_only false, ledger "net" / "network" / "apply",
    {
        /// The address, with `/128`.
        address: HostIpv6,
        /// The device that leads to it.
        dev: IfName,
    }
    resources |a| vec![ResourceKey::named(format!("route:{}", a.address))],
    resource |a| format!("route:{}", a.address),
    example r#"{"address": "fd00:b10c::100/128", "dev": "vmbr0"}"#,
}

action! {
    /// Deletes the route to one address; `not_found` where there is none.
    Ip6RouteDel = "ip6-route-del", family "ip6-route", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 5, read_only false, ledger "net" / "network" / "delete",
    {
        /// The address, with `/128`.
        address: HostIpv6,
        /// The device that leads to it.
        dev: IfName,
    }
    resources |a| vec![ResourceKey::named(format!("route:{}", a.address))],
    resource |a| format!("route:{}", a.address),
    example r#"{"address": "fd00:b10c::100/128", "dev": "vmbr0"}"#,
}
