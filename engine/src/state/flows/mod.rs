//! Flows of the switch, in two forms: all of one owner on one bridge in the catalog's own words (`ovsbr0/web`), and a
//! bridge's whole policy, which the compiler makes flows, meters and queues of (`ovsbr0`). What is right is told by the
//! switch and by the fingerprints that the agent keeps there; the record only says what to go back to. The section is in
//! `section`, looking is here.

mod section;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use blockhost_proto::action::{Action, OvsList, OvsSetFlows};
use blockhost_proto::value::{FlowOwner, Param, SwitchIfName, Text};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::change::{Careful, Planned, ResourceRef, Step};
use super::fields::{Fields, Wrong};
use super::host::{Host, HostError, read};
use super::kind::{Entry, Kind, Scope};
use super::lxc::owner_of;
use crate::network::flows::{
    Compiled, Difference, OURS, Observed, ObservedBridge, differences, removal, strangers,
};

/// Flows as the document has them.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// All flows of one owner on a bridge.
    Owner(OvsSetFlows),
    /// A bridge's policy.
    Policy {
        /// As the document has it.
        given: Value,
        /// What it means.
        compiled: Box<Compiled>,
    },
}

/// Flows as they are: a bridge's, or one owner's on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    bridge: Arc<ObservedBridge>,
    owner: Option<String>,
}

impl Serialize for Found {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let owner = |name: &String| self.bridge.owners().get(name);
        match &self.owner {
            None => self.bridge.show().serialize(out),
            Some(name) => json!({
                "flows": owner(name).map(|owner| owner.flows),
                "as_set": owner(name).and_then(|owner| owner.as_set),
            })
            .serialize(out),
        }
    }
}

/// Flows.
#[derive(Debug, Clone, Copy)]
pub struct Flows;

impl Kind for Flows {
    const NAME: &'static str = "ovsflows";
    const HANDOVER: &'static str = "take another owner";
    type Wanted = Wanted;
    type Found = Found;

    fn read(&self, section: Fields<'_>) -> Result<BTreeMap<String, Wanted>, Wrong> {
        section::read(section)
    }

    fn show(&self, wanted: &Wanted) -> Value {
        match wanted {
            Wanted::Owner(set) => {
                json!({"bridge": set.bridge, "owner": set.owner, "flows": set.flows.to_json()})
            }
            Wanted::Policy { given, .. } => given.clone(),
        }
    }

    fn revive(&self, _id: &str, shown: &Value) -> Option<Wanted> {
        section::revive(shown)
    }

