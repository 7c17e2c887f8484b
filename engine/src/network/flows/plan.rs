//! From what a bridge should be told and what `ovs-list` says of it to the actions that are still needed, in an order in
//! which less passes meanwhile, never more. Pure.

use std::collections::{BTreeMap, BTreeSet};

use blockhost_proto::action::Action;
use blockhost_proto::value::SwitchIfName;
use serde_json::{Value, json};

use super::ground::FIRST_METER;
use super::{Compiled, rank};

/// What begins the name of every owner of ours.
const OURS: &str = "net.";

/// What a host says of its bridges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    bridges: BTreeMap<String, ObservedBridge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct ObservedBridge {
    ports: BTreeSet<String>,
    owners: BTreeSet<String>,
    /// Unit, rate, burst.
    meters: BTreeMap<u32, (String, u64, u64)>,
}

/// What is needed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steps {
    /// In this order.
    pub actions: Vec<Action>,
    /// Ports of the bridges that no policy names: nothing passes there.
    pub strangers: Vec<(SwitchIfName, String)>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObservedError {
    /// Not what `ovs-list` answers.
    #[error("the answer of ovs-list has no {0} where one belongs")]
    Answer(&'static str),
    /// A bridge that is not there.
    #[error("there is no bridge {bridge}; make it first (ovs-add-br)")]
    NoBridge {
        /// The bridge.
        bridge: SwitchIfName,
    },
    /// Ports that are not there.
    #[error("the bridge {bridge} has no port {}; attach it first (ovs-add-port)", ports.join(", "))]
    NoPorts {
        /// The bridge.
        bridge: SwitchIfName,
        /// The ports that the policy names.
        ports: Vec<String>,
    },
}

impl Observed {
    /// Reads the `output` of `ovs-list`.
    ///
    /// # Errors
    /// [`ObservedError::Answer`].
    pub fn read(answer: &Value) -> Result<Self, ObservedError> {
        let mut bridges = BTreeMap::new();
        for bridge in list(answer, "bridges")? {
            let name = text(bridge, "name")?;
            let mut seen = ObservedBridge::default();
            for port in list(bridge, "ports")? {
                seen.ports.insert(text(port, "name")?);
            }
            // A bridge that does not answer has neither.
            if bridge.get("error").is_none() {
                for owner in list(bridge, "owners")? {
                    if let Some(owner) = owner["owner"].as_str() {
                        seen.owners.insert(owner.to_owned());
                    }
                }
                for meter in list(bridge, "meters")? {
                    let number = |key| meter[key].as_u64().ok_or(ObservedError::Answer(key));
                    let id = u32::try_from(number("meter")?)
                        .map_err(|_| ObservedError::Answer("meter"))?;
                    let burst = meter["burst"].as_u64().unwrap_or(0);
                    seen.meters
                        .insert(id, (text(meter, "unit")?, number("rate")?, burst));
                }
            }
            bridges.insert(name, seen);
        }
        Ok(Self { bridges })
    }
}

fn list<'a>(value: &'a Value, key: &'static str) -> Result<&'a Vec<Value>, ObservedError> {
    value[key].as_array().ok_or(ObservedError::Answer(key))
}

fn text(value: &Value, key: &'static str) -> Result<String, ObservedError> {
    value[key]
        .as_str()
        .map(str::to_owned)
        .ok_or(ObservedError::Answer(key))
}

/// What is needed for all of these bridges. Flows are always set: the agent compares them with the switch's and sends only
/// the difference. Owners that the policy no longer has lose their flows, meters without use go last.
///
/// # Errors
/// [`ObservedError`] where bridges or ports are missing.
pub fn plan(desired: &[Compiled], observed: &Observed) -> Result<Steps, ObservedError> {
    let mut steps = Steps::default();
    for compiled in desired {
        let bridge = &compiled.bridge;
        let Some(seen) = observed.bridges.get(bridge.as_str()) else {
            return Err(ObservedError::NoBridge {
                bridge: bridge.clone(),
            });
        };
        let named = ports_of(compiled);
        let missing: Vec<String> = named.difference(&seen.ports).cloned().collect();
        if !missing.is_empty() {
            return Err(ObservedError::NoPorts {
                bridge: bridge.clone(),
                ports: missing,
            });
        }
        let strangers = seen
            .ports
            .difference(&named)
            .filter(|port| *port != bridge.as_str());
        steps
            .strangers
            .extend(strangers.map(|port| (bridge.clone(), port.clone())));
        steps.actions.extend(compiled.qos.iter().cloned());
        let changed = compiled
            .meters
            .iter()
            .filter(|(id, meter)| !seen.meters.get(id).is_some_and(|there| is(meter, there)));
        steps
            .actions
            .extend(changed.map(|(_, meter)| meter.clone()));
        steps
            .actions
            .extend(compiled.flows.iter().map(|(_, flows)| flows.clone()));
        steps.actions.extend(retire(bridge, seen, |owner| {
            compiled
                .flows
                .iter()
                .any(|(wanted, _)| wanted.as_str() == owner)
        }));
        for id in seen.meters.keys() {
            if *id >= FIRST_METER && !compiled.meters.contains_key(id) {
                let params = json!({"bridge": bridge, "meter": id});
                steps
                    .actions
                    .extend(Action::from_parts("ovs-set-meter", &params));
            }
        }
    }
    Ok(steps)
}

/// Everything of ours taken off a bridge: containers first, so that nothing passes unchecked before the end.
///
/// # Errors
/// [`ObservedError::NoBridge`].
pub fn clear(bridge: &SwitchIfName, observed: &Observed) -> Result<Vec<Action>, ObservedError> {
    let Some(seen) = observed.bridges.get(bridge.as_str()) else {
        return Err(ObservedError::NoBridge {
            bridge: bridge.clone(),
        });
    };
    let mut actions = retire(bridge, seen, |_| false);
    let meters = seen.meters.keys().filter(|id| **id >= FIRST_METER);
    actions.extend(meters.filter_map(|id| {
        Action::from_parts("ovs-set-meter", &json!({"bridge": bridge, "meter": id})).ok()
    }));
    Ok(actions)
}

fn retire(
    bridge: &SwitchIfName,
    seen: &ObservedBridge,
    wanted: impl Fn(&str) -> bool,
) -> Vec<Action> {
    let mut gone: Vec<&String> = seen
        .owners
        .iter()
        .filter(|owner| owner.starts_with(OURS) && !wanted(owner))
        .collect();
    gone.sort_by_key(|owner| std::cmp::Reverse(rank(owner)));
    gone.into_iter()
        .filter_map(|owner| {
            let params = json!({"bridge": bridge, "owner": owner, "flows": []});
            Action::from_parts("ovs-set-flows", &params).ok()
        })
        .collect()
}

/// Whether a meter is set as wanted; where no burst is wanted, the switch's own is good.
fn is(wanted: &Action, (unit, rate, burst): &(String, u64, u64)) -> bool {
    let Action::OvsSetMeter(wanted) = wanted else {
        return false;
    };
    wanted.unit.as_str() == unit
        && wanted
            .rate
            .is_some_and(|wanted| u64::from(wanted.get()) == *rate)
        && wanted
            .burst
            .is_none_or(|wanted| u64::from(wanted.get()) == *burst)
}

/// Every port that flows or queues name.
fn ports_of(compiled: &Compiled) -> BTreeSet<String> {
    use blockhost_proto::flow::{FlowAction, PortRef};
    let mut names = BTreeSet::new();
    let mut note = |port: Option<&PortRef>| {
        if let Some(PortRef::Name(name)) = port {
            names.insert(name.to_string());
        }
    };
    for (_, action) in &compiled.flows {
        let Action::OvsSetFlows(set) = action else {
            continue;
        };
        for flow in set.flows.iter() {
            note(flow.matching.in_port());
            for action in &flow.actions {
                if let FlowAction::Output(port) = action {
                    note(Some(port));
                }
            }
        }
    }
    names
}
