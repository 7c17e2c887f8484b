//! Table 1: whose connections a packet belongs to. What comes from outside in a container's name is dropped; what is for
//! a container goes through the zone of its tenant, ARP, ND and DHCP around it; the rest concerns nobody inside.

use blockhost_proto::routing;
use serde_json::{Value, json};

use super::ground::{
    BASE, BROADCAST, Draft, FAMILIES, and, container_owner, drop, flag, goto, reg, set, table,
    tenant_owner, vlan_of,
};
use super::policy::{Container, Tenant};
use super::read::PolicyError;
use super::security::{NEVER_ROUTED, addresses_v6, to_udp};

const PRETENDED: u32 = 30_000;
const ROUTERS: u32 = 29_000;
const ANSWERED: u32 = 28_000;
const NEIGHBOURS: u32 = 25_000;
const FAR_NEIGHBOURS: u32 = 24_500;
const DHCP: u32 = 24_000;
const FOR_CONTAINER: u32 = 20_000;
const ARP: u32 = 18_000;
const FROM_TENANT: u32 = 10_000;
const WORLD: u32 = 1_000;

/// From outside, and not yet anybody's.
fn unsorted(more: Value) -> Value {
    and(json!({reg::ZONE: 0}), more)
}

/// Around connection tracking.
fn free() -> Vec<Value> {
    vec![set(reg::FLAGS, flag::FREE), goto(table::DELIVER)]
}

pub(super) fn base(draft: &mut Draft<'_>) -> Result<(), PolicyError> {
    let mut put =
        |priority, more, actions| draft.put(BASE, table::TRACK, priority, unsorted(more), actions);
    // Solicitations, advertisements, routers' advertisements, queries for groups: by those of the link only, which the
    // hop limit shows.
    let hops = [
        (135, NEVER_ROUTED),
        (136, NEVER_ROUTED),
        (134, NEVER_ROUTED),
        (130, 1),
    ];
    for (kind, hops) in hops {
        let matching = json!({"dl_type": "ipv6", "nw_proto": "icmp6", "icmp_type": kind});
        let near = and(matching.clone(), json!({ "nw_ttl": hops }));
        put(NEIGHBOURS, near, free())?;
        put(FAR_NEIGHBOURS, matching, drop())?;
    }
    let answer = json!({"dl_dst": BROADCAST, "dl_type": "ip", "nw_proto": "udp", "tp_src": 67, "tp_dst": 68});
    put(DHCP, answer, free())?;
    put(ARP, json!({"dl_type": "arp"}), free())?;
    put(WORLD, json!({}), vec![goto(table::DELIVER)])?;
    draft.put(BASE, table::TRACK, 0, json!({}), drop())?;
    no_routers(draft)
}

/// What routers tell one another, from a container. Those that are routers here do not pass table 0's rules for containers, and
/// those outside may.
fn no_routers(draft: &mut Draft<'_>) -> Result<(), PolicyError> {
    let mut put = |more: Value| {
        let matching = and(json!({reg::FLAGS: flag::INSIDE}), more);
        draft.put(BASE, table::TRACK, ROUTERS, matching, drop())
    };
    for kind in routing::ICMP_KINDS {
        put(json!({"dl_type": "ip", "nw_proto": "icmp", "icmp_type": kind}))?;
    }
    for family in FAMILIES {
        for protocol in routing::PROTOCOLS {
            put(json!({"dl_type": family.dl_type, "nw_proto": protocol}))?;
        }
        for port in routing::PORTS {
            put(to_udp(family.dl_type, port))?;
        }
        for port in routing::GROUP_PORTS {
            put(and(
                to_udp(family.dl_type, port),
                json!({ family.dst: family.many }),
            ))?;
        }
    }
    Ok(())
}

pub(super) fn tenant(draft: &mut Draft<'_>, tenant: &Tenant) -> Result<(), PolicyError> {
    let track = draft.track(tenant);
    for family in FAMILIES {
        let matching = json!({reg::ZONE: tenant.zone, "dl_type": family.dl_type});
        let owner = tenant_owner(tenant);
        draft.put(
            &owner,
            table::TRACK,
            FROM_TENANT,
            matching,
            vec![track.clone()],
        )?;
    }
    Ok(())
}

pub(super) fn container(draft: &mut Draft<'_>, container: &Container) -> Result<(), PolicyError> {
    let tenant = draft.tenant(container)?;
    let owner = container_owner(container);
    let vlan = vlan_of(tenant);
    let track = draft.track(tenant);
    let mac = container.mac.to_string();
    let mut put = |priority, more: Value, actions: Vec<Value>| {
        draft.put(&owner, table::TRACK, priority, unsorted(more), actions)
    };
    put(PRETENDED, json!({"dl_src": mac}), drop())?;
    for address in container
        .addresses
        .iter()
        .filter(|address| address.is_ipv4())
    {
        let claim = json!({reg::VLAN: vlan, "dl_type": "arp", "arp_spa": address});
        put(PRETENDED, claim, drop())?;
    }
    for address in addresses_v6(container) {
        let advert = json!({reg::VLAN: vlan, "dl_type": "ipv6", "nw_proto": "icmp6", "icmp_type": 136, "nd_target": address});
        put(PRETENDED, advert, drop())?;
        // Who is asked keeps the asker's hardware address.
        let asks = json!({reg::VLAN: vlan, "dl_type": "ipv6", "nw_proto": "icmp6", "icmp_type": 135, "ipv6_src": address});
        put(PRETENDED, asks, drop())?;
    }
    let to = json!({reg::VLAN: vlan, "dl_dst": mac});
    for family in FAMILIES {
        let matching = and(to.clone(), json!({"dl_type": family.dl_type}));
        put(
            FOR_CONTAINER,
            matching,
            vec![set(reg::ZONE, tenant.zone), track.clone()],
        )?;
    }
    if container.dhcp {
        for (dl_type, from, port) in [("ip", 67, 68), ("ipv6", 547, 546)] {
            let answer =
                json!({"dl_type": dl_type, "nw_proto": "udp", "tp_src": from, "tp_dst": port});
            put(DHCP, and(to.clone(), answer), free())?;
        }
    }
    if let Some(nat) = &container.nat {
        let asked = json!({reg::VLAN: vlan, "dl_type": "arp", "arp_op": 1, "arp_tpa": nat.source});
        let mut answer = vec![
            json!({"move": {"from": {"field": "dl_src"}, "into": {"field": "dl_dst"}}}),
            set("dl_src", mac.clone()),
            set("arp_op", 2),
            json!({"move": {"from": {"field": "arp_sha"}, "into": {"field": "arp_tha"}}}),
            json!({"move": {"from": {"field": "arp_spa"}, "into": {"field": "arp_tpa"}}}),
            set("arp_sha", mac.clone()),
            set("arp_spa", nat.source.to_string()),
        ];
        if vlan != 0 {
            answer.push(json!({"push_vlan": vlan}));
        }
        answer.push(json!("in_port"));
        put(ANSWERED, asked, answer)?;
        // Nobody else may say that it is his.
        let claim = json!({reg::VLAN: vlan, "dl_type": "arp", "arp_spa": nat.source});
        put(PRETENDED, claim, drop())?;
    }
    Ok(())
}