    fn look(
        &self,
        host: &mut dyn Host,
        scope: Scope<'_>,
    ) -> Result<BTreeMap<String, Found>, HostError> {
        let everything = OvsList {
            bridge: None,
            flows: false,
            owner: None,
        };
        let list = Observed::read(&read(host, everything)?).map_err(|error| HostError::Answer {
            action: "ovs-list",
            what: error.to_string(),
        })?;
        let mut found = BTreeMap::new();
        for (name, bridge) in list.into_bridges() {
            let bridge = Arc::new(bridge);
            for owner in bridge.owners().keys() {
                // What a policy made is shown with its bridge.
                let shown = !(owner.starts_with(OURS) && matches!(scope, Scope::Everything));
                let id = format!("{name}/{owner}");
                if shown && scope.holds(&id) {
                    let (bridge, owner) = (bridge.clone(), Some(owner.clone()));
                    found.insert(id, Found { bridge, owner });
                }
            }
            let asked_for = matches!(scope, Scope::These(_)) && scope.holds(&name);
            if asked_for || bridge.has_policy() && scope.holds(&name) {
                let owner = None;
                found.insert(name, Found { bridge, owner });
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
        match wanted {
            Wanted::Owner(set) => plan_owner(set, found, before),
            Wanted::Policy { given, compiled } => plan_policy(given, compiled, found, before),
        }
    }

    fn plan_delete(&self, id: &str, found: &Found, before: &Entry) -> Planned {
        if let (Some((bridge, owner)), Some(count)) = (id.split_once('/'), found.count()) {
            let mut planned = Planned::nothing(true);
            planned.differs("flows", count, Value::Null);
            if let (Some(bridge), Some(owner)) =
                (SwitchIfName::read(bridge), FlowOwner::read(owner))
            {
                planned.careful = Some(Careful::Flows(bridge.clone()));
                let nothing = OvsSetFlows {
                    bridge,
                    owner,
                    flows: Default::default(),
                };
                let old = owners(found, before);
                planned
                    .steps
                    .push(step(nothing.into(), old.map(Action::from)));
            }
            return planned;
        }
        let Some(bridge) = SwitchIfName::read(id) else {
            return Planned::nothing(true);
        };
        let old = revived(Some(before));
        let old = policies(&old, &found.bridge);
        let old: Vec<&Compiled> = old.iter().map(AsRef::as_ref).collect();
        let mut planned = planned(&bridge, removal(&bridge, &old, &found.bridge));
        if !found.bridge.is_standalone() {
            // Tenants are not to be in one network because somebody took their rules away.
            planned.notes.push(format!(
                "{bridge} stays secure: nothing passes there until it has other flows, or `fail_mode: standalone` in the section net"
            ));
        }
        planned
    }

    fn needs(&self, _id: &str, wanted: &Wanted) -> Vec<ResourceRef> {
        let (bridge, ports): (_, BTreeSet<SwitchIfName>) = match wanted {
            Wanted::Owner(set) => (
                &set.bridge,
                set.flows.port_names().into_iter().cloned().collect(),
            ),
            Wanted::Policy { compiled, .. } => {
                let ports = compiled.ports().into_iter();
                let others = ports.filter(|port| !compiled.guests.contains(port));
                (&compiled.bridge, others.collect())
            }
        };
        let mut needs = vec![ResourceRef::new("net", bridge.as_str())];
        needs.extend(behind(bridge, &ports));
        needs
    }

    fn after(&self, _id: &str, wanted: &Wanted) -> Vec<ResourceRef> {
        match wanted {
            Wanted::Owner(_) => Vec::new(),
            Wanted::Policy { compiled, .. } => behind(&compiled.bridge, &compiled.guests),
        }
    }

    fn remarks(&self, wanted: &Wanted, found: &Found) -> Vec<String> {
        match wanted {
            Wanted::Owner(_) => Vec::new(),
            Wanted::Policy { compiled, .. } => notes(compiled, &found.bridge),
        }
    }

    fn is_there(&self, found: &Found) -> bool {
        match &found.owner {
            Some(_) => found.count().is_some(),
            None => found.bridge.has_policy(),
        }
    }
}

impl Found {
    /// Flows of the owner.
    fn count(&self) -> Option<u64> {
        let owner = self.bridge.owners().get(self.owner.as_ref()?)?;
        Some(owner.flows)
    }
}

/// What the document may have that makes these ports.
fn behind(bridge: &SwitchIfName, ports: &BTreeSet<SwitchIfName>) -> Vec<ResourceRef> {
    let names = ports.iter().map(SwitchIfName::as_str);
    let names: Vec<&str> = names.filter(|port| *port != bridge.as_str()).collect();
    let containers: BTreeSet<String> = names.iter().copied().filter_map(owner_of).collect();
    let ports = names
        .iter()
        .map(|port| ResourceRef::new("net", format!("{bridge}/{port}")));
    let containers = containers.into_iter().map(|id| ResourceRef::new("lxc", id));
    ports.chain(containers).collect()
}

/// What may be there by the record, as far as that can be read: an apply that was killed leaves the one or the other.
fn revived(before: Option<&Entry>) -> Vec<Wanted> {
    let known = before.into_iter().flat_map(Entry::may_be_there);
    known.filter_map(section::revive).collect()
}

/// As far as they can be set again on the bridge as it is.
fn policies<'a>(known: &'a [Wanted], seen: &ObservedBridge) -> Vec<Cow<'a, Compiled>> {
    let policies = known.iter().filter_map(|wanted| match wanted {
        Wanted::Policy { compiled, .. } => Some(compiled.as_far_as_possible(seen)),
        Wanted::Owner(_) => None,
    });
    policies.collect()
}

/// What the switch holds of an owner; where that was changed by hand, what was applied to its end. What an apply was at when
/// it was killed, and the switch does not hold, was never there.
fn owners(found: &Found, entry: &Entry) -> Option<OvsSetFlows> {
    let known = revived(Some(entry));
    let mut sets = known.iter().filter_map(|wanted| match wanted {
        Wanted::Owner(set) => Some(set),
        Wanted::Policy { .. } => None,
    });
    let held = sets.clone().find(|set| found.bridge.has(set));
    held.or_else(|| sets.next().filter(|_| entry.whole().is_some()))
        .cloned()
}

fn step(action: Action, undo: Option<Action>) -> Step {
    let say = |action: &Action| match action {
        Action::OvsSetFlows(set) if set.flows.is_empty() => {
            format!("Removed the flows of {} from {}", set.owner, set.bridge)
        }
        Action::OvsSetFlows(set) => {
            format!(
                "Set the {} flows of {} on {}",
                set.flows.len(),
                set.owner,
                set.bridge
            )
        }
        Action::OvsSetMeter(meter) => {
            let what = if meter.rate.is_some() {
                "Set"
            } else {
                "Removed"
            };
            format!("{what} meter {} of {}", meter.meter, meter.bridge)
        }
        Action::OvsSetQos(qos) => format!("Set limits and queues of {}", qos.port),
        other => other.name().to_owned(),
    };
    let step = Step::new(say(&action), action);
    match undo {
        Some(undo) => step.undone_by(Step::new(format!("take back: {}", say(&undo)), undo)),
        None => step,
    }
}

/// How much care flows take on a bridge as it is.
fn careful(bridge: &SwitchIfName, seen: &ObservedBridge) -> Careful {
    let bridge = bridge.clone();
    match seen.passes_nothing() {
        true => Careful::FirstFlows(bridge),
        false => Careful::Flows(bridge),
    }
}

