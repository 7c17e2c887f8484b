//! Table 0: who may send what. A container's port carries its hardware address, its addresses and no tag; ARP, ND and
//! DHCP only as a client of its own; what comes from outside is sorted by VLAN and held to its rates.

use std::net::{IpAddr, Ipv6Addr};

use blockhost_proto::qm::MacAddress;
use serde_json::{Value, json};

use super::ground::{
    BASE, BROADCAST, Draft, FAMILIES, FOREIGN, GROUPS_V6, SINGLE, and, container_owner, drop, flag,
    goto, limit_key, or_drop, out_key, reg, set, table, to_all_outside, vlan_of,
};
use super::policy::{Container, Fragments, Hop, Network};
use super::read::PolicyError;

const RESERVED: u32 = 65_000;
const PIECES: u32 = 64_000;
/// The first limit; each further one has one less.
const LIMITS: u32 = 60_000;
const GOOD: u32 = 50_000;
/// Neighbour discovery to groups that [`GOOD`] has not let through.
const FAR_GROUP: u32 = 49_800;
/// Neighbour discovery to one neighbour.
const NEAR: u32 = 49_500;
const BAD: u32 = 49_000;
const OWN: u32 = 48_000;
const REST: u32 = 40_000;
const TAGGED: u32 = 30_000;
const PLAIN: u32 = 29_000;
const OTHER_TAG: u32 = 28_000;

const SOLICIT: u8 = 135;
const ADVERT: u8 = 136;
const NO_OPTION: &str = "00:00:00:00:00:00";
/// The hop limit of neighbour discovery (RFC 4861): no router has passed it on, and none will.
pub(super) const NEVER_ROUTED: u8 = 255;

/// What holds for all: reserved addresses, packets in pieces, ports outside.
pub(super) fn base(draft: &mut Draft<'_>) -> Result<(), PolicyError> {
    let put = |draft: &mut Draft<'_>, priority, matching, actions| {
        draft.put(BASE, table::SECURITY, priority, matching, actions)
    };
    // LLDP by its type; spanning tree, pause frames and others of their kind by their addresses.
    put(draft, RESERVED, json!({"dl_type": 0x88cc}), drop())?;
    let reserved = json!({"dl_dst": "01:80:c2:00:00:00/ff:ff:ff:ff:ff:f0"});
    put(draft, RESERVED, reserved, drop())?;
    if draft.bridge.fragments == Fragments::Drop {
        for family in FAMILIES {
            let pieces = json!({"dl_type": family.dl_type, "nw_frag": "yes"});
            put(draft, PIECES, pieces, drop())?;
        }
    }
    let bridge = draft.bridge;
    let vlans = draft.vlans();
    for port in &bridge.outside {
        let from = |vlan: u16| match vlan {
            0 => json!({"in_port": port.port, "vlan": "none"}),
            tag => json!({"in_port": port.port, "vlan": tag}),
        };
        for vlan in &vlans {
            let priority = if *vlan == 0 { PLAIN } else { TAGGED };
            put(draft, priority, from(*vlan), enter_from_outside(*vlan))?;
            for (rank, limit) in (0..).zip(&bridge.limits) {
                let meter = draft.meter(&limit_key(limit.name.as_str()));
                for network in &limit.from {
                    let matching = and(from(*vlan), source(*network));
                    let metered = [vec![json!({ "meter": meter })], enter_from_outside(*vlan)];
                    put(draft, LIMITS - rank, matching, metered.concat())?;
                }
            }
        }
        let foreign = vec![set(reg::VLAN, FOREIGN), goto(table::DELIVER)];
        put(draft, OTHER_TAG, json!({"in_port": port.port}), foreign)?;
    }
    for router in &bridge.routers {
        if let Hop::Port(port) = &router.by {
            let vlan = router.vlan.map_or(0, |vlan| vlan.get());
            let mut actions = Vec::new();
            if vlan != 0 {
                actions.push(set(reg::VLAN, vlan));
            }
            actions.push(goto(table::TRACK));
            put(
                draft,
                PLAIN,
                json!({"in_port": port, "vlan": "none"}),
                actions,
            )?;
        }
    }
    put(draft, 0, json!({}), drop())
}

