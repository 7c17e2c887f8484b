//! Lists of networks as the second half of conditions: one flow per network, whoever uses the list.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::ground::{Draft, FAMILIES, and, set_owner};
use super::policy::{Container, Routed};

/// A way to a set that containers share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    pub(super) set: String,
    pub(super) via: String,
}

impl Way {
    pub(super) fn key(&self) -> String {
        format!("way {} {}", self.via, self.set)
    }
}

/// Every way to a set that these containers take.
pub(super) fn ways<'a>(containers: impl IntoIterator<Item = &'a Container>) -> BTreeSet<Way> {
    let routes = containers
        .into_iter()
        .flat_map(|container| &container.routes);
    routes
        .filter_map(|route| match &route.what {
            Routed::To(set) => Some(Way {
                set: set.to_string(),
                via: route.via.to_string(),
            }),
            Routed::Services(_) => None,
        })
        .collect()
}

/// A flow for each network of a set, with these halves of conjunctions.
pub(super) fn networks(
    draft: &mut Draft<'_>,
    name: &str,
    table: u8,
    priority: u32,
    source: bool,
    matching: Value,
    halves: &[Value],
) {
    let Some(set) = draft
        .bridge
        .sets
        .iter()
        .find(|set| set.name.as_str() == name)
    else {
        return;
    };
    let owner = set_owner(name);
    for family in FAMILIES {
        let values: Vec<String> = match family.dl_type {
            "ip" => set.v4.iter().map(ToString::to_string).collect(),
            _ => set.v6.iter().map(ToString::to_string).collect(),
        };
        let field = if source { family.src } else { family.dst };
        let flow = json!({
            "table": table, "priority": priority, "actions": halves,
            "match": and(matching.clone(), json!({"dl_type": family.dl_type})),
        });
        draft.put_rows(&owner, flow, &format!("/match/{field}"), values);
    }
}
