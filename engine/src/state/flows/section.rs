//! The section `ovsflows` of the document, both ways.

use std::collections::BTreeMap;

use blockhost_proto::action::OvsSetFlows;
use serde_json::{Value, json};

use super::Wanted;
use crate::network::flows::{OURS, Policy, PolicyError, compile};
use crate::state::fields::{Fields, Place, Wrong};

/// Takes the section apart.
pub(super) fn read(mut section: Fields<'_>) -> Result<BTreeMap<String, Wanted>, Wrong> {
    let mut all = BTreeMap::new();
    let mut bridges = Vec::new();
    for (item, _) in section.list("bridges")? {
        bridges.push(item.clone());
    }
    let place = section.place().to_string();
    for (wanted, item) in policies(bridges, &place)? {
        // Two policies for one bridge are no policy: the compiler has refused them.
        all.insert(wanted, item);
    }
    for (item, place) in section.list("flows")? {
        let wanted = owned(item, place.clone())?;
        if wanted.owner.as_str().starts_with(OURS) && all.contains_key(wanted.bridge.as_str()) {
            let problem = format!(
                "owners that begin with {OURS} are the policy's on this bridge; take another name"
            );
            return Err(Wrong::new(place.key("owner"), problem));
        }
        let id = format!("{}/{}", wanted.bridge, wanted.owner);
        if all.insert(id, Wanted::Owner(wanted)).is_some() {
            let problem = "this owner has flows on this bridge already; put them together";
            return Err(Wrong::new(place.key("owner"), problem));
        }
    }
    section.finish()?;
    Ok(all)
}

/// Each bridge's policy with what it means, by the bridge's name.
fn policies(given: Vec<Value>, place: &str) -> Result<Vec<(String, Wanted)>, Wrong> {
    let wrong = |error: PolicyError| Wrong::new(place_of(&error.place), error.problem.to_string());
    let policy = Policy::read(&json!({ "bridges": given }), place).map_err(wrong)?;
    let compiled = compile(&policy).map_err(wrong)?;
    let all = given.into_iter().zip(compiled).map(|(given, compiled)| {
        let compiled = Box::new(compiled);
        (
            compiled.bridge.to_string(),
            Wanted::Policy { given, compiled },
        )
    });
    Ok(all.collect())
}

/// A place as the policy writes it: `plugins.ovsflows.bridges[0].tenants[1].zone`.
fn place_of(text: &str) -> Place {
    text.split('.').fold(Place::top(), |place, part| {
        let (name, indices) = part.split_once('[').unwrap_or((part, ""));
        let indices = indices
            .split('[')
            .filter_map(|index| index.strip_suffix(']'));
        let indices = indices.filter_map(|index| index.parse().ok());
        indices.fold(place.key(name), |place, index: usize| place.at(index))
    })
}

fn owned(item: &Value, place: Place) -> Result<OvsSetFlows, Wrong> {
    let mut fields = Fields::new(item, place)?;
    let wanted = OvsSetFlows {
        bridge: fields.need("bridge")?,
        owner: fields.need("owner")?,
        flows: fields.need("flows")?,
    };
    if wanted.flows.is_empty() {
        let problem = "without any flow there is nothing to look after; leave the owner out, and --prune removes its flows";
        return Err(fields.wrong("flows", problem));
    }
    fields.finish()?;
    Ok(wanted)
}

/// Back from what was recorded: an owner's flows have an owner, a policy has none.
pub(super) fn revive(shown: &Value) -> Option<Wanted> {
    if shown.get("owner").is_some() {
        return owned(shown, Place::top()).ok().map(Wanted::Owner);
    }
    let policies = policies(vec![shown.clone()], "ovsflows").ok()?;
    policies.into_iter().next().map(|(_, wanted)| wanted)
}