fn enter_from_outside(vlan: u16) -> Vec<Value> {
    if vlan == 0 {
        vec![goto(table::TRACK)]
    } else {
        vec![json!("pop_vlan"), set(reg::VLAN, vlan), goto(table::TRACK)]
    }
}

fn source(network: Network) -> Value {
    match network {
        Network::V4(prefix) => json!({"dl_type": "ip", "nw_src": prefix}),
        Network::V6(prefix) => json!({"dl_type": "ipv6", "ipv6_src": prefix}),
    }
}

/// The link-local address that a hardware address makes (RFC 4291, appendix A).
pub(super) fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes();
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        word(a ^ 2, b),
        word(c, 0xff),
        word(0xfe, d),
        word(e, f),
    )
}

/// A container's IPv6 addresses: what it was given and its link-local one. None without any: then no IPv6 at all.
pub(super) fn addresses_v6(container: &Container) -> Vec<Ipv6Addr> {
    let mut addresses: Vec<Ipv6Addr> = container
        .addresses
        .iter()
        .filter_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        })
        .collect();
    let own = link_local(container.mac);
    if !addresses.is_empty() && !addresses.contains(&own) {
        addresses.push(own);
    }
    addresses
}

/// One container's port.
pub(super) fn container(draft: &mut Draft<'_>, container: &Container) -> Result<(), PolicyError> {
    let tenant = draft.tenant(container)?;
    let owner = container_owner(container);
    let vlan = vlan_of(tenant);
    let enter = |flags: u32, next: u8| {
        let mut actions = vec![
            set(reg::SOURCE, draft.tag(container)),
            set(reg::ZONE, tenant.zone),
            set(reg::FLAGS, flags),
        ];
        if vlan != 0 {
            actions.push(set(reg::VLAN, vlan));
        }
        actions.push(goto(next));
        actions
    };
    // Whatever it sends counts, also what goes around the rules. A meter comes first or not at all.
    let meter = container
        .rate_out
        .map(|_| json!({"meter": draft.meter(&out_key(container))}));
    let metered = |actions: Vec<Value>| {
        let first = meter.clone().filter(|_| !actions.is_empty());
        first.into_iter().chain(actions).collect::<Vec<Value>>()
    };
    let free = metered(enter(flag::INSIDE | flag::FREE, table::DELIVER));
    let tracked = metered(enter(flag::INSIDE, table::TRACK));
    let outside = or_drop(metered(to_all_outside(draft.bridge, vlan)));
    let mac = container.mac.to_string();
    let sent = json!({"in_port": container.port, "vlan": "none", "dl_src": mac});
    let mut put = |priority: u32, more: Value, actions: &Vec<Value>| {
        let matching = and(sent.clone(), more);
        draft.put(&owner, table::SECURITY, priority, matching, actions.clone())
    };

    for address in container
        .addresses
        .iter()
        .filter(|address| address.is_ipv4())
    {
        put(
            GOOD,
            json!({"dl_type": "arp", "arp_sha": mac, "arp_spa": address}),
            &free,
        )?;
        // Who asks whether an address is in use has none yet.
        let probe = json!({"dl_type": "arp", "arp_op": 1, "arp_sha": mac, "arp_spa": "0.0.0.0", "arp_tpa": address});
        put(GOOD, probe, &free)?;
        put(OWN, json!({"dl_type": "ip", "nw_src": address}), &tracked)?;
    }
    put(BAD, to_udp("ip", 68), &drop())?;
    if container.dhcp {
        let ask = json!({"dl_dst": BROADCAST, "nw_src": "0.0.0.0", "nw_dst": "255.255.255.255"});
        put(GOOD, and(udp("ip", 68, 67), ask), &outside)?;
    }
    v6(container, &mac, &free, &tracked, &outside, &mut put)?;
    draft.put(
        &owner,
        table::SECURITY,
        REST,
        json!({"in_port": container.port}),
        drop(),
    )
}

type Put<'a> = dyn FnMut(u32, Value, &Vec<Value>) -> Result<(), PolicyError> + 'a;