fn planned(bridge: &SwitchIfName, differences: Vec<Difference>) -> Planned {
    let mut planned = Planned::nothing(true);
    if !differences.is_empty() {
        planned.careful = Some(Careful::Flows(bridge.clone()));
    }
    for difference in differences {
        planned.differs(difference.field, difference.from, difference.to);
        planned.steps.push(step(difference.action, difference.undo));
    }
    planned
}

fn plan_owner(wanted: &OvsSetFlows, found: Option<&Found>, before: Option<&Entry>) -> Planned {
    let mut planned = Planned::nothing(true);
    if found.is_some_and(|found| !found.bridge.needs(wanted)) {
        return planned;
    }
    let count = found.and_then(Found::count);
    let owner = |found: &Found| found.bridge.owners().get(wanted.owner.as_str()).cloned();
    let is = found.and_then(owner).map(|owner| owner.show());
    let to = match count {
        Some(count) if count == wanted.flows.len() as u64 => "others".into(),
        _ => format!("{} flows", wanted.flows.len()),
    };
    planned.differs("flows", is, to);
    let old = match found.filter(|_| count.is_some()) {
        None => Some(OvsSetFlows {
            flows: Default::default(),
            ..wanted.clone()
        }),
        Some(found) => before.and_then(|entry| owners(found, entry)),
    };
    let nothing = ObservedBridge::default();
    let seen = found.map_or(&nothing, |found| &*found.bridge);
    planned.careful = Some(careful(&wanted.bridge, seen));
    planned
        .steps
        .push(step(wanted.clone().into(), old.map(Action::from)));
    planned
}

const SECURE: &str = "secure";
const STANDALONE: &str = "standalone";

/// The switch forgets flows when it is started again. Without them nothing is to pass.
fn secure(bridge: &SwitchIfName) -> Result<Step, String> {
    let with = |say: String, mode: &str| {
        let params = json!({"bridge": bridge, "options": {"fail_mode": mode}});
        super::change::step(say, "ovs-add-br", &params)
    };
    let made = with(
        format!("Made bridge {bridge} secure: nothing passes without its flows"),
        SECURE,
    )?;
    let undo = with(format!("make bridge {bridge} standalone again"), STANDALONE)?;
    Ok(made.undone_by(undo))
}

/// What somebody should know of a policy on the bridge as it is.
fn notes(wanted: &Compiled, seen: &ObservedBridge) -> Vec<String> {
    let absent = wanted.absent(seen).into_iter();
    let mut notes: Vec<String> = absent
        .map(|port| format!("{port} is not on the bridge: its flows are set by the next apply that finds it there"))
        .collect();
    if seen.is_standalone() && !seen.is_ours() {
        notes.push(format!(
            "whenever the switch is started, everything passes until the flows are set again; it was not made here, so make it \
             secure by hand: ovs-vsctl set-fail-mode {} secure, then apply once more",
            wanted.bridge
        ));
    }
    let strangers = strangers(wanted, seen);
    if !strangers.is_empty() {
        let names = strangers
            .iter()
            .map(|name| blockhost_proto::escape::shown(name));
        let names: Vec<String> = names.collect();
        notes.push(format!(
            "nothing passes at {}: the policy does not name it",
            names.join(", ")
        ));
    }
    notes
}

fn plan_policy(
    given: &Value,
    wanted: &Compiled,
    found: Option<&Found>,
    before: Option<&Entry>,
) -> Planned {
    let nothing = ObservedBridge::default();
    let seen = found.map_or(&nothing, |found| &found.bridge);
    // Compiling takes time, and most often it is the same policy.
    let same = before.is_some_and(|entry| entry.may_be_there().all(|known| known == given));
    let revived = if same { Vec::new() } else { revived(before) };
    // Of a bridge that is just to be made nobody knows yet which ports it will have.
    let possible = match found {
        Some(_) => wanted.as_far_as_possible(seen),
        None => Cow::Borrowed(wanted),
    };
    let mut known = policies(&revived, seen);
    if same {
        known.push(Cow::Borrowed(&possible));
    }
    let known: Vec<&Compiled> = known.iter().map(AsRef::as_ref).collect();
    let mut planned = planned(&wanted.bridge, differences(&possible, &known, seen));
    if !planned.steps.is_empty() {
        planned.careful = Some(careful(&wanted.bridge, seen));
    }
    if seen.is_standalone() && seen.is_ours() {
        // After the flows: before them nothing would pass.
        planned.differs("fail_mode", STANDALONE, SECURE);
        planned.careful = Some(Careful::Flows(wanted.bridge.clone()));
        planned.step(secure(&wanted.bridge));
    }
    if found.is_some() {
        planned.awaits = behind(&wanted.bridge, &wanted.absent(seen));
        planned.notes = notes(wanted, seen);
    }
    planned
}

#[cfg(test)]
mod tests;
