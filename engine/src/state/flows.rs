//! Flows of the switch, all of one owner on one bridge at a time, in the catalog's typed form. What a flow does cannot be
//! read back from the switch, only which flows there are: that the actions are right is known from the record.

use std::collections::{BTreeMap, BTreeSet};

use blockhost_proto::action::OvsList;
use blockhost_proto::flow::FlowSet;
use blockhost_proto::value::{FlowOwner, Param, SwitchIfName, Text};
use serde::Serialize;
use serde_json::{Value, json};

use super::change::{Planned, ResourceRef, Step, step};
use super::fields::{Fields, Place, Wrong};
use super::footprint::hash;
use super::host::{Host, HostError, read};
use super::kind::{Entry, Kind, Scope};
use super::lxc::owner_of;

/// The flows of one owner on one bridge, as the document has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The bridge.
    pub bridge: SwitchIfName,
    /// Whose they are.
    pub owner: FlowOwner,
    /// The flows.
    pub flows: FlowSet,
}

/// How many flows there are of each table and priority.
type Places = BTreeMap<(u64, u64), u64>;

/// The flows of one owner on one bridge, as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// How many.
    pub count: u64,
    /// How many of each table and priority; none where the switch has more of them than it lists.
    #[serde(skip)]
    places: Option<Places>,
}

/// Flows.
#[derive(Debug, Clone, Copy)]
pub struct Flows;

impl Kind for Flows {
    const NAME: &'static str = "ovsflows";
    const HANDOVER: &'static str = "take another owner";
    type Wanted = Wanted;
    type Found = Found;

    fn read(&self, mut section: Fields<'_>) -> Result<BTreeMap<String, Wanted>, Wrong> {
        let mut all = BTreeMap::new();
        for (item, place) in section.list("flows")? {
            let wanted = owned(item, place.clone())?;
            let id = format!("{}/{}", wanted.bridge, wanted.owner);
            if all.insert(id, wanted).is_some() {
                let problem = "this owner has flows on this bridge already; put them together";
                return Err(Wrong::new(place.key("owner"), problem));
            }
        }
        section.finish()?;
        Ok(all)
    }

    fn show(&self, wanted: &Wanted) -> Value {
        json!({"bridge": wanted.bridge, "owner": wanted.owner, "flows": wanted.flows.to_json()})
    }

    fn revive(&self, _id: &str, shown: &Value) -> Option<Wanted> {
        owned(shown, Place::top()).ok()
    }

    fn look(
        &self,
        host: &mut dyn Host,
        scope: Scope<'_>,
    ) -> Result<BTreeMap<String, Found>, HostError> {
        if matches!(scope, Scope::These(ids) if ids.is_empty()) {
            return Ok(BTreeMap::new());
        }
        let everything = OvsList {
            bridge: None,
            flows: false,
            owner: None,
        };
        let list = read(host, everything)?;
        let mut found = BTreeMap::new();
        for bridge in list["bridges"].as_array().into_iter().flatten() {
            let name = bridge["name"].as_str().unwrap_or_default();
            for owner in bridge["owners"].as_array().into_iter().flatten() {
                let Some(of) = owner["owner"].as_str() else {
                    continue;
                };
                let id = format!("{name}/{of}");
                if !scope.holds(&id) {
                    continue;
                }
                let count = owner["flows"].as_u64().unwrap_or_default();
                let places = match scope {
                    Scope::These(_) => places(host, name, of)?,
                    Scope::Everything => None,
                };
                found.insert(id, Found { count, places });
            }
        }
        Ok(found)
    }

    fn plan(
        &self,
        _id: &str,
        wanted: &Wanted,
        found: Option<&Found>,
        before: Option<&Entry>,
    ) -> Planned {
        plan(wanted, found, before, &self.show(wanted))
    }

    fn plan_delete(&self, id: &str, found: &Found, before: &Entry) -> Planned {
        let mut planned = Planned::nothing(true);
        let Some((bridge, owner)) = id.split_once('/') else {
            return planned;
        };
        planned.differs("flows", found.count, Value::Null);
        let say = format!("Removed the {} flows of {owner} from {bridge}", found.count);
        let gone = set(say, bridge, owner, &json!([]));
        let old = before.finished.then(|| before.wanted["flows"].clone());
        planned.step(gone.and_then(|gone| put_back(gone, bridge, owner, old)));
        planned
    }

    fn needs(&self, _id: &str, wanted: &Wanted) -> Vec<ResourceRef> {
        let mut names = BTreeSet::new();
        texts(&wanted.flows.to_json().unwrap_or_default(), &mut names);
        let containers: BTreeSet<String> = names.iter().filter_map(|n| owner_of(n)).collect();
        let bridge = wanted.bridge.as_str();
        let mut needs = vec![ResourceRef::new("net", bridge)];
        // Ports of the bridge that the document may have, too.
        let ports = names
            .iter()
            .filter(|name| SwitchIfName::read(name).is_some());
        needs.extend(ports.map(|port| ResourceRef::new("net", format!("{bridge}/{port}"))));
        needs.extend(containers.into_iter().map(|id| ResourceRef::new("lxc", id)));
        needs
    }
}

fn owned(item: &Value, place: Place) -> Result<Wanted, Wrong> {
    let mut fields = Fields::new(item, place)?;
    let wanted = Wanted {
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

/// Every text of a value: names of ports among them.
fn texts(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            into.insert(text.clone());
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, into)),
        Value::Object(map) => map.values().for_each(|item| texts(item, into)),
        _ => {}
    }
}

