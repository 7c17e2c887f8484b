//! Table 4 and those behind it: out of which port. Each container's address leads to its port and only in its own zone;
//! broadcasts reach the tenant and those outside; nothing is learned and nothing flooded, so no packet is anywhere by chance.

use serde_json::{Value, json};

use super::ground::{
    BASE, Draft, FOREIGN, MULTICAST, container_owner, drop, flag, hear_each_other, in_key, or_drop,
    reg, table, tenant_owner, to_all_outside, to_one, to_the_world, vlan_of,
};
use super::policy::{Bridge, Container, Hop, Tenant};
use super::read::PolicyError;

const FOR_CONTAINER: u32 = 30_000;
const WALL: u32 = 20_000;
const KNOWN_OUTSIDE: u32 = 15_000;
const FREE_BROADCAST: u32 = 12_500;
const BROADCAST: u32 = 12_000;
const WORLD: u32 = 5_000;

/// Ports in one flow: with a tag and the jump to the next table it stays within what a flow may hold.
const PORTS_PER_FLOW: usize = 60;

/// Outputs of any number, in as many tables as that takes.
fn spread(
    draft: &mut Draft<'_>,
    owner: &str,
    priority: u32,
    matching: &Value,
    inside: &[Value],
    outside: &[Value],
) -> Result<(), PolicyError> {
    let mut at = table::DELIVER;
    let mut rest = inside;
    while rest.len() + outside.len() > PORTS_PER_FLOW {
        let (now, later) = rest.split_at(rest.len().min(PORTS_PER_FLOW));
        if at == table::LAST || now.is_empty() {
            let what = "more ports than a broadcast can reach";
            return Err(PolicyError::together(&draft.bridge.place, what));
        }
        let mut actions = now.to_vec();
        actions.push(json!({"resubmit": at + 1}));
        draft.put(owner, at, priority, matching.clone(), actions)?;
        rest = later;
        at += 1;
    }
    let actions = or_drop([rest, outside].concat());
    draft.put(owner, at, priority, matching.clone(), actions)
}

/// Ports of routers in a VLAN.
fn routers(bridge: &Bridge, vlan: u16) -> impl Iterator<Item = Value> + '_ {
    bridge
        .routers
        .iter()
        .filter(move |router| router.vlan.map_or(0, |vlan| vlan.get()) == vlan)
        .filter_map(|router| match &router.by {
            Hop::Port(port) => Some(json!({ "output": port })),
            Hop::Mark(_) => None,
        })
}

pub(super) fn base(draft: &mut Draft<'_>) -> Result<(), PolicyError> {
    let bridge = draft.bridge;
    let mut tagged = draft.vlans();
    tagged.push(FOREIGN);
    for port in &bridge.outside {
        for mac in &port.macs {
            for vlan in &tagged {
                let matching = json!({reg::VLAN: vlan, "dl_dst": mac.to_string()});
                let actions = to_one(port.port.as_str(), *vlan);
                draft.put(BASE, table::DELIVER, KNOWN_OUTSIDE, matching, actions)?;
            }
        }
    }
    for router in &bridge.routers {
        let vlan = router.vlan.map_or(0, |vlan| vlan.get());
        let matching = json!({reg::VLAN: vlan, "dl_dst": router.mac.to_string()});
        let port = match &router.by {
            Hop::Port(port) => port,
            Hop::Mark(_) => &bridge.name,
        };
        let actions = to_one(port.as_str(), 0);
        draft.put(BASE, table::DELIVER, KNOWN_OUTSIDE, matching, actions)?;
    }
    for vlan in &tagged {
        let all = to_all_outside(bridge, *vlan);
        let matching = json!({reg::ZONE: 0, reg::VLAN: vlan, "dl_dst": MULTICAST});
        draft.put(
            BASE,
            table::DELIVER,
            BROADCAST,
            matching.clone(),
            or_drop(all.clone()),
        )?;
        let world = or_drop(to_the_world(bridge, *vlan));
        draft.put(BASE, table::DELIVER, WORLD, json!({reg::VLAN: vlan}), world)?;
        if *vlan == FOREIGN {
            continue;
        }
        // ARP, ND and DHCP from outside: everybody in the VLAN hears it.
        let mut inside: Vec<Value> = Vec::new();
        for container in &bridge.containers {
            if vlan_of(draft.tenant(container)?) == *vlan {
                inside.push(json!({"output": container.port}));
            }
        }
        inside.extend(routers(bridge, *vlan));
        let free = super::ground::and(matching, json!({reg::FLAGS: flag::FREE}));
        spread(draft, BASE, FREE_BROADCAST, &free, &inside, &all)?;
    }
    draft.put(BASE, table::DELIVER, 0, json!({}), drop())
}

pub(super) fn tenant(draft: &mut Draft<'_>, tenant: &Tenant) -> Result<(), PolicyError> {
    let bridge = draft.bridge;
    let vlan = vlan_of(tenant);
    let outside = to_all_outside(bridge, vlan);
    let mut inside: Vec<Value> = bridge
        .containers
        .iter()
        .filter(|container| container.tenant == tenant.name)
        .map(|container| json!({"output": container.port}))
        .collect();
    inside.extend(routers(bridge, vlan));
    let owner = tenant_owner(tenant);
    let matching = json!({reg::ZONE: tenant.zone, "dl_dst": MULTICAST});
    let free = json!({reg::FLAGS: flag::INSIDE | flag::FREE});
    let free = super::ground::and(matching.clone(), free);
    spread(draft, &owner, FREE_BROADCAST, &free, &inside, &outside)?;
    let heard = if hear_each_other(tenant) {
        &inside[..]
    } else {
        &[]
    };
    spread(draft, &owner, BROADCAST, &matching, heard, &outside)
}

pub(super) fn container(draft: &mut Draft<'_>, container: &Container) -> Result<(), PolicyError> {
    let tenant = draft.tenant(container)?;
    let owner = container_owner(container);
    let mut actions = vec![json!({"output": container.port})];
    if container.rate_in.is_some() {
        actions.insert(0, json!({"meter": draft.meter(&in_key(container))}));
    }
    let mac = container.mac.to_string();
    let mut put = |priority, matching, actions| {
        draft.put(&owner, table::DELIVER, priority, matching, actions)
    };
    let own = json!({reg::ZONE: tenant.zone, "dl_dst": mac});
    put(FOR_CONTAINER, own, actions.clone())?;
    // From outside around connection tracking, in its own VLAN only.
    let free =
        json!({reg::ZONE: 0, reg::FLAGS: flag::FREE, reg::VLAN: vlan_of(tenant), "dl_dst": mac});
    put(FOR_CONTAINER, free, actions)?;
    put(WALL, json!({"dl_dst": mac}), drop())
}
