//! What has to fit together in a policy: names that exist, ports, hardware addresses and addresses that nobody else has,
//! queues that there are. Pure; called once, when a policy is read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use blockhost_proto::value::{QueueId, VlanTag};

use super::policy::{
    Bridge, Container, Hop, Name, Peer, Policy, Proto, Qos, Route, Routed, Rules, Tenant, Way,
};
use super::read::{PolicyError, Problem};

/// Addresses of one container.
const MAX_ADDRESSES: usize = 16;
/// Sets of one bridge: each has a priority of its own in every band.
pub(super) const MAX_SETS: usize = 400;
/// Containers of one bridge: two meters each, and the tables that broadcasts go through.
pub(super) const MAX_CONTAINERS: usize = 8000;
/// Rules of one kind of one container.
const MAX_RULES: usize = 500;

/// What is used, and where it stands first.
#[derive(Default)]
struct Used(BTreeMap<String, String>);

impl Used {
    fn take(&mut self, what: String, place: &str) -> Result<(), PolicyError> {
        match self.0.insert(what.clone(), place.to_owned()) {
            None => Ok(()),
            Some(other) => Err(PolicyError::at(place, Problem::Twice { what, other })),
        }
    }
}

pub(super) fn policy(policy: &Policy) -> Result<(), PolicyError> {
    // Bridges of one datapath share the tables of connections: a zone is one tenant's on one bridge of them all.
    let mut all = Used::default();
    for bridge in &policy.bridges {
        all.take(format!("bridge {}", bridge.name), &bridge.place)?;
        for tenant in &bridge.tenants {
            all.take(format!("zone {}", tenant.zone), &tenant.place)?;
        }
        self::bridge(bridge)?;
    }
    Ok(())
}

fn bridge(bridge: &Bridge) -> Result<(), PolicyError> {
    let mut used = Used::default();
    for port in &bridge.outside {
        used.take(format!("port {}", port.port), &port.place)?;
        for mac in &port.macs {
            used.take(format!("hardware address {mac}"), &port.place)?;
        }
    }
    for tenant in &bridge.tenants {
        used.take(format!("tenant {}", tenant.name), &tenant.place)?;
        if let Some(vlan) = tenant.vlan {
            used.take(format!("VLAN {vlan}"), &tenant.place)?;
        }
        if let Some(queue) = tenant.queue {
            outside_has(bridge, queue, &tenant.place)?;
        }
    }
    for router in &bridge.routers {
        used.take(format!("router {}", router.name), &router.place)?;
        used.take(format!("hardware address {}", router.mac), &router.place)?;
        if let Hop::Port(port) = &router.by {
            used.take(format!("port {port}"), &router.place)?;
        }
        if let Some(vlan) = router.vlan
            && !bridge
                .tenants
                .iter()
                .any(|tenant| tenant.vlan == Some(vlan))
        {
            let what = format!("no tenant has VLAN {vlan}, so nobody could use this router");
            return Err(PolicyError::together(&router.place, what));
        }
    }
    sets_and_limits(bridge, &mut used)?;
    if bridge.containers.len() > MAX_CONTAINERS {
        let what = format!("more than {MAX_CONTAINERS} containers on one bridge");
        return Err(PolicyError::together(&bridge.place, what));
    }
    for container in &bridge.containers {
        self::container(bridge, container, &mut used)?;
    }
    Ok(())
}

fn sets_and_limits(bridge: &Bridge, used: &mut Used) -> Result<(), PolicyError> {
    if bridge.sets.len() > MAX_SETS || bridge.limits.len() > MAX_SETS {
        let what = format!("more than {MAX_SETS} sets or limits on one bridge");
        return Err(PolicyError::together(&bridge.place, what));
    }
    for set in &bridge.sets {
        used.take(format!("set {}", set.name), &set.place)?;
        if !set
            .name
            .as_str()
            .starts_with(|c: char| c.is_ascii_lowercase())
        {
            let what = "a set's name begins with a letter, so that it is not taken for a network";
            return Err(PolicyError::together(&set.place, what));
        }
        if set.v4.is_empty() && set.v6.is_empty() {
            return Err(PolicyError::together(
                &set.place,
                "a set without networks is never met",
            ));
        }
    }
    for limit in &bridge.limits {
        used.take(format!("limit {}", limit.name), &limit.place)?;
        if limit.from.is_empty() {
            return Err(PolicyError::together(
                &limit.place,
                "a limit without sources limits nothing",
            ));
        }
    }
    Ok(())
}

