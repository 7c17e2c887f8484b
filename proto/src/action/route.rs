//! `ip6-route-*`: host routes to machines; `route-*`: routes to networks behind them, and the way out for what comes from
//! machines. The net compartment speaks netlink for them.

use std::net::IpAddr;

use super::{ParamError, ResourceKey, action};
use crate::value::{
    HostIpv6, IfName, MachinePrefix, Metric, NatAddress, NextHop, RouteNet, WgName,
};

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

fn network(dest: RouteNet) -> Vec<ResourceKey> {
    vec![ResourceKey::named(format!("route:{dest}"))]
}

action! {
    /// Sets the route to a network in the main table, such as that of containers behind a tunnel: another route of this
    /// agent to the same network with the same metric is replaced in one step, the same again changes nothing. A route that
    /// somebody else made is a `conflict` and stays.
    RouteSet = "route-set", family "route", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 10, read_only false, ledger "net" / "network" / "apply",
    {
        /// The network.
        dest: RouteNet,
        /// The device that leads to it.
        dev: IfName,
        /// The router on that device; none where the network is at the device itself.
        via: Option<NextHop>,
        /// The host's address that is used for what it sends there.
        src: Option<NatAddress>,
        /// Of several routes to the network the one with the lowest is taken.
        metric: Metric = Metric::USUAL,
    }
    check |a| one_family(a),
    resources |a| network(a.dest),
    resource |a| format!("route:{}", a.dest),
    example r#"{"dest": "10.90.0.0/24", "dev": "wg0", "via": "10.8.0.2", "src": "10.8.0.1", "metric": 1024}"#,
}

action! {
    /// Deletes a route that `route-set` made; `not_found` where there is none.
    RouteDel = "route-del", family "route", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 10, read_only false, ledger "net" / "network" / "delete",
    {
        /// The network.
        dest: RouteNet,
        /// The device that leads to it.
        dev: IfName,
        /// The metric that the route was set with.
        metric: Metric = Metric::USUAL,
    }
    resources |a| network(a.dest),
    resource |a| format!("route:{}", a.dest),
    example r#"{"dest": "10.90.0.0/24", "dev": "wg0"}"#,
}

fn source(from: MachinePrefix) -> Vec<ResourceKey> {
    vec![ResourceKey::named(format!("route-from:{from}"))]
}

action! {
    /// Sends out of a tunnel of this agent what comes from a network of machines and has no route of its own: a default
    /// route in the main table for packets with a source of that network, and for no others. What the host sends from
    /// another address goes as before. Another such route of this agent is replaced, the same again changes nothing; one
    /// that somebody else made, or a network that is at a device of somebody else's, is a `conflict`.
    RouteFromSet = "route-from-set", family "route", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 10, read_only false, ledger "net" / "network" / "apply",
    {
        /// The network that the packets come from.
        from: MachinePrefix,
        /// The tunnel that leads out.
        dev: WgName,
    }
    resources |a| source(a.from),
    resource |a| format!("route-from:{}", a.from),
    example r#"{"from": "2001:db8:b10c::/64", "dev": "wg-broker"}"#,
}

action! {
    /// Deletes a route that `route-from-set` made; `not_found` where there is none.
    RouteFromDel = "route-from-del", family "route", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 10, read_only false, ledger "net" / "network" / "delete",
    {
        /// The network that the packets come from.
        from: MachinePrefix,
        /// The tunnel that the route goes out of.
        dev: WgName,
    }
    resources |a| source(a.from),
    resource |a| format!("route-from:{}", a.from),
    example r#"{"from": "2001:db8:b10c::/64", "dev": "wg-broker"}"#,
}

fn one_family(action: &RouteSet) -> Result<(), ParamError> {
    let same = |other: IpAddr| other.is_ipv4() == action.dest.address().is_ipv4();
    let wrong = if action.via.is_some_and(|via| !same(via.address())) {
        "via"
    } else if action.src.is_some_and(|src| !same(src.address())) {
        "src"
    } else {
        return Ok(());
    };
    Err(ParamError::Together {
        what: format!("{wrong} must be of the family of {}", action.dest),
    })
}
