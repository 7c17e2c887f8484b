//! Table 3: what happens to packets that may go: another way for some services and networks, queues for others. Only what
//! passed access control gets here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::access::spoken;
use super::ground::{BASE, Draft, FAMILIES, and, container_owner, goto, reg, set, table};
use super::policy::{Container, Hop, Routed, Router, Side};
use super::read::PolicyError;
use super::sets::{Way, networks};

/// The first route of a container; each further one has one less.
const ROUTES: u32 = 35_000;
const TO_SETS: u32 = 25_000;
/// The first class of a container; each further one has one less.
const CLASSES: u32 = 15_000;
const OF_TENANT: u32 = 10_000;

pub(super) fn base(draft: &mut Draft<'_>) -> Result<(), PolicyError> {
    draft.put(BASE, table::TREAT, 0, json!({}), vec![goto(table::DELIVER)])
}

/// To a router: its hardware address, one hop less, and out.
fn hop(draft: &Draft<'_>, router: &Router) -> Vec<Value> {
    let mac = set("dl_dst", router.mac.to_string());
    match &router.by {
        Hop::Port(port) => vec![mac, json!("dec_ttl"), json!({ "output": port })],
        // The host's own routing takes the hop away.
        Hop::Mark(mark) => vec![
            mac,
            set("pkt_mark", *mark),
            json!({"output": draft.bridge.name}),
        ],
    }
}

fn set_priority(draft: &Draft<'_>, name: &str) -> u32 {
    let rank = draft
        .bridge
        .sets
        .iter()
        .position(|set| set.name.as_str() == name);
    TO_SETS - rank.and_then(|rank| u32::try_from(rank).ok()).unwrap_or(0)
}

pub(super) fn container(draft: &mut Draft<'_>, container: &Container) -> Result<(), PolicyError> {
    let tenant = draft.tenant(container)?;
    let owner = container_owner(container);
    let from = json!({reg::SOURCE: draft.tag(container)});
    let to = json!({reg::ZONE: tenant.zone, "dl_dst": container.mac.to_string()});
    for (rank, route) in (0..).zip(&container.routes) {
        match &route.what {
            Routed::Services(services) => {
                let Some(router) = draft.router(route.via.as_str()) else {
                    continue;
                };
                let actions = hop(draft, router);
                for family in FAMILIES {
                    for service in services {
                        for matching in spoken(service, family, "tp_dst") {
                            let matching = and(from.clone(), matching);
                            let actions = actions.clone();
                            draft.put(&owner, table::TREAT, ROUTES - rank, matching, actions)?;
                        }
                    }
                }
            }
            Routed::To(name) => {
                let way = Way {
                    set: name.to_string(),
                    via: route.via.to_string(),
                };
                let id = draft.conjunction(&way.key());
                let half = json!({"conjunction": {"id": id, "clause": 1, "of": 2}});
                let priority = set_priority(draft, name.as_str());
                draft.put(&owner, table::TREAT, priority, from.clone(), vec![half])?;
            }
        }
    }
    for (rank, class) in (0..).zip(&container.classes) {
        let (whose, field) = match (class.way, class.side) {
            (super::policy::Way::Out, Side::Remote) => (&from, "tp_dst"),
            (super::policy::Way::Out, Side::Own) => (&from, "tp_src"),
            (super::policy::Way::In, Side::Remote) => (&to, "tp_src"),
            (super::policy::Way::In, Side::Own) => (&to, "tp_dst"),
        };
        for family in FAMILIES {
            for matching in spoken(&class.service, family, field) {
                let matching = and(whose.clone(), matching);
                let actions = vec![json!({"set_queue": class.queue}), goto(table::DELIVER)];
                draft.put(&owner, table::TREAT, CLASSES - rank, matching, actions)?;
            }
        }
    }
    if let Some(queue) = tenant.queue {
        let actions = vec![json!({ "set_queue": queue }), goto(table::DELIVER)];
        draft.put(&owner, table::TREAT, OF_TENANT, from, actions)?;
    }
    Ok(())
}

/// The other halves: the networks of each set, and the way that is taken where both halves are met.
pub(super) fn sets(draft: &mut Draft<'_>, ways: &BTreeSet<Way>) -> Result<(), PolicyError> {
    let mut by_set: BTreeMap<&str, Vec<&Way>> = BTreeMap::new();
    for way in ways {
        by_set.entry(way.set.as_str()).or_default().push(way);
    }
    for (name, ways) in by_set {
        let priority = set_priority(draft, name);
        let halves: Vec<Value> = ways
            .iter()
            .map(|way| json!({"conjunction": {"id": draft.conjunction(&way.key()), "clause": 2, "of": 2}}))
            .collect();
        if halves.len() > 64 {
            let what = format!("the set {name} is reached by more than 64 routers");
            return Err(PolicyError::together(&draft.bridge.place, what));
        }
        networks(
            draft,
            name,
            table::TREAT,
            priority,
            false,
            json!({}),
            &halves,
        );
        for way in ways {
            let Some(router) = draft.router(&way.via) else {
                continue;
            };
            let id = draft.conjunction(&way.key());
            for family in FAMILIES {
                let matching = json!({"conj_id": id, "dl_type": family.dl_type});
                let owner = super::ground::set_owner(name);
                draft.put(&owner, table::TREAT, priority, matching, hop(draft, router))?;
            }
        }
    }
    Ok(())
}