fn container(bridge: &Bridge, container: &Container, used: &mut Used) -> Result<(), PolicyError> {
    let place = &container.place;
    used.take(format!("container {}", container.id), place)?;
    used.take(format!("port {}", container.port), place)?;
    used.take(format!("hardware address {}", container.mac), place)?;
    let tenant = tenant_of(bridge, container)?;
    let network = tenant
        .vlan
        .map_or_else(String::new, |vlan| format!(" in VLAN {vlan}"));
    let count = container.addresses.len();
    if !(1..=MAX_ADDRESSES).contains(&count) {
        let what = format!(
            "{count} addresses: 1 to {MAX_ADDRESSES} are needed, also those that DHCP will give it, because from others nothing passes"
        );
        return Err(PolicyError::together(format!("{place}.addresses"), what));
    }
    for (at, address) in container.addresses.iter().enumerate() {
        used.take(
            format!("address {address}{network}"),
            &format!("{place}.addresses[{at}]"),
        )?;
    }
    for (rules, key) in [(&container.inward, "in"), (&container.outward, "out")] {
        self::rules(bridge, rules, &format!("{place}.{key}"))?;
    }
    for class in &container.classes {
        match class.way {
            Way::Out => outside_has(bridge, class.queue, &class.place)?,
            Way::In if has(container.qos.as_ref(), class.queue) => {}
            Way::In => {
                let what = format!(
                    "the port {} has no queue {}; set it under qos of the container",
                    container.port, class.queue
                );
                return Err(PolicyError::together(&class.place, what));
            }
        }
    }
    if container.routes.len() > MAX_RULES || container.classes.len() > MAX_RULES {
        let what = format!("more than {MAX_RULES} routes or classes");
        return Err(PolicyError::together(place, what));
    }
    for (at, route) in container.routes.iter().enumerate() {
        self::route(bridge, tenant.vlan, route)?;
        let first = container
            .routes
            .iter()
            .position(|other| match (&other.what, &route.what) {
                (Routed::To(a), Routed::To(b)) => a == b,
                _ => false,
            });
        if let Some(first) = first.filter(|first| *first != at) {
            let problem = Problem::Twice {
                what: "the route to this set".to_owned(),
                other: format!("{place}.routes[{first}]"),
            };
            return Err(PolicyError::at(&route.place, problem));
        }
    }
    nat(container, &network, used)
}

fn tenant_of<'a>(bridge: &'a Bridge, container: &Container) -> Result<&'a Tenant, PolicyError> {
    bridge
        .tenants
        .iter()
        .find(|tenant| tenant.name == container.tenant)
        .ok_or_else(|| {
            nowhere(
                "tenant",
                &container.tenant,
                format!("{}.tenant", container.place),
            )
        })
}

fn nowhere(what: &'static str, name: &Name, place: impl Into<String>) -> PolicyError {
    let name = name.to_string();
    PolicyError::at(place, Problem::Nowhere { what, name })
}

fn rules(bridge: &Bridge, rules: &Rules, place: &str) -> Result<(), PolicyError> {
    for list in [&rules.accept, &rules.drop] {
        if list.len() > MAX_RULES {
            let what = format!("more than {MAX_RULES} rules of one kind");
            return Err(PolicyError::together(place, what));
        }
        for rule in list {
            for peer in &rule.peers {
                if let Peer::Set(name) = peer {
                    set_exists(bridge, name, &rule.place)?;
                }
            }
        }
    }
    Ok(())
}

fn set_exists(bridge: &Bridge, name: &Name, place: &str) -> Result<(), PolicyError> {
    if bridge.sets.iter().any(|set| set.name == *name) {
        Ok(())
    } else {
        Err(nowhere("set", name, place))
    }
}

fn route(bridge: &Bridge, vlan: Option<VlanTag>, route: &Route) -> Result<(), PolicyError> {
    if let Routed::To(name) = &route.what {
        set_exists(bridge, name, &format!("{}.to", route.place))?;
    }
    let via = format!("{}.via", route.place);
    let router = bridge
        .routers
        .iter()
        .find(|router| router.name == route.via)
        .ok_or_else(|| nowhere("router", &route.via, &via))?;
    if router.vlan == vlan {
        return Ok(());
    }
    let what = format!(
        "the router {} is not in the VLAN of this tenant, so its answers would not come back",
        route.via
    );
    Err(PolicyError::together(via, what))
}

fn has(qos: Option<&Qos>, queue: QueueId) -> bool {
    qos.is_some_and(|qos| qos.queues.iter().any(|there| there.queue == queue))
}

fn outside_has(bridge: &Bridge, queue: QueueId, place: &str) -> Result<(), PolicyError> {
    if bridge
        .outside
        .iter()
        .any(|port| has(port.qos.as_ref(), queue))
    {
        return Ok(());
    }
    let what = format!("no port outside has a queue {queue}; set it under qos of the port");
    Err(PolicyError::together(place, what))
}

fn nat(container: &Container, network: &str, used: &mut Used) -> Result<(), PolicyError> {
    let Some(nat) = &container.nat else {
        return Ok(());
    };
    used.take(format!("address {}{network}", nat.source), &nat.place)?;
    if !container.addresses.iter().any(IpAddr::is_ipv4) {
        let what = "the container has no IPv4 address that could be translated";
        return Err(PolicyError::together(&nat.place, what));
    }
    let mut ports = BTreeMap::new();
    for published in &nat.publish {
        let name = match published.proto {
            Proto::Udp => "udp",
            Proto::Sctp => "sctp",
            _ => "tcp",
        };
        if ports.insert((name, published.port.get()), ()).is_some() {
            let what = format!("port {} ({name}) leads to two ports", published.port);
            return Err(PolicyError::together(
                format!("{}.publish", nat.place),
                what,
            ));
        }
    }
    Ok(())
}