/// Which flows there are, by table and priority.
fn places(host: &mut dyn Host, bridge: &str, owner: &str) -> Result<Option<Places>, HostError> {
    let (Some(bridge), Some(owner)) = (SwitchIfName::read(bridge), FlowOwner::read(owner)) else {
        return Ok(None);
    };
    let action = OvsList {
        bridge: Some(bridge),
        flows: true,
        owner: Some(owner),
    };
    let list = read(host, action)?;
    let about = &list["bridges"][0];
    if about["flows_left_out"].as_u64() != Some(0) {
        return Ok(None);
    }
    let mut places = Places::new();
    for flow in about["flows"].as_array().into_iter().flatten() {
        let number = |key: &str| flow[key].as_u64().unwrap_or_default();
        *places
            .entry((number("table"), number("priority")))
            .or_default() += 1;
    }
    Ok(Some(places))
}

fn set(say: String, bridge: &str, owner: &str, flows: &Value) -> Result<Step, String> {
    let params = json!({"bridge": bridge, "owner": owner, "flows": flows});
    step(say, "ovs-set-flows", &params)
}

/// With the flows that there were, where that is known.
fn put_back(step: Step, bridge: &str, owner: &str, old: Option<Value>) -> Result<Step, String> {
    match old {
        Some(old) => {
            let say = format!("put back the flows of {owner} on {bridge}");
            Ok(step.undone_by(set(say, bridge, owner, &old)?))
        }
        None => Ok(step),
    }
}

fn plan(wanted: &Wanted, found: Option<&Found>, before: Option<&Entry>, shown: &Value) -> Planned {
    let (bridge, owner) = (wanted.bridge.as_str(), wanted.owner.as_str());
    let mut planned = Planned::nothing(true);
    let mut places = Places::new();
    for flow in wanted.flows.iter() {
        let place = (u64::from(flow.table.get()), u64::from(flow.priority.get()));
        *places.entry(place).or_default() += 1;
    }
    let count: u64 = places.values().sum();
    let recorded = before.filter(|entry| entry.finished);
    let same_as_recorded = recorded.is_some_and(|entry| entry.wanted == *shown);
    let as_many = found.is_some_and(|found| {
        found.count == count && found.places.as_ref().is_none_or(|there| *there == places)
    });
    if as_many && same_as_recorded {
        return planned;
    }
    let is = found.map_or(0, |found| found.count);
    if !as_many {
        planned.differs("flows", is, count);
    }
    if !same_as_recorded {
        let from = recorded.map(|entry| hash(&entry.wanted["flows"]));
        planned.differs("sha256", from, hash(&shown["flows"]));
    }
    let flows = shown["flows"].clone();
    let say = format!("Set the {count} flows of {owner} on {bridge}");
    let old = match (is, recorded) {
        (0, _) => Some(json!([])),
        (_, Some(entry)) => Some(entry.wanted["flows"].clone()),
        (_, None) => None,
    };
    let made = set(say, bridge, owner, &flows);
    planned.step(made.and_then(|step| put_back(step, bridge, owner, old)));
    planned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(flows: Value) -> Wanted {
        owned(
            &json!({"bridge": "br", "owner": "web", "flows": flows}),
            Place::top(),
        )
        .expect("good")
    }

    fn two() -> Wanted {
        wanted(json!([
            {"priority": 1, "match": {"in_port": "vi100"}, "actions": ["drop"]},
            {"priority": 2, "actions": [{"output": "eth1"}]}]))
    }

    fn entry(wanted: &Wanted, finished: bool) -> Entry {
        Entry {
            wanted: Flows.show(wanted),
            finished,
        }
    }

    fn found(places: &[(u64, u64)]) -> Found {
        let mut map = BTreeMap::new();
        for place in places {
            *map.entry(*place).or_default() += 1;
        }
        Found {
            count: places.len() as u64,
            places: Some(map),
        }
    }

    #[test]
    fn flows_that_are_there_as_they_were_recorded_are_left_alone() {
        let planned = Flows.plan(
            "",
            &two(),
            Some(&found(&[(0, 1), (0, 2)])),
            Some(&entry(&two(), true)),
        );
        assert!(planned.is_settled(), "{planned:?}");
    }

    #[test]
    fn flows_are_set_when_they_are_others_fewer_elsewhere_or_not_known_for_sure() {
        let there = found(&[(0, 1), (0, 2)]);
        let other = wanted(json!([{"actions": ["drop"]}]));
        for (found, before) in [
            (None, Some(entry(&two(), true))),
            (Some(found(&[(0, 1)])), Some(entry(&two(), true))),
            (Some(found(&[(0, 1), (7, 2)])), Some(entry(&two(), true))),
            (Some(there.clone()), Some(entry(&other, true))),
            (Some(there.clone()), Some(entry(&two(), false))),
            (Some(there.clone()), None),
        ] {
            let planned = Flows.plan("", &two(), found.as_ref(), before.as_ref());
            assert_eq!(planned.steps.len(), 1, "{planned:?}");
        }
    }

    #[test]
    fn what_was_there_is_put_back_only_where_that_is_known() {
        let undo = |found: Option<Found>, before: Option<Entry>| {
            Flows
                .plan("", &two(), found.as_ref(), before.as_ref())
                .steps[0]
                .undo
                .len()
        };
        let other = wanted(json!([{"actions": ["drop"]}]));
        assert_eq!(undo(None, None), 1);
        assert_eq!(undo(Some(found(&[(0, 1)])), Some(entry(&other, true))), 1);
        assert_eq!(undo(Some(found(&[(0, 1)])), None), 0);
    }

    #[test]
    fn flows_need_their_bridge_and_the_containers_that_they_name() {
        let needs: Vec<String> = Flows
            .needs("", &two())
            .iter()
            .map(ToString::to_string)
            .collect();
        for need in ["net/br", "net/br/eth1", "lxc/100"] {
            assert!(needs.contains(&need.to_owned()), "{needs:?}");
        }
    }
}