fn v6(
    container: &Container,
    mac: &str,
    free: &Vec<Value>,
    tracked: &Vec<Value>,
    outside: &Vec<Value>,
    put: &mut Put<'_>,
) -> Result<(), PolicyError> {
    let addresses = addresses_v6(container);
    let local = link_local(container.mac);
    let nobody = Ipv6Addr::UNSPECIFIED;
    for address in &addresses {
        let probe = json!({"ipv6_src": nobody, "nd_target": address, "nd_sll": NO_OPTION});
        put(
            GOOD,
            and(neighbour(SOLICIT), and(probe, on_the_link())),
            free,
        )?;
        for option in [mac, NO_OPTION] {
            let solicit = json!({"ipv6_src": address, "nd_sll": option});
            to_neighbours(put, &and(neighbour(SOLICIT), solicit), free)?;
            for from in [*address, local] {
                let advert = json!({"ipv6_src": from, "nd_target": address, "nd_tll": option});
                to_neighbours(put, &and(neighbour(ADVERT), advert), free)?;
            }
        }
        // Asking for routers, and joining groups (MLD): for those outside only.
        for kind in [133, 131, 132, 143] {
            put(GOOD, to_group(kind, *address), outside)?;
        }
        put(
            OWN,
            json!({"dl_type": "ipv6", "ipv6_src": address}),
            tracked,
        )?;
    }
    if addresses.is_empty() {
        return Ok(());
    }
    for kind in [133, 143] {
        put(GOOD, to_group(kind, nobody), outside)?;
    }
    for kind in [SOLICIT, ADVERT] {
        put(
            FAR_GROUP,
            and(nd(kind), json!({"ipv6_dst": "ff00::/8"})),
            &drop(),
        )?;
    }
    // No router, no redirect, and no neighbour but itself.
    for kind in [133, 134, SOLICIT, ADVERT, 137, 130, 131, 132, 143] {
        put(BAD, nd(kind), &drop())?;
    }
    put(BAD, to_udp("ipv6", 546), &drop())?;
    if container.dhcp {
        let ask = json!({"ipv6_src": local, "ipv6_dst": "ff02::1:2"});
        put(GOOD, and(udp("ipv6", 546, 547), ask), outside)?;
    }
    Ok(())
}

fn nd(kind: u8) -> Value {
    json!({"dl_type": "ipv6", "nw_proto": "icmp6", "icmp_type": kind})
}

/// Neighbour discovery that no router passes on.
fn neighbour(kind: u8) -> Value {
    and(nd(kind), json!({ "nw_ttl": NEVER_ROUTED }))
}

/// To groups of the link.
fn on_the_link() -> Value {
    json!({"dl_dst": GROUPS_V6, "ipv6_dst": "ff02::/16"})
}

/// Neighbour discovery to groups of the link and to single neighbours. The policy knows no prefixes, so these are all
/// addresses that are no groups, at a hardware address that is none either.
fn to_neighbours(
    put: &mut Put<'_>,
    matching: &Value,
    actions: &Vec<Value>,
) -> Result<(), PolicyError> {
    put(GOOD, and(matching.clone(), on_the_link()), actions)?;
    put(
        NEAR,
        and(matching.clone(), json!({ "dl_dst": SINGLE })),
        actions,
    )
}

/// What asks groups for routers or speaks of groups: to groups only, or it would carry anything anywhere.
fn to_group(kind: u8, from: Ipv6Addr) -> Value {
    and(
        nd(kind),
        json!({"ipv6_src": from, "dl_dst": GROUPS_V6, "ipv6_dst": "ff00::/8"}),
    )
}

/// UDP to a port, from whatever port it comes: who asks for addresses takes an answer from any.
pub(super) fn to_udp(dl_type: &str, port: u16) -> Value {
    json!({"dl_type": dl_type, "nw_proto": "udp", "tp_dst": port})
}

fn udp(dl_type: &str, from: u16, to: u16) -> Value {
    json!({"dl_type": dl_type, "nw_proto": "udp", "tp_src": from, "tp_dst": to})
}
